"""Rows of text to events, by a column map."""

import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from difflib import get_close_matches
from functools import partial
from typing import Any

from msgspec import Struct

from schemas.deadletters import DeadReason
from schemas.errors import InputError
from schemas.events import COUNT_MAX
from schemas.formats import shape
from schemas.formats.agents import version_of
from schemas.formats.columnmap import PHONES, Column, ColumnMap, Target, parts, targets
from schemas.formats.identity import Tokens
from schemas.formats.memory import remembered
from schemas.formats.names import reason_of
from schemas.formats.people import OWN, nobody_of, somebody_in
from schemas.formats.times import TimeReader

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,2})?")
_CLOCK = re.compile(r"(?:([0-9]{1,5}):)?([0-9]{1,5}):([0-9]{2}(?:\.[0-9]{1,9})?)")

_NO_NAME = re.compile(r"\d[:.]\d")
NAME_CHARS_MAX = 60

COLUMNS_SHOWN = 60
"""Of more, the first ones: enough to see what a file is."""

_OTHERS_KEYS = frozenset({"alert_id", "incident_id", "remedy_id"})
"""What a case, an alarm or a remedy is known by elsewhere: it must come back as it was given."""


class Unfit(Exception):  # noqa: N818 - says what a row is; it never leaves the format
    """A row cannot become an event: `reason` of the closed set, `detail` for a person, without any value."""

    def __init__(self, reason: DeadReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _Field(Struct, frozen=True, gc=False):
    """How one field of the event is taken from a row; `joint` is what stands between several columns."""

    target: str
    places: list[int]
    joint: str | None
    read: Callable[[str], Any]


class Rows:
    """Converts rows of one input.

    Args:
        column_map: `problems` must have found nothing wrong.
        tokens: needed where the map tokenises a field.
        header: names of the columns; None: they are numbered.

    Raises:
        InputError: the header lacks a column of the map, or has it twice.
    """

    def __init__(self, column_map: ColumnMap, tokens: Tokens | None, header: list[str] | None) -> None:
        self._map = column_map
        self._tokens = tokens
        self._nulls = frozenset(column_map.nulls)
        # Who tokenises nothing has said that nobody is in the file.
        self._guarded = tokens is not None and bool(column_map.tokenise)
        self._version = remembered(self._judged)
        self._times = TimeReader(column_map.date_formats, column_map.timezone, day_first=column_map.day_first)
        self._place = _places(column_map, header)
        self._width = max(self._place.values()) + 1 if header is None else len(header)
        self._exact = header is not None
        known = targets(column_map.type)
        self._fields = [self._field(name, known[name], column) for name, column in column_map.columns.items()]
        self._constants = {"type": column_map.type, **column_map.constants}

    @property
    def width_rule(self) -> str:
        """How many columns a row must have, in words."""
        return f"{self._width} columns" if self._exact else f"at least {self._width} columns"

    def fits(self, width: int) -> bool:
        """Tell whether a row of so many columns is one of this input."""
        return width == self._width if self._exact else width >= self._width

    def event(self, row: list[str]) -> dict[str, Any]:
        """Return the event of one row that `fits`.

        Raises:
            Unfit: a value is not written as its field must be.
        """
        event: dict[str, Any] = self._constants.copy()
        nulls = self._nulls
        for field in self._fields:
            if field.joint is None:
                text = row[field.places[0]].strip()
                if text in nulls:
                    continue
            else:
                values = [row[place].strip() for place in field.places]
                if nulls.issuperset(values):
                    continue
                text = field.joint.join(values)
            value = field.read(text)
            if value is not None:
                event[field.target] = value
        if self._map.type != "call":
            return event
        if self._guarded and "cpe_firmware" in event:
            event["cpe_firmware"] = self._version((event.get("cpe_model"), event["cpe_firmware"]))
        for name in ("answer_ms", "end_ms"):
            if name in event and "start_ms" in event:
                event[name] = self._times.not_before(event["start_ms"], event[name])
        return _with_computed(event)

    def _field(self, name: str, target: Target, column: Column) -> _Field:
        places = [self._place[part] for part in parts(column)]
        given = self._map.values.get(name)
        words = None if given is None else {source: str(value) for source, value in given.items()}
        joint = None if len(places) == 1 else " " if target.kind == "time" else "-"
        return _Field(target.field, places, joint, self._reader(name, target, words))

    def _reader(self, name: str, target: Target, words: dict[str, str] | None) -> Callable[[str], Any]:
        """Return what reads a field's text; None: the row says nothing of it."""
        read = self._plain_reader(name, target)

        def reading(text: str) -> Any:
            said = text if words is None else _word(name, words, text)
            return read(said) if said else None

        # What is one of a kind is not read from memory: every call has an id of its own.
        return reading if words is None and name in ("call_id", "incident_id", "alert_id") else remembered(reading)

    def _plain_reader(self, name: str, target: Target) -> Callable[[str], Any]:
        if name in self._map.tokenise:
            assert self._tokens is not None  # noqa: S101 - the format is not opened without a key
            return self._tokens.identity if name in PHONES else self._tokens.opaque
        if target.kind == "text":
            # A version is judged by its model.
            if not self._guarded or name in _OTHERS_KEYS or name == "cpe_firmware":
                return str
            return partial(self._text, name)
        return partial(self._time if target.kind == "time" else self._number, name, target)

    def _text(self, name: str, text: str) -> str | None:
        """Return a text in which nobody can be found: a token where somebody could, of a reason what is left."""
        if name == "reason":
            return reason_of(text) or nobody_of(text) or None
        assert self._tokens is not None  # noqa: S101 - `_plain_reader` asked
        return self._tokens.opaque(text) if somebody_in(text, OWN) else text

    def _judged(self, endpoint: tuple[str | None, str]) -> str:
        """Return the version of a model; a token where that could be an address."""
        model, version = endpoint
        assert self._tokens is not None  # noqa: S101 - `event` asked
        return version_of(str(model), version) or self._tokens.opaque(version)

    def _time(self, name: str, _: Target, text: str) -> int:
        time_ms = self._times.time_ms(text)
        if time_ms is None:
            raise Unfit(DeadReason.WRONG_TYPE, f"{name} must fit one of date_formats, was {shape(text)}")
        return time_ms

    def _number(self, name: str, target: Target, text: str) -> int | float:
        plain = text.replace(",", ".") if self._map.decimal_comma else text
        clock = _CLOCK.fullmatch(plain) if name.endswith("_s") else None
        if clock is not None:
            hours, minutes, seconds = clock.groups(default="0")
            number = int(hours) * 3600 + int(minutes) * 60 + Decimal(seconds)
        elif _NUMBER.fullmatch(plain):
            number = Decimal(plain)
        else:
            raise Unfit(DeadReason.WRONG_TYPE, f"{name} must be a number, was {shape(text)}")
        value = number * target.factor
        if abs(value) > COUNT_MAX:
            raise Unfit(DeadReason.OUT_OF_RANGE, f"{name} must be within {COUNT_MAX} of zero, was beyond")
        if target.kind == "number":
            return float(value)
        # Seconds become whole milliseconds; anything else that counts must be whole as it stands.
        if target.factor == 1 and value != value.to_integral_value():
            raise Unfit(DeadReason.WRONG_TYPE, f"{name} must be a whole number, was {shape(text)}")
        return int(value.to_integral_value())


def _places(column_map: ColumnMap, header: list[str] | None) -> dict[str | int, int]:
    """Return the index of every column of the map in a row."""
    wanted = {part for column in column_map.columns.values() for part in parts(column)}
    if header is None:
        return {part: part - 1 for part in wanted if isinstance(part, int)}
    names = [name.strip() for name in header]
    count = Counter(names)
    wrong = [_told(name, count) for name in sorted(map(str, wanted)) if count[name] != 1]
    if wrong:
        rule = "the first row must name every column of input.csv.columns once"
        raise InputError(f"{rule}: {'; '.join(wrong)}; {_listed(names)}")
    return {part: names.index(str(part)) for part in wanted}


def _told(name: str, count: Counter[str]) -> str:
    """Say how often a column is there, and which one is nearly called so."""
    if count[name]:
        return f"{name!r} is there {count[name]} times"
    spelt = {one.casefold(): one for one in count}
    near = get_close_matches(name.casefold(), spelt, 1) if all(map(_is_name, count)) else []
    return f"{name!r} is not there" + "".join(f", but {spelt[one]!r} is" for one in near)


def _listed(names: list[str]) -> str:
    """Show a first row: where the file has none with names, by its shape alone, since it is somebody's call."""
    if len(names) == 1:
        return f"it is one column, {len(names[0])} characters long: is input.csv.delimiter the one of the file?"
    shown, more = names[:COLUMNS_SHOWN], max(0, len(names) - COLUMNS_SHOWN)
    behind = f" and {more} more" if more else ""
    if all(map(_is_name, names)):
        return f"it names {', '.join(map(repr, shown))}{behind}"
    return (
        f"it reads {', '.join(map(shape, shown))}{behind}: if it names none, set header = false and number the columns"
    )


def _is_name(text: str) -> bool:
    """Tell whether a cell can be the name of a column; one of a call's row holds a date or a number."""
    return not text or (
        len(text) <= NAME_CHARS_MAX
        and not _NO_NAME.search(text)
        and not somebody_in(text)
        and any(map(str.isalpha, text))
    )


def _word(name: str, words: dict[str, str], text: str) -> str:
    word = words.get(text, words.get("*"))
    if word is None:
        raise Unfit(DeadReason.UNKNOWN_VALUE, f"{name} must be a word of values.{name}, was {shape(text)}")
    return word


def _with_computed(event: dict[str, Any]) -> dict[str, Any]:
    """Compute the end and the answer of a call from what was given instead of them."""
    duration_ms, talk_ms = event.pop("duration_ms", None), event.pop("talk_ms", None)
    for name, span_ms in (("duration", duration_ms), ("talk", talk_ms)):
        if span_ms is not None and span_ms < 0:
            raise Unfit(DeadReason.OUT_OF_RANGE, f"{name} must be at least 0, was negative")
    if duration_ms is not None and "start_ms" in event:
        event["end_ms"] = event["start_ms"] + duration_ms
    if talk_ms and "end_ms" in event:
        event["answer_ms"] = event["end_ms"] - talk_ms
    return event
