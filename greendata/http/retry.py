"""How long to wait before a request is sent again."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ("RETRIED", "back_off", "retry_after_of")

RETRIED = (429, 500, 502, 503, 504)  # statuses that another attempt may change
FIRST, LONGEST = 1.0, 60.0  # seconds of the first and the longest back-off
JITTER = (0.5, 1.0)  # factors; clients that failed together do not come back together
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")  # of Retry-After; fractions are not in RFC 9110, but are sent


def retry_after_of(header: str | None, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for: never less than 0, and not bounded.

    Args:
        header: the value: a number of seconds, or a date (RFC 9110, section 10.2.3).
        now: the present, with a time zone.

    Returns:
        None if there is no header, or nothing that can be understood.

    Example:
        >>> now = datetime(2026, 1, 1, tzinfo=UTC)
        >>> for header in ("120", "Thu, 01 Jan 2026 00:00:30 GMT", "Wed, 31 Dec 2025 23:00:00 GMT", "-5", "soon"):
        ...     print(retry_after_of(header, now))
        120.0
        30.0
        0.0
        None
        None
    """
    text = (header or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(0.0, (date - now).total_seconds())
    except (ValueError, OverflowError):
        return None


def back_off(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: doubled by each, with jitter.

    Example:
        >>> all(0.5 <= back_off(1) <= 1.0 and 30.0 <= back_off(50) <= 60.0 for _ in range(100))
        True
    """
    return min(LONGEST, FIRST * 2.0 ** min(failures - 1, 30)) * random.uniform(*JITTER)
