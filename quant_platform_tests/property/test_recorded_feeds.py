"""Laws of the recorded feeds: where a file is cut into chunks is no matter, and no digit of a time or price is lost."""

import datetime as dt
import json
import zipfile
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant_platform.feeds import frames, lobster
from quant_platform.feeds.recorded import Wanted, dollars

DATE = dt.date(2024, 8, 8)
NOON_MS = 1_723_118_400_000
MIDNIGHT_2012_NS = 1_340_251_200_000_000_000  # TZ=America/New_York date -d 2012-06-21 +%s


def frame(number: int, payload: dict) -> str:
    return f"{(NOON_MS + number) * 1_000_000} {json.dumps(payload)}"


def messages() -> list[str]:
    lines = [frame(0, {"lastUpdateId": 1, "T": NOON_MS, "bids": [["10", "1"]], "asks": [["11", "1"]]})]
    for n in range(1, 60):
        depth = {"T": NOON_MS + n, "U": n + 1, "u": n + 1, "pu": n, "b": [[str(10 - n / 100), "1"]], "a": []}
        lines += [
            frame(n, {"stream": "x@depth", "data": depth}),
            frame(n, {"stream": "x@trade", "data": {"T": NOON_MS + n, "t": n, "p": "10.5", "q": "1", "m": n % 2 == 0}}),
        ]
    return [*lines[:40], "no frame", *lines[40:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("frames")
    (root / "x_20240808").write_text("\n".join(messages()))
    return root


@given(chunk_bytes=st.integers(50, 3_000))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_frames_are_the_same_however_the_file_is_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    for table in ("market/trades", "market/book"):
        wanted = Wanted(table=table, symbol="X", venue_symbol="X", date=DATE, venue="binance_usdm")
        recording = frames.find(folder, wanted)
        assert recording is not None
        whole = frames.read_day(recording, wanted)
        with monkeypatch.context() as patch:
            patch.setattr(frames, "_CHUNK_BYTES", chunk_bytes)
            cut = frames.read_day(recording, wanted)
        assert whole.rows.height == (59 if table == "market/trades" else 5)
        assert cut.rows.equals(whole.rows)
        assert cut.quarantined.equals(whole.quarantined)
        assert whole.quarantined["source_line"].to_list() == [41]


@given(seconds=st.lists(st.decimals(0, 86_399, places=12), min_size=1, max_size=20))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_lobster_times_are_the_decimals_to_the_nanosecond(tmp_path: Path, seconds: list[Decimal]) -> None:
    stem = "A_2012-06-21_0_1"
    with zipfile.ZipFile(tmp_path / "A_2012-06-21_1.zip", "w") as archive:
        archive.writestr(f"{stem}_message_1.csv", "".join(f"{s:f},4,1,1,10000,1\n" for s in seconds))
        archive.writestr(f"{stem}_orderbook_1.csv", "")

    found = lobster.executions(tmp_path / "A_2012-06-21_1.zip")

    expected = [int((s * 10**9).to_integral_value(ROUND_HALF_UP)) + MIDNIGHT_2012_NS for s in seconds]
    assert found["ts_event"].dt.timestamp("ns").to_list() == expected


@given(st.lists(st.integers(1, 10**11), min_size=1))
def test_prices_are_the_nearest_floats(scaled: list[int]) -> None:
    expected = [float(Decimal(price) / 10_000) for price in scaled]

    assert pl.DataFrame({"price": scaled}).select(dollars(pl.col("price"))).to_series().to_list() == expected
