"""The desk's files: however a value is spelled and rows are dealt out to files, the same is told."""

import tempfile
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_platform.calculators.revisions import as_of, current
from quant_platform.feeds import _desk_words as words
from quant_platform.pipeline.desk import DESK
from quant_platform.pipeline.desk_intake import ingested
from quant_platform.pipeline.units import Unit, Work
from quant_platform.settings import Instrument, Settings
from quant_platform.storage.lake import Lake

S = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FROM_1990 = st.integers(631_152_000 * S, 4_102_444_800 * S)  # to 2100
FRIDAY = date(2024, 3, 8)
NOW = int(datetime(2024, 3, 10, tzinfo=UTC).timestamp()) * S
INSTRUMENT = Instrument(symbol="AAA", venue_symbol="AAA", feed="binance_usdm", tick_size=0.1, lot_size=0.001)


@given(
    st.lists(st.tuples(FROM_1990, st.integers(-13 * 60, 13 * 60), st.sampled_from(["T", " "])), min_size=1, max_size=20)
)
def test_a_time_is_the_same_in_every_zone_and_spelling(times: list[tuple[int, int, str]]) -> None:
    written, expected = [], []
    for ns, minutes, between in times:
        local = (EPOCH + timedelta(seconds=ns // S)).astimezone(timezone(timedelta(minutes=minutes)))
        clock = f"{local:%Y-%m-%d}{between}{local:%H:%M:%S}.{ns % S:09d}{local:%z}"
        written += [clock, str(ns), f"{ns // S}.{ns % S:09d}", f"{ns // 10**6}.{ns % 10**6:06d}"]
        expected += [ns] * 4
    read = words.instant(pl.Series(written), "Asia/Tokyo")
    assert read.value.to_physical().to_list() == expected
    assert read.rule.null_count() == len(written)


@given(st.lists(st.integers(-(10**13), 10**13), min_size=1, max_size=30), st.sampled_from(",'_ "))
def test_a_figure_is_the_same_with_its_thousands_apart(hundredths: list[int], separator: str) -> None:
    apart = [f"{n / 100:,.2f}".replace(",", separator) for n in hundredths]
    read = words.number(pl.Series(apart))
    assert read.value.to_list() == [float(f"{n / 100:.2f}") for n in hundredths]
    assert read.rule.null_count() == len(apart)


@given(st.lists(st.text(max_size=12), max_size=20))
def test_whatever_a_text_is_it_has_a_value_or_a_rule_or_is_nothing(anything: list[str]) -> None:
    cells = pl.Series(anything, dtype=pl.String)
    reads = (
        *(words.number(cells), words.whole_number(cells), words.word(cells, words.SIDES)),
        *(words.instant(cells, None), words.instant(cells, "America/New_York")),
    )
    for read in reads:
        assert len(read.value) == len(read.rule) == len(anything)
        nothing = {"", "nan", "null", "none", "na", "n/a"}
        for text, value, rule in zip(anything, read.value, read.rule, strict=True):
            is_nothing = pl.Series([text]).str.strip_chars().str.to_lowercase()[0] in nothing
            assert (value is None and rule is None) == is_nothing
            assert value is None or rule is None or rule == "out_of_range"


ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 86_399)),
    min_size=1,
    max_size=12,
    unique_by=lambda r: r[:2],
)


@settings(max_examples=25)
@given(ROWS, st.data())
def test_rows_are_told_once_however_they_are_dealt_out(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    lines = [f"f{n},{k},{1_709_856_000 + s},{1_709_856_001 + s},AAA,B,{100 + n},1" for n, k, s in rows]
    files = data.draw(st.lists(st.lists(st.sampled_from(lines), min_size=1), max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        own = Settings(home=home, instruments=(INSTRUMENT,))
        for number, dealt in enumerate([*files, lines]):
            path = home / f"{number}.csv"
            path.write_text("\n".join(["fill_id,revision,ts_event,ts_recv,symbol,side,price,quantity", *dealt, ""]))
            ingested(own, path, ts_intake=NOW + number)
        recipe = DESK[2]
        work = Work(Unit(recipe.table, "AAA", FRIDAY), recipe, own, Lake(own.lake_uri))
        assert recipe.fetch is not None
        built = recipe.build(Work(work.unit, recipe, own, work.lake, recipe.fetch(work)))
    found = built.rows.select("fill_id", "revision", pl.col("ts_event").dt.epoch("s")).rows()
    assert found == sorted(((f"f{n}", k, 1_709_856_000 + s) for n, k, s in rows), key=lambda r: (r[2], r[0], r[1]))
    assert built.quarantined is not None
    assert built.quarantined.is_empty()


REVISIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 9)), max_size=12, unique_by=lambda r: r[:2]
)


@given(REVISIONS, st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_revision_that_counts_is_that_of_a_loop(rows: list[tuple[str, int, int]], second: int, draw) -> None:
    draw.shuffle(rows)
    frame = pl.DataFrame(rows, {"fill_id": pl.String, "revision": pl.Int64, "s": pl.Int64}, orient="row").with_columns(
        ts_event=pl.lit(EPOCH), ts_recv=pl.lit(EPOCH) + pl.duration(seconds="s")
    )
    for at in (second, 10):
        highest: dict[str, int] = {}
        for ident, revision, known in rows:
            if known <= at:
                highest[ident] = max(revision, highest.get(ident, 0))
        found = as_of(frame, "fill_id", EPOCH + timedelta(seconds=at))
        assert dict(found.select("fill_id", "revision").rows()) == highest
    assert current(frame, "fill_id").equals(as_of(frame, "fill_id", EPOCH + timedelta(seconds=10)))
