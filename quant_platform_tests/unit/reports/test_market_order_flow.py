"""Order flow in the daily market report: numbers worked by hand, a reason for each missing one, the plot."""

import csv
import io
import json
import re
from typing import Any

import polars as pl
import pytest

from quant_platform.contracts.enums import Status
from quant_platform.reports.daily_market import as_csv, as_markdown, render
from quant_platform.reports.market_day import DailyMarket
from quant_platform.reports.market_order_flow import TABLES, OrderFlow
from quant_platform.reports.market_order_flow_table import order_flow_reasons, order_flow_rows, order_flow_table
from quant_platform.reports.page import Cell
from quant_platform_tests.unit.order_flow_frames import (
    DATE,
    MIDNIGHT,
    books,
    clusters,
    flow,
    hidden_orders,
    no_flow,
    participants,
    sweeps,
    toxicity,
    vpin,
)

NOTHING = pl.DataFrame()
UNKNOWN_VPIN = {"vpin": None, "cdf": None, "level": None, "method": None}


def market_day(order_flow: OrderFlow, *, symbols: tuple[str, ...] = ("AAA",), **changes: Any) -> DailyMarket:
    """Return a date on which AAA traded 8 and 5 in two bars, and nothing but its order flow is known."""
    daily = {"symbol": "AAA", "trading_date": DATE, "close": 101.0, "volume": 13.0, "open": 99.0, "trade_count": 2}
    absent = ("high", "low", "vwap", "buy_volume", "sell_volume", "gap_count", "missing_trades", "return_bps")
    times = [MIDNIGHT, MIDNIGHT.replace(minute=5)]
    bars = {"ts_open": times, "symbol": "AAA", "close": [100.0, 101.0], "open": 99.0, "high": 102.0, "low": 98.0}
    flows = {"volume": [8.0, 5.0], "buy_volume": 4.0, "sell_volume": 4.0, "vwap": 100.0, "trade_count": 1}
    inputs: dict[str, Any] = dict.fromkeys(("spreads", "statistics", "gaps", "quarantine", "coverage"), NOTHING)
    inputs |= {
        "daily": pl.DataFrame([daily | dict.fromkeys(absent)]),
        "bars_5m": pl.DataFrame(bars | flows | {"revision": 0, "ts_known": times}),
        "revised": 0,
    }
    return DailyMarket(date=DATE, symbols=symbols, order_flow=order_flow, **(inputs | changes))


def covered(table: str, status: str = "ok", symbol: str = "AAA") -> pl.DataFrame:
    return pl.DataFrame([{"table": table, "symbol": symbol, "status": status, "rows": 0, "bytes": 0}])


def cells(day: DailyMarket) -> dict[str, Cell]:
    """Return the first symbol's line of the table by column."""
    table = order_flow_table(day, order_flow_rows(day))
    return {column.name: cell for column, cell in zip(table.columns, table.rows[0], strict=True)}


def figure(day: DailyMarket, number: int = 1) -> dict[str, Any]:
    (source,) = re.findall(rf'data-plot="order-flow-{number}">(.*?)</script>', render(day))
    plot: dict[str, Any] = json.loads(source)
    return plot | {"traces": {trace["name"]: trace for trace in plot["data"]}}


def test_numbers_worked_by_hand() -> None:
    assert order_flow_rows(market_day(flow())).row(0, named=True) == pytest.approx(
        {
            "symbol": "AAA",
            "vpin": 0.4,  # the last of 0.3, 0.2, 0.4
            "vpin_low": 0.2,
            "vpin_high": 0.4,
            "vpin_cdf": 0.97,
            "vpin_level": "high",
            "vpin_method": "buckets",
            "is_vpin_warm": True,
            "toxicity_mean": 0.5,  # of 0.2, 0.8, 0.5
            "toxicity_max": 0.8,
            "toxicity_high_minutes": 1,
            "imbalance_l5": 0.3,  # of 0.6, 0.2, 0.1
            "imbalance_l1": 0.6,  # of 1, 0.5, 0.3
            "ofi": 3.0,  # 5 - 2; the first is not known
            "sweeps_bought": 1,
            "sweeps_sold": 2,
            "swept_volume_share": 0.2,  # (1.3 + 0.65 + 0.65) / (8 + 5)
            "hidden_volume_share": 0.1,  # 1.3 / 13
            "hidden_judged_share": 1.0,
            "institutional_notional_share": 0.5,  # of 0.4, 0.6
            "retail_notional_share": 0.25,  # of 0.3, 0.2
            "flow_cluster": "mean_reversion",  # 0.5, against 0.3 and 0.2
            "flow_cluster_share": 0.5,
        }
    )


def test_slots_worked_by_hand() -> None:
    slots = flow(vpin=pl.concat([vpin().head(1), vpin(method="simple_imbalance").tail(2)])).slots
    first, second = slots.rows(named=True)
    assert (first["ts_open"], second["ts_open"]) == (MIDNIGHT, MIDNIGHT.replace(minute=5))
    assert (first["vpin"], first["simple_imbalance"], first["cdf"]) == (0.3, None, 0.5)
    assert (second["vpin"], second["simple_imbalance"]) == (None, 0.4)
    assert (second["toxicity_mean"], second["toxicity_max"]) == (0.65, 0.8)  # of 0.8, 0.5
    assert (first["l5"], first["l1"]) == pytest.approx((0.2, 0.25))  # of 0.6, -0.2 and of 1, -0.5
    assert (first["ofi"], second["ofi"]) == (5.0, -2.0)


def test_table_shows_the_numbers_as_people_read_them() -> None:
    assert {name: cell.text for name, cell in cells(market_day(flow())).items()} == {
        "Symbol": "AAA",
        "VPIN": "0.400",
        "VPIN range": "0.200–0.400",
        "CDF": "0.97",
        "Level": "high",
        "Toxicity": "0.50 / 0.80",
        "Toxic": "1",
        "Imbalance": "0.30",
        "OFI": "+3.000",
        "Sweeps": "1 / 2",
        "Swept": "20.0 %",
        "Hidden (exp.)": "10.0 %",
        "Institutions": "50.0 %",
        "Retail": "25.0 %",
        "Cluster": "mean reversion 50 %",
    }


def test_negative_order_flow_imbalance_has_a_minus_sign() -> None:
    assert cells(market_day(flow(order_book_imbalance=books(ofi=-12_345.0))))["OFI"].text == "\N{MINUS SIGN}37.03 k"


def test_every_column_names_its_table_and_unit() -> None:
    table = order_flow_table(market_day(flow()), order_flow_rows(market_day(flow())))
    for column in table.columns[1:]:
        assert column.unit, column.name
        assert column.meaning.rpartition("; ")[2] in TABLES, column.name
    assert "docs/data_dictionary.md" in table.remark


def test_complete_day_has_no_reasons() -> None:
    day = market_day(flow())
    assert order_flow_table(day, order_flow_rows(day)).reasons == ()


def test_rows_follow_the_reports_symbols() -> None:
    rows = order_flow_rows(market_day(flow("AAA", "BBB", "CCC"), symbols=("CCC", "ZZZ", "AAA")))
    assert rows.select("symbol", "vpin").rows() == [("CCC", 0.4), ("ZZZ", None), ("AAA", 0.4)]


def test_range_is_of_the_last_rows_method_alone() -> None:
    mixed = pl.concat([vpin(method="simple_imbalance", vpin=0.9, cdf=None, level=None).head(1), vpin().tail(2)])
    row = order_flow_rows(market_day(flow(vpin=mixed))).row(0, named=True)
    assert (row["vpin_low"], row["vpin_high"]) == (0.2, 0.4)


@pytest.mark.parametrize(
    ("frame", "vpin_reason", "cdf_reason"),
    [
        (vpin(cdf=None, level=None), "", "too few earlier sessions"),
        (
            vpin(cdf=None, level=None, method="simple_imbalance"),
            "too few full buckets: of all volume since the open",
            "too few full buckets: VPIN is of all volume since the open",
        ),
        (
            vpin(**UNKNOWN_VPIN, status="no_data"),
            "no bucket size: no earlier session says how much trades",
            "no bucket size: no earlier session says how much trades",
        ),
        (vpin(**UNKNOWN_VPIN, status="zero_volume"), "nothing traded yet", "nothing traded yet"),
        (vpin(is_warm=False), "", "earlier sessions are missing: not warm yet"),
        (
            vpin().head(0),
            "microstructure/vpin has no rows on this date",
            "microstructure/vpin has no rows on this date",
        ),
    ],
)
def test_vpin_and_cdf_name_their_reasons(frame: pl.DataFrame, vpin_reason: str, cdf_reason: str) -> None:
    shown = cells(market_day(flow(vpin=frame)))
    assert (shown["VPIN"].reason, shown["CDF"].reason) == (vpin_reason, cdf_reason)
    if frame.is_empty() or frame["cdf"][-1] is None:
        assert (shown["CDF"].text, shown["Level"].text, shown["Level"].reason) == ("–", "–", cdf_reason)


def test_book_without_depth_shows_the_touch_and_says_so() -> None:
    touch = books(l5=None, depth_status="no_depth")
    shown = cells(market_day(flow(order_book_imbalance=touch)))["Imbalance"]
    assert (shown.text, shown.reason) == ("0.60", "mean |l1|, the touch alone: the feed has no depth")


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (Status.NO_DATA, "the book was empty"),
        (Status.ONE_SIDED, "one side of the book was empty"),
        (Status.CROSSED, "the book was crossed"),
        (Status.ZERO_SIZE, "the touch had no size"),
        (Status.INVALID_INPUT, "prices or sizes of the book are no numbers"),
    ],
)
def test_book_without_values_says_why(status: Status, why: str) -> None:
    unusable = books(l1=None, l5=None, ofi=None, status=status, depth_status=status)
    shown = cells(market_day(flow(order_book_imbalance=unusable)))
    assert shown["Imbalance"] == shown["OFI"] == Cell("–", why, "null")


def test_order_flow_imbalance_that_no_row_knows_is_not_0() -> None:
    shown = cells(market_day(flow(order_book_imbalance=books(ofi=None))))
    assert shown["OFI"] == Cell("–", "microstructure/order_book_imbalance does not say", "null")


def test_hidden_volume_that_nobody_could_judge_is_not_0() -> None:
    blind = hidden_orders(hidden=None, hidden_volume=None, status="no_data")
    assert cells(market_day(flow(hidden_orders=blind)))["Hidden (exp.)"] == Cell(
        "–", "no quotes before the trades", "null"
    )


def test_hidden_volume_of_few_judged_trades_says_so() -> None:
    blind = hidden_orders(hidden=None, hidden_volume=None, status="no_data")
    shown = cells(market_day(flow(hidden_orders=pl.concat([hidden_orders(), blind]))))["Hidden (exp.)"]
    assert (shown.text, shown.reason) == ("10.0 %", "only 50% of trades had a quote before them")


def test_no_sweep_is_0_only_where_somebody_looked() -> None:
    none = flow(sweeps=sweeps().head(0))
    looked = cells(market_day(none, coverage=covered("microstructure/sweeps")))
    assert (looked["Sweeps"].text, looked["Swept"].text) == ("0 / 0", "0.0 %")
    missing = cells(market_day(none, coverage=covered("microstructure/sweeps", "missing")))
    why = "microstructure/sweeps has not been built"
    assert missing["Sweeps"] == missing["Swept"] == Cell("–", why, "null")
    assert cells(market_day(none))["Sweeps"].reason == "microstructure/sweeps has no rows on this date"


def test_newest_run_that_is_no_sweep_is_not_counted() -> None:
    newest = sweeps(side=0, value=0).tail(1)
    row = order_flow_rows(market_day(flow(sweeps=pl.concat([sweeps(), newest])))).row(0, named=True)
    assert (row["sweeps_bought"], row["sweeps_sold"], row["swept_volume_share"]) == (1, 2, pytest.approx(0.2))


def test_shares_of_volume_need_bars() -> None:
    day = market_day(flow(), bars_5m=NOTHING, coverage=covered("market/bars_5m", "failed"))
    shown = cells(day)
    assert shown["Sweeps"].text == "1 / 2"
    assert shown["Swept"] == shown["Hidden (exp.)"] == Cell("–", "market/bars_5m failed to build", "null")
    assert cells(market_day(flow(), bars_5m=NOTHING))["Swept"].reason == "no five-minute bars to compare with"


def test_windows_without_values_say_why() -> None:
    few = dict.fromkeys(("momentum_share", "mean_reversion_share", "hedging_share"))
    overflown = dict.fromkeys(f"{who}_notional_share" for who in ("institutional", "retail", "unclassified"))
    shown = cells(
        market_day(
            flow(
                flow_clusters=clusters(**few, status="too_few"),
                participant_flow=participants(**overflown, status="nan"),
                toxicity=toxicity(toxicity_adjusted=None, toxicity_adjusted_level=None, status="nan"),
            )
        )
    )
    assert shown["Cluster"] == Cell("–", "too few trades for clusters", "null")
    assert shown["Institutions"] == shown["Retail"] == Cell("–", "sums overflow", "null")
    assert shown["Toxicity"] == shown["Toxic"] == Cell("–", "sums overflow", "null")


def test_calm_day_has_0_toxic_minutes() -> None:
    assert cells(market_day(flow(toxicity=toxicity(toxicity_adjusted_level="low"))))["Toxic"].text == "0"


@pytest.mark.parametrize("table", TABLES)
def test_page_without_one_table_names_its_state(table: str) -> None:
    name = table.partition("/")[2]
    empty = {"vpin": vpin, "order_book_imbalance": books, "toxicity": toxicity, "sweeps": sweeps}
    empty |= {"hidden_orders": hidden_orders, "participant_flow": participants, "flow_clusters": clusters}
    day = market_day(flow(**{name: empty[name]().head(0)}), coverage=covered(table, "failed"))
    assert order_flow_table(day, order_flow_rows(day)).reasons == (f"{table} failed to build",)
    assert f"{table} failed to build" in render(day)


def test_date_without_order_flow_shows_no_number_and_no_plot() -> None:
    day = market_day(no_flow())
    shown = cells(day)
    assert {cell.text for name, cell in shown.items() if name != "Symbol"} == {"–"}
    assert all(cell.reason for name, cell in shown.items() if name != "Symbol")
    assert "order-flow-1" not in render(day)


def test_symbol_that_did_not_trade_says_why_and_still_shows_its_book() -> None:
    empty = {"vpin": vpin, "toxicity": toxicity, "sweeps": sweeps, "hidden_orders": hidden_orders}
    empty |= {"participant_flow": participants, "flow_clusters": clusters}
    only_book = flow(**{name: made().head(0) for name, made in empty.items()})
    coverage = covered("market/trades", "absent")
    day = market_day(only_book, daily=NOTHING, bars_5m=NOTHING, coverage=coverage)
    shown = cells(day)
    assert shown["VPIN"] == shown["Sweeps"] == Cell("–", "the archive has no file", "null")
    assert shown["Imbalance"].text == "0.30"
    plot = figure(day)
    assert set(plot["traces"]) == {"cumulative OFI", "book, more bid", "book, more offered"}
    words = {note["text"] for note in plot["layout"]["annotations"]}
    assert words >= {"No VPIN on this date.", "No toxicity on this date."}


def test_no_book_is_the_books_own_reason() -> None:
    day = market_day(no_flow(), daily=NOTHING, bars_5m=NOTHING)
    assert cells(day)["OFI"].reason == "no book and no quotes on this date"


def test_every_column_but_the_symbol_has_a_reason() -> None:
    day = market_day(no_flow())
    assert {"symbol", *order_flow_reasons(day, "AAA")} == set(order_flow_rows(day).columns)


def test_plot_draws_the_slots_on_the_days_clock() -> None:
    traces = figure(market_day(flow()))["traces"]
    gap = [None] * 286  # of 288 slots the first two have data
    assert traces["close"]["y"] == [100.0, 101.0, *gap]
    assert traces["cumulative OFI"]["y"] == [5.0, 3.0, *gap]
    assert traces["book, more bid"]["y"] == [0.2, None, *gap]
    assert traces["book, more offered"]["y"] == [None, -0.1, *gap]
    assert traces["VPIN"]["y"] == [0.3, 0.4, *gap]
    assert traces["CDF"]["y"] == [0.5, 0.97, *gap]
    assert traces["toxicity, mean"]["y"] == [0.2, 0.65, *gap]
    assert traces["toxicity, highest"]["y"] == [0.2, 0.8, *gap]
    assert "since the open" not in traces
    assert {(trace["x0"], trace["dx"]) for trace in traces.values()} == {("2024-08-08T00:00", 300_000)}


def test_plot_of_a_book_without_depth_draws_the_touch() -> None:
    plot = figure(market_day(flow(order_book_imbalance=books(l5=None, depth_status="no_depth"))))
    assert plot["traces"]["book, more bid"]["y"][:2] == [0.25, 0.3]
    assert any("the touch alone" in note["text"] for note in plot["layout"]["annotations"])


def test_plot_says_its_end_in_words() -> None:
    label = re.findall(r'id="order-flow-1" role="img" aria-label="(.*?)"', render(market_day(flow())))[0]
    assert label == (
        "AAA on 2024-08-08, UTC: order flow in steps of five minutes. VPIN was 0.400 at the end. "
        "Order flow imbalance added up to 3 base units. Toxicity was at most 0.800."
    )


def test_csv_and_markdown_hold_what_the_table_shows() -> None:
    day = market_day(flow(vpin=vpin(cdf=None, level=None)))
    (row,) = csv.DictReader(io.StringIO(as_csv(day)))
    assert {name: row[name] for name in ("symbol", "vpin", "sweeps_sold", "flow_cluster", "vpin_cdf")} == {
        "symbol": "AAA",
        "vpin": "0.4",
        "sweeps_sold": "2",
        "flow_cluster": "mean_reversion",
        "vpin_cdf": "",
    }
    assert "vpin_cdf: too few earlier sessions; vpin_level: too few earlier sessions" in row["null_reasons"]
    section = as_markdown(day).partition("## Order flow")[2].partition("## ")[0]
    assert "| AAA | 0.400 | 0.200–0.400 | – (too few earlier sessions) |" in section
    assert "docs/data_dictionary.md" in section
