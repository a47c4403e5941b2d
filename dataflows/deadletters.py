"""Dead letters on disk, one a line."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dataflows.durable import cut_torn_line
from schemas.deadletters import DeadLetter
from schemas.errors import StateError


class DeadLetterFile:
    """A file of dead letters that grows; a crash may write the ones of its last seconds twice.

    Args:
        path: NDJSON; for this user alone.

    Raises:
        StateError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._writable():
            cut_torn_line(path)

    def append(self, letters: Sequence[DeadLetter]) -> None:
        """Make dead letters durable.

        Raises:
            StateError: they cannot be written.
        """
        lines = b"".join(msgspec.json.encode(letter) + b"\n" for letter in letters)
        with self._writable():
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as stream:
                stream.write(lines)
                stream.flush()
                os.fsync(stream.fileno())

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateError(f"{self._path}: must be writable, was not: {error.strerror}") from None
