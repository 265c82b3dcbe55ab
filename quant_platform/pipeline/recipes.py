"""One recipe a table: what it reads, which code makes it, with which parameters. No pool, no Dagster, no arithmetic."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from quant_platform.calculators import bars, liquidity, price_statistics
from quant_platform.contracts.market import Book
from quant_platform.feeds import binance_archive, binance_csv, frames, lean, lobster, normalize, recorded
from quant_platform.pipeline.order_flow import ORDER_FLOW
from quant_platform.pipeline.units import Built, Input, Recipe, Source, Work, outcome_on_disk
from quant_platform.settings import FeedName, Settings

_MINUTE_S = 60
_ONE_PRINT_A_ROW = "one_print_a_row"
_RECORDED: dict[str, Any] = {"recorded_lobster": lobster, "recorded_lean": lean, "recorded_frames": frames}
_MINUTES_PER_YEAR_24_7 = 365 * 24 * 60


def _fetched_day(work: Work) -> Source | None:
    feed, table = work.instrument.source_of(work.unit.table), work.unit.table
    if feed in _RECORDED:
        return _recorded_day(work, feed)
    if table == Book.table:
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


def _gaps(work: Work) -> Built:
    # Of the session before only the last trade counts: a hole over midnight is a hole of this date.
    *before, today = (work.lake.scan(t, [s], d, d) for t, s, d in work.readable("market/trades"))
    return Built(normalize.trade_gaps(pl.concat([*(f.sort("last_trade_id").tail(1) for f in before), today])))


def _bars_1s(work: Work) -> Built:
    trades, tape = work.scan("market/trades"), outcome_on_disk(work.lake, work.unit._replace(table="market/trades"))
    if tape and tape.facts.get(_ONE_PRINT_A_ROW) == str(True):
        trades = trades.drop("last_trade_id")  # reading it costs a tenth of the bars
    return Built(bars.bars(trades))


def _bars_1m(work: Work) -> Built:
    return Built(bars.cascade(work.scan("market/bars_1s").collect(), width_s=_MINUTE_S))


def _bars_5m(work: Work) -> Built:
    return Built(bars.cascade(work.scan("market/bars_1m").collect(), width_s=5 * _MINUTE_S))


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
    )


RECIPES: dict[str, Recipe] = {
    recipe.table: recipe
    for recipe in (
        _raw("market/trades"),
        _raw("market/quotes"),
        _raw("market/book"),
        Recipe(
            "market/gaps",
            _gaps,
            ("quant_platform.feeds.normalize",),
            (Input("market/trades", lookback_sessions=1),),
        ),
        Recipe("market/bars_1s", _bars_1s, ("quant_platform.calculators.bars",), (Input("market/trades"),)),
        Recipe("market/bars_1m", _bars_1m, ("quant_platform.calculators.bars",), (Input("market/bars_1s"),)),
        Recipe("market/bars_5m", _bars_5m, ("quant_platform.calculators.bars",), (Input("market/bars_1m"),)),
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
        *ORDER_FLOW,
    )
}
