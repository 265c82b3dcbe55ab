"""What was unusual about one date of the market, in whole sentences. Not here: how they are set on a page."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import polars as pl

from quant_platform.reports.market_day import CHAINS_ALONE, DailyMarket, no_trades

_EARLIER_DATES_NEEDED = 5
_UNUSUAL_VOLUME = 2.0
_NAMED = 4


Tone = Literal["attention", "good", "note"]


class Finding(NamedTuple):
    """One sentence, and whether somebody should act on it (`attention`), may relax (`good`) or just know."""

    tone: Tone
    sentence: str


def verdict(day: DailyMarket, rows: pl.DataFrame) -> list[Finding]:
    """Return the findings, what needs attention first.

    Args:
        day: The report's inputs.
        rows: `headline(day)`.
    """
    findings = [
        *_silent_symbols(day, rows),
        *_broken_tables(day),
        *_gaps(rows),
        *_quarantine(day),
        *_revisions(day),
        *_moves(day, rows),
        *_volumes(day, rows),
    ]
    return most_urgent_first(findings)


def most_urgent_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return what needs attention, then what is good, then notes, each in the order given."""
    order = ("attention", "good", "note")
    return sorted(findings, key=lambda finding: order.index(finding.tone))


def _silent_symbols(day: DailyMarket, rows: pl.DataFrame) -> Iterable[Finding]:
    silent = rows.filter(pl.col("close").is_null())["symbol"].to_list()
    if not day.symbols:
        yield Finding("attention", "The report covers no symbols: name some in platform.yaml.")
    elif silent:
        whys: dict[str, list[str]] = {}
        for symbol in silent:
            whys.setdefault(no_trades(day, symbol), []).append(symbol)
        for why, symbols in whys.items():
            tone: Tone = "note" if why in {"the market was closed", CHAINS_ALONE} else "attention"
            yield Finding(tone, f"No trades of {listed(symbols)} on this date: {why}.")
    elif len(day.symbols) == 1:
        yield Finding("good", f"{day.symbols[0]} traded.")
    else:
        yield Finding("good", f"All {len(day.symbols)} symbols traded.")


def _broken_tables(day: DailyMarket) -> Iterable[Finding]:
    # An absent or missing tape was already named with the symbol that did not trade.
    wanting = day.coverage.filter(
        ~pl.col("status").is_in(["ok", "calendar_closed"]) & (pl.col("table") != "market/trades")
        | pl.col("status").is_in(["failed", "blocked"])
    )
    kinds: tuple[tuple[str, Tone, str], ...] = (
        ("failed", "attention", "Failed to build"),
        ("blocked", "attention", "Blocked by a failed check on their input"),
        ("missing", "attention", "Not built yet"),
        ("absent", "note", "Absent from the archive"),
    )
    for status, tone, words in kinds:
        named = wanting.filter(pl.col("status") == status).select("table", "symbol").iter_rows()
        if places := [f"{table} of {symbol}" for table, symbol in named]:
            yield Finding(tone, f"{words}: {listed(places)}.")


def _gaps(rows: pl.DataFrame) -> Iterable[Finding]:
    gaps, ids = int(rows["gap_count"].sum()), int(rows["missing_trades"].sum())
    if ids:
        holed = rows.filter(pl.col("missing_trades") > 0).sort("missing_trades", descending=True, maintain_order=True)
        parts = [f"{s} {n:,}" for s, n in holed.select("symbol", "missing_trades").iter_rows()]
        are = "is" if ids == 1 else "are"
        yield Finding(
            "attention",
            f"{_counted(gaps, 'gap')} in the tape: {_counted(ids, 'trade id')} {are} missing ({listed(parts)}).",
        )
    elif gaps:
        yield Finding("note", f"{_counted(gaps, 'gap')} in the tape, refilled: no trade ids are missing.")
    elif rows["gap_count"].drop_nulls().len():
        yield Finding("good", "No trade ids are missing.")


def _quarantine(day: DailyMarket) -> Iterable[Finding]:
    by_place = (
        day.quarantine.group_by("table", "symbol")
        .agg(pl.col("rows").sum())
        .filter(pl.col("rows") > 0)
        .sort("rows", "table", "symbol", descending=[True, False, False])
    )
    if by_place.height:
        total = by_place["rows"].sum()
        parts = [f"{table} of {symbol} ({rows:,})" for table, symbol, rows in by_place.iter_rows()]
        was = "row was" if total == 1 else "rows were"
        yield Finding("attention", f"{total:,} {was} quarantined: {listed(parts)}.")
    elif day.daily.height or day.bars_5m.height:
        yield Finding("good", "No row is in quarantine.")


def _revisions(day: DailyMarket) -> Iterable[Finding]:
    if day.revised:
        was = "bar was" if day.revised == 1 else "bars were"
        yield Finding("note", f"{day.revised:,} {was} revised by trades that arrived after the close of the bar.")


def _moves(day: DailyMarket, rows: pl.DataFrame) -> Iterable[Finding]:
    moved = rows.filter(pl.col("return_bps").is_not_null()).sort(
        pl.col("return_bps").abs(), descending=True, maintain_order=True
    )
    if not moved.height:
        return
    symbol, move = moved.select("symbol", "return_bps").row(0)
    sentence = f"The largest move was {symbol}, " if moved.height > 1 else f"{symbol} moved "
    sentence += f"{'up' if move >= 0 else 'down'} {abs(move):,.1f} bps"
    usual = _earlier(day, symbol)["return_bps"].drop_nulls().abs()
    if usual.len() >= _EARLIER_DATES_NEEDED and (median := usual.median()):
        sentence += (
            f", {abs(move) / float(str(median)):.1f} times its median daily move of the {usual.len()} dates before"
        )
    yield Finding("note", f"{sentence}.")


def _volumes(day: DailyMarket, rows: pl.DataFrame) -> Iterable[Finding]:
    for symbol, volume in rows.select("symbol", "volume").drop_nulls().iter_rows():
        usual = _earlier(day, symbol)["volume"].drop_nulls()
        median = usual.median()
        if usual.len() < _EARLIER_DATES_NEEDED or not median:
            continue
        ratio = volume / float(str(median))
        if ratio >= _UNUSUAL_VOLUME or ratio <= 1 / _UNUSUAL_VOLUME:
            yield Finding(
                "note",
                f"Volume of {symbol} was {ratio:.1f} times its median of the {usual.len()} dates before.",
            )


def _earlier(day: DailyMarket, symbol: str) -> pl.DataFrame:
    return day.daily.filter(pl.col("symbol") == symbol, pl.col("trading_date") < day.date)


def listed(parts: list[str]) -> str:
    """Return names as a sentence lists them: the first few, and how many more there are."""
    shown, hidden = parts[:_NAMED], len(parts) - _NAMED
    if hidden > 0:
        return f"{', '.join(shown)} and {hidden:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
