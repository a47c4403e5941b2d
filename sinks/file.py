"""A file of notifications, one a line, each exactly once.

The outbox commits the file's length together with the rows it holds. What a killed process wrote beyond that length
was never committed, and is cut off before the next line is added.

A file that is full or of an earlier day is renamed before the next line is added, and a new one begins: what is
renamed is whole, on disk, and never touched again. So is a file that was there before this output was.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from schemas.alerts import Notification
from schemas.errors import StateError
from sinks.outputs import Clock, NotificationRefusedError, OutputDownError


class Rotation(Struct, frozen=True):
    """When a file is done with, and a new one begins; None: never for this reason.

    Attributes:
        size_bytes: it has reached this size.
        period_s: its newest line is of an earlier period; periods are counted from 1970, so 86 400 is a day of UTC.
    """

    size_bytes: int | None = None
    period_s: int | None = None

    def is_due(self, size_bytes: int, written_ms: int, now_ms: int) -> bool:
        """Whether a file of this size, last written then, is done with."""
        if size_bytes == 0:
            return False
        full = self.size_bytes is not None and size_bytes >= self.size_bytes
        return full or (
            self.period_s is not None and written_ms // (1_000 * self.period_s) < now_ms // (1_000 * self.period_s)
        )


class FileOutput:
    """A stream output that appends `body` and a newline, in the outbox's order.

    A file that is no longer there was moved away (rotated): a new one begins. A file shorter than what was
    committed has lost lines, and is refused.

    Args:
        path: the file; its directory is created where there is none. Those done with are `path.1`, `path.2`...
        name: the configured name.
        rotation: when a new file begins.
        clock: Unix milliseconds, as the file system has them; for `rotation` alone.
    """

    def __init__(
        self, path: Path, name: str = "file", rotation: Rotation | None = None, clock: Clock = lambda: 0
    ) -> None:
        self.path = path
        self.name = name
        self._rotation = Rotation() if rotation is None else rotation
        self._clock = clock

    def recover(self, position: int) -> int:
        """Cut off what was never committed; rename a file that is done with.

        Args:
            position: bytes committed.

        Returns:
            `position`, or 0 where the file was moved away or renamed.

        Raises:
            OutputDownError: the file is out of reach.
            StateError: the file is shorter than `position`.
        """
        try:
            found = self.path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise OutputDownError(f"output {self.name}: {self.path} must be a file, was a folder, pipe or device")
            size = found.st_size
            # Of a file at whose beginning nothing was committed, `append` knows whose it is.
            if size > position > 0:
                os.truncate(self.path, position)
            if size >= position and self._rotation.is_due(position, found.st_mtime_ns // 1_000_000, self._clock()):
                self._rotate()
                return 0
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
            if position == 0:
                self._make_way(lines)
            self._write(position, lines)
        except OSError as error:
            raise self._down(error) from error
        return position + len(lines)

    def _make_way(self, lines: bytes) -> None:
        """Clear the place where a file begins: of this very batch, unfinished; what is anything else is renamed.

        After a state was lost, or under a new name, the file that is there holds what nobody may delete.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            begun = file.read(len(lines) + 1)
        if lines.startswith(begun):
            os.truncate(self.path, 0)
        else:
            self._rotate()

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

    def _rotate(self) -> None:
        """Rename the file to the next free number. Killed just behind it, the next `recover` finds no file: as well."""
        file = os.open(self.path, os.O_WRONLY)
        try:
            # What was cut off must not come back under the new name.
            os.fsync(file)
        finally:
            os.close(file)
        begun = f"{self.path.name}."
        names = [one.name for one in self.path.parent.iterdir() if one.name.startswith(begun)]
        taken = [int(name.removeprefix(begun)) for name in names if name.removeprefix(begun).isdecimal()]
        number = 1 + max(taken, default=0)
        self.path.rename(self.path.with_name(f"{self.path.name}.{number}"))
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
