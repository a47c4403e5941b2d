"""A whole run, day by day, into two files."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from bench.simulator.arrivals import Counts, Outbox, travel
from bench.simulator.columns import NEVER_MS, Columns, generator
from bench.simulator.faults import draw_faults
from bench.simulator.outages import draw_liars, draw_outages, draw_rollout
from bench.simulator.relations import Relations, business_events, draw_relations
from bench.simulator.schedule import Schedule, end_with_leavers, make_schedule
from bench.simulator.spec import DAY_MS, HOUR_MS, SimulationSummary, TelcoSpec
from bench.simulator.telemetry import link_readings, media_reports
from bench.simulator.traffic import day_windows
from bench.simulator.truth import Ledger
from bench.simulator.window import Exchange
from bench.simulator.world import World, build_world

CUSTOMERS_A_DAY_MAX = 50_000
"""A larger telco runs by the hour, so that memory holds an hour's calls and not a day's."""
EVENTS_NAME, TRUTH_NAME = "events.ndjson", "truth.ndjson"


@dataclass(frozen=True, slots=True)
class Telco:
    """A world, its trouble, and its business side."""

    world: World
    schedule: Schedule
    relations: Relations


def found(world: World, schedule: Schedule) -> Telco:
    """Add the business side to a world and its trouble: who leaves, and so whose trouble ends."""
    relations = draw_relations(world, schedule)
    return Telco(world, end_with_leavers(schedule, relations.left_ms), relations)


def draw_telco(spec: TelcoSpec) -> Telco:
    """Draw everything about a spec's telco that is fixed before its first call."""
    world = build_world(spec)
    rollout, firmware_ms = draw_rollout(world)
    outages = [*draw_outages(world), *rollout]
    return found(world, make_schedule(draw_faults(world), outages, draw_liars(world), firmware_ms))


def other_events(
    telco: Telco, calls: Columns, window: tuple[int, int], rng: np.random.Generator
) -> list[tuple[int, bytes]]:
    """Write everything of a window that is not a call: event times and lines."""
    world = telco.world
    events = chain(
        business_events(world, telco.relations, window),
        media_reports(world, calls, rng),
        link_readings(world, telco.schedule, window),
    )
    return [(event["at_ms"], orjson.dumps(event)) for event in events]


def simulate(spec: TelcoSpec, out: Path, progress: Callable[[int, int], None] | None = None) -> SimulationSummary:
    """Simulate a telco into `events.ndjson` (in the order of arrival) and `truth.ndjson`.

    Both files appear whole or not at all. The same spec gives the same bytes.

    Args:
        spec: the telco.
        out: the directory, made if need be.
        progress: called after each day with the days done and the days in all.

    Raises:
        OSError: if the files cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    telco, counts = draw_telco(spec), Counts()
    ledger = Ledger(telco.world, telco.schedule)
    with _atomic(out / EVENTS_NAME) as file:
        for until_ms, blocks in _windows(telco, ledger, counts):
            for lines in blocks:
                counts.events += len(lines)
                file.write(b"\n".join(lines) + b"\n")
            days, rest_ms = divmod(until_ms - spec.start_ms, DAY_MS)
            if progress is not None and rest_ms == 0:
                progress(days, spec.days)
        event_bytes = file.tell()
    with _atomic(out / TRUTH_NAME) as file:
        file.write(b"\n".join(ledger.lines(counts)) + b"\n")
    return SimulationSummary(
        events_path=out / EVENTS_NAME,
        truth_path=out / TRUTH_NAME,
        events=counts.events,
        calls=counts.calls,
        duplicates=counts.duplicates,
        late=counts.late,
        broken=counts.broken,
        faults=len(telco.schedule.faults),
        outages=len(telco.schedule.outages),
        event_bytes=event_bytes,
    )


def _windows(telco: Telco, ledger: Ledger, counts: Counts) -> Iterator[tuple[int, Iterator[list[bytes]]]]:
    """Run the telco: each window's end, and the blocks of lines that arrive in it; the last takes what is late."""
    world, spec = telco.world, telco.world.spec
    exchange, outbox = Exchange(world, telco.schedule), Outbox(world)
    step_ms = DAY_MS if spec.customers <= CUSTOMERS_A_DAY_MAX else HOUR_MS
    for window in day_windows(spec.start_ms, spec.end_ms, step_ms):
        rng = generator(spec.seed, 20, window[0])
        calls = exchange.run(window)
        ledger.note(calls)
        events = other_events(telco, calls, window, rng)
        delays_ms = rng.exponential(2_000.0, len(events)).astype(np.int64).tolist()
        arrivals = [(at_ms + delay_ms, line) for (at_ms, line), delay_ms in zip(events, delays_ms, strict=True)]
        outbox.put(travel(spec, calls, counts, rng), arrivals)
        before_ms = NEVER_MS if window[1] == spec.end_ms else window[1]
        yield window[1], (lines for _, lines in outbox.release(before_ms))


@contextmanager
def _atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when it is whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
