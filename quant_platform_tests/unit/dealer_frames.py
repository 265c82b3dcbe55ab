"""Small option chains for the tests of what dealers must hedge."""

import functools
import gzip
import json
from datetime import UTC, date, datetime

import polars as pl

from quant_platform.calculators import dealer_exposure
from quant_platform.calculators import skew as skews
from quant_platform.calculators.option_chain import option_chain

INSTANT = pl.Datetime("ns", "UTC")
DAY_NS = 86_400 * 10**9
NOW = 20_454 * DAY_NS  # 2026-01-01 00:00 UTC
YEAR_NS = 365 * DAY_NS
COLUMNS = {
    "symbol": pl.String,
    "ts_event": INSTANT,
    "contract": pl.String,
    "type": pl.String,
    "strike": pl.Float64,
    "expiry": pl.Date,
    "ts_expiry": INSTANT,
    "multiplier": pl.Float64,
    "iv": pl.Float64,
    "delta": pl.Float64,
    "gamma": pl.Float64,
    "vanna": pl.Float64,
    "charm_per_year": pl.Float64,
    "open_interest": pl.Float64,
}
PHYSICAL = {
    name: pl.Int64 if dtype == INSTANT else pl.Int32 if dtype == pl.Date else dtype for name, dtype in COLUMNS.items()
}
USUAL = {
    "type": "C",
    "strike": 100.0,
    "days": 15.0,
    "multiplier": 100.0,
    "iv": 0.2,
    "delta": 0.5,
    "gamma": 0.02,
    "vanna": 0.1,
    "charm_per_year": -0.2,
    "open_interest": 1_000.0,
}


def contracts(*rows, symbol="SPX", ts=NOW):
    """Give each row, of which the usual may be left out, the columns of contracts; `days` is its time left."""
    full = []
    for number, row in enumerate(rows):
        values = {"symbol": symbol, "ts_event": ts, "contract": f"{symbol}-{number}"} | USUAL | row
        days = values.pop("days")
        if days is not None:
            values = {"ts_expiry": ts + round(days * DAY_NS)} | values
            values = {"expiry": values["ts_expiry"] // DAY_NS} | values
        full.append(values)
    return pl.DataFrame(full, schema=PHYSICAL, strict=False).cast(COLUMNS)


def snapshots(*rows):
    """Give (symbol, time, price of the underlying) the columns of snapshots; each is known 7 ns after its time."""
    full = [
        {"symbol": symbol, "ts_event": ts, "ts_known": ts + 7, "underlying_price": spot, "rate": 0.0, "dividend": 0.0}
        for symbol, ts, spot in rows
    ]
    schema = {"symbol": pl.String, "ts_event": pl.Int64, "ts_known": pl.Int64} | dict.fromkeys(
        ("underlying_price", "rate", "dividend"), pl.Float64
    )
    return pl.DataFrame(full, schema=schema, strict=False).with_columns(pl.col("ts_event", "ts_known").cast(INSTANT))


SPX = snapshots(("SPX", NOW, 100.0))


def of_frames(calculator):
    """Let a calculator take snapshots and contracts instead of the chain that they make."""

    @functools.wraps(calculator)
    def called(shots, rows, *params):
        return calculator(option_chain(shots, rows), *params)

    return called


gamma_exposure = of_frames(dealer_exposure.gamma_exposure)
dealer_flow = of_frames(dealer_exposure.dealer_flow)
skew = of_frames(skews.skew)


def of_whole(frame):
    """Return the only row over all."""
    (row,) = frame.filter(pl.all_horizontal(pl.col("^(strike|expiry)$").is_null())).to_dicts()
    return row


def recorded_chain(folder, name):
    """Return snapshot and contracts of a recorded Cboe chain with greeks; contracts settle at 20:00 UTC."""
    text = gzip.decompress((folder / "options_json_cboe_greeks" / f"{name}_2026-08-22.json.gz").read_bytes())
    chain = json.loads(text)
    ts = round(datetime.fromisoformat(chain["updated"]).timestamp() * 1e9)
    rows = []
    for quote in chain["quotes"]:
        expiry = date.fromisoformat(quote["expiration"])
        settles = datetime(expiry.year, expiry.month, expiry.day, 20, tzinfo=UTC)
        rows.append(
            {
                "contract": quote["symbol"],
                "type": quote["side"][0].upper(),
                "strike": quote["strike"],
                "expiry": int(settles.timestamp()) // 86_400,
                "ts_expiry": int(settles.timestamp()) * 10**9,
                "days": None,
                "iv": quote["iv"],
                "delta": quote["delta"],
                "gamma": quote["gamma"],
                "open_interest": quote["openInterest"],
            }
        )
    return snapshots((name, ts, chain["underlyingPrice"])), contracts(*rows, symbol=name, ts=ts)
