"""Dead letters on disk, one a line: the run appends, an operator's command takes out."""

import base64
import contextlib
import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from dataflows.durable import cut_torn_line, replaced, sync_folder
from detectors.identity import case_id
from schemas.deadletters import DeadLetter
from schemas.errors import StateError


def letter_id(letter: DeadLetter) -> str:
    """Return the id of a dead letter: the same as long as it lies there, and the same if a crash wrote it twice."""
    return case_id("dl", letter.source, letter.at, letter.reason, letter.record_b64)


def record_of(letter: DeadLetter) -> bytes:
    """Return the record of a dead letter, as it came."""
    return base64.b64decode(letter.record_b64)


class DeadLetterFile:
    """A file of dead letters that grows; a crash may write the ones of its last seconds twice.

    Ids of what was taken out stand in `.gone` beside it: a record that is read again after a crash does not come back.

    Several processes may use one file: whoever changes it holds `.lock` beside it meanwhile. What is appended outlives
    this process at once, the machine from the next `sync` on: a disk is waited for once a checkpoint, not once a chunk.

    Args:
        path: NDJSON; for this user alone.

    Raises:
        StateError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gone_path = path.with_suffix(".gone")
        self._gone: frozenset[str] = frozenset()
        self._gone_bytes = 0
        self._is_synced = True
        with self._held():
            cut_torn_line(path)

    def append(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters behind the others, those left out that were taken out before.

        Raises:
            StateError: they cannot be written.
        """
        self._is_synced = False
        with self._opened() as stream:
            gone = self._taken_out()
            fresh = [letter for letter in letters if not gone or letter_id(letter) not in gone]
            stream.write(b"".join(msgspec.json.encode(letter) + b"\n" for letter in fresh))

    def sync(self) -> None:
        """Make durable what was appended: before a checkpoint passes the records.

        Raises:
            StateError: it cannot be written.
        """
        if self._is_synced:
            return
        with self._opened() as stream:
            os.fsync(stream.fileno())
            sync_folder(self._path.parent)
        self._is_synced = True

    def read(self) -> Iterator[tuple[str, DeadLetter]]:
        """Give every dead letter with its id, the oldest first; of those that a crash wrote twice, one.

        Raises:
            StateError: (on iteration) the file is damaged or cannot be read.
        """
        seen: set[str] = set()
        for letter in map(self._parsed, self._lines()):
            name = letter_id(letter)
            if name not in seen:
                seen.add(name)
                yield name, letter

    def remove(self, leaves: Callable[[str, DeadLetter], bool]) -> int:
        """Take out the letters that `leaves` says, durably, while nobody else writes; return how many there were.

        Raises:
            StateError: the file is damaged or cannot be written.
        """
        with self._held():
            gone = {name for name, letter in self.read() if leaves(name, letter)}
            if gone:
                # Before they are gone from here: whoever is killed in between finds them listed, and asks again.
                self._remember(gone)
                with replaced(self._path) as stream:
                    stream.writelines(line for line in self._lines() if letter_id(self._parsed(line)) not in gone)
        return len(gone)

    def _taken_out(self) -> frozenset[str]:
        """Return the ids of all that was ever taken out, by whichever process; called with the lock held."""
        size = self._gone_path.stat().st_size if self._gone_path.exists() else 0
        if size != self._gone_bytes:
            self._gone = frozenset(self._gone_path.read_text("ascii").split("\n"))
            self._gone_bytes = size
        return self._gone

    def _remember(self, names: Collection[str]) -> None:
        cut_torn_line(self._gone_path)
        descriptor = os.open(self._gone_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write("".join(f"{name}\n" for name in sorted(names)).encode("ascii"))
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(self._path.parent)

    def _lines(self) -> Iterator[bytes]:
        """Give the whole lines: what has no end yet is being written."""
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            yield from (line for line in stream if line.endswith(b"\n"))

    def _parsed(self, line: bytes) -> DeadLetter:
        try:
            return msgspec.json.decode(line, type=DeadLetter)
        except msgspec.DecodeError as error:
            raise StateError(f"{self._path}: must hold one dead letter a line, found another: {error}") from None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """Open the file to write at its end, as it is now: a removal puts another in its place."""
        with self._held():
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as stream:
                yield stream

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        lock = self._path.with_name(f"{self._path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StateError(f"{self._path}: must be writable, was not: {error.strerror}") from None
