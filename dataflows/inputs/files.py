"""Reading recorded events: plain, gzip or Zstandard files, one after the other, from any place on.

A file is cut into chunks at line ends. A line longer than a record may be is never held whole: its head goes on as a
record that the decoder refuses, the rest is read and dropped.
"""

import os
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dataflows.inputs.chunks import Chunk, converted, line_count
from dataflows.inputs.compressed import EndedEarlyError, UnfitFileError, read_chunks
from dataflows.inputs.folder import Folder, Listed
from schemas.deadletters import DeadReason, Reject
from schemas.decode import RECORD_BYTES_MAX
from schemas.errors import InputError
from schemas.formats import Converted, Format, JoiningFormat, PacketFormat

CHUNK_BYTES = 4 << 20
"""Some eight thousand calls, applied within thirty milliseconds: what a batch costs apart from its calls, a
millisecond or two, then hardly counts."""

MARK_BYTES = 4_096
"""By so many bytes a file is told from another one: a few records with their times and ids."""

_INSIDE = "a file must end behind a whole message, ended inside one"

Report = Callable[[int], None]
"""Is told how many bytes, as they lie on disk, have been read of all files."""


class Place(NamedTuple):
    """Where reading goes on.

    Attributes:
        file: index into the list of files.
        offset: bytes of it, after decompression, that were read.
        line: lines of it that were read; of a vendor's format, events and rejects that it gave.
        mark: CRC-32 of its first bytes, `MARK_BYTES` or as many as were read: by it the file is known again.
    """

    file: int = 0
    offset: int = 0
    line: int = 0
    mark: int = 0


class Cut(NamedTuple):
    """A chunk, and where reading goes on behind it."""

    chunk: Chunk
    place: Place

    @property
    def chunks(self) -> list[Chunk]:
        """The chunk alone."""
        return [self.chunk]


class FileReader:
    """Reads files as chunks.

    Args:
        paths: the files, in order, or the folder into which they come.
        chunk_bytes: about how much goes into a chunk.
        place: where to begin.
        open_format: opens the vendor's format for one file; None: the files hold contract events.
        follow: at the end of the last file, wait for it to grow.
        report: is told how far reading has come.

    Raises:
        InputError: a file cannot be opened, or is not the one in which the place was given (on iteration).
    """

    def __init__(
        self,
        paths: list[Path] | Folder,
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
        """Give chunks; None where a followed file has nothing new yet, and a folder no new file."""
        read = 0
        reader = self._opened()
        before = _Before()
        # Where calls go on from one file to the next, so must the reader: it begins with the first file again.
        joins, begun = isinstance(reader, JoiningFormat), self._place.file
        for listed in self._listed(0 if joins else begun):
            if listed is None:
                yield None
                continue
            path = listed.path
            begin = self._place if listed.number == begun else Place(listed.number)
            try:
                for cut in self._cut(listed, begin, before, reader, read):
                    if cut is None or cut.place.file >= begun:
                        yield cut
            except UnfitFileError as error:
                if not isinstance(self._paths, Folder):
                    raise
                yield _refused(path, Place(listed.number + 1), Reject(1, DeadReason.NOT_JSON, str(error), b""))
            if isinstance(self._paths, Folder) and listed.number >= begun:
                # It may be moved away from here on.
                yield Cut(Chunk("file", str(path), b"", ()), Place(listed.number + 1))
            reader = reader if joins else self._opened()
            read += path.stat().st_size if path.exists() else 0

    def _listed(self, first: int) -> Iterator[Listed | None]:
        """Give the files from a number on; None where one has not come yet."""
        if isinstance(self._paths, Folder):
            yield from self._paths.files(first, self._place.file)
            return
        for number in range(first, len(self._paths)):
            yield Listed(number, self._paths[number], last=number == len(self._paths) - 1)

    def _cut(
        self, listed: Listed, begin: Place, before: "_Before", reader: Format | None, read: int
    ) -> Iterator[Cut | None]:
        """Cut one file into chunks."""
        path = listed.path
        data = self._pieces(path, read, waits=self._follow and listed.last)
        if reader is None:
            return self._cut_lines(data, path, begin)
        if isinstance(reader, PacketFormat):
            return _cut_packets(data, path, begin, reader)
        return self._cut_records(data, listed, begin, before, reader)

    def _opened(self) -> Format | None:
        return None if self._open_format is None else self._open_format()

    def _pieces(self, path: Path, before: int, *, waits: bool) -> Iterator[bytes | None]:
        """Give a file's bytes, decompressed, in pieces of about `chunk_bytes`; None where a followed one pauses."""
        if waits and path.suffix in (".gz", ".zst"):
            raise InputError(f"{path}: must not be compressed where it is followed, was")
        if waits:
            yield from _followed(path, self._chunk_bytes)
        for data in read_chunks(path, lambda done: self._report(before + done)):
            for at in range(0, len(data), self._chunk_bytes):
                yield data[at : at + self._chunk_bytes]

    def _cut_lines(self, pieces: Iterator[bytes | None], path: Path, place: Place) -> Iterator[Cut | None]:
        cutter, known, skip = _LineCutter(), _Beginning(path, place), place.offset
        broken = ""
        try:
            for piece in known.checked(pieces):
                if piece is None:
                    yield None
                    continue
                lines, size = cutter.feed(piece[skip:])
                skip = max(0, skip - len(piece))
                if lines:
                    place, before = _behind(place, size, line_count(lines), known), place
                    yield Cut(Chunk("file", str(path), lines, range(before.line + 1, place.line + 1)), place)
        except EndedEarlyError as error:
            broken = str(error)
        lines, size = cutter.finish()
        if broken:
            yield _truncated(path, place.file, place.line + 1, broken, lines)
        elif size:
            place = _behind(place, size, 1, known)
            yield Cut(Chunk("file", str(path), lines, (place.line,)), place)

    def _cut_records(
        self, pieces: Iterator[bytes | None], listed: Listed, place: Place, before: "_Before", reader: Format
    ) -> Iterator[Cut | None]:
        """Convert a file from its beginning, whatever the place: a format may carry state from its first line on."""
        path, last = listed.path, listed.last
        known, fed, given, line = _Beginning(path, place), 0, 0, before.end

        def cuts(items: list[Converted | Reject]) -> Iterator[Cut]:
            nonlocal given, line
            given += len(items)
            line = max(line, items[-1].position) if items else line
            fresh = items[max(0, len(items) - max(0, given - place.line)) :]
            done = given - len(fresh)
            # What waited for this file may lie in one before it.
            for file, some in groupby(fresh, lambda item: before.index(item.position)):
                several = list(some)
                done += len(several)
                chunk = converted("file", str(before.path(file, path)), several, before.begin(file))
                yield Cut(chunk, Place(place.file, fed, done, known.mark(fed)))

        try:
            for piece in _ended(known.checked(pieces)):
                if piece is None:
                    yield None
                    continue
                with _naming(path):
                    items = reader.feed(piece) if piece else ended(reader, last=last)
                fed += len(piece)
                yield from cuts(items)
        except EndedEarlyError as error:
            broken = _truncated(path, place.file, line - before.end + 1, str(error), b"")
            yield from cuts(ended(reader, last=last, torn=True))
            yield broken
        finally:
            if isinstance(reader, JoiningFormat):
                before.add(path, reader.position)


class _Before:
    """The files before one, where positions are counted over all of them; of a format that does not, none."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._ends: list[int] = []

    @property
    def end(self) -> int:
        """The last position of them all."""
        return self._ends[-1] if self._ends else 0

    def add(self, path: Path, end: int) -> None:
        """Say that a file has ended, with this position."""
        self._paths.append(path)
        self._ends.append(end)

    def index(self, position: int) -> int:
        """Return in which file a position lies."""
        return bisect_left(self._ends, position)

    def path(self, index: int, otherwise: Path) -> Path:
        """Return the path of a file; of the one behind them `otherwise`."""
        return self._paths[index] if index < len(self._paths) else otherwise

    def begin(self, index: int) -> int:
        """Return how many positions lie before a file."""
        return self._ends[index - 1] if index else 0


def ended(reader: Format, *, last: bool, torn: bool = False) -> list[Converted | Reject]:
    """Say that a file has ended; return what that gives.

    Args:
        torn: it broke off. Half a record goes with the part that is lost; whole ones that wait for others do not.
    """
    if isinstance(reader, JoiningFormat):
        left = reader.turn(torn=torn)
        return left + reader.finish() if last else left
    left = reader.finish()
    return [] if torn else left


def _cut_packets(
    pieces: Iterator[bytes | None], path: Path, place: Place, reader: PacketFormat
) -> Iterator[Cut | None]:
    """Read a file from its beginning, whatever the place: what comes first may say how to read the rest."""
    known, fed, broken = _Beginning(path, place), 0, ""

    def cut(data: bytes) -> Iterator[Cut]:
        with _naming(path):
            packets = reader.cut(data)
        for packet in packets:
            line = packet.first + packet.count - 1
            if line > place.line:
                fresh = packet.behind(place.line)
                chunk = Chunk("file", str(path), fresh, range(fresh.first, line + 1))
                yield Cut(chunk, Place(place.file, fed, line, known.mark(fed)))

    try:
        for piece in known.checked(pieces):
            fed += len(piece or b"")
            yield from cut(piece or b"")
            if piece is None:
                yield None
    except EndedEarlyError as error:
        broken = str(error)
    yield from cut(b"")
    if broken or reader.unread:
        yield _truncated(path, place.file, reader.position + 1, broken or _INSIDE, reader.unread)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file that a format finds to be none of its own."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise UnfitFileError(text if text.startswith(f"{path}:") else f"{path}: {text}") from None


def _behind(place: Place, size: int, lines: int, known: "_Beginning") -> Place:
    offset = place.offset + size
    return Place(place.file, offset, place.line + lines, known.mark(offset))


def _truncated(path: Path, file: int, line: int, problem: str, record: bytes) -> Cut:
    """Make a chunk of the one reject that says that a file broke off, with what there is of the record."""
    return _refused(path, Place(file + 1), Reject(line, DeadReason.TRUNCATED, problem, record))


def _refused(path: Path, place: Place, reject: Reject) -> Cut:
    return Cut(Chunk("file", str(path), b"", (), rejects=[reject]), place)


def _ended(pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """Give the pieces that hold something, and an empty one at the end."""
    yield from (piece for piece in pieces if piece != b"")
    yield b""


def _followed(path: Path, size: int) -> Iterator[bytes | None]:
    """Give a growing file's bytes, for ever; None where there is nothing new."""
    try:
        with path.open("rb") as stream:
            while True:
                piece = stream.read(size)
                if not piece:
                    _require_grown(path, stream)
                yield piece or None
    except OSError as error:
        raise InputError(f"{path}: must be a file that can be read, was not: {error.strerror}") from None


def _require_grown(path: Path, stream: BinaryIO) -> None:
    """Refuse a file that was cut or replaced while it is followed: what comes next would be lost without a word."""
    now, opened = path.stat(), os.fstat(stream.fileno())
    if (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino) or now.st_size < stream.tell():
        raise InputError(
            f"{path}: must only grow while it is followed, was cut or replaced; where it was moved away, "
            "list it under its new name before this one"
        )


class _Beginning:
    """The first bytes of a file, by which a restart knows the file again in which it goes on.

    Args:
        path: the file.
        place: where reading goes on.
    """

    def __init__(self, path: Path, place: Place) -> None:
        self._path = path
        self._place = place
        self._data = b""

    def mark(self, offset: int) -> int:
        """Return the mark of a place at this offset, up to which the file has been read."""
        return zlib.crc32(self._data[:offset])

    def checked(self, pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
        """Pass on a file's pieces.

        Raises:
            InputError: the file does not begin as it did, or is shorter than what was read of it.
        """
        offset, mark = self._place.offset, self._place.mark
        read = 0
        for piece in pieces:
            if piece is None:
                self._require(known=read >= offset)
            else:
                read += len(piece)
                self._data += piece[: MARK_BYTES - len(self._data)]
                if len(self._data) == MARK_BYTES or read >= offset:
                    self._require(known=self.mark(offset) == mark)
            yield piece
        self._require(known=read >= offset)

    def _require(self, *, known: bool) -> None:
        if not known:
            raise InputError(
                f"{self._path}: must hold the {self._place.offset} bytes that were read of it before, did not; "
                "files may be added behind those that were read, not put in their place"
            )


class _LineCutter:
    """Cuts a stream at line ends; of a line too long it holds the head alone."""

    def __init__(self) -> None:
        self._held = b""
        self._dropped = 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return the whole lines so far, and how many bytes of the stream they stand for."""
        if not self._held and data.endswith(b"\n"):
            return data, len(data)
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._hold(data)
            return b"", 0
        first = data.find(b"\n")
        self._hold(data[:first])
        # One copy, not two.
        lines = b"".join((self._held, memoryview(data)[first:cut]))
        size = len(self._held) + self._dropped + cut - first
        self._held, self._dropped = b"", 0
        self._hold(data[cut:])
        return lines, size

    def finish(self) -> tuple[bytes, int]:
        """Return the last line, which lacks its line end."""
        held, size = self._held, len(self._held) + self._dropped
        self._held, self._dropped = b"", 0
        return held, size

    def _hold(self, data: bytes) -> None:
        # One byte more than a record may have: the decoder then refuses it.
        room = RECORD_BYTES_MAX + 1 - len(self._held)
        self._held += data[:room]
        self._dropped += max(0, len(data) - room)
