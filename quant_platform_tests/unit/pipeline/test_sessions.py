"""Trading dates to time windows; the exchange's hours are those that NYSE publishes."""

from datetime import UTC, date, datetime

import pytest

from quant_platform.pipeline.sessions import earlier_sessions, session, trading_date


def test_always_open_is_the_utc_day() -> None:
    assert session("24/7", date(2024, 2, 29)) == (
        datetime(2024, 2, 29, tzinfo=UTC),
        datetime(2024, 3, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        (date(2024, 8, 8), 13.5, 20.0),  # summer: 9:30 to 16:00 in New York is UTC-4
        (date(2024, 1, 10), 14.5, 21.0),  # winter: UTC-5
        (date(2024, 7, 3), 13.5, 17.0),  # half day before Independence Day
        (date(2024, 11, 29), 14.5, 18.0),  # half day after Thanksgiving
    ],
)
def test_exchange_day_has_its_hours_in_utc(day: date, opens: float, closes: float) -> None:
    found = session("XNYS", day)
    assert found is not None
    hours = [bound.hour + bound.minute / 60 for bound in found]
    assert hours == [opens, closes]
    assert all(bound.date() == day and bound.utcoffset().total_seconds() == 0 for bound in found)


@pytest.mark.parametrize("day", [date(2024, 7, 4), date(2024, 8, 10), date(2024, 12, 25), date(2001, 9, 11)])
def test_exchange_is_closed(day: date) -> None:
    assert session("XNYS", day) is None


def test_earlier_sessions_are_oldest_first_and_leave_the_day_out() -> None:
    assert earlier_sessions("24/7", date(2024, 3, 1), 2) == [date(2024, 2, 28), date(2024, 2, 29)]
    assert earlier_sessions("24/7", date(2024, 3, 1), 0) == []


def test_earlier_sessions_pass_over_holidays_and_weekends() -> None:
    # Friday 5 July 2024: before it Wednesday, Tuesday, Monday, and Friday of the week before.
    assert earlier_sessions("XNYS", date(2024, 7, 5), 4) == [
        date(2024, 6, 28),
        date(2024, 7, 1),
        date(2024, 7, 2),
        date(2024, 7, 3),
    ]


@pytest.mark.parametrize("calendar", ["XTKS", "XSHG", "AIXK"])
def test_calendar_that_is_recorded_less_far_back_works_all_the_same(calendar: str) -> None:
    assert session(calendar, date(2024, 8, 8)) is not None


def test_unknown_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no calendar 'NYSEX': use 24/7 or a name"):
        session("NYSEX", date(2024, 8, 8))


@pytest.mark.parametrize(
    ("calendar", "moment", "expected"),
    [
        ("24/7", datetime(2024, 3, 10, 23, 59, tzinfo=UTC), date(2024, 3, 10)),
        ("XNYS", datetime(2024, 3, 8, 20, 0, tzinfo=UTC), date(2024, 3, 8)),
        ("XNYS", datetime(2024, 3, 9, 2, 0, tzinfo=UTC), date(2024, 3, 8)),  # Friday evening in New York
        ("XNYS", datetime(2024, 3, 10, 18, 0, tzinfo=UTC), date(2024, 3, 8)),  # Sunday
        ("XNYS", datetime(2024, 7, 4, 15, 0, tzinfo=UTC), date(2024, 7, 3)),
    ],
)
def test_a_moment_belongs_to_its_trading_date_or_the_last_one_before(
    calendar: str, moment: datetime, expected: date
) -> None:
    assert trading_date(calendar, moment) == expected
