"""What Redis says of one symbol now, key by key, for people: how old, for how long yet, and what it says most.

A key that is not there is shown too, with the reason where it can be told.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

import redis

from quant_platform.contracts._schema import Contract, column_docs
from quant_platform.contracts.enums import Status
from quant_platform.settings import METRIC_INTERVALS, Instrument
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import Key, KeyType

NONE = "–"
_KEYS = (*redis_keys.MARKET_KEYS, *redis_keys.METRICS)
_OF_OPTIONS = (redis_keys.OPTION_CHAIN, *redis_keys.OPTION_METRICS)
_ALWAYS_OPEN = "24/7"
_SIDES = {1: "buy", -1: "sell", 0: "none"}
_WHOLE_FROM = 1_000


class Row(NamedTuple):
    """One key.

    Attributes:
        key: Its name.
        is_there: Whether it holds a payload that can be read.
        says: The payload's headlines and what is wrong with them; else why there is none.
        age_s: Since `ts`, the market's time; null where it has none.
        written_age_s: Since `ts_written`.
        ttl_s: Until it ends; null where it has no end.
    """

    key: str
    is_there: bool
    says: str
    age_s: float | None = None
    written_age_s: float | None = None
    ttl_s: float | None = None


class Snapshot(NamedTuple):
    """The rows of a symbol, and in one line how their writer fares."""

    rows: list[Row]
    writer: str


class Heartbeat(NamedTuple):
    """Whether the writer lives, and in one line how it fares."""

    is_alive: bool
    says: str


def heartbeat(client: redis.Redis, now_ns: int) -> Heartbeat:
    """Return how the writer fares; it lives while its heartbeat has not expired, and says that it runs.

    Raises:
        redis.RedisError: Redis was not reached.
    """
    found = _payload(client.get(redis_keys.HEARTBEAT.name()))
    return Heartbeat(bool(found and found.get("running")), _writer(found, now_ns))


def snapshot(client: redis.Redis, instrument: Instrument, now_ns: int) -> Snapshot:
    """Return the market and analytics keys of a symbol, and those of its options if it has any, in one round trip.

    Args:
        client: Of the Redis that holds them.
        instrument: Whose keys.
        now_ns: Our clock, UTC ns.

    Raises:
        redis.RedisError: Redis was not reached.
    """
    pipe = client.pipeline(transaction=False)
    keys = (*_KEYS, *_OF_OPTIONS) if instrument.chain else _KEYS
    names = [key.name(instrument.symbol) for key in keys]
    for key, name in zip(keys, names, strict=True):
        match key.type:
            case KeyType.STREAM:
                pipe.xrevrange(name, count=1)
            case KeyType.LIST:
                pipe.lindex(name, 0)
            case KeyType.STRING:
                pipe.get(name)
        pipe.pttl(name)
    pipe.get(redis_keys.HEARTBEAT.name())
    *answers, beat = pipe.execute(raise_on_error=False)
    heartbeat = _payload(beat)
    found = dict(zip(names, zip(answers[::2], answers[1::2], strict=True), strict=True))
    heard = {key: bool(answer) for key, (answer, _) in zip(keys, found.values(), strict=True)}
    is_heard = any(heard[key] for key in redis_keys.MARKET_KEYS)
    has_chain = heard.get(redis_keys.OPTION_CHAIN, False)
    rows = [
        _row(key, name, *found[name], now_ns)
        if found[name][0]
        else Row(
            name,
            is_there=False,
            says=_why_missing(key, instrument, heartbeat, is_heard=has_chain if key in _OF_OPTIONS else is_heard),
        )
        for key, name in zip(keys, names, strict=True)
    ]
    return Snapshot(rows, _writer(heartbeat, now_ns))


def _row(key: Key, name: str, answer: Any, ttl_ms: Any, now_ns: int) -> Row:
    ttl_s = ttl_ms / 1e3 if isinstance(ttl_ms, int) and ttl_ms >= 0 else None
    if isinstance(answer, redis.ResponseError):
        return Row(name, is_there=False, says=f"cannot be read: {answer}", ttl_s=ttl_s)
    payload = _payload(answer[0][1].get(redis_keys.STREAM_FIELD.encode()) if key.type is KeyType.STREAM else answer)
    if payload is None:
        return Row(name, is_there=False, says="holds no JSON object", ttl_s=ttl_s)
    return Row(
        name,
        is_there=True,
        says=_says(key, payload),
        age_s=_age_s(payload.get("ts"), now_ns),
        written_age_s=_age_s(payload.get("ts_written"), now_ns),
        ttl_s=ttl_s,
    )


def _payload(answer: Any) -> dict[str, Any] | None:
    """Return the JSON object, or None where it is none: others write keys too."""
    try:
        found = json.loads(answer)
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _says(key: Key, payload: Mapping[str, Any]) -> str:
    units = _units(key.contract) if key.contract else {}
    parts = [f"{name.replace('_', ' ')} {_value(payload.get(name), units.get(name, ''))}" for name in key.headlines]
    # What is null says why: once for each status that a payload has.
    parts += [payload[name] for name in ("status", "depth_status") if payload.get(name, Status.OK) != Status.OK]
    parts += ["not warm"] if payload.get("is_warm") is False else []
    parts += [f"{'contracts' if key in _OF_OPTIONS else 'trades'} are missing"] if payload.get("has_gap") else []
    return " · ".join(map(str, parts))


def _units(contract: type[Contract]) -> dict[str, str]:
    return {column.name: column.unit for column in column_docs(contract)}


def _value(value: Any, unit: str) -> str:
    match value:
        case None | []:
            text = NONE
        case [[price, size], *_]:
            text = f"{_number(price)} × {_number(size)}"
        case bool():
            text = "yes" if value else "no"
        case int() if unit == "sign":
            text = _SIDES.get(value, str(value))
        case int() | float() if unit == "1":
            text = f"{value:.1%}"
        case int() | float() if unit.startswith("per "):
            text = f"{value:+.3g} {unit}"
        case _:
            text = _number(value)
    return text


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.2f}" if abs(value) >= _WHOLE_FROM else f"{value:.6g}"


def _age_s(at_ns: Any, now_ns: int) -> float | None:
    return (now_ns - at_ns) / 1e9 if isinstance(at_ns, int) else None


def _why_missing(key: Key, instrument: Instrument, heartbeat: Mapping[str, Any] | None, *, is_heard: bool) -> str:
    if key is redis_keys.MOC and instrument.calendar == _ALWAYS_OPEN:
        return "none for a 24/7 symbol"
    if not key.metric:
        return _why_silent(key, is_heard=is_heard)
    if not _is_running(heartbeat):
        return "the writer is not running"
    if errors := _of(heartbeat, "error_counts").get(METRIC_INTERVALS[key.metric]):
        return f"its calculator has failed {errors} times"
    if not is_heard:
        return "there is no chain" if key in _OF_OPTIONS else "its market is not heard"
    return "not computed yet, symbols are being opened" if heartbeat.get("opening_symbols") else "not computed yet"


def _why_silent(key: Key, *, is_heard: bool) -> str:
    if key is redis_keys.OPTION_CHAIN:
        return "no chain has come: its feed is not polled, or does not answer"
    return "nothing has come yet" if is_heard else "the collector is not running, or does not capture this symbol"


def _writer(heartbeat: Mapping[str, Any] | None, now_ns: int) -> str:
    if not _is_running(heartbeat):
        return "The writer is not running: there is no heartbeat." if heartbeat is None else "The writer has stopped."
    said = {name: _value(heartbeat.get(name), "") for name in ("state", "cadence_hz", "cycle_ms", "overruns")}
    if heartbeat.get("running") is False:
        return "The writer has ended."
    age_s = _age_s(heartbeat.get("ts_written"), now_ns)
    failed = [f"{name} {count}" for name, count in _of(heartbeat, "error_counts").items() if count]
    return (
        f"Writer {said['state']} at {said['cadence_hz']} Hz, cycle {said['cycle_ms']} ms, {said['overruns']} overruns, "
        f"heartbeat {NONE if age_s is None else f'{age_s:.1f}'} s old, errors: {', '.join(failed) or 'none'}"
    )


def _is_running(heartbeat: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Return whether the writer lives: its last heartbeat says that it ends."""
    return heartbeat is not None and heartbeat.get("running") is not False


def _of(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = payload.get(name)
    return found if isinstance(found, Mapping) else {}
