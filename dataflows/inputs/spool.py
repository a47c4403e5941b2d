"""What arrives by HTTP is on disk before it is acknowledged, and is read from there like any file.

Segments of NDJSON in a folder, named by number; the newest one grows. A crash between a request and its answer leaves
records in the spool or not: the sender repeats the request, and equal call ids count once.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from dataflows.durable import cut_torn_line, sync_folder
from dataflows.inputs.chunks import Chunk
from dataflows.inputs.files import CHUNK_BYTES, Cut, Place
from schemas.errors import StateError

SEGMENT_BYTES = 64 << 20
"""A segment is closed at this size, and deleted once checkpoints have passed it."""

SPOOL_BYTES_MAX = 8 << 30
"""So much may wait: a day of two hundred calls a second. Then senders are asked to wait."""


class SpoolFullError(StateError):
    """What was taken and not yet applied fills the spool: nothing was stored, the sender must come again."""


class Spool:
    """A folder of segments; one process, many writing threads, one reader.

    Args:
        folder: made if missing.
        segment_bytes: a segment that has reached this size is closed.
        bytes_max: so much may lie in the folder.

    Attributes:
        total_bytes: so much lies in the folder.

    Raises:
        StateError: the folder cannot be read and written.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES, bytes_max: int = SPOOL_BYTES_MAX) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            newest = max(self._numbers(), default=0)
            # Newest segment, and how much of it is durable, in one value: the reader need not wait for the writers.
            # A line without its end was never acknowledged.
            self._end = newest, cut_torn_line(self._segment(newest))
            self.total_bytes = sum(self._segment(number).stat().st_size for number in self._numbers())
        except OSError as error:
            raise StateError(f"{folder}: must be readable and writable, was not: {error.strerror}") from None

    def append(self, body: bytes) -> None:
        """Make records durable: on return they are on disk.

        Args:
            body: NDJSON; a last line without its line end gets one.

        Raises:
            SpoolFullError: there is no room until more has been read.
            StateError: the disk does not take them.
        """
        if not body.endswith(b"\n"):
            body += b"\n"
        with self._lock:
            if self.total_bytes + len(body) > self._bytes_max:
                raise SpoolFullError(f"{self._folder}: must hold at most {self._bytes_max} bytes, would hold more")
            number, size = self._end
            if size >= self._segment_bytes:
                number, size = number + 1, 0
            path = self._segment(number)
            try:
                self._write(path, size, body)
            except OSError as error:
                raise StateError(f"{path}: must be writable, was not: {error.strerror}") from None
            self._end = number, size + len(body)
            self.total_bytes += len(body)

    def _write(self, path: Path, size: int, body: bytes) -> None:
        """Write behind the `size` bytes that are durable, over what a failed write has left there."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.seek(size)
            stream.truncate()
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
        if size == 0:
            sync_folder(self._folder)

    def read(self, place: Place) -> Iterator[Cut | None]:
        """Give what was appended from a place on, for ever; None where there is nothing new yet.

        Raises:
            StateError: what was appended there is gone (on iteration).
        """
        if place == Place():
            place = Place(min(self._numbers(), default=0))
        path = self._segment(place.file)
        size = path.stat().st_size if path.exists() else 0
        if size < place.offset:
            raise StateError(f"{path}: must hold the {place.offset} bytes read of it before, held {size}")
        while True:
            newest, durable = self._end
            lines = self._whole_lines(place, durable if place.file == newest else None)
            if lines:
                path, before, count = self._segment(place.file), place.line, lines.count(b"\n")
                place = Place(place.file, place.offset + len(lines), before + count)
                yield Cut(Chunk("http", path.name, lines, range(before + 1, place.line + 1)), place)
            elif place.file < newest:
                place = Place(place.file + 1)
            else:
                yield None

    def _whole_lines(self, place: Place, end: int | None) -> bytes:
        """Return some lines from a place on; nothing behind `end`, which may not be durable yet."""
        path = self._segment(place.file)
        if end == place.offset or not path.exists():
            return b""
        with path.open("rb") as stream:
            stream.seek(place.offset)
            data = stream.read(CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - place.offset))
            # A line longer than a chunk: read on to its end. What is durable ends with a line.
            return data[: data.rfind(b"\n") + 1] or data + stream.readline()

    def prune(self, file: int) -> None:
        """Delete the segments before this one."""
        for number in self._numbers():
            if number < min(file, self._end[0]):
                path = self._segment(number)
                size = path.stat().st_size
                path.unlink(missing_ok=True)
                with self._lock:
                    self.total_bytes -= size

    def _segment(self, number: int) -> Path:
        return self._folder / f"{number:012d}.ndjson"

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.ndjson"))
