"""The one face that dataflows use: events in, notifications out, state that can be kept and taken over.

    engine = RiskEngine(settings, catalogue)
    for batch in batches:
        notifications = engine.apply(batch)

The same events in the same order give the same notifications, whatever the batches they come in.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from msgspec import Struct

from detectors.casework import Casework
from detectors.experience import weighed
from detectors.forgetting import forget
from detectors.history import ELEMENTS
from detectors.incidents import OpenIncident
from detectors.intake import LineReadings, calls_of, links_of, media_of, news_of, own_lines
from detectors.memory import Memory
from detectors.patterns import space
from detectors.remedies.catalogue import Catalogue
from detectors.settings import Settings
from detectors.standing import Standing, standing
from detectors.watch.loop import advance, merge_order
from detectors.watch.world import (
    APPLIED,
    FUTURE_MS,
    K_CALL,
    LATE,
    STOP_CASE,
    STOP_CUSTOMERS,
    STOP_DUE,
    STOP_ELEMENT,
    STOP_LOOK,
    STOP_OTHER,
    STOP_SHELVES,
    Calls,
    Limits,
    Links,
    Media,
    News,
    Scratch,
)
from schemas.alerts import Notification
from schemas.columns import EventBatch
from schemas.errors import StateError
from schemas.events import Business, Churn, Contact, KnownIncident, Profile, Usage
from schemas.events import Outcome as OutcomeEvent
from schemas.text import I8, I16, I32, I64, U64, key_of

LAYOUT = 9
"""The layout of the state; another one is refused."""

NEVER_MS = 2**62

LOOK_PART = 1e-3
"""A bad call gets the careful look from this part of the promised healthy days on: structure adds the rest."""

ROUNDING_LOG10 = 1e-9
"""So close to the threshold the loop leaves it to the look whether it is reached."""

ELEMENT_DAYS = 1e5
"""Healthy days of one element between two false incidents: a network of a thousand elements has one in three years."""

DAY_MS = 86_400_000

RARE = frozenset({Churn, OutcomeEvent, KnownIncident})
"""What the loop stops for."""


class Counts(Struct):
    """What became of the records: the four add up to what was read."""

    applied: int = 0
    duplicate: int = 0
    late: int = 0
    dead_lettered: int = 0


@dataclass(slots=True)
class _Now:
    """The batch that is being applied.

    Attributes:
        kind, index, position: of all events, in order of arrival (`merge_order`).
        said: the events of `news`, which are taken over when the loop stops next.
        heard: so many of them were taken over.
        others: what the loop leaves alone.
    """

    batch: EventBatch
    kind: I8
    index: I32
    position: I64
    calls: Calls
    media: Media
    news: News
    links: Links
    said: list[Profile | Usage | Contact]
    others: list[Business]
    lines: LineReadings
    scratch: Scratch
    heard: int = 0

    @classmethod
    def of(cls, batch: EventBatch, memory: Memory) -> Self:
        """Make a batch's columns into those of the hot loop."""
        said_at, said, others_at, others = _parted(batch.business)
        calls = calls_of(batch.calls, memory)
        readings = own_lines(batch.links)
        links = links_of(readings)
        return cls(
            batch,
            *merge_order(batch.calls.position, batch.media.position, said_at, others_at, readings.position),
            calls=calls,
            media=media_of(batch.media, memory),
            news=news_of(said),
            links=links,
            said=said,
            others=others,
            lines=LineReadings(readings, links, memory.advisor),
            scratch=_scratch(len(calls.customer), memory.zone.ahead_min),
        )

    def time_ms(self, at: int) -> int:
        """Return the event time of a call or a piece of news."""
        times_ms = self.calls.end_ms if self.kind[at] == K_CALL else self.news.at_ms
        return int(times_ms[self.index[at]])


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
        now = _Now.of(batch, self.memory)
        at, stop = self._advance(now, 0)
        while stop:
            # In front of an event, or behind the one that asks for a look.
            of = at - (stop >= STOP_LOOK)
            now.lines.read_up_to(int(now.position[of]))
            if stop & STOP_DUE:
                self._pass_time(now.time_ms(at))
            elif stop & STOP_CUSTOMERS:
                self.memory.make_room(self.clock_ms)
            elif stop & STOP_SHELVES:
                self.memory.make_shelf_room()
            elif stop & STOP_OTHER:
                now.scratch.counts[self._take(now.others[now.index[at]])] += 1
                at += 1
            else:
                self._look(now, int(now.index[of]), stop)
            at, stop = self._advance(now, at)
        now.lines.read_up_to(NEVER_MS)
        applied, duplicate, late = now.scratch.counts.tolist()
        self.counts.applied += applied + len(batch.media) + len(batch.links)
        self.counts.duplicate += duplicate
        self.counts.late += late
        self.counts.dead_lettered += len(batch.rejects)
        return self.casework.told()

    def _advance(self, now: _Now, at: int) -> tuple[int, int]:
        """Let the loop go on at an event, and take over what it hands back; return what it returns."""
        memory, scratch = self.memory, now.scratch
        scratch.clock[:] = self.clock_ms, memory.next_due_ms(NEVER_MS)
        scratch.tally[:] = 0
        at, stop = advance(
            at, now.kind, now.index, now.calls, now.media, now.news, now.links, memory.world(), self._limits, scratch
        )
        self.clock_ms = int(scratch.clock[0])
        named, _, heard = scratch.tally.tolist()
        if named:
            self._name_calls(now, named)
        if heard:
            self._learn_news(now, now.heard + heard)
        return at, stop

    def finish(self) -> list[Notification]:
        """Take every decision that still waits: there will be no more events."""
        self.casework.finish()
        return self.casework.told()

    def _name_calls(self, now: _Now, count: int) -> None:
        calls, histories, places = now.scratch.named[:count].T
        self.memory.histories.name_calls(histories.tolist(), places.tolist(), now.batch.calls.call_id.texts(calls))

    def _learn_news(self, now: _Now, until: int) -> None:
        """Take over what the loop has passed of what the business said."""
        passed = slice(now.heard, until)
        now.heard = until
        advisor, relations, cases = self.memory.advisor, self.memory.relations, self.memory.casebook.cases
        news = now.news
        columns = news.customer[passed].tolist(), news.fate[passed].tolist(), weighed(news.felt[passed])
        for event, customer, fate, felt in zip(now.said[passed], *columns, strict=True):
            if fate == APPLIED:
                relations.learn(customer, event)
                advisor.heard(customer, event.at_ms, [*felt, float(customer in cases)])

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
        for incident in self.memory.incidents.faded(now_ms):
            self._end_incident(incident.element)
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

    def _take(self, event: Business) -> int:
        """Apply a rare event; return APPLIED, or LATE for one out of time."""
        if 0 <= self.clock_ms < event.at_ms - FUTURE_MS:
            return LATE
        if event.at_ms >= self.memory.next_due_ms(NEVER_MS):
            self._pass_time(event.at_ms)
        self.clock_ms = max(self.clock_ms, event.at_ms)
        self._learn_of(event)
        return APPLIED

    def _learn_of(self, event: Business) -> None:
        if isinstance(event, KnownIncident):
            incident = self.memory.incidents.told(event)
            if incident is not None:
                self._absolve(self.memory.incidents.customers_inside(incident), incident)
        elif isinstance(event, OutcomeEvent):
            self.casework.report(event)
        elif isinstance(event, Churn):
            self.memory.advisor.left(key_of(event.customer_id), event.at_ms)

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


def _parted(business: list[tuple[int, Business]]) -> tuple[I64, list[Profile | Usage | Contact], I64, list[Business]]:
    """Return the positions and events of what the loop passes by itself, and those of the others."""
    places: tuple[list[int], list[int]] = [], []
    events: tuple[list[Any], list[Any]] = [], []
    for at, event in business:
        is_rare = type(event) in RARE
        places[is_rare].append(at)
        events[is_rare].append(event)
    return np.array(places[0], np.int64), events[0], np.array(places[1], np.int64), events[1]


def _scratch(size: int, ahead_min: I16) -> Scratch:
    return Scratch(
        clock=np.zeros(2, np.int64),
        counts=np.zeros(3, np.int64),
        named=np.zeros((size, 3), np.int64),
        tally=np.zeros(3, np.int64),
        alarms=np.zeros(len(ELEMENTS), np.int32),
        fate=np.full(size, APPLIED, np.int8),
        kept=space(ahead_min),
    )
