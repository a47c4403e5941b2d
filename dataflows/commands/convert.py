"""Vendor records to events: one file in, one file out, and a file of what could not be taken."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path

import msgspec
import orjson
from msgspec import Struct

from dataflows.inputs.compressed import EndedEarlyError, read_chunks, written_whole
from schemas.deadletters import DeadReason, Reject, dead_letter
from schemas.decode import RecordError, decode_record
from schemas.errors import InputError
from schemas.events import Call
from schemas.formats import Converted, Format


class ConvertCounts(Struct):
    """What became of the records of a file.

    Where a record is one event, as in `csv`, `events` and `rejected` add up to `records`.

    Attributes:
        records: what was read, blank lines and headers left out.
        events: lines written.
        rejected: dead letters written.
    """

    records: int = 0
    events: int = 0
    rejected: int = 0


def convert(
    source: Path,
    out: Path,
    dead_letters: Path,
    reader: Format,
    report: Callable[[int], None],
    *,
    by_time: bool = False,
) -> ConvertCounts:
    """Convert a file of vendor records to events.

    Every event is held against the contract before it is written, so `out` holds none that a deployment would
    refuse. Both files appear whole, or not at all; all three are compressed as their suffixes say.

    Args:
        source: the vendor's file.
        out: events, one a line, in the order of the records.
        by_time: in the order of event time instead. Billing systems write account by account, and a call long before
            its customer's newest one counts as late. Holds all events in memory.
        dead_letters: what could not be taken, one a line, with the line of `source` where it stood.
        reader: the vendor's format, freshly opened.
        report: is told how many bytes of `source` have been read.

    Raises:
        InputError: `source` cannot be read, or is not in that format.
        StaylineError: a file cannot be written.
    """
    counts = ConvertCounts()
    last_position = 0
    held: list[tuple[int, bytes]] = []
    with written_whole(out) as events, written_whole(dead_letters) as letters:
        for item in _items(source, reader, report):
            counts.records += item.position != last_position
            last_position = item.position
            judged = _judged(item)
            if isinstance(judged, Reject):
                counts.rejected += 1
                letter = dead_letter("file", f"{source}:{judged.position}", judged)
                letters.write(orjson.dumps(msgspec.to_builtins(letter)) + b"\n")
                continue
            counts.events += 1
            if by_time:
                held.append(judged)
            else:
                events.write(judged[1] + b"\n")
        held.sort(key=itemgetter(0))
        for _, line in held:
            events.write(line + b"\n")
    return counts


def _items(source: Path, reader: Format, report: Callable[[int], None]) -> Iterator[Converted | Reject]:
    position = 0
    try:
        for chunk in read_chunks(source, report):
            for item in reader.feed(chunk):
                position = item.position
                yield item
        yield from reader.finish()
    except EndedEarlyError:
        # What is still held in the reader may be half a record: it goes with the part that is lost.
        detail = "the input must decompress to its end, did not"
        yield Reject(position + 1, DeadReason.TRUNCATED, detail, b"")
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(f"{source}:") else f"{source}: {text}") from None


def _judged(item: Converted | Reject) -> tuple[int, bytes] | Reject:
    """Hold an event against the contract; return (event time, line), or what breaks it."""
    if isinstance(item, Reject):
        return item
    try:
        event = decode_record(item.line)
    except RecordError as error:
        return Reject(item.position, error.reason, error.detail, item.shown())
    return event.end_ms if isinstance(event, Call) else event.at_ms, item.line
