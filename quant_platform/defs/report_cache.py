"""Where the newest report of each name is, and its headline's numbers, as a key in Redis."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as midnight
from typing import Any

import redis
import structlog

from quant_platform.settings import Settings, masked
from quant_platform.storage import live_store, redis_keys

_LOG = structlog.get_logger()
_TTL_S = redis_keys.REPORT.ttl_s


def put(settings: Settings, name: str, latest: Mapping[str, Any]) -> bool:
    """Write the key of a report, unless it tells of a later date; return whether it stands for this report.

    A report is no less done where there is no Redis: then nothing is written.

    Args:
        settings: The whole tree.
        name: Of the report, such as `daily_tca`.
        latest: `path`, `date` (ISO) and `headline`, all of it JSON.
    """
    key = redis_keys.REPORT.name(name=name)
    try:
        with live_store.connect(settings) as client:
            if _date_told(client.get(key)) > latest["date"]:
                return False
            ended = datetime.combine(date.fromisoformat(latest["date"]) + timedelta(days=1), midnight(), UTC)
            told = {"ts": int(ended.timestamp()) * 10**9, "ts_written": time.time_ns(), "seq": 1}
            payload = {**told, "symbol": redis_keys.ALL_SYMBOLS, "name": name, **latest}
            client.set(key, json.dumps({field: payload[field] for field in redis_keys.REPORT.fields}), _TTL_S)
    except live_store.LiveStoreError:  # nobody has started one, which the run's metadata tells
        return False
    except (redis.RedisError, OSError, ValueError) as error:
        _LOG.info("report_not_cached", name=name, reason=masked(str(error)))
        return False
    return True


def _date_told(known: object) -> str:
    """Return the date of the report that stands under a key; empty where nothing that we wrote does."""
    try:
        found = json.loads(known) if isinstance(known, bytes) else None
    except ValueError:
        return ""
    told = found.get("date") if isinstance(found, dict) else None
    return told if isinstance(told, str) else ""
