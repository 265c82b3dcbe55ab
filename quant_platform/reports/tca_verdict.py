"""What one date of trading cost, in whole sentences. Not here: how they are set on a page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from quant_platform.contracts.scorecards import Dimension
from quant_platform.reports import numbers
from quant_platform.reports.market_verdict import Finding, Tone, listed
from quant_platform.reports.tca_day import DailyTca, standing
from quant_platform.reports.tca_digest import BEYOND_EXPECTED, NOT_TOLD, PARTS
from quant_platform.reports.tca_notes import Note
from quant_platform.reports.tca_tables import PART_NAMES

_JUDGED = {Dimension.ALGO: "algo", Dimension.STRATEGY: "strategy", Dimension.BROKER: "broker"}

_WHOLE = 0.995  # of notional: what lacks less goes without saying


def verdict(day: DailyTca, notes: Sequence[Note]) -> list[Finding]:
    """Return the findings in the order in which a head of trading asks for them.

    Args:
        day: The report's inputs.
        notes: `data_notes(day)`.
    """
    if day.orders.is_empty() and day.fills.is_empty():
        return [Finding("note", "The desk sent no order and had no fill on this date."), *_data(notes)]
    if day.orders.is_empty():
        sentence = f"No order arrived on this date; it has {_counted(day.fills.height, 'fill')} of no order of its own."
        return [Finding("note", sentence), *_data(notes)]
    return [
        *_traded(day),
        *_cost(day),
        *_expected(day),
        *_shortfall(day),
        *_members(day),
        *(_data(notes) or [Finding("good", "Nothing is wrong with the data, and nothing is unfinished.")]),
        *_revisions(day, notes),
    ]


def headline(day: DailyTca) -> dict[str, float | int | str | None]:
    """Return the numbers that stand for the date where there is no room for the page; null where one is not known."""
    costs = {row["benchmark"]: row for row in day.digest.benchmarks.iter_rows(named=True)}
    parts = {row["part"]: row for row in day.digest.shortfall.iter_rows(named=True)}
    arrival, largest = costs["arrival"], _largest(parts)
    return {
        "orders": day.orders.height,
        "fills": day.fills.height,
        "notional": _sum(day.digest.orders["notional"]),
        "arrival_cost_bps": arrival["cost_bps"],
        "arrival_cost_low_bps": arrival["low_bps"],
        "arrival_cost_high_bps": arrival["high_bps"],
        "arrival_paid": arrival["paid"],
        "vwap_cost_bps": costs["vwap"]["cost_bps"],
        "excess_cost_bps": costs[BEYOND_EXPECTED]["cost_bps"],
        "shortfall_bps": parts["shortfall"]["bps"],
        "largest_part": largest["part"] if largest else None,
        "largest_part_bps": largest["bps"] if largest else None,
        "revised_orders": int(day.orders["has_correction"].sum()),
    }


def _traded(day: DailyTca) -> Iterable[Finding]:
    orders, fills = day.digest.orders, day.digest.fills
    notional = _sum(orders["notional"])
    counted = f"{_counted(orders.height, 'order')} in {_counted(orders['symbol'].n_unique(), 'symbol')}"
    if not notional:
        yield Finding("note", f"{counted}, and nothing of them was filled.")
        return
    both = orders.drop_nulls(["ordered", "notional"])
    ordered = _sum(both["ordered"])
    of = f" of {_money(ordered)} ordered" if ordered else ""
    venues = fills["venue"].n_unique()
    yield Finding(
        "note",
        f"{counted} traded {_money(notional)}{of}, in {_counted(fills.height, 'fill')} at {_counted(venues, 'venue')}.",
    )


def _cost(day: DailyTca) -> Iterable[Finding]:
    row = day.digest.benchmarks.row(0, named=True)
    if row["cost_bps"] is None:
        yield Finding(
            "note", "What that cost against arrival is not known: no order has both fills and an arrival mid."
        )
        return
    verb = f"{'It' if row['orders'] == 1 else 'They'} {'cost' if row['cost_bps'] >= 0 else 'gained'}"
    sentence = f"{verb} {abs(row['cost_bps']):,.2f} bps against the arrival mid"
    if row["low_bps"] is not None:
        sentence += f" ({_interval(day, row)})"
    sentence += f", {_money(abs(row['paid']))} in all"
    if row["notional_share"] < _WHOLE:
        sentence += f", for the {row['notional_share'] * 100:.0f} % of notional that had an arrival mid"
    if row["low_bps"] is not None and row["low_bps"] <= 0 <= row["high_bps"]:
        sentence += "; that cannot be told from 0"
    yield Finding("note", f"{sentence}.")


def _expected(day: DailyTca) -> Iterable[Finding]:
    row = day.digest.benchmarks.row(-1, named=True)
    if row["cost_bps"] is None:
        return
    is_more = row["cost_bps"] > 0
    sentence = f"That is {abs(row['cost_bps']):,.2f} bps {'more' if is_more else 'less'} than expected"
    if row["notional_share"] < _WHOLE:
        sentence += f", for the {row['notional_share'] * 100:.0f} % of notional that had an expected cost"
    if row["low_bps"] is None:
        yield Finding("note", f"{sentence}.")
        return
    tone: Tone = "attention" if row["low_bps"] > 0 else "good" if row["high_bps"] < 0 else "note"
    sure = "" if tone != "note" else "; that cannot be told from 0"
    yield Finding(tone, f"{sentence} ({_interval(day, row)}){sure}.")


def _shortfall(day: DailyTca) -> Iterable[Finding]:
    parts = {row["part"]: row for row in day.digest.shortfall.iter_rows(named=True)}
    largest, whole = _largest(parts), parts["shortfall"]
    if largest is None or not largest["bps"]:
        return
    of = "" if whole["orders"] == day.orders.height else f", for {whole['orders']:,} of {day.orders.height:,} orders"
    what = "cost" if largest["bps"] >= 0 else "gain"
    size = f"{_signed(largest['bps'])} bps, {_money(largest['money'])}"
    yield Finding(
        "note",
        f"The shortfall against the decisions' paper profit is {_signed(whole['bps'])} bps "
        f"({_money(whole['money'])}){of}; its largest part is {what} of {PART_NAMES[largest['part']].lower()}: {size}.",
    )


def _members(day: DailyTca) -> Iterable[Finding]:
    cards = [(name, day.algos.filter(pl.col("dimension") == dimension)) for dimension, name in _JUDGED.items()]
    cards.append(("venue", day.venues.rename({"venue": "member"})))
    judged, dear = 0, []
    for name, cells in cards:
        period = standing(cells)
        known = cells.filter(pl.col("period") == period, pl.col("is_discovery").is_not_null())
        judged += known.height
        found = known.filter("is_discovery", pl.col("excess_cost_bps") > 0).sort("excess_cost_bps", descending=True)
        dear += [(name, period, row) for row in found.head(1).iter_rows(named=True)]
    for name, period, row in dear:
        yield Finding(
            "attention",
            f"The worst {name} this {period} is {row['member'] or NOT_TOLD}: {_signed(row['excess_cost_bps'])} bps "
            f"beyond expected ({_ends(day, row['excess_low_bps'], row['excess_high_bps'])}, q = {row['q_value']:.3f}, "
            f"{_counted(row['excess_orders'], 'order')} on {_counted(row['days'], 'day')}).",
        )
    rate = f"{day.params.false_discovery_rate * 100:g} %"
    if judged and not dear:
        yield Finding(
            "good",
            f"No algo, strategy, broker or venue is dearer than expected beyond noise (false-discovery rate {rate}).",
        )
    elif not judged:
        needs = f"{day.params.min_orders} orders on {day.params.min_days} days"
        yield Finding("note", f"No algo, strategy, broker or venue can be judged yet: that needs {needs}.")


def _data(notes: Sequence[Note]) -> list[Finding]:
    kinds: tuple[tuple[Tone, str], ...] = (("attention", "The data need a look"), ("note", "Not in all numbers"))
    findings = []
    for tone, start in kinds:
        parts = [
            f"{note.name[0].lower()}{note.name[1:]} ({_counted(note.count, note.of[:-1])})"
            for note in notes
            if note.tone == tone and not note.is_revision
        ]
        findings += [Finding(tone, f"{start}: {listed(parts)}.")] if parts else []
    return findings


def _revisions(day: DailyTca, notes: Sequence[Note]) -> Iterable[Finding]:
    revised = [note for note in notes if note.is_revision]
    for note in revised:
        are = "order is" if note.count == 1 else "orders are"
        share = float(day.digest.orders.filter("has_correction")["notional"].sum())
        yield Finding(
            "note",
            f"This page is revised: {note.count:,} {are} not as first told ({listed(list(note.examples))}"
            f"{', …' if note.count > len(note.examples) else ''}), {_money(share)} of notional.",
        )
    if not revised:
        yield Finding("good", "Nothing on this page is revised.")


def _largest(parts: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    known = [parts[part] for part in PARTS if parts[part]["bps"] is not None]
    return max(known, key=lambda row: abs(row["bps"]), default=None)


def _interval(day: DailyTca, row: Mapping[str, Any]) -> str:
    return _ends(day, row["low_bps"], row["high_bps"])


def _ends(day: DailyTca, low: float, high: float) -> str:
    return f"{day.params.confidence * 100:g} % interval {_signed(low)} to {_signed(high)}"


def _signed(value: float) -> str:
    return numbers.fixed(value, 2, "", is_signed=True).text


def _money(value: float) -> str:
    return numbers.large(value, "").text


def _sum(values: pl.Series) -> float | None:
    return float(values.sum()) if values.drop_nulls().len() else None


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
