"""One scoreboard: telcos recorded, Stayline run at several promises, every other row tuned to the same false alarms."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.detection.rows import KNOBS, Tuned
from bench.detection.telcos import RecordedTelco, record
from bench.plot import line_chart
from bench.score import (
    IncidentMarks,
    Marks,
    Spread,
    conclude,
    grade_incidents,
    read_alerts,
    tally,
)
from bench.simulator import TelcoSpec
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.alerts import Notification

TELCOS: tuple[TelcoSpec, ...] = (
    TelcoSpec(customers=2_000, days=21, seed=31),
    TelcoSpec(customers=2_000, days=21, seed=32, drop_ratio=0.004, redial_ratio=0.06, faulty_ratio=0.06),
    TelcoSpec(customers=2_000, days=21, seed=33, drop_ratio=0.014, outage_scale=2.0),
)
"""Seeds and mixes: the usual; good lines and busy redialers; poor lines and many outages."""
PROMISES_DAYS: tuple[float, ...] = (100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)
"""`detection.false_alarm_days` along Stayline's curve."""
PROMISE_DAYS = 10_000.0
"""The default: what the table shows."""
LEAST = 0.05
FALSE_PER_10K_DAYS = 0.3
"""Other rows may have so many false alerts even where Stayline has fewer."""


Curve = list[tuple[float, float]]
"""False alerts per 10,000 healthy customer-days, and the recall there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One detector over all telcos: marks, and for one that names shared trouble how it saw that."""

    name: str
    marks: Marks
    incidents: list[IncidentMarks]


@dataclass(frozen=True, slots=True)
class Board:
    """The rows, and by name each tunable one's way through false alerts and recall."""

    specs: Sequence[TelcoSpec]
    rows: list[Row]
    curves: dict[str, Curve]


def run(specs: Sequence[TelcoSpec], say: Callable[[str], None] = lambda _: None) -> Board:
    """Record the telcos and let every row watch them."""
    with tempfile.TemporaryDirectory() as folder:
        telcos = []
        for number, spec in enumerate(specs):
            say(f"telco {number + 1} of {len(specs)}")
            telcos.append(record(spec, Path(folder) / str(number)))
        say("stayline")
        promised = {days: _stayline(telcos, days, Path(folder) / "alerts.ndjson") for days in PROMISES_DAYS}
    stayline = promised[PROMISE_DAYS]
    target = max(stayline.marks.false_per_10k_days or 0.0, FALSE_PER_10K_DAYS)
    rule = conclude([tally(telco.truth, telco.rule) for telco in telcos])
    never = conclude([tally(telco.truth, []) for telco in telcos])
    rows = [stayline, Row("never fires", never, []), Row("three in seven", rule, [])]
    curves = {"Stayline": _curve([row.marks for row in promised.values()]), "three in seven": _curve([rule])}
    for name, find, loose, strict in KNOBS:
        say(name)
        tuned = Tuned(name, telcos, find())
        rows.append(Row(name, tuned.tune(loose, strict, target), []))
        curves[name] = _curve(list(tuned.points.values()))
    return Board(specs, rows, curves)


def _stayline(telcos: Sequence[RecordedTelco], promise_days: float, alerts: Path) -> Row:
    """Run Stayline over all telcos at one promise."""
    tallies, incidents = [], []
    for telco in telcos:
        engine = RiskEngine(Settings("bench", false_alarm_days=promise_days), Catalogue.load(default_catalogue_text()))
        told: list[Notification] = [one for batch in telco.batches for one in engine.apply(batch)]
        told += engine.finish()
        told.sort(key=lambda one: (one.time_ms, one.case, one.revision))
        alerts.write_bytes(b"".join(one.body + b"\n" for one in told))
        cases, shared = read_alerts(alerts)
        tallies.append(tally(telco.truth, cases))
        incidents.append(grade_incidents(telco.truth, shared))
    return Row("Stayline", conclude(tallies), incidents)


def _curve(marks: Sequence[Marks]) -> Curve:
    return sorted(
        (one.false_per_10k_days, one.recall)
        for one in marks
        if one.false_per_10k_days is not None and one.recall is not None
    )


def draw(board: Board) -> str:
    """Draw recall against false alerts, as SVG."""
    # The horizontal axis multiplies: what is less than LEAST stands there.
    shown = {name: [(max(false, LEAST), recall) for false, recall in curve] for name, curve in board.curves.items()}
    label = "false alerts per 10,000 healthy customer-days"
    return line_chart("Faults found", shown, x_label=label, y_label="recall", log_x=True)


def report(board: Board) -> list[str]:
    """Lay a scoreboard out as text."""
    lines = [
        f"telco of seed {spec.seed}: {spec.customers:,} customers, {spec.days} days, drop ratio {spec.drop_ratio}, "
        f"faulty {spec.faulty_ratio}, redials {spec.redial_ratio}, outages x {spec.outage_scale:g}"
        for spec in board.specs
    ]
    stayline = board.rows[0]
    faults = sum(sum(named.values()) for named in stayline.marks.named.values())
    lines += ["", f"{faults} faults with 3 or more bad calls; Stayline at a promise of {PROMISE_DAYS:,.0f} days;"]
    lines += ["the rows below the rule are tuned to its false alerts, or to 0.3 where it has fewer", ""]
    lines.append(
        f"{'':<15} {'recall':>7} {'false/10k':>9} {'bad calls':>11} {'hours':>13} {'right kind':>10} "
        f"{'in outages':>10} {'incidents':>9}"
    )
    lines += [_line(row) for row in board.rows]
    lines += ["", "bad calls and hours from onset to alert: median / 90th percentile", "", "Stayline, by pattern:"]
    lines += [
        f"  {kind:<15} {sum(named.values()) - named.get('missed', 0):>4} of {sum(named.values()):<4} "
        + ", ".join(f"{told} {count}" for told, count in named.items() if told != "missed")
        for kind, named in stayline.marks.named.items()
    ]
    lines += ["", "recall at false alerts per 10,000 healthy customer-days:"]
    lines += [
        f"  {name:<15} " + "  ".join(f"{y:.3f} at {x:.2f}" for x, y in curve) for name, curve in board.curves.items()
    ]
    return lines


def _line(row: Row) -> str:
    marks = row.marks
    incidents = "-"
    if row.incidents:
        incidents = f"{sum(one.found for one in row.incidents)}/{sum(one.outages for one in row.incidents)}"
    return (
        f"{row.name:<15} {_percent(marks.recall):>7} {_number(marks.false_per_10k_days, 2):>9} "
        f"{_pair(marks.bad_calls):>11} {_pair(marks.hours):>13} {_percent(marks.named_right):>10} "
        f"{marks.inside_outage:>10} {incidents:>9}"
    )


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100.0 * value:.1f} %"


def _pair(spread: Spread) -> str:
    return f"{_number(spread.median, 0)} / {_number(spread.p90, 0)}"
