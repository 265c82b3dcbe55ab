"""What must hold of costs whatever the desk and the market did."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators.benchmarks import interval_benchmarks, market
from quant_platform.calculators.tca import tca_fills, tca_orders
from quant_platform.contracts._schema import INSTANT, validated
from quant_platform.contracts.execution import TcaFill, TcaOrder
from quant_platform_tests.unit.tca_frames import decisions, fills, orders, quotes, sessions, trades

PARTS = ("delay_bps", "trading_bps", "opportunity_bps", "fees_bps")
PRICES = ("price", "bid_price", "ask_price", "cancel_price")
FEW = settings(max_examples=12)  # a desk has up to twelve orders and fills, and each example costs many frames
NEAR = {"rel_tol": 1e-9, "abs_tol": 1e-7}

price = st.integers(9_000, 11_000).map(lambda cents: cents / 100)
size = st.integers(1, 5_000).map(lambda lots: lots / 100)
second = st.integers(0, 600)
symbol = st.sampled_from(["X", "Y"])


def row(**columns):
    return st.fixed_dictionaries(columns)


def many(strategy, least=0):
    return st.lists(strategy, min_size=least, max_size=12)


trade_rows = many(row(ts_event=second, symbol=symbol, price=price, size=size))
quote_rows = many(row(ts_event=second, symbol=symbol, bid_price=st.none() | price, ask_price=st.none() | price))
order_rows = many(
    row(
        ts_event=second,
        symbol=symbol,
        side=st.sampled_from([1, -1]),
        quantity=size,
        ts_done=st.none() | st.integers(600, 900),
        cancel_price=st.none() | price,
    ),
    least=1,
)
fill_rows = many(
    row(
        order_id=st.integers(0, 3).map("o{}".format),
        ts_event=st.integers(0, 900),
        price=price,
        quantity=size,
        fee=st.none() | st.integers(-100, 100).map(float),
    ),
    least=1,
)
decided = st.lists(st.none() | price, min_size=12, max_size=12)


@st.composite
def desks(draw):
    """Return a market and a desk whose fills are of the symbol and side of their order."""
    given_orders = draw(order_rows)
    by_id = {f"o{number}": order for number, order in enumerate(given_orders)}
    executed = [
        {**fill, "symbol": by_id[fill["order_id"]]["symbol"], "side": by_id[fill["order_id"]]["side"]}
        for fill in draw(fill_rows)
        if fill["order_id"] in by_id
    ]
    prices = draw(decided)
    hours = [{"symbol": name, "ts_open": a, "ts_close": b} for name in ("X", "Y") for a, b in ((-9, 300), (300, 700))]
    return {
        "orders": orders(*given_orders),
        "decisions": decisions(
            *({"symbol": o["symbol"], "price": p} for o, p in zip(given_orders, prices, strict=False))
        ),
        "fills": fills(*executed),
        "trades": trades(*draw(trade_rows)),
        "quotes": quotes(*draw(quote_rows)),
        "sessions": sessions(*hours),
    }


def of_orders(desk):
    return validated(TcaOrder, tca_orders(**desk))


def of_fills(desk):
    return validated(TcaFill, tca_fills(desk["fills"], desk["quotes"], desk["sessions"]))


def costs(rows):
    return rows.select(pl.selectors.ends_with("_bps") - pl.selectors.by_name("expected_cost_bps", require_all=False))


@FEW
@given(desks())
def test_the_parts_sum_to_the_shortfall_and_that_to_paper_less_real_profit(desk):
    for order in of_orders(desk).to_dicts():
        parts = [order[name] for name in PARTS]
        if None not in parts:
            assert sum(parts) == pytest.approx(order["shortfall_bps"], rel=0, abs=1e-8)
        if order["shortfall_bps"] is not None:
            side, x, d, q = (order[name] for name in ("side", "quantity", "decision_price", "filled_quantity"))
            c = order["cancel_price"] or d  # nothing is unfilled, and any price will do
            paper, real = side * x * (c - d), side * q * (c - (order["avg_price"] or 0)) - order["fees"]
            assert (paper - real) / (x * d) * 1e4 == pytest.approx(order["shortfall_bps"], rel=1e-9, abs=1e-8)


@FEW
@given(desks())
def test_swapped_sides_flip_every_sign_but_that_of_fees(desk):
    desk["fills"] = desk["fills"].with_columns(fee=pl.lit(0.0))
    swapped = -pl.col("side")
    flipped = {name: f.with_columns(side=swapped) if "side" in f.columns else f for name, f in desk.items()}
    assert_frame_equal(costs(of_orders(flipped)), costs(of_orders(desk)).select(-pl.all()), **NEAR)
    signed = pl.selectors.starts_with("effective", "realised", "markout_") & pl.selectors.ends_with("_bps")
    assert_frame_equal(of_fills(flipped).select(signed), of_fills(desk).select(-signed), **NEAR)


@FEW
@given(desks(), st.sampled_from([0.001, 0.5, 3.0, 1e6]))
def test_scaled_prices_change_no_basis_point(desk, scale):
    scaled = {
        name: frame.with_columns(pl.col(column) * scale for column in (*PRICES, "fee") if column in frame.columns)
        for name, frame in desk.items()
    }
    assert_frame_equal(costs(of_orders(scaled)), costs(of_orders(desk)), **NEAR)
    assert_frame_equal(costs(of_fills(scaled)), costs(of_fills(desk)), **NEAR)


@FEW
@given(desks())
def test_fills_split_in_two_change_nothing(desk):
    half = desk["fills"].with_columns(pl.col("quantity", "fee") / 2)
    split = {**desk, "fills": pl.concat([half, half.with_columns(fill_id=pl.col("fill_id") + "b")])}
    whole, halves = (of_orders(each).drop("fill_count") for each in (desk, split))
    assert_frame_equal(halves, whole, **NEAR)


@FEW
@given(desks())
def test_rows_in_any_order_change_nothing(desk):
    turned = {name: frame.reverse() for name, frame in desk.items()}
    assert_frame_equal(of_orders(turned), of_orders(desk))
    assert_frame_equal(of_fills(turned), of_fills(desk))


@given(trade_rows, quote_rows, st.lists(second, min_size=3, max_size=3).map(sorted))
def test_two_windows_make_up_the_one_that_they_share(trade_list, quote_list, cut):
    tapes = market(trades(*trade_list), quotes(*quote_list))
    start, middle, end = (each * 1_000_000_000 for each in cut)
    spans = [(start, middle), (middle, end), (start, end)]
    asked = pl.DataFrame(spans, schema=["ts_start", "ts_end"], orient="row").with_columns(symbol=pl.lit("X"))
    rows = interval_benchmarks(asked.cast({"ts_start": INSTANT, "ts_end": INSTANT}), tapes)
    first, second_, both = rows.to_dicts()
    assert first["market_volume"] + second_["market_volume"] == pytest.approx(both["market_volume"])
    paid = [each["market_volume"] * (each["vwap_price"] or 0) for each in (first, second_, both)]
    assert paid[0] + paid[1] == pytest.approx(paid[2])
    if first["twap_basis"] == second_["twap_basis"] == both["twap_basis"] is not None:
        areas = [(b - a) * each["twap_price"] for (a, b), each in zip(spans, (first, second_, both), strict=True)]
        assert areas[0] + areas[1] == pytest.approx(areas[2])
