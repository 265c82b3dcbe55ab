"""Keys of options by a live writer over a real Redis; the numbers are worked by hand from the chain's own greeks."""

import json
from datetime import date

import numpy as np
import pytest
import redis

from quant_platform.live._option_chain import LiveChain
from quant_platform.pipeline import option_keys, options
from quant_platform_tests.integration.live.option_chains import (
    CONTRACTS,
    INTERVALS,
    NAMES,
    NOON,
    SPOT,
    Live,
    S,
    chain_rows,
    history,
    payload,
    publish,
    settings_of,
)

COUNTED = [row for row in CONTRACTS if row[5] >= 5]


@pytest.fixture
def live(server, client):
    """Start writers; they end with the test."""
    started = []

    def start(*with_chain, **given):
        one = Live(settings_of(server.home, *(with_chain or ("AAA",)), **given))
        started.append(one)
        return one

    yield start
    for one in started:
        one.writer.close()


def is_served(client, symbol="AAA", metrics=NAMES):
    return all(client.exists(NAMES[metric].name(symbol)) for metric in metrics)


def test_keys_hold_the_sums_over_the_chain(client, live):
    publish(client, chain_rows())
    live().until(lambda: is_served(client))
    gex = [
        (1 if kind == "C" else -1, gamma * interest * SPOT**2 * 0.01) for kind, _, _, _, gamma, interest, _ in COUNTED
    ]
    found = payload(client, "gex")
    assert found["gex_gross"] == pytest.approx(sum(value for _, value in gex), rel=1e-12)
    assert found["gex_net"] == pytest.approx(sum(sign * value for sign, value in gex), rel=1e-12)
    assert (found["contracts_used"], found["contracts_skipped"], found["status"]) == (3, 1, "ok")
    assert (found["ts"], found["symbol"], found["seq"], found["has_gap"]) == (NOON, "AAA", 1, False)
    assert isinstance(found["zero_gammas"], list)
    assert len(found["zero_gammas"]) == found["zero_gamma_count"]
    dex = [delta * interest * SPOT for _, _, _, delta, _, interest, _ in COUNTED]
    assert payload(client, "dex")["dex_net"] == pytest.approx(sum(dex), rel=1e-12)
    assert payload(client, "dex")["dex_gross"] == pytest.approx(sum(map(abs, dex)), rel=1e-12)
    gamma = sum(gamma * interest * SPOT * 0.01 for _, _, _, _, gamma, interest, _ in COUNTED)
    impact = payload(client, "hedging_impact")
    assert impact["gamma_shares_per_pct"] == pytest.approx(gamma, rel=1e-12)
    vanna = payload(client, "vanna")["vanna_shares_per_vol_pt"]
    assert impact["shares_per_pct_move"] == pytest.approx(gamma + vanna * impact["vol_beta"], rel=1e-12)
    skew = payload(client, "skew")
    assert (skew["headline_expiry"], skew["skew"]) == ("2024-08-23", pytest.approx(0.55 - 0.45))
    unusual = payload(client, "unusual")
    assert unusual["volume_oi_ratio"] == pytest.approx(85 / 903)
    assert (unusual["call_volume"], unusual["put_volume"]) == (60, 25)


def test_every_payload_has_exactly_its_fields_and_ends(client, live):
    publish(client, chain_rows())
    live().until(lambda: is_served(client))
    for metric, key in NAMES.items():
        assert list(payload(client, metric)) == list(key.fields)
    names = [name for name in client.keys("*") if name != b"options:AAA:chain"]
    assert all(client.ttl(name) > 0 for name in names)
    assert {f"analytics:AAA:{metric}:history".encode() for metric in NAMES} <= set(names)


def test_numbers_are_those_of_the_batch(client, live):
    rows = chain_rows()
    publish(client, rows)
    one = live()
    one.until(lambda: is_served(client))
    settings = settings_of(one.writer._settings.home, "AAA")
    held, greeks = options.valued(rows, {"AAA": settings.instrument("AAA")})
    frames = options.exposures(held, greeks, settings) | {options.UNUSUAL_ACTIVITY: options.unusual(rows, settings)}
    for metric, key in NAMES.items():
        (row,) = frames[key.contract.table].filter(option_keys.OF_WHOLE_CHAINS[key.contract.table]).to_dicts()
        told = payload(client, metric)
        for name in key.fields:
            if name in row and not name.startswith("ts_") and name not in {"zero_gammas", "headline_expiry"}:
                assert told[name] == row[name], (metric, name)


def test_greeks_that_do_not_stand_beside_their_chain_are_refused(tmp_path):
    settings = settings_of(tmp_path, "AAA")
    held, greeks = options.valued(chain_rows(), {"AAA": settings.instrument("AAA")})
    with pytest.raises(ValueError, match="of other contracts than the chain, or in another order"):
        options.exposures(held, greeks.reverse(), settings)


def test_a_symbol_without_options_has_none_of_these_keys(client, live):
    publish(client, chain_rows())
    publish(client, chain_rows("BBB"))
    one = live("AAA", without=["BBB"])
    one.until(lambda: is_served(client))
    one.cycles(3)
    assert not client.keys("analytics:BBB:*")


def test_one_snapshot_is_one_entry_however_often_it_is_seen(client, live):
    one = live()
    for number in range(3):
        for seq in (1, 2):
            publish(client, chain_rows(seconds=60 * number, oi_factor=1.0 + number), seq=seq)
            one.until(lambda number=number: (payload(client, "gex") or {"ts": 0})["ts"] == NOON + 60 * number * S)
            one.cycles(3)
    for metric, key in NAMES.items():
        entries = history(client, metric)
        assert [entry["ts"] for entry in entries] == [NOON, NOON + 60 * S, NOON + 120 * S], metric
        assert set(entries[0]) == {"ts", *key.headlines}
    gross = [entry["gex_gross"] for entry in history(client, "gex")]
    assert gross == pytest.approx([gross[0], 2 * gross[0], 3 * gross[0]], rel=0.02)  # the fourth contract counts later


def test_standing_among_earlier_snapshots(client, live):
    factors = [1.0, 2.0, 5.0, 3.0, 4.0, 2.5]
    one = live(exposure_history={"gamma_window": 5, "gamma_min_samples": 3})
    for number, factor in enumerate(factors):
        publish(client, chain_rows(seconds=60 * number, oi_factor=factor, contracts=COUNTED))
        one.until(lambda number=number: (payload(client, "gex") or {"ts": 0})["ts"] == NOON + 60 * number * S)
    window = np.array(factors[-5:])
    found = payload(client, "gex")
    assert found["z_score"] == pytest.approx((window[-1] - window.mean()) / window.std(ddof=1), abs=1e-9)
    assert found["percentile"] == pytest.approx(2 / 5)
    assert found["gross_percentile"] == pytest.approx(2 / 5)
    assert history(client, "gex")[-1]["z_score"] == found["z_score"]
    assert history(client, "gex")[1]["z_score"] is None


@pytest.mark.parametrize(
    ("content", "malformed"),
    [
        (b"<html><body>429 Too Many Requests</body></html>", 1),
        (b"null", 1),
        (b"[]", 1),
        (b"", 1),
        (b'{"ts_event": 1', 1),
        (b'{"underlying_price": 5, "contracts": []}', 1),
        (b'{"ts_event": 1723118460000000000, "contracts": 7}', 1),
        (b'{"ts_event": 1723118460000000000, "contracts": []}', 0),
        (b'{"ts_event": 1723118460000000000, "contracts": [null, {"strike": "x"}]}', 2),
    ],
)
def test_what_is_no_chain_takes_nothings_place_and_is_counted(client, live, content, malformed):
    publish(client, chain_rows())
    one = live()
    one.until(lambda: is_served(client))
    client.set("options:AAA:chain", content)
    one.cycles(2)
    before = {metric: payload(client, metric) for metric in NAMES}
    one.cycles(3)
    assert {metric: payload(client, metric) for metric in NAMES} == before
    beat = json.loads(client.get("heartbeat:analytics"))
    assert beat["malformed"] == malformed
    assert not any(beat["error_counts"].values())
    publish(client, chain_rows(seconds=60))
    one.until(lambda: payload(client, "gex")["ts"] == NOON + 60 * S)


def test_a_chain_all_expired_or_older_takes_nothings_place(client, live):
    publish(client, chain_rows())
    one = live()
    one.until(lambda: is_served(client))
    for rows in (chain_rows(seconds=-60), chain_rows(seconds=40 * 86_400)):
        publish(client, rows)
        one.cycles(2)
        before = payload(client, "gex")
        assert before["ts"] == NOON
        one.cycles(3)
        assert payload(client, "gex") == before
    publish(client, chain_rows(seconds=60))
    one.cycles(2)
    assert payload(client, "gex")["ts"] == NOON + 60 * S


def test_a_market_that_begins_anew_in_the_past_is_followed(client, live):
    one = live()
    for seconds in (600, 660):
        publish(client, chain_rows(seconds=seconds))
        one.until(lambda seconds=seconds: (payload(client, "gex") or {"ts": 0})["ts"] == NOON + seconds * S)
    publish(client, chain_rows(seconds=0))
    one.cycles(5)
    assert payload(client, "gex")["ts"] == NOON + 660 * S  # it may have come late
    for seconds in (60, 120):
        publish(client, chain_rows(seconds=seconds))
        one.until(lambda seconds=seconds: payload(client, "gex")["ts"] == NOON + seconds * S)
    assert [entry["ts"] for entry in history(client, "gex")] == [NOON + 60 * S, NOON + 120 * S]


def test_a_new_chain_is_computed_between_cycles_and_shown_by_the_next(client, live):
    one = live(update_intervals=INTERVALS | {"volatility": 30})
    publish(client, chain_rows())
    one.until(lambda: is_served(client, metrics=["gex"]))
    publish(client, chain_rows(seconds=60))
    one.cycles(1)
    one.writer.read()
    assert not one.writer._options._queue
    one.cycles(1)
    told = {metric: payload(client, metric) for metric in NAMES}
    assert {metric: one and one["ts"] for metric, one in told.items()} == dict.fromkeys(NAMES, NOON + 60 * S)


def test_a_bad_contract_is_left_out_counted_and_said(client, live):
    rows = chain_rows(contracts=COUNTED)
    publish(client, rows)
    told = json.loads(client.get("options:AAA:chain"))
    told["contracts"].append(told["contracts"][0] | {"contract": "AAA-23AUG24-95-C", "strike": -1})
    told["contracts"].append({"contract": "what", "strike": 5})
    client.set("options:AAA:chain", json.dumps(told))
    one = live()
    one.until(lambda: is_served(client))
    found = payload(client, "gex")
    assert (found["contracts_used"], found["has_gap"]) == (3, True)
    assert json.loads(client.get("heartbeat:analytics"))["malformed"] == 2


def test_one_symbols_bad_chain_is_not_the_others_trouble(client, live):
    client.set("options:BBB:chain", b"null")
    client.lpush("options:CCC:chain", b"of another type")
    publish(client, chain_rows())
    one = live("AAA", "BBB", "CCC")
    one.until(lambda: is_served(client))
    one.cycles(2)
    assert not client.keys("analytics:[BC]*")


def test_a_chain_of_calls_alone_has_no_skew_and_says_why(client, live):
    publish(client, chain_rows(contracts=[row for row in CONTRACTS if row[0] == "C"]))
    live().until(lambda: is_served(client))
    skew = payload(client, "skew")
    assert skew["skew"] is None
    assert skew["status"] != "ok"
    assert payload(client, "gex")["gex_net"] == payload(client, "gex")["gex_gross"] > 0


def test_a_chain_without_open_interest_is_null_and_says_why(client, live):
    publish(client, chain_rows(open_interest=None))
    live().until(lambda: is_served(client))
    found = payload(client, "gex")
    assert (found["gex_net"], found["gex_gross"], found["z_score"]) == (None, None, None)
    assert (found["status"], found["contracts_used"]) == ("no_valid_contracts", 0)


def test_keys_end_when_the_chain_has_ended_and_come_again_with_it(client, live):
    one = live(store_ttls=dict.fromkeys(NAMES, 1))
    publish(client, chain_rows())
    one.until(lambda: is_served(client))
    client.delete("options:AAA:chain")
    one.until(lambda: not any(payload(client, metric) for metric in NAMES), seconds=5)
    assert len(history(client, "gex")) == 1
    publish(client, chain_rows(seconds=60))
    one.until(lambda: is_served(client))
    assert len(history(client, "gex")) == 2


def greeks_of(rows, **changes):
    """Write each contract as others do: a key each, its name in the key alone."""
    told = {}
    for row in rows.to_dicts():
        fields = {name: row[name] for name in ("strike", "iv", "delta", "gamma", "open_interest", "volume")}
        fields |= {"ts_event": NOON, "right": "call" if row["type"] == "C" else "put", "expiry": "20240823"}
        fields |= {"underlying_price": SPOT, "venue": "deribit"} | changes
        told[f"options:AAA:{row['contract']}:greeks"] = json.dumps(fields)
    return told


def test_without_a_chain_the_keys_of_contracts_are_read(client, live):
    client.mset(greeks_of(chain_rows()) | {"options:AAA2:x:greeks": "{}", "options:AAA:bad:greeks": "null"})
    one = live()
    one.until(lambda: is_served(client))
    one.cycles(3)
    found = payload(client, "gex")
    expected = sum(gamma * interest * SPOT**2 * 0.01 for *_, gamma, interest, _ in COUNTED)
    assert found["gex_gross"] == pytest.approx(expected, rel=1e-12)
    assert (found["ts"], found["has_gap"]) == (NOON, True)
    assert len(history(client, "gex")) == 1
    publish(client, chain_rows(seconds=60))
    one.until(lambda: payload(client, "gex")["ts"] == NOON + 60 * S)


def test_a_symbol_named_like_a_pattern_finds_its_own_contracts(client, live):
    client.mset({name.replace(":AAA:", ":A*:"): text for name, text in greeks_of(chain_rows()).items()})
    client.mset(greeks_of(chain_rows()))
    one = live("A*")
    one.until(lambda: is_served(client, "A*"))
    assert payload(client, "gex", "A*")["contracts_used"] == 3


def test_a_restart_finds_the_histories_that_redis_holds(client, live):
    first = live()
    for number in range(3):
        publish(client, chain_rows(seconds=60 * number))
        first.until(lambda number=number: len(history(client, "skew")) == number + 1)
    first.writer.close()
    second = live()
    second.until(lambda: (payload(client, "gex") or {"seq": 9})["seq"] == 1)
    second.cycles(2)
    for metric in NAMES:
        assert [entry["ts"] for entry in history(client, metric)] == [NOON, NOON + 60 * S, NOON + 120 * S]


def test_histories_that_redis_lost_are_written_again(client, live):
    one = live()
    publish(client, chain_rows())
    one.until(lambda: is_served(client))
    client.flushall()
    one.writer._lose(redis.ConnectionError("gone"))
    publish(client, chain_rows(seconds=60))
    one.until(lambda: (payload(client, "gex") or {"ts": 0})["ts"] == NOON + 60 * S)
    assert [entry["ts"] for entry in history(client, "gex")] == [NOON, NOON + 60 * S]


def test_a_family_that_fails_is_counted_and_its_keys_alone_are_left_to_their_end(client, live, monkeypatch):
    def refuse(chain, settings):
        if "BBB" in chain["symbol"]:
            raise ValueError("refused")
        return exposures(chain, settings)

    exposures = option_keys.exposures
    monkeypatch.setattr(option_keys, "exposures", refuse)
    publish(client, chain_rows())
    publish(client, chain_rows("BBB"))
    one = live("AAA", "BBB")
    one.until(lambda: is_served(client) and is_served(client, "BBB", ["unusual"]))
    one.cycles(3)
    assert not client.exists("analytics:BBB:gex")
    beat = json.loads(client.get("heartbeat:analytics"))
    assert beat["error_counts"]["gex_dex"] >= 3
    assert beat["error_counts"]["unusual_activity"] == 0
    assert set(beat["failing"]) == {"gex_dex", "dealer_flows", "volatility"}
    assert len(history(client, "unusual", "BBB")) == 1
    monkeypatch.undo()
    one.until(lambda: is_served(client, "BBB"))
    one.cycles(1)
    assert json.loads(client.get("heartbeat:analytics"))["failing"] == []


def test_a_chain_is_read_at_its_turn_alone(client, live, monkeypatch):
    symbols = [f"S{number}" for number in range(8)]
    for symbol in symbols:
        publish(client, chain_rows(symbol))
    one = live(*symbols, update_intervals={"gex_dex": 4, "dealer_flows": 4, "volatility": 8, "unusual_activity": 4})
    read = []
    take_what_was_read = LiveChain.take
    monkeypatch.setattr(
        LiveChain, "take", lambda chain, content: (read.append(chain.symbol), take_what_was_read(chain, content))
    )
    sizes = []
    for _ in range(8):
        one.cycles(1)
        sizes.append(len(read))
        read.clear()
    assert sizes == [2] * 8


def state(client):
    beat = json.loads(client.get("heartbeat:analytics"))
    return beat["state"], beat["idle_symbols"]


def test_out_of_its_hours_a_chain_is_not_served(client, live):
    one = live("AAA", calendar="XNYS")
    publish(client, chain_rows(seconds=-3600 * 2))  # 06:00 in New York
    one.cycles(5)
    assert not client.keys("analytics:AAA:*")
    assert state(client) == ("idle", 1)
    publish(client, chain_rows(seconds=3600 * 2))  # 10:00
    one.until(lambda: is_served(client))
    assert state(client) == ("active", 0)
    publish(client, chain_rows(seconds=3600 * 8))  # 16:00, when it closes
    one.cycles(3)
    assert state(client) == ("idle", 1)
    assert payload(client, "gex")["ts"] == NOON + 7200 * S


def test_the_heartbeat_tells_when_each_family_was_served(client, live):
    one = live()
    one.cycles(2)
    beat = json.loads(client.get("heartbeat:analytics"))
    assert beat["last_updates"]["gex_dex"] is None
    publish(client, chain_rows())
    one.until(lambda: is_served(client))
    one.cycles(1)
    beat = json.loads(client.get("heartbeat:analytics"))
    assert all(beat["last_updates"][family] for family in ("gex_dex", "dealer_flows", "volatility", "unusual_activity"))


def test_samples_are_archived_under_the_chains_date(client, live):
    one = live()
    publish(client, chain_rows())
    one.until(lambda: is_served(client))
    one.writer.close()
    path = one.writer._settings.landing / "live_values" / "AAA" / f"{date(2024, 8, 8)}.jsonl"
    told = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert {line["metric"] for line in told} == set(NAMES)
