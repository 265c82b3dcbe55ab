"""One date of the desk as the TCA report takes it: the input frames, their shape, and what they are reduced to.

Here: frames in, frames out; what an order or a fill has cost comes with the inputs. Not here: how a number is written
(numbers), what is drawn (tca_figures), what is said (tca_verdict).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date as Date  # noqa: N812  # `date` names a field here
from functools import cached_property
from pathlib import Path

import polars as pl

from quant_platform.calculators.scorecards import ScorecardParams
from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.execution import TcaFill, TcaOrder
from quant_platform.contracts.scorecards import (
    AlgoScorecard,
    Impact,
    ImpactFit,
    OrderQuality,
    Period,
    VenueScorecard,
)
from quant_platform.reports.frames import shaped
from quant_platform.reports.tca_digest import TcaDigest, digest

NAME = "daily_tca"
_SCHEMAS: Mapping[str, pl.Schema] = {
    "orders": polars_schema(TcaOrder),
    "fills": polars_schema(TcaFill),
    "quality": polars_schema(OrderQuality),
    "algos": polars_schema(AlgoScorecard),
    "venues": polars_schema(VenueScorecard),
    "impact": polars_schema(Impact),
    "impact_fits": polars_schema(ImpactFit),
    "paths": pl.Schema({"order_id": pl.String(), "ts_event": INSTANT, "mid_price": pl.Float64()}),
    "ranges": pl.Schema({"symbol": pl.String(), "low": pl.Float64(), "high": pl.Float64()}),
    "quarantine": pl.Schema({"table": pl.String(), "symbol": pl.String(), "rule": pl.String(), "rows": pl.Int64()}),
}
_ORDERS: Mapping[str, Sequence[str]] = {
    "orders": TcaOrder.sorted_by,
    "fills": TcaFill.sorted_by,
    "quality": OrderQuality.sorted_by,
    "algos": AlgoScorecard.sorted_by,
    "venues": VenueScorecard.sorted_by,
    "impact": Impact.sorted_by,
    "impact_fits": ("measure",),
    "paths": ("order_id", "ts_event"),
    "ranges": ("symbol",),
    "quarantine": ("table", "symbol", "rule"),
}


@dataclass(frozen=True)
class DailyTca:
    """What the daily TCA report shows. Rows come in any order; a frame without rows may lack its columns.

    Money is in quote currency, and added up over symbols: they are to be quoted in one.

    Attributes:
        date: The trading date, UTC.
        orders: Contract `TcaOrder`: the parent orders that arrived on the date, each once.
        fills: Contract `TcaFill`: the fills of the date, each once; `order_id` is that of the parent order, as
            `venue_scorecard` takes it, and null without one.
        quality: Contract `OrderQuality` of the orders.
        algos: Contract `AlgoScorecard`: the cells of the day, the week and the month that the date is in.
        venues: Contract `VenueScorecard`: the same.
        impact: Contract `Impact` of the orders.
        impact_fits: Contract `ImpactFit` of all symbols together, one row a measure.
        paths: `order_id ts_event mid_price`: the last mid at each of `chart_instants(orders)`.
        ranges: `symbol low high`: the lowest and highest price of the date's tape.
        quarantine: `table symbol rule rows`: rows of the desk's tables that were set aside.
        params: What the scorecards were made with; draws, seed and confidence are also those of the page's intervals.
    """

    date: Date
    orders: pl.DataFrame
    fills: pl.DataFrame
    quality: pl.DataFrame
    algos: pl.DataFrame
    venues: pl.DataFrame
    impact: pl.DataFrame
    impact_fits: pl.DataFrame
    paths: pl.DataFrame
    ranges: pl.DataFrame
    quarantine: pl.DataFrame
    params: ScorecardParams

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self) if one.name in _SCHEMAS):
            object.__setattr__(
                self,
                name,
                shaped(getattr(self, name), _SCHEMAS[name], _ORDERS[name], of=f"'{name}' of a daily TCA report"),
            )

    @cached_property
    def digest(self) -> TcaDigest:
        """What the page shows of these inputs."""
        return digest(
            orders=self.orders,
            fills=self.fills,
            quality=self.quality,
            impact=self.impact,
            impact_fits=self.impact_fits,
            params=self.params,
        )


def headline_path(reports: Path, date: Date) -> Path:
    """Return where the headline's numbers of a date's report lie, as JSON."""
    return reports / NAME / f"{date}.json"


def standing(cells: pl.DataFrame) -> Period:
    """Return the period whose cells say how sure an excess cost is: the month, or the week where it holds more days."""
    days = dict(cells.group_by("period").agg(pl.col("days").max()).iter_rows())
    return Period.WEEK if days.get(Period.WEEK, 0) > days.get(Period.MONTH, 0) else Period.MONTH
