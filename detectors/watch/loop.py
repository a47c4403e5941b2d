"""The hot loop: one pass over a batch, exact per customer, that stops where somebody must look.

`advance` applies events in order of arrival. A typical call touches its customer's row and its elements' rows and is
done. Where a customer's or an element's evidence asks for the careful look, where an event is of a rare type, or
where a pending decision has come due, the loop returns, Python does the slow thing, and the loop goes on behind that
event. So the outcome is that of one event at a time, whatever the batch size.
"""

import numpy as np
import numpy.typing as npt

from detectors.history import BAD, BAD_CALL, ELEMENTS
from detectors.lines import fall_together, read_line, take_line
from detectors.notes import put_away
from detectors.order import is_known, is_late, keep
from detectors.roster import CALM, FULL, ROW, find, find_or_add, home, touch
from detectors.watch.cases import goes_on
from detectors.watch.customers import (
    LIKELY,
    evidence_days,
    judge_customer,
    keep_call,
    may_be_over,
    may_open,
    settle,
    suspect_duration,
)
from detectors.watch.elements import INSIDE, MUTED, complete_line, incident_state, log_bad_call, watch_elements
from detectors.watch.news import apply_news
from detectors.watch.signs import CERTAIN, REDIAL_ONE_SIDED, TALKED, poorness, rating_of, redial_of, signs_of
from detectors.watch.world import (
    APPLIED,
    DUPLICATE,
    FUTURE_MS,
    K_CALL,
    K_LINK,
    K_MEDIA,
    K_NEWS,
    K_OTHER,
    LATE,
    STOP_CASE,
    STOP_CUSTOMERS,
    STOP_DUE,
    STOP_ELEMENT,
    STOP_LOOK,
    STOP_OTHER,
    STOP_SHELVES,
    Calls,
    Limits,
    Links,
    Media,
    News,
    Scratch,
    World,
)
from schemas.kernels import fetch_early, inlined, loop
from schemas.text import I8, I32, I64

NODE = ELEMENTS.index("access_node")
ROW_LINES = (ROW.itemsize - 1) // 64 + 2
"""Cache lines that a row may lie in, wherever it begins."""


@inlined
def _apply_call(world: World, row: int, calls: Calls, i: int, limits: Limits, scratch: Scratch) -> int:
    """Apply one call that is neither duplicate nor late; return STOP_ flags."""
    one = world.book.rows[row]
    note = world.notes.items[one["note"]]
    answered = calls.answer_ms[i] >= 0
    rating = rating_of(note, calls, i)
    poor = -1.0
    if answered and not np.isnan(rating):
        poor = poorness(one, rating)
    redial = redial_of(one, calls, i) if one["last_peer"] != 0 else -1.0
    again = -1.0 if redial > 0.0 and one["doubt"] >= LIKELY * FULL else redial
    complete_line(one, calls, i)
    state = incident_state(world.network, calls, i)
    watch_elements(world, row, calls, i, poor, state, limits, scratch)
    if state & MUTED:
        poor = -1.0
    signs = signs_of(calls, i, poor, again)
    if signs & BAD_CALL and again < BAD:
        log_bad_call(world, calls, i, poor)
    stop = STOP_ELEMENT * (scratch.tally[1] > 0)
    confirmed = False
    if not state & INSIDE:
        if one["mode"] == CALM:
            confirmed = settle(one, note, redial)
            signs |= judge_customer(world, one, calls, i, rating, poor, again)
        else:
            signs |= suspect_duration(one, calls, i, 0.0)
        keep_call(world, row, calls, i, rating, signs, scratch)
    if signs & BAD_CALL:
        note["last_bad_ms"] = max(note["last_bad_ms"], calls.end_ms[i])
    if note["line"] >= 0 and calls.elements[i, NODE] >= 0:
        world.lines.items[note["line"]]["node"] = calls.elements[i, NODE]
    if not state & INSIDE:
        bad = (signs & BAD_CALL) != 0
        if one["mode"] != CALM:
            # What is found of an element may end a case.
            if bad:
                stop |= STOP_CASE * (stop != 0 or not goes_on(world, note, calls.end_ms[i], scratch))
            else:
                stop |= STOP_CASE * may_be_over(world, note, calls.end_ms[i])
        elif (bad or confirmed) and note["since_ms"] < calls.end_ms[i] and evidence_days(one) >= limits.look_days:
            # The first bad call of a trouble is looked at with the second. What is found of an element may change it.
            stop |= STOP_LOOK * (stop != 0 or may_open(world, one, note, calls.end_ms[i], limits, scratch))
    one["again"] = calls.direction[i] + 1 + TALKED * answered if redial == REDIAL_ONE_SIDED else 0
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


@inlined
def _apply_link(world: World, links: Links, i: int, clock_ms: int) -> None:
    """Read the line of a customer who has called; a time far ahead is a broken clock."""
    row = find(world.book, links.customer[i])
    if row < 0 or (clock_ms >= 0 and links.at_ms[i] > clock_ms + FUTURE_MS):
        return
    touch(world.book, row)
    one = world.book.rows[row]
    note = world.notes.items[one["note"]]
    if note["line"] < 0:
        note["line"] = take_line(world.lines)
    line = world.lines.items[note["line"]]
    if read_line(line, links.metric[i], links.value[i], links.at_ms[i]) and line["node"] >= 0:
        fall_together(world.network.elements[line["node"]], links.at_ms[i])
    put_away(world.notes, one, links.at_ms[i])


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
    at: int,
    kind: I8,
    index: I32,
    calls: Calls,
    media: Media,
    news: News,
    links: Links,
    world: World,
    limits: Limits,
    scratch: Scratch,
) -> tuple[int, int]:
    """Apply events from `at` on, in order, until somebody must look.

    Args:
        at: where to begin in `kind` and `index`.
        kind: int8, K_CALL, K_MEDIA, K_NEWS, K_OTHER or K_LINK of each event, in order of arrival.
        index: int32, the event's row in the columns of its kind.
        calls, media, news, links: the batch.
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
        if world.notes.tally[0] == 0 or world.shelf.tally[0] == 0 or world.lines.tally[0] == 0:
            return k, STOP_SHELVES
        i = index[k]
        if kind[k] == K_NEWS:
            if not apply_news(world, news, i, scratch):
                return k, STOP_DUE
            continue
        if kind[k] == K_MEDIA:
            _apply_media(world, media, i)
            continue
        if kind[k] == K_LINK:
            _apply_link(world, links, i, scratch.clock[0])
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
        positions: for each kind, int64 positions in the chunk.
    """
    kind = np.concatenate([np.full(len(position), k, np.int8) for k, position in enumerate(positions)])
    index = np.concatenate([np.arange(len(position), dtype=np.int32) for position in positions])
    position = np.concatenate(positions)
    order = np.argsort(position, kind="stable")
    return kind[order], index[order], position[order]
