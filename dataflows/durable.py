"""What files need that must survive a crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 1 << 16


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; what the files hold is another matter (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Write what shall stand under a name, for this user alone: a crash leaves the old bytes or the new, all on disk.

    The folder must be there. Left by an error, what stood under the name stays.

    Raises:
        OSError: it cannot be written.
    """
    # One name for all tries: what a crash left is written over.
    draft = path.with_name(f".{path.name}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def cut_torn_line(path: Path) -> int:
    """Cut off a last line that a crash left without its end; return the bytes that the file then holds.

    A file that is not there holds none.
    """
    if not path.exists():
        return 0
    with path.open("rb+") as stream:
        end = size = stream.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - BLOCK_BYTES)
            stream.seek(begin)
            cut = stream.read(end - begin).rfind(b"\n") + 1
            end = begin + cut
            if cut:
                break
        if end < size:
            stream.truncate(end)
            os.fsync(stream.fileno())
    return end
