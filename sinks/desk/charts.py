"""Where the marks of the desk's pictures stand.

Across, places are in percent of the picture's width; down, in pixels. So pictures fill any width, and their words and
marks keep their size. Everything is drawn with attributes: the pages have no inline style.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from msgspec import Struct

from schemas.alerts import Alert, CallEvidence, Incident, Severity
from sinks.desk.cards import SEVERITIES, Revision
from sinks.desk.words import ENDINGS

EDGE_PERCENT = 3.0
"""Free space at both ends, so that no mark is cut."""

APART_PERCENT = 6.5
"""Marks nearer than this to each other are stacked; as wide as a mark on the narrowest screen."""

ROW_HEIGHT = 20
"""Pixels between stacked marks."""

TREND_HEIGHT = 72

MOS_HEIGHT = 84

MOS_WORDS_PERCENT = 10.0
"""Room at the left for the words of the bands."""

MOS_STEPS: Final = (4.03, 3.6, 3.1)
"""Above the first users are satisfied, below the second some are not, below the third many are not (ITU-T G.107, Annex
B, at R of 80, 70 and 60)."""

BARS_HEIGHT = 56


class Mark(Struct, frozen=True):
    """One call in a picture.

    Attributes:
        x: place by time.
        y: pixels from the top.
        length: duration in percent of the longest call's.
        sign: which mark it gets.
    """

    call: CallEvidence
    x: str
    y: int
    length: str
    sign: str


class Timeline(Struct, frozen=True):
    """All marks, oldest first; `base` is the y of the axis, `height` that of the picture."""

    marks: list[Mark]
    base: int
    height: int

    @property
    def signs(self) -> dict[str, str]:
        """Each way to end that occurs, with its sign: the legend."""
        return {mark.call.outcome: mark.sign for mark in self.marks}


def calls_of(alert: Alert) -> list[CallEvidence]:
    """Return what an alert knows of single calls: those that show the trouble, and those that were fine meanwhile."""
    fine = [CallEvidence("", one.end_ms, "normal", one.duration_ms, one.mos) for one in alert.good_calls]
    return [*alert.calls, *fine]


def timeline(calls: Sequence[CallEvidence]) -> Timeline:
    """Place calls along a line by when they ended, stacking those that would cover each other."""
    calls = sorted(calls, key=lambda call: (call.end_ms, call.call_id))
    places = [_place(call.end_ms, calls[0].end_ms, calls[-1].end_ms) for call in calls]
    rows = _rows(places)
    base = ROW_HEIGHT * (max(rows, default=0) + 1) + 4
    longest_ms = max((call.duration_ms for call in calls), default=0)
    marks = []
    for call, x, row in zip(calls, places, rows, strict=True):
        length = 100.0 * call.duration_ms / longest_ms if longest_ms > 0 else 0.0
        sign = ENDINGS.get(call.outcome, "fine")
        marks.append(Mark(call, f"{x:.2f}%", base - 12 - ROW_HEIGHT * row, f"{length:.1f}%", sign))
    return Timeline(marks, base, base + 8)


def _place(at_ms: int, first_ms: int, last_ms: int) -> float:
    if last_ms <= first_ms:
        return 50.0
    return EDGE_PERCENT + (100.0 - 2.0 * EDGE_PERCENT) * (at_ms - first_ms) / (last_ms - first_ms)


def _rows(places: Sequence[float]) -> list[int]:
    """Give each mark the lowest row whose last mark is far enough away."""
    ends: list[float] = []
    rows = []
    for x in places:
        row = next((row for row, end in enumerate(ends) if x - end >= APART_PERCENT), len(ends))
        ends[row : row + 1] = [x]
        rows.append(row)
    return rows


class Dot(Struct, frozen=True):
    """A value at a time: `at_ms`, the value itself, and where it stands."""

    at_ms: int
    value: float
    x: str
    y: float


class Step(Struct, frozen=True):
    """A line between two dots."""

    x1: str
    y1: float
    x2: str
    y2: float


class Trend(Struct, frozen=True):
    """How a share moved from revision to revision, against the usual one.

    Attributes:
        dots: oldest first.
        steps: the lines between them.
        usual: the same lines of what is usual.
    """

    dots: list[Dot]
    steps: list[Step]
    usual: list[Step]
    height: int


def trend(
    revisions: Sequence[Revision], value: Callable[[Revision], float], usual: Callable[[Revision], float]
) -> Trend:
    """Draw a share and its usual value over a case's revisions, given newest first."""
    told = sorted(revisions, key=lambda one: (one.time_ms, one.alert.revision))
    top = max((max(value(one), usual(one)) for one in told), default=0.0) or 1.0
    dots, before = _dots(told, value, top), _dots(told, usual, top)
    if len(told) == 1:
        # One point has no line: the usual value crosses the whole picture.
        across = [Step("0%", before[0].y, "100%", before[0].y)]
        return Trend(dots, [], across, TREND_HEIGHT)
    return Trend(dots, _steps(dots), _steps(before), TREND_HEIGHT)


def _dots(told: Sequence[Revision], value: Callable[[Revision], float], top: float) -> list[Dot]:
    dots = []
    for one in told:
        x = _place(one.time_ms, told[0].time_ms, told[-1].time_ms)
        y = 8 + (TREND_HEIGHT - 16) * (1.0 - value(one) / top)
        dots.append(Dot(one.time_ms, value(one), f"{x:.2f}%", round(y, 1)))
    return dots


def _steps(dots: Sequence[Dot]) -> list[Step]:
    return [Step(a.x, a.y, b.x, b.y) for a, b in pairwise(dots)]


class Quality(Struct, frozen=True):
    """Sound quality of calls, MOS 1 to 5; `bands` are the y of `MOS_STEPS`; `mean` of what is known."""

    dots: list[Dot]
    bands: list[float]
    mean: float
    height: int


def quality(calls: Sequence[CallEvidence]) -> Quality | None:
    """Place the MOS of the calls that have one; None if none has."""
    rated = sorted((call.end_ms, call.mos) for call in calls if call.mos is not None)
    if not rated:
        return None
    room = 1.0 - MOS_WORDS_PERCENT / 100.0
    places = [MOS_WORDS_PERCENT + room * _place(at, rated[0][0], rated[-1][0]) for at, _ in rated]
    dots = [Dot(at, mos, f"{x:.2f}%", _mos_y(mos)) for (at, mos), x in zip(rated, places, strict=True)]
    mean = sum(mos for _, mos in rated) / len(rated)
    return Quality(dots, [_mos_y(step) for step in MOS_STEPS], mean, MOS_HEIGHT)


def _mos_y(mos: float) -> float:
    return round(6 + (MOS_HEIGHT - 12) * (5.0 - min(max(mos, 1.0), 5.0)) / 4.0, 1)


class Pull(Struct, frozen=True):
    """What one driver adds to the log-odds of leaving: a bar from the middle, to the right if it raises them."""

    x: str
    width: str


def pull(effect: float, largest: float) -> Pull:
    """Draw a driver's effect beside the largest one."""
    width = 50.0 * abs(effect) / (largest or 1.0)
    return Pull(f"{50.0 if effect > 0 else 50.0 - width:.1f}%", f"{width:.1f}%")


class Bar(Struct, frozen=True):
    """A part of a column: cases of one severity in one step of time."""

    severity: Severity
    x: str
    width: str
    y: float
    height: float


class Bars(Struct, frozen=True):
    """Columns over time: from `begin_ms` to `end_ms`; `most` stands in the highest one."""

    bars: list[Bar]
    begin_ms: int
    end_ms: int
    most: int
    height: int


def bars(counts: Mapping[tuple[int, Severity], int], begin_ms: int, step_ms: int, steps: int) -> Bars:
    """Stack counts by step and severity, the worst at the bottom."""
    totals = [sum(counts.get((step, severity), 0) for severity in SEVERITIES) for step in range(steps)]
    most = max(totals, default=0)
    width = 100.0 / steps
    found = []
    for step in range(steps):
        y = float(BARS_HEIGHT)
        for severity in reversed(SEVERITIES):
            number = counts.get((step, severity), 0)
            if number:
                height = (BARS_HEIGHT - 2) * number / most
                y -= height
                x = f"{step * width + 0.1 * width:.2f}%"
                found.append(Bar(severity, x, f"{0.8 * width:.2f}%", round(y, 1), round(height, 1)))
    return Bars(found, begin_ms, begin_ms + steps * step_ms, most, BARS_HEIGHT)


class Span(Struct, frozen=True):
    """An incident along a line of time; `goes_on`: to its end and beyond."""

    incident: Incident
    x: str
    width: str
    goes_on: bool


def spans(incidents: Sequence[Incident], begin_ms: int, end_ms: int) -> list[Span]:
    """Place incidents between two times; those outside are left out."""
    found = []
    for one in incidents:
        until_ms = end_ms if one.cleared_ms is None else one.cleared_ms
        if until_ms <= begin_ms or one.since_ms >= end_ms:
            continue
        x = 100.0 * (max(one.since_ms, begin_ms) - begin_ms) / (end_ms - begin_ms)
        width = max(100.0 * (min(until_ms, end_ms) - begin_ms) / (end_ms - begin_ms) - x, 0.6)
        found.append(Span(one, f"{x:.2f}%", f"{width:.2f}%", one.cleared_ms is None))
    return found


def scale(*ratios: float) -> Callable[[float], str]:
    """Return a function from a ratio to a bar's width, such that the largest one fills the room."""
    largest = max(*ratios, 0.01)
    return lambda ratio: f"{100.0 * min(ratio / largest, 1.0):.1f}%"
