"""`qp replay`: a server that looks like the venues to a client, on 127.0.0.1, and plays a recorded date.

One port serves `ws://…/usdm`, `ws://…/spot` (`/stream?streams=…`, `/ws/<stream>`, SUBSCRIBE and the like) and the REST
of both venues (`http://…/usdm/fapi/v1/…`, `http://…/spot/api/v3/…`: ping, time, depth, aggTrades, historicalTrades),
and Deribit's of the archived option chains (`http://…/api/v2/public/…`: see `_replay_chains`).
`GET /replay/status` tells what was sent and which faults were done. What a recording holds that is no message of a
stream is not replayed.
"""

import asyncio
import contextlib
import datetime as dt
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from websockets.asyncio.server import serve

from quant_platform.feeds._replay_chains import Chains
from quant_platform.feeds._replay_door import Door
from quant_platform.feeds._replay_faults import Faults
from quant_platform.feeds._replay_market import Market
from quant_platform.feeds._replay_sources import newest_date, sources, venue_of
from quant_platform.feeds._replay_venue import Clock, Recorded, Replay
from quant_platform.feeds.binance import describe
from quant_platform.feeds.recorded import RecordedError
from quant_platform.settings import Settings, SettingsError
from quant_platform.storage.lake import Lake
from quant_platform.storage.landing import greatest_id

__all__ = ["Clock", "Faults", "Replay", "run", "serving"]

HOST = "127.0.0.1"
_CLOSE_S = 2.0
_DAY_NS = 86_400_000_000_000
_EPOCH = dt.date(1970, 1, 1)


def run(
    settings: Settings,
    *,
    date: dt.date | None,
    symbols: Sequence[str],
    clock: Clock,
    speed: float,
    port: int,
    faults: Faults,
    now_ns: Callable[[], int],
    say: Callable[[str], None],
    frames: Path | None = None,
) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit code.

    Args:
        settings: Where recordings lie.
        date: What to play; None plays the newest date before the present one that was recorded from elsewhere.
        symbols: The platform's names. Those without a recording of the date are left out.
        clock: See `Replay`.
        speed: See `Replay`; with the clock `now` only 1.
        port: Of 127.0.0.1; 0 takes a free one.
        faults: What to do wrong.
        now_ns: Tells the present, UTC ns.
        say: Told, in whole sentences, where it serves what, and why it stopped.
        frames: A folder of recorded frames to play from; unset: feeds.recorded_frames.path, else what `qp demo` fills.
    """

    async def main() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(
            settings,
            date=date,
            symbols=symbols,
            clock=clock,
            speed=speed,
            port=port,
            faults=faults,
            now_ns=now_ns,
            say=say,
            frames=frames,
        ) as replay:
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({stopped, replay.playing}, return_when=asyncio.FIRST_COMPLETED)
            if replay.playing.done():
                replay.playing.result()
            await stopped
            say("Stopping.")
        return 0

    try:
        return asyncio.run(main())
    except (RecordedError, OSError) as error:
        say(str(error))
        return 1


@contextlib.asynccontextmanager
async def serving(
    settings: Settings,
    *,
    date: dt.date | None,
    symbols: Sequence[str],
    now_ns: Callable[[], int],
    clock: Clock = "recorded",
    speed: float = 1.0,
    port: int = 0,
    faults: Faults | None = None,
    say: Callable[[str], None] = lambda _: None,
    frames: Path | None = None,
    at: dt.time | None = None,
) -> AsyncIterator[Replay]:
    """Serve in the running event loop until the context ends. What it gives knows the real `port`.

    Args:
        settings: See `run`.
        date: See `run`.
        symbols: See `run`.
        now_ns: See `run`.
        clock: See `run`.
        speed: See `run`.
        port: See `run`.
        faults: See `run`; unset: none.
        say: See `run`.
        frames: See `run`.
        at: The time of day, UTC, to begin at; unset: the recording's beginning.

    Raises:
        RecordedError: Nothing of the date was recorded, or a file cannot be read.
        SettingsError: Such a speed is not possible.
        OSError: The port is taken.
    """
    if not speed >= 0 or (clock == "now" and speed != 1):
        raise SettingsError(f"--speed is 0 or more, and 1 with --clock now: it was {speed} with --clock {clock}.")
    faults = faults or Faults()
    with tempfile.TemporaryDirectory(prefix="qp-replay-") as folder:
        day, recorded = await asyncio.to_thread(
            _recorded,
            settings,
            date,
            symbols,
            now_ns=now_ns,
            frames=frames,
            at=at,
            faults=faults,
            folder=folder,
        )
        replay = Replay(
            recorded,
            clock=clock,
            speed=speed,
            faults=faults,
            start=_ns(day, at) if at else 0,
            started_ns=now_ns(),
        )
        await replay.load()
        chains = await asyncio.to_thread(Chains, settings, [settings.instrument(name) for name in symbols], day)
        door = Door(replay, chains)
        async with serve(
            door.connected, HOST, port, process_request=door.asked, compression=None, close_timeout=_CLOSE_S
        ) as server:
            replay.port = next(iter(server.sockets)).getsockname()[1]
            names = ", ".join(replay.names)
            base = f"{HOST}:{replay.port}"
            options = f", option chains of {', '.join(chains.paths)}" if chains.paths else ""
            say(f"{day} of {names}{options} is played at ws://{base} and http://{base}. Ctrl-C stops it.")
            replay.playing = asyncio.create_task(replay.play(say))
            try:
                yield replay
            finally:
                replay.playing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await replay.playing


def _recorded(
    settings: Settings,
    date: dt.date | None,
    symbols: Sequence[str],
    *,
    now_ns: Callable[[], int],
    frames: Path | None,
    at: dt.time | None,
    faults: Faults,
    folder: str,
) -> tuple[dt.date, list[Recorded]]:
    """Return the date that is played, and what there is of it."""
    lake = Lake(settings.lake_uri)
    own = settings.feeds.recorded_frames.path or settings.simulated_frames
    place = frames or (own if own.is_dir() else None)
    instruments = [(i, venue) for i in map(settings.instrument, symbols) if (venue := venue_of(settings, i))]
    day = date or newest_date(lake, place, instruments, _EPOCH + dt.timedelta(days=now_ns() // _DAY_NS))
    recorded = []
    for number, (instrument, venue) in enumerate(instruments if day else ()):
        assert day is not None
        found = sources(settings, lake, place, instrument, venue=venue, date=day)
        firsts = [first for source in found if (first := source.first(_ns(day, at) if at else 0))]
        if firsts:
            market = Market(
                venue,
                instrument.venue_symbol,
                Path(folder) / str(number),
                lose=faults.lose,
                seed=f"{faults.seed}:{instrument.symbol}",
            )
            landed_id = greatest_id(settings.landing, venue, instrument.symbol, describe)
            recorded.append(Recorded(market, found, firsts, landed_id))
    if day is None or not recorded:
        raise RecordedError(
            f"There is no recording of {date or 'any date'} of {', '.join(symbols)}: `qp list-data` shows what there "
            "is, `qp demo` simulates a week, --frames names a folder of recorded frames."
        )
    return day, recorded


def _ns(date: dt.date, at: dt.time) -> int:
    since_midnight = dt.timedelta(hours=at.hour, minutes=at.minute, seconds=at.second, microseconds=at.microsecond)
    return (date - _EPOCH).days * _DAY_NS + since_midnight // dt.timedelta(microseconds=1) * 1_000
