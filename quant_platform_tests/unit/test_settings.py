"""platform.yaml and QP_* variables: what wins, and what a mistake is told."""

import os
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from quant_platform.settings import Settings, SettingsError, load_settings, masked

SHIPPED = Path(__file__).resolve().parents[2] / "platform.yaml"
GOOD = """\
partitions: {start: 2020-01-01}
feeds:
  binance_usdm:
    archive_url: "https://example.org/archive/"
    assumed_latency_ms: 20
instruments:
  - {symbol: BTCUSDT, venue_symbol: BTCUSDT, feed: binance_usdm, tick_size: 0.1, lot_size: 0.001}
  - symbol: ETHUSDT
    venue_symbol: ETHUSDT
    feed: binance_usdm
    tick_size: 0.01
    lot_size: 0.001
analytics:
  price_statistics: {window_bars: 60}
"""

Written = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.upper().startswith("QP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write a platform.yaml and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "platform.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("right", "wrong", "line", "said"),
    [
        ("archive_url:", "archive_ulr:", 4, "feeds.binance_usdm.archive_ulr: there is no such setting"),
        ("  binance_usdm:", "  binance_usdmm:", 3, "feeds.binance_usdmm: there is no such setting"),
        ("analytics:", "analytic:", 13, "analytic: there is no such setting"),
        ("    tick_size", "    tick_sizes", 11, "instruments[1].tick_sizes: there is no such setting"),
        ("{window_bars", "{window_bar", 14, "analytics.price_statistics.window_bar: there is no such setting"),
        ("tick_size: 0.01", "tick_size: wide", 11, "instruments[1].tick_size: Input should be a valid number"),
        ("tick_size: 0.1,", "tick_size: -0.1,", 7, "instruments[0].tick_size: Input should be greater than 0"),
        ("tick_size: 0.1,", "tick_size: .inf,", 7, "instruments[0].tick_size: Input should be a finite number"),
        ("ency_ms: 20", "ency_ms: soon", 5, "feeds.binance_usdm.assumed_latency_ms: Input should be a valid number"),
        ("2020-01-01", "2020-13-01", 1, "partitions.start: Input should be a valid date"),
        ("2020-01-01", "yesterday", 1, "partitions.start: Input should be a valid date"),
        ("    lot_size: 0.001\n", "", 8, "instruments[1].lot_size: Field required"),
        ("symbol: ETHUSDT\n    v", "symbol: BTCUSDT\n    v", 6, "symbol BTCUSDT stands more than once"),
        ("{symbol: BTCUSDT,", "{symbol: all,", 7, "instruments[0].symbol: 'all' is reserved"),
        ("{symbol: BTCUSDT,", "{symbol: ' BTC',", 7, "instruments[0].symbol: "),
        ("venue_symbol: BTCUSDT,", "venue_symbol: BTC/USDT,", 7, "instruments[0].venue_symbol: "),
        ("feed: binance_usdm, t", "feed: binance, t", 7, "instruments[0].feed: Input should be 'binance_usdm'"),
        ("lot_size: 0.001}", "lot_size: 1, calendar: NYSEX}", 7, "instruments[0].calendar: must be 24/7 or a name"),
        ("https://example", "file://example", 4, "archive_url: must start with https://, http:// or file:///"),
        ("{window_bars: 60}", "{window_bars: 10}", 14, "bollinger_bars 20 must not exceed window_bars 10"),
        ("{start: 2020-01-01}", "[2020-01-01]", 1, "partitions: Input should be a valid dictionary"),
    ],
)
def test_mistake_is_told_with_file_line_and_key(written: Written, right: str, wrong: str, line: int, said: str) -> None:
    assert GOOD.count(right) == 1
    path = written(GOOD.replace(right, wrong))
    told = [message for message in refusal(path).splitlines() if said in message]
    assert [message.startswith(f"{path}, line {line}: ") for message in told] == [True]


def test_every_mistake_is_told_on_a_line_of_its_own(written: Written) -> None:
    message = refusal(written(GOOD.replace("2020-01-01", "never").replace("tick_size: 0.01", "tick_size: 0")))
    assert ["line 1: partitions.start" in message.splitlines()[0], "line 11: " in message.splitlines()[1]] == [True] * 2
    assert "(it is 'never')" in message


def test_yaml_syntax_error_is_told_with_its_line(written: Written) -> None:
    path = written("partitions: {start: 2020-01-01}\nfeeds: {binance_usdm: [\n")
    assert refusal(path).startswith(f"{path}, line 3: this is not YAML: ")


def test_list_at_the_top_is_refused(written: Written) -> None:
    path = written("- partitions\n- feeds\n")
    assert refusal(path) == f"{path}, line 1: the file must hold names and values, not a list."


def test_number_as_a_key_is_refused(written: Written) -> None:
    assert "line 1" in refusal(written("7: x\n"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"partitions: \x07\n"])
def test_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "platform.yaml"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} is not YAML in UTF-8: ")


def test_missing_file_is_told_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "There is no configuration file platform.yaml" in refusal()
    monkeypatch.setenv("QP_CONFIG", str(tmp_path / "other.yaml"))
    assert f"There is no configuration file {tmp_path / 'other.yaml'}" in refusal()


def test_empty_file_gives_the_defaults(written: Written) -> None:
    settings = load_settings(written("# nothing yet\n"))
    assert settings.instruments == ()
    assert settings.partitions.start == date(2020, 1, 1)
    assert settings.feeds.binance_usdm.archive_url == "https://data.binance.vision"


def test_part_of_a_feed_keeps_the_rest_of_its_defaults(written: Written) -> None:
    settings = load_settings(written(GOOD))
    assert settings.feeds.binance_usdm.archive_url == "https://example.org/archive"
    assert settings.feeds.binance_usdm.rest_url == "https://fapi.binance.com"
    assert settings.feeds.binance_spot.assumed_latency_ms == 50
    assert settings.assumed_latency_ms == {"BTCUSDT": 20, "ETHUSDT": 20}


RECORDED = """\
feeds:
  recorded_lean: {path: lean}
  recorded_frames: {path: ~/frames, venue: binance_spot}
instruments:
  - {symbol: IBM, venue_symbol: IBM, feed: recorded_lean, tick_size: 0.01, lot_size: 1, calendar: XNYS}
  - symbol: BTC
    venue_symbol: BTCUSDT
    feed: binance_spot
    sources: {book: recorded_frames}
    tick_size: 0.01
    lot_size: 0.001
"""


def test_recorded_feeds_have_folders(written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    feeds = load_settings(written(RECORDED)).feeds
    assert feeds.recorded_lean.path == tmp_path / "lean"
    assert feeds.recorded_lean.assumed_latency_ms == 50
    assert (feeds.recorded_frames.path, feeds.recorded_frames.venue) == (tmp_path / "me" / "frames", "binance_spot")


def test_table_comes_from_its_own_source_or_from_the_feed(written: Written) -> None:
    instrument = load_settings(written(RECORDED)).instrument("BTC")
    tables = ("market/trades", "market/quotes", "market/book")
    assert [instrument.source_of(table) for table in tables] == ["binance_spot", "binance_spot", "recorded_frames"]


def test_folder_of_recordings_can_come_from_the_environment(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QP_FEEDS__RECORDED_LOBSTER__PATH", "/data/lobster")
    settings = load_settings(written(RECORDED.replace("feed: recorded_lean", "feed: recorded_lobster")))
    assert settings.feeds.recorded_lobster.path == Path("/data/lobster")


@pytest.mark.parametrize(
    ("right", "wrong", "line", "said"),
    [
        ("{path: lean}", "{}", 5, "instruments[0].feed: needs a folder: set feeds.recorded_lean.path"),
        ("book: recorded_frames", "book: recorded_lobster", 9,
         "instruments[1].sources.book: needs a folder: set feeds.recorded_lobster.path"),
        ("{path: lean}", "{folder: lean}", 2, "feeds.recorded_lean.folder: there is no such setting"),
        ("{path: lean}", "{path: lean, venue: binance_spot}", 2, "feeds.recorded_lean.venue: there is no such setting"),
        ("venue: binance_spot", "venue: binance", 3, "feeds.recorded_frames.venue: Input should be 'binance_usdm'"),
        ("{book:", "{books:", 9, "instruments[1].sources.books: there is no such setting"),
        ("book: recorded_frames", "book: frames", 9, "instruments[1].sources.book: Input should be 'binance_usdm'"),
    ],
)  # fmt: skip
def test_mistake_about_a_recording_is_told_with_file_line_and_key(
    written: Written, right: str, wrong: str, line: int, said: str
) -> None:
    assert RECORDED.count(right) == 1
    path = written(RECORDED.replace(right, wrong))
    told = [message for message in refusal(path).splitlines() if said in message]
    assert [message.startswith(f"{path}, line {line}: ") for message in told] == [True]


def test_environment_wins_over_the_file_key_by_key(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QP_FEEDS__BINANCE_USDM__ARCHIVE_URL", "file:///archive")
    monkeypatch.setenv("QP_ANALYTICS__PRICE_STATISTICS__WINDOW_BARS", "30")
    settings = load_settings(written(GOOD))
    assert settings.feeds.binance_usdm.archive_url == "file:///archive"
    assert settings.feeds.binance_usdm.assumed_latency_ms == 20
    assert settings.analytics.price_statistics.window_bars == 30


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("QP_PARTITIONS__START", "soon", "partitions.start: Input should be a valid date"),
        ("QP_FEEDS__BINANCE_USDM__ARCHVE_URL", "x", "feeds.binance_usdm.archve_url: there is no such setting"),
        ("QP_PIPELINE__WORKERS", "-1", "pipeline.workers: Input should be greater than or equal to 0"),
        ("qp_pipeline__workers", "many", "pipeline.workers: Input should be a valid integer"),
        ("QP_PARTITIONS", '{"start": "soon"}', "partitions.start: Input should be a valid date"),
        ("QP_INSTRUMENTS", '[{"symbol": "A"}]', "instruments[0].venue_symbol: Field required"),
        ("QP_INSTRUMENTS", "BTCUSDT", "a whole section must be JSON"),
        ("QP_FEEDS", "nothing", "a whole section must be JSON"),
    ],
)
def test_mistake_in_the_environment_names_the_variable(
    written: Written, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv("QP_HOME", "elsewhere")
    monkeypatch.setenv(variable, value)
    message = refusal(written(GOOD))
    assert message.startswith(f"environment variable {variable}: ")
    assert said in message


@pytest.mark.parametrize(("home", "expected"), [("state", "state"), ("./a/../state", "a/../state"), ("", "var")])
def test_relative_home_is_below_the_working_folder(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str, expected: str
) -> None:
    monkeypatch.setenv("QP_HOME", home)
    settings = load_settings(written(GOOD))
    assert settings.home == tmp_path / expected
    assert settings.home.is_absolute()


def test_absolute_home_holds_every_place(written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "with space"
    monkeypatch.setenv("QP_HOME", str(home))
    settings = load_settings(written(GOOD))
    places = (settings.landing, settings.quarantine, settings.reports, settings.warehouse, settings.ledger)
    assert {place.parent for place in (*places, settings.dagster_home)} == {home}
    assert urlsplit(settings.lake_uri).scheme == "file"
    assert settings.lake_uri.endswith("/with%20space/lake")


def test_lake_uri_of_its_own_stands(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QP_LAKE_URI", "file:///big/disk")
    assert load_settings(written(GOOD)).lake_uri == "file:///big/disk"


def test_unknown_symbol_is_answered_with_the_known_ones(written: Written) -> None:
    settings = load_settings(written(GOOD))
    assert settings.instrument("ETHUSDT").tick_size == 0.01
    with pytest.raises(SettingsError, match=r"no instrument 'DOGE'.*Known: BTCUSDT, ETHUSDT"):
        settings.instrument("DOGE")


def test_secrets_do_not_show(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QP_REDIS_URL", "redis://user:hush@host:6379")
    settings = load_settings(written(GOOD))
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value().endswith("hush@host:6379")
    assert "hush" not in f"{settings!r} {settings.model_dump()} {settings.model_dump_json()}"


def test_secret_in_a_mistake_does_not_show(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QP_FEEDS__BINANCE_USDM__ARCHIVE_URL", "ftp://user:hidden@host/archive")
    message = refusal(written(GOOD))
    assert "hidden" not in message
    assert "ftp://***@host/archive" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://user:secret@host:6379/0", "redis://***@host:6379/0"),
        ("https://a:p@ss@host/x@y", "https://***@host/x@y"),
        ("https://host/path@2", "https://host/path@2"),
        ("two https://a:b@c and ftp://d:e@f", "two https://***@c and ftp://***@f"),
    ],
)
def test_masked_hides_user_and_password_of_urls(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_settings_go_to_a_worker_as_they_are(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(written(GOOD))
    frozen = pickle.dumps(settings)
    monkeypatch.setenv("QP_PARTITIONS__START", "2024-01-01")
    assert pickle.loads(frozen) == settings


def test_shipped_file_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(SHIPPED)
    assert {"BTCUSDT", "ETHUSDT", "BTCUSDT.SPOT", "ETHUSDT.SPOT"} <= {i.symbol for i in settings.instruments}
    assert settings.instrument("BTCUSDT.SPOT").feed == "binance_spot"
    assert settings.feed_of(settings.instrument("BTCUSDT.SPOT")).archive_url == "https://data.binance.vision"


def test_shipped_file_says_what_the_code_assumes() -> None:
    assert load_settings(SHIPPED).feeds == Settings().feeds
