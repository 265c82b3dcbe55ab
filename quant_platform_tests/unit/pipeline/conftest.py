"""A small archive of hand-written days, and engines over it that build in this process."""

import functools
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from quant_platform.feeds.binance_archive import archive_path
from quant_platform.pipeline.engine import Engine
from quant_platform.settings import BinanceFeed, Feeds, Instrument, Settings

SYMBOLS = ("AAA", "BBB")
MakeEngine = Callable[..., Engine]


@dataclass(frozen=True)
class Archive:
    """A folder laid out as the public archive is."""

    root: Path

    def put(self, symbol: str, day: date, lines: Sequence[str] | None = None) -> Path:
        """Write a day's trades: the lines given, or some good ones."""
        path = self.path(symbol, day)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(["id,price,qty,quote_qty,time,is_buyer_maker", *(tape(day) if lines is None else lines), ""])
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(zipfile.ZipInfo(f"{path.stem}.csv"), text)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.CHECKSUM").write_text(f"{digest}  {path.name}\n")
        return path

    def path(self, symbol: str, day: date) -> Path:
        """Return where a day lies."""
        return self.root / archive_path("binance_usdm", "trades", symbol, day)


def tape(day: date, *, trades: int = 40, price: float = 100.0) -> list[str]:
    """Return lines of trades half a minute apart from noon, ids running on from day to day."""
    noon = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * 1000
    first_id = day.toordinal() * trades
    return [
        f"{first_id + n},{price + n % 7},{1 + n % 3},0,{noon + 30_000 * n},{'true' if n % 2 else 'false'}"
        for n in range(trades)
    ]


@pytest.fixture(autouse=True, scope="module")
def _own_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("QP_")]:
            patch.delenv(name)
        yield


def settings_below(
    root: Path, *, home: str = "home", latency_ms: float = 50.0, instrument: dict | None = None, **given: Any
) -> Settings:
    """Return settings over the archive in that folder; what is named replaces the defaults."""
    row = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001} | (instrument or {})
    feed = BinanceFeed(
        ws_url="ws://none",
        rest_url="http://none",
        archive_url=(root / "archive").as_uri(),
        assumed_latency_ms=latency_ms,
    )
    defaults = {
        "feeds": Feeds(binance_usdm=feed),
        "instruments": tuple(Instrument(symbol=s, venue_symbol=s, **row) for s in SYMBOLS),
        "pipeline": {"workers": 0},
    }
    return Settings(home=root / home, **(defaults | given))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    (tmp_path / "archive").mkdir()
    return Archive(tmp_path / "archive")


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Return settings over the archive; what is named replaces the defaults."""
    return functools.partial(settings_below, tmp_path)


@pytest.fixture
def engine(settings: Callable[..., Settings]) -> Iterator[MakeEngine]:
    """Make engines that are closed at the end; arguments are those of `settings`."""
    opened: list[Engine] = []

    def make(**given: Any) -> Engine:
        opened.append(Engine(settings(**given)))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
