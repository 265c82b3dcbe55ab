"""What `qp doctor` says of folders of recordings; the rest of it is tested through the command."""

from pathlib import Path

import pytest

from quant_platform.defs.doctor import findings
from quant_platform.settings import Feeds, Instrument, RecordedFrames, RecordedLean, Settings


def found(tmp_path: Path, feed: str, path: Path | None) -> tuple[bool, str, str]:
    """Return what is said of the one feed that is in use."""
    feeds = Feeds(recorded_lean=RecordedLean(path=path), recorded_frames=RecordedFrames(path=path))
    instrument = Instrument.model_validate(
        {"symbol": "A", "venue_symbol": "A", "feed": feed, "tick_size": 0.01, "lot_size": 1}
    )
    settings = Settings(home=tmp_path / "home", feeds=feeds, instruments=(instrument,))
    (line,) = [finding for finding in findings(settings) if finding.what == f"recordings of {feed}"]
    return line.is_ok, line.detail, line.fix


@pytest.mark.parametrize("feed", ["recorded_lean", "recorded_frames"])
def test_folder_of_recordings_is_found_or_its_setting_is_named(tmp_path: Path, feed: str) -> None:
    fix = f"Set feeds.{feed}.path to the folder that holds them."

    assert found(tmp_path, feed, tmp_path) == (True, f"{tmp_path}", fix)
    assert found(tmp_path, feed, tmp_path / "nowhere") == (False, f"{tmp_path / 'nowhere'}", fix)


def test_frames_without_a_folder_are_told(tmp_path: Path) -> None:
    assert found(tmp_path, "recorded_frames", None)[:2] == (False, "no folder")
