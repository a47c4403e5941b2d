"""What will go wrong, for whom, when: fixed before the first call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from bench.simulator.columns import NEVER_MS, UNKNOWN, Columns, Ints
from schemas.alerts import PatternKind

PATTERNS: tuple[PatternKind, ...] = get_args(PatternKind)
ROUTE_COLUMNS = ("trunk", "codec", "sbc", "peer")
"""The columns of a call that a `route` fault can live in."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Trouble of one customer alone.

    Attributes:
        rate: chance that a call which could be spoiled is.
        ending: index into `ENDINGS` of this fault's usual abnormal end; UNKNOWN: its ends look normal.
        silent_share: share of its drops that show as silence only.
        lock_ms: for `duration_lock`: the timer.
        first_hour, hours: for `time_of_day`: the window, in UTC hours of the day.
        column, code: for `route`: one of `ROUTE_COLUMNS`, and the value there.
        dimension: name and value for people, where the pattern lives in one.
    """

    customer: int
    pattern: PatternKind
    start_ms: int
    end_ms: int
    cause: str
    rate: float
    ending: int = UNKNOWN
    silent_share: float = 0.0
    lock_ms: int = 0
    first_hour: int = 0
    hours: int = 24
    column: str = ROUTE_COLUMNS[0]
    code: int = 0
    dimension: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Outage:
    """Trouble of one shared element: of the answered calls that meet it, `severity` (0..1) drop."""

    element_kind: str
    element_id: str
    column: str
    code: int
    start_ms: int
    end_ms: int
    severity: float
    ending: int


@dataclass(frozen=True, slots=True)
class ProbeFault:
    """A probe that reports terrible media while the calls are fine."""

    probe: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """All trouble of a run.

    Attributes:
        fault_of: per customer: index into `faults`, or UNKNOWN.
        table: the faults as columns, one entry a fault; `pattern` and `column` are indices into
            `PATTERNS` and `ROUTE_COLUMNS`.
        firmware_ms: per customer: when the bad firmware came; NEVER_MS for most.
        left_ms: per customer: when the customer left; NEVER_MS for most.
    """

    faults: tuple[Fault, ...]
    outages: tuple[Outage, ...]
    probe_faults: tuple[ProbeFault, ...]
    fault_of: Ints
    table: Columns
    firmware_ms: Ints
    left_ms: Ints


def make_schedule(
    faults: Sequence[Fault],
    outages: Sequence[Outage],
    probe_faults: Sequence[ProbeFault],
    firmware_ms: Ints,
) -> Schedule:
    """Index the faults by customer and turn their numbers into columns; nobody leaves yet."""
    fault_of = np.full(len(firmware_ms), UNKNOWN)
    for index, fault in enumerate(faults):
        fault_of[fault.customer] = index
    whole = ("customer", "start_ms", "end_ms", "ending", "lock_ms", "first_hour", "hours", "code")
    table: Columns = {name: np.array([getattr(f, name) for f in faults], dtype=np.int64) for name in whole}
    for name in ("rate", "silent_share"):
        table[name] = np.array([getattr(fault, name) for fault in faults], dtype=np.float64)
    table["pattern"] = np.array([PATTERNS.index(fault.pattern) for fault in faults], dtype=np.int64)
    table["column"] = np.array([ROUTE_COLUMNS.index(fault.column) for fault in faults], dtype=np.int64)
    left_ms = np.full(len(firmware_ms), NEVER_MS)
    return Schedule(tuple(faults), tuple(outages), tuple(probe_faults), fault_of, table, firmware_ms, left_ms)


def end_with_leavers(schedule: Schedule, left_ms: Ints) -> Schedule:
    """Let customers leave: a fault ends with its customer."""
    faults = [
        replace(fault, end_ms=max(fault.start_ms, min(fault.end_ms, int(left_ms[fault.customer]))))
        for fault in schedule.faults
    ]
    ended = make_schedule(faults, schedule.outages, schedule.probe_faults, schedule.firmware_ms)
    return replace(ended, left_ms=left_ms)
