"""Snapshots of option chains as arrays, each contract once: made once, for all that is computed from them.

What that is belongs to the calculators; here is what they share, also for the rows that come out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_platform.contracts._schema import Contract, polars_schema
from quant_platform.contracts.enums import OptionType, Status

Array = npt.NDArray[Any]

SECONDS_PER_YEAR = 365 * 86_400.0

NUMBERS = (
    "strike",
    "expiry",
    "multiplier",
    "iv",
    "delta",
    "gamma",
    "vanna",
    "charm_per_year",
    "open_interest",
)
"""Columns of contracts that calculators read; dates are days since 1970."""

_KEY = ["symbol", "ts_event"]
_LABELS = [*_KEY, "ts_known"]
_NS = 1e9
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # parts one contract's hash in two snapshots


class Chain(NamedTuple):
    """The contracts of any number of snapshots, one value a contract where nothing else is said.

    Attributes:
        labels: `symbol ts_event ts_known` of each snapshot, by symbol and ts_event.
        of_snapshots: Numbers of each snapshot, by name; NaN where null.
        owner: The row of `labels` that the contract belongs to.
        is_call: Whether it is a call.
        is_put: Whether it is a put.
        seconds_left: From the snapshot to settlement; NaN where either is null.
        columns: Numbers, by name; NaN where null. Dates are days since 1970.
    """

    labels: pl.DataFrame
    of_snapshots: Mapping[str, Array]
    owner: Array
    is_call: Array
    is_put: Array
    seconds_left: Array
    columns: Mapping[str, Array]

    @property
    def height(self) -> int:
        """How many snapshots there are."""
        return self.labels.height

    @property
    def spots(self) -> Array:
        """Price of the underlying in each snapshot; NaN unless it is finite and above 0."""
        spots = self.of_snapshots["underlying_price"]
        return np.where(np.isfinite(spots) & (spots > 0), spots, np.nan)

    def is_listed(self, *, min_seconds_left: float = 0.0) -> Array:
        """Return which contracts have a type, an expiry, a strike above 0, and more than that time left."""
        strike = self.columns["strike"]
        return (
            (self.is_call | self.is_put)
            & (strike > 0)
            & (strike < np.inf)
            & ~np.isnan(self.columns["expiry"])
            & (self.seconds_left > min_seconds_left)
        )

    def underlying_units(self, *, min_open_interest: float) -> Array:
        """Return the open interest of each contract in units of the underlying: open interest · multiplier.

        NaN where either is no number, the open interest is below `min_open_interest` or the multiplier not above 0,
        and in a snapshot without a price of the underlying.
        """
        interest, multiplier = self.columns["open_interest"], self.columns["multiplier"]
        units = interest * multiplier
        is_held = (interest >= min_open_interest) & (multiplier > 0) & (units < np.inf)
        return np.where(is_held & ~np.isnan(self.spots)[self.owner], units, np.nan)

    def counted(self, is_used: Array) -> dict[str, Array | list[str | None]]:
        """Return of each snapshot its price, how many contracts are used, how many are not, and its status."""
        used = np.bincount(self.owner[is_used], minlength=self.height)
        unused = np.where(np.isnan(self.spots), Status.INVALID_SPOT.value, Status.NO_VALID_CONTRACTS.value)
        return {
            "underlying_price": self.spots,
            "contracts_used": used,
            "contracts_skipped": np.bincount(self.owner, minlength=self.height) - used,
            "status": np.where(used > 0, Status.OK.value, unused).tolist(),
        }


def option_chain(snapshots: pl.DataFrame, contracts: pl.DataFrame) -> Chain:
    """Return the contracts of the snapshots; contracts of no snapshot are left out.

    Args:
        snapshots: `symbol ts_event ts_known underlying_price rate dividend`, one row for each snapshot that was taken,
            also of an empty chain; any number of underlyings, any row order. Rates are continuous, per year. Of two
            rows of one snapshot the later counts.
        contracts: `symbol ts_event contract type ts_expiry`, and of `NUMBERS` what the calculators need; one row a
            contract of a snapshot, any row order. Of two rows of one contract in a snapshot the later counts: feeds
            give rows in order of receipt. A multiplier is what a contract holds of the underlying, also of an adjusted
            one, which is a contract of its own. Vanna is for 1.00 of volatility.
    """
    snapshots = (
        snapshots.lazy()
        .unique(_KEY, keep="last", maintain_order=True)
        .sort(_KEY)
        .select(*_LABELS, pl.exclude(_LABELS).cast(pl.Float64))
        .collect(engine="in-memory")
    )
    found = contracts.select(
        *(pl.col(name).to_physical().cast(pl.Float64) for name in NUMBERS if name in contracts.columns),
        ns_left_=(pl.col("ts_expiry").to_physical() - pl.col("ts_event").to_physical()).cast(pl.Float64),
        is_call_=(pl.col("type") == OptionType.CALL).fill_null(value=False),
        is_put_=(pl.col("type") == OptionType.PUT).fill_null(value=False),
        hash_=pl.col("contract").hash(),
        run_=pl.sum_horizontal(pl.col(name).rle_id().cast(pl.Int64) for name in _KEY),
    )
    arrays = {name: found.get_column(name).to_numpy() for name in found.columns}
    owner = _owner(snapshots, contracts, arrays.pop("run_"))
    is_kept = _is_kept(contracts, owner, arrays.pop("hash_"))
    if not is_kept.all():
        owner, arrays = owner[is_kept], {name: values[is_kept] for name, values in arrays.items()}
    return Chain(
        snapshots.select(_LABELS),
        {name: snapshots.get_column(name).to_numpy() for name in snapshots.columns if name not in _LABELS},
        owner,
        arrays.pop("is_call_"),
        arrays.pop("is_put_"),
        arrays.pop("ns_left_") / _NS,
        arrays,
    )


def chain_snapshots(chain: pl.DataFrame) -> pl.DataFrame:
    """Return what is true of each whole snapshot: when it was known, and the price of the underlying.

    Args:
        chain: `symbol ts_event ts_expiry ts_recv underlying_price` of contract `OptionChain`, receipt filled, and `rate
            dividend` of the underlying; any number of underlyings and snapshots, any row order.

    Returns:
        `symbol ts_event ts_known underlying_price rate dividend`, one row a snapshot. Where a venue prices each expiry
        by a forward of its own, the price is that of the settlement that comes next, the nearest to a spot there is;
        of several prices told for it, their median.
    """
    is_ahead = (pl.col("ts_expiry") > pl.col("ts_event")) & pl.col("underlying_price").is_not_null()
    spot = (
        chain.filter(is_ahead)
        .filter(pl.col("ts_expiry") == pl.col("ts_expiry").min().over(_KEY))
        .group_by(_KEY)
        .agg(pl.col("underlying_price").median())
    )
    return (
        chain.group_by(_KEY, maintain_order=True)
        .agg(pl.col("ts_recv").max().alias("ts_known"), pl.col("rate", "dividend").first())
        .join(spot, on=_KEY, how="left", maintain_order="left")
        .select(*_LABELS, "underlying_price", "rate", "dividend")
    )


def run_starts(*keys: Array) -> Array:
    """Return the first row of each run of rows that have the same keys; rows of one key stand together."""
    is_start = np.ones(len(keys[0]), dtype=bool)
    is_start[1:] = keys[0][1:] != keys[0][:-1]
    for key in keys[1:]:
        is_start[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(is_start)


def summed(values: Array, *keys: Array, is_used: Array | None = None) -> list[Array]:
    """Return each combination of keys, sorted, the first key first, and last the sums of its values.

    Args:
        values: Sums × rows.
        keys: One value a row each.
        is_used: Which rows count; None: all.
    """
    rows = np.arange(values.shape[1]) if is_used is None else np.flatnonzero(is_used)
    rows = rows[np.lexsort([key[rows] for key in keys[::-1]])]
    keys = tuple(key[rows] for key in keys)
    starts = run_starts(*keys)
    return [*(key[starts] for key in keys), np.add.reduceat(values.take(rows, axis=1), starts, axis=1)]


def framed(
    contract: type[Contract],
    chain: Chain,
    owner: Array,
    rows: Mapping[str, Array],
    of_chains: Mapping[str, Array | list[str | None]],
    **computed: pl.Expr,
) -> pl.DataFrame:
    """Return the contract's rows by snapshot, strike and expiry, null first.

    Args:
        contract: Whose columns.
        chain: Whose snapshots.
        owner: The snapshot of each row; at the start each once, in order: the rows of whole snapshots.
        rows: Columns of all rows, NaN where null; `strike` and `expiry`, in days since 1970, are keys.
        of_chains: Columns of the rows of whole snapshots, one value a snapshot: numbers, NaN where null, or texts. The
            other rows have null there, and `ok` as `status`.
        computed: Columns that follow from the others, or are the same in all rows.
    """
    keys = [np.nan_to_num(rows[name], nan=-np.inf) for name in ("expiry", "strike") if name in rows]
    order = np.lexsort((*keys, owner))
    is_whole = order < chain.height
    place = np.where(is_whole, order, chain.height)
    columns = [pl.Series(name, values[order], nan_to_null=True) for name, values in rows.items()]
    for name, values in of_chains.items():
        if isinstance(values, list):
            other = Status.OK.value if name == "status" else None
            columns.append(pl.Series(name, [*values, other], dtype=pl.String)[place])
        else:
            columns.append(pl.Series(name, np.append(values, np.nan)[place], nan_to_null=True))
    found = chain.labels[owner[order]].hstack(columns)
    given = found.schema
    return found.select(
        computed[name].alias(name) if name in computed else _cast(name, given[name], dtype)
        for name, dtype in polars_schema(contract).items()
    )


def _cast(name: str, given: pl.DataType, dtype: pl.DataType) -> pl.Expr:
    if given == dtype:
        return pl.col(name)
    return (pl.col(name).cast(pl.Int32) if dtype == pl.Date else pl.col(name)).cast(dtype)


def _owner(snapshots: pl.DataFrame, contracts: pl.DataFrame, run: Array) -> Array:
    """Return the snapshot of each contract, or -1; looked up once for each run of rows, as chains come in runs."""
    starts = run_starts(run)
    heads = contracts[_KEY][starts].join(
        snapshots[_KEY].hstack([pl.Series("owner_", np.arange(snapshots.height))]),
        on=_KEY,
        how="left",
        maintain_order="left",
    )
    found = heads.get_column("owner_").fill_null(-1).to_numpy()
    return np.repeat(found, np.diff(starts, append=contracts.height))


def _is_kept(contracts: pl.DataFrame, owner: Array, hashes: Array) -> Array:
    """Return which rows belong to a snapshot, and are the last of their contract in it."""
    is_kept = owner >= 0
    identity = np.sort(hashes ^ (owner.astype(np.uint64) * _SPREAD))
    if (identity[1:] == identity[:-1]).any():  # a contract again, or two of one hash
        rows = contracts.select("contract", owner_=owner, row_=pl.int_range(pl.len()))
        last = rows.unique(["owner_", "contract"], keep="last").get_column("row_").to_numpy()
        is_last = np.zeros(len(owner), dtype=bool)
        is_last[last] = True
        is_kept &= is_last
    return is_kept
