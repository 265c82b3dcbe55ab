"""Names of option contracts, expiries and types in every form that is accepted, and those that are none."""

import datetime as dt

import polars as pl
import pytest

from quant_platform.feeds import osi


def one(expression, **columns):
    return pl.DataFrame({name: [value] for name, value in columns.items()}).select(out=expression)["out"][0]


def parts(function, name):
    return tuple(one(function(pl.col("name")), name=name).values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SPXW220323C02000000", ("SPXW", dt.date(2022, 3, 23), "C", 2000.0)),
        ("AAPL  250117P00150500", ("AAPL", dt.date(2025, 1, 17), "P", 150.5)),
        ("BRK.B250117C00000125", ("BRK.B", dt.date(2025, 1, 17), "C", 0.125)),
        ("AAPL1250117C00150000", ("AAPL1", dt.date(2025, 1, 17), "C", 150.0)),
        ("F991231P00005010", ("F", dt.date(1999, 12, 31), "P", 5.01)),
    ],
)
def test_osi_name_says_root_expiry_type_and_strike(name, expected):
    assert parts(osi.osi_parts, name) == expected


@pytest.mark.parametrize(
    "name", ["", "SPX", "SPX220323X02000000", "spx220323C02000000", "SPX220323C2000", "TOOLONG250117C00150000"]
)
def test_osi_name_that_is_none_is_null(name):
    assert parts(osi.osi_parts, name) == (None, None, None, None)


def test_osi_name_of_a_date_that_does_not_exist_has_no_expiry():
    assert parts(osi.osi_parts, "SPX250230C02000000")[1] is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BTC-28MAR25-60000-C", ("BTC", dt.date(2025, 3, 28), "C", 60000.0)),
        ("ETH-6AUG21-2300-P", ("ETH", dt.date(2021, 8, 6), "P", 2300.0)),
        ("XRP_USDC-30JUN23-0d625-C", ("XRP_USDC", dt.date(2023, 6, 30), "C", 0.625)),
        ("BTC-PERPETUAL", (None, None, None, None)),
        ("BTC-28MAR25", (None, None, None, None)),
    ],
)
def test_deribit_name(name, expected):
    assert parts(osi.deribit_parts, name) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-28",
        "2025-03-28T16:00:00",
        "20250328",
        "250328",
        "1743148800",  # date -u -d @1743148800: 2025-03-28 08:00
        "1743148800000",
        "SPY250328C00500000",
        " 20250328 ",
    ],
)
def test_expiry_is_read_in_every_form(text):
    assert one(osi.expiries(pl.col("text")), text=text) == dt.date(2025, 3, 28)


@pytest.mark.parametrize("text", ["soon", "99999999", "251301", "2025-3-28", "28.03.2025", "", None])
def test_expiry_that_is_none_is_null(text):
    assert (
        pl.DataFrame({"text": [text]}, schema={"text": pl.String}).select(osi.expiries(pl.col("text"))).item() is None
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("C", "C"), ("put", "P"), ("CALL", "C"), (" p", "P"), ("Put", "P"), ("X", None), ("", None), ("callable", None)],
)
def test_type_is_read_in_every_form(text, expected):
    assert one(osi.types(pl.col("text")), text=text) == expected


@pytest.mark.parametrize(
    ("root", "expiry", "utc"),
    [  # each by: date -u -d 'TZ="America/New_York" 2025-01-17 16:00'
        ("SPXW", dt.date(2025, 1, 17), "2025-01-17T21:00:00+00:00"),
        ("SPXW", dt.date(2025, 7, 18), "2025-07-18T20:00:00+00:00"),
        ("SPX", dt.date(2025, 1, 17), "2025-01-17T14:30:00+00:00"),
        ("VIXW", dt.date(2025, 7, 16), "2025-07-16T13:30:00+00:00"),
        ("SPY", dt.date(2025, 3, 10), "2025-03-10T20:00:00+00:00"),  # the Monday after clocks went forward
        ("TWX", dt.date(2014, 6, 21), "2014-06-20T20:00:00+00:00"),  # a Saturday: settles on Friday
        ("SPX", dt.date(2014, 6, 22), "2014-06-20T13:30:00+00:00"),
    ],
)
def test_settlement_is_at_the_close_or_at_the_open_of_new_york(root, expiry, utc):
    at = one(osi.new_york_settlements(pl.col("expiry"), pl.col("root")), expiry=expiry, root=root)
    assert at == dt.datetime.fromisoformat(utc)


def test_osi_names_are_written_as_they_are_read():
    name = osi.osi_names(pl.lit("SPY"), pl.col("expiry"), pl.lit("P"), pl.col("strike"))
    assert one(name, expiry=dt.date(2025, 1, 17), strike=402.5) == "SPY250117P00402500"
