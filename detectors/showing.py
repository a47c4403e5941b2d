"""One customer's recent calls as others see them: patterns as a `View`, alerts as a list of calls."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.casebook import CALLS_SHOWN
from detectors.emodel import mos_of
from detectors.history import ANSWERED, BAD, BAD_KEPT, ELEMENTS, LOCKED, ONE_WAY, POOR, REDIALLED, Histories
from detectors.memory import Memory
from detectors.patterns import View, fill, space
from detectors.release import Outcome
from schemas.alerts import CallEvidence, GoodCall


def view_of(memory: Memory, row: int, now_ms: int) -> View:
    """Return what patterns are read from.

    Args:
        memory: everything that is known.
        row: of a customer who has a history.
        now_ms: event time.
    """
    note = memory.note_of(memory.row(row))
    since_ms = int(note["since_ms"])
    held = memory.histories.shelf.items[note["history"]]
    kept = space(memory.zone.ahead_min)
    bad, good = fill(kept, held, since_ms)
    return View(
        bad=kept.bad[:bad],
        good=kept.good[:good],
        since_ms=since_ms,
        now_ms=now_ms,
        day_calls=kept.day_calls,
        day_bad=kept.day_bad,
        habit=kept.habit,
        names=_Names(memory),
        zone=memory.zone,
        **memory.histories.counts(int(note["history"])),
    )


def shown_calls(histories: Histories, history: int, since_ms: int) -> list[CallEvidence]:
    """Return a history's bad calls since a time, oldest first, as an alert shows them."""
    calls, ids = histories.bad_calls(history)
    return [_shown(one, name) for one, name in zip(_told_of(calls), ids, strict=True) if one.end_ms >= since_ms]


def bad_shown(histories: Histories, history: int, until: int, count: int = 1) -> list[CallEvidence]:
    """Return some of a history's bad calls, oldest first, as an alert shows them.

    Args:
        histories: all of them.
        history: place of the one.
        until: the number of the last of them, of all bad calls ever written: the newest has the number `bad_count`.
        count: how many; the history must still hold them.
    """
    places = [number % BAD_KEPT for number in range(until - count, until)]
    calls, ids = histories.shelf.items[history]["bad"], histories.call_ids[history]
    return [_shown(_told_of(calls[place : place + 1])[0], ids[place]) for place in places]


def shown_good(memory: Memory, customer: int, since_ms: int) -> list[GoodCall]:
    """Return a customer's newest answered calls since a time that were fine, oldest first, as an alert shows them."""
    row = memory.roster.find(customer)
    history = -1 if row < 0 else int(memory.note(row)["history"])
    if history < 0:
        return []
    good = _told_of(memory.histories.good_calls(history))
    fine = [one for one in good if one.end_ms >= since_ms and one.flags & ANSWERED]
    return [GoodCall(one.end_ms, one.duration_ms, _mos(one)) for one in fine[-CALLS_SHOWN:]]


class _Kept(NamedTuple):
    """What is told of a kept call: fields of `CALL`."""

    end_ms: int
    duration_ms: int
    drop: float
    setup: float
    rating: float
    outcome: int
    flags: int


def _told_of(calls: npt.NDArray[np.void]) -> list[_Kept]:
    # A column at a time: an item of a structured array costs as much as a whole column of sixteen.
    return list(map(_Kept._make, zip(*(calls[name].tolist() for name in _Kept._fields), strict=True)))


def _shown(one: _Kept, call_id: str) -> CallEvidence:
    if one.flags & ONE_WAY:
        outcome = "one_way_audio"
    elif one.drop >= BAD and one.flags & ANSWERED:
        outcome = "dropped" if one.outcome == Outcome.DROP and one.drop >= 1.0 else "probably_dropped"
    elif one.setup >= BAD:
        outcome = "setup_failure"
    elif one.flags & LOCKED:
        outcome = "ended_at_timer"
    elif one.flags & POOR:
        outcome = "poor_quality"
    elif one.flags & REDIALLED:
        outcome = "called_again"
    else:
        outcome = "normal"
    return CallEvidence(call_id, one.end_ms, outcome, one.duration_ms, _mos(one))


def _mos(one: _Kept) -> float | None:
    return None if math.isnan(one.rating) else round(mos_of(one.rating), 2)


class _Names:
    """What the codes in kept calls stand for."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def element(self, column: int, serial: int) -> str:
        return self._memory.elements.names[serial][1] if serial >= 0 else f"unknown {ELEMENTS[column]}"

    def codec(self, code: int) -> str:
        return self._memory.codecs.name(code)
