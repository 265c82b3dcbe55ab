"""A recorded chain to the page: gamma by strike against plain sums over the sheet, with the csv module alone."""

import csv
import gzip
import json
import math
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from quant_platform.calculators import variance_strip, vol_surface
from quant_platform.calculators.exposure_history import exposure_history, exposure_values
from quant_platform.contracts._schema import INSTANT, empty
from quant_platform.contracts.volatility import VolIndexRegime
from quant_platform.feeds import cboe
from quant_platform.pipeline import options
from quant_platform.reports.daily_market import as_markdown, render
from quant_platform.reports.market_day import DailyMarket
from quant_platform.reports.market_options import OptionsDay, options_day
from quant_platform.settings import Instrument, Settings
from quant_platform_tests.unit.order_flow_frames import no_flow

NEW_YORK = ZoneInfo("America/New_York")
SHEETS = {  # when saved, and the price of the underlying, as its lines above the table say
    "spy_2025-05-06_1814": (datetime(2025, 5, 6, 18, 14, tzinfo=NEW_YORK), 557.37),
    "spx_2024-01-07": (datetime(2024, 1, 7, 10, 52, tzinfo=NEW_YORK), 4697.2402),
    "qqq_2024-03-22": (datetime(2024, 3, 22, 21, 46, tzinfo=NEW_YORK), 445.65),
}
NOTHING = pl.DataFrame()
LEAST_OPEN = 5


def sums(
    lines: list[list[str]], saved: datetime, spot: float, modelled: dict[str, float]
) -> tuple[float, float, float, float]:
    """Return gross and net gamma of the chain, and of its strikes within a fifth of the price.

    The sheet rounds gamma to four digits: where that leaves 0, the model's counts.
    """
    whole: list[tuple[float, float]] = []
    near: list[tuple[float, float]] = []
    for line in lines:
        strike = float(line[11])
        for at, sign in ((1, 1), (12, -1)):
            name, gamma, delta, interest = line[at], float(line[at + 8]), float(line[at + 7]), float(line[at + 9])
            match = re.fullmatch(r"([A-Z]+)(\d{6})[CP](\d{8})", name)
            assert match is not None
            settles = datetime.strptime(match[2], "%y%m%d").replace(hour=16, tzinfo=NEW_YORK)
            if match[1] in {"SPX", "NDX"}:
                settles = settles.replace(hour=9, minute=30)
            if not (0 < gamma <= 1 and 0 <= sign * delta <= 1):
                gamma = modelled.get(name, 0.0)
            if interest < LEAST_OPEN or not gamma or settles <= saved:
                continue
            value = gamma * interest * 100 * spot**2 * 0.01
            whole.append((value, sign * value))
            if abs(strike / spot - 1) <= 0.2:
                near.append((value, sign * value))
    gross, net = (math.fsum(part) for part in zip(*whole, strict=True))
    return (gross, net, *(math.fsum(part) for part in zip(*near, strict=True)))


def reduced(content: bytes, name: str) -> tuple[OptionsDay, dict[str, float]]:
    """Return what the report takes of one sheet, through the functions of the pipeline, and the model's gammas."""
    settings = Settings()
    listed = {"feed": "cboe", "venue_symbol": "X", "rate": 0.05, "dividend": 0.013}
    row = {"symbol": "X", "venue_symbol": "X", "feed": "cboe", "tick_size": 0.01, "lot_size": 1, "calendar": "XNYS"}
    instruments = {"X": Instrument.model_validate(row | {"chain": listed})}
    received = (pl.col("ts_event") + timedelta(seconds=1)).cast(INSTANT)
    chain = cboe.read_sheet(content, name, symbol="X").rows.with_columns(ts_recv=received)
    held, greeks = options.valued(chain, instruments)
    tables = options.exposures(held, greeks, settings)
    values = exposure_values(*(tables[t] for t in (options.GAMMA_EXPOSURE, options.DEALER_FLOW, options.SKEW)))
    tables |= {
        options.EXPOSURE_HISTORY: exposure_history(values, values.clear()),
        options.VOL_SURFACE: vol_surface.vol_surface(held),
        options.VIX1D_PROXY: variance_strip.vix1d_proxy(variance_strip.variance_strips(held)),
        options.UNUSUAL_ACTIVITY: options.unusual(chain, settings),
        VolIndexRegime.table: empty(VolIndexRegime),
    }
    model = greeks.filter(pl.col("source") == "model", pl.col("gamma") <= 1).select("contract", "gamma")
    return options_day({table: frame.lazy() for table, frame in tables.items()}), dict(model.iter_rows())


@pytest.mark.parametrize("name", SHEETS)
def test_gamma_on_the_page_is_that_of_the_sheet(real_data: Path, name: str) -> None:
    content = gzip.decompress((real_data / "cboe_quotedata" / f"{name}.csv.gz").read_bytes())
    saved, spot = SHEETS[name]
    lines = list(csv.reader(content.decode().splitlines()[4:]))
    found, modelled = reduced(content, name)
    gross, net, near_gross, near_net = sums(lines, saved, spot, modelled)
    (row,) = found.numbers.iter_rows(named=True)
    assert (row["gex_gross"], row["gex_net"], row["spot"]) == (
        pytest.approx(gross, rel=1e-9),
        pytest.approx(net, rel=1e-9),
        spot,
    )
    assert found.strikes["gex_gross"].sum() == pytest.approx(near_gross, rel=1e-9)
    assert found.strikes["gex_net"].sum() == pytest.approx(near_net, rel=1e-9)
    assert found.strikes.height <= 61

    frames = dict.fromkeys(("daily", "bars_5m", "spreads", "statistics", "gaps", "quarantine", "coverage"), NOTHING)
    day = DailyMarket(date=date(2025, 1, 1), symbols=("X",), revised=0, order_flow=no_flow(), options=found, **frames)
    (source,) = re.findall(r'data-plot="options-1">(.*?)</script>', render(day))
    traces = {trace["name"]: trace for trace in json.loads(source)["data"]}
    calls, puts = math.fsum(traces["calls"]["y"]), math.fsum(traces["puts"]["y"])
    assert calls + puts == pytest.approx(near_net, abs=1e-5 * near_gross)  # the plot has six digits
    assert calls - puts == pytest.approx(near_gross, rel=1e-5)
    side = "long" if net > 0 else "short"
    assert f"**X.** Dealers are {side} gamma at {spot:,.6g}:" in as_markdown(day)
