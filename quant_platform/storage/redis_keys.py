"""Every key in Redis: its name, type, time to live and the fields of its payload. No other file spells a key.

A payload is one JSON object. `ts` is the market's time of what it says, integer UTC ns, by which readers judge its age;
`ts_written` our wall clock at writing, ns; `seq` counts the payloads of one key from the writer's start, and begins at
1 again where the symbol starts anew; where trades feed it, `last_trade_id` is the greatest trade id it includes. Other
fields are columns of the named contract, times as integer UTC ns. In a Stream the object stands under the field `data`;
after an error of the connection an entry may come twice, with the same `seq`.

A metric's payload also says `has_gap`: trades, or contracts, are missing from what it was computed of. The times to
live of metrics are settings (`store_ttls`); the ones here are their defaults.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import polars as pl
from polars import selectors

from quant_platform.contracts._schema import Contract, polars_schema
from quant_platform.contracts.dealer import DealerFlow, GammaExposure, Skew
from quant_platform.contracts.market import Bar1m, Book, Quote, Trade
from quant_platform.contracts.microstructure import (
    ClosingImbalance,
    FlowClusters,
    HiddenOrder,
    OrderBookImbalance,
    ParticipantFlow,
    Sweep,
    Toxicity,
    UnusualActivity,
    Vpin,
)
from quant_platform.contracts.volatility import VolIndexRegime

STREAM_FIELD = "data"
STREAM_LENGTH = 10_000
MARKET_TTL_S = 60
OF_SNAPSHOT = ("ts_event", "ts_recv", "venue")
"""The columns of `options/chain` that a chain's payload says once for all its contracts, beside the symbol."""
ALL_SYMBOLS = "all"
"""The `symbol` of a payload about many symbols, as in the lake's file names."""
_ANALYTICS_TTL_S = 60
_HISTORY_TTL_S = 7 * 86_400
_HISTORY_LENGTH = 5_000
_HEARTBEAT_TTL_S = 10
_VIX1D_TTL_S = 4 * 86_400
_CHAIN_TTL_S = 180
_SYMBOL = "symbol"
_WRITTEN = ("ts_written", "ts", "seq", _SYMBOL)
_GAP = "has_gap"
_LAST_TRADE = "last_trade_id"

_ContractClass = type[Contract]  # in Key, `type` is a field


class KeyType(StrEnum):
    """What Redis holds under a key, as its TYPE command answers."""

    STREAM = "stream"
    STRING = "string"
    LIST = "list"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One family of keys.

    Attributes:
        pattern: The name, with `{symbol}` in the symbol's place; some have `{metric}` or `{sector}`.
        type: What Redis holds under it.
        fields: Of the payload, or of each entry, in their order; empty where others write it.
        ttl_s: Default time to live after the last write; None where others write it.
        max_entries: Of a Stream (trimmed about there) or a list (exactly), the newest ones stay.
        metric: Of an analytics key, the name by which settings know it.
        contract: Whose columns the payload holds.
        ts_column: The contract's column that is `ts`.
        headlines: The fields that say most; a metric's history keeps these beside `ts`.
    """

    pattern: str
    type: KeyType
    fields: tuple[str, ...]
    ttl_s: int | None = MARKET_TTL_S
    max_entries: int | None = None
    metric: str = ""
    contract: _ContractClass | None = None
    ts_column: str = "ts_event"
    headlines: tuple[str, ...] = ()

    def name(self, symbol: str = "", **parts: str) -> str:
        """Return the key of one symbol; `metric` or `sector` is named where the pattern has it.

        Raises:
            KeyError: The pattern has a part that is not named.
        """
        return self.pattern.format(symbol=symbol, **parts)


def encoded(
    key: Key, rows: pl.DataFrame, *, ts_written: int, seq: int | Mapping[str, int], has_gap: Collection[str]
) -> dict[str, bytes]:
    """Return each symbol's payload of a metric: JSON with exactly the key's fields in their order.

    Args:
        key: Of a metric.
        rows: The key's contract, one row a symbol; more columns do no harm. Where the contract has no `last_trade_id`,
            it may stand beside it; else it is the `trade_id`, else null. What is not finite becomes null.
        ts_written: Our wall clock, UTC ns.
        seq: Of all payloads, or by symbol.
        has_gap: The symbols of whose trades some are missing.

    Raises:
        polars.exceptions.ColumnNotFoundError: A column of the contract is missing.
        KeyError: `seq` lacks a symbol.
    """
    symbols = rows[_SYMBOL].to_list()
    numbers = seq if isinstance(seq, int) else pl.Series([seq[symbol] for symbol in symbols], dtype=pl.Int64)
    columns = set(rows.columns)
    if _LAST_TRADE in key.fields and _LAST_TRADE not in columns:
        rows = rows.with_columns((pl.col("trade_id") if "trade_id" in columns else pl.lit(None)).alias(_LAST_TRADE))
    lines = rows.with_columns(
        ts_written=pl.lit(ts_written, pl.Int64),
        ts=pl.col(key.ts_column),
        seq=pl.lit(numbers, pl.Int64) if isinstance(numbers, int) else numbers,
        has_gap=pl.Series([symbol in has_gap for symbol in symbols], dtype=pl.Boolean),
    ).select(key.fields)
    return dict(zip(symbols, json_lines(lines), strict=True))


def history_entries(key: Key, rows: pl.DataFrame) -> dict[str, list[bytes]]:
    """Return each symbol's history entries of a metric, `ts` and the key's `headlines`, in the order of the rows.

    Args:
        key: Of a metric.
        rows: The key's contract; any number of rows a symbol, in the order of time.
    """
    lines = json_lines(rows.select(pl.col(key.ts_column).alias("ts"), *key.headlines))
    found: dict[str, list[bytes]] = {}
    for symbol, line in zip(rows[_SYMBOL].to_list(), lines, strict=True):
        found.setdefault(symbol, []).append(line)
    return found


def json_lines(rows: pl.DataFrame) -> list[bytes]:
    """Return each row as one JSON object, times as integer UTC ns, dates as ISO 8601."""
    return rows.with_columns(selectors.datetime().to_physical()).write_ndjson().encode().splitlines()


def contract_of_greeks(name: str, symbol: str) -> str:
    """Return the contract that a key of `OPTION_GREEKS` names."""
    before, _, after = OPTION_GREEKS.name(symbol).partition("*")
    return name.removeprefix(before).removesuffix(after)


def _rows(name: str, contract: type[Contract], headlines: str) -> Key:
    return Key(
        pattern=f"market:{{symbol}}:{name}",
        type=KeyType.STREAM,
        fields=_columns(contract),
        max_entries=STREAM_LENGTH,
        contract=contract,
        headlines=tuple(headlines.split()),
    )


def _columns(contract: type[Contract], *more: str) -> tuple[str, ...]:
    return (*_WRITTEN, *more, *(name for name in polars_schema(contract) if name not in {_SYMBOL, *more}))


def _metric(
    metric: str,
    contract: type[Contract],
    headlines: str,
    *,
    name: str = "",
    marks: tuple[str, ...] = (_GAP, _LAST_TRADE),
    without: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
    ts_column: str = "ts_event",
) -> Key:
    columns = tuple(field for field in _columns(contract, *marks) if not (without and field.startswith(without)))
    return Key(
        pattern=f"analytics:{{symbol}}:{name or metric}",
        type=KeyType.STRING,
        fields=(*columns, *also),
        ttl_s=_ANALYTICS_TTL_S,
        metric=metric,
        contract=contract,
        ts_column=ts_column,
        headlines=tuple(headlines.split()),
    )


def _summary(pattern: str, *fields: str) -> Key:
    return Key(pattern=pattern, type=KeyType.STRING, fields=(*_WRITTEN, *fields), ttl_s=_ANALYTICS_TTL_S)


TRADES = _rows("trades", Trade, "price size aggressor")
QUOTES = _rows("quotes", Quote, "bid_price bid_size ask_price ask_size")
DEPTH = _rows("depth", Book, "bid_price_1 bid_size_1 ask_price_1 ask_size_1")
TICKER = Key(
    pattern="market:{symbol}:ticker",
    type=KeyType.STRING,
    fields=(*_WRITTEN, _LAST_TRADE, "last", "bid", "ask", "volume", "volume_since"),
    headlines=("last", "bid", "ask", "volume"),
)
"""`volume` in base units of the trades of the newest UTC date, from venue time `volume_since` (ns) on: midnight, or the
first trade where the writer began within the date. What is not known yet is null."""
BOOK = Key(
    pattern="market:{symbol}:book",
    type=KeyType.STRING,
    fields=(*_WRITTEN, "bids", "asks", "sequence"),
    headlines=("bids", "asks"),
)
"""Up to five `[price, size]` a side, best first; none at all where the sequence broke, until the next snapshot."""
BARS_1MIN = Key(
    pattern="market:{symbol}:bars:1min",
    type=KeyType.LIST,
    fields=_columns(Bar1m, _LAST_TRADE),
    max_entries=390,
    contract=Bar1m,
    headlines=("open", "high", "low", "close", "volume"),
)
"""Closed bars of which the whole tape was seen, newest first; `ts` is the bar's end. Late trades revise a bar."""

OPTION_CHAIN = Key(
    pattern="options:{symbol}:chain",
    type=KeyType.STRING,
    fields=(*_WRITTEN, *OF_SNAPSHOT, "underlying_price", "contracts"),
    ttl_s=_CHAIN_TTL_S,
    headlines=("venue", "underlying_price"),
)
"""The newest snapshot of a chain; `ts` is its `ts_event`. `contracts` are the other columns of `options/chain`, a
contract each, dates as ISO 8601; `underlying_price` is that of the settlement that comes next. Others may write it too:
`feeds.chain_payload` tells what is read."""
OPTION_GREEKS = Key(pattern="options:{symbol}:*:greeks", type=KeyType.STRING, fields=(), ttl_s=None)
"""Written by others, a contract each: a pattern of SCAN, read where a symbol has no chain."""

VPIN = _metric("vpin", Vpin, "vpin cdf level")
TOXICITY = _metric("toxicity", Toxicity, "toxicity_adjusted toxicity_adjusted_level confidence")
INSTITUTIONAL_FLOW = _metric(
    "institutional_flow",
    ParticipantFlow,
    "institutional_score institutional_notional_share institutional_net_notional",
    without=("retail_", "unclassified_"),
)
RETAIL_FLOW = _metric(
    "retail_flow",
    ParticipantFlow,
    "retail_notional_share retail_net_notional",
    without=("institutional_", "notional_hits", "dark_venue_hits", "time_cluster_hits", "passive_hits"),
)
"""With what is neither institutional nor retail: this key and `INSTITUTIONAL_FLOW` hold each side's columns once."""
OBI = _metric("obi", OrderBookImbalance, "l1 l5 velocity", marks=(_GAP, "sequence"))
SWEEP = _metric("sweep", Sweep, "side notional", name="metric:sweep", ts_column="ts_end")
HIDDEN = _metric("hidden", HiddenOrder, "hidden hidden_volume", name="metric:hidden")
FLOW_CLUSTERS = _metric(
    "flow_clusters",
    FlowClusters,
    "momentum_share mean_reversion_share hedging_share institutional_share retail_share",
)
MOC = _metric("moc", ClosingImbalance, "side imbalance_notional imbalance_ratio", name="metric:moc")
"""None for a symbol that trades around the clock. `last_trade_id` is null in a batch value."""
METRICS = (VPIN, TOXICITY, INSTITUTIONAL_FLOW, RETAIL_FLOW, OBI, SWEEP, HIDDEN, FLOW_CLUSTERS, MOC)
"""Of a symbol's tape and book."""

_OF_HISTORY = ("z_score", "percentile")
_FLOW_PARTS = ("expiry", "vanna_", "charm_", "gamma_", "shares_per_pct_move", "notional_per_pct_move", "vol_beta")


def _flow(metric: str, headlines: str, *parts: str, also: tuple[str, ...] = ()) -> Key:
    without = tuple(part for part in _FLOW_PARTS if part not in parts)
    return _metric(metric, DealerFlow, headlines, marks=(_GAP,), without=without, also=also)


GEX = _metric(
    "gex",
    GammaExposure,
    "gex_net gex_gross zero_gamma z_score",
    marks=(_GAP,),
    without=("strike", "expiry", "dex_", "directional_bias"),
    also=(*_OF_HISTORY, *(f"gross_{name}" for name in _OF_HISTORY)),
)
"""Of the whole chain; `zero_gammas` is a list. `z_score` and `percentile` are of `gex_net` among the last snapshots,
those with `gross_` of `gex_gross`. In keys of options, `has_gap` says that contracts broke a rule and were left out."""
DEX = _metric(
    "dex",
    GammaExposure,
    "dex_net dex_gross directional_bias z_score",
    marks=(_GAP,),
    without=("strike", "expiry", "gex_", "max_gex_strike", "zero_gamma"),
    also=_OF_HISTORY,
)
VANNA = _flow("vanna", "vanna_notional_per_vol_pt z_score", "vanna_", also=_OF_HISTORY)
CHARM = _flow("charm", "charm_notional_per_day z_score", "charm_", also=_OF_HISTORY)
HEDGING_IMPACT = _flow(
    "hedging_impact",
    "notional_per_pct_move shares_per_pct_move",
    *("gamma_", "shares_per_pct_move", "notional_per_pct_move", "vol_beta"),
)
SKEW = _metric(
    "skew", Skew, "skew skew_ratio headline_expiry z_score", marks=(_GAP,), without=("expiry",), also=_OF_HISTORY
)
UNUSUAL = _metric(
    "unusual", UnusualActivity, "classification score dominant_flow", name="metric:unusual", marks=(_GAP,)
)
OPTION_METRICS = (GEX, DEX, VANNA, CHARM, HEDGING_IMPACT, SKEW, UNUSUAL)
"""Of a symbol's option chain."""

HISTORY = Key(
    pattern="analytics:{symbol}:{metric}:history",
    type=KeyType.LIST,
    fields=("ts",),
    ttl_s=_HISTORY_TTL_S,
    max_entries=_HISTORY_LENGTH,
)
"""A metric's closed rows, newest first: `ts` and the metric's `headlines`. `{metric}` is the name in the settings."""

_TOTALS = (
    "symbols",
    "avg_vpin",
    "vpin_count",
    "total_gex_gross",
    "total_gex_net",
    "gex_count",
    "total_dex_gross",
    "total_dex_net",
    "dex_count",
    "total_vanna_notional",
    "vanna_count",
    "total_charm_notional",
    "charm_count",
    "total_hedging_notional",
    "hedging_count",
    "toxic_count",
    "avg_toxicity",
    "toxicity_count",
    "total_volume",
    "volume_count",
    "flow_mix",
    "flow_mix_count",
)
PORTFOLIO = _summary("analytics:portfolio:summary", *_TOTALS, "vix1d", "by_sector")
"""`by_sector`: a sector's name → the totals over its symbols. `total_volume` adds base units of different symbols; each
count says of how many symbols a total or mean is made."""
SECTOR = _summary(
    "analytics:portfolio:sector:{sector}",
    "sector",
    *_TOTALS,
    "institutional_net_notional",
    "institutional_net_count",
    "retail_net_notional",
    "retail_net_count",
)
CORRELATION = _summary("analytics:portfolio:correlation", "symbols", "matrix", "pairs", "high_pairs", "flag", "source")
"""`matrix` and `pairs` (how many bars two symbols share) are lists of rows in the order of `symbols`; `high_pairs` the
pairs whose |correlation| is at least `flag`; `source` is `computed` or `discovered`, which has no `pairs`. Correlations
are rounded to six digits."""
VIX1D = Key(
    pattern="analytics:vix1d",
    type=KeyType.STRING,
    fields=_columns(VolIndexRegime),
    ttl_s=_VIX1D_TTL_S,
    contract=VolIndexRegime,
    headlines=("value", "source", "regime", "z_score", "percentile", "change_5m", "change_1h"),
)
"""The newest reading of all sources, held against its source's history; where all sources fail it stays until its end.
`symbol` is the index."""
VIX1D_HISTORY = Key(
    pattern="analytics:vix1d:history",
    type=KeyType.LIST,
    fields=("ts", *VIX1D.headlines),
    ttl_s=_HISTORY_TTL_S,
    max_entries=_HISTORY_LENGTH,
)
"""What stood under `VIX1D`, newest first."""
VIX1D_SOURCE_HISTORY = Key(
    pattern="volatility:vix1d:{source}:history",
    type=KeyType.LIST,
    fields=("ts", *VIX1D.headlines),
    ttl_s=_HISTORY_TTL_S,
    max_entries=_HISTORY_LENGTH,
)
"""Each source's readings, newest first."""
HEARTBEAT = Key(
    pattern="heartbeat:analytics",
    type=KeyType.STRING,
    fields=(
        "ts_written",
        "running",
        "state",
        "cadence_hz",
        "last_updates",
        "error_counts",
        "failing",
        "overruns",
        "cycle_ms",
        "idle_symbols",
        "opening_symbols",
        "malformed",
        "started_at",
    ),
    ttl_s=_HEARTBEAT_TTL_S,
)
"""`state` is `active` or `idle`; `last_updates` (ns) and `error_counts` go by the names of `update_intervals`; those in
`failing` have failed in three of their turns in a row."""
DISCOVERED_BUCKET_SIZE = Key(pattern="discovered:vpin_bucket_size", type=KeyType.STRING, fields=(), ttl_s=None)
"""Written by others, read at a session's open: VPIN's bucket in base units, a number or a map symbol → number."""
REPORT = Key(
    pattern="reports:{name}:latest",
    type=KeyType.STRING,
    fields=(*_WRITTEN, "name", "path", "date", "headline"),
    ttl_s=_HISTORY_TTL_S,
)
"""The newest report of a name: where its page is, its trading date, and the numbers of its headline."""
DISCOVERED_CORRELATION = Key(pattern="discovered:correlation_matrix", type=KeyType.STRING, fields=(), ttl_s=None)
"""Written by others; where it is there, it is published in place of ours."""

MARKET_KEYS = (TRADES, QUOTES, DEPTH, TICKER, BOOK, BARS_1MIN)
KEYS = (
    *MARKET_KEYS,
    *METRICS,
    *OPTION_METRICS,
    *(OPTION_CHAIN, OPTION_GREEKS),
    *(
        HISTORY,
        REPORT,
        PORTFOLIO,
        SECTOR,
        CORRELATION,
        VIX1D,
        VIX1D_HISTORY,
        VIX1D_SOURCE_HISTORY,
        HEARTBEAT,
        DISCOVERED_BUCKET_SIZE,
        DISCOVERED_CORRELATION,
    ),
)
