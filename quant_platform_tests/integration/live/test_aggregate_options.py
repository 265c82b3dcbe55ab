"""What the portfolio sums of option chains, from payloads in a real Redis; sums worked by hand, and the oracle's."""

import json
from pathlib import Path

import pytest

from quant_platform.live.aggregate import Aggregator
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.live_store import Batch
from quant_platform_tests.integration.live.aggregate_keys import MARKET, NOW, SECOND, SUMMARY, put
from quant_platform_tests.integration.live.option_chains import Live, chain_rows, publish, settings_of

GOLDEN = Path(__file__).parents[2] / "golden" / "oracles" / "portfolio_cases.json"
CASES = {case["id"]: case for case in json.loads(GOLDEN.read_text())["cases"]}
SECTORS = {"A": "s1", "B": "s1", "C": "s2"}


def settings(home, *, feed="deribit", **analytics):
    row = {"feed": "binance_usdm", "venue_symbol": "X", "tick_size": 0.1, "lot_size": 0.001}
    chain = {"feed": feed, "venue_symbol": "BTC"}
    listed = [Instrument(symbol=s, sector=sector, chain=chain, **row) for s, sector in SECTORS.items()]
    plain = Instrument(symbol="D", sector="s2", **row)
    return Settings(home=home, instruments=(*listed, plain), analytics=analytics)


@pytest.fixture
def written(server, client):
    """Sum what is in Redis, and return the summary."""

    def sums(**given):
        market_ns = given.pop("market_ns", MARKET)
        aggregator = Aggregator(settings(server.home, **given), [*SECTORS, "D"])
        batch = Batch()
        aggregator.add({"portfolio"}, client, batch, NOW, market_ns)
        batch.send(client)
        raw = client.get(SUMMARY)
        return raw and json.loads(raw)

    return sums


def test_the_oracles_symbols(client, written):
    case = CASES["three_symbols"]
    for one in case["inputs"]["symbols"]:
        put(client, f"analytics:{one['symbol']}:vpin", vpin=one["vpin"])
        put(client, f"analytics:{one['symbol']}:gex", gex_gross=None, gex_net=one["gex_net"])
        toxic = {"toxicity_adjusted": None, "toxicity_adjusted_level": one["toxicity_level"]}
        put(client, f"analytics:{one['symbol']}:toxicity", **toxic)
    found, expected = written(), case["expected"]
    by_sector = expected.pop("by_sector")
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=case["tolerance"]["abs"])
    for sector, values in by_sector.items():
        told = {name: found["by_sector"][sector][name] for name in values}
        assert told == pytest.approx(values, abs=case["tolerance"]["abs"])


def test_each_sum_is_of_its_own_field_with_its_count(client, written):
    for symbol, factor in (("A", 1.0), ("B", 10.0)):
        put(client, f"analytics:{symbol}:gex", gex_gross=5 * factor, gex_net=-2 * factor)
        put(client, f"analytics:{symbol}:dex", dex_gross=7 * factor, dex_net=3 * factor)
        put(client, f"analytics:{symbol}:vanna", vanna_notional_per_vol_pt=11 * factor)
        put(client, f"analytics:{symbol}:charm", charm_notional_per_day=13 * factor)
    put(client, "analytics:A:hedging_impact", notional_per_pct_move=17)
    put(client, "analytics:B:hedging_impact", notional_per_pct_move=None)
    found = written()
    expected = {"total_gex_gross": 55, "total_gex_net": -22, "gex_count": 2, "total_dex_gross": 77, "total_dex_net": 33}
    expected |= {"dex_count": 2, "total_vanna_notional": 121, "vanna_count": 2, "total_charm_notional": 143}
    expected |= {"charm_count": 2, "total_hedging_notional": 17, "hedging_count": 1, "symbols": 2}
    assert {name: found[name] for name in expected} == expected
    assert found["by_sector"]["s1"]["total_vanna_notional"] == 121


@pytest.mark.parametrize(
    ("given", "age_s"),
    [
        ({"feed": "deribit"}, 120),  # two polls of a minute
        ({"feed": "cboe"}, 1_020),  # and the quotes' quarter of an hour
        ({"feed": "cboe", "max_age_s": {"chain": 5}}, 5),
    ],
)
def test_a_chain_that_is_too_old_for_its_feed_is_left_out(client, written, given, age_s):
    put(client, "analytics:A:gex", gex_gross=1, gex_net=1)
    assert written(**given, market_ns=MARKET + age_s * SECOND)["total_gex_net"] == 1
    client.delete(SUMMARY)
    put(client, "analytics:B:vpin", vpin=0.5, ts=MARKET + age_s * SECOND)
    found = written(**given, market_ns=MARKET + age_s * SECOND + 1)
    assert (found["total_gex_net"], found["symbols"]) == (None, 1)


def test_a_symbol_without_options_is_not_asked_for_them(client, written):
    put(client, "analytics:D:gex", gex_gross=1, gex_net=1)
    put(client, "analytics:D:vpin", vpin=0.5)
    assert written()["total_gex_net"] is None


def test_the_portfolio_adds_what_the_writer_writes(server, client):
    names = {"total_gex_gross": ("gex", "gex_gross"), "total_gex_net": ("gex", "gex_net")}
    names |= {"total_dex_net": ("dex", "dex_net"), "total_vanna_notional": ("vanna", "vanna_notional_per_vol_pt")}
    names |= {"total_charm_notional": ("charm", "charm_notional_per_day")}
    names |= {"total_hedging_notional": ("hedging_impact", "notional_per_pct_move")}
    publish(client, chain_rows("AAA"))
    publish(client, chain_rows("BBB", spot=103.0))
    live = Live(settings_of(server.home, "AAA", "BBB"))
    found = {}

    def is_summed():
        found.update(json.loads(client.get(SUMMARY) or "{}"))
        return found.get("gex_count") == found.get("hedging_count") == 2

    live.until(is_summed)
    live.writer.close()
    for total, (metric, field) in names.items():
        parts = [json.loads(client.get(f"analytics:{symbol}:{metric}"))[field] for symbol in ("AAA", "BBB")]
        assert found[total] == pytest.approx(sum(parts), rel=1e-12)
    assert set(found) == set(redis_keys.PORTFOLIO.fields)
