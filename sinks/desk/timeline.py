"""The calls of a case, laid out for the small chart: where each mark stands, and how long each bar is."""

from collections.abc import Sequence

from msgspec import Struct

from schemas.alerts import CallEvidence
from sinks.desk.words import ENDINGS, plain

EDGE_PERCENT = 3.0
"""Free space at both ends, so that no mark is cut."""

APART_PERCENT = 6.5
"""Marks nearer than this to each other are stacked; as wide as a mark on the narrowest screen."""

ROW_HEIGHT = 20
"""Pixels between stacked marks."""


class Mark(Struct, frozen=True):
    """One call in the chart.

    Attributes:
        x: place in percent of the width, by time.
        y: pixels from the top.
        length: duration in percent of the longest call's.
        ending: how it ended, in words.
        sign: which mark it gets.
    """

    call: CallEvidence
    x: str
    y: int
    length: str
    ending: str
    sign: str


class Timeline(Struct, frozen=True):
    """All marks, oldest first; `base` is the y of the axis, `height` that of the chart, in pixels."""

    marks: list[Mark]
    base: int
    height: int

    @property
    def signs(self) -> list[tuple[str, str]]:
        """Each sign that occurs with its words, for the legend."""
        return list({mark.ending: (mark.sign, mark.ending) for mark in self.marks}.values())


def lay_out(calls: Sequence[CallEvidence]) -> Timeline:
    """Place calls along a line by when they ended, stacking those that would cover each other."""
    calls = sorted(calls, key=lambda call: (call.end_ms, call.call_id))
    places = [(_place(call.end_ms, calls[0].end_ms, calls[-1].end_ms)) for call in calls]
    rows = _rows(places)
    base = ROW_HEIGHT * (max(rows, default=0) + 1) + 4
    longest_ms = max((call.duration_ms for call in calls), default=0)
    marks = []
    for call, x, row in zip(calls, places, rows, strict=True):
        ending, sign = ENDINGS.get(call.outcome, (plain(call.outcome), "fine"))
        length = 100.0 * call.duration_ms / longest_ms if longest_ms > 0 else 0.0
        marks.append(Mark(call, f"{x:.2f}%", base - 12 - ROW_HEIGHT * row, f"{length:.1f}%", ending, sign))
    return Timeline(marks, base, base + 8)


def _place(end_ms: int, first_ms: int, last_ms: int) -> float:
    if last_ms == first_ms:
        return 50.0
    return EDGE_PERCENT + (100.0 - 2.0 * EDGE_PERCENT) * (end_ms - first_ms) / (last_ms - first_ms)


def _rows(places: Sequence[float]) -> list[int]:
    """Give each mark the lowest row whose last mark is far enough away."""
    ends: list[float] = []
    rows = []
    for x in places:
        row = next((row for row, end in enumerate(ends) if x - end >= APART_PERCENT), len(ends))
        ends[row : row + 1] = [x]
        rows.append(row)
    return rows
