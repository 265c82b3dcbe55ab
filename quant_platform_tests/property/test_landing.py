"""Whatever is appended, flushed, rolled and killed in whatever order: lines are kept once and in order."""

import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from quant_platform.storage.landing import Entry, Manifest, Writer

FEED, SYMBOL = "binance_spot", "BTCUSDT"

PAYLOADS = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"", b"\n", b"1\n2", b" ", b"7", b"0", b"-3"]),
    st.integers(-5, 2**62).map(lambda number: b"%d" % number),
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(PAYLOADS, max_size=6)),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("roll"), st.none()),
        st.tuples(st.just("kill"), st.binary(max_size=8).filter(lambda torn: b"\n" not in torn)),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=14,
)


def describe(payload: bytes) -> Entry:
    """A number is a trade with this id; what else begins with a digit has a time alone."""
    try:
        number = int(payload)
    except ValueError:
        return Entry(payload[0] if payload[:1].isdigit() else None, None, None)
    return Entry(number, number, number + 1)


def writer(landing: Path) -> Writer:
    return Writer(landing, FEED, SYMBOL, describe, segment_s=60, segment_bytes=1_000)


def kill(landed: Writer, torn: bytes) -> int:
    """Leave what the kernel leaves of a killed process; return the bytes of the line that it was writing."""
    if landed._file is None:
        torn = b""
    else:
        os.pwrite(landed._file, torn, os.fstat(landed._file).st_size)
        os.close(landed._file)
    os.close(landed._lease)
    return len(torn)


@settings(max_examples=40)
@given(actions=ACTIONS)
def test_every_flushed_line_is_landed_once_in_order(actions: list[tuple[str, object]]) -> None:
    flushed: list[bytes] = []
    pending: list[bytes] = []
    with TemporaryDirectory() as folder:
        landing, ts_recv = Path(folder), 0
        landed = writer(landing)
        for action, value in [*actions, ("close", None)]:
            if action == "append":
                for payload in value:  # type: ignore[attr-defined]
                    ts_recv += 1
                    line = payload.replace(b"\n", b" ")
                    landed.append([ts_recv, payload, *describe(line)])
                    pending.append(b"%d %b\n" % (ts_recv, line))
            elif action == "kill":
                cut_bytes = kill(landed, value)  # type: ignore[arg-type]
                pending = []
                landed = writer(landing)
                assert landed.salvaged.cut_bytes == cut_bytes
                ids = [describe(line.partition(b" ")[2][:-1]).last_id for line in flushed]
                assert landed.salvaged.last_id == max((i for i in ids if i is not None), default=None)
            else:
                getattr(landed, action)()
                flushed, pending = flushed + pending, []
                if action == "close":
                    landed = writer(landing)
                    assert landed.salvaged.segments == ()
        landed.close()
        found = []
        segments = Manifest(landing).segments(FEED, SYMBOL)
        for segment in segments:
            content = segment.path.read_bytes()
            lines = [line + b"\n" for line in content.split(b"\n")[:-1]]
            entries = [describe(line.partition(b" ")[2][:-1]) for line in lines]
            times = [entry.ts_event for entry in entries if entry.ts_event is not None]
            assert (segment.rows, segment.bytes) == (len(lines), len(content))
            assert segment.sha256 == hashlib.sha256(content).hexdigest()
            assert (segment.ts_first, segment.ts_last) == (min(times, default=None), max(times, default=None))
            assert segment.first_id == min((e.first_id for e in entries if e.first_id is not None), default=None)
            assert segment.last_id == max((e.last_id for e in entries if e.last_id is not None), default=None)
            found += lines
        assert found == flushed
        assert [segment.number for segment in segments] == list(range(1, len(segments) + 1))
        names = sorted(path.name for path in (landing / "segments" / FEED / SYMBOL).iterdir())
        assert names == [*(segment.path.name for segment in segments), "lease.lock"]
