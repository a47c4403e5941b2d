"""Arrow IPC streams: columns named as the fields of the contract, one event type a stream.

`cut` gives packets of rows, which become columns without any parsing: that is how events are read. `feed` gives the
same rows as lines of JSON, as any other format does: that is how they are converted. Positions are rows, counted
from 1 through the whole input.
"""

from dataclasses import replace
from typing import Any

import pyarrow as pa
from msgspec import Struct

from schemas.arrow import TEXT_BYTES_MAX, decode_batch
from schemas.arrow.batch import checked, longest_text, rows_as_json
from schemas.arrow.stream import ArrowStream, DamagedError
from schemas.columns import EventBatch
from schemas.deadletters import DeadReason, Reject
from schemas.decode import Decoder
from schemas.formats import Converted, Options

GIVES = ("every field of every event type that has a column",)
SHOWS = ("what its fields allow",)
LACKS = "What the sender left out: a field without a column is not known of any event."

ROWS_MIN, ROWS_MAX = 8_192, 32_768
"""Small record batches are put together and large ones divided, so that a packet has so many rows: what a packet
costs apart from its rows then hardly counts, and what it takes in memory is bounded."""

LONG_ROWS_MAX = 128
"""The same for rows with texts longer than those of calls: their records as JSON may be a thousand times as long."""

_INSIDE = "a stream must end behind a whole message, ended inside one"
_UNSOUND = "a record batch must hold what its buffers and lengths say, as UTF-8 where it is text, did not"


def open_arrow(_: Options) -> "ArrowFormat":
    """Open one input; there are no options."""
    return ArrowFormat()


def decode_stream(decoder: Decoder, data: bytes) -> list[EventBatch]:
    """Decode a whole Arrow stream, such as one message of a broker; positions count from 0 in each batch.

    Raises:
        InputError: it is no Arrow stream, or a column is not of the contract's type.
    """
    opened = ArrowFormat()
    packets = [*opened.cut(data), *opened.cut(b"")]
    return [packet.decode(decoder) for packet in [*packets, *opened.lost()]]


class _Rows(Struct, frozen=True):
    """Rows of one event type that hold what Arrow promises."""

    first: int
    kind: str
    batch: Any

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.batch)

    def behind(self, row: int) -> "_Rows":
        """See `schemas.formats.Packet`."""
        known = max(0, row + 1 - self.first)
        return _Rows(self.first + known, self.kind, self.batch.slice(known))

    def decode(self, decoder: Decoder) -> EventBatch:
        """See `schemas.formats.Packet`."""
        return decode_batch(self.kind, self.batch, decoder)

    def items(self) -> list[Converted | Reject]:
        """Return the same as lines of JSON."""
        lines = rows_as_json(self.kind, self.batch)
        return [Converted(row, line, line) for row, line in enumerate(lines, self.first)]


class _Lost(Struct, frozen=True):
    """Rows that cannot be read: one reject for all of them."""

    first: int
    count: int
    reason: DeadReason
    detail: str
    record: bytes

    def behind(self, row: int) -> "_Lost":  # noqa: ARG002 - it is all or nothing
        """See `schemas.formats.Packet`."""
        return self

    def decode(self, decoder: Decoder) -> EventBatch:
        """See `schemas.formats.Packet`."""
        return replace(decoder.decode(b""), records=1, rejects=[Reject(0, self.reason, self.detail, self.record)])

    def items(self) -> list[Converted | Reject]:
        """Return the same as lines of JSON."""
        return [Reject(self.first, self.reason, self.detail, self.record)]


class ArrowFormat:
    """One open input. A damaged stream is read up to the damage; what follows is one reject."""

    def __init__(self) -> None:
        self._stream = ArrowStream()
        self._first = 1
        self._batches = 0
        self._held: list[Any] = []
        self._held_rows = 0
        self._kind = ""
        self._damaged = False

    def feed(self, chunk: bytes) -> list[Converted | Reject]:
        """See `schemas.formats.Format`."""
        return [item for packet in self.cut(chunk) for item in packet.items()]

    def finish(self) -> list[Converted | Reject]:
        """See `schemas.formats.Format`."""
        return [item for packet in [*self.cut(b""), *self.lost()] for item in packet.items()]

    @property
    def position(self) -> int:
        """Row of the last record that was taken."""
        return self._first + self._held_rows - 1

    @property
    def unread(self) -> bytes:
        """The first bytes of a message that is not there as a whole."""
        return b"" if self._damaged else self._stream.unread

    def cut(self, data: bytes) -> list[_Rows | _Lost]:
        """See `schemas.formats.PacketFormat`."""
        packets: list[_Rows | _Lost] = []
        if not self._damaged:
            try:
                for batch in self._stream.feed(data):
                    packets += self._take(batch)
            except DamagedError as damage:
                self._batches += 1
                packets += self._lose(1, str(damage), self._stream.unread)
                self._damaged = True
        return packets if data else [*packets, *self._let_go()]

    def lost(self) -> list[_Lost]:
        """Return what is lost of an input that ended as it should not."""
        head = self.unread
        return [_Lost(self.position + 1, 1, DeadReason.TRUNCATED, _INSIDE, head)] if head else []

    def _take(self, batch: Any) -> list[_Rows | _Lost]:
        """Take one record batch; while there are few rows, hold it back."""
        self._batches += 1
        sound = checked(batch)
        if sound is None:
            return self._lose(len(batch), _UNSOUND, b"")
        alike = self._kind == self._stream.kind and self._held and self._held[0].schema.equals(sound.schema)
        packets = [] if alike else self._let_go()
        self._kind = self._stream.kind
        self._held.append(sound)
        self._held_rows += len(sound)
        return packets if self._held_rows < ROWS_MIN else [*packets, *self._let_go()]

    def _let_go(self) -> list[_Rows | _Lost]:
        """Return what was held back, in packets."""
        if not self._held:
            return []
        batch = self._held[0] if len(self._held) == 1 else pa.concat_batches(self._held)
        rows_max = LONG_ROWS_MAX if longest_text(batch) > TEXT_BYTES_MAX else ROWS_MAX
        packets: list[_Rows | _Lost] = [
            _Rows(self._first + at, self._kind, batch.slice(at, rows_max)) for at in range(0, len(batch), rows_max)
        ]
        self._first += len(batch)
        self._held, self._held_rows = [], 0
        return packets

    def _lose(self, rows: int, detail: str, record: bytes) -> list[_Rows | _Lost]:
        packets = self._let_go()
        detail = f"record batch {self._batches}: {detail}"
        packets.append(_Lost(self._first, rows, DeadReason.NOT_JSON, detail, record))
        self._first += rows
        return packets
