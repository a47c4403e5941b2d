"""Reading recorded events: plain, gzip or Zstandard files, one after the other, from any place on.

A file is cut into chunks at line ends. A line longer than a record may be is never held whole: its head goes on as a
record that the decoder refuses, the rest is read and dropped.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import zstandard

from dataflows.chunks import Chunk, converted
from schemas.deadletters import DeadReason, Reject
from schemas.decode import RECORD_BYTES_MAX
from schemas.errors import InputError
from schemas.formats import Format

CHUNK_BYTES = 1 << 18
"""A quarter of a megabyte, some five hundred calls: small against a second of traffic, large against the cost of an
item of the flow."""

READ_BYTES = 1 << 20


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


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressing by its suffix.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]  # GzipFile is a byte stream
        if path.suffix == ".zst":
            return zstandard.open(path, "rb")
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: must be a readable file, was not: {error.strerror}") from None


class FileReader:
    """Reads files as chunks.

    Args:
        paths: the files, in order.
        chunk_bytes: about how much goes into a chunk.
        place: where to begin.
        open_format: opens the vendor's format for one file; None: the files hold contract events.
        follow: at the end of the last file, wait for it to grow.
        source: the input's kind, for dead letters.

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
        source: str = "file",
    ) -> None:
        self._paths = paths
        self._place = place
        self._chunk_bytes = chunk_bytes
        self._open_format = open_format
        self._follow = follow
        self._source = source

    def __iter__(self) -> Iterator[Cut | None]:
        """Give chunks; None where a followed file has nothing new yet."""
        for index in range(self._place.file, len(self._paths)):
            begin = self._place if index == self._place.file else Place(index)
            waits = self._follow and index == len(self._paths) - 1
            with open_plain(self._paths[index]) as stream:
                if self._open_format is None:
                    yield from self._cut_lines(stream, self._paths[index], begin, waits=waits)
                else:
                    yield from self._cut_records(stream, self._paths[index], begin, self._open_format())

    def _cut_lines(self, stream: IO[bytes], path: Path, place: Place, *, waits: bool) -> Iterator[Cut | None]:
        _skip(stream, place.offset)
        cutter = _LineCutter()
        while True:
            data, broken = _read(stream, self._chunk_bytes)
            if not data and waits and broken is None:
                yield None
                continue
            taken, size = cutter.feed(data) if data else cutter.finish()
            if taken:
                count = taken.count(b"\n") + (not taken.endswith(b"\n"))
                positions = range(place.line + 1, place.line + 1 + count)
                place = Place(place.file, place.offset + size, place.line + count)
                yield Cut(Chunk(self._source, str(path), taken, positions), place)
            if broken is not None:
                reject = Reject(place.line + 1, DeadReason.TRUNCATED, broken, b"")
                yield Cut(Chunk(self._source, str(path), b"", (), rejects=[reject]), Place(place.file + 1))
            if not data:
                return

    def _cut_records(self, stream: IO[bytes], path: Path, place: Place, reader: Format) -> Iterator[Cut]:
        """Convert a file from its beginning, whatever the place: a format may carry state from its first line on."""
        seen = 0
        while data := stream.read(self._chunk_bytes):
            items = reader.feed(data)
            seen += len(items)
            if items and seen > place.line:
                fresh = items[-min(len(items), seen - place.line) :]
                yield Cut(converted(self._source, str(path), fresh), Place(place.file, 0, seen))
        items = reader.finish()
        if items and seen + len(items) > place.line:
            yield Cut(converted(self._source, str(path), items), Place(place.file, 0, seen + len(items)))


def _skip(stream: IO[bytes], offset: int) -> None:
    left = offset
    while left and (data := stream.read(min(left, READ_BYTES))):
        left -= len(data)


def _read(stream: IO[bytes], size: int) -> tuple[bytes, str | None]:
    """Read on; return (bytes, what is broken): damaged compression ends a file, and is told."""
    try:
        return stream.read(size), None
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        return b"", f"the file must decompress to its end, did not: {error}"


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
