"""Vendor records to events: files in, one file out, and a file of what could not be taken."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import msgspec
import orjson
from msgspec import Struct

from dataflows.inputs.compressed import EndedEarlyError, read_chunks, written_whole
from dataflows.inputs.files import ended
from schemas.deadletters import DeadReason, Reject, dead_letter
from schemas.decode import RecordError, decode_record
from schemas.errors import InputError
from schemas.events import Call
from schemas.formats import Converted, Format, JoiningFormat


class ConvertCounts(Struct):
    """What became of the records of files.

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
    sources: Sequence[Path],
    out: Path,
    dead_letters: Path,
    opener: Callable[[], Format],
    report: Callable[[int], None],
    *,
    by_time: bool = False,
) -> ConvertCounts:
    """Convert files of vendor records to events.

    Every event is held against the contract before it is written, so `out` holds none that a deployment would
    refuse. Both files appear whole, or not at all; all three are compressed as their suffixes say.

    Args:
        sources: the vendor's files, in order; where records of one call may lie in several, they are one stream.
        out: events, one a line, in the order of the records.
        by_time: in the order of event time instead. Billing systems write account by account, and a call long before
            its customer's newest one counts as late. Holds all events in memory.
        dead_letters: what could not be taken, one a line, with the file and the line where it stood.
        opener: opens the vendor's format.
        report: is told how many bytes of all files have been read.

    Raises:
        InputError: a file cannot be read, or is not in that format.
        StaylineError: a file cannot be written.
    """
    counts = ConvertCounts()
    last: tuple[Path, int] | None = None
    held: list[tuple[int, bytes]] = []
    with written_whole(out) as events, written_whole(dead_letters) as letters:
        for source, position, item in _items(sources, opener, report):
            counts.records += (source, position) != last
            last = source, position
            judged = _judged(item)
            if isinstance(judged, Reject):
                counts.rejected += 1
                letter = dead_letter("file", f"{source}:{position}", judged)
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


def _items(
    sources: Sequence[Path], opener: Callable[[], Format], report: Callable[[int], None]
) -> Iterator[tuple[Path, int, Converted | Reject]]:
    """Give what the files hold, each with its file and its position there."""
    reader, ends, read = opener(), list[int](), 0
    for index, source in enumerate(sources):
        last, before = index == len(sources) - 1, ends[-1] if ends else 0
        for item in _of_one(source, reader, lambda done, read=read: report(read + done), before, last=last):  # type: ignore[misc]
            # What waited for this file may lie in one before it.
            file = bisect_left(ends, item.position)
            yield sources[index - len(ends) + file], item.position - (ends[file - 1] if file else 0), item
        read += source.stat().st_size if source.is_file() else 0
        if isinstance(reader, JoiningFormat):
            ends.append(reader.position)
        else:
            reader = opener()


def _of_one(
    source: Path, reader: Format, report: Callable[[int], None], before: int, *, last: bool
) -> Iterator[Converted | Reject]:
    position = before
    try:
        for chunk in read_chunks(source, report):
            for item in reader.feed(chunk):
                position = max(position, item.position)
                yield item
        yield from ended(reader, last=last)
    except EndedEarlyError:
        yield from ended(reader, last=last, torn=True)
        yield Reject(position + 1, DeadReason.TRUNCATED, "the input must decompress to its end, did not", b"")
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
