"""Claim: a chain of 10,000 contracts becomes all exposures in 5 ms, and a venue's answer of 20,000 rows in 150 ms."""

import datetime as dt
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _harness import Measurement, Result, Verdict, Worker, interleaved

CONTRACTS, ANSWERED = 10_000, 20_000
_RUNS = 9
_EXPOSURES, _ANSWER, _SURFACE = "exposures", "answer to rows", "surface"

Job = Callable[[], Any]


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time what the live writer and the batch do with one snapshot of a chain."""
    cut = 20 if is_quick else 1
    chain, answer = str(folder / "chain.parquet"), str(folder / "answer.json")
    _write(chain, answer, CONTRACTS // cut, ANSWERED // cut)
    contestants = {
        (_EXPOSURES, "ours, all"): (
            "ours_exposures",
            chain,
            "GEX and DEX by strike and expiry, zero gamma, flows by expiry, skew; its greeks are there",
        ),
        (_EXPOSURES, "ours, greeks too"): ("ours_valued", chain, "the same from the venue's quotes and volatilities"),
        (_EXPOSURES, "pandas, sums only"): (
            "pandas_exposures",
            chain,
            "gross and net GEX and DEX by strike and expiry by groupby: no zero gamma, no flows, no skew",
        ),
        (_ANSWER, "ours"): (
            "ours_answer",
            answer,
            "`cboe.read_json`: typed, checked row by row, OSI names read, settlement times",
        ),
        (_ANSWER, "json + pandas"): ("pandas_answer", answer, "`json.loads`, `DataFrame`, OSI names cut by `str`"),
        (_SURFACE, "ours"): ("ours_surface", chain, "an SVI slice an expiry, with the arbitrage checks"),
    }
    workers = {
        key: Worker(sys.executable, "option_chains", job, file=file) for key, (job, file, _) in contestants.items()
    }
    try:
        seconds = interleaved({"|".join(key): _turn(worker) for key, worker in workers.items()}, rounds)
        for key in ((_EXPOSURES, "ours, all"), (_EXPOSURES, "pandas, sums only")):
            workers[key].save(folder / contestants[key][0])
    finally:
        for worker in workers.values():
            worker.close()
    _same(folder)
    timed = {key: [1_000 * s for s in seconds["|".join(key)]] for key in contestants}
    middle = {key: median(values) for key, values in timed.items()}
    return Result(
        title=f"Option chains: {CONTRACTS // cut:,} contracts to exposures, an answer of {ANSWERED // cut:,} to rows",
        unit="ms",
        how="One snapshot with 20 expiries. Every contestant is a process of its own that stays up, its input in "
        f"memory; in its turn each runs once uncounted and {_RUNS} times counted, of which the middle one stands.",
        measurements=[
            Measurement(name=key[1], group=key[0], values=values, note=contestants[key][2])
            for key, values in timed.items()
        ],
        verdicts=[
            Verdict(
                claim=f"ms for all exposures of {CONTRACTS:,} contracts",
                measured=middle[_EXPOSURES, "ours, all"],
                goal=5,
                is_more_better=False,
            ),
            Verdict(
                claim="times faster than pandas' sums",
                measured=middle[_EXPOSURES, "pandas, sums only"] / middle[_EXPOSURES, "ours, all"],
            ),
            Verdict(
                claim=f"ms from an answer to {ANSWERED:,} rows",
                measured=middle[_ANSWER, "ours"],
                goal=150,
                is_more_better=False,
            ),
            Verdict(
                claim="times faster than json + pandas",
                measured=middle[_ANSWER, "json + pandas"] / middle[_ANSWER, "ours"],
            ),
        ],
        notes=["The sums by strike and expiry of pandas and ours are equal to 1e-9 before anything is told"],
    )


def ours_exposures(file: str) -> Job:
    """All exposures of a chain that has greeks."""
    from quant_platform.pipeline import options

    held, greeks, settings = _valued(file)
    return lambda: options.exposures(held, greeks, settings)


def ours_valued(file: str) -> Job:
    """The same, the greeks first."""
    import polars as pl

    from quant_platform.pipeline import options

    chain, instruments, settings = pl.read_parquet(file).rechunk(), _instruments(), _settings()

    def job() -> Any:
        held, greeks = options.valued(chain, instruments)
        return options.exposures(held, greeks, settings)

    return job


def ours_surface(file: str) -> Job:
    """The slices of a chain."""
    from quant_platform.calculators.vol_surface import vol_surface

    held, _, _ = _valued(file)
    return lambda: vol_surface(held)


def ours_answer(file: str) -> Job:
    """The venue's answer as contract rows."""
    from quant_platform.feeds import cboe

    content = Path(file).read_bytes()
    return lambda: cboe.read_json(content, "answer.json", symbol="SPX")


def pandas_exposures(file: str) -> Job:
    """Sums by strike and expiry."""
    import numpy as np

    held, greeks, _ = _valued(file)
    frame = held.drop("delta", "gamma").join(greeks.select("contract", "delta", "gamma"), on="contract").to_pandas()
    spot = frame["underlying_price"].iloc[0]

    def job() -> Any:
        held = frame[(frame["open_interest"] >= 5) & (frame["gamma"] > 0) & (frame["gamma"] <= 1)]
        units = held["open_interest"] * held["multiplier"]
        sign = np.where(held["type"] == "C", 1.0, -1.0)
        gex = held["gamma"] * units * spot * spot * 0.01
        dex = held["delta"] * units * spot
        sums = held[["strike", "expiry"]].assign(gex_gross=gex, gex_net=gex * sign, dex_gross=dex.abs(), dex_net=dex)
        return sums.groupby(["strike", "expiry"]).sum()

    return job


def pandas_answer(file: str) -> Job:
    """The venue's answer as pandas reads it."""
    import pandas as pd

    content = Path(file).read_bytes()

    def job() -> Any:
        told = json.loads(content)
        frame = pd.DataFrame(told["data"]["options"])
        name = frame["option"].str
        frame["expiry"] = pd.to_datetime(name[-15:-9], format="%y%m%d")
        frame["type"], frame["strike"] = name[-9], name[-8:].astype(float) / 1_000
        return frame

    return job


def save(result: Any, folder: str) -> None:
    """Write the sums by strike and expiry."""
    import polars as pl

    if isinstance(result, dict):
        found = result["options/gamma_exposure"].filter(pl.col("strike").is_not_null(), pl.col("expiry").is_not_null())
    else:
        found = pl.from_pandas(result.reset_index()).with_columns(pl.col("expiry").cast(pl.Date))
    names = ("strike", "expiry", "gex_gross", "gex_net", "dex_gross", "dex_net")
    found.select(names).sort("strike", "expiry").write_parquet(Path(folder) / "sums.parquet")


def _same(folder: Path) -> None:
    import polars as pl
    from polars.testing import assert_frame_equal

    ours, peer = (pl.read_parquet(folder / name / "sums.parquet") for name in ("ours_exposures", "pandas_exposures"))
    assert_frame_equal(ours, peer, rel_tol=1e-9)


def _settings() -> Any:
    from quant_platform.settings import Settings

    return Settings()


def _instruments() -> Any:
    from quant_platform.settings import Instrument

    chain = {"feed": "cboe", "venue_symbol": "_SPX", "rate": 0.04, "dividend": 0.013}
    one = {"symbol": "SPX", "venue_symbol": "SPX", "feed": "cboe", "tick_size": 0.01, "lot_size": 1, "chain": chain}
    return {"SPX": Instrument.model_validate(one)}


def _valued(file: str) -> Any:
    import polars as pl

    from quant_platform.pipeline import options

    return (*options.valued(pl.read_parquet(file).rechunk(), _instruments()), _settings())


def _write(chain: str, answer: str, contracts: int, answered: int) -> None:
    """Write an answer in the venue's form, and the rows of one as the parser gives them."""
    now = dt.datetime(2024, 3, 4, 18, tzinfo=dt.UTC)
    chain_rows(contracts, now).write_parquet(chain)
    Path(answer).write_bytes(_answer(answered, now))


def chain_rows(contracts: int, now: dt.datetime) -> Any:
    """Return a chain of SPX as the parser gives it."""
    from quant_platform.feeds import cboe

    rows = cboe.read_json(_answer(contracts, now), "chain.json", symbol="SPX").rows
    assert rows.height == contracts // 40 * 40
    return rows.with_columns(ts_recv="ts_event")


def _answer(contracts: int, now: dt.datetime) -> bytes:
    """Return an answer whose prices follow a smile: 20 expiries, strikes around 5,000."""
    import numpy as np
    import polars as pl

    from quant_platform.calculators.black_scholes import greeks

    random = np.random.default_rng(7)
    each = contracts // 40
    days = np.repeat(np.unique(np.geomspace(1, 700, 20).round().astype(int) + np.arange(20)), 2 * each)
    strike = np.tile(np.repeat(5_000.0 + 10 * (np.arange(each) - each // 2), 2), 20)
    kind = np.tile(["C", "P"], 20 * each)
    moneyness = np.log(strike / 5_000) / np.sqrt(days / 365)
    vol = np.clip(0.15 - 0.1 * moneyness + 0.1 * moneyness**2, 0.05, 2.0)
    given = pl.DataFrame({"type": kind, "strike": strike, "t_years": days / 365, "iv": vol, "spot": 5_000.0})
    found = greeks(given.with_columns(rate=pl.lit(0.04), dividend=pl.lit(0.013)))
    price, interest = found["price"].to_numpy(), random.integers(0, 5_000, len(kind))
    options = [
        {
            "option": f"SPXW{now + dt.timedelta(days=int(day)):%y%m%d}{side}{int(at * 1_000):08d}",
            "bid": round(max(value - 0.2, 0.0), 2),
            "bid_size": 10.0,
            "ask": round(value + 0.2, 2),
            "ask_size": 11.0,
            "iv": round(sigma, 4),
            "open_interest": float(held),
            "volume": float(held // 7),
            "delta": round(delta, 4),
            "gamma": round(gamma, 6),
            "vega": round(vega / 100, 4),
            "theta": round(theta / 365, 4),
            "rho": 0.1,
            "theo": round(value, 4),
            "last_trade_price": round(value, 2),
            "last_trade_time": f"{now:%Y-%m-%d}T12:00:00",
        }
        for day, side, at, value, sigma, held, delta, gamma, vega, theta in zip(
            days,
            kind,
            strike,
            price.tolist(),
            vol.tolist(),
            interest,
            *(found[name].to_list() for name in ("delta", "gamma", "vega", "theta_per_year")),
            strict=True,
        )
    ]
    data = {"symbol": "^SPX", "current_price": 5_000.0, "options": options}
    return json.dumps({"timestamp": f"{now:%Y-%m-%d %H:%M:%S}", "symbol": "_SPX", "data": data}).encode()


def _turn(worker: Worker) -> Callable[[], float]:
    def middle_run() -> float:
        worker.run()
        return median(worker.run() for _ in range(_RUNS))

    return middle_run
