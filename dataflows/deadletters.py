"""Dead letters on disk, one a line."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from schemas.deadletters import DeadLetter


class DeadLetterFile:
    """A file of dead letters that grows; a crash may write the ones of its last seconds twice.

    Args:
        path: NDJSON; for this user alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, letters: Sequence[DeadLetter]) -> None:
        """Make dead letters durable."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.writelines(msgspec.json.encode(letter) + b"\n" for letter in letters)
            stream.flush()
            os.fsync(stream.fileno())
