"""The keys about many symbols, from the keys of each: portfolio, sectors, correlation. The sums are `cross_asset`'s."""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import polars as pl
import redis
import structlog

from quant_platform.calculators import cross_asset
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.statistics import PortfolioTotals
from quant_platform.live._aggregate_bars import Closes
from quant_platform.live._aggregate_correlation import DISCOVERED, Correlated, correlated
from quant_platform.live._aggregate_payloads import Payloads
from quant_platform.settings import Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.live_store import Batch

_LOG = structlog.get_logger()
_SUMMED = frozenset({"portfolio", "sectors"})
_CORRELATION = "correlation"
_SHOWN = 20
_FLOW_MIX = {
    "institutional": "institutional_notional_share",
    "retail": "retail_notional_share",
    "unclassified": "unclassified_notional_share",
}
_OF_SECTORS = {"institutional_net_notional", "institutional_net_count", "retail_net_notional", "retail_net_count"}
_VIX1D = redis_keys.VIX1D.name()

_TOTALS = [name for name in polars_schema(PortfolioTotals) if name not in {"sector", "ts_event", *_FLOW_MIX.values()}]


class _Index(msgspec.Struct):
    value: float | None


_index = msgspec.json.Decoder(_Index).decode


class Aggregator:
    """Writes the keys about all of some symbols.

    Attributes:
        errors: By what was due, how often it could not be computed. Its keys are left to expire.
        counts: From the start: `stale` payloads that were left out, and `malformed` ones, entries of lists and what
            was discovered among them. A malformed key is named in the log once, until it is right again.
    """

    def __init__(self, settings: Settings, symbols: Sequence[str]) -> None:
        self._symbols = list(symbols)
        self._params = settings.analytics.correlation
        self._ttl_s = settings.analytics.store_ttls.portfolio
        self._payloads = Payloads(settings, symbols)
        self._closes = Closes(settings, symbols)
        self._owed: set[str] = set()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="correlation")
        self._computing: Future[Correlated] | None = None
        self._sequences = Counter[str]()
        self._malformed = set[str]()
        self.errors = Counter[str]()
        self.counts = Counter[str]()

    def add(self, due: Collection[str], client: redis.Redis, batch: Batch, now_ns: int, market_ns: int) -> None:
        """Read what is needed in one round trip, and add to the batch what is due.

        Call it in every cycle: what was due stays so until Redis answers and holds a payload that can be summed, and
        all lists of bars have been read once, of which each call reads some. Correlations are computed beside the
        cycle, and added by the first call that finds them ready.

        Args:
            due: Of `portfolio`, `sectors` and `correlation`.
            client: Of Redis.
            batch: Of what will be written.
            now_ns: Our clock, UTC ns.
            market_ns: The latest market time, UTC ns.

        Raises:
            redis.RedisError: Redis was not reached, or did not answer.
        """
        self._add_correlated(batch, now_ns)
        self._owed = self._owed.union(due)
        is_correlated = _CORRELATION in self._owed and self._computing is None
        names = self._payloads.names if self._owed & _SUMMED else []
        ranges = self._closes.ranges(is_due=is_correlated and self._closes.is_loaded)
        pipe = client.pipeline(transaction=False)
        if names:
            pipe.mget([*names, _VIX1D])
        if is_correlated:
            pipe.get(DISCOVERED)
        for name, first, last in ranges:
            pipe.lrange(name, first, last)
        if not len(pipe):
            return
        answers = deque(pipe.execute(raise_on_error=False))
        if names:
            *raws, index = _value(answers.popleft(), [None] * (len(names) + 1))
            self._sum(raws, index, batch, now_ns, market_ns)
        discovered = _value(answers.popleft(), b"") if is_correlated else None
        if ranges:
            lists = [_value(answer, [b""]) for answer in answers]  # of another type: no bar
            self._note([name for name, _, _ in ranges], self._closes.take(lists))
        if is_correlated and (self._closes.is_loaded or discovered is not None):
            self._owed.remove(_CORRELATION)
            self._computing = self._pool.submit(
                correlated, discovered, self._symbols, self._closes.grid, self._params, market_ns
            )

    def _sum(
        self, raws: Sequence[bytes | None], index: bytes | None, batch: Batch, now_ns: int, market_ns: int
    ) -> None:
        """Add the totals that are owed, where there is anything to sum."""
        found = self._payloads.found(raws, now_ns, market_ns)
        self.counts["stale"] += found.stale
        self._note(self._payloads.names, found.malformed)
        if found.rows.is_empty():
            return
        owed, self._owed = self._owed & _SUMMED, self._owed - _SUMMED
        try:
            rows = cross_asset.portfolio(found.rows).with_columns(pl.col("ts_event").to_physical().fill_null(market_ns))
        except Exception as error:  # noqa: BLE001  # the sums' trouble is not the others'
            self._fail(owed, error)
            return
        whole, *sectors = rows.to_dicts()
        if "portfolio" in owed:
            by_sector = {row["sector"]: _totals(row) for row in sectors}
            fields = _totals(whole, without=_OF_SECTORS) | {"vix1d": self._level(index), "by_sector": by_sector}
            self._set(batch, redis_keys.PORTFOLIO.name(), now_ns, whole["ts_event"], msgspec.json.encode(fields))
        for row in sectors if "sectors" in owed else []:
            fields = {"sector": row["sector"]} | _totals(row)
            name = redis_keys.SECTOR.name(sector=row["sector"])
            self._set(batch, name, now_ns, row["ts_event"], msgspec.json.encode(fields))

    def _level(self, index: bytes | None) -> float | None:
        """Return what the key of the volatility index says."""
        malformed = []
        level = None
        try:
            level = _index(index).value if index else None
        except (ValueError, RecursionError):
            malformed = [_VIX1D]
        self._note([_VIX1D], malformed)
        return level

    def _add_correlated(self, batch: Batch, now_ns: int) -> None:
        """Add the correlations that have been computed since they were due."""
        if self._computing is None or not self._computing.done():
            return
        ready, self._computing = self._computing, None
        try:
            found = ready.result()
        except Exception as error:  # noqa: BLE001  # the correlations' trouble is not the others'
            self._fail([_CORRELATION], error)
            return
        self._note([DISCOVERED], [DISCOVERED] if found.refusal else [], found.refusal)
        if found.fields:
            self._set(batch, redis_keys.CORRELATION.name(), now_ns, found.ts, found.fields)

    def _set(self, batch: Batch, name: str, now_ns: int, ts: int, fields: bytes) -> None:
        self._sequences[name] += 1
        written = {"ts_written": now_ns, "ts": ts, "seq": self._sequences[name], "symbol": redis_keys.ALL_SYMBOLS}
        batch.set(name, msgspec.json.encode(written)[:-1] + b"," + fields[1:], self._ttl_s)

    def _fail(self, names: Iterable[str], error: Exception) -> None:
        self.errors.update(names)
        _LOG.error("a calculator failed", family=sorted(names), error=repr(error))

    def _note(self, read: Iterable[str], malformed: Sequence[str], reason: str = "") -> None:
        """Count what is malformed of the keys that were read, and name those in the log that were right before."""
        self.counts["malformed"] += len(malformed)
        if new := sorted(set(malformed) - self._malformed):
            _LOG.warning("malformed payloads left out", keys=new[:_SHOWN], count=len(new), reason=reason)
        self._malformed = self._malformed.difference(read).union(malformed)


def _value(answer: Any, default: Any) -> Any:
    """Return what Redis answered, and the default where a key holds another type of value.

    Raises:
        redis.RedisError: It answered with another error.
    """
    if isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE"):
        return default
    if isinstance(answer, Exception):
        raise answer
    return answer


def _totals(row: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    totals = {name: row[name] for name in _TOTALS if name not in without}
    return totals | {"flow_mix": {side: row[share] for side, share in _FLOW_MIX.items()}}
