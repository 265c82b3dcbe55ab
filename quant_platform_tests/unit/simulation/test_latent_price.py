"""What is known of the hidden price without computing its days: openings, and the market's volatility."""

from datetime import date

import numpy as np
import pytest

from quant_platform.settings import Instrument
from quant_platform.simulation.latent_price import EPOCH, relative_volatility_by_minute
from quant_platform.simulation.market import MarketParams, latent_of, opening_prices_of

BTC = Instrument(symbol="B", venue_symbol="SIMBTCUSDT", feed="binance_usdm", tick_size=0.1, lot_size=0.001)
MARKET = MarketParams(seed=3, reference_prices={"SIMBTCUSDT": 60_000.0})


@pytest.mark.parametrize("day", [EPOCH, date(2024, 3, 8)])
def test_openings_are_where_the_days_open(day: date) -> None:
    openings = opening_prices_of(BTC, date(2024, 3, 10), MARKET)

    assert len(openings) == (date(2024, 3, 10) - EPOCH).days + 1
    assert openings[(day - EPOCH).days] == pytest.approx(np.exp(latent_of(BTC, day, MARKET).log_price[0]), rel=1e-12)


def test_volatility_by_minute_is_that_of_the_days_seconds() -> None:
    day = date(2024, 3, 8)
    by_minute = relative_volatility_by_minute(seed=3, day=day, volatility_of_volatility=0.5)

    assert len(by_minute) == 1_441
    np.testing.assert_allclose(by_minute[:-1], latent_of(BTC, day, MARKET).relative_volatility[::60], rtol=1e-12)
