"""The whole flow from a file, without and with checkpoints, and what bounds it."""

from pathlib import Path

from bench.cases.common import BASE, Bench, bodies, from_file, new_engine, run_flow, run_flow_durably
from bench.harness import race
from schemas.alerts import Notification


def whole_flow(bench: Bench) -> None:
    """Measure the flow as `stayline replay` runs it."""
    events = bench.telco
    works = {BASE: events.parse, "flow": lambda: bodies(run_flow(from_file(events.path), new_engine()))}
    bench.report.race(race(len(events), bench.options.rounds, works))


def flow_with_checkpoints(bench: Bench) -> None:
    """Measure the flow as `stayline run` runs it, outputs left out."""
    events = bench.telco
    works = {BASE: events.parse, "flow, checkpoints": lambda: durable_flow(events.path, bench.folder)}
    bench.report.race(race(len(events), bench.options.rounds, works))


def durable_flow(path: Path, folder: Path) -> bytes:
    """Run the flow over a file with checkpoints; return what it told."""
    told: list[Notification] = []
    run_flow_durably(from_file(path), new_engine(), folder, told.extend)
    return bodies(told)


def bottleneck(ratios: dict[str, float]) -> str:
    """Name what most of the flow's time goes to, by the difference that each part makes.

    Args:
        ratios: rates of `decode`, `detect`, `flow` and `flow, checkpoints` beside `orjson.loads` in their own races,
            which takes out what else the machine did then.
    """
    taken = {name: 1.0 / ratios[name] for name in ("decode", "detect", "flow", "flow, checkpoints")}
    parts = {
        "decode": taken["decode"],
        "detect": taken["detect"],
        "files and Bytewax": max(0.0, taken["flow"] - taken["decode"] - taken["detect"]),
        "checkpoints": max(0.0, taken["flow, checkpoints"] - taken["flow"]),
    }
    shown = ", ".join(f"{name} {time:.1f}" for name, time in parts.items())
    return f"bottleneck: {max(parts, key=parts.__getitem__)} (time in units of orjson.loads: {shown})"
