"""The outbox's file: its tables, its version, and how it is opened."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from schemas.errors import StateError

APPLICATION_ID = 0x53746179
"""`Stay` in ASCII: tells an outbox from any other SQLite file (PRAGMA application_id)."""

Row = tuple[Any, ...]
"""A row of a result: its columns have the types of the STRICT tables below, which no type checker sees."""

VERSION = 1
"""The layout below; a file of any other is refused."""

CHECKED_BYTES_MAX = 256 * 1024 * 1024
"""A larger file is not read through at the start (5 s a gigabyte): its damage shows when a page is touched."""

BUSY_WAIT_MS = 10_000
"""How long to wait for another process (an operator's command) that is writing."""

# A `notification` is never deleted, so that its id is known for ever; pruning deletes the `message`. They are two
# tables because SQLite gives pages back when rows go, not when rows shrink.
# `told` is what each output was told, and outlives the deliveries.
# A delivery has `due_ms` if it is the first of its case still pending; the ones behind it have none, so a long
# queue behind a failing case costs nothing when the next due delivery is looked up. `held` says why its time has not
# come yet.
TABLES = """
CREATE TABLE notification (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    body_sha256 BLOB NOT NULL
) STRICT;

CREATE TABLE message (
    seq INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    revision INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    put_ms INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX message_age ON message (put_ms, seq);

CREATE TABLE delivery (
    output TEXT NOT NULL,
    seq INTEGER NOT NULL,
    case_id TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    first_ms INTEGER,
    due_ms INTEGER,
    ended_ms INTEGER,
    reason TEXT,
    reply TEXT NOT NULL DEFAULT '',
    held TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (output, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_pending ON delivery (output, seq) WHERE state = 'pending';
CREATE INDEX delivery_case ON delivery (output, case_id, seq) WHERE state = 'pending';
CREATE INDEX delivery_due ON delivery (output, due_ms, seq) WHERE state = 'pending' AND due_ms IS NOT NULL;
CREATE INDEX delivery_dead ON delivery (output, seq) WHERE state = 'dead';

CREATE TABLE output (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL DEFAULT 0,
    breaker TEXT NOT NULL DEFAULT 'closed',
    failures INTEGER NOT NULL DEFAULT 0,
    until_ms INTEGER NOT NULL DEFAULT 0,
    trouble TEXT NOT NULL DEFAULT '',
    pending INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
    delivered INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0 CHECK (dead >= 0),
    superseded INTEGER NOT NULL DEFAULT 0,
    discarded INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE conflict (
    id TEXT NOT NULL,
    body_sha256 BLOB NOT NULL,
    put_ms INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (id, body_sha256)
) STRICT, WITHOUT ROWID;

CREATE INDEX delivery_held ON delivery (output, held) WHERE state = 'pending' AND held <> '';

CREATE TABLE told (
    output TEXT NOT NULL,
    case_id TEXT NOT NULL,
    customer_id TEXT,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (output, case_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX told_contact ON told (output, customer_id, first_ms) WHERE customer_id IS NOT NULL;
CREATE INDEX told_age ON told (last_ms);
"""


class Database:
    """One SQLite connection that threads take in turn.

    One connection, because SQLite has one writer anyway, and because two connections of a process would hide
    each other's waiting. Other processes may open the same file; all of them must use a SQLite of 3.51.3 or later
    (earlier ones can corrupt a WAL file that two connections write), which `apsw` brings along.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db = _connect(path)

    @contextlib.contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Give the connection for one statement."""
        with self._lock, _clear_errors(self.path):
            yield self._db

    @contextlib.contextmanager
    def write(self) -> Iterator[apsw.Connection]:
        """Give the connection for one transaction: on return it is on disk, on an error it never was."""
        with self._lock, _clear_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # After a full disk SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        with self._lock:
            self._db.close()


@contextlib.contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Hold a file of its own as a lock against other processes, for as long as the block runs.

    Raises:
        StateError: another process holds it, or it is out of reach.
    """
    try:
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StateError(f"{path}: must be readable and writable, found: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise StateError(f"{path}: one process may hold it, another one does") from error
    finally:
        os.close(file)


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the file at `path` into a `StateError` that an operator can act on."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StateError(f"{path}: must be an undamaged outbox, found: {error}; restore it from a copy") from error
    except apsw.FullError as error:
        raise StateError(f"{path}: must have room on its disk, found: {error}") from error
    except (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise StateError(f"{path}: must be readable and writable, found: {error}") from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StateError(f"{path}: must be free, but another process is writing it: {error}") from error
    except apsw.ConnectionClosedError as error:
        raise StateError(f"{path}: must be open, but was closed") from error


def _connect(path: Path) -> apsw.Connection:
    """Open the outbox at `path`, creating it (0600, in a directory of 0700) where there is none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StateError(f"{path}: must be readable and writable, found: {error.strerror}") from error
    with _clear_errors(path):
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
    db.pragma("auto_vacuum", "INCREMENTAL")
    db.pragma("journal_mode", "WAL")
    # FULL: a commit that returned survives a power cut; NORMAL could lose the last ones.
    db.pragma("synchronous", "FULL")
    db.pragma("secure_delete", "ON")


def _claim(db: apsw.Connection, path: Path) -> None:
    """Make a new file an outbox; hold an old one against what this program knows."""
    if _is_empty(db):
        db.execute("BEGIN IMMEDIATE")
        # Another process may have come first.
        if _is_empty(db):
            db.execute(TABLES)
            db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", VERSION)
        db.execute("COMMIT")
    if db.pragma("application_id") != APPLICATION_ID:
        raise StateError(f"{path}: must be an outbox, found another SQLite file")
    version = db.pragma("user_version")
    if version != VERSION:
        raise StateError(f"{path}: its layout must be version {VERSION}, was {version}: made by another release")
    if path.stat().st_size > CHECKED_BYTES_MAX:
        return
    faults = [str(row[0]) for row in db.execute("PRAGMA quick_check(1)")]
    if faults != ["ok"]:
        raise StateError(f"{path}: must be an undamaged outbox, found: {faults[0]}; restore it from a copy")


def _is_empty(db: apsw.Connection) -> bool:
    """Return whether the file has neither tables nor an owner yet."""
    return db.pragma("application_id") == 0 and not list(db.execute("SELECT 1 FROM sqlite_schema"))
