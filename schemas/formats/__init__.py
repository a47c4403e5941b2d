"""Vendor record formats, one file a format: pure functions from bytes to events.

A format is opened for one input (a file, a request body, a stream), is fed its bytes in chunks of any size, and
answers with what the chunk completed, in order: a `Converted` for every event, a `Reject` for every record that
could not be converted.

    reader = open_format("csv", Options(csv=column_map, tokens=Tokens(key)))
    for chunk in chunks:
        for item in reader.feed(chunk):
            ...
    for item in reader.finish():
        ...

What every format keeps:

- A `Converted.line` is one contract event as NDJSON. A format judges shape alone (is this a record, is this a
  number, is this a date); whether the event holds the contract is judged by `schemas.decode` and nowhere else.
- `position` is the line on which the record begins, counted from 1, also in a `Reject` (in a format that is not
  text: the record's number). So `file:position` is where a dead letter points.
- Chunks may be cut anywhere: the items are the same.
- Memory is bounded by `RECORD_BYTES_MAX`, whatever the input holds; one bad record never costs the next.
- The detail of a reject shows no value of the record, only its `shape`, and its record is `masked`: any column may
  turn out to be an identity.
- No clock, no input or output.

A new format is one file with a class that has `feed` and `finish`, the constants of `Description`, and one line in
`_OPENERS`.
"""

import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from schemas.deadletters import Reject
from schemas.errors import ConfigError, InputError
from schemas.formats.identity import Tokens
from schemas.formats.masks import masked
from schemas.patterns import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.columns import EventBatch
    from schemas.decode import Decoder
    from schemas.formats.columnmap import ColumnMap

RECORD_BYTES_MAX = 1_048_576
"""A vendor's record may be this long: a hundred times a wordy CDR, and little enough to hold one per open input."""

BOM = b"\xef\xbb\xbf"
"""What some write at the beginning of UTF-8."""

HEAD_BYTES = 4_096
"""How much is kept of a record that is too long: enough to see what it was."""

NAMES: tuple[str, ...] = (
    "freeswitch", "asterisk", "kamailio", "cucm", "vqrtcpxr", "voipmonitor", "hep", "arrow", "csv",
)  # fmt: skip
"""Every vendor format the contract names."""

_OPENERS = {
    "arrow": "schemas.formats.arrow:open_arrow",
    "csv": "schemas.formats.csv:open_csv",
    "freeswitch": "schemas.formats.freeswitch:open_freeswitch",
    "asterisk": "schemas.formats.asterisk:open_asterisk",
    "kamailio": "schemas.formats.kamailio:open_kamailio",
    "cucm": "schemas.formats.cucm:open_cucm",
    "voipmonitor": "schemas.formats.voipmonitor:open_voipmonitor",
    "vqrtcpxr": "schemas.formats.vqrtcpxr:open_vqrtcpxr",
    "hep": "schemas.formats.hep:open_hep",
}
"""The formats this version can read. Loaded when asked for: a deployment uses one."""


class Converted(Struct, frozen=True, gc=False):
    """One event out of a vendor's record.

    Attributes:
        position: where the record begins (see the module).
        line: the event as one line of JSON, UTF-8, without the newline.
        record: the vendor's record it came from, for a dead letter should the event not hold the contract.
    """

    position: int
    line: bytes
    record: bytes

    def shown(self) -> bytes:
        """Return the record as a dead letter may hold it: a vendor's masked, an event that was one before as it is."""
        return self.record if self.record is self.line else masked(self.record)


class Format(Protocol):
    """One open input in a vendor's format."""

    def feed(self, chunk: bytes) -> list[Converted | Reject]:
        """Take the next bytes; return what they completed.

        Raises:
            InputError: the input as a whole is not in this format.
        """

    def finish(self) -> list[Converted | Reject]:
        """Say that the input has ended; return what was still open. Nothing may be fed afterwards."""


class Packet(Protocol):
    """Some records of a format that has them in columns already.

    Attributes:
        first: position of the first one, counted from 1.
        count: how many positions they take.
    """

    @property
    def first(self) -> int: ...  # noqa: D102 - see above
    @property
    def count(self) -> int: ...  # noqa: D102 - see above

    def behind(self, position: int) -> "Packet":
        """Return what of it lies behind a position."""

    def decode(self, decoder: "Decoder") -> "EventBatch":
        """Return the records as columns; the positions in the batch count from 0.

        Args:
            decoder: of the same stream; for records that must be looked at one by one.
        """


@runtime_checkable
class JoiningFormat(Protocol):
    """A `Format` whose calls may go on from one file to the next: files of one input are one stream to it.

    Attributes:
        position: of the last record that was taken, counted over all files: what belongs together may lie in several.
    """

    @property
    def position(self) -> int: ...  # noqa: D102 - see above

    def turn(self, *, torn: bool = False) -> "list[Converted | Reject]":
        """Say that another file begins; return what was left of the one before.

        Args:
            torn: it broke off: half a record at its end is lost with what was behind it.
        """


@runtime_checkable
class PacketFormat(Protocol):
    """A `Format` that can be read without making lines of it: by `cut` instead of `feed` and `finish`.

    Attributes:
        position: of the last record that was taken.
        unread: the first bytes of a part of the input that is not there as a whole.
    """

    @property
    def position(self) -> int: ...  # noqa: D102 - see above
    @property
    def unread(self) -> bytes: ...  # noqa: D102 - see above

    def cut(self, data: bytes) -> "Sequence[Packet]":
        """Take the next bytes; return what they completed, or, if there are none, whatever has been held back.

        Raises:
            InputError: the input as a whole is not in this format.
        """


class Options(Struct, frozen=True):
    """What formats may need besides bytes.

    Attributes:
        tokens: turns identities into pseudonyms; None: no key is configured.
        csv: the column map of the `csv` format.
        timezone: of times that a vendor writes without an offset, a name of the IANA database; the `csv` format has
            its own in the map.
        customer_networks: for `hep`, where customers' equipment is; empty: anywhere.
        endless: the input goes on for ever: what belongs to a call and has not come in time is not waited for.
        whole_files: it does so file by file, each of them whole: what belongs to a call may be in the next one.
    """

    tokens: Tokens | None = None
    csv: "ColumnMap | None" = None
    timezone: str = "UTC"
    customer_networks: tuple[str, ...] = ()
    endless: bool = False
    whole_files: bool = False

    def required_tokens(self) -> Tokens:
        """Return the tokens.

        Raises:
            ConfigError: no key is configured.
        """
        if self.tokens is None:
            raise ConfigError(["input.tokens: must give a key, as identities become tokens; none was found"])
        return self.tokens


class Description(NamedTuple):
    """What one format gives and cannot give: constants of its module.

    Attributes:
        name: of the format.
        gives: `GIVES`: the fields of events that it can fill.
        shows: the kinds of pattern that can be found in such events (`schemas.patterns`), or `SHOWS` where the fields
            are not the format's to say.
        lacks: `LACKS`: a sentence on what cannot be concluded from them.
    """

    name: str
    gives: tuple[str, ...]
    shows: tuple[str, ...]
    lacks: str


def available() -> tuple[str, ...]:
    """Return the names of the formats that this version can read."""
    return tuple(_OPENERS)


def described() -> list[Description]:
    """Return what every format that this version can read gives and cannot give."""
    found = []
    for name, place in _OPENERS.items():
        module = import_module(place.partition(":")[0])
        gives: tuple[str, ...] = module.GIVES
        found.append(Description(name, gives, getattr(module, "SHOWS", None) or shown(gives), module.LACKS))
    return found


def open_format(name: str, options: Options) -> Format:
    """Open one input in the format of that name.

    Raises:
        ConfigError: the name is not known or not in this version, or an option that the format needs is missing.
    """
    if name not in _OPENERS:
        raise ConfigError([f"format: must be one that this version reads ({', '.join(_OPENERS)}), was {name!r}"])
    module, _, function = _OPENERS[name].partition(":")
    opener: Callable[[Options], Format] = getattr(import_module(module), function)
    return opener(options)


def shape(text: str) -> str:
    """Show how a value is written without showing it: digits become 9, letters become a; at most 32 characters."""
    masked = re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", text[:33]))
    return repr(masked) if len(text) < 33 else f"{masked[:32]!r}..."


UTF16_BYTES = 8
"""So much of a text must be there to tell: its mark and three letters."""


def is_utf16(text: bytes) -> bool:
    """Tell by its beginning whether a text in Latin letters is UTF-16: a zero stands beside each of them."""
    some = text[:UTF16_BYTES].removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    even, odd = some[::2], some[1::2]
    return len(some) > 4 and ((not any(even) and all(odd)) or (not any(odd) and all(even)))


def require_utf8(text: bytes) -> None:
    """Refuse an input that begins as UTF-16, in which some shells and spreadsheets write: no line of it could be read.

    Raises:
        InputError: it does.
    """
    if is_utf16(text):
        raise InputError("line 1: must be UTF-8, was UTF-16: convert it, as by iconv -f UTF-16 -t UTF-8")


class Line(Struct, frozen=True, gc=False):
    """One line of the input.

    Attributes:
        position: counted from 1.
        data: without its line end; only the first `HEAD_BYTES` if the line is too long.
        too_long: it had more bytes than a record may have.
        ended: a line end was there; False only where the input stopped.
    """

    position: int
    data: bytes
    too_long: bool
    ended: bool


class Lines:
    """Cuts a stream of bytes into lines and holds no more than one of them, never longer than `bytes_max`."""

    def __init__(self, bytes_max: int = RECORD_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._position = 1
        self._held = bytearray()
        self._held_bytes = 0

    @property
    def position(self) -> int:
        """How many lines have been returned."""
        return self._position - 1

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the lines that this chunk completes."""
        parts = chunk.split(b"\n")
        last = parts.pop()
        lines = []
        if parts:
            self._hold(parts[0])
            lines.append(self._cut(ended=True))
            # The others lie whole in this chunk: they need not be put together.
            for position, part in enumerate(parts[1:], self._position):
                too_long = len(part) > self._bytes_max
                data = part[:HEAD_BYTES] if too_long else part
                lines.append(Line(position, data.removesuffix(b"\r"), too_long, ended=True))
            self._position += len(parts) - 1
        self._hold(last)
        return lines

    def finish(self) -> list[Line]:
        """Return the last line if it had no line end."""
        return [self._cut(ended=False)] if self._held_bytes else []

    def _hold(self, part: bytes) -> None:
        self._held_bytes += len(part)
        if self._held_bytes <= self._bytes_max:
            self._held += part
        else:
            self._held += part[:HEAD_BYTES]
            del self._held[HEAD_BYTES:]

    def _cut(self, *, ended: bool) -> Line:
        data = bytes(self._held).removesuffix(b"\r")
        line = Line(self._position, data, self._held_bytes > self._bytes_max, ended)
        self._held.clear()
        self._held_bytes = 0
        self._position += 1
        return line
