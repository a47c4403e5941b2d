"""An outage is not held against those who were inside: its calls are taken back, their other trouble stays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.evidence import DROP, QUALITY, REDIAL, SETUP, take_back
from detectors.history import ANSWERED, BAD, BAD_KEPT, POOR, REDIALLED
from detectors.incidents import OpenIncident
from detectors.memory import Memory
from detectors.roster import FULL
from detectors.snapshots import raw
from detectors.watch.signs import REDIAL_ONE_SIDED


def absolve(memory: Memory, row: int, incident: OpenIncident) -> bool:
    """Take an incident's calls back from a customer without a case; return False where nothing else would be left.

    Args:
        memory: everything that is known; changed in place.
        row: the customer's.
        incident: what the calls ran through.
    """
    one = memory.row(row)
    note = memory.note_of(one)
    history = int(note["history"])
    if history < 0:
        return False
    bad, ids = memory.histories.bad_calls(history)
    its = np.any(bad["elements"] == incident.element, axis=1) & incident.during(bad["end_ms"])
    if its.all():
        return False
    for call in bad[its]:
        for channel, x in _observations(call):
            take_back(one, note, channel, x)
    # Durations have no memory of which calls they were.
    if its.any():
        one["lock_evidence"][:] = 0.0
    one["doubt"] = FULL
    left_ms = bad["end_ms"][~its & (bad["end_ms"] >= note["since_ms"])]
    _count_off(memory, history, bad[its & (bad["end_ms"] >= note["since_ms"])])
    note["since_ms"] = left_ms[0] if len(left_ms) else -1
    _keep(memory, history, bad[~its], [name for name, gone in zip(ids, its, strict=True) if not gone])
    return True


def _observations(call: Any) -> list[tuple[int, float]]:
    """Return (channel, x) of what a kept bad call was seen as, at the most."""
    flags = int(call["flags"])
    seen = [(DROP, float(call["drop"]))] if flags & ANSWERED and call["drop"] >= BAD else []
    seen += [(SETUP, float(call["setup"]))] if call["setup"] >= BAD else []
    seen += [(QUALITY, 1.0)] if flags & POOR else []
    return seen + ([(REDIAL, REDIAL_ONE_SIDED)] if flags & REDIALLED else [])


def _count_off(memory: Memory, history: int, gone: npt.NDArray[np.void]) -> None:
    one = memory.histories.shelf.items[history]
    answered = (gone["flags"] & ANSWERED) != 0
    poor = (gone["flags"] & POOR) != 0
    spoiled = answered & ((gone["drop"] >= BAD) | poor)
    for name, counted in (
        ("attempts", np.ones(len(gone), bool)),
        ("answered", answered),
        ("drops", answered & (gone["drop"] >= BAD)),
        ("failures", gone["setup"] >= BAD),
        ("poor", poor),
        ("redials", (gone["flags"] & REDIALLED) != 0),
        ("bad_calls", spoiled),
    ):
        one[name] = max(int(one[name]) - int(counted.sum()), 0)
    if len(gone):
        # Days are counted from the first bad call, which may be another one now.
        one["day_calls"][:] = 0
        one["day_bad"][:] = 0


def _keep(memory: Memory, history: int, calls: npt.NDArray[np.void], ids: list[str]) -> None:
    """Write a history's bad calls anew."""
    one = memory.histories.shelf.items[history]
    raw(one["bad"])[: len(calls)] = raw(np.ascontiguousarray(calls))
    one["bad_count"] = len(calls)
    memory.histories.call_ids[history] = (*ids, *[""] * (BAD_KEPT - len(ids)))
