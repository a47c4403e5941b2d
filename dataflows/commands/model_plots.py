"""The two plots of a churn model: is a probability what it says, and who is found by calling the likeliest first."""

import math
from html import escape

from detectors.churn.contender import ContenderReport

SIZE, EDGE = 320, 44
PROBABILITY_LOW = 0.001
"""Left and lower end of the reliability plot, whose axes are logarithmic: churn lives below 10%."""

DOT_MIN, DOT_MAX = 3.0, 11.0


def reliability_plot(one: ContenderReport) -> str:
    """Return predicted against observed share, bin by bin; dots as large as there were labels."""
    bins = [each for each in one.measures.bins if each.weight >= 1.0]
    most = max((each.weight for each in bins), default=1.0)
    dots = "".join(
        f'<circle cx="{_log_x(each.predicted or 0.0):.1f}" cy="{_log_y(each.observed or 0.0):.1f}" '
        f'r="{DOT_MIN + (DOT_MAX - DOT_MIN) * math.sqrt(each.weight / most):.1f}" fill="#0b6e99" fill-opacity="0.7">'
        f"<title>said {each.predicted:.2%}, left {each.observed:.2%}, {each.weight:,.0f} labels</title></circle>"
        for each in bins
        if each.predicted is not None
    )
    diagonal = f'<line x1="{_log_x(0)}" y1="{_log_y(0)}" x2="{_log_x(1)}" y2="{_log_y(1)}" stroke="#888"/>'
    ticks = "".join(
        f'<text x="{_log_x(at):.1f}" y="{SIZE + EDGE + 16}" text-anchor="middle">{at:g}</text>'
        f'<text x="{EDGE - 5}" y="{_log_y(at) + 4:.1f}" text-anchor="end">{at:g}</text>'
        for at in (0.001, 0.01, 0.1, 1.0)
    )
    caption = "reliability: probability said (across) and share that left (up), logarithmic; right on the line"
    return _figure(f"{one.name}: {caption}", diagonal + dots + ticks)


def gains_plot(one: ContenderReport) -> str:
    """Return the share of leavers found against the share of customers called, likeliest first."""
    points = " ".join(f"{_x(called):.1f},{_y(found):.1f}" for called, found in one.measures.gains)
    curve = f'<polyline points="{points}" fill="none" stroke="#0b6e99" stroke-width="2"/>' if points else ""
    diagonal = f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#888"/>'
    ticks = "".join(
        f'<text x="{_x(at):.1f}" y="{SIZE + EDGE + 16}" text-anchor="middle">{at:.0%}</text>'
        f'<text x="{EDGE - 5}" y="{_y(at) + 4:.1f}" text-anchor="end">{at:.0%}</text>'
        for at in (0.0, 0.5, 1.0)
    )
    lift = "" if one.measures.lift is None else f"; the likeliest tenth left {one.measures.lift:.2f} times as often"
    caption = f"lift: customers called, likeliest first (across), and leavers found (up); the line is chance{lift}"
    return _figure(f"{one.name}: {caption}", diagonal + curve + ticks)


def _figure(caption: str, content: str) -> str:
    side = SIZE + 2 * EDGE
    frame = f'<rect x="{EDGE}" y="{EDGE}" width="{SIZE}" height="{SIZE}" fill="none" stroke="#888"/>'
    return (
        f'<figure><svg viewBox="0 0 {side} {side}" width="{side}" height="{side}" role="img" '
        f'aria-label="{escape(caption)}" font-size="12">{frame}{content}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _x(share: float) -> float:
    return EDGE + SIZE * share


def _y(share: float) -> float:
    return EDGE + SIZE * (1.0 - share)


def _log_share(probability: float) -> float:
    return 1.0 - math.log(max(probability, PROBABILITY_LOW)) / math.log(PROBABILITY_LOW)


def _log_x(probability: float) -> float:
    return _x(_log_share(probability))


def _log_y(probability: float) -> float:
    return _y(_log_share(probability))
