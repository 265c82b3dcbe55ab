"""Expiries in names, moved by whole days; the REST itself is tested over HTTP."""

import pytest

from quant_platform.feeds._replay_chains import Moved, _renamed

DAY_NS = 86_400 * 10**9


@pytest.mark.parametrize(
    ("name", "days", "expected"),
    [
        ("BTC-5JAN24-40000-C", 0, "BTC-5JAN24-40000-C"),
        ("BTC-5JAN24-40000-C", 1, "BTC-6JAN24-40000-C"),
        ("BTC-31DEC24-40000-P", 1, "BTC-1JAN25-40000-P"),
        ("BTC-28FEB24-40000-P", 1, "BTC-29FEB24-40000-P"),  # a leap year
        ("BTC-1MAR24-40000-P", -1, "BTC-29FEB24-40000-P"),
        ("SOL_USDC-26APR24-182d5-C", 365, "SOL_USDC-26APR25-182d5-C"),
        ("SYN.BTC-29MAR24", 7, "SYN.BTC-5APR24"),
        ("BTC-PERPETUAL", 7, "BTC-PERPETUAL"),
        ("index_price", 7, "index_price"),
    ],
)
def test_names_expire_later(name: str, days: int, expected: str) -> None:
    assert _renamed(name, days) == expected


@pytest.mark.parametrize(
    ("shift_ns", "time_ms", "days"),
    [
        (0, 0, 0),
        (1_000_000, 1, 1),
        (DAY_NS, 86_400_000, 1),
        (DAY_NS + 1_999_999, 86_400_001, 2),
        (-1_000_000, -1, 0),
    ],
)
def test_an_offset_is_rounded_up_to_days_and_down_to_milliseconds(shift_ns: int, time_ms: int, days: int) -> None:
    assert Moved.by(shift_ns) == (time_ms, days)
