"""What the desk shows, on disk: the newest revision of each case and incident, their history, and the contacts."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import apsw

from schemas.alerts import Incident, Notification, Severity
from schemas.events import Outcome
from sinks.desk.cards import (
    RESULTS_OPEN,
    SEVERITIES,
    Card,
    CaseFile,
    Change,
    Contact,
    Counts,
    Filter,
    Revision,
    columns_of,
    is_open,
    read_alert,
    read_data,
    read_incident,
)
from sinks.desk.layout import Database, Row
from sinks.outputs import NotificationRefusedError

_CARD = "seq, type, time_ms, last_result, data"

_COLUMNS = ("is_alert", "detected_ms", "customer_id", "severity", "kind", "band", "value_minor", "currency")

_SHOW = {
    "to_call": "is_alert = 1 AND is_open = 1 AND is_contacted = 0",
    "contacted": "is_alert = 1 AND is_open = 1 AND is_contacted = 1",
    "resolved": "is_alert = 1 AND is_open = 0",
    "all": "is_alert = 1",
}

# SQLite sorts NULL below every number: who is not known to be worth anything comes last.
_RANK = "value_minor DESC, severity DESC, detected_ms DESC, case_id"

_UPSERT = f"""
INSERT INTO card (case_id, seq, revision, type, time_ms, is_open, data, {", ".join(_COLUMNS)})
VALUES (:case_id, :seq, :revision, :type, :time_ms, :is_open, :data, {", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT (case_id) DO UPDATE SET
    seq = excluded.seq, revision = excluded.revision, type = excluded.type, time_ms = excluded.time_ms,
    is_open = excluded.is_open, data = excluded.data, {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}
"""  # noqa: S608  the names are the constants above


class DeskStore:
    """The desk's cases in one SQLite file.

    Methods may be called from any thread. All of them raise `OutputDownError` where waiting may help (a full disk,
    another process that writes) and `StateError` where it will not.

    Args:
        path: the file; it and its directory are made where there is none (0600, 0700).

    Raises:
        StateError: the file is damaged, newer than this program, not a desk's, or out of reach.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(path)
        self._listeners: list[Callable[[], None]] = []
        self._listening = threading.Lock()

    def close(self) -> None:
        """Close the file; what `put` and `record_outcome` returned from is on disk."""
        self._db.close()

    def put(self, notifications: Sequence[Notification]) -> int:
        """Take a batch, all of it or nothing; on return it is durable.

        An id that is known is ignored. A revision older than the one shown joins the history and changes nothing
        else.

        Returns:
            How many ids were new.

        Raises:
            NotificationRefusedError: a body is not what its type promises.
        """
        rows = [_row_of(index, notification) for index, notification in enumerate(notifications)]
        with self._db.write() as db:
            fresh = sum(_add(db, row) for row in rows)
        if fresh:
            self._announce()
        return fresh

    # Questions

    def cases(self, wanted: Filter, limit: int = 50, offset: int = 0) -> list[Card]:
        """List cases by value at risk, unknown last; then the worst, then the newest."""
        where, values = _where(wanted)
        # The clauses are constants of this module; every value is bound. Chosen first, and only then read.
        chosen = f"SELECT case_id FROM card WHERE {where} ORDER BY {_RANK} LIMIT :limit OFFSET :offset"  # noqa: S608
        query = f"SELECT {_CARD} FROM card WHERE case_id IN ({chosen}) ORDER BY {_RANK}"  # noqa: S608
        with self._db.read() as db:
            return [_card(row) for row in db.execute(query, {**values, "limit": limit, "offset": offset})]

    def count(self, wanted: Filter) -> int:
        """Return how many cases `cases` would list without a limit."""
        where, values = _where(wanted)
        query = f"SELECT count(*) FROM card WHERE {where}"  # noqa: S608  as in `cases`
        with self._db.read() as db:
            return cast("int", next(iter(db.execute(query, values)))[0])

    def counts(self) -> Counts:
        """Return the desk in numbers, all of one moment."""
        with self._db.read() as db:
            sums = [next(iter(db.execute(f"SELECT count(*) FROM card WHERE {_SHOW[show]}")))[0] for show in _SHOW]  # noqa: S608  as in `cases`
            query = f"SELECT severity, count(*) FROM card WHERE {_SHOW['to_call']} GROUP BY severity"  # noqa: S608  as in `cases`
            severity: dict[Severity, int] = {SEVERITIES[row[0]]: row[1] for row in db.execute(query)}
            query = (
                f"SELECT currency, sum(value_minor) FROM card WHERE {_SHOW['to_call']} "  # noqa: S608  as in `cases`
                "AND value_minor IS NOT NULL AND currency IS NOT NULL GROUP BY currency ORDER BY currency"
            )
            value: dict[str, int] = dict(db.execute(query))
            incidents = [read_incident(row[0]) for row in _open_incidents(db)]
        affected = sum(incident.customers_affected for incident in incidents)
        return Counts(sums[0], sums[1], sums[2], len(incidents), affected, severity, value)

    def incidents(self) -> list[Incident]:
        """List the open incidents, the one that affects most customers first, then the newest."""
        with self._db.read() as db:
            found = [read_incident(row[0]) for row in _open_incidents(db)]
        return sorted(found, key=lambda each: (-each.customers_affected, -each.detected_ms, each.incident_id))

    def incident(self, incident_id: str) -> Incident | None:
        """Return an incident, open or cleared; None if it is not known."""
        with self._db.read() as db:
            rows = list(db.execute("SELECT data FROM card WHERE case_id = ? AND is_alert = 0", (incident_id,)))
        return read_incident(rows[0][0]) if rows else None

    def case(self, alert_id: str) -> CaseFile | None:
        """Return all that is kept of one case; None if it is not known."""
        history = "SELECT type, time_ms, data FROM revision WHERE case_id = ? ORDER BY revision DESC, id"
        contacts = "SELECT number, at_ms, result, remedy_id FROM contact WHERE case_id = ? ORDER BY number"
        with self._db.read() as db:
            found = list(db.execute(f"SELECT {_CARD} FROM card WHERE case_id = ? AND is_alert = 1", (alert_id,)))  # noqa: S608  as in `cases`
            if not found:
                return None
            revisions = [Revision(row[0], row[1], read_alert(row[2])) for row in db.execute(history, (alert_id,))]
            return CaseFile(_card(found[0]), revisions, [Contact(*row) for row in db.execute(contacts, (alert_id,))])

    def changes(self, since_seq: int, limit: int = 200) -> list[Change]:
        """List what changed after `since_seq`, in order of sequence.

        A case that changed several times comes once, as it is now, at its latest place. So whoever goes on from the
        last sequence they saw misses nothing, however long they were away.
        """
        query = "SELECT seq, case_id, type, revision, severity FROM card WHERE seq > ? ORDER BY seq LIMIT ?"
        with self._db.read() as db:
            rows: list[Row] = list(db.execute(query, (since_seq, limit)))
        return [
            Change(seq, case_id, kind, revision, None if severity is None else SEVERITIES[severity])
            for seq, case_id, kind, revision, severity in rows
        ]

    def newest_seq(self) -> int:
        """Return the sequence of the latest change, 0 before any."""
        with self._db.read() as db:
            return cast("int", next(iter(db.execute("SELECT seq FROM feed")))[0])

    # What representatives do

    def record_outcome(self, outcome: Outcome, seen: int, take: Callable[[], None]) -> bool:
        """Record how a contact ended, once, however often the same form is sent.

        Args:
            outcome: what came of the case `outcome.alert_id`.
            seen: how many contacts the representative had before their eyes: this one is the next.
            take: hands the outcome on; called once if it is new. If it raises, nothing was recorded.

        Returns:
            Whether this outcome stands. False: somebody recorded another one meanwhile, or the case is gone.
        """
        place = (outcome.alert_id, seen + 1)
        with self._db.write() as db:
            known = list(db.execute("SELECT result, remedy_id FROM contact WHERE case_id = ? AND number = ?", place))
            if known:
                return cast("Row", known[0]) == (outcome.result, outcome.remedy_id)
            if not _has_room(db, *place):
                return False
            row = (*place, outcome.at_ms, outcome.result, outcome.remedy_id)
            db.execute("INSERT INTO contact VALUES (?, ?, ?, ?, ?)", row)
            contacted = outcome.result not in RESULTS_OPEN
            db.execute(
                "UPDATE card SET seq = ?, is_contacted = ?, last_result = ? WHERE case_id = ?",
                (_next_seq(db), int(contacted), outcome.result, outcome.alert_id),
            )
            # Last, and before the commit: a crash here can only make the representative press again.
            take()
        self._announce()
        return True

    def forget(self, customer_id: str) -> int:
        """Erase all cases of a customer, from the file too; return how many there were."""
        with self._db.write() as db:
            ids = [row[0] for row in db.execute("SELECT case_id FROM card WHERE customer_id = ?", (customer_id,))]
            for table in ("card", "revision", "contact"):
                db.executemany(f"DELETE FROM {table} WHERE case_id = ?", [(one,) for one in ids])  # noqa: S608  the three names stand here
        self._db.fold()
        return len(ids)

    # Listening

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change, in the thread that made it. It must not block."""
        with self._listening:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        with self._listening, contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def _announce(self) -> None:
        with self._listening:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()


def _row_of(index: int, notification: Notification) -> dict[str, Any]:
    try:
        data, raw = read_data(notification)
    except ValueError as error:
        raise NotificationRefusedError(index, str(error)) from error
    return {
        **dict.fromkeys(_COLUMNS),
        **columns_of(data),
        "id": notification.id,
        "case_id": notification.case,
        "revision": notification.revision,
        "type": notification.type,
        "time_ms": notification.time_ms,
        "is_open": int(is_open(notification.type)),
        "data": raw,
    }


def _add(db: apsw.Connection, row: dict[str, Any]) -> bool:
    """Add one notification; return whether its id was new."""
    db.execute(
        "INSERT INTO revision VALUES (:id, :case_id, :revision, :type, :time_ms, :data) ON CONFLICT DO NOTHING", row
    )
    if not db.changes():
        return False
    shown = list(db.execute("SELECT revision FROM card WHERE case_id = :case_id", row))
    if not shown or row["revision"] > shown[0][0]:
        db.execute(_UPSERT, {**row, "seq": _next_seq(db)})
    return True


def _next_seq(db: apsw.Connection) -> int:
    return cast("int", next(iter(db.execute("UPDATE feed SET seq = seq + 1 RETURNING seq")))[0])


def _has_room(db: apsw.Connection, case_id: str, number: int) -> bool:
    """Return whether the case is there and `number` is its next contact."""
    if not list(db.execute("SELECT 1 FROM card WHERE case_id = ? AND is_alert = 1", (case_id,))):
        return False
    counted = next(iter(db.execute("SELECT count(*) FROM contact WHERE case_id = ?", (case_id,))))
    return cast("int", counted[0]) == number - 1


def _where(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """Return the condition for a filter, and the values it binds."""
    given = {
        "severity": None if wanted.severity is None else SEVERITIES.index(wanted.severity),
        "kind": wanted.kind,
        "band": wanted.band,
    }
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    clauses = [_SHOW[wanted.show], *(f"{name} = :{name}" for name in values)]
    if wanted.customer:
        clauses.append("substr(customer_id, 1, length(:customer)) = :customer")
        values["customer"] = wanted.customer
    return " AND ".join(clauses), values


def _open_incidents(db: apsw.Connection) -> list[Row]:
    return list(db.execute("SELECT data FROM card WHERE is_alert = 0 AND is_open = 1"))


def _card(row: Row) -> Card:
    seq, kind, time_ms, last_result, data = row
    return Card(seq, kind, time_ms, last_result, read_alert(data))
