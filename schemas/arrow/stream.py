"""Arrow IPC bytes to record batches, message by message.

An encapsulated message is a marker, the size of its metadata, the metadata (a FlatBuffers table) and a body (Arrow
columnar format, "Encapsulated message format"). pyarrow reads them: it survives bytes that lie, but believes their
sizes. So what a message asks for in memory is read here first, and it goes on only when it is there as a whole and
asks for no more than `BATCH_BYTES_MAX`.
"""

import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from schemas.arrow.schema import FIELDS, kind_of
from schemas.errors import InputError
from schemas.text import I64

BATCH_BYTES_MAX = 1 << 28
"""A message, its buffers once decompressed, and what a stream adds to its dictionaries may each be this large: half a
million calls with every field."""

METADATA_BYTES_MAX = 1 << 22
"""The metadata of a message: some hundred bytes a column."""

MARKER = b"\xff\xff\xff\xff"
FILE_MAGIC = b"ARROW1\0\0"
"""Arrow's file format is this, then the same stream, then an index of which reading in order has no need."""

REFUSED = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises for bytes that are not what they claim to be."""

HEAD_BYTES = 4_096
"""How much is shown of a message that is not whole."""

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3


class DamagedError(Exception):
    """A stream cannot be read on from here: what must hold, what was found."""


class ArrowStream:
    """Reads a stream that comes in pieces of any size; several streams may follow one another.

    Attributes:
        kind: event type of the stream at hand.
    """

    def __init__(self) -> None:
        self.kind = ""
        self._pieces = _Pieces()
        self._begun = self._is_file = self._over = False
        self._source = _Source()
        self._reader: Any = None
        self._added_bytes = 0

    @property
    def unread(self) -> bytes:
        """The first bytes of a message that is not there as a whole."""
        return self._pieces.peek(min(self._pieces.size, HEAD_BYTES))

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take the next bytes; give each `pyarrow.RecordBatch` that they complete. To be run to its end.

        A batch holds the columns of the contract alone. Nothing in it has been checked yet but sizes.

        Raises:
            InputError: this is no Arrow stream, or its schema is not that of an event type.
            DamagedError: it breaks here; nothing may be fed afterwards.
        """
        if self._over:
            return
        self._pieces.add(data)
        if not self._begun and self._pieces.size >= len(FILE_MAGIC):
            self._begin()
        while self._begun and not self._over:
            message = self._next()
            if message is None:
                return
            if message.kind == _SCHEMA:
                self._open(message.data)
                continue
            if self._reader is None:
                raise DamagedError("a stream must begin with its schema, did not")
            if message.kind not in (_DICTIONARY, _BATCH):
                raise DamagedError("a message must be a schema, a dictionary or a record batch, was another")
            self._require_bounded(message)
            self._source.messages.append(message.data)
            if message.kind == _BATCH:
                yield self._read()

    def _begin(self) -> None:
        """Recognise the first bytes, whichever of the two forms they are."""
        self._begun = True
        head = self._pieces.peek(len(FILE_MAGIC))
        self._is_file = head == FILE_MAGIC
        if self._is_file:
            self._pieces.take(len(FILE_MAGIC))
        elif not head.startswith(MARKER):
            raise InputError("must be an Arrow IPC stream or file, begins otherwise")

    def _next(self) -> "_Message | None":
        """Take one whole message off the pieces; None: it is not there yet, or there is none any more."""
        while self._pieces.size >= 8:
            marker, size = struct.unpack("<4si", self._pieces.peek(8))
            if marker != MARKER:
                raise DamagedError("a message must begin with ff ff ff ff, did not")
            if size != 0:
                return self._cut(size)
            self._pieces.take(8)
            # The stream has ended as it should; behind it another one may begin, or a file's index.
            self._reader, self._over = None, self._is_file
            if self._over:
                self._pieces = _Pieces()
        return None

    def _cut(self, size: int) -> "_Message | None":
        if not 0 < size <= METADATA_BYTES_MAX:
            raise DamagedError(f"a message's metadata must have 1 to {METADATA_BYTES_MAX} bytes, claimed {size}")
        if self._pieces.size < 8 + size:
            return None
        message = _Message.of(self._pieces.peek(8 + size)[8:])
        whole = 8 + size + message.body_bytes
        return message._replace(data=self._pieces.take(whole)) if whole <= self._pieces.size else None

    def _open(self, data: memoryview) -> None:
        if self._reader is not None:
            raise DamagedError("a stream must have one schema, had another behind it")
        try:
            schema = ipc.read_schema(pa.py_buffer(data))
            self.kind = kind_of(schema)
            wanted = [at for at, name in enumerate(schema.names) if name in FIELDS[self.kind]]
            self._source.messages.append(data)
            options = ipc.IpcReadOptions(use_threads=False, included_fields=wanted)
            self._reader = ipc.open_stream(self._source, options=options)
        except REFUSED:
            raise InputError("must begin with the schema of an Arrow stream, did with none that can be read") from None
        self._added_bytes = 0

    def _require_bounded(self, message: "_Message") -> None:
        asked = message.asked_bytes()
        # Additions to a dictionary are kept to the end of the stream; a new dictionary takes the place of the old one.
        self._added_bytes += asked if message.adds else 0
        if max(asked, self._added_bytes) > BATCH_BYTES_MAX:
            raise DamagedError(f"a batch must be at most {BATCH_BYTES_MAX} bytes in memory, claimed more")

    def _read(self) -> Any:
        try:
            batch = self._reader.read_next_batch()
            batch.validate()
        except (*REFUSED, StopIteration):
            raise DamagedError("a record batch must have the columns of its schema, had not") from None
        return batch


class _Pieces:
    """Bytes that come in pieces and are taken in whole messages, copied once at most.

    Attributes:
        size: how many there are.
    """

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[memoryview] = []

    def add(self, data: bytes) -> None:
        """Put bytes behind the others."""
        if data:
            self._pieces.append(memoryview(data))
            self.size += len(data)

    def peek(self, size: int) -> bytes:
        """Return the first bytes; so many must be there."""
        return bytes(self._front(size)[:size])

    def take(self, size: int) -> memoryview:
        """Take the first bytes away; so many must be there."""
        front = self._front(size)
        self._pieces[:1] = [front[size:]] if len(front) > size else []
        self.size -= size
        return front[:size]

    def _front(self, size: int) -> memoryview:
        if size and len(self._pieces[0]) < size:
            count, total = 0, 0
            while total < size:
                total += len(self._pieces[count])
                count += 1
            self._pieces[:count] = [memoryview(b"".join(self._pieces[:count]))]
        return self._pieces[0] if self._pieces else memoryview(b"")


class _Source:
    """What pyarrow takes for an open file: the messages that are there as a whole."""

    closed = False

    def __init__(self) -> None:
        self.messages: deque[memoryview] = deque()

    def read(self, size: int) -> memoryview | bytes:
        """Return the next bytes; never of two messages at once."""
        if not self.messages:
            return b""
        message = self.messages.popleft()
        if size < len(message):
            self.messages.appendleft(message[size:])
        return message[:size]

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class _Message(NamedTuple):
    """What the metadata of a message say of its size.

    Attributes:
        kind: of its header; see `_SCHEMA` and so on.
        adds: it adds to a dictionary.
        body_bytes: size of the body.
        buffers: (number, 2): where in the body each buffer begins, and its size.
        compressed: each buffer begins with its size once decompressed.
        data: the message as a whole.
    """

    kind: int
    adds: bool
    body_bytes: int
    buffers: I64
    compressed: bool
    data: memoryview = memoryview(b"")

    @classmethod
    def of(cls, metadata: bytes) -> Self:
        """Read the metadata (Arrow's Message.fbs; slots count from 0 in the order of declaration).

        Raises:
            DamagedError: they are not what they must be.
        """
        try:
            message = _Table(metadata, _number("<I", metadata, 0))
            kind, body_bytes = message.number(1, "<B"), message.number(3, "<q")
            if not 0 <= body_bytes <= BATCH_BYTES_MAX:
                raise DamagedError(f"a message's body must have 0 to {BATCH_BYTES_MAX} bytes, claimed {body_bytes}")
            batch, adds = message, False
            if kind in (_DICTIONARY, _BATCH):
                batch = message.table(2)
            if kind == _DICTIONARY:
                batch, adds = batch.table(1), bool(batch.number(2, "<B"))
            if kind not in (_DICTIONARY, _BATCH):
                return cls(kind, adds, body_bytes, np.zeros((0, 2), np.int64), compressed=False)
            return cls(kind, adds, body_bytes, batch.pairs(2), compressed=batch.place(3) != 0)
        except (struct.error, ValueError):
            raise DamagedError("a message's metadata must be a FlatBuffers table, were not") from None

    def asked_bytes(self) -> int:
        """Return how much memory reading this message would take."""
        if not self.compressed:
            return int(self.buffers[:, 1].clip(0, BATCH_BYTES_MAX + 1).sum())
        body_at = len(self.data) - self.body_bytes
        asked = 0
        for at, size in self.buffers.tolist():
            whole = size
            if size >= 8 and 0 <= at <= self.body_bytes - 8:
                whole = _number("<q", self.data, body_at + at)
            asked += max(size, whole, 0)
        return asked


class _Table(NamedTuple):
    """A table of FlatBuffers: where it begins, and through its offsets where its fields are."""

    data: bytes
    at: int

    def place(self, slot: int) -> int:
        """Return where a field is, 0 where it is absent."""
        layout = self.at - _number("<i", self.data, self.at)
        entry = 4 + 2 * slot
        if entry + 2 > _number("<H", self.data, layout):
            return 0
        offset = _number("<H", self.data, layout + entry)
        return self.at + offset if offset else 0

    def number(self, slot: int, layout: str) -> int:
        """Return a number, 0 where it is absent."""
        place = self.place(slot)
        return _number(layout, self.data, place) if place else 0

    def table(self, slot: int) -> "_Table":
        """Return a table inside this one."""
        place = self.place(slot)
        return _Table(self.data, place + _number("<I", self.data, place))

    def pairs(self, slot: int) -> I64:
        """Return a list of pairs of 64-bit integers."""
        place = self.place(slot)
        if not place:
            return np.zeros((0, 2), np.int64)
        place += _number("<I", self.data, place)
        count = _number("<I", self.data, place)
        return np.frombuffer(self.data, "<i8", 2 * count, place + 4).reshape(-1, 2)


def _number(layout: str, data: bytes | memoryview, at: int) -> int:
    if at < 0:
        raise struct.error("a place must lie inside the data")
    number: int = struct.unpack_from(layout, data, at)[0]
    return number
