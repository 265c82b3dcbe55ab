"""Frames as bytes: equal ones are equal in every bit, nulls, NaN and the types too."""

import io

import polars as pl


def ipc_bytes(*frames: pl.DataFrame) -> bytes:
    """Return the frames in Arrow's file format, one after the other."""
    buffer = io.BytesIO()
    for frame in frames:
        frame.write_ipc(buffer)
    return buffer.getvalue()
