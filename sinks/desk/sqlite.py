"""The desk's database in one SQLite file: the default."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw

from sinks.desk.database import Listeners, Row
from sinks.desk.layout import VERSION, statements
from sinks.outputs import OutputDownError
from sinks.sqlite import Layout, clear_errors, connect, transaction

DESK = Layout("a desk file", 0x5374446B, VERSION, statements())
"""`StDk` in ASCII tells it from any other SQLite file."""


class _Rows:
    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def rows(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        return list(self._db.execute(statement, values))


class SqliteDatabase:
    """One SQLite connection that threads take in turn; see `sinks.desk.database.Database`.

    Args:
        path: the file; it and its directory are made where there is none (0600, 0700).

    Raises:
        StateError: the file is damaged, of another layout, not a desk's, or out of reach.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._listeners = Listeners()
        self._db = connect(path, DESK)

    @contextlib.contextmanager
    def read(self) -> Iterator[_Rows]:
        """Give a transaction for reading."""
        with self._transaction("BEGIN") as rows:
            yield rows

    @contextlib.contextmanager
    def write(self) -> Iterator[_Rows]:
        """Give the only writing transaction."""
        with self._transaction("BEGIN IMMEDIATE") as rows:
            yield rows
        self._listeners.call()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[_Rows]:
        with self._lock, _passing_errors(self._path), transaction(self._db, begin):
            yield _Rows(self._db)

    def erased(self) -> None:
        """Fold the write-ahead log into the file and cut it: it still holds what was deleted."""
        with self._lock, _passing_errors(self._path):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every `write`, in the thread that made it."""
        self._listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


@contextlib.contextmanager
def _passing_errors(path: Path) -> Iterator[None]:
    """Tell apart what may pass by itself (a full disk, another's writing) from what an operator must mend."""
    with clear_errors(path, DESK):
        try:
            yield
        except (apsw.FullError, apsw.IOError, apsw.BusyError, apsw.LockedError) as error:
            raise OutputDownError(f"{path}: must be free and writable, found: {error}") from error
