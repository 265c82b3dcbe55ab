"""The typed pass and the field-by-field pass over the archive's CSV read the same values."""

import datetime as dt
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from quant_platform.feeds.binance_archive import ArchiveDay, Fetched
from quant_platform.feeds.binance_csv import read_day

MIDNIGHT_MS = 1_723_075_200_000
NUMBER = st.decimals(min_value="0.00000001", max_value="99999999", places=8).map(str)
ROWS = st.lists(st.tuples(NUMBER, NUMBER, st.integers(0, 86_399_999), st.booleans()), min_size=1, max_size=30)
INSTRUMENT = SimpleNamespace(symbol="B", venue_symbol="BTCUSDT", feed="binance_usdm", tape="trades")


def parsed(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("day.csv", text)
        day = ArchiveDay(
            table="market/trades", kind="trades", fetched=Fetched(path=path, sha256="", url="file:///day.zip")
        )
        return read_day(day, INSTRUMENT, dt.date(2024, 8, 8))


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_both_passes_read_what_was_written(rows):
    text = "".join(
        f"{ident},{price},{size},1,{MIDNIGHT_MS + ms},{str(is_maker).lower()}\n"
        for ident, (price, size, ms, is_maker) in enumerate(rows, start=1)
    )

    at_once, by_field = parsed(text), parsed(text + "junk,1,1,1,1,true\n")

    assert at_once.rows.equals(by_field.rows)
    assert at_once.quarantined.height == 0
    assert by_field.quarantined["rule"].to_list() == ["trade_id|integer"]
    written = sorted((ms, ident, float(p), float(q), -1 if m else 1) for ident, (p, q, ms, m) in enumerate(rows, 1))
    read = at_once.rows.select("ts_event", "trade_id", "price", "size", "aggressor")
    assert read["ts_event"].dt.epoch("ms").to_list() == [MIDNIGHT_MS + ms for ms, *_ in written]
    assert read.drop("ts_event").rows() == [tuple(rest) for _, *rest in written]
