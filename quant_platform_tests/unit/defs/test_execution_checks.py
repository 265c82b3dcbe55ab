"""What the checks of orders say: each counts one thing, and is red where one symbol has any of it."""

import json
from datetime import date

import dagster as dg
import pytest

from quant_platform.contracts.execution import TcaOrder
from quant_platform.defs import checks
from quant_platform.pipeline import events, execution
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus

DAY = date(2024, 3, 4)
SOUND = {"orders": 3, "identity_broken": 0, "overfilled": 0, "filled_outside_life": 0, "outside_range": 0}
COUNTED = {
    "shortfall_identity": "identity_broken",
    "fills_within_orders": "overfilled",
    "fills_within_life": "filled_outside_life",
    "prices_within_range": "outside_range",
}


def judged(*facts: dict[str, int] | None) -> dict[str, dg.AssetCheckEvaluation]:
    """Return the checks of a date, a symbol for each fact; None is a symbol that the desk did not trade."""
    outcomes = [
        Outcome(
            Unit(str(TcaOrder.table), f"S{number}", DAY),
            UnitStatus.ABSENT if fact is None else UnitStatus.OK,
            facts={} if fact is None else {execution.CHECKS: json.dumps(fact)},
        )
        for number, fact in enumerate(facts)
    ]
    found = checks.evaluations(str(TcaOrder.table), DAY, outcomes, {})
    return {one.check_name: one for one in found if one.check_name in COUNTED}


def test_a_date_without_orders_and_one_that_is_sound_are_green() -> None:
    for facts in ([], [None], [SOUND], [SOUND, None, SOUND]):
        found = judged(*facts)
        assert list(found) == list(COUNTED)
        assert all(one.passed for one in found.values())


@pytest.mark.parametrize(("name", "fact"), COUNTED.items())
def test_one_order_of_one_symbol_makes_one_check_red(name: str, fact: str) -> None:
    found = judged(SOUND, SOUND | {fact: 1})
    assert [each for each, one in found.items() if not one.passed] == [name]
    one = found[name]
    assert one.metadata["by_symbol"].value == {"S0": SOUND, "S1": SOUND | {fact: 1}}
    assert (one.partition, one.blocking) == ("2024-03-04", False)
    is_ours = name == "shortfall_identity"  # the desk's own mistakes are warnings
    assert one.severity == (dg.AssetCheckSeverity.ERROR if is_ours else dg.AssetCheckSeverity.WARN)


def test_every_check_stands_in_the_tables_specs() -> None:
    named = {
        spec.name: spec.description
        for spec in checks.specs(str(TcaOrder.table), dg.DailyPartitionsDefinition("2024-03-01"))
    }
    assert set(COUNTED) < set(named)
    assert named["prices_within_range"] == "Every fill's price is within the range of the date's trades."


@pytest.mark.parametrize("told", [("0", "0"), ("0", "2"), ()])
def test_a_waterfall_that_does_not_add_up_makes_its_check_red(told: tuple[str, ...]) -> None:
    table = "events/out/performance_attribution"
    outcomes = [Outcome(Unit(table, "all", DAY), UnitStatus.OK, rows=5, facts={events.CHECK: one}) for one in told]
    found = {one.check_name: one for one in checks.evaluations(table, DAY, outcomes, {})}[checks.WATERFALL]
    assert (found.passed, found.severity) == ("2" not in told, dg.AssetCheckSeverity.ERROR)
    assert found.metadata["unreconciled"].value == sum(int(one) for one in told)
