"""What a running deployment tells its desk of itself: for the operations view, never for a decision."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from schemas.alerts import Incident


class Suspect(Struct, frozen=True):
    """A network element with more bad calls than its own healthy rate explains.

    Attributes:
        element_kind, element_id: as in incidents.
        calls: answered calls since the trouble seems to have begun.
        bad: those of them that were bad.
        usual_ratio: the healthy share of bad calls.
        evidence_days: healthy days that a false alarm of this strength would take to come.
        has_incident: whether an incident is open on it.
    """

    element_kind: str
    element_id: str
    calls: int
    bad: int
    usual_ratio: float
    evidence_days: float
    has_incident: bool

    @property
    def excess(self) -> float:
        """Bad calls beyond the usual."""
        return self.bad - self.usual_ratio * self.calls

    @property
    def ratio(self) -> float:
        """The share of bad calls."""
        return self.bad / self.calls if self.calls else 0.0


class Bin(Struct, frozen=True):
    """Customers who were said to leave with a similar probability: what was said, what happened, how many."""

    predicted: float
    observed: float
    weight: float


class Model(Struct, frozen=True):
    """How good the churn probabilities have lately been; see `detectors.churn.measures.Measures`."""

    labels: int
    left: int
    base_rate: float
    brier: float | None
    brier_base: float | None
    calibration_error: float | None
    bins: list[Bin]


class Figures(Struct, frozen=True):
    """One look at a deployment.

    Attributes:
        clock_ms: newest event time; negative before any.
        customers: held in memory.
        records: by what became of them.
        told_today, alerts_per_day_max: cases told today, and how many may be.
        deferred: cases that were not told, since the day's budget was used up.
        taken_over: cases that an incident explained.
        pending: deliveries that wait, by output.
        incidents: those that are open, as they stand: customers go on being affected after one was told of.
    """

    clock_ms: int
    customers: int
    records: dict[str, int]
    told_today: int
    alerts_per_day_max: int
    deferred: int
    taken_over: int
    pending: dict[str, int]
    suspects: list[Suspect]
    model: Model
    incidents: Sequence[Incident] = ()


ReadFigures = Callable[[], Figures]
"""Gives the figures of now."""


def by_now(told: Sequence[Incident], read: ReadFigures | None) -> list[Incident]:
    """Return incidents as they stand by now, where the deployment knows; else as they were told."""
    if read is None or all(one.cleared_ms is not None for one in told):
        return list(told)
    known = {one.incident_id: one for one in read().incidents}
    return [known.get(one.incident_id, one) if one.cleared_ms is None else one for one in told]
