"""What each symbol's keys say to the portfolio, as one frame. A key that is to be summed is a line in `_FAMILIES`."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import polars as pl
from msgspec import Meta

from quant_platform.calculators.cross_asset import PAYLOADS
from quant_platform.settings import METRIC_INTERVALS, Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import Key

_SECOND_NS = 1_000_000_000
_FRESH_INTERVALS = 2
_TYPES = {pl.String(): str, pl.Float64(): float}
_SCHEMA = {name: pl.Int64() if name == "ts_event" else dtype for name, dtype in PAYLOADS.items()}

_Instant = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Family:
    """Keys of one kind, one a symbol, and which of `PAYLOADS` their payloads hold."""

    def __init__(self, key: Key, *fields: str) -> None:
        self.key = key
        self.fields = fields
        times: list[Any] = [(name, _Instant) for name in ("ts", "ts_written")]
        if not key.metric:  # who writes a market of his own may leave them out
            times = [(name, kind | None, None) for name, kind in times]
        values: list[Any] = [(name, _TYPES[PAYLOADS[name]] | None) for name in fields]
        self.decode = msgspec.json.Decoder(msgspec.defstruct("Payload", [*times, *values], kw_only=True)).decode


_FAMILIES = (
    _Family(redis_keys.VPIN, "vpin"),
    _Family(redis_keys.TOXICITY, "toxicity_adjusted", "toxicity_adjusted_level"),
    _Family(redis_keys.INSTITUTIONAL_FLOW, "institutional_notional_share", "institutional_net_notional"),
    _Family(redis_keys.RETAIL_FLOW, "retail_notional_share", "unclassified_notional_share", "retail_net_notional"),
    _Family(redis_keys.TICKER, "volume"),
)


class Found(NamedTuple):
    """What the keys said.

    Attributes:
        rows: `PAYLOADS`, a row for each symbol of which any payload could be used.
        malformed: The keys whose payload is none.
        stale: How many payloads were too old.
    """

    rows: pl.DataFrame
    malformed: list[str]
    stale: int


class Payloads:
    """The payloads of some symbols; `names` are their keys, in the order in which `found` wants what they hold."""

    def __init__(self, settings: Settings, symbols: Sequence[str]) -> None:
        self.names = [family.key.name(symbol) for family in _FAMILIES for symbol in symbols]
        self._symbols = list(symbols)
        self._sectors = [settings.instrument(symbol).sector for symbol in symbols]
        self._settings = settings.analytics

    def found(self, raws: Sequence[bytes | None], now_ns: int, market_ns: int) -> Found:
        """Return what is neither malformed nor too old.

        Too old is what was written more than two intervals of its calculator ago, or says less than that of a market
        that is `max_age_s` ahead of it. A payload without these times is left to its time to live.

        Args:
            raws: What each of `names` holds; None where there is no such key.
            now_ns: Our clock, UTC ns.
            market_ns: The latest market time, UTC ns.
        """
        count = len(self._symbols)
        malformed: list[str] = []
        stale = 0
        is_known = [False] * count
        columns: dict[str, list[Any]] = {name: [None] * count for name in _SCHEMA}
        columns |= {"symbol": self._symbols, "sector": self._sectors}
        ts_from = market_ns - int(self._settings.max_age_s.trades * _SECOND_NS)
        for number, family in enumerate(_FAMILIES):
            written_from = self._written_from(family.key, now_ns)
            for place, raw in enumerate(raws[number * count : (number + 1) * count]):
                if raw is None:
                    continue
                try:
                    payload: Any = family.decode(raw)
                except (ValueError, RecursionError):
                    malformed.append(self.names[number * count + place])
                    continue
                if _is_before(payload.ts, ts_from) or _is_before(payload.ts_written, written_from):
                    stale += 1
                    continue
                is_known[place] = True
                for name in family.fields:
                    columns[name][place] = getattr(payload, name)
                columns["ts_event"][place] = max(payload.ts or 0, columns["ts_event"][place] or 0) or None
        rows = pl.DataFrame(columns, schema=_SCHEMA).filter(pl.Series(is_known, dtype=pl.Boolean)).cast(PAYLOADS)
        return Found(rows, malformed, stale)

    def _written_from(self, key: Key, now_ns: int) -> int:
        if not key.metric:
            return 0
        interval_s: float = getattr(self._settings.update_intervals, METRIC_INTERVALS[key.metric])
        return now_ns - int(_FRESH_INTERVALS * interval_s * _SECOND_NS)


def _is_before(ns: int | None, limit: int) -> bool:
    return ns is not None and ns < limit
