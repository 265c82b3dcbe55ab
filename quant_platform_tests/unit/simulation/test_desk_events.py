"""What is told around a simulated desk: limits, sizes and tones, against the laws that the module states."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.settings import Instrument
from quant_platform.simulation.desk import EVENT_KINDS, KINDS, desk_path, event_path
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
    """Return the rows of a kind on some dates, times as texts."""
    schema = polars_schema({**KINDS, **EVENT_KINDS}[kind])
    texts = pl.Schema({name: pl.String() if name.startswith("ts_") else dtype for name, dtype in schema.items()})
    paths = [desk_path(root, day, kind) for day in days] if kind in KINDS else [event_path(root, kind)]
    rows = pl.concat(pl.read_csv(path, schema=texts) for path in paths)
    if kind in KINDS:
        return rows
    return rows.filter(pl.col("event_id").str.contains_any([f"{day:%Y%m%d}" for day in days]))


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


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_rows_keep_their_contracts_and_are_told_after_they_happened(root: Path, kind: str) -> None:
    times = pl.col("^ts_.*$").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="ns", time_zone="UTC")
    rows = validated(EVENT_KINDS[kind], told(root, kind).with_columns(times))
    assert rows["event_id"].is_unique().all()
    assert rows["ts_event"].is_sorted()
    assert (rows["ts_recv"] > rows["ts_event"]).all()


def test_events_of_a_date_stand_alone(root: Path, tmp_path: Path) -> None:
    write_archive(tmp_path, instruments=[BTC], dates=DAYS[1:], params=MARKET, desk=DESK)
    for kind in EVENT_KINDS:
        assert told(tmp_path, kind).equals(told(root, kind, DAYS[1:])), kind
