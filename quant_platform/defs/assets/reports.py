"""Reports as assets: read typed frames, render, publish. What a page shows is decided in reports/."""

from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
from dagster_duckdb import DuckDBResource

from quant_platform.defs import report_cache
from quant_platform.defs.partitions import dates_of
from quant_platform.defs.resources import Platform
from quant_platform.pipeline.options import OPTIONS
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import UnitStatus
from quant_platform.reports import daily_market
from quant_platform.reports.market_day import DailyMarket
from quant_platform.reports.market_options import TABLES as OPTION_TABLES
from quant_platform.reports.market_options import options_day
from quant_platform.reports.market_order_flow import TABLES as ORDER_FLOW
from quant_platform.reports.market_order_flow import order_flow
from quant_platform.settings import POLLED_FEEDS, Instrument
from quant_platform.storage import quarantine

KEY = dg.AssetKey(["reports", "daily_market"])
_CONTEXT_DAYS = 30
_AT_TIMES = ("execution/", "events/", "live/")
_OF_CHAINS = frozenset(recipe.table for recipe in OPTIONS)
_READS = (
    "statistics/liquidity",
    "market/gaps",
    "market/bars_5m",
    "statistics/price_statistics",
    *ORDER_FLOW,
    *OPTION_TABLES,
)


def daily_market_report(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset that renders one page a trading date."""

    @dg.multi_asset(
        name="reports__daily_market",
        specs=[
            dg.AssetSpec(
                KEY,
                deps=[*(dg.AssetKey(t.split("/")) for t in _READS), dg.AssetKey(["marts", "fct_daily_bars"])],
                description="One page a trading date: candles, order flow, options, gaps, quarantine, coverage.",
                group_name="reports",
                owners=["team:data-platform"],
                kinds={"plotly", "html"},
                partitions_def=partitions,
                freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36)),
            )
        ],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def body(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], warehouse: DuckDBResource
    ) -> Iterator[Any]:
        settings = platform.settings
        dates = dates_of(context)
        with warehouse.get_connection() as connection:
            marts = _daily_bars(connection, dates[0] - timedelta(days=_CONTEXT_DAYS), dates[-1])
        shown = (inputs(platform, marts, day) for day in dates)
        pages = platform.engine.workers.map(partial(daily_market.write, folder=settings.reports), shown)
        for day, page in zip(dates, pages, strict=True):
            context.add_asset_metadata(
                {
                    "page": dg.MetadataValue.url(f"{settings.ui.files_url}/{page.relative_to(settings.home)}"),
                    "path": dg.MetadataValue.path(str(page)),
                    "bytes": page.stat().st_size,
                    "is_cached": report_cache.put(settings, "daily_market", _latest(marts, day, page)),
                },
                asset_key=KEY,
                partition_key=day.isoformat(),
            )
        yield dg.MaterializeResult(asset_key=KEY)

    return body


def _latest(marts: pl.DataFrame, day: date, page: Path) -> dict[str, Any]:
    closes = marts.filter(pl.col("trading_date") == day).select("symbol", "close").sort("symbol")
    return {"path": str(page), "date": day.isoformat(), "headline": {"close": dict(closes.iter_rows())}}


def _daily_bars(connection: duckdb.DuckDBPyConnection, start: date, end: date) -> pl.DataFrame:
    rows: pl.DataFrame = connection.sql(
        "SELECT * FROM marts.fct_daily_bars WHERE trading_date BETWEEN ? AND ? ORDER BY symbol, trading_date",
        params=[start, end],
    ).pl()
    return rows


def inputs(platform: Platform, daily_bars: pl.DataFrame, day: date) -> DailyMarket:
    """Read what one page shows: its dates of the mart, the rest from the lake and the ledger."""
    lake, settings = platform.engine.lake, platform.settings
    bars_5m = lake.scan("market/bars_5m", None, day, day).collect()
    return DailyMarket(
        date=day,
        symbols=tuple(
            i.symbol for i in settings.instruments if i.symbol in platform.engine.ledger.first_dates("market/trades")
        ),
        daily=daily_bars.filter(pl.col("trading_date").is_between(day - timedelta(days=_CONTEXT_DAYS), day)),
        bars_5m=bars_5m,
        spreads=lake.scan("statistics/liquidity", None, day, day).collect(),
        statistics=lake.scan("statistics/price_statistics", None, day, day).collect(),
        gaps=lake.scan("market/gaps", None, day, day).collect(),
        quarantine=quarantine.counts(settings.quarantine, day, day).drop("date"),
        coverage=coverage(platform, day),
        revised=bars_5m.filter(pl.col("revision") > 0).height,
        order_flow=order_flow({table: lake.scan(table, None, day, day) for table in ORDER_FLOW}),
        options=options_day({table: lake.scan(table, None, day, day) for table in OPTION_TABLES}),
    )


def coverage(platform: Platform, day: date) -> pl.DataFrame:
    """Return one row per table and symbol with history: its status on that date, `missing` where it has none.

    What a symbol cannot have is left out, unless it is there: tables of options without a chain in its instrument's
    row, and all others where its feed polls chains. So are dates on which the desk did not trade a symbol, or on which
    no live writer served it.
    """
    rows = []
    for table in RECIPES:
        on_date = {o.unit.symbol: o for o in platform.engine.ledger.outcomes(table, start=day, end=day)}
        impossible = {i.symbol for i in platform.settings.instruments if not _may_have(i, table)}
        for symbol, first in platform.engine.ledger.first_dates(table).items():
            outcome = on_date.get(symbol)
            is_lacking = outcome is None or outcome.status is UnitStatus.ABSENT
            if is_lacking and (symbol in impossible or table.startswith(_AT_TIMES)):
                continue
            if outcome:
                rows.append((table, symbol, outcome.status.value, outcome.rows, outcome.bytes))
            elif first <= day:
                rows.append((table, symbol, "missing", 0, 0))
    schema = {"table": pl.String, "symbol": pl.String, "status": pl.String, "rows": pl.Int64, "bytes": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _may_have(instrument: Instrument, table: str) -> bool:
    if table in _OF_CHAINS:
        return instrument.chain is not None
    return instrument.feed not in POLLED_FEEDS
