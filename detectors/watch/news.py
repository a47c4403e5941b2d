"""What the business says of a customer, as the loop sees it: time passes, and how the calls have been is noted."""

import math

import numpy as np

from detectors.evidence import DROP, QUALITY
from detectors.history import BAD_KEPT
from detectors.roster import find
from detectors.watch.customers import evidence_days
from detectors.watch.world import FUTURE_MS, LATE, News, Scratch, World
from schemas.kernels import inlined, loop
from schemas.text import F64

DAY_MS = 86_400_000


@loop
def feel(world: World, customer: np.uint64, now_ms: int, felt: F64) -> None:
    """Write how a customer's calls have been.

    Args:
        world: the state.
        customer: key.
        now_ms: event time.
        felt: is given `FELT`, of the evidence the days; NaN where one is not known.
    """
    felt[:] = math.nan
    row = find(world.book, customer)
    if row < 0:
        return
    one = world.book.rows[row]
    felt[0] = evidence_days(one)
    for place, channel in ((1, DROP), (2, QUALITY)):
        if one["count"][channel] > 0:
            felt[place] = one["weight"][channel] / np.float32(one["count"][channel])
    felt[3] = max(0, now_ms - one["last_ms"]) / DAY_MS
    felt[4] = 0.0
    history = world.notes.items[one["note"]]["history"]
    if history >= 0:
        held = world.shelf.items[history]
        for place in range(min(held["bad_count"], BAD_KEPT)):
            felt[4] += held["bad"][place]["end_ms"] > now_ms - 7 * DAY_MS


@inlined
def apply_news(world: World, news: News, i: int, scratch: Scratch) -> bool:
    """Let time pass up to a piece of news and note how its customer is by then; False: a decision is due first."""
    at_ms = news.at_ms[i]
    if 0 <= scratch.clock[0] < at_ms - FUTURE_MS:
        news.fate[i] = LATE
    elif at_ms >= scratch.clock[1]:
        return False
    else:
        scratch.clock[0] = max(scratch.clock[0], at_ms)
        feel(world, news.customer[i], at_ms, news.felt[i])
    scratch.counts[news.fate[i]] += 1
    scratch.tally[2] += 1
    return True
