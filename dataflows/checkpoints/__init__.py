"""The engine's state on disk: files of what changed, the newest few of which are the whole.

The flow's own checkpoint names a file of ours; that one says how far back those reach that are needed beside it. A
file is written while the flow goes on. It names the places of the input that it stands for, so that a flow whose
newest file was not finished goes on from the one before it as if the newest had never been begun.
"""

import contextlib
import fcntl
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dataflows.checkpoints.files import Link, read, write
from dataflows.durable import sync_folder
from schemas.errors import StateError

KEPT = 8
"""The flow resumes at its last committed checkpoint: one or two back. What older ones need is deleted."""


class Checkpoints:
    """A folder of checkpoints, numbered from the one that was loaded on.

    What a killed run saved behind the checkpoint that its successor loads was never committed, and is deleted before
    anything else is written: so however often a run is killed, the committed one stays among those that are kept.

    Args:
        folder: made when needed, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last = max(self._numbers(), default=0)
        self._run = secrets.token_hex(8)
        self._after = ""
        self._floors: dict[int, int] = {}
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    # Writing

    def save(self, make: Callable[[int], dict[str, Any]], durable: Callable[[str], None] = lambda _: None) -> str:
        """Begin to make a state durable; return its name. It is so when `settle` has returned.

        Args:
            make: gives what the checkpoint of a number has to hold; `floor` says which is the first file that is
                needed beside it. Nothing may change it afterwards.
            durable: is told the name behind the last write, in the writer's thread.

        Raises:
            StateError: the one before it could not be written.
        """
        self.settle()
        number = self._last + 1
        state = make(number)
        link = Link(number, state["floor"], self._run, self._after)
        self._floors[number] = link.floor
        self._last, self._after = number, self._run
        self._pending = self._writer.submit(self._write, link, state, durable)
        if not link.after:
            # Before the first there is none that a flow could go on from, had it not been finished.
            self.settle()
        return name_of(number)

    def settle(self) -> None:
        """Wait until everything saved is durable.

        Raises:
            StateError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, link: Link, state: dict[str, Any], durable: Callable[[str], None]) -> None:
        path = self._path(link.number)
        try:
            self._delete([number for number in self._numbers() if number > link.number])
            write(path, link, state)
            durable(name_of(link.number))
            self._delete([number for number in self._numbers() if number < self._needed(link.number)])
        except OSError as error:
            raise StateError(f"{path}: must be writable, was not: {error.strerror}") from None

    def _needed(self, newest: int) -> int:
        """Return the number of the first file that a checkpoint which may be resumed needs."""
        return min((floor for number, floor in self._floors.items() if number > newest - KEPT), default=0)

    def _delete(self, numbers: list[int]) -> None:
        for number in numbers:
            self._path(number).unlink(missing_ok=True)
        if numbers:
            sync_folder(self.folder)

    def rewrite(self, name: str, state: dict[str, Any]) -> None:
        """Put a whole state in the place of one that was saved, whose neighbours stay as they are.

        Raises:
            StateError: the one that was saved cannot be read, or the other one cannot be written.
        """
        link, _ = read(self.folder / name)
        try:
            write(self.folder / name, Link(link.number, link.number, link.run, link.after), state)
        except OSError as error:
            raise StateError(f"{self.folder / name}: must be writable, was not: {error.strerror}") from None

    def drop_unfinished(self) -> None:
        """Delete the newest file if it was not finished, and the one before it was.

        Raises:
            StateError: neither can be read.
        """
        newest = self.newest()
        if newest is not None and self.usable(newest) != newest:
            self._delete([number_of(newest)])

    def drop_before(self, name: str) -> None:
        """Delete every file before one that is whole: nothing needs them any more."""
        self._delete([number for number in self._numbers() if number < number_of(name)])

    # Reading

    def load(self, name: str) -> Iterator[dict[str, Any]]:
        """Read a checkpoint: the states of all files that it needs, the oldest first; the next one saved follows it.

        Raises:
            StateError: one of them is missing, damaged, of another layout, or of another run than it should be.
        """
        newest, _ = read(self.folder / name)
        # One that was written anew as a whole has none before it.
        first = next(number for number in self._numbers() if number >= newest.floor)
        before: Link | None = None
        for number in range(first, newest.number + 1):
            link, state = read(self._path(number))
            if before is None and first > newest.floor and link.floor < first:
                raise StateError(f"{self._path(newest.floor)}: must be there for {name}, was not")
            if before is not None and link.after != before.run:
                raise StateError(
                    f"{self._path(number)}: must follow the file before it, was written behind that of another run"
                )
            self._floors[number] = link.floor
            before = link
            yield state
        self._last, self._after = newest.number, newest.run

    def is_whole(self, name: str) -> bool:
        """Tell whether a checkpoint is one file, beside which nothing is needed.

        Raises:
            StateError: it cannot be read.
        """
        link, _ = read(self.folder / name)
        return link.floor == link.number

    def usable(self, name: str) -> str:
        """Return the name of a checkpoint, or of the one before it where it was not finished.

        Raises:
            StateError: neither can be read.
        """
        try:
            read(self.folder / name)
        except StateError:
            before = name_of(number_of(name) - 1)
            try:
                read(self.folder / before)
            except StateError:
                before = ""
            if not before:
                raise
            return before
        return name

    def versions(self) -> list[str]:
        """Return the names of the checkpoints that a flow may resume from, the oldest first."""
        numbers = self._numbers()
        return [name_of(number) for number in numbers if number > numbers[-1] - KEPT]

    def newest(self) -> str | None:
        """Return the name of the newest checkpoint."""
        numbers = self._numbers()
        return name_of(numbers[-1]) if numbers else None

    def _path(self, number: int) -> Path:
        return self.folder / name_of(number)

    def _numbers(self) -> list[int]:
        return sorted(number_of(path.name) for path in self.folder.glob("[0-9]*.state"))


def name_of(number: int) -> str:
    """Return the name of the checkpoint of a number."""
    return f"{number:012d}.state"


def number_of(name: str) -> int:
    """Return the number of the checkpoint of a name."""
    return int(name.removesuffix(".state"))


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a state directory against other processes.

    Raises:
        StateError: another process holds it, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            stream = stack.enter_context((folder / "lock").open("w"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(f"{folder}: must be used by one process, another one is running on it") from None
        except OSError as error:
            raise StateError(f"{folder}: must be a writable folder, was not: {error.strerror}") from None
        yield
