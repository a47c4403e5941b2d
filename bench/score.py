"""The detection table: what was found, how soon, how often for nothing; beside the rule it must beat.

The rule, `three_in_seven`, is the one sold today: three or more calls in seven days that were answered and then
released by the network with an abnormal cause raise one alert, which stays until the count has fallen below three.

A fault counts if it spoiled at least three calls. It is found by an alert for its customer that opens between its
start and one day after its end. An alert for a customer who had no fault then is false, unless an outage had
touched that customer within the day before: those are counted apart. Time in which an alert could not be false
is left out of the healthy customer-days.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import orjson
from msgspec import Struct
from rich.console import Group
from rich.table import Table

from schemas.alerts import NotificationType, PatternKind
from schemas.errors import InputError

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
GRACE_MS = DAY_MS
"""An alert this long after its fault has ended still found it."""
BAD_CALLS_MIN = 3
OUTAGE_DROPS_MIN = 30
RULE_DROPS = 3
RULE_WINDOW_MS = 7 * DAY_MS
NORMAL_CAUSES = frozenset({16, 17, 18, 19, 31})
"""Q.850 causes that are not abnormal for an answered call."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Telco(Struct, tag_field="type", tag="telco"):
    """First line of the truth."""

    customers: int
    days: int
    start_ms: int
    end_ms: int


class Fault(Struct, tag_field="type", tag="fault"):
    """Trouble of one customer, and the ends of the calls it spoiled, in order."""

    customer_id: str
    pattern: PatternKind
    start_ms: int
    end_ms: int
    bad_end_ms: list[int]


class Outage(Struct, tag_field="type", tag="outage"):
    """Trouble of a shared element, and whom it touched."""

    element_kind: str
    element_id: str
    start_ms: int
    end_ms: int
    drops: int
    customers: list[str]


class ProbeFault(Struct, tag_field="type", tag="probe_fault"):
    """A probe that lied."""

    probe_id: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Truth:
    """The truth file, sorted by what its lines speak of."""

    telco: Telco
    faults: list[Fault]
    outages: list[Outage]
    probes: list[ProbeFault]

    @property
    def scored(self) -> list[Fault]:
        """The faults that count."""
        return [fault for fault in self.faults if len(fault.bad_end_ms) >= BAD_CALLS_MIN]


@dataclass(slots=True)
class Case:
    """An alert: when it opened, and the pattern it named at each revision (revision, time, kind)."""

    customer_id: str
    opened_ms: int
    kinds: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Incident:
    """A shared fault as it was reported: on which element, when."""

    element_kind: str
    element_id: str
    opened_ms: int


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
class ScoreTable:
    """The detection table of one run."""

    customers: int
    days: int
    faults: int
    healthy_days: float
    stayline: Marks
    three_in_seven: Marks
    incidents: IncidentMarks


def score(alerts: Path, truth: Path, events: Path | None = None) -> ScoreTable:
    """Grade alerts against the truth, and the rule beside them.

    Args:
        alerts: notifications, one CloudEvents envelope a line.
        truth: the simulator's truth file.
        events: the simulator's events; `events.ndjson` beside the truth if not given.

    Raises:
        InputError: if a file cannot be read, or a line of the alerts or the truth is not what it must be.
    """
    told = read_truth(truth)
    cases, incidents = read_alerts(alerts)
    rule = list(three_in_seven(read_drops(truth.with_name("events.ndjson") if events is None else events)))
    return ScoreTable(
        customers=told.telco.customers,
        days=told.telco.days,
        faults=len(told.scored),
        healthy_days=healthy_days(told),
        stayline=grade(told, cases),
        three_in_seven=grade(told, rule),
        incidents=grade_incidents(told, incidents),
    )


def to_builtins(table: ScoreTable) -> dict[str, Any]:
    """Turn the table into what JSON can hold."""
    plain: dict[str, Any] = msgspec.to_builtins(table)
    return plain


# Reading


def read_truth(path: Path) -> Truth:
    """Read a truth file."""
    decoder = msgspec.json.Decoder(Telco | Fault | Outage | ProbeFault)
    told: dict[type, list[Any]] = defaultdict(list)
    for place, line in _lines(path):
        try:
            record = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{place}: must be a line of the truth: {error}") from error
        told[type(record)].append(record)
    if len(told[Telco]) != 1:
        raise InputError(f"{path}: must hold one telco line, found {len(told[Telco])}")
    return Truth(told[Telco][0], told[Fault], told[Outage], told[ProbeFault])


class _Envelope(Struct):
    type: NotificationType
    time: datetime
    data: msgspec.Raw


class _Pattern(Struct):
    kind: str


class _AlertData(Struct):
    alert_id: str
    revision: int
    customer_id: str
    pattern: _Pattern


class _IncidentData(Struct):
    element_kind: str
    element_id: str


def read_alerts(path: Path) -> tuple[list[Case], list[Incident]]:
    """Read notifications; later revisions of an alert belong to the case that its opening began."""
    cases: dict[str, Case] = {}
    incidents: list[Incident] = []
    for place, line in _lines(path):
        try:
            envelope = msgspec.json.decode(line, type=_Envelope)
            time_ms = (envelope.time.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)
            if envelope.type == "stayline.incident.opened":
                shared = msgspec.json.decode(envelope.data, type=_IncidentData)
                incidents.append(Incident(shared.element_kind, shared.element_id, time_ms))
            elif envelope.type != "stayline.incident.cleared":
                own = msgspec.json.decode(envelope.data, type=_AlertData)
                _note_revision(cases, envelope.type, time_ms, own)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{place}: must be a notification: {error}") from error
        except KeyError as error:
            raise InputError(f"{place}: must belong to an alert opened before, found {error}") from error
    return list(cases.values()), incidents


def _note_revision(cases: dict[str, Case], kind: str, time_ms: int, data: _AlertData) -> None:
    """Add a revision to its case; an opening that is repeated (at least once is the promise) counts once."""
    if kind == "stayline.alert.opened":
        cases.setdefault(data.alert_id, Case(data.customer_id, time_ms))
    cases[data.alert_id].kinds.append((data.revision, time_ms, data.pattern.kind))


def read_drops(path: Path) -> dict[str, list[int]]:
    """Collect the hard drops of each customer as plain call records show them: their ends, sorted."""
    drops: dict[str, dict[str, int]] = defaultdict(dict)
    for _, line in _lines(path):
        # Nearly every line goes by unread: a hard drop names its releaser.
        if b'"network"' not in line:
            continue
        try:
            call = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if is_hard_drop(call):
            drops[call["customer_id"]].setdefault(call["call_id"], call["end_ms"])
    return {customer: sorted(ends.values()) for customer, ends in drops.items()}


def is_hard_drop(call: Any) -> bool:
    """Tell whether a record is of an answered call that the network released with an abnormal cause."""
    if not isinstance(call, dict) or call.get("type") != "call" or call.get("released_by") != "network":
        return False
    times: list[Any] = [call.get(name) for name in ("start_ms", "answer_ms", "end_ms")]
    names = (call.get("customer_id"), call.get("call_id"))
    if not all(isinstance(t, int) for t in times) or not all(isinstance(name, str) for name in names):
        return False
    cause, status = call.get("q850"), call.get("sip_status")
    abnormal = cause not in NORMAL_CAUSES if isinstance(cause, int) else isinstance(status, int) and status >= 400
    return abnormal and times == sorted(times)


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each line that is not blank, with its place (`file:line`)."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise InputError(f"{path}: must be readable: {error.strerror}") from error


# Grading


def three_in_seven(drops: dict[str, list[int]]) -> Iterator[Case]:
    """Apply the rule: alert at the third drop within seven days; again only once the count fell below three."""
    for customer, ends in drops.items():
        oldest, alerted = 0, False
        for newest, end_ms in enumerate(ends):
            while ends[oldest] <= end_ms - RULE_WINDOW_MS:
                oldest += 1
            alerted = alerted and newest - oldest >= RULE_DROPS
            if newest - oldest + 1 >= RULE_DROPS and not alerted:
                alerted = True
                yield Case(customer, end_ms)


def grade(truth: Truth, cases: Sequence[Case]) -> Marks:
    """Grade one detector's cases."""
    faults, outages = _by_customer(truth)
    firsts: dict[int, Case] = {}
    false_alerts = inside_outage = 0
    for case in sorted(cases, key=lambda case: case.opened_ms):
        own = [fault for fault in faults[case.customer_id] if _within(case.opened_ms, fault)]
        for fault in own:
            firsts.setdefault(id(fault), case)
        if not own and any(_within(case.opened_ms, outage) for outage in outages[case.customer_id]):
            inside_outage += 1
        elif not own:
            false_alerts += 1
    found = [(fault, firsts[id(fault)]) for fault in truth.scored if id(fault) in firsts]
    days = healthy_days(truth)
    return Marks(
        found=len(found),
        recall=len(found) / len(truth.scored) if truth.scored else None,
        alerts=len(cases),
        false_alerts=false_alerts,
        false_per_10k_days=false_alerts * 10_000 / days if days else None,
        inside_outage=inside_outage,
        bad_calls=_spread(sum(end <= case.opened_ms for end in fault.bad_end_ms) for fault, case in found),
        hours=_spread((case.opened_ms - fault.start_ms) / HOUR_MS for fault, case in found),
        named_right=_named_right(found),
        named=_named(truth, firsts),
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


def healthy_days(truth: Truth) -> float:
    """Sum up the customer-days in which an alert would be false."""
    faults, outages = _by_customer(truth)
    telco = truth.telco
    excused_ms = sum(
        _covered_ms([*faults[customer], *outages[customer]], telco.start_ms, telco.end_ms)
        for customer in {*faults, *outages}
    )
    return (telco.customers * (telco.end_ms - telco.start_ms) - excused_ms) / DAY_MS


def _by_customer(truth: Truth) -> tuple[dict[str, list[Fault]], dict[str, list[Outage]]]:
    faults: dict[str, list[Fault]] = defaultdict(list)
    outages: dict[str, list[Outage]] = defaultdict(list)
    for fault in truth.faults:
        faults[fault.customer_id].append(fault)
    for outage in truth.outages:
        for customer in outage.customers:
            outages[customer].append(outage)
    return faults, outages


def _within(at_ms: int, trouble: Fault | Outage | ProbeFault) -> bool:
    return trouble.start_ms <= at_ms <= trouble.end_ms + GRACE_MS


def _covered_ms(troubles: Iterable[Fault | Outage], start_ms: int, end_ms: int) -> int:
    """Measure the union of the times (grace included) within a run."""
    covered_ms, reached_ms = 0, start_ms
    for trouble in sorted(troubles, key=lambda trouble: trouble.start_ms):
        until_ms = min(trouble.end_ms + GRACE_MS, end_ms)
        covered_ms += max(0, until_ms - max(trouble.start_ms, reached_ms))
        reached_ms = max(reached_ms, until_ms)
    return covered_ms


def _kind_told(fault: Fault, case: Case) -> str | None:
    """Return what the case's latest revision until the fault's end names; its opening's if that came later."""
    latest_ms = max(fault.end_ms, case.opened_ms)
    told = [(revision, kind) for revision, time_ms, kind in case.kinds if time_ms <= latest_ms]
    return max(told)[1] if told else None


def _named_right(found: list[tuple[Fault, Case]]) -> float | None:
    told = [(fault.pattern, _kind_told(fault, case)) for fault, case in found if case.kinds]
    return sum(kind == pattern for pattern, kind in told) / len(told) if told else None


def _named(truth: Truth, firsts: dict[int, Case]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {pattern: Counter() for pattern in get_args(PatternKind)}
    for fault in truth.scored:
        case = firsts.get(id(fault))
        kind = "missed" if case is None else _kind_told(fault, case)
        counts[fault.pattern]["found" if kind is None else kind] += 1
    return {pattern: dict(count.most_common()) for pattern, count in counts.items()}


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
    return is_it and _within(incident.opened_ms, probe)


def _first_delay_ms(outage: Outage, incidents: Sequence[Incident]) -> int | None:
    """Time from an outage's start to its incident, if that opened while it lasted."""
    times = [incident.opened_ms for incident in incidents if _on(outage, incident)]
    return min((t - outage.start_ms for t in times if outage.start_ms <= t <= outage.end_ms), default=None)


def _is_right(truth: Truth, incident: Incident) -> bool:
    """Tell whether an incident names an element that had trouble then or up to a day before."""
    outage = any(_on(outage, incident) and _within(incident.opened_ms, outage) for outage in truth.outages)
    return outage or any(_names(probe, incident) for probe in truth.probes)


# Showing


def render(table: ScoreTable) -> Group:
    """Lay the table out for a terminal of 100 columns."""
    return Group(_detection(table), _patterns(table), _incidents(table))


def _detection(table: ScoreTable) -> Table:
    title = f"{table.customers:,} customers, {table.days} days, {table.healthy_days:,.0f} healthy customer-days"
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for name in ("stayline", "three_in_seven"):
        shown.add_column(name, justify="right")
    both = (table.stayline, table.three_in_seven)
    rows: tuple[tuple[str, list[str]], ...] = (
        (f"faults found (of {table.faults} with {BAD_CALLS_MIN}+ bad calls)", [str(m.found) for m in both]),
        ("recall", [_percent(m.recall) for m in both]),
        ("alerts opened", [str(m.alerts) for m in both]),
        ("false alerts", [str(m.false_alerts) for m in both]),
        ("false alerts per 10,000 healthy customer-days", [_number(m.false_per_10k_days, 2) for m in both]),
        ("alerts for customers inside a shared outage", [str(m.inside_outage) for m in both]),
        ("bad calls before the alert, median / p90", [_pair(m.bad_calls) for m in both]),
        ("hours from onset to alert, median / p90", [_pair(m.hours) for m in both]),
        ("right pattern named, of those found", [_percent(m.named_right) for m in both]),
    )
    for label, cells in rows:
        shown.add_row(label, *cells)
    return shown


def _patterns(table: ScoreTable) -> Table:
    shown = Table("pattern", title="By pattern", title_justify="left")
    for name in ("faults", "found", "by rule"):
        shown.add_column(name, justify="right")
    shown.add_column("named as")
    for pattern, named in table.stayline.named.items():
        total, ruled = sum(named.values()), table.three_in_seven.named[pattern]
        words = ", ".join(f"{kind} {count}" for kind, count in named.items() if kind != "missed")
        found = [str(total - told.get("missed", 0)) for told in (named, ruled)]
        shown.add_row(pattern, str(total), *found, words)
    return shown


def _incidents(table: ScoreTable) -> Table:
    marks = table.incidents
    shown = Table("shared trouble", "", title="Shared trouble", title_justify="left", show_header=False)
    shown.add_row(f"outages of {OUTAGE_DROPS_MIN}+ drops found while they last", f"{marks.found} of {marks.outages}")
    shown.add_row("minutes from onset to incident, median / p90", _pair(marks.minutes))
    shown.add_row("false incidents", str(marks.false_incidents))
    shown.add_row("lying probes named", f"{marks.probes_named} of {marks.probes}")
    return shown


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _pair(spread: Spread) -> str:
    return f"{_number(spread.median)} / {_number(spread.p90)}"
