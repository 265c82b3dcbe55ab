"""What each symbol's keys say to the portfolio, as one frame. A key that is to be summed is a line in `_FAMILIES`."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import polars as pl
from msgspec import Meta

from quant_platform.calculators.cross_asset import PAYLOADS
from quant_platform.settings import METRIC_INTERVALS, POLLED_FEEDS, ListedOptions, Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import Key

_SECOND_NS = 1_000_000_000
_FRESH_INTERVALS = 2
_TYPES = {pl.String(): str, pl.Float64(): float}
_SCHEMA = {name: pl.Int64() if name == "ts_event" else dtype for name, dtype in PAYLOADS.items()}

_Instant = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Family:
    """Keys of one kind, one a symbol, and which of `PAYLOADS` their payloads hold, some by another name."""

    def __init__(self, key: Key, *fields: str, **renamed: str) -> None:
        self.key = key
        self.fields = {name: name for name in fields} | renamed
        times: list[Any] = [(name, _Instant) for name in ("ts", "ts_written")]
        if not key.metric:  # who writes a market of his own may leave them out
            times = [(name, kind | None, None) for name, kind in times]
        values: list[Any] = [(told, _TYPES[PAYLOADS[name]] | None) for name, told in self.fields.items()]
        self.decode = msgspec.json.Decoder(msgspec.defstruct("Payload", [*times, *values], kw_only=True)).decode


_FAMILIES = (
    _Family(redis_keys.VPIN, "vpin"),
    _Family(redis_keys.TOXICITY, "toxicity_adjusted", "toxicity_adjusted_level"),
    _Family(redis_keys.INSTITUTIONAL_FLOW, "institutional_notional_share", "institutional_net_notional"),
    _Family(redis_keys.RETAIL_FLOW, "retail_notional_share", "unclassified_notional_share", "retail_net_notional"),
    _Family(redis_keys.GEX, "gex_gross", "gex_net"),
    _Family(redis_keys.DEX, "dex_gross", "dex_net"),
    _Family(redis_keys.VANNA, vanna_notional="vanna_notional_per_vol_pt"),
    _Family(redis_keys.CHARM, charm_notional="charm_notional_per_day"),
    _Family(redis_keys.HEDGING_IMPACT, hedging_notional="notional_per_pct_move"),
    _Family(redis_keys.TICKER, "volume"),
)
_OF_CHAINS = frozenset(redis_keys.OPTION_METRICS)
_DELAY_S = {"cboe": 900.0}
_RECORDED_EVERY_S = 60.0


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
        self._symbols = list(symbols)
        instruments = [settings.instrument(symbol) for symbol in symbols]
        self._sectors = [instrument.sector for instrument in instruments]
        self._settings = settings.analytics
        chains = {place: _chain_age_s(settings, one.chain) for place, one in enumerate(instruments) if one.chain}
        trades = dict.fromkeys(range(len(symbols)), settings.analytics.max_age_s.trades)
        self._asked = [
            (family, place, int(age_s * _SECOND_NS))
            for family in _FAMILIES
            for place, age_s in (chains if family.key in _OF_CHAINS else trades).items()
        ]
        self.names = [family.key.name(symbols[place]) for family, place, _ in self._asked]

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
        written_from = {family: self._written_from(family.key, now_ns) for family in _FAMILIES}
        for name, raw, (family, place, age_ns) in zip(self.names, raws, self._asked, strict=True):
            if raw is None:
                continue
            try:
                payload: Any = family.decode(raw)
            except (ValueError, RecursionError):
                malformed.append(name)
                continue
            if _is_before(payload.ts, market_ns - age_ns) or _is_before(payload.ts_written, written_from[family]):
                stale += 1
                continue
            is_known[place] = True
            for column, field in family.fields.items():
                columns[column][place] = getattr(payload, field)
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


def _chain_age_s(settings: Settings, chain: ListedOptions) -> float:
    own = settings.analytics.max_age_s.chain
    is_polled = chain.feed in POLLED_FEEDS
    poll_s: float = getattr(settings.feeds, chain.feed).poll_s if is_polled else _RECORDED_EVERY_S
    return own or 2 * poll_s + _DELAY_S.get(chain.feed, 0.0)
