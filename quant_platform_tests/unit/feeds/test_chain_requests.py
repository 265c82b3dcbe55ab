"""Requests for chains against a real server: what is asked, what is kept, and how patient it is."""

import asyncio
import datetime as dt
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quant_platform.feeds import chain_requests
from quant_platform.feeds.chain_requests import Cboe, Deribit, RequestError, venue_of
from quant_platform.feeds.option_chain import ChainError
from quant_platform.settings import CboeFeed, DeribitFeed, Feeds
from quant_platform.storage.chain_archive import Snapshot
from quant_platform_tests.chain_venue import ChainVenue, Fault, cboe_chain, deribit_lists

NOW_NS = 1_742_000_000_000_000_000
MOMENT = dt.datetime(2025, 3, 15, tzinfo=dt.UTC)
PUBLIC = "/api/v2/public"
PAGE = b"<html><body>Access denied</body></html>"


@pytest.fixture
def venue() -> Iterator[ChainVenue]:
    with ChainVenue() as venue:
        venue.put("/_SPX.json", cboe_chain(MOMENT))
        listed(venue, [dt.date(2025, 3, 28)])
        yield venue


def listed(venue: ChainVenue, expiries: list[dt.date], quoted: list[dt.date] | None = None) -> None:
    instruments, _ = deribit_lists(MOMENT, "BTC", expiries)
    _, summaries = deribit_lists(MOMENT, "BTC", quoted or expiries)
    venue.put(f"{PUBLIC}/get_instruments", instruments)
    venue.put(f"{PUBLIC}/get_book_summary_by_currency", summaries)


def cboe(venue: ChainVenue) -> Cboe:
    return Cboe(CboeFeed(chains_url=venue.address), now_ns=lambda: NOW_NS, first_wait_s=0.02)


def deribit(venue: ChainVenue, *, tickers: bool = False) -> Deribit:
    feed = DeribitFeed(rest_url=f"{venue.address}/api/v2", tickers=tickers)
    return Deribit(feed, now_ns=lambda: NOW_NS, first_wait_s=0.02)


def within(asked: Cboe | Deribit, body: Callable[[], Awaitable[Any]]) -> Any:
    async def scenario() -> Any:
        async with asked:
            return await body()

    return asyncio.run(scenario())


def snapshot(asked: Cboe | Deribit, name: str = "_SPX") -> Snapshot:
    found: Snapshot = within(asked, lambda: asked.snapshot(name))
    return found


def test_cboes_chain_is_kept_as_it_came(venue: ChainVenue) -> None:
    found = snapshot(cboe(venue))
    assert found.answers == {"chain": (venue.answers["/_SPX.json"], f"{venue.address}/_SPX.json")}
    assert found.ts_recv_ns == NOW_NS


def test_cboes_chain_is_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "_SPX.json").write_bytes(b"{}")
    asked = Cboe(CboeFeed(chains_url=tmp_path.as_uri()), now_ns=lambda: NOW_NS)
    assert snapshot(asked).answers["chain"].content == b"{}"
    with pytest.raises(RequestError, match=r"_NDX.json could not be read: .*No such file.*chain\.venue_symbol"):
        snapshot(asked, "_NDX")


def test_each_polled_feed_has_its_venue() -> None:
    found = {feed: type(venue_of(feed, Feeds(), now_ns=lambda: NOW_NS)) for feed in ("cboe", "deribit")}
    assert found == {"cboe": Cboe, "deribit": Deribit}


def test_deribits_snapshot_is_what_is_listed_and_quoted(venue: ChainVenue) -> None:
    found = snapshot(deribit(venue), "BTC")
    assert {name: answer.content for name, answer in found.answers.items()} == {
        "instruments": venue.answers[f"{PUBLIC}/get_instruments"],
        "summaries": venue.answers[f"{PUBLIC}/get_book_summary_by_currency"],
    }
    assert found.ts_recv_ns == NOW_NS
    assert {one.path.removeprefix(f"{PUBLIC}/"): one.query for one in venue.asked} == {
        "get_book_summary_by_currency": {"currency": "BTC", "kind": "option"},
        "get_instruments": {"currency": "BTC", "kind": "option", "expired": "false"},
    }


def asked_for_instruments(venue: ChainVenue, changes: list[Callable[[], None]]) -> list[int]:
    """Return how often instruments were asked for after each snapshot; changes go before the later ones."""
    asked = deribit(venue)

    async def scenario() -> list[int]:
        counts = []
        for change in [lambda: None, *changes]:
            change()
            await asked.snapshot("BTC")
            counts.append(venue.paths().count("get_instruments"))
        return counts

    found: list[int] = within(asked, scenario)
    return found


def test_instruments_are_kept_until_an_unknown_contract_is_quoted(venue: ChainVenue) -> None:
    new = [dt.date(2025, 3, 28), dt.date(2025, 4, 25)]
    counts = asked_for_instruments(venue, [lambda: None, lambda: listed(venue, new), lambda: None])
    assert counts == [1, 1, 2, 2]


def test_what_is_never_listed_is_asked_for_once(venue: ChainVenue) -> None:
    one, two = dt.date(2025, 3, 28), dt.date(2025, 4, 25)
    assert asked_for_instruments(venue, [lambda: listed(venue, [one], [one, two]), lambda: None]) == [1, 2, 2]


def test_instruments_are_asked_for_again_when_they_are_old(venue: ChainVenue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_requests, "_INSTRUMENTS_AGE_S", 0.0)
    assert asked_for_instruments(venue, [lambda: None]) == [1, 2]


def test_instruments_that_cannot_be_read_are_not_kept(venue: ChainVenue) -> None:
    asked = deribit(venue)

    async def scenario() -> None:
        venue.faults.extend([None, Fault(200, PAGE)])
        with pytest.raises(ChainError, match="is a web page"):
            await asked.snapshot("BTC")
        assert "result" in json.loads((await asked.snapshot("BTC")).answers["instruments"].content)

    within(asked, scenario)


def test_tickers_are_asked_for_a_few_at_once_and_one_that_is_gone_is_left_out(venue: ChainVenue) -> None:
    names = [each["instrument_name"] for each in deribit_lists(MOMENT, "BTC", [dt.date(2025, 3, 28)])[0]["result"]]
    for name in names[1:]:
        venue.put(f"{PUBLIC}/ticker {name}", {"result": {"instrument_name": name}})
    venue.takes_s = 0.02
    found = snapshot(deribit(venue, tickers=True), "BTC")
    assert len(names) == 4
    assert sorted(found.answers) == ["instruments", "summaries", *sorted(f"ticker/{name}" for name in names[1:])]
    for name in names[1:]:
        assert json.loads(found.answers[f"ticker/{name}"].content)["result"]["instrument_name"] == name
    assert 1 < venue.most_at_once <= 4


def test_a_refused_ticker_ends_the_snapshot(venue: ChainVenue) -> None:
    venue.faults.extend([None, None, Fault(403, b"no")])
    with pytest.raises(RequestError, match=r"ticker.* could not be had: it answered 403 Forbidden: 'no'"):
        snapshot(deribit(venue, tickers=True), "BTC")


@pytest.mark.parametrize("fault", [Fault(500), Fault(503), Fault(200, b'{"data":', is_cut=True)])
def test_what_may_pass_is_tried_again(venue: ChainVenue, fault: Fault) -> None:
    venue.faults.extend([fault, fault])
    assert snapshot(cboe(venue)).answers["chain"].content == venue.answers["/_SPX.json"]
    assert len(venue.asked) == 3


def test_what_does_not_pass_is_said(venue: ChainVenue) -> None:
    venue.faults.extend([Fault(500)] * 3)
    with pytest.raises(RequestError, match=r"_SPX.json could not be had in 3 attempts: it answered 500") as raised:
        snapshot(cboe(venue))
    assert raised.value.status == 500


def test_a_short_pause_is_kept(venue: ChainVenue) -> None:
    venue.faults.append(Fault(429, headers={"Retry-After": "1"}))
    snapshot(cboe(venue))
    first, second = venue.asked
    assert second.at_s - first.at_s >= 1


def test_a_long_pause_ends_the_snapshot_and_holds_for_all(venue: ChainVenue) -> None:
    asked = cboe(venue)

    async def scenario() -> None:
        venue.faults.append(Fault(429, headers={"Retry-After": "60"}))
        with pytest.raises(RequestError, match=r"wants a pause of 60 s\. It is left alone until then"):
            await asked.snapshot("_SPX")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked.snapshot("_NDX"), 0.2)

    within(asked, scenario)
    assert len(venue.asked) == 1


def test_a_refusal_is_said_with_what_to_check(venue: ChainVenue) -> None:
    venue.faults.append(Fault(403, b"AccessDenied"))
    with pytest.raises(RequestError, match=r"403 Forbidden: 'AccessDenied'.*chain\.venue_symbol and feeds\.cboe"):
        snapshot(cboe(venue))
    assert len(venue.asked) == 1


def test_no_server_is_said() -> None:
    asked = Cboe(CboeFeed(chains_url="http://127.0.0.1:1"), now_ns=lambda: NOW_NS, first_wait_s=0.01)
    with pytest.raises(RequestError, match="ConnectError"):
        snapshot(asked)
