"""How long a server asks to be left alone: RFC 9110's Retry-After, in either of its two forms."""

from collections.abc import Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait, 0 where that time is over; None where it does not say.

    Args:
        headers: Of the answer. A time of day is held against the server's own `Date`; without that it says nothing.
    """
    wanted = headers.get("Retry-After", "").strip()
    if wanted.isdigit():
        return float(wanted)
    try:
        pause: timedelta = parsedate_to_datetime(wanted) - parsedate_to_datetime(headers["Date"])
        return max(pause.total_seconds(), 0.0)
    except (KeyError, ValueError, TypeError):
        return None
