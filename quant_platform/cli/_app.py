"""The application that commands register with, the options that they share, and what they begin with."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from quant_platform.cli.printing import err
from quant_platform.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from quant_platform.defs.resources import Platform
    from quant_platform.settings import Settings

app = typer.Typer(
    help="Ticks in, trusted bars, analytics and reports out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Symbols = Annotated[str, typer.Option(help="Comma-separated symbols; all configured ones when omitted.")]


def main() -> None:
    """Run `qp`; a wrong configuration is a sentence and exit code 2, not a traceback."""
    try:
        app()
    except SettingsError as error:
        err.print(f"[red]The configuration is wrong.[/red]\n{error}", highlight=False)
        sys.exit(2)


def new_platform() -> "Platform":
    """Return the platform of the settings in force."""
    from quant_platform.defs.resources import Platform

    return Platform(checked_settings())


def checked_settings() -> "Settings":
    """Return the settings of a command that writes below QP_HOME.

    Raises:
        SettingsError: The configuration is wrong, or QP_HOME cannot be written.
    """
    from quant_platform.defs.doctor import writable

    settings = load_settings()
    home = writable(settings.home)
    if not home.is_ok:
        raise SettingsError(f"{home.what}: {home.detail}. {home.fix}")
    return settings
