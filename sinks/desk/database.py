"""What the desk asks of a database: transactions, and rows. SQLite and PostgreSQL run the same statements.

Statements are written once, in what both understand, with named parameters (`:name`). Text sorts by its bytes in both.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Row = tuple[Any, ...]
"""A row of a result: its columns have the types of the tables in `sinks.desk.layout`, which no type checker sees."""


class Transaction(Protocol):
    """What can be done within one transaction."""

    def rows(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """Run a statement; return all that it gives."""


class Database(Protocol):
    """One database of one desk; its methods may be called from any thread.

    All raise `OutputDownError` where waiting may help (a full disk, a server that is away) and `StateError` where it
    will not.
    """

    def read(self) -> contextlib.AbstractContextManager[Transaction]:
        """Give a transaction for reading: all of the block sees the database at one moment."""

    def write(self) -> contextlib.AbstractContextManager[Transaction]:
        """Give the only writing transaction: on return it is durable, on an error it never was."""

    def erased(self) -> None:
        """Make sure that what was deleted is gone from the disk too, as far as that is in our hands."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every `write`, in some thread. It must not block."""

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Call it no more."""

    def close(self) -> None:
        """Let go; what was committed stays."""


class Listeners:
    """Who wants to hear of changes."""

    def __init__(self) -> None:
        self._all: list[Callable[[], None]] = []

    def add(self, listener: Callable[[], None]) -> None:
        """Add one."""
        # A new list each time: whoever is calling the old one's goes on undisturbed.
        self._all = [*self._all, listener]

    def remove(self, listener: Callable[[], None]) -> None:
        """Remove one, wherever it is."""
        self._all = [one for one in self._all if one is not listener]

    def call(self) -> None:
        """Tell all."""
        for listener in self._all:
            listener()


def one_row(rows: list[Row]) -> Row | None:
    """Return the only row of a result, None for an empty one."""
    return rows[0] if rows else None
