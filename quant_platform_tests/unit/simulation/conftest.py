"""Simulated option chains of three days, and what their tests share."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from quant_platform.feeds.chain_snapshot import rows_of
from quant_platform.settings import Instrument
from quant_platform.simulation.latent_price import LatentDay, latent_day
from quant_platform.simulation.market import MarketParams
from quant_platform.simulation.options import ChainParams, write_chains
from quant_platform.storage import chain_archive

THURSDAY, FRIDAY, SATURDAY = date(2024, 3, 7), date(2024, 3, 8), date(2024, 3, 9)
MARKET = MarketParams(
    trades_per_day=500, quotes_per_day=5_000, reference_prices={"SIMBTCUSDT": 60_000.0, "SIMSOLUSDT": 150.0}
)
PARAMS = ChainParams(every_s=4 * 3_600)


def listed(coin: str, tick: float = 0.1, feed: str = "deribit") -> Instrument:
    return Instrument.model_validate(
        {
            "symbol": f"{coin}-PERP",
            "venue_symbol": f"{coin}USDT",
            "feed": "binance_usdm",
            "tick_size": tick,
            "lot_size": 0.001,
            "chain": {"feed": feed, "venue_symbol": coin},
        }
    )


BTC, SOL = listed("SIMBTC"), listed("SIMSOL", 0.01)


def rows(paths: list[Path], symbol: str = BTC.symbol) -> pl.DataFrame:
    return pl.concat(rows_of("deribit", chain_archive.read(path), symbol=symbol).rows for path in paths).with_columns(
        seconds=(pl.col("ts_expiry") - pl.col("ts_event")).dt.total_nanoseconds() / 1e9, rate=0.0, dividend=0.0
    )


def hidden(day: date) -> LatentDay:
    """Return a day of the price that SIMBTC's options are written around."""
    return latent_day(
        seed=MARKET.seed,
        venue_symbol="SIMBTCUSDT",
        day=day,
        reference_price=60_000.0,
        daily_volatility=MARKET.daily_volatility,
        volatility_of_volatility=MARKET.volatility_of_volatility,
        correlation=MARKET.correlation,
        seasonality=MARKET.seasonality,
    )


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("chains")
    return write_chains(root, instruments=[BTC], dates=[THURSDAY, FRIDAY, SATURDAY], market=MARKET, params=PARAMS)


@pytest.fixture(scope="module")
def chain(week: list[Path]) -> pl.DataFrame:
    return rows(week)
