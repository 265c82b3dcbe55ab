"""Raw snapshots of chains: what is put is read, the first of a time stays, damage is told."""

from datetime import date

import duckdb
import pytest

from quant_platform.storage import chain_archive
from quant_platform.storage.chain_archive import Answer, Snapshot

DAY = date(2024, 3, 4)
SNAPSHOT = Snapshot({"instruments": Answer(b"[1]", "https://a/i"), "ticker/A-1": Answer(b"\x00\xff\n", "b")}, 17)


def put(root, ts_event_ns, snapshot=SNAPSHOT):
    return chain_archive.put(root, "deribit", "BTC/USD", DAY, snapshot, ts_event_ns=ts_event_ns)


def test_what_is_put_is_read(tmp_path):
    assert put(tmp_path, 100)
    (path,) = chain_archive.paths(tmp_path, "deribit", "BTC/USD", DAY)
    assert path == tmp_path / "deribit" / "BTC%2FUSD" / "2024-03-04" / "100.parquet"
    assert chain_archive.read(path) == SNAPSHOT
    assert duckdb.sql(f"SELECT name, source, body FROM '{path}'").fetchall()[1] == ("ticker/A-1", "b", b"\x00\xff\n")


def test_a_receipt_may_be_unknown(tmp_path):
    put(tmp_path, 1, Snapshot({"sheet": Answer(b"x", "file")}, None))
    assert chain_archive.read(chain_archive.paths(tmp_path, "deribit", "BTC/USD", DAY)[0]).ts_recv_ns is None


def test_the_first_of_a_time_stays(tmp_path):
    assert put(tmp_path, 100)
    assert not put(tmp_path, 100, Snapshot({"instruments": Answer(b"other", "c")}, 18))
    assert chain_archive.read(chain_archive.paths(tmp_path, "deribit", "BTC/USD", DAY)[0]) == SNAPSHOT


def test_snapshots_come_in_the_order_of_time_and_half_written_ones_are_none(tmp_path):
    for ts_event_ns in (1_000, 999, 20):
        put(tmp_path, ts_event_ns)
    folder = chain_archive.paths(tmp_path, "deribit", "BTC/USD", DAY)[0].parent
    (folder / "5.parquet.abc.tmp").write_bytes(b"half")
    times = [chain_archive.ts_event_ns(p) for p in chain_archive.paths(tmp_path, "deribit", "BTC/USD", DAY)]
    assert times == [20, 999, 1_000]
    assert chain_archive.paths(tmp_path, "cboe", "BTC/USD", DAY) == []


def test_equal_snapshots_have_equal_bytes(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    one, two = chain_archive.paths(tmp_path, "deribit", "BTC/USD", DAY)
    assert one.read_bytes() == two.read_bytes()


def test_a_damaged_file_is_told(tmp_path):
    put(tmp_path, 1)
    (path,) = chain_archive.paths(tmp_path, "deribit", "BTC/USD", DAY)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(chain_archive.UnreadableSnapshotError, match=r"1\.parquet is damaged.*Delete it"):
        chain_archive.read(path)
