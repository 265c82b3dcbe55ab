"""Claim: at a venue's volatility our greeks are those that it prints, by moneyness and time to expiry."""

import gzip
import os
from pathlib import Path
from typing import Any

from _harness import ROOT, Measurement, Result, Verdict

# About the three-month Treasury bill of the time; the carry is what put-call parity implies.
CHAINS = {
    "cboe_quotedata/spx_2023-02-07.csv.gz": 0.046,
    "cboe_quotedata/spx_2024-01-07.csv.gz": 0.053,
    "cboe_quotedata/qqq_2024-03-22.csv.gz": 0.053,
    "cboe_quotedata/spy_2025-05-02.csv.gz": 0.043,
    "options_json_cboe_greeks/TSLA_2026-08-22.json.gz": 0.04,
    "options_json_cboe_greeks/META_2026-08-22.json.gz": 0.04,
}
MONEYNESS = {"|delta| < 0.1": (0.0, 0.1), "0.1 to 0.4": (0.1, 0.4), "0.4 to 0.6": (0.4, 0.6), "above 0.6": (0.6, 1.01)}
DAYS = {"a week": (0.0, 7.0), "a month": (7.0, 31.0), "half a year": (31.0, 183.0), "longer": (183.0, 1e4)}


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Compare, where the venue prints a volatility, a delta and a gamma; nothing is timed."""
    import polars as pl

    del folder, rounds, is_quick
    data = Path(os.environ.get("QP_REAL_DATA") or ROOT.parent / "shared" / "data")
    if not data.is_dir():
        raise SystemExit(f"There is no recorded market data at {data}: set QP_REAL_DATA to its folder.")
    found = pl.concat(_compared(data / name, rate).with_columns(chain=pl.lit(name)) for name, rate in CHAINS.items())
    rows = []
    for moneyness, (low, high) in MONEYNESS.items():
        for time, (after, until) in DAYS.items():
            part = found.filter(
                pl.col("delta").abs().is_between(low, high, closed="left"),
                (pl.col("days") > after) & (pl.col("days") <= until),
            )
            if part.is_empty():
                continue
            gaps = (part["delta_gap"].abs() * 1e4).sort()
            gamma = (part["gamma_gap"].abs() / part["gamma"].abs()).median()
            vega = part["vega_gap"].drop_nulls()
            rows.append(
                Measurement(
                    name=f"up to {time}" if time != "longer" else time,
                    group=moneyness,
                    values=[gaps.median()],
                    note=f"{part.height:,} contracts; 95 % within {gaps.quantile(0.95):,.0f}; gamma {gamma:.1%} off "
                    "in the median" + (f"; vega {(vega.abs().median()):.1%}" if len(vega) else ""),
                )
            )
    near = found.filter(pl.col("delta").abs().is_between(0.1, 0.9), pl.col("days").is_between(2, 183))
    return Result(
        title="Options: our greeks against those that the venue prints",
        unit="1e-4 of delta",
        how=f"Recorded chains of Cboe, {found.height:,} contracts of SPX, QQQ, SPY, TSLA and META that are quoted on "
        "both sides and for which it prints volatility, delta and gamma. Each is valued at the printed volatility, the "
        "forward by put-call parity. Nothing is timed: a line is the median of |our delta - the "
        "venue's|.",
        measurements=rows,
        verdicts=[
            Verdict(
                claim="median |delta gap| of |delta| 0.1 to 0.9, 2 days to half a year, 1e-4",
                measured=float(near["delta_gap"].abs().median()) * 1e4,  # type: ignore[arg-type]  # a median of floats is one
                is_more_better=False,
            )
        ],
        notes=[
            "Printed values are rounded, to four digits of delta and gamma: gammas of 0.0001 are half a digit of noise",
            "All but SPX are American options, which Cboe values as such, and we as European ones",
            "Near expiry an hour moves a delta, and two of the chains were saved on a weekend, with Friday's quotes",
        ],
    )


def _compared(path: Path, rate: float) -> Any:
    """Return printed and computed greeks of the contracts of one chain."""
    import polars as pl

    from quant_platform.calculators.black_scholes import greeks
    from quant_platform.calculators.implied_vol import forwards
    from quant_platform.feeds import cboe

    read = cboe.read_json if ".json" in path.suffixes else cboe.read_sheet
    chain = read(gzip.decompress(path.read_bytes()), path.name, symbol="X").rows.with_columns(rate=pl.lit(rate))
    key = ["symbol", "ts_event", "ts_expiry"]
    chain = chain.join(forwards(chain).select(*key, "forward"), on=key)
    years = (pl.col("ts_expiry") - pl.col("ts_event")).dt.total_nanoseconds() / (365 * 86_400e9)
    held = chain.filter(
        pl.col("forward").is_not_null() & (pl.col("iv") > 0) & (pl.col("gamma") > 0) & (pl.col("delta") != 0),
        (pl.col("bid") > 0) & (pl.col("ask") > pl.col("bid")) & (years > 0),
    ).with_columns(
        t_years=years,
        spot="underlying_price",
        dividend=pl.lit(rate) - (pl.col("forward") / pl.col("underlying_price")).log() / years,
    )
    ours = greeks(held.rename({name: f"printed_{name}" for name in ("delta", "gamma", "vega")}))
    return ours.filter(pl.col("status") == "ok").select(
        "delta",
        "gamma",
        days=pl.col("t_years") * 365,
        delta_gap=pl.col("delta") - pl.col("printed_delta"),
        gamma_gap=pl.col("gamma") - pl.col("printed_gamma"),
        vega_gap=pl.col("printed_vega") * 100 / pl.col("vega") - 1,
    )
