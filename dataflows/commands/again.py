"""Vendors' records, read again where they stood: what replays a dead letter that keeps only a record's outline.

A vendor's record is masked in its dead letter, and what is masked is no call any more. But the record still stands
where the letter says: in its file, or under its offset. There it is read again, by what the configuration says now,
with all that comes before it in the file (a head, the other leg of a call). What comes of it are events with tokens, so
no number is kept anywhere for the sake of a replay. A record that came by HTTP stands nowhere any more: its sender has
it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from msgspec import Struct

from dataflows.inputs.chunks import Chunk
from dataflows.inputs.files import FileReader, Place
from dataflows.inputs.kafka_client import error_of
from dataflows.inputs.messages import Origin, converted
from schemas.decode import decode
from schemas.errors import InputError
from schemas.formats import Format

Opener = Callable[[], Format]
Report = Callable[[int], None]

MESSAGE_S = 10.0
"""How long brokers may take to give one message."""

_MESSAGE = re.compile(r"(?P<topic>.+)\[(?P<partition>[0-9]+)\]@(?P<offset>[0-9]+)")
_GONE = "no record begins there now: must stand where it stood, mended, or be given to the input as a new one"


class Found(Struct, frozen=True):
    """What a place gives now: events, or why it gives none."""

    events: list[bytes]
    problem: str = ""


def in_files(paths: list[Path], wanted: Collection[str], opener: Opener, report: Report) -> dict[str, Found]:
    """Read files again, and return what the places wanted (`file:record`) give.

    Args:
        paths: all files of the input, in order: a format may go on from one to the next.
        wanted: the places.
        opener: opens the vendor's format.
        report: is told how many bytes have been read.
    """
    gathered = _Gathered(wanted)
    try:
        for cut in FileReader(paths, Place(), open_format=opener, report=report):
            if cut is not None:
                gathered.take(cut.chunk)
    except InputError as error:
        return gathered.found(str(error))
    return gathered.found(_GONE)


def in_topics(reached: Mapping[str, str], wanted: Collection[str], opener: Opener) -> dict[str, Found]:
    """Read messages again, and return what the places wanted (`topic[partition]@offset`) give.

    Args:
        reached: how the brokers are reached (see `kafka_client.connection`).
        wanted: the places.
        opener: opens the vendor's format for one message.
    """
    gathered = _Gathered(wanted)
    consumer = open_consumer(reached)
    try:
        for at in sorted(wanted):
            origin, message = origin_of(at), message_of(consumer, at)
            if origin is not None and message is not None:
                for chunk in converted([message.value()], [origin], opener):
                    gathered.take(chunk)
    except KafkaException as error:
        return gathered.found(f"the message must be readable, was not: {error_of(error).str()}")
    finally:
        consumer.close()
    return gathered.found("the message must be in its topic still, is not")


def message_of(consumer: Consumer, at: str) -> Message | None:
    """Read the message at one place; None where there is none any more.

    Raises:
        KafkaException: the brokers cannot be asked.
    """
    origin = origin_of(at)
    if origin is None:
        return None
    consumer.assign([TopicPartition(*origin)])
    found = consumer.consume(1, MESSAGE_S)
    # An offset that is gone is answered with an error, one that a compaction took with the next one there is.
    return next((one for one in found if one.error() is None and one.offset() == origin[2]), None)


def origin_of(at: str) -> Origin | None:
    """Return topic, partition and offset of a dead letter's place; None of one that is on no topic."""
    named = _MESSAGE.fullmatch(at)
    return None if named is None else (named["topic"], int(named["partition"]), int(named["offset"]))


def open_consumer(reached: Mapping[str, str]) -> Consumer:
    """Return a client that reads single messages."""
    own = {"group.id": "stayline-dead-letters", "enable.auto.commit": False, "auto.offset.reset": "error"}
    return Consumer(dict(reached) | own)


class _Gathered:
    """Gathers what places give: a record may give several events, and not all of them at once."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = set(wanted)
        self._lines: dict[str, list[bytes]] = defaultdict(list)
        self._problems: dict[str, str] = {}

    def take(self, chunk: Chunk) -> None:
        for reject in chunk.rejects:
            if (at := chunk.at(reject.position)) in self._wanted:
                self._problems.setdefault(at, f"{reject.reason}: {reject.detail}")
        for event in chunk.originals or []:
            if (at := chunk.at(event.position)) in self._wanted:
                self._lines[at].append(event.line)

    def found(self, otherwise: str) -> dict[str, Found]:
        """Return what each place gave; `otherwise` says why some gave nothing."""
        return {at: self._of(at, otherwise) for at in self._wanted}

    def _of(self, at: str, otherwise: str) -> Found:
        lines = self._lines[at]
        if at in self._problems or not lines:
            return Found([], self._problems.get(at, otherwise))
        return judged(lines)


def judged(lines: list[bytes]) -> Found:
    """Hold events against the contract: all of a record's, or none."""
    rejects = decode(b"\n".join(lines)).rejects
    if rejects:
        return Found([], f"{rejects[0].reason}: {rejects[0].detail}")
    return Found(lines) if any(map(bytes.strip, lines)) else Found([], "by itself the record gives no event")
