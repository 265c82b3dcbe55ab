"""Simulated depth as recorded WebSocket frames: a snapshot, then diffs, as the venue's USD-M streams send them.

At each sampled instant the best levels are the quote in force, with its time and update id. Behind them stand levels
on a coarse grid of prices, whose sizes depend on the price alone. A diff holds what changed since the one before, and
there is none where nothing did. Not here: the quotes themselves (`market`).
"""

import io
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from quant_platform.settings import Instrument
from quant_platform.simulation.latent_price import SECONDS
from quant_platform.simulation.market_files import IntArray, Quotes, prices, sizes
from quant_platform.storage.atomic import published

_LEVELS = 6
_GRID_PARTS = 5_000  # of the price: levels stand two basis points apart
_LATENCY_MS = 20


def depth_path(root: Path, instrument: Instrument, day: date) -> Path:
    """Return where the frames of an instrument's day lie."""
    return root / "frames" / f"usdm_{instrument.venue_symbol.lower()}_{day:%Y%m%d}.jsonl.gz"


def write_depth(root: Path, instrument: Instrument, day: date, quotes: Quotes, *, every_s: int) -> tuple[Path, int]:
    """Write a day of depth, a message at most every `every_s` seconds; return the path and the number of messages."""
    instants = quotes.transaction_time[0] + 1_000 * np.arange(0, SECONDS, every_s)
    standing = np.searchsorted(quotes.transaction_time, instants, side="right") - 1
    step = max(int(quotes.bid_ticks[0]) // _GRID_PARTS, 1)
    scale = int(np.median(quotes.bid_lots))
    bids = _changes(instrument, *_levels(quotes.bid_ticks[standing], quotes.bid_lots[standing], -step, scale))
    asks = _changes(instrument, *_levels(quotes.ask_ticks[standing], quotes.ask_lots[standing], step, scale))
    messages = (
        pl.DataFrame(
            {
                "E": instants,
                "T": quotes.transaction_time[standing],
                "u": quotes.update_id[standing],
            }
        )
        .with_row_index("sample")
        .join(bids.rename({"levels": "b"}), on="sample", how="left", maintain_order="left")
        .join(asks.rename({"levels": "a"}), on="sample", how="left", maintain_order="left")
        .filter(pl.col("b").is_not_null() | pl.col("a").is_not_null())
        .with_columns(pl.col("b", "a").fill_null(""), pu=pl.col("u").shift())
        # The first diff reaches back to the snapshot's last update, as the venue demands of it.
        .with_columns(pl.col("pu") - (pl.int_range(pl.len()) == 1))
    )
    lines = messages.select(pl.format("{}000000 {}", pl.col("E") + _LATENCY_MS, _json(instrument.venue_symbol)))
    text = io.BytesIO()
    lines.write_csv(text, include_header=False, quote_style="never", compression="gzip", compression_level=1)
    path = depth_path(root, instrument, day)
    with published(path) as temporary:
        temporary.write_bytes(text.getvalue())
    return path, lines.height


def _levels(touch: IntArray, touch_lots: IntArray, step: int, scale: int) -> tuple[IntArray, IntArray]:
    """Return ticks and lots of one side, a row an instant: the touch, and the grid's levels behind it."""
    width = abs(step)
    first = (touch - 1) // width * width if step < 0 else touch // width * width + width
    behind = first[:, None] + step * np.arange(_LEVELS - 1)
    # Knuth's multiplicative hash: one to five times the usual size at the touch.
    behind_lots = scale + scale * (behind * 2_654_435_761 % 1_021) // 255
    return np.hstack([touch[:, None], behind]), np.hstack([touch_lots[:, None], behind_lots])


def _changes(instrument: Instrument, ticks: IntArray, lots: IntArray) -> pl.DataFrame:
    """Return the levels that each instant adds, changes or (lots 0) removes, as JSON: columns `sample levels`."""
    is_same_price = ticks[1:, :, None] == ticks[:-1, None, :]
    is_same = (is_same_price & (lots[1:, :, None] == lots[:-1, None, :])).any(axis=2)
    new = np.nonzero(np.vstack([np.ones((1, _LEVELS), dtype=bool), ~is_same]))
    gone = np.nonzero(~is_same_price.any(axis=1))
    changed = np.concatenate([ticks[new], ticks[:-1][gone]])
    left = np.concatenate([lots[new], np.zeros(len(gone[0]), dtype=np.int64)])
    levels = pl.DataFrame(
        {
            "sample": pl.Series(np.concatenate([new[0], gone[0] + 1]), dtype=pl.UInt32),
            "price": prices(instrument, changed).cast(pl.String),
            "size": sizes(instrument, left).cast(pl.String),
        }
    )
    level = pl.format('["{}","{}"]', "price", "size")
    return (
        levels.sort("sample", maintain_order=True)
        .group_by("sample", maintain_order=True)
        .agg(levels=level.str.join(","))
    )


def _json(name: str) -> pl.Expr:
    """Return each message as the venue writes it: the first as the answer to a REST request, the others as a stream."""
    snapshot = pl.format('{{"lastUpdateId":{},"E":{},"T":{},"bids":[{}],"asks":[{}]}}', "u", "E", "T", "b", "a")
    diff = pl.format(
        f'{{{{"stream":"{name.lower()}@depth","data":{{{{"e":"depthUpdate","E":{{}},"T":{{}},"s":"{name}",'
        '"U":{},"u":{},"pu":{},"b":[{}],"a":[{}]}}}}',
        "E",
        "T",
        pl.col("pu") + 1,
        "u",
        "pu",
        "b",
        "a",
    )
    return pl.when(pl.int_range(pl.len()) == 0).then(snapshot).otherwise(diff)
