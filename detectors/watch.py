"""The hot loop: one pass over a batch, exact per customer, that stops where somebody must look.

`advance` applies events in order of arrival. A typical call touches its customer's row and its elements' rows and is
done. Where a customer's or an element's evidence asks for the careful look, where an event is of a rare type, or
where a pending decision has come due, the loop returns, Python does the slow thing, and the loop goes on behind that
event. So the outcome is that of one event at a time, whatever the batch size.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.casebook import EXPIRE_MS, QUIET_MS
from detectors.elements import (
    E_DROP,
    E_QUALITY,
    E_SETUP,
    LOG_KEPT,
    RECOVERED,
    Network,
    element_accrue,
    element_observe,
    element_recover,
    element_total,
)
from detectors.evidence import (
    CHANNELS,
    DROP,
    LEAP,
    QUALITY,
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
    ELEMENTS,
    GOOD_KEPT,
    LOCKED,
    ONE_WAY,
    POOR,
    REDIALLED,
    reset_counters,
    take,
)
from detectors.locks import lock_total, observe_duration
from detectors.notes import KEPT_MS, put_away
from detectors.order import is_known, is_late, keep
from detectors.patterns import Kept, added_log10, fill
from detectors.roster import CALM, CASE, FULL, ROW, Book, find, find_or_add, home, touch
from detectors.shelves import Shelf, give_back
from schemas.kernels import fetch_early, inlined, loop
from schemas.text import F32, I8, I16, I32, I64, U64, Bools

K_CALL, K_MEDIA, K_OTHER = 0, 1, 2
"""Kinds of event, as the loop tells them apart."""

STOP_OTHER, STOP_DUE, STOP_CUSTOMERS, STOP_SHELVES = 1, 2, 4, 8
"""Reasons to return before an event: rare type; a decision is due; no free row; no free history or note."""
STOP_LOOK, STOP_CASE, STOP_ELEMENT = 16, 32, 64
"""Reasons to return behind an event: evidence asks for a look; a case is worse or may be over; an element's state."""

APPLIED, DUPLICATE, LATE = 0, 1, 2

DAY_MS = 86_400_000.0
DAYS_MAX = 7.0
"""Evidence accrues for at most a week between two calls: who was away a month has not been watched for it."""
REDIAL_MS = 60_000
"""A call to or from the same far end this soon after an answered one is made again (mutual or one-sided redial)."""
REDIAL_ONE_SIDED = 0.5
"""x of a call that is made again by one side."""
CERTAIN = 0.95
"""From this x on a drop is told by its causes; below it is guessed from silence and the like."""
UNCONFIRMED = 0.4
"""Silence at the end counts this part until the same parties talk again at once: most who were on hold or muted do
not, two in three who were cut off do."""
CONFIRMED = 0.9
"""x of a guessed drop after which they did, at least."""
LIKELY = 0.2
"""From this x on a redial belongs to the call before it: it confirms that one and says nothing by itself."""
FUTURE_MS = 366 * 86_400_000
"""A time so far beyond all others is a broken clock: believed, it would make every later record late."""
SPEAK_AGAIN_MS = 3_600_000
"""A customer speaks against an element once an hour."""
GOOD_RATING, GOOD_RATING_COUNT = 80.0, 5.0
"""The R-factor expected of a customer not yet known ("satisfied", ITU-T G.109), and how many calls that is worth."""
SPREAD, SPREAD_COUNT, SPREAD_MIN = 5.0, 10.0, 3.0
"""The mean absolute deviation of R expected of a customer not yet known, how many calls that is worth, and the least
that anybody is held to."""
POOR_FROM, POOR_FULL = 3.25, 4.25
"""Media is poor from so many deviations below the customer's own mean R, and wholly so at so many."""
RATING_MEMORY = 100
LOCK_BAD_DAYS = 5.0
"""Evidence of a lock from which a call that ends at it is a bad call."""
LOW_DAYS, QUIET_CALLS = 1.0, 6.0
"""Evidence below one day's worth, or below what six calls of a light caller accrue, is none: trouble that was counted
is over. Without trouble the processes level off at a few times what passes between two calls."""

ROW_LINES = (ROW.itemsize - 1) // 64 + 2
"""Cache lines that a row may lie in, wherever it begins."""

INSIDE, MUTED = 1, 2
PROBE = ELEMENTS.index("probe")


class Calls(NamedTuple):
    """The calls of a batch as the loop needs them: one row a call, arrays of one length."""

    customer: U64
    call: U64
    peer: U64
    start_ms: I64
    end_ms: I64
    answer_ms: I64
    outcome: I8
    drop: F32
    setup: F32
    one_way: Bools
    rating: F32
    codec: I16
    direction: I8
    elements: I32


class Media(NamedTuple):
    """The media reports of a batch as the loop needs them."""

    customer: U64
    call: U64
    at_ms: I64
    rating: F32


class Limits(NamedTuple):
    """What the configuration fixes.

    Attributes:
        lateness_ms: a call that ended longer than this before its customer's newest one is late. So is one that is no
            newer than a call which the customer's row has forgotten: it could be that one again.
        look_days: evidence from which a bad call gets the careful look.
        open_log10: log10 of the evidence, with what structure adds, that may open a case.
        element_days: evidence at which an element is looked at.
    """

    lateness_ms: int
    look_days: float
    open_log10: float
    element_days: float


class Scratch(NamedTuple):
    """What the loop hands back.

    Attributes:
        clock: [newest event time, time of the next due decision].
        counts: calls [applied, duplicate, late].
        named: int64[n, 3]: (call, history, place) of each bad call whose id must be kept.
        tally: [used rows of `named`, used places of `alarms`].
        alarms: serials of elements to look at.
        fate: int8[n]: APPLIED, DUPLICATE or LATE, one a call.
        kept: room for the calls that patterns are read from.
    """

    clock: I64
    counts: I64
    named: I64
    tally: I64
    alarms: I32
    fate: I8
    kept: Kept


class World(NamedTuple):
    """All state that the loop works on."""

    book: Book
    notes: Shelf
    shelf: Shelf
    network: Network


@inlined
def poorness(one: Any, rating: float) -> float:
    """Return x of the quality channel: how far a call's R-factor lies below its customer's usual one, 0..1.

    Args:
        one: the customer's row; it holds the mean R of healthy calls, the mean absolute deviation, and their number.
        rating: the call's R.
    """
    count: Any = np.float32(one["rating_count"])
    base = (one["rating"] * count + GOOD_RATING * GOOD_RATING_COUNT) / (count + GOOD_RATING_COUNT)
    step = max((one["rating_spread"] * count + SPREAD * SPREAD_COUNT) / (count + SPREAD_COUNT), SPREAD_MIN)
    return float(min(max(((base - rating) / step - POOR_FROM) / (POOR_FULL - POOR_FROM), 0.0), 1.0))


@inlined
def _write_call(entry: npt.NDArray[np.void], calls: Calls, i: int, rating: float, evidence: float, flags: int) -> None:
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


@inlined
def _incident_state(network: Network, calls: Calls, i: int) -> int:
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
def _follow_incident(one: npt.NDArray[np.void], note: Any, calls: Calls, i: int, poor: float, state: int) -> bool:
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
    return element_recover(one, x) >= RECOVERED


@inlined
def _drop_for_now(calls: Calls, i: int) -> float:
    """Return x of the drop channel when a call has ended: what only a redial can settle counts in part."""
    if calls.answer_ms[i] < 0:
        return -1.0
    x = float(calls.drop[i])
    if x < CERTAIN and not calls.one_way[i] and calls.peer[i] != 0:
        x *= UNCONFIRMED
    return x


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
        value, days = _show(one, E_DROP, usual, _drop_for_now(calls, i), calls.end_ms[i])
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
def _watch_elements(
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
def _log_bad_call(world: World, calls: Calls, i: int, poor: float) -> None:
    entry = world.network.log[world.network.tally[0] % LOG_KEPT]
    world.network.tally[0] += 1
    entry["end_ms"] = calls.end_ms[i]
    entry["key"] = calls.customer[i]
    entry["signs"][E_DROP] = calls.drop[i] if calls.answer_ms[i] >= 0 else np.float32(0.0)
    entry["signs"][E_QUALITY] = np.float32(poor)
    entry["signs"][E_SETUP] = calls.setup[i] if calls.answer_ms[i] < 0 else np.float32(0.0)
    for e in range(len(ELEMENTS)):
        entry["elements"][e] = calls.elements[i, e]


@inlined
def evidence_days(one: Any) -> float:
    """Return a customer's whole evidence, in days."""
    return total(one["evidence"]) + lock_total(one)


@inlined
def opening_log10(one: Any, history: Any, added_log10: float) -> float:
    """Return log10 of the evidence that may open a case, with what structure adds to it.

    A channel counts if calls show it that are bad by themselves: a customer cannot be told of what no call shows.

    Args:
        one: the customer's row.
        history: what is kept of the calls since the trouble began.
        added_log10: from `detectors.patterns.added_log10`.
    """
    value = total_of(one["evidence"], DROP) if history["drops"] > 0 else 0.0
    value += total_of(one["evidence"], SETUP) if history["failures"] > 0 else 0.0
    value += total_of(one["evidence"], QUALITY) if history["poor"] > 0 else 0.0
    value += total_of(one["evidence"], REDIAL) if history["redials"] > 0 else 0.0
    return math.log10(max(LEAP * (value * 10.0**added_log10 + lock_total(one)), 1e-9))


@inlined
def _settle(one: Any, note: Any, again: float) -> bool:
    """Let a redial confirm the call before it; return whether it did."""
    x = one["doubt"] / FULL
    if again <= 0.0 or x < LIKELY or x >= CERTAIN:
        return False
    correct(one, note, DROP, UNCONFIRMED * x, max(x, CONFIRMED))
    one["doubt"] = FULL
    return True


@inlined
def _suspect_duration(one: Any, calls: Calls, i: int, days: float) -> int:
    """Move a customer's locks; return the flags of a call that ended at a suspected duration."""
    if calls.answer_ms[i] < 0:
        return 0
    cut = observe_duration(one, calls.end_ms[i] - calls.answer_ms[i], np.uint32(calls.peer[i]), days)
    # One chance repetition is no bad call; two are.
    return LOCKED | BAD_CALL if cut and lock_total(one) >= LOCK_BAD_DAYS else 0


@inlined
def _judge_customer(world: World, one: Any, calls: Calls, i: int, rating: float, poor: float, again: float) -> int:
    """Move one customer's evidence and baselines by one call; return the flags of its duration."""
    note = world.notes.items[one["note"]]
    days = 1.0
    if one["last_ms"] >= 0:
        days = min(max(calls.end_ms[i] - one["last_ms"], 0) / DAY_MS, DAYS_MAX)
    for channel in range(len(CHANNELS)):
        x = again
        if channel == DROP:
            x = _drop_for_now(calls, i)
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
    signs = _suspect_duration(one, calls, i, days)
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

    The mean is river's `Mean` over the first `RATING_MEMORY` calls and its `EWMean` from then on.
    """
    if one["rating_count"] < RATING_MEMORY:
        one["rating_count"] += np.uint8(1)
    fade = 1.0 / one["rating_count"]
    # The first call sets the mean; only from the second on is there a deviation from it.
    if one["rating_count"] > 1.0:
        apart = abs(rating - one["rating"])
        one["rating_spread"] = np.float32(one["rating_spread"] + fade * (apart - one["rating_spread"]))
    one["rating"] = np.float32(one["rating"] + fade * (rating - one["rating"]))


@inlined
def _keep_call(world: World, row: int, calls: Calls, i: int, rating: float, signs: int, scratch: Scratch) -> None:
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
        _write_call(one["bad"][place], calls, i, rating, evidence_days(customer), signs)
        one["bad_count"] += 1
        used = scratch.tally[0]
        scratch.named[used, 0], scratch.named[used, 1], scratch.named[used, 2] = i, history, place
        scratch.tally[0] += 1
    else:
        _write_call(one["good"][one["good_count"] % GOOD_KEPT], calls, i, rating, evidence_days(customer), signs)
        one["good_count"] += 1


@loop
def _may_open(world: World, one: Any, note: Any, now_ms: int, limits: Limits, scratch: Scratch) -> bool:
    """Return whether a customer's evidence is enough for a case, with what the structure of the bad calls adds."""
    if note["history"] < 0:
        return False
    history, within = world.shelf.items[note["history"]], scratch.kept
    bad, good = fill(within, history, note["since_ms"])
    if bad < 2:
        return False
    kept = Kept(
        within.bad[:bad],
        within.good[:good],
        note["since_ms"],
        now_ms,
        history["bad_calls"],
        within.day_calls,
        within.day_bad,
        within.room,
    )
    return opening_log10(one, history, added_log10(kept)) >= limits.open_log10


@inlined
def _may_be_over(world: World, note: Any, end_ms: int) -> bool:
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


@inlined
def _redial(one: npt.NDArray[np.void], calls: Calls, i: int) -> float:
    """Return x of the redial channel: half a sign if the parties talk again at once, a whole one if both tried.

    The customer's previous call was answered, or was such a try; the next one may go either way. A second try in
    the other direction is what happens when both sides lost the call, and hardly happens otherwise.
    """
    gap_ms = calls.start_ms[i] - one["last_ms"]
    if one["last_peer"] != np.uint32(calls.peer[i]) or not -REDIAL_MS <= gap_ms <= REDIAL_MS:
        return -1.0 if one["again"] else 0.0
    if not one["again"]:
        return REDIAL_ONE_SIDED
    return 1.0 if one["again"] != calls.direction[i] + 1 else -1.0


@inlined
def _rating_of(note: Any, calls: Calls, i: int) -> float:
    """Return a call's R-factor: its own, or the mean of the reports that came while it lasted; NaN if unknown."""
    rating = calls.rating[i]
    if note["media_count"] > 0.0 and note["media_call"] == np.uint32(calls.call[i]):
        # They were for this call alone.
        note["media_count"] = 0.0
        if np.isnan(rating):
            rating = note["media_rating"]
    return float(rating)


@inlined
def _signs(calls: Calls, i: int, poor: float, again: float) -> int:
    """Return what a call shows, as flags of `detectors.history`."""
    answered = calls.answer_ms[i] >= 0
    flags = int(ANSWERED * answered | ONE_WAY * calls.one_way[i] | POOR * (poor >= BAD) | REDIALLED * (again > 0.0))
    if (answered and calls.drop[i] >= BAD) or calls.setup[i] >= BAD or poor >= BAD or again >= BAD:
        flags |= BAD_CALL
    return flags


@inlined
def _apply_call(world: World, row: int, calls: Calls, i: int, limits: Limits, scratch: Scratch) -> int:
    """Apply one call that is neither duplicate nor late; return STOP_ flags."""
    one = world.book.rows[row]
    note = world.notes.items[one["note"]]
    answered = calls.answer_ms[i] >= 0
    rating = _rating_of(note, calls, i)
    poor = -1.0
    if answered and not np.isnan(rating):
        poor = poorness(one, rating)
    redial = _redial(one, calls, i) if one["last_peer"] != 0 else -1.0
    again = -1.0 if redial > 0.0 and one["doubt"] >= LIKELY * FULL else redial
    state = _incident_state(world.network, calls, i)
    _watch_elements(world, row, calls, i, poor, state, limits, scratch)
    if state & MUTED:
        poor = -1.0
    signs = _signs(calls, i, poor, again)
    if signs & BAD_CALL and again < BAD:
        _log_bad_call(world, calls, i, poor)
    stop = STOP_ELEMENT * (scratch.tally[1] > 0)
    confirmed = False
    if not state & INSIDE:
        if one["mode"] == CALM:
            confirmed = _settle(one, note, redial)
            signs |= _judge_customer(world, one, calls, i, rating, poor, again)
        else:
            signs |= _suspect_duration(one, calls, i, 0.0)
        _keep_call(world, row, calls, i, rating, signs, scratch)
    if signs & BAD_CALL:
        note["last_bad_ms"] = max(note["last_bad_ms"], calls.end_ms[i])
    if not state & INSIDE:
        bad = (signs & BAD_CALL) != 0
        if one["mode"] != CALM:
            stop |= STOP_CASE * (bad or _may_be_over(world, note, calls.end_ms[i]))
        elif (bad or confirmed) and note["since_ms"] < calls.end_ms[i] and evidence_days(one) >= limits.look_days:
            # The first bad call of a trouble is looked at with the second. What is found of an element may change it.
            stop |= STOP_LOOK * (stop != 0 or _may_open(world, one, note, calls.end_ms[i], limits, scratch))
    one["again"] = calls.direction[i] + 1 if redial == REDIAL_ONE_SIDED and not answered else 0
    if answered:
        # What was not judged by halves needs nobody to settle it.
        whole = one["mode"] != CALM or (state & INSIDE) != 0 or calls.one_way[i] or calls.drop[i] >= CERTAIN
        one["doubt"] = FULL if whole and calls.drop[i] >= LIKELY else np.uint8(calls.drop[i] * FULL)
    elif not one["again"]:
        one["doubt"] = 0
    one["last_peer"] = np.uint32(calls.peer[i]) if answered or one["again"] else np.uint32(0)
    one["last_ms"] = max(one["last_ms"], calls.end_ms[i])
    put_away(world.notes, one, calls.end_ms[i])
    return int(stop)


@inlined
def _apply_media(world: World, media: Media, i: int) -> None:
    """Keep the mean R-factor of the call that a customer is in."""
    row = find(world.book, media.customer[i])
    if row < 0 or np.isnan(media.rating[i]):
        return
    one = world.book.rows[row]
    call = np.uint32(media.call[i])
    if is_known(one, max(call, np.uint32(1))):
        # Its call has been judged: nobody will ask.
        return
    touch(world.book, row)
    note = world.notes.items[one["note"]]
    if note["media_call"] != call:
        note["media_call"], note["media_rating"], note["media_count"] = call, 0.0, 0.0
    note["media_count"] += np.float32(1.0)
    far = media.rating[i] - note["media_rating"]
    note["media_rating"] = np.float32(note["media_rating"] + far / note["media_count"])
    put_away(world.notes, one, media.at_ms[i])


FETCH_SLOT, FETCH_ROW, FETCH_NOTE, FETCH_HISTORY = 24, 12, 8, 4
"""So many events ahead a customer's slot, row, note and history are asked for, each found through the one before:
memory answers while the loop does earlier events."""


@inlined
def _slot(world: World, kind: I8, index: I32, calls: Calls, k: int) -> int:
    """Return where the search for the customer of a call begins; -1 where the batch has no call there."""
    if k >= len(kind) or kind[k] != K_CALL:
        return -1
    return int(home(world.book, calls.customer[index[k]]))


@inlined
def _fetch_customers(world: World, kind: I8, index: I32, calls: Calls, k: int) -> None:
    book = world.book
    slot = _slot(world, kind, index, calls, k + FETCH_SLOT)
    if slot >= 0:
        fetch_early(book.slots, slot, 0)
    slot = _slot(world, kind, index, calls, k + FETCH_ROW)
    if slot >= 0:
        row = int(book.slots[slot]) - 1
        for line in range(ROW_LINES):
            fetch_early(book.rows, row, line)
    slot = _slot(world, kind, index, calls, k + FETCH_NOTE)
    if slot >= 0 and book.slots[slot] > 0:
        fetch_early(world.notes.items, int(book.rows[book.slots[slot] - 1]["note"]), 0)
    slot = _slot(world, kind, index, calls, k + FETCH_HISTORY)
    if slot >= 0 and book.slots[slot] > 0:
        history = world.notes.items[book.rows[book.slots[slot] - 1]["note"]]["history"]
        if history >= 0:
            fetch_early(world.shelf.items, int(history), 0)


@loop
def advance(
    at: int, kind: I8, index: I32, calls: Calls, media: Media, world: World, limits: Limits, scratch: Scratch
) -> tuple[int, int]:
    """Apply events from `at` on, in order, until somebody must look.

    Args:
        at: where to begin in `kind` and `index`.
        kind: int8, K_CALL, K_MEDIA or K_OTHER of each event, in order of arrival.
        index: int32, the event's row in the columns of its kind.
        calls, media: the batch.
        world: the state; changed in place.
        limits: what the configuration fixes.
        scratch: what is handed back; changed in place.

    Returns:
        (where to go on, STOP_ flags). STOP_OTHER, STOP_DUE, STOP_CUSTOMERS and STOP_SHELVES mean that the event at
        the returned place has not been applied; the others, that the one before it has. No flags: all is done.
    """
    for k in range(at, len(kind)):
        _fetch_customers(world, kind, index, calls, k)
        if kind[k] == K_OTHER:
            return k, STOP_OTHER
        if world.notes.tally[0] == 0 or world.shelf.tally[0] == 0:
            return k, STOP_SHELVES
        i = index[k]
        if kind[k] == K_MEDIA:
            _apply_media(world, media, i)
            continue
        end_ms = calls.end_ms[i]
        if scratch.clock[0] >= 0 and end_ms > scratch.clock[0] + FUTURE_MS:
            scratch.counts[LATE] += 1
            scratch.fate[i] = LATE
            continue
        if end_ms > scratch.clock[0]:
            if end_ms >= scratch.clock[1]:
                return k, STOP_DUE
            scratch.clock[0] = end_ms
        row = find_or_add(world.book, calls.customer[i])
        if row < 0:
            return k, STOP_CUSTOMERS
        one = world.book.rows[row]
        call = max(np.uint32(calls.call[i]), np.uint32(1))
        if is_known(one, call):
            scratch.counts[DUPLICATE] += 1
            scratch.fate[i] = DUPLICATE
            continue
        if is_late(one, end_ms, limits.lateness_ms):
            scratch.counts[LATE] += 1
            scratch.fate[i] = LATE
            continue
        touch(world.book, row)
        keep(one, call, end_ms)
        scratch.counts[APPLIED] += 1
        scratch.fate[i] = APPLIED
        flags = _apply_call(world, row, calls, i, limits, scratch)
        if flags != 0:
            return k + 1, flags
    return len(kind), 0


def merge_order(*positions: npt.NDArray[np.int64]) -> tuple[I8, I32, I64]:
    """Return (kind, index, position) of all events in order of arrival.

    Args:
        positions: for calls, for media, and for all others: int64 positions in the chunk.
    """
    kind = np.concatenate([np.full(len(position), k, np.int8) for k, position in enumerate(positions)])
    index = np.concatenate([np.arange(len(position), dtype=np.int32) for position in positions])
    position = np.concatenate(positions)
    order = np.argsort(position, kind="stable")
    return kind[order], index[order], position[order]
