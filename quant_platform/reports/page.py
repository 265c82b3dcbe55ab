"""The page that all reports share: tables, figures, the HTML shell, offline plots, Markdown and CSV-ready cells.

Here: presentation only. Not here: what a report says (its own module), reading data (the asset that calls it).
"""

import base64
import functools
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant_platform.storage.atomic import published

if TYPE_CHECKING:
    from jinja2 import Environment

PLOT_SCRIPT = "plotly.min.js"
DASH = "–"
_SCRIPT_TAG = f'<script src="{PLOT_SCRIPT}"></script>'
_LINK_BESIDE = re.compile(r'<a href="([\w.-]+\.(csv|md))">')
_MEDIA_TYPES = {"csv": "text/csv", "md": "text/markdown"}


@dataclass(frozen=True)
class Cell:
    """One value as people read it; a cell without a value has the text `–` and the reason for it."""

    text: str
    reason: str = ""
    style: str = ""


@dataclass(frozen=True)
class Column:
    """A table's column: its name, the unit of its numbers, and what it means."""

    name: str
    unit: str = ""
    meaning: str = ""
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """A table of a report; `when_empty` is the sentence that stands in its place when it has no rows."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    when_empty: str = ""
    remark: str = ""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every reason for a missing value, in order of appearance: the footnotes."""
        return tuple(dict.fromkeys(cell.reason for row in self.rows for cell in row if cell.reason))


@dataclass(frozen=True)
class Figure:
    """A plot as plotly.js takes it (plain dictionaries), and in words for those who do not see it."""

    name: str
    label: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


@functools.cache
def environment() -> "Environment":
    """Return the templates, every value escaped and every undefined name an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("quant_platform.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # NaN is no JSON: a figure that holds one fails here and not in the reader's browser.
    templates.policies["json.dumps_kwargs"] = {
        "allow_nan": False,
        "sort_keys": True,
        "separators": (",", ":"),
    }
    templates.globals["plot_script"] = PLOT_SCRIPT
    return templates


def self_contained(html: str, folder: Path) -> str:
    """Return the page with the shared plot script, and the files it links to, written into it: one file to be sent.

    Raises:
        FileNotFoundError: `folder` lacks the plot script or a linked file: no report was written there.
        ValueError: The page does not refer to the plot script.
    """
    if _SCRIPT_TAG not in html:
        raise ValueError(f"The page has no {_SCRIPT_TAG}: it is not a report, or it is self-contained already.")
    html = _LINK_BESIDE.sub(lambda link: _embedded(folder / link[1], _MEDIA_TYPES[link[2]]), html)
    script = (folder / PLOT_SCRIPT).read_text(encoding="utf-8").replace("</script", r"<\/script")
    return html.replace(_SCRIPT_TAG, f"<script>{script}</script>")


def _embedded(path: Path, media_type: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<a download="{path.name}" href="data:{media_type};base64,{content}">'


def publish_plot_script(folder: Path) -> None:
    """Write the plot script that the pages of `folder` share, unless this very version is there already."""
    path, script = folder / PLOT_SCRIPT, _plot_script()
    if path.is_file() and path.stat().st_size == len(script) and path.read_bytes() == script:
        return
    publish_bytes(path, script)


@functools.cache
def _plot_script() -> bytes:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.encode()


def publish_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with published(path) as temporary:
        temporary.write_bytes(content)


def markdown(table: Table) -> str:
    """Return the table in Markdown; reasons for missing values stand in their cells."""
    if not table.rows:
        return f"{plain(table.when_empty)}\n"
    lines = [
        _line([f"{c.name} ({c.unit})" if c.unit else c.name for c in table.columns]),
        _line(["---:" if c.is_number else ":---" for c in table.columns]),
    ]
    lines += [_line([f"{c.text} ({c.reason})" if c.reason else c.text for c in row]) for row in table.rows]
    if table.remark:
        lines += ["", plain(table.remark)]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    escaped = html.escape(text, quote=False)
    for mark in "\\`*[]|":
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped.replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(plain(cell) for cell in cells)} |"
