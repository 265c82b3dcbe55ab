"""What decisions, orders and fills must keep, and that columns and vocabularies of costs belong together."""

import pytest

from quant_platform.contracts._schema import polars_schema, split, validated
from quant_platform.contracts.execution import (
    MARKOUT_HORIZONS_NS,
    PARTICIPATION_RATES,
    Decision,
    Fill,
    Order,
    TcaFill,
    TcaOrder,
)
from quant_platform_tests.unit.tca_frames import decisions, fills, orders

ROWS = {Decision: decisions, Order: orders, Fill: fills}


@pytest.mark.parametrize("contract", ROWS, ids=lambda contract: contract.__name__)
def test_usual_rows_keep_their_contract(contract):
    assert validated(contract, ROWS[contract]({}, {"side": -1})).height == 2


@pytest.mark.parametrize(
    ("contract", "change", "rule"),
    [
        (Decision, {"side": 0}, "side_is_known"),
        (Decision, {"quantity": 0.0}, "quantity|min_exclusive"),
        (Decision, {"price": -1.0}, "price|min_exclusive"),
        (Decision, {"confidence": 1.1}, "confidence|max"),
        (Order, {"side": 0}, "side_is_known"),
        (Order, {"ts_done": -1}, "ends_after_it_began"),
        (Order, {"status": "gone"}, "status|"),
        (Order, {"quantity": float("nan")}, "quantity|"),
        (Fill, {"side": 0}, "side_is_known"),
        (Fill, {"price": 0.0}, "price|min_exclusive"),
        (Fill, {"quantity": -1.0}, "quantity|min_exclusive"),
        (Fill, {"fee_rate": 0.0}, "fee_rate|min_exclusive"),
        (Fill, {"liquidity": "dark"}, "liquidity|"),
    ],
)
def test_what_no_desk_can_do_breaks_a_rule(contract, change, rule):
    good, bad = split(contract, ROWS[contract]({}, change))
    assert good.height == 1
    assert bad["rule"].to_list()[0].startswith(rule)


@pytest.mark.parametrize(
    ("contract", "change"),
    [
        (Decision, {"price": None, "expected_cost_bps": -3.0, "confidence": 0.0}),
        (Order, {"ts_done": None, "decision_id": None, "status": "open"}),
        (Order, {"ts_done": 0}),
        (Fill, {"order_id": None, "fee": -0.5, "fee_currency": "", "liquidity": "maker"}),
    ],
)
def test_what_is_not_told_is_null(contract, change):
    assert split(contract, ROWS[contract](change)).bad.is_empty()


def test_every_rate_and_horizon_has_its_columns():
    of_orders, of_fills = polars_schema(TcaOrder).names(), polars_schema(TcaFill).names()
    pwp = [f"pwp_{name}_{what}" for what in ("price", "cost_bps") for name in PARTICIPATION_RATES]
    assert [name for name in of_orders if name.startswith("pwp_")] == pwp
    later = [f"realised_spread_{name}_bps" for name in MARKOUT_HORIZONS_NS]
    later += [f"markout_{name}_bps" for name in (*MARKOUT_HORIZONS_NS, "close")]
    assert [name for name in of_fills if name.startswith(("realised_", "markout_"))] == later
