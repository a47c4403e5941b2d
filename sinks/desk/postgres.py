"""The desk's database in PostgreSQL: for a team whose desks run in several processes, or whose backups live there."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from schemas.errors import StateError
from sinks.desk.database import Listeners, Row
from sinks.desk.layout import VERSION, statements
from sinks.outputs import OutputDownError

POOL_MAX = 8
"""Connections at most: a desk's statements take milliseconds."""

WAIT_S = 5.0
"""How long a request waits for a connection before the desk says that it cannot answer."""

WRITERS = 0x5374446B
"""Key of the advisory lock that lets one process write at a time, so that sequences are committed in order."""

CHANNEL = "stayline_desk"


class _Rows:
    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    def rows(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        cursor = self._connection.execute(_translated(statement), values)
        return cursor.fetchall() if cursor.description is not None else []


class PostgresDatabase:
    """A pool of connections to one PostgreSQL database; see `sinks.desk.database.Database`.

    Args:
        url: a connection string of libpq; a password belongs into the environment (PGPASSWORD) or a password file.

    Raises:
        StateError: the tables there are of another layout, or the string is none.
        OutputDownError: the server cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._listeners = Listeners()
        self._closed = threading.Event()
        with _clear_errors():
            # One connection first: its error says what is wrong, where a pool would only say that it waited.
            with psycopg.connect(url) as connection:
                _claim(connection)
            self._pool = ConnectionPool(url, min_size=1, max_size=POOL_MAX, timeout=WAIT_S, open=True)
        self._listener = threading.Thread(target=self._listen, name="desk notifications", daemon=True)
        self._listener.start()

    @contextlib.contextmanager
    def read(self) -> Iterator[_Rows]:
        """Give a transaction for reading."""
        with _clear_errors(), self._pool.connection() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield _Rows(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[_Rows]:
        """Give the only writing transaction, among all processes."""
        with _clear_errors(), self._pool.connection() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (WRITERS,))
            yield _Rows(connection)
            connection.execute(f"NOTIFY {CHANNEL}")

    def erased(self) -> None:
        """Leave it to the server: its vacuum removes deleted rows from its files, its archives keep them."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every `write` of any process."""
        self._listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def close(self) -> None:
        """Close all connections."""
        self._closed.set()
        self._listener.join()
        self._pool.close()

    def _listen(self) -> None:
        """Pass on what the server notifies; after a lost connection tell all to look for themselves."""
        while not self._closed.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(self._url, autocommit=True) as connection:
                connection.execute(f"LISTEN {CHANNEL}")
                self._listeners.call()
                while not self._closed.is_set():
                    for _ in connection.notifies(timeout=0.5, stop_after=1):
                        self._listeners.call()
            self._closed.wait(0.5)


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn what PostgreSQL says into an error that an operator can act on."""
    try:
        yield
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise OutputDownError(f"desk.postgres: must be a server that answers, found: {error}") from error
    except psycopg.Error as error:
        raise StateError(f"desk.postgres: must be an undamaged desk database, found: {error}") from error


def _claim(connection: psycopg.Connection[Row]) -> None:
    """Make an empty database a desk's; hold another one against what this program knows."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (WRITERS,))
    if connection.execute("SELECT to_regclass('feed')").fetchone() == (None,):
        for statement in statements(postgres=True):
            connection.execute(statement)
    found = connection.execute("SELECT version FROM feed").fetchone()
    if found != (VERSION,):
        raise StateError(f"desk.postgres: its layout must be version {VERSION}, was {found}: made by another release")


@lru_cache(maxsize=256)
def _translated(statement: str) -> str:
    """Write named parameters as psycopg wants them."""
    return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", statement.replace("%", "%%"))
