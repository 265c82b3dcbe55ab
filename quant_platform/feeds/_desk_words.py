"""How desks and brokers spell sides, figures, times and states: text in, values and broken rules out."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import polars as pl

from quant_platform.contracts._schema import INSTANT
from quant_platform.contracts.execution import Liquidity, OrderStatus

SIDES: Mapping[int, tuple[str, ...]] = {
    1: (
        *("b", "buy", "bot", "bought", "bto", "btc", "bc", "long", "1", "+1", "1.0", "+1.0"),
        *("buytoopen", "buytoclose", "buytocover", "cover"),
    ),
    -1: (
        *("s", "sell", "sld", "sold", "sto", "stc", "ss", "sse", "short", "-1", "-1.0", "2", "5", "6"),
        *("selltoopen", "selltoclose", "sellshort", "shortsell", "sellshortexempt"),
    ),
}
"""Spellings of a side, without case, spaces, and lines between letters. 2, 5 and 6 are those of FIX tag 54."""

STATUSES: Mapping[OrderStatus, tuple[str, ...]] = {
    OrderStatus.OPEN: (
        *("open", "new", "pendingnew", "accepted", "working", "live", "active", "submitted", "replaced"),
        *("partiallyfilled", "partialfill", "partfilled", "pendingcancel", "pendingreplace", "suspended"),
    ),
    OrderStatus.FILLED: ("filled", "fullyfilled", "complete", "completed", "executed"),
    OrderStatus.CANCELLED: ("cancelled", "canceled", "killed"),
    OrderStatus.REJECTED: ("rejected",),
    OrderStatus.EXPIRED: ("expired", "doneforday"),
}
LIQUIDITIES: Mapping[Liquidity, tuple[str, ...]] = {
    Liquidity.MAKER: ("maker", "m", "add", "added", "adds", "passive"),
    Liquidity.TAKER: ("taker", "t", "remove", "removed", "removes", "aggressive"),
    Liquidity.AUCTION: ("auction", "cross"),
}


def own_words(words: type[StrEnum]) -> Mapping[str, tuple[str, ...]]:
    """Return spellings that are the words themselves."""
    return {word: (word.replace("_", ""),) for word in words}


REASONS: Mapping[str, str] = {
    "columns": "the line has more or fewer fields than the header",
    "number": "it is no number; thousands may be separated, decimals need a point",
    "date": "it is no date: write it as 2026-11-20",
    "time": "it is no time: write it as 2026-11-20T20:15:00.000Z, or as s, ms, us or ns since 1970",
    "no_time_zone": "its time does not tell a zone: let the file tell it, or set time_zone in a mapping",
    "ambiguous_local_time": "the clocks changed then: the time came twice or never in its zone; let the file tell UTC",
    "out_of_range": "it lies before 1990, or more than a day after the intake",
    "calendar": "the calendar of its symbol does not reach there",
    "unknown": "the word is not known: platform.yaml has no such instrument or venue, or it spells no side or state",
    "nullability": "it is missing",
    "min_exclusive": "it is zero or negative",
    "min": "it is too small",
    "max": "it is too large",
    "side_is_known": "it is neither buy nor sell",
    "ends_after_it_began": "its end lies before its beginning",
    "schema_version_is_known": "its schema is newer than what is read here, which is version 1",
    "failure_has_a_reason": "a settlement that failed needs a failure_reason",
    "sentiment_is_of_texts": "it has a sentiment of news, posts or analysts of which none were read",
    "interval_is_whole": "of the interval one end is missing, or the low one is above the high one",
    "is_a_pair": "both instruments are the same",
    "moved": "its id has been told of another symbol or trading date, and would count on both",
    "conflict": "another file has told the same revision otherwise: a correction needs a higher revision",
}
"""What a rule demands, by the last part of its name."""

_NONE = ("", "nan", "null", "none", "na", "n/a")
_SEPARATOR = "[,'’_ \u00a0\u2009\u202f]"
_THOUSANDS = rf"^[+-]?\d{{1,3}}({_SEPARATOR}\d{{3}})+(\.\d*)?$"
_EPOCH = r"^(?P<count>\d{9,19})(?:\.(?P<fraction>\d+))?$"
_ISO = (
    r"(?i)^(?P<year>\d{4})[-/]?(?P<month>\d{2})[-/]?(?P<day>\d{2})"
    r"[T _-]+(?P<hour>\d{2}):?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?)?"
    r"\s*(?:(?P<utc>Z|UTC|GMT)|(?P<ahead>[+-])(?P<hours>[01]\d):?(?P<minutes>[0-5]\d)?)?$"
)
_UNITS_NS = {10**11: 10**9, 10**14: 10**6, 10**17: 10**3}  # as seconds 1e11 is the year 5138, as ms it is 1973
_LAST_NS = 2**63 - 1
_FIRST = pl.datetime(1990, 1, 1, time_unit="ns", time_zone="UTC")
_NS_YEARS = (1678, 2261)


class Read(NamedTuple):
    """What a column of texts says: a value or null, and the last part of the name of the rule that a text breaks."""

    value: pl.Series
    rule: pl.Series


def text(cell: pl.Expr) -> pl.Expr:
    """Return text without spaces around it; null where nothing is left."""
    stripped = cell.str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def number(cells: pl.Series) -> Read:
    """Return floats."""
    written = _written(cells)
    value = _finite(written)
    if value.null_count() > written.null_count():
        is_separated = written.str.contains(_THOUSANDS)
        value = _finite(written.zip_with(~is_separated, written.str.replace_all(_SEPARATOR, "")))
    return _read(written, value, "number")


def whole_number(cells: pl.Series) -> Read:
    """Return integers."""
    value = number(cells).value
    return _read(_written(cells), value.set(value != value.round(), None).cast(pl.Int64, strict=False), "number")


def word(cells: pl.Series, spellings: Mapping[int, tuple[str, ...]] | Mapping[str, tuple[str, ...]]) -> Read:
    """Return what texts spell."""
    written = _written(cells)
    plain = written.str.to_lowercase().str.replace_all(r"[\s_]", "").str.replace_all(r"([a-z])-", "$1")
    meanings = {s: value for value, listed in spellings.items() for s in listed}
    dtype = pl.String if isinstance(next(iter(spellings)), str) else pl.Int64
    return _read(written, plain.replace_strict(meanings, default=None, return_dtype=dtype), "unknown")


def date(cells: pl.Series) -> Read:
    """Return dates."""
    written = _written(cells)
    return _read(written, written.str.to_date("%Y-%m-%d", strict=False), "date")


def instant(cells: pl.Series, time_zone: str | None) -> Read:
    """Return times.

    Digits alone are s, ms, us or ns since 1970, told apart by their size. What is finer than a nanosecond is cut off.

    Args:
        cells: Texts.
        time_zone: Of times that do not tell theirs; None: such a time breaks a rule.
    """
    written = _written(cells).alias("written")
    parts = written.to_frame().select("written", pl.col("written").str.extract_groups(_ISO).struct.unnest())
    clock = pl.format(
        "{}-{}-{}T{}:{}:{}",
        *(pl.col(name) for name in ("year", "month", "day", "hour", "minute")),
        pl.col("second").fill_null("00"),
    )
    minutes = pl.col("hours").cast(pl.Int64) * 60 + pl.col("minutes").fill_null("0").cast(pl.Int64)
    ahead = pl.when(pl.col("ahead") == "-").then(-minutes).otherwise(minutes).fill_null(0)
    local = parts.select(
        "written",
        "fraction",
        local=clock.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False),
        ahead=ahead,
        has_zone=pl.any_horizontal(pl.col("utc", "ahead").is_not_null()),
    ).with_columns(
        pl.when(pl.col("local").dt.year().is_between(*_NS_YEARS)).then(pl.col("local").dt.cast_time_unit("ns"))
        + pl.duration(nanoseconds=_nanoseconds("fraction"), time_unit="ns")
    )
    placed = pl.lit(None, INSTANT)
    if time_zone:
        placed = pl.col("local").dt.replace_time_zone(time_zone, ambiguous="null", non_existent="null")
    told = (pl.col("local") - pl.duration(minutes="ahead", time_unit="ns")).dt.replace_time_zone("UTC")
    values = local.select(
        "written",
        "local",
        "has_zone",
        value=pl.when("has_zone").then(told).otherwise(placed.dt.convert_time_zone("UTC")),
    )
    if values["value"].null_count() > written.null_count():
        values = values.with_columns(pl.coalesce("value", _since_1970(written)))
    rule = (
        pl.when(pl.col("value") < _FIRST)
        .then(pl.lit("out_of_range"))
        .when(pl.col("written").is_null() | pl.col("value").is_not_null())
        .then(None)
        .when(pl.col("local").is_null() | pl.col("has_zone"))
        .then(pl.lit("time"))
        .otherwise(pl.lit("ambiguous_local_time" if time_zone else "no_time_zone"))
    )
    return Read(values["value"], values.select(rule.alias("rule")).to_series())


def _written(cells: pl.Series) -> pl.Series:
    stripped = cells.str.strip_chars()
    return stripped.set(stripped.str.to_lowercase().is_in(_NONE), None)


def _finite(written: pl.Series) -> pl.Series:
    value = written.cast(pl.Float64, strict=False)
    return value.set(~value.is_finite(), None)


def _read(written: pl.Series, value: pl.Series, rule: str) -> Read:
    is_broken = value.is_null() & written.is_not_null()
    return Read(value, pl.select(pl.when(is_broken).then(pl.lit(rule)).alias("rule")).to_series())


def _nanoseconds(fraction: str) -> pl.Expr:
    return pl.col(fraction).str.pad_end(9, "0").str.slice(0, 9).cast(pl.Int64).fill_null(0)


def _since_1970(written: pl.Series) -> pl.Series:
    parts = written.to_frame().select(pl.col("written").str.extract_groups(_EPOCH).struct.unnest())
    count = pl.col("count")
    unit, last = pl.lit(1, pl.Int64), pl.lit(_LAST_NS, pl.Int64)
    for first, ns in sorted(_UNITS_NS.items(), reverse=True):
        unit = pl.when(count < first).then(pl.lit(ns, pl.Int64)).otherwise(unit)
        last = pl.when(count < first).then(pl.lit(_LAST_NS // ns - 1, pl.Int64)).otherwise(last)
    counted = parts.with_columns(count.cast(pl.Int64, strict=False)).with_columns(unit=unit, last=last)
    since = pl.when(count <= pl.col("last")).then(count * pl.col("unit"))
    return counted.select(
        (since + _nanoseconds("fraction") * pl.col("unit") // pl.lit(10**9, pl.Int64)).cast(INSTANT)
    ).to_series()
