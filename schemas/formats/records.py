"""Records that are lines of a text, and records that wait for others of the same call."""

import csv
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

import msgspec
import orjson
from msgspec import Struct, structs

from schemas.deadletters import DeadReason, Reject
from schemas.events import COUNT_MAX, TIME_MS_MAX
from schemas.formats import (
    BOM,
    HEAD_BYTES,
    RECORD_BYTES_MAX,
    Converted,
    Line,
    Lines,
    is_utf16,
    require_utf8,
    shape,
)
from schemas.formats.arrays import ArrayObjects, is_array
from schemas.formats.calls import Call, Media, Value
from schemas.formats.masks import refused
from schemas.formats.memory import remembered
from schemas.formats.rows import Unfit
from schemas.formats.times import TimeReader

WAITING_MAX = 65_536
"""So many calls may wait for the rest of their records: more than a switch has open at once."""

WAITING_BYTES_MAX = 64 * RECORD_BYTES_MAX
"""What they may hold together, whatever the input holds: a kilobyte for each."""

ENDED_MAX = 4_096
"""So many calls that have ended are kept in mind for what is still written of them, which comes within seconds."""

RECORDS_SINCE_MS = 946_684_800_000
"""2000-01-01: no switch is older that writes any of these formats. An earlier time is one of a clock that was not set,
or in another unit than it should be: a time in ms that is read as one in µs lies in January 1970."""

ENTRY_BYTES = 512
"""About what an entry costs besides its records."""

Items = list[Converted | Reject]


class LineReader(ABC):
    """Reads records of one line each; a format of them says what a line gives. See `schemas.formats`."""

    def __init__(self) -> None:
        self._lines: Lines | ArrayObjects = Lines()
        self._before = 0
        """Lines of files before this one."""

    def feed(self, chunk: bytes) -> Items:
        """Take the next bytes; return what they completed.

        Raises:
            InputError: the input as a whole is not in this format.
        """
        items: Items = []
        for line in self._lines.feed(chunk):
            items += self._take(line)
        return items

    def finish(self) -> Items:
        """Return what was still open at the end."""
        items = [item for line in self._lines.finish() for item in self._take(line)]
        items.extend(self._rest())
        return items

    @abstractmethod
    def _record(self, line: Line) -> Iterable[Converted | Reject]:
        """Return what a line gives.

        Raises:
            Unfit: it is no record; it becomes a reject.
        """

    def _rest(self) -> Iterable[Converted | Reject]:
        """Return what the records give that still waited when the input ended."""
        return ()

    def _take(self, line: Line) -> Iterable[Converted | Reject]:
        if line.position == self._before + 1:
            require_utf8(line.data)
        if line.data.startswith(BOM):
            # Not in the first line alone: files are put together by cat.
            line = structs.replace(line, data=line.data.removeprefix(BOM))
        if line.too_long:
            return (too_large(line.position, line.data),)
        if not line.data or line.data.isspace():
            return ()
        try:
            return self._record(line)
        except Unfit as unfit:
            return (self._refused(line, unfit),)

    def _refused(self, line: Line, unfit: Unfit) -> Reject:
        try:
            decoded(line.data)
        except Unfit as broken:
            return refused(line.position, broken.reason, broken.detail, line.data)
        # What ended before its line did was cut off, whatever it looks like.
        cut_off = not line.ended and unfit.reason == DeadReason.NOT_JSON
        return refused(line.position, DeadReason.TRUNCATED if cut_off else unfit.reason, unfit.detail, line.data)


class ListReader(LineReader):
    """Reads records of one line each, or of a JSON array, alone or in what an API wraps around it.

    Attributes:
        listed: they are those of an array, numbered instead of lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listed = False
        self._head: bytes | None = b""
        """What came before anything that says whether this is an array; None: it is known."""

    def feed(self, chunk: bytes) -> Items:
        """Take the next bytes; return what they completed.

        Raises:
            InputError: the input as a whole is not in this format.
        """
        if self._head is not None:
            self._head += chunk
            said = None if BOM.startswith(self._head) else is_array(self._head.removeprefix(BOM))
            if said is None:
                return []
            chunk, self._head, self.listed = self._head, None, said
            if said:
                self._lines, chunk = ArrayObjects(), chunk.removeprefix(BOM)
        return super().feed(chunk)

    def finish(self) -> Items:
        """Return what was still open at the end."""
        held, self._head = self._head, None
        return [*(super().feed(held) if held else ()), *super().finish()]


class JoiningReader(LineReader):
    """Reads records of which those of one call may lie in several files (`schemas.formats.JoiningFormat`)."""

    @property
    def position(self) -> int:
        """How many lines have been read, of all files."""
        return self._lines.position

    def turn(self, *, torn: bool = False) -> Items:
        """Say that another file begins; return what the last line of this one gives if it had no line end.

        Args:
            torn: the file broke off, and its last line with it: that line gives nothing.
        """
        items = [item for line in self._lines.finish() if not torn for item in self._take(line)]
        self._before = self._lines.position
        return items


def too_large(position: int, head: bytes) -> Reject:
    """Return the reject of a record that is too long, of which only the head is at hand."""
    return refused(
        position, DeadReason.TOO_LARGE, f"a record must be at most {RECORD_BYTES_MAX} bytes, was longer", head
    )


written = msgspec.json.Encoder().encode


def converted(position: int, record: bytes, events: Iterable[Call | Media]) -> list[Converted | Reject]:
    """Write events as lines."""
    return [Converted(position, written(event), record) for event in events]


Record = TypeVar("Record", bound=Struct)


class Records(Generic[Record]):
    """Reads records of one kind, JSON objects or rows of a table, as structs.

    Args:
        kind: its fields are those that are taken of a record, by their names there; the default of the first one
            stands for a column that is absent.
    """

    def __init__(self, kind: type[Record]) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode
        self._width = 0
        self._absent = kind.__struct_defaults__[0]

    def named(self, names: Sequence[str]) -> None:
        """Say which columns the rows of the table have from here on."""
        self._width = len(names)
        place = {name: at for at, name in enumerate(names)}
        # What has no column is taken from one behind them all.
        self._pick = itemgetter(*(place.get(name, len(names)) for name in self._kind.__struct_encode_fields__))

    def of_row(self, cells: list[str]) -> Record:
        """Read a row.

        Raises:
            Unfit: it has not as many columns as are named.
        """
        if len(cells) != self._width:
            raise Unfit(DeadReason.NOT_JSON, f"a row must have {self._width} columns, had {len(cells)}")
        return self._kind(*self._pick((*cells, self._absent)))

    def of_json(self, data: bytes) -> Record:
        """Read a JSON object.

        Raises:
            Unfit: it is none, or a value of it is of another type.
        """
        try:
            return self._decode(data)
        except msgspec.ValidationError as error:
            raise Unfit(*_invalid(str(error))) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            json_object(data)
            raise Unfit(DeadReason.NOT_JSON, "a record must be one JSON object, was not") from None

    def of_object(self, found: dict[str, Any]) -> Record:
        """Read an object that is decoded already.

        Raises:
            Unfit: a value of it is of another type.
        """
        try:
            return msgspec.convert(found, self._kind)
        except msgspec.ValidationError as error:
            raise Unfit(*_invalid(str(error))) from None


def _invalid(error: str) -> tuple[DeadReason, str]:
    """Return reason and detail of what is wrong with a record: msgspec's text names types and places, no values."""
    rule, _, place = error.partition(" - at ")
    if rule.startswith("Object missing required field"):
        return DeadReason.MISSING_FIELD, f"a record must have what its format needs: {rule} at {place or 'its top'}"
    if not place:
        return DeadReason.NOT_JSON, "a record must be one JSON object, was another value"
    return DeadReason.WRONG_TYPE, f"a value must be of its field's type: {rule} at {place}"


def json_object(data: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        Unfit: it is none.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        decoded(data)
        raise Unfit(DeadReason.NOT_JSON, f"a record must be one JSON object, was not at byte {error.pos}") from None
    if not isinstance(value, dict):
        raise Unfit(DeadReason.NOT_JSON, "a record must be one JSON object, was another value")
    return value


def decoded(data: bytes) -> str:
    """Read UTF-8.

    Raises:
        Unfit: it is not.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        what = "was UTF-16" if is_utf16(data) else f"was not at byte {error.start}"
        raise Unfit(DeadReason.NOT_TEXT, f"a record must be UTF-8, {what}") from None


def csv_row(data: bytes, delimiter: str = ",") -> list[str]:
    """Read one row of delimited text (RFC 4180); a quoted field ends within its row.

    Between tabs a quote may be one that was written as it is (`mysql --batch`). Bytes that are no UTF-8 stay where they
    are, as surrogates: most stand in a caller's name, cut off inside a letter or in an older encoding, of which nothing
    is taken. Where they stand in anything that is, the row is refused (`LineReader`).

    Raises:
        Unfit: it is none.
    """
    text = data.decode("utf-8", "surrogateescape")
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader((text,), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if delimiter == "\t":
            return text.split(delimiter)
        raise Unfit(DeadReason.NOT_JSON, f"a row must be delimited text: {error}") from None


def delimiter_of(header: bytes) -> str:
    """Return what stands between the names of columns."""
    return max(",;\t", key=lambda mark: header.count(mark.encode()))


def text_of(*values: Value) -> str | None:
    """Return the first of these values that says something, as a text."""
    for value in values:
        if value is not None and value != "":
            return value if isinstance(value, str) else str(value)
    return None


def time_of(reader: TimeReader, name: str, text: str | None) -> int:
    """Return a time that a record must have.

    Raises:
        Unfit: it is absent, is no time, or one that no record can have.
    """
    if text is None:
        raise Unfit(DeadReason.MISSING_FIELD, f"{name} must be present, was absent")
    time_ms = reader.time_ms(text)
    if time_ms is None:
        raise Unfit(DeadReason.WRONG_TYPE, f"{name} must be a time, was {shape(text)}")
    if not RECORDS_SINCE_MS <= time_ms <= TIME_MS_MAX:
        raise untimely(name)
    return time_ms


def untimely(name: str) -> Unfit:
    """Return what to say of a time that no record of a call can have."""
    return Unfit(DeadReason.OUT_OF_RANGE, f"{name} must be a time from 2000 to 9999, was outside: another unit?")


def span_ms(name: str, text: str | None) -> int:
    """Return a length of time in seconds as milliseconds; 0 where there is none.

    Raises:
        Unfit: it is no length of time.
    """
    if text is None:
        return 0
    found_ms = _milliseconds(text)
    if found_ms is None:
        raise Unfit(DeadReason.WRONG_TYPE, f"{name} must be a number of seconds, was {shape(text)}")
    if found_ms < 0:
        raise Unfit(DeadReason.OUT_OF_RANGE, f"{name} must be at least 0 seconds, was outside")
    return found_ms


@remembered
def _milliseconds(text: str) -> int | None:
    """Return seconds as milliseconds; -1 if they are outside what they can be, None if they are no number."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return round(seconds * 1000) if 0.0 <= seconds * 1000 <= COUNT_MAX else -1


Entry = TypeVar("Entry")


class Waiting(Generic[Entry]):
    """Calls of which not all records have come, oldest first, in bounded memory.

    Args:
        make: makes the entry of a call that is new.
        calls_max: so many may wait.
    """

    def __init__(self, make: Callable[[], Entry], calls_max: int = WAITING_MAX) -> None:
        self._make = make
        self._calls_max = calls_max
        self._entries: OrderedDict[str, tuple[Entry, list[int]]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Entry | None:
        """Return the entry of a call, if it is there."""
        found = self._entries.get(key)
        return None if found is None else found[0]

    def hold(self, key: str, record: bytes = b"") -> Entry:
        """Return the entry of a call, new if it is not there, and count what it is to hold."""
        found = self._entries.get(key)
        if found is None:
            found = self._entries[key] = (self._make(), [ENTRY_BYTES])
            self._bytes += ENTRY_BYTES
        found[1][0] += len(record) + len(key)
        self._bytes += len(record) + len(key)
        return found[0]

    def drop(self, key: str) -> None:
        """Let a call go, if it is there."""
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found[1][0]

    def move(self, key: str, other: "Waiting[Entry]") -> None:
        """Let a call wait in another place, as the youngest there."""
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found[1][0]
            other.take(key, found)

    def take(self, key: str, held: tuple[Entry, list[int]]) -> None:
        """Take a call from another place."""
        self._entries[key] = held
        self._bytes += held[1][0]

    def oldest(self) -> Entry | None:
        """Return the call that has waited longest, if any does."""
        return next(iter(self._entries.values()))[0] if self._entries else None

    def pop(self) -> Entry:
        """Let the oldest call go."""
        entry, held = self._entries.popitem(last=False)[1]
        self._bytes -= held[0]
        return entry

    def surplus(self) -> list[Entry]:
        """Let the oldest calls go until the bounds hold."""
        gone: list[Entry] = []
        while len(self._entries) > self._calls_max or (self._bytes > WAITING_BYTES_MAX and self._entries):
            gone.append(self.pop())
        return gone

    def all(self) -> Iterator[Entry]:
        """Let all calls go, oldest first."""
        while self._entries:
            yield self.pop()


def head(record: bytes) -> bytes:
    """Return what is kept of a record that waits: enough for a dead letter to show what it was."""
    return record[:HEAD_BYTES]
