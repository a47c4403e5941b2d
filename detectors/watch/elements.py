"""What a call tells of its elements, and what their open incidents tell of it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.elements import (
    E_DROP,
    E_QUALITY,
    E_SETUP,
    LOG_KEPT,
    RECOVERED_DAYS,
    Network,
    days_since,
    element_accrue,
    element_observe,
    element_recover,
    element_total,
)
from detectors.evidence import LOW_DAYS, QUIET_CALLS
from detectors.history import BAD, ELEMENTS, OF_LINE
from detectors.roster import CASE
from detectors.watch.signs import drop_for_now
from detectors.watch.world import Calls, Limits, Scratch, World
from schemas.kernels import inlined

SPEAK_AGAIN_MS = 3_600_000
"""A customer speaks against an element once an hour."""
INSIDE, MUTED = 1, 2
"""What runs through an open incident: a call of its customers, or one that a lying probe has rated."""
PROBE = ELEMENTS.index("probe")
_LINE = np.array([ELEMENTS.index(kind) for kind in OF_LINE])
SERIAL_BITS = 21
"""What a line hangs on is kept in one number: so many bits a serial, which is one more there, and 0 if never told."""


@inlined
def complete_line(customer: Any, calls: Calls, i: int) -> None:
    """Give a call that does not tell what its line hangs on what the customer's last one that told did.

    Records of one switch or probe may hold it and those of another not: an outage would then seem to be the trouble
    of those customers alone whose calls went by the other.

    Args:
        customer: the row; what the call tells is kept in it.
        calls, i: the call; its elements are changed in place.
    """
    known, line = customer["line"], 0
    for k in range(len(_LINE)):
        if calls.elements[i, _LINE[k]] < 0:
            calls.elements[i, _LINE[k]] = ((known >> (SERIAL_BITS * k)) & (2**SERIAL_BITS - 1)) - 1
        line |= (calls.elements[i, _LINE[k]] + 1) << (SERIAL_BITS * k)
    customer["line"] = line


@inlined
def incident_state(network: Network, calls: Calls, i: int) -> int:
    """Return what open incidents a call runs through: 0 none, INSIDE, MUTED (only a lying probe's) or both bits."""
    state = 0
    for e in range(len(ELEMENTS)):
        serial = calls.elements[i, e]
        if serial >= 0 and network.elements[serial]["incident"] > 0:
            if e == PROBE and network.elements[serial]["channel"] == E_QUALITY:
                state |= MUTED
            else:
                state |= INSIDE
    return state


@inlined
def _count_call(one: npt.NDArray[np.void], calls: Calls, i: int, poor: float) -> None:
    answered = calls.answer_ms[i] >= 0
    one["attempts"] += 1
    one["answered"] += answered
    one["drops"] += answered and calls.drop[i] >= BAD
    one["failures"] += calls.setup[i] >= BAD
    one["rated"] += poor >= 0.0
    one["poor"] += poor >= BAD


@inlined
def _follow_incident(one: Any, note: Any, calls: Calls, i: int, poor: float, state: int) -> bool:
    """Let an open incident see one of its calls; return whether it is over."""
    _count_call(one, calls, i, poor)
    x = poor
    if one["channel"] == E_DROP:
        x = float(calls.drop[i]) if calls.answer_ms[i] >= 0 else -1.0
    elif one["channel"] == E_SETUP:
        x = float(calls.setup[i]) if calls.answer_ms[i] < 0 else -1.0
    if x < 0.0:
        return False
    if x >= BAD and note["incident"] != one["incident"] and not state & MUTED:
        note["incident"] = one["incident"]
        one["customers"] += 1
    return element_recover(one, x, days_since(one, one["channel"], calls.end_ms[i])) >= RECOVERED_DAYS


@inlined
def _show(one: Any, channel: int, usual: npt.NDArray[np.float64], x: float, end_ms: int) -> tuple[float, float]:
    """Let an element see a call in one channel; return (its evidence there, days since it was last seen there)."""
    days = element_accrue(one, channel, end_ms)
    return element_observe(one, channel, x, days, usual[channel]), days


@inlined
def _judge_element(one: Any, usual: npt.NDArray[np.float64], calls: Calls, i: int, poor: float, limits: Limits) -> bool:
    """Move one element's evidence by one call; return whether it must be looked at."""
    bad = poor >= BAD
    if calls.answer_ms[i] >= 0:
        bad |= calls.drop[i] >= BAD
        value, days = _show(one, E_DROP, usual, drop_for_now(calls, i), calls.end_ms[i])
        value = max(value, element_total(one, E_SETUP))
    else:
        bad |= calls.setup[i] >= BAD
        value, days = _show(one, E_SETUP, usual, float(calls.setup[i]), calls.end_ms[i])
        value = max(value, element_total(one, E_DROP))
    if poor >= 0.0:
        heard, heard_days = _show(one, E_QUALITY, usual, poor, calls.end_ms[i])
        value, days = max(value, heard), max(days, heard_days)
    else:
        value = max(value, element_total(one, E_QUALITY))
    if value < max(LOW_DAYS, QUIET_CALLS * days):
        if one["since_ms"] >= 0:
            one["since_ms"] = -1
            one["attempts"], one["answered"], one["drops"], one["failures"] = 0, 0, 0, 0
            one["rated"], one["poor"] = 0, 0
    elif bad and one["since_ms"] < 0:
        one["since_ms"] = calls.end_ms[i]
    return bad and value >= limits.element_days


@inlined
def watch_elements(
    world: World, row: int, calls: Calls, i: int, poor: float, state: int, limits: Limits, scratch: Scratch
) -> None:
    """Let a call's elements see it. Inside an open incident only the elements that have one do."""
    customer = world.book.rows[row]
    note = world.notes.items[customer["note"]]
    lately = note["last_bad_ms"] >= 0 and calls.end_ms[i] - note["last_bad_ms"] < SPEAK_AGAIN_MS
    # A line that is known to be bad by itself blames nobody else; one whose case waits may be the fault's.
    speaks = customer["mode"] != CASE and not lately and not state & INSIDE
    for e in range(len(ELEMENTS)):
        serial = calls.elements[i, e]
        if serial < 0:
            continue
        one = world.network.elements[serial]
        look = False
        if one["incident"] > 0:
            look = _follow_incident(one, note, calls, i, poor, state)
        elif not state & INSIDE:
            heard = -1.0 if state & MUTED else poor
            look = speaks and _judge_element(one, world.network.usual[e], calls, i, heard, limits)
            # Counts are of the trouble alone: most elements have none.
            if one["since_ms"] >= 0:
                _count_call(one, calls, i, poor)
        if look:
            scratch.alarms[scratch.tally[1]] = serial
            scratch.tally[1] += 1


@inlined
def log_bad_call(world: World, calls: Calls, i: int, poor: float) -> None:
    """Keep a bad call where blame is laid between elements."""
    entry = world.network.log[world.network.tally[0] % LOG_KEPT]
    world.network.tally[0] += 1
    entry["end_ms"] = calls.end_ms[i]
    entry["key"] = calls.customer[i]
    entry["signs"][E_DROP] = calls.drop[i] if calls.answer_ms[i] >= 0 else np.float32(0.0)
    entry["signs"][E_QUALITY] = np.float32(poor)
    entry["signs"][E_SETUP] = calls.setup[i] if calls.answer_ms[i] < 0 else np.float32(0.0)
    for e in range(len(ELEMENTS)):
        entry["elements"][e] = calls.elements[i, e]
