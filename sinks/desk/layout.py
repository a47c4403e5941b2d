"""The desk's file: its tables, its version, and how it is opened."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from schemas.errors import StateError
from sinks.outputs import OutputDownError

APPLICATION_ID = 0x5374446B
"""`StDk` in ASCII: tells a desk's file from any other SQLite file (PRAGMA application_id)."""

VERSION = 1
"""The layout below. A program reads its own version only; a newer file is refused."""

BUSY_WAIT_MS = 10_000
"""How long to wait for another process (an operator's command) that is writing."""

Row = tuple[Any, ...]
"""A row of a result: its columns have the types of the STRICT tables below, which no type checker sees."""

# `card` holds what is shown: of each case and incident the newest revision. Its `seq` is drawn anew whenever what is
# shown changes, so "what changed since" is a range of an index, and a reader who was away gets each case once.
# `card_ranked` holds all that lists and counts look at, so that neither reads the data of cases it does not show.
TABLES = """
CREATE TABLE feed (seq INTEGER NOT NULL) STRICT;
INSERT INTO feed VALUES (0);

CREATE TABLE card (
    case_id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    type TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    is_alert INTEGER NOT NULL,
    customer_id TEXT,
    severity INTEGER,
    kind TEXT,
    band TEXT,
    value_minor INTEGER,
    currency TEXT,
    detected_ms INTEGER NOT NULL,
    is_contacted INTEGER NOT NULL DEFAULT 0,
    last_result TEXT,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX card_ranked ON card (
    is_alert, is_open, is_contacted, value_minor DESC, severity DESC, detected_ms DESC, case_id, currency
);
CREATE INDEX card_customer ON card (customer_id);

CREATE TABLE revision (
    id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    type TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX revision_case ON revision (case_id, revision);

CREATE TABLE contact (
    case_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    result TEXT NOT NULL,
    remedy_id TEXT,
    PRIMARY KEY (case_id, number)
) STRICT, WITHOUT ROWID;
"""


class Database:
    """One SQLite connection that threads take in turn.

    Raises:
        StateError: the file at `path` is damaged, newer, not a desk's, or out of reach.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db = _connect(path)

    @contextlib.contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Give the connection for reading: all of the block sees the file at one moment."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextlib.contextmanager
    def write(self) -> Iterator[apsw.Connection]:
        """Give the connection for one transaction: on return it is on disk, on an error it never was."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[apsw.Connection]:
        with self._lock, clear_errors(self.path):
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # After a full disk SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def fold(self) -> None:
        """Fold the write-ahead log into the file and cut it: it still holds what was erased."""
        with self._lock, clear_errors(self.path):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the connection; what was committed stays."""
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
    """Open the file at `path`, creating it (0600, in a directory of 0700) where there is none."""
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
            db.execute(TABLES)
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
