"""Marks: what was found, how soon, how often for nothing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from bench.score.told import Case, Incident
from bench.score.truth import Fault, Outage, ProbeFault, Truth, by_customer, healthy_days, within
from schemas.alerts import PatternKind

HOUR_MS = 3_600_000
OUTAGE_DROPS_MIN = 30


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 90th percentile; None where nothing was found."""

    median: float | None
    p90: float | None


@dataclass(frozen=True, slots=True)
class Marks:
    """How one detector did.

    Attributes:
        found, recall: of the faults that count.
        alerts: all that opened.
        false_alerts, false_per_10k_days: for nothing; per 10,000 healthy customer-days.
        inside_outage: opened for customers whom an outage had touched, where they should be silent.
        bad_calls, hours: from the fault's onset to the alert.
        named_right: share of the found faults whose pattern was named; None for a rule that names none.
        named: per true pattern: how often each kind was named, and how often the fault was missed.
    """

    found: int
    recall: float | None
    alerts: int
    false_alerts: int
    false_per_10k_days: float | None
    inside_outage: int
    bad_calls: Spread
    hours: Spread
    named_right: float | None
    named: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class IncidentMarks:
    """How shared trouble was seen: outages of 30 drops or more, false incidents, lying probes."""

    outages: int
    found: int
    minutes: Spread
    false_incidents: int
    probes: int
    probes_named: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What one detector did on one telco; tallies of several telcos are summed up together.

    Attributes:
        faults: that count.
        found: a fault that was found, and the case that did.
        alerts, false_alerts, inside_outage: as in `Marks`.
        healthy_days: customer-days in which an alert would be false.
        named: per true pattern: how often each kind was named, and how often the fault was missed.
    """

    faults: int
    found: list[tuple[Fault, Case]]
    alerts: int
    false_alerts: int
    inside_outage: int
    healthy_days: float
    named: dict[str, Counter[str]]


def grade(truth: Truth, cases: Sequence[Case]) -> Marks:
    """Grade one detector's cases."""
    return conclude([tally(truth, cases)])


def tally(truth: Truth, cases: Sequence[Case]) -> Tally:
    """Hold one detector's cases against the truth."""
    faults, outages = by_customer(truth)
    firsts: dict[int, Case] = {}
    false_alerts = inside_outage = 0
    for case in sorted(cases, key=lambda case: case.opened_ms):
        own = [fault for fault in faults[case.customer_id] if within(case.opened_ms, fault)]
        for fault in own:
            firsts.setdefault(id(fault), case)
        if not own and any(within(case.opened_ms, outage) for outage in outages[case.customer_id]):
            inside_outage += 1
        elif not own:
            false_alerts += 1
    return Tally(
        faults=len(truth.scored),
        found=[(fault, firsts[id(fault)]) for fault in truth.scored if id(fault) in firsts],
        alerts=len(cases),
        false_alerts=false_alerts,
        inside_outage=inside_outage,
        healthy_days=healthy_days(truth),
        named=_named(truth, firsts),
    )


def conclude(tallies: Sequence[Tally]) -> Marks:
    """Sum up one detector's tallies."""
    faults, days = sum(one.faults for one in tallies), sum(one.healthy_days for one in tallies)
    found = [pair for one in tallies for pair in one.found]
    false_alerts = sum(one.false_alerts for one in tallies)
    return Marks(
        found=len(found),
        recall=len(found) / faults if faults else None,
        alerts=sum(one.alerts for one in tallies),
        false_alerts=false_alerts,
        false_per_10k_days=false_alerts * 10_000 / days if days else None,
        inside_outage=sum(one.inside_outage for one in tallies),
        bad_calls=_spread(sum(end <= case.opened_ms for end in fault.bad_end_ms) for fault, case in found),
        hours=_spread((case.opened_ms - fault.start_ms) / HOUR_MS for fault, case in found),
        named_right=_named_right(found),
        named={
            pattern: dict(sum((one.named[pattern] for one in tallies), Counter()).most_common())
            for pattern in get_args(PatternKind)
        },
    )


def grade_incidents(truth: Truth, incidents: Sequence[Incident]) -> IncidentMarks:
    """Grade the shared faults: found means opened on the right element while the outage lasted."""
    large = [outage for outage in truth.outages if outage.drops >= OUTAGE_DROPS_MIN]
    delays_ms = [delay_ms for outage in large if (delay_ms := _first_delay_ms(outage, incidents)) is not None]
    return IncidentMarks(
        outages=len(large),
        found=len(delays_ms),
        minutes=_spread(delay_ms / 60_000 for delay_ms in delays_ms),
        false_incidents=sum(not _is_right(truth, incident) for incident in incidents),
        probes=len(truth.probes),
        probes_named=sum(any(_names(probe, incident) for incident in incidents) for probe in truth.probes),
    )


def _kind_told(fault: Fault, case: Case) -> str | None:
    """Return what the case's latest revision until the fault's end names; its opening's if that came later."""
    latest_ms = max(fault.end_ms, case.opened_ms)
    told = [(revision, kind) for revision, time_ms, kind in case.kinds if time_ms <= latest_ms]
    return max(told)[1] if told else None


def _named_right(found: list[tuple[Fault, Case]]) -> float | None:
    told = [(fault.pattern, _kind_told(fault, case)) for fault, case in found if case.kinds]
    return sum(kind == pattern for pattern, kind in told) / len(told) if told else None


def _named(truth: Truth, firsts: dict[int, Case]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {pattern: Counter() for pattern in get_args(PatternKind)}
    for fault in truth.scored:
        case = firsts.get(id(fault))
        kind = "missed" if case is None else _kind_told(fault, case)
        counts[fault.pattern]["found" if kind is None else kind] += 1
    return counts


def _spread(values: Iterable[float]) -> Spread:
    found = list(values)
    if not found:
        return Spread(None, None)
    median, p90 = np.percentile(found, (50, 90)).tolist()
    return Spread(median, p90)


def _on(outage: Outage, incident: Incident) -> bool:
    return (outage.element_kind, outage.element_id) == (incident.element_kind, incident.element_id)


def _names(probe: ProbeFault, incident: Incident) -> bool:
    is_it = (incident.element_kind, incident.element_id) == ("probe", probe.probe_id)
    return is_it and within(incident.opened_ms, probe)


def _first_delay_ms(outage: Outage, incidents: Sequence[Incident]) -> int | None:
    """Time from an outage's start to its incident, if that opened while it lasted."""
    times = [incident.opened_ms for incident in incidents if _on(outage, incident)]
    return min((t - outage.start_ms for t in times if outage.start_ms <= t <= outage.end_ms), default=None)


def _is_right(truth: Truth, incident: Incident) -> bool:
    """Tell whether an incident names an element that had trouble then or up to a day before."""
    outage = any(_on(outage, incident) and within(incident.opened_ms, outage) for outage in truth.outages)
    return outage or any(_names(probe, incident) for probe in truth.probes)
