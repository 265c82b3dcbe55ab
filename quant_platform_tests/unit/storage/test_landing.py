"""Segments that grow and close, the manifest, the lease, and what a start finds."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from quant_platform.storage.landing import Entry, LeaseHeldError, Manifest, Segment, Writer, greatest_id, repair

FEED, SYMBOL = "binance_usdm", "BTC/USDT"
SECOND = 1_000_000_000
NOTHING = Entry(None, None, None)


def describe(payload: bytes) -> Entry:
    try:
        facts = json.loads(payload)
        return Entry(facts["T"], facts.get("t"), facts.get("t"))
    except (ValueError, TypeError, KeyError):
        return NOTHING


def writer(landing: Path, *, segment_s: float = 60, segment_bytes: int = 64_000_000) -> Writer:
    return Writer(landing, FEED, SYMBOL, describe, segment_s=segment_s, segment_bytes=segment_bytes)


def trade(trade_id: int, ts_event: int = 7) -> tuple[bytes, int, int, int]:
    return f'{{"t":{trade_id},"T":{ts_event}}}'.encode(), ts_event, trade_id, trade_id


def killed(landing: Path, *lines: bytes) -> None:
    """Leave what a process leaves that was killed: the lease is free, the open file is there."""
    folder = folder_of(landing)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open.frames").write_bytes(b"".join(lines))


def folder_of(landing: Path) -> Path:
    return landing / "segments" / FEED / "BTC%2FUSDT"


def names(landing: Path) -> list[str]:
    return sorted(path.name for path in folder_of(landing).iterdir())


def closed_lines(landing: Path) -> list[bytes]:
    segments = Manifest(landing).segments(FEED, SYMBOL)
    for segment in segments:
        content = segment.path.read_bytes()
        assert (segment.bytes, segment.rows) == (len(content), content.count(b"\n"))
        assert segment.sha256 == hashlib.sha256(content).hexdigest()
    return [line for segment in segments for line in segment.path.read_bytes().splitlines()]


def test_rolled_segment_holds_the_lines_and_its_row_their_facts(tmp_path: Path) -> None:
    landed = writer(tmp_path)
    landed.append([101, b'{"stream":"x"}', 50, None, None])
    landed.append([102, b"a", 30, 8, 9])
    assert landed.flush() == [b'101 {"stream":"x"}\n102 a\n']
    assert landed.flush() == []
    landed.append([103, b"bb", 40, 5, 7])
    landed.append([104, b"", *NOTHING])
    content = b'101 {"stream":"x"}\n102 a\n103 bb\n104 \n'
    expected = Segment(
        feed=FEED,
        symbol=SYMBOL,
        number=1,
        rows=4,
        bytes=len(content),
        first_id=5,
        last_id=9,
        ts_first=30,
        ts_last=50,
        sha256=hashlib.sha256(content).hexdigest(),
        path=tmp_path / "segments" / "binance_usdm" / "BTC%2FUSDT" / "00000001.frames",
    )
    assert landed.roll() == expected
    assert expected.path.read_bytes() == content
    assert Manifest(tmp_path).segments(FEED, SYMBOL) == [expected]
    assert landed.roll() is None
    landed.close()
    assert names(tmp_path) == ["00000001.frames", "lease.lock"]


def test_segment_without_times_and_trades_has_null_facts(tmp_path: Path) -> None:
    landed = writer(tmp_path)
    landed.append([1, b"\xff\x00 no frame", *NOTHING])
    landed.close()
    (segment,) = Manifest(tmp_path).segments(FEED, SYMBOL)
    assert (segment.first_id, segment.last_id, segment.ts_first, segment.ts_last) == (None, None, None, None)
    assert closed_lines(tmp_path) == [b"1 \xff\x00 no frame"]


def test_more_lines_than_are_written_at_once_keep_their_order_and_facts(tmp_path: Path) -> None:
    landed = writer(tmp_path)
    order = [(number * 7919) % 2503 for number in range(2503)]
    for ident in order:
        landed.append([ident, *trade(ident, ts_event=ident + 10)])
    landed.close()
    (segment,) = Manifest(tmp_path).segments(FEED, SYMBOL)
    assert (segment.first_id, segment.last_id, segment.ts_first, segment.ts_last) == (0, 2502, 10, 2512)
    assert [int(line.split()[0]) for line in closed_lines(tmp_path)] == order


def test_flushed_lines_are_in_the_open_file_and_appended_ones_are_not(tmp_path: Path) -> None:
    landed = writer(tmp_path)
    landed.append([1, b"a", *NOTHING])
    assert names(tmp_path) == ["lease.lock"]
    landed.flush()
    landed.append([2, b"b", *NOTHING])
    assert (folder_of(tmp_path) / "open.frames").read_bytes() == b"1 a\n"
    landed.close()


def test_newline_in_a_payload_becomes_a_space(tmp_path: Path) -> None:
    landed = writer(tmp_path)
    for payload in (b"a", b'{"x":\n\n1}', b"\n", b"z"):
        landed.append([1, payload, *NOTHING])
    landed.close()
    assert closed_lines(tmp_path) == [b"1 a", b'1 {"x":  1}', b"1  ", b"1 z"]


@pytest.mark.parametrize(("length", "landed_length"), [(16_000_000, 16_000_000), (16_000_001, 1_000)])
def test_payload_above_16_mb_is_cut_to_a_kilobyte(tmp_path: Path, length: int, landed_length: int) -> None:
    landed = writer(tmp_path)
    landed.append([1, b"before", *NOTHING])
    landed.append([2, b"x" * length, *NOTHING])
    landed.append([3, b"after", *NOTHING])
    landed.close()
    assert [len(line) - 2 for line in closed_lines(tmp_path)] == [6, landed_length, 5]


@pytest.mark.parametrize(("later_s", "is_due"), [(19.9, False), (20, True), (80, True), (-40, False), (-40.1, True)])
def test_segment_is_due_when_the_minute_is_another_whichever_way_the_clock_jumps(
    tmp_path: Path, later_s: float, *, is_due: bool
) -> None:
    landed = writer(tmp_path)
    start = 1_000 * SECOND  # 40 s into its minute
    assert not landed.is_due(start + 61 * SECOND)
    landed.append([start, b"a", *NOTHING])
    landed.flush()
    assert landed.is_due(start + int(later_s * SECOND)) is is_due
    landed.roll()
    assert not landed.is_due(start + 61 * SECOND)
    landed.close()


def test_segment_is_due_by_its_size(tmp_path: Path) -> None:
    landed = writer(tmp_path, segment_bytes=8)
    landed.append([1, b"a", *NOTHING])
    landed.flush()
    assert not landed.is_due(1)
    landed.append([2, b"b", *NOTHING])
    landed.flush()
    assert landed.is_due(1)
    landed.close()


def test_second_writer_is_told_who_holds_the_symbol_until_the_first_closes(tmp_path: Path) -> None:
    first = writer(tmp_path)
    with pytest.raises(LeaseHeldError, match=rf"binance_usdm BTC/USDT .* pid {os.getpid()} holds .*lease\.lock"):
        writer(tmp_path)
    Writer(tmp_path, FEED, "ETHUSDT", describe, segment_s=60, segment_bytes=1).close()
    first.append([1, b"a", *NOTHING])
    first.close()
    second = writer(tmp_path)
    second.append([2, b"b", *NOTHING])
    second.close()
    assert closed_lines(tmp_path) == [b"1 a", b"2 b"]


def test_start_that_fails_lets_the_symbol_go(tmp_path: Path) -> None:
    (tmp_path / "manifest.sqlite").mkdir()
    with pytest.raises(OSError, match=r"manifest\.sqlite cannot be used"):
        writer(tmp_path)
    (tmp_path / "manifest.sqlite").rmdir()
    writer(tmp_path).close()


def test_start_closes_an_orphan_without_its_torn_line(tmp_path: Path) -> None:
    payload, *_ = trade(4, ts_event=30)
    other, *_ = trade(3, ts_event=40)
    killed(tmp_path, b"1 " + payload + b"\n", b"2 " + other + b"\n", b"3 not a frame\n", b'4 {"t":9')
    landed = writer(tmp_path)
    (segment,) = landed.salvaged.segments
    assert (segment.number, segment.rows) == (1, 3)
    assert (segment.first_id, segment.last_id, segment.ts_first, segment.ts_last) == (3, 4, 30, 40)
    assert (landed.salvaged.cut_bytes, landed.salvaged.last_id) == (8, 4)
    landed.append([5, *trade(5)])
    landed.close()
    assert closed_lines(tmp_path) == [b"1 " + payload, b"2 " + other, b"3 not a frame", b"5 " + trade(5)[0]]
    assert names(tmp_path) == ["00000001.frames", "00000002.frames", "lease.lock"]


@pytest.mark.parametrize(("left", "cut_bytes"), [(b"", 0), (b'1 {"t":9', 8)])
def test_orphan_without_a_whole_line_becomes_no_segment(tmp_path: Path, left: bytes, cut_bytes: int) -> None:
    killed(tmp_path, left)
    landed = writer(tmp_path)
    assert landed.salvaged.segments == ()
    assert (landed.salvaged.cut_bytes, landed.salvaged.last_id) == (cut_bytes, None)
    landed.close()
    assert names(tmp_path) == ["lease.lock"]


def test_start_lists_closed_files_without_a_row_and_tells_the_greatest_id(tmp_path: Path) -> None:
    first = writer(tmp_path)
    for number in (1, 2):
        first.append([number, *trade(10 * number)])
        first.roll()
    first.close()
    listed = Manifest(tmp_path).segments(FEED, SYMBOL)
    for path in tmp_path.glob("manifest.sqlite*"):
        path.unlink()
    second = writer(tmp_path)
    assert list(second.salvaged.segments) == listed == Manifest(tmp_path).segments(FEED, SYMBOL)
    assert second.salvaged.last_id == 20
    second.append([3, *trade(5)])
    second.close()
    third = writer(tmp_path)
    assert third.salvaged.segments == ()
    assert third.salvaged.last_id == 20
    third.close()


def test_number_is_never_used_again(tmp_path: Path) -> None:
    for number in (1, 2):
        landed = writer(tmp_path)
        landed.append([number, b"a", *NOTHING])
        landed.close()
    (folder_of(tmp_path) / "00000002.frames").unlink()
    killed(tmp_path, b"3 a\n")
    third = writer(tmp_path)
    assert [segment.number for segment in third.salvaged.segments] == [3]
    (folder_of(tmp_path) / "00000003.frames").unlink()
    third.close()
    fourth = writer(tmp_path)
    fourth.append([4, b"a", *NOTHING])
    segment = fourth.roll()
    assert segment is not None
    assert segment.number == 4
    fourth.close()


def test_repair_lists_what_is_missing_beside_a_writer(tmp_path: Path) -> None:
    landed = writer(tmp_path)
    landed.append([1, *trade(1)])
    listed = landed.roll()
    assert repair(tmp_path, FEED, SYMBOL, describe) == []
    (folder_of(tmp_path) / "00000002.frames").write_bytes(b"2 " + trade(2)[0] + b"\n")
    (found,) = repair(tmp_path, FEED, SYMBOL, describe)
    assert (found.number, found.first_id) == (2, 2)
    assert Manifest(tmp_path).segments(FEED, SYMBOL) == [listed, found]
    landed.close()


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_failed_flush_is_made_up_for_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    landed = writer(tmp_path)
    landed.append([1, *trade(1)])
    landed.flush()
    landed.append([2, *trade(2)])
    real = getattr(os, call)

    def failing(descriptor: int, *arguments: Any) -> None:
        if call == "pwrite":
            real(descriptor, arguments[0][:3], arguments[1])
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        for action in (landed.flush, landed.roll, landed.close):
            with pytest.raises(OSError, match="Input/output error"):
                action()
    with pytest.raises(LeaseHeldError):
        writer(tmp_path)
    landed.append([3, *trade(3)])
    landed.close()
    assert closed_lines(tmp_path) == [str(n).encode() + b" " + trade(n)[0] for n in (1, 2, 3)]


def test_segments_that_the_manifest_could_not_take_are_listed_in_order_later(tmp_path: Path) -> None:
    landed = writer(tmp_path)
    hidden = [path.rename(path.with_suffix(".away")) for path in tmp_path.glob("manifest.sqlite")]
    (tmp_path / "manifest.sqlite").mkdir()
    for number in (1, 2):
        landed.append([number, *trade(number)])
        with pytest.raises(OSError, match="Where the disk is full, free space"):
            landed.roll()
    (tmp_path / "manifest.sqlite").rmdir()
    hidden[0].rename(tmp_path / "manifest.sqlite")
    assert Manifest(tmp_path).segments(FEED, SYMBOL) == []
    assert landed.roll() is None
    assert [segment.number for _, segment in Manifest(tmp_path).after(0)] == [1, 2]
    landed.close()
    assert len(closed_lines(tmp_path)) == 2


def test_lines_appended_while_another_thread_flushes_and_rolls_are_there_once_in_order(tmp_path: Path) -> None:
    landed = writer(tmp_path)

    def land() -> None:
        closed = 0
        while closed < 10:
            landed.flush()
            closed += landed.roll() is not None

    thread = threading.Thread(target=land)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    number = 0
    try:
        thread.start()
        while thread.is_alive():
            for number in range(number, number + 50):  # noqa: B020
                landed.append([number, b"x", *NOTHING])
            number += 1
            time.sleep(0)
    finally:
        thread.join()
        sys.setswitchinterval(interval)
    landed.close()
    assert [int(line.split()[0]) for line in closed_lines(tmp_path)] == list(range(number))
    assert len(Manifest(tmp_path).segments(FEED, SYMBOL)) >= 10


def listed(number: int, symbol: str = SYMBOL, feed: str = FEED) -> Segment:
    folder = "BTC%2FUSDT" if symbol == SYMBOL else symbol
    path = Path("segments") / feed / folder / f"{number:08d}.frames"
    return Segment(feed, symbol, number, 1, 10, None, None, None, None, "00", path)


def relative(segments: list[Segment], landing: Path) -> list[Segment]:
    return [Segment(**{**vars(segment), "path": segment.path.relative_to(landing)}) for segment in segments]


def test_manifest_returns_segments_by_number_position_and_newest(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(listed(2))
    manifest.add(listed(1, "ETHUSDT"), listed(1))
    manifest.add(listed(10), listed(9, feed="binance_spot"))
    assert relative(manifest.segments(FEED, SYMBOL), tmp_path) == [listed(1), listed(2), listed(10)]
    assert relative(manifest.segments(FEED, SYMBOL, after=2), tmp_path) == [listed(10)]
    assert manifest.segments(FEED, "NONE") == []
    everything = manifest.after(0)
    assert relative([segment for _, segment in everything], tmp_path) == [
        listed(2),
        listed(1, "ETHUSDT"),
        listed(1),
        listed(10),
        listed(9, feed="binance_spot"),
    ]
    assert manifest.after(everything[2][0]) == everything[3:]
    newest = {key: segment.number for key, segment in manifest.newest().items()}
    assert newest == {(FEED, SYMBOL): 10, (FEED, "ETHUSDT"): 1, ("binance_spot", SYMBOL): 9}
    assert (manifest.reached(FEED, SYMBOL), manifest.reached(FEED, "NONE")) == ((10, None), (0, None))


def test_segment_that_is_listed_stays_as_it_is(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(listed(1))
    manifest.add(Segment(**{**vars(listed(1)), "rows": 5}), listed(2))
    assert relative(manifest.segments(FEED, SYMBOL), tmp_path) == [listed(1), listed(2)]


def test_damaged_manifest_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "manifest.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"manifest\.sqlite cannot be used: .*delete it and start them"):
        Manifest(tmp_path).newest()


def test_greatest_id_is_told_of_files_that_are_open_listed_or_not_listed_yet(tmp_path: Path) -> None:
    assert greatest_id(tmp_path, FEED, SYMBOL, describe) is None
    assert list(tmp_path.iterdir()) == []
    one, told = writer(tmp_path), []
    for step, trade_id in ((one.flush, 40), (one.roll, 30), (one.roll, 50), (one.flush, 20), (one.flush, 60)):
        one.append([5, *trade(trade_id)])
        step()
        told.append(greatest_id(tmp_path, FEED, SYMBOL, describe))
    assert told == [40, 40, 50, 50, 60]
    one.close()
    (folder_of(tmp_path) / "00000004.frames").write_bytes(b'6 {"t":75,"T":7}\n7 rubbish\n')
    killed(tmp_path, b'8 {"t":70,"T":8}\n9 {"t":9')
    assert greatest_id(tmp_path, FEED, SYMBOL, describe) == 75


ADDER = """
import sys
from pathlib import Path
from quant_platform.storage.landing import Manifest, Segment

for number in range(1, 41):
    Manifest(Path(sys.argv[1])).add(Segment("f", sys.argv[2], number, 1, 1, None, None, None, None, "00", Path()))
"""


def test_several_collectors_add_while_others_read(tmp_path: Path) -> None:
    adders = [subprocess.Popen([sys.executable, "-c", ADDER, str(tmp_path), symbol]) for symbol in "ABC"]
    manifest, position, seen = Manifest(tmp_path), 0, []
    while any(adder.poll() is None for adder in adders):
        found = manifest.after(position)
        seen += found
        position = found[-1][0] if found else position
    seen += manifest.after(position)
    assert [adder.returncode for adder in adders] == [0, 0, 0]
    for symbol in "ABC":
        assert [segment.number for _, segment in seen if segment.symbol == symbol] == list(range(1, 41))
