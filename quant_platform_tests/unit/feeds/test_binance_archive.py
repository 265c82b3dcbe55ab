"""Fetching days of the archive from a real server on loopback, and from a folder."""

import datetime as dt
import hashlib
from types import SimpleNamespace

import pytest
import structlog

from quant_platform.feeds.binance_archive import ArchiveError, archive_path, fetch, fetch_day, kinds_for

DATE = dt.date(2024, 8, 8)
PATH = "data/futures/um/daily/trades/BTCUSDT/BTCUSDT-trades-2024-08-08.zip"
AGG_PATH = PATH.replace("trades", "aggTrades")
BODY = b"the day" * 5000
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def landing(tmp_path):
    return tmp_path / "landing"


@pytest.fixture
def landed(landing):
    return landing / "archive" / PATH


@pytest.fixture
def logs():
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.mark.parametrize(
    ("feed", "kind", "path"),
    [
        ("binance_usdm", "trades", PATH),
        (
            "binance_usdm",
            "bookTicker",
            "data/futures/um/daily/bookTicker/BTCUSDT/BTCUSDT-bookTicker-2024-08-08.zip",
        ),
        ("binance_spot", "aggTrades", "data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2024-08-08.zip"),
        ("binance_spot", "klines", "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-08-08.zip"),
    ],
)
def test_archive_path_is_the_publishers(feed, kind, path):
    assert archive_path(feed, kind, "BTCUSDT", DATE) == path


def test_archive_path_of_another_feed_is_refused():
    with pytest.raises(ValueError, match=r"Feed 'cboe' has no Binance archive. Feeds that have one: binance_usdm,"):
        archive_path("cboe", "trades", "SPX", DATE)


@pytest.mark.parametrize(
    ("feed", "tape", "table", "kinds"),
    [
        ("binance_usdm", "trades", "market/trades", ("trades", "aggTrades")),
        ("binance_usdm", "aggTrades", "market/trades", ("aggTrades", "trades")),
        ("binance_usdm", "trades", "market/quotes", ("bookTicker",)),
        ("binance_spot", "trades", "market/quotes", ()),
    ],
)
def test_kinds_for_starts_with_the_preferred_tape(feed, tape, table, kinds):
    instrument = SimpleNamespace(symbol="B", venue_symbol="BTCUSDT", feed=feed, tape=tape)

    assert kinds_for(instrument, table) == kinds


def test_kinds_for_another_table_is_refused(instrument):
    with pytest.raises(ValueError, match="cannot fill 'market/book'"):
        kinds_for(instrument, "market/book")


def test_fetch_lands_a_verified_file_with_its_checksum(shelf, landing, landed, quick):
    shelf.put(PATH, BODY)

    fetched = fetch(shelf.url, PATH, landing=landing, retry=quick)

    assert fetched is not None
    assert (fetched.path, fetched.sha256, fetched.url) == (landed, DIGEST, f"{shelf.url}/{PATH}")
    assert fetched.is_verified
    assert landed.read_bytes() == BODY
    assert {p.name: p.stat().st_size for p in landed.parent.iterdir()} == {
        landed.name: len(BODY),
        f"{landed.name}.CHECKSUM": 64 + 2 + len(landed.name) + 1,
    }


def test_fetch_of_an_absent_day_is_none_and_leaves_no_file(shelf, landing, landed, quick):
    assert fetch(shelf.url, PATH, landing=landing, retry=quick) is None
    assert list(landed.parent.iterdir()) == []


def test_fetch_from_a_folder_lands_and_knows_absence(tmp_path, landing, landed):
    source = tmp_path / "archive" / PATH
    source.parent.mkdir(parents=True)
    source.write_bytes(BODY)
    source.with_name(f"{source.name}.CHECKSUM").write_text(f"{DIGEST}  {source.name}\n")
    root = (tmp_path / "archive").as_uri()

    fetched = fetch(root, PATH, landing=landing)

    assert fetched is not None
    assert fetched.sha256 == DIGEST
    assert landed.read_bytes() == BODY
    assert fetch(root, PATH.replace("08-08", "08-09"), landing=landing) is None


def test_fetch_from_a_mistyped_folder_is_an_error_not_an_absence(tmp_path, landing):
    with pytest.raises(ArchiveError) as raised:
        fetch((tmp_path / "achive").as_uri(), PATH, landing=landing)

    assert str(raised.value) == (
        f"There is no folder {tmp_path / 'achive'}: check feeds.<feed>.archive_url in platform.yaml."
    )


def test_fetch_again_asks_for_the_checksum_only(shelf, landing, quick):
    shelf.put(PATH, BODY)
    first = fetch(shelf.url, PATH, landing=landing, retry=quick)
    shelf.asked.clear()

    assert fetch(shelf.url, PATH, landing=landing, retry=quick) == first
    assert shelf.asked == [(f"{PATH}.CHECKSUM", "")]


def test_fetch_of_a_replaced_day_brings_the_new_one(shelf, landing, landed, quick):
    shelf.put(PATH, BODY)
    fetch(shelf.url, PATH, landing=landing, retry=quick)
    shelf.put(PATH, BODY[::-1])

    fetched = fetch(shelf.url, PATH, landing=landing, retry=quick)

    assert fetched is not None
    assert fetched.sha256 == hashlib.sha256(BODY[::-1]).hexdigest()
    assert landed.read_bytes() == BODY[::-1]


def test_fetch_after_one_wrong_checksum_downloads_from_scratch(shelf, landing, landed, quick, logs):
    shelf.put(PATH, BODY)
    shelf.answer(PATH, shelf.instead(b"garbage"))

    fetched = fetch(shelf.url, PATH, landing=landing, retry=quick)

    assert fetched is not None
    assert landed.read_bytes() == BODY
    assert [entry["event"] for entry in logs] == ["checksum_mismatched"]


def test_fetch_of_a_file_that_never_matches_names_both_digests(shelf, landing, landed, quick):
    wrong = "ab" * 32
    shelf.put(PATH, BODY, digest=wrong)

    with pytest.raises(ArchiveError) as raised:
        fetch(shelf.url, PATH, landing=landing, retry=quick)

    assert str(raised.value) == (
        f"{landed.name} does not match its checksum: {shelf.url}/{PATH}.CHECKSUM says sha256 {wrong}, two downloads "
        f"gave {DIGEST}. Nothing was kept. Run again later; if it stays so, the publisher's file is damaged or "
        "something on the way changes it."
    )
    assert list(landed.parent.iterdir()) == []


def test_fetch_with_a_wrong_replacement_keeps_the_verified_copy(shelf, landing, landed, quick):
    shelf.put(PATH, BODY)
    fetch(shelf.url, PATH, landing=landing, retry=quick)
    shelf.put(PATH, BODY, digest="ab" * 32)

    with pytest.raises(ArchiveError, match="does not match its checksum"):
        fetch(shelf.url, PATH, landing=landing, retry=quick)

    assert landed.read_bytes() == BODY


def test_fetch_without_a_published_checksum_says_so(shelf, landing, landed, quick, logs):
    shelf.files[PATH] = BODY

    fetched = fetch(shelf.url, PATH, landing=landing, retry=quick)

    assert fetched is not None
    assert not fetched.is_verified
    assert fetched.sha256 == DIGEST
    assert [p.name for p in landed.parent.iterdir()] == [landed.name]
    assert logs[-1]["event"] == "checksum_missing"


@pytest.mark.parametrize("text", ["<html>Sign in</html>", f"{DIGEST}  ETHUSDT-trades-2024-08-08.zip"])
def test_fetch_of_a_strange_checksum_says_what_it_found(shelf, landing, quick, text):
    shelf.files[PATH] = BODY
    shelf.files[f"{PATH}.CHECKSUM"] = text.encode()

    with pytest.raises(ArchiveError) as raised:
        fetch(shelf.url, PATH, landing=landing, retry=quick)

    assert str(raised.value) == (
        f"{shelf.url}/{PATH}.CHECKSUM does not hold '<sha256>  BTCUSDT-trades-2024-08-08.zip' but '{text[:80]}'. Check "
        "feeds.<feed>.archive_url in platform.yaml, or run again later."
    )


@pytest.mark.parametrize("code", [403, 503])
def test_fetch_with_the_publisher_out_of_reach_uses_the_verified_copy(shelf, landing, quick, logs, code):
    shelf.put(PATH, BODY)
    first = fetch(shelf.url, PATH, landing=landing, retry=quick)
    shelf.asked.clear()
    shelf.answer(f"{PATH}.CHECKSUM", *[shelf.status(code)] * 9)

    assert fetch(shelf.url, PATH, landing=landing, retry=quick) == first
    assert logs[-1]["event"] == "landing_copy_used"
    assert len(shelf.asked) <= 2


def test_fetch_of_a_withdrawn_day_uses_the_verified_copy(shelf, landing, quick, logs):
    shelf.put(PATH, BODY)
    first = fetch(shelf.url, PATH, landing=landing, retry=quick)
    shelf.files.clear()

    assert fetch(shelf.url, PATH, landing=landing, retry=quick) == first
    assert logs[-1]["reason"] == "its checksum is not published any more"


def test_fetch_with_the_publisher_out_of_reach_trusts_no_damaged_copy(shelf, landing, landed, quick):
    shelf.put(PATH, BODY)
    fetch(shelf.url, PATH, landing=landing, retry=quick)
    landed.write_bytes(b"flipped")
    shelf.answer(f"{PATH}.CHECKSUM", *[shelf.status(503)] * 9)

    with pytest.raises(ArchiveError, match=r"could not be had in 4 attempts: it answered 503"):
        fetch(shelf.url, PATH, landing=landing, retry=quick)


def test_fetch_mends_a_damaged_copy(shelf, landing, landed, quick):
    shelf.put(PATH, BODY)
    fetch(shelf.url, PATH, landing=landing, retry=quick)
    landed.write_bytes(b"flipped")

    fetch(shelf.url, PATH, landing=landing, retry=quick)

    assert landed.read_bytes() == BODY


def test_fetch_of_a_checksum_without_its_file_is_none(shelf, landing, quick, logs):
    shelf.put(PATH, BODY)
    del shelf.files[PATH]

    assert fetch(shelf.url, PATH, landing=landing, retry=quick) is None
    assert logs[-1]["event"] == "archive_file_missing"


def test_fetch_into_a_landing_that_cannot_be_written_says_what_to_do(shelf, tmp_path, quick):
    shelf.put(PATH, BODY)
    (tmp_path / "landing").write_text("a file where a folder should be")

    with pytest.raises(ArchiveError, match=r"Could not (copy or )?store .*landing.* set the permissions right"):
        fetch(shelf.url, PATH, landing=tmp_path / "landing", retry=quick)


def test_fetch_day_takes_the_preferred_tape(shelf, landing, instrument, quick):
    shelf.put(PATH, BODY)
    shelf.put(AGG_PATH, BODY)

    day = fetch_day(shelf.url, instrument, "market/trades", DATE, landing=landing, retry=quick)

    assert day is not None
    assert (day.table, day.kind) == ("market/trades", "trades")


def test_fetch_day_takes_the_other_tape_where_the_first_is_absent(shelf, landing, instrument, quick):
    shelf.put(AGG_PATH, BODY)

    day = fetch_day(shelf.url, instrument, "market/trades", DATE, landing=landing, retry=quick)

    assert day is not None
    assert (day.kind, day.fetched.path.name) == ("aggTrades", "BTCUSDT-aggTrades-2024-08-08.zip")


def test_fetch_day_does_not_change_the_tape_because_a_request_failed(shelf, landing, instrument, quick):
    shelf.put(PATH, BODY)
    shelf.put(AGG_PATH, BODY)
    shelf.answer(f"{PATH}.CHECKSUM", *[shelf.status(500)] * 4)

    with pytest.raises(ArchiveError, match="it answered 500"):
        fetch_day(shelf.url, instrument, "market/trades", DATE, landing=landing, retry=quick)


def test_fetch_day_out_of_reach_uses_the_tape_that_was_landed(shelf, landing, instrument, quick):
    shelf.put(AGG_PATH, BODY)
    first = fetch_day(shelf.url, instrument, "market/trades", DATE, landing=landing, retry=quick)
    shelf.answer(f"{PATH}.CHECKSUM", *[shelf.status(500)] * 4)

    assert fetch_day(shelf.url, instrument, "market/trades", DATE, landing=landing, retry=quick) == first


def test_fetch_day_of_spot_quotes_is_none_without_asking(shelf, landing, quick):
    spot = SimpleNamespace(symbol="B", venue_symbol="BTCUSDT", feed="binance_spot", tape="trades")

    assert fetch_day(shelf.url, spot, "market/quotes", DATE, landing=landing, retry=quick) is None
    assert shelf.asked == []
