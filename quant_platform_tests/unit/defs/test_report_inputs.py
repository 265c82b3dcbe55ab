"""What the daily report reads: the symbol-days it lists, where what a symbol cannot have is not missing, and chains."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from quant_platform.contracts.volatility import VolIndexRegime
from quant_platform.defs.assets.reports import _latest, coverage, inputs
from quant_platform.defs.resources import Platform
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus
from quant_platform.reports.daily_market import as_markdown
from quant_platform.settings import Instrument, Settings
from quant_platform.storage.lake import ALL_SYMBOLS
from quant_platform_tests.unit.option_frames import MADE, regimes

DAY = date(2024, 8, 8)
CHAIN, GAMMA, UNUSUAL, TRADES = (
    "options/chain",
    "options/gamma_exposure",
    "microstructure/unusual_activity",
    "market/trades",
)


def instrument(symbol: str, *, feed: str = "binance_usdm", has_chain: bool) -> Instrument:
    return Instrument.model_validate(
        {
            "symbol": symbol,
            "venue_symbol": symbol,
            "feed": feed,
            "tick_size": 0.1,
            "lot_size": 0.1,
            "chain": {"feed": "cboe", "venue_symbol": symbol} if has_chain else None,
        }
    )


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """Return a platform with BARE (trades alone), BOTH (a chain too), and INDEX (a chain alone)."""
    listed = (
        instrument("BARE", has_chain=False),
        instrument("BOTH", has_chain=True),
        instrument("INDEX", feed="cboe", has_chain=True),
    )
    return Platform(Settings(home=tmp_path / "home", instruments=listed))


def record(platform: Platform, *states: tuple[str, str, UnitStatus], day: date = DAY) -> None:
    platform.engine.ledger.record(Outcome(Unit(table, symbol, day), status) for table, symbol, status in states)


def listed(platform: Platform) -> list[tuple[str, str, str]]:
    return sorted(coverage(platform, DAY).select("table", "symbol", "status").iter_rows())


def test_tables_of_options_of_a_symbol_without_a_chain_are_not_listed(platform: Platform) -> None:
    for table in (CHAIN, GAMMA, UNUSUAL):
        record(platform, *((table, symbol, UnitStatus.ABSENT) for symbol in ("BARE", "BOTH")))
    assert listed(platform) == [
        (UNUSUAL, "BOTH", "absent"),
        (CHAIN, "BOTH", "absent"),
        (GAMMA, "BOTH", "absent"),
    ]


def test_tables_of_trades_of_a_feed_that_polls_chains_are_not_listed(platform: Platform) -> None:
    record(platform, *((TRADES, symbol, UnitStatus.ABSENT) for symbol in ("BARE", "INDEX")))
    record(platform, (CHAIN, "INDEX", UnitStatus.OK))
    assert listed(platform) == [(TRADES, "BARE", "absent"), (CHAIN, "INDEX", "ok")]


def test_dates_that_were_not_built_are_missing_only_where_they_can_be(platform: Platform) -> None:
    record(platform, (CHAIN, "BARE", UnitStatus.ABSENT), (CHAIN, "BOTH", UnitStatus.OK), day=DAY - timedelta(days=1))
    assert listed(platform) == [(CHAIN, "BOTH", "missing")]


@pytest.mark.parametrize("status", [UnitStatus.OK, UnitStatus.FAILED, UnitStatus.BLOCKED])
def test_what_is_there_is_listed_whatever_the_instrument_says(platform: Platform, status: UnitStatus) -> None:
    record(platform, (CHAIN, "BARE", status), (TRADES, "INDEX", status))
    assert listed(platform) == [(TRADES, "INDEX", status.value), (CHAIN, "BARE", status.value)]


def test_chains_and_published_indices_of_the_lake_reach_the_page(platform: Platform) -> None:
    lake = platform.engine.lake
    for contract, made in MADE.items():
        lake.write(contract.table, "BOTH", DAY, made("BOTH"))
    lake.write(VolIndexRegime.table, ALL_SYMBOLS, DAY, regimes(regime="SHOCK"))
    record(platform, (TRADES, "BARE", UnitStatus.OK), (TRADES, "BOTH", UnitStatus.OK))
    daily = pl.DataFrame(schema={"symbol": pl.String, "trading_date": pl.Date})
    page = as_markdown(inputs(platform, daily, DAY))
    assert "**Attention.** VIX1D was 14.20 vol points at 01:00 UTC (cboe): its regime is SHOCK" in page
    assert "**BOTH.** Dealers are long gamma at 100: +20.00 per 1 % net" in page
    assert "**BARE.**" not in page


def test_dates_on_which_no_writer_served_are_not_listed(platform: Platform) -> None:
    values = "live/values"
    record(platform, (values, "BARE", UnitStatus.OK), day=DAY - timedelta(days=1))
    record(platform, (values, "BARE", UnitStatus.ABSENT), (values, "BOTH", UnitStatus.OK))
    assert listed(platform) == [(values, "BOTH", "ok")]


@pytest.mark.parametrize("status", [None, UnitStatus.ABSENT])
def test_dates_on_which_the_desk_did_not_trade_a_symbol_are_not_listed(
    platform: Platform, status: UnitStatus | None
) -> None:
    orders, costs = "execution/orders", "execution/tca_orders"
    record(platform, *((table, "BARE", UnitStatus.OK) for table in (orders, costs)), day=DAY - timedelta(days=1))
    if status:
        record(platform, (orders, "BARE", status), (costs, "BARE", status))
    assert listed(platform) == []
    record(platform, (orders, "BARE", UnitStatus.OK), (costs, "BARE", UnitStatus.FAILED))
    assert listed(platform) == [(orders, "BARE", "ok"), (costs, "BARE", "failed")]


def test_the_newest_report_is_told_with_the_closes_of_its_date() -> None:
    marts = pl.DataFrame(
        {
            "symbol": ["BOTH", "BARE", "BARE"],
            "trading_date": [DAY, DAY, DAY - timedelta(days=1)],
            "close": [57_000.5, None, 3.0],
        }
    )
    page = Path("reports/daily_market/2024-08-08.html")
    found = _latest(marts, DAY, page)
    assert found == {"path": str(page), "date": "2024-08-08", "headline": {"close": {"BARE": None, "BOTH": 57_000.5}}}
    assert list(found["headline"]["close"]) == ["BARE", "BOTH"]
    assert _latest(marts.clear(), DAY, page)["headline"] == {"close": {}}
