"""The disk's side of one symbol: what it tells as landed, where a segment cannot be closed at once."""

from pathlib import Path

import pytest

from quant_platform.live._channel import Batch
from quant_platform.live._sink import Landed, Sink
from quant_platform.settings import BinanceFeed
from quant_platform.storage.landing import Manifest, Segment
from quant_platform_tests.scripted_venue import settings_for

FEED = BinanceFeed(ws_url="ws://none", rest_url="http://none", archive_url="file:///none")
NOTHING = Batch([], 0, frozenset())


def test_what_was_landed_is_told_once_also_where_its_segment_could_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path, FEED, segment_s=0.001)
    sink = Sink(settings, settings.instrument("BTCUSDT"), wants_lines=True)
    add = Manifest.add

    def full(manifest: Manifest, *segments: Segment) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Manifest, "add", full)
    with pytest.raises(OSError, match="no space left"):
        sink.land(Batch([1, b"a\nb", None, None, None, 2, b"c", 5, 7, 7], 4, frozenset()))
    monkeypatch.setattr(Manifest, "add", add)
    assert sink.land(Batch([3, b"d", None, None, None], 1, frozenset())) == Landed(5, [b"1 a b", b"2 c", b"3 d"])
    assert sink.land(NOTHING) == Landed(0, [])
    sink.close(NOTHING)
    segments = Manifest(settings.landing).segments("binance_usdm", "BTCUSDT")
    assert b"".join(segment.path.read_bytes() for segment in segments) == b"1 a b\n2 c\n3 d\n"
