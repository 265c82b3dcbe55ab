"""One small date of order flow, made through the contracts: what the tests of its report and its plots stand on."""

import functools
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from quant_platform.contracts._schema import Contract, column_docs, empty, polars_schema, validated
from quant_platform.contracts.microstructure import (
    FlowClusters,
    HiddenOrder,
    OrderBookImbalance,
    ParticipantFlow,
    Sweep,
    Toxicity,
    Vpin,
)
from quant_platform.reports.market_order_flow import TABLES, OrderFlow, order_flow

DATE = date(2024, 8, 8)
MIDNIGHT = datetime(2024, 8, 8, tzinfo=UTC)
Row = Mapping[str, Any]


def rows(contract: type[Contract], *values: Row, symbol: str = "AAA") -> pl.DataFrame:
    """Rows that keep the contract: `at` (seconds since midnight) is every time, what is not named is null or 1."""
    samples: dict[str, Any] = {"Int64": 1, "Int8": 1, "Float64": 1.0, "Boolean": True, "String": "auto"}
    required = [doc for doc in column_docs(contract) if not doc.is_nullable]
    made = []
    for value in values:
        at = MIDNIGHT + timedelta(seconds=value.get("at", 0))
        defaults = {doc.name: samples.get(doc.dtype, at) for doc in required} | {"symbol": symbol, "status": "ok"}
        if "depth_status" in polars_schema(contract):
            defaults["depth_status"] = "ok"
        made.append(dict.fromkeys(polars_schema(contract)) | defaults | {k: v for k, v in value.items() if k != "at"})
    return validated(contract, pl.DataFrame(made, schema=polars_schema(contract)))


@functools.cache
def vpin(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """VPIN of 0.3, 0.2 and at last 0.4, which is high; changes apply to every row."""
    whole: Row = {"method": "buckets", "bucket_size": 10.0}
    return rows(
        Vpin,
        {**whole, "at": 0, "vpin": 0.3, "cdf": 0.5, "level": "low", **changes},
        {**whole, "at": 360, "vpin": 0.2, "cdf": 0.25, "level": "low", **changes},
        {**whole, "at": 540, "vpin": 0.4, "cdf": 0.97, "level": "high", **changes},
        symbol=symbol,
    )


@functools.cache
def toxicity(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """Toxicity of 0.2, 0.8 and 0.5."""
    levels = ((0, 0.2, "low"), (360, 0.8, "high"), (540, 0.5, "low"))
    values = ({"at": at, "toxicity_adjusted": t, "toxicity_adjusted_level": level} for at, t, level in levels)
    return rows(Toxicity, *({**value, **changes} for value in values), symbol=symbol)


@functools.cache
def books(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """Two seconds of the first five minutes, one of the second; the first has no order flow imbalance yet."""
    levels = ((1, 1.0, 0.6, None), (2, -0.5, -0.2, 5.0), (301, 0.3, -0.1, -2.0))
    values = ({"at": at, "l1": l1, "l5": l5, "ofi": ofi} for at, l1, l5, ofi in levels)
    return rows(OrderBookImbalance, *({**value, **changes} for value in values), symbol=symbol)


@functools.cache
def sweeps(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """One sweep of a buyer and two of sellers."""
    volumes = ((10, 1, 1.3), (20, -1, 0.65), (400, -1, 0.65))
    values = ({"at": at, "side": side, "volume": volume, "notional": 65.0} for at, side, volume in volumes)
    return rows(Sweep, *({**value, **changes} for value in values), symbol=symbol)


@functools.cache
def hidden_orders(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """Two executions, of which the first had not been displayed."""
    values: tuple[Row, ...] = (
        {"at": 10, "hidden": True, "hidden_volume": 1.3},
        {"at": 400, "hidden": False, "hidden_volume": 0.0},
    )
    return rows(HiddenOrder, *({**value, **changes} for value in values), symbol=symbol)


@functools.cache
def participants(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """Institutions with 0.4 and 0.6 of notional, retail with 0.3 and 0.2."""
    names = [f"{who}_notional_share" for who in ("institutional", "retail", "unclassified")]
    shares = ((0, (0.4, 0.3, 0.3)), (60, (0.6, 0.2, 0.2)))
    values = ({"at": at, **dict(zip(names, parts, strict=True))} for at, parts in shares)
    return rows(ParticipantFlow, *({**value, **changes} for value in values), symbol=symbol)


@functools.cache
def clusters(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """Mean reversion is the largest cluster of both samples."""
    names = [f"{name}_share" for name in ("momentum", "mean_reversion", "hedging")]
    shares = ((0, (0.2, 0.5, 0.3)), (60, (0.4, 0.5, 0.1)))
    values = ({"at": at, **dict(zip(names, parts, strict=True))} for at, parts in shares)
    return rows(FlowClusters, *({**value, **changes} for value in values), symbol=symbol)


MADE: Mapping[type[Contract], Callable[..., pl.DataFrame]] = {
    Vpin: vpin,
    OrderBookImbalance: books,
    Toxicity: toxicity,
    ParticipantFlow: participants,
    Sweep: sweeps,
    HiddenOrder: hidden_orders,
    FlowClusters: clusters,
}


def flow(*symbols: str, **frames: pl.DataFrame) -> OrderFlow:
    """The date of those symbols (AAA if none is named); a frame under its table's name stands in place of its own."""
    tables = {
        contract.table: pl.concat([made(symbol) for symbol in symbols or ("AAA",)]) for contract, made in MADE.items()
    }
    tables |= {f"microstructure/{name}": frame for name, frame in frames.items()}
    return order_flow({table: frame.lazy() for table, frame in tables.items()})


def no_flow() -> OrderFlow:
    """A date of which no table has a row."""
    made = {contract.table: empty(contract).lazy() for contract in MADE}
    assert set(made) == set(TABLES)
    return order_flow(made)
