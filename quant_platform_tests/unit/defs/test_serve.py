"""What `qp up` starts, and where its children find the venues."""

import datetime as dt
from pathlib import Path

import pytest

from quant_platform.defs import serve
from quant_platform.settings import Instrument, Settings, load_settings

ROW = {"tick_size": 0.1, "lot_size": 0.001}


def instrument(symbol: str, feed: str, **more: object) -> Instrument:
    return Instrument(symbol=symbol, venue_symbol=symbol, feed=feed, **ROW, **more)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    cboe, sim = {"feed": "cboe", "venue_symbol": "_SPX"}, {"feed": "deribit", "venue_symbol": "SIM"}
    return Settings(
        home=tmp_path,
        instruments=(
            instrument("BTC", "binance_usdm"),
            instrument("SPX", "cboe", chain=cboe),
            instrument("FRAMES", "recorded_frames"),
            instrument("SPY", "recorded_frames", chain=cboe),
            instrument("SIM", "binance_usdm", chain=sim, sector="simulated"),
        ),
    )


def test_the_collector_takes_what_is_captured_and_what_is_polled(settings: Settings) -> None:
    commands = serve._commands(settings, None)
    assert commands["collector"][1:] == ["collect", "--symbols", "BTC,SPX,SPY"]
    assert "replay" not in commands
    assert serve._venues(settings, None) == {}


def test_a_replay_stands_for_every_venue(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "platform.yaml").write_text("instruments: []\n")
    for name, value in serve._venues(settings, serve.Replay(dt.date(2024, 3, 10), ("SIM",))).items():
        monkeypatch.setenv(name, value)
    feeds = load_settings(tmp_path / "platform.yaml").feeds
    base = f"127.0.0.1:{settings.ui.replay_port}"
    assert feeds.deribit.rest_url == f"http://{base}/api/v2"
    assert (feeds.binance_usdm.ws_url, feeds.binance_spot.rest_url) == (f"ws://{base}/usdm", f"http://{base}/spot")
    assert feeds.cboe.chains_url.startswith(f"http://{base}/")
