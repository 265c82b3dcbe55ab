"""What is told around a simulated desk: limits, sizes and tones, against the laws that the module states."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.settings import Instrument
from quant_platform.simulation.desk import KINDS, desk_path
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.market import MarketParams, write_archive

DAYS = [date(2024, 3, 4), date(2024, 3, 5)]
BTC = Instrument(symbol="BTC", venue_symbol="BTCUSDT", feed="binance_usdm", tick_size=0.1, lot_size=0.001)
MARKET = MarketParams(trades_per_day=12_000, quotes_per_day=12_000, reference_prices={"BTCUSDT": 60_000.0})
DESK = DeskParams(orders_per_day=300, order_notional=2_000)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("desk_events")
    write_archive(root, instruments=[BTC], dates=DAYS, params=MARKET, desk=DESK)
    return root


def told(root: Path, kind: str, days: list[date] = DAYS) -> pl.DataFrame:
    schema = polars_schema(KINDS[kind])
    texts = pl.Schema({name: pl.String() if name.startswith("ts_") else dtype for name, dtype in schema.items()})
    return pl.concat(pl.read_csv(desk_path(root, day, kind), schema=texts) for day in days)


def test_each_decision_near_the_limit_is_told_and_no_other(root: Path) -> None:
    used = told(root, "decisions").select("decision_id", used="risk_limit_used").filter(pl.col("used") > 0.8)
    found = told(root, "risk_violation")
    assert found.height > 10
    assert found.select("decision_id", used="observed_value").equals(used)
    assert dict(found.group_by("severity").agg(pl.col("observed_value").min() > 1).iter_rows()) == {
        "warning": False,
        "breach": True,
    }


def test_a_size_is_a_share_of_one_account(root: Path) -> None:
    found = told(root, "position_sized")
    assert (found["sized_notional"] / 50e6).to_list() == pytest.approx(found["capital_fraction"].to_list(), abs=1e-7)


def test_few_settlements_fail_and_none_is_told_on_another_date(root: Path) -> None:
    desk = replace(DESK, venues=tuple(one for one in DESK.venues if one.fee_currency))
    write_archive(root / "bilateral", instruments=[BTC], dates=DAYS, params=MARKET, desk=desk)
    for day in DAYS:
        found = told(root / "bilateral", "trade_settled", [day])
        assert found.height == told(root / "bilateral", "fills", [day])["fill_id"].n_unique() > 200
        assert 0.001 < (found["settlement_status"] == "failed").mean() < 0.06
        assert set(found["ts_event"].str.slice(0, 10)) == {day.isoformat()}
        late = found.filter(settlement_status="pending")
        assert late["cash_amount"].null_count() == late.height
        assert set(late["settlement_date"].to_list()) <= {date.fromordinal(day.toordinal() + 1)}


def test_tones_have_texts_behind_them_and_count_as_many_as_stated(root: Path) -> None:
    found = told(root, "news_sentiment_analyzed")
    assert found.height == 2 * 23
    for kind, texts in (("news", 6.0), ("social", 40.0), ("analyst", 0.4)):
        tone, count = found[f"{kind}_sentiment"], found[f"{kind}_count"]
        assert (tone.is_null() == (count == 0)).all()
        assert tone.drop_nulls().is_between(-1, 1).all()
        # A Poisson mean over 46 hours, within five of its standard errors.
        assert count.mean() == pytest.approx(texts, abs=5 * (texts / 46) ** 0.5)
