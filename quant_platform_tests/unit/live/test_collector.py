"""What the collector refuses before it starts."""

import asyncio
from pathlib import Path

import pytest

from quant_platform.live.collector import collect
from quant_platform.settings import BinanceFeed, Feeds, Instrument, Settings, SettingsError


def settings(home: Path, ws_url: str = "ws://127.0.0.1:1") -> Settings:
    row = {"venue_symbol": "BTCUSDT", "tick_size": 0.1, "lot_size": 0.001}
    feed = BinanceFeed(ws_url=ws_url, rest_url="http://127.0.0.1:1", archive_url="file:///none")
    return Settings(
        home=home,
        feeds=Feeds(binance_usdm=feed),
        instruments=(
            Instrument(symbol="BTC", feed="binance_usdm", **row),
            Instrument(symbol="BTC2", feed="binance_usdm", **row),
            Instrument(symbol="FRAMES", feed="recorded_frames", **row),
        ),
    )


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ([], "There is nothing to capture"),
        (["NONE"], "There is no instrument 'NONE'"),
        (["FRAMES"], "FRAMES comes from recorded_frames, which cannot be captured"),
        (["BTC", "BTC2"], "BTC and BTC2 are the same market: capture one of them"),
    ],
)
def test_symbols_that_cannot_be_captured_are_said(tmp_path: Path, symbols: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        asyncio.run(collect(settings(tmp_path), symbols, say=lambda _: None))
    assert not list(tmp_path.iterdir())


def test_an_address_that_is_none_is_said_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"feeds\.binance_usdm\.ws_url is not a WebSocket address"):
        asyncio.run(collect(settings(tmp_path, "https://none"), ["BTC"], say=lambda _: None))
