"""One recipe a table: what it reads, which code makes it, with which parameters. No pool, no Dagster, no arithmetic."""

from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from typing import Any

import polars as pl

from quant_platform.calculators import bars, liquidity, price_statistics
from quant_platform.contracts._schema import empty
from quant_platform.contracts.market import Bar1s, Book
from quant_platform.feeds import binance_archive, binance_csv, frames, lean, lobster, normalize, recorded
from quant_platform.pipeline import capture
from quant_platform.pipeline.desk import DESK
from quant_platform.pipeline.events import EVENTS
from quant_platform.pipeline.execution import EXECUTION
from quant_platform.pipeline.live_values import LIVE
from quant_platform.pipeline.options import OPTIONS
from quant_platform.pipeline.order_flow import ORDER_FLOW
from quant_platform.pipeline.units import Built, Fold, Input, Recipe, Source, Streams, Work
from quant_platform.pipeline.vix1d import VOL_INDICES
from quant_platform.settings import POLLED_FEEDS, FeedName, Settings

_TRADES = "market/trades"
_MINUTE_S = 60
_ONE_PRINT_A_ROW = "one_print_a_row"
_RECORDED: dict[str, Any] = {"recorded_lobster": lobster, "recorded_lean": lean, "recorded_frames": frames}
_MINUTES_PER_YEAR_24_7 = 365 * 24 * 60


def _fetched_day(work: Work) -> Source | None:
    if captured := capture.source(work):
        return captured
    feed, table = work.instrument.source_of(work.unit.table), work.unit.table
    if feed in _RECORDED:
        return _recorded_day(work, feed)
    if table == Book.table or feed in POLLED_FEEDS:
        return None  # the archive has none
    day = binance_archive.fetch_day(
        getattr(work.settings.feeds, feed).archive_url,
        work.instrument.model_copy(update={"feed": feed}),
        table,
        work.unit.date,
        landing=work.settings.landing,
    )
    return Source(day.fetched.path.name, day.fetched.sha256, day) if day else None


def _recorded_day(work: Work, feed: FeedName) -> Source | None:
    folder = getattr(work.settings.feeds, feed).path
    if folder is None:  # ours, and not there before anything was simulated
        folder = work.settings.simulated_frames
        if not folder.is_dir():
            return None
    recording = _RECORDED[feed].find(folder, _wanted(work))
    if recording is None:
        return None
    return Source(", ".join(path.name for path in recording.files), recording.fingerprint(), recording)


def _wanted(work: Work) -> recorded.Wanted:
    table, symbol, date = work.unit
    venue = work.settings.feeds.recorded_frames.venue
    return recorded.Wanted(
        table=table, symbol=symbol, venue_symbol=work.instrument.venue_symbol, date=date, venue=venue
    )


def _parsed_day(work: Work) -> Built:
    assert work.source is not None  # a unit with no source is absent and never built
    if work.source.is_captured:
        return capture.read_day(work)
    feed = work.instrument.source_of(work.unit.table)
    if feed in _RECORDED:
        found = _RECORDED[feed].read_day(work.source.handle, _wanted(work))
        return Built(found.rows, found.quarantined, found.facts)
    parsed = binance_csv.read_day(work.source.handle, work.instrument.model_copy(update={"feed": feed}), work.unit.date)
    facts = {"time_unit": parsed.time_unit, "out_of_order": str(parsed.out_of_order)}
    if parsed.tape:
        facts["tape"] = parsed.tape
        facts[_ONE_PRINT_A_ROW] = str((parsed.rows["first_trade_id"] == parsed.rows["last_trade_id"]).all())
    return Built(parsed.rows, parsed.quarantined, facts)


def _gaps_opened(work: Work) -> normalize.Runs:
    # Of the session before only the last trade counts: a hole over midnight is a hole of this date.
    return normalize.runs(work.earlier(_TRADES).sort("last_trade_id").tail(1))


def _gaps(work: Work, state: normalize.Runs, streams: Streams) -> tuple[normalize.Runs, Built]:
    state = normalize.merged(state, streams[_TRADES])
    filled = capture.fills(work.facts(_TRADES))
    holes = normalize.holes(state).join(filled, on=("symbol", "first_id"), how="anti", maintain_order="left")
    return state, Built(pl.concat([holes, filled]).sort("first_id"))


def _bars_1s(work: Work, state: bars.State, streams: Streams) -> tuple[bars.State, Built]:
    trades = streams[_TRADES]
    if work.facts(_TRADES).get(_ONE_PRINT_A_ROW) == str(True):
        trades = trades.drop("last_trade_id")  # reading it costs a tenth of the bars
    state, rows = bars.step(state, trades)
    return state, Built(rows)


def _bars_1m(_: Work, narrow: pl.DataFrame, streams: Streams) -> tuple[pl.DataFrame, Built]:
    narrow, rows = bars.cascade_step(narrow, streams["market/bars_1s"].collect(), width_s=_MINUTE_S)
    return narrow, Built(rows)


def _bars_5m(_: Work, narrow: pl.DataFrame, streams: Streams) -> tuple[pl.DataFrame, Built]:
    narrow, rows = bars.cascade_step(narrow, streams["market/bars_1m"].collect(), width_s=5 * _MINUTE_S)
    return narrow, Built(rows)


def _liquidity(work: Work) -> Built:
    return Built(liquidity.quoted_spread(work.scan("market/quotes").collect(), width_s=5 * _MINUTE_S))


def _price_statistics(work: Work) -> Built:
    closes = work.scan("market/bars_1m").select("ts_open", "symbol", "close", "ts_known").collect()
    values = price_statistics.price_statistics(
        closes, price_statistics.PriceStatisticsParams(**_statistics_parameters(work.settings))
    )
    assert work.session is not None  # a closed day is never built
    return Built(values.filter(pl.col("ts_open") >= work.session.start))


def _raw_parameters(settings: Settings) -> Mapping[str, Any]:
    return {
        "max_quarantined_share": settings.quality.max_quarantined_share,
        "frames_venue": settings.feeds.recorded_frames.venue,
    }


def _statistics_parameters(settings: Settings) -> Mapping[str, Any]:
    return {
        **settings.analytics.price_statistics.model_dump(),
        "periods_per_year": _MINUTES_PER_YEAR_24_7,
    }


def _raw(table: str) -> Recipe:
    return Recipe(
        table,
        _parsed_day,
        tuple(f"quant_platform.feeds.{name}" for name in ("binance_csv", "lobster", "lean", "frames")),
        fetch=_fetched_day,
        parameters=_raw_parameters,
        capture=capture.FOLD,
    )


def _no_bars(_: Work) -> bars.State:
    return bars.initial()


def _no_narrow_bars(_: Work) -> pl.DataFrame:
    return empty(Bar1s)


def _cascaded(table: str, step: Callable[[Work, Any, Streams], tuple[Any, Built]], narrow: str) -> Recipe:
    return Recipe(table, Fold(_no_narrow_bars, step, (narrow,)), (bars.__name__,), (Input(narrow),))


RECIPES: dict[str, Recipe] = {
    recipe.table: recipe
    for recipe in (
        _raw(_TRADES),
        _raw("market/quotes"),
        _raw("market/book"),
        Recipe(
            "market/gaps",
            Fold(_gaps_opened, _gaps, (_TRADES,)),
            ("quant_platform.feeds.normalize",),
            (Input(_TRADES, lookback_sessions=1),),
        ),
        Recipe("market/bars_1s", Fold(_no_bars, _bars_1s, (_TRADES,)), (bars.__name__,), (Input(_TRADES),)),
        _cascaded("market/bars_1m", _bars_1m, "market/bars_1s"),
        _cascaded("market/bars_5m", _bars_5m, "market/bars_1m"),
        Recipe(
            "statistics/liquidity", _liquidity, ("quant_platform.calculators.liquidity",), (Input("market/quotes"),)
        ),
        Recipe(
            "statistics/price_statistics",
            _price_statistics,
            ("quant_platform.calculators.price_statistics",),
            (Input("market/bars_1m", lookback_sessions=price_statistics.LOOKBACK_SESSIONS),),
            parameters=_statistics_parameters,
        ),
        *OPTIONS,
        *ORDER_FLOW,
        *DESK,
        *EXECUTION,
        *EVENTS,
        *VOL_INDICES,
        *LIVE,
    )
}


def _read_order() -> tuple[str, ...]:
    """Return all tables in the order in which Dagster's steps come: by depth, then by name."""
    sorter = TopologicalSorter({table: {read.table for read in recipe.inputs} for table, recipe in RECIPES.items()})
    sorter.prepare()
    order: list[str] = []
    while ready := sorted(sorter.get_ready()):
        order += ready
        sorter.done(*ready)
    return tuple(order)


READ_ORDER = _read_order()
"""All tables, each after all that it reads."""
