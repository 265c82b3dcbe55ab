"""Small frames of orders, fills and their quality for the tests of execution quality, impact and scorecards."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from quant_platform.contracts._schema import INSTANT

SECOND = 1_000_000_000
MONDAY = date(2026, 3, 2)

ORDERS = {
    "order_id": pl.String,
    "date": pl.Date,
    "ts_event": INSTANT,
    "ts_done": INSTANT,
    "ts_last_fill": INSTANT,
    "symbol": pl.String,
    "strategy": pl.String,
    "algo": pl.String,
    "broker": pl.String,
    "side": pl.Int8,
    "quantity": pl.Float64,
    "filled_quantity": pl.Float64,
    "avg_price": pl.Float64,
    "decision_price": pl.Float64,
    "arrival_price": pl.Float64,
    "arrival_cost_bps": pl.Float64,
    "expected_cost_bps": pl.Float64,
    "ts_known": INSTANT,
}
FILLS = {
    "fill_id": pl.String,
    "order_id": pl.String,
    "date": pl.Date,
    "ts_event": INSTANT,
    "symbol": pl.String,
    "venue": pl.String,
    "liquidity": pl.String,
    "side": pl.Int8,
    "price": pl.Float64,
    "quantity": pl.Float64,
    "quoted_spread_bps": pl.Float64,
    "effective_spread_bps": pl.Float64,
    "realised_spread_5s_bps": pl.Float64,
    "markout_5s_bps": pl.Float64,
    "markout_5m_bps": pl.Float64,
    "price_improvement": pl.Float64,
    "price_improvement_amount": pl.Float64,
    "ts_known": INSTANT,
}
QUALITY = {
    "order_id": pl.String,
    "score": pl.Float64,
    "quoted_spread_bps": pl.Float64,
    "effective_spread_bps": pl.Float64,
    "realised_spread_5s_bps": pl.Float64,
    "markout_5s_bps": pl.Float64,
    "markout_5m_bps": pl.Float64,
    "price_improvement_bps": pl.Float64,
    "ts_known": INSTANT,
}


def frame(schema, rows):
    """Build a frame from rows of plain values, times as integer ns."""
    plain = {name: pl.Int64 if dtype == INSTANT else dtype for name, dtype in schema.items()}
    return pl.DataFrame(rows, schema=plain, strict=False, orient="row").cast(schema)


def orders(*rows):
    """Build orders: 10 of X bought at 100.1 with an arrival mid of 100, filled after 10 s; each row overrides."""
    defaults = {
        "date": MONDAY,
        "ts_event": 0,
        "ts_done": 10 * SECOND,
        "ts_last_fill": 10 * SECOND,
        "symbol": "X",
        "strategy": "mean_reversion",
        "algo": "twap",
        "broker": "one",
        "side": 1,
        "quantity": 10.0,
        "filled_quantity": 10.0,
        "avg_price": 100.1,
        "decision_price": 99.0,
        "arrival_price": 100.0,
        "arrival_cost_bps": 10.0,
        "expected_cost_bps": 6.0,
        "ts_known": 20 * SECOND,
    }
    return frame(ORDERS, [{"order_id": f"o{n:04}"} | defaults | row for n, row in enumerate(rows)])


def fills(*rows):
    """Build fills: 1 bought at 100 at the far touch of a quote 2 bps wide; each row overrides."""
    defaults = {
        "order_id": "o0000",
        "date": MONDAY,
        "ts_event": SECOND,
        "symbol": "X",
        "venue": "north",
        "liquidity": "taker",
        "side": 1,
        "price": 100.0,
        "quantity": 1.0,
        "quoted_spread_bps": 2.0,
        "effective_spread_bps": 2.0,
        "realised_spread_5s_bps": 1.0,
        "markout_5s_bps": 0.5,
        "markout_5m_bps": 0.25,
        "price_improvement": 0.0,
        "price_improvement_amount": 0.0,
        "ts_known": 30 * SECOND,
    }
    return frame(FILLS, [{"fill_id": f"f{n:04}"} | defaults | row for n, row in enumerate(rows)])


def quality(*rows):
    """Build what scorecards read of the quality of orders; each row overrides."""
    defaults = {"score": 0.5, "ts_known": 25 * SECOND}
    return frame(QUALITY, [{"order_id": f"o{n:04}"} | defaults | row for n, row in enumerate(rows)])


def desk(number, *, seed, days=10, symbols=4, algos=3, effect=0.0):
    """Return random orders over whole days, half of what an order costs common to its day and to its symbol."""
    random = np.random.default_rng(seed)
    day, symbol, algo = (random.integers(0, each, number) for each in (days, symbols, algos))
    common = random.normal(0, 5, days)[day] + random.normal(0, 5, symbols)[symbol]
    filled = random.choice([0.0, 4.0, 10.0, 10.0], number)
    return orders(
        *(
            {
                "date": MONDAY + timedelta(int(day[n])),
                "symbol": f"S{symbol[n]}",
                "strategy": ["slow", "fast"][n % 2],
                "algo": f"a{algo[n]}",
                "broker": None if n % 5 == 0 else "one",
                "filled_quantity": filled[n],
                "avg_price": 100 + n % 7 if filled[n] else None,
                "arrival_cost_bps": 6 + effect + common[n] + random.normal(0, 8) if filled[n] else None,
                "expected_cost_bps": random.normal(6, 1),
                "ts_known": int(day[n]) * 86_400 * SECOND + n,
            }
            for n in range(number)
        )
    )
