"""What is wrong with one date's orders and fills, or not finished yet, and what that means for the report's numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from quant_platform.contracts.execution import TcaReason, TcaStatus
from quant_platform.reports.market_verdict import Tone
from quant_platform.reports.tca_day import DailyTca

_NAMED = 3
_REVISED = "Revised"


@dataclass(frozen=True)
class Note:
    """One kind of trouble.

    Attributes:
        name: What it is called.
        tone: Whether somebody should act on it, or just know.
        count: How many there are.
        of: What is counted: orders, fills or rows.
        examples: The first few ids, in order of time.
        meaning: What it means for the numbers.
    """

    name: str
    tone: Tone
    count: int
    of: str
    examples: tuple[str, ...]
    meaning: str

    @property
    def is_revision(self) -> bool:
        """Whether it tells of corrections."""
        return self.name == _REVISED


def data_notes(day: DailyTca) -> list[Note]:
    """Return the kinds of trouble that the date has, what somebody should act on first."""
    notes = [*_order_notes(day), *_fill_notes(day), *_quarantine_notes(day)]
    return sorted((note for note in notes if note.count), key=lambda note: note.tone != "attention")


def _order_notes(day: DailyTca) -> Iterable[Note]:
    status = pl.col("status")
    kinds: tuple[tuple[str, Tone, pl.Expr, str], ...] = (
        ("Invalid", "attention", status == TcaStatus.INVALID_INPUT, "no cost is computed: see what was sent"),
        (
            "Overfilled",
            "attention",
            pl.col("is_overfilled"),
            "what exceeds the order counts as opportunity, at its end",
        ),
        ("Fill before its order", "attention", pl.col("has_fill_before_order"), "counts; one of the clocks is wrong"),
        ("Fill after the end", "attention", pl.col("has_fill_after_done"), "counts; lies outside VWAP and TWAP"),
        ("Child without its parent", "attention", pl.col("is_orphan"), "counts as an order of its own"),
        ("No arrival quote", "attention", _says(TcaReason.NO_ARRIVAL), "left out of arrival, delay and trading"),
        ("Fee not known", "attention", _says(TcaReason.NO_FEE), "left out of the shortfall"),
        ("Unfinished", "note", status == TcaStatus.UNFINISHED, "no cost yet: counts once it is done"),
        ("Tape ends early", "note", _says(TcaReason.DATA_END), "left out of VWAP and TWAP until the tape is there"),
        ("Without a decision", "note", _says(TcaReason.NO_DECISION), "left out of decision cost and shortfall"),
        ("Nothing traded", "note", _says(TcaReason.ZERO_VOLUME), "left out of VWAP"),
        (_REVISED, "note", pl.col("has_correction"), "shown as last corrected, not as first told"),
    )
    for name, tone, is_so, meaning in kinds:
        ids = day.orders.sort("ts_event", "order_id").filter(is_so).get_column("order_id")
        yield Note(name, tone, ids.len(), "orders", tuple(ids.head(_NAMED)), meaning)


def _fill_notes(day: DailyTca) -> Iterable[Note]:
    fills = day.fills.join(day.ranges, on="symbol", how="left", maintain_order="left").join(
        day.orders.select("order_id", is_here=pl.lit(value=True)), on="order_id", how="left", maintain_order="left"
    )
    outside = (pl.col("price") < pl.col("low")) | (pl.col("price") > pl.col("high"))
    has_order, is_known = pl.col("order_id").is_not_null(), pl.col("is_here").is_not_null()
    unquoted = pl.col("status").is_in([TcaStatus.NO_DATA, TcaStatus.ONE_SIDED, TcaStatus.CROSSED])
    kinds: tuple[tuple[str, Tone, pl.Expr, str], ...] = (
        ("Without an order", "attention", ~has_order, "in spreads and markouts, in no order's cost"),
        ("Outside the date's range", "attention", outside, "counts; check the price and the symbol"),
        ("Invalid", "attention", pl.col("status") == TcaStatus.INVALID_INPUT, "no spread or markout is computed"),
        ("No quote before it", "note", unquoted, "left out of spreads, E/Q and price improvement"),
        ("Order of another date", "note", has_order & ~is_known, "in markouts; the order is in its own date's report"),
    )
    for name, tone, is_so, meaning in kinds:
        ids = fills.filter(is_so).sort("ts_event", "fill_id").get_column("fill_id")
        yield Note(name, tone, ids.len(), "fills", tuple(ids.head(_NAMED)), meaning)


def _quarantine_notes(day: DailyTca) -> Iterable[Note]:
    places = (
        day.quarantine.group_by("table", "rule")
        .agg(pl.col("rows").sum())
        .sort("rows", "table", "rule", descending=[True, False, False])
    )
    examples = tuple(f"{table}: {rule}" for table, rule, _ in places.head(_NAMED).iter_rows())
    total = int(places.get_column("rows").sum())
    yield Note("Quarantined", "attention", total, "rows", examples, "in no number of this page: they break a rule")


def _says(word: TcaReason) -> pl.Expr:
    return pl.col("reasons").str.split(",").list.contains(str(word)).fill_null(value=False)
