"""The detection table of one run: graded, and laid out for a terminal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group
from rich.table import Table

from bench.score.marks import OUTAGE_DROPS_MIN, IncidentMarks, Marks, Spread, grade, grade_incidents
from bench.score.rule import read_drops, three_in_seven
from bench.score.told import read_alerts
from bench.score.truth import BAD_CALLS_MIN, healthy_days, read_truth


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """The detection table of one run."""

    customers: int
    days: int
    faults: int
    healthy_days: float
    stayline: Marks
    three_in_seven: Marks
    incidents: IncidentMarks


def score(alerts: Path, truth: Path, events: Path | None = None) -> ScoreTable:
    """Grade alerts against the truth, and the rule beside them.

    Args:
        alerts: notifications, one CloudEvents envelope a line.
        truth: the simulator's truth file.
        events: the simulator's events; `events.ndjson` beside the truth if not given.

    Raises:
        InputError: if a file cannot be read, or a line of the alerts or the truth is not what it must be.
    """
    told = read_truth(truth)
    cases, incidents = read_alerts(alerts)
    rule = list(three_in_seven(read_drops(truth.with_name("events.ndjson") if events is None else events)))
    return ScoreTable(
        customers=told.telco.customers,
        days=told.telco.days,
        faults=len(told.scored),
        healthy_days=healthy_days(told),
        stayline=grade(told, cases),
        three_in_seven=grade(told, rule),
        incidents=grade_incidents(told, incidents),
    )


def to_builtins(table: ScoreTable) -> dict[str, Any]:
    """Turn the table into what JSON can hold."""
    plain: dict[str, Any] = msgspec.to_builtins(table)
    return plain


def render(table: ScoreTable) -> Group:
    """Lay the table out for a terminal of 100 columns."""
    return Group(_detection(table), _patterns(table), _incidents(table))


def _detection(table: ScoreTable) -> Table:
    title = f"{table.customers:,} customers, {table.days} days, {table.healthy_days:,.0f} healthy customer-days"
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for name in ("stayline", "three_in_seven"):
        shown.add_column(name, justify="right")
    both = (table.stayline, table.three_in_seven)
    rows: tuple[tuple[str, list[str]], ...] = (
        (f"faults found (of {table.faults} with {BAD_CALLS_MIN}+ bad calls)", [str(m.found) for m in both]),
        ("recall", [_percent(m.recall) for m in both]),
        ("alerts opened", [str(m.alerts) for m in both]),
        ("false alerts", [str(m.false_alerts) for m in both]),
        ("false alerts per 10,000 healthy customer-days", [_number(m.false_per_10k_days, 2) for m in both]),
        ("alerts for customers inside a shared outage", [str(m.inside_outage) for m in both]),
        ("bad calls before the alert, median / p90", [_pair(m.bad_calls) for m in both]),
        ("hours from onset to alert, median / p90", [_pair(m.hours) for m in both]),
        ("right pattern named, of those found", [_percent(m.named_right) for m in both]),
    )
    for label, cells in rows:
        shown.add_row(label, *cells)
    return shown


def _patterns(table: ScoreTable) -> Table:
    shown = Table("pattern", title="By pattern", title_justify="left")
    for name in ("faults", "found", "by rule"):
        shown.add_column(name, justify="right")
    shown.add_column("named as")
    for pattern, named in table.stayline.named.items():
        total, ruled = sum(named.values()), table.three_in_seven.named[pattern]
        words = ", ".join(f"{kind} {count}" for kind, count in named.items() if kind != "missed")
        found = [str(total - told.get("missed", 0)) for told in (named, ruled)]
        shown.add_row(pattern, str(total), *found, words)
    return shown


def _incidents(table: ScoreTable) -> Table:
    marks = table.incidents
    shown = Table("shared trouble", "", title="Shared trouble", title_justify="left", show_header=False)
    shown.add_row(f"outages of {OUTAGE_DROPS_MIN}+ drops found while they last", f"{marks.found} of {marks.outages}")
    shown.add_row("minutes from onset to incident, median / p90", _pair(marks.minutes))
    shown.add_row("false incidents", str(marks.false_incidents))
    shown.add_row("lying probes named", f"{marks.probes_named} of {marks.probes}")
    return shown


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _pair(spread: Spread) -> str:
    return f"{_number(spread.median)} / {_number(spread.p90)}"
