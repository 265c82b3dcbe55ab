"""A desk's file to rows of `Decision`, `Order`, `Fill` or an event, each with the rule that it breaks, if any.

Own files have the contracts' column names; a broker's are read by a mapping of the settings. Every row of the file is a
row here, or is left out by the mapping's filter and counted. How words, figures and times are spelled: _desk_words.py.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from quant_platform.contracts._schema import INSTANT, Contract, polars_schema, split
from quant_platform.contracts.events import EVENT_WORDS, SCHEMA_VERSION
from quant_platform.feeds import _desk_words as words
from quant_platform.feeds._desk_table import DeskError, Table, UnfinishedError, table
from quant_platform.feeds._desk_words import REASONS
from quant_platform.feeds.sheet import LINE
from quant_platform.settings import (
    DESK_CONTRACTS,
    DESK_IDS,
    EVENT_ALIASES,
    EVENT_ID,
    DeskKind,
    DeskMapping,
    required_columns,
)

__all__ = ["REASONS", "DeskError", "Parsed", "UnfinishedError", "broken_rules", "parsed", "reason"]

_PLACE = "place\x1f"  # no header has this character
_SPELLED: Mapping[str, Mapping[int, tuple[str, ...]] | Mapping[str, tuple[str, ...]]] = {
    "side": words.SIDES,
    "status": words.STATUSES,  # type: ignore[dict-item]  # a StrEnum is a str, a Mapping's key is invariant
    "liquidity": words.LIQUIDITIES,  # type: ignore[dict-item]
    **{column: words.own_words(one) for column, one in EVENT_WORDS.items()},
}
_SYMBOLS = ("symbol", "other_symbol")
_ASSUMED = {"revision": 0, "schema_version": 1}
_RULES_TOLD = 5
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a file says.

    Attributes:
        kind: Of its rows.
        rows: The columns of the kind's contract, in the file's order. `rule` names what a row breaks, comma-separated,
            as `column|rule`; it is null in rows that keep the contract. With `source_line`, and in broken rows the row
            as it came (`raw`). `ts_recv` is null where the file does not tell.
        left_out: Rows that the mapping's filter does not take.
        unread: Columns of an own file that the contract does not have.
    """

    kind: DeskKind
    rows: pl.DataFrame
    left_out: int
    unread: tuple[str, ...]


def parsed(
    content: bytes,
    *,
    kind: DeskKind | None,
    mapping: DeskMapping | None,
    symbols: Collection[str],
    venues: Collection[str],
    ts_intake: datetime,
) -> Parsed:
    """Return the rows of a file.

    Args:
        content: The file, whole.
        kind: Of its rows, without a mapping; None: as the columns say.
        mapping: How a broker's file is read; None for own files.
        symbols: Names of the instruments.
        venues: Names that a fill's venue may have; any, where there are none.
        ts_intake: Our clock when the file was taken.

    Raises:
        UnfinishedError: The file is not whole.
        DeskError: It cannot be read, lacks a column, or none of its rows can be used.
    """
    found = table(content)
    kind = mapping.kind if mapping else kind or _kind(found)
    texts, left_out, unread = _mapped(found, mapping) if mapping else _own(found, kind)
    values = _values(texts, kind, mapping, symbols=symbols, venues=venues, ts_intake=ts_intake)
    rows = pl.concat([_judged(values, found, DESK_CONTRACTS[kind]), _uneven(found, DESK_CONTRACTS[kind])]).sort(LINE)
    if rows.height and rows["rule"].null_count() == 0:
        counted = list(broken_rules(rows).items())[:_RULES_TOLD]
        told = "; ".join(f"{rule} ({count} rows): {reason(rule)}" for rule, count in counted)
        raise DeskError(f"None of its {rows.height} rows can be used. {told}.")
    return Parsed(kind=kind, rows=rows, left_out=left_out, unread=unread)


def broken_rules(rows: pl.DataFrame) -> dict[str, int]:
    """Return how many rows broke each `rule`, the most frequent first."""
    broken = rows.filter(pl.col("rule").is_not_null()).group_by("rule").len()
    return dict(broken.sort("len", "rule", descending=[True, False]).rows())


def reason(rule: str) -> str:
    """Return what a row did that broke these rules, in words."""
    parts = (part.partition(" ")[0].rpartition("|")[2] for part in rule.split(","))
    return "; ".join(dict.fromkeys(REASONS.get(part, part) for part in parts))


def _kind(found: Table) -> DeskKind:
    names = found.cells.columns
    if EVENT_ID in names:
        return _event_kind(names)
    for kind in ("fills", "orders", "decisions"):  # a fill names its order, and an order its decision
        if DESK_IDS[kind] in names:
            return kind
    raise DeskError(
        f"It has none of the columns {', '.join(dict.fromkeys(DESK_IDS.values()))}, so it is no file of the desk's own "
        f"format; it has {_listed(found)}. Name a mapping that says how to read it."
    )


def _event_kind(names: list[str]) -> DeskKind:
    """Return the kind whose needed columns are all there; of several, the one that most of its columns are of.

    An event may name a fill, an order and a decision beside its own id.
    """
    lacking = {kind: [name for name in _needed(kind, names) if name not in names] for kind in DESK_CONTRACTS}
    known = {kind: sum(name in names for name in contract.columns()) for kind, contract in DESK_CONTRACTS.items()}
    if all(lacking.values()):
        kind = min(lacking, key=lambda one: (len(lacking[one]), -known[one]))
        raise DeskError(
            f"It is no event: of {kind}, which it is nearest to, it lacks the columns {_quoted(lacking[kind])}."
        )
    fitting = [kind for kind, missing in lacking.items() if not missing]
    nearest = [kind for kind in fitting if known[kind] == max(known[one] for one in fitting)]
    if len(nearest) > 1:
        kinds = ", ".join(nearest)
        raise DeskError(f"Its columns are those of {kinds}: name its kind, or drop it into a folder of that name.")
    return nearest[0]


def _needed(kind: DeskKind, names: list[str]) -> list[str]:
    """Return the columns that an own file of a kind must have; an event's id stands for that of its other name."""
    needed = required_columns(kind)
    is_event = kind in EVENT_ALIASES.values() and EVENT_ID in names and DESK_IDS[kind] not in names
    return [EVENT_ID if is_event and name == DESK_IDS[kind] else name for name in needed]


def _own(found: Table, kind: DeskKind) -> tuple[pl.DataFrame, int, tuple[str, ...]]:
    columns, names = DESK_CONTRACTS[kind].columns(), found.cells.columns
    needed = _needed(kind, names)
    _check_columns(found, [*needed, *(c for c in columns if c in found.repeated)])
    theirs = dict(zip(required_columns(kind), needed, strict=True))
    cells = found.cells.with_row_index(_PLACE)
    given = {name: theirs.get(name, name) for name in columns}
    unread = tuple(name for name in names if name not in given.values())
    if "schema_version" in unread:
        _check_version(found)
    told = [
        pl.col(name).alias(ours) if name in names else pl.lit(None, pl.String).alias(ours)
        for ours, name in given.items()
    ]
    return cells.select(_PLACE, *told), 0, unread


def _check_version(found: Table) -> None:
    told = words.whole_number(found.cells["schema_version"]).value.to_list()
    if newer := [version for version in told if version is not None and version > SCHEMA_VERSION]:
        raise DeskError(f"Its schema_version is {max(newer)}; what is read here is version {SCHEMA_VERSION}.")


def _mapped(found: Table, mapping: DeskMapping) -> tuple[pl.DataFrame, int, tuple[str, ...]]:
    signed = [mapping.side_from_sign] if mapping.side_from_sign is not None else []
    _check_columns(found, [*mapping.columns.values(), *mapping.filter, *mapping.id_from, *signed])
    is_wanted = [words.text(pl.col(name)).is_in(values) for name, values in mapping.filter.items()]
    cells = found.cells.with_row_index(_PLACE)
    taken = cells.filter(is_wanted) if is_wanted else cells
    own_id = DESK_IDS[mapping.kind]
    given = {name: pl.lit(None, pl.String) for name in DESK_CONTRACTS[mapping.kind].columns()}
    given |= {name: pl.lit(value) for name, value in mapping.constants.items()}
    given |= {name: pl.col(theirs) for name, theirs in mapping.columns.items()}
    if mapping.side_from_sign is not None:
        signs = words.number(taken[mapping.side_from_sign]).value.sign()
        given["side"] = pl.lit(signs.set(signs == 0, None).cast(pl.Int8).cast(pl.String))
    if mapping.id_from:
        named = pl.concat_str([words.text(pl.col(name)) for name in mapping.id_from], separator="|", ignore_nulls=True)
        nth = pl.int_range(pl.len()).over(named) + 1  # two executions may be alike in every column
        given[own_id] = pl.when(nth == 1).then(named).otherwise(pl.format("{}#{}", named, nth))
    return taken.select(_PLACE, **given), cells.height - taken.height, ()


def _check_columns(found: Table, wanted: list[str]) -> None:
    lacking = [name for name in dict.fromkeys(wanted) if name not in found.cells.columns]
    if lacking:
        raise DeskError(f"It lacks the columns {_quoted(lacking)}; it has {_listed(found)}.")
    if repeated := [name for name in dict.fromkeys(wanted) if name in found.repeated]:
        raise DeskError(f"Several of its columns are named {_quoted(repeated)}: give each a name of its own.")


def _listed(found: Table) -> str:
    return _quoted(found.cells.columns)


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _values(
    texts: pl.DataFrame,
    kind: DeskKind,
    mapping: DeskMapping | None,
    *,
    symbols: Collection[str],
    venues: Collection[str],
    ts_intake: datetime,
) -> pl.DataFrame:
    schema, zone = polars_schema(DESK_CONTRACTS[kind]), mapping.time_zone if mapping else None
    values: dict[str, pl.Series] = {}
    rules: dict[str, pl.Series] = {}
    for name, dtype in schema.items():
        cells = texts[name]
        if cells.null_count() == texts.height:
            values[name] = pl.Series(name, [None] * texts.height, dtype)
        elif dtype == pl.String and name not in _SPELLED:
            values[name] = texts.select(words.text(pl.col(name))).to_series()
        else:
            values[name], rules[name] = _read(cells, name, dtype, zone)
    if mapping and mapping.symbols:
        values |= {name: values[name].replace(dict(mapping.symbols)) for name in _SYMBOLS if name in values}
    if mapping and mapping.side_from_sign is not None and "quantity" in values:
        values["quantity"] = values["quantity"].abs()
    rows = pl.DataFrame({_PLACE: texts[_PLACE], **{name: value.cast(schema[name]) for name, value in values.items()}})
    judged = {name: pl.lit(rule) for name, rule in rules.items()}
    for name in _SYMBOLS:
        if name in schema:
            judged[name] = pl.when(~pl.col(name).is_in(list(symbols))).then(pl.lit("unknown"))
    if "venue" in schema and venues:
        judged["venue"] = pl.when(~pl.col("venue").is_in(list(venues))).then(pl.lit("unknown"))
    too_late = pl.col("ts_event") > ts_intake + _CLOCKS_DIFFER
    judged["ts_event"] = pl.when(too_late).then(pl.lit("out_of_range")).otherwise(judged.get("ts_event"))
    named = (pl.lit(f"{name}|") + judged[name] for name in schema if name in judged)
    broken = pl.concat_str(list(named), separator=",", ignore_nulls=True)
    assumed = [pl.col(name).fill_null(value) for name, value in _ASSUMED.items() if name in schema]
    return rows.with_columns(*assumed, rule=pl.when(broken != "").then(broken))


def _read(cells: pl.Series, name: str, dtype: pl.DataType, zone: str | None) -> words.Read:
    if name in _SPELLED:
        return words.word(cells, _SPELLED[name])
    if dtype == INSTANT:
        return words.instant(cells, zone)
    if dtype == pl.Date:
        return words.date(cells)
    return words.number(cells) if dtype == pl.Float64 else words.whole_number(cells)


def _judged(values: pl.DataFrame, found: Table, contract: type[Contract]) -> pl.DataFrame:
    """Return the rows with their lines, held against the contract; and those that break a rule as they came."""
    rows = values.with_columns(pl.Series(LINE, found.lines.gather(values[_PLACE]), pl.Int64))
    readable = rows.filter(pl.col("rule").is_null()).drop("rule")
    # The contract wants a receipt, and the intake gives it.
    received = readable.with_columns(pl.coalesce("ts_recv", "ts_event", pl.lit(0).cast(INSTANT)))
    bad = split(contract, received, keep=(_PLACE, LINE)).bad.select(_PLACE, more="rule")
    ruled = rows.join(bad, on=_PLACE, how="left", maintain_order="left")
    ruled = ruled.with_columns(rule=pl.coalesce("rule", "more")).drop("more")
    broken = ruled.filter(pl.col("rule").is_not_null())[_PLACE]
    raw = pl.DataFrame({_PLACE: broken, "raw": found.raw(broken)}, {_PLACE: pl.UInt32, "raw": pl.String})
    return ruled.join(raw, on=_PLACE, how="left", maintain_order="left").drop(_PLACE)


def _uneven(found: Table, contract: type[Contract]) -> pl.DataFrame:
    schema: dict[str, Any] = {**polars_schema(contract), "rule": pl.String, LINE: pl.Int64, "raw": pl.String}
    broken = pl.DataFrame({LINE: found.uneven, "raw": found.raw_uneven}, {LINE: pl.Int64, "raw": pl.String})
    nothing = (pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in {LINE, "raw", "rule"})
    return broken.with_columns(*nothing, rule=pl.lit("row|columns")).select(*schema)
