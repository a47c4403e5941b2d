"""What a day of checkpoints leaves on disk: a store that grew with its age would show it.

Customers call as a day goes, few at night and most in the evening; between two checkpoints lies as much event time as a
deployment leaves between them, and no other time.
"""

from pathlib import Path

import numpy as np
from msgspec import Struct

from bench.cases.common import EPOCH, Bench, new_engine
from bench.cases.synthetic import BEGIN_MS, DAY_MS, calls, everybody
from bench.harness import isolated, resident_bytes
from dataflows.checkpoints import Checkpoints
from dataflows.checkpoints.engines import keep, resume
from schemas.decode import Decoder

CHECKPOINTS = int(DAY_MS / (1e3 * EPOCH.total_seconds()))

BUSY = 0.4e-3
"""Calls a second of each customer in the busy hour (docs/scaling.md)."""

HOURS = (12, 7, 5, 4, 5, 10, 22, 42, 66, 82, 88, 86, 78, 76, 78, 80, 84, 92, 100, 98, 88, 68, 42, 22)
"""Percent of the busy hour's calls, by hour: the shape of a telephone day, assumed."""


class Hour(Struct, frozen=True):
    """How things stand at the end of an hour of event time."""

    hour: int
    calls: int
    files: int
    held_bytes: int
    written_bytes: int
    resident_bytes: int


class Day(Struct, frozen=True):
    """What was measured; `whole_bytes`: what one checkpoint takes that is the whole state."""

    customers: int
    hours: list[Hour]
    whole_bytes: int


def day_of_checkpoints(bench: Bench) -> None:
    """Measure the store over a day."""
    sizes = bench.options.residents
    found = isolated(measure, sizes[min(1, len(sizes) - 1)], CHECKPOINTS, bench.folder / "day")
    bench.report.record("day", day=found)
    bench.report.say(f"{found.customers:,} customers, a checkpoint every {EPOCH.total_seconds():.0f} s of event time")
    bench.report.say(f"one checkpoint that is whole: {found.whole_bytes / 1e6:,.1f} MB")
    for one in found.hours:
        bench.report.row(
            {
                "hour": str(one.hour),
                "calls": f"{one.calls:,}",
                "files": str(one.files),
                "MB held": f"{one.held_bytes / 1e6:,.1f}",
                "x whole": f"{one.held_bytes / found.whole_bytes:.2f}",
                "MB written": f"{one.written_bytes / 1e6:,.0f}",
                "MB of memory": f"{one.resident_bytes / 1e6:,.0f}",
            }
        )


def measure(customers: int, checkpoints_a_day: int, folder: Path) -> Day:
    """Let so many customers call for a day, and take so many checkpoints of them.

    Raises:
        RuntimeError: what is on disk in the end is not what the engine knows.
    """
    rng = np.random.default_rng(customers)
    decoder, engine, checkpoints = Decoder(), new_engine(), Checkpoints(folder)
    for chunk in everybody(customers, BEGIN_MS, DAY_MS, rng):
        engine.apply(decoder.decode(chunk))
    name = keep(engine, {}, checkpoints)
    checkpoints.settle()
    whole = (folder / name).stat().st_size
    step_ms, hours, called, written = DAY_MS // checkpoints_a_day, [], 0, 0
    for number in range(checkpoints_a_day):
        hour = 24 * number // checkpoints_a_day
        count = int(rng.poisson(customers * BUSY * HOURS[hour] / 100 * step_ms / 1e3))
        if count:
            who = rng.integers(0, customers, count)
            engine.apply(decoder.decode(calls(who, BEGIN_MS + DAY_MS + number * step_ms, step_ms, rng)))
        name = keep(engine, {}, checkpoints)
        checkpoints.settle()
        called, written = called + count, written + (folder / name).stat().st_size
        if 24 * (number + 1) // checkpoints_a_day > hour:
            files = [path.stat().st_size for path in folder.iterdir()]
            hours.append(Hour(hour + 1, called, len(files), sum(files), written, resident_bytes()))
            called = written = 0
    again = new_engine()
    resume(again, Checkpoints(folder), name)
    if again.counts != engine.counts or len(again.memory.roster) != len(engine.memory.roster):
        raise RuntimeError("what is on disk must be what the engine knows, was not")
    return Day(customers, hours, whole)
