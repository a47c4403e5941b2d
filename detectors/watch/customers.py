"""What a call tells of its customer."""

import math
from typing import Any

import numpy as np

from detectors.casebook import EXPIRE_MS, QUIET_MS
from detectors.evidence import (
    CHANNELS,
    DROP,
    LEAP,
    LOW_DAYS,
    QUALITY,
    QUIET_CALLS,
    REDIAL,
    SETUP,
    accrue,
    correct,
    days_passed,
    expected,
    observe,
    observe_nothing,
    remember,
    total,
    total_of,
)
from detectors.history import (
    ANSWERED,
    BAD,
    BAD_CALL,
    BAD_KEPT,
    DAYS_KEPT,
    GOOD_KEPT,
    LOCKED,
    POOR,
    REDIALLED,
    count_good,
    reset_counters,
    take,
)
from detectors.lines import line_log10
from detectors.locks import lock_total, observe_duration
from detectors.notes import KEPT_MS
from detectors.patterns import added_log10
from detectors.roster import CALM, FULL
from detectors.shelves import give_back
from detectors.watch.cases import kept_of
from detectors.watch.signs import CERTAIN, UNCONFIRMED, drop_for_now, usual_rating, write_call
from detectors.watch.world import Calls, Limits, Scratch, World
from schemas.kernels import inlined, loop

DAY_MS = 86_400_000.0
DAYS_MAX = 7.0
"""Evidence accrues for at most a week between two calls: who was away a month has not been watched for it."""
CONFIRMED = 0.9
"""x of a guessed drop after which they did, at least."""
LIKELY = 0.2
"""From this x on a redial belongs to the call before it: it confirms that one and says nothing by itself."""
RATING_MEMORY = 100
LEARN_STEPS = 2.0
"""A call lies so many deviations below the usual R at the most, as far as the usual R is learnt from it (Huber's
clipping): else a few poor calls of somebody new are what he is used to."""
LOCK_BAD_DAYS = 5.0
"""Evidence of a lock from which a call that ends at it is a bad call."""


@inlined
def evidence_days(one: Any) -> float:
    """Return a customer's whole evidence, in days."""
    return total(one["evidence"]) + lock_total(one)


@inlined
def opening_log10(one: Any, history: Any, added_log10: float) -> float:
    """Return log10 of the evidence that may open a case, with what structure and the line add.

    A channel counts if calls show it that are bad by themselves: a customer cannot be told of what no call shows.

    Args:
        one: the customer's row.
        history: what is kept of the calls since the trouble began.
        added_log10: from `detectors.patterns.added_log10`, and from `line_of`.
    """
    value = total_of(one["evidence"], DROP) if history["drops"] > 0 else 0.0
    value += total_of(one["evidence"], SETUP) if history["failures"] > 0 else 0.0
    value += total_of(one["evidence"], QUALITY) if history["poor"] > 0 else 0.0
    value += total_of(one["evidence"], REDIAL) if history["redials"] > 0 else 0.0
    return math.log10(max(LEAP * (value * 10.0**added_log10 + lock_total(one)), 1e-9))


@inlined
def settle(one: Any, note: Any, again: float) -> bool:
    """Let a redial confirm the call before it; return whether it did."""
    x = one["doubt"] / FULL
    if again <= 0.0 or x < LIKELY or x >= CERTAIN:
        return False
    correct(one, note, DROP, UNCONFIRMED * x, max(x, CONFIRMED))
    one["doubt"] = FULL
    return True


@inlined
def suspect_duration(one: Any, calls: Calls, i: int, days: float) -> int:
    """Move a customer's locks; return the flags of a call that ended at a suspected duration."""
    if calls.answer_ms[i] < 0:
        return 0
    cut = observe_duration(one, calls.end_ms[i] - calls.answer_ms[i], np.uint32(calls.peer[i]), days)
    # One chance repetition is no bad call; two are.
    return LOCKED | BAD_CALL if cut and lock_total(one) >= LOCK_BAD_DAYS else 0


@inlined
def judge_customer(world: World, one: Any, calls: Calls, i: int, rating: float, poor: float, again: float) -> int:
    """Move one customer's evidence and baselines by one call; return the flags of its duration."""
    note = world.notes.items[one["note"]]
    days = 1.0
    if one["last_ms"] >= 0:
        days = min(max(calls.end_ms[i] - one["last_ms"], 0) / DAY_MS, DAYS_MAX)
    for channel in range(len(CHANNELS)):
        x = again
        if channel == DROP:
            x = drop_for_now(calls, i)
        elif channel == SETUP:
            x = float(calls.setup[i])
        elif channel == QUALITY:
            x = poor
        passed = days_passed(one, channel, days, x >= 0.0)
        if x >= 0.0:
            accrue(one["evidence"][channel], passed)
            if x > 0.0:
                observe(one["evidence"][channel], x, expected(one, note, channel))
            else:
                observe_nothing(one["evidence"][channel])
            remember(one, note, channel, x, days)
    signs = suspect_duration(one, calls, i, days)
    if 0.0 <= poor < BAD:
        _learn_rating(one, rating)
    if evidence_days(one) < max(LOW_DAYS, QUIET_CALLS * days):
        note["since_ms"] = -1
        if note["history"] >= 0:
            reset_counters(world.shelf, note["history"])
    return signs


@inlined
def _learn_rating(one: Any, rating: float) -> None:
    """Learn the R-factor of a call that was not poor.

    The mean is river's `Mean` over the first `RATING_MEMORY` calls and its `EWMean` from then on, of calls clipped
    below (`LEARN_STEPS`), where river's take them as they are.
    """
    if one["rating_count"] < RATING_MEMORY:
        one["rating_count"] += np.uint8(1)
    fade = 1.0 / one["rating_count"]
    # The first call sets the mean; only from the second on is there a deviation from it.
    if one["rating_count"] > 1.0:
        usual, step = usual_rating(one)
        rating = max(rating, usual - LEARN_STEPS * step)
        apart = abs(rating - one["rating"])
        one["rating_spread"] = np.float32(one["rating_spread"] + fade * (apart - one["rating_spread"]))
    one["rating"] = np.float32(one["rating"] + fade * (rating - one["rating"]))


@inlined
def keep_call(world: World, row: int, calls: Calls, i: int, rating: float, signs: int, scratch: Scratch) -> None:
    """Count and keep a call if its customer has a history, opening one at a bad call and closing one long unused."""
    customer = world.book.rows[row]
    note = world.notes.items[customer["note"]]
    bad = (signs & BAD_CALL) != 0
    if bad and (note["since_ms"] < 0 or calls.end_ms[i] < note["since_ms"]):
        note["since_ms"] = calls.end_ms[i]
    if bad and note["history"] < 0:
        note["history"] = take(world.shelf)
    history = note["history"]
    if history < 0:
        return
    if customer["mode"] == CALM and not bad and calls.end_ms[i] - note["last_bad_ms"] > KEPT_MS:
        give_back(world.shelf, history)
        note["history"] = -1
        return
    one = world.shelf.items[history]
    _count(one, calls, i, signs, note["since_ms"])
    if bad:
        place = one["bad_count"] % BAD_KEPT
        write_call(one["bad"][place], calls, i, rating, evidence_days(customer), signs)
        one["bad_count"] += 1
        used = scratch.tally[0]
        scratch.named[used, 0], scratch.named[used, 1], scratch.named[used, 2] = i, history, place
        scratch.tally[0] += 1
    else:
        place = one["good_count"] % GOOD_KEPT
        write_call(one["good"][place], calls, i, rating, evidence_days(customer), signs)
        count_good(one, one["good"][place], scratch.kept.ahead_min)
        one["good_count"] += 1


@loop
def line_of(world: World, note: Any) -> float:
    """Return log10 of what telemetry of a customer's line adds to the evidence of bad calls; 0 where there is none."""
    if note["line"] < 0:
        return 0.0
    line = world.lines.items[note["line"]]
    surge_ms = world.network.elements[line["node"]]["surge_ms"] if line["node"] >= 0 else -1
    return line_log10(line, surge_ms, note["since_ms"])


@loop
def may_open(world: World, one: Any, note: Any, now_ms: int, limits: Limits, scratch: Scratch) -> bool:
    """Return whether a customer's evidence is enough for a case, with what the structure of the bad calls adds."""
    if note["history"] < 0:
        return False
    kept = kept_of(world, note, now_ms, scratch)
    if len(kept.bad) < 2:
        return False
    added = added_log10(kept) + line_of(world, note)
    return opening_log10(one, world.shelf.items[note["history"]], added) >= limits.open_log10


@inlined
def may_be_over(world: World, note: Any, end_ms: int) -> bool:
    """Count a good call of a customer with a case; return whether the case may be over."""
    history = world.shelf.items[note["history"]]
    history["unseen"] += 1
    quiet_ms = end_ms - note["last_bad_ms"]
    return bool((history["unseen"] >= history["enough"] and quiet_ms >= QUIET_MS) or quiet_ms >= EXPIRE_MS)


@inlined
def _count(one: Any, calls: Calls, i: int, signs: int, since_ms: int) -> None:
    one["attempts"] += 1
    one["answered"] += (signs & ANSWERED) != 0
    one["drops"] += (signs & ANSWERED) != 0 and calls.drop[i] >= BAD
    one["failures"] += calls.setup[i] >= BAD
    one["poor"] += (signs & POOR) != 0
    one["redials"] += (signs & REDIALLED) != 0
    if (signs & ANSWERED) == 0:
        return
    bad = calls.drop[i] >= BAD or (signs & (POOR | LOCKED)) != 0
    one["bad_calls"] += bad
    day = min(max(int((calls.end_ms[i] - since_ms) / DAY_MS), 0), DAYS_KEPT - 1) if since_ms >= 0 else 0
    if one["day_calls"][day] < 255:
        one["day_calls"][day] += 1
        one["day_bad"][day] += bad
