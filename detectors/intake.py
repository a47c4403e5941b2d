"""What needs no state: a batch's columns made into those of the hot loop."""

from bisect import bisect_left
from itertools import islice

import numpy as np

from detectors.advice import Advisor
from detectors.emodel import ratings
from detectors.lines import METRICS
from detectors.memory import Memory
from detectors.release import CallEnds, classify
from detectors.watch.world import APPLIED, FELT, Calls, Links, Media, News
from schemas.columns import CallColumns, LinkColumns, MediaColumns, take
from schemas.events import Contact, Profile, Usage
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
        rating=ratings(columns, memory.codecs.kinds.of(columns.codec)),
        codec=memory.codecs.translation.of(columns.codec).astype(np.int16),
        direction=columns.direction,
        elements=memory.elements.serials_of(columns),
    )


def media_of(reports: MediaColumns, memory: Memory) -> Media:
    """Compute R-factor and keys of each media report."""
    return Media(
        customer=reports.customer_id.keys(),
        call=reports.call_id.keys(),
        at_ms=reports.at_ms,
        rating=ratings(reports, memory.codecs.kinds.of(reports.codec)),
    )


def news_of(events: list[Profile | Usage | Contact]) -> News:
    """Return keys and times of what the business said of customers, with room for what the loop hands back."""
    return News(
        customer=TextColumn.of([event.customer_id for event in events]).keys(),
        at_ms=np.array([event.at_ms for event in events], np.int64),
        fate=np.full(len(events), APPLIED, np.int8),
        felt=np.empty((len(events), len(FELT))),
    )


def own_lines(readings: LinkColumns) -> LinkColumns:
    """Return the readings of customers' own lines: one of an element that serves many is nobody's line."""
    return take(readings, np.flatnonzero((readings.customer_id.size > 0) & (readings.metric.codes >= 0)))


def links_of(readings: LinkColumns) -> Links:
    """Return what the loop sees of readings, all of customers' own lines."""
    numbers = np.array([METRICS.index(word) if word in METRICS else -1 for word in readings.metric.values], np.int8)
    return Links(
        customer=readings.customer_id.keys(),
        at_ms=readings.at_ms,
        metric=numbers[readings.metric.codes],
        value=readings.value,
    )


class LineReadings:
    """The telemetry of customers' own lines in a batch, read as far as somebody needs it: when a case is told."""

    def __init__(self, readings: LinkColumns, links: Links, advisor: Advisor) -> None:
        self._advisor = advisor
        self._positions = readings.position.tolist()
        self._readings = zip(
            links.customer.tolist(),
            map(readings.metric.values.__getitem__, readings.metric.codes.tolist()),
            links.value.tolist(),
            links.at_ms.tolist(),
            strict=True,
        )
        self._read = 0

    def read_up_to(self, position: int) -> None:
        """Take over the readings that arrived before a position."""
        arrived = bisect_left(self._positions, position, self._read)
        self._advisor.read_lines(islice(self._readings, arrived - self._read))
        self._read = arrived
