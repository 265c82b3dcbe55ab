"""The committed data dictionary is what the contracts say today."""

from quant_platform.contracts._schema import all_contracts
from quant_platform.contracts.dictionary import COMMAND, PLACE, data_dictionary


def test_committed_dictionary_is_fresh() -> None:
    committed = PLACE.read_text(encoding="utf-8") if PLACE.is_file() else ""
    assert committed == data_dictionary(), f"{PLACE} is stale: run `{COMMAND}` and commit what it writes."


def test_dictionary_holds_every_table_and_column_once() -> None:
    text = data_dictionary()
    for contract in all_contracts():
        section = text.split(f"\n## {contract.table}\n")[1].split("\n## ")[0]
        for name in contract.columns():
            assert section.count(f"\n| `{name}` |") == 1
        assert all(f"`{name}`" in section for name in contract.sorted_by)


def test_dictionary_rows_have_six_cells_whatever_a_description_holds() -> None:
    rows = [line.replace("\\|", "") for line in data_dictionary().splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {7}
