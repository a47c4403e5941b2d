"""The road from the call to the file: duplicates, delays, late records, broken ones; then the order of arrival."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bench.simulator.columns import NEVER_MS, UNKNOWN, Columns, Ints, height, join, take
from bench.simulator.records import BREAKS, CallWriter
from bench.simulator.spec import HOUR_MS, LATENESS_MS, MINUTE_MS, TelcoSpec
from bench.simulator.world import PROBES, World

BLOCK_LINES = 20_000
"""Lines written at a time: bounds the memory that the text takes."""


@dataclass(slots=True)
class Counts:
    """What went into the event file."""

    events: int = 0
    calls: int = 0
    duplicates: int = 0
    late: int = 0
    broken: int = 0


def travel(spec: TelcoSpec, calls: Columns, counts: Counts, rng: np.random.Generator) -> Columns:
    """Add duplicates and broken copies, and say when each record arrives (`arrival_ms`)."""
    n = height(calls)
    calls["broken"] = np.full(n, UNKNOWN)
    calls["arrival_ms"] = calls["end_ms"] + _delays_ms(spec, n, rng)
    copies = _second_views(take(calls, rng.random(n) < spec.duplicate_ratio), rng)
    wrecks = take(calls, rng.random(n) < spec.broken_ratio)
    wrecks["broken"] = rng.integers(0, BREAKS, height(wrecks))
    wrecks["arrival_ms"] = wrecks["arrival_ms"] + rng.integers(0, MINUTE_MS, height(wrecks))
    counts.calls += n
    counts.duplicates += height(copies)
    counts.broken += height(wrecks)
    whole = join([calls, copies])
    counts.late += int((whole["arrival_ms"] - whole["end_ms"] > LATENESS_MS).sum())
    return join([whole, wrecks])


def _delays_ms(spec: TelcoSpec, n: int, rng: np.random.Generator) -> Ints:
    """Delay most records by seconds, up to a minute; late ones by five minutes to twelve hours."""
    usual = np.minimum(rng.exponential(5_000.0, n), MINUTE_MS)
    late = LATENESS_MS + 1 + np.minimum(rng.exponential(1.5 * HOUR_MS, n), 12 * HOUR_MS)
    return np.where(rng.random(n) < spec.late_ratio, late, usual).astype(np.int64)


def _second_views(copies: Columns, rng: np.random.Generator) -> Columns:
    """Let another probe report the same calls, its clock up to two seconds off, some seconds later."""
    n = height(copies)
    begun_ms = np.maximum(copies["start_ms"], copies["answer_ms"])
    copies["end_ms"] = np.maximum(copies["end_ms"] + rng.integers(-2_000, 2_001, n), begun_ms)
    copies["probe"] = (copies["probe"] + rng.integers(1, len(PROBES), n)) % len(PROBES)
    copies["arrival_ms"] = np.maximum(copies["arrival_ms"], copies["end_ms"]) + rng.integers(1_000, 40_000, n)
    return copies


class Outbox:
    """Holds records until they arrive, and gives them out in the order of arrival.

    Args:
        world: names the records.
        order: the column that orders calls: `arrival_ms`, or `end_ms` for event time.
    """

    def __init__(self, world: World, order: str = "arrival_ms") -> None:
        self._writer = CallWriter(world)
        self._order = order
        self._calls: list[Columns] = []
        self._others: list[tuple[int, bytes]] = []

    def put(self, calls: Columns, others: list[tuple[int, bytes]]) -> None:
        """Take in calls, and the lines of other events with the moment each arrives."""
        self._calls.append(calls)
        self._others += others

    def release(self, before_ms: int = NEVER_MS) -> Iterator[tuple[Ints, list[bytes]]]:
        """Give out, in blocks, what arrives before a moment: the times, and the lines without line ends."""
        if not self._calls:
            return
        calls = join(self._calls)
        due = calls[self._order] < before_ms
        self._calls = [take(calls, ~due)]
        calls = take(calls, due)
        others = [item for item in self._others if item[0] < before_ms]
        self._others = [item for item in self._others if item[0] >= before_ms]
        times: Ints = np.concatenate([calls[self._order], np.array([at_ms for at_ms, _ in others], dtype=np.int64)])
        order = np.argsort(times, kind="stable")
        for begin in range(0, len(order), BLOCK_LINES):
            block = order[begin : begin + BLOCK_LINES]
            yield times[block], self._write(calls, others, block)

    def _write(self, calls: Columns, others: list[tuple[int, bytes]], block: Ints) -> list[bytes]:
        n = height(calls)
        is_call = block < n
        text = iter(self._writer.lines(take(calls, block[is_call])))
        return [next(text) if row < n else others[row - n][1] for row in block.tolist()]
