"""Small tapes for the tests of calculators."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
