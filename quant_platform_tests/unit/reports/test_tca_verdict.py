"""What the TCA report says in sentences, and what it notes of the data."""

import re
from datetime import date

import polars as pl
import pytest

from quant_platform.contracts.scorecards import VenueScorecard
from quant_platform.reports.tca_notes import data_notes
from quant_platform.reports.tca_verdict import verdict
from quant_platform_tests.unit.reports.tca_report_frames import (
    NOTHING,
    fill,
    framed,
    order,
    real_day,
    tca_day,
    venue_cell,
)

MONTH = date(2024, 8, 1)
MINUS = "\N{MINUS SIGN}"

EXAMPLE = order()


def said(day):
    return [finding.sentence for finding in verdict(day, data_notes(day))]


def by(frame, key):
    return {row[key]: row for row in frame.iter_rows(named=True)}


def test_verdict_tells_what_a_head_of_trading_asks():
    day = real_day()
    cost = by(day.digest.benchmarks, "benchmark")["arrival"]
    sentences = said(day)
    traded = r"240 orders in 3 symbols traded 2\d\.\d\d M of 2\d\.\d\d M ordered, in [\d,]+ fills at 3 venues\."
    assert re.fullmatch(traded, sentences[0])
    low, high = (f"{cost[end]:+.2f}".replace("-", MINUS) for end in ("low_bps", "high_bps"))
    assert sentences[1].startswith(
        f"They cost {cost['cost_bps']:.2f} bps against the arrival mid (95 % interval {low} to {high}), "
    )
    assert sentences[2].startswith("That is ")
    assert "its largest part is cost of trading" in sentences[3]
    assert sentences[4] == (
        "The worst algo this month is POV: +1.10 bps beyond expected (95 % interval +0.50 to +1.70, q = 0.012, "
        "606 orders on 6 days)."
    )
    assert sentences[-1].startswith("This page is revised: 3 orders are not as first told (")


def test_verdict_of_one_clean_order():
    assert said(tca_day()) == [
        "1 order in 1 symbol traded 1.000 k of 1.000 k ordered, in 1 fill at 1 venue.",
        "It cost 3.00 bps against the arrival mid, 0.3000 in all.",
        "That is 2.00 bps more than expected.",
        (
            "The shortfall against the decisions' paper profit is +6.00 bps (0.6000); "
            "its largest part is cost of trading: +3.00 bps, 0.3000."
        ),
        "No algo, strategy, broker or venue can be judged yet: that needs 30 orders on 5 days.",
        "Nothing is wrong with the data, and nothing is unfinished.",
        "Nothing on this page is revised.",
    ]


def test_verdict_says_for_which_part_a_cost_is_known():
    without = order(2, decision_price=None, arrival_price=None, reasons="no_decision,no_arrival")
    sentences = said(tca_day([EXAMPLE, without]))
    assert sentences[1].endswith("in all, for the 50 % of notional that had an arrival mid.")
    assert "bps (0.6000), for 1 of 2 orders; its largest part" in sentences[3]
    assert not any("shortfall" in sentence for sentence in said(tca_day([without])))


def test_verdict_of_gains_says_gained():
    rows = [order(n, avg_price=99.9 + n / 1e4, expected_cost_bps=None) for n in range(12)]
    sentences = said(tca_day(rows))
    assert sentences[1].startswith("They gained 11.")
    assert "cannot be told from 0" not in sentences[1]
    assert "its largest part is gain of trading" in sentences[2]  # nothing was expected


def test_verdict_says_where_a_cost_cannot_be_told_from_nothing():
    rows = [order(n, avg_price=100.02 + (n % 2 or -1) / 100, expected_cost_bps=0.0) for n in range(12)]
    sentences = said(tca_day(rows))
    assert sentences[1].endswith("; that cannot be told from 0.")
    assert sentences[2].endswith("; that cannot be told from 0.")


@pytest.mark.parametrize(("expected", "tone", "word"), [(0.5, "attention", "more"), (9.0, "good", "less")])
def test_verdict_calls_for_attention_where_cost_is_surely_beyond_expected(expected, tone, word):
    rows = [order(n, avg_price=100.05 + n / 1e4, expected_cost_bps=expected) for n in range(12)]
    rows.append(order(20, quantity=100.0, filled_quantity=100.0, expected_cost_bps=None))
    day = tca_day(rows)
    finding = verdict(day, data_notes(day))[2]
    assert finding.tone == tone
    assert f"bps {word} than expected, for the 55 % of notional that had an expected cost" in finding.sentence


def test_verdict_of_orders_that_did_not_fill():
    row = order(filled_quantity=0.0, avg_price=None, fill_count=0, fees=0.0, ts_first_fill=None, ts_last_fill=None)
    sentences = said(tca_day([row], []))
    assert sentences[0] == "1 order in 1 symbol, and nothing of them was filled."
    assert sentences[1].startswith("What that cost against arrival is not known")


def test_verdict_names_the_dearest_venue_and_finds_nothing_in_noise():
    dear = [venue_cell(v, "month", MONTH, excess_cost_bps=x) for v, x in (("north", 1.0), (None, 3.0))]
    assert any(
        s.startswith("The worst venue this month is not told: +3.00 bps")
        for s in said(tca_day(venues=framed(VenueScorecard, dear)))
    )
    quiet = [venue_cell("north", "month", MONTH, is_discovery=False)]
    assert (
        "No algo, strategy, broker or venue is dearer than expected beyond noise (false-discovery rate 10 %)."
        in said(tca_day(venues=framed(VenueScorecard, quiet)))
    )


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (order(status="invalid_input"), "Invalid"),
        (order(is_overfilled=True), "Overfilled"),
        (order(has_fill_before_order=True), "Fill before its order"),
        (order(has_fill_after_done=True), "Fill after the end"),
        (order(is_orphan=True), "Child without its parent"),
        (order(reasons="no_open,no_arrival"), "No arrival quote"),
        (order(reasons="no_fee"), "Fee not known"),
        (order(status="unfinished", ts_done=None), "Unfinished"),
        (order(reasons="data_end"), "Tape ends early"),
        (order(reasons="no_decision"), "Without a decision"),
        (order(reasons="zero_volume"), "Nothing traded"),
        (order(has_correction=True), "Revised"),
    ],
)
def test_every_trouble_of_an_order_is_noted(row, name):
    (note,) = data_notes(tca_day([row, order(2)]))
    assert (note.name, note.count, note.of, note.examples) == (name, 1, "orders", ("o1",))
    assert note.is_revision == (name == "Revised")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (fill(9, None), "Without an order"),
        (fill(9, price=101.01), "Outside the date's range"),
        (fill(9, price=98.99), "Outside the date's range"),
        (fill(9, price=None, status="invalid_input"), "Invalid"),
        (fill(9, status="crossed"), "No quote before it"),
        (fill(9, "yesterday"), "Order of another date"),
    ],
)
def test_every_trouble_of_a_fill_is_noted(row, name):
    (note,) = data_notes(tca_day(fills=[fill(), row]))
    assert (note.name, note.count, note.of, note.examples) == (name, 1, "fills", ("f9",))


def test_a_fill_of_a_symbol_without_a_tape_is_not_out_of_range():
    assert data_notes(tca_day(ranges=NOTHING)) == []


def test_quarantined_rows_are_counted_by_rule():
    rows = [{"table": "execution/fills", "symbol": s, "rule": "price|min", "rows": 2} for s in ("AAA", None)]
    (note,) = data_notes(tca_day(quarantine=pl.DataFrame(rows)))
    assert (note.count, note.examples) == (4, ("execution/fills: price|min",))
    assert "The data need a look: quarantined (4 rows)." in said(tca_day(quarantine=pl.DataFrame(rows)))


def test_a_revised_page_says_so_and_names_some():
    sentences = said(tca_day([order(n, has_correction=True) for n in range(5)]))
    assert sentences[-1] == (
        "This page is revised: 5 orders are not as first told (o0, o1 and o2, …), 5.003 k of notional."
    )
