"""Entries of the `market:*` keys to rows of the contracts, all symbols at once. Which keys: `_window_keys`."""

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
import structlog

from quant_platform.contracts._schema import INSTANT, Contract, polars_schema, split
from quant_platform.contracts.market import Book, Quote, Trade

TABLES: tuple[type[Contract], ...] = (Trade, Quote, Book)
CODE = "symbol_code"
TIMES = ("ts_event", "ts_recv")
_PLACE = "place"
_MOST = 2**62  # so that no sum of an id or a time overflows
_FARTHEST_AHEAD_NS = 3_600_000_000_000
_SAID_AGAIN_S = 600.0
_SHOWN_BYTES = 200
_BESIDE = {"ts_written": pl.Int64(), "seq": pl.Int64()}
_OPTIONAL = {"symbol", "venue", "ts_recv", "first_trade_id", "last_trade_id", *_BESIDE}
_LOG = structlog.get_logger()


class Entries(NamedTuple):
    """Payloads in the order in which they stand under each key, and the code of each one's symbol."""

    payloads: list[bytes]
    codes: list[int]

    def add(self, code: int, payloads: Sequence[bytes]) -> None:
        """Take in some of one symbol."""
        self.payloads.extend(payloads)
        self.codes.extend([code] * len(payloads))


class Notices:
    """What went wrong, counted, and logged once for each event and symbol in ten minutes.

    Attributes:
        counts: Since the start, by what it was.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._said: dict[tuple[str, str], float] = {}
        self._since: Counter[tuple[str, str]] = Counter()

    def say(self, event: str, symbol: str, now_s: float, **facts: Any) -> None:
        """Log it, with how often it happened since it was logged last; `now_s` is the monotonic clock."""
        key = event, symbol
        self._since[key] += 1
        if now_s - self._said.get(key, -_SAID_AGAIN_S) >= _SAID_AGAIN_S:
            self._said[key] = now_s
            _LOG.warning(event, symbol=symbol, times=self._since.pop(key), **facts)

    def malformed(self, symbol: str, now_s: float, reason: str, payload: bytes) -> None:
        """Count an entry that is skipped."""
        self.counts["malformed"] += 1
        self.say(
            "market entry skipped",
            symbol,
            now_s,
            reason=reason,
            payload=payload[:_SHOWN_BYTES].decode(errors="replace"),
        )


class Rows:
    """The door of one table.

    What an entry may leave out: `symbol`, `venue` (the feed is meant), `ts_recv` and `ts_written` (now), `seq`,
    `first_trade_id` and `last_trade_id` (`trade_id`), and columns that may be null.

    Args:
        contract: Of the table.
        names: By code, the symbols; they rise.
        venues: By code, the feed of each.
        notices: Told of what is skipped.
    """

    def __init__(self, contract: type[Contract], names: Sequence[str], venues: Sequence[str], notices: Notices) -> None:
        self.contract = contract
        self._schema = polars_schema(contract)
        self._names, self._venues = list(names), list(venues)
        self._notices = notices
        self._decode = msgspec.json.Decoder(_entry_type(contract)).decode
        self._beside = "ts_written" if contract is Trade else "seq"

    def decoded(self, entries: Entries, now_ns: int, now_s: float) -> pl.DataFrame:
        """Return the rows that keep the contract, with `symbol_code`, and `ts_written` of trades, `seq` of others.

        Args:
            entries: Any number.
            now_ns: Our clock, the time of reading, UTC ns.
            now_s: The monotonic clock.
        """
        payloads, codes = entries
        try:
            objects = list(map(self._decode, payloads))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            objects, payloads, codes = self._one_by_one(entries, now_s)
        own, told = list(map(self._names.__getitem__, codes)), list(map(attrgetter("symbol"), objects))
        frame = self._framed(objects, codes, now_ns)
        ts, ts_recv = (frame[name].to_physical().to_numpy() for name in TIMES)
        is_ours = np.subtract(ts, np.maximum(ts_recv, now_ns)) < _FARTHEST_AHEAD_NS
        if told != own:
            is_ours &= [symbol in (None, name) for symbol, name in zip(told, own, strict=True)]
        if is_ours.all() and self.contract.is_valid(frame.select(self._schema.names()), engine="in-memory"):
            return frame
        return self._kept(frame, pl.Series(is_ours, dtype=pl.Boolean), payloads, now_s)

    def _one_by_one(self, entries: Entries, now_s: float) -> tuple[list[Any], list[bytes], list[int]]:
        objects, kept = [], Entries([], [])
        for payload, code in zip(*entries, strict=True):
            try:
                objects.append(self._decode(payload))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                self._notices.malformed(self._names[code], now_s, f"{self.contract.table}: {error}", payload)
            else:
                kept.add(code, [payload])
        return objects, *kept

    def _framed(self, objects: list[Any], codes: list[int], now_ns: int) -> pl.DataFrame:
        code = pl.Series(CODE, codes, pl.Int64())
        venues = list(map(attrgetter("venue"), objects))
        columns = {
            "symbol": pl.Series("symbol", self._names, pl.String()).gather(code),
            "venue": pl.Series("venue", self._venues, pl.String()).gather(code),
        }
        if venues.count(None) < len(venues):
            columns["venue"] = pl.Series("venue", venues, pl.String()).fill_null(columns["venue"])
        wanted = {
            name: dtype for name, dtype in {**self._schema, self._beside: pl.Int64()}.items() if name not in columns
        }
        values = zip(*map(attrgetter(*wanted), objects), strict=True) if objects else ((),) * len(wanted)
        for (name, dtype), column in zip(wanted.items(), values, strict=True):
            columns[name] = pl.Series(name, column, pl.Int64() if dtype.is_temporal() else dtype)
        frame = pl.DataFrame([*(columns[name] for name in (*self._schema, self._beside)), code])
        given = dict.fromkeys(("ts_recv", "ts_written"), pl.lit(now_ns))
        given |= dict.fromkeys(("first_trade_id", "last_trade_id"), pl.col("trade_id"))
        lacking = [
            pl.col(name).fill_null(value)
            for name, value in given.items()
            if name in columns and columns[name].null_count()
        ]
        return frame.with_columns(lacking).with_columns(pl.col(*TIMES).cast(INSTANT))

    def _kept(self, frame: pl.DataFrame, is_ours: pl.Series, payloads: list[bytes], now_s: float) -> pl.DataFrame:
        numbered = frame.with_row_index(_PLACE)
        beside = (_PLACE, CODE, self._beside)
        strangers = numbered.filter(~is_ours).select(_PLACE, CODE, rule=pl.lit("symbol|another,ts_event|future"))
        parted = split(self.contract, numbered.filter(is_ours), keep=beside)
        bad = pl.concat([strangers, parted.bad.select(_PLACE, CODE, "rule")])
        for place, code, rule in bad.iter_rows():
            self._notices.malformed(self._names[code], now_s, f"{self.contract.table}: {rule}", payloads[place])
        return numbered.join(bad, on=_PLACE, how="anti", maintain_order="left").drop(_PLACE)


def _entry_type(contract: type[Contract]) -> type[msgspec.Struct]:
    """Return what an entry must look like: types, and what must be there. Bounds are the contract's to check."""
    columns = contract.columns()
    fields: list[Any] = []
    for name, dtype in {**polars_schema(contract), **_BESIDE}.items():
        is_optional = name in _OPTIONAL or columns[name].nullable
        kind = _kind(dtype)
        if is_optional:
            fields.append((name, kind | None, None))
        elif dtype == pl.Boolean:
            fields.append((name, kind, False))
        else:
            fields.append((name, kind))
    return msgspec.defstruct(f"{contract.__name__}Entry", fields, kw_only=True, gc=False)


def _kind(dtype: pl.DataType) -> Any:
    if dtype == pl.Int8:
        return Annotated[int, msgspec.Meta(ge=-128, le=127)]
    if dtype.is_integer() or dtype.is_temporal():
        return Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)]
    return {pl.Float64(): float, pl.Boolean(): bool, pl.String(): str}[dtype]
