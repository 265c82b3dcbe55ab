"""The only door to dataframely: the Contract base class, column constructors, and row validation.

A table's contract lives in the module of its domain: `market/trades` is found in `contracts/market.py`; what chains of
options mean for dealers is in `contracts/dealer.py`, and what many orders say in `contracts/scorecards.py`.
"""

import functools
import hashlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import polars as pl

if is_kept_out := "sqlalchemy" not in sys.modules:
    sys.modules["sqlalchemy"] = None  # type: ignore[assignment]  # a tenth of a second of every start, for nothing
try:
    import dataframely as dy
finally:
    if is_kept_out:
        del sys.modules["sqlalchemy"]

rule = dy.rule
INSTANT = pl.Datetime("ns", "UTC")
_ROW = "row_number_"


class Contract(dy.Schema):
    """A table: its lake name, the order of its rows, and its columns.

    `sorted_by` names a row of a symbol. Where `is_revised`, an open date may hold several rows of one name, and the
    one with the latest `ts_known` counts.
    """

    table: ClassVar[str] = ""
    sorted_by: ClassVar[tuple[str, ...]] = ()
    is_revised: ClassVar[bool] = False


class Split(NamedTuple):
    """The rows that keep every rule, and those that break one (with a `rule` column naming it)."""

    good: pl.DataFrame
    bad: pl.DataFrame


class ColumnDoc(NamedTuple):
    """One line of the data dictionary."""

    name: str
    dtype: str
    unit: str
    is_nullable: bool
    bounds: str
    doc: str


def instant(doc: str, *, nullable: bool = False) -> dy.Datetime:
    """Declare a UTC nanosecond time."""
    return dy.Datetime(nullable=nullable, time_zone="UTC", time_unit="ns", metadata={"unit": "UTC ns"}, description=doc)


def day(doc: str, *, nullable: bool = False) -> dy.Date:
    """Declare a calendar date."""
    return dy.Date(nullable=nullable, metadata={"unit": "date"}, description=doc)


def text(doc: str, *, nullable: bool = False) -> dy.String:
    """Declare a text column."""
    return dy.String(nullable=nullable, metadata={"unit": ""}, description=doc)


def choice(doc: str, values: type, *, nullable: bool = False) -> dy.Column:
    """Declare a text column whose values are those of a StrEnum."""
    members = [str(member) for member in values]  # type: ignore[attr-defined]  # an Enum class iterates
    return dy.String(
        nullable=nullable,
        check={"is_in": lambda column: column.is_in(members)},
        metadata={"unit": "", "bounds": " · ".join(members)},
        description=doc,
    )


def identifier(doc: str, *, nullable: bool = False, min: int | None = 0) -> dy.Int64:  # noqa: A002  # the bound's name
    """Declare an integer id or sequence number."""
    return dy.Int64(nullable=nullable, min=min, metadata={"unit": "id"}, description=doc)


def count(doc: str, *, nullable: bool = False) -> dy.Int64:
    """Declare a count, never negative."""
    return dy.Int64(nullable=nullable, min=0, metadata={"unit": "count"}, description=doc)


def sign(doc: str) -> dy.Int8:
    """Declare a side: +1 buy, -1 sell, 0 unknown (contracts/enums.py)."""
    return dy.Int8(nullable=False, is_in=[-1, 0, 1], metadata={"unit": "sign"}, description=doc)


def flag(doc: str, *, nullable: bool = False) -> dy.Bool:
    """Declare a boolean."""
    return dy.Bool(nullable=nullable, metadata={"unit": ""}, description=doc)


def real(doc: str, *, unit: str, nullable: bool = False, **bounds: Any) -> dy.Float64:
    """Declare a finite float with its unit; `bounds` are dataframely's min, max, min_exclusive, max_exclusive."""
    return dy.Float64(nullable=nullable, metadata={"unit": unit}, description=doc, **bounds)


def polars_schema(contract: type[Contract]) -> pl.Schema:
    """Return the column names and dtypes, in order."""
    return pl.Schema(_dtypes(contract))


@functools.cache
def _dtypes(contract: type[Contract]) -> Mapping[str, Any]:
    return {name: column.dtype for name, column in contract.columns().items()}


@functools.cache
def empty(contract: type[Contract]) -> pl.DataFrame:
    """Return a frame of no rows with the contract's dtypes."""
    return polars_schema(contract).to_frame()


def conformed(contract: type[Contract], frame: pl.DataFrame) -> pl.DataFrame:
    """Return the contract's columns in its order, or raise where the frame is not of its shape.

    Raises:
        ValueError: A column is missing, unknown or of another dtype; the message names each.
    """
    wanted, given = polars_schema(contract), frame.schema
    problems = [f"column '{name}' is missing" for name in wanted if name not in given]
    problems += [f"column '{name}' is not in the contract" for name in given if name not in wanted]
    problems += [
        f"column '{name}' is {given[name]}, the contract says {dtype}"
        for name, dtype in wanted.items()
        if name in given and given[name] != dtype
    ]
    if problems:
        raise ValueError(f"A frame for {contract.table} does not keep its contract: {'; '.join(problems)}.")
    return frame.select(wanted.names())


def split(contract: type[Contract], frame: pl.DataFrame, *, keep: tuple[str, ...] = ()) -> Split:
    """Part the rows that keep the contract from those that break a rule of it.

    Args:
        contract: The table's contract.
        frame: The contract's columns, and those named in `keep`.
        keep: Columns beside the contract (where a row came from) that the bad rows carry on.

    Returns:
        `good` with exactly the contract's columns; `bad` with those, `keep`, and `rule`: the names of the
        broken rules, comma-separated, as `column|rule`.

    Raises:
        ValueError: The frame is not of the contract's shape.
    """
    body = conformed(contract, frame.drop(keep))
    if contract.is_valid(body, engine="in-memory"):
        return Split(body, frame.clear().with_columns(rule=pl.lit("", pl.String)))
    good, failures = _numbered(contract).filter(body.with_row_index(_ROW))
    details = failures.details()
    rules = [name for name in details.columns if name not in body.columns and name != _ROW]
    broken = pl.concat_str(
        [pl.when(pl.col(name) == "invalid").then(pl.lit(name)) for name in rules],
        separator=",",
        ignore_nulls=True,
    )
    return Split(
        good.drop(_ROW),
        frame[details.get_column(_ROW).to_list()].with_columns(details.select(rule=broken).to_series()),
    )


def validated(contract: type[Contract], frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame in the contract's column order, or raise: for frames that we computed ourselves.

    Raises:
        ValueError: The shape is wrong, or a row breaks a rule; the message counts rows by rule.
    """
    good, bad = split(contract, frame)
    if bad.height:
        by_rule = bad.group_by("rule").len().sort("len", descending=True).iter_rows()
        broken = ", ".join(f"{name} ({rows} rows)" for name, rows in by_rule)
        raise ValueError(f"A frame for {contract.table} breaks its contract: {broken}.")
    return good


@functools.cache
def fingerprint(contract: type[Contract]) -> str:
    """Return a hash of what the contract promises: names, dtypes, nulls, bounds, rules, row order."""
    parts = [contract.table, repr(contract.sorted_by)]
    for name, column in contract.columns().items():
        promises = {k: v for k, v in vars(column).items() if k not in {"description", "check", "_schema"}}
        parts.append(f"{name}: {type(column).__name__} {sorted(promises.items(), key=str)}")
    for name, function in _rules(contract).items():
        parts.append(f"{name}: {inspect.getsource(function).replace(function.__doc__ or '', '')}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def column_docs(contract: type[Contract]) -> list[ColumnDoc]:
    """Return the data dictionary's lines for one contract."""
    return [
        ColumnDoc(
            name,
            str(column.dtype),
            (column.metadata or {}).get("unit", ""),
            column.nullable,
            _bounds(column),
            column.description or "",
        )
        for name, column in contract.columns().items()
    ]


def rule_docs(contract: type[Contract]) -> dict[str, str]:
    """Return what each rule over several columns demands, by the name that quarantine gives it."""
    return {name: inspect.getdoc(function) or "" for name, function in _rules(contract).items()}


def contract_of(table: str) -> type[Contract]:
    """Return the contract of a lake table, such as `market/trades`.

    Raises:
        KeyError: No contract has that name.
    """
    for contract in all_contracts():
        if contract.table == table:
            return contract
    raise KeyError(f"There is no table '{table}'. Known tables: {', '.join(c.table for c in all_contracts())}.")


@functools.cache
def all_contracts() -> tuple[type[Contract], ...]:
    """Return every table's contract, domain by domain, in the order in which each module declares them."""
    package = import_module("quant_platform.contracts")
    found: list[type[Contract]] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")):
        name = f"quant_platform.contracts.{module}"
        members = (m for m in vars(import_module(name)).values() if isinstance(m, type) and m.__module__ == name)
        found += [m for m in members if issubclass(m, Contract) and m.table]
    return tuple(found)


@functools.cache
def _numbered(contract: type[Contract]) -> type[Contract]:
    return type(f"Numbered{contract.__name__}", (contract,), {_ROW: dy.UInt32(nullable=False), "table": ""})


def _rules(contract: type[Contract]) -> dict[str, Callable[..., Any]]:
    members = (item for base in contract.__mro__ for item in vars(base).items())
    return {name: member.validation_fn for name, member in members if type(member).__name__ == "RuleFactory"}


def _bounds(column: dy.Column) -> str:
    limits = vars(column)
    signs = {"min": "≥", "min_exclusive": ">", "max": "≤", "max_exclusive": "<"}
    named = [f"{mark} {limits[key]:g}" for key, mark in signs.items() if limits.get(key) is not None]
    if limits.get("is_in"):
        named.append(" · ".join(str(v) for v in limits["is_in"]))
    return ", ".join(named) or (column.metadata or {}).get("bounds", "")
