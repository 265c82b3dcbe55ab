"""Served values held against the batch's own folds, stepped again over the captured rows up to each sample.

What a fold says after a trade does not depend on where its tape was cut, so it is cut at the samples alone. The rows as
received are all but the late: those that were not there when the first sample after them was served. Where a late trade
has come by the next sample that says it lacks nothing, the writer opened the symbol anew, and so do the folds here.

What is served of option chains is held against the rows of the snapshot of the same time.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import selectors

from quant_platform.calculators import sweeps
from quant_platform.contracts._schema import INSTANT, contract_of, empty, polars_schema
from quant_platform.contracts.live import LiveParity, LiveValue
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.contracts.microstructure import HiddenOrder, OrderBookImbalance, SignedTrade, Sweep, Vpin
from quant_platform.pipeline.option_keys import OF_WHOLE_CHAINS
from quant_platform.pipeline.units import Fold, Recipe, Work
from quant_platform.storage import redis_keys

Array = npt.NDArray[Any]

TOLERANCE = 1e-9
"""Served and computed values are equal up to here, relative to the larger of both."""

_TABLES = {key.metric: key.contract.table for key in redis_keys.METRICS if key.contract}
_OF_OPTIONS = {key.metric: key.contract.table for key in redis_keys.OPTION_METRICS if key.contract}
_BOOK, _HIDDEN = OrderBookImbalance.table, HiddenOrder.table
_IDS = {_BOOK: "sequence", _HIDDEN: "trade_id"}
_LAST_TRADE = "last_trade_id"
_NOT_VALUES = {"symbol", "ts_known"}
_FINAL = -1
_MS, _S = 1_000_000, 1_000_000_000

Row = Mapping[str, Any]
"""A table's row by column, times as integer UTC ns; without what later quotes may still change."""


class _Rows(NamedTuple):
    """Trades and quotes, each in the order of its contract."""

    trades: pl.DataFrame
    quotes: pl.DataFrame


class _Worst(NamedTuple):
    """A difference, and where it is."""

    difference: float
    field: str
    id: int
    served: Any
    computed: Any


def parity(work: Work, recipes: Mapping[str, Recipe]) -> pl.DataFrame:
    """Return contract `LiveParity` of a symbol-day, by metric.

    Args:
        work: The unit, its inputs built.
        recipes: Of the tables that metrics show and of what these read, by name.
    """
    samples = _samples(work, recipes)
    folds = _Folds(work, recipes)
    books = _on(samples.filter(pl.col("table") == _BOOK), folds.books, "sequence")
    on_tape = samples.filter(pl.col("table").is_not_null() & (pl.col("table") != _BOOK))
    rows = _Rows(*(work.today(table).collect() for table in (Trade.table, Quote.table)))
    tape = folds.signed(rows)
    trades = pl.concat(
        _on(on_tape.filter((pl.col("table") == _HIDDEN) == is_hidden), tape, name)
        for is_hidden, name in ((True, "trade_id"), (False, _LAST_TRADE))
    )
    found = {_FINAL: folds.rows_at(_placed(trades), tape, rows.quotes) | folds.books_at(_placed(books))}
    sound = _placed(trades).filter(~pl.col("has_gap")).sort("ts_at", "tape_id", "received", "line")
    sound, openings = _openings(sound, rows)
    for opening, received in openings:
        part = sound.filter(pl.col("opening") == opening)
        found[opening] = folds.rows_at(part, folds.signed(received), received.quotes)
    judged = pl.concat([trades, books]).join(sound.select("line", "opening"), on="line", how="left")
    others, rows_of_options = _on_options(samples.filter(pl.col("table").is_null()), work)
    found[_FINAL] |= rows_of_options
    metrics = [
        _judged(part.sort("line"), found, work)
        for part in pl.concat([judged, others], how="diagonal").partition_by("metric")
    ]
    schema = polars_schema(LiveParity)
    told = pl.DataFrame(metrics, schema={name: pl.Int64() if d == INSTANT else d for name, d in schema.items()})
    return told.cast(schema).sort("metric")


def _samples(work: Work, recipes: Mapping[str, Recipe]) -> pl.DataFrame:
    """Return the archived values with their table (null where that is no fold) and the id that they stand at."""
    folded = {metric: table for metric, table in _TABLES.items() if table in recipes and recipes[table].fold}
    assert work.session is not None  # a closed day is never built
    opens = int(work.session.start.timestamp()) * _S
    trade_id = pl.col("payload").str.json_path_match("$.trade_id").cast(pl.Int64, strict=False)
    id_of = pl.when(pl.col("table") == _HIDDEN).then(trade_id).otherwise(pl.coalesce("sequence", _LAST_TRADE))
    return (
        work.today(LiveValue.table)
        .with_columns(table=pl.col("metric").replace_strict(folded, default=None, return_dtype=pl.String))
        .with_columns(selectors.temporal().to_physical(), id=id_of)
        .rename({"ts_known": "received"})
        .with_columns(is_early=pl.col("ts_event") < opens)
        .collect()
    )


def _on(samples: pl.DataFrame, rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the samples with the place, time and trade id of the row that they stand at, null where there is none."""
    tape_id = _LAST_TRADE if _LAST_TRADE in rows.columns else name
    places = rows.select(pl.col("ts_event").to_physical().alias("ts_at"), tape_id=tape_id, id=name)
    places = places.with_row_index("place").unique("id", keep="last")
    return samples.join(places, on="id", how="left")


def _on_options(samples: pl.DataFrame, work: Work) -> tuple[pl.DataFrame, dict[tuple[str, int], Row]]:
    """Return the samples with the table that they show, where the date has any of it, and its rows by table and time.

    Zero gammas are told apart in one way only, as a list and as text: the nearest stands for them.
    """
    found: dict[tuple[str, int], Row] = {}
    for table in sorted({_OF_OPTIONS[metric] for metric in samples["metric"].unique() if metric in _OF_OPTIONS}):
        rows = work.today(table).filter(OF_WHOLE_CHAINS[table]).drop("zero_gammas", strict=False)
        physical = rows.with_columns(selectors.date().cast(pl.String), selectors.datetime().to_physical()).collect()
        found |= {(table, row["ts_event"]): row for row in physical.to_dicts()}
    built = {table for table, _ in found}
    shown = {metric: table for metric, table in _OF_OPTIONS.items() if table in built}
    tables = [shown.get(metric) for metric in samples["metric"]]
    is_found = [key in found for key in zip(tables, samples["ts_event"], strict=True)]
    return samples.with_columns(
        pl.Series("table", tables, pl.String),
        pl.Series("place", [0 if is_there else None for is_there in is_found], pl.UInt32),
        id="ts_event",
    ), found


def _integers(times: pl.Series) -> Array:
    values: Array = times.to_physical().to_numpy()
    return values


def _placed(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.filter(pl.col("place").is_not_null() & ~pl.col("is_early"))


def _openings(samples: pl.DataFrame, rows: _Rows) -> tuple[pl.DataFrame, list[tuple[int, _Rows]]]:
    """Return the samples with the number of the opening that they belong to, and the rows of each as received.

    Args:
        samples: Those that lack nothing, by the place where they stand.
        rows: All rows of the date. Where none of them is late, all samples belong to the final rows.
    """
    served = np.maximum.accumulate(samples["received"].to_numpy())
    ids, times = (np.maximum.accumulate(samples[name].to_numpy()) for name in ("tape_id", "ts_at"))
    trades = _known_from(rows.trades, np.searchsorted(ids, rows.trades[_LAST_TRADE].to_numpy()), served)
    quotes = _known_from(rows.quotes, np.searchsorted(times, _integers(rows.quotes["ts_event"]), side="right"), served)
    if not (trades.any() or quotes.any()):
        return samples.with_columns(opening=_FINAL), []
    begins = np.unique(np.append(0, trades[trades < samples.height]))
    opening = np.searchsorted(begins, np.arange(samples.height), side="right") - 1
    openings = [
        (number, _Rows(rows.trades.filter(pl.Series(trades <= begin)), rows.quotes.filter(pl.Series(quotes <= begin))))
        for number, begin in enumerate(begins.tolist())
    ]
    return samples.with_columns(opening=pl.Series(opening, dtype=pl.Int64)), openings


def _known_from(rows: pl.DataFrame, first: Array, served: Array) -> Array:
    """Return for each row the sample from which it is known: 0 if it is not late, their number if it came after all.

    Args:
        rows: Trades or quotes.
        first: The first sample that stands behind each.
        served: When each sample was served, never decreasing.
    """
    # A receipt that is assumed says nothing.
    received = rows.select(
        pl.when(~pl.col("is_ts_recv_assumed")).then("ts_recv").to_physical().fill_null(0)
    ).to_series()
    known = np.searchsorted(served, received.to_numpy())
    return np.where((first < len(served)) & (known > first), known, 0)


class _Folds:
    """The folds of a symbol-day, from the warm-up that batch and live share."""

    def __init__(self, work: Work, recipes: Mapping[str, Recipe]) -> None:
        self._work = work
        self._recipes = recipes
        self._opened: dict[str, Any] = {}

    def signed(self, rows: _Rows) -> pl.DataFrame:
        """Return the signed tape."""
        return _Stepped(self, SignedTrade.table).step(
            {Trade.table: rows.trades.lazy(), Quote.table: rows.quotes.lazy()}
        )

    @cached_property
    def books(self) -> pl.DataFrame:
        """What feeds the book's metrics on the date: books, else quotes."""
        books = self._work.today(Book.table)
        return (books if books.head(1).collect().height else self._work.today(Quote.table)).collect()

    def books_at(self, samples: pl.DataFrame) -> dict[tuple[str, int], Row]:
        """Return the row of each sample of the book, by table and id."""
        books, fold = self.books, _Stepped(self, _BOOK)
        fed, other = (Book, Quote) if "bid_price_1" in books.columns else (Quote, Book)
        tails = [
            fold.step({fed.table: books[start:stop].lazy(), other.table: empty(other).lazy()}).tail(1)
            for start, stop in _cuts(samples["place"])
        ]
        return _by_id(_BOOK, tails)

    def rows_at(self, samples: pl.DataFrame, tape: pl.DataFrame, quotes: pl.DataFrame) -> dict[tuple[str, int], Row]:
        """Return the row of each sample of a metric of trades, by table and id.

        Args:
            samples: Where they stand, and when they were served.
            tape: The signed tape.
            quotes: The quotes that it was signed with.
        """
        found: dict[tuple[str, int], Row] = {}
        for table in samples["table"].unique().sort():
            part = samples.filter(pl.col("table") == table)
            # The tape may be another one than that on which the samples were placed.
            ids = tape.select(_LAST_TRADE).with_row_index("at").join(part, left_on=_LAST_TRADE, right_on="tape_id")
            served = dict(ids.group_by("at").agg(pl.col("received").max()).rows())
            if table == _HIDDEN:
                found |= self._hidden_at(tape, quotes, served)
            else:
                fold = _Stepped(self, table)
                chunks = (tape[start:stop] for start, stop in _cuts(pl.Series(list(served))))
                found |= _by_id(table, [fold.newest({SignedTrade.table: chunk.lazy()}) for chunk in chunks])
        return found

    def _hidden_at(
        self, tape: pl.DataFrame, quotes: pl.DataFrame, served: Mapping[int, int]
    ) -> dict[tuple[str, int], Row]:
        """Return the rows of hidden orders, without what depends on which later quotes had come when it was served."""
        fold, known, seen = _Stepped(self, _HIDDEN), quotes["ts_event"], 0
        within_ns = self._work.settings.analytics.hidden_orders.refill_within_ms * _MS
        times, first, last = _integers(tape["ts_event"]), [], []
        for start, stop in _cuts(pl.Series(list(served))):
            ts = pl.Series([int(times[stop - 1])]).cast(INSTANT)[0:1]
            end = int(known.search_sorted(ts)[0])
            streams = {SignedTrade.table: tape[start:stop].lazy(), Quote.table: quotes[seen:end].lazy()}
            first.append(fold.step(streams).tail(1))
            behind = int(known.search_sorted(ts.dt.offset_by(f"{within_ns}ns"), side="right")[0]) + 1
            later = quotes[end:behind].filter(pl.col("ts_recv").to_physical() <= served[stop - 1])
            streams = {SignedTrade.table: tape.clear().lazy(), Quote.table: later.lazy()}
            revised = fold.peeked(streams).tail(1) if later.height else first[-1]
            last.append(revised if revised.height else first[-1])
            seen = end
        early, late = _by_id(_HIDDEN, first), _by_id(_HIDDEN, last)
        return {
            key: {name: value for name, value in row.items() if late.get(key, {}).get(name) == value}
            for key, row in early.items()
        }

    def opened(self, table: str) -> tuple[Work, Fold, Any]:
        """Return a table's fold and its state at the open."""
        recipe = self._recipes[table]
        work, fold = replace(self._work, unit=self._work.unit._replace(table=table), recipe=recipe), recipe.fold
        assert fold is not None  # what is no fold is not judged
        if table not in self._opened:
            self._opened[table] = fold.opened(work)
        return work, fold, self._opened[table]


class _Stepped:
    """A table's fold on its way, with VPIN's beside it where it reads that."""

    def __init__(self, folds: _Folds, table: str) -> None:
        self._work, self._fold, self._state = folds.opened(table)
        self._vpin = _Stepped(folds, Vpin.table) if Vpin.table in self._fold.streams else None

    def step(self, streams: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
        """Return the rows of a chunk."""
        if self._vpin:
            streams = {**streams, Vpin.table: self._vpin.step(streams).lazy()}
        self._state, built = self._fold.step(self._work, self._state, streams)
        return built.rows

    def newest(self, streams: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
        """Return the row that is shown after a chunk."""
        rows = self.step(streams)
        if self._work.unit.table == Sweep.table:
            return sweeps.latest(self._state, self._work.settings.analytics.sweep_detection)
        return rows.tail(1)

    def peeked(self, streams: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
        """Return the rows of a chunk that is not taken in."""
        return self._fold.step(self._work, self._state, streams)[1].rows


def _cuts(places: pl.Series) -> Iterator[tuple[int, int]]:
    """Yield the chunks that end with these rows."""
    start = 0
    for place in places.unique().sort():
        yield start, place + 1
        start = place + 1


def _by_id(table: str, tails: list[pl.DataFrame]) -> dict[tuple[str, int], Row]:
    rows = pl.concat(tails) if tails else empty(contract_of(table))
    name = _IDS.get(table, _LAST_TRADE)
    return {(table, row[name]): row for row in rows.with_columns(selectors.temporal().to_physical()).to_dicts()}


def _judged(samples: pl.DataFrame, found: Mapping[int, Mapping[tuple[str, int], Row]], work: Work) -> dict[str, Any]:
    """Return what is told of one metric."""
    metric, table = samples["metric"][0], samples["table"][0]
    has_rows = table is not None
    columns = polars_schema(contract_of(table)).names() if has_rows else []
    missing = samples.filter(pl.col("place").is_null() & ~pl.col("is_early")) if has_rows else samples.clear()
    worst: _Worst | None = None
    final: _Worst | None = None
    counts = {"compared": 0, "differing": 0, "fields": 0}
    for sample in _placed(samples).to_dicts() if has_rows else ():
        key, served = (table, sample["id"]), json.loads(sample["payload"])
        told = served.keys() - _NOT_VALUES
        fields = [name for name in columns if name in told]
        final = _larger(final, _worst(key, served, found[_FINAL].get(key), fields))
        if sample["has_gap"]:
            continue
        opening = _FINAL if sample["opening"] is None else sample["opening"]
        here = _worst(key, served, found[opening].get(key), fields)
        worst = _larger(worst, here)
        counts["compared"] += 1
        counts["differing"] += here.difference > TOLERANCE
        counts["fields"] = max(counts["fields"], len(fields))
    return {
        "ts_start": samples["ts_event"].min(),
        "ts_end": samples["ts_event"].max(),
        "symbol": work.unit.symbol,
        "metric": metric,
        "samples": samples.height,
        **counts,
        "with_gap": _placed(samples)["has_gap"].sum() if has_rows else 0,
        "before_open": samples["is_early"].sum(),
        "missing": missing.height,
        "restarts": (samples["seq"].diff() < 0).sum(),
        "max_difference": worst.difference if worst else None,
        "worst_field": worst.field if worst else None,
        "worst_id": worst.id if worst else None,
        "worst_served": json.dumps(worst.served) if worst else None,
        "worst_computed": json.dumps(worst.computed) if worst else None,
        "max_final_difference": final.difference if final else None,
        "ts_known": samples["received"].max(),
    }


def _worst(key: tuple[str, int], served: Row, computed: Row | None, fields: list[str]) -> _Worst:
    """Return the largest difference of a sample; where the folds give no row there, that of any value."""
    _, number = key
    if computed is None:
        return _Worst(1.0, fields[0], number, served[fields[0]], None)
    worst = _Worst(0.0, fields[0], number, served[fields[0]], computed.get(fields[0]))
    for name in fields:
        if name in computed and (difference := _difference(served[name], computed[name])) > worst.difference:
            worst = _Worst(difference, name, number, served[name], computed[name])
    return worst


def _difference(served: Any, computed: Any) -> float:
    if served == computed:
        return 0.0
    if isinstance(computed, float) and type(served) in (int, float):
        relative = abs(served - computed) / max(abs(served), abs(computed))
        return relative if relative < np.inf else 1.0  # NaN compares with nothing
    return 1.0


def _larger(one: _Worst | None, other: _Worst) -> _Worst:
    return other if one is None or other.difference > one.difference else one
