"""The desk as an output: what the dispatcher delivers appears on the representatives' pages."""

from collections.abc import Sequence

from schemas.alerts import Notification
from sinks.desk.store import DeskStore


class DeskOutput:
    """A stream output that puts notifications into the desk's store.

    The store knows every id it ever took, so a batch that is repeated after a crash changes nothing, and the position
    is but a count.

    Args:
        name: the configured name.
        store: where to.
    """

    def __init__(self, name: str, store: DeskStore) -> None:
        self.name = name
        self._store = store

    def recover(self, position: int) -> int:
        """Return `position`: a batch is in the store as a whole or not at all."""
        return position

    def append(self, position: int, notifications: Sequence[Notification]) -> int:
        """Put a batch durably; return the new position.

        Raises:
            OutputDownError: the store cannot be written now.
            NotificationRefusedError: a body is not what its type promises.
            StateError: the store is damaged.
        """
        self._store.put(notifications)
        return position + len(notifications)
