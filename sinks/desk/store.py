"""What the desk shows, kept: the newest revision of each case and incident, their history, and what was done."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from schemas.alerts import Incident, Notification, Severity
from sinks.desk.cards import (
    SEVERITIES,
    Action,
    Card,
    CaseFile,
    Change,
    Counts,
    Filter,
    Rank,
    Revision,
    columns_of,
    is_open,
    read_alert,
    read_data,
    read_incident,
)
from sinks.desk.database import Database, Row, Transaction
from sinks.outputs import Clock, NotificationRefusedError

REVISIONS_SHOWN: Final = 200
"""So many of a case's newest revisions are read for its card."""

CARD: Final = "seq, type, time_ms, stage, snoozed_ms, owner, actions, last_action, data"

ACTION: Final = "seq, case_id, number, at_ms, who, what, remedy_id, until_ms"

_COLUMNS = (
    "is_alert", "detected_ms", "customer_id", "severity", "kind", "band", "region", "incident_id", "value_rank",
    "currency",
)  # fmt: skip

_SHOW = {
    "to_call": "stage = 'to_call' AND snoozed_ms <= :now_ms",
    "snoozed": "stage = 'to_call' AND snoozed_ms > :now_ms",
    "contacted": "stage = 'contacted'",
    "over": "stage = 'over'",
    "all": "1 = 1",
}

# One direction for all of them, so that "behind this one" is a comparison of rows. What is not known comes last.
_RANK = "value_rank DESC, severity DESC, detected_ms DESC, case_id DESC"
_BEHIND = "(value_rank, severity, detected_ms, case_id) < (:value, :rank_severity, :detected_ms, :case_id)"

# A case that was over and is told of again is to be called again; one that grew worse is not put off any longer.
_UPSERT = f"""
INSERT INTO card (case_id, seq, revision, type, time_ms, is_open, stage, data, {", ".join(_COLUMNS)})
VALUES (:case, :seq, :revision, :type, :time_ms, :is_open, :stage, :data, {", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT (case_id) DO UPDATE SET
    seq = excluded.seq, revision = excluded.revision, type = excluded.type, time_ms = excluded.time_ms,
    is_open = excluded.is_open, data = excluded.data,
    stage = CASE WHEN excluded.stage = 'over' OR card.stage = 'over' THEN excluded.stage ELSE card.stage END,
    snoozed_ms = CASE WHEN excluded.severity > card.severity THEN 0 ELSE card.snoozed_ms END,
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}
"""  # noqa: S608  the names are the constants above


class DeskStore:
    """The desk's cases.

    Methods may be called from any thread, and raise what `Database` says.

    Args:
        database: where they are; `close` closes it.
        clock: Unix milliseconds, against which snoozes end.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock

    def close(self) -> None:
        """Close the database; what `put` returned from is durable."""
        self.database.close()

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
        with self.database.write() as db:
            return sum(_add(db, row) for row in rows)

    # Questions

    def cases(self, wanted: Filter, limit: int = 50, offset: int = 0, behind: Rank | None = None) -> list[Card]:
        """List cases by value at risk, unknown last; then the worst, then the newest.

        Args:
            wanted: which.
            limit: so many at most.
            offset: so many are left out before them.
            behind: only those after this place in the list.
        """
        where, values = self._where(wanted)
        if behind is not None:
            where = f"{where} AND {_BEHIND}"
            values |= {"value": behind.value, "rank_severity": behind.severity}
            values |= {"detected_ms": behind.detected_ms, "case_id": behind.case_id}
        # The clauses are constants of this module; every value is bound. Chosen first, and only then read.
        chosen = f"SELECT case_id FROM card WHERE {where} ORDER BY {_RANK} LIMIT :limit OFFSET :offset"  # noqa: S608
        query = f"SELECT {CARD} FROM card WHERE case_id IN ({chosen}) ORDER BY {_RANK}"  # noqa: S608
        with self.database.read() as db:
            return [_card(row) for row in db.rows(query, {**values, "limit": limit, "offset": offset})]

    def of_customer(self, customer_id: str) -> list[Card]:
        """List all cases of one customer, in the same order."""
        query = f"SELECT {CARD} FROM card WHERE customer_id = :customer AND is_alert = 1 ORDER BY {_RANK}"  # noqa: S608  as in `cases`
        with self.database.read() as db:
            return [_card(row) for row in db.rows(query, {"customer": customer_id})]

    def count(self, wanted: Filter) -> int:
        """Return how many cases `cases` would list without a limit."""
        where, values = self._where(wanted)
        with self.database.read() as db:
            return int(db.rows(f"SELECT count(*) FROM card WHERE {where}", values)[0][0])  # noqa: S608  as in `cases`

    def counts(self, who: str = "") -> Counts:
        """Return the desk in numbers, all of one moment."""
        now = {"now_ms": self.clock()}
        stages = (
            "SELECT stage, count(*), sum(CASE WHEN snoozed_ms > :now_ms THEN 1 ELSE 0 END) FROM card "
            "WHERE is_alert = 1 GROUP BY stage"
        )
        facets = (
            "SELECT severity, kind, band, region, currency, count(*), "  # noqa: S608  as in `cases`
            "sum(CASE WHEN value_rank >= 0 THEN value_rank END) FROM card "
            f"WHERE is_alert = 1 AND {_SHOW['to_call']} GROUP BY severity, kind, band, region, currency"
        )
        mine = f"SELECT count(*) FROM card WHERE is_alert = 1 AND {_SHOW['to_call']} AND owner = :who"  # noqa: S608  as in `cases`
        with self.database.read() as db:
            by_stage = {stage: (int(number), int(late)) for stage, number, late in db.rows(stages, now)}
            cells = db.rows(facets, now)
            owned = int(db.rows(mine, {**now, "who": who})[0][0]) if who else 0
            incidents = [read_incident(row[0]) for row in _open_incidents(db)]
        affected = sum(incident.customers_affected for incident in incidents)
        return Counts(_by_stage(by_stage), owned, _facets(cells), _values(cells), len(incidents), affected)

    def incidents(self) -> list[Incident]:
        """List the open incidents, the one that affects most customers first, then the newest."""
        with self.database.read() as db:
            found = [read_incident(row[0]) for row in _open_incidents(db)]
        return sorted(found, key=lambda each: (-each.customers_affected, -each.detected_ms, each.incident_id))

    def recent_incidents(self, since_ms: int, limit: int = 200) -> list[Incident]:
        """List incidents that are open or were told of since, the newest first."""
        query = (
            "SELECT data FROM card WHERE is_alert = 0 AND (is_open = 1 OR time_ms >= :since_ms) "
            "ORDER BY detected_ms DESC, case_id LIMIT :limit"
        )
        with self.database.read() as db:
            return [read_incident(row[0]) for row in db.rows(query, {"since_ms": since_ms, "limit": limit})]

    def incident(self, incident_id: str) -> Incident | None:
        """Return an incident, open or cleared; None if it is not known."""
        query = "SELECT data FROM card WHERE case_id = :case AND is_alert = 0"
        with self.database.read() as db:
            rows = db.rows(query, {"case": incident_id})
        return read_incident(rows[0][0]) if rows else None

    def case(self, alert_id: str) -> CaseFile | None:
        """Return all that is kept of one case; None if it is not known."""
        history = (
            "SELECT type, time_ms, data FROM revision WHERE case_id = :case ORDER BY revision DESC, id LIMIT :limit"
        )
        done = f"SELECT {ACTION} FROM action WHERE case_id = :case ORDER BY number"  # noqa: S608  a constant
        with self.database.read() as db:
            found = db.rows(f"SELECT {CARD} FROM card WHERE case_id = :case AND is_alert = 1", {"case": alert_id})  # noqa: S608  a constant
            if not found:
                return None
            rows = db.rows(history, {"case": alert_id, "limit": REVISIONS_SHOWN})
            revisions = [Revision(row[0], row[1], read_alert(row[2])) for row in rows]
            return CaseFile(_card(found[0]), revisions, [action(row) for row in db.rows(done, {"case": alert_id})])

    def changes(self, since_seq: int, limit: int = 200) -> list[Change]:
        """List what changed after `since_seq`, in order of sequence.

        A case that changed several times comes once, as it is now, at its latest place. So whoever goes on from the
        last sequence they saw misses nothing, however long they were away.
        """
        query = (
            "SELECT seq, case_id, type, revision, severity, last_action, owner FROM card "
            "WHERE seq > :since ORDER BY seq LIMIT :limit"
        )
        with self.database.read() as db:
            rows = db.rows(query, {"since": since_seq, "limit": limit})
        return [
            Change(seq, case_id, kind, revision, None if severity < 0 else SEVERITIES[severity], last_action, owner)
            for seq, case_id, kind, revision, severity, last_action, owner in rows
        ]

    def newest_seq(self) -> int:
        """Return the sequence of the latest change, 0 before any."""
        with self.database.read() as db:
            return int(db.rows("SELECT seq FROM feed")[0][0])

    def newest_ms(self) -> int:
        """Return the event time of the latest notification, 0 before any."""
        with self.database.read() as db:
            return int(db.rows("SELECT coalesce(max(time_ms), 0) FROM revision")[0][0])

    def oldest_ms(self, since_ms: int) -> int | None:
        """Return the event time of the first notification since, None if there is none."""
        with self.database.read() as db:
            found = db.rows("SELECT min(time_ms) FROM revision WHERE time_ms >= :since", {"since": since_ms})
        return None if found[0][0] is None else int(found[0][0])

    def opened(self, since_ms: int, step_ms: int) -> dict[tuple[int, Severity], int]:
        """Count the cases that were opened since, by step of time (its number since `since_ms`) and severity."""
        query = (
            "SELECT (time_ms - :since) / :step, severity, count(*) FROM revision "
            "WHERE time_ms >= :since AND type = 'stayline.alert.opened' GROUP BY 1, 2"
        )
        with self.database.read() as db:
            rows = db.rows(query, {"since": since_ms, "step": step_ms})
        return {(int(step), SEVERITIES[severity]): int(number) for step, severity, number in rows}

    def forget(self, customer_id: str) -> int:
        """Erase all cases of a customer, from the files too; return how many there were."""
        with self.database.write() as db:
            found = db.rows("SELECT case_id FROM card WHERE customer_id = :customer", {"customer": customer_id})
            for (case,) in found:
                for table in ("card", "revision", "action"):
                    db.rows(f"DELETE FROM {table} WHERE case_id = :case", {"case": case})  # noqa: S608  the three names stand here
            db.rows("UPDATE audit SET about = '' WHERE about = :customer", {"customer": customer_id})
        self.database.erased()
        return len(found)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change. It must not block."""
        self.database.subscribe(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self.database.unsubscribe(listener)

    def _where(self, wanted: Filter) -> tuple[str, dict[str, Any]]:
        """Return the condition for a filter, and the values it binds."""
        given: dict[str, Any] = {
            "severity": None if wanted.severity is None else SEVERITIES.index(wanted.severity),
            "kind": wanted.kind,
            "band": wanted.band,
            "region": wanted.region,
            "incident_id": wanted.incident,
            "owner": wanted.owner,
        }
        values = {name: value for name, value in given.items() if value is not None}
        clauses = ["is_alert = 1", _SHOW[wanted.show], *(f"{name} = :{name}" for name in values)]
        if wanted.customer:
            clauses.append("substr(customer_id, 1, length(:customer)) = :customer")
            values["customer"] = wanted.customer
        return " AND ".join(clauses), {**values, "now_ms": self.clock()}


def _row_of(index: int, notification: Notification) -> dict[str, Any]:
    try:
        data, raw = read_data(notification)
    except ValueError as error:
        raise NotificationRefusedError(index, str(error)) from error
    still_open = is_open(notification.type)
    return {
        **columns_of(data),
        "id": notification.id,
        "case": notification.case,
        "revision": notification.revision,
        "type": notification.type,
        "time_ms": notification.time_ms,
        "is_open": int(still_open),
        "stage": "to_call" if still_open else "over",
        "data": raw,
    }


def _add(db: Transaction, row: dict[str, Any]) -> bool:
    """Add one notification; return whether its id was new."""
    fresh = db.rows(
        "INSERT INTO revision (id, case_id, revision, type, time_ms, severity, data) "
        "VALUES (:id, :case, :revision, :type, :time_ms, :severity, :data) ON CONFLICT DO NOTHING RETURNING 1",
        row,
    )
    if not fresh:
        return False
    shown = db.rows("SELECT revision FROM card WHERE case_id = :case", {"case": row["case"]})
    if not shown or row["revision"] > shown[0][0]:
        db.rows(_UPSERT, {**row, "seq": next_seq(db)})
    return True


def next_seq(db: Transaction) -> int:
    """Draw the next sequence of the feed."""
    return int(db.rows("UPDATE feed SET seq = seq + 1 RETURNING seq")[0][0])


def action(row: Row) -> Action:
    """Make an action of a row of `ACTION`."""
    seq, case_id, number, at_ms, who, what, remedy_id, until_ms = row
    return Action(seq, case_id, number, at_ms, who, what, remedy_id or None, until_ms)


def _open_incidents(db: Transaction) -> list[Row]:
    return db.rows("SELECT data FROM card WHERE is_alert = 0 AND is_open = 1")


def _card(row: Row) -> Card:
    seq, kind, time_ms, stage, snoozed_ms, owner, actions, last_action, data = row
    return Card(seq, kind, time_ms, stage, snoozed_ms, owner, actions, last_action, read_alert(data))


def _by_stage(found: dict[str, tuple[int, int]]) -> dict[str, int]:
    """Take the snoozed ones out of those to call; a stage without cases is left out."""
    waiting, snoozed = found.get("to_call", (0, 0))
    counts = {stage: number for stage, (number, _) in found.items()}
    counts |= {"to_call": waiting - snoozed, "snoozed": snoozed}
    return {stage: number for stage, number in counts.items() if number}


def _facets(cells: list[Row]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {"severity": {}, "kind": {}, "band": {}, "region": {}}
    for severity, kind, band, region, _, number, _ in cells:
        given = {"severity": SEVERITIES[severity], "kind": kind, "band": band, "region": region}
        for name, value in given.items():
            found[name][value] = found[name].get(value, 0) + int(number)
    return found


def _values(cells: list[Row]) -> dict[str, int]:
    """Add up by currency; of cases whose value is not known there is nothing to add."""
    found: dict[str, int] = {}
    for *_, currency, _, total in cells:
        if total is not None:
            found[currency] = found.get(currency, 0) + int(total)
    return dict(sorted(found.items()))
