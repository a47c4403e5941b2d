"""What one call shows, as x of each channel, 0..1, and as flags."""

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.history import ANSWERED, BAD, BAD_CALL, ELEMENTS, ONE_WAY, POOR, REDIALLED
from detectors.watch.world import Calls
from schemas.kernels import inlined

REDIAL_MS = 60_000
"""A call to or from the same far end this soon after an answered one is made again (mutual or one-sided redial)."""
REDIAL_ONE_SIDED = 0.5
"""x of a call that is made again by one side."""
TALKED = 2
"""Added to what is kept of a call that was made again, where it was answered."""
CERTAIN = 0.95
"""From this x on a drop is told by its causes; below it is guessed from silence and the like."""
UNCONFIRMED = 0.4
"""Silence at the end counts this part until the same parties talk again at once: most who were on hold or muted do
not, two in three who were cut off do."""
GOOD_RATING, GOOD_RATING_COUNT = 80.0, 2.0
"""The R-factor expected of a customer not yet known ("satisfied", ITU-T G.109), and how many calls that is worth. Few:
customers differ (by codec, above all) as much as calls of one customer do."""
SPREAD, SPREAD_COUNT, SPREAD_MIN = 5.0, 5.0, 3.0
"""The mean absolute deviation of R expected of a customer not yet known, how many calls that is worth, and the least
that anybody is held to."""
POOR_FROM, POOR_FULL = 3.25, 4.25
"""Media is poor from so many deviations below the customer's own mean R, and wholly so at so many."""


@inlined
def usual_rating(one: Any) -> tuple[float, float]:
    """Return the R-factor to be expected of a customer's next call, and the mean absolute deviation from it."""
    count: Any = np.float32(one["rating_count"])
    base = (one["rating"] * count + GOOD_RATING * GOOD_RATING_COUNT) / (count + GOOD_RATING_COUNT)
    step = max((one["rating_spread"] * count + SPREAD * SPREAD_COUNT) / (count + SPREAD_COUNT), SPREAD_MIN)
    return float(base), float(step)


@inlined
def poorness(one: Any, rating: float) -> float:
    """Return x of the quality channel: how far a call's R-factor lies below its customer's usual one, 0..1.

    Args:
        one: the customer's row; it holds the mean R of healthy calls, the mean absolute deviation, and their number.
        rating: the call's R.
    """
    base, step = usual_rating(one)
    return float(min(max(((base - rating) / step - POOR_FROM) / (POOR_FULL - POOR_FROM), 0.0), 1.0))


@inlined
def drop_for_now(calls: Calls, i: int) -> float:
    """Return x of the drop channel when a call has ended: what only a redial can settle counts in part."""
    if calls.answer_ms[i] < 0:
        return -1.0
    x = float(calls.drop[i])
    if x < CERTAIN and not calls.one_way[i] and calls.peer[i] != 0:
        x *= UNCONFIRMED
    return x


@inlined
def redial_of(one: npt.NDArray[np.void], calls: Calls, i: int) -> float:
    """Return x of the redial channel: half a sign if the parties talk again at once, a whole one if both tried.

    The customer's previous call was answered, or was such a try; the next one may go either way. A second try in
    the other direction is what happens when both sides lost the call, and hardly happens otherwise. Who has talked
    twice in a row and calls a third time has something to talk about: that says nothing.
    """
    gap_ms = calls.start_ms[i] - one["last_ms"]
    if one["last_peer"] != np.uint32(calls.peer[i]) or not -REDIAL_MS <= gap_ms <= REDIAL_MS:
        return -1.0 if 0 < one["again"] <= TALKED else 0.0
    if not one["again"]:
        return REDIAL_ONE_SIDED
    return 1.0 if one["again"] <= TALKED and one["again"] != calls.direction[i] + 1 else -1.0


@inlined
def rating_of(note: Any, calls: Calls, i: int) -> float:
    """Return a call's R-factor: its own, or the mean of the reports that came while it lasted; NaN if unknown."""
    rating = calls.rating[i]
    if note["media_count"] > 0.0 and note["media_call"] == np.uint32(calls.call[i]):
        # They were for this call alone.
        note["media_count"] = 0.0
        if np.isnan(rating):
            rating = note["media_rating"]
    return float(rating)


@inlined
def signs_of(calls: Calls, i: int, poor: float, again: float) -> int:
    """Return what a call shows, as flags of `detectors.history`."""
    answered = calls.answer_ms[i] >= 0
    flags = int(ANSWERED * answered | ONE_WAY * calls.one_way[i] | POOR * (poor >= BAD) | REDIALLED * (again > 0.0))
    if (answered and calls.drop[i] >= BAD) or calls.setup[i] >= BAD or poor >= BAD or again >= BAD:
        flags |= BAD_CALL
    return flags


@inlined
def write_call(entry: npt.NDArray[np.void], calls: Calls, i: int, rating: float, evidence: float, flags: int) -> None:
    """Write a call into a place of its customer's history."""
    entry["end_ms"] = calls.end_ms[i]
    entry["duration_ms"] = 0
    if calls.answer_ms[i] >= 0:
        entry["duration_ms"] = min(calls.end_ms[i] - calls.answer_ms[i], 2_147_483_647)
    entry["peer"] = np.uint32(calls.peer[i])
    entry["drop"] = calls.drop[i]
    entry["setup"] = calls.setup[i]
    entry["rating"] = np.float32(rating)
    entry["evidence"] = np.float32(evidence)
    entry["outcome"] = calls.outcome[i]
    entry["flags"] = flags
    entry["codec"] = calls.codec[i]
    for e in range(len(ELEMENTS)):
        entry["elements"][e] = calls.elements[i, e]
