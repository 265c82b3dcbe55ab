"""Recipes of `live/*`: the archived sample of what the live writer served, and its parity with the batch."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from quant_platform.contracts._schema import INSTANT, empty, polars_schema, split
from quant_platform.contracts.live import LiveParity, LiveValue
from quant_platform.pipeline import live_parity, option_keys
from quant_platform.pipeline.order_flow import ORDER_FLOW
from quant_platform.pipeline.units import Built, Fold, Input, Recipe, Source, Work
from quant_platform.settings import Settings
from quant_platform.storage import live_archive

FACTS = "live_parity"
"""The fact of a `live/parity` file that its check reads: JSON, one object a metric."""

_TIMES = ("ts_written", "ts_event", "ts_known")
_MOST_INTEGER = 2**63
_TOLD = (
    *("metric", "samples", "compared", "with_gap", "missing", "restarts", "differing"),
    *("max_difference", "worst_field", "worst_id", "worst_served", "worst_computed", "max_final_difference"),
)


def _archived(work: Work) -> Source | None:
    _, symbol, date = work.unit
    file = live_archive.path(work.settings.landing, symbol, date)
    content = live_archive.read(file)
    name = str(file.relative_to(work.settings.landing))
    return Source(name, hashlib.sha256(content).hexdigest(), content) if content else None


def _values(work: Work) -> Built:
    assert work.source is not None  # a unit with no source is absent and never built
    lines = work.source.handle.decode(errors="replace").split("\n")[:-1]
    rows: list[Mapping[str, Any]] = []
    broken: list[tuple[str, int]] = []
    for number, line in enumerate(lines, start=1):
        row = _row(number, line)
        if row is None:
            broken.append(("line|json", number))
        elif row["symbol"] != work.unit.symbol:
            broken.append(("symbol|of_the_file", number))
        else:
            rows.append(row)
    schema = polars_schema(LiveValue)
    numbers = {name: pl.Int64() if dtype == INSTANT else dtype for name, dtype in schema.items()}
    good, bad = split(LiveValue, pl.DataFrame(rows, schema=numbers, orient="row").cast(dict.fromkeys(_TIMES, INSTANT)))
    broken += bad.select("rule", "line").rows()
    quarantined = pl.DataFrame(
        [(rule, work.source.name, number, lines[number - 1]) for rule, number in broken],
        schema={"rule": pl.String, "source_file": pl.String, "source_line": pl.Int64, "raw": pl.String},
        orient="row",
    )
    return Built(good, quarantined)


def _row(number: int, line: str) -> Mapping[str, Any] | None:
    """Return a line as a row, null where it does not say what it should; None where it is no payload at all."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    payload = told.get("payload") if isinstance(told, dict) else None
    if not isinstance(payload, dict):
        return None
    written, received = _integer(payload, "ts_written"), _integer(payload, "ts_known")
    return {
        "line": number,
        "ts_written": written,
        "ts_event": _integer(payload, "ts"),
        "symbol": payload.get("symbol"),
        "metric": told["metric"] if isinstance(told.get("metric"), str) else None,
        "seq": _integer(payload, "seq"),
        "last_trade_id": _integer(payload, "last_trade_id"),
        "sequence": _integer(payload, "sequence"),
        "has_gap": payload.get("has_gap") is True,
        "payload": json.dumps(payload, separators=(",", ":")),
        "ts_known": None if written is None else max(written, received or written),
    }


def _integer(payload: Mapping[str, Any], name: str) -> int | None:
    value = payload.get(name)
    return value if type(value) is int and abs(value) < _MOST_INTEGER else None


def _parity(work: Work) -> Built:
    rows = live_parity.parity(work, {recipe.table: recipe for recipe in ORDER_FLOW})
    facts = {FACTS: json.dumps(rows.select(_TOLD).to_dicts())} if rows.height else {}
    return Built(rows.select(polars_schema(LiveParity).names()) if rows.height else empty(LiveParity), facts=facts)


def _parity_parameters(settings: Settings) -> Mapping[str, Any]:
    return {recipe.table: dict(recipe.parameters(settings)) for recipe in ORDER_FLOW}


def _warm_up() -> tuple[Input, ...]:
    """Return what the folds read of earlier sessions, each table once, for the longest of their lookbacks."""
    lookbacks: dict[str, int] = {}
    for recipe in ORDER_FLOW:
        if isinstance(recipe.build, Fold):
            for read in recipe.inputs:
                lookbacks[read.table] = max(read.lookback_sessions, lookbacks.get(read.table, 0))
    return tuple(Input(table, lookback, is_optional=True) for table, lookback in lookbacks.items())


LIVE = (
    Recipe(LiveValue.table, _values, (), fetch=_archived),
    Recipe(
        LiveParity.table,
        _parity,
        ("quant_platform.pipeline.live_parity", "quant_platform.pipeline.order_flow"),
        (
            Input(LiveValue.table),
            *_warm_up(),
            *(Input(table, is_optional=True) for table in option_keys.TABLES),
        ),
        parameters=_parity_parameters,
    ),
)
