"""A curve plot as SVG, written by hand: two axes, lines with dots, a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10

WIDTH, HEIGHT, EDGE = 720, 440, 56
LEGEND = 150
LOW, HIGH = 0.05, 1_000.0
"""The horizontal axis is logarithmic between these; what is less than LOW stands at LOW."""
COLOURS = (
    "#0072b2", "#d55e00", "#999999", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#b8a800", "#7f3c8d", "#000000",
)  # fmt: skip
"""Okabe and Ito's colours, which the colour-blind tell apart, and three more."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A name, and points (x, y) with y in 0..1."""

    name: str
    points: Sequence[tuple[float, float]]


def plot(curves: Sequence[Curve], x_label: str, y_label: str) -> str:
    """Return an SVG picture of some curves over a logarithmic axis."""
    body = [*_axes(x_label, y_label)]
    for number, curve in enumerate(curves):
        body += _drawn(curve, COLOURS[number % len(COLOURS)], number)
    form = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {form}>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def _x(value: float) -> float:
    place = (log10(min(max(value, LOW), HIGH)) - log10(LOW)) / (log10(HIGH) - log10(LOW))
    return EDGE + place * (WIDTH - 2 * EDGE - LEGEND)


def _y(value: float) -> float:
    return HEIGHT - EDGE - value * (HEIGHT - 2 * EDGE)


def _axes(x_label: str, y_label: str) -> list[str]:
    lines = []
    for value in (0.1, 1.0, 10.0, 100.0, 1_000.0):
        lines.append(f'<path d="M{_x(value):.1f} {_y(0)}V{_y(1)}" stroke="#dddddd"/>')
        lines.append(f'<text x="{_x(value):.1f}" y="{_y(0) + 18}" text-anchor="middle">{value:g}</text>')
    for percent in range(0, 101, 20):
        at = _y(percent / 100)
        lines.append(f'<path d="M{_x(LOW)} {at:.1f}H{_x(HIGH)}" stroke="#dddddd"/>')
        lines.append(f'<text x="{EDGE - 8}" y="{at + 4:.1f}" text-anchor="end">{percent} %</text>')
    middle = (_x(LOW) + _x(HIGH)) / 2
    lines.append(f'<text x="{middle:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{escape(x_label)}</text>')
    lines.append(f'<text x="{EDGE}" y="{EDGE - 20}" text-anchor="middle">{escape(y_label)}</text>')
    return lines


def _drawn(curve: Curve, colour: str, number: int) -> list[str]:
    places = [f"{_x(x):.1f} {_y(y):.1f}" for x, y in curve.points]
    lines = [f'<path d="M{"L".join(places)}" fill="none" stroke="{colour}" stroke-width="2"/>'] if places else []
    lines += [f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="3" fill="{colour}"/>' for x, y in curve.points]
    left, top = WIDTH - EDGE - LEGEND + 24, EDGE + 20 * number
    lines.append(f'<rect x="{left}" y="{top - 9}" width="10" height="10" fill="{colour}"/>')
    lines.append(f'<text x="{left + 16}" y="{top}">{escape(curve.name)}</text>')
    return lines
