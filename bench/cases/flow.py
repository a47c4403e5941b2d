"""The whole flow from a file, without and with checkpoints, and what bounds it."""

from pathlib import Path

from bench.cases.common import BASE, Bench, bodies, from_file, new_engine, run_flow, run_flow_durably
from bench.harness import Rate, race
from schemas.alerts import Notification


def flow(bench: Bench) -> None:
    """Measure the flow as `stayline replay` runs it."""
    events = bench.telco
    works = {BASE: events.parse, "flow": lambda: bodies(run_flow(from_file(events.path), new_engine()))}
    bench.report.race(race(len(events), bench.options.rounds, works))


def checkpoints(bench: Bench) -> None:
    """Measure the flow as `stayline run` runs it, outputs left out."""
    events = bench.telco
    works = {BASE: events.parse, "flow, checkpoints": lambda: durable_flow(events.path, bench.folder)}
    bench.report.race(race(len(events), bench.options.rounds, works))


def durable_flow(path: Path, folder: Path) -> bytes:
    """Run the flow over a file with checkpoints; return what it told."""
    told: list[Notification] = []
    run_flow_durably(from_file(path), new_engine(), folder, told.extend)
    return bodies(told)


def bottleneck(rates: dict[str, Rate]) -> str:
    """Name what most of the flow's time goes to, by the difference that each part makes.

    Args:
        rates: those of `decode`, `detect`, `flow` and `flow, checkpoints`.
    """
    each_us = {name: 1e6 / rates[name].median for name in ("decode", "detect", "flow", "flow, checkpoints")}
    parts = {
        "decode": each_us["decode"],
        "detect": each_us["detect"],
        "files and engine": max(0.0, each_us["flow"] - each_us["decode"] - each_us["detect"]),
        "checkpoints": max(0.0, each_us["flow, checkpoints"] - each_us["flow"]),
    }
    shown = ", ".join(f"{name} {time_us:.2f}" for name, time_us in parts.items())
    return f"bottleneck: {max(parts, key=parts.__getitem__)} (microseconds an event: {shown})"
