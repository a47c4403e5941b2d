"""The desk's database in one SQLite file: the default."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw

from schemas.errors import StateError
from sinks.desk.database import Listeners, Row
from sinks.desk.layout import VERSION, statements
from sinks.outputs import OutputDownError

APPLICATION_ID = 0x5374446B
"""`StDk` in ASCII: tells a desk's file from any other SQLite file (PRAGMA application_id)."""

BUSY_WAIT_MS = 10_000
"""How long to wait for another process (an operator's command) that is writing."""


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
        self._db = _connect(path)

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
        with self._lock, clear_errors(self._path):
            self._db.execute(begin)
            try:
                yield _Rows(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                # After a full disk SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def erased(self) -> None:
        """Fold the write-ahead log into the file and cut it: it still holds what was deleted."""
        with self._lock, clear_errors(self._path):
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
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the file at `path` into an error that an operator can act on."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StateError(f"{path}: must be an undamaged desk file, found: {error}; restore it from a copy") from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise StateError(f"{path}: must be readable and writable, found: {error}") from error
    except (apsw.FullError, apsw.IOError, apsw.BusyError, apsw.LockedError) as error:
        raise OutputDownError(f"{path}: must be free and writable, found: {error}") from error
    except apsw.ConnectionClosedError as error:
        raise StateError(f"{path}: must be open, but was closed") from error


def _connect(path: Path) -> apsw.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StateError(f"{path}: must be readable and writable, found: {error.strerror}") from error
    with clear_errors(path):
        db = apsw.Connection(str(path))
        try:
            _configure(db)
            _claim(db, path)
        except BaseException:
            db.close()
            raise
    return db


def _configure(db: apsw.Connection) -> None:
    """Set what makes a commit durable, and an erased row gone from the file."""
    db.set_busy_timeout(BUSY_WAIT_MS)
    db.pragma("journal_mode", "WAL")
    # FULL: a commit that returned survives a power cut; NORMAL could lose the last ones.
    db.pragma("synchronous", "FULL")
    db.pragma("secure_delete", "ON")


def _claim(db: apsw.Connection, path: Path) -> None:
    """Make a new file a desk's; hold an old one against what this program knows."""
    if _is_empty(db):
        db.execute("BEGIN IMMEDIATE")
        # Another process may have come first.
        if _is_empty(db):
            for statement in statements():
                db.execute(statement)
            db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", VERSION)
        db.execute("COMMIT")
    if db.pragma("application_id") != APPLICATION_ID:
        raise StateError(f"{path}: must be a desk file, found another SQLite file")
    version = db.pragma("user_version")
    if version != VERSION:
        raise StateError(f"{path}: its layout must be version {VERSION}, was {version}: made by another release")
    faults = [str(row[0]) for row in db.execute("PRAGMA quick_check(1)")]
    if faults != ["ok"]:
        raise StateError(f"{path}: must be an undamaged desk file, found: {faults[0]}; restore it from a copy")


def _is_empty(db: apsw.Connection) -> bool:
    """Return whether the file has neither tables nor an owner yet."""
    return db.pragma("application_id") == 0 and not list(db.execute("SELECT 1 FROM sqlite_schema"))
