"""What the sources of option chains share: answers decoded record by record, lines cut to cells, rows parted.

Every record becomes a row or is quarantined under a rule, so that their numbers add up. Formats have modules.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import polars as pl

from quant_platform.contracts._schema import INSTANT, polars_schema, split
from quant_platform.contracts.options import OptionChain
from quant_platform.feeds.recorded import Parsed
from quant_platform.feeds.sheet import LINE, QUARANTINE, named

Origins = Callable[[pl.Series], list[tuple[str, int, str]]]
"""Returns, for records by their numbers, the file or address, the number in it (from 1), and the record as it came."""

_Value = TypeVar("_Value")
_ZERO_IS_NONE = ("bid", "ask", "last", "iv", "underlying_price")
_ROW = "row_number_"
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIELD = re.compile(r"at `\$\.(\w+)")
_MISSING = re.compile(r"missing required field `(\w+)`")


class ChainError(Exception):
    """A chain cannot be used; the message names its source, and says what to do."""


def instant_ns(moment: dt.datetime) -> int:
    """Return a time that knows its zone as UTC ns.

    Raises:
        ValueError: It is later than 64 bits of ns tell, which is the year 2262.
    """
    ns = (moment - _EPOCH) // dt.timedelta(microseconds=1) * 1000
    if ns >= 2**63:
        raise ValueError(f"{moment} is later than a column of ns can hold.")
    return ns


def instant_of(ns: int | None) -> pl.Expr:
    """Return a constant column of UTC ns, null for None."""
    return pl.lit(ns, pl.Int64).cast(INSTANT)


def decoded(content: bytes, source: str, kind: type[_Value]) -> _Value:
    """Return a JSON answer of one form.

    Raises:
        ChainError: It is empty, a web page, cut off, no JSON, or JSON of another form.
    """
    start = content[:200].lstrip()
    if not start:
        raise ChainError(f"{source} is empty. Nothing was loaded. Fetch it again.")
    if start.startswith(b"<"):
        raise ChainError(
            f"{source} is a web page, not JSON: '{start.decode(errors='replace')[:100]}'. Nothing was loaded. The "
            "venue refused the request or knows no such name: check its symbol and the address, then fetch it again."
        )
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise ChainError(
            f"{source} is JSON, but no option chain: {error}. Nothing was loaded. The venue refused the request or "
            f"changed its format; it begins '{start.decode(errors='replace')[:100]}'."
        ) from error
    except _BROKEN as error:
        raise ChainError(
            f"{source} is no whole JSON text ({len(content):,} bytes): {error}. Nothing was loaded. It was cut off or "
            "damaged: fetch it again."
        ) from error


def records(listed: msgspec.Raw, source: str, kind: type[msgspec.Struct], broken: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the records of a JSON list, their fields as columns, with the number of each.

    Args:
        listed: The list.
        source: Its file or address.
        kind: Whose fields are texts, floats, or null.
        broken: Gets the numbers of the records that do not have this form, under a rule's name.

    Raises:
        ChainError: It is no list.
    """
    fields = msgspec.structs.fields(kind)
    schema = {f.name: pl.String() if f.type in (str, str | None) else pl.Float64() for f in fields}
    numbers = None
    try:
        found = msgspec.json.decode(listed, type=list[kind])  # type: ignore[valid-type]
    except _BROKEN:
        found, numbers = [], []
        for number, raw in enumerate(decoded(bytes(listed), source, list[msgspec.Raw]), start=1):
            try:
                found.append(msgspec.json.decode(raw, type=kind))
                numbers.append(number)
            except _BROKEN as error:
                field = _FIELD.search(str(error)) or _MISSING.search(str(error))
                rule = f"{field[1] if field else 'row'}|malformed"
                broken.append(named(pl.Series(LINE, [number], pl.Int64), rule))
    values = zip(*map(msgspec.structs.astuple, found), strict=True) if found else ([] for _ in schema)
    columns = [pl.Series(name, column, dtype) for (name, dtype), column in zip(schema.items(), values, strict=True)]
    counted = pl.Series(LINE, numbers if numbers is not None else range(1, len(found) + 1), pl.Int64)
    return pl.DataFrame([*columns, counted])


def record_origins(listed: msgspec.Raw, source: str) -> Origins:
    """Return what finds the records of a JSON list by number."""

    def origins(wanted: pl.Series) -> list[tuple[str, int, str]]:
        raws = msgspec.json.decode(listed, type=list[msgspec.Raw])
        return [(source, number, bytes(raws[number - 1]).decode(errors="replace")) for number in wanted]

    return origins


def line_origins(lines: Sequence[str], source: str) -> Origins:
    """Return what finds lines by number."""
    return lambda wanted: [(source, number, lines[number - 1]) for number in wanted]


def cells(lines: pl.DataFrame, names: Sequence[str], broken: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the cells of comma-separated lines as texts, empty ones null, beside their other columns.

    Args:
        lines: Column `raw`, and `source_line`.
        names: What the cells of a line are called.
        broken: Gets the lines that have another number of cells, under a rule's name.
    """
    width = len(names)
    is_odd = lines["raw"].str.count_matches(",", literal=True) != width - 1
    if is_odd.any():
        broken.append(named(lines.filter(is_odd)[LINE], "row|columns"))
        lines = lines.filter(~is_odd)
    split_up = lines["raw"].str.split_exact(",", width - 1).struct.rename_fields(list(names)).struct.unnest()
    trimmed = pl.all().str.strip_chars()
    return lines.drop("raw").hstack(split_up.select(pl.when(trimmed != "").then(trimmed).name.keep()))


def numbers(frame: pl.DataFrame, names: Sequence[str], broken: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the frame with these texts as floats; a row with one that is none goes to `broken`."""
    typed = frame.with_columns(pl.col(names).cast(pl.Float64, strict=False))
    if typed.select(names).null_count().equals(frame.select(names).null_count()):
        return typed
    wrong = [
        pl.when(pl.col(name).is_not_null() & pl.col(name).cast(pl.Float64, strict=False).is_null()).then(
            pl.lit(f"{name}|numeric")
        )
        for name in names
    ]
    rules = frame.select(rule=pl.concat_str(wrong, separator=",", ignore_nulls=True)).to_series()
    broken.append(typed.select(LINE).with_columns(rules).filter(rules != ""))
    return typed.filter(rules == "")


def parted(frame: pl.DataFrame, origins: Origins, broken: Sequence[pl.DataFrame], facts: Mapping[str, str]) -> Parsed:
    """Return the rows that keep the contract, and the others under the rule that they break.

    A price or volatility of 0 says that there is none. Of rows of one contract at one instant the first stays.

    Args:
        frame: Columns of OptionChain, null where a name says nothing, and `source_line`; what lacks is null.
        origins: What finds the records by number.
        broken: `source_line` and `rule` of the records that are no rows.
        facts: What else is known of the source; counts are added.
    """
    schema = polars_schema(OptionChain)
    lacking = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    none = [pl.when(pl.col(name) != 0).then(pl.col(name)).alias(name) for name in _ZERO_IS_NONE]
    whole = frame.lazy().with_columns(lacking).with_columns(none).select(*schema, LINE).collect(engine="in-memory")
    is_nameless = whole.select(pl.any_horizontal(pl.col("expiry", "strike", "type").is_null())).to_series()
    named_rows = whole.filter(~is_nameless).with_row_index(_ROW)
    rows, bad = split(OptionChain, named_rows, keep=(LINE, _ROW))
    broken = [*broken, named(whole.filter(is_nameless)[LINE], "contract|name"), bad.select(LINE, "rule")]
    is_first = rows.select(pl.struct("ts_event", "contract").is_first_distinct()).to_series()
    if not is_first.all():
        lines = named_rows.filter(~pl.col(_ROW).is_in(bad[_ROW].implode()))[LINE]
        broken.append(named(lines.filter(~is_first), "contract|duplicate"))
        rows = rows.filter(is_first)
    counts = {
        "expired": str(int((rows["ts_expiry"] <= rows["ts_event"]).sum())),
        "adjusted": str(rows["multiplier"].null_count()),
    }
    return Parsed(
        rows=rows.sort(OptionChain.sorted_by, maintain_order=True),
        quarantined=_quarantine(origins, broken),
        facts={**facts, **counts},
    )


def _quarantine(origins: Origins, broken: Sequence[pl.DataFrame]) -> pl.DataFrame:
    rows = pl.concat([part.select(pl.col(LINE).cast(pl.Int64), "rule") for part in broken]).sort(LINE)
    columns = [name for name in QUARANTINE if name != "rule"]
    schema = {name: QUARANTINE[name] for name in columns}
    found = origins(rows[LINE]) if rows.height else []
    return rows.select("rule").hstack(pl.DataFrame(found, schema=schema, orient="row"))
