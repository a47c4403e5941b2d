"""What arrives by HTTP is on disk before it is acknowledged, and is read from there like any file.

Segments of NDJSON in a folder, named by number; the newest one grows. A crash between a request and its answer leaves
the records in the spool or not at all: the sender repeats the request, and equal call ids count once.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from dataflows.chunks import Chunk
from dataflows.files import CHUNK_BYTES, Cut, Place

SEGMENT_BYTES = 64 << 20
"""A segment is closed at this size, and deleted once checkpoints have passed it."""

SAFE_PLACES = 16
"""So many checkpoints must have passed a segment before it is deleted: the engine may resume at the one before last."""


def _segment(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.ndjson"


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.ndjson"))


class Spool:
    """A folder of segments; one writer, one reader.

    Args:
        folder: made if missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._lock = threading.Lock()
        self._number = max(_numbers(folder), default=0)
        self._mend(_segment(folder, self._number))

    @staticmethod
    def _mend(path: Path) -> None:
        """Cut off a line that a crash left without its end: its request was never acknowledged."""
        if not path.exists():
            return
        with path.open("rb+") as stream:
            data = stream.read()
            stream.truncate(data.rfind(b"\n") + 1)

    def append(self, body: bytes) -> None:
        """Make records durable: on return they are on disk.

        Args:
            body: NDJSON; a last line without its line end gets one.
        """
        if not body.endswith(b"\n"):
            body += b"\n"
        with self._lock:
            path = _segment(self._folder, self._number)
            if path.exists() and path.stat().st_size >= SEGMENT_BYTES:
                self._number += 1
                path = _segment(self._folder, self._number)
            with path.open("ab") as stream:
                stream.write(body)
                stream.flush()
                os.fsync(stream.fileno())

    def read(self, place: Place) -> Iterator[Cut | None]:
        """Give what was appended from a place on, for ever; None where there is nothing new yet."""
        oldest = min(_numbers(self._folder), default=0)
        place = place if place.file >= oldest else Place(oldest)
        while True:
            path = _segment(self._folder, place.file)
            lines = self._whole_lines(path, place.offset)
            if lines:
                count = lines.count(b"\n")
                positions = range(place.line + 1, place.line + 1 + count)
                place = Place(place.file, place.offset + len(lines), place.line + count)
                yield Cut(Chunk("http", path.name, lines, positions), place)
            elif place.file < self._number:
                place = Place(place.file + 1)
            else:
                yield None

    @staticmethod
    def _whole_lines(path: Path, offset: int) -> bytes:
        if not path.exists():
            return b""
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(CHUNK_BYTES)
            cut = data.rfind(b"\n") + 1
            # A line longer than a chunk: read on to its end.
            while not cut and (more := stream.read(CHUNK_BYTES)):
                data += more
                cut = data.rfind(b"\n") + 1
        return data[:cut]

    def prune(self, file: int) -> None:
        """Delete the segments before this one."""
        for number in _numbers(self._folder):
            if number < file and number != self._number:
                _segment(self._folder, number).unlink(missing_ok=True)
