"""The archive's file formats, written as the venue lays them out. What is in them is `market`'s business."""

import hashlib
import io
import struct
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from quant_platform.settings import Instrument
from quant_platform.storage.atomic import published

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# From this date on the spot archive stamps microseconds; USD-M files stay in milliseconds.
_SPOT_MICROSECONDS_FROM = date(2025, 1, 1)
_DECIMAL_DIGITS = 18
_ROWS_PER_BATCH = 65_536
# Magic number, deflate, no optional fields: the header is ten bytes.
_GZIP_HEAD = b"\x1f\x8b\x08\x00"


@dataclass(frozen=True, kw_only=True)
class Quotes:
    """A day of best bids and offers, an array a column; prices in ticks, sizes in lots, times in file units."""

    update_id: IntArray
    bid_ticks: IntArray
    bid_lots: IntArray
    ask_ticks: IntArray
    ask_lots: IntArray
    transaction_time: IntArray
    event_time: IntArray


@dataclass(frozen=True, kw_only=True)
class Trades:
    """A day of the tape, an array a column; prices in ticks, sizes in lots, times in file units.

    `row_id` counts the tape's rows; `first_id` and `last_id` are the prints that a row stands for.
    """

    row_id: IntArray
    first_id: IntArray
    last_id: IntArray
    price_ticks: IntArray
    lots: IntArray
    time: IntArray
    is_buyer_maker: BoolArray


def units_per_second(instrument: Instrument, day: date) -> int:
    """Return how many of the file's time units make a second."""
    if instrument.feed == "binance_spot" and day >= _SPOT_MICROSECONDS_FROM:
        return 1_000_000
    return 1_000


def archive_path(root: Path, instrument: Instrument, day: date, *, kind: str) -> Path:
    """Return where the archive keeps `kind` (trades, aggTrades, bookTicker) of an instrument's day."""
    market = "spot" if instrument.feed == "binance_spot" else "futures/um"
    name = instrument.venue_symbol
    return root / "data" / market / "daily" / kind / name / f"{name}-{kind}-{day.isoformat()}.zip"


def write_quotes(root: Path, instrument: Instrument, day: date, quotes: Quotes) -> Path:
    """Write a bookTicker zip and its checksum; return the zip's path."""
    table = pl.DataFrame(
        {
            "update_id": quotes.update_id,
            "best_bid_price": prices(instrument, quotes.bid_ticks),
            "best_bid_qty": sizes(instrument, quotes.bid_lots),
            "best_ask_price": prices(instrument, quotes.ask_ticks),
            "best_ask_qty": sizes(instrument, quotes.ask_lots),
            "transaction_time": quotes.transaction_time,
            "event_time": quotes.event_time,
        }
    )
    path = archive_path(root, instrument, day, kind="bookTicker")
    _write_zip(path, table, day, has_header=True)
    return path


def write_trades(root: Path, instrument: Instrument, day: date, trades: Trades) -> Path:
    """Write the instrument's tape (trades or aggTrades) as a zip with its checksum; return the zip's path."""
    is_spot = instrument.feed == "binance_spot"
    price = prices(instrument, trades.price_ticks)
    size = sizes(instrument, trades.lots)
    maker = pl.Series(trades.is_buyer_maker)
    if is_spot:
        maker = pl.select(pl.when(maker).then(pl.lit("True")).otherwise(pl.lit("False"))).to_series()
    if instrument.tape == "trades":
        table = pl.DataFrame(
            {
                "id": trades.row_id,
                "price": price,
                "qty": size,
                "quote_qty": _quote_sizes(instrument, trades.price_ticks * trades.lots),
                "time": trades.time,
                "is_buyer_maker": maker,
            }
        )
    else:
        table = pl.DataFrame(
            {
                "agg_trade_id": trades.row_id,
                "price": price,
                "quantity": size,
                "first_trade_id": trades.first_id,
                "last_trade_id": trades.last_id,
                "transact_time": trades.time,
                "is_buyer_maker": maker,
            }
        )
    if is_spot:
        table = table.with_columns(is_best_match=pl.lit("True"))
    path = archive_path(root, instrument, day, kind=instrument.tape)
    _write_zip(path, table, day, has_header=not is_spot)
    return path


def prices(instrument: Instrument, ticks: IntArray) -> pl.Series:
    """Return prices as decimals with the digits that the venue gives them."""
    return _fixed_point(ticks, _exact(instrument.tick_size), at_least=8 if instrument.feed == "binance_spot" else 2)


def sizes(instrument: Instrument, lots: IntArray) -> pl.Series:
    """Return quantities as decimals with the digits that the venue gives them."""
    return _fixed_point(lots, _exact(instrument.lot_size), at_least=8 if instrument.feed == "binance_spot" else 0)


def _quote_sizes(instrument: Instrument, tick_lots: IntArray) -> pl.Series:
    return _fixed_point(tick_lots, _exact(instrument.tick_size) * _exact(instrument.lot_size), at_least=8)


def _exact(step: float) -> Decimal:
    return Decimal(str(step)).normalize()


def _fixed_point(counts: IntArray, step: Decimal, *, at_least: int) -> pl.Series:
    """Return `counts * step` as decimals, exact to the last digit, without passing through floats."""
    exponent = step.as_tuple().exponent
    places = max(at_least, -exponent if isinstance(exponent, int) else 0)
    unscaled = np.ascontiguousarray(counts * int(step.scaleb(places)))
    decimals = pa.Array.from_buffers(
        pa.decimal64(_DECIMAL_DIGITS, places), len(unscaled), [None, pa.py_buffer(unscaled)]
    )
    return pl.Series(decimals)


def _write_zip(path: Path, table: pl.DataFrame, day: date, *, has_header: bool) -> None:
    text = io.BytesIO()
    table.write_csv(
        text,
        include_header=has_header,
        quote_style="never",
        batch_size=_ROWS_PER_BATCH,
        compression="gzip",
        compression_level=1,
    )
    content = _zip_of_gzip(f"{path.stem}.csv", text.getvalue(), day)
    with published(path) as temporary:
        temporary.write_bytes(content)
    with published(path.with_name(f"{path.name}.CHECKSUM")) as temporary:
        temporary.write_text(f"{hashlib.sha256(content).hexdigest()}  {path.name}\n", encoding="ascii")


def _zip_of_gzip(name: str, packed: bytes, day: date) -> bytes:
    """Return a zip whose only member is what `packed` holds, without compressing it again.

    Both formats wrap the same deflate stream, and Polars packs while it writes, twice as fast as `zipfile` can
    afterwards. Stamp, system and mode are fixed: the same day is the same bytes whenever it is written.
    """
    if packed[:4] != _GZIP_HEAD:
        raise ValueError(f"Polars wrote a gzip header that is not understood ({packed[:10].hex()}): check its version")
    stream = memoryview(packed)[10:-8]
    checksum, size = struct.unpack("<2I", packed[-8:])
    encoded = name.encode("ascii")
    midnight = (0, (day.year - 1980) << 9 | day.month << 5 | day.day)
    shape = (*midnight, checksum, len(stream), size, len(encoded), 0)
    member = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, *shape) + encoded
    unix, mode = 3 << 8 | 20, 0o100644 << 16
    listing = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", unix, 20, 0, 8, *shape, 0, 0, 0, mode, 0) + encoded
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(listing), len(member) + len(stream), 0)
    return b"".join([member, stream, listing, end])
