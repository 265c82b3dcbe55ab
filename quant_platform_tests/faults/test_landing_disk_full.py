"""A full disk under landing, a real one: nothing half becomes visible, and what was appended is there once later."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_platform.storage.landing import Entry, Manifest, Writer

FEED, SYMBOL = "binance_usdm", "BTCUSDT"
DISK_BYTES = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with a file system of its own, of one megabyte."""
    folder = tmp_path / "landing"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("There is no `mount` here.")
    if done.returncode:
        pytest.skip(f"A small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def describe(payload: bytes) -> Entry:
    number = int(payload[:8])
    return Entry(number, number, number)


def writer(landing: Path) -> Writer:
    return Writer(landing, FEED, SYMBOL, describe, segment_s=1e9, segment_bytes=1 << 30)


class Source:
    """Numbered lines of half a kilobyte, and what is expected of them."""

    def __init__(self) -> None:
        self.appended = 0

    def append(self, landed: Writer, count: int) -> None:
        for number in range(self.appended, self.appended + count):
            payload = b"%08d" % number + b"." * 500
            landed.append([1, payload, *describe(payload)])
        self.appended += count


def filled(folder: Path, left_bytes: int = 0) -> Path:
    """Fill the disk but for so many bytes; return the file that does it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        assert file.write(b"\0" * (free - left_bytes)) == free - left_bytes
    return ballast


def visible_numbers(landing: Path) -> list[int]:
    """Return the lines of all closed files, each of which is whole and as its row says."""
    numbers: list[int] = []
    for path in sorted((landing / "segments" / FEED / SYMBOL).glob("*[0-9].frames")):
        lines = path.read_bytes().splitlines(keepends=True)
        assert {len(line) for line in lines} == {2 + 508 + 1}
        numbers += [int(line[2:10]) for line in lines]
    segments = Manifest(landing).segments(FEED, SYMBOL)
    assert [hashlib.sha256(s.path.read_bytes()).hexdigest() for s in segments] == [s.sha256 for s in segments]
    assert sum(segment.rows for segment in segments) == len(numbers)
    return numbers


def test_lines_wait_for_space_and_are_landed_once(small_disk: Path) -> None:
    landed, source = writer(small_disk), Source()
    source.append(landed, 100)
    landed.roll()
    source.append(landed, 50)
    landed.flush()
    ballast = filled(small_disk, left_bytes=40_960)
    failures = 0
    for _ in range(5):
        source.append(landed, 100)
        for action in (landed.flush, landed.roll, landed.close):
            with pytest.raises(OSError, match="No space left on device"):
                action()
            failures += 1
        assert visible_numbers(small_disk) == list(range(100))
    assert failures == 15
    ballast.unlink()
    landed.flush()
    source.append(landed, 10)
    landed.close()
    assert visible_numbers(small_disk) == list(range(source.appended))


def test_segment_that_cannot_be_listed_on_a_full_disk_is_listed_when_space_returns(small_disk: Path) -> None:
    landed, source = writer(small_disk), Source()
    source.append(landed, 100)
    landed.flush()
    ballast = filled(small_disk)
    with pytest.raises(OSError, match=r"manifest\.sqlite cannot be used: .*free space"):
        landed.roll()
    ballast.unlink()
    source.append(landed, 1)
    landed.close()
    assert visible_numbers(small_disk) == list(range(101))
    assert [segment.number for segment in Manifest(small_disk).segments(FEED, SYMBOL)] == [1, 2]


def test_writer_that_starts_on_a_full_disk_says_so_and_starts_when_space_returns(small_disk: Path) -> None:
    orphan = small_disk / "segments" / FEED / SYMBOL / "open.frames"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"1 %08d%b\n" % (0, b"." * 500) + b"1 0000")
    ballast = filled(small_disk)
    with pytest.raises(OSError, match=r"No space left on device|free space"):
        writer(small_disk)
    ballast.unlink()
    landed = writer(small_disk)
    landed.close()
    assert landed.salvaged.last_id == 0
    assert visible_numbers(small_disk) == [0]
