"""Small frames of what orders cost and what became of decisions, for the tests of outcomes and attribution."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from quant_platform.contracts._schema import Contract, polars_schema
from quant_platform.contracts.execution import TcaOrder

DAY = date(2024, 3, 8)
NOON = datetime(2024, 3, 8, 12, tzinfo=UTC)


def framed(contract: type[Contract], rows: list[dict[str, Any]], usual: Mapping[str, Any]) -> pl.DataFrame:
    """Return rows of a contract: each says what is not usual; what nothing says is null."""
    schema = polars_schema(contract)
    return pl.DataFrame([{**dict.fromkeys(schema), **usual, **row} for row in rows], schema=schema)


def costs(*rows: dict[str, Any]) -> pl.DataFrame:
    """Return orders with their costs: 6 of 10 bought at 102, decided at 100, arrived at 101, C = 104, fees 3."""
    usual = {
        "decision_id": "d0",
        "ts_event": NOON,
        "symbol": "X",
        "strategy": "s",
        "side": 1,
        "quantity": 10.0,
        "filled_quantity": 6.0,
        "fill_count": 1,
        "avg_price": 102.0,
        "fees": 3.0,
        "decision_price": 100.0,
        "arrival_price": 101.0,
        "cancel_price": 104.0,
        "arrival_cost_bps": 1 / 101 * 1e4,
        "expected_cost_bps": 60.0,
        # 6 of 10 lose 1 to the arrival and 1 more to the fill, 4 of 10 lose 4; a share of 10 x 100.
        "delay_bps": 60.0,
        "trading_bps": 60.0,
        "opportunity_bps": 160.0,
        "fees_bps": 30.0,
        "shortfall_bps": 310.0,
        "has_correction": False,
        "status": "ok",
        "reasons": "",
        "ts_known": NOON,
    }
    named = [{"order_id": f"o{number}", **row} for number, row in enumerate(rows)]
    return framed(TcaOrder, named, usual)
