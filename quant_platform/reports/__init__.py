"""Typed frames in, self-contained pages out. Pure rendering: no lake, no clock."""
