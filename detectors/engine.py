"""The one face that dataflows use: events in, notifications out, state that can be kept and taken over.

    engine = RiskEngine(settings, catalogue)
    for batch in batches:
        notifications = engine.apply(batch)

The same events in the same order give the same notifications, whatever the batches they come in.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import Struct

from detectors.casework import Casework
from detectors.experience import experience
from detectors.forgetting import forget
from detectors.history import ELEMENTS
from detectors.incidents import OpenIncident
from detectors.intake import LineReadings, calls_of, media_of, whose
from detectors.memory import Memory
from detectors.patterns import space
from detectors.remedies.catalogue import Catalogue
from detectors.settings import Settings
from detectors.standing import Standing, standing
from detectors.watch.loop import FUTURE_MS, advance, merge_order
from detectors.watch.world import (
    APPLIED,
    K_OTHER,
    LATE,
    STOP_CASE,
    STOP_CUSTOMERS,
    STOP_DUE,
    STOP_ELEMENT,
    STOP_LOOK,
    STOP_SHELVES,
    Calls,
    Limits,
    Scratch,
    World,
)
from schemas.alerts import Notification
from schemas.columns import EventBatch
from schemas.errors import StateError
from schemas.events import Business, Churn, Contact, KnownIncident, Profile, Usage
from schemas.events import Outcome as OutcomeEvent
from schemas.text import U64

LAYOUT = 5
"""The layout of the state; another one is refused."""

NEVER_MS = 2**62

LOOK_PART = 1e-3
"""A bad call gets the careful look from this part of the promised healthy days on: structure adds the rest."""

ROUNDING_LOG10 = 1e-9
"""So close to the threshold the loop leaves it to the look whether it is reached."""

ELEMENT_DAYS = 1e5
"""Healthy days of one element between two false incidents: a network of a thousand elements has one in three years."""

DAY_MS = 86_400_000


class Counts(Struct):
    """What became of the records: the four add up to what was read."""

    applied: int = 0
    duplicate: int = 0
    late: int = 0
    dead_lettered: int = 0


@dataclass(frozen=True, slots=True)
class _Now:
    """The batch that is being applied, as its slow parts need it."""

    batch: EventBatch
    calls: Calls
    scratch: Scratch
    lines: LineReadings


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
        self.memory = Memory(settings, catalogue)
        self.casework = Casework(self.memory)
        self.clock_ms = -1
        self._limits = Limits(
            lateness_ms=settings.lateness_s * 1000,
            look_days=settings.false_alarm_days * LOOK_PART,
            open_log10=math.log10(settings.false_alarm_days) - ROUNDING_LOG10,
            element_days=ELEMENT_DAYS,
        )

    # Applying

    def apply(self, batch: EventBatch) -> list[Notification]:
        """Apply the events of a batch, in order of arrival; return what has to be told, in order."""
        memory = self.memory
        calls, media = calls_of(batch.calls, memory), media_of(batch.media)
        business = batch.business
        kind, index, position = merge_order(
            batch.calls.position, batch.media.position, np.array([at for at, _ in business], np.int64)
        )
        scratch = _scratch(len(calls.customer))
        now = _Now(batch, calls, scratch, LineReadings(batch.links, self.memory.advisor))
        rare = iter(zip(business, whose(business), strict=True))
        at = 0
        while at < len(kind):
            if kind[at] == K_OTHER:
                (place, event), customer = next(rare)
                now.lines.read_up_to(place)
                scratch.counts[self._take(event, customer)] += 1
                at += 1
                continue
            scratch.clock[:] = self.clock_ms, self.memory.next_due_ms(NEVER_MS)
            scratch.tally[:] = 0
            world = World(memory.roster.book, memory.notes.shelf, memory.histories.shelf, memory.elements.network)
            at, stop = advance(at, kind, index, calls, media, world, self._limits, scratch)
            self.clock_ms = int(scratch.clock[0])
            self._name_calls(now)
            if stop == 0:
                break
            if stop & STOP_DUE:
                self._pass_time(int(calls.end_ms[index[at]]))
            elif stop & STOP_CUSTOMERS:
                self.memory.make_room(self.clock_ms)
            elif stop & STOP_SHELVES:
                self.memory.make_shelf_room()
            elif stop & (STOP_LOOK | STOP_CASE | STOP_ELEMENT):
                now.lines.read_up_to(int(position[at - 1]))
                self._look(now, int(index[at - 1]), stop)
        now.lines.read_up_to(NEVER_MS)
        self.counts.duplicate += int(scratch.counts[1])
        self.counts.late += int(scratch.counts[2])
        self.counts.dead_lettered += len(batch.rejects)
        self.counts.applied += int(scratch.counts[0]) + len(batch.media) + len(batch.links)
        return self.casework.told()

    def finish(self) -> list[Notification]:
        """Take every decision that still waits: there will be no more events."""
        self.casework.finish()
        return self.casework.told()

    def _name_calls(self, now: _Now) -> None:
        kept = int(now.scratch.tally[0])
        for call, history, place in now.scratch.named[:kept].tolist() if kept else ():
            self.memory.histories.name_call(history, place, now.batch.calls.call_id[call])

    def _look(self, now: _Now, call: int, stop: int) -> None:
        """Look carefully behind one call: at its elements first, then at its customer."""
        if stop & STOP_ELEMENT:
            self._look_at_elements(now.scratch.alarms[: now.scratch.tally[1]].tolist())
        key, end_ms = int(now.calls.customer[call]), int(now.calls.end_ms[call])
        row = self.memory.roster.find(key)
        case = self.memory.casebook.cases.get(key)
        if stop & STOP_CASE and case is not None:
            kept = int(now.scratch.tally[0])
            bad = kept > 0 and int(now.scratch.named[kept - 1, 0]) == call
            self.casework.follow(case, row, end_ms, bad=bad)
        elif stop & STOP_LOOK:
            self.casework.look(row, now.batch.calls.customer_id[call], end_ms)

    def _pass_time(self, now_ms: int) -> None:
        """Take the decisions that are due before the next event is applied."""
        self.casework.pass_time(now_ms)
        self.memory.incidents.forget_closed(now_ms - 2 * DAY_MS)

    # Incidents

    def _look_at_elements(self, alarms: list[int]) -> None:
        elements = self.memory.elements.network.elements
        # What the alarm was about is decided now: a look at one element may open an incident on another.
        over = [element for element in alarms if elements[element]["incident"] > 0]
        for element in over:
            self._end_incident(element)
        for element in alarms:
            if element not in over:
                self._look_at_element(element)

    def _end_incident(self, element: int) -> None:
        incidents = self.memory.incidents
        incident = incidents.open[int(self.memory.elements.network.elements[element]["incident"])]
        if not incident.known:
            incident.revision += 1
            self.casework.send("stayline.incident.cleared", self.clock_ms, incidents.report(incident, self.clock_ms))
        incidents.stop(incident, self.clock_ms)

    def _look_at_element(self, element: int) -> None:
        incidents = self.memory.incidents
        if self.memory.elements.network.elements[element]["incident"] > 0 or not self.settings.finds_incidents:
            return
        blame = incidents.blame(element)
        if blame is not None:
            incident = incidents.start(blame, self.clock_ms)
            self._absolve(np.unique(blame.log["key"]), incident)
            self.casework.send("stayline.incident.opened", self.clock_ms, incidents.report(incident, None))

    def _absolve(self, customers: U64, incident: OpenIncident) -> None:
        """Take the outage's calls off the customers who had them: it is not held against them."""
        for key in customers.tolist():
            row = self.memory.roster.find(int(key))
            if row < 0:
                continue
            self.memory.note(row)["incident"] = incident.serial
            self.casework.absolve(row, incident)
        self.memory.elements.network.elements[incident.element]["customers"] = len(customers)

    # Rare events

    def _take(self, event: Business, customer: int) -> int:
        """Apply a rare event; return APPLIED, or LATE for one out of time."""
        if 0 <= self.clock_ms < event.at_ms - FUTURE_MS:
            return LATE
        if event.at_ms >= self.memory.next_due_ms(NEVER_MS):
            self._pass_time(event.at_ms)
        self.clock_ms = max(self.clock_ms, event.at_ms)
        self._learn_of(event, customer)
        return APPLIED

    def _learn_of(self, event: Business, customer: int) -> None:
        memory = self.memory
        if isinstance(event, Profile):
            memory.relations.profile(customer, event)
        elif isinstance(event, Usage):
            memory.relations.usage(customer, event)
        elif isinstance(event, Contact):
            memory.relations.contact(customer, event)
        elif isinstance(event, KnownIncident):
            incident = memory.incidents.told(event)
            if incident is not None:
                self._absolve(memory.incidents.customers_inside(incident), incident)
        elif isinstance(event, OutcomeEvent):
            self.casework.report(event)
        elif isinstance(event, Churn):
            memory.advisor.left(customer, event.at_ms)
        if isinstance(event, Profile | Usage | Contact):
            memory.advisor.remember(customer, event.at_ms, lambda one: experience(memory, one, event.at_ms))

    # One customer

    def standing(self, customer_id: str) -> Standing | None:
        """Return how a customer stands; None for one who has not called."""
        return standing(self.memory, customer_id, self.clock_ms)

    def forget(self, customer_id: str) -> dict[str, int]:
        """Erase what is known of one customer; return how much of each sort there was, what there was none of left out.

        A customer who calls again is a new one.
        """
        return forget(self.memory, customer_id)

    # State

    def gather(self) -> None:
        """Copy ahead for the next checkpoint what is many by now, so that less is left for `changes`."""
        self.memory.gather()

    def changes(self, number: int) -> dict[str, Any]:
        """Return what a checkpoint has to hold, as plain values (numbers, strings, bytes): a copy.

        Together with those from `floor` on it is the whole state. If the one before it did not come from here either,
        it is so by itself.

        Args:
            number: of the checkpoint, one more than that of the one before it.
        """
        return {
            "layout": LAYOUT,
            "deployment": self.settings.deployment,
            "clock_ms": self.clock_ms,
            "counts": [self.counts.applied, self.counts.duplicate, self.counts.late, self.counts.dead_lettered],
            **self.memory.changes(number),
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the whole state by itself, of no checkpoint."""
        self.memory.write_whole()
        state = self.changes(0)
        self.memory.write_whole()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `snapshot` gave.

        Raises:
            StateError: if it is of another layout or of another deployment, or not whole.
        """
        self.resume([state])

    def resume(self, states: Iterable[dict[str, Any]]) -> None:
        """Take over what `changes` gave.

        Args:
            states: those from the `floor` of the last one on, in order.

        Raises:
            StateError: if one is of another layout or of another deployment, or they are not the whole state.
        """
        self.memory.reset()
        for state in states:
            if state.get("layout") != LAYOUT:
                raise StateError(f"state must be of layout {LAYOUT}, was {state.get('layout')}")
            if state["deployment"] != self.settings.deployment:
                raise StateError(
                    f"state must belong to deployment {self.settings.deployment}, was of {state['deployment']}"
                )
            self.clock_ms = state["clock_ms"]
            self.counts = Counts(*state["counts"])
            self.memory.take(state)
        self.memory.settle()


def _scratch(size: int) -> Scratch:
    return Scratch(
        clock=np.zeros(2, np.int64),
        counts=np.zeros(3, np.int64),
        named=np.zeros((size, 3), np.int64),
        tally=np.zeros(2, np.int64),
        alarms=np.zeros(len(ELEMENTS), np.int32),
        fate=np.full(size, APPLIED, np.int8),
        kept=space(),
    )
