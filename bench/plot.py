"""Small pictures as SVG: lines over two axes, bars of segments. Readable on light and dark ground alike.

svg = line_chart("Latency", {"10,000/s": [(0.5, 2.1), (0.99, 9.4)]}, x_label="share", y_label="ms")
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

COLOURS = (
    "#3b82c4", "#d9822b", "#2f9e73", "#b25fb5", "#c4524a", "#8a8f3c", "#4aa8b8", "#8d7361", "#e0609c", "#7467d8",
    "#1f5f5b",
)  # fmt: skip
"""Of middle lightness, so that they stand out on white and on black; as many as a picture has lines at the most."""

PLAIN = "#8a8f98"

STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:14px;font-weight:600}"
    ".g{stroke:#888;stroke-opacity:.25}.a{stroke:#888}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>"
)

WIDTH, LEFT, RIGHT, TOP = 760, 80, 24, 34


class Axis(NamedTuple):
    """Values to pixels.

    Attributes:
        low, high: of the values.
        start, end: of the pixels.
        log: whether each pixel multiplies; values must then be above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, value = (math.log10(one) if self.log else one for one in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Return round values along the axis."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [10.0**power for power in range(first, last + 1)]
        step = _round_step((self.high - self.low) / 6)
        return [step * k for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def line_chart(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    x_ticks: Mapping[float, str] | None = None,
) -> str:
    """Draw lines with a marker at each point, and a legend.

    Args:
        title: above it.
        series: name -> points (x, y), in order; at least one point in all.
        x_label, y_label: what the axes show, with the unit.
        log_x, log_y: axes on which each step multiplies; whole decades are shown.
        x_ticks: position -> text, instead of round numbers.
    """
    points = [point for line in series.values() for point in line]
    bottom = 330
    x_axis = _axis([x for x, _ in points], (LEFT, WIDTH - RIGHT), log=log_x, from_zero=False)
    y_axis = _axis([y for _, y in points], (bottom, TOP + 12), log=log_y, from_zero=True)
    parts = [
        f'<path class="g" d="M{LEFT} {y_axis.at(tick):.1f}H{WIDTH - RIGHT}"/>'
        f"{_text(LEFT - 8, y_axis.at(tick) + 4, short(tick), 'end')}"
        for tick in y_axis.ticks()
    ]
    ticks = {tick: short(tick) for tick in x_axis.ticks()} if x_ticks is None else x_ticks
    parts += [_text(x_axis.at(tick), bottom + 18, words, "middle") for tick, words in ticks.items()]
    parts.append(f'<path class="a" fill="none" d="M{LEFT} {TOP + 12}V{bottom}H{WIDTH - RIGHT}"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 38, x_label, "middle"))
    parts.append(_text(LEFT, TOP + 2, y_label, "start"))
    for k, line in enumerate(series.values()):
        places = [(x_axis.at(x), y_axis.at(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline fill="none" stroke-width="2" stroke="{_colour(k)}" points="{path}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_colour(k)}"/>' for x, y in places]
    legend, height = _legend(list(series), bottom + 62)
    return _svg(title, [*parts, *legend], height)


def bar_chart(title: str, bars: Mapping[str, Mapping[str, float]], *, unit: str) -> str:
    """Draw horizontal bars, each a stack of named segments, with the sum behind it, and a legend.

    A segment that is called as its bar is plain: grey, and not in the legend.

    Args:
        title: above it.
        bars: name -> segments, name -> value of 0 or more.
        unit: of the values.
    """
    names = list(dict.fromkeys(name for bar, segments in bars.items() for name in segments if name != bar))
    left = 30 + 7 * max(len(name) for name in bars)
    axis = _axis([sum(segments.values()) for segments in bars.values()], (left, WIDTH - 110), log=False, from_zero=True)
    parts = []
    for k, (name, segments) in enumerate(bars.items()):
        top, total = TOP + 8 + 34 * k, 0.0
        parts.append(_text(left - 8, top + 16, name, "end"))
        for part, value in segments.items():
            begin, total = total, total + value
            span = axis.at(total) - axis.at(begin)
            hint = f"<title>{escape(part)}: {short(value)} {escape(unit)}</title>"
            parts.append(
                f'<rect x="{axis.at(begin):.1f}" y="{top}" width="{span:.1f}" height="24" '
                f'fill="{PLAIN if part == name else _colour(names.index(part))}">{hint}</rect>'
            )
        parts.append(_text(axis.at(total) + 6, top + 16, f"{short(total)} {unit}", "start"))
    below = TOP + 8 + 34 * len(bars)
    legend, height = _legend(names, below + 18) if names else ([], below + 8)
    return _svg(title, [*parts, *legend], height)


def short(value: float) -> str:
    """Write a number for an axis: three digits that count, thousands and millions by letter."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _axis(values: list[float], pixels: tuple[float, float], *, log: bool, from_zero: bool) -> Axis:
    low, high = min(values), max(values)
    if log:
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
    elif from_zero:
        low = min(low, 0.0)
    if low == high:
        high = 10.0 * low if log else low + 1.0
    return Axis(low, high, *pixels, log)


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20... (or their tenths) that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<text{shown} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _legend(names: list[str], top: float) -> tuple[list[str], float]:
    """Return the legend, wrapped, and where it ends."""
    parts, x, y = [], 20.0, top
    for k, name in enumerate(names):
        width = 34 + 6.4 * len(name)
        if x > 20 and x + width > WIDTH - RIGHT:
            x, y = 20.0, y + 20
        parts.append(f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="12" height="12" fill="{_colour(k)}"/>')
        parts.append(_text(x + 17, y, name, "start"))
        x += width
    return parts, y + 14


def _svg(title: str, parts: list[str], height: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, STYLE, _text(20, 20, title, "start", "t"), *parts, "</svg>", ""])
