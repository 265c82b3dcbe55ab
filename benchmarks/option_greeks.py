"""Claim: greeks and implied volatilities of 100,000 contracts in a fraction of what py_vollib_vectorized needs."""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _harness import Measurement, PeerNotInstalledError, Result, Verdict, Worker, interleaved, peer_python

CONTRACTS = 100_000
PEER = (
    *("numba==0.58.1", "numpy==1.26.4", "py_vollib==1.0.1", "py_lets_be_rational==1.0.1", "scipy==1.11.4"),
    *("py_vollib_vectorized==0.1.1", "pandas==2.1.4", "pyarrow==25.0.1", "setuptools<81"),
)
GREEKS = ("delta", "gamma", "vega", "theta_per_year", "rho")
_RUNS = 5
_TOLERANCE = {"greeks": 0.02, "iv": 1e-9}  # of the median; the peer's theta is that of a whole day

Job = Callable[[], Any]


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time both works on the same contracts, read before the clock."""
    file = str(folder / "contracts.parquet")
    _write_contracts(file, CONTRACTS // (20 if is_quick else 1))
    contestants = {
        ("8 greeks and prices", "ours"): (
            "ours_greeks",
            False,
            "`black_scholes.greeks`: price, delta, gamma, vega, theta, rho, vanna, charm, a status a row",
        ),
        ("8 greeks and prices", "py_vollib_vectorized"): (
            "peer_greeks",
            True,
            "`get_all_greeks`, five of them, no status; its arrays lie before the clock",
        ),
        ("implied volatility", "ours"): ("ours_iv", False, "`implied_vol`, a status a row"),
        ("implied volatility", "py_vollib_vectorized"): (
            "peer_iv",
            True,
            "`vectorized_implied_volatility`, `on_error='ignore'`",
        ),
    }
    workers: dict[tuple[str, str], Worker] = {}
    missing: list[Measurement] = []
    try:
        for (group, name), (contestant, is_peer, _) in contestants.items():
            try:
                python = peer_python("vollib", *PEER) if is_peer else Path(sys.executable)
            except PeerNotInstalledError as reason:
                missing.append(Measurement(name=name, group=group, not_run=str(reason)))
                continue
            worker = workers[group, name] = Worker(python, "option_greeks", contestant, file=file)
            worker.run()
            worker.save(folder / contestant)
        differences = _differences(folder)
        turns = {"|".join(key): _turn(worker) for key, worker in workers.items()}
        seconds = interleaved(turns, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    timed = [
        Measurement(
            name=name,
            group=group,
            values=[1_000 * s for s in seconds[f"{group}|{name}"]],
            note=contestants[group, name][2],
        )
        for group, name in workers
    ]
    middle = {(row.group, row.name): row.median for row in timed}
    return Result(
        title=f"Options: greeks and implied volatilities of {CONTRACTS // (20 if is_quick else 1):,} contracts",
        unit="ms",
        how="Calls and puts around the money, a day to two years, volatilities of 5 to 120 %. Every contestant is a "
        "process of its own that stays up and has the contracts in memory, in the form it likes best. In its turn each "
        f"runs once uncounted and {_RUNS} times counted, of which the middle one stands.",
        measurements=[*timed, *missing],
        verdicts=[
            Verdict(
                claim=f"times faster than py_vollib_vectorized, {group}",
                measured=_ratio(middle, group),
                floor=floor,
                goal=goal,
            )
            for group, floor, goal in (("8 greeks and prices", 5, 12), ("implied volatility", 1, 2.5))
        ],
        notes=differences,
    )


def ours_greeks(file: str) -> Job:
    """The platform's greeks."""
    import polars as pl

    from quant_platform.calculators.black_scholes import greeks

    rows = pl.read_parquet(file).drop("price").rechunk()
    return lambda: greeks(rows)


def ours_iv(file: str) -> Job:
    """The platform's implied volatilities."""
    import polars as pl

    from quant_platform.calculators.implied_vol import implied_vol

    rows = pl.read_parquet(file).drop("iv").rechunk()
    return lambda: implied_vol(rows)


def peer_greeks(file: str) -> Job:
    """The peer's greeks."""
    from py_vollib_vectorized import get_all_greeks

    flag, given = _arrays(file)
    names = ("spot", "strike", "t_years", "rate", "iv", "dividend")

    def job() -> Any:
        spot, strike, t_years, rate, vol, dividend = (given[name] for name in names)
        return get_all_greeks(
            flag, spot, strike, t_years, rate, vol, q=dividend, model="black_scholes_merton", return_as="dict"
        )

    return job


def peer_iv(file: str) -> Job:
    """The peer's implied volatilities."""
    from py_vollib_vectorized import vectorized_implied_volatility

    flag, given = _arrays(file)
    names = ("price", "spot", "strike", "t_years", "rate", "dividend")

    def job() -> Any:
        price, spot, strike, t_years, rate, dividend = (given[name] for name in names)
        return vectorized_implied_volatility(
            price,
            spot,
            strike,
            t_years,
            rate,
            flag,
            q=dividend,
            model="black_scholes_merton",
            return_as="numpy",
            on_error="ignore",
        )

    return job


def save(result: Any, folder: str) -> None:
    """Write the values as arrays, in our units."""
    import numpy as np

    if isinstance(result, dict):  # the peer's vega and rho are per point, its theta per day
        scale = {"vega": 100, "rho": 100, "theta_per_year": 365}
        found = {name: np.asarray(result[name.split("_")[0]]) * scale.get(name, 1) for name in GREEKS}
    elif hasattr(result, "get_column"):
        found = {name: result[name].to_numpy() for name in (GREEKS if "delta" in result.columns else ("iv",))}
    else:
        found = {"iv": np.asarray(result)}
    np.savez(Path(folder) / "values.npz", **found)


def _arrays(file: str) -> Any:
    import numpy as np
    import pandas as pd

    frame = pd.read_parquet(file)
    given = {name: np.ascontiguousarray(frame[name].to_numpy()) for name in frame.columns if name != "type"}
    return frame["type"].str.lower().to_numpy(), given


def _write_contracts(file: str, rows: int) -> None:
    """Write contracts whose prices have time value enough for any solver."""
    import numpy as np
    import polars as pl

    from quant_platform.calculators.black_scholes import greeks

    random = np.random.default_rng(7)
    drawn = 2 * rows
    t_years, vol = np.exp(random.uniform(np.log(1 / 365), np.log(2), drawn)), random.uniform(0.05, 1.2, drawn)
    contracts = pl.DataFrame(
        {
            "type": random.choice(["C", "P"], drawn),
            "spot": 100.0,
            "strike": 100 * np.exp(random.normal(0, 1.2, drawn) * vol * np.sqrt(t_years)),
            "t_years": t_years,
            "rate": random.uniform(0, 0.06, drawn),
            "dividend": random.uniform(0, 0.03, drawn),
            "iv": vol,
        },
        schema_overrides={"spot": pl.Float64},
    )
    found = greeks(contracts).filter(pl.col("vega") > 0.01, pl.col("price") > 1e-4).head(rows)
    assert found.height == rows
    found.select(*contracts.columns, "price").write_parquet(file)


def _differences(folder: Path) -> list[str]:
    """Return how far the contestants are apart, or raise where it is too far."""
    import numpy as np

    notes = []
    for work in ("greeks", "iv"):
        paths = [folder / f"{who}_{work}" / "values.npz" for who in ("ours", "peer")]
        if not all(path.is_file() for path in paths):
            continue
        ours, peer = (np.load(path) for path in paths)
        for name in ours.files:
            there = np.isfinite(peer[name])
            gaps = (np.abs(ours[name] - peer[name]) / np.maximum(1, np.abs(ours[name])))[there]
            if name != "rho" and np.median(gaps) > _TOLERANCE[work]:
                raise RuntimeError(f"Our {name} and the peer's differ by {np.median(gaps):g}: their times say nothing.")
            notes.append(
                f"{name}: {np.median(gaps):.1g} apart in the median, {gaps.max():.1g} at most (relative where above 1)"
                + (f"; the peer has no number for {(~there).sum()} contracts" if not there.all() else "")
            )
    notes.append(
        "The peer's greeks are finite differences, its rho not at a given dividend; ours agree with QuantLib's to 1e-10"
    )
    return notes


def _ratio(middle: dict[tuple[str, str], float], group: str) -> float | None:
    peer = middle.get((group, "py_vollib_vectorized"))
    return peer and peer / middle[group, "ours"]


def _turn(worker: Worker) -> Callable[[], float]:
    def middle_run() -> float:
        worker.run()
        return median(worker.run() for _ in range(_RUNS))

    return middle_run
