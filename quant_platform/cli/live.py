"""Commands that run beside the market until Ctrl-C, and those that show what it says now."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quant_platform.cli._app import AsJson, Symbols, app, checked_settings
from quant_platform.cli.history import run_demo
from quant_platform.cli.printing import err, keys_table, out, say, show_rows
from quant_platform.settings import CAPTURED_FEEDS, SettingsError, load_settings, masked

if TYPE_CHECKING:
    from redis import Redis

    from quant_platform.live.market_keys import Publisher
    from quant_platform.settings import Settings

Clock = Literal["now", "recorded"]
Recorded = Annotated[
    datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="Of the recording; else the newest.")
]
Played = Annotated[Clock, typer.Option("--clock", help="Shift the recording to now, or keep its dates.")]
Speed = Annotated[float, typer.Option("--speed", min=0, help="Of the recorded clock; 0 is as fast as it goes.")]

_WATCH_S = 1.0


@app.command(epilog="Example: qp up --replay (another port: QP_UI__PORT=3010 qp up --replay)")
def up(
    replay: Annotated[bool, typer.Option("--replay", help="Capture a recorded market, not the real venues.")] = False,
    day: Recorded = None,
    clock: Played = "now",
    speed: Speed = 1.0,
) -> None:
    """Serve the Dagster UI, its daemon, the collector and the report pages on 127.0.0.1 until Ctrl-C.

    Ports are `ui:` settings. A replay on an empty lake simulates the demo's week first.
    """
    from quant_platform.defs import serve

    settings, market = checked_settings(), None
    if replay:
        market = serve.newest_recorded(settings, day and day.date())
        if market is None and day is None:
            out.print("The lake is empty: the demo's week is simulated first.")
            run_demo(settings)
            market = serve.newest_recorded(settings, None)
        if market is None:
            raise SettingsError(f"The lake holds no tape of {day and day.date()}: `qp list-data` shows what it holds.")
        market = replace(market, clock=clock, speed=speed)
    raise typer.Exit(serve.serve(settings, say=say, replay=market))


@app.command(epilog="Example: qp collect --symbols BTCUSDT,ETHUSDT; qp collect status --json")
def collect(
    what: Annotated[str, typer.Argument(help="Nothing, or `status`: show what the running collectors do.")] = "",
    symbols: Symbols = "",
    as_json: AsJson = False,
) -> None:
    """Capture trades, quotes and books from the venues into the landing, and poll option chains, until Ctrl-C.

    It never waits for anything but its disk. One collector a symbol: another one says so, and waits.
    """
    from quant_platform.live import collector

    settings = checked_settings()
    if what == "status":
        running = collector.status(settings)
        show_rows(running, as_json=as_json, nothing="No collector is running. `qp collect` starts one.")
        raise typer.Exit(0 if running else 1)
    if what:
        raise SettingsError(f"`qp collect {what}` is not known: it is `qp collect`, or `qp collect status`.")
    chosen = [settings.instrument(name.strip()) for name in symbols.split(",") if name.strip()]
    captured = [
        i
        for i in chosen or settings.instruments
        if (i.feed in CAPTURED_FEEDS or i.polled_chain) and (chosen or not i.is_simulated)
    ]
    with _market_keys(settings) as publisher:
        code = collector.run(settings, [i.symbol for i in captured], publisher=publisher)
    raise typer.Exit(code)


@contextmanager
def _market_keys(settings: "Settings") -> Iterator["Publisher"]:
    """Yield what writes the market keys; without a Redis they are missing, and the capture goes on."""
    from quant_platform.live.market_keys import Publisher
    from quant_platform.storage.live_store import LiveStoreError, Server

    with ExitStack() as stack:
        try:
            stack.enter_context(Server(settings))
        except LiveStoreError as error:
            err.print(f"The market keys are not written: {error}", highlight=False)
        publisher = Publisher(settings, ttl_s=settings.analytics.store_ttls.market)
        stack.callback(publisher.stop)
        yield publisher


@app.command("live", epilog="Example: qp live --symbols BTCUSDT,ETHUSDT; qp live status --json")
def serve_live(
    what: Annotated[str, typer.Argument(help="Nothing, or `status`: show how the running writer fares.")] = "",
    symbols: Symbols = "",
    as_json: AsJson = False,
) -> None:
    """Serve the analytics keys in Redis from the market keys, twice a second, until Ctrl-C.

    It computes what the batch computes, by the same functions, and begins where the lake and the landing end.
    """
    from quant_platform.live import keys_view

    settings = checked_settings()
    if what == "status":
        with _redis(settings) as client:
            found = keys_view.heartbeat(client, time.time_ns())
        show_rows([found._asdict()], as_json=as_json, nothing="")
        raise typer.Exit(0 if found.is_alive else 1)
    if what:
        raise SettingsError(f"`qp live {what}` is not known: it is `qp live`, or `qp live status`.")
    from quant_platform.live import writer
    from quant_platform.storage.live_store import LiveStoreError, Server

    chosen = [settings.instrument(name.strip()).symbol for name in symbols.split(",") if name.strip()]
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Server(settings):
            writer.run(settings, chosen or [i.symbol for i in settings.instruments if not i.is_simulated], stop)
    except LiveStoreError as error:
        err.print(str(error), highlight=False)
        raise typer.Exit(1) from None


@app.command(epilog="Example: qp keys BTCUSDT --watch")
def keys(
    symbol: Annotated[str, typer.Argument(help="Whose keys.")],
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the live keys of a symbol: what they say, how old they are, and how long they live.

    The age is that of the market's time; a replay on its recorded clock is as old as its recording.
    """
    from rich.live import Live

    from quant_platform.live.keys_view import snapshot

    settings = load_settings()
    instrument = settings.instrument(symbol)
    with _redis(settings) as client:
        found = snapshot(client, instrument, time.time_ns())
        if as_json:
            print(json.dumps({"writer": found.writer, "keys": [row._asdict() for row in found.rows]}, indent=2))  # noqa: T201  # data for a program
        elif not watch:
            out.print(keys_table(found))
        else:
            with Live(keys_table(found), console=out, auto_refresh=False) as shown, suppress(KeyboardInterrupt):
                while True:
                    time.sleep(_WATCH_S)
                    shown.update(keys_table(snapshot(client, instrument, time.time_ns())), refresh=True)
    raise typer.Exit(0 if any(row.is_there for row in found.rows) else 1)


@contextmanager
def _redis(settings: "Settings") -> Iterator["Redis"]:
    """Yield a client; where there is no Redis, say so and exit."""
    from redis import RedisError

    from quant_platform.storage.live_store import LiveStoreError, connect

    try:
        with connect(settings) as client:
            yield client
    except (LiveStoreError, RedisError) as error:
        err.print(f"The live keys cannot be read: {masked(str(error))}", highlight=False)
        raise typer.Exit(1) from None


@app.command(epilog="Example: qp replay --date 2024-03-10 --symbols SIMBTC --clock recorded --speed 10")
def replay(
    day: Recorded = None,
    symbols: Symbols = "",
    clock: Played = "recorded",
    speed: Speed = 1.0,
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0 takes a free one.")] = 3002,
    frames: Annotated[Path | None, typer.Option(help="A folder of recorded frames to play from.")] = None,
    faults: Annotated[
        str, typer.Option(help="How it misbehaves, such as drop=0.01,duplicate=0.01,disconnect_every_s=30.")
    ] = "",
) -> None:
    """Serve a recorded date over the venue's WebSocket and REST protocol, at 127.0.0.1, until Ctrl-C.

    Option chains of the date are served as Deribit serves them, at /api/v2.
    """
    from quant_platform.feeds import replay as venue

    settings = checked_settings()
    names = [settings.instrument(name.strip()).symbol for name in symbols.split(",") if name.strip()]
    raise typer.Exit(
        venue.run(
            settings,
            date=day and day.date(),
            symbols=names or [i.symbol for i in settings.instruments],
            clock=clock,
            speed=speed,
            port=port,
            faults=venue.Faults.parsed(faults),
            frames=frames,
            now_ns=time.time_ns,
            say=say,
        )
    )
