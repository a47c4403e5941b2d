"""The dead deliveries: what was given up, why, and what an operator may do about it."""

from collections.abc import Callable, Sequence
from typing import cast

from msgspec import Struct

from sinks.layout import Database, Row
from sinks.outputs import Undeliverable
from sinks.queues import promote, tally


class DeadDelivery(Struct, frozen=True):
    """One delivery that was given up.

    Attributes:
        attempts: how often it was tried.
        first_ms, ended_ms: when it was tried first, when it was given up.
        reply: what the receiver said last, scrubbed and cut.
    """

    output: str
    id: str
    case: str
    revision: int
    reason: Undeliverable
    attempts: int
    first_ms: int
    ended_ms: int
    reply: str


class Undelivered:
    """The dead deliveries of all outputs, those configured no more included.

    Args:
        db: the outbox's file.
        announce: called after each change.
    """

    def __init__(self, db: Database, announce: Callable[[], None]) -> None:
        self._db = db
        self._announce = announce

    def list(self, output: str | None = None, limit: int = 1000) -> list[DeadDelivery]:
        """Return the dead deliveries, of one output or of all, the oldest first."""
        with self._db.read() as db:
            rows = db.execute(_LIST, {"output": output, "limit": limit}).fetchall()
        return [_dead(row) for row in rows]

    def show(self, output: str, identity: str) -> tuple[DeadDelivery, bytes] | None:
        """Return one dead delivery and its body, None if there is none of that id."""
        with self._db.read() as db:
            rows = db.execute(_SHOW, {"output": output, "id": identity}).fetchall()
        return (_dead(rows[0][:-1]), cast("bytes", rows[0][-1])) if rows else None

    def replay(self, output: str, identities: Sequence[str], now_ms: int) -> int:
        """Make dead deliveries pending again, with their ids and a fresh schedule; return how many were dead."""
        with self._db.write() as db:
            count = 0
            for identity in identities:
                for (case,) in db.execute(_REPLAY, (output, identity)).fetchall():
                    count += 1
                    if not db.execute(_HAS_DUE, (output, case)).get:
                        promote(db, output, cast("str", case), now_ms)
            tally(db, output, dead=-count, pending=count)
        self._announce()
        return count

    def discard(self, output: str, identities: Sequence[str]) -> int:
        """Drop dead deliveries for good, counted as discarded; return how many were dead."""
        with self._db.write() as db:
            count = 0
            for identity in identities:
                db.execute(_DISCARD, (output, identity))
                count += db.changes()
            tally(db, output, dead=-count, discarded=count)
        self._announce()
        return count


def _dead(row: Row) -> DeadDelivery:
    """Read a row of `_LIST`."""
    output, identity, case, revision, reason, attempts, first_ms, ended_ms, reply = row
    return DeadDelivery(
        output=output,
        id=identity,
        case=case,
        revision=revision,
        reason=Undeliverable(reason),
        attempts=attempts,
        first_ms=first_ms,
        ended_ms=ended_ms,
        reply=reply,
    )


_LIST = """
SELECT output, id, d.case_id, revision, reason, attempts, first_ms, ended_ms, reply
FROM delivery AS d JOIN notification USING (seq) JOIN message USING (seq)
WHERE state = 'dead' AND (:output IS NULL OR output = :output) ORDER BY seq, output LIMIT :limit
"""
_SHOW = """
SELECT output, id, d.case_id, revision, reason, attempts, first_ms, ended_ms, reply, body
FROM delivery AS d JOIN notification USING (seq) JOIN message USING (seq)
WHERE state = 'dead' AND output = :output AND id = :id
"""
_REPLAY = """
UPDATE delivery
SET state = 'pending', attempts = 0, first_ms = NULL, due_ms = NULL, ended_ms = NULL, reason = NULL
WHERE output = ? AND seq = (SELECT seq FROM notification WHERE id = ?) AND state = 'dead' RETURNING case_id
"""
_DISCARD = """
UPDATE delivery SET state = 'discarded'
WHERE output = ? AND seq = (SELECT seq FROM notification WHERE id = ?) AND state = 'dead'
"""
_HAS_DUE = """
SELECT EXISTS (
    SELECT 1 FROM delivery INDEXED BY delivery_case
    WHERE output = ? AND case_id = ? AND state = 'pending' AND due_ms IS NOT NULL
)
"""
