"""What trouble does to calls: outages first, then the customer's own fault, then the everyday drops."""

from collections.abc import Callable

import numpy as np

from bench.simulator.columns import UNKNOWN, Bools, Columns, Floats, Ints, height, take
from bench.simulator.endings import NORMAL, ODD, ODD_SHARE, any_hard, cut_mixed, fail_setup, lose_bye
from bench.simulator.schedule import PATTERNS, ROUTE_COLUMNS, Outage, Schedule
from bench.simulator.spec import DAY_MS, HOUR_MS
from bench.simulator.world import World
from schemas.alerts import PatternKind

RAMP_DAYS = 5.0
"""A worsening fault reaches its full rate after this time."""
SILENT_OUTAGE_SHARE = 0.25
SILENT_BASE_SHARE = 0.3

Spoiler = Callable[[Columns, Ints, Columns, np.random.Generator], Ints]
"""Spoils some of the calls `rows` in place and returns which; the third argument holds the fault's terms, one
entry for each of `rows`."""


def strike(world: World, schedule: Schedule, calls: Columns, rng: np.random.Generator) -> None:
    """Spoil what is to be spoiled, in place: ends, causes, silence, added loss, and who is to blame."""
    for index, outage in enumerate(schedule.outages):
        _strike_outage(calls, index, outage, rng)
    if schedule.faults:
        _strike_faults(schedule, calls, rng)
    _strike_everyday(world, calls, rng)


def _strike_outage(calls: Columns, index: int, outage: Outage, rng: np.random.Generator) -> None:
    """Drop calls that meet a broken element; those up when it breaks go down together."""
    met = touched(calls, outage) & (calls["answer_ms"] >= 0) & ~calls["spoiled"]
    met &= calls["answer_ms"] < outage.end_ms
    rows = np.flatnonzero(met)
    rows = rows[rng.random(len(rows)) < outage.severity]
    silent_share = np.full(len(rows), SILENT_OUTAGE_SHARE)
    cut_mixed(calls, rows, np.full(len(rows), outage.ending), silent_share, rng)
    early = rows[calls["end_ms"][rows] < outage.start_ms]
    calls["end_ms"][early] = outage.start_ms + rng.integers(0, 2_000, len(early))
    late = rows[calls["end_ms"][rows] >= outage.end_ms]
    last_ms = outage.end_ms - rng.integers(1, 60_000, len(late))
    calls["end_ms"][late] = np.maximum(last_ms, calls["answer_ms"][late] + 1)
    _blame(calls, rows, "outage", index)


def touched(calls: Columns, outage: Outage) -> Bools:
    """Mark the calls that use an outage's element while it lasts."""
    meets = (calls[outage.column] == outage.code) & (calls["start_ms"] < outage.end_ms)
    return np.asarray(meets & (calls["end_ms"] > outage.start_ms))


def _blame(calls: Columns, rows: Ints, culprit: str, index: Ints | int) -> None:
    calls[culprit][rows] = index
    calls["spoiled"][rows] = True


def _strike_faults(schedule: Schedule, calls: Columns, rng: np.random.Generator) -> None:
    """Let each customer's own fault spoil calls that no outage has spoiled."""
    fault = schedule.fault_of[calls["customer"]]
    rows = np.flatnonzero((fault >= 0) & ~calls["spoiled"])
    terms, start_ms = take(schedule.table, fault[rows]), calls["start_ms"][rows]
    active = (start_ms >= terms["start_ms"]) & (start_ms < terms["end_ms"])
    rows, terms = rows[active], take(terms, active)
    for code, pattern in enumerate(PATTERNS):
        mine = terms["pattern"] == code
        if mine.any():
            hit = _SPOILERS[pattern](calls, rows[mine], take(terms, mine), rng)
            _blame(calls, hit, "fault", fault[hit])


def _strike_everyday(world: World, calls: Columns, rng: np.random.Generator) -> None:
    """Let the everyday happen: base drops, odd words for normal ends, calls on hold or muted, lost BYEs."""
    n, quiet = height(calls), (calls["answer_ms"] >= 0) & ~calls["spoiled"] & (calls["ending"] == NORMAL)
    unlucky = quiet & (rng.random(n) < world.customers.drop_ratio[calls["customer"]])
    rows = np.flatnonzero(unlucky)
    cut_mixed(calls, rows, any_hard(len(rows), rng), np.full(len(rows), SILENT_BASE_SHARE), rng)
    quiet &= ~unlucky
    odd = np.flatnonzero(quiet & (rng.random(n) < 0.15))
    calls["ending"][odd] = ODD + rng.choice(len(ODD_SHARE), len(odd), p=ODD_SHARE)
    lose_bye(calls, np.flatnonzero(quiet & (rng.random(n) < 0.0005)), rng)
    held = np.flatnonzero(quiet & (calls["silence_ms"] == UNKNOWN) & (rng.random(n) < 0.015))
    talk_ms = calls["end_ms"][held] - calls["answer_ms"][held]
    calls["silence_ms"][held] = np.minimum(rng.uniform(2_000, 9_000, len(held)), 0.5 * talk_ms).astype(np.int64)


def _answered(calls: Columns, rows: Ints, terms: Columns) -> tuple[Ints, Columns]:
    up = calls["answer_ms"][rows] >= 0
    return rows[up], take(terms, up)


def _lucky_out(rows: Ints, terms: Columns, rng: np.random.Generator) -> tuple[Ints, Columns]:
    """Keep each call with its fault's `rate`."""
    hit = rng.random(len(rows)) < terms["rate"]
    return rows[hit], take(terms, hit)


def _drop_rate(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    rows, terms = _lucky_out(*_answered(calls, rows, terms), rng)
    cut_mixed(calls, rows, terms["ending"], terms["silent_share"], rng)
    return rows


def _worsening(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    """Drop at a rate that climbs from nothing to the fault's over `RAMP_DAYS`."""
    climbed = (calls["start_ms"][rows] - terms["start_ms"]) / (RAMP_DAYS * DAY_MS)
    return _drop_rate(calls, rows, terms | {"rate": terms["rate"] * np.minimum(climbed, 1.0)}, rng)


def _duration_lock(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    """Cut what lasts too long at the timer, media good until then; half of the timers look like a hang-up."""
    rows, terms = _lucky_out(*_answered(calls, rows, terms), rng)
    lock_ms = terms["lock_ms"] + rng.normal(0.0, 250.0, len(rows)).astype(np.int64)
    long = calls["end_ms"][rows] - calls["answer_ms"][rows] > lock_ms
    rows, lock_ms, ending = rows[long], lock_ms[long], terms["ending"][long]
    calls["end_ms"][rows] = calls["answer_ms"][rows] + lock_ms
    calls["ending"][rows] = np.where(ending == UNKNOWN, ODD, ending)
    calls["silence_ms"][rows] = rng.integers(0, 200, len(rows))
    calls["redial_chance"][rows] = 0.6
    return rows


def _time_of_day(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    """In the window every call suffers a little; some drop, and some are hardly intelligible."""
    hour = (calls["start_ms"][rows] // HOUR_MS) % 24
    inside = (hour - terms["first_hour"]) % 24 < terms["hours"]
    rows, terms = _answered(calls, rows[inside], take(terms, inside))
    _degrade(calls, rows, rng.uniform(0.005, 0.03, len(rows)), rng)
    rows, terms = _lucky_out(rows, terms, rng)
    drops = rng.random(len(rows)) < 0.75
    cut_mixed(calls, rows[drops], terms["ending"][drops], terms["silent_share"][drops], rng)
    _degrade(calls, rows[~drops], rng.uniform(0.06, 0.15, int((~drops).sum())), rng)
    return rows


def _route(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    values = np.stack([calls[name][rows] for name in ROUTE_COLUMNS])
    there = values[terms["column"], np.arange(len(rows))] == terms["code"]
    return _drop_rate(calls, rows[there], take(terms, there), rng)


def _one_way_audio(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    """Let the customer hear nothing, say hello for 5 to 20 s, hang up and try again."""
    rows, terms = _lucky_out(*_answered(calls, rows, terms), rng)
    heard_ms = rng.uniform(5_000, 20_000, len(rows)).astype(np.int64)
    room_ms = calls["limit_ms"][rows] - calls["answer_ms"][rows] - 500
    talk_ms = np.maximum(np.minimum(heard_ms, room_ms), 1_000)
    calls["end_ms"][rows] = calls["answer_ms"][rows] + talk_ms
    calls["silence_ms"][rows] = talk_ms
    calls["deaf"][rows] = True
    calls["ending"][rows] = NORMAL
    calls["redial_chance"][rows] = 0.75
    return rows


def _redial(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    """End calls after seconds, by a hang-up like any other; only the redials of both sides tell."""
    rows, terms = _lucky_out(*_answered(calls, rows, terms), rng)
    talk_ms = np.minimum(calls["end_ms"][rows] - calls["answer_ms"][rows], rng.integers(4_000, 45_000, len(rows)))
    calls["end_ms"][rows] = calls["answer_ms"][rows] + talk_ms
    calls["redial_chance"][rows] = 0.9
    calls["mutual"][rows] = rng.random(len(rows)) < 0.5
    return rows


def _quality(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    rows, terms = _lucky_out(*_answered(calls, rows, terms), rng)
    _degrade(calls, rows, rng.uniform(0.03, 0.15, len(rows)), rng)
    return rows


def _setup_failure(calls: Columns, rows: Ints, terms: Columns, rng: np.random.Generator) -> Ints:
    rows, terms = _lucky_out(rows, terms, rng)
    fail_setup(calls, rows, terms["ending"], rng)
    return rows


def _degrade(calls: Columns, rows: Ints, loss: Floats, rng: np.random.Generator) -> None:
    """Add loss in bursts, and jitter that grows with it."""
    calls["loss_added"][rows] = loss
    calls["burst_added"][rows] = rng.uniform(0.2, 2.5, len(rows))
    calls["jitter_added"][rows] = loss * 300.0 * rng.uniform(0.5, 1.5, len(rows))


_SPOILERS: dict[PatternKind, Spoiler] = {
    "drop_rate": _drop_rate,
    "duration_lock": _duration_lock,
    "time_of_day": _time_of_day,
    "route": _route,
    "one_way_audio": _one_way_audio,
    "redial": _redial,
    "quality": _quality,
    "setup_failure": _setup_failure,
    "worsening": _worsening,
}
