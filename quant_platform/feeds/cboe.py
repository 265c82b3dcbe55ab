"""Cboe's delayed option quotes: the JSON of its public address, and the sheet that its web page offers (quotedata).

The JSON names its time in UTC and the times of last trades in New York's; the sheet names its time in New York's, in
the language of who loaded it. The lines above the sheet are of another time than the chain now and then: expiry and
strike are those of the OSI names, whatever the columns beside them say. Cboe's vega is per vol point, its theta per
day, its volatility a decimal (3 is 300 %).
"""

import datetime as dt
import re
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import polars as pl

from quant_platform.feeds import osi
from quant_platform.feeds.option_chain import (
    ChainError,
    cells,
    decoded,
    instant_ns,
    instant_of,
    line_origins,
    numbers,
    parted,
    record_origins,
    records,
)
from quant_platform.feeds.recorded import Parsed
from quant_platform.feeds.sheet import LINE, line_text

VENUE = "cboe"
_NEW_YORK = ZoneInfo("America/New_York")
_MULTIPLIER = 100.0
_FIELDS = {"last_trade_price": "last", "openInterest": "open_interest", "option": "contract"}


class _Quote(msgspec.Struct, gc=False):
    option: str
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last_trade_price: float | None = None
    iv: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    open_interest: float | None = None
    volume: float | None = None


class _Chain(msgspec.Struct):
    options: msgspec.Raw
    symbol: str = ""
    current_price: float | None = None


class _DeskQuote(msgspec.Struct, gc=False, rename={"option": "symbol"}):
    option: str
    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    iv: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    openInterest: float | None = None  # noqa: N815  # the field's name
    volume: float | None = None


class _Answer(msgspec.Struct):
    data: _Chain | None = None
    timestamp: str = ""
    quotes: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    updated: str = ""
    symbol: str = ""
    underlyingPrice: float | None = None  # noqa: N815  # the field's name


_HALF = ("last", "net", "bid", "ask", "volume", "iv", "delta", "gamma", "open_interest")
_FIGURES = [name for name in _HALF if name != "net"]
_CELLS = (
    "expires",
    "call_contract",
    *(f"call_{name}" for name in _HALF),
    "listed_strike",
    "put_contract",
    *(f"put_{name}" for name in _HALF),
)
_TITLES = "Last Sale,Net,Bid,Ask,Volume,IV,Delta,Gamma,Open Interest"
_HEADER = f"Expiration Date,Calls,{_TITLES},Strike,Puts,{_TITLES}"
_LAST = re.compile(r"\bLast:\s*(-?\d+(?:,\d{3})*(?:\.\d+)?)")
_DATE = re.compile(r"\bDate:\s*(.+?)\"?\s*,\s*Bid:")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::\d{2})?\s*(?:([ap])\.?\s*m\b\.?)?", re.IGNORECASE)
_OFFSET = re.compile(r"\b(?:GMT|UTC)(?:\s*([+\u2212-])(\d{1,2})(?::(\d{2}))?)?\s*$")
_NEW_YORK_ZONE = re.compile(r"\bE[SD]?T\s*$")
_MONTHS = (
    ("jan", "ene", "янв"),
    ("feb", "фев"),
    ("mar", "мар"),
    ("apr", "abr", "апр"),
    ("may", "мая", "май"),
    ("jun", "июн"),
    ("jul", "июл"),
    ("aug", "ago", "авг"),
    ("sep", "set", "сен"),
    ("oct", "окт"),
    ("nov", "ноя"),
    ("dec", "dic", "дек"),
)
_MONTH_NUMBERS = {start: month for month, starts in enumerate(_MONTHS, start=1) for start in starts}


def read_json(content: bytes, source: str, *, symbol: str, ts_recv: dt.datetime | None = None) -> Parsed:
    """Return a chain from Cboe's JSON, or from the JSON that an options desk made of it.

    Args:
        content: The answer.
        source: Its file or address, for people and for the quarantine.
        symbol: The platform's name of the underlying.
        ts_recv: When it came; None for a recording that does not tell.

    Returns:
        Rows by contract; `source_line` in the quarantine counts the contracts of the answer from 1. Facts:
        `contracts` (in the answer), `venue_symbol`, `expired`, `adjusted` (of the rows).

    Raises:
        ChainError: It is a web page, cut off, another JSON, or its time cannot be read: nothing of it is used.
    """
    broken: list[pl.DataFrame] = []
    answer = decoded(content, source, _Answer)
    kind: type[msgspec.Struct]
    if answer.data is not None:
        listed, kind, time = answer.data.options, _Quote, answer.timestamp
        venue_symbol, spot = answer.data.symbol, answer.data.current_price
    elif answer.quotes is not msgspec.UNSET:
        listed, kind, time = answer.quotes, _DeskQuote, answer.updated
        venue_symbol, spot = answer.symbol, answer.underlyingPrice
    else:
        raise ChainError(
            f"{source} is JSON, but no option chain: it has no `data` with `options`, and no `quotes`. Nothing was "
            f"loaded. The venue refused the request or changed its format; it begins '{line_text(content[:100])}'."
        )
    try:
        moment = dt.datetime.fromisoformat(time)
        ts_event_ns = instant_ns(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))
    except ValueError as error:
        raise ChainError(
            f"{source} says that it is of '{time}', which is no time. Nothing was loaded. Fetch it again."
        ) from error
    found = records(listed, source, kind, broken)
    facts = {"contracts": str(found.height + len(broken)), "venue_symbol": venue_symbol}
    rows = found.rename(_FIELDS, strict=False)
    return parted(
        _rows(rows, symbol=symbol, ts_event_ns=ts_event_ns, ts_recv=ts_recv, spot=spot),
        record_origins(listed, source),
        broken,
        facts,
    )


def read_sheet(content: bytes, source: str, *, symbol: str, ts_recv: dt.datetime | None = None) -> Parsed:
    """Return a chain from the sheet of Cboe's web page: three lines about the underlying, a header, a line a strike.

    Args:
        content: The file.
        source: Its name, for people and for the quarantine.
        symbol: The platform's name of the underlying.
        ts_recv: When it came; None for a recording that does not tell.

    Returns:
        Rows by contract, two a line. Facts: `contracts` (in whole lines), `expiry_mismatch` and `strike_mismatch`
        (contracts whose names say something else than the line's column), `expired`, `adjusted` (of the rows).

    Raises:
        ChainError: It is a web page, has another header, or its time cannot be read: nothing of it is used.
    """
    text = content.decode("utf-8-sig", errors="replace")
    lines = text.splitlines()
    head = next((i for i, line in enumerate(lines[:10]) if line.startswith("Expiration Date")), None)
    if head is None or lines[head].strip() != _HEADER:
        begins = lines[head] if head is not None else text.lstrip().partition("\n")[0]
        raise ChainError(
            f"{source} is no quotedata sheet of Cboe: its header should be '{_HEADER}', and "
            f"{f'line {head + 1} is' if head is not None else 'it begins'} '{begins[:200]}'. Nothing was loaded. Save "
            "the sheet anew from the page of delayed quotes, all columns on; a web page in its place was a refusal."
        )
    above = "\n".join(lines[:head])
    last = _LAST.search(above)
    broken: list[pl.DataFrame] = []
    body = pl.DataFrame({"raw": lines[head + 1 :]}, schema={"raw": pl.String})
    body = body.with_columns(pl.Series(LINE, range(head + 2, len(lines) + 1), pl.Int64)).filter(pl.col("raw") != "")
    both = cells(body, _CELLS, broken)
    halves = pl.concat(
        both.select(LINE, "expires", "listed_strike", pl.col(f"^{half}_.*$").name.map(_without(half)))
        for half in ("call", "put")
    )
    found = numbers(halves, _FIGURES, broken)
    rows = _rows(
        found.drop("net"),
        symbol=symbol,
        ts_event_ns=_time_above(above, source),
        ts_recv=ts_recv,
        spot=float(last[1].replace(",", "")) if last else None,
    )
    expires = pl.col("expires").str.to_date("%a %b %d %Y", strict=False)
    is_other = rows.select(
        expiry_mismatch=pl.col("expiry").ne_missing(expires),
        strike_mismatch=pl.col("strike").ne_missing(pl.col("listed_strike").cast(pl.Float64, strict=False)),
    )
    facts = {"contracts": str(halves.height), **{key: str(int(is_other[key].sum())) for key in is_other.columns}}
    return parted(rows, line_origins(lines, source), broken, facts)


def _without(half: str) -> Any:
    return lambda name: name.removeprefix(f"{half}_")


def _rows(
    found: pl.DataFrame, *, symbol: str, ts_event_ns: int, ts_recv: dt.datetime | None, spot: float | None
) -> pl.DataFrame:
    parts = found.with_columns(osi.osi_parts(pl.col("contract")).alias("parts")).unnest("parts")
    is_adjusted = pl.col("root").str.contains(r"\d$")
    return parts.with_columns(
        pl.col("contract").str.replace_all(" ", "", literal=True),
        ts_event=instant_of(ts_event_ns),
        ts_recv=instant_of(None if ts_recv is None else instant_ns(ts_recv)),
        symbol=pl.lit(symbol),
        venue=pl.lit(VENUE),
        ts_expiry=osi.new_york_settlements(pl.col("expiry"), pl.col("root")),
        multiplier=pl.when(~is_adjusted).then(_MULTIPLIER),
        underlying_price=pl.lit(spot, pl.Float64),
    )


def _time_above(above: str, source: str) -> int:
    found = _DATE.search(above)
    written = found[1].strip() if found else ""
    try:
        return instant_ns(_moment(written))
    except ValueError as error:
        raise ChainError(
            f"{source} does not say when it was: its third line should name a date and a time of New York, and "
            f"'{written or above[-200:]}' is none that is known. Nothing was loaded. Save the sheet anew, in English."
        ) from error


def _moment(written: str) -> dt.datetime:
    clock = _CLOCK.search(written)
    if clock is None:
        raise ValueError("no time of day")
    hour, minute = int(clock[1]), int(clock[2])
    if clock[3]:
        hour = hour % 12 + 12 * (clock[3].lower() == "p")
    date, zone = written[: clock.start()], written[clock.end() :]
    months = {_MONTH_NUMBERS.get(word[:3].lower()) for word in re.findall(r"[^\W\d_]{3,}", date)} - {None}
    year, day = re.search(r"\b\d{4}\b", date), re.search(r"\b\d{1,2}\b", date)
    if len(months) != 1 or year is None or day is None:
        raise ValueError("no date")
    return dt.datetime(int(year[0]), int(str(months.pop())), int(day[0]), hour, minute, tzinfo=_zone(zone))


def _zone(written: str) -> dt.tzinfo:
    offset = _OFFSET.search(written)
    if offset is None:
        if _NEW_YORK_ZONE.search(written) is None:
            raise ValueError("no zone")
        return _NEW_YORK
    minutes = int(offset[2] or 0) * 60 + int(offset[3] or 0)
    return dt.timezone(dt.timedelta(minutes=minutes if offset[1] == "+" else -minutes))
