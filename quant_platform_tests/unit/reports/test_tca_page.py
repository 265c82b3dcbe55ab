"""The page of the TCA report: its parts, tables, plots and files, empty and hostile input."""

import io
import json
import re
from datetime import date

import polars as pl
import pytest

from quant_platform.contracts.execution import TcaFill, TcaOrder
from quant_platform.contracts.scorecards import AlgoScorecard, Impact, ImpactFit, VenueScorecard
from quant_platform.reports.daily_tca import as_markdown, render, tables, write
from quant_platform.reports.page import PLOT_SCRIPT, self_contained
from quant_platform.reports.tca_day import headline_path
from quant_platform.reports.tca_digest import chart_instants
from quant_platform.reports.tca_notes import data_notes
from quant_platform.reports.tca_verdict import headline, verdict
from quant_platform_tests.unit.reports.tca_report_frames import (
    MIDNIGHT,
    NOTHING,
    cell,
    fill,
    framed,
    order,
    real_day,
    tca_day,
    unsure,
    venue_cell,
)
from quant_platform_tests.unit.reports.test_daily_market import Page

MONTH = date(2024, 8, 1)
FRAMES = ("orders", "fills", "quality", "algos", "venues", "impact", "impact_fits", "paths", "ranges", "quarantine")
MINUS = "\N{MINUS SIGN}"
EXAMPLE = order()


def said(day):
    return [finding.sentence for finding in verdict(day, data_notes(day))]


def empty_day(**changes):
    return tca_day(**(dict.fromkeys(FRAMES, NOTHING) | changes))


def plots(text):
    return {name: json.loads(source) for name, source in re.findall(r'data-plot="([\w-]+)">(.*?)</script>', text)}


def test_page_has_its_parts_in_order():
    page = Page(render(real_day()))
    assert page.headings == [
        "Thursday, 8 August 2024 2024-08-08, UTC",
        "Verdict",
        "Cost by benchmark",
        "Implementation shortfall",
        "Markouts",
        "Worst 10 orders, by money paid against arrival",
        "Venues",
        "Algos",
        "Strategies",
        "Fill rates and time to fill",
        "Market impact",
        "Data quality",
        "Definitions",
    ]
    charts = [f"order-{rank}" for rank in range(1, 11)]
    assert [plot["id"] for plot in page.plots] == ["costs", "waterfall", "markout-curves", *charts]


def test_page_names_only_files_beside_it():
    text = render(real_day())
    beside = {f"2024-08-08.{name}.csv" for name in tables(real_day())}
    assert set(Page(text).addresses) == {"data:,", PLOT_SCRIPT, "2024-08-08.md", *beside}
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text)


def test_cost_table_worked_by_hand():
    rows = Page(render(tca_day())).table("Benchmark")
    cost = f"+{EXAMPLE['arrival_cost_bps']:.2f}"  # 10 x 0.03 = 0.30 paid
    assert rows[1] == ["Arrival mid", "1", "100.0 %", cost, "–1", cost, "+0.3000"]
    assert rows[4] == ["Interval TWAP", "0", "–2", "–2", "–2", "–2", "–2"]


def test_waterfall_bars_lead_from_paper_to_realised():
    profit, cost = plots(render(tca_day()))["waterfall"]["data"]
    # In bps: 10 of paper, 2 lost in delay, 3 in trading, none in the rest, 1 in fees, 4 realised.
    assert profit["base"] == pytest.approx([0, 10, 8, 5, 5, 0], abs=1e-5)
    assert profit["y"] == pytest.approx([10, -2, -3, 0, -1, 4], abs=1e-5)
    assert cost["base"] == pytest.approx([0, 2, 5, 5, 0], abs=1e-5)
    assert profit["text"][1] == f"{MINUS}2.00<br>{MINUS}0.2000"
    assert cost["text"][-1] == "+6.00<br>+0.6000"


def test_waterfall_has_room_for_its_texts_inside_the_axes():
    """A text stands below a bar that falls, also where that bar ends near 0, and above one that rises."""
    layout = plots(render(tca_day()))["waterfall"]["layout"]
    room = 0.22 * 10
    assert layout["yaxis"]["range"] == pytest.approx([0, 10 + room], abs=1e-5)
    fees = order(fees_bps=6.0, shortfall_bps=11.0)
    low, high = plots(render(tca_day(orders=[fees])))["waterfall"]["layout"]["yaxis"]["range"]
    assert low == pytest.approx(-1 - 0.22 * 11, abs=1e-5)
    assert high == pytest.approx(10 + 0.22 * 11, abs=1e-5)


def test_markout_plot_has_a_line_a_group_and_the_close_on_its_own_scale():
    fills = [fill(n, f"o{n}", venue="north" if n % 2 else None, liquidity="maker") for n in range(70)]
    figure = plots(render(tca_day(fills=fills)))["markout-curves"]
    lines = [(t["name"], t["xaxis"], t["y"]) for t in figure["data"]]
    up = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert lines == [
        ("All fills", "x1", up),
        ("All fills", "x2", [7.0]),
        ("maker", "x1", up),
        ("maker", "x2", [7.0]),
        ("north", "x3", up),
        ("north", "x4", [7.0]),
        ("not told", "x3", up),
        ("not told", "x4", [7.0]),
    ]
    assert figure["layout"]["xaxis"]["ticktext"] == ["50 ms", "1 s", "5 s", "15 s", "1 min", "5 min"]


def test_markouts_of_few_fills_say_so_and_are_not_drawn():
    fills = [fill(n, f"o{n}", venue=f"v{n}") for n in range(31)]
    text = render(tca_day(fills=fills))
    assert Page(text).table("Fills")[-1][:3] == ["Venue: v9", "1", "n < 30"]
    layout = plots(text)["markout-curves"]["layout"]
    assert "Too few fills." in [a["text"] for a in layout["annotations"]]
    assert "markout-curves" not in plots(render(tca_day()))


def test_markouts_past_the_end_of_the_data_are_dashes():
    page = Page(render(tca_day(fills=[fill(markout_5m_bps=None, markout_close_bps=None)])))
    assert [c.rstrip("0123456789") for c in page.table("Fills")[1][-2:]] == ["–", "–"]
    assert "no mid that long after the fills" in page.items


def test_order_chart_marks_fills_arrival_and_vwap():
    path = chart_instants(framed(TcaOrder, [EXAMPLE])).select("order_id", "ts_event", mid_price=pl.lit(100.03))
    fills = [fill(1), fill(2, quantity=2.5, venue=None, liquidity=None), fill(3, "o9")]
    figure = plots(render(tca_day(fills=fills, paths=path)))["order-1"]
    mid, marks = figure["data"]
    assert (mid["name"], len(mid["x"]), set(mid["y"])) == ("mid", 241, {100.03})
    assert marks["x"] == ["2024-08-08T09:02:01.000", "2024-08-08T09:02:02.000"]
    assert marks["text"] == ["10.0 at north, taker", "2.5 at no venue told, liquidity not told"]
    assert marks["marker"]["symbol"] == "triangle-up"
    assert marks["marker"]["size"] == [14.0, 10.0]  # by the root of the quantity
    names = [a["text"] for a in figure["layout"]["annotations"]]
    assert names == [
        "<b>1</b>  AAA buy, VWAP: +3.00 bps, 0.3000 paid",
        "arrival<br>100.02",
        "VWAP<br>100.04",
    ]


def test_order_chart_without_a_path_vwap_or_algo_still_stands():
    sold = order(side=-1, avg_price=99.9, vwap_price=None, algo=None, ts_done=EXAMPLE["ts_done"])
    figure = plots(render(tca_day([sold], [fill(side=-1, price=99.9)])))["order-1"]
    (marks,) = figure["data"]
    assert marks["marker"]["symbol"] == "triangle-down"
    said_beside = [a["text"] for a in figure["layout"]["annotations"]][1:]
    assert said_beside == ["arrival<br>100.02", "No mids of its life are known."]
    assert plots(render(tca_day([sold], [])))["order-1"]["data"] == []


def test_worst_table_shows_the_order():
    header, row = Page(render(tca_day())).table("#")
    assert dict(zip(header, row, strict=True))["Lasted"] == "3.0 min"
    assert row[:9] == ["1", "o1", "AAA", "buy", "VWAP", "09:01:00", "3.0 min", "1.000 k", "100 %"]


def test_scorecards_show_the_date_and_its_month():
    cells = [cell(**unsure()), cell("month", MONTH, orders=320), cell("week", date(2024, 8, 5), member="other")]
    page = Page(render(tca_day(algos=framed(AlgoScorecard, cells), venues=framed(VenueScorecard, [venue_cell()]))))
    assert page.table("Algo")[1] == [
        "VWAP",
        "40",
        "50.0 %",
        "90.0 %",
        "+3.00",
        "1.50",
        "+0.50",
        "0.60",
        "40",
        "8",
        "+2.00",
        "+1.00 to +3.00",
        "+4.0",
        "0.004",
        "dearer",
    ]
    assert page.table("Venue")[1][:9] == [
        "north",
        "90",
        "50.0 %",
        "25 %",
        "+3.00",
        "1.50",
        "0.80",
        "+0.10",
        f"{MINUS}0.25",
    ]
    assert page.table("Venue")[1][9].startswith("–")  # no cell of the month
    assert any("this month so far, 2024-08-01 to 2024-08-08" in words for words in page.paragraphs)


def test_scorecards_take_the_week_where_the_month_is_young():
    day = date(2024, 8, 2)
    cells = [
        cell(start=day),
        cell("week", date(2024, 7, 29), days=5, excess_cost_bps=-1.5),
        cell("month", MONTH, **unsure(days=2)),
    ]
    page = Page(render(tca_day(date=day, algos=framed(AlgoScorecard, cells))))
    assert page.table("Algo")[1][10] == f"{MINUS}1.50"
    assert page.table("Algo")[1][-1] == "cheaper"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        (unsure(), ["+2.00", "days < 5", "days < 5", "days < 5", "not judged"]),
        (
            unsure(excess_status="too_few", excess_cost_bps=None),
            ["n < 30", "n < 30", "n < 30", "n < 30", "not judged"],
        ),
        ({"is_discovery": False, "q_value": 0.5}, ["+2.00", "+1.00 to +3.00", "+4.0", "0.500", "within noise"]),
        (unsure(inference_status="constant"), ["+2.00", "–", "–", "–", "not judged"]),
        (
            unsure(inference_status="no_data", excess_status="no_data", excess_cost_bps=None),
            ["–", "–", "–", "–", "not judged"],
        ),
    ],
)
def test_scorecards_say_why_a_cell_is_not_judged(changes, shown):
    cells = [cell("month", MONTH, **changes)]
    row = Page(render(tca_day(algos=framed(AlgoScorecard, cells)))).table("Algo")[1]
    assert [re.sub(r"^–\d+$", "–", text) for text in row[10:]] == shown
    assert row[1].startswith("–")  # it did not trade on the date


def test_suppressed_means_say_below_how_many_orders():
    few = {"status": "too_few", "excess_status": "too_few", "arrival_cost_bps": None, "orders": 7}
    row = Page(render(tca_day(algos=framed(AlgoScorecard, [cell(**unsure(**few))])))).table("Algo")[1]
    assert row[1:8] == ["7", "50.0 %", *["n < 30"] * 5]


def test_brokers_are_shown_where_orders_name_them():
    cells = [cell(dimension="broker", member=m) for m in ("own", None)]
    page = Page(render(tca_day(algos=framed(AlgoScorecard, cells))))
    assert "Brokers" in page.headings
    assert [row[0] for row in page.table("Broker")[1:]] == ["not told", "own"]
    unnamed = Page(render(tca_day(algos=framed(AlgoScorecard, cells[1:]))))
    assert "Brokers" not in unnamed.headings


def test_impact_shows_the_date_and_the_law():
    own = {"ts_event": MIDNIGHT, "order_id": "o1", "symbol": "AAA", "ts_known": MIDNIGHT}
    impact = own | {"total_bps": 3.0, "temporary_bps": 2.0, "permanent_bps": 1.0}
    fit = {
        "date": MIDNIGHT.date(),
        "ts_known": MIDNIGHT,
        "measure": "total",
        "orders": 50,
        "days": 9,
        "y": 0.8,
        "y_low": 0.5,
        "y_high": 1.1,
        "status": "ok",
    }
    unfitted = {"measure": "permanent", "orders": 4, "days": 1, "status": "too_few"}
    few = fit | dict.fromkeys(("y", "y_low", "y_high")) | unfitted
    day = tca_day(impact=framed(Impact, [impact]), impact_fits=framed(ImpactFit, [fit, few]))
    page = Page(render(day))
    assert page.table("Impact")[1][:7] == ["Total", "1", "+3.00", "–1", "50", "0.80", "+0.50 to +1.10"]
    assert {"not fitted: too few", "no fit was made"} <= set(page.items)
    assert "No impact is known of this date's orders." in Page(render(tca_day())).paragraphs


@pytest.mark.parametrize("name", FRAMES)
def test_page_with_one_empty_frame_renders(name):
    day = real_day()
    inputs = {one: getattr(day, one) for one in FRAMES} | {name: NOTHING, "params": day.params}
    page = Page(render(tca_day(**inputs)))
    assert {"Cost by benchmark", "Data quality", "Definitions"} <= set(page.headings)


def test_page_of_a_date_without_orders_says_so_and_shows_no_zero_cost():
    page = Page(render(empty_day()))
    assert page.items[0].strip() == "The desk sent no order and had no fill on this date."
    assert page.plots == []
    assert page.tables == []
    for words in ("No fills on this date.", "No orders on this date.", "No order paid anything against arrival."):
        assert words in page.paragraphs


def test_page_of_fills_without_any_order():
    day = tca_day([], [fill(order_id=None)])
    assert said(day)[0] == "No order arrived on this date; it has 1 fill of no order of its own."
    assert Page(render(day)).table("Fills")[1][1] == "1"


def test_hostile_names_stay_text():
    evil = '<script>alert("x")</script>'
    named = order(order_id=evil, symbol=evil, algo=evil)
    cells = [cell("month", MONTH, member=evil)]
    day = tca_day(
        [named],
        [fill(n, evil, symbol=evil, venue=evil) for n in range(40)],
        algos=framed(AlgoScorecard, cells),
        quarantine=pl.DataFrame([{"table": evil, "symbol": evil, "rule": evil, "rows": 1}]),
    )
    benign = tca_day(fills=[fill(n) for n in range(40)])
    assert Page(render(day)).tags.count("script") == Page(render(benign)).tags.count("script")
    assert "<script>alert" not in render(day)
    assert "<script>" not in as_markdown(day)
    assert all("<script" not in json.dumps(plot) for plot in plots(render(day)).values())


def test_write_publishes_the_page_its_tables_and_one_plot_script(tmp_path):
    day = tca_day()
    page = write(day, tmp_path)
    assert page == tmp_path / "daily_tca" / "2024-08-08.html"
    assert page.read_text(encoding="utf-8") == render(day)
    names = {path.name for path in page.parent.iterdir()}
    beside = {f"2024-08-08.{name}.{kind}" for name in tables(day) for kind in ("csv", "parquet")}
    assert names == {"2024-08-08.html", "2024-08-08.md", "2024-08-08.json", PLOT_SCRIPT, *beside}
    told = json.loads(headline_path(tmp_path, day.date).read_bytes())
    known = max(day.orders["ts_known"].cast(pl.Int64).max(), day.fills["ts_known"].cast(pl.Int64).max())
    assert told == {**headline(day), "page": "daily_tca/2024-08-08.html", "ts_known": known}
    stored = pl.read_parquet(page.with_name("2024-08-08.orders.parquet"))
    assert stored.equals(day.digest.orders)
    lines = pl.read_csv(io.BytesIO(page.with_name("2024-08-08.shortfall.csv").read_bytes()))
    assert lines["money"].to_list() == day.digest.shortfall["money"].to_list()


def test_two_runs_write_the_same_bytes(tmp_path):
    first, second = (write(tca_day(), tmp_path / run).parent for run in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_self_contained_page_needs_no_other_file(tmp_path):
    page = write(tca_day(), tmp_path)
    page.with_name(PLOT_SCRIPT).write_text("window.Plotly = 1;", encoding="utf-8")
    alone = self_contained(page.read_text(encoding="utf-8"), page.parent)
    assert all(address.startswith(("data:", "#")) for address in Page(alone).addresses)


def test_markdown_has_verdict_tables_and_definitions():
    lines = as_markdown(real_day()).splitlines()
    assert lines[0] == "# Daily TCA 2024-08-08 (UTC)"
    assert any(line.startswith("- **Attention.** The worst algo this month is POV") for line in lines)
    titles = [line for line in lines if line.startswith("## ")]
    assert titles[0] == "## Cost by benchmark"
    assert titles[-1] == "## Definitions"


def test_empty_frames_keep_their_columns_in_the_files():
    shapes = {name: frame.columns for name, frame in tables(tca_day()).items()}
    assert {name: frame.columns for name, frame in tables(empty_day()).items()} == shapes
    assert tables(empty_day(fills=framed(TcaFill, [])))["notes"].height == 0
