"""What needs no state: a batch's columns made into those of the hot loop."""

import numpy as np

from detectors.advice import Advisor
from detectors.emodel import ratings
from detectors.memory import Memory
from detectors.release import CallEnds, classify
from detectors.watch.world import Calls, Media
from schemas.columns import CallColumns, LinkColumns, MediaColumns
from schemas.events import Business
from schemas.text import TextColumn


def calls_of(columns: CallColumns, memory: Memory) -> Calls:
    """Compute release, R-factor, keys and element serials of each call."""
    ends = classify(CallEnds.of(columns))
    return Calls(
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
        rating=ratings(columns),
        codec=memory.codecs.translation.of(columns.codec).astype(np.int16),
        direction=columns.direction,
        elements=memory.elements.serials_of(columns),
    )


def media_of(reports: MediaColumns) -> Media:
    """Compute R-factor and keys of each media report."""
    return Media(
        customer=reports.customer_id.keys(),
        call=reports.call_id.keys(),
        at_ms=reports.at_ms,
        rating=ratings(reports),
    )


def whose(business: list[tuple[int, Business]]) -> list[int]:
    """Return the customer's key of each rare event; 0 where it is about no customer."""
    ids = [getattr(event, "customer_id", None) for _, event in business]
    return TextColumn.of(ids).keys().tolist() if ids else []


class LineReadings:
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
        self._at_ms = links.at_ms[own].tolist()
        self._at = 0

    def read_up_to(self, position: int) -> None:
        """Take over the readings that arrived before a position."""
        while self._at < len(self._positions) and self._positions[self._at] < position:
            metric = self._metrics[self._at]
            if metric is not None:
                at = self._at
                self._advisor.read_line(self._customers[at], metric, self._values[at], self._at_ms[at])
            self._at += 1
