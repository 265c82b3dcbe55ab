"""The session that is served at a time of the market, against the calendars' worked examples."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from quant_platform.live.hours import is_quoted, served_from
from quant_platform.settings import Settings
from quant_platform.settings.instruments import Instrument

CASES = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "calendar_cases.json").read_text())["cases"]
SESSIONS = [case for case in CASES if "date" in case["inputs"]]
GATES = [case for case in CASES if "ts" in case["inputs"]]


def instrument(calendar):
    return Instrument(symbol="A", venue_symbol="A", feed="binance_usdm", tick_size=0.1, lot_size=0.1, calendar=calendar)


def ns(text):
    """Integer UTC ns of an instant, to the last digit."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    whole = int(datetime.fromisoformat(seconds).replace(tzinfo=UTC).timestamp())
    return whole * 1_000_000_000 + int(fraction.ljust(9, "0"))


@pytest.mark.parametrize("case", SESSIONS, ids=lambda case: case["id"])
def test_the_session_of_a_date_is_the_calendars(case, tmp_path):
    settings, day = Settings(home=tmp_path), date.fromisoformat(case["inputs"]["date"])
    served = served_from(settings, instrument(case["inputs"]["calendar"]), ns(f"{day}T00:00:00Z"))
    if case["expected"]["open_utc"] is None:
        assert served.date > day
    else:
        assert served == (day, ns(case["expected"]["open_utc"]), ns(case["expected"]["close_utc"]))


@pytest.mark.parametrize("case", GATES, ids=lambda case: case["id"])
def test_the_gate_is_open_from_the_open_on_and_until_the_close(case, tmp_path):
    at = ns(case["inputs"]["ts"])
    served = served_from(Settings(home=tmp_path), instrument(case["inputs"]["calendar"]), at)
    assert (served.start_ns <= at < served.end_ns) == case["expected"]["active"]


def test_after_a_close_the_next_session_is_the_next_one_of_the_calendar(tmp_path):
    friday_evening = ns("2024-03-08T21:00:00Z")
    served = served_from(Settings(home=tmp_path), instrument("XNYS"), friday_evening)
    assert served == (date(2024, 3, 11), ns("2024-03-11T13:30:00Z"), ns("2024-03-11T20:00:00Z"))


def test_extended_hours_stand_in_the_place_of_the_regular_ones_in_the_exchanges_zone(tmp_path):
    settings = Settings(home=tmp_path, analytics={"extended_hours": {"open": "04:00", "close": "20:00"}})
    winter = served_from(settings, instrument("XNYS"), ns("2024-03-08T12:00:00Z"))
    summer = served_from(settings, instrument("XNYS"), ns("2024-03-11T12:00:00Z"))
    assert winter == (date(2024, 3, 8), ns("2024-03-08T09:00:00Z"), ns("2024-03-09T01:00:00Z"))
    assert summer == (date(2024, 3, 11), ns("2024-03-11T08:00:00Z"), ns("2024-03-12T00:00:00Z"))
    holiday = served_from(settings, instrument("XNYS"), ns("2024-03-29T15:00:00Z"))
    assert holiday.date == date(2024, 4, 1)


def test_without_the_gate_every_date_of_the_exchanges_clock_is_served_from_midnight_to_midnight(tmp_path):
    settings = Settings(home=tmp_path, analytics={"rth_only": False})
    served = served_from(settings, instrument("XNYS"), ns("2024-03-10T12:00:00Z"))  # a Sunday of 23 hours
    assert served == (date(2024, 3, 10), ns("2024-03-10T05:00:00Z"), ns("2024-03-11T04:00:00Z"))


def test_a_symbol_that_trades_around_the_clock_is_never_gated(tmp_path):
    settings = Settings(home=tmp_path, analytics={"extended_hours": {"open": "04:00", "close": "20:00"}})
    served = served_from(settings, instrument("24/7"), ns("2024-12-25T03:00:00Z"))
    assert served == (date(2024, 12, 25), ns("2024-12-25T00:00:00Z"), ns("2024-12-26T00:00:00Z"))


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2024-03-08T13:59:59Z", False),  # the session is 14:30 to 21:00
        ("2024-03-08T14:00:00Z", True),
        ("2024-03-08T18:00:00Z", True),
        ("2024-03-08T21:29:59Z", True),
        ("2024-03-08T21:30:00Z", False),
        ("2024-03-09T18:00:00Z", False),  # a Saturday
        ("2024-07-03T17:20:00Z", True),  # a half day, over at 17:00
        ("2024-07-03T17:40:00Z", False),
    ],
)
def test_quotes_change_in_the_session_and_half_an_hour_around_it(tmp_path, moment, expected):
    assert is_quoted(Settings(home=tmp_path), instrument("XNYS"), ns(moment)) is expected
    assert is_quoted(Settings(home=tmp_path), instrument("24/7"), ns(moment))
