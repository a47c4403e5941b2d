"""What is decided about one customer: a case is opened, held, told, followed, closed.

The hot loop says where to look; what is decided here follows from that customer's evidence and recent calls, and from
the incidents that these calls ran through.
"""

from typing import Any

import numpy as np
from msgspec.structs import replace

from detectors.absolution import absolve
from detectors.casebook import EXPIRE_MS, HOLD_MS, RANK, Case
from detectors.evidence import DROP, LEAP, QUALITY, SETUP, healthy_mean
from detectors.experience import experience
from detectors.following import catch_up, hand_over
from detectors.history import ELEMENTS
from detectors.identity import case_id
from detectors.incidents import OpenIncident, excess
from detectors.memory import Memory
from detectors.patterns import KINDS, Finding, View, added_log10, read, sort_kind
from detectors.remedies.followup import FollowUp, FollowUps
from detectors.roster import CALM, CASE, FULL, HELD
from detectors.showing import bad_shown, shown_calls, shown_good, view_of
from detectors.watch.cases import counted
from detectors.watch.customers import evidence_days, line_of, opening_log10
from schemas.alerts import Notification, NotificationType, Order, PatternKind, notification
from schemas.events import Outcome

HELD_MAX_MS = 24 * HOLD_MS
"""So long at the most a case waits while an element through which its calls ran looks ill: slow faults show late."""
OWN_EXCESS = 6.0
"""But not one that is worse than what the others there suffer: e^6 times likelier with a share of its own."""
SUDDEN_SHARE = 0.5
"""So do bad calls of which a larger share came within the time that it would wait."""


class Casework:
    """Decides about cases, and collects what has to be told.

    Args:
        memory: everything that is known; changed in place.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._casebook = memory.casebook
        self._out: list[Notification] = []

    @property
    def _follow_ups(self) -> FollowUps:
        return self._memory.advisor.chooser.follow_ups

    # Opening

    def look(self, row: int, customer_id: str, now_ms: int) -> None:
        """Look carefully at a customer without a case, whose newest call was bad; open one if evidence is enough."""
        one = self._memory.row(row)
        if self._memory.note_of(one)["history"] < 0:
            return
        view = view_of(self._memory, row, now_ms)
        added = added_log10(view.kept()) + line_of(self._memory.world(), self._memory.note_of(one))
        history = self._memory.histories.shelf.items[self._memory.note_of(one)["history"]]
        evidence_log10 = float(opening_log10(one, history, added))
        if len(view.bad) < 2 or evidence_log10 < np.log10(self._memory.settings.false_alarm_days):
            return
        self._open(row, customer_id, view, read(view), evidence_log10)

    def _open(self, row: int, customer_id: str, view: View, finding: Finding, evidence_log10: float) -> None:
        one = self._memory.row(row)
        channel = {"setup_failure": SETUP, "quality": QUALITY}.get(finding.kind, DROP)
        case = Case(
            alert_id=case_id("al", self._memory.settings.deployment, customer_id, finding.kind, view.since_ms),
            customer=int(one["key"]),
            customer_id=customer_id,
            since_ms=view.since_ms,
            detected_ms=view.now_ms,
            kind=_kind(finding, view),
            phrase=finding.phrase,
            dimension=finding.dimension,
            baseline_ratio=float(healthy_mean(channel, float(one["count"][channel]), float(one["weight"][channel]))),
            evidence_log10=evidence_log10,
            region=self._region(view),
        )
        history = int(self._memory.note_of(one)["history"])
        for call in shown_calls(self._memory.histories, history, view.since_ms):
            case.see(call)
        case.recovery = 0.0
        _count(case, view)
        case.severity = case.judge()
        self._casebook.cases[case.customer] = case
        hand_over(self._memory, case)
        self._casebook.reschedule()
        self._memory.relations.case_opened(case.customer, view.now_ms)
        relapse = self._follow_ups.case_opened(case.customer, view.now_ms)
        if relapse is not None and relapse.alert_id != case.alert_id:
            case.previous_alert_id, case.failed = relapse.alert_id, [relapse.remedy_id]
        if _sudden(view) or self._may_be_shared(case, view):
            one["mode"], case.due_ms = HELD, view.now_ms + HOLD_MS
        else:
            one["mode"] = CASE
            self._tell(case, "stayline.alert.opened", view.now_ms)

    def _region(self, view: View) -> str | None:
        serials = view.bad["elements"][:, ELEMENTS.index("region")]
        known = serials[serials >= 0]
        return self._memory.elements.names[int(known[-1])][1] if len(known) else None

    def _may_be_shared(self, case: Case, view: View) -> bool:
        """Whether an element that the bad calls ran through looks ill, and as ill as would explain them."""
        serials = np.unique(view.bad["elements"])
        ratio = self._memory.incidents.shared_ratio(serials[serials >= 0].tolist(), case.customer)
        return ratio > 0.0 and excess(case.bad, max(case.trials, case.bad), ratio) < OWN_EXCESS

    # Following

    def follow(self, case: Case, row: int, end_ms: int, *, bad: bool) -> None:
        """Take a case on by its customer's newest call."""
        place = int(self._memory.note(row)["history"])
        history = self._memory.histories.shelf.items[place]
        catch_up(self._memory, case)
        self._see_good(case, history)
        if case.over(end_ms):
            self._close(case, end_ms)
        elif bad:
            case.see(*bad_shown(self._memory.histories, place, int(history["bad_count"])))
            self._follow_ups.bad_call(case.customer, end_ms)
            self._judge(case, row, end_ms)
            hand_over(self._memory, case)

    def _see_good(self, case: Case, history: Any) -> None:
        """Count the good calls since the last look."""
        count = int(history["unseen"])
        history["unseen"] = 0
        case.see_good(count)
        self._follow_ups.good_calls(case.customer, count)

    def _judge(self, case: Case, row: int, end_ms: int) -> None:
        """Tell a case anew where it has got worse or is known better, or where nobody could be told before."""
        view = view_of(self._memory, row, end_ms)
        _count(case, view)
        if case.told and not case.worse() and not case.may_be_renamed():
            return
        finding = read(view)
        if not case.told or case.worse() or _kind(finding, view) != case.kind:
            _name(case, finding, view)
            if not case.due_ms:
                self._tell(case, "stayline.alert.updated", end_ms)

    def _close(self, case: Case, now_ms: int) -> None:
        self._memory.relations.case_solved(case.customer, now_ms)
        if case.told:
            self._tell(case, "stayline.alert.resolved", now_ms)
        self._drop(case)

    def _drop(self, case: Case) -> None:
        self._casebook.close(case)
        self._follow_ups.case_closed(case.customer)
        self.relieve(self._memory.roster.find(case.customer))

    def relieve(self, row: int) -> None:
        """Let a customer begin anew: no evidence, no history."""
        if row < 0:
            return
        one = self._memory.row(row)
        one["mode"] = CALM
        one["evidence"][:] = 0.0
        one["lock_evidence"][:] = 0.0
        one["doubt"] = FULL
        note = self._memory.note_of(one)
        note["waiting_count"][:] = 0
        note["waiting_weight"][:] = 0.0
        note["since_ms"] = -1
        if note["history"] >= 0:
            self._memory.histories.give_back(int(note["history"]))
            note["history"] = -1

    # Decisions that wait

    def pass_time(self, now_ms: int) -> None:
        """Take the decisions that are due before the next event is applied."""
        self._casebook.reschedule()
        for case in self._casebook.due(now_ms):
            catch_up(self._memory, case)
        for case in self._casebook.due(now_ms):
            if case.due_ms:
                self.decide(case, case.due_ms)
            else:
                self._close(case, case.last_bad_ms + EXPIRE_MS)
        for follow_up in self._follow_ups.due(now_ms):
            self._conclude(follow_up)

    def _conclude(self, follow_up: FollowUp) -> None:
        """Say what the calls said of a remedy; where it did not help, tell the case anew with the next one."""
        case = self._casebook.cases.get(follow_up.customer)
        place = self._memory.history_of(follow_up.customer)
        if case is not None and place >= 0:
            history = self._memory.histories.shelf.items[place]
            follow_up.good += int(history["unseen"])
            self._see_good(case, history)
            hand_over(self._memory, case)
        verdict = follow_up.verdict()
        if verdict == "unproven" and self._follow_ups.extend(follow_up):
            return
        self._memory.advisor.chooser.partners.judged(follow_up.remedy_id, follow_up.partner, verdict)
        if verdict == "failed" and case is not None and case.alert_id == follow_up.alert_id:
            case.failed = [*case.failed, follow_up.remedy_id]
            case.attempt += 1
            if case.told:
                self._tell(case, "stayline.alert.updated", follow_up.due_ms, failed=follow_up)

    # Reports

    def report(self, event: Outcome) -> None:
        """Take over what came of an alert; of one not known here, nothing."""
        customer = self._memory.advisor.customer_of(event.alert_id)
        if customer is None:
            return
        self._memory.row_of(customer)  # the case is written with its row
        case = self._casebook.find(customer, event.alert_id)
        current = self._casebook.cases.get(customer)
        if current is not None:
            catch_up(self._memory, current)
        order = self._memory.advisor.outcome(customer, event)
        if current is not None:
            hand_over(self._memory, current)
        if order is not None and case is not None and case.told:
            is_open = customer in self._casebook.cases and self._casebook.cases[customer] is case
            kind: NotificationType = "stayline.alert.updated" if is_open else "stayline.alert.resolved"
            self._tell(case, kind, event.at_ms, order=order)

    def finish(self) -> None:
        """Take every decision that still waits."""
        for case in sorted(self._casebook.cases.values(), key=lambda case: (case.due_ms, case.alert_id)):
            if case.due_ms:
                self.decide(case, case.due_ms, may_wait=False)

    def decide(self, case: Case, now_ms: int, *, may_wait: bool = True) -> None:
        """Tell a case that was held, unless an incident explains it or may yet do so."""
        case.due_ms = 0
        self._casebook.reschedule()
        if self._incident_of(case) is not None:
            self._casebook.taken_over_count += 1
            self._drop(case)
            return
        row = self._memory.roster.find(case.customer)
        view = view_of(self._memory, row, now_ms)
        _name(case, read(view), view)
        if may_wait and now_ms + HOLD_MS <= case.detected_ms + HELD_MAX_MS and self._may_be_shared(case, view):
            case.due_ms = now_ms + HOLD_MS
        else:
            self._memory.row(row)["mode"] = CASE
            self._tell(case, "stayline.alert.opened", now_ms)

    def absolve(self, row: int, incident: OpenIncident) -> None:
        """Take an incident's calls back from a customer who had some; drop the case that rests on them and is held."""
        one = self._memory.row(row)
        case = self._casebook.cases.get(int(one["key"]))
        if case is None:
            if not absolve(self._memory, row, incident):
                self.relieve(row)
        elif case.due_ms:
            if self._incident_of(case) is None and absolve(self._memory, row, incident) and not self._enough(one):
                # Something is left, too little for a case: it goes on counting.
                self._casebook.taken_over_count += 1
                del self._casebook.cases[case.customer]
                one["mode"] = CALM
            else:
                self.decide(case, incident.detected_ms)
            self._casebook.reschedule()
        elif (explained := self._incident_of(case)) is not None:
            # Told too soon: it is handed over to the incident, and nothing is left for this customer to be called for.
            catch_up(self._memory, case)
            case.incident_id = explained.incident_id
            self._close(case, incident.detected_ms)

    def _enough(self, one: Any) -> bool:
        return bool(LEAP * evidence_days(one) >= self._memory.settings.false_alarm_days)

    def _incident_of(self, case: Case) -> OpenIncident | None:
        """Return the incident, open or lately closed, that most of a case's bad calls ran through."""
        history = self._memory.history_of(case.customer)
        if history < 0:
            return None
        bad, _ = self._memory.histories.bad_calls(history)
        bad = bad[bad["end_ms"] >= case.since_ms]
        for incident in self._memory.incidents.recent():
            through = np.any(bad["elements"] == incident.element, axis=1) & incident.during(bad["end_ms"])
            if len(bad) and through.mean() > 0.5:
                return incident
        return None

    # Telling

    def _tell(
        self,
        case: Case,
        kind: NotificationType,
        now_ms: int,
        *,
        failed: FollowUp | None = None,
        order: Order | None = None,
    ) -> None:
        advisor = self._memory.advisor
        if not case.told:
            # A case that had no room before opens at the first later revision that has.
            kind = "stayline.alert.opened"
            if not advisor.has_room(now_ms):
                advisor.deferred_count += not case.deferred
                case.deferred = True
                return
            case.deferred = False
        # Records may arrive a little out of order; what is told of one case never goes back in time.
        now_ms = case.told_ms = max(now_ms, case.told_ms)
        case.revision += 1
        case.told_bad = case.bad
        fault_open = kind != "stayline.alert.resolved"
        known = experience(self._memory, case.customer, now_ms)
        alert = advisor.alert(case, now_ms, known, fault_open=fault_open, failed=failed, order=order)
        good = shown_good(self._memory, case.customer, case.since_ms)
        self.send(kind, now_ms, replace(alert, good_calls=good))
        hand_over(self._memory, case)

    def send(self, kind: NotificationType, now_ms: int, data: Any) -> None:
        """Add a notification to what has to be told."""
        self._out.append(notification(self._memory.settings.deployment, kind, now_ms, data))

    def told(self) -> list[Notification]:
        """Return what has to be told since the last time, in order."""
        out, self._out = self._out, []
        return out


def _sudden(view: View) -> bool:
    """Whether most of the bad calls came at once: so an outage looks to each of those inside it."""
    return float(np.mean(view.bad["end_ms"] > view.now_ms - HOLD_MS)) > SUDDEN_SHARE


def _name(case: Case, finding: Finding, view: View) -> None:
    """Write into a case what is known of it now."""
    case.kind, case.phrase, case.dimension = _kind(finding, view), finding.phrase, finding.dimension
    _count(case, view)
    case.severity = max(case.severity, case.judge(), key=RANK.index)


def _kind(finding: Finding, view: View) -> PatternKind:
    """Name a trouble by its structure, a plain one by what most of its bad calls are."""
    if finding.kind != "drop_rate":
        return finding.kind
    return KINDS[sort_kind(view.counters())]


def _count(case: Case, view: View) -> None:
    case.attempts, case.answered = view.attempts, view.answered
    case.bad, case.trials = counted(KINDS.index(case.kind), case.lock_s(), view.counters(), view.kept())
