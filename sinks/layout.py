"""The outbox's file: its tables, and one connection that threads take in turn."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from schemas.errors import StateError
from sinks.sqlite import Layout, clear_errors, connect, transaction

Row = tuple[Any, ...]
"""A row of a result: its columns have the types of the STRICT tables below, which no type checker sees."""

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


OUTBOX = Layout("an outbox", 0x53746179, 1, (TABLES,))
"""`Stay` in ASCII tells it from any other SQLite file."""


class Database:
    """One SQLite connection that threads take in turn.

    One connection, because SQLite has one writer anyway, and because two connections of a process would hide
    each other's waiting. Other processes may open the same file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db = connect(path, OUTBOX)

    @contextlib.contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Give the connection for one statement."""
        with self._lock, clear_errors(self.path, OUTBOX):
            yield self._db

    @contextlib.contextmanager
    def write(self) -> Iterator[apsw.Connection]:
        """Give the connection for one transaction: on return it is on disk, on an error it never was."""
        with self._lock, clear_errors(self.path, OUTBOX), transaction(self._db, "BEGIN IMMEDIATE"):
            yield self._db

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
