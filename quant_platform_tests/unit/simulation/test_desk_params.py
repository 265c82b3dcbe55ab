"""What a desk may be like."""

from dataclasses import replace
from math import inf, nan

import pytest

from quant_platform.simulation.desk_params import DeskParams

DESK = DeskParams()


def test_the_default_desk_is_that_of_the_demonstration() -> None:
    assert 3 * 7 * DESK.orders_per_day >= 3_000
    assert len(DESK.venues) >= 4
    assert {algo.name for algo in DESK.algos} == {"twap", "vwap", "pov", "aggressive"}
    assert len({(venue.taker_fee_bps, venue.maker_fee_bps) for venue in DESK.venues}) == len(DESK.venues)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orders_per_day": 0}, "orders_per_day must be >= 1, was 0"),
        ({"order_notional": 0.0}, "order_notional must be > 0, was 0"),
        ({"impact": nan}, "impact must be >= 0, was nan"),
        ({"permanent_share": 1.5}, "permanent_share must be >= 0 and <= 1, was 1.5"),
        ({"venues": ()}, r"venues must have one or more, each with a name of its own, had \[\]"),
        ({"algos": DESK.algos[:1] * 2}, "algos must have one or more, each with a name of its own, had .*twap.*twap"),
    ],
)
def test_a_desk_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DESK, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("strategies", {"skill": 1.0}, "skill must be >= 0 and < 1, was 1.0"),
        ("strategies", {"share": 0.0}, "share must be > 0, was 0"),
        ("strategies", {"horizon_s": 0}, "horizon_s must be >= 1, was 0"),
        ("algos", {"longest_s": 0.5}, "longest_s must be >= 900 and <= 3600, was 0.5"),
        ("algos", {"longest_s": 7_200}, "longest_s must be >= 900 and <= 3600, was 7200"),
        ("algos", {"maker_share": -0.1}, "maker_share must be >= 0 and <= 1, was -0.1"),
        ("brokers", {"delay_s": -1.0}, "delay_s must be >= 0 and <= 3600, was -1"),
        ("venues", {"depth": 0.0}, "depth must be <= 1 and > 0|depth must be > 0 and <= 1, was 0"),
        ("venues", {"latency_ms": 0}, "latency_ms must be >= 1, was 0"),
        ("venues", {"maker_fee_bps": inf}, "maker_fee_bps must be finite, was inf"),
    ],
)
def test_a_member_that_cannot_be_is_refused(role: str, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(getattr(DESK, role)[0], **change)
