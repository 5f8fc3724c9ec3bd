"""Times as microseconds: ISO 8601 text, the civil calendar, time zones.

The formulas use only operators and `where`, so that they hold for numpy arrays and for tensors alike.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

#: The missing time: the least 64-bit integer, which is numpy's NaT too.
MISSING = -(2**63)

#: Times further than this from 1970 (more than 285,000 years) count as this far.
FURTHEST = 9 * 10**18

MICROSECONDS_A_DAY = 86_400_000_000

#: A date, or a date and a time, with or without an offset. RE2 (TensorFlow) and Python read it alike.
ISO_PATTERN = (
    r"^([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.]([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
OFFSET_PATTERN = r"^([+-])([0-9]{2}):?([0-9]{2})?$"
ISO_ALLOWED = "ISO 8601: 2013-01-31, 2013-01-31T10:00:00 or 2013-01-31T10:00:00.5"
ISO_ALLOWED_WITH_OFFSET = ISO_ALLOWED + ", with an offset (Z, +01:00), or without one for UTC"

_ISO = re.compile(ISO_PATTERN.encode())
_OFFSET = re.compile(OFFSET_PATTERN.encode())


class Civil(NamedTuple):
    """Days of the proleptic Gregorian calendar, taken apart (64-bit integers)."""

    year: Any
    month: Any
    day: Any


def days_of(year: Any, month: Any, day: Any) -> Any:
    """Days since 1970-01-01 of a date; the algorithm is Howard Hinnant's `days_from_civil`."""
    shifted = (month + 9) % 12
    year = year - (shifted + 2) // 12  # January and February belong to the year before
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * shifted + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468


def civil_of(days: Any) -> Civil:
    """The date of days since 1970-01-01; the algorithm is Howard Hinnant's `civil_from_days`."""
    days = days + 719_468
    era = days // 146_097
    day_of_era = days - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = (shifted + 2) % 12 + 1
    return Civil(year_of_era + era * 400 + (shifted + 2) // 12, month, day)


def parse_iso(text: bytes, *, offset_allowed: bool) -> int | None:
    """Microseconds since 1970 of an ISO 8601 text, or None where it is none.

    Digits beyond microseconds are cut. A text without an offset is UTC, or the clock's time where the
    column has no time zone.
    """
    match = _ISO.match(text)
    if match is None or text.endswith(b"\n"):
        return None
    year, month, day, hour, minute, second = (int(match[i] or 0) for i in range(1, 7))
    fraction = int(((match[7] or b"") + b"000000")[:6])
    seconds = hour * 3600 + minute * 60 + second
    if match[8] and not offset_allowed:
        return None
    offset_hours = offset_minutes = 0
    if match[8] and match[8] != b"Z":
        offset = _OFFSET.match(match[8])
        assert offset is not None
        offset_hours, offset_minutes = int(offset[2]), int(offset[3] or 0)
        seconds += (-1 if offset[1] == b"+" else 1) * (offset_hours * 3600 + offset_minutes * 60)
    days = days_of(year, month, day)
    in_range = max(hour, offset_hours) < 24 and max(minute, second, offset_minutes) < 60
    if not in_range or civil_of(days) != (year, month, day):
        return None
    return int((days * 86_400 + seconds) * 1_000_000 + fraction)
