"""The engine's state on disk: whole snapshots, checked when they are read.

The flow's own checkpoint names a snapshot; the bytes lie here, beside it, as MessagePack under a digest. No pickle,
no code: numbers and strings in a layout of a stated version.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dataflows.durable import sync_folder
from schemas.errors import StateError

MAGIC = b"stayline-state/1\n"

KEPT = 8
"""The flow resumes at its last committed checkpoint: one or two back. Older snapshots than this many are deleted."""


class Checkpoints:
    """A folder of snapshots, numbered from the one that was loaded on.

    What a killed run saved behind the snapshot that its successor loads was never committed, and is written over: so
    however often a run is killed, the committed one stays among those that are kept.

    Args:
        folder: made when needed, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = max(self._numbers(), default=0)

    def save(self, state: dict[str, Any]) -> str:
        """Make a state durable; return its name.

        Raises:
            StateError: it cannot be written.
        """
        number = self._last + 1
        name = _name(number)
        payload = msgspec.msgpack.encode(state)
        try:
            self._write(name, MAGIC + hashlib.sha256(payload).digest() + payload)
            for other in self._numbers():
                if not number - KEPT < other <= number:
                    (self._folder / _name(other)).unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"{self._folder / name}: must be writable, was not: {error.strerror}") from None
        self._last = number
        return name

    def _write(self, name: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._folder / f".{name}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self._folder / name)
        sync_folder(self._folder)

    def load(self, name: str) -> dict[str, Any]:
        """Read a state back.

        Raises:
            StateError: it is missing, damaged, or of a version that this program does not know.
        """
        path = self._folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StateError(f"{path}: must be readable, was not: {error.strerror}") from None
        if not data.startswith(MAGIC):
            raise StateError(f"{path}: must begin with {MAGIC.decode().strip()}, did not: another version, or damaged")
        payload = data[len(MAGIC) + 32 :]
        if hashlib.sha256(payload).digest() != data[len(MAGIC) : len(MAGIC) + 32]:
            raise StateError(f"{path}: must match its digest, did not: the file is damaged")
        state: dict[str, Any] = msgspec.msgpack.decode(payload)
        self._last = int(path.stem)
        return state

    def rewrite(self, name: str, state: dict[str, Any]) -> None:
        """Put another state in the place of one that was saved: what a checkpoint names must hold it or nothing.

        Raises:
            StateError: it cannot be written.
        """
        payload = msgspec.msgpack.encode(state)
        try:
            self._write(name, MAGIC + hashlib.sha256(payload).digest() + payload)
        except OSError as error:
            raise StateError(f"{self._folder / name}: must be writable, was not: {error.strerror}") from None

    def names(self) -> list[str]:
        """Return the names of all snapshots, the oldest first."""
        return [_name(number) for number in self._numbers()]

    def newest(self) -> str | None:
        """Return the name of the newest snapshot."""
        numbers = self._numbers()
        return _name(numbers[-1]) if numbers else None

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.state"))


def _name(number: int) -> str:
    return f"{number:012d}.state"


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
