"""Readings of VIX1D on record: each once, under its date, whatever a killed writer left; and what is remembered."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from quant_platform.storage import vix1d_archive
from quant_platform.storage.vix1d_archive import Asked, Reading, Refused, append, date_of, dates, day, sources

S = 1_000_000_000
FRIDAY, SATURDAY = date(2024, 3, 8), date(2024, 3, 9)
T = int(datetime(2024, 3, 8, 21, 15, tzinfo=UTC).timestamp()) * S


def reading(value: float = 14.75, *, ts: int = T, source: str = "cboe") -> Reading:
    return Reading(source, ts, ts + 5, value)


def refused(raw: str = "03/08/2024,a,b,c,d") -> Refused:
    return Refused("cboe", T, T + 5, "value|number", 7, raw)


def file(landing: Path, date: date = FRIDAY) -> Path:
    return landing / "vix1d" / f"{date}.jsonl"


def values(landing: Path, date: date = FRIDAY) -> list[float]:
    return [one.value for _, one in day(landing, date).readings]


def test_a_reading_is_a_line_under_its_date(tmp_path: Path) -> None:
    midnight = int(datetime(2024, 3, 9, tzinfo=UTC).timestamp()) * S
    assert append(tmp_path, [reading(), reading(13.0, ts=midnight), reading(12.0, ts=midnight - 1)]) == 3
    assert dates(tmp_path) == [FRIDAY, SATURDAY]
    assert json.loads(file(tmp_path).read_text().splitlines()[0]) == {
        "source": "cboe",
        "ts_event": T,
        "ts_recv": T + 5,
        "value": 14.75,
    }
    assert (values(tmp_path), values(tmp_path, SATURDAY)) == ([14.75, 12.0], [13.0])
    assert (date_of(midnight - 1), date_of(midnight)) == (FRIDAY, SATURDAY)


def test_a_reading_on_record_is_not_put_there_again(tmp_path: Path) -> None:
    assert append(tmp_path, [reading(), reading(99.0), reading(ts=T + 1), refused(), refused()]) == 2
    before = file(tmp_path).read_bytes()
    assert append(tmp_path, [reading(13.0), refused(), reading(ts=T + 1)]) == 0
    assert file(tmp_path).read_bytes() == before
    assert before.count(b"\n") == 3
    assert append(tmp_path, [reading(13.0, source="yahoo"), refused("another")]) == 1
    assert file(tmp_path).read_bytes().startswith(before)


def test_nothing_to_put_makes_nothing(tmp_path: Path) -> None:
    assert append(tmp_path, []) == 0
    assert list(tmp_path.iterdir()) == []
    assert dates(tmp_path) == []
    assert day(tmp_path, FRIDAY).readings == []


@pytest.mark.parametrize("torn", [b'{"source":"cboe","ts_ev', b"\x00\xff", b'{"source":"cboe","ts_event":1}'])
def test_a_torn_last_line_is_passed_over_and_then_cut_off(tmp_path: Path, torn: bytes) -> None:
    append(tmp_path, [reading()])
    with file(tmp_path).open("ab") as opened:
        opened.write(torn)
    assert values(tmp_path) == [14.75]
    append(tmp_path, [reading(13.0, ts=T + 1)])
    assert file(tmp_path).read_bytes().count(b"source") == file(tmp_path).read_bytes().count(b"\n") == 2
    assert values(tmp_path) == [14.75, 13.0]
    assert day(tmp_path, FRIDAY).refused == []


def test_what_is_no_reading_of_the_date_is_told_with_its_line_and_rule(tmp_path: Path) -> None:
    append(tmp_path, [reading(), refused()])
    other = {"source": "yahoo", "ts_event": T + 86_400 * S, "ts_recv": T, "value": 1.0}
    again = {"source": "cboe", "ts_event": T, "ts_recv": T, "value": 1.0}
    more = [b"not JSON", b"\xff\xfe", b'{"source": "cboe"}', b'{"value": NaN}', json.dumps(other).encode(), b""]
    with file(tmp_path).open("ab") as opened:
        opened.write(b"".join(line + b"\n" for line in [*more, json.dumps(again).encode()]))
    found = day(tmp_path, FRIDAY)
    assert found.readings == [(1, reading())]
    assert [(rule, line) for rule, line, _ in found.refused] == [
        ("value|number", 2),
        *(("line|json", line) for line in (3, 4, 5, 6)),
        ("ts_event|of_the_date", 7),
        ("line|json", 8),
        ("ts_event|repeated", 9),
    ]
    assert found.refused[0][2] == refused().raw
    assert found.source == "vix1d/2024-03-08.jsonl"


def test_lines_of_some_sources_alone(tmp_path: Path) -> None:
    append(tmp_path, [reading(source=name) for name in ("cboe", "cboe2", "yahoo")])
    assert [one.source for _, one in day(tmp_path, FRIDAY, ["cboe", "yahoo"]).readings] == ["cboe", "yahoo"]
    assert day(tmp_path, FRIDAY, []).readings == []


def test_sizes_tell_that_something_came(tmp_path: Path) -> None:
    assert vix1d_archive.sizes(tmp_path, 2) == []
    append(tmp_path, [reading(ts=T + days * 86_400 * S) for days in range(3)])
    before = vix1d_archive.sizes(tmp_path, 2)
    assert [name for name, _ in before] == ["2024-03-09.jsonl", "2024-03-10.jsonl"]
    append(tmp_path, [reading(), reading(source="manual")])
    assert vix1d_archive.sizes(tmp_path, 2) == before
    append(tmp_path, [reading(ts=T + 2 * 86_400 * S, source="manual")])
    assert vix1d_archive.sizes(tmp_path, 2) != before


def test_what_is_remembered_of_the_sources(tmp_path: Path) -> None:
    assert sources(tmp_path) is None
    known = {"cboe": Asked(T, 3), "yahoo": Asked(T + 1, 0)}
    vix1d_archive.remember(tmp_path, known)
    assert sources(tmp_path) == known
    assert dates(tmp_path) == []
    (tmp_path / "vix1d" / "sources.json").write_text('{"cboe": {"asked"')
    assert sources(tmp_path) is None
