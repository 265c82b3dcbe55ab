"""Option chains in the daily market report: numbers worked by hand, a reason for each missing one, sentences, plot."""

import csv
import io
import json
import re
from typing import Any

import polars as pl
import pytest

from quant_platform.contracts._schema import empty
from quant_platform.reports.daily_market import as_csv, as_markdown, render
from quant_platform.reports.market_day import DailyMarket, no_trades
from quant_platform.reports.market_options import TABLES, OptionsDay, no_options
from quant_platform.reports.market_options_table import level, options_reasons, options_rows, options_table
from quant_platform.reports.market_options_verdict import options_findings, options_sentences
from quant_platform.reports.page import Cell
from quant_platform_tests.unit.option_frames import (
    FAR,
    MADE,
    NEAR,
    activity,
    chains,
    flows,
    gamma,
    history,
    proxies,
    regimes,
    skews,
    surface,
)
from quant_platform_tests.unit.order_flow_frames import DATE, MIDNIGHT, no_flow

NOTHING = pl.DataFrame()
NO_SPOT = {"underlying_price": None, "status": "invalid_spot"} | dict.fromkeys(
    (
        *("gex_gross", "gex_net", "dex_gross", "dex_net", "max_gex_strike", "zero_gamma", "zero_gamma_count"),
        *("zero_gammas", "zero_gamma_from", "zero_gamma_to", "directional_bias"),
    )
)


def market_day(options: OptionsDay, *, symbols: tuple[str, ...] = ("AAA",), **changes: pl.DataFrame) -> DailyMarket:
    """Return a date of which nothing is known but its option chains."""
    frames: dict[str, Any] = dict.fromkeys(
        ("daily", "bars_5m", "spreads", "statistics", "gaps", "quarantine", "coverage"), NOTHING
    )
    return DailyMarket(date=DATE, symbols=symbols, revised=0, order_flow=no_flow(), options=options, **frames | changes)


def covered(table: str, status: str = "ok", symbol: str = "AAA") -> pl.DataFrame:
    return pl.DataFrame([{"table": table, "symbol": symbol, "status": status, "rows": 0, "bytes": 0}])


def cells(day: DailyMarket) -> dict[str, Cell]:
    """Return the first symbol's line of the table by column."""
    table = options_table(day, options_rows(day))
    return {column.name: cell for column, cell in zip(table.columns, table.rows[0], strict=True)}


def sentences(options: OptionsDay, **changes: pl.DataFrame) -> str:
    """Return what is said of AAA."""
    day = market_day(options, **changes)
    return " ".join(options_sentences(day, options_rows(day).row(0, named=True)))


def heads(options: OptionsDay, *symbols: str) -> list[tuple[str, str]]:
    """Return tone and sentence of what the page's head says."""
    return [tuple(finding) for finding in options_findings(market_day(options, symbols=symbols or ("AAA",)))]


def figure(day: DailyMarket, number: int = 1) -> dict[str, Any]:
    (source,) = re.findall(rf'data-plot="options-{number}">(.*?)</script>', render(day))
    plot: dict[str, Any] = json.loads(source)
    return plot | {"traces": {trace["name"]: trace for trace in plot["data"]}}


def from_yahoo(readings: pl.DataFrame) -> pl.DataFrame:
    return readings.with_columns(source=pl.lit("yahoo"))


def without(table: str) -> OptionsDay:
    """Return the date with one table that has no rows."""
    contract = next(contract for contract in MADE if contract.table == table)
    return chains(**{table.partition("/")[2]: empty(contract)})


def test_numbers_are_those_of_the_newest_snapshot() -> None:
    (row,) = chains().numbers.iter_rows(named=True)
    expected = {
        "snapshot": MIDNIGHT.replace(hour=1),
        "snapshots": 2,
        "spot": 100.0,
        "gex_net": 20.0,  # and not the -10 of an hour before
        "gex_gross": 100.0,
        "zero_gamma": 98.0,
        "notional_per_pct_move": 70.0,  # of the chain, and not the 35 of an expiry
        "skew": 0.035,  # of the nearest expiry
        "gex_net_z_score": 1.5,
        "skew_z_score": -0.25,
        "slices": 3,
        "slices_fitted": 2,
        "slices_with_butterflies": 1,  # of the last snapshot; the one before had one too
        "slices_with_calendars": 1,
        "slices_with_arbitrage": 1,  # the slice that has both counts once
        "vix1d_proxy": 54.321,
        "score": 0.61,
        "classification": "elevated",
    }
    assert {name: row[name] for name in expected} == expected


def test_statuses_of_two_tables_do_not_part_a_symbol() -> None:
    numbers = chains(exposure_history=history(z_score=None, status="too_few")).numbers
    assert numbers.select("symbol", "skew_status", "skew_history_status").rows() == [("AAA", "ok", "too_few")]


def test_frames_to_draw_are_those_of_the_newest_snapshot() -> None:
    options = chains()
    assert options.strikes.select("strike", "gex_gross", "gex_net").rows() == [
        (90.0, 30.0, -30.0),
        (100.0, 40.0, 20.0),
        (110.0, 30.0, 30.0),
    ]
    assert options.skews.rows() == [("AAA", NEAR, 0.035), ("AAA", FAR, 0.05)]
    assert options.slices.select("years", "arbitrage").rows() == [(0.01, False), (0.04, True)]


def test_newest_reading_of_an_index_is_kept_for_each_source() -> None:
    readings = pl.concat([regimes(), from_yahoo(regimes(value=15.0))])
    assert chains(vix1d_regime=readings).regimes.select("source", "value").rows() == [("cboe", 14.2), ("yahoo", 15.0)]


def test_table_shows_the_numbers_as_people_read_them() -> None:
    assert {name: cell.text for name, cell in cells(market_day(chains())).items()} == {
        "Symbol": "AAA",
        "Spot": "100",
        "Net gamma": "+20.00 / +1.5",
        "Gross": "100.0",
        "Zero gamma": "98 (\N{MINUS SIGN}2.0 %)",
        "Net delta": "\N{MINUS SIGN}400.0",
        "Hedge": "+70.00",
        "Vanna": "+6.000",
        "Charm": "\N{MINUS SIGN}8.000",
        "Skew": "+3.5 / \N{MINUS SIGN}0.2",  # 0.035 is 3.5 vol points
        "Own index": "54.3",
        "Activity": "elevated 0.61",
        "Arbitrage": "1 / 2",
        "Skipped": "1,234",
    }


def test_complete_chain_has_no_reasons() -> None:
    day = market_day(chains())
    assert options_table(day, options_rows(day)).reasons == ()


def test_every_column_names_its_unit_and_tables() -> None:
    day = market_day(chains())
    table = options_table(day, options_rows(day))
    for column in table.columns[1:]:
        assert column.unit, column.name
        assert set(column.meaning.rpartition("; ")[2].split(", ")) <= set(TABLES), column.name
    assert "docs/data_dictionary.md" in table.remark


@pytest.mark.parametrize(
    ("convention", "words"),
    [("dealer_long_calls_short_puts", "long calls and short puts"), ("gross", "is not assumed")],
)
def test_remark_tells_the_sign_convention_in_use(convention: str, words: str) -> None:
    day = market_day(chains(gamma_exposure=gamma(sign_convention=convention)))
    remark = options_table(day, options_rows(day)).remark
    assert [words in remark, remark.count("Net is calls less puts") + remark.count("net is calls less puts")] == [
        True,
        1,
    ]


def test_surface_without_arbitrage_and_calm_activity_do_not_warn() -> None:
    sound = surface(arbitrage=False).filter(pl.col("calendar_arbitrage").is_null())
    shown = cells(market_day(chains(vol_surface=sound, unusual_activity=activity(classification="normal"))))
    assert (shown["Arbitrage"], shown["Activity"]) == (Cell("0 / 1"), Cell("normal 0.61"))
    loud = cells(market_day(chains()))
    assert (loud["Arbitrage"].style, loud["Activity"].style) == ("warn", "warn")


@pytest.mark.parametrize(
    ("frames", "column", "reason"),
    [
        ({"gamma_exposure": gamma(**NO_SPOT)}, "Spot", "the chain does not tell the price of the underlying"),
        ({"gamma_exposure": gamma(**NO_SPOT)}, "Zero gamma", "the chain does not tell the price of the underlying"),
        (
            {"gamma_exposure": gamma(zero_gamma=None, zero_gamma_count=0, zero_gammas="[]")},
            "Zero gamma",
            "net gamma is zero nowhere near",
        ),
        (
            {"gamma_exposure": gamma(zero_gamma=None, zero_gamma_count=None, zero_gammas=None)},
            "Zero gamma",
            "it was not searched",
        ),
        (
            {"dealer_flow": flows(notional_per_pct_move=None, status="no_valid_contracts")},
            "Hedge",
            "no contract of the snapshot counts",
        ),
        ({"skew": skews(skew=None, status="one_sided")}, "Skew", "no expiry has both a call and a put near the delta"),
        ({"exposure_history": history(z_score=None, status="constant")}, "Skew", "z-score: it did not vary"),
        (
            {"vix1d_proxy": proxies(vix1d_proxy=None, status="too_few")},
            "Own index",
            "no two settlements enclose the horizon",
        ),
        (
            {"unusual_activity": activity(score=None, classification="inactive", status="zero_volume")},
            "Activity",
            "no option traded",
        ),
    ],
)
def test_missing_value_says_why(frames: dict[str, pl.DataFrame], column: str, reason: str) -> None:
    shown = cells(market_day(chains(**frames)))[column]
    assert shown.reason == reason
    assert shown.text.endswith("–")


@pytest.mark.parametrize("table", [contract.table for contract in MADE])
def test_table_without_rows_is_named_with_its_state(table: str) -> None:
    day = market_day(without(table), coverage=covered(table, "failed"))
    reasons = {reason.removeprefix("z-score: ") for reason in options_table(day, options_rows(day)).reasons}
    assert reasons == {f"{table} failed to build"}
    assert f"{table} failed to build" in render(day)
    silent = market_day(without(table))
    assert any(f"{table} has no rows on this date" in reason for reason in options_reasons(silent, "AAA").values())


def test_sentences_of_dealers_who_are_long_gamma() -> None:
    assert sentences(chains()) == (
        "Dealers are long gamma at 100: +20.00 per 1 % net, of 100.0 per 1 % gross. The strike with most gamma is 100. "
        "Zero gamma is 98, 2.0 % below it, the nearest of 2. "
        "Puts are 3.5 vol points dearer than calls (deltas \N{MINUS SIGN}0.26 and +0.24, expiry 2024-08-16); it was no "
        "higher in 50 % of the last 24 snapshots (z-score \N{MINUS SIGN}0.2). "
        "Option activity is elevated (score 0.61): volume is 0.25 times open interest, 12.50 times in the most active "
        "contract; mostly calls. "
        "Its own strips price 54.3 vol points over 1 day. "
        "2 of 3 slices of the surface were fitted: 1 with a butterfly below nothing, 1 with less total variance than "
        "the settlement before. "
        "1,234 of 1,240 contracts do not count in gamma: expired, without greeks, or with little open interest."
    )


def test_sentences_of_dealers_who_are_short_gamma() -> None:
    said = sentences(chains(gamma_exposure=gamma(gex_net=-2.5e6, zero_gamma=102.5, zero_gamma_count=1)))
    assert said.startswith("Dealers are short gamma at 100: \N{MINUS SIGN}2.500 M per 1 % net")
    assert "Zero gamma is 102.5, 2.5 % above it. " in said


def test_sentences_without_levels() -> None:
    none = sentences(chains(gamma_exposure=gamma(gex_net=0.0, zero_gamma=None, zero_gamma_count=0, zero_gammas="[]")))
    assert none.startswith("Dealers are neither long nor short gamma at 100: 0 per 1 % net")
    assert "Net gamma is zero nowhere from 80 to 120." in none
    gross = sentences(chains(gamma_exposure=gamma(sign_convention="gross", zero_gamma=None, zero_gamma_count=None)))
    assert gross.startswith("Gamma at 100 is 100.0 per 1 % gross; nobody's side is assumed.")
    assert "ero gamma" not in gross


def test_sentences_of_what_is_not_known() -> None:
    said = sentences(
        chains(
            gamma_exposure=gamma(**NO_SPOT),
            skew=skews(skew=None, status="one_sided"),
            unusual_activity=activity(score=None, classification="inactive", status="zero_volume"),
            vix1d_proxy=proxies(vix1d_proxy=None, status="too_few"),
        )
    )
    for sentence in (
        "Gamma is not known: the chain does not tell the price of the underlying.",
        "Skew is not known: no expiry has both a call and a put near the delta.",
        "Option activity is inactive: no option traded.",
        "The short index from its own strips is not known: no two settlements enclose the horizon.",
    ):
        assert sentence in said


def test_sentence_of_a_skew_that_has_no_history_yet() -> None:
    said = sentences(chains(exposure_history=history(z_score=None, status="too_few"), skew=skews(skew=-0.01)))
    assert "Puts are 1.0 vol points cheaper than calls" in said
    assert "snapshots" not in said


def test_rows_of_the_chain_in_quarantine_are_told() -> None:
    rows = [("options/chain", "AAA", "strike|min_exclusive", 3), ("market/trades", "AAA", "price|min", 9)]
    quarantine = pl.DataFrame(rows, schema=["table", "symbol", "rule", "rows"], orient="row")
    assert sentences(chains(), quarantine=quarantine).endswith("3 rows of the date's chains are in quarantine.")
    one = quarantine.with_columns(rows=pl.lit(1))
    assert sentences(chains(), quarantine=one).endswith("1 row of the date's chains is in quarantine.")


def test_head_tells_who_is_long_and_who_is_short() -> None:
    short = gamma("BBB", gex_net=-1.0)
    options = chains("AAA", "BBB", gamma_exposure=pl.concat([gamma(), short]))
    assert heads(options, "AAA", "BBB") == [
        ("note", "Option dealers ended long gamma in AAA, short gamma in BBB."),
        ("note", "Option activity was elevated in AAA and BBB."),
    ]
    calm = chains(gamma_exposure=gamma(sign_convention="gross"), unusual_activity=activity(classification="watch"))
    assert heads(calm) == []


@pytest.mark.parametrize(
    ("regime", "tone", "word"),
    [
        ("SHOCK", "attention", "SHOCK"),
        ("ELEVATED", "attention", "ELEVATED"),
        ("BENIGN", "note", "BENIGN"),
        (None, "note", "unknown"),
    ],
)
def test_head_tells_the_published_index_and_its_regime(regime: str | None, tone: str, word: str) -> None:
    older = from_yahoo(regimes()).head(1)
    first = heads(chains(vix1d_regime=pl.concat([regimes(regime=regime), older])))[0]
    sentence = f"VIX1D was 14.20 vol points at 01:00 UTC (cboe): its regime is {word}, z-score +0.5 of 60 readings."
    assert first == (tone, sentence)


def test_head_of_an_index_without_a_z_score() -> None:
    assert heads(chains(vix1d_regime=regimes(z_score=None)))[0][1].endswith("its regime is NORMAL.")


def test_index_stands_in_the_head_also_without_a_chain() -> None:
    no_chain = {contract.table.partition("/")[2]: empty(contract) for contract in MADE}
    day = market_day(chains(vix1d_regime=regimes(regime="SHOCK"), **no_chain))
    head = as_markdown(day).partition("## ")[0]
    assert "- **Attention.** VIX1D was 14.20 vol points" in head


def test_date_without_a_chain_has_no_section() -> None:
    day = market_day(no_options())
    assert "Options and volatility" not in render(day)
    assert "Options and volatility" not in as_markdown(day)
    (row,) = csv.DictReader(io.StringIO(as_csv(day)))
    assert row["gex_net"] == ""
    assert "gex_net" not in row["null_reasons"]


def test_only_symbols_of_the_report_that_have_a_chain_have_a_section_in_its_order() -> None:
    page = render(market_day(chains("AAA", "BBB", "CCC"), symbols=("ZZZ", "BBB", "AAA")))
    assert re.findall(
        r"<h3 id=\"chain-\d\">(\w+): option chain at 01:00:00 UTC, the last of 2 snapshots</h3>", page
    ) == [
        "BBB",
        "AAA",
    ]


def test_plot_draws_gamma_by_strike() -> None:
    traces = figure(market_day(chains()))["traces"]
    strikes = {"x": [90.0, 100.0, 110.0]}
    expected = {  # of 30 gross and -30 net: no calls, puts of 30; of 40 and 20: calls of 30, puts of 10
        "calls": strikes | {"y": [0.0, 30.0, 30.0], "width": 10.0},
        "puts": strikes | {"y": [-30.0, -10.0, 0.0], "width": 10.0},
        "net, calls prevail": strikes | {"y": [None, 20.0, 30.0], "width": 6.0},
        "net, puts prevail": strikes | {"y": [-30.0, None, None], "width": 6.0},
    }
    assert {name: {key: traces[name][key] for key in ("x", "y", "width")} for name in expected} == expected


def test_plot_marks_spot_and_every_zero_gamma_in_sight() -> None:
    levels = "[98.0, 115.0, 119.0]"
    plot = figure(market_day(chains(gamma_exposure=gamma(zero_gammas=levels))))
    lines = [(line["x0"], line["line"].get("dash")) for line in plot["layout"]["shapes"]]
    assert lines == [(100.0, None), (98.0, "dash"), (115.0, "dash")]  # the strikes shown end at 115
    names = {note["text"]: note["xanchor"] for note in plot["layout"]["annotations"]}
    assert (names["spot 100"], names["zero gamma 98"]) == ("left", "right")


def test_plot_draws_skew_and_slices() -> None:
    traces = figure(market_day(chains()))["traces"]
    assert (traces["skew"]["x"], traces["skew"]["y"]) == (["16 Aug 24", "27 Sep 24"], [3.5, 5.0])
    near, far = traces["16 Aug 24"], traces["27 Sep 24"]
    assert (near["x"][0], near["x"][-1], near["line"]["dash"]) == (-0.1, 0.1, "solid")
    assert set(near["y"]) == {20.0}  # sqrt(0.0004 / 0.01)
    assert (set(far["y"]), far["line"]["dash"]) == ({10.0}, "dash")  # sqrt(0.0004 / 0.04)


def test_plot_of_a_chain_without_levels_says_so() -> None:
    bare = chains(
        gamma_exposure=gamma(**NO_SPOT).filter(pl.col("strike").is_null()),
        skew=skews(skew=None, status="one_sided").filter(pl.col("expiry").is_null()),
        vol_surface=surface().filter(pl.col("status") != "ok"),
    )
    plot = figure(market_day(bare))
    assert plot["data"] == []
    words = {note["text"] for note in plot["layout"]["annotations"]}
    assert words >= {"No contract near the price counts.", "No expiry has a skew.", "No slice was fitted."}


def test_plot_of_many_slices_draws_some_of_them() -> None:
    many = pl.concat([surface().head(2)] * 30).with_columns(
        ts_expiry=pl.col("ts_expiry") + pl.duration(days=pl.int_range(pl.len()))
    )
    many = many.cast({"ts_expiry": pl.Datetime("ns", "UTC")}).with_columns(ts_event=pl.col("ts_event").max())
    slices = [trace for trace in figure(market_day(chains(vol_surface=many)))["data"] if trace.get("xaxis") == "x3"]
    assert len(slices) == 7
    assert len({trace["line"]["color"] for trace in slices}) == 7


def test_plot_says_its_levels_in_words() -> None:
    label = re.findall(r'id="options-1" role="img" aria-label="(.*?)"', render(market_day(chains())))[0]
    assert label.endswith("Net gamma was 20.00 per 1 % at 100. Zero gamma was at 98.")


def test_csv_and_markdown_hold_what_the_table_shows() -> None:
    day = market_day(chains(skew=skews(skew=None, status="one_sided")))
    (row,) = csv.DictReader(io.StringIO(as_csv(day)))
    names = ("gex_net", "zero_gamma", "zero_gammas", "vix1d_proxy", "skew")
    assert {name: row[name] for name in names} == {
        "gex_net": "20.0",
        "zero_gamma": "98.0",
        "zero_gammas": "[98.0, 115.0]",
        "vix1d_proxy": "54.321",
        "skew": "",
    }
    assert "skew: no expiry has both a call and a put near the delta" in row["null_reasons"]
    section = as_markdown(day).partition("## Options and volatility")[2].partition("## ")[0]
    assert "| AAA | 100 | +20.00 / +1.5 | 100.0 | 98 (\N{MINUS SIGN}2.0 %) |" in section
    assert "**AAA.** Dealers are long gamma at 100" in section


def test_symbol_whose_feed_has_chains_alone_needs_no_attention() -> None:
    day = market_day(chains())
    assert no_trades(day, "AAA") == "the feed has option chains alone"
    assert "**Attention.** No trades" not in as_markdown(day)
    missing = market_day(chains(), coverage=covered("market/trades", "missing"))
    assert no_trades(missing, "AAA") == "market/trades has not been built"
    built = market_day(chains(), coverage=covered("market/trades"))
    assert no_trades(built, "AAA") == "the daily bars mart has no row"


@pytest.mark.parametrize(
    ("value", "text"),
    [(63_088.71234, "63,088.7"), (147.5, "147.5"), (2_345_678.9, "2,345,679"), (0.123456789, "0.123457")],
)
def test_levels_have_six_digits(value: float, text: str) -> None:
    assert level(value) == text
