"""Local time: hours and days as the network's customers count them."""

import datetime as dt
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from schemas.kernels import inlined
from schemas.text import I16

DAY_MS = 86_400_000
DAYS = 32_768
"""Days from 1970 on whose offset is known, to 2059; later ones are taken as the last."""


class LocalTime(NamedTuple):
    """A time zone, as text and kernels need it.

    Attributes:
        name: in the IANA time zone database.
        ahead_min: int16[DAYS], minutes that local time is ahead of UTC, by UTC day: that of its noon, so that in the
            hours of a change of clocks it is an hour wrong.
    """

    name: str
    ahead_min: I16

    def day(self, time_ms: int) -> str:
        """Write the day of a time as a person says it: Monday, 5 January."""
        moment = dt.datetime.fromtimestamp(time_ms / 1000, tz=ZoneInfo(self.name))
        return f"{moment:%A}, {moment.day} {moment:%B}"


@cache
def local_time(name: str) -> LocalTime:
    """Return a zone of the IANA time zone database.

    Raises:
        ZoneInfoNotFoundError: the database does not have it.
    """
    zone = ZoneInfo(name)
    noon = dt.datetime(1970, 1, 1, 12, tzinfo=dt.UTC)
    ahead = np.zeros(DAYS, np.int16)
    for day in range(DAYS):
        # Astimezone computes the offset at an instant, not at a wall clock's time.
        offset = (noon + dt.timedelta(day)).astimezone(zone).utcoffset()
        ahead[day] = 0 if offset is None else offset.total_seconds() // 60
    return LocalTime(name, ahead)


@inlined
def local_ms(time_ms: int, ahead_min: I16) -> int:
    """Return what a clock on the customer's wall shows, as if that were UTC."""
    day = min(max(time_ms // DAY_MS, 0), len(ahead_min) - 1)
    return time_ms + int(ahead_min[day]) * 60_000


@inlined
def hour_of(time_ms: int, ahead_min: I16) -> int:
    """Return the hour of the customer's day, 0..23, at a time."""
    return (local_ms(time_ms, ahead_min) % DAY_MS) // 3_600_000
