"""What checkpoints cost by the number of customers: the wait of the flow, what is written, how long a restart takes.

Customers call at a fixed rate, whatever their number; some of their calls are cut.
"""

import time
from pathlib import Path

import numpy as np
from msgspec import Struct

from bench.cases.common import EPOCH, Bench, new_engine
from bench.cases.synthetic import BEGIN_MS, DAY_MS, calls, everybody
from bench.harness import isolated, quantiles
from dataflows.checkpoints import Checkpoints
from dataflows.checkpoints.engines import keep, resume
from schemas.decode import Decoder

RATE = 10_000
"""Calls a second."""

BATCHES = 50
"""Batches between two checkpoints."""


class Stalls(Struct, frozen=True):
    """What was measured.

    Attributes:
        stall_s: of each checkpoint, how long the flow waited for it.
        ahead_s: of each batch, how long rows were copied ahead of the checkpoint behind it.
        durable_s: of each checkpoint, how long it took from its beginning until it was on disk.
        written_bytes: of each checkpoint.
        held_bytes: of all files at the end.
        restart_s: until a new engine had taken over the state.
    """

    customers: int
    stall_s: list[float]
    ahead_s: list[float]
    durable_s: list[float]
    written_bytes: list[int]
    held_bytes: int
    restart_s: float


def checkpoint_stalls(bench: Bench) -> None:
    """Measure checkpoints for numbers of customers."""
    for size in bench.options.residents:
        found = isolated(measure, size, 4 * bench.options.rounds, bench.folder / f"stalls-{size}")
        bench.report.record("stalls", stalls=found)
        stall, copied = quantiles(found.stall_s), quantiles(found.ahead_s)
        bench.report.row(
            {
                "customers resident": f"{found.customers:,}",
                "stall ms p50": f"{stall[0] * 1e3:,.1f}",
                "p99": f"{stall[1] * 1e3:,.1f}",
                "copied ahead, ms a batch p99": f"{copied[1] * 1e3:,.2f}",
                "us/event": f"{_each_us(found):.3f}",
                "on disk after ms": f"{np.median(found.durable_s) * 1e3:,.0f}",
                "MB each": f"{np.median(found.written_bytes) / 1e6:,.1f}",
                "MB held": f"{found.held_bytes / 1e6:,.0f}",
                "restart s": f"{found.restart_s:.1f}",
            }
        )


def _each_us(found: Stalls) -> float:
    events = len(found.stall_s) * RATE * EPOCH.total_seconds()
    return 1e6 * (sum(found.stall_s) + sum(found.ahead_s)) / events


def measure(customers: int, count: int, folder: Path) -> Stalls:
    """Let so many customers call, and take so many checkpoints of them.

    Args:
        customers: how many there are.
        count: checkpoints.
        folder: for the state.
    """
    rng = np.random.default_rng(customers)
    decoder, engine, checkpoints = Decoder(), new_engine(), Checkpoints(folder)
    for chunk in everybody(customers, BEGIN_MS, DAY_MS, rng):
        engine.apply(decoder.decode(chunk))
    keep(engine, {}, checkpoints)
    stalls, ahead, durable, written, name = [], [], [], [], ""
    step_ms = int(EPOCH.total_seconds() * 1e3 / BATCHES)
    for batch in range(count * BATCHES):
        who = rng.integers(0, customers, RATE * step_ms // 1_000)
        engine.apply(decoder.decode(calls(who, BEGIN_MS + DAY_MS + batch * step_ms, step_ms, rng)))
        begun_s = time.perf_counter()
        engine.gather()
        ahead.append(time.perf_counter() - begun_s)
        if batch % BATCHES == BATCHES - 1:
            checkpoints.settle()
            begun_s = time.perf_counter()
            name = keep(engine, {}, checkpoints)
            stalls.append(time.perf_counter() - begun_s)
            checkpoints.settle()
            durable.append(time.perf_counter() - begun_s)
            written.append((folder / name).stat().st_size)
    held = sum(path.stat().st_size for path in folder.iterdir())
    begun_s = time.perf_counter()
    resume(new_engine(), Checkpoints(folder), name)
    return Stalls(customers, stalls, ahead, durable, written, held, time.perf_counter() - begun_s)
