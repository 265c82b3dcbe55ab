"""The sources of VIX1D: how each is asked, and what its answer says. Who is asked, and when, is `vix1d`'s business.

Cboe publishes the closes of past dates as CSV, Yahoo a chart of the day; IBKR tells the value now.
"""

import asyncio
import importlib
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import msgspec
from msgspec import Meta

from quant_platform.feeds.download import DownloadError, local_path
from quant_platform.feeds.sheet import line_text
from quant_platform.settings import Feeds, IbkrGateway
from quant_platform.storage.vix1d_archive import Reading, Refused

SYMBOL = "VIX1D"
CBOE, IBKR, YAHOO, MANUAL, SIMULATED = "cboe", "ibkr", "yahoo", "manual", "simulated"

_HEADER = ["DATE", "OPEN", "HIGH", "LOW", "CLOSE"]
_NEW_YORK = ZoneInfo("America/New_York")
_CLOSES = time(16, 15)  # when the index was last computed on a date, New York
_NS = 1_000_000_000
_MINUTE_S = 60
_YEARS = range(1990, 2262)  # nanoseconds end there
_PATIENCE_S = 30.0
_MOST_BYTES = 16 << 20
_LONGEST_SHOWN = 200
_CHART = {"interval": "1m", "range": "1d"}

_Second = Annotated[int, Meta(ge=0, le=1 << 33)]


class SourceError(Exception):
    """A source gave no reading; the message says which, why, and what to do."""


class Answer(NamedTuple):
    """The readings of an answer, at least one, in the order of time; and what of it is none."""

    readings: list[Reading]
    refused: list[Refused]


class _Meta(msgspec.Struct):
    regularMarketPrice: float  # noqa: N815  # the field's name
    regularMarketTime: _Second  # noqa: N815  # the field's name
    symbol: str = ""
    dataGranularity: str = ""  # noqa: N815  # the field's name


class _Quote(msgspec.Struct):
    close: list[float | None] = []


class _Indicators(msgspec.Struct):
    quote: list[_Quote] = []


class _Result(msgspec.Struct):
    meta: _Meta
    timestamp: list[_Second] = []
    indicators: _Indicators = msgspec.field(default_factory=_Indicators)


class _Chart(msgspec.Struct):
    result: list[_Result] | None = None
    error: Any = None


class _Body(msgspec.Struct):
    chart: _Chart


_body = msgspec.json.Decoder(_Body).decode


def in_use(feeds: Feeds) -> dict[str, float]:
    """Return the sources that are to be asked, in order of preference, with the seconds each is not asked again.

    A source without an address (an empty one, for IBKR no gateway), or not named in `min_refetch_s`, is not asked.
    """
    addresses = {CBOE: feeds.cboe.vix1d_url, IBKR: feeds.vix1d.ibkr, YAHOO: feeds.vix1d.yahoo_url}
    waits = {str(name): seconds for name, seconds in feeds.vix1d.min_refetch_s.items()}
    return {name: waits[name] for name, address in addresses.items() if address and name in waits}


async def ask(name: str, feeds: Feeds, client: httpx.AsyncClient, clock: Callable[[], int]) -> Answer:
    """Return what a source says now.

    Args:
        name: Of `in_use`.
        feeds: The settings of the sources.
        client: That follows redirects.
        clock: Ours, UTC ns; read when the answer has come.

    Raises:
        SourceError: It gave no reading.
    """
    if name == IBKR:
        assert feeds.vix1d.ibkr is not None  # else it is not in use
        return await _of_gateway(feeds.vix1d.ibkr, clock)
    if name == YAHOO:
        return chart(await _body_of(feeds.vix1d.yahoo_url, client, _CHART), feeds.vix1d.yahoo_url, ts_recv=clock())
    url = feeds.cboe.vix1d_url
    return history(
        await _body_of(url, client), url, source=CBOE, ts_recv=clock(), latency_ms=feeds.cboe.assumed_latency_ms
    )


def history(content: bytes, address: str, *, source: str, ts_recv: int | None, latency_ms: float) -> Answer:
    """Return Cboe's CSV of daily prices as readings: the closes, as of 16:15 New York of their dates.

    A line that is none is refused, and filed beside the reading before it.

    Args:
        content: The file.
        address: Where it came from, for people.
        source: Whose readings they will be.
        ts_recv: Our clock at receipt, UTC ns, which is that of today's row in New York; an earlier date is taken to
            have been known `latency_ms` after its time. None where all of them are.
        latency_ms: See above.

    Raises:
        SourceError: It is another file, or has no reading.
    """
    header, _, body = content.decode("utf-8-sig", errors="replace").partition("\n")
    if [title.strip().upper() for title in header.split(",")] != _HEADER:
        raise SourceError(
            f"{address} is no daily history of Cboe: it should begin '{','.join(_HEADER)}', and begins "
            f"'{line_text(content[:_LONGEST_SHOWN]).strip()}'. A web page in its place was a refusal."
        )
    today = None if ts_recv is None else datetime.fromtimestamp(ts_recv / _NS, _NEW_YORK).date()
    latency_ns = round(latency_ms * 1e6)
    readings: list[Reading] = []
    broken: list[tuple[str, int, str, int | None]] = []
    for number, line in enumerate(body.splitlines(keepends=True), start=2):
        row = line.strip()
        if not row:
            continue
        rule, day, value = _row(row, is_whole=line.endswith("\n"))
        if rule or day is None:
            broken.append((rule, number, row, _close_ns(day) if day else _last(readings)))
            continue
        ts_event = _close_ns(day)
        known = ts_recv if ts_recv is not None and day == today else ts_event + latency_ns
        readings.append(Reading(source, ts_event, known, value))
    if not readings:
        raise SourceError(f"{address} has no row with a date and a close above 0. It is asked again later.")
    readings.sort(key=lambda reading: reading.ts_event)
    return Answer(
        readings,
        [
            Refused(source, beside or readings[0].ts_event, ts_recv or readings[-1].ts_recv, rule, number, row)
            for rule, number, row, beside in broken
        ],
    )


def chart(content: bytes, address: str, *, ts_recv: int) -> Answer:
    """Return Yahoo's chart as readings: the value now, and the closes of the minutes that were over before it.

    Args:
        content: The JSON.
        address: Where it came from, for people.
        ts_recv: Our clock at receipt, UTC ns.

    Raises:
        SourceError: It is none, of another index, or its value is no number above 0.
    """
    try:
        told = _body(content).chart
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        shown = line_text(content[:_LONGEST_SHOWN]).strip()
        raise SourceError(f"{address} answered no chart ({error}); it begins '{shown}'.") from error
    if not told.result:
        raise SourceError(f"{address} answered a chart without a result: {told.error}.")
    result = told.result[0]
    now, value = result.meta.regularMarketTime, result.meta.regularMarketPrice
    if SYMBOL not in result.meta.symbol:
        raise SourceError(f"{address} answered the chart of '{result.meta.symbol}', not of {SYMBOL}: check yahoo_url.")
    if not _is_value(value):
        raise SourceError(f"{address} says that {SYMBOL} is {value}, which is no value above 0.")
    closes = result.indicators.quote[0].close if result.indicators.quote else []
    minutes = zip(result.timestamp, closes, strict=False) if result.meta.dataGranularity == _CHART["interval"] else ()
    readings, refused = {now: Reading(YAHOO, now * _NS, ts_recv, value)}, []
    for number, (start, close) in enumerate(minutes, start=1):
        end = start + _MINUTE_S
        if close is None or end >= now:  # nothing was told, or the minute goes on
            continue
        if _is_value(close):
            readings[end] = Reading(YAHOO, end * _NS, ts_recv, close)
        else:
            refused.append(Refused(YAHOO, end * _NS, ts_recv, "value|number", number, f"{start},{close}"))
    return Answer([readings[end] for end in sorted(readings)], refused)


async def _of_gateway(gateway: IbkrGateway, clock: Callable[[], int]) -> Answer:
    """Return the value that a gateway tells now."""
    try:
        ib_async: Any = importlib.import_module("ib_async")
    except ImportError as error:
        raise SourceError(
            "feeds.vix1d.ibkr is set, and the package ib_async is not installed: `pip install ib_async`, or remove "
            "that setting."
        ) from error
    ib = ib_async.IB()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await ib.connectAsync(gateway.host, gateway.port, clientId=gateway.client_id, readonly=True)
            (ticker,) = await ib.reqTickersAsync(ib_async.Index(SYMBOL, "CBOE", "USD"))
    except Exception as error:
        where = f"{gateway.host}:{gateway.port}"
        raise SourceError(f"The gateway at {where} gave no {SYMBOL}: {type(error).__name__}: {error}.") from error
    finally:
        ib.disconnect()
    value = float(ticker.marketPrice())
    if ticker.time is None or not _is_value(value):
        raise SourceError(f"The gateway says that {SYMBOL} is {value} at {ticker.time}, which is no reading.")
    return Answer([Reading(IBKR, round(ticker.time.timestamp() * 1e6) * 1_000, clock(), value)], [])


async def _body_of(url: str, client: httpx.AsyncClient, query: Mapping[str, str] | None = None) -> bytes:
    try:
        if url.startswith("file:"):
            return await asyncio.to_thread(local_path(url).read_bytes)
        async with asyncio.timeout(_PATIENCE_S), client.stream("GET", url, params=query) as answer:
            if answer.status_code != httpx.codes.OK:
                raise SourceError(f"{url} answered {answer.status_code} {answer.reason_phrase}.")
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise SourceError(f"{url} answered more than {_MOST_BYTES >> 20} MB: check the address.")
            return bytes(body)
    except TimeoutError as error:
        raise SourceError(f"{url} did not answer within {_PATIENCE_S:g} s.") from error
    except (httpx.HTTPError, httpx.InvalidURL, DownloadError, OSError) as error:
        raise SourceError(f"{url} could not be had: {type(error).__name__}: {error}.") from error


def _row(row: str, *, is_whole: bool) -> tuple[str, date | None, float]:
    """Return the rule that a row breaks, its date and its close."""
    cells = [cell.strip() for cell in row.split(",")]
    try:
        day = datetime.strptime(cells[0], "%m/%d/%Y").replace(tzinfo=UTC).date()
    except ValueError:
        return "ts_event|date", None, math.nan
    if day.year not in _YEARS:
        return "ts_event|date", None, math.nan
    if len(cells) != len(_HEADER):
        return "line|cells", day, math.nan
    # The last line of a file that was cut off may end within its last number: then it has fewer decimals than others.
    if not is_whole and len(cells[4].partition(".")[2]) < len(cells[1].partition(".")[2]):
        return "line|cut_off", day, math.nan
    try:
        value = float(cells[4])
    except ValueError:
        value = math.nan
    return "" if _is_value(value) else "value|number", day, value


def _is_value(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _last(readings: list[Reading]) -> int | None:
    return readings[-1].ts_event if readings else None


def _close_ns(day: date) -> int:
    return int(datetime.combine(day, _CLOSES, _NEW_YORK).timestamp()) * _NS
