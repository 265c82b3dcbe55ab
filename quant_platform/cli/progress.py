"""How far long work is, in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from quant_platform.cli.printing import err

if TYPE_CHECKING:
    from quant_platform.pipeline.units import Outcome


class _Downloads(ProgressColumn):
    """Bytes in the partial files of landing: workers download, and their files tell how far they are."""

    max_refresh = 0.5

    def __init__(self, landing: Path) -> None:
        super().__init__()
        self._landing = landing

    def render(self, task: Task) -> Text:
        """Return the text of one bar; empty when it is done or nothing is coming in."""
        if task.finished:
            return Text()
        parts = {path.name: path.stat().st_size for path in self._landing.rglob("*.part") if path.exists()}
        return Text(", ".join(f"↓ {name.removesuffix('.part')} {size / 1e6:.1f} MB" for name, size in parts.items()))


@contextmanager
def progress(label: str, total: int, landing: Path) -> Iterator[Callable[..., None]]:
    """Show a bar with rows a second, and what is being downloaded, in a terminal; nothing elsewhere."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        _Downloads(landing),
    ]
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        state: dict[str, Any] = {"label": label, "rows": 0, "task": bar.add_task(label, total=total, rate="")}

        def tell(name: str, rows: int, *, stage: str | None = None, of: int = total) -> None:
            if stage and stage != state["label"]:
                # A stage is known by its first unit; until then the bar before it stands in.
                bar.update(state["task"], visible=bar.tasks[-1].completed > 0)
                state.update(label=stage, rows=0, task=bar.add_task(stage, total=of, rate=""))
            state["rows"] += rows
            elapsed = bar.tasks[-1].elapsed or 0.0
            rate = f"{state['rows'] / elapsed / 1e3:,.0f} k rows/s" if elapsed > 0.1 else ""
            bar.update(state["task"], advance=1, rate=f"{rate} {name}")

        yield tell


def unit_progress(tell: Callable[..., None], total: int) -> Callable[["Outcome"], None]:
    """Return an observer of units that tells `progress` of each; the stages are their tables, of `total` units each."""

    def observe(outcome: "Outcome") -> None:
        rows = 0 if outcome.is_skipped else outcome.rows
        tell(f"{outcome.unit.symbol} {outcome.unit.date}", rows, stage=outcome.unit.table, of=total)

    return observe
