"""What the holders of an option chain are exposed to: gamma and delta by strike, and the flows of those who hedge.

Greeks are given; where the net gamma is zero, and the skew of volatilities, are computed elsewhere.
"""

import json
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from quant_platform.calculators.option_chain import Array, Chain, framed, run_starts, summed
from quant_platform.calculators.zero_gamma import Roots, ZeroGammaParams, zero_gammas
from quant_platform.contracts.dealer import DealerFlow, GammaExposure
from quant_platform.contracts.enums import DirectionalBias, SignConvention

LOOKBACK_SESSIONS = 0

_DAY_S = 86_400.0
_DIGITS = 9  # a share is rounded before it is held against the bias, which it may pass by its last bits
_EXPOSURES = ("gex_gross", "gex_net", "dex_gross", "dex_net")
_FLOWS = {"vanna": "per_vol_pt", "charm": "per_day", "gamma": "per_pct"}


@dataclass(frozen=True, kw_only=True)
class GammaExposureParams:
    """Which contracts count, and how the sums are read.

    Attributes:
        min_open_interest: Open interest, in contracts, below which a contract is skipped.
        bias: Beyond this |dex_net| ÷ dex_gross the chain is long or short.
        sign_convention: With `gross` no zero gamma is searched: gamma without a sign crosses zero nowhere.
        zero_gamma: Where it is searched.
    """

    min_open_interest: float = 5.0
    bias: float = 0.1
    sign_convention: SignConvention = SignConvention.DEALER_LONG_CALLS_SHORT_PUTS
    zero_gamma: ZeroGammaParams = field(default_factory=ZeroGammaParams)

    def __post_init__(self) -> None:
        if not self.min_open_interest >= 0:
            raise ValueError(f"min_open_interest must be >= 0, was {self.min_open_interest}")
        if not 0 <= self.bias < 1:
            raise ValueError(f"bias must be >= 0 and < 1, was {self.bias}")


@dataclass(frozen=True, kw_only=True)
class DealerFlowParams:
    """Which contracts count, and how volatility answers the underlying.

    Attributes:
        min_open_interest: Open interest, in contracts, below which a contract is skipped.
        max_expiry_days: Most days, of 86,400 s, left to a contract.
        min_seconds_left: A contract needs more than this left.
        vol_beta: Change of volatility, in points, that comes with +1 % of the underlying.
    """

    min_open_interest: float = 5.0
    max_expiry_days: float = 30.0
    min_seconds_left: float = 60.0
    vol_beta: float = -0.30

    def __post_init__(self) -> None:
        if not self.min_open_interest >= 0:
            raise ValueError(f"min_open_interest must be >= 0, was {self.min_open_interest}")
        if not 0 <= self.min_seconds_left < self.max_expiry_days * _DAY_S:
            raise ValueError(
                f"0 <= min_seconds_left < max_expiry_days must hold, were {self.min_seconds_left} s and "
                f"{self.max_expiry_days} days"
            )
        if not np.isfinite(self.vol_beta):
            raise ValueError(f"vol_beta must be a number, was {self.vol_beta}")


_GAMMA_DEFAULTS = GammaExposureParams()
_FLOW_DEFAULTS = DealerFlowParams()


@np.errstate(all="ignore")  # what is no number is skipped
def gamma_exposure(chain: Chain, params: GammaExposureParams = _GAMMA_DEFAULTS) -> pl.DataFrame:
    """Return gamma and delta exposure of each snapshot: by strike and expiry, by strike, and in all.

    Args:
        chain: Contracts with `strike expiry multiplier iv delta gamma open_interest`. A contract counts with type `C`
            or `P`, strike > 0, 0 < gamma <= 1, |delta| <= 1, open interest of at least `min_open_interest`,
            multiplier > 0, an expiry, and time left; else it is skipped and counted.
        params: What counts.

    Returns:
        Contract `GammaExposure`, by symbol, ts_event, strike and expiry, null first: the row over all of each
        snapshot, then each strike over all expiries, then by expiry. There are rows by strike only where a contract
        counts. Status of the row over all: `ok`; `invalid_spot` where `underlying_price` is no number above 0;
        `no_valid_contracts` where no contract counts. Zero gamma may be null where it is `ok`: without a contract
        with a volatility, a rate or a root. It rests on all contracts with a volatility, whatever greeks they have.
    """
    strike, expiry, gamma, delta = (chain.columns[name] for name in ("strike", "expiry", "gamma", "delta"))
    spot = chain.spots[chain.owner]
    units = chain.underlying_units(min_open_interest=params.min_open_interest)
    gex, dex = gamma * units * spot**2 * 0.01, delta * units * spot
    is_used = chain.is_listed() & (gamma > 0) & (gamma <= 1) & (np.abs(delta) <= 1) & np.isfinite(gex + dex)
    values = np.stack([gex, np.where(chain.is_put, -gex, gex), np.abs(dex), dex])

    owner, strike, expiry, cells = summed(values, chain.owner, strike, expiry, is_used=is_used)
    strike_owner, strikes, by_strike = summed(cells, owner, strike)
    totals = _of_chains(by_strike, strike_owner, chain.height)
    sums = np.concatenate([totals, by_strike, cells], axis=1)
    missing = np.full(chain.height + len(strikes), np.nan)
    rows = {
        "strike": np.concatenate([missing[: chain.height], strikes, strike]),
        "expiry": np.concatenate([missing, expiry]),
        **dict(zip(_EXPOSURES, sums, strict=True)),
    }
    of_chains = {
        **chain.counted(is_used),
        **_zero_gamma(chain, ~np.isnan(totals[0]), params),
        "max_gex_strike": _max_gex_strike(chain, strike_owner, strikes, by_strike[0]),
        "directional_bias": _bias(totals[3] / totals[2], params.bias),
    }
    owners = np.concatenate([np.arange(chain.height), strike_owner, owner])
    return framed(GammaExposure, chain, owners, rows, of_chains, sign_convention=params.sign_convention.value)


@np.errstate(all="ignore")  # what is no number is skipped
def dealer_flow(chain: Chain, params: DealerFlowParams = _FLOW_DEFAULTS) -> pl.DataFrame:
    """Return what holders of each snapshot's options must trade to stay hedged: by expiry, and in all.

    Args:
        chain: Contracts with `strike expiry multiplier iv gamma vanna charm_per_year open_interest`. A contract counts
            with type `C` or `P`, strike > 0, iv > 0, greeks that are numbers, open interest of at least
            `min_open_interest`, multiplier > 0, an expiry, and a time left within the parameters; else it is skipped
            and counted.
        params: What counts.

    Returns:
        Contract `DealerFlow`, by symbol, ts_event and expiry, null first. Status of the row over all: as in
        `gamma_exposure`.
    """
    expiry, volatility = chain.columns["expiry"], chain.columns["iv"]
    spot = chain.spots[chain.owner]
    units = chain.underlying_units(min_open_interest=params.min_open_interest)
    flows = np.stack(
        [
            chain.columns["vanna"] * units * 0.01,
            chain.columns["charm_per_year"] * units / 365,
            chain.columns["gamma"] * units * 0.01 * spot,
        ]
    )
    is_used = (
        chain.is_listed(min_seconds_left=params.min_seconds_left)
        & (chain.seconds_left <= params.max_expiry_days * _DAY_S)
        & (volatility > 0)
        & (volatility < np.inf)
        & np.isfinite(flows.sum(axis=0) * spot)
    )
    values = np.concatenate([flows, np.where(chain.is_put, -flows, flows), chain.columns["open_interest"][None]])

    owner, expiry, by_expiry = summed(values, chain.owner, expiry, is_used=is_used)
    owners = np.concatenate([np.arange(chain.height), owner])
    sums = np.concatenate([_of_chains(by_expiry, owner, chain.height), by_expiry], axis=1)
    rows = {
        "expiry": np.concatenate([np.full(chain.height, np.nan), expiry]),
        "open_interest": sums[-1],
        **_flow_columns(sums, chain.spots[owners], params.vol_beta),
    }
    return framed(DealerFlow, chain, owners, rows, chain.counted(is_used), vol_beta=params.vol_beta)


def _of_chains(sums: Array, owner: Array, count: int) -> Array:
    """Return the totals of each snapshot, sums × snapshots; NaN where it has nothing to sum."""
    totals = np.full((len(sums), count), np.nan)
    owners, found = summed(sums, owner)
    totals[:, owners] = found
    return totals


def _max_gex_strike(chain: Chain, owner: Array, strikes: Array, gross: Array) -> Array:
    """Return the strike of the largest gross exposure of each snapshot; of equal ones the nearest to the spot."""
    best = np.full(chain.height, np.nan)
    order = np.lexsort((strikes, np.abs(strikes - chain.spots[owner]), -gross, owner))
    first = order[run_starts(owner[order])]
    best[owner[first]] = strikes[first]
    return best


def _bias(share: Array, beyond: float) -> list[str | None]:
    """Return the bias that goes with each dex_net ÷ dex_gross; null where that is NaN."""
    share = np.round(share, _DIGITS)
    conditions = [share > beyond, share < -beyond, ~np.isnan(share)]
    words = np.select(conditions, [DirectionalBias.LONG, DirectionalBias.SHORT, DirectionalBias.NEUTRAL], default="")
    return [word or None for word in words.tolist()]


def _zero_gamma(chain: Chain, is_ok: Array, params: GammaExposureParams) -> dict[str, Array | list[str | None]]:
    """Return what is known of the zero gamma of each snapshot that is ok; the others have nulls."""
    if params.sign_convention == SignConvention.GROSS:
        roots = Roots(np.empty(0, dtype=np.int64), np.empty(0), np.zeros(chain.height, dtype=bool))
    else:
        roots = zero_gammas(chain, params.zero_gamma, min_open_interest=params.min_open_interest)
    is_known = roots.is_searched & is_ok
    order = np.lexsort((np.abs(roots.level - chain.spots[roots.owner]), roots.owner))
    first = order[run_starts(roots.owner[order])]
    nearest = np.full(chain.height, np.nan)
    nearest[roots.owner[first]] = roots.level[first]
    counts = np.bincount(roots.owner, minlength=chain.height)
    ends = np.cumsum(counts)
    texts = [
        json.dumps(roots.level[end - count : end].tolist()) if known else None
        for end, count, known in zip(ends, counts, is_known, strict=True)
    ]
    reach = params.zero_gamma.reach
    return {
        "zero_gamma": np.where(is_known, nearest, np.nan),
        "zero_gamma_count": np.where(is_known, counts, np.nan),
        "zero_gammas": texts,
        "zero_gamma_from": np.where(is_known, chain.spots * (1 - reach), np.nan),
        "zero_gamma_to": np.where(is_known, chain.spots * (1 + reach), np.nan),
    }


def _flow_columns(sums: Array, spot: Array, vol_beta: float) -> dict[str, Array]:
    """Return the columns of flows; `sums` holds vanna, charm and gamma, then their net."""
    columns = {}
    for number, (name, unit) in enumerate(_FLOWS.items()):
        for part, shares in ((name, sums[number]), (f"{name}_net", sums[number + len(_FLOWS)])):
            columns[f"{part}_shares_{unit}"] = shares
            columns[f"{part}_notional_{unit}"] = shares * spot
    shares = columns["gamma_shares_per_pct"] + columns["vanna_shares_per_vol_pt"] * vol_beta
    return columns | {"shares_per_pct_move": shares, "notional_per_pct_move": shares * spot}
