"""An open case, followed by the loop as far as its next bad call changes nothing that anybody was told."""

from typing import Any

from detectors.casebook import (
    good_calls_needed,
    is_over,
    is_worse,
    may_be_renamed,
    recovery_step,
)
from detectors.history import BAD_KEPT, Counters
from detectors.patterns import (
    LOCK,
    PLAIN,
    QUALITY,
    REDIAL,
    SETUP_FAILURE,
    Kept,
    fill,
    hits_at,
    named,
    sort_kind,
)
from detectors.watch.world import Scratch, World
from schemas.kernels import loop

UNSEEN_MAX = BAD_KEPT - 1
"""So many bad calls of a case the loop follows by itself: the history holds them, and the newest, for who is told."""


@loop
def kept_of(world: World, note: Any, now_ms: int, scratch: Scratch) -> Kept:
    """Return what likelihood ratios are computed from, of a customer with a history."""
    history, within = world.shelf.items[note["history"]], scratch.kept
    bad, good = fill(within, history, note["since_ms"])
    return Kept(
        within.bad[:bad],
        within.good[:good],
        note["since_ms"],
        now_ms,
        history["bad_calls"],
        within.day_calls,
        within.day_bad,
        within.habit,
        within.room,
        within.ahead_min,
    )


@loop
def counted(kind: int, lock_s: float, counters: Counters, kept: Kept) -> tuple[int, int]:
    """Return (bad calls, calls that could be bad) of a trouble, as its kind counts them.

    Args:
        kind: place in `detectors.patterns.KINDS`.
        lock_s: where calls are cut; NaN where they are not.
        counters: of the calls since the trouble began.
        kept: those calls, for a lock.
    """
    if kind == SETUP_FAILURE:
        return counters.failures, counters.attempts
    if kind == QUALITY:
        return counters.poor, counters.answered
    if kind == REDIAL:
        return counters.redials, counters.attempts
    if kind == LOCK:
        # Also those that nothing else was wrong with when they ended.
        return max(counters.bad_calls, hits_at(kept, lock_s)), counters.answered
    return counters.bad_calls, counters.answered


@loop
def goes_on(world: World, note: Any, end_ms: int, scratch: Scratch) -> bool:
    """Take a case on by its customer's newest call, a bad one; return False and leave it where Python must."""
    history = world.shelf.items[note["history"]]
    case = history["case"]
    kind = case["kind"] - 1
    if kind < 0 or case["unseen"] >= UNSEEN_MAX:
        return False
    recovery = case["recovery"] + history["unseen"] * recovery_step(0.0, case["bad"], case["trials"])
    if is_over(recovery, case["last_bad_ms"], end_ms):
        return False
    recovery = max(0.0, recovery + recovery_step(1.0, case["bad"], case["trials"]))
    kept = kept_of(world, note, end_ms, scratch)
    counters = Counters(
        history["attempts"],
        history["answered"],
        history["drops"],
        history["failures"],
        history["poor"],
        history["redials"],
        history["bad_calls"],
    )
    bad, trials = counted(kind, case["lock_s"], counters, kept)
    if is_worse(bad, trials, case["rank"], case["told_bad"]):
        return False
    if may_be_renamed(bad, case["told_bad"], kind == PLAIN):
        found = named(kept)
        if found == PLAIN:
            found = sort_kind(counters)
        if found != kind:
            return False
    case["recovery"], case["bad"], case["trials"] = recovery, bad, trials
    case["attempts"], case["answered"] = counters.attempts, counters.answered
    case["last_bad_ms"] = max(case["last_bad_ms"], end_ms)
    case["unseen"] += 1
    case["until"] = history["bad_count"]
    history["unseen"] = 0
    history["enough"] = good_calls_needed(recovery, bad, trials)
    return True
