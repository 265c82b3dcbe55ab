"""Small tapes for the tests of calculators."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant_platform.contracts._schema import conformed, polars_schema
from quant_platform.contracts.market import Trade

MS = 1_000_000
LATENCY_MS = 50


@pytest.fixture(scope="session")
def tape() -> Callable[..., pl.DataFrame]:
    """Return a builder of trades: rows with at least ts_ms and price, the rest has defaults."""

    def build(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        full = [
            {
                "ts_event": row["ts_ms"] * MS,
                "ts_recv": row.get("recv_ms", row["ts_ms"] + LATENCY_MS) * MS,
                "symbol": row.get("symbol", "BTCUSDT"),
                "venue": "binance_usdm",
                "trade_id": row.get("trade_id", number),
                "first_trade_id": row.get("trade_id", number),
                "last_trade_id": row.get("last_trade_id", row.get("trade_id", number)),
                "price": row["price"],
                "size": row.get("size", 1.0),
                "aggressor": row.get("aggressor", 1),
            }
            for number, row in enumerate(rows)
        ]
        schema = polars_schema(Trade)
        numbers = {name: pl.Int64 if dtype.is_temporal() else dtype for name, dtype in schema.items()}
        return conformed(Trade, pl.DataFrame(full, schema=numbers, strict=False).cast(dict(schema)))

    return build


@pytest.fixture(scope="session")
def signed(tape: Callable[..., pl.DataFrame]) -> Callable[..., pl.DataFrame]:
    """Return a builder of signed trades; without a quote unless `bid` and `ask` are given."""

    def build(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        columns = {name: pl.Series([row.get(name) for row in rows], dtype=pl.Float64) for name in ("bid", "ask")}
        venues = pl.Series("venue", [row.get("venue", "XNAS") for row in rows], dtype=pl.String)
        return tape(rows).with_columns(venues, bid_price=columns["bid"], ask_price=columns["ask"])

    return build


@pytest.fixture(scope="session")
def random_signed(signed: Callable[..., pl.DataFrame]) -> Callable[..., pl.DataFrame]:
    """Return a builder of signed trades of several symbols and two venues, so many milliseconds apart at a mean."""

    def build(*, count: int, symbols: int, seed: int, apart_ms: int = 60) -> pl.DataFrame:
        random = np.random.default_rng(seed)
        return signed(
            [
                {
                    "ts_ms": int(random.integers(0, apart_ms * count)),
                    "symbol": f"S{random.integers(symbols)}",
                    "trade_id": k,
                    "price": float(random.integers(1, 5)) / 8,
                    "size": float(random.integers(1, 50)) / 16,
                    "aggressor": int(random.integers(-1, 2)),
                    "bid": 0.25,
                    "ask": 0.375,
                    "venue": str(random.choice(["XNAS", "FINRA"])),
                }
                for k in range(count)
            ]
        )

    return build
