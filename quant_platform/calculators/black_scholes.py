"""What European options are worth and how that moves: Black–Scholes–Merton on a spot, Black-76 on a forward.

Per 1.00: delta and gamma of the underlying, vega and vanna of volatility, rho of the rate at a given dividend yield.
Per calendar year that passes: theta and charm. A volatility of 20 % is 0.2, a rate of 3 % is 0.03, compounded
continuously.
"""

import numpy as np
import polars as pl

from quant_platform.calculators._european import Options, blocks, european, floats, picked, statuses, years_left
from quant_platform.calculators._normal import Array, density, distribution
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import GreeksSource, Status
from quant_platform.contracts.options import OptionGreeks

LOOKBACK_SESSIONS = 0

VALUES = ("price", "delta", "gamma", "vega", "theta_per_year", "rho", "vanna", "charm_per_year")

_BLOCK_ROWS = 4096  # what a block needs stays in the core's cache
_VOL_POINTS = 100.0
_DAYS_PER_YEAR = 365.0


def greeks(options: pl.DataFrame) -> pl.DataFrame:
    """Return Black–Scholes–Merton values of European options on a spot.

    Args:
        options: `type` (C or P), `spot strike` in quote currency, `t_years`, `iv rate dividend` per year as decimals;
            any number of underlyings, any row order.

    Returns:
        The same rows and columns with `price delta gamma vega theta_per_year rho vanna charm_per_year status`; columns
        of these names are replaced. Values are null where the status is not `ok`: `expired` (t_years <= 0),
        `invalid_strike`, `invalid_spot`, `invalid_vol` (null, NaN, infinite, zero or negative), `invalid_input` (what
        else is null or no number), `nan` (a value overflows); the first that holds.
    """
    return _valued(options, options, is_on_forward=False)


def greeks_of_forward(options: pl.DataFrame) -> pl.DataFrame:
    """Return Black-76 values of European options on a forward or a future.

    Args:
        options: As for `greeks`, but `forward` in place of `spot` and no `dividend`.

    Returns:
        As `greeks` does: delta, gamma, vanna and charm are of the forward, rho at a given forward. A forward that is
        null, no number, zero or negative is `invalid_spot`.
    """
    return _valued(options, options.with_columns(spot="forward", dividend="rate"), is_on_forward=True)


@np.errstate(all="ignore")  # what is no number is no greek
def chain_greeks(chain: pl.DataFrame) -> pl.DataFrame:
    """Return the greeks of each contract of a chain: the venue's where they can be, else the model's.

    Args:
        chain: Contract `OptionChain` with the volatilities, `iv_source` and `iv_status` of
            `implied_vol.with_volatility`, and beside it `rate` and `dividend` of the underlying per year as decimals;
            any number of underlyings and snapshots, any row order.

    Returns:
        Contract `OptionGreeks`, one row a contract and snapshot, in the order of the chain. The source is the venue
        where its delta has the sign of the type and is within [-1, 1], and its gamma is in (0, 1]; its vega (>= 0) and
        theta then win too where it gives them, turned into units per 1.00 vol and per year. What a venue says of an
        expired contract, or of one with an invalid strike or without a price of the underlying, counts for nothing.
        Without a volatility the status is why there is none.
    """
    held = chain.with_columns(t_years=years_left(), spot="underlying_price", ts_known="ts_recv")
    found = greeks(held)
    model = {name: floats(found.get_column(name)) for name in ("delta", "gamma", "vega", "theta_per_year")}
    delta, gamma, vega, theta = (floats(chain.get_column(name)) for name in ("delta", "gamma", "vega", "theta"))
    status = found.get_column("status")
    is_ok, is_without_vol = ((status == word).to_numpy() for word in (Status.OK, Status.INVALID_VOL))
    along = delta * european(held).flag
    is_venue = (along >= 0) & (along <= 1) & (gamma > 0) & (gamma <= 1) & (is_ok | is_without_vol)
    is_vega, is_theta = is_venue & (vega >= 0) & (vega < np.inf), is_venue & np.isfinite(theta)
    values = {
        "delta": np.where(is_venue, delta, model["delta"]),
        "gamma": np.where(is_venue, gamma, model["gamma"]),
        "vega": np.where(is_vega, vega * _VOL_POINTS, model["vega"]),
        "theta_per_year": np.where(is_theta, theta * _DAYS_PER_YEAR, model["theta_per_year"]),
    }
    sources = pl.Series("source", [GreeksSource.VENUE, GreeksSource.MODEL, None], dtype=pl.String)
    columns = [
        *(pl.Series(name, value, nan_to_null=True) for name, value in values.items()),
        found.get_column("price").alias("model_price"),
        picked(sources, np.where(is_venue, 0, np.where(is_ok, 1, 2))),
        status.zip_with(pl.Series(~is_without_vol), found.get_column("iv_status")),
    ]
    return found.with_columns(columns).select(polars_schema(OptionGreeks).names())


@np.errstate(all="ignore")  # what cannot be valued ends as NaN, and so as null
def _valued(rows: pl.DataFrame, held: pl.DataFrame, *, is_on_forward: bool) -> pl.DataFrame:
    """Return `rows` with the values of `held`, which says the same in the words of `greeks`."""
    options, vol = european(held), floats(held.get_column("iv"))
    values, is_ok = np.empty((len(VALUES), len(vol))), np.empty(len(vol), dtype=bool)
    for block in blocks(len(vol), _BLOCK_ROWS):
        part = values[:, block]
        _fill(part, Options(*(column[block] for column in options)), vol[block], is_on_forward=is_on_forward)
        is_ok[block] = np.isfinite(part.sum(axis=0)) & (vol[block] > 0)
    is_ok &= (options.spot > 0) & (options.strike > 0)
    values[:, ~is_ok] = np.nan
    return rows.with_columns(
        *(pl.Series(name, column, nan_to_null=True) for name, column in zip(VALUES, values, strict=True)),
        statuses(options, is_ok, (~(np.isfinite(vol) & (vol > 0)), Status.INVALID_VOL)),
    )


def _fill(values: Array, options: Options, vol: Array, *, is_on_forward: bool) -> None:
    flag, spot, strike, t_years, rate, dividend = options
    root = np.sqrt(t_years)
    total_vol = vol * root
    carry = (rate - dividend) * t_years
    per_total_vol = 1 / total_vol
    d = np.empty((2, len(vol)))
    d[0] = (np.log(spot / strike) + carry) * per_total_vol + 0.5 * total_vol
    np.subtract(d[0], total_vol, out=d[1])
    phi = density(d)
    half_d_2 = 0.5 * d[1]
    d *= flag
    probability = distribution(d, phi)
    discounted = np.exp(-dividend * t_years)
    price, delta, gamma, vega, theta, rho, vanna, charm = values
    np.multiply(flag * discounted, probability[0], out=delta)
    discounted *= phi[0]
    strike_part = flag * strike * np.exp(-rate * t_years) * probability[1]
    spot_part = spot * delta
    np.maximum(spot_part - strike_part, 0, out=price)
    np.multiply(discounted / spot, per_total_vol, out=gamma)
    per_vol = spot * discounted
    np.multiply(per_vol, root, out=vega)
    np.subtract(dividend * spot_part - rate * strike_part, per_vol * vol / (2 * root), out=theta)
    np.multiply(t_years, -price if is_on_forward else strike_part, out=rho)
    np.multiply(discounted * half_d_2, -2 / vol, out=vanna)
    np.subtract(dividend * delta, discounted * (carry * per_total_vol - half_d_2) / t_years, out=charm)
