"""The marts of execution over a real lake: what they say, against plain sums; and as Dagster assets."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import polars as pl
import pytest

from quant_platform.calculators.scorecards import ScorecardParams, algo_scorecard, venue_scorecard
from quant_platform.contracts._schema import Contract, empty, polars_schema
from quant_platform.contracts.execution import (
    MARKOUT_HORIZONS_NS,
    Decision,
    Fill,
    Liquidity,
    Order,
    TcaFill,
    TcaOrder,
    TcaStatus,
)
from quant_platform.contracts.scorecards import OrderQuality
from quant_platform.defs import dbt_runner
from quant_platform.defs.assets import marts
from quant_platform.defs.resources import Platform
from quant_platform.settings import Settings
from quant_platform.storage.lake import Lake
from quant_platform.storage.warehouse import rebuilt

# dagster-dbt imports sqlglot, which imports a deprecated speed-up that it brings along itself.
pytestmark = pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning")

Row = dict[str, Any]
Tables = dict[str, list[Row]]

CONTRACTS: Mapping[str, type[Contract]] = {
    "decisions": Decision,
    "orders": Order,
    "fills": Fill,
    "tca_orders": TcaOrder,
    "tca_fills": TcaFill,
}
MODELS = {
    "staging": [f"stg_{name}" for name in CONTRACTS],
    "marts": [
        "fct_order_cost",
        "fct_fill_markout",
        "mart_algo_scorecard",
        "mart_venue_scorecard",
        "dim_strategy",
        "dim_algo",
        "dim_venue",
        "dim_instrument",
    ],
}
DUCKDB_TYPES = {
    pl.String: "VARCHAR",
    pl.Int8: "TINYINT",
    pl.Int64: "BIGINT",
    pl.Float64: "DOUBLE",
    pl.Boolean: "BOOLEAN",
    pl.Datetime: "TIMESTAMPTZ_NS",
}
# A Wednesday and a Thursday, the Monday after, and a Monday of another month.
DATES = (date(2024, 8, 7), date(2024, 8, 8), date(2024, 8, 12), date(2024, 9, 2))
SYMBOLS = ("SIMBTC", "1000")
COSTS = [name for name in polars_schema(TcaOrder) if name.endswith("_cost_bps") and not name.startswith("expected")]
PARTS = ("delay_bps", "trading_bps", "opportunity_bps", "fees_bps")
MARKOUTS = [f"markout_{horizon}" for horizon in (*MARKOUT_HORIZONS_NS, "close")]


def at(day: date, second: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(seconds=second)


def either(generator: random.Random, value: Any, share: float = 0.2) -> Any:
    """Return the value, or nothing once in a while."""
    return None if generator.random() < share else value


def order_cost(order_id: str, day: date, symbol: str, generator: random.Random) -> Row:
    """Return what an order has cost: figures at random, some of which are not known."""
    quantity = generator.uniform(1, 10)
    filled = generator.choice([quantity, quantity, quantity * 0.4, 0.0])
    parts = {name: generator.gauss(0, 5) for name in PARTS}
    unknown = generator.choice([*PARTS, None, None, None])
    return {
        "order_id": order_id,
        "decision_id": f"D-{order_id}",
        "ts_event": at(day),
        "ts_done": at(day, 60),
        "symbol": symbol,
        "strategy": either(generator, generator.choice(["mean_reversion", "momentum"])),
        "algo": either(generator, generator.choice(["twap", "vwap"])),
        "broker": either(generator, generator.choice(["north", "south"])),
        "side": generator.choice([1, -1]),
        "quantity": quantity,
        "filled_quantity": filled,
        "fill_count": 2 if filled else 0,
        "avg_price": generator.uniform(90, 110) if filled else None,
        "fees": generator.uniform(0, 1),
        "expected_cost_bps": either(generator, generator.uniform(0, 5)),
        "decision_price": either(generator, generator.uniform(90, 110), 0.1),
        "arrival_price": either(generator, generator.uniform(90, 110)),
        **{name: either(generator, generator.gauss(2, 5)) if filled else None for name in COSTS},
        **{name: None if name == unknown else value for name, value in parts.items()},
        "shortfall_bps": sum(parts.values()) if unknown is None else either(generator, generator.gauss(0, 5)),
        **{name: False for name, dtype in polars_schema(TcaOrder).items() if dtype == pl.Boolean},
        "status": TcaStatus.OK,
        "reasons": "",
        "ts_known": at(day, 61),
    }


def fill_markout(fill_id: str, order: Row, day: date, generator: random.Random) -> Row:
    """Return the quote that a fill met and where the mid went: figures at random, some of which are not known."""
    status = generator.choice([TcaStatus.OK, TcaStatus.OK, TcaStatus.LOCKED, TcaStatus.ONE_SIDED])
    has_spread = status in {TcaStatus.OK, TcaStatus.LOCKED}
    quoted = 0.0 if status == TcaStatus.LOCKED else generator.uniform(1, 3)
    effective = generator.uniform(-1, 4)
    names = [*MARKOUTS, *(f"realised_spread_{horizon}" for horizon in MARKOUT_HORIZONS_NS)]
    return {
        "fill_id": fill_id,
        "order_id": order["order_id"],
        "ts_event": at(day, generator.randrange(60)),
        "symbol": order["symbol"],
        "venue": either(generator, generator.choice(["X", "Y", "Z"])),
        "liquidity": either(generator, generator.choice(list(Liquidity))),
        "side": order["side"],
        "price": generator.uniform(90, 110),
        "quantity": generator.uniform(0.1, 2),
        "quoted_spread_bps": quoted if has_spread else None,
        "effective_spread_bps": effective if has_spread else None,
        "e_over_q": effective / quoted if has_spread and quoted else None,
        "price_improvement_amount": generator.uniform(-1, 1) if has_spread else None,
        **{f"{name}_bps": either(generator, generator.gauss(0, 3)) for name in names},
        "status": status,
        "ts_known": at(day, 400),
    }


def told_order(cost: Row, *, order_id: str | None = None, parent: str | None = None, revision: int = 0) -> Row:
    same = {name: cost[name] for name in ("decision_id", "ts_event", "ts_done", "symbol", "side", "quantity", "algo")}
    own = {"order_id": order_id or cost["order_id"], "parent_order_id": parent, "revision": revision}
    return {**same, **own, "ts_recv": at(DATES[0]), "status": "filled"}


def told_fill(markout: Row, *, fee: float | None, currency: str | None = None, rate: float | None = None) -> Row:
    names = ("fill_id", "order_id", "ts_event", "symbol", "side", "price", "quantity", "venue", "liquidity")
    fees = {"fee": fee, "fee_currency": currency, "fee_rate": rate}
    return {**{name: markout[name] for name in names}, **fees, "revision": 0, "ts_recv": markout["ts_event"]}


def told_decision(cost: Row) -> Row:
    return {
        "decision_id": cost["decision_id"],
        "revision": 0,
        "ts_event": cost["ts_event"],
        "ts_recv": cost["ts_event"],
        "strategy": cost["strategy"] or "manual",
        "symbol": cost["symbol"],
        "side": cost["side"],
        "quantity": cost["quantity"],
    }


def desk() -> Tables:
    """Return five orders a symbol-day with two fills each, their fees told in every way."""
    generator = random.Random(7)
    told: Tables = defaultdict(list)
    fees: list[Row] = [
        {"fee": 0.5},
        {"fee": -0.25, "currency": ""},
        {"fee": 0.01, "currency": "BNB", "rate": 500.0},
        {"fee": 0.01, "currency": "BNB"},
        {"fee": 0.0, "currency": "BNB"},
        {"fee": None},
    ]
    for day in DATES:
        for symbol in SYMBOLS:
            for n in range(5):
                cost = order_cost(f"{symbol}-{day}-{n}", day, symbol, generator)
                told["tca_orders"].append(cost)
                told["orders"].append(told_order(cost))
                told["decisions"].append(told_decision(cost))
                for k in range(2):
                    markout = fill_markout(f"F-{cost['order_id']}-{k}", cost, day, generator)
                    told["tca_fills"].append(markout)
                    told["fills"].append(told_fill(markout, **fees[(2 * n + k) % len(fees)]))
    return told


def put(settings: Settings, told: Tables) -> None:
    """Write the rows as the lake does: a file a symbol-day, of the date of `ts_event`."""
    for name, rows in told.items():
        by_file: dict[tuple[date, str], list[Row]] = defaultdict(list)
        for row in rows:
            by_file[row["ts_event"].date(), row["symbol"]].append(row)
        for (day, symbol), its_rows in by_file.items():
            folder = Lake(settings.lake_uri).root / "execution" / name / f"date={day}"
            folder.mkdir(parents=True, exist_ok=True)
            schema = polars_schema(CONTRACTS[name])
            whole = [{**dict.fromkeys(schema), **row} for row in its_rows]
            pl.DataFrame(whole, schema=schema).write_parquet(folder / f"{quote(symbol, safe='')}.parquet")


def built(settings: Settings, *selection: str) -> dbt_runner.Invocation:
    with rebuilt(settings.warehouse) as new:
        return dbt_runner.build(
            *selection, warehouse=new, lake=Lake(settings.lake_uri).root, target=settings.home / "dbt"
        )


def rows_of(settings: Settings, sql: str) -> list[Row]:
    with marts.read_only_warehouse(settings).get_connection() as connection:
        rows: list[Row] = connection.sql(sql).pl().to_dicts()
        return rows


def outcomes(invocation: dbt_runner.Invocation) -> dict[str, str]:
    """Return what became of every dbt test."""
    finished = (event["data"] for event in invocation.events if event["info"]["name"] == "NodeFinished")
    nodes = ((one["node_info"], one["run_result"]["status"]) for one in finished)
    return {node["node_name"]: status for node, status in nodes if node["resource_type"] == "test"}


@pytest.fixture(scope="module")
def told() -> Tables:
    return desk()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, told: Tables) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("a 'home' with [odd] = letters"))
    put(settings, told)
    invocation = built(settings)
    assert invocation.is_successful, invocation.errors
    assert {status for name, status in outcomes(invocation).items()} == {"pass"}
    return settings


def same(found: Row, expected: Row) -> None:
    """Require equal rows; sums of reals may miss each other by their last bits."""
    for name, value in expected.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name
        else:
            assert found[name] == value, name


def by(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, Row]:
    found = {key(row): row for row in rows}
    assert len(found) > 0
    return found


def product(*factors: float | None) -> float | None:
    result = 1.0
    for factor in factors:
        if factor is None:
            return None
        result *= factor
    return result


def total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def mean(rows: list[Row], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return sum(known) / len(known) if known else None


def weighted(rows: list[Row], name: str, weight: str) -> float | None:
    known = [(row[name], row[weight]) for row in rows if row[name] is not None and row[weight] is not None]
    weights = sum(own for _, own in known)
    return sum(value * own for value, own in known) / weights if weights else None


def with_money(cost: Row) -> Row:
    """Return an order with what its figures come to."""
    filled, decided = cost["filled_quantity"], product(cost["quantity"], cost["decision_price"])
    arrival, expected = cost["arrival_cost_bps"], cost["expected_cost_bps"]
    return {
        **cost,
        "trading_date": cost["ts_event"].date(),
        "notional": 0.0 if filled == 0 else product(filled, cost["avg_price"]),
        "decided_notional": decided,
        "shortfall_amount": product(cost["shortfall_bps"], decided, 1e-4),
        "excess_cost_bps": None if arrival is None or expected is None else arrival - expected,
    }


def test_order_costs_are_the_lakes_rows_with_their_money(settings: Settings, told: Tables) -> None:
    found = by(rows_of(settings, "select * from marts.fct_order_cost"), lambda row: row["order_id"])
    assert len(found) == len(told["tca_orders"])
    for cost in told["tca_orders"]:
        own = found[cost["order_id"]]
        same(own, {name: value for name, value in with_money(cost).items() if name in own})


def test_fills_carry_their_fees_in_quote_currency(settings: Settings, told: Tables) -> None:
    found = by(rows_of(settings, "select * from marts.fct_fill_markout"), lambda row: row["fill_id"])
    assert len(found) == len(told["tca_fills"])
    fills = by(told["fills"], lambda row: row["fill_id"])
    for markout in told["tca_fills"]:
        own, fill = found[markout["fill_id"]], fills[markout["fill_id"]]
        same(own, {name: value for name, value in markout.items() if name in own})
        rate = 1.0 if not fill["fee_currency"] or fill["fee"] == 0 else fill["fee_rate"]
        derived = {
            "trading_date": markout["ts_event"].date(),
            "parent_order_id": markout["order_id"],
            "notional": markout["price"] * markout["quantity"],
            "fees": product(fill["fee"], rate),
        }
        same(own, derived)
    assert {row["fees"] is None for row in found.values()} == {True, False}


def periods(day: date) -> list[tuple[str, date]]:
    return [("day", day), ("week", day - timedelta(days=day.weekday())), ("month", day.replace(day=1))]


def test_algo_scorecard_equals_plain_sums(settings: Settings, told: Tables) -> None:
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in map(with_money, told["tca_orders"]):
        price = row["arrival_price"] or row["decision_price"]
        has_parts = all(row[name] is not None for name in PARTS)
        more = {
            "ordered": product(row["quantity"], price),
            "filled_share": row["filled_quantity"] / row["quantity"],
            "parts_weight": row["decided_notional"] if has_parts else None,
            "has_parts": has_parts,
        }
        for dimension in ("algo", "broker", "strategy"):
            for period in periods(row["trading_date"]):
                cells[dimension, *period, row[dimension]].append({**row, **more})
    found = by(
        rows_of(settings, "select * from marts.mart_algo_scorecard"),
        lambda row: (row["dimension"], row["period"], row["period_start"], row["member"]),
    )
    assert set(found) == set(cells)
    assert {member for *_, member in cells} >= {None, "twap", "north", "momentum"}
    for cell, rows in cells.items():
        family = [row for other, its in cells.items() if other[:3] == cell[:3] for row in its]
        notional, of_family = total(row["notional"] for row in rows), total(row["notional"] for row in family)
        whole = [row for row in rows if row["has_parts"]]
        expected: Row = {
            "orders": len(rows),
            "symbols": len({row["symbol"] for row in rows}),
            "days": len({row["trading_date"] for row in rows}),
            "notional": notional,
            "notional_share": None if notional is None or not of_family else notional / of_family,
            "order_share": len(rows) / len(family),
            "fill_rate": weighted(rows, "filled_share", "ordered"),
            "shortfall_mean_bps": mean(whole, "shortfall_bps"),
            "shortfall_orders": len(whole),
            "ts_known": max(row["ts_known"] for row in rows),
        }
        for cost in ("decision_cost", "arrival_cost", "vwap_cost", "twap_cost", "excess_cost"):
            expected[f"{cost}_weighted_bps"] = weighted(rows, f"{cost}_bps", "notional")
            expected[f"{cost}_mean_bps"] = mean(rows, f"{cost}_bps")
            expected[f"{cost}_orders"] = sum(row[f"{cost}_bps"] is not None for row in rows)
        for part in (*PARTS, "shortfall_bps"):
            expected[part.replace("_bps", "_weighted_bps")] = weighted(rows, part, "parts_weight")
        same(found[cell], expected)
        assert set(found[cell]) == {*expected, "dimension", "period", "period_start", "member"}


def test_venue_scorecard_equals_plain_sums(settings: Settings, told: Tables) -> None:
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    fees = by(rows_of(settings, "select fill_id, fees from marts.fct_fill_markout"), lambda row: row["fill_id"])
    for row in told["tca_fills"]:
        notional = row["price"] * row["quantity"]
        more = {
            "notional": notional,
            "is_maker": None if row["liquidity"] is None else float(row["liquidity"] == Liquidity.MAKER),
            "fee_share": product(fees[row["fill_id"]]["fees"], 1e4 / notional),
            "saved_share": product(row["price_improvement_amount"], 1e4 / notional),
        }
        for period in periods(row["ts_event"].date()):
            cells[*period, row["venue"]].append({**row, **more})
    found = by(
        rows_of(settings, "select * from marts.mart_venue_scorecard"),
        lambda row: (row["period"], row["period_start"], row["venue"]),
    )
    assert set(found) == set(cells)
    assert {venue for *_, venue in cells} == {None, "X", "Y", "Z"}
    for cell, rows in cells.items():
        family = [row for other, its in cells.items() if other[:2] == cell[:2] for row in its]
        paid = total(product(row["effective_spread_bps"], row["notional"]) for row in rows)
        quoted = total(product(row["quoted_spread_bps"], row["notional"]) for row in rows)
        expected: Row = {
            "fills": len(rows),
            "orders": len({row["order_id"] for row in rows}),
            "symbols": len({row["symbol"] for row in rows}),
            "days": len({row["ts_event"].date() for row in rows}),
            "notional": sum(row["notional"] for row in rows),
            "notional_share": sum(row["notional"] for row in rows) / sum(row["notional"] for row in family),
            "fill_share": len(rows) / len(family),
            "maker_share": weighted(rows, "is_maker", "notional"),
            "fee_bps": weighted(rows, "fee_share", "notional"),
            "e_over_q": paid / quoted if paid is not None and quoted else None,
            "price_improvement_bps": weighted(rows, "saved_share", "notional"),
            "ts_known": max(row["ts_known"] for row in rows),
        }
        for figure in ("quoted_spread", "effective_spread", "realised_spread_5s", *MARKOUTS):
            expected[f"{figure}_weighted_bps"] = weighted(rows, f"{figure}_bps", "notional")
            expected[f"{figure}_mean_bps"] = mean(rows, f"{figure}_bps")
            expected[f"{figure}_fills"] = sum(row[f"{figure}_bps"] is not None for row in rows)
        same(found[cell], expected)
        assert set(found[cell]) == {*expected, "period", "period_start", "venue"}


def framed(rows: list[Row], contract: type[Contract]) -> pl.DataFrame:
    schema = polars_schema(contract)
    frame = pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], schema=schema)
    return frame.with_columns(date=pl.col("ts_event").dt.date())


def test_what_the_calculators_average_too_has_their_values(settings: Settings, told: Tables) -> None:
    orders, fills = framed(told["tca_orders"], TcaOrder), framed(told["tca_fills"], TcaFill)
    params = ScorecardParams(min_orders=1)
    common = ("orders", "symbols", "days", "notional", "notional_share")
    of_algos = {"fill_rate": "fill_rate", "arrival_cost_weighted_bps": "arrival_cost_bps"}
    of_algos |= {"excess_cost_mean_bps": "excess_cost_bps", "excess_cost_orders": "excess_orders"}
    # Spreads differ: the calculator weighs an order's mean at a venue by all that it filled there, known or not.
    of_venues = {"fills": "fills", "maker_share": "maker_share"}
    cards = {
        "algo": (algo_scorecard(orders, empty(OrderQuality), params), ("dimension", "member"), of_algos),
        "venue": (venue_scorecard(fills, orders, params), ("venue",), of_venues),
    }
    for kind, (card, keys, own) in cards.items():

        def cell(row: Row, keys: tuple[str, ...] = keys) -> tuple[Any, ...]:
            return tuple(row[key] for key in ("period", "period_start", *keys))

        found = by(rows_of(settings, f"from marts.mart_{kind}_scorecard"), cell)
        expected = by(card.to_dicts(), cell)
        assert set(found) == set(expected)
        for key, row in expected.items():
            same(found[key], {name: row[name] for name in common} | {ours: row[theirs] for ours, theirs in own.items()})


def test_dimensions_have_each_name_once_with_its_dates(settings: Settings, told: Tables) -> None:
    strategies = [row["strategy"] for row in told["decisions"]]
    ordered = [row["strategy"] for row in told["tca_orders"]]
    found = by(rows_of(settings, "select * from marts.dim_strategy"), lambda row: row["strategy"])
    assert {name: (row["decisions"], row["orders"]) for name, row in found.items()} == {
        name: (strategies.count(name), ordered.count(name)) for name in ("manual", "mean_reversion", "momentum")
    }
    algos = by(rows_of(settings, "select * from marts.dim_algo"), lambda row: row["algo"])
    assert {name: row["orders"] for name, row in algos.items()} == {
        name: [row["algo"] for row in told["tca_orders"]].count(name) for name in ("twap", "vwap")
    }
    venues = by(rows_of(settings, "select * from marts.dim_venue"), lambda row: row["venue"])
    assert {name: row["fills"] for name, row in venues.items()} == {
        name: [row["venue"] for row in told["fills"]].count(name) for name in ("X", "Y", "Z")
    }
    assert all((row["first_date"], row["last_date"]) == (DATES[0], DATES[-1]) for row in algos.values())
    (instrument,) = rows_of(settings, "select * from marts.dim_instrument where symbol = '1000'")
    assert instrument == {
        "symbol": "1000",
        "first_desk_date": DATES[0],
        "last_desk_date": DATES[-1],
        "first_market_date": None,
        "last_market_date": None,
        "decisions": 20,
        "orders": 20,
        "fills": 40,
    }


def test_staging_has_the_contracts_columns_and_the_date(settings: Settings) -> None:
    for name, contract in CONTRACTS.items():
        described = rows_of(settings, f"describe staging.stg_{name}")
        expected = {column: DUCKDB_TYPES[type(dtype)] for column, dtype in polars_schema(contract).items()}
        found = {row["column_name"]: row["column_type"] for row in described}
        assert found == {**expected, "trading_date": "DATE"}, name


def test_every_column_is_described_with_the_type_that_it_has(settings: Settings) -> None:
    import json

    nodes = json.loads(dbt_runner.manifest().read_bytes())["nodes"].values()
    described = {node["name"]: node for node in nodes if node["resource_type"] == "model"}
    for schema, names in MODELS.items():
        for name in names:
            columns = described[name]["columns"].values()
            assert described[name]["description"]
            assert all(column["description"] for column in columns)
            found = {row["column_name"]: row["column_type"] for row in rows_of(settings, f"describe {schema}.{name}")}
            assert found == {column["name"]: column["data_type"].upper() for column in columns}, name


def test_two_builds_have_the_same_rows_in_the_same_order(settings: Settings, tmp_path: Path, told: Tables) -> None:
    again = Settings(home=tmp_path)
    put(again, {name: rows[::-1] for name, rows in told.items()})
    assert built(again).is_successful
    for name in MODELS["marts"]:
        assert rows_of(again, f"from marts.{name}") == rows_of(settings, f"from marts.{name}"), name


def test_an_empty_lake_gives_empty_marts_of_the_same_types(settings: Settings, tmp_path: Path) -> None:
    empty = Settings(home=tmp_path)
    invocation = built(empty)
    assert invocation.is_successful, invocation.errors
    for schema, names in MODELS.items():
        for name in names:
            assert rows_of(empty, f"from {schema}.{name}") == []
            assert rows_of(empty, f"describe {schema}.{name}") == rows_of(settings, f"describe {schema}.{name}"), name


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One order of many parts, and rows that later ones have put right: of other dates too."""
    settings = Settings(home=tmp_path_factory.mktemp("corrected"))
    generator = random.Random(3)
    cost = order_cost("parent", DATES[0], "SIMBTC", generator)
    late = {**cost, "ts_event": at(DATES[1]), "ts_done": at(DATES[1], 60), "ts_known": at(DATES[1], 61)}
    family: Mapping[str, str | None] = {
        "child": "parent",
        "grandchild": "child",
        "orphan": "nobody",
        "loner": "loner",
        "ring_a": "ring_b",
        "ring_b": "ring_a",
        "other_symbols_child": "parent",
    }
    orders = [told_order(cost), *(told_order(cost, order_id=own, parent=parent) for own, parent in family.items())]
    orders[-1]["symbol"] = "1000"
    orders += [{**told_order(late, revision=1), "algo": "corrected"}, {**told_order(late, revision=1), "algo": "echo"}]
    orders[-2]["ts_recv"], orders[-1]["ts_recv"] = at(DATES[1]), at(DATES[2])
    markouts = [
        {**fill_markout(f"F-{name}", cost, DATES[0], generator), "order_id": name}
        for name in ("parent", *family, "unheard_of", None)
    ]
    markouts[7]["symbol"] = "1000"
    fills = [told_fill(row, fee=1.0) for row in markouts]
    fills.append({**fills[0], "revision": 1, "fee": 7.0, "ts_event": at(DATES[1])})
    decisions = [told_decision(cost), {**told_decision(late), "revision": 1, "strategy": "renamed"}]
    told = {"orders": orders, "fills": fills, "decisions": decisions, "tca_orders": [cost, late], "tca_fills": markouts}
    put(settings, told)
    invocation = built(settings)
    assert invocation.is_successful, invocation.errors
    # Orphans and rings are parents, whose cost has not been computed here.
    assert {name for name, status in outcomes(invocation).items() if status != "pass"} == {"fill_orders_have_a_cost"}
    return settings


def test_the_newest_revision_of_any_date_counts(corrected: Settings) -> None:
    orders = rows_of(corrected, "from staging.stg_orders where order_id = 'parent'")
    assert [(row["revision"], row["algo"], row["trading_date"]) for row in orders] == [(1, "corrected", DATES[1])]
    fills = rows_of(corrected, "from marts.fct_fill_markout where fill_id = 'F-parent'")
    assert [row["fees"] for row in fills] == [7.0]
    assert [row["strategy"] for row in rows_of(corrected, "from staging.stg_decisions")] == ["renamed"]
    assert [row["trading_date"] for row in rows_of(corrected, "from marts.fct_order_cost")] == [DATES[1]]


def test_a_fill_belongs_to_the_parent_of_its_whole_family(corrected: Settings) -> None:
    rows = rows_of(corrected, "select order_id, parent_order_id from marts.fct_fill_markout")
    assert {row["order_id"]: row["parent_order_id"] for row in rows} == {
        "parent": "parent",
        "child": "parent",
        "grandchild": "parent",
        "orphan": "orphan",
        "loner": "loner",
        "ring_a": "ring_a",
        "ring_b": "ring_b",
        "other_symbols_child": "other_symbols_child",
        "unheard_of": None,
        None: None,
    }


@pytest.mark.parametrize(
    ("table", "broken", "red"),
    [
        ("tca_orders", {**dict.fromkeys(PARTS, 1.0), "shortfall_bps": 4.00001}, "order_cost_parts_sum_to_shortfall"),
        ("tca_orders", {**dict.fromkeys(PARTS, 1.0), "shortfall_bps": None}, "order_cost_parts_sum_to_shortfall"),
        ("tca_orders", {"status": "fine"}, "order_cost_words_are_known"),
        ("tca_orders", {"side": 2}, "order_cost_words_are_known"),
        ("tca_orders", {"reasons": None}, "order_cost_is_told_once"),
        ("tca_orders", {"order_id": None}, "order_cost_is_told_once"),
        ("tca_orders", {"status": "unfinished", "vwap_cost_bps": 1.0}, "order_costs_hold_together"),
        ("tca_orders", {"ts_known": at(DATES[0], 59)}, "order_costs_hold_together"),
        ("tca_orders", {"fill_count": 3, "filled_quantity": 0.0}, "order_costs_hold_together"),
        ("tca_fills", {"liquidity": "both"}, "fill_markout_words_are_known"),
        ("tca_fills", {"side": None}, "fill_markout_is_told_once"),
        ("tca_fills", {"status": "crossed", "effective_spread_bps": 1.0}, "fill_markouts_hold_together"),
        ("tca_fills", {"status": "ok", "effective_spread_bps": None}, "fill_markouts_hold_together"),
        ("tca_fills", {"ts_known": at(DATES[0], -1)}, "fill_markouts_hold_together"),
        ("tca_fills", {"fill_id": None}, "fill_markout_is_told_once"),
    ],
)
def test_a_broken_row_turns_its_test_red(tmp_path: Path, table: str, broken: Row, red: str) -> None:
    settings = Settings(home=tmp_path)
    generator = random.Random(1)
    cost = {**order_cost("A", DATES[0], "SIMBTC", generator), **dict.fromkeys((*COSTS, *PARTS, "shortfall_bps"))}
    markout = fill_markout("F", cost, DATES[0], generator)
    good = {"tca_orders": [cost], "tca_fills": [markout], "orders": [told_order(cost)]}
    put(settings, {**good, table: [{**good[table][0], **broken}]})
    fact = {"tca_orders": "fct_order_cost", "tca_fills": "fct_fill_markout"}[table]
    invocation = built(settings, "--select", f"+{fact}", "--indirect-selection", "cautious")
    assert not invocation.is_successful
    assert [name for name, status in outcomes(invocation).items() if status != "pass"] == [red]


def test_models_are_assets_in_the_lakes_lineage() -> None:
    specs = {spec.key.to_user_string(): spec for spec in marts.dbt_models().specs}
    ours = {f"{schema}/{name}" for schema, names in MODELS.items() for name in names}
    assert ours <= set(specs)
    for name in CONTRACTS:
        upstream = [dep.asset_key.to_user_string() for dep in specs[f"staging/stg_{name}"].deps]
        assert upstream == [f"execution/{name}"]
    for key in ours:
        assert specs[key].group_name == key.split("/")[0]
        assert list(specs[key].owners) == ["team:data-platform"]
        assert specs[key].kinds == {"dbt", "duckdb"}
        assert specs[key].description
        assert specs[key].freshness_policy


@pytest.fixture(scope="module")
def materialised(corrected: Settings) -> Iterator[dg.ExecuteInProcessResult]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield dg.materialize(
            [marts.dbt_models()], resources={"platform": Platform(corrected)}, instance=instance, raise_on_error=False
        )


def test_a_fill_without_its_orders_cost_warns_and_holds_nothing_up(materialised: dg.ExecuteInProcessResult) -> None:
    assert materialised.success
    red = [check for check in materialised.get_asset_check_evaluations() if not check.passed]
    assert [(check.check_name, check.severity) for check in red] == [
        ("fill_orders_have_a_cost", dg.AssetCheckSeverity.WARN)
    ]
    facts = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in materialised.get_asset_materialization_events()
        if event.asset_key
    }
    assert facts["marts/fct_fill_markout"]["dagster/row_count"].value == 10
    assert facts["marts/fct_order_cost"]["time_range"].value == f"{DATES[1]} to {DATES[1]}"
