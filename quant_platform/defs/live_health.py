"""Whether the live writer lives and all of its calculators work, as an asset check: what its heartbeat says.

The sensor tells Dagster when that changes; whoever runs the check asks now. Runs of the tables leave it out: a date of
the past does not care.
"""

import json
from typing import Any, NamedTuple

import dagster as dg
import redis

from quant_platform.contracts.live import LiveValue
from quant_platform.defs.resources import Platform
from quant_platform.settings import Settings, masked
from quant_platform.storage import live_archive, live_store, redis_keys

KEY = dg.AssetCheckKey(dg.AssetKey(LiveValue.table.split("/")), "live_health")
GONE, STOPPED, NO_REDIS = "gone", "stopped", "no Redis"
_START = "Start it with `qp live`."
_FACTS = ("cadence_hz", "cycle_ms", "overruns", "idle_symbols", "opening_symbols", "malformed")


class Health(NamedTuple):
    """What the heartbeat says.

    Attributes:
        outcome: In a word or two; it changes when there is something to tell.
        is_ok: Whether the writer lives, and no calculator fails again and again.
        says: The same as a sentence, with what to do.
        heartbeat: As it was read; None where there is none.
    """

    outcome: str
    is_ok: bool
    says: str
    heartbeat: dict[str, Any] | None = None

    def evaluation(self) -> dg.AssetCheckEvaluation:
        """Return the evaluation that tells it."""
        facts = {name: (self.heartbeat or {}).get(name) for name in _FACTS}
        return dg.AssetCheckEvaluation(
            asset_key=KEY.asset_key,
            check_name=KEY.name,
            passed=self.is_ok,
            description=self.says,
            metadata={
                "outcome": self.outcome,
                "error_counts": (self.heartbeat or {}).get("error_counts") or {},
                **{name: value for name, value in facts.items() if isinstance(value, int | float)},
            },
        )


def health(settings: Settings) -> Health:
    """Return what the heartbeat says now; whatever is wrong with Redis or the payload is an answer too."""
    try:
        with live_store.connect(settings) as client:
            answer: Any = client.get(redis_keys.HEARTBEAT.name())
    except live_store.LiveStoreError as error:
        return Health(GONE, is_ok=False, says=f"{error} The live writer is not running. {_START}")
    except redis.RedisError as error:
        return Health(NO_REDIS, is_ok=False, says=f"Redis is not reached: {masked(str(error))}")
    return _judged(answer)


def was_started(settings: Settings) -> bool:
    """Return whether a writer of this QP_HOME has served anything yet."""
    return (settings.landing / live_archive.FOLDER).is_dir()


def check() -> dg.AssetChecksDefinition:
    """Return the check, for whoever wants to know now; where no writer ever served anything, there is none to fail."""

    @dg.asset_check(
        asset=KEY.asset_key,
        name=KEY.name,
        description="The live writer lives, and no calculator has failed in three of its turns in a row. A sensor asks "
        "every half minute. A writer that is idle is healthy.",
    )
    def asked(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
        found = health(platform.settings)
        if found.heartbeat is None and not was_started(platform.settings):
            found = Health("none", is_ok=True, says=f"No live writer has served anything in this QP_HOME. {_START}")
        told = found.evaluation()
        return dg.AssetCheckResult(passed=told.passed, metadata=told.metadata, description=told.description)

    return asked


def _judged(answer: bytes | None) -> Health:
    if answer is None:
        return Health(GONE, is_ok=False, says=f"There is no heartbeat: the live writer is dead, or hangs. {_START}")
    try:
        heartbeat = json.loads(answer)
    except ValueError:
        heartbeat = None
    if not isinstance(heartbeat, dict):
        says = f"{redis_keys.HEARTBEAT.name()} holds no JSON object: something else writes it."
        return Health("malformed", is_ok=False, says=says)
    if not heartbeat.get("running"):
        return Health(STOPPED, is_ok=False, says=f"The live writer was stopped. {_START}", heartbeat=heartbeat)
    if failing := sorted(map(str, heartbeat.get("failing") or ())):
        names = ", ".join(failing)
        says = f"Failing again and again: {names}. Their keys are left to expire; the writer's log has the error."
        return Health(f"failing: {names}", is_ok=False, says=says, heartbeat=heartbeat)
    if heartbeat.get("state") == "idle":
        says = "The live writer is idle: it runs, and no symbol is in its hours."
        return Health("idle", is_ok=True, says=says, heartbeat=heartbeat)
    return Health("active", is_ok=True, says="The live writer is active, and nothing fails.", heartbeat=heartbeat)
