"""The data dictionary as Markdown, made from the contracts: `python -m quant_platform.contracts.dictionary` writes it.

What a column is stands in the contracts, never here.
"""

import inspect
import sys
from pathlib import Path

from quant_platform.contracts._schema import Contract, all_contracts, column_docs, rule_docs

PLACE = Path(__file__).resolve().parents[2] / "docs" / "data_dictionary.md"
COMMAND = "python -m quant_platform.contracts.dictionary"

_HEAD = f"""# Data dictionary

Every table of the lake, as `quant_platform/contracts` declares it. Do not edit: `{COMMAND}` writes this file.

Times are UTC nanoseconds. A row that breaks a bound or a rule never reaches the lake.
"""


def data_dictionary() -> str:
    """Return every table's row order and rules, and each column's type, unit, null, bounds and meaning."""
    return "\n".join([_HEAD, *(_section(contract) for contract in all_contracts())])


def _section(contract: type[Contract]) -> str:
    rules = "".join(f"Rule `{name}`: {doc}\n\n" for name, doc in rule_docs(contract).items())
    rows = (
        f"| `{c.name}` | {c.dtype} | {c.unit} | {'yes' if c.is_nullable else ''} | {c.bounds} | {_cell(c.doc)} |\n"
        for c in column_docs(contract)
    )
    return (
        f"## {contract.table}\n\n{inspect.getdoc(contract)}\n\n"
        f"Rows by: {', '.join(f'`{name}`' for name in contract.sorted_by)}.\n\n{rules}"
        "| column | type | unit | null | bounds | meaning |\n|---|---|---|---|---|---|\n" + "".join(rows)
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PLACE.write_text(data_dictionary(), encoding="utf-8")
    sys.stdout.write(f"Wrote {PLACE}.\n")
