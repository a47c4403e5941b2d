"""A folder into which something else puts files: a billing server's CDR and CMR files, a switch's file for each leg.

Files are read in the order in which they came, and each of them once: by its name, which is noted with a number in a
journal before the file is read. A restart goes on by that number, whatever has come meanwhile; files that were read may
be moved away. Names that begin with a dot are of files that are still being written (rsync, for one), and so is a file
that is empty or changed between two looks.
"""

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dataflows.durable import replaced
from schemas.errors import InputError

LOOK_S = 5.0
"""So often a folder is looked at, and so long a file must have been left alone."""


class Listed(NamedTuple):
    """A file to be read.

    Attributes:
        number: tells it from all others of the input.
        last: no other one comes behind it.
    """

    number: int
    path: Path
    last: bool


class _Seen(NamedTuple):
    """A file as a look found it; older ones come first."""

    changed_ns: int
    name: str
    size: int


class Folder:
    """The files of a folder, those to come included.

    Args:
        path: the folder.
        journal: where their numbers are noted.
        follow: wait for further files.
        now_s: a clock that only goes forward.

    Raises:
        InputError: the folder cannot be read, or a file that was read has grown (on iteration).
    """

    def __init__(self, path: Path, journal: Path, *, follow: bool, now_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._journal = journal
        self._follow = follow
        self._now_s = now_s
        self._next = 0
        self._known: dict[str, int | None] = {}
        """Name of each file that was given and is still there, with its size when it was."""
        self._before: set[_Seen] = set()

    def files(self, first: int, begun: int) -> Iterator[Listed | None]:
        """Give files in order; None where the next one has not come yet.

        Args:
            first: number of the first one wanted.
            begun: number of the one in which reading goes on: those before it may be gone.
        """
        waiting = deque((number, name) for number, name in self._noted(begun) if number >= first)
        looked_s = self._now_s()
        waiting += self._come()
        while True:
            while waiting:
                number, name = waiting.popleft()
                yield Listed(number, self._path / name, last=not self._follow and not waiting)
            if not self._follow:
                return
            yield None
            if self._now_s() - looked_s >= LOOK_S:
                looked_s = self._now_s()
                waiting += self._come()

    def _noted(self, begun: int) -> list[tuple[int, str]]:
        """Return what the journal holds, without what was read and is gone."""
        lines = self._journal.read_bytes().split(b"\n")[:-1] if self._journal.exists() else []
        noted = [(int(number), str(name)) for number, name in map(json.loads, lines)]
        self._next = max([begun, *(number + 1 for number, _ in noted)])
        noted = [(number, name) for number, name in noted if number >= begun or (self._path / name).exists()]
        with replaced(self._journal) as file:
            file.write(_lines(noted))
        self._known = dict.fromkeys(name for _, name in noted)
        return noted

    def _come(self) -> list[tuple[int, str]]:
        """Look what files have come, note their numbers, and return them."""
        seen = self._look()
        self._require_whole(seen)
        fresh = {one for one in seen if one.name not in self._known and not one.name.startswith(".")}
        if self._follow:
            self._before, fresh = fresh, {one for one in fresh & self._before if one.size}
        come = [(self._next + at, one.name) for at, one in enumerate(sorted(fresh))]
        if come:
            self._next += len(come)
            with self._journal.open("ab") as file:
                file.write(_lines(come))
                os.fsync(file.fileno())
        there = {one.name for one in seen}
        self._known = {name: size for name, size in self._known.items() if name in there}
        self._known |= {one.name: one.size for one in fresh}
        return come

    def _look(self) -> list[_Seen]:
        seen = []
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    # One may be moved away at any moment.
                    with contextlib.suppress(FileNotFoundError):
                        if entry.is_file():
                            seen.append(_Seen(entry.stat().st_mtime_ns, entry.name, entry.stat().st_size))
        except OSError as error:
            raise InputError(f"{self._path}: must be a folder that can be read, was not: {error.strerror}") from None
        return seen

    def _require_whole(self, seen: Sequence[_Seen]) -> None:
        """Refuse a file that grew after it was read: what came behind would be lost without a word."""
        for one in seen:
            size = self._known.get(one.name)
            if size is not None and one.size > size:
                raise InputError(
                    f"{self._path / one.name}: must be whole {LOOK_S:.0f} s after its last change, grew; let it be "
                    "written elsewhere and moved here, or be appended to as the one file of an input"
                )


def _lines(noted: Sequence[tuple[int, str]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in noted)


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return the files of an input as they are now; of a folder in the order in which they came."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [one for one in path.iterdir() if one.is_file() and not one.name.startswith(".")]
            found += sorted(inside, key=lambda one: (one.stat().st_mtime_ns, one.name))
        else:
            found.append(path)
    return found
