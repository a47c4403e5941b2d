"""How one customer stands: what `stayline explain` shows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from detectors.advice import sentence
from detectors.casebook import Case
from detectors.evidence import CHANNELS, LEAP, healthy_mean
from detectors.experience import experience
from detectors.following import catch_up
from detectors.memory import Memory
from detectors.showing import shown_calls
from detectors.watch.customers import evidence_days
from schemas.alerts import CallEvidence, ChurnRisk
from schemas.text import key_of


@dataclass(frozen=True, slots=True)
class Standing:
    """How one customer stands.

    Attributes:
        channels: channel -> (evidence in days, healthy mean, observations learnt).
        course: evidence in days after each call that is remembered, oldest first: (end_ms, days, whether it was bad).
        calls: the bad calls that are remembered, oldest first.
        sentence: the case in one sentence; empty without one.
    """

    last_ms: int
    since_ms: int
    evidence_days: float
    threshold_days: float
    channels: dict[str, tuple[float, float, float]]
    case: Case | None
    sentence: str
    churn: ChurnRisk
    course: list[tuple[int, float, bool]]
    calls: list[CallEvidence]


def standing(memory: Memory, customer_id: str, now_ms: int) -> Standing | None:
    """Return how a customer stands; None for one who has not called."""
    key = key_of(customer_id)
    one = memory.row_of(key)
    if one is None:
        return None
    case = memory.casebook.cases.get(key)
    if case is not None:
        catch_up(memory, case)
    note = memory.note_of(one)
    history = int(note["history"])
    channels = {
        name: (
            LEAP * float(one["evidence"][channel].mean()),
            float(healthy_mean(channel, float(one["count"][channel]), float(one["weight"][channel]))),
            float(one["count"][channel]),
        )
        for channel, name in enumerate(CHANNELS)
    }
    return Standing(
        last_ms=int(one["last_ms"]),
        since_ms=int(note["since_ms"]),
        evidence_days=LEAP * float(evidence_days(one)),
        threshold_days=memory.settings.false_alarm_days,
        channels=channels,
        case=case,
        sentence="" if case is None else sentence(case, memory.zone),
        churn=memory.advisor.risk(key, now_ms, experience(memory, key, now_ms)),
        course=[] if history < 0 else _course(memory, history),
        calls=[] if history < 0 else shown_calls(memory.histories, history, 0),
    )


def _course(memory: Memory, history: int) -> list[tuple[int, float, bool]]:
    bad, _ = memory.histories.bad_calls(history)
    good = memory.histories.good_calls(history)
    return sorted(
        (int(one["end_ms"]), LEAP * float(one["evidence"]), was_bad)
        for kept, was_bad in ((bad, True), (good, False))
        for one in kept
    )


def standings(memory: Memory) -> Iterator[dict[str, Any]]:
    """Give how each customer stands, by key: of most the state does not know more of who they are."""
    rows = memory.roster.book.rows
    for row in range(len(memory.roster)):
        one = rows[row]
        since_ms = int(memory.note_of(one)["since_ms"])
        case = memory.casebook.cases.get(int(one["key"]))
        yield {
            "key": f"{int(one['key']):016x}",
            "customer_id": None if case is None else case.customer_id,
            "last_ms": int(one["last_ms"]),
            "since_ms": since_ms if since_ms >= 0 else None,
            "evidence_days": round(float(evidence_days(one)), 4),
            "learnt": {name: float(one["count"][channel]) for channel, name in enumerate(CHANNELS)},
            "alert_id": None if case is None else case.alert_id,
            "pattern": None if case is None else case.kind,
            "revision": None if case is None else case.revision,
        }
