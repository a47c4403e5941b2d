"""What is known of one customer, from the newest checkpoint."""

import math

from dataflows.checkpoints import Checkpoints
from dataflows.checkpoints.engines import resume
from dataflows.config import engine_settings
from dataflows.config.business import catalogue_of
from dataflows.config.settings import Config
from dataflows.shards import snapshot_folders
from detectors.engine import RiskEngine
from detectors.standing import Standing
from detectors.zone import LocalTime, local_time
from schemas.alerts import rfc3339
from schemas.errors import StateError


def explain(customer_id: str, config: Config) -> list[str]:
    """Return what is known of a customer, in lines for a terminal.

    Raises:
        StateError: there is no checkpoint, or it cannot be read, or the customer is not in it.
    """
    newest = [(kept, name) for folder in snapshot_folders(config) if (name := (kept := Checkpoints(folder)).newest())]
    if not newest:
        raise StateError(f"{config.state.directory}: must hold a checkpoint of a run, held none")
    for checkpoints, last in newest:
        name = checkpoints.usable(last)
        engine = RiskEngine(engine_settings(config), catalogue_of(config.remedies))
        resume(engine, checkpoints, name)
        standing = engine.standing(customer_id)
        if standing is not None:
            return [
                f"As of {rfc3339(engine.clock_ms)} (checkpoint {name})",
                *_lines(standing, local_time(config.detection.timezone)),
            ]
    raise StateError(f"customer {customer_id}: must have called since the state began, has not")


def _lines(standing: Standing, zone: LocalTime) -> list[str]:
    evidence = f"{_days(standing.evidence_days)} of {standing.threshold_days:,.0f} healthy days"
    lines = [f"last call    {rfc3339(standing.last_ms)}", f"evidence     {evidence}"]
    for channel, (days, baseline, learnt) in standing.channels.items():
        usual = f"usual {100 * baseline:5.2f} %   from {learnt:.0f} calls"
        lines.append(f"  {channel:<10} {_days(days):>12} days   {usual}")
    if standing.since_ms >= 0:
        lines.append(f"suspected since {zone.day(standing.since_ms)}")
    if standing.case is None:
        lines.append("case         none")
    else:
        lines.append(f"case         {standing.case.alert_id}, revision {standing.case.revision}, {standing.case.kind}")
        lines.append(f"             {standing.sentence}")
    lines.append(
        f"churn        {100 * standing.churn.probability:.1f} % ({standing.churn.band}), {standing.churn.model}"
    )
    lines += plot(standing.course, standing.threshold_days, zone)
    lines += [
        f"  {rfc3339(call.end_ms)}  {call.outcome:<18} {call.duration_ms / 1000:8.1f} s  {call.call_id}"
        for call in standing.calls
    ]
    return lines


PLOT_COLUMNS, PLOT_ROWS = 60, 7


def plot(course: list[tuple[int, float, bool]], threshold_days: float, zone: LocalTime) -> list[str]:
    """Draw evidence over time, a row a step of its logarithm: `x` behind a bad call, `.` behind another.

    Args:
        course: (end_ms, evidence in days, whether the call was bad), oldest first; fewer than two give no plot.
        threshold_days: where a case opens, drawn as a line.
        zone: what days are told in.
    """
    if len(course) < 2:
        return []
    top = max(threshold_days, *(days for _, days, _ in course))
    rows = [[" "] * PLOT_COLUMNS for _ in range(PLOT_ROWS)]
    rows[_height(threshold_days, top)] = ["-"] * PLOT_COLUMNS
    first_ms, last_ms = course[0][0], course[-1][0]
    # Bad calls are drawn last: where two share a place, trouble shows.
    for end_ms, days, bad in sorted(course, key=lambda point: point[2]):
        column = round((PLOT_COLUMNS - 1) * (end_ms - first_ms) / max(last_ms - first_ms, 1))
        rows[_height(days, top)][column] = "x" if bad else "."
    scale = [f"{_days(top ** (row / (PLOT_ROWS - 1))):>14} |" for row in range(PLOT_ROWS)]
    drawn = [left + "".join(row).rstrip() for left, row in zip(scale, rows, strict=True)][::-1]
    ends = f"{zone.day(first_ms)} to {zone.day(last_ms)}; x: a bad call, ---: a case opens"
    return ["evidence in healthy days, after each call remembered", *drawn, f"{'':15} {ends}"]


def _height(days: float, top: float) -> int:
    """Return the row, from below, that an amount of evidence stands in; a day and less is the lowest."""
    return round((PLOT_ROWS - 1) * min(math.log(max(days, 1.0)) / math.log(max(top, 2.0)), 1.0))


def _days(days: float) -> str:
    """Write an amount of evidence: it runs from nothing to more digits than anybody reads."""
    return f"{days:,.2f}" if days < 1e6 else f"{days:.1e}"
