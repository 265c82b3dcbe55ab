"""The laws of exposures of option chains. Examples worked by hand are unit tests."""

import json

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators.dealer_exposure import DealerFlowParams
from quant_platform.contracts._schema import validated
from quant_platform.contracts.dealer import DealerFlow, GammaExposure, Skew
from quant_platform_tests.unit.dealer_frames import NOW, contracts, dealer_flow, gamma_exposure, skew, snapshots

SHOTS = snapshots(("A", NOW, 100.0), ("A", NOW + 60, 101.0), ("B", NOW, 20.0), ("C", NOW, None))
CALCULATORS = {gamma_exposure: GammaExposure, dealer_flow: DealerFlow, skew: Skew}
NOTHING = [None, float("nan"), float("inf"), 0.0, -1.0]
ROWS = st.fixed_dictionaries(
    {
        "of": st.sampled_from([("A", NOW), ("A", NOW + 60), ("B", NOW), ("C", NOW), ("D", NOW)]),
        "type": st.sampled_from(["C", "C", "P", "P", "X"]),
        "strike": st.one_of(st.integers(15, 120).map(float), st.sampled_from(NOTHING)),
        "days": st.one_of(st.integers(1, 700).map(lambda hours: hours / 24), st.sampled_from([0.0, -1.0])),
        "iv": st.one_of(st.floats(0.05, 3), st.sampled_from(NOTHING)),
        "delta": st.one_of(st.floats(-1, 1), st.sampled_from(NOTHING)),
        "gamma": st.one_of(st.floats(1e-6, 1), st.sampled_from(NOTHING)),
        "vanna": st.one_of(st.floats(-2, 2), st.sampled_from(NOTHING)),
        "open_interest": st.one_of(st.integers(0, 10_000).map(float), st.sampled_from(NOTHING)),
        "multiplier": st.sampled_from([100.0, 100.0, 1.0, None]),
    }
)
CHAINS = st.lists(ROWS, max_size=25)


def chain(rows):
    parts = [
        contracts(
            {k: v for k, v in row.items() if k != "of"} | {"contract": str(number)},
            symbol=row["of"][0],
            ts=row["of"][1],
        )
        for number, row in enumerate(rows)
    ]
    return pl.concat([contracts(), *parts])


def is_whole(frame):
    return frame.select(pl.all_horizontal(pl.col("^(strike|expiry)$").is_null())).to_series()


@settings(max_examples=40, deadline=None)
@given(st.data(), CHAINS)
def test_the_order_of_contracts_changes_nothing_and_all_keep_their_contract(data, rows):
    full = chain(rows)
    shuffled = full[data.draw(st.permutations(range(full.height)))]
    for calculator, contract in CALCULATORS.items():
        found = validated(contract, calculator(SHOTS, full))
        assert_frame_equal(calculator(SHOTS.reverse(), shuffled), found, rel_tol=1e-9, abs_tol=1e-6)
        assert is_whole(found).sum() == SHOTS.height


@settings(max_examples=40, deadline=None)
@given(CHAINS)
def test_snapshots_together_are_as_each_alone(rows):
    full = chain(rows)
    for calculator in CALCULATORS:
        alone = [calculator(SHOTS[k], full) for k in range(SHOTS.height)]
        assert_frame_equal(calculator(SHOTS, full), pl.concat(alone), rel_tol=1e-9, abs_tol=1e-6)


@settings(max_examples=40, deadline=None)
@given(CHAINS)
def test_parts_add_up_and_the_net_is_within_the_gross(rows):
    found = gamma_exposure(SHOTS, chain(rows))
    keys = ["symbol", "ts_event"]
    sums = ["gex_gross", "gex_net", "dex_gross", "dex_net"]
    cells = found.filter(pl.col("expiry").is_not_null()).group_by(keys).agg(pl.col(sums).sum()).sort(keys)
    strikes = found.filter(pl.col("strike").is_not_null(), pl.col("expiry").is_null())
    whole = found.filter(is_whole(found))
    used = whole.filter(pl.col("status") == "ok").select(*keys, *sums)
    assert_frame_equal(cells, used, rel_tol=1e-9, abs_tol=1e-3)
    assert_frame_equal(strikes.group_by(keys).agg(pl.col(sums).sum()).sort(keys), used, rel_tol=1e-9, abs_tol=1e-3)
    for kind in ("gex", "dex"):
        assert (found[f"{kind}_net"].abs() <= found[f"{kind}_gross"] * (1 + 1e-12)).all()
    given_rows = sum(row["of"][0] != "D" for row in rows)
    assert whole.select(pl.sum_horizontal("contracts_used", "contracts_skipped")).sum().item() == given_rows


@settings(max_examples=40, deadline=None)
@given(CHAINS)
def test_roots_lie_in_the_searched_range_and_the_nearest_is_one_of_them(rows):
    found = gamma_exposure(SHOTS, chain(rows)).filter(pl.col("zero_gamma_count").is_not_null())
    for row in found.iter_rows(named=True):
        roots = json.loads(row["zero_gammas"])
        assert len(roots) == row["zero_gamma_count"]
        assert roots == sorted(roots)
        assert all(row["zero_gamma_from"] <= root <= row["zero_gamma_to"] for root in roots)
        nearest = min(roots, key=lambda root: abs(root - row["underlying_price"]), default=None)
        assert row["zero_gamma"] == nearest


@settings(max_examples=40, deadline=None)
@given(CHAINS, st.floats(0.1, 10))
def test_flows_grow_with_open_interest(rows, times):
    params = DealerFlowParams(min_open_interest=0)
    full = chain(
        [row | {"open_interest": 100.0 if row["open_interest"] is None else row["open_interest"]} for row in rows]
    )
    flows = pl.selectors.contains("_per_")
    once = dealer_flow(SHOTS, full, params).select(flows)
    more = dealer_flow(SHOTS, full.with_columns(pl.col("open_interest") * times), params).select(flows)
    assert_frame_equal(more, once.select(pl.all() * times), rel_tol=1e-9, abs_tol=1e-6)
