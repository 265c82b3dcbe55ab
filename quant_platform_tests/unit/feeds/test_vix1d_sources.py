"""What the sources of VIX1D say, asked over a real server on loopback: good answers by hand, and bad ones."""

import asyncio
import json
import math
import socket
from datetime import UTC, datetime

import httpx
import pytest

from quant_platform.feeds import vix1d_sources
from quant_platform.feeds.vix1d_sources import SourceError, chart, history, in_use
from quant_platform.settings import CboeFeed, Feeds, Vix1dFeed
from quant_platform.storage.vix1d_archive import Reading

HEADER = "DATE,OPEN,HIGH,LOW,CLOSE"
CSV = f"{HEADER}\n03/07/2024,12.10,13.00,11.90,12.50\n03/08/2024,12.60,15.20,12.20,14.75\n"
NEXT_MORNING = datetime(2024, 3, 9, 12, tzinfo=UTC)
S = 1_000_000_000


def ns(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * S


def closes(text: str, *, ts_recv: datetime | None = NEXT_MORNING):
    at = None if ts_recv is None else int(ts_recv.timestamp()) * S
    return history(text.encode(), "csv", source="cboe", ts_recv=at, latency_ms=50)


def a_chart(*, value=14.75, at=1_709_924_400, symbol="^VIX1D", minutes=(), granularity="1m") -> bytes:
    meta = {"symbol": symbol, "regularMarketPrice": value, "regularMarketTime": at, "dataGranularity": granularity}
    result = {
        "meta": meta,
        "timestamp": [start for start, _ in minutes],
        "indicators": {"quote": [{"close": [close for _, close in minutes]}]},
    }
    return json.dumps({"chart": {"result": [result], "error": None}}).encode()


def asked(name: str, *, now: int = ns(2024, 3, 9, 12), **addresses):
    feeds = Feeds(
        cboe=CboeFeed(vix1d_url=addresses.get("cboe", "")), vix1d=Vix1dFeed(yahoo_url=addresses.get("yahoo", ""))
    )

    async def scenario():
        async with httpx.AsyncClient(follow_redirects=True) as client:
            return await vix1d_sources.ask(name, feeds, client, lambda: now)

    return asyncio.run(scenario())


def test_a_row_is_the_close_of_its_date_at_a_quarter_past_four_in_new_york() -> None:
    # New York is five hours behind UTC on 8 March 2024 and four on 11 March: its clocks go forward on the 10th.
    found = closes(
        f"{HEADER}\n03/08/2024,1,2,1,14.75\n03/11/2024,1,2,1,13.5\n11/01/2024,1,2,1,11\n11/04/2024,1,2,1,12\n"
    )
    assert [(one.ts_event, one.value) for one in found.readings] == [
        (ns(2024, 3, 8, 21, 15), 14.75),
        (ns(2024, 3, 11, 20, 15), 13.5),
        (ns(2024, 11, 1, 20, 15), 11.0),
        (ns(2024, 11, 4, 21, 15), 12.0),
    ]
    assert found.refused == []


def test_only_todays_row_is_known_by_our_clock() -> None:
    evening = datetime(2024, 3, 9, 1, 0, tzinfo=UTC)  # still the 8th in New York
    first, second = closes(CSV, ts_recv=evening).readings
    assert first.ts_recv == first.ts_event + 50_000_000
    assert second.ts_recv == ns(2024, 3, 9, 1)
    for ts_recv in (NEXT_MORNING, None):
        assert [one.ts_recv - one.ts_event for one in closes(CSV, ts_recv=ts_recv).readings] == [50_000_000] * 2


def test_rows_in_any_order_and_line_ends_of_windows() -> None:
    lines = CSV.splitlines()
    shuffled = "\r\n".join(["\ufeff" + lines[0], lines[2], lines[1], "", ""])
    assert closes(shuffled).readings == closes(CSV).readings


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("03/11/2024,12,13,11,0", "value|number"),
        ("03/11/2024,12,13,11,-4.5", "value|number"),
        ("03/11/2024,12,13,11,NaN", "value|number"),
        ("03/11/2024,12,13,11,inf", "value|number"),
        ("03/11/2024,12,13,11,", "value|number"),
        ("03/11/2024,12,13,11,.", "value|number"),
        ("03/11/2024,12,13", "line|cells"),
        ("03/11/2024,12,13,11,12,9", "line|cells"),
        ("2024-03-11,12,13,11,12", "ts_event|date"),
        ("13/41/2024,12,13,11,12", "ts_event|date"),
        ("03/11/0024,12,13,11,12", "ts_event|date"),
        ("garbage", "ts_event|date"),
    ],
)
def test_a_broken_row_is_refused_under_its_rule_and_the_others_stay(row: str, rule: str) -> None:
    found = closes(f"{CSV}{row}\n03/12/2024,1,1,1,13.25\n")
    assert [one.value for one in found.readings] == [12.5, 14.75, 13.25]
    (refused,) = found.refused
    assert (refused.rule, refused.line, refused.raw) == (rule, 4, row)
    # It is filed under its own date where it has one, else beside the reading before it.
    assert refused.ts_event == (ns(2024, 3, 8, 21, 15) if rule == "ts_event|date" else ns(2024, 3, 11, 20, 15))


@pytest.mark.parametrize(
    ("last", "is_taken"), [("14.750000", True), ("14.75000", False), ("14.", False), ("14", False), ("1", False)]
)
def test_a_last_line_without_its_end_counts_only_with_all_its_decimals(last: str, *, is_taken: bool) -> None:
    found = closes(f"{HEADER}\n03/07/2024,1.000000,1,1,12.500000\n03/08/2024,12.600000,15.200000,12.200000,{last}")
    assert len(found.readings) == 1 + is_taken
    assert [one.rule for one in found.refused] == [] if is_taken else ["line|cut_off"]


@pytest.mark.parametrize(
    "text", ["", "\n", "<!DOCTYPE html><html>Access denied</html>", "DATE,CLOSE\n03/08/2024,14\n", '{"error": 1}']
)
def test_another_file_is_said(text: str) -> None:
    with pytest.raises(SourceError, match="is no daily history of Cboe: it should begin 'DATE,OPEN,HIGH,LOW,CLOSE'"):
        closes(text)


@pytest.mark.parametrize("rows", ["", "03/08/2024,1,1,1,0\n", "03/08/20"])
def test_a_history_without_a_reading_is_said(rows: str) -> None:
    with pytest.raises(SourceError, match="no row with a date and a close above 0"):
        closes(f"{HEADER}\n{rows}")


def test_the_chart_gives_the_value_now_and_the_minutes_that_are_over() -> None:
    at = ns(2024, 3, 8, 19, 0) // S + 37  # 37 seconds into a minute
    minutes = [(at - 157, 14.0), (at - 97, None), (at - 37, 14.5)]
    found = chart(a_chart(at=at, minutes=minutes), "chart", ts_recv=at * S + 5)
    # The minute of 14.0 ended 97 s before, 14.5 is of the one that goes on, and nothing is known of the one between.
    assert found.readings == [
        Reading("yahoo", (at - 97) * S, at * S + 5, 14.0),
        Reading("yahoo", at * S, at * S + 5, 14.75),
    ]
    assert found.refused == []


def test_minutes_of_the_chart_that_are_no_values_are_refused() -> None:
    at = ns(2024, 3, 8, 19, 0) // S
    found = chart(a_chart(at=at, minutes=[(at - 300, 0), (at - 240, -1.0), (at - 180, 14.0)]), "chart", ts_recv=at * S)
    assert [one.value for one in found.readings] == [14.0, 14.75]
    assert [(one.rule, one.line, one.raw) for one in found.refused] == [
        ("value|number", 1, f"{at - 300},0.0"),
        ("value|number", 2, f"{at - 240},-1.0"),
    ]


def test_bars_wider_than_a_minute_are_left_alone() -> None:
    at = ns(2024, 3, 8, 19, 0) // S
    found = chart(a_chart(at=at, minutes=[(at - 86_400, 12.0)], granularity="1d"), "chart", ts_recv=at * S)
    assert [one.value for one in found.readings] == [14.75]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "answered no chart"),
        (b"<html>consent</html>", "answered no chart .* it begins '<html>consent</html>'"),
        (a_chart()[:-20], "answered no chart"),
        (a_chart(value=math.nan), "answered no chart"),
        (a_chart(value=None), "answered no chart"),
        (a_chart(at=10**18), "answered no chart"),
        (a_chart(value=0), "is 0.0, which is no value above 0"),
        (a_chart(value=-3), "is -3.0, which is no value above 0"),
        (a_chart(symbol="^VIX"), r"the chart of '\^VIX', not of VIX1D"),
        (b'{"chart": {"result": null, "error": {"code": "Not Found"}}}', "without a result: .*Not Found"),
        (b'{"chart": {"result": [], "error": null}}', "without a result"),
    ],
)
def test_a_chart_that_is_none_is_said(body: bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        chart(body, "chart", ts_recv=0)


@pytest.fixture
def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_cboe_is_asked_over_http_and_from_a_file(shelf, tmp_path) -> None:
    shelf.files["VIX1D_History.csv"] = CSV.encode()
    (tmp_path / "a file.csv").write_text(CSV)
    over_http = asked("cboe", cboe=f"{shelf.url}/VIX1D_History.csv")
    assert over_http == asked("cboe", cboe=(tmp_path / "a file.csv").as_uri())
    assert [one.value for one in over_http.readings] == [12.5, 14.75]


def test_yahoo_is_asked_for_the_minutes_of_the_day(shelf) -> None:
    path = "v8/finance/chart/%5EVIX1D?interval=1m&range=1d"
    shelf.files[path] = a_chart()
    assert [one.value for one in asked("yahoo", yahoo=f"{shelf.url}/v8/finance/chart/%5EVIX1D").readings] == [14.75]
    assert [asked_path for asked_path, _ in shelf.asked] == [path]


@pytest.mark.parametrize("code", [403, 404, 429, 500, 503])
def test_a_refusal_is_said_with_its_status(shelf, code: int) -> None:
    shelf.answer("csv", shelf.status(code, Retry_After="1"))
    with pytest.raises(SourceError, match=f"/csv answered {code} "):
        asked("cboe", cboe=f"{shelf.url}/csv")
    assert len(shelf.asked) == 1


def test_a_web_page_with_200_a_cut_off_answer_and_nobody_there(shelf, free_address, tmp_path) -> None:
    shelf.answer("csv", shelf.instead(b"<html>no</html>"), shelf.cut)
    shelf.files["csv"] = CSV.encode()
    for reason in ("is no daily history of Cboe", "could not be had: RemoteProtocolError"):
        with pytest.raises(SourceError, match=reason):
            asked("cboe", cboe=f"{shelf.url}/csv")
    with pytest.raises(SourceError, match="could not be had: ConnectError"):
        asked("cboe", cboe=f"{free_address}/csv")
    for url in ((tmp_path / "none.csv").as_uri(), "file://elsewhere/x.csv", "ftp://x/y"):
        with pytest.raises(SourceError, match="could not be had"):
            asked("cboe", cboe=url)


def test_an_answer_without_end_is_given_up(shelf, monkeypatch) -> None:
    monkeypatch.setattr(vix1d_sources, "_MOST_BYTES", 10)
    shelf.files["csv"] = CSV.encode()
    with pytest.raises(SourceError, match="answered more than"):
        asked("cboe", cboe=f"{shelf.url}/csv")


def test_a_gateway_without_its_package_is_said() -> None:
    feeds = Feeds(vix1d=Vix1dFeed(ibkr={}))

    async def scenario():
        async with httpx.AsyncClient() as client:
            return await vix1d_sources.ask("ibkr", feeds, client, lambda: 0)

    with pytest.raises(SourceError, match="the package ib_async is not installed: `pip install ib_async`, or remove"):
        asyncio.run(scenario())


def test_sources_with_an_address_are_in_use_in_the_order_of_preference() -> None:
    assert in_use(Feeds()) == {"cboe": 900.0, "yahoo": 60.0}
    everything = Feeds(vix1d=Vix1dFeed(ibkr={}, min_refetch_s={"yahoo": 3, "ibkr": 2, "cboe": 1}))
    assert list(in_use(everything).items()) == [("cboe", 1.0), ("ibkr", 2.0), ("yahoo", 3.0)]
    assert in_use(Feeds(cboe=CboeFeed(vix1d_url=""), vix1d=Vix1dFeed(yahoo_url=""))) == {}
    assert in_use(Feeds(vix1d=Vix1dFeed(min_refetch_s={"yahoo": 5}))) == {"yahoo": 5.0}
