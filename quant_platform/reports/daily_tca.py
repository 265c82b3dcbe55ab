"""The daily TCA report: what one date's trading cost, on one page, and beside it as Markdown, CSV and Parquet.

Here: which parts the report has and where they are written. Not here: what orders and fills have cost (the calculators
do), reading the lake (the asset does).
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from quant_platform.reports import tca_figures
from quant_platform.reports.page import Figure, Table, environment, markdown, plain, publish_bytes, publish_plot_script
from quant_platform.reports.tca_day import NAME, DailyTca, headline_path
from quant_platform.reports.tca_notes import data_notes
from quant_platform.reports.tca_order_figure import order_figure
from quant_platform.reports.tca_scorecards import scorecard_tables
from quant_platform.reports.tca_tables import (
    DEFINITIONS,
    benchmarks_table,
    fill_times_table,
    impact_table,
    markouts_table,
    notes_table,
    shortfall_table,
    worst_table,
)
from quant_platform.reports.tca_verdict import headline, verdict

__all__ = ["NAME", "as_markdown", "latest", "render", "tables", "write"]

_MARKS = {"attention": "**Attention.** ", "good": "", "note": ""}


@dataclass(frozen=True)
class Section:
    """A table of the page, and the plots that belong to it."""

    id: str
    table: Table
    figure: Figure | None = None
    charts: tuple[Figure, ...] = ()


def render(day: DailyTca) -> str:
    """Return the page; it refers to the plot script and the tables beside it and to nothing else.

    The same inputs give the same bytes.
    """
    return (
        environment()
        .get_template("daily_tca.html.j2")
        .render(
            title=f"Daily TCA {day.date} (UTC)",
            date=day.date,
            findings=verdict(day, data_notes(day)),
            sections=_sections(day),
            definitions=DEFINITIONS,
            tables=list(tables(day)),
        )
    )


def as_markdown(day: DailyTca) -> str:
    """Return the verdict, all tables and the definitions in Markdown, without plots."""
    parts = [f"# Daily TCA {day.date} (UTC)\n"]
    findings = verdict(day, data_notes(day))
    parts.append("".join(f"- {_MARKS[f.tone]}{plain(f.sentence)}\n" for f in findings))
    parts += [f"## {plain(section.table.title)}\n\n{markdown(section.table)}" for section in _sections(day)]
    defined = "".join(f"- **{plain(term)}**: {plain(words)}\n" for term, words in DEFINITIONS.items())
    return "\n".join([*parts, f"## Definitions\n\n{defined}"])


def tables(day: DailyTca) -> dict[str, pl.DataFrame]:
    """Return what the page shows by the name of its file, unrounded; `orders` are all of the date."""
    reduced, notes = day.digest, data_notes(day)
    return {
        "benchmarks": reduced.benchmarks,
        "shortfall": reduced.shortfall,
        "markouts": reduced.markouts,
        "orders": reduced.orders,
        "venues": day.venues,
        "algos": day.algos,
        "fill_times": reduced.fill_times,
        "impact": reduced.impact,
        "notes": pl.DataFrame(
            {
                "note": [note.name for note in notes],
                "of": [note.of for note in notes],
                "count": [note.count for note in notes],
                "examples": [", ".join(note.examples) for note in notes],
            },
            schema={"note": pl.String, "of": pl.String, "count": pl.Int64, "examples": pl.String},
        ),
    }


def write(inputs: DailyTca, folder: Path) -> Path:
    """Write `<folder>/daily_tca/<date>.html` and `.md`, each table as `<date>.<table>.csv` and `.parquet`, and `.json`.

    The latter has the headline's numbers, when what the page shows was known, and the page's place below the folder.
    The plot script that the pages share lies beside them.

    Returns:
        The path of the page, which is published last: where it is, the rest is too.
    """
    home = folder / NAME
    publish_plot_script(home)
    for name, frame in tables(inputs).items():
        publish_bytes(home / f"{inputs.date}.{name}.csv", frame.write_csv().encode())
        publish_bytes(home / f"{inputs.date}.{name}.parquet", _parquet(frame))
    publish_bytes(home / f"{inputs.date}.md", as_markdown(inputs).encode())
    page = home / f"{inputs.date}.html"
    known = pl.concat([inputs.orders["ts_known"], inputs.fills["ts_known"]]).cast(pl.Int64).max()
    told = {**headline(inputs), "page": f"{NAME}/{page.name}", "ts_known": known}
    publish_bytes(headline_path(folder, inputs.date), json.dumps(told, sort_keys=True).encode())
    publish_bytes(page, render(inputs).encode())
    return page


def latest(inputs: DailyTca, page: Path) -> Mapping[str, Any]:
    """Return what stands for the newest report: `path`, `date`, and the headline's numbers; all of it is JSON.

    Args:
        inputs: What the report was made of.
        page: What `write` returned.
    """
    return {"path": str(page), "date": inputs.date.isoformat(), "headline": headline(inputs)}


def published(inputs: DailyTca, folder: Path) -> Mapping[str, Any]:
    """Write the report, and return what stands for it: see `write` and `latest`."""
    return latest(inputs, write(inputs, folder))


def _sections(day: DailyTca) -> list[Section]:
    reduced, least = day.digest, day.params.min_orders
    costs = waterfall = curves = None
    if reduced.benchmarks["cost_bps"].count():
        costs = tca_figures.benchmark_figure("costs", reduced.benchmarks)
    if reduced.shortfall["orders"][0]:
        waterfall = tca_figures.shortfall_figure("waterfall", reduced.shortfall)
    if (reduced.markouts["fills"] >= least).any():
        curves = tca_figures.markout_figure("markout-curves", reduced.markouts, least=least)
    cards = scorecard_tables(day)
    return [
        Section("cost", benchmarks_table(day), costs),
        Section("shortfall", shortfall_table(day), waterfall),
        Section("markouts", markouts_table(day), curves),
        Section("worst", worst_table(day), charts=_charts(day)),
        *(Section(f"scorecard-{number}", card) for number, card in enumerate(cards, start=1)),
        Section("fill-times", fill_times_table(day)),
        Section("impact", impact_table(day)),
        Section("notes", notes_table(data_notes(day))),
    ]


def _charts(day: DailyTca) -> tuple[Figure, ...]:
    charts = []
    for rank, row in enumerate(day.digest.worst.iter_rows(named=True), start=1):
        own = pl.col("order_id") == row["order_id"]
        path, fills = day.paths.filter(own), day.digest.fills.filter(own)
        charts.append(order_figure(f"order-{rank}", rank, row, path=path, fills=fills))
    return tuple(charts)


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
