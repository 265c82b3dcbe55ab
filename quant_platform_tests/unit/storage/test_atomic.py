"""Files that appear whole or not at all."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_platform.storage.atomic import published, sweep


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write_and_fail(path: Path) -> None:
    with published(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("half-way")


def write(path: Path, content: bytes) -> None:
    with published(path) as temporary:
        temporary.write_bytes(content)


def test_published_file_stands_alone_in_folders_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.parquet"
    with published(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
        assert not list(path.parent.glob("*.parquet"))
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["x.parquet"]


def test_body_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half-way"):
        write_and_fail(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x.parquet"]


def test_body_that_writes_nothing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), published(path):
        pass
    assert path.read_bytes() == b"old"


def test_file_and_folder_are_synced_around_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name.split('.')[0]}")
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr("os.fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    with published(tmp_path / "folder" / "file.x") as temporary:
        temporary.write_bytes(b"new")
    assert steps == ["fsync file", "rename", "fsync folder"]


def test_sweep_takes_the_leftovers_of_that_file_alone(tmp_path: Path) -> None:
    for name in (
        "x.parquet",
        "x.parquet.0a.tmp",
        "x.parquet.1b.tmp",
        "xy.parquet.2c.tmp",
        "x.csv.tmp",
        "x.parquet.lock",
    ):
        (tmp_path / name).touch()
    sweep(tmp_path / "x.parquet")
    assert names(tmp_path) == ["x.csv.tmp", "x.parquet", "x.parquet.lock", "xy.parquet.2c.tmp"]
    sweep(tmp_path / "no folder" / "x.parquet")


def test_path_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "lake").write_bytes(b"a file where a folder should be")
    with pytest.raises(OSError, match=str(tmp_path / "lake")), published(tmp_path / "lake" / "t" / "x.parquet"):
        pass


@pytest.fixture
def _small_files() -> Iterator[None]:
    """Let no file of this process grow beyond 4 kB: what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("_small_files")
def test_disk_that_takes_no_more_is_told_with_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=str(path)) as caught:
        write(path, bytes(10_000))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x.parquet"]
