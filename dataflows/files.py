"""Reading recorded events: plain, gzip or Zstandard files, one after the other, from any place on.

A file is cut into chunks at line ends. A line longer than a record may be is never held whole: its head goes on as a
record that the decoder refuses, the rest is read and dropped.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from dataflows.chunks import Chunk, converted
from dataflows.compressed import EndedEarlyError, read_chunks
from schemas.deadletters import DeadReason, Reject
from schemas.decode import RECORD_BYTES_MAX
from schemas.errors import InputError
from schemas.formats import Converted, Format

CHUNK_BYTES = 1 << 18
"""A quarter of a megabyte, some five hundred calls: small against a second of traffic, large against the cost of an
item of the flow."""

Report = Callable[[int], None]
"""Is told how many bytes, as they lie on disk, have been read of all files."""


class Place(NamedTuple):
    """Where reading goes on.

    Attributes:
        file: index into the list of files.
        offset: bytes of it, after decompression, that were read.
        line: lines of it that were read.
    """

    file: int = 0
    offset: int = 0
    line: int = 0


class Cut(NamedTuple):
    """A chunk, and where reading goes on behind it."""

    chunk: Chunk
    place: Place


class FileReader:
    """Reads files as chunks.

    Args:
        paths: the files, in order.
        chunk_bytes: about how much goes into a chunk.
        place: where to begin.
        open_format: opens the vendor's format for one file; None: the files hold contract events.
        follow: at the end of the last file, wait for it to grow.
        report: is told how far reading has come.

    Raises:
        InputError: a file cannot be opened (on iteration).
    """

    def __init__(
        self,
        paths: list[Path],
        place: Place,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        open_format: Callable[[], Format] | None = None,
        follow: bool = False,
        report: Report = lambda _: None,
    ) -> None:
        self._paths = paths
        self._place = place
        self._chunk_bytes = chunk_bytes
        self._open_format = open_format
        self._follow = follow
        self._report = report

    def __iter__(self) -> Iterator[Cut | None]:
        """Give chunks; None where a followed file has nothing new yet."""
        read = 0
        for index in range(self._place.file, len(self._paths)):
            begin = self._place if index == self._place.file else Place(index)
            path = self._paths[index]
            waits = self._follow and index == len(self._paths) - 1
            data = self._pieces(path, read, waits=waits)
            if self._open_format is None:
                yield from self._cut_lines(data, path, begin)
            else:
                yield from self._cut_records(data, path, begin, self._open_format())
            read += path.stat().st_size

    def _pieces(self, path: Path, before: int, *, waits: bool) -> Iterator[bytes | None]:
        """Give a file's bytes, decompressed, in pieces of about `chunk_bytes`; None where a followed one pauses."""
        if waits:
            yield from _followed(path, self._chunk_bytes)
        for data in read_chunks(path, lambda done: self._report(before + done)):
            for at in range(0, len(data), self._chunk_bytes):
                yield data[at : at + self._chunk_bytes]

    def _cut_lines(self, pieces: Iterator[bytes | None], path: Path, place: Place) -> Iterator[Cut | None]:
        cutter = _LineCutter()
        skip = place.offset
        try:
            for piece in pieces:
                if piece is None:
                    yield None
                    continue
                fresh = piece[skip:]
                skip = max(0, skip - len(piece))
                cut, place = self._cut(cutter.feed(fresh), path, place)
                yield from cut
        except EndedEarlyError as error:
            cut, place = self._cut(cutter.finish(), path, place)
            yield from cut
            yield _truncated(path, place, str(error))
            return
        yield from self._cut(cutter.finish(), path, place)[0]

    @staticmethod
    def _cut(taken: tuple[bytes, int], path: Path, place: Place) -> tuple[list[Cut], Place]:
        lines, size = taken
        if not lines:
            return [], place
        count = lines.count(b"\n") + (not lines.endswith(b"\n"))
        positions = range(place.line + 1, place.line + 1 + count)
        place = Place(place.file, place.offset + size, place.line + count)
        return [Cut(Chunk("file", str(path), lines, positions), place)], place

    def _cut_records(
        self, pieces: Iterator[bytes | None], path: Path, place: Place, reader: Format
    ) -> Iterator[Cut | None]:
        """Convert a file from its beginning, whatever the place: a format may carry state from its first line on."""
        seen = 0
        try:
            for piece in pieces:
                items = [] if piece is None else reader.feed(piece)
                seen += len(items)
                yield _fresh(items, seen, path, place) if piece is not None else None
        except EndedEarlyError as error:
            items = reader.finish()
            yield _fresh(items, seen + len(items), path, place)
            yield _truncated(path, Place(place.file, 0, seen + len(items)), str(error))
            return
        items = reader.finish()
        yield _fresh(items, seen + len(items), path, place)


def _fresh(items: list[Converted | Reject], seen: int, path: Path, place: Place) -> Cut:
    """Make a chunk of those items that lie behind a place; `seen` counts them to their end."""
    fresh = items[max(0, len(items) - max(0, seen - place.line)) :]
    return Cut(converted("file", str(path), fresh), Place(place.file, 0, max(seen, place.line)))


def _truncated(path: Path, place: Place, problem: str) -> Cut:
    """Make a chunk of the one reject that says that a file broke off."""
    reject = Reject(place.line + 1, DeadReason.TRUNCATED, problem, b"")
    return Cut(Chunk("file", str(path), b"", (), rejects=[reject]), Place(place.file + 1))


def _followed(path: Path, size: int) -> Iterator[bytes | None]:
    """Give a growing file's bytes, for ever; None where there is nothing new."""
    try:
        with path.open("rb") as stream:
            while True:
                yield stream.read(size) or None
    except OSError as error:
        raise InputError(f"{path}: must be a file that can be read, was not: {error.strerror}") from None


class _LineCutter:
    """Cuts a stream at line ends; of a line too long it holds the head alone."""

    def __init__(self) -> None:
        self._held = b""
        self._dropped = 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return the whole lines so far, and how many bytes of the stream they stand for."""
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._hold(data)
            return b"", 0
        size = len(self._held) + self._dropped + cut
        first = data.find(b"\n") if self._dropped else 0
        lines = self._held + data[first:cut]
        self._held, self._dropped = b"", 0
        self._hold(data[cut:])
        return lines, size

    def finish(self) -> tuple[bytes, int]:
        """Return the last line, which lacks its line end."""
        held, size = self._held, len(self._held) + self._dropped
        self._held, self._dropped = b"", 0
        return held, size

    def _hold(self, data: bytes) -> None:
        self._held += data
        # One byte more than a record may have: the decoder then refuses it.
        self._dropped += max(0, len(self._held) - RECORD_BYTES_MAX - 1)
        self._held = self._held[: RECORD_BYTES_MAX + 1]
