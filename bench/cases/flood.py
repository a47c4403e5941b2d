"""A flood of strangers: distinct unknown customers within a minute of event time, ten times as many as fit."""

import time
from pathlib import Path

import numpy as np
from msgspec import Struct

from bench.cases.common import Bench, from_file, new_engine, parse, run_flow, run_flow_durably
from bench.cases.synthetic import BEGIN_MS, CHUNK_CALLS, everybody
from bench.harness import isolated, peak_bytes, resident_bytes
from schemas.alerts import Notification

MINUTE_MS = 60_000
FIT_RATIO = 0.1
"""So many of them fit."""


class Flooded(Struct, frozen=True):
    """What a flood did.

    Attributes:
        seconds: it took.
        before_bytes, peak_bytes: memory of the process before it, and at the most.
        evicted: customers that made room for others.
        resident: customers at the end.
    """

    seconds: float
    before_bytes: int
    peak_bytes: int
    evicted: int
    resident: int
    told: int


def flood_of_strangers(bench: Bench) -> None:
    """Run the flow, with checkpoints, over a flood of strangers in a process of its own."""
    strangers = bench.options.strangers
    customers_max = max(1, int(strangers * FIT_RATIO))
    path = bench.folder / "flood.ndjson"
    orjson_s = _write(path, strangers)
    found = isolated(drown, path, customers_max, bench.folder)
    path.unlink()
    bench.report.record("flood", strangers=strangers, customers_max=customers_max, orjson_s=orjson_s, flooded=found)
    bench.report.row(
        {
            "strangers in a minute": f"{strangers:,}",
            "fit": f"{customers_max:,}",
            "evicted": f"{found.evicted:,}",
            "peak MB": f"{found.peak_bytes / 1e6:,.0f}",
            "MB before": f"{found.before_bytes / 1e6:,.0f}",
            "events/s": f"{strangers / found.seconds:,.0f}",
            "orjson/s": f"{strangers / orjson_s:,.0f}",
            "x orjson": f"{orjson_s / found.seconds:.2f}",
        }
    )


def _write(path: Path, strangers: int) -> float:
    """Write the flood; return how long `orjson.loads` took over it."""
    spent_s = 0.0
    with path.open("wb") as stream:
        for chunk in everybody(strangers, BEGIN_MS, MINUTE_MS, np.random.default_rng(1)):
            stream.write(chunk)
            lines = chunk.splitlines()
            begun = time.perf_counter()
            parse(lines)
            spent_s += time.perf_counter() - begun
    return spent_s


def drown(path: Path, customers_max: int, folder: Path) -> Flooded:
    """Run the flow over a file; return what it took and held."""
    # Compiled code and the engine are loaded first: they are not the flood's.
    few = folder / "few.ndjson"
    few.write_bytes(next(everybody(CHUNK_CALLS, BEGIN_MS, MINUTE_MS, np.random.default_rng(2))))
    run_flow(from_file(few), new_engine())
    engine = new_engine(customers_max)
    told: list[Notification] = []
    before = resident_bytes()
    begun = time.perf_counter()
    run_flow_durably(from_file(path), engine, folder, told.extend)
    seconds = time.perf_counter() - begun
    return Flooded(
        seconds, before, peak_bytes(), engine.memory.roster.evicted_count, len(engine.memory.roster), len(told)
    )
