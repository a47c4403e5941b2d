"""One window of the run: plan the calls, let trouble strike, let people dial again."""

import numpy as np

from bench.simulator.columns import UNKNOWN, Columns, Ints, generator, height, join, mix, take
from bench.simulator.endings import BUSY
from bench.simulator.media import add_media
from bench.simulator.schedule import Schedule
from bench.simulator.traffic import add_trouble_columns, draw_talk, plan_calls
from bench.simulator.trouble import strike
from bench.simulator.world import World

REDIAL_WAVES = 3
"""After so many attempts in a row people give up."""


class Exchange:
    """Runs the telco window by window.

    Remembers between windows only what a line must know (when its last call ended) and how many calls have been.
    """

    def __init__(self, world: World, schedule: Schedule) -> None:
        self._world = world
        self._schedule = schedule
        self._line_free_ms: Ints = np.zeros(int(world.customers.channels.sum()), dtype=np.int64)
        self._calls = 0

    def run(self, window: tuple[int, int]) -> Columns:
        """Return the calls that begin in a window, and their redials, in no particular order."""
        world, schedule = self._world, self._schedule
        rng = generator(world.spec.seed, 10, window[0])
        waves = [plan_calls(world, schedule, window, self._line_free_ms, rng)]
        strike(world, schedule, waves[0], rng)
        for _ in range(REDIAL_WAVES):
            again = _redials(world, waves[-1], rng)
            if height(again) == 0:
                break
            strike(world, schedule, again, rng)
            waves.append(again)
        calls = join([*waves, *[_crossed(wave, rng) for wave in waves]])
        return self._finish(calls, rng)

    def _finish(self, calls: Columns, rng: np.random.Generator) -> Columns:
        add_media(self._world, self._schedule.probe_faults, calls, rng)
        np.maximum.at(self._line_free_ms, calls["line"], calls["end_ms"])
        serial = self._calls + np.arange(height(calls))
        calls["call"] = mix(serial, self._world.spec.seed + 13)
        self._calls += height(calls)
        return calls


def _redials(world: World, calls: Columns, rng: np.random.Generator) -> Columns:
    """Let the cut-off dial again within a minute, if the line's next call leaves time."""
    gap_ms = rng.integers(3_000, 55_000, height(calls))
    start_ms = calls["end_ms"] + gap_ms
    wants = (rng.random(height(calls)) < calls["redial_chance"]) & (start_ms < calls["limit_ms"] - 8_000)
    rows = np.flatnonzero(wants)
    again = take(calls, rows)
    again["start_ms"] = start_ms[rows]
    add_trouble_columns(again)
    draw_talk(again, world, rng)
    again["limit_ms"] = calls["limit_ms"][rows]
    calls["limit_ms"][rows] = again["start_ms"]
    _end_by(again, again["limit_ms"] - 1_000)
    again["outbound"] = np.ones(len(rows), dtype=bool)
    return again


def _end_by(calls: Columns, latest_ms: Ints) -> None:
    """Shorten calls that would run into the line's next one."""
    calls["end_ms"] = np.minimum(calls["end_ms"], latest_ms)
    calls["answer_ms"] = np.minimum(calls["answer_ms"], calls["end_ms"] - 1)


def _crossed(calls: Columns, rng: np.random.Generator) -> Columns:
    """Let the far end of cut calls dial too: while the customer redials, it meets a busy line."""
    crossed = take(calls, calls["mutual"])
    crossed["start_ms"] = crossed["end_ms"] + rng.integers(4_000, 25_000, height(crossed))
    add_trouble_columns(crossed)
    n = height(crossed)
    crossed["answer_ms"] = np.full(n, UNKNOWN)
    crossed["end_ms"] = crossed["start_ms"] + rng.integers(300, 3_000, n)
    crossed["ending"] = np.full(n, BUSY)
    crossed["outbound"] = np.zeros(n, dtype=bool)
    return crossed
