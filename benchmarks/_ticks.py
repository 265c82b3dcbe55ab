"""Ticks for benchmarks: one seeded symbol-day as a frame. Archive files are simulated elsewhere."""

import datetime as dt

import numpy as np
import polars as pl

from quant_platform.contracts._schema import INSTANT


def day_of_ticks(symbol: str, date: dt.date, rows: int, seed: int = 7) -> pl.DataFrame:
    """Return one seeded symbol-day of contract `Trade`: orders that fill in bursts, within millisecond times."""
    rng = np.random.default_rng(seed)
    fills = rng.geometric(0.36, size=rows)
    orders = int(np.searchsorted(np.cumsum(fills), rows)) + 1
    order = np.repeat(np.arange(orders), fills[:orders])[:rows]
    day = np.linspace(0, 1, 1_441)
    activity = 1 + 0.6 * np.cos(4 * np.pi * day) + 0.3 * np.sin(2 * np.pi * day + 1)
    share = np.concatenate([[0], np.cumsum((activity[1:] + activity[:-1]) / 2)])
    time_ms = np.sort((np.interp(rng.random(orders), share / share[-1], day) * 86_400_000).astype(np.int64))
    side = np.where(np.cumsum(rng.random(orders) < 0.28) % 2 == 0, 1, -1)
    move = rng.choice([-1, 0, 1], p=[0.09, 0.82, 0.09], size=orders) * rng.geometric(0.5, size=orders)
    depth = (np.arange(rows) - np.searchsorted(order, order, side="left")) // 3
    ticks = (618_000 + np.cumsum(move))[order] + (side[order] > 0) + side[order] * depth
    round_lots = rng.choice([1, 2, 5, 10, 20, 50, 100, 200, 500], size=rows)
    lots = np.where(rng.random(rows) < 0.3, round_lots, np.ceil(np.exp(rng.normal(2.6, 1.6, rows))))
    ids = 5_266_583_935 + np.arange(rows)
    midnight_ms = int(dt.datetime.combine(date, dt.time(), dt.UTC).timestamp()) * 1_000
    return pl.DataFrame(
        {
            "ts_event": pl.Series((midnight_ms + np.minimum(time_ms, 86_399_999)[order]) * 1_000_000).cast(INSTANT),
            "ts_recv": pl.repeat(None, rows, dtype=INSTANT, eager=True),
            "symbol": pl.repeat(symbol, rows, eager=True),
            "venue": pl.repeat("binance_usdm", rows, eager=True),
            "trade_id": ids,
            "first_trade_id": ids,
            "last_trade_id": ids,
            "price": ticks / 10,
            "size": np.minimum(lots, 200_000) / 1_000,
            "aggressor": side[order].astype(np.int8),
        }
    )
