"""The durable outbox: what was put is delivered, once per id, whatever is killed when.

The engine repeats notifications after a crash; receivers fail. Between them stands one SQLite file. `put` returns
when its rows are on disk, and knows an id for ever, so a repeat is no second notification. Each output has its own
row per notification, so a dead receiver holds up no other. The transactional outbox pattern: Richardson,
*Microservices Patterns* (2018), section 3.3.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, cast

import apsw
from msgspec import Struct

from schemas.alerts import Notification
from schemas.errors import StateError, StaylineError
from sinks.breaker import Breaker, BreakerState
from sinks.layout import Database, Row
from sinks.outputs import Clock, State
from sinks.queues import Delivered, Happened, Queue, tally
from sinks.undelivered import Undelivered

POLL_S = 1.0
"""Longest sleep of a waiting thread: another process may have changed the file without a word."""

TOLD_MS = 400 * 86_400_000
"""It is known for so long after a case was last told that it was: longer than any cap counts contacts."""

PRUNE_ROWS = 500
"""Rows pruned in one transaction, so that `put` never waits long for it."""


class OutboxFull(StaylineError):  # noqa: N818  a signal to wait, no fault
    """An output's backlog is full: nothing was put, and all of it must be put again after `wait_for_room`.

    Args:
        output: the first output without room.
        pending: its deliveries waiting.
        backlog_max: how many may wait.
    """

    def __init__(self, output: str, pending: int, backlog_max: int) -> None:
        super().__init__(f"output {output}: fewer than {backlog_max} deliveries must wait, found {pending}")
        self.output = output
        self.pending = pending
        self.backlog_max = backlog_max


class OutputStats(Struct, frozen=True):
    """One output in numbers: the counts cover its whole life, pruned rows too.

    Attributes:
        pending: waiting; `delivered`, `dead`, `superseded`, `discarded` and `skipped` are the other ends, so the six
            add up to all that was put while the output was configured.
        held: of those pending, how many are held back, by reason.
        given_up: of those dead, how many lie there, by reason.
        backlog_max: how many may wait before `put` refuses.
        oldest_age_ms: how long the oldest pending one has waited, None if none waits.
        trouble: what the last failed attempt found, empty after a success.
    """

    pending: int
    delivered: int
    dead: int
    superseded: int
    discarded: int
    skipped: int
    held: dict[str, int]
    given_up: dict[str, int]
    backlog_max: int
    oldest_age_ms: int | None
    breaker: BreakerState
    trouble: str


class OutboxStats(Struct, frozen=True):
    """The outbox in numbers.

    Attributes:
        notifications: ids ever put.
        conflicts: bodies kept apart because their id already had another body. More than 0 is a fault of ours.
    """

    notifications: int
    conflicts: int
    outputs: dict[str, OutputStats]


class About(Struct, frozen=True):
    """What the outbox still knows of one customer; what was pruned is not in it.

    Attributes:
        cases: ids of the customer's cases.
        delivered: output -> how many notifications it was given.
    """

    cases: frozenset[str]
    delivered: dict[str, int]


class Outbox:
    """Notifications on disk, and how far each output has come with them.

    Methods may be called from any thread.

    Attributes:
        on_delivered: told of each delivery to an output, in the dispatcher's thread; set before dispatching begins.
        on_happened: told of a receiver's troubles in the same way; see `Queue`.
    """

    def __init__(self, db: Database, outputs: Mapping[str, int], clock: Clock) -> None:
        self._db = db
        self._backlogs = dict(outputs)
        self._clock = clock
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self.on_delivered: Delivered = lambda _output, _waited_ms: None
        self.on_happened: Happened = lambda _event, _output, _known: None
        self.undelivered = Undelivered(db, self.announce)

    @classmethod
    def open(cls, path: Path, outputs: Mapping[str, int], clock: Clock) -> Self:
        """Open the outbox at `path`, creating it where there is none.

        Args:
            path: the SQLite file; `-wal` and `-shm` stand beside it.
            outputs: name of each output -> how many deliveries may wait for it (`backlog_max`). An output that was
                configured before and is no more keeps what waits for it, until it comes back.
            clock: Unix milliseconds.

        Raises:
            StateError: the file is damaged, newer than this program, no outbox, or out of reach.
        """
        db = Database(path)
        with db.write() as rows:
            rows.executemany("INSERT INTO output (name) VALUES (?) ON CONFLICT DO NOTHING", [(n,) for n in outputs])
        return cls(db, outputs, clock)

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._db.path

    def close(self) -> None:
        """Close the file. Nothing needs it: what `put` returned from is on disk."""
        self._db.close()

    def put(self, notifications: Sequence[Notification]) -> int:
        """Store a batch, all of it or nothing; on return it is durable.

        An id that is known with the same body is ignored. With another body, the first one stands, and the other
        is kept apart and counted.

        Returns:
            How many were new.

        Raises:
            OutboxFull: an output has no room; call `wait_for_room`, then put the same batch again.
            StateError: the file cannot be written.
        """
        if not notifications:
            return 0
        now_ms = self._clock()
        with self._db.write() as db:
            self._require_room(db)
            fresh = sum(self._add(db, notification, now_ms) for notification in notifications)
            for output in self._backlogs:
                tally(db, output, pending=fresh)
        self.announce()
        return fresh

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until `put` has room; False if it has none after `timeout_s`."""

        def has_room() -> bool:
            with self._db.read() as db:
                return self._first_full(db) is None

        return self.wait_until(has_room, timeout_s)

    def wait_until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `holds()`, asked after every change of the outbox; False after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not holds():
                left_s = deadline_s - time.monotonic()
                if left_s <= 0.0:
                    return False
                self._changed.wait(min(left_s, POLL_S))
        return True

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever there may be something to send, in the thread that put it."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` no more."""
        self._listeners.remove(listener)

    def queue(self, output: str) -> Queue:
        """Return the deliveries of one output, for the dispatcher."""
        if output not in self._backlogs:
            raise StateError(f"{self.path}: output must be one of {sorted(self._backlogs)}, was {output!r}")
        return Queue(self._db, output, self._notify, self.on_delivered, self.on_happened)

    def pending(self, output: str) -> int:
        """Return how many deliveries wait for one output."""
        with self._db.read() as db:
            return cast("int", db.execute(_PENDING, (output,)).get)

    def enable(self, output: str) -> None:
        """Let deliveries through at once, whatever was known of the receiver: how an operator ends a `disabled` (410).

        What waits between two attempts is due now; what a rule holds back is held on.
        """
        with self._db.write() as db:
            db.execute(_DUE_NOW, {"output": output, "now_ms": self._clock()})
        self.queue(output).pause(Breaker(), "")
        self.announce()

    def stats(self) -> OutboxStats:
        """Return a snapshot for the metrics endpoint."""
        now_ms = self._clock()
        with self._db.read() as db:
            conflicts = db.execute("SELECT count(*) FROM conflict").get
            notifications = db.execute("SELECT coalesce(max(seq), 0) FROM notification").get
            outputs = {name: self._output_stats(db, name, now_ms) for name in self._backlogs}
        return OutboxStats(cast("int", notifications), cast("int", conflicts), outputs)

    def conflicts(self) -> list[tuple[str, bytes]]:
        """Return id and body of all that were kept apart, in the order of their ids."""
        with self._db.read() as db:
            rows = db.execute("SELECT id, body FROM conflict ORDER BY id, body_sha256").fetchall()
        return cast("list[tuple[str, bytes]]", rows)

    def prune(self, put_before_ms: int) -> int:
        """Drop the bodies that every output is done with and that were put before a time; their ids stay known.

        Args:
            put_before_ms: now less the replay horizon: longer ago than any replay of the engine reaches back.

        Returns:
            How many were dropped, at most 500: call again while it is not 0.
        """
        with self._db.write() as db:
            done = db.execute(_PRUNABLE, (put_before_ms, PRUNE_ROWS)).fetchall()
            db.executemany("DELETE FROM delivery WHERE output IN (SELECT name FROM output) AND seq = ?", done)
            db.executemany("DELETE FROM message WHERE seq = ?", done)
            db.execute("DELETE FROM told WHERE last_ms < ?", (self._clock() - TOLD_MS,))
        if done:
            with self._db.read() as db:
                db.execute("PRAGMA incremental_vacuum").fetchall()
        return len(done)

    def about(self, customer_id: str) -> About:
        """Return what is known of one customer."""
        with self._db.read() as db:
            rows: list[Row] = db.execute(_DELIVERIES_ABOUT, (customer_id,)).fetchall()
        delivered = Counter(str(output) for output, _, state in rows if state == State.DELIVERED)
        return About(frozenset(str(case) for _, case, _ in rows), dict(delivered))

    def forget(self, customer_id: str) -> int:
        """Erase every body about one customer, delivered or not; deliveries still to be made count as discarded.

        Returns:
            How many notifications were erased. Their ids, which name no one, stay known.
        """
        with self._db.write() as db:
            known = db.execute(_ABOUT.format(table="message", key="seq"), (customer_id,)).fetchall()
            for (seq,) in known:
                for output, state in db.execute(_DELETE_DELIVERIES, (seq,)).fetchall():
                    if state in {State.PENDING, State.DEAD}:
                        tally(db, str(output), **{str(state): -1, "discarded": 1})
            db.executemany("DELETE FROM message WHERE seq = ?", known)
            db.execute("DELETE FROM told WHERE customer_id = ?", (customer_id,))
            apart = db.execute(_ABOUT.format(table="conflict", key="id, body_sha256"), (customer_id,)).fetchall()
            db.executemany("DELETE FROM conflict WHERE id = ? AND body_sha256 = ?", apart)
            # A receiver may repeat in its answer what it was sent.
            for table, column in (("output", "trouble"), ("delivery", "reply")):
                db.execute(_QUOTED.format(table=table, column=column), {"customer": customer_id})
        with self._db.read() as db:
            # The log of recent pages still holds what was erased, until it is folded in and cut.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.announce()
        return len(known)

    def announce(self) -> None:
        """Tell the dispatcher that there may be something to send, and all who wait that something changed."""
        for listener in tuple(self._listeners):
            listener()
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _first_full(self, db: apsw.Connection) -> tuple[str, int] | None:
        """Return the first output without room and how many wait for it."""
        for name, backlog_max in self._backlogs.items():
            pending = cast("int", db.execute(_PENDING, (name,)).get)
            if pending >= backlog_max:
                return name, pending
        return None

    def _require_room(self, db: apsw.Connection) -> None:
        full = self._first_full(db)
        if full is not None:
            raise OutboxFull(full[0], full[1], self._backlogs[full[0]])

    def _add(self, db: apsw.Connection, new: Notification, now_ms: int) -> int:
        """Store one notification and its deliveries; return 1 if its id is new."""
        digest = hashlib.sha256(new.body).digest()
        db.execute(_INSERT_NOTIFICATION, (new.id, digest))
        if db.changes() == 0:
            first = db.execute("SELECT body_sha256 FROM notification WHERE id = ?", (new.id,)).get
            if first != digest:
                db.execute(_INSERT_CONFLICT, (new.id, digest, now_ms, new.body))
            return 0
        seq = db.last_insert_rowid()
        db.execute(_INSERT_MESSAGE, (seq, new.type, new.revision, new.time_ms, now_ms, new.body))
        for output in self._backlogs:
            db.execute(_INSERT_DELIVERY, (output, seq, new.case, output, new.case, now_ms))
        return 1

    def _output_stats(self, db: apsw.Connection, name: str, now_ms: int) -> OutputStats:
        counts: Row = db.execute(_COUNTS, (name,)).fetchall()[0]
        pending, delivered, dead, superseded, discarded, skipped, breaker, trouble = counts
        oldest_ms = cast("int | None", db.execute(_OLDEST, (name,)).get)
        return OutputStats(
            pending=pending,
            delivered=delivered,
            dead=dead,
            superseded=superseded,
            discarded=discarded,
            skipped=skipped,
            held={str(why): cast("int", count) for why, count in db.execute(_HELD, (name,))},
            given_up={str(why): cast("int", count) for why, count in db.execute(_GIVEN_UP, (name,))},
            backlog_max=self._backlogs[name],
            oldest_age_ms=None if oldest_ms is None else max(0, now_ms - oldest_ms),
            breaker=breaker,
            trouble=trouble,
        )


_INSERT_NOTIFICATION = "INSERT INTO notification (id, body_sha256) VALUES (?, ?) ON CONFLICT DO NOTHING"

_INSERT_MESSAGE = """
INSERT INTO message (seq, type, revision, time_ms, put_ms, body) VALUES (?, ?, ?, ?, ?, ?)
"""

# Only the first pending one of a case is due; the others follow when it has ended.
_INSERT_DELIVERY = """
INSERT INTO delivery (output, seq, case_id, due_ms) VALUES (?, ?, ?, CASE WHEN EXISTS (
    SELECT 1 FROM delivery WHERE output = ? AND case_id = ? AND state = 'pending'
) THEN NULL ELSE ? END)
"""

_INSERT_CONFLICT = """
INSERT INTO conflict (id, body_sha256, put_ms, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING
"""

_PENDING = "SELECT pending FROM output WHERE name = ?"

_COUNTS = """
SELECT pending, delivered, dead, superseded, discarded, skipped, breaker, trouble FROM output WHERE name = ?
"""

_HELD = """
SELECT held, count(*) FROM delivery INDEXED BY delivery_held
WHERE output = ? AND state = 'pending' AND held <> '' GROUP BY held
"""

_GIVEN_UP = """
SELECT reason, count(*) FROM delivery INDEXED BY delivery_dead WHERE output = ? AND state = 'dead' GROUP BY reason
"""

_OLDEST = """
SELECT put_ms FROM delivery JOIN message USING (seq)
WHERE output = ? AND state = 'pending' ORDER BY seq LIMIT 1
"""

_DUE_NOW = """
UPDATE delivery SET due_ms = :now_ms
WHERE output = :output AND state = 'pending' AND due_ms > :now_ms AND held = ''
"""

_PRUNABLE = """
SELECT seq FROM message AS m WHERE put_ms < ? AND NOT EXISTS (
    SELECT 1 FROM delivery AS d
    WHERE d.output IN (SELECT name FROM output) AND d.seq = m.seq AND d.state IN ('pending', 'dead')
) ORDER BY put_ms, seq LIMIT ?
"""

_ABOUT = """
SELECT {key} FROM {table} WHERE CASE WHEN json_valid(CAST(body AS TEXT)) THEN
    json_extract(CAST(body AS TEXT), '$.data.customer_id') = ? END
"""

_DELIVERIES_ABOUT = """
SELECT output, case_id, state FROM delivery JOIN message USING (seq) WHERE CASE
    WHEN json_valid(CAST(body AS TEXT)) THEN json_extract(CAST(body AS TEXT), '$.data.customer_id') = ? END
"""

_QUOTED = "UPDATE {table} SET {column} = '' WHERE instr({column}, :customer) > 0"

_DELETE_DELIVERIES = """
DELETE FROM delivery WHERE output IN (SELECT name FROM output) AND seq = ? RETURNING output, state
"""
