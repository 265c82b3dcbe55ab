"""Snapshots of option chains as arrays, each contract once: made once, for all that is computed from them.

What that is belongs to the calculators; here is what they share, also for the rows that come out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_platform.calculators._european import floats, picked
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
_Key = tuple[str, int]  # symbol, and ts_event in UTC ns
_NS = 1e9


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
    last = {key: row for row, key in enumerate(_keys(snapshots, np.arange(snapshots.height)))}
    rows = [last[key] for key in sorted(last)]
    places = {key: place for place, key in enumerate(sorted(last))}
    starts = _run_starts(contracts)
    owners = np.array([places.get(key, -1) for key in _keys(contracts, starts)], dtype=np.int64)
    owner = np.repeat(owners, np.diff(starts, append=contracts.height))
    is_kept = _is_kept(contracts, owner, starts, owners)
    kind = contracts.get_column("type")
    found = {
        "is_call": floats(kind == OptionType.CALL) == 1,
        "is_put": floats(kind == OptionType.PUT) == 1,
        "seconds_left": _ns_left(contracts) / _NS,
        **{name: floats(contracts.get_column(name)) for name in NUMBERS if name in contracts.columns},
    }
    if not is_kept.all():
        owner, found = owner[is_kept], {name: values[is_kept] for name, values in found.items()}
    return Chain(
        pl.DataFrame([picked(snapshots.get_column(name), rows) for name in _LABELS]),
        {name: floats(snapshots.get_column(name))[rows] for name in snapshots.columns if name not in _LABELS},
        owner,
        found.pop("is_call"),
        found.pop("is_put"),
        found.pop("seconds_left"),
        found,
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
    starts = _run_starts(chain)
    places: dict[_Key, int] = {}
    owners = np.array([places.setdefault(key, len(places)) for key in _keys(chain, starts)], dtype=np.int64)
    received = np.full(len(places), np.datetime64("NaT", "ns"))
    np.fmax.at(received, owners, np.fmax.reduceat(chain.get_column("ts_recv").to_numpy(), starts))
    first = starts[np.unique(owners, return_index=True)[1]]
    heads = {name: picked(chain.get_column(name), first) for name in (*_KEY, "ts_recv", "rate", "dividend")}
    return pl.DataFrame(
        {
            **{name: heads[name] for name in _KEY},
            "ts_known": pl.Series(received).cast(heads["ts_recv"].dtype),
            "underlying_price": pl.Series(_spots(chain, starts, owners, len(places)), nan_to_null=True),
            "rate": heads["rate"],
            "dividend": heads["dividend"],
        }
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
    rows: Mapping[str, Array | pl.Series],
    of_chains: Mapping[str, Array | list[str | None]],
    **same: str | float,
) -> pl.DataFrame:
    """Return the contract's rows by snapshot, strike and expiry, null first.

    Args:
        contract: Whose columns.
        chain: Whose snapshots.
        owner: The snapshot of each row; at the start each once, in order: the rows of whole snapshots.
        rows: Columns of all rows, numbers NaN where null; `strike` and `expiry`, in days since 1970, are keys.
        of_chains: Columns of the rows of whole snapshots, one value a snapshot: numbers, NaN where null, or texts. The
            other rows have null there, and `ok` as `status`.
        same: Columns that are the same in all rows.
    """
    keys = [np.nan_to_num(np.asarray(rows[name]), nan=-np.inf) for name in ("expiry", "strike") if name in rows]
    order = np.lexsort((*keys, owner))
    is_whole = order < chain.height
    place = np.where(is_whole, order, chain.height)
    found = {name: picked(chain.labels.get_column(name), owner[order]) for name in _LABELS}
    found |= {name: pl.Series(name, values[order], nan_to_null=True) for name, values in rows.items()}
    for name, values in of_chains.items():
        if isinstance(values, list):
            other = Status.OK.value if name == "status" else None
            found[name] = picked(pl.Series(name, [*values, other], dtype=pl.String), place)
        else:
            spread = np.full(len(order), np.nan)
            spread[is_whole] = values
            found[name] = pl.Series(name, spread, nan_to_null=True)
    found |= {name: pl.Series(name, [value]).new_from_index(0, len(order)) for name, value in same.items()}
    return pl.DataFrame([_cast(found[name], dtype) for name, dtype in polars_schema(contract).items()])


def _cast(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    if values.dtype == dtype:
        return values
    return (values.cast(pl.Int32) if dtype == pl.Date else values).cast(dtype)


def _ns_left(contracts: pl.DataFrame) -> Array:
    """Return the time from each snapshot to settlement in ns, NaN where either is null."""
    return floats((contracts.get_column("ts_expiry") - contracts.get_column("ts_event")).cast(pl.Int64))


def _run_starts(contracts: pl.DataFrame) -> Array:
    """Return the first row of each run of rows of one snapshot; chains come in runs."""
    symbol, ts_event = (contracts.get_column(name) for name in _KEY)
    return run_starts(symbol.hash().to_numpy(), ts_event.to_numpy())


def _keys(contracts: pl.DataFrame, rows: Array) -> list[_Key]:
    symbol, ts_event = (picked(contracts.get_column(name), rows) for name in _KEY)
    return list(zip(symbol.to_list(), ts_event.cast(pl.Int64).to_list(), strict=True))


def _spots(chain: pl.DataFrame, starts: Array, owners: Array, count: int) -> Array:
    """Return the price of the underlying in each snapshot; NaN where no contract that is not settled tells one."""
    left, price = _ns_left(chain), floats(chain.get_column("underlying_price"))
    left = np.where((left > 0) & ~np.isnan(price), left, np.inf)
    nearest = np.full(count, np.inf)
    np.minimum.at(nearest, owners, np.minimum.reduceat(left, starts))
    owner = np.repeat(owners, np.diff(starts, append=chain.height))
    rows = np.flatnonzero((left == nearest[owner]) & (left < np.inf))
    rows = rows[np.lexsort((price[rows], owner[rows]))]
    starts = run_starts(owner[rows])
    counts = np.diff(starts, append=len(rows))
    spots = np.full(count, np.nan)
    spots[owner[rows[starts]]] = (price[rows[starts + (counts - 1) // 2]] + price[rows[starts + counts // 2]]) / 2
    return spots


def _is_kept(contracts: pl.DataFrame, owner: Array, starts: Array, owners: Array) -> Array:
    """Return which rows belong to a snapshot, and are the last of their contract in it."""
    is_kept = owner >= 0
    name = contracts.get_column("contract")
    is_next = np.ones(len(owner), dtype=bool)
    is_next[1:] = floats(name[1:] > name[:-1]) == 1
    is_next[starts] = True
    if not is_next.all() or len(np.unique(owners)) < len(owners):  # not by name: a contract may be there again
        rows = contracts.select("contract", owner_=owner, row_=pl.int_range(pl.len()))
        last = rows.unique(["owner_", "contract"], keep="last").get_column("row_").to_numpy()
        is_last = np.zeros(len(owner), dtype=bool)
        is_last[last] = True
        is_kept &= is_last
    return is_kept
