"""Spellings of sides, states, figures and times: what each says, and the rule that another one breaks."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from quant_platform.feeds import _desk_words as words

NOON = datetime(2024, 3, 8, 12, tzinfo=UTC)
NOON_NS = 1_709_899_200 * 10**9


def texts(*written: str | None) -> pl.Series:
    return pl.Series("written", written, pl.String)


def ns(read: words.Read) -> list[int | None]:
    return read.value.to_physical().to_list()


BUYS = (
    *("B", "b", " Buy ", "BUY", "1", "+1", "1.0", "BOT", "Bought", "Long", "BTO", "Buy to open", "BUY_TO_CLOSE"),
    *("buy-to-cover", "BuyToOpen", "Cover"),
)
SELLS = (
    *("S", "sell", "SELL", "-1", "-1.0", "SLD", "Sold", "SS", "short", "Sell short", "SELL_SHORT", "sell-to-open"),
    *("STC", "5", "2", "6", "Sell short exempt", "SSE"),
)


@pytest.mark.parametrize(("spelled", "side"), [*((s, 1) for s in BUYS), *((s, -1) for s in SELLS)])
def test_a_side_is_spelled_in_many_ways(spelled: str, side: int) -> None:
    read = words.word(texts(spelled), words.SIDES)
    assert (read.value.to_list(), read.rule.to_list()) == ([side], [None])


@pytest.mark.parametrize("spelled", ["0", "x", "buyer beware", "3", "--1", "bid"])
def test_another_side_is_not_known(spelled: str) -> None:
    read = words.word(texts(spelled), words.SIDES)
    assert (read.value.to_list(), read.rule.to_list()) == ([None], ["unknown"])


def test_no_spelling_says_two_things() -> None:
    for spellings in (words.SIDES, words.STATUSES, words.LIQUIDITIES):
        listed = [spelled for group in spellings.values() for spelled in group]
        assert len(listed) == len(set(listed))
        assert set(words.word(texts(*listed), spellings).rule) == {None}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1.0),
        (" -2.50 ", -2.5),
        (".5", 0.5),
        ("+7", 7.0),
        ("1e3", 1000.0),
        ("1.5E-7", 1.5e-7),
        ("1,234", 1234.0),
        ("12,345,678.90", 12345678.9),
        ("-1,000", -1000.0),
        ("1'234.5", 1234.5),
        ("1 234 567", 1234567.0),
        ("1\u202f234", 1234.0),
        ("1_000", 1000.0),
        ("0", 0.0),
    ],
)
def test_a_figure_may_have_its_thousands_apart(written: str, value: float) -> None:
    read = words.number(texts(written))
    assert (read.value.to_list(), read.rule.to_list()) == ([value], [None])


@pytest.mark.parametrize(
    "written", ["x", "1.234,56", "12,34", "1,23", "$5", "5%", "inf", "-Infinity", "1e999", "0x10", "1,0000", ",100"]
)
def test_another_figure_is_none(written: str) -> None:
    read = words.number(texts(written, "1,000"))
    assert (read.value.to_list(), read.rule.to_list()) == ([None, 1000.0], ["number", None])


@pytest.mark.parametrize("written", [None, "", "  ", "NaN", "null", "None", "N/A", "NA"])
def test_nothing_is_nothing_and_breaks_no_rule(written: str | None) -> None:
    cells = texts(written)
    for read in (
        words.number(cells),
        words.whole_number(cells),
        words.instant(cells, None),
        words.word(cells, words.SIDES),
    ):
        assert (read.value.to_list(), read.rule.to_list()) == ([None], [None])


def test_a_whole_number_has_no_fraction() -> None:
    read = words.whole_number(texts("1", "2.0", "2.5", "x", None, "1,000"))
    assert read.value.to_list() == [1, 2, None, None, None, 1000]
    assert read.rule.to_list() == [None, None, "number", "number", None, None]


@pytest.mark.parametrize(
    "written",
    [
        "2024-03-08T12:00:00Z",
        "2024-03-08 12:00:00+00:00",
        "2024-03-08 13:00:00.000+01:00",
        "2024-03-08T17:30:00+0530",
        "2024-03-08T07:00:00-05",
        "2024-03-08t12:00z",
        "20240308-12:00:00.000 UTC",
        "2024/03/08 12:00:00 GMT",
        "20240308T120000Z",
        "2024-03-08 11:45:00-0015",
        "1709899200",
        "1709899200.0",
        "1709899200000",
        "1709899200000.000",
        "1709899200000000",
        "1709899200000000000",
    ],
)
def test_a_time_is_written_in_many_ways(written: str) -> None:
    read = words.instant(texts(written), None)
    assert (ns(read), read.rule.to_list()) == ([NOON_NS], [None])


@pytest.mark.parametrize(
    ("written", "after_noon"),
    [
        ("2024-03-08T12:00:00.123456789Z", 123_456_789),
        ("2024-03-08T12:00:00,5Z", 500_000_000),
        ("2024-03-08T12:00:00.1234567899Z", 123_456_789),
        ("1709899200.123456789", 123_456_789),
        ("1709899200000.5", 500_000),
        ("1709899200000000.25", 250),
        ("1709899200000000007.9", 7),
    ],
)
def test_nanoseconds_are_kept(written: str, after_noon: int) -> None:
    assert ns(words.instant(texts(written), None)) == [NOON_NS + after_noon]


@pytest.mark.parametrize(
    "written",
    [
        *("soon", "2024-03-08", "20240308", "08/03/2024 12:00:00", "2024-02-30T12:00:00Z", "2024-03-08T24:00:00Z"),
        *("2024-03-08T12:61:00Z", "9999-12-31T23:59:59Z", "2024-03-08T12:00:00+25:00", "99999999999", "1.7e18"),
        *("9223372036854775808", "20240308120000", "2024-03-08T12Z"),
    ],
)
def test_another_time_is_none(written: str) -> None:
    read = words.instant(texts(written), "Europe/London")
    assert (read.value.to_list(), read.rule.to_list()) == ([None], ["time"])


def test_a_time_before_1990_is_out_of_range() -> None:
    read = words.instant(texts("1970-01-01T00:00:00Z", "1000000000", "100000000"), None)
    assert read.rule.to_list() == ["out_of_range", None, "out_of_range"]


def test_a_time_without_a_zone_needs_one() -> None:
    cells = texts("2024-03-08 12:00:00", "2024-07-08 12:00:00", "2024-03-08 12:00:00Z")
    assert words.instant(cells, None).rule.to_list() == ["no_time_zone", "no_time_zone", None]
    read = words.instant(cells, "America/New_York")
    assert read.rule.to_list() == [None, None, None]
    summer = datetime(2024, 7, 8, 12, tzinfo=timezone(timedelta(hours=-4)))
    assert read.value.to_list() == [NOON + timedelta(hours=5), summer.astimezone(UTC), NOON]


def test_a_time_that_came_twice_or_never_is_ambiguous() -> None:
    cells = texts("2024-11-03 01:30:00", "2024-03-10 02:30:00", "2024-11-03 01:30:00-04:00", "2024-11-03 02:00:00")
    read = words.instant(cells, "America/New_York")
    assert read.rule.to_list() == ["ambiguous_local_time", "ambiguous_local_time", None, None]
    assert read.value.to_list()[2:] == [datetime(2024, 11, 3, 5, 30, tzinfo=UTC), datetime(2024, 11, 3, 7, tzinfo=UTC)]


def test_text_has_no_spaces_around_it() -> None:
    cells = texts(" a b ", "", "  ", None, "NA")
    assert cells.to_frame().select(words.text(pl.col("written"))).to_series().to_list() == [
        "a b",
        None,
        None,
        None,
        "NA",
    ]
