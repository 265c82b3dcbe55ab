"""Results to JSON files, and all of them to RESULTS.md. Nothing here measures."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from _harness import HERE, Result, machine

FOLDER = HERE / "results"
PAGE = HERE / "RESULTS.md"
_HEAD = """# Results

Ratios are of medians over interleaved rounds, all contestants in one run on one machine and on the same files.
Floors and goals are the design's. A benchmark that was not run again keeps its last result, with its own date.
This page is written by `benchmarks/run.py` from `benchmarks/results/*.json`.
"""


def store(name: str, result: Result, *, rounds: int, command: str, date: str, load: float) -> None:
    """Write one benchmark's raw result."""
    facts = {"date": date, "command": command, "rounds": rounds, "load_before": load, "machine": machine()}
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({**facts, **asdict(result)}, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def render(order: list[str]) -> Path:
    """Write RESULTS.md from all stored results, in the order of their names given."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    names = [name for name in order if name in found] + sorted(found.keys() - set(order))
    PAGE.write_text("\n".join([_HEAD, *(_section(found[name]) for name in names)]), encoding="utf-8")
    return PAGE


def words(verdict: Mapping[str, Any]) -> str:
    """Say where a figure stands between floor and goal, and how far from the goal."""
    measured, floor, goal = verdict["measured"], verdict["floor"], verdict["goal"]
    if measured is None:
        return "not run"

    def holds(limit: float) -> bool:
        return bool(measured >= limit if verdict["is_more_better"] else measured <= limit)

    parts = []
    if floor is not None and not holds(floor):
        parts.append(f"**misses the floor by {abs(measured / floor - 1):.0%}**")
    elif floor is not None:
        parts.append("floor held")
    if goal is not None and holds(goal):
        parts.append("goal reached")
    elif goal is not None:
        parts.append(f"{abs(measured / goal - 1):.0%} short of the goal")
    return ", ".join(parts) or "no limit set"


def _section(result: Mapping[str, Any]) -> str:
    unit = result["unit"]
    lines = [f"## {result['title']}", "", result["how"], ""]
    lines += [f"| contestant | median {unit} | min – max | against ours | |", "|---|---:|---:|---:|---|"]
    ours: dict[str, float] = {}
    for row in result["measurements"]:
        name = f"{row['group']}: {row['name']}" if row["group"] else row["name"]
        if row["not_run"]:
            lines.append(f"| {name} | not run | | | {row['not_run']} |")
            continue
        values = row["values"]
        spread = f"{_figure(min(values))} – {_figure(max(values))}" if len(values) > 1 else ""
        middle = median(values)
        reference = ours.setdefault(row["group"], middle)
        lines.append(f"| {name} | {_figure(middle)} | {spread} | {middle / reference:.2f}× | {row['note']} |")
    lines += ["", "| claim | measured | floor | goal | verdict |", "|---|---:|---:|---:|---|"]
    for verdict in result["verdicts"]:
        bound = "≥" if verdict["is_more_better"] else "≤"
        limits = [f"{bound} {verdict[k]:g}" if verdict[k] is not None else "–" for k in ("floor", "goal")]
        measured = "–" if verdict["measured"] is None else f"{verdict['measured']:.2f}"
        lines.append(f"| {verdict['claim']} | {measured} | {' | '.join(limits)} | {words(verdict)} |")
    lines += ["", *(f"- {note}" for note in result["notes"])]
    facts = result["machine"]
    lines += [
        f"- {result['date']}, `{result['command']}`; load before the run {result['load_before']:.1f}",
        f"- {facts['processor']}, {facts['memory']}, {facts['system']}; {facts['libraries']}",
        "",
    ]
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
