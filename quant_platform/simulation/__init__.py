"""Seeded markets that write the venues' real file formats, so that the real parsers run on them."""
