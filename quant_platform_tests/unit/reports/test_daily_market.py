"""The daily market report: headline numbers worked by hand, the page's structure, empty and hostile input."""

import csv
import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from importlib.resources import files

import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Bar5m, Gap
from quant_platform.contracts.statistics import PriceStatistics
from quant_platform.reports.daily_market import as_csv, as_markdown, render, write
from quant_platform.reports.market_day import DailyMarket, headline
from quant_platform.reports.page import PLOT_SCRIPT, self_contained
from quant_platform_tests.unit.order_flow_frames import flow, no_flow

DATE = date(2024, 8, 8)
MIDNIGHT = datetime(2024, 8, 8, tzinfo=UTC)
NOTHING = pl.DataFrame()


def daily_row(symbol="AAA", day=DATE, **changes):
    row = {
        "symbol": symbol,
        "trading_date": day,
        "open": 100.0,
        "high": 103.0,
        "low": 98.0,
        "close": 101.5,
        "volume": 2000.0,
        "vwap": 100.25,
        "trade_count": 9990,
        "buy_volume": 1100.0,
        "sell_volume": 900.0,
        "gap_count": 1,
        "missing_trades": 10,
        "return_bps": 150.0,
    }
    return row | changes


def bar(symbol, minute, open_, high, low, close, buy, sell):
    at = MIDNIGHT + timedelta(minutes=minute)
    row = dict.fromkeys(polars_schema(Bar5m)) | {"ts_open": at, "ts_known": at + timedelta(minutes=5)}
    prices = {"open": open_, "high": high, "low": low, "close": close, "vwap": close}
    flows = {"volume": buy + sell, "buy_volume": buy, "sell_volume": sell, "trade_count": 3, "revision": 0}
    return row | {"symbol": symbol} | prices | flows


def spread(symbol, minute, bps):
    at = MIDNIGHT + timedelta(minutes=minute)
    return {"symbol": symbol, "ts_open": at, "spread_bps": bps, "quote_count": 7, "ts_known": at}


def statistic(symbol, minute, **changes):
    row = dict.fromkeys(polars_schema(PriceStatistics)) | {"symbol": symbol, "status": "ok"}
    return row | {"ts_open": MIDNIGHT + timedelta(minutes=minute), "is_warm": True} | changes


def gap(symbol="AAA", first=501, missing=10, **changes):
    ends = {"ts_start": MIDNIGHT + timedelta(hours=1), "ts_end": MIDNIGHT + timedelta(hours=1, seconds=2.5)}
    row = {"symbol": symbol, "first_id": first, "last_id": first + missing - 1, "missing": missing} | ends
    return row | {"status": "open", "filled_by": None, "ts_known": ends["ts_end"]} | changes


def covered(table, symbol, status="ok", rows=1500, size=2048):
    return {"table": table, "symbol": symbol, "status": status, "rows": rows, "bytes": size}


def market_day(**changes):
    inputs = {
        "date": DATE,
        "symbols": ("AAA",),
        "daily": pl.DataFrame([daily_row()]),
        "bars_5m": pl.DataFrame(
            [bar("AAA", 0, 100.0, 103.0, 98.0, 99.0, 5.0, 3.0), bar("AAA", 10, 99.0, 102.0, 99.0, 101.5, 1.0, 4.0)],
            schema=polars_schema(Bar5m),
        ),
        "spreads": pl.DataFrame([spread("AAA", 0, 1.0), spread("AAA", 5, 4.0), spread("AAA", 10, 2.0)]),
        "statistics": pl.DataFrame(
            [
                statistic("AAA", 1438, volatility=0.9, z_score=0.1),
                statistic("AAA", 1439, volatility=0.625, z_score=-1.5),
            ],
            schema=polars_schema(PriceStatistics),
        ),
        "gaps": pl.DataFrame([gap()], schema=polars_schema(Gap)),
        "quarantine": pl.DataFrame(
            [
                {"table": "market/trades", "symbol": "AAA", "rule": "price|min_exclusive", "rows": 3},
                {"table": "market/quotes", "symbol": "AAA", "rule": "ask_size|min", "rows": 4},
            ]
        ),
        "coverage": pl.DataFrame([covered("market/trades", "AAA"), covered("market/quotes", "AAA")]),
        "revised": 0,
        "order_flow": flow(),
    }
    return DailyMarket(**(inputs | changes))


def blank_day(**changes):
    names = ("daily", "bars_5m", "spreads", "statistics", "gaps", "quarantine", "coverage")
    return market_day(**(dict.fromkeys(names, NOTHING) | {"order_flow": no_flow()} | changes))


class Page(HTMLParser):
    """Headings, tables (lists of rows of cell texts), list items, plots, and every address that the page names."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.tables, self.items, self.paragraphs = [], [], [], []
        self.plots, self.addresses, self.titles, self.tags = [], [], [], []
        self._sink = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.addresses += [attributes[name] for name in ("src", "href", "action", "data") if name in attributes]
        if "plot" in attributes.get("class", ""):
            self.plots.append(attributes)
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._sink = self.tables[-1][-1]
            self.titles.append(attributes.get("title"))
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("h1", "h2", "li", "p"):
            self._sink = {"li": self.items, "p": self.paragraphs}.get(tag, self.headings)
            self._sink.append("")
        elif tag in ("script", "style"):
            self._sink = None

    def handle_endtag(self, tag):
        if tag in ("td", "th", "h1", "h2", "li", "p"):
            self._sink = None

    def handle_data(self, data):
        if self._sink is not None:
            self._sink[-1] += data

    def table(self, first_header):
        return next(table for table in self.tables if table[0][0] == first_header)


def test_headline_numbers_worked_by_hand():
    row = headline(market_day()).row(0, named=True)
    assert row == {
        "symbol": "AAA",
        "close": 101.5,
        "return_bps": 150.0,
        "range_bps": 500.0,  # (103 - 98) / 100
        "vwap": 100.25,
        "volume": 2000.0,
        "notional": 200_500.0,  # 100.25 x 2000
        "trade_count": 9990,
        "buy_share": 0.55,  # 1100 / 2000
        "median_spread_bps": 2.0,  # of 1, 4, 2
        "volatility": 0.625,  # the later of two rows
        "z_score": -1.5,
        "gap_count": 1,
        "missing_trades": 10,
        "completeness": 0.999,  # 9990 / 10000
        "quarantined_rows": 7,  # 3 + 4
    }


def test_headline_takes_any_row_order_and_leaves_out_other_dates_and_symbols():
    day = market_day()
    earlier, later = daily_row(day=date(2024, 8, 7), close=1.0), daily_row(day=date(2024, 8, 9), close=2.0)
    shuffled = market_day(
        daily=pl.DataFrame([later, daily_row("BBB", close=3.0), daily_row(), earlier]),
        statistics=day.statistics.reverse(),
        bars_5m=day.bars_5m.reverse(),
    )
    assert headline(shuffled).equals(headline(day))


def test_headline_follows_the_order_of_symbols():
    day = market_day(symbols=("ZZZ", "AAA"), daily=pl.DataFrame([daily_row(), daily_row("ZZZ", close=7.0)]))
    assert headline(day).select("symbol", "close").rows() == [("ZZZ", 7.0), ("AAA", 101.5)]


def test_headline_of_not_a_number_is_null():
    day = market_day(daily=pl.DataFrame([daily_row(return_bps=float("nan"), vwap=float("inf"))]))
    assert headline(day).select("return_bps", "notional").row(0) == (None, None)


def test_wide_integers_of_the_mart_are_accepted():
    daily = pl.DataFrame([daily_row()]).cast({"trade_count": pl.Int128, "missing_trades": pl.Int128})
    assert headline(market_day(daily=daily))["completeness"].to_list() == [0.999]


def test_page_shows_the_headline_with_units():
    header, row = Page(render(market_day())).table("Symbol")
    shown = dict(zip(header, row, strict=True))
    assert shown == {
        "Symbol": "AAA",
        "Closequote ccy": "101.5",
        "Returnbps": "+150.0",
        "Rangebps": "500.0",
        "VWAPquote ccy": "100.2",  # as many decimals as the prices have; halves go to the even digit
        "Volumebase units": "2.000 k",
        "Notionalquote ccy": "200.5 k",
        "Tradescount": "9,990",
        "Boughtof volume": "55.0 %",
        "Spreadbps, median": "2.000",
        "Volatilityper year": "62.5 %",
        "Z-scoreof close": "\N{MINUS SIGN}1.50",
        "Gapscount": "1",
        "Quarantinedrows": "7",
        "Completeof trade ids": "99.90 %",
    }


def test_page_has_its_parts_in_order():
    page = Page(render(market_day()))
    assert page.headings == [
        "Thursday, 8 August 2024 2024-08-08, UTC",
        "Verdict",
        "Headline",
        "Order flow",
        "AAA",
        "Context",
        "Gaps in the trade ids",
        "Quarantine",
        "Coverage",
    ]
    assert [plot["id"] for plot in page.plots] == ["session-1", "order-flow-1"]
    assert "closed at 101.5" in page.plots[0]["aria-label"]


def test_page_names_only_files_beside_it():
    text = render(market_day())
    assert set(Page(text).addresses) == {"data:,", PLOT_SCRIPT, "2024-08-08.csv", "2024-08-08.md"}
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text)


def test_same_inputs_give_the_same_bytes_in_any_row_order():
    day = market_day()
    turned = market_day(
        bars_5m=day.bars_5m.reverse(), quarantine=day.quarantine.reverse(), coverage=day.coverage.reverse()
    )
    assert render(day) == render(market_day()) == render(turned)


def test_gaps_table_shows_the_largest_first_and_counts_the_rest():
    gaps = [gap(first=1000 * i, missing=i) for i in range(1, 23)]
    page = Page(render(market_day(gaps=pl.DataFrame(gaps, schema=polars_schema(Gap)))))
    rows = next(t for t in page.tables if "Silences" in t[0])[1:]
    assert len(rows) == 20
    assert rows[0] == [
        "AAA",
        "22",
        "22000",
        "22021",
        "2024-08-08 01:00:00.000",
        "2024-08-08 01:00:02.500",
        "2.500",
        "open",
        "–1",
    ]
    # The two smallest have 1 and 2 missing ids.
    assert any("2 smaller gaps with 3 missing ids" in words for words in page.paragraphs)


def test_coverage_matrix_says_each_state_in_words():
    states = ("ok", "absent", "calendar_closed", "missing", "failed", "blocked")
    coverage = [covered("market/trades", s, s, *((1500, 2048) if s == "ok" else (None, None))) for s in states]
    page = Page(render(blank_day(symbols=(*states, "other"), coverage=pl.DataFrame(coverage))))
    header, row = page.table("Table")
    assert dict(zip(header, row, strict=True)) == {
        "Table": "market/trades",
        "ok": "✓ 1,500 rows · 2.000 KiB",
        "absent": "○ absent1",
        "calendar_closed": "– closed2",
        "missing": "? missing3",
        "failed": "✗ failed4",
        "blocked": "⊘ blocked5",
        "other": "–6",
    }
    assert "the archive has no file for this date" in page.items


def test_coverage_matrix_follows_the_lineage_then_the_alphabet():
    tables = ("marts/b", "market/bars_1s", "marts/a", "market/quotes", "market/trades")
    day = blank_day(coverage=pl.DataFrame([covered(table, "AAA") for table in tables]))
    shown = [row[0] for row in Page(render(day)).table("Table")[1:]]
    assert shown == ["market/trades", "market/quotes", "market/bars_1s", "marts/a", "marts/b"]


def test_session_plot_parts_volume_by_net_aggressor_and_breaks_the_spread_line():
    (source,) = re.findall(r'data-plot="session-1">(.*?)</script>', render(market_day()))
    traces = {trace["name"]: trace for trace in json.loads(source)["data"]}
    # The first bar has 5 bought of 8, the second 1 of 5.
    assert (traces["net buyers"]["y"], traces["net buyers"]["customdata"]) == ([8.0], [0.625])
    assert (traces["net sellers"]["y"], traces["net sellers"]["customdata"]) == ([5.0], [0.2])
    assert traces["price"]["x"] == ["2024-08-08T00:00", "2024-08-08T00:10"]
    assert traces["gap"]["x"] == ["2024-08-08T01:00:02"]
    assert traces["spread"]["y"] == [1.0, 4.0, 2.0] + [None] * 285
    assert traces["spread"]["x"][-1] == "2024-08-08T23:55"


def test_context_plot_rebases_closes_and_divides_volume_by_its_median():
    past = daily_row(day=date(2024, 8, 7), close=50.0, volume=1000.0)
    text = render(market_day(daily=pl.DataFrame([daily_row(close=60.0, volume=3000.0), past])))
    (source,) = re.findall(r'data-plot="context">(.*?)</script>', text)
    closes, volumes = json.loads(source)["data"]
    assert (closes["x"], closes["y"]) == (["2024-08-07", "2024-08-08"], [100.0, 120.0])
    assert volumes["y"] == [0.5, 1.5]  # of the median of 1000 and 3000


@pytest.mark.parametrize("field", ["daily", "bars_5m", "spreads", "statistics", "gaps", "quarantine", "coverage"])
def test_page_with_one_empty_frame_keeps_all_parts(field):
    whole, lacking = (Page(render(day)) for day in (market_day(), market_day(**{field: NOTHING})))
    assert lacking.headings == whole.headings


def test_page_without_any_data_says_so_and_shows_no_zero():
    page = Page(render(blank_day()))
    assert page.plots == []
    cells = page.table("Symbol")[1]
    assert [cell.rstrip("0123456789") for cell in cells] == ["AAA"] + ["–"] * 14
    assert "No trades on this date: the daily bars mart has no row." in page.paragraphs
    assert "No row of this date is in quarantine." in page.paragraphs


def test_page_without_symbols_renders():
    assert "The report covers no symbols." in render(blank_day(symbols=()))


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("absent", "the archive has no file"),
        ("calendar_closed", "the market was closed"),
        ("missing", "market/trades has not been built"),
        ("failed", "market/trades failed to build"),
        ("blocked", "market/trades was blocked by a failed check on its input"),
    ],
)
def test_symbol_without_trades_says_why(status, why):
    coverage = pl.DataFrame([covered("market/trades", "AAA", status, None, None)])
    page = Page(render(blank_day(coverage=coverage)))
    assert f"No trades on this date: {why}." in page.paragraphs
    assert why in page.items
    assert why in page.titles


def test_missing_values_name_their_own_reasons():
    day = market_day(
        daily=pl.DataFrame([daily_row(return_bps=None)]),
        spreads=NOTHING,
        statistics=pl.DataFrame([statistic("AAA", 1439, status="too_few")], schema=polars_schema(PriceStatistics)),
        coverage=pl.DataFrame([covered("market/quotes", "AAA", "failed", None, None)]),
    )
    page = Page(render(day))
    assert page.table("Symbol")[1][2] == "–1"
    reasons = ["no earlier close to compare with", "market/quotes failed to build", "too few bars in the window"]
    assert [item for item in page.items if item in reasons] == reasons


def test_rows_all_in_quarantine_are_counted_though_nothing_traded():
    assert headline(blank_day(quarantine=market_day().quarantine))["quarantined_rows"].to_list() == [7]


def sentences(day):
    return [item.strip() for item in Page(render(day)).items]


def test_verdict_of_a_clean_day():
    clean = market_day(daily=pl.DataFrame([daily_row(gap_count=0, missing_trades=0)]), gaps=NOTHING, quarantine=NOTHING)
    assert sentences(clean) == [
        "AAA traded.",
        "No trade ids are missing.",
        "No row is in quarantine.",
        "AAA moved up 150.0 bps.",
    ]


def test_verdict_names_what_is_wrong_first():
    day = market_day(
        symbols=("AAA", "BBB"),
        coverage=pl.DataFrame(
            [
                covered("market/trades", "BBB", "absent", None, None),
                covered("market/quotes", "BBB", "failed", None, None),
            ]
        ),
        revised=2,
    )
    assert sentences(day)[:6] == [
        "Attention No trades of BBB on this date: the archive has no file.",
        "Attention Failed to build: market/quotes of BBB.",
        "Attention 1 gap in the tape: 10 trade ids are missing (AAA 10).",
        "Attention 7 rows were quarantined: market/quotes of AAA (4) and market/trades of AAA (3).",
        "2 bars were revised by trades that arrived after the close of the bar.",
        "AAA moved up 150.0 bps.",
    ]


def test_verdict_of_refilled_gaps_asks_for_nothing():
    day = market_day(daily=pl.DataFrame([daily_row(gap_count=2, missing_trades=0)]), quarantine=NOTHING)
    assert "2 gaps in the tape, refilled: no trade ids are missing." in sentences(day)


def test_verdict_compares_with_the_earlier_dates():
    past = [
        daily_row(day=DATE - timedelta(days=n), return_bps=bps, volume=500.0)
        for n, bps in enumerate((10.0, -20.0, 30.0, -40.0, 50.0), start=1)
    ]
    said = sentences(market_day(daily=pl.DataFrame([*past, daily_row()])))
    # The median of 10 .. 50 is 30; 150 / 30 = 5 and 2000 / 500 = 4.
    assert "AAA moved up 150.0 bps, 5.0 times its median daily move of the 5 dates before." in said
    assert "Volume of AAA was 4.0 times its median of the 5 dates before." in said


def test_hostile_names_stay_text():
    evil = '<script>alert("x")</script>'
    day = market_day(
        symbols=(evil,),
        daily=pl.DataFrame([daily_row(evil), daily_row(evil, day=date(2024, 8, 7))]),
        bars_5m=market_day().bars_5m.with_columns(symbol=pl.lit(evil)),
        gaps=pl.DataFrame([gap(evil)], schema=polars_schema(Gap)),
        quarantine=pl.DataFrame([{"table": evil, "symbol": evil, "rule": evil, "rows": 1}]),
        coverage=pl.DataFrame([covered(evil, evil, evil)]),
        order_flow=flow(evil),
    )
    page, benign = (
        Page(render(day)),
        Page(render(market_day(daily=pl.DataFrame([daily_row(), daily_row(day=date(2024, 8, 7))])))),
    )
    assert page.tags.count("script") == benign.tags.count("script")
    assert "<script>alert" not in render(day)
    assert evil in page.headings
    assert "<script>" not in as_markdown(day)


def test_frame_without_a_column_is_refused_by_name():
    with pytest.raises(ValueError, match=r"frame 'spreads' of a daily market report lacks: spread_bps"):
        market_day(spreads=pl.DataFrame([spread("AAA", 0, 1.0)]).drop("spread_bps"))


def test_csv_holds_unrounded_numbers_and_reasons():
    day = market_day(daily=pl.DataFrame([daily_row(return_bps=None, close=101.123456789)]))
    (row,) = csv.DictReader(io.StringIO(as_csv(day)))
    assert (row["date"], row["symbol"], row["close"]) == ("2024-08-08", "AAA", "101.123456789")
    assert (row["return_bps"], row["null_reasons"]) == ("", "return_bps: no earlier close to compare with")


def test_markdown_tables_have_as_many_cells_as_headers():
    lines = as_markdown(market_day(symbols=("AAA", "B|B"))).splitlines()
    assert lines[0] == "# Daily market 2024-08-08 (UTC)"
    blocks = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    assert {len(cells) for cells in blocks if cells[1].strip() in {"Symbol", "AAA", "B\\|B"}} <= {17, 11}
    assert "- **Attention.** 1 gap in the tape: 10 trade ids are missing (AAA 10)." in lines


def test_write_publishes_page_tables_and_one_plot_script(tmp_path):
    page = write(market_day(), tmp_path)
    assert page == tmp_path / "daily_market" / "2024-08-08.html"
    assert page.read_text(encoding="utf-8") == render(market_day())
    script = page.with_name(PLOT_SCRIPT)
    before = script.stat()
    write(market_day(date=date(2024, 8, 9)), tmp_path)
    assert script.stat().st_ino == before.st_ino
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "2024-08-08.csv",
        "2024-08-08.html",
        "2024-08-08.md",
        "2024-08-09.csv",
        "2024-08-09.html",
        "2024-08-09.md",
        PLOT_SCRIPT,
    ]


def test_write_replaces_a_plot_script_of_another_version(tmp_path):
    script = write(market_day(), tmp_path).with_name(PLOT_SCRIPT)
    whole = script.read_bytes()
    script.write_bytes(b"older")
    write(market_day(), tmp_path)
    assert script.read_bytes() == whole


def test_self_contained_page_needs_no_other_file(tmp_path):
    page = write(market_day(), tmp_path)
    page.with_name(PLOT_SCRIPT).write_text('window.Plotly = "</script>\\1";', encoding="utf-8")
    alone = self_contained(page.read_text(encoding="utf-8"), page.parent)
    assert 'window.Plotly = "<\\/script>\\1";' in alone
    assert all(address.startswith(("data:", "#")) for address in Page(alone).addresses)
    with pytest.raises(ValueError, match="self-contained already"):
        self_contained(alone, page.parent)


def test_templates_are_package_data():
    names = {entry.name for entry in (files("quant_platform.reports") / "templates").iterdir()}
    assert names >= {"page.html.j2", "parts.html.j2", "daily_market.html.j2", "style.css"}
