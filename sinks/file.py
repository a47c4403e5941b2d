"""A file of notifications, one a line, each exactly once.

The outbox commits the file's length together with the rows it holds. What a killed process wrote beyond that length
was never committed, and is cut off before the next line is added.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from schemas.alerts import Notification
from schemas.errors import StateError
from sinks.outputs import NotificationRefusedError, OutputDownError


class FileOutput:
    """A stream output that appends `body` and a newline, in the outbox's order.

    A file that is no longer there was moved away (rotated): a new one begins. A file shorter than what was
    committed has lost lines, and is refused.

    Args:
        path: the file; its directory is created where there is none.
        name: the configured name.
    """

    def __init__(self, path: Path, name: str = "file") -> None:
        self.path = path
        self.name = name

    def recover(self, position: int) -> int:
        """Cut off what was never committed.

        Args:
            position: bytes committed.

        Returns:
            `position`, or 0 where the file was moved away.

        Raises:
            OutputDownError: the file is out of reach.
            StateError: the file is shorter than `position`.
        """
        try:
            size = self.path.stat().st_size
            if size > position:
                os.truncate(self.path, position)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise self._down(error) from error
        if size < position:
            raise StateError(
                f"output {self.name}: {self.path} must hold the {position} bytes written so far, found {size}: "
                "put the lost lines back, or move the file away to begin a new one"
            )
        return position

    def append(self, position: int, notifications: Sequence[Notification]) -> int:
        """Add lines durably; return the file's new length.

        Args:
            position: the file's length, as `recover` returned it.
            notifications: what to write, in order.

        Raises:
            OutputDownError: the file cannot be written now.
            NotificationRefusedError: a body holds a line break, and so is no line.
        """
        for index, notification in enumerate(notifications):
            if b"\n" in notification.body:
                raise NotificationRefusedError(index, "body must be one line, found a line break")
        lines = b"".join(notification.body + b"\n" for notification in notifications)
        try:
            self._write(position, lines)
        except OSError as error:
            raise self._down(error) from error
        return position + len(lines)

    def _write(self, position: int, lines: bytes) -> None:
        created = position == 0 and not self.path.exists()
        if created:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Past 0 the file must exist: one moved away since `recover` must not come back with a hole.
        flags = os.O_WRONLY | (os.O_CREAT if position == 0 else 0)
        file = os.open(self.path, flags, 0o600)
        try:
            view = memoryview(lines)
            while view:
                written = os.pwrite(file, view, position)
                view, position = view[written:], position + written
            os.fsync(file)
        finally:
            os.close(file)
        if created:
            self._sync_directory()

    def _sync_directory(self) -> None:
        """Make the file's name itself durable."""
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _down(self, error: OSError) -> OutputDownError:
        return OutputDownError(f"output {self.name}: {self.path} must be writable, found: {error.strerror}")
