"""The dbt project over a real lake: what its marts say, against pandas on the same files; and as Dagster assets."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from dagster_dbt import dbt_assets

from quant_platform.contracts._schema import empty, polars_schema
from quant_platform.contracts.market import Bar1m, Gap
from quant_platform.defs import dbt_runner, dbt_specs
from quant_platform.defs.assets import marts
from quant_platform.defs.resources import Platform
from quant_platform.settings import Settings
from quant_platform.storage.lake import Lake
from quant_platform.storage.warehouse import rebuilt

# dagster-dbt imports sqlglot, which imports a deprecated speed-up that it brings along itself.
pytestmark = pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning")

SYMBOLS = ("BTCUSDT", "1000", "BTCUSDT.SPOT")
DATES = (date(2024, 8, 7), date(2024, 8, 8), date(2024, 8, 10))
DUCKDB_TYPES = {pl.String: "VARCHAR", pl.Int64: "BIGINT", pl.Float64: "DOUBLE", pl.Date: "DATE"}


def instants(values: list[datetime], nanoseconds: int = 0) -> pl.Series:
    return pl.Series(values, dtype=pl.Datetime("ns", "UTC")).dt.offset_by(f"{nanoseconds}ns")


def bars(symbol: str, day: date, seed: int) -> pl.DataFrame:
    """Return a day with holes in time, so that first and last bar are not midnight's."""
    generator = np.random.default_rng(seed)
    minutes = np.sort(generator.choice(1440, 300, replace=False)).tolist()
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    opens, closes = generator.uniform(90, 110, (2, 300))
    buys, sells = generator.exponential(2.0, (2, 300))
    ts_open = [midnight + timedelta(minutes=minute) for minute in minutes]
    frame = pl.DataFrame(
        {
            "ts_open": instants(ts_open),
            "symbol": [symbol] * 300,
            "open": opens,
            "high": np.maximum(opens, closes) + generator.exponential(1.0, 300),
            "low": np.minimum(opens, closes) - generator.exponential(1.0, 300),
            "close": closes,
            "volume": buys + sells,
            "vwap": (opens + closes) / 2,
            "trade_count": generator.integers(1, 1000, 300),
            "buy_volume": buys,
            "sell_volume": sells,
            "revision": [0] * 300,
            "ts_known": instants([t + timedelta(seconds=60, milliseconds=50) for t in ts_open], nanoseconds=seed),
        }
    )
    return frame.select(pl.col(name).cast(dtype) for name, dtype in polars_schema(Bar1m).items())


def gaps(symbol: str, day: date) -> pl.DataFrame:
    """Return one open hole of 7 ids and one refilled hole of 5."""
    start = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "symbol": [symbol] * 2,
            "first_id": [100, 200],
            "last_id": [106, 204],
            "missing": [7, 5],
            "ts_start": instants([start, start]),
            "ts_end": instants([start + timedelta(seconds=1)] * 2),
            "status": ["open", "filled"],
            "filled_by": [None, "aggTrades"],
            # Seen a day late: later than anything that the bars know.
            "ts_known": instants([start, start + timedelta(days=1)], nanoseconds=1),
        }
    )
    return frame.select(pl.col(name).cast(dtype) for name, dtype in polars_schema(Gap).items())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake of three symbols and dates: holes in one symbol-day, one day without trades, one never searched."""
    home = tmp_path_factory.mktemp("a 'home' with [odd] = letters")
    settings = Settings(home=home)
    lake = Lake(settings.lake_uri)
    for i, symbol in enumerate(SYMBOLS):
        for j, day in enumerate(DATES):
            has_traded = (symbol, day) != ("1000", DATES[1])
            frame = bars(symbol, day, seed=10 * i + j) if has_traded else empty(Bar1m)
            lake.write("market/bars_1m", symbol, day, frame)
            if (symbol, day) == ("BTCUSDT.SPOT", DATES[0]):
                lake.write("market/gaps", symbol, day, gaps(symbol, day))
            elif (symbol, day) != ("BTCUSDT", DATES[2]):
                lake.write("market/gaps", symbol, day, empty(Gap))
    # A part of a date that is open must not be counted beside the compacted file.
    lake.write("market/bars_1m", "BTCUSDT", DATES[2], bars("BTCUSDT", DATES[2], seed=99), part=(1, 9))
    return settings


@pytest.fixture(scope="module")
def warehouse(settings: Settings) -> Path:
    with rebuilt(settings.warehouse) as new:
        invocation = dbt_runner.build(warehouse=new, lake=Lake(settings.lake_uri).root, target=settings.home / "dbt")
        assert invocation.is_successful, invocation.errors
    return settings.warehouse


@pytest.fixture
def connection(warehouse: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with marts.Warehouse(
        database=str(warehouse), connection_config={"access_mode": "READ_ONLY"}
    ).get_connection() as connection:
        yield connection


def test_reading_before_anything_was_built_says_what_to_do(tmp_path: Path) -> None:
    absent = marts.read_only_warehouse(Settings(home=tmp_path))
    with pytest.raises(FileNotFoundError, match="materialise the marts"), absent.get_connection():
        pass


def expected_daily(settings: Settings) -> pd.DataFrame:
    """Return the daily bars by pandas, file by file."""
    rows = []
    for symbol in SYMBOLS:
        previous_close, previous_known = None, pd.NaT
        for day in DATES:
            folder = settings.home / "lake" / "market"
            minute = pd.read_parquet(folder / "bars_1m" / f"date={day}" / f"{symbol}.parquet", partitioning=None)
            if minute.empty:
                continue
            minute = minute.sort_values("ts_open")
            searched = folder / "gaps" / f"date={day}" / f"{symbol}.parquet"
            hole = pd.read_parquet(searched, partitioning=None) if searched.exists() else None
            known = minute["ts_known"].max()
            volume = minute["volume"].sum()
            close = minute["close"].iloc[-1]
            known_here = [known, previous_known, pd.NaT if hole is None else hole["ts_known"].max()]
            rows.append(
                {
                    "symbol": symbol,
                    "trading_date": day,
                    "open": minute["open"].iloc[0],
                    "high": minute["high"].max(),
                    "low": minute["low"].min(),
                    "close": close,
                    "volume": volume,
                    "vwap": (minute["vwap"] * minute["volume"]).sum() / volume,
                    "trade_count": minute["trade_count"].sum(),
                    "buy_volume": minute["buy_volume"].sum(),
                    "sell_volume": minute["sell_volume"].sum(),
                    "ts_first_bar": minute["ts_open"].iloc[0].value,
                    "ts_last_bar": minute["ts_open"].iloc[-1].value,
                    "bars": len(minute),
                    "gap_count": None if hole is None else len(hole),
                    "missing_trades": None if hole is None else hole.loc[hole["status"] == "open", "missing"].sum(),
                    "return_bps": None if previous_close is None else (close / previous_close - 1) * 10_000,
                    "ts_known": max(t for t in known_here if not pd.isna(t)).value,
                }
            )
            previous_close, previous_known = close, known
    return pd.DataFrame(rows).sort_values(["symbol", "trading_date"], ignore_index=True)


def test_daily_bars_equal_pandas_on_the_same_files(settings: Settings, connection: duckdb.DuckDBPyConnection) -> None:
    daily = connection.sql("select * from marts.fct_daily_bars order by symbol, trading_date").pl()
    expected = expected_daily(settings)
    assert daily.height == 8
    assert daily.columns == list(expected.columns)
    for name, dtype in daily.schema.items():
        column = daily[name].dt.epoch("ns") if dtype == pl.Datetime("ns", "UTC") else daily[name]
        if dtype == pl.Float64:
            np.testing.assert_allclose(column.to_numpy(), expected[name].astype(float), rtol=1e-9, atol=0, err_msg=name)
        else:
            wanted = [None if pd.isna(value) else value for value in expected[name]]
            assert column.to_list() == wanted, name
    assert daily["ts_known"].dt.nanosecond().max() > 0, "nanoseconds are kept"


def test_return_spans_the_dates_on_which_it_did_not_trade(connection: duckdb.DuckDBPyConnection) -> None:
    closes = dict(
        connection.execute("select trading_date, close from marts.fct_daily_bars where symbol = '1000'").fetchall()
    )
    returns = connection.execute(
        "select return_bps from marts.fct_daily_bars where symbol = '1000' order by trading_date"
    ).fetchall()
    assert list(closes) == [DATES[0], DATES[2]]
    assert returns == [(None,), (pytest.approx((closes[DATES[2]] / closes[DATES[0]] - 1) * 10_000, rel=1e-9),)]


def test_dim_symbol_has_each_symbol_once_as_text(connection: duckdb.DuckDBPyConnection) -> None:
    assert connection.execute("select * from marts.dim_symbol order by symbol").fetchall() == [
        ("1000", DATES[0], DATES[2], 2),
        ("BTCUSDT", DATES[0], DATES[2], 3),
        ("BTCUSDT.SPOT", DATES[0], DATES[2], 3),
    ]


@pytest.mark.parametrize(("view", "contract"), [("stg_bars_1m", Bar1m), ("stg_gaps", Gap)])
def test_staging_has_the_contracts_columns_and_the_date(
    connection: duckdb.DuckDBPyConnection, view: str, contract: type
) -> None:
    described = {name: kind for name, kind, *_ in connection.execute(f"describe staging.{view}").fetchall()}
    expected = {
        name: "TIMESTAMPTZ_NS" if isinstance(dtype, pl.Datetime) else DUCKDB_TYPES.get(type(dtype), "VARCHAR")
        for name, dtype in polars_schema(contract).items()
    }
    assert described == {**expected, "trading_date": "DATE"}


def test_every_column_is_described_with_the_type_that_it_has(connection: duckdb.DuckDBPyConnection) -> None:
    import json

    nodes = json.loads(dbt_runner.manifest().read_bytes())["nodes"].values()
    models = [node for node in nodes if node["resource_type"] == "model"]
    assert len(models) == 18
    for model in models:
        described = connection.execute(f"describe {model['schema']}.{model['name']}").fetchall()
        assert model["description"]
        assert all(column["description"] for column in model["columns"].values())
        assert {name: kind for name, kind, *_ in described} == {
            name: column["data_type"].upper() for name, column in model["columns"].items()
        }, model["name"]


def test_an_empty_lake_gives_empty_marts(tmp_path: Path) -> None:
    with rebuilt(tmp_path / "warehouse.duckdb") as new:
        invocation = dbt_runner.build(warehouse=new, lake=tmp_path / "lake", target=tmp_path / "dbt")
    assert invocation.is_successful, invocation.errors
    with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
        assert connection.execute("select count(*) from marts.fct_daily_bars").fetchall() == [(0,)]
        assert connection.execute("select count(*) from staging.stg_gap_days").fetchall() == [(0,)]


def materialized(settings: Settings, instance: dg.DagsterInstance, *keys: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [marts.dbt_models()],
        resources={"platform": Platform(settings)},
        instance=instance,
        selection=[dg.AssetKey(key.split("/")) for key in keys] or None,
        raise_on_error=False,
    )


def test_models_are_assets_in_the_lakes_lineage() -> None:
    models = marts.dbt_models()
    specs = {spec.key.to_user_string(): spec for spec in models.specs}
    assert sorted(specs) == [
        "marts/dim_algo",
        "marts/dim_instrument",
        "marts/dim_strategy",
        "marts/dim_symbol",
        "marts/dim_venue",
        "marts/fct_daily_bars",
        "marts/fct_fill_markout",
        "marts/fct_order_cost",
        "marts/mart_algo_scorecard",
        "marts/mart_venue_scorecard",
        "staging/stg_bars_1m",
        "staging/stg_decisions",
        "staging/stg_fills",
        "staging/stg_gap_days",
        "staging/stg_gaps",
        "staging/stg_orders",
        "staging/stg_tca_fills",
        "staging/stg_tca_orders",
    ]
    upstream = {dep.asset_key.to_user_string() for spec in specs.values() for dep in spec.deps} - set(specs)
    of_the_desk = {f"execution/{name}" for name in ("decisions", "orders", "fills", "tca_orders", "tca_fills")}
    assert upstream == {"market/bars_1m", "market/gaps", *of_the_desk}
    for key, spec in specs.items():
        assert spec.group_name == key.split("/")[0]
        assert spec.owners
        assert spec.kinds == {"dbt", "duckdb"}
        assert spec.description
        assert spec.freshness_policy
        assert spec.metadata["dagster/column_schema"].columns[0].description


def test_specifications_that_were_kept_are_dagster_dbts_own(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    shutil.copy(dbt_runner.manifest(), manifest)
    made = dbt_specs.specs(manifest)
    kept = tmp_path / "dagster_specs.pickle"
    whole = kept.read_bytes()

    assert dbt_specs.specs(manifest) == made
    for damaged in (b"", whole[:-100], b"not a pickle"):
        kept.write_bytes(damaged)
        assert dbt_specs.specs(manifest) == made
        assert kept.read_bytes() == whole

    @dbt_assets(manifest=manifest)
    def models() -> Iterator[Any]:
        yield from ()

    own = dict.fromkeys(("dagster_dbt/manifest", "dagster_dbt/dagster_dbt_translator"))
    for spec in models.specs:
        (one,) = [kept for kept in made.assets if kept.key == spec.key]
        assert one == spec.replace_attributes(metadata={k: v for k, v in spec.metadata.items() if k not in own})
    assert list(made.checks) == list(models.check_specs)
    assert len(made.assets) == len(list(models.specs))


def test_specifications_follow_the_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    content = json.loads(dbt_runner.manifest().read_bytes())
    manifest.write_text(json.dumps(content))
    before = dbt_specs.specs(manifest)
    content["nodes"]["model.quant_platform.dim_algo"]["description"] = "What was never said before."
    manifest.write_text(json.dumps(content))

    changed = [new for old, new in zip(before.assets, dbt_specs.specs(manifest).assets, strict=True) if new != old]

    assert [spec.key for spec in changed] == [dg.AssetKey(["marts", "dim_algo"])]
    assert "What was never said before." in str(changed[0].description)


def test_loading_the_definitions_leaves_dbt_alone() -> None:
    dbt_specs.specs(dbt_runner.manifest())
    program = "import quant_platform.definitions, sys; print({'dbt', 'dagster_dbt'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_materialising_one_mart_keeps_the_others_and_all_of_it_shows_in_dagster(
    settings: Settings, warehouse: Path
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        whole = materialized(settings, instance)
        assert whole.success
        one = materialized(settings, instance, "marts/dim_symbol")
        assert one.success
    facts = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in whole.get_asset_materialization_events()
        if event.asset_key
    }
    assert facts["marts/fct_daily_bars"]["dagster/row_count"].value == 8
    assert facts["marts/fct_daily_bars"]["time_range"].value == "2024-08-07 to 2024-08-10"
    assert facts["marts/fct_daily_bars"]["Execution Duration"].value > 0
    assert len(facts) == 18
    checks = {e.check_name: e.passed for e in whole.get_asset_check_evaluations()}
    assert len(checks) == 29
    assert all(checks.values())
    assert [e.asset_key.to_user_string() for e in one.get_asset_materialization_events() if e.asset_key] == [
        "marts/dim_symbol"
    ]
    with marts.read_only_warehouse(settings).get_connection() as connection:
        known = connection.sql("select ts_known from marts.fct_daily_bars").pl()
        assert known.schema == {"ts_known": pl.Datetime("ns", "UTC")}
        assert known.height == 8
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            connection.execute("create table intruder as select 1")
    descriptors = Path("/proc/self/fd")
    opened = [d.readlink().name for d in descriptors.iterdir() if d.exists()] if descriptors.exists() else []
    assert "warehouse.duckdb" not in opened


def test_a_red_dbt_test_shows_as_a_check_and_leaves_the_warehouse_as_it_was(tmp_path: Path, settings: Settings) -> None:
    own = Settings(home=tmp_path)
    lake = Lake(own.lake_uri)
    lake.write("market/gaps", "BTCUSDT", DATES[0], empty(Gap))
    lake.write("market/bars_1m", "BTCUSDT", DATES[0], bars("BTCUSDT", DATES[0], seed=1))
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialized(own, instance).success
        before = own.warehouse.read_bytes()
        poisoned = bars("BTCUSDT", DATES[1], seed=1).with_columns(vwap=pl.lit(1e6))
        lake.write("market/bars_1m", "BTCUSDT", DATES[1], poisoned)
        lake.write("market/gaps", "BTCUSDT", DATES[1], empty(Gap))
        second = materialized(own, instance)
    assert not second.success
    assert not second.get_asset_materialization_events()
    red = [e.check_name for e in second.get_asset_check_evaluations() if not e.passed]
    assert red == ["daily_prices_in_range"]
    assert own.warehouse.read_bytes() == before
    (failure,) = second.get_step_failure_events()
    assert "the warehouse stays as it was" in str(failure.step_failure_data.error)
