"""A fetched archive day to contract rows and quarantine. The zip and its columns: binance_sheet.py."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from quant_platform.contracts._schema import INSTANT, Contract, split
from quant_platform.contracts.market import Quote, Trade
from quant_platform.feeds.binance_archive import ArchiveDay, ArchiveError, ArchiveInstrument
from quant_platform.feeds.binance_sheet import AGAIN, opened
from quant_platform.feeds.sheet import LINE, Sheet, named, quarantine, typed_columns

TimeUnit = Literal["ms", "us"]

_PER_DAY = {"ms": 86_400_000, "us": 86_400_000_000}
_NS = {"ms": 1_000_000, "us": 1_000}
_FIRST_US = 10**14  # as ms this is the year 5138, as us it is 1973


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """One symbol-day, parted.

    Attributes:
        rows: Keeps the contract, sorted as it says, one row per id.
        quarantined: `rule, source_file, source_line` (1-based, header counted) and the line as `raw`.
        tape: `trades` or `aggTrades`; None for quotes.
        out_of_order: Rows whose id is smaller than that of the row before.
        time_unit: The file's unit of time; `ms` where it has no rows.
    """

    rows: pl.DataFrame
    quarantined: pl.DataFrame
    tape: str | None
    out_of_order: int
    time_unit: TimeUnit


def read_day(day: ArchiveDay, instrument: ArchiveInstrument, date: dt.date) -> Parsed:
    """Return the rows of one symbol-day that keep the contract, and the others with the rule that they break.

    Args:
        day: What `fetch_day` brought.
        instrument: Whose day it is.
        date: The UTC day that every row must fall on.

    Returns:
        Rows sorted by the contract's order. Of rows that share an id the first in the file stays.

    Raises:
        ArchiveError: The zip, the columns or the day as a whole is wrong: then nothing of it is used.
    """
    sheet = opened(day.fetched.path, day.kind)
    typed, broken = typed_columns(sheet)
    unit = _unit(typed["ts_event"])
    inside = _inside(typed["ts_event"], date, unit)
    if not inside.all():
        _check_day(sheet, typed, inside, date, unit)
        broken.append(named(typed.filter(~inside)[LINE], "ts_event|outside_date"))
        typed = typed.filter(inside)
    contract, ident = (Quote, "sequence") if day.kind == "bookTicker" else (Trade, "trade_id")
    steps = typed[ident].diff()
    out_of_order = int((steps < 0).sum())
    rows, bad = split(contract, _contract_rows(typed, contract, instrument, unit), keep=(LINE,))
    if bad.height:
        broken.append(bad.select(LINE, "rule"))
    if not (steps.drop_nulls() > 0).all():
        is_first = rows[ident].is_first_distinct()
        lines = typed[LINE].filter(~typed[LINE].is_in(bad[LINE].implode()))
        broken.append(named(lines.filter(~is_first), f"{ident}|duplicate"))
        rows = rows.filter(is_first)
    if out_of_order or not rows["ts_event"].is_sorted():
        rows = rows.sort(contract.sorted_by)
    return Parsed(
        rows=rows,
        quarantined=quarantine(sheet, broken),
        tape=None if contract is Quote else day.kind,
        out_of_order=out_of_order,
        time_unit=unit,
    )


def read_klines(path: Path) -> pl.DataFrame:
    """Return the publisher's one-minute bars: `ts_open`, prices, `volume`, `trade_count`, `taker_buy_volume`.

    Raises:
        ArchiveError: The zip or a line of it cannot be read.
    """
    sheet = opened(path, "klines")
    typed, broken = typed_columns(sheet)
    if broken:
        first = quarantine(sheet, broken).row(0, named=True)
        raise ArchiveError(f"{sheet.file}, line {first[LINE]} breaks {first['rule']}: '{first['raw']}'. {AGAIN}")
    return typed.drop(LINE).with_columns(_instant("ts_open", _unit(typed["ts_open"])))


def _contract_rows(
    typed: pl.DataFrame, contract: type[Contract], instrument: ArchiveInstrument, unit: TimeUnit
) -> pl.DataFrame:
    common = {
        "ts_event": _instant("ts_event", unit),
        "ts_recv": pl.lit(None, INSTANT),
        "symbol": pl.lit(instrument.symbol),
        "venue": pl.lit(str(instrument.feed)),
    }
    if contract is Quote:
        own = {
            **_side("bid"),
            **_side("ask"),
            "sequence": pl.col("sequence"),
            "is_ts_event_assumed": pl.lit(value=False),
        }
    else:
        last = "last_trade_id" if "last_trade_id" in typed.columns else "trade_id"
        own = {
            "trade_id": pl.col("trade_id"),
            "first_trade_id": pl.col("trade_id"),
            "last_trade_id": pl.col(last),
            "price": pl.col("price"),
            "size": pl.col("size"),
            # The maker bought, so a seller crossed the spread.
            "aggressor": 1 - 2 * pl.col("aggressor").cast(pl.Int8),
        }
    return typed.select(**common, **own, **{LINE: pl.col(LINE)})


def _side(side: str) -> dict[str, pl.Expr]:
    price, size = pl.col(f"{side}_price"), pl.col(f"{side}_size")
    is_there = (price != 0) | (size != 0)
    return {f"{side}_price": pl.when(is_there).then(price), f"{side}_size": pl.when(is_there).then(size)}


def _instant(column: str, unit: TimeUnit) -> pl.Expr:
    return (pl.col(column) * _NS[unit]).cast(INSTANT)


def _unit(times: pl.Series) -> TimeUnit:
    return "us" if 2 * int((times >= _FIRST_US).sum()) > times.len() else "ms"


def _inside(times: pl.Series, date: dt.date, unit: TimeUnit) -> pl.Series:
    start = (date - dt.date(1970, 1, 1)).days * _PER_DAY[unit]
    return times.is_between(start, start + _PER_DAY[unit], closed="left")


def _check_day(sheet: Sheet, typed: pl.DataFrame, inside: pl.Series, date: dt.date, unit: TimeUnit) -> None:
    outside = typed.filter(~inside)
    if 2 * outside.height <= typed.height:
        return
    line, time = outside.select(LINE, "ts_event").row(0)
    seconds, rest = divmod(time * _NS[unit], 1_000_000_000)
    try:
        moment = f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S}.{rest // 1000:06d}"
    except (ValueError, OverflowError, OSError):
        moment = "no date at all"
    raise ArchiveError(
        f"{sheet.file}, line {line}: time {time} read in {unit} is {moment}, and {outside.height} of {typed.height} "
        f"rows do not fall on {date} (UTC). The file is of another day, or its times are in another unit. {AGAIN}"
    )
