"""Points in time as sources write them, turned into Unix milliseconds.

A format is `iso` (ISO 8601), `unix_s` or `unix_ms` (a number), or a pattern of strptime directives such as
`%d/%m/%Y %H:%M:%S`. Formats are tried in order; the first that fits decides. Where patterns with the day first and
with the month first are both listed, `3/1/2014` fits both: `day_first` must then be stated, and the patterns that
follow it are tried before those that do not, whatever their place in the list.

A text without an offset is local time in `timezone`. An hour that the clocks repeat is taken as its first pass, unless
a call would then end before it began; an hour that they skip with the offset from before the change (PEP 495, fold 0).
"""

import datetime as dt
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from zoneinfo import ZoneInfo

from schemas.formats.memory import CHARS_MAX, remembered

_DIRECTIVES = frozenset("YymBbdjHIMSfpzZaA%")
"""Directives that read the same everywhere; `%c`, `%x` and `%X` depend on the machine's locale."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS = dt.timedelta(milliseconds=1)
_UNIX = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?")
_UNIX_UNITS = {"unix_s": Decimal(1000), "unix_ms": Decimal(1)}


class TimeReader:
    """Reads times in any of the configured formats.

    Args:
        formats: see the module; `problems` must have found nothing wrong.
        timezone: name in the IANA database, for texts without an offset.
        day_first: which order wins where both fit; None where only one order is listed.

    Attributes:
        time_ms: returns the Unix time in milliseconds, rounded down, or None where a text fits no format.
    """

    def __init__(self, formats: Sequence[str], timezone: str, *, day_first: bool | None) -> None:
        self._zone = ZoneInfo(timezone)
        preferred = [name for name in formats if _day_leads(name) in (day_first, None)]
        ordered = preferred + [name for name in formats if name not in preferred]
        self._readers = [self._reader(name) for name in (formats if day_first is None else ordered)]
        self.time_ms: Callable[[str], int | None] = remembered(self._time_ms)

    def not_before(self, earlier_ms: int, time_ms: int) -> int:
        """Return a time that was read; of an hour that comes twice its second pass, if the first is too early."""
        if time_ms >= earlier_ms:
            return time_ms
        moment = (_EPOCH + time_ms * _MS).astimezone(self._zone)
        first, second = moment.replace(fold=0).utcoffset(), moment.replace(fold=1).utcoffset()
        assert first is not None  # noqa: S101 - a zone has an offset at any time
        assert second is not None  # noqa: S101
        again_ms = time_ms + (first - second) // _MS
        return again_ms if again_ms >= earlier_ms else time_ms

    def _time_ms(self, text: str) -> int | None:
        text = text.strip()
        if len(text) > CHARS_MAX:
            return None
        for read in self._readers:
            try:
                return read(text)
            except (ValueError, OverflowError):
                continue
        return None

    def _reader(self, name: str) -> Callable[[str], int]:
        if name in _UNIX_UNITS:
            return lambda text: _unix_ms(text, _UNIX_UNITS[name])
        if name == "iso":
            return lambda text: self._since_epoch(dt.datetime.fromisoformat(text))
        # The zone is given in `_since_epoch`, unless the text itself holds an offset.
        return lambda text: self._since_epoch(dt.datetime.strptime(text, name))  # noqa: DTZ007

    def _since_epoch(self, moment: dt.datetime) -> int:
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=self._zone)
        return (aware - _EPOCH) // _MS


def _unix_ms(text: str, unit_ms: Decimal) -> int:
    if not _UNIX.fullmatch(text):
        raise ValueError("not a number")
    return int(Decimal(text) * unit_ms)


def problems(formats: Sequence[str], timezone: str, *, day_first: bool | None) -> list[str]:
    """Return what does not hold of these settings, one sentence each, beginning with the key."""
    rule = "must be iso, unix_s, unix_ms or strptime directives with year, month and day that no locale changes"
    found = [
        f"date_formats: {rule}, was {name!r}"
        for name in formats
        if name != "iso" and name not in _UNIX_UNITS and not _reads_a_date(name)
    ]
    if not formats:
        found.append("date_formats: must name at least one format, was empty")
    orders = {_day_leads(name) for name in formats} - {None}
    if len(orders) == 2 and day_first is None:
        found.append("day_first: must be stated where date_formats hold both orders of day and month, was absent")
    if day_first is not None and day_first not in orders:
        found.append(f"day_first: must be an order that one of date_formats has, was {str(day_first).lower()}")
    if not zone_exists(timezone):
        found.append(f"timezone: must be a name of the IANA time zone database, was {timezone!r}")
    return found


def _reads_a_date(pattern: str) -> bool:
    used = set(re.findall(r"%(.?)", pattern, re.DOTALL))
    year, day = used & set("Yy"), "j" in used or ("d" in used and used & set("mBb"))
    return bool(used <= _DIRECTIVES and year and day)


def _day_leads(pattern: str) -> bool | None:
    """Tell whether the day stands before a month in digits; None where the two cannot be confused."""
    used = [directive for directive in re.findall(r"%(.)", pattern, re.DOTALL) if directive in "Yymd"]
    if "m" not in used or "d" not in used or used[0] in "Yy":
        return None
    return used.index("d") < used.index("m")


def zone_exists(name: str) -> bool:
    """Tell whether the IANA time zone database has this name."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True
