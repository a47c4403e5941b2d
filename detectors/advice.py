"""From a case to the alert that a representative works from: churn, cause, remedies, the sentence.

Also the two things that all cases share: what the churn model learns, and how many cases a day are told.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from detectors.casebook import DAY_MS, Case
from detectors.changes import Ledger
from detectors.churn.features import EXPERIENCE
from detectors.churn.labels import LabelDesk
from detectors.churn.model import ChurnModel
from detectors.churn.relations import Paid, Relation, Relations
from detectors.remedies.catalogue import Catalogue
from detectors.remedies.causes import LineReadings, likely_cause
from detectors.remedies.choice import Situation, Tried, value_at_risk
from detectors.remedies.chooser import CaseFacts, Chooser
from detectors.remedies.credits import Measured
from detectors.remedies.followup import FollowUp as Watched
from detectors.remedies.losses import SHOWING, Losses, Span
from detectors.remedies.statutory import days_lost, statutory
from detectors.settings import Settings
from detectors.zone import LocalTime, local_time
from schemas.alerts import Alert, ChurnRisk, Credit, FollowUp, Order, Pattern
from schemas.events import HANDLED, Outcome
from schemas.money import money_text

BILL_MS = 30 * DAY_MS
"""What was lost in so long a time stands on one bill."""

_DAYS_SINCE_CALL = EXPERIENCE.index("days_since_call")

ALERTS_KEPT = 100_000
"""Outcomes name an alert; so many of the latest are remembered with their customer."""


class Advisor:
    """Turns cases into alerts, and learns from what became of them.

    Args:
        settings: what the configuration fixes.
        catalogue: the remedies.
        relations: what the business knows.

    Attributes:
        deferred_count: cases not told because the day's budget was used up.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, relations: Relations) -> None:
        self._settings = settings
        self._zone = local_time(settings.timezone)
        self._catalogue = catalogue
        self._relations = relations
        business = settings.business
        self.model = ChurnModel(business.base_rate_prior, serve=business.serve)
        self._labels = LabelDesk(business.horizon_days * DAY_MS)
        self.chooser = Chooser(settings, catalogue)
        self._day = -1
        self._told_today = 0
        self.deferred_count = 0
        self._alerts: Ledger[str, int] = Ledger("alerts", int)
        self._lines: Ledger[int, dict[str, float]] = Ledger("lines", dict[str, float])
        self._losses = Losses(settings.customers_max)

    def has_room(self, now_ms: int) -> bool:
        """Take one of today's alerts if there is one left; days are UTC, by event time."""
        day = now_ms // DAY_MS
        # Out-of-order calls around midnight do not give a day its budget twice.
        if day > self._day:
            self._day, self._told_today = day, 0
        if self._told_today >= self._settings.alerts_per_day_max:
            return False
        self._told_today += 1
        return True

    @property
    def told_today(self) -> int:
        """Cases told on the newest day."""
        return self._told_today

    # Learning

    def heard(self, customer: int, at_ms: int, experience: Sequence[float]) -> None:
        """Learn what has become known; keep a customer's features of now until it is known whether they left.

        Args:
            customer: key.
            at_ms: event time.
            experience: `EXPERIENCE`.
        """
        # First what has become known: an example that is due must not give way to a new one.
        for example in self._labels.mature(at_ms):
            self.model.learn(example.features, example.left)
        self.chooser.ledger.mature(at_ms)
        name = str(customer)
        if not self._labels.wants(name, at_ms):
            return
        relation, days = self._relations.of(customer), experience[_DAYS_SINCE_CALL]
        # Whoever has left would be learnt as somebody who stayed.
        if not relation.is_gone(None if math.isnan(days) else at_ms - int(days * DAY_MS)):
            self._labels.keep(name, at_ms, relation.row(at_ms, experience))

    def left(self, customer: int, at_ms: int) -> None:
        """Learn that a customer left."""
        self._relations.left(customer, at_ms)
        for example in self._labels.left(str(customer), at_ms):
            self.model.learn(example.features, example.left)
        self.chooser.ledger.left(customer, at_ms)

    def customer_of(self, alert_id: str) -> int | None:
        """Return whose alert it is; None for one not known here."""
        return self._alerts.get(alert_id)

    def outcome(self, customer: int, event: Outcome) -> Order | None:
        """Take over what came of a known alert; return the order where a remedy was accepted."""
        if event.result in HANDLED:
            return None
        self._relations.outcome(customer, event)
        order = self.chooser.outcome(customer, event)
        if order is not None and order.credit is not None:
            amount_minor = order.credit.amount_minor
            self._relations.credited(customer, Paid(event.at_ms, event.alert_id, amount_minor, order.credit.currency))
            if self.chooser.is_due_by_law(order.remedy_id):
                self._losses.paid(customer, amount_minor)
        return order

    def read_lines(self, readings: Iterable[tuple[int, str, float, int]]) -> None:
        """Keep the newest readings of customers' lines, and since when nothing has come through them.

        Args:
            readings: (customer's key, metric, value, event time), in order of arrival.
        """
        lines = self._lines
        for customer, metric, value, at_ms in readings:
            line = lines.get(customer)
            if line is None:
                while len(lines) >= self._settings.customers_max:
                    lines.drop_oldest()
                line = lines[customer] = {}
            else:
                lines.touch(customer)
            line[metric] = value
            if metric in SHOWING:
                self._losses.read(customer, at_ms, line)

    def forget(self, customer: int) -> None:
        """Forget a customer's line and what was scored of them."""
        self._lines.take_out(customer)
        self._losses.forget(customer)
        self._labels.forget(str(customer))
        self.chooser.forget(customer)

    def wait_for(self, customers: set[int]) -> None:
        """Go on waiting for what becomes of these customers, and of no others."""
        self._labels.wait_for({str(customer) for customer in customers})
        self.chooser.ledger.wait_for(customers)
        self.chooser.follow_ups.wait_for(customers)
        self.chooser.partners.wait_for(customers)

    def erase(self, customer: int) -> dict[str, int]:
        """Forget a customer, and which alerts were theirs; return how much of each sort there was."""
        lines = len(self._lines.take_out(customer) or ()) + self._losses.forget(customer)
        mine = [alert_id for alert_id, whose in self._alerts.items() if whose == customer]
        for alert_id in mine:
            del self._alerts[alert_id]
        return {
            "line readings": lines,
            "labels": self._labels.forget(str(customer)),
            "alerts": len(mine),
            "decisions": self.chooser.forget(customer),
        }

    # Advising

    def risk(self, customer: int, at_ms: int, experience: Sequence[float]) -> ChurnRisk:
        """Return how likely a customer is to leave."""
        return self.model.score(self._relations.of(customer).features(at_ms, experience))

    def alert(
        self,
        case: Case,
        now_ms: int,
        experience: Sequence[float],
        *,
        fault_open: bool,
        failed: Watched | None = None,
        order: Order | None = None,
    ) -> Alert:
        """Write the alert for a case as it stands.

        Args:
            case: the case.
            now_ms: event time.
            experience: `EXPERIENCE`: the churn features that the customer's calls give.
            fault_open: whether the trouble goes on: nothing is sold into an open fault.
            failed: the remedy that the calls have just shown not to help.
            order: what the customer has just accepted.
        """
        relation = self._relations.of(case.customer)
        risk = self.risk(case.customer, now_ms, experience)
        self.heard(case.customer, now_ms, experience)
        self._name(case)
        situation = self._situation(case, relation, risk, now_ms, fault_open=fault_open)
        facts = CaseFacts(case.alert_id, case.customer, case.customer_id, case.attempt)
        remedies, choice = self.chooser.offer(facts, situation)
        return Alert(
            alert_id=case.alert_id,
            revision=case.revision,
            customer_id=case.customer_id,
            severity=case.severity,
            detected_ms=case.detected_ms,
            since_ms=case.since_ms,
            pattern=_pattern(case, self._zone),
            cause=situation.cause,
            incident_id=case.incident_id,
            churn=risk,
            value_at_risk_minor=value_at_risk(
                risk.probability, relation.monthly_fee_minor, relation.currency, self.chooser.assumptions
            ),
            currency=relation.currency,
            remedies=remedies,
            calls=case.evidence_calls,
            region=case.region,
            segment=relation.segment,
            value_basis=self.chooser.value_basis(risk.probability, relation.monthly_fee_minor, relation.currency),
            choice=choice,
            follow_up=_follow_up(failed, self.chooser.follow_ups.of(case.customer), case),
            order=order,
            previous_alert_id=case.previous_alert_id,
        )

    def _situation(
        self, case: Case, relation: Relation, risk: ChurnRisk, now_ms: int, *, fault_open: bool
    ) -> Situation:
        lost = self._losses.since(case.customer, now_ms - BILL_MS)
        due_by_law, by_law_minor = self._due_by_law(case, relation, lost)
        paid_by_law_minor = sum(one.paid_minor for one in lost)
        may_be_due = self._settings.business.statutory is not None and any(one.goes_on(now_ms) for one in lost)
        return Situation(
            cause=likely_cause(
                case.kind, case.dimension, shared=case.incident_id is not None, line_readings=self._line(case.customer)
            ),
            churn=risk,
            now_ms=now_ms,
            fault_open=fault_open,
            measured=Measured(
                bad_calls=case.bad,
                bad_days=len(case.bad_days),
                interrupted_ms=sum(one.until_ms - max(one.began_ms, now_ms - BILL_MS) for one in lost),
            ),
            fee_minor=relation.monthly_fee_minor,
            currency=relation.currency,
            segment=relation.segment,
            consent=None if relation.consent is None else tuple(relation.consent),
            language=relation.language,
            tried=tuple(Tried(name, at_ms, result) for at_ms, name, result in relation.remedies if name),
            failed=tuple(case.failed),
            call_ids=tuple(call.call_id for call in case.evidence_calls),
            credited_minor=max(relation.credited_minor(now_ms - BILL_MS, relation.currency) - paid_by_law_minor, 0),
            is_settled=may_be_due or any(one.alert_id == case.alert_id for one in relation.credits),
            due_by_law=due_by_law,
            by_law_minor=by_law_minor,
        )

    def _due_by_law(self, case: Case, relation: Relation, lost: list[Span]) -> tuple[Credit | None, int]:
        """Return what law or a scheme still has to pay for the losses that were reported, and all that it pays."""
        scheme, fee_minor, currency = self._settings.business.statutory, relation.monthly_fee_minor, relation.currency
        if scheme is None or fee_minor is None or currency is None:
            return None, 0
        told = [at for at, topic in relation.contacts if topic == "quality"]
        spoke = [call.end_ms for call in case.evidence_calls if call.duration_ms > 0]
        dues, left_minor = [], 0
        for one in lost:
            reported = min((at for at in told if one.began_ms <= at <= one.until_ms), default=None)
            days = [] if reported is None else days_lost(scheme, reported, one.until_ms, spoke)
            due = statutory(scheme, days, fee_minor, currency)
            if due is not None:
                dues.append(due)
                left_minor += self._losses.owed(case.customer, one, due.amount_minor)
        all_minor = sum(due.amount_minor for due in dues)
        if not left_minor:
            return None, all_minor
        basis = "; ".join(due.basis for due in dues)
        if left_minor < all_minor:
            basis += f", less {money_text(all_minor - left_minor, currency)} ordered before"
        return Credit(left_minor, currency, basis), all_minor

    def _name(self, case: Case) -> None:
        self._alerts[case.alert_id] = case.customer
        while len(self._alerts) > ALERTS_KEPT:
            self._alerts.drop_oldest()

    def _line(self, customer: int) -> LineReadings | None:
        known = self._lines.get(customer)
        if known is None:
            return None
        registered = known.get("registered")
        return LineReadings(
            snr_margin_db=known.get("snr_margin_db"),
            errored_seconds=known.get("errored_seconds"),
            retrains=known.get("retrains"),
            rx_power_dbm=known.get("rx_power_dbm"),
            utilization_ratio=known.get("utilization_ratio"),
            loss_ratio=known.get("loss_ratio"),
            registered=None if registered is None else registered >= 0.5,
        )

    # State

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest."""
        return min(self.chooser.floor, self._labels.floor, self._alerts.floor, self._lines.floor, self._losses.floor)

    def changes(self, number: int, *, whole: bool) -> dict[str, Any]:
        """Return what the checkpoint of this number has to hold."""
        return {
            "model": self.model.snapshot(),
            "chooser": self.chooser.changes(number, whole=whole),
            "labels": self._labels.changes(number, whole=whole),
            "day": self._day,
            "told_today": self._told_today,
            "deferred": self.deferred_count,
            "alerts": self._alerts.changes(number, whole=whole),
            "lines": self._lines.changes(number, whole=whole),
            "losses": self._losses.changes(number, whole=whole),
        }

    def take(self, state: dict[str, Any], number: int) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        self.model.restore(state["model"])
        self.chooser.take(state["chooser"], number)
        self._labels.take(state["labels"], number)
        self._day, self._told_today = state["day"], state["told_today"]
        self.deferred_count = state["deferred"]
        self._alerts.take(state["alerts"], number)
        self._lines.take(state["lines"], number)
        self._losses.take(state["losses"], number)

    def settle(self) -> None:
        """Make ready what was taken over.

        Raises:
            StateError: something is missing.
        """
        self.chooser.settle()
        self._labels.settle()
        self._alerts.settle()
        self._lines.settle()
        self._losses.settle()

    def reset(self) -> None:
        """Know nothing, with nothing written yet."""
        self.__init__(self._settings, self._catalogue, self._relations)  # type: ignore[misc]  # begin empty


def _follow_up(failed: Watched | None, watched: Watched | None, case: Case) -> FollowUp | None:
    """Say what is being watched of this case, or what has just failed."""
    shown = watched if failed is None else failed
    if shown is None or shown.alert_id != case.alert_id:
        return None
    return FollowUp(shown.remedy_id, shown.begun_ms, shown.due_ms, "watching" if failed is None else "failed")


def _pattern(case: Case, zone: LocalTime) -> Pattern:
    ratio = case.bad / case.trials if case.trials else 0.0
    return Pattern(
        kind=case.kind,
        text=sentence(case, zone),
        attempts=case.attempts,
        answered=case.answered,
        drops=case.bad,
        drop_ratio=round(ratio, 4),
        baseline_ratio=round(case.baseline_ratio, 4),
        evidence=round(case.evidence_log10, 2),
        dimension=case.dimension,
    )


_SENTENCES: dict[str, str] = {
    "one_way_audio": "On {bad} of your last {calls} since {day} only one side could be heard.",
    "setup_failure": "{bad} of your last {attempts} since {day} did not get through.",
    "quality": "{bad} of your last {calls} since {day} had poor sound.",
    "redial": "{bad} of your last {calls} since {day} had to be made again at once.",
}
_CUT_OFF = "{bad} of your last {calls} since {day} {were} cut off{phrase}."


def sentence(case: Case, zone: LocalTime) -> str:
    """Say what is wrong in one sentence that can be read aloud; its numbers are the pattern's fields."""
    return _SENTENCES.get(case.kind, _CUT_OFF).format(
        bad=case.bad,
        calls=f"{case.trials} call{'s' if case.trials != 1 else ''}",
        attempts=f"{case.trials} call attempt{'s' if case.trials != 1 else ''}",
        were="was" if case.bad == 1 else "were",
        day=zone.day(case.since_ms),
        phrase=f", {case.phrase}" if case.phrase else "",
    )
