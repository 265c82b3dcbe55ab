"""Small markets and desks, made through the contracts: what the tests of costs stand on. Times are in seconds."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import polars as pl

from quant_platform.calculators.benchmarks import SESSIONS
from quant_platform.contracts._schema import Contract, conformed, polars_schema
from quant_platform.contracts.execution import Decision, Fill, Order
from quant_platform.contracts.market import Quote, Trade

S = 1_000_000_000
DAY_S = 86_400
Row = Mapping[str, Any]


def rows_of(contract: type[Contract], rows: Iterable[Row], usual: Callable[[int], Row]) -> pl.DataFrame:
    """Return rows of a contract: what `usual` says of each number, or what the row says; `ts_*` in seconds."""
    full = [{**usual(number), **row} for number, row in enumerate(rows)]
    for row in full:
        row.setdefault("ts_recv", row["ts_event"])
        row.update({name: _ns(value) for name, value in row.items() if name.startswith("ts_")})
    schema = polars_schema(contract)
    numbers = {name: pl.Int64 if dtype.is_temporal() else dtype for name, dtype in schema.items()}
    frame = pl.DataFrame(full, schema=numbers, strict=False).cast(dict(schema))
    return conformed(contract, frame)


def trades(*rows: Row | tuple[float, float, float]) -> pl.DataFrame:
    """Trades of `X` from (seconds, price, size), or from rows."""
    named = [
        row if isinstance(row, Mapping) else dict(zip(("ts_event", "price", "size"), row, strict=True)) for row in rows
    ]
    frame = [
        {**row, "first_trade_id": row.get("trade_id", n), "last_trade_id": row.get("trade_id", n)}
        for n, row in enumerate(named)
    ]
    return rows_of(Trade, frame, lambda n: {"symbol": "X", "venue": "v", "trade_id": n, "size": 1.0, "aggressor": 1})


def quotes(*rows: Row | tuple[float, float, float]) -> pl.DataFrame:
    """Quotes of `X` from (seconds, bid, ask), or from rows."""
    named = [
        row if isinstance(row, Mapping) else dict(zip(("ts_event", "bid_price", "ask_price"), row, strict=True))
        for row in rows
    ]
    return rows_of(
        Quote,
        named,
        lambda n: {
            "symbol": "X",
            "venue": "v",
            "sequence": n,
            "bid_size": 1.0,
            "ask_size": 1.0,
            "is_ts_event_assumed": False,
        },
    )


def mid_quotes(*mids: tuple[float, float]) -> pl.DataFrame:
    """Quotes of `X` from (seconds, mid)."""
    return quotes(*((at, mid - 0.5, mid + 0.5) for at, mid in mids))


def sessions(*rows: tuple[float, float] | Row) -> pl.DataFrame:
    """Sessions of `X` that are over, from (open, close), or from rows."""
    usual = {"symbol": "X", "is_over": True}
    full = [
        usual | (dict(row) if isinstance(row, Mapping) else {"ts_open": row[0], "ts_close": row[1]}) for row in rows
    ]
    full = [{**row, "ts_open": _ns(row["ts_open"]), "ts_close": _ns(row["ts_close"])} for row in full]
    schema = {name: pl.Int64 if dtype.is_temporal() else dtype for name, dtype in SESSIONS.items()}
    return pl.DataFrame(full, schema=schema).cast(dict(SESSIONS))


def orders(*rows: Row) -> pl.DataFrame:
    """Orders `o0`, `o1` … of `X` for decisions of the same number, to buy 10 in [0, 10) s."""
    return rows_of(
        Order,
        rows,
        lambda n: {
            "order_id": f"o{n}",
            "decision_id": f"d{n}",
            "revision": 0,
            "ts_event": 0,
            "ts_done": 10,
            "symbol": "X",
            "side": 1,
            "quantity": 10.0,
            "status": "filled",
        },
    )


def decisions(*rows: Row) -> pl.DataFrame:
    """Decisions `d0`, `d1` … of `X` to buy 10 at 100."""
    return rows_of(
        Decision,
        rows,
        lambda n: {
            "decision_id": f"d{n}",
            "revision": 0,
            "ts_event": 0,
            "strategy": "s",
            "symbol": "X",
            "side": 1,
            "quantity": 10.0,
            "price": 100.0,
        },
    )


def fills(*rows: Row) -> pl.DataFrame:
    """Fills `f0`, `f1` … of `o0`: 10 of `X` bought at 100 after 5 s, for nothing."""
    return rows_of(
        Fill,
        rows,
        lambda n: {
            "fill_id": f"f{n}",
            "order_id": "o0",
            "revision": 0,
            "ts_event": 5,
            "symbol": "X",
            "side": 1,
            "price": 100.0,
            "quantity": 10.0,
            "fee": 0.0,
        },
    )


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * S)
