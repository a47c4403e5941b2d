"""What files need that must survive a crash."""

import os
from pathlib import Path

BLOCK_BYTES = 1 << 16


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; what the files hold is another matter (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
