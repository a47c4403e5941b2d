"""SQLite files of ours: how one is opened and claimed, and what its errors mean to an operator.

Every process must use a SQLite of 3.51.3 or later (earlier ones can corrupt a WAL file that two connections write),
which `apsw` brings along.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import apsw

from schemas.errors import StateError

CHECKED_BYTES_MAX = 256 * 1024 * 1024
"""A larger file is not read through at the start (5 s a gigabyte): its damage shows when a page is touched."""

BUSY_WAIT_MS = 10_000
"""How long to wait for another process (an operator's command) that is writing."""


class Layout(NamedTuple):
    """What a file holds.

    Attributes:
        name: what it is called in messages, with its article.
        application_id: tells it from any other SQLite file (PRAGMA application_id).
        version: of the tables; a file of any other is refused.
        tables: the statements that make them.
    """

    name: str
    application_id: int
    version: int
    tables: Sequence[str]


def connect(path: Path, layout: Layout) -> apsw.Connection:
    """Open the file at `path`, creating it (0600, in a directory of 0700) where there is none.

    Raises:
        StateError: the file is damaged, of another layout, not of this kind, or out of reach.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StateError(f"{path}: must be readable and writable, found: {error.strerror}") from error
    with clear_errors(path, layout):
        db = apsw.Connection(str(path))
        try:
            _configure(db)
            _claim(db, path, layout)
        except BaseException:
            db.close()
            raise
    return db


@contextlib.contextmanager
def transaction(db: apsw.Connection, begin: str) -> Iterator[None]:
    """Run the block in one transaction: on return it is on disk, on an error it never was.

    Args:
        db: the connection; no other thread may use it meanwhile.
        begin: the statement that begins it.
    """
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # After a full disk SQLite has rolled back by itself.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def clear_errors(path: Path, layout: Layout) -> Iterator[None]:
    """Turn what SQLite says of the file at `path` into a `StateError` that an operator can act on."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise _damaged(path, layout, str(error)) from error
    except apsw.FullError as error:
        raise StateError(f"{path}: must have room on its disk, found: {error}") from error
    except (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise StateError(f"{path}: must be readable and writable, found: {error}") from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StateError(f"{path}: must be free, but another process is writing it: {error}") from error
    except apsw.ConnectionClosedError as error:
        raise StateError(f"{path}: must be open, but was closed") from error


def _damaged(path: Path, layout: Layout, found: str) -> StateError:
    kind = layout.name.removeprefix("an ").removeprefix("a ")
    return StateError(f"{path}: must be an undamaged {kind}, found: {found}; restore it from a copy")


def _configure(db: apsw.Connection) -> None:
    """Set what makes a commit durable, and an erased row gone from the file."""
    db.set_busy_timeout(BUSY_WAIT_MS)
    db.pragma("auto_vacuum", "INCREMENTAL")
    db.pragma("journal_mode", "WAL")
    # FULL: a commit that returned survives a power cut; NORMAL could lose the last ones.
    db.pragma("synchronous", "FULL")
    db.pragma("secure_delete", "ON")


def _claim(db: apsw.Connection, path: Path, layout: Layout) -> None:
    """Make a new file ours; hold an old one against what this program knows."""
    if _is_empty(db):
        with transaction(db, "BEGIN IMMEDIATE"):
            # Another process may have come first.
            if _is_empty(db):
                for statement in layout.tables:
                    db.execute(statement)
                db.pragma("application_id", layout.application_id)
                db.pragma("user_version", layout.version)
    if db.pragma("application_id") != layout.application_id:
        raise StateError(f"{path}: must be {layout.name}, found another SQLite file")
    version = db.pragma("user_version")
    if version != layout.version:
        wanted = layout.version
        raise StateError(f"{path}: its layout must be version {wanted}, was {version}: made by another release")
    if path.stat().st_size > CHECKED_BYTES_MAX:
        return
    faults = [str(row[0]) for row in db.execute("PRAGMA quick_check(1)")]
    if faults != ["ok"]:
        raise _damaged(path, layout, faults[0])


def _is_empty(db: apsw.Connection) -> bool:
    """Return whether the file has neither tables nor an owner yet."""
    return db.pragma("application_id") == 0 and not list(db.execute("SELECT 1 FROM sqlite_schema"))
