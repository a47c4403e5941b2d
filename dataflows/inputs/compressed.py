"""Files read and written by their suffix: `.gz` is gzip, `.zst` is Zstandard, any other is plain."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from schemas.errors import InputError, StaylineError

READ_BYTES = 4 << 20
"""As much as a chunk of records may have: what is read is not cut in pieces again."""

_TAIL_BYTES = 4_096
"""A line ends within so many bytes before a plain file's next piece would: then it ends there."""

_ZST_READ_BYTES = 512
"""A Zstandard block of four bytes can stand for 128 KiB (RFC 8878, section 3.1.1.2.3): so much compressed data at a
time keeps what comes out of it under 17 MiB."""


class UnfitFileError(InputError):
    """A file cannot be read, or holds something else than it should; another one may."""


class EndedEarlyError(InputError):
    """The input ended inside its compression, or the compression is damaged. What came before is good."""


def read_chunks(path: Path, report: Callable[[int], None]) -> Iterator[bytes]:
    """Read a file from its beginning, in chunks of bounded size.

    Args:
        path: the file.
        report: is told how many bytes of the file, as it lies on disk, have been read; of a pipe nothing.

    Raises:
        UnfitFileError: the file cannot be read, or is not compressed as its suffix says.
        EndedEarlyError: see there; every good chunk has been given.
    """
    begun = False
    try:
        with path.open("rb") as file:
            for chunk in filter(None, _decompressed(path, file)):
                begun = True
                if file.seekable():
                    report(file.tell())
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        kind = EndedEarlyError if begun or isinstance(error, EOFError) else UnfitFileError
        raise kind(f"{path}: must decompress to its end, did not: {error}") from None
    except OSError as error:
        raise UnfitFileError(f"{path}: must be a file that can be read, was not: {error.strerror}") from None


def _decompressed(path: Path, file: BinaryIO) -> Iterator[bytes]:
    if path.suffix == ".zst":
        yield from _zst_chunks(file)
    elif path.suffix == ".gz":
        yield from _gzip_chunks(file)
    else:
        while chunk := file.read(_size_of_lines(file) if file.seekable() else READ_BYTES):
            yield chunk


def _size_of_lines(file: BinaryIO) -> int:
    """Return how much of a file to read next so that it ends with a line: whole lines need not be copied together."""
    size = READ_BYTES - _TAIL_BYTES
    return size + os.pread(file.fileno(), _TAIL_BYTES, file.tell() + size).rfind(b"\n") + 1


def _gzip_chunks(file: BinaryIO) -> Iterator[bytes]:
    # In small reads: one that finds an early end throws away what it had decompressed until then.
    stream, held = gzip.GzipFile(fileobj=file), bytearray()
    try:
        while chunk := stream.read1(READ_BYTES):
            held += chunk
            if len(held) >= READ_BYTES:
                yield bytes(held)
                held.clear()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield bytes(held)
        raise
    yield bytes(held)


def _zst_chunks(file: BinaryIO) -> Iterator[bytes]:
    # The library's own reader takes an end inside a frame for the end of the file; a frame knows when it is whole.
    frame = None
    while data := file.read(_ZST_READ_BYTES):
        while data:
            frame = zstandard.ZstdDecompressor().decompressobj() if frame is None else frame
            chunk = frame.decompress(data)
            if chunk:
                yield chunk
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("the file ended inside a frame")


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when it is whole and on disk; until then the old one stands.

    What is no file, such as /dev/null or a pipe, is written to directly.

    Raises:
        StaylineError: it cannot be written.
    """
    try:
        with _taking_its_name(path) as file, _compressing(path, file) as stream:
            yield stream
    except OSError as error:
        raise StaylineError(f"{path}: must be writable, was not: {error.strerror}") from None


@contextmanager
def _taking_its_name(path: Path) -> Iterator[BinaryIO]:
    if path.exists() and not path.is_file():
        # A device or a pipe is written to: /dev/null stays what it is.
        with path.open("wb") as file:
            yield file
        return
    target = path.resolve()  # a link stays a link
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _compressing(path: Path, file: BinaryIO) -> AbstractContextManager[Any]:
    # Neither name nor time goes into the file: the same content gives the same bytes.
    if path.suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
    if path.suffix == ".zst":
        return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    return _unclosed(file)


@contextmanager
def _unclosed(file: BinaryIO) -> Iterator[BinaryIO]:
    yield file
