"""Pictures of the order-flow tables: which rows are drawn, that a PNG comes out, and what is said without rows."""

import base64
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.contracts._schema import Contract
from quant_platform.contracts.microstructure import SignedTrade, VpinBucket
from quant_platform.defs import order_flow_plots, plots
from quant_platform.storage.lake import Lake
from quant_platform_tests.unit.order_flow_frames import (
    DATE,
    MADE,
    MIDNIGHT,
    books,
    clusters,
    hidden_orders,
    participants,
    rows,
    sweeps,
    toxicity,
    vpin,
)

FIRST, SECOND = MIDNIGHT, MIDNIGHT + timedelta(minutes=5)


def buckets(symbol: str = "AAA") -> pl.DataFrame:
    """One bucket of buyers, one of sellers."""
    whole = {"bucket_size": 10.0, "signing": "auto", "ts_start": MIDNIGHT}
    return rows(
        VpinBucket,
        {**whole, "at": 10, "buy_volume": 8.0, "sell_volume": 2.0, "imbalance": 0.6},
        {**whole, "at": 20, "bucket": 2, "buy_volume": 4.0, "sell_volume": 6.0, "imbalance": 0.2},
        symbol=symbol,
    )


def signed_trades(symbol: str = "AAA") -> pl.DataFrame:
    """Bought 3 and sold 1 in the first five minutes, sold 2 in the second."""
    trades = ((10, 3.0, 1), (20, 1.0, -1), (30, 9.0, 0), (310, 2.0, -1))
    values = ({"at": at, "size": size, "aggressor": side, "rule": "quote"} for at, size, side in trades)
    return rows(SignedTrade, *values, symbol=symbol)


MADE_HERE: dict[type[Contract], Callable[..., pl.DataFrame]] = {VpinBucket: buckets, SignedTrade: signed_trades}
ALL = {contract.table: made for contract, made in ({**MADE, **MADE_HERE}).items()}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake((tmp_path / "lake").as_uri())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, lake: Lake) -> Callable[[str, pl.DataFrame], list[tuple[Any, ...]]]:
    """Return what a table's plot hands on to be drawn, for the rows that stand in the lake."""

    def rows_of(table: str, frame: pl.DataFrame) -> list[tuple[Any, ...]]:
        kept: list[pl.DataFrame] = []
        monkeypatch.setattr(order_flow_plots, "panels", lambda part, *_, **__: kept.append(part))
        lake.write(f"microstructure/{table}", "AAA", DATE, frame)
        getattr(order_flow_plots, table)(lake, f"microstructure/{table}", DATE)
        return kept[0].drop("symbol").rows()

    return rows_of


Drawn = Callable[[str, pl.DataFrame], list[tuple[Any, ...]]]


def test_imbalance_is_the_mean_of_five_levels_or_else_of_the_touch(drawn: Drawn) -> None:
    assert drawn("order_book_imbalance", books()) == [(FIRST, pytest.approx(0.2)), (SECOND, -0.1)]  # of 0.6, -0.2
    touch = books(l5=None, depth_status="no_depth")
    assert drawn("order_book_imbalance", touch) == [(FIRST, 0.25), (SECOND, 0.3)]  # of 1, -0.5


def test_sweeps_of_sellers_count_downwards_at_their_end(drawn: Drawn) -> None:
    assert drawn("sweeps", sweeps()) == [(FIRST, 1, -1), (SECOND, 0, -1)]


def test_sweep_that_began_the_day_before_is_drawn_at_its_end(drawn: Drawn) -> None:
    over_midnight = sweeps(ts_start=MIDNIGHT - timedelta(seconds=1)).head(1)
    assert drawn("sweeps", over_midnight) == [(FIRST, 1, 0)]


def test_hidden_volume_is_not_0_where_nobody_could_judge(drawn: Drawn) -> None:
    blind = hidden_orders(hidden=None, hidden_volume=None, status="no_data").tail(1)
    assert drawn("hidden_orders", pl.concat([hidden_orders().head(1), blind])) == [(FIRST, 1.3)]


def test_shares_are_means_by_five_minutes(drawn: Drawn) -> None:
    assert drawn("participant_flow", participants()) == [(FIRST, 0.5, 0.25, 0.25)]  # of .4 .6, .3 .2, .3 .2
    assert drawn("flow_clusters", clusters()) == [(FIRST, pytest.approx(0.3), 0.5, pytest.approx(0.2))]


def test_buckets_of_sellers_stand_below_0_at_their_end(drawn: Drawn) -> None:
    ends = (MIDNIGHT + timedelta(seconds=10), MIDNIGHT + timedelta(seconds=20))
    assert drawn("vpin_buckets", buckets()) == [(ends[0], pytest.approx(0.6)), (ends[1], pytest.approx(-0.2))]


def test_signed_trades_are_what_was_bought_less_what_was_sold(drawn: Drawn) -> None:
    assert drawn("signed_trades", signed_trades()) == [(FIRST, 2.0), (SECOND, -2.0)]


def test_unknown_values_are_left_out(drawn: Drawn) -> None:
    unknown = {"vpin": None, "cdf": None, "level": None, "method": None, "status": "no_data"}
    assert [value for _, value, _ in drawn("vpin", pl.concat([vpin(**unknown).head(1), vpin().tail(2)]))] == [0.2, 0.4]
    unknown = {"toxicity_adjusted": None, "toxicity_adjusted_level": None, "status": "nan"}
    kept = drawn("toxicity", pl.concat([toxicity(**unknown).head(1), toxicity().tail(2)]))
    assert [value for _, value in kept] == [0.8, 0.5]


@pytest.mark.parametrize("table", ALL)
def test_plot_of_two_symbols_is_a_png(lake: Lake, table: str) -> None:
    for symbol in ("AAA", "BBB"):
        lake.write(table, symbol, DATE, ALL[table](symbol))
    picture = getattr(order_flow_plots, table.partition("/")[2])(lake, table, DATE)
    head, _, content = picture.removesuffix(")").partition("base64,")
    assert head == "![plot](data:image/png;"
    assert base64.b64decode(content).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("table", ALL)
def test_plot_without_rows_is_a_sentence(lake: Lake, table: str) -> None:
    said = getattr(order_flow_plots, table.partition("/")[2])(lake, table, DATE)
    assert said.startswith(("No", "Nothing"))
    assert said.endswith("on this date.")


def test_panels_say_what_they_are_told_without_rows() -> None:
    assert plots.panels(pl.DataFrame(), lambda *_: None, nothing="No book.") == "No book."
