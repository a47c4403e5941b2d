"""What representatives do about a case: taking it, putting it off, and how a contact ended.

An action is recorded once, however often the same form is sent, and only by somebody who had seen all earlier ones:
of two who press at the same time, the second is told so and looks again.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Literal, get_args

from msgspec import Struct

from schemas.events import Outcome, Result
from sinks.desk.cards import Action
from sinks.desk.database import Transaction
from sinks.desk.store import ACTION, DeskStore, action, next_seq

What = Literal["take", "release", "contacted", "snooze", "accepted", "declined", "unreachable", "not_needed", "resolve"]
"""What can be done."""

WHATS: Final[tuple[What, ...]] = get_args(What)

RESULTS: Final[dict[What, Result]] = {
    "take": "taken",
    "release": "released",
    "contacted": "contacted",
    "snooze": "snoozed",
    "accepted": "accepted",
    "declined": "declined",
    "unreachable": "unreachable",
    "not_needed": "not_needed",
    "resolve": "fixed",
}
"""The outcome event that each becomes: detection learns from it."""

OFFERED: Final[frozenset[What]] = frozenset({"accepted", "declined"})
"""Actions that are about a remedy."""

STAGES: Final[dict[What, str]] = {
    "contacted": "contacted",
    "accepted": "contacted",
    "declined": "contacted",
    "not_needed": "contacted",
    "resolve": "over",
}
"""Where an action leaves the case; the others leave it where it was."""


class Done(StrEnum):
    """What became of an action."""

    RECORDED = "recorded"
    """It stands; now, or since it was sent before."""
    CONFLICT = "conflict"
    """Somebody did something meanwhile, or the case is gone: look again."""
    HELD = "held"
    """The case is a colleague's, and only a supervisor may take it away."""


class Deed(Struct, frozen=True):
    """Somebody wants to do something.

    Attributes:
        seen: how many actions they had before their eyes: this one is the next.
        may_reassign: whether they may take a case from a colleague.
        until_ms: of a snooze, its end; else 0.
    """

    alert_id: str
    what: What
    who: str
    at_ms: int
    seen: int
    may_reassign: bool = False
    remedy_id: str | None = None
    until_ms: int = 0

    @property
    def outcome(self) -> Outcome:
        """The event that detection learns from."""
        return Outcome(self.alert_id, self.at_ms, RESULTS[self.what], self.remedy_id, self.who)


def do(store: DeskStore, deed: Deed, take: Callable[[Outcome], None]) -> Done:
    """Record an action.

    Args:
        store: where the case is.
        deed: what to do.
        take: hands an outcome on; called at most once. If it raises, nothing was recorded.
    """
    with store.database.write() as db:
        known = db.rows(
            "SELECT who, what, remedy_id FROM action WHERE case_id = :case AND number = :number",
            {"case": deed.alert_id, "number": deed.seen + 1},
        )
        if known:
            return Done.RECORDED if known[0] == (deed.who, deed.what, deed.remedy_id or "") else Done.CONFLICT
        held = "SELECT owner, actions FROM card WHERE case_id = :case AND is_alert = 1"
        found = db.rows(held, {"case": deed.alert_id})
        if not found or found[0][1] != deed.seen:
            return Done.CONFLICT
        owner = found[0][0]
        if deed.what in {"take", "release"} and owner not in {"", deed.who} and not deed.may_reassign:
            return Done.HELD
        _record(db, deed, owner)
        # Last, and before the commit: a crash here can only make the representative press again.
        take(deed.outcome)
    return Done.RECORDED


def _record(db: Transaction, deed: Deed, owner: str) -> None:
    seq = next_seq(db)
    # Whoever does something about a case that is nobody's has it.
    holder = {"take": deed.who, "release": ""}.get(deed.what, owner or deed.who)
    values = {
        "seq": seq,
        "case": deed.alert_id,
        "number": deed.seen + 1,
        "at_ms": deed.at_ms,
        "who": deed.who,
        "what": deed.what,
        "remedy_id": deed.remedy_id or "",
        "until_ms": deed.until_ms,
    }
    db.rows(
        f"INSERT INTO action ({ACTION}) VALUES (:seq, :case, :number, :at_ms, :who, :what, :remedy_id, :until_ms)",  # noqa: S608  constants
        values,
    )
    db.rows(
        "UPDATE card SET seq = :seq, actions = :number, last_action = :what, owner = :owner, "
        "stage = CASE WHEN :stage = '' THEN stage ELSE :stage END, snoozed_ms = :until_ms WHERE case_id = :case",
        {
            "seq": seq, "case": deed.alert_id, "number": deed.seen + 1, "what": deed.what, "owner": holder,
            "stage": STAGES.get(deed.what, ""), "until_ms": deed.until_ms,
        },
    )  # fmt: skip


def actions_since(store: DeskStore, behind: int, limit: int) -> list[Action]:
    """List what was done, in order of the feed's sequence, after the sequence `behind`."""
    query = f"SELECT {ACTION} FROM action WHERE seq > :behind ORDER BY seq LIMIT :limit"  # noqa: S608  a constant
    with store.database.read() as db:
        return [action(row) for row in db.rows(query, {"behind": behind, "limit": limit})]
