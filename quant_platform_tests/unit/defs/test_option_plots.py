"""Pictures of the tables of options and volatility: what is drawn where, and what is said without rows."""

import base64
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant_platform.contracts.dealer import GammaExposure
from quant_platform.contracts.microstructure import UnusualActivity
from quant_platform.contracts.volatility import VolIndexRegime
from quant_platform.defs import option_panels, option_plots, plots
from quant_platform.storage.lake import Lake
from quant_platform_tests.unit.option_frames import MADE, gamma, history, regimes, skews, surface
from quant_platform_tests.unit.order_flow_frames import DATE, rows

MADE_HERE = {contract.table: made for contract, made in MADE.items() if contract is not UnusualActivity}
ALL: Mapping[str, Callable[..., pl.DataFrame]] = MADE_HERE | {VolIndexRegime.table: regimes}
Drawn = Callable[..., Any]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake((tmp_path / "lake").as_uri())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, lake: Lake) -> Drawn:
    """Return the panels of a table's plot, for the rows that stand in the lake."""

    def panels_of(table: str, frame: pl.DataFrame) -> list[Any]:
        kept: list[Any] = []
        for module in (option_plots, plots):
            monkeypatch.setattr(module, "picture", kept.append)
        for (symbol,), part in frame.partition_by("symbol", as_dict=True).items():
            lake.write(table, str(symbol), DATE, part)
        getattr(option_plots, table.partition("/")[2])(lake, table, DATE)
        return list(kept[0].axes)

    return panels_of


def values(line: Any) -> list[float]:
    """Return what a line is drawn through."""
    return [round(float(value), 9) for value in line.get_ydata()]


def ticks(axes: Any) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def heights(axes: Any) -> list[float]:
    """Return the ends of the bars of a panel."""
    return [float(segment[1][1]) for segment in axes.collections[0].get_segments()]


def test_gamma_of_the_newest_snapshot_is_drawn_by_strike(drawn: Drawn) -> None:
    profile = drawn("options/gamma_exposure", gamma())[0]
    bars = [(float(left[1]), float(right[0])) for left, right in profile.collections[0].get_segments()]
    assert bars == [(90.0, -30.0), (100.0, 20.0), (110.0, 30.0)]
    outlines = [patch.get_data().values.tolist() for patch in profile.patches]
    assert outlines == [[0.0, 30.0, 30.0], [-30.0, -10.0, 0.0]]  # calls; puts
    legend = [text.get_text() for text in profile.get_legend().get_texts()]
    assert legend == ["spot 100", "zero gamma 98"]


def test_maps_hold_strikes_by_expiry_and_over_time(drawn: Drawn) -> None:
    maps = drawn("options/gamma_exposure", gamma())[1]
    squares = [(image.get_array() * np.abs(image.get_array())).round(6).tolist() for image in maps.images]
    assert squares == [
        [[-30.0, 0.0], [-5.0, 25.0], [0.0, 30.0]],  # net gamma of 90, 100, 110 by expiry
        [[0.0, -30.0], [-10.0, 20.0], [0.0, 30.0]],  # and at the two snapshots
        [[-300.0, 0.0], [-200.0, 0.0], [0.0, 100.0]],
        [[0.0, -300.0], [5.0, -200.0], [0.0, 100.0]],
    ]
    assert ticks(maps)[:4] == ["16 Aug 24", "27 Sep 24", "00:00", "01:00"]
    over_time = [values(line) for line in maps.lines if len(line.get_xdata()) == 2]
    assert [101.0, 100.0] in over_time  # the price
    assert [102.0, 98.0] in over_time  # the zero gamma


def test_colours_of_a_map_are_even_about_zero(drawn: Drawn) -> None:
    for image in drawn("options/gamma_exposure", gamma())[1].images:
        low, high = image.get_clim()
        assert low == -high


def test_steps_without_a_strike_leave_a_gap(drawn: Drawn) -> None:
    middle = gamma().filter((pl.col("strike") == 100.0) & (pl.col("ts_event") == pl.col("ts_event").max()))
    more = pl.concat([gamma(), *(middle.with_columns(strike=pl.lit(strike)) for strike in (92.0, 94.0))])
    profile, maps = drawn("options/gamma_exposure", more)  # distances 2, 2, 6, 10: steps of 5
    calls, puts = (patch.get_data() for patch in profile.patches)
    assert calls.values.tolist() == [30.0, 30.0, 30.0, 0.0, 30.0]  # at 90 (90 and 92), 95, 100, 105, 110
    assert puts.values.tolist() == [-40.0, -10.0, -10.0, 0.0, 0.0]
    assert calls.edges.tolist() == [87.5, 92.5, 97.5, 102.5, 107.5, 112.5]
    assert profile.get_ylim() == maps.get_ylim() == (87.5, 112.5)


def test_snapshot_without_strikes_near_the_price_keeps_its_place(drawn: Drawn) -> None:
    is_early = pl.col("strike").is_not_null() & (pl.col("ts_event") == pl.col("ts_event").min())
    _, maps = drawn("options/gamma_exposure", gamma().filter(~is_early))
    assert [image.get_array().shape for image in maps.images] == [(3, 2)] * 4
    assert (maps.images[1].get_array()[:, 0] == 0).all()


def test_strikes_far_from_the_price_leave_a_plot_of_levels_alone(drawn: Drawn) -> None:
    far = gamma().with_columns(pl.col("strike") * 10)
    profile, maps = drawn("options/gamma_exposure", far)
    assert (profile.patches[:], len(maps.images)) == ([], 0)


def test_newest_snapshot_that_could_be_valued_is_drawn(drawn: Drawn) -> None:
    unknown = dict.fromkeys(("gex_gross", "gex_net", "dex_gross", "dex_net", "max_gex_strike", "zero_gamma"))
    total = {"at": 7200, "sign_convention": "gross", "status": "no_valid_contracts", **unknown}
    later = pl.concat([gamma(), rows(GammaExposure, total)])
    legend = drawn("options/gamma_exposure", later)[0].get_legend()
    assert legend.get_texts()[0].get_text() == "spot 100"


def test_many_snapshots_are_thinned_and_the_newest_stays() -> None:
    one = gamma().head(1).with_row_index("number")
    for count in (1, 47, 48, 49, 96, 97, 1440):
        snapshots = pl.concat([one] * count).with_columns(number=pl.int_range(pl.len()))
        kept = option_plots._thinned(snapshots)["number"].to_list()
        assert len(kept) <= 48
        assert len(kept) >= min(count, 24)
        assert kept[-1] == count - 1
        assert kept == sorted(kept)


def test_flows_are_drawn_by_expiry_of_the_newest_snapshot(drawn: Drawn) -> None:
    vanna, charm, hedge = drawn("options/dealer_flow", MADE_HERE["options/dealer_flow"]())
    assert (heights(vanna), heights(charm), heights(hedge)) == ([3.0, 3.0], [-4.0, -4.0], [35.0, 35.0])
    assert ticks(vanna) == ["16 Aug", "27 Sep"]


def test_skew_is_drawn_by_expiry_and_over_the_date(drawn: Drawn) -> None:
    by_expiry, over_time = drawn("options/skew", skews())
    assert values(by_expiry.lines[0]) == [3.5, 5.0]  # vol points; one side alone is no skew
    assert values(over_time.lines[0]) == [2.0, 3.5]
    assert ticks(over_time) == ["00:00", "01:00"]


def test_z_scores_are_drawn_by_exposure(drawn: Drawn) -> None:
    (axes,) = drawn("options/exposure_history", history())
    lines = {line.get_label(): values(line) for line in axes.lines}
    assert (lines["gex net"], lines["skew"], lines["vanna"]) == ([0.0, 1.5], [-0.25], [])


def test_slices_with_arbitrage_are_dashed(drawn: Drawn) -> None:
    (axes,) = drawn("options/vol_surface", surface())
    near, far = axes.lines
    assert (set(values(near)), near.get_linestyle()) == ({20.0}, "-")  # sqrt(0.0004 / 0.01)
    assert (set(values(far)), far.get_linestyle()) == ({10.0}, "--")
    assert "1 of 2 slices have arbitrage" in axes.get_title(loc="right")
    assert (near.get_xdata()[0], near.get_xdata()[-1]) == (-0.1, 0.1)


def test_slices_are_drawn_where_they_are_quoted_and_not_far_away(drawn: Drawn) -> None:
    (axes,) = drawn("options/vol_surface", surface(k_low=-3.0, k_high=0.2))
    assert {(float(line.get_xdata()[0]), float(line.get_xdata()[-1])) for line in axes.lines} == {(-0.4, 0.2)}


def test_readings_of_earlier_weeks_stand_beside_those_of_the_date(drawn: Drawn, lake: Lake) -> None:
    before = regimes(regime="SHOCK").with_columns(pl.col("ts_event", "ts_known").dt.offset_by("-7d"))
    lake.write(VolIndexRegime.table, "VIX1D", DATE - timedelta(days=7), before)
    (axes,) = drawn(VolIndexRegime.table, regimes())
    assert values(axes.lines[0]) == [12.0, 14.2, 12.0, 14.2]
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert labels == {"normal", "shock"}
    assert axes.get_title(loc="left") == "VIX1D of cboe"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (950.0, "950"), (-2_500.0, "-2.5 k"), (1e6, "1 M"), (-1.25e9, "-1.25 bn"), (3e12, "3 T")],
)
def test_amounts_are_short(value: float, text: str) -> None:
    assert option_panels._amount(value) == text


@pytest.mark.parametrize("table", ALL)
def test_plot_of_two_symbols_is_a_png(lake: Lake, table: str) -> None:
    for symbol in ("AAA", "BBB"):
        lake.write(table, symbol, DATE, ALL[table](symbol))
    picture = getattr(option_plots, table.partition("/")[2])(lake, table, DATE)
    head, _, content = picture.removesuffix(")").partition("base64,")
    assert head == "![plot](data:image/png;"
    assert base64.b64decode(content).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("table", ALL)
def test_plot_without_rows_is_a_sentence(lake: Lake, table: str) -> None:
    said = getattr(option_plots, table.partition("/")[2])(lake, table, DATE)
    assert said.startswith("No ")
    assert said.endswith("this date.")
