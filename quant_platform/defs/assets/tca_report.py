"""The desk's daily report as an asset: read what its page shows, render, publish, and tell Redis where it is."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from quant_platform.calculators.benchmarks import last_mids, market_mids
from quant_platform.calculators.tca import with_parents
from quant_platform.defs import report_cache
from quant_platform.defs.partitions import dates_of
from quant_platform.defs.resources import Platform
from quant_platform.reports import daily_tca
from quant_platform.reports.tca_day import DailyTca
from quant_platform.reports.tca_digest import chart_instants
from quant_platform.storage import quarantine
from quant_platform.storage.lake import Lake

KEY = dg.AssetKey(["reports", daily_tca.NAME])
_ORDERS, _TCA_ORDERS, _TCA_FILLS = "execution/orders", "execution/tca_orders", "execution/tca_fills"
_IMPACT, _IMPACT_FIT = "execution/impact", "execution/impact_fit"
_READS = (
    _TCA_ORDERS,
    _TCA_FILLS,
    "execution/quality",
    _IMPACT,
    _IMPACT_FIT,
    "execution/algo_scorecard",
    "execution/venue_scorecard",
)
_BEFORE = timedelta(days=7)
"""How far back the session before may be."""


def daily_tca_report(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset that renders one page a trading date on which the desk ordered something."""

    @dg.multi_asset(
        name=f"reports__{daily_tca.NAME}",
        specs=[
            dg.AssetSpec(
                KEY,
                deps=[dg.AssetKey(table.split("/")) for table in (*_READS, "market/quotes", "market/trades")],
                description="One page a trading date: what orders cost and why, markouts, worst orders, scorecards.",
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
    def body(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
        orders = {day: platform.engine.lake.scan(_TCA_ORDERS, None, day, day) for day in dates_of(context)}
        counts = {day: rows.select(pl.len()).collect().item() for day, rows in orders.items()}
        shown = (inputs(platform, day) for day, count in counts.items() if count)
        published = platform.engine.workers.map(partial(daily_tca.published, folder=platform.settings.reports), shown)
        latest = {date.fromisoformat(told["date"]): told for told in published}
        for day, count in counts.items():
            facts = _facts(platform, latest[day]) if count else {}
            context.add_asset_metadata({"orders": count, **facts}, asset_key=KEY, partition_key=day.isoformat())
        yield dg.MaterializeResult(asset_key=KEY)

    return body


def _facts(platform: Platform, latest: Mapping[str, Any]) -> dict[str, Any]:
    """Tell Redis of a page, and return what Dagster is told of it."""
    settings, page = platform.settings, Path(latest["path"])
    return {
        "page": dg.MetadataValue.url(f"{settings.ui.files_url}/{page.relative_to(settings.home)}"),
        "path": dg.MetadataValue.path(str(page)),
        "headline": dg.MetadataValue.json(latest["headline"]),
        "is_cached": report_cache.put(settings, daily_tca.NAME, latest),
    }


def inputs(platform: Platform, day: date) -> DailyTca:
    """Read what the page of a date shows."""
    lake, settings = platform.engine.lake, platform.settings
    tables = {table: lake.scan(table, None, day, day).collect() for table in _READS}
    orders, fills = tables[_TCA_ORDERS], tables[_TCA_FILLS]
    if orders.is_empty():
        paths = ranges = pl.DataFrame()
    else:
        paths = _paths(lake, orders, day)
        ranges = _ranges(lake, day)
    told = quarantine.counts(settings.quarantine, day, day).drop("date")
    return DailyTca(
        date=day,
        orders=orders,
        fills=with_parents(fills, lake.scan(_ORDERS, None, day - _BEFORE, day).collect()),
        quality=tables["execution/quality"],
        algos=tables["execution/algo_scorecard"],
        venues=tables["execution/venue_scorecard"],
        impact=tables[_IMPACT],
        impact_fits=tables[_IMPACT_FIT].filter(pl.col("symbol").is_null()),
        paths=paths,
        ranges=ranges,
        quarantine=told.filter(pl.col("table").str.starts_with("execution/")),
        params=settings.analytics.scorecards,
    )


def _paths(lake: Lake, orders: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return the mids that the charts of the worst orders draw."""
    moments = chart_instants(orders)
    names = moments["symbol"].unique().to_list()
    mids = last_mids(moments, market_mids(lake.scan("market/quotes", names, day, day).collect()))
    return moments.hstack(mids.select("mid_price"))


def _ranges(lake: Lake, day: date) -> pl.DataFrame:
    prices = lake.scan("market/trades", None, day, day).group_by("symbol")
    return prices.agg(low=pl.col("price").min(), high=pl.col("price").max()).collect()
