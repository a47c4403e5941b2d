"""The page of `stayline model report`: HTML that needs nothing from anywhere else, plots as inline SVG."""

from collections.abc import Sequence
from html import escape
from typing import Any

from dataflows.commands.model_plots import gains_plot, reliability_plot
from dataflows.wording import counted
from detectors.churn.contender import ContenderReport
from detectors.churn.measures import Measures
from detectors.churn.model import ModelReport
from detectors.engine import RiskEngine
from detectors.remedies.ledger import always, by_expectation, evaluated
from detectors.remedies.uplift import ALONE
from schemas.alerts import rfc3339

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1b2430;background:#fff}
h1,h2,h3{line-height:1.2}table{border-collapse:collapse;margin:1rem 0}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #ccd3da}
th:first-child,td:first-child{text-align:left}
.plots{display:flex;flex-wrap:wrap;gap:2rem}figure{margin:0}figcaption{max-width:26rem;color:#46525e}
@media(prefers-color-scheme:dark){body{color:#e6eaee;background:#14181d}figcaption{color:#aab4be}
th,td{border-color:#3a444e}svg text{fill:#e6eaee}}
"""


def page(deployment: str, engines: list[RiskEngine]) -> str:
    """Return the page.

    Args:
        deployment: its name.
        engines: as the newest checkpoints have them: one for each partition that learns by itself.
    """
    parts = [f"<h1>What {escape(deployment)} has learnt</h1>"]
    for number, engine in enumerate(engines):
        if len(engines) > 1:
            parts.append(f"<h2>Partition {number}</h2>")
        parts += _engine(engine)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Stayline: model of {escape(deployment)}'
        f'</title><meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _engine(engine: RiskEngine) -> list[str]:
    chooser = engine.memory.advisor.chooser
    known = engine.memory.advisor.model.report()
    return [
        f"<p>As of {rfc3339(max(engine.clock_ms, 0))}, event time.</p>",
        *_churn(known),
        *_uplift(chooser),
        *_policies(chooser),
        *_partners(chooser),
    ]


def _churn(report: ModelReport) -> list[str]:
    rows = [_measured(one.name + (" (serves)" if one.serves else ""), one.measures, one) for one in report.contenders]
    rows.append(_measured("the base rate alone", report.constant, None))
    head = ("model", "AUC", "log loss", "Brier", "lift at 10%", "calibration error", "slope", "offset", "drift alarms")
    return [
        "<h2>Who leaves</h2>",
        (
            f"<p>{counted(report.labels, 'label')}, {report.left:,} of them left; base rate {report.base_rate:.2%}. "
            f"{counted(report.early, 'leaver')} came before anybody could be known to have stayed, and were not "
            "learnt. Every forecast was measured before its label was learnt; older ones fade.</p>"
        ),
        _table(head, rows),
        '<div class="plots">',
        *(f"{reliability_plot(one)}{gains_plot(one)}" for one in report.contenders),
        "</div>",
        "<p>What is shown are associations: nothing here says that a feature makes customers leave.</p>",
    ]


def _measured(name: str, measures: Measures, one: ContenderReport | None) -> tuple[str, ...]:
    numbers = (measures.auc, measures.log_loss, measures.brier, measures.lift, measures.calibration_error)
    shown = ["" if number is None else f"{number:.4f}" for number in numbers]
    if one is None:
        return (name, *shown, "", "", "")
    alarms = f"{one.alarms}" + ("" if one.last_alarm is None else f", last after {counted(one.last_alarm, 'forecast')}")
    return (name, *shown, f"{one.slope:.2f}", f"{one.offset:+.2f}", alarms)


def _uplift(chooser: Any) -> list[str]:
    rows = [
        (action, "all" if cause == "*" else cause, "all" if segment == "*" else segment or "not known",
         f"{expected:.2f}", f"{left:.0f}", "" if expected <= 0 else f"{left / expected:.2f}")
        for action, cause, segment, left, expected in chooser.bandit.table()
    ]  # fmt: skip
    head = ("action", "cause", "segment", "leavers expected", "leavers", "ratio")
    text = (
        "<p>Leavers after each action, beside those that the model had expected. A remedy helps where its ratio is "
        f"below that of <code>{ALONE}</code> in the same cell; single cells are shrunk towards their remedy when it is "
        "chosen.</p>"
    )
    return ["<h2>What helps</h2>", text, _table(head, rows) if rows else "<p>Nothing is known yet.</p>"]


def _policies(chooser: Any) -> list[str]:
    rows = chooser.ledger.rows
    actions = sorted({action for row in rows for action in row.actions} - {ALONE})
    policies = {"by expectation": by_expectation, **{f"always {action}": always(action) for action in actions}}
    estimates = evaluated(rows, policies)
    if not estimates:
        return ["<h2>Other policies</h2><p>No decision is older than the horizon yet.</p>"]
    table = [
        (one.policy, f"{one.decisions:,}", f"{one.matched:,}", f"{one.dr / 100:,.2f} ± {one.dr_error / 100:,.2f}",
         f"{one.ips / 100:,.2f} ± {one.ips_error / 100:,.2f}")
        for one in estimates
    ]  # fmt: skip
    head = ("policy", "decisions", "matched", "doubly robust", "by propensities")
    text = (
        "<p>What each policy would have gained per decision against leaving everybody alone, in hundreds of minor "
        "units of the customers' currencies, estimated from what was chosen with known probabilities; ± one standard "
        "error.</p>"
    )
    return ["<h2>Other policies</h2>", text, _table(head, table)]


def _partners(chooser: Any) -> list[str]:
    rows = [
        (remedy, partner, f"{one.ordered}", f"{one.fixed}", f"{one.in_time}",
         "" if one.hours_mean() is None else f"{one.hours_mean():.1f}", f"{one.worked}", f"{one.failed}",
         f"{one.score():.2f}")
        for remedy, partner, one in chooser.partners.table()
    ]  # fmt: skip
    head = ("remedy", "partner", "ordered", "reported done", "in time", "hours", "calls better", "calls not", "score")
    return ["<h2>Who keeps deadlines</h2>", _table(head, rows) if rows else "<p>No partner has reported yet.</p>"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f'<th scope="col">{escape(one)}</th>' for one in head)]
    lines += ["".join(f"<td>{escape(one)}</td>" for one in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
