"""The key of a unit: what makes it another one, and what does not."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from quant_platform.pipeline import units
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import (
    Built,
    CheckResult,
    Input,
    Outcome,
    Recipe,
    Source,
    Unit,
    UnitStatus,
    Work,
    usable_hash,
)
from quant_platform.settings import Instrument, Settings
from quant_platform.storage.lake import Lake

DAY = date(2024, 8, 8)
MakeSettings = Callable[..., Settings]
STATISTICS = "statistics/price_statistics"


def work(settings: Settings, table: str = STATISTICS, **changes: Any) -> Work:
    return replace(Work(Unit(table, "AAA", DAY), RECIPES[table], settings, Lake(settings.lake_uri)), **changes)


def key(settings: Settings, table: str = STATISTICS, hashes: dict[date, str] | None = None, **changes: Any) -> str:
    return work(settings, table, **changes).key(lambda unit: (hashes or {}).get(unit.date, "hash"))


@pytest.mark.parametrize(
    "given",
    [
        {"analytics": {"price_statistics": {"window_bars": 61}}},
        {"instrument": {"tick_size": 0.2}},
        {"instrument": {"calendar": "XNYS"}},
        {"latency_ms": 51.0},
    ],
    ids=["parameter", "instrument", "calendar", "latency"],
)
def test_key_changes_with_a_setting_of_its_own(settings: MakeSettings, given: dict[str, Any]) -> None:
    assert key(settings(**given)) != key(settings())


@pytest.mark.parametrize("date_of_input", [DAY, date(2024, 8, 7)], ids=["date", "lookback"])
def test_key_changes_with_an_inputs_content(settings: MakeSettings, date_of_input: date) -> None:
    assert key(settings(), hashes={date_of_input: "other"}) != key(settings())


def test_key_changes_where_a_lookback_is_missing(settings: MakeSettings) -> None:
    one = work(settings())
    assert one.key(lambda unit: None if unit.date < DAY else "hash") != one.key(lambda _: "hash")


def test_key_changes_with_the_schema(settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(settings())
    monkeypatch.setattr(units, "fingerprint", lambda _: "other")
    assert key(settings()) != before


def test_key_changes_with_the_session_alone(settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(settings())
    window = units.session("24/7", date(2024, 8, 9))
    monkeypatch.setattr(units, "session", lambda *_: window)
    assert key(settings()) != before


def test_key_changes_with_the_code(settings: MakeSettings) -> None:
    other = replace(RECIPES[STATISTICS], code=("quant_platform.calculators.bars",))
    assert key(settings(), recipe=other) != key(settings())


def test_key_changes_with_the_source(settings: MakeSettings) -> None:
    trades = "market/trades"
    keys = {key(settings(), trades, source=source) for source in (None, Source("a", "1", None), Source("a", "2", None))}
    assert len(keys) == 3


def test_key_stays_with_the_sources_name(settings: MakeSettings) -> None:
    one, other = (Source(name, "1", None) for name in ("a.zip", "b.zip"))
    assert key(settings(), "market/trades", source=one) == key(settings(), "market/trades", source=other)


def test_key_differs_by_table_symbol_and_date(settings: MakeSettings) -> None:
    found = {key(settings(), table) for table in RECIPES}
    assert len(found) == len(RECIPES)
    inputs = [work(settings(), unit=Unit(STATISTICS, s, d)) for s in ("AAA", "BBB") for d in (DAY, date(2024, 8, 9))]
    assert len({one.key(lambda _: "hash") for one in inputs}) == 4


def test_key_stays_with_anything_else(settings: MakeSettings) -> None:
    before = key(settings())
    more = Instrument(symbol="C", venue_symbol="C", feed="binance_spot", tick_size=1, lot_size=1)
    for given in (
        {"home": "elsewhere"},
        {"lake_uri": "file:///elsewhere"},
        {"pipeline": {"workers": 3, "memory_budget_mb": 7}},
        {"instruments": (*settings().instruments, more)},
        {"quality": {"max_quarantined_share": 0.5}},
        {"partitions": {"start": "2021-01-01"}},
        {"redis_url": "redis://elsewhere"},
    ):
        assert key(settings(**given)) == before, given


def test_key_of_a_parsed_table_changes_with_the_limit_of_quarantined_rows(settings: MakeSettings) -> None:
    other = settings(quality={"max_quarantined_share": 0.5})
    assert key(other, "market/trades") != key(settings(), "market/trades")
    assert key(other, "market/bars_1s") == key(settings(), "market/bars_1s")


def test_inputs_are_the_lookback_sessions_and_the_date_oldest_first(settings: MakeSettings) -> None:
    assert work(settings(), "market/gaps").input_units() == [
        Unit("market/trades", "AAA", date(2024, 8, 7)),
        Unit("market/trades", "AAA", DAY),
    ]
    assert work(settings(), "market/trades").input_units() == []


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a package whose module `a` imports `b`, which imports `c` where it is called; `d` stands alone."""
    folder = tmp_path / "hashed_sample"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "a": "import json\nfrom hashed_sample.b import two\n",
        "b": "import hashed_sample.c\n\ntwo = 2\n",
        "c": "def three():\n    from hashed_sample import e\n    return e\n",
        "d": "four = 4\n",
        "e": "from hashed_sample.a import two\n",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(units, "_HASHED_PACKAGES", ("hashed_sample",))
    for cached in (units._closure, units._module, units._is_module):
        cached.cache_clear()
    yield folder
    for cached in (units._closure, units._module, units._is_module):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.startswith("hashed_sample")]:
        del sys.modules[name]


def nothing(_: Work) -> Built:
    raise NotImplementedError


def version() -> str:
    for cached in (units._closure, units._module, units._is_module):
        cached.cache_clear()
    return Recipe("market/trades", nothing, ("hashed_sample.a",)).code_version


@pytest.mark.parametrize("module", ["a", "b", "c", "e"])
def test_code_version_follows_imports_between_calculators(package: Path, module: str) -> None:
    before = version()
    path = package / f"{module}.py"
    path.write_text(f"{path.read_text()}\nmore = 1\n")
    assert version() != before


def test_code_version_stays_with_a_module_that_is_not_imported(package: Path) -> None:
    before = version()
    (package / "d.py").write_text("four = 5\n")
    assert version() == before


def test_code_version_of_a_missing_module_is_refused() -> None:
    with pytest.raises(ValueError, match=r"names the module 'quant_platform\.calculators\.nothing'"):
        _ = Recipe("market/trades", nothing, ("quant_platform.calculators.nothing",)).code_version


def test_code_versions_of_real_recipes_cover_what_they_call() -> None:
    covered = {table: {name.rsplit(".", 1)[1] for name, _ in units._closure(r.code)} for table, r in RECIPES.items()}
    assert {"binance_csv", "binance_sheet"} <= covered["market/trades"]
    assert {"bars", "_bar_blocks"} <= covered["market/bars_5m"]
    assert {"price_statistics", "rolling"} <= covered[STATISTICS]
    assert "bars" not in covered[STATISTICS]


def test_every_input_is_a_recipe_made_earlier() -> None:
    made: list[str] = []
    for table, recipe in RECIPES.items():
        assert {one.table for one in recipe.inputs} <= set(made)
        assert all(isinstance(one, Input) for one in recipe.inputs)
        made.append(table)


@pytest.mark.parametrize(
    ("passed", "is_blocking", "is_red"), [(True, True, False), (False, True, True), (False, False, False)]
)
def test_only_a_failed_blocking_check_is_red(*, passed: bool, is_blocking: bool, is_red: bool) -> None:
    check = CheckResult(passed, is_blocking=is_blocking, detail="")
    outcome = Outcome(Unit("t", "s", DAY), UnitStatus.OK, content_hash="h", checks={"c": check})
    assert outcome.is_red == is_red
    assert outcome.is_healthy != is_red
    assert usable_hash(outcome) == (None if is_red else "h")


def test_code_version_covers_the_helpers_of_the_build_function() -> None:
    fold = RECIPES["microstructure/vpin"].fold
    sources = "\n".join(units._sources(fold.step))
    assert {f"def {name}(" in sources for name in ("_vpin", "vpin_params", "_tape")} == {True}
    assert "def _sweeps(" not in sources
