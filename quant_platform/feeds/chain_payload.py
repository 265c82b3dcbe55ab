"""A chain as Redis holds it: rows of `options/chain` to the payload of its key, and what we or others wrote to rows.

Others may leave out much, and spell it in their own way:

- `ts_event`, else `ts`, is integer UTC ns; of the other times, `ts_expiry` and `ts_recv` are too.
- A contract is named by an OSI or a Deribit name, which then tells its expiry, type and strike, or by these three.
- `expiry` is an ISO date, YYYYMMDD, YYMMDD, epoch seconds or milliseconds, or an OSI name; `type`, or `right`, is C, P,
  CALL or PUT.
- What a contract leaves out is null, but for `ts_expiry`, which follows from its name; `multiplier`, which is the
  standard of its venue (Deribit 1, else 100; null says that it was adjusted); and `underlying_price`, which is that of
  the whole chain.

Keys are `redis_keys`' business.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
import polars as pl
from msgspec import UNSET, UnsetType

from quant_platform.calculators import option_chain
from quant_platform.contracts._schema import INSTANT
from quant_platform.feeds import deribit, osi
from quant_platform.feeds.option_chain import ChainError, Origins, decoded, instant_of, parted, record_origins
from quant_platform.feeds.recorded import Parsed
from quant_platform.feeds.sheet import LINE, named
from quant_platform.storage import redis_keys

_Instant = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_STANDARD = 100.0
_OF_DERIBIT = 1.0
_SETTLES_AT = dt.time(8)  # Deribit's, UTC
_UNNAMED_VENUE = "unnamed"
_TEXTS = ("contract", "type", "right", "expiry")


class _Contract(msgspec.Struct, gc=False):
    contract: str | None = None
    type: str | None = None
    right: str | None = None
    strike: float | None = None
    expiry: str | int | None = None
    ts_expiry: _Instant | None = None
    multiplier: float | UnsetType | None = UNSET
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last: float | None = None
    iv: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    open_interest: float | None = None
    volume: float | None = None
    underlying_price: float | UnsetType | None = UNSET


class _Head(msgspec.Struct):
    ts_event: _Instant | None = None
    ts: _Instant | None = None
    ts_recv: _Instant | None = None
    venue: str | None = None
    underlying_price: float | None = None


class _Payload(_Head):
    contracts: msgspec.Raw = msgspec.Raw(b"[]")


class _Greeks(_Contract):
    """One contract's own payload, with what a chain says once."""

    ts_event: _Instant | None = None
    ts: _Instant | None = None
    ts_recv: _Instant | None = None
    venue: str | None = None


_COLUMNS = msgspec.structs.fields(_Contract)


def encoded(rows: pl.DataFrame, *, ts_written: int, seq: int) -> bytes:
    """Return the payload of `redis_keys.OPTION_CHAIN`.

    Args:
        rows: Contract `OptionChain`, at least one row, all of one snapshot.
        ts_written: Our wall clock, UTC ns.
        seq: Counts the payloads of the key from its writer's start.

    Raises:
        ValueError: There is no row, or the rows are of several snapshots or symbols.
    """
    heads = rows.select("symbol", "ts_event", "venue").unique()
    if heads.height != 1:
        raise ValueError(f"a payload holds one snapshot of one symbol, the rows are of {heads.height}")
    received = rows["ts_recv"].to_physical().max()
    spot = option_chain.chain_snapshots(rows.with_columns(rate=0.0, dividend=0.0))["underlying_price"][0]
    ts_event = heads["ts_event"].to_physical()[0]
    head = {"ts_written": ts_written, "ts": ts_event, "seq": seq, "symbol": heads["symbol"][0]}
    head |= {"ts_event": ts_event, "ts_recv": received, "venue": heads["venue"][0], "underlying_price": spot}
    contracts = rows.drop("symbol", *redis_keys.OF_SNAPSHOT).with_columns(pl.col("ts_expiry").to_physical())
    return msgspec.json.encode(head)[:-1] + b',"contracts":' + contracts.write_json().encode() + b"}"


def ts_event_of(payload: bytes, *, source: str) -> int:
    """Return when the chain of a payload stood so, UTC ns; its contracts are not looked at.

    Args:
        payload: Of `redis_keys.OPTION_CHAIN`.
        source: Its key, for messages.

    Raises:
        ChainError: It is no JSON object, or does not tell its time.
    """
    return _time(decoded(payload, source, _Payload), source)


def rows_of(payload: bytes, *, symbol: str) -> Parsed:
    """Return the rows of a chain's payload, ours or another's.

    Args:
        payload: Of `redis_keys.OPTION_CHAIN`.
        symbol: The platform's name of the underlying, whatever the payload says.

    Returns:
        One row a contract; contracts that cannot be used are quarantined, each under the rule that it breaks. Facts:
        `contracts` (told), `expired`, `adjusted`.

    Raises:
        ChainError: It is no JSON object, its contracts are no list, or it does not tell its time.
    """
    source = redis_keys.OPTION_CHAIN.name(symbol)
    found = decoded(payload, source, _Payload)
    broken: list[pl.DataFrame] = []
    contracts, numbers = _contracts(found.contracts, source, broken)
    frame = _frame(contracts, numbers)
    head = {
        "ts_event": _time(found, source),
        "ts_recv": found.ts_recv,
        "venue": found.venue or _UNNAMED_VENUE,
        "underlying_price": found.underlying_price,
    }
    return _parsed(frame, head, symbol, record_origins(found.contracts, source), broken)


def rows_of_greeks(payloads: Mapping[str, bytes], *, symbol: str) -> Parsed:
    """Return the rows of contracts that have a payload each.

    Args:
        payloads: By key, as `redis_keys.OPTION_GREEKS` finds them. Where a payload does not name its contract, the key
            does.
        symbol: The platform's name of the underlying.

    Returns:
        As `rows_of`, all at the latest `ts_event` of the payloads; that of the first one that tells a venue is theirs.

    Raises:
        ChainError: No payload tells a time.
    """
    broken: list[pl.DataFrame] = []
    found, numbers = [], []
    for number, (key, payload) in enumerate(payloads.items(), start=1):
        try:
            greeks = decoded(payload, key, _Greeks)
        except ChainError:
            broken.append(named(pl.Series(LINE, [number], pl.Int64), "row|malformed"))
            continue
        if greeks.contract is None:
            greeks.contract = redis_keys.contract_of_greeks(key, symbol)
        found.append(greeks)
        numbers.append(number)
    times = [ts for one in found if (ts := one.ts_event if one.ts_event is not None else one.ts) is not None]
    if not times:
        raise ChainError(
            f"None of {len(payloads):,} payloads of {redis_keys.OPTION_GREEKS.name(symbol)} tells its ts_event. "
            "Nothing was loaded. Write it as integer UTC ns."
        )
    head = {
        "ts_event": max(times),
        "ts_recv": max((one.ts_recv for one in found if one.ts_recv is not None), default=None),
        "venue": next((one.venue for one in found if one.venue), _UNNAMED_VENUE),
        "underlying_price": None,
    }
    origins = partial(_payload_origins, list(payloads.items()))
    return _parsed(_frame(found, numbers), head, symbol, origins, broken)


def _time(head: _Head, source: str) -> int:
    ts = head.ts_event if head.ts_event is not None else head.ts
    if ts is None:
        raise ChainError(f"{source} does not tell its ts_event. Nothing was loaded. Write it as integer UTC ns.")
    return ts


def _contracts(
    listed: msgspec.Raw, source: str, broken: list[pl.DataFrame]
) -> tuple[Sequence[_Contract], Sequence[int]]:
    """Return the contracts of a list with their numbers from 1; those that have another form go to `broken`."""
    try:
        found = msgspec.json.decode(listed, type=list[_Contract])
    except (msgspec.DecodeError, UnicodeDecodeError):
        found, numbers = [], []
        for number, raw in enumerate(decoded(bytes(listed), source, list[msgspec.Raw]), start=1):
            try:
                found.append(msgspec.json.decode(raw, type=_Contract))
                numbers.append(number)
            except (msgspec.DecodeError, UnicodeDecodeError):
                broken.append(named(pl.Series(LINE, [number], pl.Int64), "row|malformed"))
        return found, numbers
    return found, range(1, len(found) + 1)


def _frame(contracts: Sequence[_Contract], numbers: Sequence[int]) -> pl.DataFrame:
    """Return the contracts as texts, floats and integers, and `is_…_told` for what may be left out."""
    rows = zip(*map(msgspec.structs.astuple, contracts), strict=True) if contracts else ([] for _ in _COLUMNS)
    columns: list[pl.Series] = [pl.Series(LINE, numbers, pl.Int64)]
    for column, told in zip(_COLUMNS, rows, strict=False):  # a contract's own payload has more, which stand behind
        name, values = column.name, told
        if column.default is UNSET:
            columns.append(pl.Series(f"is_{name}_told", [value is not UNSET for value in values], pl.Boolean))
            values = [None if value is UNSET else value for value in values]
        if name == "expiry":
            values = [str(value) if type(value) is int else value for value in values]
        dtype = pl.String() if name in _TEXTS else pl.Int64() if name == "ts_expiry" else pl.Float64()
        columns.append(pl.Series(name, values, dtype))
    return pl.DataFrame(columns)


def _named(frame: pl.DataFrame, venue: str, symbol: str) -> pl.DataFrame:
    """Return the contracts with `type strike expiry`, as their names say, else their own, `ts_expiry` and a name."""
    frame = frame.with_columns(pl.col("contract").str.strip_chars())
    parts = frame.lazy().select(osi.osi_parts(pl.col("contract")).alias("name")).unnest("name")
    by_name = parts.collect(engine="in-memory")
    is_deribit = pl.lit(venue == deribit.VENUE)
    if by_name["root"].has_nulls():
        of_deribit = frame.select(osi.deribit_parts(pl.col("contract")).alias("name")).unnest("name")
        is_deribit = is_deribit | of_deribit["root"].is_not_null()
        by_name = by_name.select(pl.coalesce(pl.col(name), of_deribit[name]).alias(name) for name in by_name.columns)
    own = osi.expiries(pl.col("expiry")) if by_name["expiry"].has_nulls() else pl.lit(None, pl.Date)
    by_name = by_name.rename(lambda name: f"{name}_of_name")
    frame = frame.hstack(by_name).with_columns(
        is_deribit=is_deribit,
        type=pl.coalesce("type_of_name", osi.types(pl.coalesce("type", "right"))),
        strike=pl.coalesce("strike_of_name", "strike"),
        expiry=pl.coalesce("expiry_of_name", own),
        ts_expiry=pl.col("ts_expiry").cast(INSTANT),
    )
    if frame["ts_expiry"].has_nulls():
        morning = pl.col("expiry").dt.combine(_SETTLES_AT, time_unit="ns").dt.replace_time_zone("UTC").cast(INSTANT)
        root = pl.coalesce("root_of_name", pl.lit(symbol))
        settles = pl.when("is_deribit").then(morning).otherwise(osi.new_york_settlements(pl.col("expiry"), root))
        frame = frame.with_columns(ts_expiry=pl.coalesce("ts_expiry", settles))
    if frame["contract"].has_nulls():
        name = osi.osi_names(pl.lit(symbol), pl.col("expiry"), pl.col("type"), pl.col("strike"))
        frame = frame.with_columns(contract=pl.coalesce("contract", name))
    return frame


def _parsed(
    frame: pl.DataFrame, head: Mapping[str, Any], symbol: str, origins: Origins, broken: list[pl.DataFrame]
) -> Parsed:
    has_own_price = frame["underlying_price"].is_not_null().any()
    takes_price = ~pl.col("is_underlying_price_told") if has_own_price else pl.lit(value=True)
    of_chain = pl.when(takes_price).then(pl.lit(head["underlying_price"], pl.Float64))
    standard = pl.when("is_deribit").then(_OF_DERIBIT).otherwise(_STANDARD)
    rows = _named(frame, head["venue"], symbol).with_columns(
        ts_event=instant_of(head["ts_event"]),
        ts_recv=instant_of(head["ts_recv"]),
        symbol=pl.lit(symbol),
        venue=pl.lit(head["venue"]),
        multiplier=pl.when("is_multiplier_told").then("multiplier").otherwise(standard),
        underlying_price=pl.coalesce("underlying_price", of_chain),
    )
    return parted(rows, origins, broken, {"contracts": str(rows.height + sum(part.height for part in broken))})


def _payload_origins(payloads: Sequence[tuple[str, bytes]], wanted: pl.Series) -> list[tuple[str, int, str]]:
    return [(payloads[number - 1][0], 1, payloads[number - 1][1].decode(errors="replace")) for number in wanted]
