"""Pictures of the desk's tables: what is drawn where, and what is said where there is nothing to draw."""

import base64
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.contracts._schema import Contract
from quant_platform.contracts.execution import TcaFill, TcaOrder
from quant_platform.contracts.scorecards import (
    AlgoScorecard,
    Impact,
    ImpactFit,
    OrderQuality,
    QualityTrend,
    VenueScorecard,
)
from quant_platform.defs import execution_plots
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.storage.lake import ALL_SYMBOLS, Lake
from quant_platform_tests.unit.reports.tca_report_frames import (
    DATE,
    MIDNIGHT,
    cell,
    fill,
    framed,
    order,
    quality,
    real_day,
    venue_cell,
)

PLOTS: dict[str, tuple[type[Contract], Callable[..., str]]] = {
    "orders": (TcaOrder, execution_plots.shortfall),
    "fills": (TcaFill, execution_plots.markouts),
    "quality": (OrderQuality, execution_plots.quality),
    "trend": (QualityTrend, execution_plots.quality_trend),
    "impact": (Impact, execution_plots.impact),
    "impact_fits": (ImpactFit, execution_plots.impact_laws),
    "venues": (VenueScorecard, execution_plots.venues),
    "algos": (AlgoScorecard, execution_plots.algos),
}
Drawn = Callable[..., Any]
FIT = {"date": DATE, "ts_known": MIDNIGHT, "measure": "total", "skill_orders": 0, "skill_status": "too_few"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake((tmp_path / "lake").as_uri())


def kept(lake: Lake, name: str, rows: Any) -> None:
    """Write rows of a table as its recipe does: by symbol, or of all of them."""
    contract, _ = PLOTS[name]
    frame = framed(contract, rows)
    if RECIPES[contract.table].is_cross_symbol:
        lake.write(contract.table, ALL_SYMBOLS, DATE, frame)
        return
    for (symbol,), part in frame.partition_by("symbol", as_dict=True).items():
        lake.write(contract.table, str(symbol), DATE, part)


def said(lake: Lake, name: str) -> str:
    contract, plot = PLOTS[name]
    return plot(lake, contract.table, DATE)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, lake: Lake) -> Drawn:
    """Return the panel of a table's plot, for rows that stand in the lake."""

    def panel_of(name: str, *rows: Any) -> Any:
        figures: list[Any] = []
        monkeypatch.setattr(execution_plots, "picture", figures.append)
        kept(lake, name, list(rows))
        said(lake, name)
        (axes,) = figures[0].axes
        return axes

    return panel_of


def ticks(axes: Any) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def heights(axes: Any) -> dict[str, list[float]]:
    """Return the bars of each group by its label."""
    return {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}


def lines(axes: Any) -> dict[str, list[float]]:
    """Return what each labelled line is drawn through."""
    named = ((line.get_label(), [float(value) for value in line.get_ydata()]) for line in axes.lines)
    return {label: values for label, values in named if not label.startswith("_")}


def marks(axes: Any) -> tuple[list[float], list[tuple[float, float]]]:
    """Return the points of a plot with intervals, and the ends of those."""
    ((points, _, (bars,)),) = axes.containers
    ends = [(float(low[1]), float(high[1])) for low, high in bars.get_segments()]
    return [float(value) for value in points.get_ydata()], ends


def test_parts_of_the_shortfall_are_means_by_decided_value(drawn: Drawn) -> None:
    cheap = order(1, delay_bps=1.0, trading_bps=2.0, opportunity_bps=0.0, fees_bps=-0.5, quantity=10.0)
    dear = order(2, delay_bps=4.0, trading_bps=-1.0, opportunity_bps=3.0, fees_bps=1.0, quantity=30.0)
    other = order(3, delay_bps=7.0, trading_bps=7.0, opportunity_bps=7.0, fees_bps=7.0, algo=None)
    partly = order(4, delay_bps=None, trading_bps=None, opportunity_bps=0.0, fees_bps=100.0, shortfall_bps=105.0)
    axes = drawn("orders", cheap, dear, other, partly)
    assert ticks(axes) == ["not told", "VWAP"]
    assert heights(axes) == {
        "delay": [7.0, (10 * 1 + 30 * 4) / 40],
        "trading": [7.0, (10 * 2 - 30 * 1) / 40],
        "opportunity": [7.0, 30 * 3 / 40],
        "fees": [7.0, (-10 * 0.5 + 30 * 1) / 40],
    }


def test_markouts_are_means_by_notional_of_fills_that_know_them(drawn: Drawn) -> None:
    small = fill(1, price=100.0, quantity=1.0, markout_1s_bps=2.0, markout_5m_bps=None)
    large = fill(2, price=100.0, quantity=3.0, markout_1s_bps=6.0, markout_5m_bps=1.5)
    waited = fill(3, liquidity="maker", markout_1s_bps=-1.0)
    untold = fill(4, liquidity=None, markout_50ms_bps=9.0)
    auctioned = fill(5, liquidity="auction", markout_50ms_bps=8.0)
    axes = drawn("fills", small, large, waited, untold, auctioned)
    assert ticks(axes) == ["50ms", "1s", "5s", "15s", "1m", "5m"]
    found = lines(axes)
    assert list(found) == ["auction", "maker", "taker", "not told"]
    assert (found["taker"][1], found["taker"][5]) == (5.0, 1.5)
    assert found["maker"][1] == -1.0
    assert (found["auction"][0], found["not told"][0]) == (8.0, 9.0)


def test_a_horizon_that_no_fill_knows_leaves_a_gap(drawn: Drawn) -> None:
    first, *_, last = lines(drawn("fills", fill(1, markout_50ms_bps=None), fill(2, markout_50ms_bps=None)))["taker"]
    assert math.isnan(first)
    assert last == 6.0


def test_scores_are_shown_by_their_middle_and_nine_of_ten(drawn: Drawn) -> None:
    scores = [quality(order(n), score=n / 20) for n in range(21)]
    silent = quality(order(30), score=None, status="no_data")
    points, ends = marks(drawn("quality", *scores, silent, quality(order(31, algo="POV"), score=0.25)))
    assert points == [0.25, 0.5]
    assert ends == [(0.25, 0.25), (pytest.approx(0.05), pytest.approx(0.95))]


def trend_row(member: str, **changes: Any) -> dict[str, Any]:
    """An algo's score, 0.5 and a hundredth better every day, give or take half of that."""
    slope = {"slope_per_day": 0.01, "slope_low": 0.005, "slope_high": 0.015}
    own = {"date": DATE, "dimension": "algo", "member": member, "days": 9, "score": 0.5, "status": "ok"}
    return own | slope | {"ts_known": MIDNIGHT} | changes


def test_trends_of_algos_are_drawn_with_their_intervals(drawn: Drawn) -> None:
    unknown = dict.fromkeys(("score", "slope_per_day", "slope_low", "slope_high")) | {"status": "too_few"}
    rows = [trend_row("TWAP"), trend_row("POV", **unknown), trend_row("carry", dimension="strategy")]
    axes = drawn("trend", *rows)
    assert ticks(axes) == ["TWAP"]
    assert marks(axes) == ([0.01], [(pytest.approx(0.005), pytest.approx(0.015))])


def test_a_young_desk_has_no_trend_yet(lake: Lake) -> None:
    kept(lake, "trend", [trend_row("TWAP", slope_per_day=None, status="too_few")])
    assert "no trend can be told" in said(lake, "trend")


def impact_row(number: int, **changes: Any) -> dict[str, Any]:
    """An order's impact: `number` thousandths of the volume, which cost as many bps, and half by the law."""
    own = {name: order(number)[name] for name in ("ts_event", "order_id", "symbol", "ts_known", "filled_quantity")}
    values = {"participation": number / 1000, "total_bps": float(number), "baseline_bps": number / 2}
    return own | values | {"status": "no_data", "baseline_status": "ok"} | changes


def test_impact_is_drawn_in_tenths_of_the_orders(drawn: Drawn) -> None:
    axes = drawn("impact", *(impact_row(n) for n in range(1, 41)))
    found = lines(axes)
    assert found["orders, tenths"][0] == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert len(found["orders, tenths"]) == 10
    assert sum(found["orders, tenths"]) / 10 == pytest.approx(20.5, rel=0.02)
    assert found["Y·σ·√(Q/V)"] == pytest.approx([value / 2 for value in found["orders, tenths"]])
    assert axes.lines[0].get_xdata()[0] == pytest.approx(0.25)  # % of the day's volume


def test_a_single_order_is_a_point(drawn: Drawn) -> None:
    assert lines(drawn("impact", impact_row(3)))["orders, tenths"] == [3.0]


def test_laws_are_drawn_for_all_and_for_each_symbol(drawn: Drawn) -> None:
    law = FIT | {"orders": 90, "days": 9, "status": "ok"}
    fits = [law | {"y": 0.5, "exponent": 0.5}, law | {"symbol": "AAA", "y": 2.0, "exponent": 1.0}]
    others = [fits[0] | {"measure": "permanent"}, law | {"symbol": "BBB", "status": "too_few"}]
    found = lines(drawn("impact_fits", *fits, *others))
    assert list(found) == ["all: 0.50·(Q/V)^0.50", "AAA: 2.00·(Q/V)^1.00"]
    assert (found["all: 0.50·(Q/V)^0.50"][0], found["AAA: 2.00·(Q/V)^1.00"][0]) == (
        pytest.approx(0.5 * 1e-2),
        pytest.approx(2 * 1e-4),
    )


def test_a_month_without_a_law_says_so(lake: Lake) -> None:
    kept(lake, "impact_fits", [FIT | {"orders": 9, "days": 1, "status": "too_few"}])
    assert "no law is fitted" in said(lake, "impact_fits")


@pytest.mark.parametrize(("name", "made"), [("venues", "venue"), ("algos", "member")])
def test_scorecards_show_the_month_alone_with_its_intervals(drawn: Drawn, name: str, made: str) -> None:
    def one(member: str | None, **changes: Any) -> dict[str, Any]:
        row = venue_cell() if name == "venues" else cell()
        return row | {made: member, "period": "month", "period_start": DATE.replace(day=1)} | changes

    unknown = {"excess_low_bps": None, "excess_high_bps": None}
    rows = [one("b"), one("a", excess_cost_bps=-1.0, **unknown), one(None, excess_cost_bps=0.5, **unknown)]
    rows += [one("c", period="day", period_start=DATE), one("d", excess_cost_bps=None)]
    rows += [one("e", dimension="broker")] if name == "algos" else []
    axes = drawn(name, *rows)
    assert ticks(axes) == ["not told", "a", "b"]
    assert marks(axes) == ([0.5, -1.0, 2.0], [(0.5, 0.5), (-1.0, -1.0), (1.0, 3.0)])


def test_no_more_bars_than_there_is_room_for(drawn: Drawn) -> None:
    assert len(ticks(drawn("orders", *(order(n, algo=f"algo {n:02}") for n in range(30))))) == 14


@pytest.mark.parametrize("name", PLOTS)
def test_plot_of_a_date_of_a_desk_is_a_png(lake: Lake, name: str) -> None:
    rows: pl.DataFrame = (
        framed(QualityTrend, [trend_row("TWAP")]) if name == "trend" else getattr(real_day(orders=40), name)
    )
    if name == "impact":
        size = pl.int_range(1, pl.len() + 1) / 1000
        rows = rows.with_columns(participation=size, baseline_bps=150 * size.sqrt())
    kept(lake, name, rows)
    head, _, content = said(lake, name).removesuffix(")").partition("base64,")
    assert head == "![plot](data:image/png;"
    assert base64.b64decode(content).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("name", PLOTS)
def test_plot_without_rows_is_a_sentence(lake: Lake, name: str) -> None:
    assert said(lake, name) == "No order of the desk is known on this date."


def test_first_sessions_say_that_impact_has_no_scale(lake: Lake) -> None:
    kept(lake, "impact", [impact_row(1, participation=None, baseline_bps=None, baseline_status="no_data")])
    assert said(lake, "impact") == "No earlier session says how much trades: impact has no scale on this date."


@pytest.mark.parametrize(("name", "row"), [("venues", venue_cell("north", "month")), ("algos", cell("month"))])
def test_cells_of_too_few_orders_are_no_picture(lake: Lake, name: str, row: dict[str, Any]) -> None:
    kept(lake, name, [row | {"period_start": DATE.replace(day=1), "excess_cost_bps": None}])
    assert said(lake, name) == "No venue, or no algo, has enough orders in the month up to this date."
