"""All that is replayed in one order of time, block by block. Blocks are made in a thread, while others are sent."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_platform.feeds._replay_faults import DROP, PLAIN, Unruly
from quant_platform.feeds._replay_market import Market
from quant_platform.feeds._replay_messages import DEPTH, SNAPSHOT, Shift
from quant_platform.feeds._replay_sources import Source

KEYS_PER_MARKET = 8
NOT_SENT = -1
_FOR_THE_BOOK = 7
_ROWS_READ_AHEAD = 100_000
_LEAST_ROWS, _MOST_ROWS = 512, 16_384


class Played(NamedTuple):
    """A market with where its messages come from, and how they are shifted."""

    market: Market
    sources: Sequence[Source]
    shift: Shift


class Block(NamedTuple):
    """A stretch of messages in the order of sending, a place a message.

    Attributes:
        at: The recording's clock, ns; never falls.
        key: The stream, as a number: the market's position * 8 + the kind.
        send_key: The same; -1 where nothing is sent.
        note: Which fault it is (`_replay_faults.NOTES`).
        data: The message's `data`; of a malformed one the whole frame.
        books: The places of messages that the venue's own books are made of, which are not sent themselves.
        snapshots: Those among `books` that are snapshots.
    """

    at: npt.NDArray[np.int64]
    key: npt.NDArray[np.int64]
    send_key: list[int]
    note: npt.NDArray[np.uint8]
    data: list[bytes]
    books: npt.NDArray[np.int64]
    snapshots: list[int]


def blocks(played: Sequence[Played], start: int, unruly: Unruly) -> Iterator[Block]:
    """Yield what the markets send from `start` on, merged by the recording's clock; ties keep the markets' order."""
    count = sum(len(one.sources) for one in played)
    rows = min(max(_LEAST_ROWS, _ROWS_READ_AHEAD // count), _MOST_ROWS)
    streams = [
        _keyed(one, source, number * KEYS_PER_MARKET, start, rows)
        for number, one in enumerate(played)
        for source in one.sources
    ]
    heads = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        until = min(head["at"][-1] for head in heads if head is not None)
        parts = []
        for number, head in enumerate(heads):
            if head is None:
                continue
            end = head["at"].search_sorted(until, side="right")
            parts.append(head[:end])
            heads[number] = head[end:] if end < head.height else next(streams[number], None)
        is_last = all(head is None for head in heads)
        merged = pl.concat(parts).sort("at", maintain_order=True)
        yield _block(merged, None if is_last else until, unruly, start + played[0].shift.at_ns)


def _keyed(one: Played, source: Source, first_key: int, start: int, rows: int) -> Iterator[pl.DataFrame]:
    for piece in source.pieces(start, one.shift, rows):
        messages = one.market.take(piece)
        if messages.height:
            yield messages.select(
                "at", key=pl.col("kind").cast(pl.Int64) + first_key, data=pl.col("data").cast(pl.Binary)
            )


def _block(rows: pl.DataFrame, until: int | None, unruly: Unruly, start: int) -> Block:
    kind = pl.col("key") % KEYS_PER_MARKET
    books = rows.filter(kind.is_in([DEPTH, SNAPSHOT])).with_columns(
        key=pl.col("key") - kind + _FOR_THE_BOOK,
        note=pl.lit(PLAIN, pl.UInt8),
        rank=pl.lit(0, pl.UInt8),
        is_snapshot=kind == SNAPSHOT,
    )
    sent = unruly.sent(rows.filter((kind != SNAPSHOT) & (pl.col("at") >= start)), until)
    every = pl.concat([books, sent.with_columns(is_snapshot=pl.lit(value=False))]).sort("at", maintain_order=True)
    for_book = pl.col("key") % KEYS_PER_MARKET == _FOR_THE_BOOK
    is_sent = ~for_book & (pl.col("note") != DROP)
    places = every.select(
        send_key=pl.when(is_sent).then("key").otherwise(NOT_SENT), is_book=for_book, is_snapshot="is_snapshot"
    )
    return Block(
        at=every["at"].to_numpy(),
        key=every["key"].to_numpy(),
        send_key=places["send_key"].to_list(),
        note=every["note"].to_numpy(),
        data=every["data"].to_list(),
        books=np.flatnonzero(places["is_book"].to_numpy()),
        snapshots=places["is_snapshot"].arg_true().to_list(),
    )
