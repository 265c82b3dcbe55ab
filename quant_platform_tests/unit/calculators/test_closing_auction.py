"""The closing auction's estimate: the oracle, the edges of its window, and the edge matrix."""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import closing_auction
from quant_platform.calculators.closing_auction import ClosingAuctionParams
from quant_platform.contracts._schema import INSTANT, polars_schema, validated
from quant_platform.contracts.microstructure import ClosingImbalance
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "closing_auction_cases.json").read_text())
MINUTE = 60_000_000_000
CLOSE = 16 * 60 * MINUTE
VALUES = ("projected_volume", "imbalance_notional", "paired_notional", "imbalance_ratio", "side")
SCHEMA = {
    "ts_event": pl.Int64,
    "ts_known": pl.Int64,
    "ts_close": pl.Int64,
    "symbol": pl.String,
    "window_volume": pl.Float64,
    "mid": pl.Float64,
    "l5": pl.Float64,
    "gex_net": pl.Float64,
}


def inputs(*rows):
    """Return inputs of 1,000 at 50, a quarter of an hour before the close, with what the rows say otherwise."""
    usual = {"minutes_to_close": 15, "ts_close": CLOSE, "symbol": "AAPL", "window_volume": 1_000, "mid": 50, "l5": 0.4}
    full = [usual | row for row in rows]
    for row in full:
        row["ts_event"] = round(CLOSE - row["minutes_to_close"] * MINUTE)
        row["ts_known"] = row["ts_event"] + 1
    times = [name for name in SCHEMA if name.startswith("ts_")]
    return pl.DataFrame(full, schema=SCHEMA, strict=False).with_columns(pl.col(times).cast(INSTANT))


def found(frame, **params):
    rows = closing_auction.closing_imbalance(frame, closing_auction.ClosingAuctionParams(**params))
    return validated(ClosingImbalance, rows)


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda case: case["id"])
def test_closing_auction_oracle(case):
    (row,) = found(inputs(case["inputs"])).to_dicts()
    for name, value in case["expected"].items():
        assert row[name] == (value if isinstance(value, str) else pytest.approx(value, rel=case["tolerance"]["rel"]))
    assert (row["status"], row["estimated"]) == ("ok", True)
    assert row["minutes_to_close"] == case["inputs"]["minutes_to_close"]


@pytest.mark.parametrize(
    ("minutes", "times"),
    [(60, 1), (45, 1), (44, 45 / 44), (3.75, 12), (3, 12), (0.5, 12)],
)
def test_volume_is_projected_at_least_once_and_at_most_twelve_times(minutes, times):
    (row,) = found(inputs({"minutes_to_close": minutes})).to_dicts()
    assert row["projected_volume"] == pytest.approx(1_000 * times)


@pytest.mark.parametrize(
    ("minutes", "status"), [(60.001, "no_data"), (60, "ok"), (1e-9, "ok"), (0, "no_data"), (-1, "no_data")]
)
def test_the_window_is_the_last_hour(minutes, status):
    assert found(inputs({"minutes_to_close": minutes}))["status"].to_list() == [status]


def test_the_window_can_be_shorter():
    rows = found(inputs({"minutes_to_close": 11}, {"minutes_to_close": 10}), window_min=10)
    assert rows["status"].to_list() == ["no_data", "ok"]
    with pytest.raises(ValueError, match="window_min must be > 0, was 0"):
        closing_auction.ClosingAuctionParams(window_min=0)


def test_strength_is_whole_from_two_thirds_on_and_flat_below_a_thirtieth():
    rows = found(inputs({"l5": 2 / 3}, {"l5": -1}, {"l5": 0.05 / 1.5}, {"l5": 0.0333}, {"l5": -0.0333}, {"l5": 0}))
    assert rows["side"].to_list() == ["BUY", "SELL", "BUY", "FLAT", "FLAT", "FLAT"]
    assert rows["imbalance_notional"].to_list()[:2] == [150_000, 150_000]
    assert rows["imbalance_notional"][5] == 0


def test_gamma_weighs_at_most_three_eighths():
    rows = found(inputs({"gex_net": -1e9}, {"gex_net": 1e12}, {}))
    plain = 3_000 * 50 * 0.6
    assert rows["imbalance_notional"].to_list() == pytest.approx([1.25 * plain, 1.375 * plain, plain])


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ({"ts_close": None}, "no_data"),
        ({"mid": None}, "no_data"),
        ({"window_volume": None}, "no_data"),
        ({"l5": None}, "no_depth"),
        ({"window_volume": 0}, "zero_volume"),
        ({"window_volume": -1}, "invalid_input"),
        ({"window_volume": float("inf")}, "invalid_input"),
        ({"mid": float("nan")}, "invalid_input"),
        ({"mid": 0}, "invalid_input"),
        ({"l5": 1.01}, "invalid_input"),
        ({"l5": float("nan"), "mid": None}, "invalid_input"),
        ({"gex_net": float("inf")}, "invalid_input"),
        ({"gex_net": float("nan"), "ts_close": None}, "no_data"),
    ],
)
def test_what_cannot_be_estimated_is_null_with_a_reason(row, status):
    rows = found(inputs({}, row, {}))
    assert rows["status"].to_list() == ["ok", status, "ok"]
    assert rows.select(VALUES).row(1) == (None,) * len(VALUES)
    assert rows.select(VALUES).row(0) == rows.select(VALUES).row(2)
    assert rows["estimated"].all()


def test_all_null_gives_nulls():
    nothing = dict.fromkeys(("ts_close", "window_volume", "mid", "l5", "gex_net"))
    rows = found(inputs(nothing, nothing))
    assert rows["status"].to_list() == ["no_data"] * 2
    assert rows["minutes_to_close"].to_list() == [None] * 2


def test_no_inputs_give_no_rows():
    assert_frame_equal(found(inputs()), polars_schema(ClosingImbalance).to_frame())


def test_rows_are_judged_by_themselves_and_stay_in_their_order():
    frame = inputs({"symbol": "B"}, {"l5": -0.8}, {"minutes_to_close": 30}, {"symbol": "B", "l5": 0.01}, {})
    rows = found(frame)
    assert rows["symbol"].to_list() == ["B", "AAPL", "AAPL", "B", "AAPL"]
    assert rows["ts_known"].to_list() == frame["ts_known"].to_list()
    assert_frame_equal(pl.concat([found(frame[:2]), found(frame[2:])]), rows)
    assert_frame_equal(found(frame.reverse()), rows.reverse())
    assert ipc_bytes(found(frame)) == ipc_bytes(rows)


def test_minutes_take_what_was_traded_and_quoted_by_their_end() -> None:
    close = datetime(2024, 8, 8, 20, tzinfo=UTC)

    def frame(**columns: list) -> pl.DataFrame:
        names = [name for name in columns if name.startswith("ts_")]
        end = pl.lit(close).cast(INSTANT)
        return pl.DataFrame(columns).with_columns(
            (end + pl.duration(seconds=n, time_unit="ns")).alias(n) for n in names
        )

    # Seconds from the close: the first minute is before the window of three, the last ends with the session.
    bars = frame(ts_open=[-240, -180, -120, -60], volume=[9.0, 1.0, 2.0, 4.0], ts_known=[-180, -120, -60, 0])
    quotes = frame(ts_event=[-120, -90], bid_price=[9.0, 10.0], ask_price=[11.0, 14.0], ts_recv=[-114, -84])
    depth = frame(ts_event=[-72], l5=[0.5], ts_known=[-30])

    gamma = frame(ts_event=[-75, -59], gex_net=[2e9, 3e9], ts_known=[-20, -5])

    found = closing_auction.minute_inputs(
        bars.with_columns(symbol=pl.lit("A")).lazy(),
        quotes.lazy(),
        depth.lazy(),
        gamma.lazy(),
        ts_close=close,
        params=ClosingAuctionParams(window_min=3),
    )

    expected = frame(
        ts_event=[-120, -60],
        window_volume=[1.0, 3.0],
        mid=[10.0, 12.0],
        l5=[None, 0.5],
        ts_close=[0, 0],
        gex_net=[None, 2e9],
        ts_known=[-114, -20],
    ).with_columns(symbol=pl.lit("A"))
    assert_frame_equal(found, expected, check_column_order=False)
