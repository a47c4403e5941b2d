"""What is known of one customer, from the newest checkpoint."""

from dataflows.checkpoints import Checkpoints
from dataflows.config import engine_settings
from dataflows.config.settings import Config
from dataflows.shards import snapshot_folders
from detectors.catalogue import Catalogue, default_catalogue_text
from detectors.engine import RiskEngine
from detectors.patterns.view import day_of
from detectors.standing import Standing
from schemas.alerts import rfc3339
from schemas.errors import StateError


def explain(customer_id: str, config: Config) -> list[str]:
    """Return what is known of a customer, in lines for a terminal.

    Raises:
        StateError: there is no checkpoint, or it cannot be read, or the customer is not in it.
    """
    names = [(folder, name) for folder in snapshot_folders(config) if (name := Checkpoints(folder).newest())]
    if not names:
        raise StateError(f"{config.state.directory}: must hold a checkpoint of a run, held none")
    for folder, name in names:
        engine = RiskEngine(engine_settings(config), Catalogue.load(default_catalogue_text()))
        engine.restore(Checkpoints(folder).load(name))
        standing = engine.standing(customer_id)
        if standing is not None:
            return [f"As of {rfc3339(engine.clock_ms)} (checkpoint {name})", *_lines(standing)]
    raise StateError(f"customer {customer_id}: must have called since the state began, has not")


def _lines(standing: Standing) -> list[str]:
    evidence = f"{_days(standing.evidence_days)} of {standing.threshold_days:,.0f} healthy days"
    lines = [f"last call    {rfc3339(standing.last_ms)}", f"evidence     {evidence}"]
    for channel, (days, baseline, learnt) in standing.channels.items():
        usual = f"usual {100 * baseline:5.2f} %   from {learnt:.0f} calls"
        lines.append(f"  {channel:<10} {_days(days):>12} days   {usual}")
    if standing.since_ms >= 0:
        lines.append(f"suspected since {day_of(standing.since_ms)}")
    if standing.case is None:
        lines.append("case         none")
    else:
        lines.append(f"case         {standing.case.alert_id}, revision {standing.case.revision}, {standing.case.kind}")
        lines.append(f"             {standing.sentence}")
    lines.append(
        f"churn        {100 * standing.churn.probability:.1f} % ({standing.churn.band}), {standing.churn.model}"
    )
    lines += [
        f"  {rfc3339(call.end_ms)}  {call.outcome:<18} {call.duration_ms / 1000:8.1f} s  {call.call_id}"
        for call in standing.calls
    ]
    return lines


def _days(days: float) -> str:
    """Write an amount of evidence: it runs from nothing to more digits than anybody reads."""
    return f"{days:,.2f}" if days < 1e6 else f"{days:.1e}"
