"""platform.yaml and QP_* variables: what wins, and what a mistake is told."""

import json
import os
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from quant_platform.settings import (
    METRIC_INTERVALS,
    ExtendedHours,
    Settings,
    SettingsError,
    StoreTtls,
    UpdateIntervals,
    load_settings,
    masked,
)

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


LIVE = """\
analytics:
  cadence_hz: 2
  rth_only: true
  extended_hours: {open: "04:00", close: "20:00"}
  update_intervals:
    vpin: 1
    flow_toxicity: 1
    order_book: 0.5
    volatility: 15
    portfolio: 2
    sectors: 5
    correlation: 30
  store_ttls:
    market: 60
    analytics: 60
    portfolio: 60
    history: 604800
    skew: 20
    obi: 1
  history_entries: 1000
  archive_every_s: 60
  correlation: {min_pairs: 30, window_bars: 390}
  sweep_detection: {window_ms: 900}
  flow_clustering: {window_trades: 150}
  toxicity_heuristics: {window_trades: 200}
  participant_flow: {institutional: {cluster_ms: 90}}
"""


CHAINS = """
feeds:
  deribit: {poll_s: 30}
  recorded_lean_options: {path: lean}
  vix1d: {min_refetch_s: {cboe: 600}}
instruments:
  - symbol: SPX
    venue_symbol: SPX
    feed: cboe
    tick_size: 0.01
    lot_size: 1
    calendar: XNYS
    chain: {feed: recorded_lean_options, venue_symbol: spx, rate: 0.04}
"""


def test_an_instrument_may_have_a_chain_and_no_tape(written: Written) -> None:
    settings = load_settings(written(CHAINS))
    spx = settings.instrument("SPX")
    assert spx.chain is not None
    assert (spx.feed, spx.chain.feed, spx.chain.rate, spx.chain.dividend) == ("cboe", "recorded_lean_options", 0.04, 0)
    assert settings.assumed_latency_ms == {"SPX": 50.0}
    assert (settings.feeds.deribit.poll_s, settings.feeds.deribit.tickers) == (30, False)
    assert settings.feeds.vix1d.min_refetch_s == {"cboe": 600, "ibkr": 15, "yahoo": 60}


@pytest.mark.parametrize(
    ("right", "wrong", "line", "said"),
    [
        ("{path: lean}", "{}", 13, "instruments[0].chain.feed: needs a folder: set feeds.recorded_lean_options.path"),
        ("venue_symbol: spx", "venue_symbol: s/x", 13, "instruments[0].chain.venue_symbol"),
        ("rate: 0.04", "rate: .nan", 13, "instruments[0].chain.rate"),
        ("feed: recorded_lean_options, v", "feed: lean, v", 13, "instruments[0].chain.feed"),
        ("{cboe: 600}", "{reuters: 600}", 5, "feeds.vix1d.min_refetch_s.reuters"),
        ("poll_s: 30", "poll_s: 0", 3, "feeds.deribit.poll_s"),
    ],
    ids=str,
)
def test_mistake_about_a_chain_is_told_with_file_line_and_key(
    written: Written, right: str, wrong: str, line: int, said: str
) -> None:
    told = refusal(written(CHAINS.replace(right, wrong)))
    assert f"line {line}: {said}" in told


@pytest.mark.parametrize(
    ("right", "wrong", "line", "said"),
    [
        ("cadence_hz: 2", "cadence_hz: 0", 2, "cadence_hz: Input should be greater than 0"),
        ("order_book: 0.5", "order_book: -1", 8, "update_intervals.order_book: Input should be greater than 0"),
        ("order_book: 0.5", "order_book: .inf", 8, "update_intervals.order_book: Input should be a finite number"),
        ("order_book: 0.5", "orderbook: 0.5", 8, "update_intervals.orderbook: there is no such setting"),
        ("    vpin: 1", "    vpin: 2", 7, "flow_toxicity: must not be below update_intervals.vpin (2 s), which it"),
        ("portfolio: 2", "portfolio: 0.9", 10, "update_intervals.portfolio: must not be below update_intervals.vpin"),
        ("sectors: 5", "sectors: 0.9", 11, "update_intervals.sectors: must not be below update_intervals.vpin (1 s)"),
        ("market: 60", "market: 0", 14, "store_ttls.market: Input should be greater than or equal to 1"),
        ("market: 60", "vix: 60", 14, "store_ttls.vix: there is no such setting"),
        ("analytics: 60", "analytics: 4", 15, "store_ttls.analytics: must not be below update_intervals.dealer_flows"),
        ("  portfolio: 60", "  portfolio: 29", 16,
         "store_ttls.portfolio: must not be below update_intervals.correlation (30 s)"),
        ("history: 604800", "history: 14", 17, "store_ttls.history: must not be below update_intervals.volatility"),
        ("skew: 20", "skew: 14", 18, "store_ttls.skew: must not be below update_intervals.volatility (15 s)"),
        ("volatility: 15", "volatility: 21", 18, "store_ttls.skew: must not be below update_intervals.volatility (21"),
        ("order_book: 0.5", "order_book: 1.5", 19, "store_ttls.obi: must not be below update_intervals.order_book"),
        ("history_entries: 1000", "history_entries: 5001", 20, "Input should be less than or equal to 5000"),
        ("archive_every_s: 60", "archive_every_s: 0", 21, "archive_every_s: Input should be greater than 0"),
        ("min_pairs: 30", "min_pairs: 390", 22, "correlation: 2 <= min_pairs < window_bars must hold"),
        ('"04:00"', '"4:00"', 4, 'extended_hours.open: must be hours and minutes in quotes, such as "04:00"'),
        ('"20:00"', "20:00", 4, 'extended_hours.close: must be hours and minutes in quotes, such as "04:00"'),
        ('"20:00"', '"24:00"', 4, 'extended_hours.close: must be hours and minutes in quotes, such as "04:00"'),
        ('"04:00"', '"20:00"', 4, "extended_hours: open 20:00 must be before close 20:00"),
        ("{window_trades: 150}", "{sweep: {window_ms: 800}}", 24,
         "flow_clustering: what a sweep is, is told once: set analytics.sweep_detection instead"),
        ("{window_trades: 200}", "{institutional: {cluster_ms: 80}}", 25,
         "who is institutional is told once: set analytics.participant_flow.institutional instead"),
    ],
)  # fmt: skip
def test_mistake_about_the_live_clock_is_told_with_file_line_and_key(
    written: Written, right: str, wrong: str, line: int, said: str
) -> None:
    assert LIVE.count(right) == 1
    path = written(LIVE.replace(right, wrong))
    told = refusal(path).splitlines()
    assert [message.startswith(f"{path}, line {line}: analytics.") and said in message for message in told] == [True]


def test_setting_that_is_too_short_for_several_keys_is_told_once_with_the_slowest(written: Written) -> None:
    path = written("analytics: {store_ttls: {analytics: 2}, update_intervals: {volatility: 20, gex_dex: 7}}")
    assert refusal(path) == (
        f"{path}, line 1: analytics.store_ttls.analytics: must not be below update_intervals.volatility (20 s): "
        "keys would vanish in between (it is 2)."
    )


def test_ttl_is_the_metrics_own_or_that_of_all_and_clusters_outlive_three_intervals() -> None:
    ttls, intervals = StoreTtls(analytics=40, skew=20), UpdateIntervals()
    assert {m: ttls.of(m, intervals) for m in METRIC_INTERVALS} == {**dict.fromkeys(METRIC_INTERVALS, 40), "skew": 20}
    assert ttls.of("flow_clusters", UpdateIntervals(flow_clustering=20.1)) == 61
    assert StoreTtls(flow_clusters=30).of("flow_clusters", UpdateIntervals(flow_clustering=20)) == 30


def test_every_metric_has_an_interval_and_can_have_a_ttl_of_its_own() -> None:
    assert set(METRIC_INTERVALS.values()) | {"portfolio", "sectors", "correlation"} == set(UpdateIntervals.model_fields)
    general = {"market", "analytics", "portfolio", "vix1d", "history"}
    assert set(METRIC_INTERVALS) == set(StoreTtls.model_fields) - general


def test_extended_hours_can_come_from_the_environment(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QP_ANALYTICS__EXTENDED_HOURS__OPEN", "07:30")
    monkeypatch.setenv("QP_ANALYTICS__EXTENDED_HOURS__CLOSE", "23:59")
    assert load_settings(written("")).analytics.extended_hours == ExtendedHours(open="07:30", close="23:59")


def test_sweeps_and_institutions_are_set_in_one_place(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QP_ANALYTICS__SWEEP_DETECTION__MIN_TRADES", "5")
    analytics = load_settings(written(LIVE)).analytics
    assert analytics.flow_clustering.sweep == analytics.sweep_detection
    assert (analytics.sweep_detection.window_ms, analytics.sweep_detection.min_trades) == (900, 5)
    assert analytics.toxicity_heuristics.institutional == analytics.participant_flow.institutional
    assert analytics.participant_flow.institutional.cluster_ms == 90


def test_what_is_in_force_can_be_written_into_a_file(written: Written) -> None:
    analytics = load_settings(written(LIVE)).analytics
    printed = json.dumps({"analytics": analytics.model_dump(mode="json")})
    assert load_settings(written(printed)).analytics == analytics


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
    shipped, assumed = load_settings(SHIPPED), Settings()
    assert (shipped.feeds, shipped.analytics) == (assumed.feeds, assumed.analytics)
