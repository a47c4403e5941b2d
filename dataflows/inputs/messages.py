"""Messages as chunks: what one poll of a broker gave becomes one item of the flow, whatever the messages hold."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Message

from dataflows.inputs.chunks import Chunk, line_count
from schemas.deadletters import DeadReason, Reject
from schemas.errors import InputError
from schemas.formats import Converted, Format, Packet, PacketFormat
from schemas.formats.masks import refused

_one_value = msgspec.json.Decoder(msgspec.Raw)

_NONE = "a message must hold a record, held none"
_INSIDE = "a message must hold whole records, ended inside of one"

SPREAD_ANEW = "keys are spread anew over them, and customers come in other partitions than those that know them"
"""What is wrong with another number of partitions, where each is kept apart."""

Origin = tuple[str, int, int]
"""Topic, partition and offset of a message."""


class Taken(Sequence[Origin]):
    """What was taken of messages, and where they stood. The messages themselves can go: few of them fit a cache.

    Args:
        topic: of all of them; None: of several.
        number: of the partition of all of them, where all are of one topic; None: of several.

    Attributes:
        values: what they hold.
    """

    def __init__(self, topic: str | None = None, number: int | None = None) -> None:
        self._topic = topic
        self._number = None if topic is None else number
        self._topics: list[str | None] = []
        self._numbers: list[int | None] = []
        self._offsets: list[int | None] = []
        self.values: list[Any] = []

    @property
    def size(self) -> int:
        """About how much they hold, in bytes: to ask each of them would take as long as to join them."""
        some = self.values[::16]
        return sum(map(len, filter(None, some))) * len(self.values) // max(1, len(some))

    def add(self, messages: Sequence[Message]) -> None:
        """Take some more, without a step of Python for each, and nothing of each that is known of all."""
        self.values += map(Message.value, messages)
        if self._topic is None:
            self._topics += map(Message.topic, messages)
        if self._number is None:
            self._numbers += map(Message.partition, messages)
        self._offsets += self._offsets_of(messages)

    def _offsets_of(self, messages: Sequence[Message]) -> Iterable[int | None]:
        if self._number is not None and messages:
            # In one partition offsets rise: as many as there are numbers from the first to the last are all of them.
            found = range(int(messages[0].offset() or 0), int(messages[-1].offset() or 0) + 1)
            if len(found) == len(messages):
                return found
        return map(Message.offset, messages)

    def ends(self) -> dict[tuple[str, int], int]:
        """Return the offset behind the last message of each topic's partition."""
        if self._topic is not None and self._number is not None:
            return {(self._topic, self._number): int(self._offsets[-1] or 0) + 1}
        topics = repeat(self._topic, len(self)) if self._topic is not None else self._topics
        parts = zip(topics, self._numbers, strict=True)
        return {part: int(at or 0) + 1 for part, at in dict(zip(parts, self._offsets, strict=True)).items()}  # type: ignore[misc]  # they are known

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        topic = self._topics[index] if self._topic is None else self._topic
        number = self._numbers[index] if self._number is None else self._number
        return topic, number, self._offsets[index]


class Shard(NamedTuple):
    """The partition that messages are of, where partitions are kept apart: of that number in every topic.

    Attributes:
        number: of the partition.
        partitions: how many each topic has: where that changes, customers come in other partitions.
        place: where reading this partition goes on behind the messages (see `KafkaReader.read`).
    """

    number: int
    partitions: int
    place: tuple[int, ...]


class Sharded(NamedTuple):
    """Chunks of one partition; what is read stands in the checkpoint of that partition."""

    shard: Shard
    chunks: list[Chunk]


@dataclass(frozen=True, slots=True)
class Messages(Chunk):
    """The records of one poll; their positions number its messages.

    Attributes:
        origins: topic, partition and offset of each message.
    """

    origins: Sequence[Origin] = ()

    def at(self, position: int) -> str:
        """Return where a message stood."""
        return place_of(*self.origins[position])


def joined(values: Sequence[bytes | None], origins: Sequence[Origin]) -> Messages:
    """Join contract events; a message without a record is a dead letter, for what was read must add up."""
    if all(values) and not any(map(bytes.isspace, values)):  # type: ignore[arg-type]  # none is None
        data = b"\n".join(values)  # type: ignore[arg-type]  # none is None
        if line_count(data) == len(values) - 1:
            return Messages("kafka", "", data, range(len(values)), origins=origins)
    parts: list[bytes] = []
    positions: list[int] = []
    rejects: list[Reject] = []
    for index, value in enumerate(values):
        if value is None or not value or value.isspace():
            found = "was null" if value is None else "was empty"
            rejects.append(Reject(index, DeadReason.NOT_JSON, f"a message must hold a record, {found}", value or b""))
            continue
        lines = _record_or_records(value) if b"\n" in value else value
        parts.append(lines)
        positions += [index] * (line_count(lines) + 1)
    return Messages("kafka", "", b"\n".join(parts), positions, rejects=rejects, origins=origins)


def _record_or_records(value: bytes) -> bytes:
    """Return the lines of a message: one for a record that was written over several."""
    value = value.strip(b"\r\n")
    try:
        _one_value.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value
    # Between the words of one JSON value a line end is space; inside of them it cannot stand.
    return value.replace(b"\n", b" ")


def converted(
    values: Sequence[bytes | None], origins: Sequence[Origin], open_format: Callable[[], Format]
) -> list[Chunk]:
    """Convert messages, each an input of its own, as a request body or a file is."""
    events: list[Converted] = []
    rejects: list[Reject] = []
    packets: list[Chunk] = []
    for index, value in enumerate(values):
        reader = open_format()
        if isinstance(reader, PacketFormat):
            packets += _packets(value or b"", reader, place_of(*origins[index]))
            continue
        try:
            items = [*reader.feed(value or b""), *reader.finish()]
        except InputError as error:
            items = [refused(0, DeadReason.NOT_JSON, str(error), value or b"")]
        for item in items or [refused(0, DeadReason.NOT_JSON, _NONE, value or b"")]:
            # Of a message its number is what counts here; the line inside of it would say little.
            placed = msgspec.structs.replace(item, position=index)
            events.append(placed) if isinstance(placed, Converted) else rejects.append(placed)
    if packets:
        return packets
    text = Messages(
        source="kafka",
        name="",
        data=b"\n".join(event.line for event in events),
        positions=[event.position for event in events],
        originals=events,
        rejects=rejects,
        origins=origins,
    )
    return [text]


def _packets(value: bytes, reader: PacketFormat, at: str) -> list[Chunk]:
    """Cut one message; what of it is nothing whole becomes a dead letter behind what is."""
    packets: list[Packet] = []
    problem, reason, rest = "", DeadReason.NOT_JSON, value
    try:
        packets += reader.cut(value)
        packets += reader.cut(b"")
    except InputError as error:
        problem = str(error)
    if not problem and reader.unread:
        problem, reason, rest = _INSIDE, DeadReason.TRUNCATED, reader.unread
    if not problem and not packets:
        problem = _NONE
    chunks = [Chunk("kafka", at, one, range(one.first, one.first + one.count)) for one in packets]
    if problem:
        chunks.append(Chunk("kafka", at, b"", (), rejects=[Reject(reader.position + 1, reason, problem, rest)]))
    return chunks


def place_of(topic: str, partition: int, offset: int) -> str:
    """Write where a message stands."""
    return f"{topic}[{partition}]@{offset}"
