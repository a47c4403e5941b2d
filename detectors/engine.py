"""The one face that dataflows use: events in, notifications out, state that can be kept and taken over.

    engine = RiskEngine(settings, catalogue)
    for batch in batches:
        notifications = engine.apply(batch)

The same events in the same order give the same notifications, whatever the batches they come in.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import Struct

from detectors.advice import Advisor, sentence
from detectors.casebook import EXPIRE_MS, HOLD_MS, Case, Casebook
from detectors.catalogue import Catalogue
from detectors.elements import Elements, element_total
from detectors.emodel import mos_from_r, quality, r_from_mos
from detectors.evidence import CHANNELS, DROP, QUALITY, SETUP, healthy_mean
from detectors.history import (
    ANSWERED,
    BAD_KEPT,
    COUNTERS,
    ELEMENTS,
    GOOD_KEPT,
    HISTORY,
    LOCKED,
    ONE_WAY,
    POOR,
    REDIALLED,
    Histories,
)
from detectors.identity import case_id
from detectors.incidents import Blame, Incidents, OpenIncident
from detectors.locks import TOLERANCE_S
from detectors.patterns import Finding, View, read
from detectors.relations import Relations
from detectors.release import CallEnds, Outcome, classify
from detectors.roster import CALM, CASE, Roster
from detectors.settings import Settings
from detectors.snapshots import raw
from detectors.watch import (
    APPLIED,
    BAD,
    FUTURE_MS,
    LATE,
    STOP_CASE,
    STOP_CUSTOMERS,
    STOP_DUE,
    STOP_ELEMENT,
    STOP_HISTORIES,
    STOP_LOOK,
    Calls,
    Limits,
    Media,
    Scratch,
    World,
    advance,
    evidence_days,
    merge_order,
)
from schemas.alerts import CallEvidence, ChurnRisk, Notification, NotificationType, PatternKind, notification
from schemas.columns import CallColumns, EventBatch, LinkColumns, MediaColumns
from schemas.errors import StateError
from schemas.events import Business, Churn, Contact, KnownIncident, Profile, Usage
from schemas.events import Outcome as OutcomeEvent
from schemas.text import F32, Translation, key_of

LAYOUT = 1
"""The layout of a snapshot; a newer one is refused."""

NEVER_MS = 2**62

LOOK_PART = 1e-3
"""A bad call gets the careful look from this part of the promised healthy days on: structure adds the rest."""

ELEMENT_DAYS = 1e6
"""Healthy days of one element between two false incidents: a network of a thousand elements has one in three years."""

SUSPICIOUS_DAYS = 30.0
"""An element with this much evidence makes a new case wait for an incident."""

DAY_MS = 86_400_000


class Counts(Struct):
    """What became of the records: the four add up to what was read."""

    applied: int = 0
    duplicate: int = 0
    late: int = 0
    dead_lettered: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How one customer stands.

    Attributes:
        channels: channel -> (evidence in days, healthy mean, observations learnt).
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
    calls: list[CallEvidence]


@dataclass(frozen=True, slots=True)
class _Now:
    """The batch that is being applied, as its slow parts need it."""

    batch: EventBatch
    calls: Calls
    scratch: Scratch
    lines: "_LineReadings"


class RiskEngine:
    """Everything that Stayline knows, and what follows from the next events.

    Args:
        settings: what the configuration fixes.
        catalogue: the remedies.

    Attributes:
        counts: what became of the records so far.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.settings = settings
        self.counts = Counts()
        self.roster = Roster(settings.customers_max, settings.idle_days)
        self.histories = Histories()
        self.elements = Elements()
        self.incidents = Incidents(settings.deployment, self.elements)
        self.casebook = Casebook()
        self.relations = Relations(settings.customers_max)
        self.advisor = Advisor(settings, catalogue, self.relations)
        self.clock_ms = -1
        self._codecs: dict[str, int] = {}
        self._codec_numbers = Translation(self._codec, -1)
        self._limits = Limits(
            lateness_ms=settings.lateness_s * 1000,
            look_days=settings.false_alarm_days * LOOK_PART,
            element_days=ELEMENT_DAYS,
        )
        self._out: list[Notification] = []

    # Applying

    def apply(self, batch: EventBatch) -> list[Notification]:
        """Apply the events of a batch, in order of arrival; return what has to be told, in order."""
        calls, media = self._prepare(batch)
        business = batch.business
        kind, index, position = merge_order(
            batch.calls.position, batch.media.position, np.array([at for at, _ in business], np.int64)
        )
        scratch = self._scratch(len(calls.customer))
        now = _Now(batch, calls, scratch, _LineReadings(batch.links, self.advisor))
        at = 0
        while at < len(kind):
            scratch.clock[:] = self.clock_ms, self.casebook.next_due_ms(NEVER_MS)
            scratch.tally[:] = 0
            world = World(self.roster.book, self.histories.shelf, self.elements.network)
            at, stop = advance(at, kind, index, calls, media, world, self._limits, scratch)
            self.clock_ms = int(scratch.clock[0])
            self._name_calls(now)
            if stop == 0:
                break
            if stop & STOP_DUE:
                self._pass_time(int(calls.end_ms[index[at]]))
            elif stop & STOP_CUSTOMERS:
                self._make_room()
            elif stop & STOP_HISTORIES:
                self.histories.make_room()
            elif stop & (STOP_LOOK | STOP_CASE | STOP_ELEMENT):
                now.lines.read_up_to(int(position[at - 1]))
                self._look(now, int(index[at - 1]), stop)
            else:
                now.lines.read_up_to(int(position[at]))
                scratch.counts[self._take(business[int(index[at])][1])] += 1
                at += 1
        now.lines.read_up_to(NEVER_MS)
        self.counts.duplicate += int(scratch.counts[1])
        self.counts.late += int(scratch.counts[2])
        self.counts.dead_lettered += len(batch.rejects)
        self.counts.applied += int(scratch.counts[0]) + len(batch.media) + len(batch.links)
        return self._told()

    def finish(self) -> list[Notification]:
        """Take every decision that still waits: there will be no more events."""
        for case in sorted(self.casebook.cases.values(), key=lambda case: (case.due_ms, case.alert_id)):
            if case.due_ms:
                self._decide(case, case.due_ms)
        return self._told()

    def _told(self) -> list[Notification]:
        out, self._out = self._out, []
        return out

    def _prepare(self, batch: EventBatch) -> tuple[Calls, Media]:
        """Compute what needs no state: release, R-factor, keys, element serials."""
        columns, reports = batch.calls, batch.media
        ends = classify(CallEnds.of(columns))
        calls = Calls(
            customer=columns.customer_id.keys(),
            call=columns.call_id.keys(),
            peer=columns.peer_id.keys(),
            start_ms=columns.start_ms,
            end_ms=columns.end_ms,
            answer_ms=columns.answer_ms,
            outcome=ends.outcome,
            drop=ends.drop_weight,
            setup=ends.setup_weight,
            one_way=ends.one_way,
            rating=_rating(columns),
            codec=self._codec_numbers.of(columns.codec).astype(np.int16),
            direction=columns.direction,
            elements=self.elements.serials_of(columns),
        )
        media = Media(
            customer=reports.customer_id.keys(),
            call=reports.call_id.keys(),
            at_ms=reports.at_ms,
            rating=_rating(reports),
        )
        return calls, media

    def _codec(self, name: str) -> int:
        # Codes are int16; a network with more codecs than that has none that matter beyond.
        known = self._codecs.get(name)
        if known is None and len(self._codecs) < 32_000:
            known = self._codecs[name] = len(self._codecs)
        return -1 if known is None else known

    @staticmethod
    def _scratch(size: int) -> Scratch:
        return Scratch(
            clock=np.zeros(2, np.int64),
            counts=np.zeros(3, np.int64),
            named=np.zeros((size, 3), np.int64),
            tally=np.zeros(2, np.int64),
            alarms=np.zeros(len(ELEMENTS), np.int32),
            fate=np.full(size, APPLIED, np.int8),
        )

    def _name_calls(self, now: _Now) -> None:
        kept = int(now.scratch.tally[0])
        for call, history, place in now.scratch.named[:kept].tolist() if kept else ():
            self.histories.name_call(history, place, now.batch.calls.call_id[call])

    def _make_room(self) -> None:
        for row in self.roster.make_room(self.clock_ms):
            key = int(row["key"])
            if row["history"] >= 0:
                self.histories.give_back(int(row["history"]))
            self.relations.forget(key)
            self.advisor.forget(key)
            if self.casebook.cases.pop(key, None) is not None:
                self.casebook.reschedule()

    # Looking

    def _look(self, now: _Now, call: int, stop: int) -> None:
        """Look carefully behind one call: at its elements first, then at its customer."""
        if stop & STOP_ELEMENT:
            alarms = now.scratch.alarms[: now.scratch.tally[1]].tolist()
            # What the alarm was about is decided now: a look at one element may open an incident on another.
            over = [element for element in alarms if self.elements.network.elements[element]["incident"] > 0]
            for element in over:
                self._end_incident(element)
            for element in alarms:
                if element not in over:
                    self._look_at_element(element)
        key = int(now.calls.customer[call])
        row = self.roster.find(key)
        if stop & STOP_CASE and key in self.casebook.cases:
            self._follow_case(self.casebook.cases[key], row, now, call)
        elif stop & STOP_LOOK and self._row(row)["history"] >= 0:
            self._look_at_customer(row, now.batch.calls.customer_id[call], int(now.calls.end_ms[call]))

    def _row(self, row: int) -> Any:
        return self.roster.book.rows[row]

    def _view(self, row: int, now_ms: int) -> View:
        one = self._row(row)
        history = int(one["history"])
        bad, _ = self.histories.bad_calls(history)
        good = self.histories.good_calls(history)
        since_ms = int(one["since_ms"])
        counts = {name: int(self.histories.shelf.histories[history][name]) for name in COUNTERS}
        return View(
            bad=bad[bad["end_ms"] >= since_ms],
            good=good[good["end_ms"] >= since_ms],
            since_ms=since_ms,
            now_ms=now_ms,
            names=_EngineNames(self.elements, self._codecs),
            **counts,
        )

    def _look_at_customer(self, row: int, customer_id: str, now_ms: int) -> None:
        one = self._row(row)
        view = self._view(row, now_ms)
        finding, added_log10 = read(view)
        evidence_log10 = float(np.log10(max(evidence_days(one), 1e-9))) + added_log10
        if len(view.bad) < 2 or evidence_log10 < np.log10(self.settings.false_alarm_days):
            return
        self._open_case(row, customer_id, view, finding, evidence_log10)

    def _open_case(self, row: int, customer_id: str, view: View, finding: Finding, evidence_log10: float) -> None:
        one = self._row(row)
        channel = {"setup_failure": SETUP, "quality": QUALITY}.get(finding.kind, DROP)
        case = Case(
            alert_id=case_id("al", self.settings.deployment, customer_id, finding.kind, view.since_ms),
            customer=int(one["key"]),
            customer_id=customer_id,
            since_ms=view.since_ms,
            detected_ms=view.now_ms,
            kind=finding.kind,
            phrase=finding.phrase,
            dimension=finding.dimension,
            baseline_ratio=float(healthy_mean(channel, one["count"][channel], one["weight"][channel])),
            evidence_log10=evidence_log10,
            region=self._region(view),
        )
        for call in self._evidence_calls(int(one["history"]), view.since_ms):
            case.see(call)
        case.recovery = 0.0
        self._count(case, view)
        if case.kind == "drop_rate":
            self._name_by_counts(case, view)
        case.severity = case.judge()
        self.histories.shelf.histories[one["history"]]["enough"] = case.good_calls_needed()
        one["mode"] = CASE
        self.casebook.cases[case.customer] = case
        self.casebook.reschedule()
        self.relations.case_opened(case.customer, view.now_ms)
        if self._suspicious(view):
            case.due_ms = view.now_ms + HOLD_MS
        else:
            self._tell(case, "stayline.alert.opened", view.now_ms)

    def _name_by_counts(self, case: Case, view: View) -> None:
        """Name a plain trouble by what most of its bad calls are."""
        sorts: list[tuple[int, PatternKind]] = [
            (view.drops, "drop_rate"),
            (view.failures, "setup_failure"),
            (view.poor, "quality"),
            (view.redials, "redial"),
        ]
        case.kind = max(sorts, key=lambda sort: sort[0])[1]
        self._count(case, view)

    @staticmethod
    def _count(case: Case, view: View) -> None:
        case.attempts, case.answered, case.drops = view.attempts, view.answered, view.drops
        if case.kind == "setup_failure":
            case.bad, case.trials = view.failures, view.attempts
        elif case.kind == "quality":
            case.bad, case.trials = view.poor, view.answered
        elif case.kind == "redial":
            case.bad, case.trials = view.redials, view.attempts
        elif case.kind == "duration_lock" and case.dimension is not None:
            # Also those that nothing else was wrong with when they ended.
            apart_s = np.abs(view.bad_durations_s() - float(case.dimension.value))
            at_lock = int(np.count_nonzero(apart_s <= TOLERANCE_S))
            case.bad, case.trials = max(view.bad_calls, at_lock), view.answered
        else:
            case.bad, case.trials = view.bad_calls, view.answered

    def _region(self, view: View) -> str | None:
        serials = view.bad["elements"][:, ELEMENTS.index("region")]
        known = serials[serials >= 0]
        return self.elements.names[int(known[-1])][1] if len(known) else None

    def _suspicious(self, view: View) -> bool:
        """Whether an element that the bad calls ran through may turn out to be the cause."""
        serials = np.unique(view.bad["elements"])
        elements = self.elements.network.elements
        return any(
            element_total(elements[serial], channel) >= SUSPICIOUS_DAYS
            for serial in serials[serials >= 0]
            for channel in range(2)
        )

    def _evidence_calls(self, history: int, since_ms: int) -> list[CallEvidence]:
        calls, ids = self.histories.bad_calls(history)
        return [_call_evidence(one, name) for one, name in zip(calls, ids, strict=True) if one["end_ms"] >= since_ms]

    # Following a case

    def _follow_case(self, case: Case, row: int, now: _Now, call: int) -> None:
        end_ms = int(now.calls.end_ms[call])
        kept = int(now.scratch.tally[0])
        bad = kept > 0 and int(now.scratch.named[kept - 1, 0]) == call
        history = self.histories.shelf.histories[self._row(row)["history"]]
        case.see_good(int(history["unseen"]))
        history["unseen"] = 0
        if case.over(end_ms):
            self._close(case, end_ms)
        elif bad:
            case.see(self._newest_bad_call(row))
            self._judge_case(case, row, end_ms)
            history["enough"] = case.good_calls_needed()

    def _judge_case(self, case: Case, row: int, end_ms: int) -> None:
        """Tell a case anew where it has got worse or is known better."""
        view = self._view(row, end_ms)
        finding, _ = read(view)
        kind_before = case.kind
        self._count(case, view)
        if case.worth_telling(finding.kind):
            case.kind, case.phrase, case.dimension = finding.kind, finding.phrase, finding.dimension
            if kind_before != case.kind:
                self._count(case, view)
            case.severity = max(case.severity, case.judge(), key=("minor", "major", "critical").index)
            if not case.due_ms:
                self._tell(case, "stayline.alert.updated", end_ms)

    def _newest_bad_call(self, row: int) -> CallEvidence:
        bad, ids = self.histories.bad_calls(int(self._row(row)["history"]))
        return _call_evidence(bad[-1], ids[-1])

    def _close(self, case: Case, now_ms: int) -> None:
        if case.told:
            self._tell(case, "stayline.alert.resolved", now_ms)
        del self.casebook.cases[case.customer]
        self.casebook.reschedule()
        self._relieve(self.roster.find(case.customer))

    def _relieve(self, row: int) -> None:
        """Let a customer begin anew: no evidence, no history."""
        if row < 0:
            return
        one = self._row(row)
        one["mode"] = CALM
        one["evidence"][:] = 0.0
        one["lock_evidence"][:] = 0.0
        one["waiting_count"][:] = 0.0
        one["waiting_weight"][:] = 0.0
        one["since_ms"] = -1
        if one["history"] >= 0:
            self.histories.give_back(int(one["history"]))
            one["history"] = -1

    # Time

    def _pass_time(self, now_ms: int) -> None:
        """Take the decisions that are due before the next event is applied."""
        self.casebook.reschedule()
        for case in self.casebook.due(now_ms):
            if case.due_ms:
                self._decide(case, case.due_ms)
            else:
                self._close(case, case.last_bad_ms + EXPIRE_MS)
        self.incidents.forget_closed(now_ms - 2 * DAY_MS)

    def _decide(self, case: Case, now_ms: int) -> None:
        """Tell a case that was held, unless an incident explains it."""
        case.due_ms = 0
        self.casebook.reschedule()
        incident = self._incident_of(case)
        if incident is None:
            self._tell(case, "stayline.alert.opened", now_ms)
            return
        self.casebook.taken_over_count += 1
        del self.casebook.cases[case.customer]
        self.casebook.reschedule()
        self._relieve(self.roster.find(case.customer))

    def _incident_of(self, case: Case) -> OpenIncident | None:
        """Return the incident, open or lately closed, that most of a case's bad calls ran through."""
        history = int(self._row(self.roster.find(case.customer))["history"])
        if history < 0:
            return None
        bad, _ = self.histories.bad_calls(history)
        bad = bad[bad["end_ms"] >= case.since_ms]
        for incident in [*self.incidents.open.values(), *self.incidents.closed.values()]:
            end_ms = NEVER_MS if incident.cleared_ms is None else incident.cleared_ms
            during = (bad["end_ms"] >= incident.since_ms) & (bad["end_ms"] <= end_ms)
            through = np.any(bad["elements"] == incident.element, axis=1) & during
            if len(bad) and through.mean() > 0.5:
                return incident
        return None

    # Incidents

    def _end_incident(self, element: int) -> None:
        incident = self.incidents.open[int(self.elements.network.elements[element]["incident"])]
        if not incident.known:
            incident.revision += 1
            self._send("stayline.incident.cleared", self.clock_ms, self.incidents.report(incident, self.clock_ms))
        self.incidents.stop(incident, self.clock_ms)

    def _look_at_element(self, element: int) -> None:
        if self.elements.network.elements[element]["incident"] > 0:
            return
        blame = self.incidents.blame(element)
        if blame is not None:
            incident = self.incidents.start(blame, self.clock_ms)
            self._absolve(blame, incident)
            self._send("stayline.incident.opened", self.clock_ms, self.incidents.report(incident, None))

    def _absolve(self, blame: Blame, incident: OpenIncident) -> None:
        """Take the outage's calls off the customers who had them: it is not held against them."""
        customers = np.unique(blame.log["key"])
        for key in customers.tolist():
            row = self.roster.find(int(key))
            if row < 0:
                continue
            self._row(row)["incident"] = incident.serial
            case = self.casebook.cases.get(int(key))
            if case is None:
                self._relieve(row)
            elif case.due_ms:
                self._decide(case, self.clock_ms)
        self.elements.network.elements[incident.element]["customers"] = len(customers)

    # Rare events

    def _take(self, event: Business) -> int:
        """Apply a rare event; return APPLIED, or LATE for one out of time."""
        if 0 <= self.clock_ms < event.at_ms - FUTURE_MS:
            return LATE
        if event.at_ms >= self.casebook.next_due_ms(NEVER_MS):
            self._pass_time(event.at_ms)
        self.clock_ms = max(self.clock_ms, event.at_ms)
        self._learn_of(event)
        return APPLIED

    def _learn_of(self, event: Business) -> None:
        if isinstance(event, KnownIncident):
            self.incidents.told(event)
        elif isinstance(event, OutcomeEvent):
            self.advisor.outcome(event)
        else:
            customer = key_of(event.customer_id)
            if isinstance(event, Profile):
                self.relations.profile(customer, event)
            elif isinstance(event, Usage):
                self.relations.usage(customer, event)
            elif isinstance(event, Contact):
                self.relations.contact(customer, event)
            if isinstance(event, Churn):
                self.advisor.left(customer, event.at_ms)
            else:
                self.advisor.remember(customer, event.at_ms, self._experience)

    def _experience(self, customer: int) -> dict[str, float]:
        """Return the churn features that a customer's calls give."""
        row = self.roster.find(customer)
        known = {"cases_open": float(customer in self.casebook.cases)}
        if row < 0:
            return known
        one = self._row(row)
        known["evidence"] = float(np.log10(max(evidence_days(one), 1.0)))
        for channel, name in ((DROP, "drop_ratio_30d"), (QUALITY, "bad_quality_ratio_30d")):
            if one["count"][channel] > 0:
                known[name] = float(one["weight"][channel] / one["count"][channel])
        return known

    # Telling

    def _tell(self, case: Case, kind: NotificationType, now_ms: int) -> None:
        if not case.told:
            # A case that had no room before opens at the first later revision that has.
            kind = "stayline.alert.opened"
            if not self.advisor.has_room(now_ms):
                self.advisor.deferred_count += not case.deferred
                case.deferred = True
                return
            case.deferred = False
        # Records may arrive a little out of order; what is told of one case never goes back in time.
        now_ms = case.told_ms = max(now_ms, case.told_ms)
        case.revision += 1
        case.told_bad = case.bad
        fault_open = kind != "stayline.alert.resolved"
        alert = self.advisor.alert(case, now_ms, self._experience(case.customer), fault_open=fault_open)
        self._send(kind, now_ms, alert)

    def _send(self, kind: NotificationType, now_ms: int, data: Any) -> None:
        self._out.append(notification(self.settings.deployment, kind, now_ms, data))

    # Explaining

    def standing(self, customer_id: str) -> Standing | None:
        """Return how a customer stands; None for one who has not called."""
        key = key_of(customer_id)
        row = self.roster.find(key)
        if row < 0:
            return None
        one = self._row(row)
        case = self.casebook.cases.get(key)
        history = int(one["history"])
        channels = {
            name: (
                float(one["evidence"][channel].mean()),
                float(healthy_mean(channel, one["count"][channel], one["weight"][channel])),
                float(one["count"][channel]),
            )
            for channel, name in enumerate(CHANNELS)
        }
        return Standing(
            last_ms=int(one["last_ms"]),
            since_ms=int(one["since_ms"]),
            evidence_days=float(evidence_days(one)),
            threshold_days=self.settings.false_alarm_days,
            channels=channels,
            case=case,
            sentence="" if case is None else sentence(case),
            churn=self.advisor.risk(key, self.clock_ms, self._experience(key)),
            calls=[] if history < 0 else self._evidence_calls(history, 0),
        )

    # Forgetting

    def forget(self, customer_id: str) -> dict[str, int]:
        """Erase what is known of one customer; return how much of each sort there was, what there was none of left out.

        What was learnt of many together stays: the counts of elements, the weights of the churn model. It names nobody.
        A customer who calls again is a new one.
        """
        key = key_of(customer_id)
        erased = {"case": int(self.casebook.cases.pop(key, None) is not None), **self._erase_row(key)}
        self.casebook.reschedule()
        erased |= {"profile": self.relations.forget(key), **self.advisor.erase(key)}
        erased |= {"network's bad calls": self.elements.forget(key), "far end of others": self._erase_far_end(key)}
        return {sort: count for sort, count in erased.items() if count}

    def _erase_row(self, key: int) -> dict[str, int]:
        row = self.roster.find(key)
        if row < 0:
            return {}
        history = int(self._row(row)["history"])
        calls = 0
        if history >= 0:
            one = self.histories.shelf.histories[history : history + 1]
            calls = min(int(one["bad_count"][0]), BAD_KEPT) + min(int(one["good_count"][0]), GOOD_KEPT)
            # A history is cleared only as far as its next customer needs: the calls themselves would stay.
            raw(one)[:] = raw(np.zeros(1, HISTORY))
            self.histories.give_back(history)
        self.roster.remove(np.arange(len(self.roster)) == row)
        return {"evidence": 1, "calls": calls}

    def _erase_far_end(self, key: int) -> int:
        """Erase a customer from what others' rows and histories say of whom they called; return in how many places."""
        peer = np.uint32(key & 0xFFFF_FFFF)
        rows, shelf = self.roster.book.rows[: len(self.roster)], self.histories.shelf.histories
        places = (rows["last_peer"], rows["lock_peer"], shelf["bad"]["peer"], shelf["good"]["peer"])
        count = sum(int(np.count_nonzero(place == peer)) for place in places) if peer else 0
        for place in places:
            place[place == peer] = 0
        return count

    # State

    def snapshot(self) -> dict[str, Any]:
        """Return the whole state as plain values (numbers, strings, bytes): a copy."""
        return {
            "layout": LAYOUT,
            "deployment": self.settings.deployment,
            "clock_ms": self.clock_ms,
            "counts": [self.counts.applied, self.counts.duplicate, self.counts.late, self.counts.dead_lettered],
            "codecs": list(self._codecs),
            "roster": self.roster.snapshot(),
            "histories": self.histories.snapshot(),
            "elements": self.elements.snapshot(),
            "incidents": self.incidents.snapshot(),
            "casebook": self.casebook.snapshot(),
            "relations": self.relations.snapshot(),
            "advisor": self.advisor.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a snapshot.

        Raises:
            StateError: if it is of another layout or of another deployment.
        """
        if state.get("layout") != LAYOUT:
            raise StateError(f"state must be of layout {LAYOUT}, was {state.get('layout')}")
        if state["deployment"] != self.settings.deployment:
            raise StateError(
                f"state must belong to deployment {self.settings.deployment}, was of {state['deployment']}"
            )
        self.clock_ms = state["clock_ms"]
        self.counts = Counts(*state["counts"])
        self._codecs = {name: code for code, name in enumerate(state["codecs"])}
        self._codec_numbers = Translation(self._codec, -1)
        for part in ("roster", "histories", "elements", "incidents", "casebook", "relations", "advisor"):
            getattr(self, part).restore(state[part])


@dataclass(frozen=True, slots=True)
class _EngineNames:
    elements: Elements
    codecs: dict[str, int]

    def element(self, column: int, serial: int) -> str:
        return self.elements.names[serial][1] if serial >= 0 else f"unknown {ELEMENTS[column]}"

    def codec(self, code: int) -> str:
        return next((name for name, known in self.codecs.items() if known == code), "unknown")


class _LineReadings:
    """The network telemetry of a batch, read as far as somebody needs it: readings matter when a case is told."""

    def __init__(self, links: LinkColumns, advisor: Advisor) -> None:
        self._advisor = advisor
        customers = links.customer_id.keys()
        # A reading of an element that serves many is nobody's line.
        own = np.flatnonzero(customers)
        self._positions = links.position[own].tolist()
        self._customers = customers[own].tolist()
        self._metrics = links.metric.take(own)
        self._values = links.value[own].tolist()
        self._at = 0

    def read_up_to(self, position: int) -> None:
        """Take over the readings that arrived before a position."""
        while self._at < len(self._positions) and self._positions[self._at] < position:
            metric = self._metrics[self._at]
            if metric is not None:
                self._advisor.read_line(self._customers[self._at], metric, self._values[self._at])
            self._at += 1


def _call_evidence(one: Any, call_id: str) -> CallEvidence:
    """Describe one kept call as an alert shows it."""
    flags = int(one["flags"])
    if flags & ONE_WAY:
        outcome = "one_way_audio"
    elif one["drop"] >= BAD and flags & ANSWERED:
        outcome = "dropped" if one["outcome"] == Outcome.DROP and one["drop"] >= 1.0 else "probably_dropped"
    elif one["setup"] >= BAD:
        outcome = "setup_failure"
    elif flags & LOCKED:
        outcome = "ended_at_timer"
    elif flags & POOR:
        outcome = "poor_quality"
    elif flags & REDIALLED:
        outcome = "called_again"
    else:
        outcome = "normal"
    return CallEvidence(call_id, int(one["end_ms"]), outcome, int(one["duration_ms"]), _mos(float(one["rating"])))


def _rating(columns: CallColumns | MediaColumns) -> F32:
    """Return R of each call or report: from what was measured, else from the source's own MOS, else NaN."""
    measured = quality(
        columns.loss_ratio,
        columns.discard_ratio,
        columns.burst_ratio,
        columns.rtt_ms,
        columns.jitter_ms,
        columns.codec,
    ).r
    rating = np.where(np.isnan(measured), r_from_mos(columns.mos.astype(np.float64)), measured)
    return rating.astype(np.float32)


def _mos(rating: float) -> float | None:
    return None if np.isnan(rating) else round(float(mos_from_r(np.array([rating]))[0]), 2)
