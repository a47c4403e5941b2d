"""One output's deliveries, as the dispatcher sees them: what is due, and what came of it."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import cast

import apsw
from msgspec import Struct

from schemas.alerts import Notification
from sinks.breaker import Breaker, BreakerState
from sinks.layout import Database, Row
from sinks.outputs import Delivery, Health, Outcome, State, answer_of
from sinks.routing import Standing
from sinks.treatment import Aside

WAIT_MS_MAX = 14_400_000
"""Longest wait between two attempts; what is held may wait longer, and is then asked about once too often."""


def tally(db: apsw.Connection, output: str, **changes: int) -> None:
    """Add to an output's counters, in the transaction that moves the rows they count."""
    row = {state: changes.get(state, 0) for state in State} | {"output": output}
    db.execute(_TALLY, row)


class Ended(Struct, frozen=True):
    """An attempt that has ended: what was sent, what came of it, when it began, and whose contact it was."""

    delivery: Delivery
    outcome: Outcome
    began_ms: int
    contact: str | None = None


Delivered = Callable[[str, int], None]
"""Is told an output, and how long a notification that it took had been in the outbox, in milliseconds."""

Happened = Callable[[str, str, dict[str, str]], None]
"""Is told an event by its name, its output, and what is known of it; nothing of it names a customer."""

_TURNS = {"open": "output.paused", "closed": "output.resumed", "disabled": "output.disabled"}
"""Events of a breaker, by the state that it came to."""

_News = list[tuple[str, dict[str, str]]]


class Queue:
    """The deliveries of one output.

    Args:
        db: the outbox's file.
        output: the output's name.
        announce: called after each change.
        delivered: called after each delivery.
        happened: told when the receiver begins to fail (`output.failing`) or answers otherwise, when it is left alone
            (`output.paused`, `output.disabled`) and no longer (`output.resumed`), and of each `delivery.given_up`.
    """

    def __init__(
        self,
        db: Database,
        output: str,
        announce: Callable[[], None],
        delivered: Delivered = lambda _output, _waited_ms: None,
        happened: Happened = lambda _event, _output, _known: None,
    ) -> None:
        self.output = output
        self._db = db
        self._announce = announce
        self._delivered = delivered
        self._happened = happened

    def standing(self) -> tuple[int, Breaker]:
        """Return the committed position of a stream output, and the breaker."""
        with self._db.read() as db:
            row = db.execute(
                "SELECT position, breaker, failures, until_ms FROM output WHERE name = ?", (self.output,)
            ).fetchall()[0]
        position, state, failures, until_ms = row
        breaker = Breaker(cast("BreakerState", state), cast("int", failures), cast("int", until_ms))
        return cast("int", position), breaker

    def head(self, limit: int) -> list[Delivery]:
        """Return the first pending deliveries in the outbox's order: what a stream output takes next."""
        with self._db.read() as db:
            return [_delivery(row) for row in db.execute(_HEAD, (self.output, limit))]

    def due(self, now_ms: int, limit: int, busy: Collection[str]) -> list[Delivery]:
        """Return deliveries to attempt now, the longest due first, at most one of a case.

        Args:
            now_ms: the time.
            limit: how many at most.
            busy: cases that have an attempt in flight: they stay pending until it ends, and are left out.
        """
        with self._db.read() as db:
            rows = db.execute(_DUE, (self.output, now_ms, limit + len(busy))).fetchall()
        found = [_delivery(row) for row in rows]
        return [delivery for delivery in found if delivery.notification.case not in busy][:limit]

    def next_due_ms(self, from_ms: int) -> int | None:
        """Return the earliest time from `from_ms` on at which a delivery is due, None if there is none."""
        with self._db.read() as db:
            return cast("int | None", db.execute(_NEXT_DUE, (self.output, from_ms)).get)

    def told(self, case: str, contact: str | None) -> Standing:
        """Return what the output was told of a case, and when cases of a customer were first delivered to it."""
        with self._db.read() as db:
            known = db.execute("SELECT 1 FROM told WHERE output = ? AND case_id = ?", (self.output, case)).fetchall()
            contacts = [] if contact is None else db.execute(_CONTACTS, (self.output, contact)).fetchall()
        return Standing(bool(known), tuple(cast("int", at_ms) for (at_ms,) in contacts))

    def put_aside(self, asides: Sequence[tuple[Delivery, Aside]], now_ms: int) -> None:
        """Record that deliveries are not to be sent: not now, or never. Tells nothing of the receiver's health."""
        if not asides:
            return
        news: _News = []
        with self._db.write() as db:
            for delivery, aside in asides:
                news += self._put_aside(db, delivery, aside, now_ms)
        self._report(news)

    def release(self, now_ms: int) -> None:
        """Make all that is held due: the rule may have changed since it was decided."""
        with self._db.write() as db:
            db.execute(_RELEASE, (now_ms, self.output))

    def pull_in(self, now_ms: int) -> None:
        """Make due what waits until later than any wait between two attempts reaches: the clock was put back."""
        with self._db.write() as db:
            db.execute(_PULL_IN, (now_ms, self.output, now_ms + WAIT_MS_MAX))

    def keep_newest(self, deliveries: Sequence[Delivery], types: Collection[str] = ()) -> list[Delivery]:
        """Replace each delivery by the newest pending one of its case, and mark the older ones superseded.

        Args:
            deliveries: the first pending ones of their cases.
            types: what the output takes; empty: all. A newer one that it does not take supersedes nothing.
        """
        newest = []
        taken = json.dumps(sorted(types))
        with self._db.write() as db:
            for delivery in deliveries:
                row = db.execute(_NEWEST, (self.output, delivery.notification.case, taken, taken)).fetchall()
                last = _delivery(row[0]) if row else delivery
                newest.append(last)
                if last.seq != delivery.seq:
                    db.execute(_SUPERSEDE, (self.output, delivery.notification.case, last.seq))
                    tally(db, self.output, pending=-db.changes(), superseded=db.changes())
                    db.execute(_SET_DUE, (0, self.output, last.seq))
        return newest

    def settle(self, ended: Sequence[Ended], now_ms: int, breaker: Breaker) -> None:
        """Record what came of some attempts, and the receiver's health after them, in one transaction."""
        news: _News = []
        with self._db.write() as db:
            for one in ended:
                news += self._settle(db, one, now_ms)
            trouble = next((e.outcome.reply for e in reversed(ended) if e.outcome.state != State.DELIVERED), "")
            news += self._save(db, breaker, trouble)
        self._tell_delivered([one.delivery for one in ended if one.outcome.state == State.DELIVERED], now_ms)
        self._report(news)

    def commit(self, deliveries: Sequence[Delivery], position: int, now_ms: int) -> None:
        """Record that a stream output holds `deliveries` and ends at `position`, in one transaction."""
        with self._db.write() as db:
            before = db.total_changes()
            db.executemany(_DELIVERED, [(now_ms, self.output, delivery.seq) for delivery in deliveries])
            # Fewer than were written, if an operator erased a customer meanwhile.
            count = db.total_changes() - before
            told = [(self.output, each.notification.case, None, now_ms, now_ms, now_ms) for each in deliveries]
            db.executemany(_TELL, told)
            tally(db, self.output, pending=-count, delivered=count)
            db.execute("UPDATE output SET position = ? WHERE name = ?", (position, self.output))
            news = self._save(db, Breaker(), "")
        self._tell_delivered(deliveries, now_ms)
        self._report(news)

    def _tell_delivered(self, deliveries: Sequence[Delivery], now_ms: int) -> None:
        for delivery in deliveries:
            self._delivered(self.output, max(0, now_ms - delivery.put_ms))

    def pause(self, breaker: Breaker, trouble: str) -> None:
        """Record that the output as a whole can take nothing for now."""
        with self._db.write() as db:
            news = self._save(db, breaker, trouble)
        self._report(news)

    def _report(self, news: _News) -> None:
        """Tell what has been recorded."""
        for event, known in news:
            self._happened(event, self.output, known)
        self._announce()

    def _save(self, db: apsw.Connection, breaker: Breaker, trouble: str) -> _News:
        """Record how the receiver stands; return what is new about it."""
        state, before = db.execute("SELECT breaker, trouble FROM output WHERE name = ?", (self.output,)).fetchall()[0]
        row = (breaker.state, breaker.failures, breaker.until_ms, trouble, self.output)
        db.execute("UPDATE output SET breaker = ?, failures = ?, until_ms = ?, trouble = ? WHERE name = ?", row)
        news: _News = []
        answer = answer_of(trouble)
        if answer and answer != answer_of(cast("str", before)) and breaker.state != "disabled":
            news.append(("output.failing", {"answer": answer}))
        if breaker.state != state:
            news.append((_TURNS[breaker.state], {"answer": answer} if answer else {}))
        return news

    def _settle(self, db: apsw.Connection, ended: Ended, now_ms: int) -> _News:
        """Record what came of an attempt; return what is to be told of it."""
        outcome, seq = ended.outcome, ended.delivery.seq
        first_ms = ended.began_ms if ended.delivery.first_ms is None else ended.delivery.first_ms
        if outcome.state == State.PENDING:
            db.execute(_RETRY, (first_ms, outcome.retry_ms, outcome.reply, self.output, seq))
            return []
        reason = outcome.reason
        db.execute(_END, (outcome.state, first_ms, now_ms, reason, outcome.reply, self.output, seq))
        # The row is gone if an operator erased the customer while the attempt ran: nothing to count.
        if not db.changes():
            return []
        tally(db, self.output, pending=-1, **{str(outcome.state): 1})
        promote(db, self.output, ended.delivery.notification.case, now_ms)
        if outcome.state == State.DELIVERED:
            self._tell(db, ended.delivery, ended.contact, now_ms)
        if outcome.state != State.DEAD:
            return []
        name = f"{self.output}/{ended.delivery.notification.id}"
        return [("delivery.given_up", {"id": name, "reason": str(reason), "answer": answer_of(outcome.reply)})]

    def _put_aside(self, db: apsw.Connection, delivery: Delivery, aside: Aside, now_ms: int) -> _News:
        if aside.state == State.PENDING:
            db.execute(_HOLD, (aside.until_ms, aside.held, self.output, delivery.seq))
        elif aside.state == State.DEAD:
            outcome = Outcome(State.DEAD, Health.WELL, reason=aside.reason, reply=aside.detail)
            return self._settle(db, Ended(delivery, outcome, now_ms), now_ms)
        else:
            db.execute(_SKIP, (now_ms, aside.detail, self.output, delivery.seq))
            if db.changes():
                tally(db, self.output, pending=-1, skipped=1)
                promote(db, self.output, delivery.notification.case, now_ms)
        return []

    def _tell(self, db: apsw.Connection, delivery: Delivery, contact: str | None, now_ms: int) -> None:
        """Remember that the output knows a case."""
        db.execute(_TELL, (self.output, delivery.notification.case, contact, now_ms, now_ms, now_ms))


def promote(db: apsw.Connection, output: str, case: str, now_ms: int) -> None:
    """Make the first pending delivery of a case due now; none of the case is due yet."""
    db.execute(_PROMOTE, (now_ms, output, output, case))


def _delivery(row: Row) -> Delivery:
    """Read a row of `_COLUMNS`."""
    seq, identity, kind, case, revision, time_ms, body, attempts, first_ms, put_ms = row
    notification = Notification(id=identity, type=kind, case=case, revision=revision, time_ms=time_ms, body=body)
    return Delivery(seq, notification, attempts, first_ms, put_ms)


# Each question names its index: the planner would rather walk the primary key, past all that was ever delivered.
_COLUMNS = "SELECT seq, id, type, d.case_id, revision, time_ms, body, attempts, first_ms, put_ms FROM delivery AS d "
_PENDING = " JOIN notification USING (seq) JOIN message USING (seq) WHERE output = ? AND state = 'pending' "
_HEAD = _COLUMNS + "INDEXED BY delivery_pending" + _PENDING + "ORDER BY seq LIMIT ?"
_DUE = _COLUMNS + "INDEXED BY delivery_due" + _PENDING + "AND due_ms <= ? ORDER BY due_ms, seq LIMIT ?"
_OF_CASE = "AND d.case_id = ? AND (? = '[]' OR instr(?, '\"' || type || '\"')) ORDER BY seq DESC LIMIT 1"
_NEWEST = _COLUMNS + "INDEXED BY delivery_case" + _PENDING + _OF_CASE
_NEXT_DUE = """
SELECT min(due_ms) FROM delivery INDEXED BY delivery_due WHERE output = ? AND state = 'pending' AND due_ms >= ?
"""
_TALLY = """
UPDATE output SET pending = pending + :pending, delivered = delivered + :delivered, dead = dead + :dead,
    superseded = superseded + :superseded, discarded = discarded + :discarded, skipped = skipped + :skipped
WHERE name = :output
"""
_SUPERSEDE = """
UPDATE delivery INDEXED BY delivery_case SET state = 'superseded', due_ms = NULL
WHERE output = ? AND case_id = ? AND state = 'pending' AND seq < ?
"""
_SET_DUE = "UPDATE delivery SET due_ms = ? WHERE output = ? AND seq = ?"
_DELIVERED = """
UPDATE delivery SET state = 'delivered', due_ms = NULL, ended_ms = ?
WHERE output = ? AND seq = ? AND state = 'pending'
"""
_RETRY = """
UPDATE delivery SET attempts = attempts + 1, first_ms = ?, due_ms = ?, reply = ?, held = ''
WHERE output = ? AND seq = ? AND state = 'pending'
"""
_END = """
UPDATE delivery SET
    state = ?, attempts = attempts + 1, first_ms = ?, due_ms = NULL, ended_ms = ?, reason = ?, reply = ?
WHERE output = ? AND seq = ? AND state = 'pending'
"""
_HOLD = "UPDATE delivery SET due_ms = ?, held = ? WHERE output = ? AND seq = ? AND state = 'pending'"
_PULL_IN = """
UPDATE delivery INDEXED BY delivery_due SET due_ms = ? WHERE output = ? AND state = 'pending' AND due_ms > ?
"""
_RELEASE = """
UPDATE delivery INDEXED BY delivery_held SET due_ms = ?, held = '' WHERE output = ? AND state = 'pending' AND held <> ''
"""
_SKIP = """
UPDATE delivery SET state = 'skipped', due_ms = NULL, ended_ms = ?, reply = ?
WHERE output = ? AND seq = ? AND state = 'pending'
"""
_CONTACTS = "SELECT first_ms FROM told WHERE output = ? AND customer_id = ? ORDER BY first_ms"
_TELL = """
INSERT INTO told (output, case_id, customer_id, first_ms, last_ms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (output, case_id) DO UPDATE SET last_ms = ?
"""
_PROMOTE = """
UPDATE delivery SET due_ms = ? WHERE output = ? AND seq = (
    SELECT seq FROM delivery WHERE output = ? AND case_id = ? AND state = 'pending' ORDER BY seq LIMIT 1
)
"""
