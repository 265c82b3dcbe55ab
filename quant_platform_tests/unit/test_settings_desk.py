"""`feeds.desk`: mappings that fit a contract, and what is told of those that do not."""

from pathlib import Path
from typing import Any

import pytest

from quant_platform.settings import DeskMapping, Settings, SettingsError, load_settings, required_columns

MAPPING = {
    "kind": "fills",
    "columns": {"fill_id": "id", "ts_event": "when", "symbol": "s", "side": "side", "price": "p", "quantity": "q"},
}


def written(root: Path, desk: str) -> Path:
    path = root / "platform.yaml"
    path.write_text(f"feeds:\n  desk:\n{desk}")
    return path


def test_defaults_are_those_of_the_contract() -> None:
    desk = Settings().feeds.desk
    assert (desk.landing, desk.assumed_latency_ms, desk.settle_s) == (Path("landing/desk"), 0.0, 2.0)
    assert (desk.venues, desk.mappings) == ((), {})


def test_required_columns_are_those_that_nothing_stands_in_for() -> None:
    assert required_columns("fills") == ["fill_id", "ts_event", "symbol", "side", "price", "quantity"]
    assert required_columns("orders") == ["order_id", "ts_event", "symbol", "side", "quantity", "status"]
    assert required_columns("decisions") == ["decision_id", "ts_event", "strategy", "symbol", "side", "quantity"]


def test_a_mapping_is_read_from_yaml(tmp_path: Path) -> None:
    desk = """\
    mappings:
      broker:
        kind: fills
        columns: {ts_event: "", symbol: s, price: p, quantity: q}
        filter: {type: trade, leg: [1, -1]}
        side_from_sign: q
        id_from: ["", s]
        constants: {venue: X, revision: 1}
        symbols: {1000: AAA}
        time_zone: Europe/London
"""
    found = load_settings(written(tmp_path, desk)).feeds.desk.mappings["broker"]
    assert found.filter == {"type": ("trade",), "leg": ("1", "-1")}
    assert found.constants == {"venue": "X", "revision": "1"}
    assert found.symbols == {"1000": "AAA"}
    assert (found.id_from, found.side_from_sign, found.time_zone) == (("", "s"), "q", "Europe/London")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"constants": {"venu": "X"}}, "fills have no venu; their columns are fill_id"),
        ({"constants": {"price": 1}}, "price is told in more than one way: leave one"),
        ({"side_from_sign": "q"}, "side is told in more than one way"),
        ({"id_from": ["when"]}, "fill_id is told in more than one way"),
        ({"kind": "orders"}, "orders have no fill_id, price"),
        ({"columns": {"price": "p"}}, "nothing says where fill_id, ts_event, symbol, side, quantity comes from"),
        ({"time_zone": "Mars/Olympus"}, "is no time zone: write it as Europe/London"),
        ({"time_zone": "/etc/passwd"}, "is no time zone"),
        ({"colums": {}}, "Extra inputs are not permitted"),
    ],
)
def test_a_mapping_that_does_not_fit_its_contract_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="DeskMapping") as refused:
        DeskMapping(**(MAPPING | more))
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["fills", "refused", "Broker", "a/b"])
def test_a_mapping_has_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    columns = "{fill_id: i, ts_event: w, symbol: s, side: d, price: p, quantity: q}"
    path = written(tmp_path, f"    mappings:\n      {name}: {{kind: fills, columns: {columns}}}\n")
    with pytest.raises(SettingsError, match=r"platform.yaml, line [34]: feeds.desk.mappings"):
        load_settings(path)
