"""Simulated listings: the venue's own calendar of expiries, and strikes that stay as they were listed."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from quant_platform.feeds import osi
from quant_platform.simulation.latent_price import EPOCH, SECONDS
from quant_platform.simulation.option_listing import contracts_of, expiries_after, listed_expiries

ROLLS = [date(2023, 12, 20) + timedelta(days=n) for n in range(400)]


def flat(price: float) -> np.ndarray:
    return np.full((ROLLS[-1] - EPOCH).days + 1, price)


def test_expiries_are_those_that_deribit_listed_on_a_recorded_day() -> None:
    # All ETH options of its book summaries of 2024-01-08 11:19 UTC, a Monday.
    recorded = ["9JAN24", "10JAN24", "11JAN24", "12JAN24", "19JAN24", "26JAN24", "23FEB24", "29MAR24", "28JUN24"]

    listed = listed_expiries(date(2024, 1, 8), flat(2_240.0), 0.025)

    assert [expiry.label for expiry in listed] == [*recorded, "27SEP24", "27DEC24"]


def test_an_expiry_is_listed_from_its_date_of_listing_to_its_settlement() -> None:
    spans = {one.settled: one.listed for roll in ROLLS for one in listed_expiries(roll, flat(60_000.0), 0.025)}

    for roll in ROLLS:
        assert expiries_after(roll) == sorted(settled for settled, listed in spans.items() if listed <= roll < settled)


@pytest.mark.parametrize("price", [60_000.0, 2_600.0, 150.0, 9.99, 0.0123])
def test_every_roll_lists_at_least_five_hundred_contracts_around_the_price(price: float) -> None:
    for roll in ROLLS[::7]:
        listed = listed_expiries(roll, flat(price), 0.025)
        assert 500 <= sum(2 * len(one.strikes) for one in listed) <= 620
        for expiry in listed:
            assert np.all(np.diff(expiry.strikes) > 0)
            assert 0 < expiry.strikes[0] < 0.92 * price < 1.08 * price < expiry.strikes[-1]


def test_longer_expiries_have_wider_strikes() -> None:
    listed = listed_expiries(date(2024, 1, 8), flat(60_000.0), 0.025)

    width = {one.label: one.strikes[-1] - one.strikes[0] for one in listed}

    assert width["9JAN24"] < width["19JAN24"] < width["28JUN24"]


def test_strikes_stand_around_the_price_at_listing() -> None:
    openings = flat(60_000.0)
    openings[(date(2024, 1, 8) - EPOCH).days :] = 90_000.0

    before, after = (listed_expiries(roll, openings, 0.025) for roll in (date(2024, 1, 7), date(2024, 1, 8)))

    strikes = {one.label: np.median(one.strikes) for one in after}
    assert strikes["11JAN24"] == pytest.approx(90_000, rel=0.03)  # it came up on the 8th
    assert strikes["10JAN24"] == pytest.approx(60_000, rel=0.03)
    assert all(
        np.array_equal(old.strikes, new.strikes) for old in before for new in after if old.settled == new.settled
    )


@pytest.mark.parametrize("price", [60_000.0, 9.99, 0.0123])
def test_names_say_what_the_contracts_are(price: float) -> None:
    day = date(2024, 3, 8)
    contracts = contracts_of("SIM_X", listed_expiries(day, flat(price), 0.025), day)

    parts = pl.DataFrame({"name": contracts.names}).select(osi.deribit_parts(pl.col("name")).alias("of")).unnest("of")

    assert parts["root"].unique().to_list() == ["SIM_X"]
    assert parts["strike"].to_list() == contracts.strike.tolist()
    assert parts["type"].to_list() == ["C" if is_call else "P" for is_call in contracts.is_call]
    settles = [(expiry - day).days * SECONDS + 8 * 3_600 for expiry in parts["expiry"]]
    assert settles == contracts.settles_s.tolist()
    assert len(set(contracts.instrument_id.tolist())) == len(contracts.names) == parts.n_unique()


def test_roundness_counts_steps_from_zero() -> None:
    expiry = next(one for one in listed_expiries(date(2024, 1, 8), flat(60_000.0), 0.025) if one.label == "11JAN24")

    roundness = dict(zip(expiry.strikes.tolist(), expiry.roundness.tolist(), strict=True))

    # 0.32 deviations of 2.5 % are 480, which is made 500.
    assert (roundness[60_000], roundness[62_500], roundness[60_500]) == (2, 1, 0)


def test_the_market_opens_on_its_first_date() -> None:
    listed = listed_expiries(EPOCH - timedelta(days=1), np.array([100.0]), 0.025)

    assert {one.opening for one in listed} == {100.0}
