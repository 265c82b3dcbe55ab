"""Commands about the installation itself."""

import json

import typer

from quant_platform.cli._app import AsJson, app
from quant_platform.cli.printing import out
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
