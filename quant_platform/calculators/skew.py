"""The skew of implied volatilities: puts against calls of one |delta|. Whole surfaces are fitted elsewhere."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from quant_platform.calculators._european import picked
from quant_platform.calculators.option_chain import Array, Chain, framed, run_starts
from quant_platform.contracts.dealer import Skew
from quant_platform.contracts.enums import Status

LOOKBACK_SESSIONS = 0

_SIDE = ("strike", "delta", "iv")
_DIGITS = 12  # distances of deltas are rounded: decimals as far from the target on either side are so only up to that


@dataclass(frozen=True, kw_only=True)
class SkewParams:
    """Which call and put are compared.

    Attributes:
        target: |delta| that both should have.
        tolerance: How far from it a |delta| may be.
    """

    target: float = 0.25
    tolerance: float = 0.10

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise ValueError(f"target must be > 0 and < 1, was {self.target}")
        if not 0 <= self.tolerance < self.target:
            raise ValueError(f"tolerance must be >= 0 and < target, was {self.tolerance}")


_DEFAULTS = SkewParams()


def skew(chain: Chain, params: SkewParams = _DEFAULTS) -> pl.DataFrame:
    """Return the skew of each expiry of each snapshot, and of each snapshot that of its nearest expiry that has one.

    Args:
        chain: Contracts with `strike expiry iv delta`. A contract is a candidate with type `C` or `P`, strike > 0,
            iv > 0, a delta, an expiry, and time left.
        params: What is compared.

    Returns:
        Contract `Skew`, by symbol, ts_event and expiry, null first: the headline row of each snapshot, then each
        expiry with a candidate. Of candidates equally far from the target the one whose strike is nearer to the
        price of the underlying is taken, then the lower strike. Status: `ok`; `one_sided` without a call or a put
        near enough; `no_valid_contracts` without both; that of the headline row where no expiry is `ok`: `one_sided`
        if any expiry is.
    """
    expiry, volatility = chain.columns["expiry"], chain.columns["iv"]
    is_candidate = chain.is_listed() & (volatility > 0) & (volatility < np.inf) & np.isfinite(chain.columns["delta"])
    rows = np.flatnonzero(is_candidate)
    rows = rows[np.lexsort((expiry[rows], chain.owner[rows]))]
    starts = run_starts(chain.owner[rows], expiry[rows])
    slice_ = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rows)))
    found = {
        f"{side}_{name}": values
        for side, is_side in (("call", chain.is_call), ("put", chain.is_put))
        for name, values in _nearest(chain, rows, slice_, is_side=is_side, params=params, slices=len(starts)).items()
    }
    found |= {
        "skew": found["put_iv"] - found["call_iv"],
        "skew_ratio": found["put_iv"] / found["call_iv"] - 1,
        "expiry": expiry[rows][starts],
    }
    return _with_headlines(chain, chain.owner[rows][starts], found)


def _nearest(
    chain: Chain,
    rows: Array,
    slice_: Array,
    *,
    is_side: Array,
    params: SkewParams,
    slices: int,
) -> dict[str, Array]:
    """Return of each slice, an expiry of a snapshot, the columns of the contract nearest to the target; NaN if none."""
    distance = np.round(np.abs(np.abs(chain.columns["delta"]) - params.target), _DIGITS)
    is_near = (is_side & (distance <= params.tolerance))[rows]
    rows, slice_ = rows[is_near], slice_[is_near]
    strike = chain.columns["strike"][rows]
    order = np.lexsort((strike, np.abs(strike - chain.spots[chain.owner[rows]]), distance[rows], slice_))
    first = order[run_starts(slice_[order])]
    found = {}
    for name in _SIDE:
        found[name] = np.full(slices, np.nan)
        found[name][slice_[first]] = chain.columns[name][rows[first]]
    return found


def _with_headlines(chain: Chain, owner: Array, found: dict[str, Array]) -> pl.DataFrame:
    """Return the rows of expiries, sorted by snapshot and expiry, and those of the snapshots."""
    has_call, has_put = ~np.isnan(found["call_iv"]), ~np.isnan(found["put_iv"])
    sides = has_call.astype(int) + has_put
    count = chain.height
    most = np.zeros(count, dtype=int)
    np.maximum.at(most, owner, sides)
    both = np.flatnonzero(sides == 2)
    nearest = both[run_starts(owner[both])]
    rows = {}
    for name, values in found.items():
        headline = np.full(count, np.nan)
        headline[owner[nearest]] = values[nearest]
        rows[name] = np.concatenate([headline, values])
    headlines: dict[str, Array | list[str | None]] = {"headline_expiry": rows["expiry"][:count].copy()}
    rows["expiry"][:count] = np.nan
    words = pl.Series([Status.NO_VALID_CONTRACTS.value, Status.ONE_SIDED.value, Status.OK.value])
    status = picked(words, np.concatenate([most, sides]))
    owners = np.concatenate([np.arange(count), owner])
    return framed(Skew, chain, owners, {**rows, "status": status}, headlines)
