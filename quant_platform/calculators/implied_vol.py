"""The volatility at which Black–Scholes–Merton gives an option's price, and the forward that calls and puts imply."""

from typing import NamedTuple

import numpy as np
import polars as pl

from quant_platform.calculators._european import Options, blocks, european, floats, picked, statuses, years_left
from quant_platform.calculators._normal import SQRT_2PI, Array, mills
from quant_platform.contracts.enums import GreeksSource, OptionType, Status

LOOKBACK_SESSIONS = 0

_BLOCK_ROWS = 4096  # what a block needs stays in the core's cache
_LEAST_TIME_VALUE = 1e-12
_STEPS_OF_ALL = 2
_CLOSE = 1e-4  # in the logarithm of a value: a step of fourth order from there ends in the last bits
_NOISE = 1e-15  # of a value near the forward, which is the difference of two numbers near 1
_MOST_STEPS = 100
_PARITY_STRIKES = 5
_FINE, _ABOVE, _BELOW, _WITHOUT = range(4)
_ABOVE_LINE = (0.0007422685639658671, 0.015746078128234045, -0.016375277307856696, 0.16622625192854232)
_BELOW_LINE = (0.0008853825937727072, 0.011208004759157165, 0.051672539140778254, -0.09830869347450938, 1.0)
"""A rational fit over nine standard deviations, highest powers first."""


def implied_vol(options: pl.DataFrame) -> pl.DataFrame:
    """Return the implied volatilities of European options on a spot.

    Args:
        options: `type` (C or P), `price spot strike` in quote currency, `t_years`, `rate dividend` per year as
            decimals; any number of underlyings, any row order. Of an option on a forward (Black-76) the spot is the
            forward and the dividend the rate.

    Returns:
        The same rows and columns with `iv`, per year as a decimal, and `status`; columns of these names are replaced.
        Null where the status is not `ok`: `expired`, `invalid_strike`, `invalid_spot`, `invalid_input` (what else is
        null or no number), `above_bound` (a call at or above the discounted spot, a put at or above the discounted
        strike), `below_intrinsic`, `no_time_value` (within 1e-12 of the larger of forward and strike of what exercise
        is worth), `nan` (a value overflows); the first that holds.
    """
    held = european(options)
    price = floats(options.get_column("price"))
    found, codes = np.empty(len(price)), np.empty(len(price), dtype=np.uint8)
    for block in blocks(len(price), _BLOCK_ROWS):
        found[block], codes[block] = _solved(Options(*(column[block] for column in held)), price[block])
    guards = (
        (~np.isfinite(price), Status.INVALID_INPUT),
        (codes == _ABOVE, Status.ABOVE_BOUND),
        (codes == _BELOW, Status.BELOW_INTRINSIC),
        (codes == _WITHOUT, Status.NO_TIME_VALUE),
    )
    return options.with_columns(pl.Series("iv", found, nan_to_null=True), statuses(held, np.isfinite(found), *guards))


def with_underlying(chain: pl.DataFrame) -> pl.DataFrame:
    """Return a chain with a price of the underlying: the venue's, else by put–call parity at the contract's expiry.

    Args:
        chain: Contract `OptionChain`, and beside it `rate` and `dividend` of the underlying per year as decimals.

    Returns:
        The same rows and columns. The price stays null where there is no forward, as `forwards` says.
    """
    lacking = chain.filter(pl.col("underlying_price").is_null())
    if lacking.is_empty():
        return chain
    key = ("symbol", "ts_event", "ts_expiry")
    found = forwards(lacking).select(*key, "forward")
    spot = pl.col("forward") * ((pl.col("dividend") - pl.col("rate")) * years_left()).exp()
    return (
        chain.join(found, on=key, how="left", maintain_order="left")
        .with_columns(underlying_price=pl.coalesce("underlying_price", spot))
        .drop("forward")
    )


@np.errstate(all="ignore")  # what is no number is no price
def with_volatility(chain: pl.DataFrame) -> pl.DataFrame:
    """Return a chain with a volatility for each contract: the venue's, else the one that its mid implies.

    Args:
        chain: Contract `OptionChain`, and beside it `rate` and `dividend` of the underlying per year as decimals.

    Returns:
        The same rows and columns with `iv` filled, `iv_source` (`venue` where the venue's is finite and above 0,
        `model` where it follows from the mid, else null, as `iv` then is), and `iv_status`: `ok`, `no_data` without a
        quote, `one_sided`, `crossed`, or what `implied_vol` says of the mid.
    """
    told, bid, ask = (floats(chain.get_column(name)) for name in ("iv", "bid", "ask"))
    is_told = (told > 0) & (told < np.inf)
    rows = np.flatnonzero(~is_told)
    mid = np.where((bid > 0) & (ask >= bid), (bid + ask) / 2, np.nan)[rows]
    lacking = (
        chain.lazy()
        .filter(pl.Series(~is_told))
        .select(*("type", "strike", "rate", "dividend"), spot="underlying_price", t_years=years_left())
    )
    found = implied_vol(lacking.collect(engine="in-memory").with_columns(price=mid))
    implied = floats(found.get_column("iv"))
    volatility = np.where(is_told, told, np.nan)
    volatility[rows] = implied
    is_void = np.isnan(bid[rows]), np.isnan(ask[rows])
    reasons = [~np.isnan(implied), is_void[0] & is_void[1], is_void[0] | is_void[1], bid[rows] > ask[rows]]
    words = pl.Series([Status.OK, Status.NO_DATA, Status.ONE_SIDED, Status.CROSSED], dtype=pl.String)
    sources = pl.Series([GreeksSource.VENUE, GreeksSource.MODEL, None], dtype=pl.String)
    status = np.zeros(len(told), dtype=np.int64)
    status[rows] = np.select(reasons, range(len(reasons)), default=len(reasons) + np.arange(len(rows)))
    source = np.where(is_told, 0, np.where(np.isnan(volatility), 2, 1))
    return chain.with_columns(
        pl.Series("iv", volatility, nan_to_null=True),
        picked(sources, source).alias("iv_source"),
        picked(words.append(found.get_column("status")), status).alias("iv_status"),
    )


@np.errstate(all="ignore")  # what cannot be solved ends as NaN, and so as null
def _solved(options: Options, price: Array) -> tuple[Array, Array]:
    """Return volatilities, NaN where there is none, and where the price stands against its bounds."""
    flag, spot, strike, t_years, rate, dividend = options
    spot_part, strike_part = spot * np.exp(-dividend * t_years), strike * np.exp(-rate * t_years)
    bound = np.where(flag > 0, spot_part, strike_part)
    intrinsic = np.maximum(flag * (spot_part - strike_part), 0)
    time_value = price - intrinsic
    least = _LEAST_TIME_VALUE * np.maximum(spot_part * np.exp(rate * t_years), strike)
    codes = np.full(len(price), _FINE, dtype=np.uint8)
    codes[time_value < least] = _WITHOUT
    codes[time_value <= -least] = _BELOW
    codes[price >= bound] = _ABOVE
    unit = np.sqrt(spot_part) * np.sqrt(strike_part)
    distance = np.abs(np.log(spot / strike) + (rate - dividend) * t_years)
    rows = np.flatnonzero((codes == _FINE) & (t_years > 0) & np.isfinite(unit * distance * time_value))
    found = np.full(len(price), np.nan)
    scale = unit[rows]
    found[rows] = _total_vol(distance[rows], time_value[rows] / scale, (bound - price)[rows] / scale)
    found /= np.sqrt(t_years)
    return found, codes


class _Search(NamedTuple):
    """Options whose σ√T is not found yet: what they are, and what is known of it.

    `bound` is what the value stays below. `goal` is the logarithm of the value, or of its room where `is_high`; `miss`
    is how far from it is close.
    """

    rows: Array
    distance: Array
    bound: Array
    goal: Array
    miss: Array
    is_high: Array
    vol: Array
    low: Array
    high: Array


def _total_vol(distance: Array, value: Array, room: Array) -> Array:
    """Return σ√T of options out of the money.

    Householder's steps of fourth order on the logarithm of the value, or of what it lacks to its bound, whichever is
    less. What has not closed in after two of them goes on alone, and halves its bracket where a step leaves it.

    Args:
        distance: |ln(forward/strike)|.
        value: Discounted value over the root of discounted forward · discounted strike, above 0.
        room: How far the value stands below its bound, in the same unit, above 0.
    """
    is_high = value > room
    goal = np.log(np.where(is_high, room, value))
    miss = _CLOSE + np.where(is_high, 0, _NOISE / value)
    vol = _first_guess(distance, value)
    found = np.empty_like(vol)
    search = _Search(
        np.arange(len(vol)),
        distance,
        np.exp(-0.5 * distance),
        goal,
        miss,
        is_high,
        vol,
        np.zeros_like(vol),
        np.full_like(vol, np.inf),
    )
    for number in range(1, _MOST_STEPS + 1):
        error, step = _householder(search)
        vol = search.vol
        is_above = (error > 0) ^ search.is_high
        low, high = np.where(is_above, search.low, vol), np.where(is_above, vol, search.high)
        stepped = vol + step
        is_outside = ~((stepped > low) & (stepped < high))
        is_left = ~(np.abs(error) < search.miss)
        if number >= _STEPS_OF_ALL:
            found[search.rows] = stepped
        if is_outside.any():
            stepped = np.where(is_outside, np.where(np.isinf(high), 2 * vol, 0.5 * (low + high)), stepped)
        search = search._replace(vol=stepped, low=low, high=high)
        if number >= _STEPS_OF_ALL:
            left = np.flatnonzero(is_left)
            search = _Search(*(column[left] for column in search))
            if not len(left):
                break
    found[search.rows] = np.nan
    return found


def _householder(search: _Search) -> tuple[Array, Array]:
    """Return by how much the logarithm misses its goal, and the step of fourth order towards it."""
    distance, vol, is_high = search.distance, search.vol, search.is_high
    h, half = distance / vol, 0.5 * vol
    z = np.empty((2, len(vol)))
    np.subtract(h, half, out=z[0])
    np.add(h, half, out=z[1])
    is_out = z[0] >= 0
    above, below = mills(np.abs(z, out=z))
    h *= h
    vega = np.exp(-0.5 * (h + half * half))
    vega *= 1 / SQRT_2PI
    part = vega * np.where(is_out, above - below, above + below)
    measured = np.where(is_out ^ is_high, part, search.bound - part)
    error = np.log(measured) - search.goal
    slope = np.where(is_high, -vega, vega) / measured
    second = h / vol - 0.5 * half
    third = second * second - 3 * h / (vol * vol) - 0.25
    newton = -error / slope
    bend = second - slope
    twist = third - 3 * second * slope + 2 * slope * slope
    return error, newton * (1 + 0.5 * bend * newton) / (1 + newton * (bend + twist * newton / 6))


def _first_guess(distance: Array, value: Array) -> Array:
    """Return σ√T where prices, not their logarithms, are normal; a second time with what the value lacks by that."""
    distance = np.maximum(distance, 1e-100)
    h = _normal_distance(distance / value)
    squared = np.minimum((distance / h) ** 2, 4)
    return distance / _normal_distance(distance / value * np.exp(-squared / 8) * (1 + squared / (12 + 4 * h * h)))


def _normal_distance(moneyness: Array) -> Array:
    """Return d at which distance/value of a normal option, d/(φ(d) - d·Q(d)), is the one given; within 1e-4 of it."""
    squared = 2 * np.log1p(1.2 * moneyness)
    v = np.sqrt(squared)
    squared *= _polynomial(_ABOVE_LINE, v)
    squared /= _polynomial(_BELOW_LINE, v)
    return squared


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value = coefficients[0] * x
    for coefficient in coefficients[1:-1]:
        value += coefficient
        value *= x
    value += coefficients[-1]
    return value


def forwards(chain: pl.DataFrame) -> pl.DataFrame:
    """Return the forward of each expiry by put–call parity: strike + (call - put) grown at the rate.

    It is the median over the five strikes at which the mids of call and put lie closest together, so that two stale or
    wrong quotes among them move nothing; of an even number of strikes, the mean of the middle two.

    Args:
        chain: `symbol ts_event ts_expiry type strike bid ask`, and `rate` per year as a decimal; any number of
            underlyings and snapshots, any row order. A contract without two quotes above 0, or with crossed ones, is
            left out.

    Returns:
        One row a symbol, ts_event and ts_expiry, sorted by them: `symbol ts_event ts_expiry forward strikes_used
        status`. The forward is null, with `expired` where no time is left, `no_valid_contracts` where no strike has
        both a call and a put quoted on both sides and a rate, else `ok`.
    """
    key = ("symbol", "ts_event", "ts_expiry")
    bid, ask, strike, rate = (pl.col(name) for name in ("bid", "ask", "strike", "rate"))
    is_quoted = (bid > 0) & (ask >= bid) & ask.is_finite() & (strike > 0) & strike.is_finite() & rate.is_finite()
    mids = chain.filter(is_quoted, years_left() > 0).select(
        *key, "strike", "type", mid=(bid + ask) / 2, growth=(rate * years_left()).exp()
    )
    calls, puts = (mids.filter(pl.col("type") == kind) for kind in (OptionType.CALL, OptionType.PUT))
    gap = pl.col("mid") - pl.col("mid_right")
    grown = strike + gap * pl.col("growth")
    found = (
        calls.join(puts, on=[*key, "strike"])
        .select(*key, "strike", gap=gap.abs(), forward=grown)
        .filter(pl.col("forward") > 0, pl.col("forward").is_finite())
        .group_by(key)
        .agg(
            pl.col("forward").sort_by("gap", "strike", "forward").head(_PARITY_STRIKES).median(),
            strikes_used=pl.len().clip(upper_bound=_PARITY_STRIKES).cast(pl.Int64),
        )
    )
    status = (
        pl.when(pl.col("forward").is_not_null())
        .then(pl.lit(Status.OK))
        .when(years_left() <= 0)
        .then(pl.lit(Status.EXPIRED))
        .otherwise(pl.lit(Status.NO_VALID_CONTRACTS))
    )
    return (
        chain.select(key)
        .unique()
        .join(found, on=key, how="left")
        .with_columns(pl.col("strikes_used").fill_null(0), status=status)
        .sort(key)
    )
