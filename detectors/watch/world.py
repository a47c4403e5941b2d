"""What the hot loop works on: the columns of a batch, the state, and what it hands back."""

from typing import NamedTuple

from detectors.churn.features import EXPERIENCE
from detectors.elements import Network
from detectors.patterns import Kept
from detectors.roster import Book
from detectors.shelves import Shelf
from schemas.text import F32, F64, I8, I16, I32, I64, U64, Bools

K_CALL, K_MEDIA, K_NEWS, K_OTHER, K_LINK = range(5)
"""Kinds of event, as the loop tells them apart."""
STOP_OTHER, STOP_DUE, STOP_CUSTOMERS, STOP_SHELVES = 1, 2, 4, 8
"""Reasons to return before an event: rare type; a decision is due; no free row; no free history, note or line."""
STOP_LOOK, STOP_CASE, STOP_ELEMENT = 16, 32, 64
"""Reasons to return behind an event: evidence asks for a look; a case is worse or may be over; an element's state."""
APPLIED, DUPLICATE, LATE = 0, 1, 2

FUTURE_MS = 366 * 86_400_000
"""A time so far beyond all others is a broken clock: believed, it would make every later record late."""

FELT: tuple[str, ...] = EXPERIENCE[:-1]
"""The churn features that a customer's row and history give; an open case stands elsewhere."""


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


class News(NamedTuple):
    """What the business said of its customers in a batch: the loop sees when, and how each was by then.

    Attributes:
        fate: int8[n], handed back: APPLIED or LATE.
        felt: float64[n, len(FELT)], handed back: from `detectors.watch.news.feel`.
    """

    customer: U64
    at_ms: I64
    fate: I8
    felt: F64


class Links(NamedTuple):
    """The readings of customers' own lines in a batch: one row a reading.

    Attributes:
        metric: index into `detectors.lines.METRICS`.
    """

    customer: U64
    at_ms: I64
    metric: I8
    value: F32


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
        counts: calls and news [applied, duplicate, late].
        named: int64[n, 3]: (call, history, place) of each bad call whose id must be kept.
        tally: [used rows of `named`, used places of `alarms`, news passed].
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
    lines: Shelf
    network: Network
