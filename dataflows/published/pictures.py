"""The pictures of `docs/concepts.md`, as SVG: readable on light and dark ground alike."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from detectors.evidence import LEAP, RISES, likelihood_ratio

STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#333}.s{font-size:11px}"
    ".b{fill:none;stroke:#3b82c4;stroke-width:1.5}"
    ".l{fill:none;stroke:#888;stroke-width:1.5}.h{fill:#888}.e{fill:none;stroke:#3b82c4;stroke-width:2}"
    ".r{stroke:#c4524a;stroke-dasharray:6 4}.d{fill:#c4524a}.c{fill:#3b82c4}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>"
)

HEAD = (
    '<marker id="h" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path class="h" d="M0 0L8 4L0 8z"/></marker>'
)

HEALTHY = 0.015
"""Share of calls that drop for the customer of the picture while nothing is wrong."""

DAYS, CALLS_A_DAY, TROUBLE_FROM = 14, 3, 9
FALSE_ALARM_DAYS = 10_000


class Box(NamedTuple):
    """A box with a title and a line below it, its middle at (x, y)."""

    x: int
    y: int
    title: str
    text: str = ""
    width: int = 150
    height: int = 46


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">\n{STYLE}<defs>{HEAD}</defs>\n{inside}\n</svg>\n'
    )


def _box(box: Box) -> str:
    left, top = box.x - box.width // 2, box.y - box.height // 2
    drawn = f'<rect class="b" x="{left}" y="{top}" width="{box.width}" height="{box.height}" rx="6"/>'
    lines = [(box.title, "", -3 if box.text else 5)] + ([(box.text, ' class="s"', 14)] if box.text else [])
    words = [
        f'<text{style} x="{box.x}" y="{box.y + down}" text-anchor="middle">{escape(text)}</text>'
        for text, style, down in lines
    ]
    return drawn + "".join(words)


def _arrow(points: Sequence[tuple[int, int]], label: str = "", at: tuple[int, int] = (0, 0)) -> str:
    path = "L".join(f"{x} {y}" for x, y in points)
    drawn = f'<path class="l" d="M{path}" marker-end="url(#h)"/>'
    if not label:
        return drawn
    return f'{drawn}<text class="s" x="{at[0]}" y="{at[1]}" text-anchor="middle">{escape(label)}</text>'


def flow() -> str:
    """Return the way of the data."""
    boxes = [
        Box(90, 60, "Inputs", "Kafka, HTTP, HEP, files"),
        Box(290, 60, "Decode", "tokens, dead letters"),
        Box(490, 30, "Customers", "evidence, patterns"),
        Box(490, 92, "Elements", "evidence, blame"),
        Box(690, 30, "Cases", "churn, cause, remedies"),
        Box(690, 92, "Incidents", "shared faults"),
        Box(690, 180, "Outbox", "a row for each output"),
        Box(490, 180, "Outputs", "webhook, Kafka, file, desk"),
        Box(290, 180, "CRM, desk", "a person calls", height=46),
    ]
    arrows = [
        _arrow([(165, 60), (215, 60)]),
        _arrow([(365, 52), (415, 34)]),
        _arrow([(365, 68), (415, 88)]),
        _arrow([(565, 30), (615, 30)]),
        _arrow([(565, 92), (615, 92)]),
        _arrow([(690, 69), (690, 53)], "explains", (722, 65)),
        _arrow([(765, 30), (785, 30), (785, 170), (765, 170)]),
        _arrow([(690, 115), (690, 157)]),
        _arrow([(615, 180), (565, 180)]),
        _arrow([(415, 180), (365, 180)]),
        _arrow([(215, 180), (90, 180), (90, 83)], "outcomes", (150, 174)),
    ]
    return _svg("The way of the data: inputs, detection, outbox, outputs", 800, 215, [*map(_box, boxes), *arrows])


def case() -> str:
    """Return the life of a case."""
    boxes = [
        Box(90, 40, "Calm", "baselines learn"),
        Box(290, 40, "Candidate", "bad calls are kept"),
        Box(490, 40, "Held", "at most an hour"),
        Box(690, 40, "Open", "opened, updated"),
        Box(490, 140, "Taken over", "by an incident"),
        Box(690, 140, "Resolved", "or expired in silence"),
    ]
    arrows = [
        _arrow([(165, 40), (215, 40)], "bad call", (190, 32)),
        _arrow([(365, 40), (415, 40)], "evidence", (390, 32)),
        _arrow([(565, 40), (615, 40)], "nobody else", (590, 32)),
        _arrow([(490, 63), (490, 117)], "a shared fault", (445, 94)),
        _arrow([(690, 63), (690, 117)], "good calls", (730, 94)),
        _arrow([(290, 63), (290, 90), (90, 90), (90, 63)], "good calls: it was chance, and is learnt", (190, 104)),
        _arrow([(690, 163), (690, 190), (60, 190), (60, 63)], "begins anew", (300, 184)),
    ]
    return _svg("The life of a case", 800, 205, [*map(_box, boxes), *arrows])


def course() -> Iterator[tuple[float, float, bool]]:
    """Give day, evidence in days and whether the call dropped, for each call of the customer of the picture.

    The process of `detectors.evidence`, with a healthy mean that is known: one channel, its alternatives averaged.
    """
    levels = [0.0] * len(RISES)
    for number in range(DAYS * CALLS_A_DAY):
        day = (number + 1) / CALLS_A_DAY
        # One drop by chance on the fourth day; from the tenth day on every third call.
        dropped = number == 3 * CALLS_A_DAY + 1 or (day > TROUBLE_FROM and number % 3 == 0)
        for k, rise in enumerate(RISES):
            ratio = likelihood_ratio(float(dropped), HEALTHY, HEALTHY + (1.0 - HEALTHY) * rise)
            levels[k] = (levels[k] + 1.0 / CALLS_A_DAY) * float(ratio)
        yield day, LEAP * sum(levels) / len(levels), dropped


def evidence() -> str:
    """Return the evidence of one customer as his calls come in."""
    left, right, top, bottom, decades = 70, 770, 30, 230, 7

    def at(day: float, days: float) -> tuple[int, int]:
        height = (math.log10(max(days, 0.1)) + 1.0) / decades
        return round(left + (right - left) * day / DAYS), round(bottom - (bottom - top) * height)

    points = [(*at(day, days), dropped) for day, days, dropped in course()]
    line = "L".join(f"{x} {y}" for x, y, _ in points)
    threshold = at(0, FALSE_ALARM_DAYS)[1]
    parts = [f'<path class="e" d="M{line}"/>']
    parts += [
        f'<circle class="{"d" if bad else "c"}" cx="{x}" cy="{y}" r="{4 if bad else 2}"/>' for x, y, bad in points
    ]
    parts.append(f'<path class="r" d="M{left} {threshold}L{right} {threshold}"/>')
    parts.append(f'<text class="s" x="{left + 6}" y="{threshold - 6}">false_alarm_days: a case opens</text>')
    for power in range(-1, decades):
        y = at(0, 10.0**power)[1]
        parts.append(f'<text class="s" x="{left - 8}" y="{y + 4}" text-anchor="end">{10.0**power:,g}</text>')
    for day in range(0, DAYS + 1, 2):
        parts.append(f'<text class="s" x="{at(day, 1)[0]}" y="{bottom + 18}" text-anchor="middle">day {day}</text>')
    parts.append(f'<text x="{left}" y="16">Evidence, in healthy days (red: a call that was cut off)</text>')
    return _svg("Evidence of one customer over two weeks", 800, 260, parts)
