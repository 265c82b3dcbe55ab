"""Costs on a recorded day of Amazon against plain loops over its ticks, in exact fractions."""

import datetime as dt
from fractions import Fraction
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from quant_platform.calculators.benchmarks import SESSIONS
from quant_platform.calculators.tca import tca_fills, tca_orders
from quant_platform.contracts._schema import empty, validated
from quant_platform.contracts.execution import MARKOUT_HORIZONS_NS, Decision, TcaFill, TcaOrder
from quant_platform.contracts.market import Quote, Trade
from quant_platform.feeds import lobster
from quant_platform.feeds.recorded import Wanted
from quant_platform_tests.unit.tca_frames import S, fills, orders

DATE = dt.date(2012, 6, 21)
OPEN, CLOSE = (dt.datetime(2012, 6, 21, hour, minute, tzinfo=dt.UTC) for hour, minute in ((13, 30), (20, 0)))
ORDERS = 40
ALLOWED = Fraction(1, 10**9)


@pytest.fixture(scope="module")
def day(real_data):
    """Return the day's trades and quotes, received when they happened."""

    def table(contract):
        wanted = Wanted(table=contract.table, symbol="AMZN", venue_symbol="AMZN", date=DATE)
        rows = lobster.read_day(lobster.find(real_data / "lobster_20120621", wanted), wanted).rows
        return rows.with_columns(ts_recv="ts_event")

    return table(Trade), table(Quote)


@pytest.fixture(scope="module")
def desk(day):
    """Return orders of up to an hour, each of which took every hundredth print of its time."""
    rng = np.random.default_rng(5)
    opens = int(OPEN.timestamp())
    start = opens + rng.integers(0, 5 * 3_600, ORDERS)
    end = start + rng.integers(1, 3_600, ORDERS)
    side = rng.choice([-1, 1], ORDERS)
    asked, taken = [], []
    tape = day[0].select(pl.col("ts_event").to_physical(), "price", "size")
    for number in range(ORDERS):
        common = {"symbol": "AMZN", "side": int(side[number])}
        asked.append({**common, "ts_event": int(start[number]), "ts_done": int(end[number]), "quantity": 1e6})
        prints = tape.filter(pl.col("ts_event").is_between(int(start[number]) * S, int(end[number]) * S))
        taken += [
            {**common, "order_id": f"o{number}", "ts_event": ts / S, "price": price, "quantity": size}
            for ts, price, size in prints.gather_every(100).rows()
        ]
    return orders(*asked), fills(*taken)


@pytest.fixture(scope="module")
def hours():
    row = {"symbol": "AMZN", "ts_open": OPEN, "ts_close": CLOSE, "is_over": True}
    return pl.DataFrame([row]).cast(dict(SESSIONS))


def ticks(day):
    """Return prints and mids as (ns, price, size) and (ns, mid), in order, in exact fractions of cents."""
    trades, quotes = (frame.with_columns(pl.col("ts_event").to_physical()) for frame in day)
    tape = trades.sort("ts_event", "trade_id").select("ts_event", "price", "size").rows()
    book = quotes.sort("ts_event", "sequence").select("ts_event", "bid_price", "ask_price").rows()
    whole = [(ts, Fraction(bid), Fraction(ask)) for ts, bid, ask in book if bid and ask and bid <= ask]
    return [(ts, Fraction(p), Fraction(v)) for ts, p, v in tape], [(ts, (b + a) / 2) for ts, b, a in whole], book


def is_near(found, exact):
    return abs(Fraction(found) - exact) < ALLOWED


def test_costs_of_orders_agree_with_loops_over_real_ticks(day, desk, hours):
    trades, quotes = day
    asked, taken = desk
    rows = validated(
        TcaOrder, tca_orders(asked, empty(Decision), taken, trades=trades, quotes=quotes, sessions=hours)
    ).to_dicts()
    tape, mids, _ = ticks(day)
    times = {order["order_id"]: order for order in asked.with_columns(pl.selectors.datetime().to_physical()).to_dicts()}
    assert len(rows) == ORDERS
    for row in rows:
        order = times[row["order_id"]]
        side, start, end = order["side"], order["ts_event"], order["ts_done"]
        mine = taken.filter(order_id=row["order_id"]).select("price", "quantity").rows()
        filled = sum(Fraction(quantity) for _, quantity in mine)
        if not filled:
            assert row["reasons"].startswith("nothing_filled")
            continue
        paid = sum(Fraction(price) * Fraction(quantity) for price, quantity in mine) / filled
        inside = [(price, size) for ts, price, size in tape if start <= ts < end]
        value, volume = sum(price * size for price, size in inside), sum(size for _, size in inside)
        arrival = [mid for ts, mid in mids if ts <= start][-1]
        steps = [(start, arrival), *((ts, mid) for ts, mid in mids if start < ts < end), (end, Fraction(0))]
        area = sum(mid * (until - ts) for (ts, mid), (until, _) in pairwise(steps))
        rest, wanted, spent = filled * 10, filled * 10, Fraction(0)
        for ts, price, size in tape:
            if ts >= start and rest > 0:
                spent, rest = spent + price * min(size, rest), rest - min(size, rest)
        benchmarks = {"arrival": arrival, "vwap": value / volume, "twap": area / (end - start)}
        benchmarks |= {"open": mids[0][1], "close": mids[-1][1], "pwp_10": spent / wanted if not rest else None}
        for name, benchmark in benchmarks.items():
            if name == "pwp_10":  # the rate is the double next to a tenth
                assert (row["pwp_10_price"] is None) == (benchmark is None)
                assert benchmark is None or row["pwp_10_price"] == pytest.approx(float(benchmark), rel=1e-12)
            else:
                assert is_near(row[f"{name}_cost_bps"], side * (paid / benchmark - 1) * 10_000), name


def test_quotes_and_markouts_of_fills_agree_with_loops_over_real_ticks(day, desk, hours):
    taken = desk[1].gather_every(max(1, desk[1].height // 40))
    rows = validated(TcaFill, tca_fills(taken, day[1], hours)).to_dicts()
    _, mids, book = ticks(day)
    times = dict(taken.select("fill_id", pl.col("ts_event").to_physical()).rows())
    assert {row["status"] for row in rows} == {"ok"}
    for row in rows:
        side, at, price = row["side"], times[row["fill_id"]], Fraction(row["price"])
        _, bid, ask = [quote for quote in book if quote[0] < at][-1]
        middle = (Fraction(bid) + Fraction(ask)) / 2
        assert is_near(row["effective_spread_bps"], 2 * side * (price - middle) / middle * 10_000)
        for name, horizon in MARKOUT_HORIZONS_NS.items():
            later = [mid for ts, mid in mids if ts <= at + horizon][-1]
            assert is_near(row[f"markout_{name}_bps"], side * (later / price - 1) * 10_000)
            assert is_near(row[f"realised_spread_{name}_bps"], 2 * side * (price - later) / middle * 10_000)
        assert is_near(row["markout_close_bps"], side * (mids[-1][1] / price - 1) * 10_000)
