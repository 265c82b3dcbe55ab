"""Commands about the installation itself."""

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from quant_platform.cli._app import AsJson, app, checked_settings
from quant_platform.cli.printing import out, show_rows
from quant_platform.cli.progress import progress
from quant_platform.settings import load_settings, masked


@app.command("show-config", epilog="Example: qp show-config --json")
def show_config(as_json: AsJson = False) -> None:
    """Print the settings in force, secrets masked."""
    tree = load_settings().model_dump(mode="json")
    if as_json:
        print(masked(json.dumps(tree, indent=2)))  # noqa: T201  # data for a program, not for a person
    else:
        import yaml

        print(masked(yaml.safe_dump(tree, sort_keys=False)), end="")  # noqa: T201  # pipes into a file


@app.command(epilog="Example: qp doctor")
def doctor(as_json: AsJson = False) -> None:
    """Show what is installed, reachable and writable, with the fix for each red line; exit code 1 when one is red."""
    from quant_platform.defs.doctor import findings

    found = findings(load_settings())
    if as_json:
        print(json.dumps([f._asdict() for f in found], indent=2))  # noqa: T201  # data for a program
    else:
        for finding in found:
            mark = "[green]ok  [/green]" if finding.is_ok else "[red]RED [/red]"
            out.print(f"{mark} {finding.what}: {finding.detail}", highlight=False)
            if not finding.is_ok:
                out.print(f"     fix: {finding.fix}", highlight=False)
    raise typer.Exit(0 if all(f.is_ok for f in found) else 1)


@app.command(epilog="Example: qp maintain --dry-run; qp maintain --json")
def maintain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove captured segments of dates that are long over and whole, and runs that nothing shows any more.

    How long they stay: `retention` of platform.yaml. The UI's daemon does the same every day.
    """
    settings = checked_settings()
    from quant_platform.defs.instance import dagster_instance
    from quant_platform.defs.maintain import maintain as run

    with dagster_instance(settings) as instance, progress("Removing", 0, settings.landing) as tell:
        done = run(
            settings,
            instance,
            datetime.now(UTC),
            is_dry=dry_run,
            on_done=lambda name, total: tell(name, 0, stage="Removed", of=total),
        )
    show_rows(done.rows(), as_json=as_json, nothing="There is nothing to remove.")
