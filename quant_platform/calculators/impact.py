"""What orders do to the price: impact that goes back and that stays, the square-root law, and a power law fitted to it.

What an order cost against other benchmarks is TCA's.
"""

from dataclasses import dataclass
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from math import isfinite

import numpy as np
import polars as pl
import polars.selectors as cs

from quant_platform.calculators import _power_law, _student_t
from quant_platform.calculators._power_law import Array, PowerLaw
from quant_platform.calculators.benchmarks import last_mids, market_mids
from quant_platform.calculators.execution_quality import finite
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import Status
from quant_platform.contracts.scorecards import Impact, ImpactFit, ImpactMeasure

LOOKBACK_SESSIONS = 20


@dataclass(frozen=True, kw_only=True)
class ImpactParams:
    """What stands for "well after the order", the baseline's factor, and what a fit needs.

    Attributes:
        settle_s: Seconds from the end of the order to the mid that says what stayed.
        y: Factor of the square-root baseline.
        min_orders: Orders below which nothing is fitted, nor a fit judged.
        min_days: Days below which nothing is fitted.
        holdout: Share of the days, the last ones, on which a fit to those before is judged.
        confidence: Of intervals.
    """

    settle_s: float = 1800.0
    y: float = 1.0
    min_orders: int = 30
    min_days: int = 5
    holdout: float = 0.25
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("settle_s", "y"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be > 0 and finite, was {getattr(self, name)}")
        if self.min_orders < 3:
            raise ValueError(f"min_orders must be >= 3, one more than the parameters, was {self.min_orders}")
        if self.min_days < 2:
            raise ValueError(f"min_days must be >= 2, was {self.min_days}")
        for name in ("holdout", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, was {getattr(self, name)}")


_DEFAULTS = ImpactParams()
_ROW = "row_"


def settled_at(params: ImpactParams = _DEFAULTS) -> pl.Expr:
    """Return when the mid after each order is read: `settle_s` after `ts_done`; null while the order is open."""
    return pl.col("ts_done") + pl.duration(nanoseconds=round(params.settle_s * 1e9), time_unit="ns")


def with_market(
    orders: pl.DataFrame,
    quotes: pl.DataFrame,
    sessions: pl.DataFrame,
    minutes: pl.DataFrame,
    params: ImpactParams = _DEFAULTS,
) -> pl.DataFrame:
    """Return orders with what `impact` wants of the market beside them.

    Args:
        orders: `symbol ts_done` of contract `TcaOrder`, any row order.
        quotes: Contract `Quote`, of the orders' sessions.
        sessions: `benchmarks.SESSIONS`.
        minutes: `symbol date close volume` of one-minute bars of earlier sessions, each symbol's in order of time.
        params: The horizon.

    Returns:
        The rows with `settled_price`, the mid at `settled_at`: null past the last quote, and past the close of the
        session that the order ended in; and `adv sigma_daily_bps`: the mean volume of those sessions, and the root of
        their mean realised variance, the sum of squared one-minute log returns. Null without a session.
    """
    daily = (
        minutes.with_columns(change=pl.col("close").log().diff().over("symbol", "date"))
        .group_by("symbol", "date")
        .agg(pl.col("volume").sum(), variance=(pl.col("change") ** 2).sum())
        .sort("symbol", "date")  # the order of what is added up shows in the last digits
        .group_by("symbol")
        .agg(adv=pl.col("volume").mean(), sigma_daily_bps=pl.col("variance").mean().sqrt() * 1e4)
    )
    ends = quotes.group_by("symbol").agg(ts_last=pl.col("ts_event").max())
    hours = sessions.select("symbol", "ts_open", "ts_close").sort("ts_open")
    placed = (
        orders.with_row_index(_ROW)
        .filter(pl.col("ts_done").is_not_null())
        .select(_ROW, "symbol", "ts_done", ts_event=settled_at(params))
        .sort("ts_done")
        .join_asof(hours, left_on="ts_done", right_on="ts_open", by="symbol", check_sortedness=False)
        .join(ends, on="symbol", how="left")
        .filter(pl.col("ts_event") <= pl.col("ts_last"), pl.col("ts_event") <= pl.col("ts_close"))
    )
    settled = last_mids(placed, market_mids(quotes)).select(settled_price="mid_price").hstack(placed.select(_ROW))
    return (
        orders.with_row_index(_ROW)
        .join(settled, on=_ROW, how="left", maintain_order="left")
        .join(daily, on="symbol", how="left", maintain_order="left")
        .drop(_ROW)
    )


def square_root_bps(quantity: str, params: ImpactParams = _DEFAULTS) -> pl.Expr:
    """Return the impact that the square-root law expects, Y·σ·√(Q/V) in bps.

    Args:
        quantity: The column of Q: what was filled, or before the trade what is ordered. Beside it `adv`, the mean daily
            volume in the same unit, and `sigma_daily_bps`, both of earlier sessions.
        params: The factor Y.

    Returns:
        Null where one of the three is no finite number above 0.
    """
    inputs = [pl.col(name) for name in (quantity, "adv", "sigma_daily_bps")]
    law = params.y * pl.col("sigma_daily_bps") * (pl.col(quantity) / pl.col("adv")).sqrt()
    return pl.when(pl.all_horizontal(_is_positive(value) for value in inputs) & law.is_finite()).then(law)


def impact(orders: pl.DataFrame, params: ImpactParams = _DEFAULTS) -> pl.DataFrame:
    """Return what each order did to the price.

    Of the cost against the mid A at arrival, that against the mid M well after the order is temporary: the price came
    back by it. The rest stayed, and both add up to the cost. One order's parts are mostly the market's own moves; only
    means over many, and fits, say what orders do.

    Models in which the permanent part builds up while the order trades charge the order with half of it on the way:
    their temporary impact is `total_bps` less half of `permanent_bps`.

    Args:
        orders: `order_id ts_event ts_done symbol side filled_quantity avg_price arrival_price ts_known` of contract
            `TcaOrder`, and `settled_price adv sigma_daily_bps`; one row an order, any row order. `settled_price` is the
            mid in force at `settled_at`, null past the end of the data or across a session's close. `adv` and
            `sigma_daily_bps`, the mean daily volume and the standard deviation of daily returns, are of the sessions
            before.
        params: The horizon and the baseline's factor.

    Returns:
        Contract `Impact`, by ts_event and order_id. `status`: `invalid_input` where side is not ±1 or a price no number
        above 0, `no_data` where nothing was filled, or a mid is missing; `total_bps` stands also where only the mid
        after the order does. `baseline_status`: `no_data` where nothing was filled, or the volume is not known,
        `zero_volume` where it is 0, `invalid_vol` without a volatility above 0.
    """
    paid, arrival, settled = (pl.col(name) for name in ("avg_price", "arrival_price", "settled_price"))
    side, filled, adv, sigma = (pl.col(name) for name in ("side", "filled_quantity", "adv", "sigma_daily_bps"))
    prices = (paid, arrival, settled)
    is_side = side.is_in([-1, 1]).fill_null(value=False)
    is_wrong = ~is_side | pl.any_horizontal(price.is_not_null() & ~_is_positive(price) for price in prices)
    is_bought = is_side & pl.all_horizontal(_is_positive(value) for value in (filled, paid, arrival))
    is_settled = is_bought & _is_positive(settled)
    parts = ("temporary_bps", "permanent_bps")
    return (
        orders.with_columns(
            is_settled=is_settled,
            total_bps=pl.when(is_bought).then(side * (paid - arrival) / arrival * 1e4),
            temporary_bps=pl.when(is_settled).then(side * (paid - settled) / arrival * 1e4),
            permanent_bps=pl.when(is_settled).then(side * (settled - arrival) / arrival * 1e4),
            baseline_bps=square_root_bps("filled_quantity", params),
            participation=pl.when(_is_positive(adv) & _is_positive(filled)).then(filled / adv),
            ts_settled=settled_at(params),
            is_wrong=is_wrong,
            baseline_status=pl.when(~_is_positive(filled) | adv.is_null())
            .then(pl.lit(Status.NO_DATA))
            .when(adv == 0)
            .then(pl.lit(Status.ZERO_VOLUME))
            .when(~_is_positive(adv))
            .then(pl.lit(Status.INVALID_INPUT))
            .when(~_is_positive(sigma))
            .then(pl.lit(Status.INVALID_VOL))
            .otherwise(pl.lit(Status.OK)),
        )
        .with_columns(finite())
        .with_columns(pl.when(pl.all_horizontal(pl.col(parts).is_not_null())).then(pl.col(parts)))
        .with_columns(
            pl.when(_is_positive(filled)).then("filled_quantity"),
            pl.when(_is_positive(sigma)).then("sigma_daily_bps"),
            status=pl.when("is_wrong")
            .then(pl.lit(Status.INVALID_INPUT))
            .when(~pl.col("is_settled"))
            .then(pl.lit(Status.NO_DATA))
            .when(pl.col("permanent_bps").is_null())
            .then(pl.lit(Status.NAN))
            .otherwise(pl.lit(Status.OK)),
            baseline_status=pl.when((pl.col("baseline_status") == Status.OK) & pl.col("baseline_bps").is_null())
            .then(pl.lit(Status.NAN))
            .otherwise("baseline_status"),
            ts_known=pl.max_horizontal("ts_known", pl.when("is_settled").then("ts_settled")),
        )
        .sort("ts_event", "order_id")
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(Impact).items())
    )


def impact_fit(impacts: pl.DataFrame, date: Date, params: ImpactParams = _DEFAULTS) -> pl.DataFrame:
    """Return the power law of each part of the impact, and whether it is better than the square-root law.

    Impact in daily volatilities is fitted as Y·(Q/V)^exponent by nonlinear least squares. A line through logarithms
    would leave out orders that the market paid for, about half of the small ones, and so make impact look large. In
    volatilities, the noise of a wild symbol weighs no more than that of a quiet one. Orders of a day share its market,
    so errors are clustered by day, and intervals are Student's with the days less one.

    The skill is out of time: on the last days, a fit to the days before them is held against the square-root law whose
    Y is fitted to the same days before, by squared error in volatilities. It is what the exponent gains, or loses.

    Almgren, Thum, Hauptmann and Li (2005) reject the square root for temporary impact, by trade rate, for a 3/5 power.

    Args:
        impacts: The trading `date` of each order, and `symbol participation sigma_daily_bps total_bps temporary_bps
            permanent_bps ts_known` of contract `Impact`, any row order. Rows with a null in what is fitted are left
            out.
        date: The trading date that the fits are of.
        params: What a fit needs, and which days judge it.

    Returns:
        Contract `ImpactFit`: three rows, by measure, for all orders, and three for those of each symbol. `status`:
        `no_data` without an order, `too_few` below `min_orders` or `min_days`, `constant` where sizes do not vary,
        `above_bound` where the best exponent is not between -1 and 2, so that size says nothing; `square_root_y`, at
        the exponent 1/2, stands in these last two cases too. `skill_status` likewise of the fit to the earlier days;
        also `too_few` below `min_orders` before or after the cut.
    """
    impacts = pl.concat([impacts.with_columns(symbol=pl.lit(None, pl.String)), impacts])
    groups = (
        impacts.group_by("symbol")
        .agg(pl.col("ts_known").max())
        .join(pl.DataFrame({"measure": [str(measure) for measure in ImpactMeasure]}), how="cross")
        .sort("symbol", "measure")
        .with_row_index("group")
    )
    rows = _observations(impacts, groups, params)
    counts = rows.group_by("group").agg(
        orders=pl.len(), days=pl.col("date").n_unique(), skill_orders=pl.col("is_last").sum()
    )
    groups = groups.join(counts, on="group", how="left").with_columns(pl.col(counts.columns[1:]).fill_null(0))
    enough = params.min_orders
    is_fitted = (pl.col("orders") >= enough) & (pl.col("days") >= params.min_days)
    is_judged = is_fitted & (pl.col("orders") - pl.col("skill_orders") >= enough) & (pl.col("skill_orders") >= enough)
    wanted, judged = (groups.filter(each).select("group") for each in (is_fitted, is_judged))
    return (
        groups.join(_laws(rows.join(wanted, on="group", how="semi"), params), on="group", how="left")
        .join(_skills(rows.join(judged, on="group", how="semi")), on="group", how="left")
        .sort("group")
        .with_columns(
            status=_fit_status(is_fitted, pl.col("status")), skill_status=_fit_status(is_judged, pl.col("skill_status"))
        )
        .with_columns(date=pl.lit(date))
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(ImpactFit).items())
    )


def _is_positive(value: pl.Expr) -> pl.Expr:
    return (value.is_finite() & (value > 0)).fill_null(value=False)


def _observations(impacts: pl.DataFrame, groups: pl.DataFrame, params: ImpactParams) -> pl.DataFrame:
    """Return `group date x y is_last` of what can be fitted, in one order whatever that of the impacts."""
    sigma = pl.col("sigma_daily_bps")
    measured = [
        impacts.select("symbol", "date", measure=pl.lit(str(each)), x="participation", y=pl.col(f"{each}_bps") / sigma)
        for each in ImpactMeasure
    ]
    day, days = pl.col("date").rank("dense").over("group"), pl.col("date").n_unique().over("group")
    return (
        pl.concat(measured)
        .filter(_is_positive(pl.col("x")), pl.col("y").is_finite(), pl.col("date").is_not_null())
        .join(groups, on=["symbol", "measure"], nulls_equal=True)
        .sort("group", "date", "x", "y")
        .select("group", "date", "x", "y", is_last=day > days - (days * params.holdout).ceil())
    )


def _fitted(rows: pl.DataFrame) -> tuple[pl.Series, Array, PowerLaw]:
    """Return the groups, which of them each row is of, and their laws."""
    group = rows.get_column("group").rle_id().to_numpy().astype(np.int64)
    y, x, day = (rows.get_column(name).to_physical().to_numpy() for name in ("y", "x", "date"))
    return rows.get_column("group").unique().sort(), group, _power_law.fit(y, x, group, day)


def _laws(rows: pl.DataFrame, params: ImpactParams) -> pl.DataFrame:
    groups, group, law = _fitted(rows)
    reach = _student_t.critical(params.confidence, law.days - 1)
    columns: dict[str, Array] = {}
    for name, value, error in (("y", law.factor, law.factor_error), ("exponent", law.exponent, law.exponent_error)):
        columns |= {name: value, f"{name}_low": value - reach * error, f"{name}_high": value + reach * error}
    laws = _known(pl.DataFrame({"group": groups, **columns}), law).rename({"found": "status"})
    y = pl.Series("square_root_y", _square_root_y(rows, group))
    return laws.with_columns(y.set(~y.is_finite(), None))


def _square_root_y(rows: pl.DataFrame, group: Array) -> Array:
    """Return the best factor of each group at the exponent 1/2."""
    y, x = (rows.get_column(name).to_numpy() for name in ("y", "x"))
    with np.errstate(all="ignore"):  # sums may overflow: null in the end
        best: Array = np.bincount(group, y * np.sqrt(x)) / np.bincount(group, x)
    return best


def _skills(rows: pl.DataFrame) -> pl.DataFrame:
    earlier, last = rows.filter(~pl.col("is_last")), rows.filter("is_last")
    groups, earlier_group, law = _fitted(earlier)
    square_root_y = _square_root_y(earlier, earlier_group)
    group = last.get_column("group").rle_id().to_numpy().astype(np.int64)
    y, x = (last.get_column(name).to_numpy() for name in ("y", "x"))
    with np.errstate(all="ignore"):  # a law may be none, and a baseline perfect: null in the end
        guesses = (law.at(x, group), square_root_y[group] * np.sqrt(x))
        error, baseline_error = (np.bincount(group, (y - guess) ** 2) for guess in guesses)
        skill = 1 - error / baseline_error
    return _known(pl.DataFrame({"group": groups, "skill": skill}), law).rename({"found": "skill_status"})


def _known(values: pl.DataFrame, law: PowerLaw) -> pl.DataFrame:
    """Return the values, all null where one is no number, and in `found` why."""
    is_finite = pl.all_horizontal(cs.float().is_finite())
    return values.with_columns(
        pl.when(is_finite).then(cs.float()),
        found=pl.when(is_finite)
        .then(pl.lit(Status.OK))
        .when(~pl.lit(pl.Series(law.is_varying)))
        .then(pl.lit(Status.CONSTANT))
        .when(pl.lit(pl.Series(np.isnan(law.exponent))))
        .then(pl.lit(Status.ABOVE_BOUND))
        .otherwise(pl.lit(Status.NAN)),
    )


def _fit_status(is_enough: pl.Expr, found: pl.Expr) -> pl.Expr:
    return (
        pl.when(pl.col("orders") == 0)
        .then(pl.lit(Status.NO_DATA))
        .when(is_enough)
        .then(found)
        .otherwise(pl.lit(Status.TOO_FEW))
    )
