"""Deribit's options from its REST answers: instruments, book summaries, and tickers, joined to a chain.

An option that is quoted in its own coin (`quote_currency` = `base_currency`: all but those on USDC) has prices in
coins: they are turned into dollars with the present price of the forward that the venue prices it by
(`underlying_price`), because strike, greeks and that forward are in dollars. Deribit writes volatility in percent, vega
per vol point, theta per day, and amounts in coins; one contract is one coin. It settles at 08:00 UTC.
"""

import datetime as dt
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Annotated

import msgspec
import polars as pl

from quant_platform.contracts._schema import INSTANT
from quant_platform.feeds import osi
from quant_platform.feeds.option_chain import (
    ChainError,
    Origins,
    decoded,
    instant_ns,
    instant_of,
    parted,
    record_origins,
    records,
)
from quant_platform.feeds.recorded import Parsed
from quant_platform.feeds.sheet import LINE, named
from quant_platform.storage.chain_archive import Answer

VENUE = "deribit"
_Ms = Annotated[float, msgspec.Meta(gt=0, lt=1e13)]  # up to the year 2286

_MULTIPLIER = 1.0
_SETTLES_AT = dt.time(8)


class _List(msgspec.Struct):
    result: msgspec.Raw


class _Instrument(msgspec.Struct, gc=False):
    instrument_name: str
    kind: str
    base_currency: str
    quote_currency: str
    expiration_timestamp: float
    strike: float | None = None
    option_type: str | None = None


class _Quote(msgspec.Struct, gc=False):
    instrument_name: str
    creation_timestamp: _Ms | None = None
    bid_price: float | None = None
    ask_price: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last: float | None = None
    mark_iv: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    open_interest: float | None = None
    volume: float | None = None
    underlying_price: float | None = None


class _Greeks(msgspec.Struct, gc=False):
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None


class _Stats(msgspec.Struct, gc=False):
    volume: float | None = None


class _Ticker(msgspec.Struct, gc=False):
    instrument_name: str
    timestamp: _Ms
    best_bid_price: float | None = None
    best_ask_price: float | None = None
    best_bid_amount: float | None = None
    best_ask_amount: float | None = None
    last_price: float | None = None
    mark_iv: float | None = None
    open_interest: float | None = None
    underlying_price: float | None = None
    greeks: _Greeks = msgspec.field(default_factory=_Greeks)
    stats: _Stats = msgspec.field(default_factory=_Stats)


class _TickerAnswer(msgspec.Struct):
    result: _Ticker


def read_chain(
    instruments: Answer,
    summaries: Answer | None,
    tickers: Sequence[Answer] = (),
    *,
    symbol: str,
    ts_recv: dt.datetime | None = None,
) -> Parsed:
    """Return the chain of one currency.

    Args:
        instruments: Of `public/get_instruments`; other kinds than options are passed over.
        summaries: Of `public/get_book_summary_by_currency`: the quotes of all contracts, without sizes and greeks.
        tickers: Of `public/ticker`, one a contract, which takes the place of its summary.
        symbol: The platform's name of the underlying.
        ts_recv: When the last of them came; None for recordings that do not tell.

    Returns:
        One row a contract that has a quote, all at one `ts_event`: the latest of the quotes. Quarantined are quotes
        whose contract is not among the instruments, or is another one there than its name says; and a ticker that
        cannot be read. Facts: `instruments` (options listed), `instruments_broken`, `contracts` (quoted, or broken),
        `unquoted`, `expired`, `adjusted`.

    Raises:
        ChainError: The instruments or summaries are a web page, cut off or another JSON, or nothing tells the time.
    """
    listed, listed_broken = _instruments(instruments)
    broken: list[pl.DataFrame] = []
    quotes: list[pl.DataFrame] = []
    parts: list[tuple[int, Origins]] = []
    if summaries is not None:
        raw = decoded(summaries.content, summaries.source, _List).result
        quotes.append(records(raw, summaries.source, _Quote, broken))
        parts.append((quotes[0].height + sum(part.height for part in broken), record_origins(raw, summaries.source)))
    before = sum(count for count, _ in parts)
    quotes.append(_tickers(tickers, before, broken))
    parts.append((len(tickers), partial(_ticker_origins, tickers)))
    quotes = [_once(part, broken) for part in quotes]
    together = pl.concat(quotes[::-1]).unique("instrument_name", keep="first", maintain_order=True)
    latest = together["creation_timestamp"].max()
    if not isinstance(latest, float):
        raise ChainError(
            f"{(summaries or instruments).source} and {len(tickers)} tickers hold no quote that tells its time. "
            "Nothing was loaded. Ask for the book summaries of a currency that has options."
        )
    together = together.join(listed, left_on="instrument_name", right_on="name", how="left", maintain_order="left")
    for is_wrong, rule in ((pl.col("base").is_null(), "contract|unlisted"), (~_keeps_name(), "contract|instrument")):
        marks = together.select(is_wrong.fill_null(value=False)).to_series()
        broken.append(named(together.filter(marks)[LINE], rule))
        together = together.filter(~marks)
    return parted(
        _rows(together, symbol=symbol, ts_event_ns=int(latest) * 1_000_000, ts_recv=ts_recv),
        partial(_origins, parts),
        broken,
        {
            "instruments": str(listed.height),
            "instruments_broken": str(listed_broken),
            "contracts": str(together.height + sum(part.height for part in broken)),
            "unquoted": str(listed.join(together, left_on="name", right_on="instrument_name", how="anti").height),
        },
    )


@lru_cache(maxsize=2)  # a venue lists the same contracts again and again
def _instruments(answer: Answer) -> tuple[pl.DataFrame, int]:
    broken: list[pl.DataFrame] = []
    found = records(decoded(answer.content, answer.source, _List).result, answer.source, _Instrument, broken)
    options = found.filter(pl.col("kind") == "option").unique("instrument_name", keep="first", maintain_order=True)
    options = options.rename({"strike": "listed_strike"})
    parts = options.with_columns(osi.deribit_parts(pl.col("instrument_name")).alias("parts")).unnest("parts")
    listed = parts.select(
        "expiry",
        "type",
        "strike",
        name="instrument_name",
        base="base_currency",
        quoted_in="quote_currency",
        listed_strike="listed_strike",
        listed_type=osi.types(pl.col("option_type")),
        listed_expiry=pl.from_epoch(pl.col("expiration_timestamp").cast(pl.Int64), time_unit="ms"),
    )
    return listed, len(broken)


def _tickers(tickers: Sequence[Answer], before: int, broken: list[pl.DataFrame]) -> pl.DataFrame:
    found, counted = [], []
    for number, answer in enumerate(tickers, start=before + 1):
        try:
            ticker = decoded(answer.content, answer.source, _TickerAnswer).result
        except ChainError:
            broken.append(named(pl.Series(LINE, [number], pl.Int64), "row|malformed"))
            continue
        counted.append(number)
        found.append(
            (
                ticker.instrument_name,
                ticker.timestamp,
                ticker.best_bid_price,
                ticker.best_ask_price,
                ticker.best_bid_amount,
                ticker.best_ask_amount,
                ticker.last_price,
                ticker.mark_iv,
                *msgspec.structs.astuple(ticker.greeks),
                ticker.open_interest,
                ticker.stats.volume,
                ticker.underlying_price,
            )
        )
    names = [field.name for field in msgspec.structs.fields(_Quote)]
    schema = {name: pl.String() if name == "instrument_name" else pl.Float64() for name in names}
    return pl.DataFrame(found, schema, orient="row").with_columns(pl.Series(LINE, counted, pl.Int64))


def _once(quotes: pl.DataFrame, broken: list[pl.DataFrame]) -> pl.DataFrame:
    is_first = quotes["instrument_name"].is_first_distinct()
    broken.append(named(quotes.filter(~is_first)[LINE], "contract|duplicate"))
    return quotes.filter(is_first)


def _keeps_name() -> pl.Expr:
    expires = pl.col("expiry").dt.combine(_SETTLES_AT)
    return (
        (pl.col("listed_strike") == pl.col("strike"))
        & (pl.col("listed_type") == pl.col("type"))
        & (pl.col("listed_expiry") == expires)
    ) | pl.col("expiry").is_null()


def _rows(quotes: pl.DataFrame, *, symbol: str, ts_event_ns: int, ts_recv: dt.datetime | None) -> pl.DataFrame:
    dollars = pl.when(pl.col("base") == pl.col("quoted_in")).then("underlying_price").otherwise(1.0)
    return quotes.with_columns(
        ts_event=instant_of(ts_event_ns),
        ts_recv=instant_of(None if ts_recv is None else instant_ns(ts_recv)),
        symbol=pl.lit(symbol),
        venue=pl.lit(VENUE),
        contract="instrument_name",
        ts_expiry=pl.col("expiry").dt.combine(_SETTLES_AT, time_unit="ns").dt.replace_time_zone("UTC").cast(INSTANT),
        multiplier=pl.lit(_MULTIPLIER),
        bid=pl.col("bid_price") * dollars,
        ask=pl.col("ask_price") * dollars,
        last=pl.col("last") * dollars,
        # Polars divides by a constant by multiplying with its inverse, which misses the last bit.
        iv=(pl.col("mark_iv") / 100).round(10),
    )


def _ticker_origins(tickers: Sequence[Answer], wanted: pl.Series) -> list[tuple[str, int, str]]:
    chosen = [tickers[number - 1] for number in wanted]
    return [(answer.source, 1, answer.content.decode(errors="replace")) for answer in chosen]


def _origins(parts: list[tuple[int, Origins]], wanted: pl.Series) -> list[tuple[str, int, str]]:
    found = []
    for number in wanted:
        rest = number
        for count, origins in parts:
            if rest <= count:
                found += origins(pl.Series([rest]))
                break
            rest -= count
    return found
