"""Order flow through the engine: what a date takes from the session before it, and what goes stale with what."""

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, date, datetime

import polars as pl
import pytest

from quant_platform.calculators.sweeps import SweepParams
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.order_flow import ORDER_FLOW
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus
from quant_platform.settings import Settings, Vpin
from quant_platform_tests.every_unit import UNFED
from quant_platform_tests.unit.pipeline.conftest import Archive, MakeEngine, settings_below

DAYS = [date(2024, 8, 7), date(2024, 8, 8), date(2024, 8, 9)]
FIRST, SECOND, _ = DAYS
SYMBOL = "AAA"
VPIN = [
    "market/trades",
    "market/quotes",
    "market/bars_1s",
    "market/bars_1m",
    "microstructure/signed_trades",
    "microstructure/vpin_buckets",
    "microstructure/vpin",
]
# Of 40 trades of sizes 1, 2, 3, 1, …: 13 times 6, and 1.
DAILY_VOLUME = 79.0


def fill(archive: Archive) -> None:
    """Three days of 40 trades, two a minute from noon, a seller after each buyer; no quotes and no book."""
    for day in DAYS:
        archive.put(SYMBOL, day)


@pytest.fixture
def filled(archive: Archive) -> Archive:
    fill(archive)
    return archive


def run(one: Engine, tables: Collection[str] = RECIPES) -> list[Outcome]:
    return [outcome for table in tables for outcome in one.run(table, [SYMBOL], DAYS)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, list[Outcome]]]:
    """An engine that has built every table of the three days, and its outcomes; tests only read."""
    root = tmp_path_factory.mktemp("order_flow")
    (root / "archive").mkdir()
    fill(Archive(root / "archive"))
    with Engine(settings_below(root)) as one:
        yield one, run(one)


@pytest.fixture
def one(built: tuple[Engine, list[Outcome]]) -> Engine:
    return built[0]


def rows(one: Engine, name: str, day: date) -> pl.DataFrame:
    return one.lake.scan(f"microstructure/{name}", [SYMBOL], day, day).collect()


def test_every_table_is_built_or_absent_with_the_quotes(built: tuple[Engine, list[Outcome]]) -> None:
    _, outcomes = built
    assert {o.unit.table for o in outcomes if o.status is UnitStatus.ABSENT} == {
        "market/quotes",
        "market/book",
        "statistics/liquidity",
        "microstructure/order_book_imbalance",
        "live/values",
        "live/parity",
        *UNFED,
    }
    assert {o.status for o in outcomes} == {UnitStatus.OK, UnitStatus.ABSENT}
    assert {recipe.table for recipe in ORDER_FLOW} <= {o.unit.table for o in outcomes}


def test_signed_tape_holds_every_trade_once_with_the_venues_side(one: Engine) -> None:
    tape = rows(one, "signed_trades", SECOND)
    assert tape["aggressor"].to_list() == [1, -1] * 20
    assert tape["rule"].unique().to_list() == ["venue"]
    assert tape["quote_age_ns"].null_count() == tape["bid_price"].null_count() == 40
    received = tape["ts_event"].dt.offset_by("50ms")
    assert tape["ts_known"].equals(received)


def test_windows_begin_with_the_session_before(one: Engine) -> None:
    for name in ("participant_flow", "toxicity"):
        assert rows(one, name, FIRST)["trade_count"].head(2).to_list() == [2, 4]
        assert rows(one, name, SECOND)["trade_count"].head(2).to_list() == [42, 44]
    assert rows(one, "flow_clusters", SECOND)["samples"].to_list()[:2] == [42, 44]
    noon = datetime(2024, 8, 8, 12, tzinfo=UTC)
    assert rows(one, "participant_flow", SECOND)["ts_open"].min() == noon  # nothing of the warm-up is put out again


def test_bucket_size_is_made_of_earlier_sessions_alone(one: Engine) -> None:
    first, second = (rows(one, "vpin", day) for day in (FIRST, SECOND))
    assert first["status"].unique().to_list() == ["no_data"]
    assert rows(one, "vpin_buckets", FIRST).is_empty()
    assert second["bucket_size"].unique().to_list() == [DAILY_VOLUME / 50]
    assert not second["is_warm"].any()  # one session is not twenty
    buckets = rows(one, "vpin_buckets", SECOND)
    assert buckets["ts_end"].dt.date().unique().to_list() == [SECOND]
    # The warm-up filled 50 buckets of a fiftieth of its volume: all but the last digit, so 49 or 50.
    assert buckets["bucket"].min() in {50, 51}
    assert buckets["vpin"].null_count() == 0


def test_first_session_takes_the_instruments_bucket_size(filled: Archive, engine: MakeEngine) -> None:
    row = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001, "default_bucket_size": 10.0}
    one = engine(instrument=row)
    run(one, VPIN)
    assert rows(one, "vpin_buckets", FIRST)["bucket"].to_list() == [1, 2, 3, 4, 5, 6, 7]  # 79 fills seven tens
    assert rows(one, "vpin", SECOND)["bucket_size"].unique().to_list() == [DAILY_VOLUME / 50]


def test_bulk_volume_signs_by_bars(filled: Archive, engine: MakeEngine, settings: Callable[..., Settings]) -> None:
    analytics = settings().analytics.model_copy(update={"vpin": Vpin(bvc_bar_s=60)})
    one = engine(analytics=analytics)
    run(one, VPIN)
    samples = rows(one, "vpin", SECOND)
    assert samples["signing"].unique().to_list() == ["bvc"]
    assert samples["bar_s"].unique().to_list() == [60.0]
    assert samples["status"].unique().to_list() == ["ok"]


def test_a_parameter_makes_exactly_its_tables_stale(one: Engine) -> None:
    analytics = one.settings.analytics.model_copy(update={"sweep_detection": SweepParams(min_trades=4)})
    with Engine(one.settings.model_copy(update={"analytics": analytics})) as changed:
        assert changed.stale() == [
            Unit(table, SYMBOL, day) for table in ("live/parity", "microstructure/sweeps") for day in DAYS
        ]
