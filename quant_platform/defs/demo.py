"""The demo: seven simulated dates, as official archive files, through every asset."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as midnight
from pathlib import Path
from typing import TYPE_CHECKING

from quant_platform.defs.resources import Platform
from quant_platform.pipeline import desk_intake
from quant_platform.settings import RecordedFrames, Settings
from quant_platform.simulation import vix1d
from quant_platform.simulation.desk import EVENT_KINDS, KINDS, desk_path, event_path
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.market import MarketParams, write_archive
from quant_platform.simulation.options import ChainParams, write_chains

if TYPE_CHECKING:
    from quant_platform.defs.backfill import Backfill

SYMBOLS = ("SIMBTC", "SIMETH", "SIMSOL")
FIRST_DATE = date(2024, 3, 4)
DAYS = 7
CHAINS = ChainParams(every_s=7_200)
DESK = DeskParams()
FILES_PER_SYMBOL_DAY = 3 + 86_400 // CHAINS.every_s
"""Tape, quotes and depth, and the snapshots of the chain."""
PARAMS = MarketParams(reference_prices={"SIMBTCUSDT": 60_000.0, "SIMETHUSDT": 2_600.0, "SIMSOLUSDT": 150.0})


@dataclass(frozen=True)
class Demo:
    """What the demo did, and how long each stage took."""

    platform: Platform
    filled: "Backfill"
    seconds_by_stage: dict[str, float]


def demo(settings: Settings, *, on_file: Callable[[Path, int], None], on_platform: Callable[[Platform], None]) -> Demo:
    """Simulate the archive into `$QP_HOME/simulated_archive`, then backfill it through the real parser.

    Args:
        settings: Used as they are, but for the addresses of archive and frames, and no instruments beside the
            simulated ones.
        on_file: Told of each archive file and its rows.
        on_platform: Given the platform before the backfill starts, so that it can be observed.
    """
    root = settings.simulated_archive
    local = settings.feeds.binance_usdm.model_copy(update={"archive_url": root.as_uri()})
    feeds = settings.feeds.model_copy(update={"binance_usdm": local, "recorded_frames": RecordedFrames()})
    settings = settings.model_copy(update={"feeds": feeds})
    instruments = [settings.instrument(symbol) for symbol in SYMBOLS]
    dates = [FIRST_DATE + timedelta(days=n) for n in range(DAYS)]
    started = time.perf_counter()
    platform = Platform(settings)

    def simulate() -> None:
        write_archive(root, instruments=instruments, dates=dates, params=PARAMS, desk=DESK, on_file=on_file)
        for day in dates:
            ended = datetime.combine(day + timedelta(days=1), midnight(), UTC)
            paths = [desk_path(root, day, kind) for kind in KINDS]
            if day == dates[-1]:
                paths += [event_path(root, kind) for kind in EVENT_KINDS]
            for path in paths:
                desk_intake.ingested(settings, path, ts_intake=int(ended.timestamp()) * 1_000_000_000)
        write_chains(
            settings.simulated_chains,
            instruments=instruments,
            dates=dates,
            market=PARAMS,
            params=CHAINS,
            on_file=on_file,
        )
        vix1d.write_history(settings.simulated_vix1d, dates=dates)

    with ThreadPoolExecutor(1) as side:
        simulation = side.submit(simulate)
        # Dagster and dbt take seconds to import on one core; the simulation leaves room beside it.
        import dagster_dbt  # noqa: F401  # used by the dbt step, as is the next
        import dbt.cli.main  # noqa: F401

        from quant_platform.defs.backfill import backfill

        platform.engine.start()
        simulation.result()
    simulated = time.perf_counter()
    on_platform(platform)
    filled = backfill(platform, SYMBOLS, dates[0], dates[-1])
    seconds = {"simulate the archive, import": simulated - started, **filled.seconds_by_step}
    seconds["definitions and planning"] = time.perf_counter() - started - sum(seconds.values())
    return Demo(platform, filled, seconds)
