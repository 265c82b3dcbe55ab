"""Claim: 1 M trades are signed by Lee and Ready and poured into VPIN's buckets in the time tclf needs to sign them."""

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _harness import Measurement, PeerNotInstalledError, Result, Verdict, Worker, interleaved, peer_python

DATE = dt.date(2024, 8, 8)
SYMBOL = "BTCUSDT"
TRADES, QUOTES = 1_000_000, 2_000_000
TICK = 0.1
BUCKETS = 50
PEER = ("tclf==0.4.0", "numpy==1.26.4", "pandas==2.1.4", "pyarrow==25.0.1")
_RUNS = 5
_FEATURES = ("trade_price", "price_ex_lag", "bid_ex", "ask_ex")

Job = Callable[[], Any]


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time all contestants on trades that carry the quote before them."""
    trades, quotes, joined = (str(folder / f"{name}.parquet") for name in ("trades", "quotes", "joined"))
    cut = 20 if is_quick else 1
    at_mid = _write_market(trades, quotes, joined, cut)
    contestants: dict[str, tuple[str, bool, dict[str, str]]] = {
        "ours: Lee–Ready + VPIN": ("ours", False, {"file": joined}),
        "tclf: Lee–Ready, array": ("tclf_array", True, {"file": joined}),
        "tclf: Lee–Ready, data frame": ("tclf_frame", True, {"file": joined}),
        "ours: as-of join + Lee–Ready + VPIN": ("ours_as_of", False, {"trades": trades, "quotes": quotes}),
    }
    workers: dict[str, Worker] = {}
    missing: list[Measurement] = []
    try:
        for name, (contestant, is_peer, arguments) in contestants.items():
            try:
                python = peer_python("tclf", *PEER) if is_peer else Path(sys.executable)
            except PeerNotInstalledError as reason:
                missing.append(Measurement(name=name, not_run=str(reason)))
                continue
            workers[name] = Worker(python, "signing", contestant, **arguments)
            workers[name].run()
            workers[name].save(folder / contestant)
        differing = _differing(folder, [contestants[name][0] for name in workers], at_mid)
        seconds = interleaved({name: _turn(worker) for name, worker in workers.items()}, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    notes = {
        "ours: Lee–Ready + VPIN": "`signed_at_quotes` → `vpin`: checks values and order, finds the last different "
        f"price, names the rule, fills {BUCKETS} buckets, gives a value a minute",
        "tclf: Lee–Ready, array": "`fit` and `predict` with `strategy='const'`; gets the last different price, "
        "its four columns side by side in NumPy; tclf 0.4.0",
        "tclf: Lee–Ready, data frame": "the same from pandas",
        "ours: as-of join + Lee–Ready + VPIN": f"`signed` with {QUOTES // cut / 1e6:g} M quotes → `vpin`; not judged",
    }
    timed = [
        Measurement(name=name, values=[1_000 * s for s in values], note=notes[name]) for name, values in seconds.items()
    ]
    middle = {row.name: row.median for row in timed}
    peers = {"array": middle.get("tclf: Lee–Ready, array"), "data frame": middle.get("tclf: Lee–Ready, data frame")}
    return Result(
        title=f"Signing: {TRADES // cut / 1e6:g} M trades, Lee–Ready and VPIN",
        unit="ms",
        how="One symbol-day of trades that carry the quote before them, as tclf wants them. Every contestant is a "
        "process of its own that stays up and has read the same Parquet file into memory before the clock. In its turn "
        f"each runs once uncounted and {_RUNS} times counted, of which the middle one stands.",
        measurements=[*timed, *missing],
        verdicts=[
            Verdict(
                claim=f"our Lee–Ready + VPIN ÷ tclf's Lee–Ready alone, {kind}",
                measured=peer and middle["ours: Lee–Ready + VPIN"] / peer,
                floor=1.3,
                goal=1,
                is_more_better=False,
            )
            for kind, peer in peers.items()
        ],
        notes=[
            f"{differing} signs are not the same, all of trades exactly at the midpoint, which floats can miss",
            "Left out for all: reading the file; for the judged lines also joining quotes to trades",
            "The array is the peer's fastest input: its four columns side by side before the clock. Ours is a frame",
        ],
    )


def ours(file: str) -> Job:
    """The platform, from trades that carry their quote."""
    import polars as pl

    from quant_platform.calculators import vpin
    from quant_platform.calculators.trade_sign import TradeSignParams, signed_at_quotes

    tape = pl.read_parquet(file).rechunk()
    sizes, params = _bucket_sizes(tape), vpin.VpinParams(signing="lee_ready")

    def job() -> Any:
        signed = signed_at_quotes(tape, TradeSignParams(signing="lee_ready"))
        return signed.get_column("aggressor"), vpin.vpin(signed, sizes, params)

    return job


def ours_as_of(trades: str, quotes: str) -> Job:
    """The platform, from trades and quotes."""
    import polars as pl

    from quant_platform.calculators import trade_sign, vpin

    tape, book = (pl.read_parquet(file).rechunk() for file in (trades, quotes))
    sizes, params = _bucket_sizes(tape), vpin.VpinParams(signing="lee_ready")
    signing = trade_sign.TradeSignParams(signing="lee_ready", max_quote_age_ms=None)

    def job() -> Any:
        signed = trade_sign.signed(tape, book, signing)
        return signed.get_column("aggressor"), vpin.vpin(signed, sizes, params)

    return job


def tclf_array(file: str) -> Job:
    """The peer from its fastest input."""
    import numpy as np

    features = np.ascontiguousarray(_features(file).to_numpy())
    return _tclf(features)


def tclf_frame(file: str) -> Job:
    """The peer from a data frame."""
    return _tclf(_features(file))


def save(result: Any, folder: str) -> None:
    """Write the signs, and ours with its buckets."""
    import numpy as np

    signs = result[0].to_numpy() if isinstance(result, tuple) else result
    np.save(Path(folder) / "signs.npy", np.asarray(signs, np.int8))
    if isinstance(result, tuple):
        result[1].buckets.write_parquet(Path(folder) / "buckets.parquet")


def _tclf(features: Any) -> Job:
    from tclf.classical_classifier import ClassicalClassifier

    def job() -> Any:
        classifier = ClassicalClassifier([("lr", "ex")], features=list(_FEATURES), strategy="const")
        return classifier.fit(features).predict(features)

    return job


def _features(file: str) -> Any:
    import pandas as pd

    columns = ("price", "price_lag", "bid_price", "ask_price")
    return pd.read_parquet(file, columns=list(columns)).rename(columns=dict(zip(columns, _FEATURES, strict=True)))


def _bucket_sizes(tape: Any) -> Any:
    import polars as pl

    return pl.DataFrame({"symbol": [SYMBOL], "bucket_size": [tape.get_column("size").sum() / BUCKETS]})


def _write_market(trades: str, quotes: str, joined: str, cut: int) -> Any:
    """Write the trades, the quotes, and both joined; return which trades lie exactly at the midpoint."""
    import numpy as np
    import polars as pl
    from _ticks import day_of_ticks

    from quant_platform.contracts._schema import INSTANT

    tape = day_of_ticks(SYMBOL, DATE, TRADES // cut).with_columns(ts_recv="ts_event")
    random, rows = np.random.default_rng(7), QUOTES // cut
    traded, ticks = tape["ts_event"].to_physical().to_numpy(), np.rint(tape["price"].to_numpy() / TICK).astype(int)
    ts = np.append(traded[0] - 1, np.sort(random.integers(traded[0], traded[-1], rows - 1)))
    bid = ticks[np.minimum(np.searchsorted(traded, ts), len(ticks) - 1)] - random.integers(0, 2, rows)
    ask = bid + random.integers(1, 4, rows)
    book = pl.DataFrame(
        {
            "ts_event": pl.Series(ts).cast(INSTANT),
            "ts_recv": pl.Series(ts).cast(INSTANT),
            "symbol": pl.repeat(SYMBOL, rows, eager=True),
            "venue": pl.repeat("binance_usdm", rows, eager=True),
            "bid_price": bid / 10,
            "bid_size": random.integers(1, 500, rows) / 1_000,
            "ask_price": ask / 10,
            "ask_size": random.integers(1, 500, rows) / 1_000,
            "sequence": np.arange(rows),
        }
    )
    place = np.searchsorted(ts, traded) - 1
    price = pl.col("price")
    tape.write_parquet(trades)
    book.write_parquet(quotes)
    tape.with_columns(
        bid_price=pl.Series(bid[place] / 10),
        ask_price=pl.Series(ask[place] / 10),
        price_lag=pl.when(price != price.shift()).then(price.shift()).forward_fill(),
    ).write_parquet(joined)
    return 2 * ticks == bid[place] + ask[place]


def _differing(folder: Path, contestants: list[str], at_mid: Any) -> int:
    """Return how many signs are not ours, or raise where one of them is not of a trade at the midpoint."""
    import numpy as np
    import polars as pl
    from polars.testing import assert_frame_equal

    signs = {name: np.load(folder / name / "signs.npy") for name in contestants}
    differs = {name: found != signs["ours"] for name, found in signs.items()}
    for name, wrong in differs.items():
        if (wrong & ~at_mid).any() or (name == "ours_as_of" and wrong.any()):
            raise RuntimeError(f"{wrong.sum()} signs of '{name}' are not ours, so its time says nothing.")
    buckets = [pl.read_parquet(folder / name / "buckets.parquet") for name in ("ours", "ours_as_of")]
    assert_frame_equal(*buckets)
    assert buckets[0].height >= BUCKETS - 1
    return max(int(wrong.sum()) for wrong in differs.values())


def _turn(worker: Worker) -> Callable[[], float]:
    def middle_run() -> float:
        worker.run()
        return median(worker.run() for _ in range(_RUNS))

    return middle_run
