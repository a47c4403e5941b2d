"""Customer id to row, and the one array that all per-customer state lives in.

A customer is a row of a structured array: a call touches three cache lines of one row, not one line of each of
thirty arrays. Rows are found through an open-addressing table of row numbers, keyed by the id's 64-bit key.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.changes import Hand, again, copied, words
from detectors.evidence import CHANNELS, RISES, SKIPPED
from detectors.notes import DRAFT
from detectors.order import LONG_AGO, SEEN
from detectors.snapshots import raw
from schemas.errors import StateError
from schemas.kernels import inlined, loop
from schemas.text import I32, Bools

LOCKS = 2
"""How many durations are held in suspicion for a customer at a time."""

MINUTES_ALL = 65_535
MINUTES_BEGIN = 62_258
"""Parts that make a whole share of durations in whole minutes; until finer ones are seen, it is held to be 95 %."""

ROW = np.dtype(
    [
        ("key", np.uint64),  # XXH64 of the customer id; 0: the row is free
        ("last_ms", np.int64),  # end of the newest call applied; -1: none yet
        ("line", np.int64),  # what the line was last told to hang on (`detectors.watch.elements.complete_line`)
        ("seen", np.uint32, (SEEN,)),  # keys of the latest calls, newest first (detectors.order); 0: a free place
        ("gap", np.uint16, (SEEN,)),  # and the time from each back to the next; LONG_AGO: there is none
        ("evidence", np.float32, (len(CHANNELS), len(RISES))),
        ("days", np.float32, (len(SKIPPED),)),  # that passed since each channel that calls may skip was observed
        ("weight", np.float32, (len(CHANNELS),)),  # baseline: sum of the x of the observations learnt
        ("count", np.uint16, (len(CHANNELS),)),  # and how many those are
        ("lock_evidence", np.float32, (LOCKS,)),
        ("rating", np.float32),  # mean R-factor of healthy calls
        ("rating_spread", np.float32),  # and their mean absolute deviation from it
        ("last_peer", np.uint32),  # far end of the newest call
        ("note", np.int32),  # place of what is known for a while only (detectors.notes); DRAFT: nothing
        ("lock_peer", np.uint16, (LOCKS, 2)),  # far ends of the first and of the newest call cut there, 16 bits each
        ("lock", np.uint16, (LOCKS,)),  # durations that calls may be cut at, in steps (detectors.locks); 0: none
        ("minutes_share", np.uint16),  # durations in whole minutes, of MINUTES_ALL, recent ones weighing more
        ("written", np.uint16),  # how far the next checkpoint has come with this row (`touch`); not kept
        ("rating_count", np.uint8),  # calls that `rating` rests on, up to `watch.RATING_MEMORY`
        ("mode", np.uint8),  # CALM, CASE or HELD
        # direction + 1 of the newest call if it was made again to the same far end, and TALKED more if that was
        # answered; 0: it was not made again
        ("again", np.uint8),
        # how much the newest answered call looked dropped, 0..FULL, until the parties have parted; FULL: settled
        ("doubt", np.uint8),
    ],
    align=True,
)

CALM, CASE, HELD = range(3)
"""Modes of a customer: without a case; with one that was told; with one that waits."""

FULL = 255
"""A whole drop, in units of `doubt`."""

Rows = npt.NDArray[np.void]


class Book(NamedTuple):
    """The roster as the kernels see it.

    Attributes:
        tally: [used rows, rows in `changed`, rows in `changed_again`, mark of the checkpoint].
        changed: rows that changed and are not copied for the next checkpoint.
        changed_again: rows that changed once more behind their copy. Either list may be too short for what its tally
            counts; rows are marked too, and a list that is too short is made from the marks (`Roster._listed`).
    """

    rows: Rows
    slots: I32
    tally: npt.NDArray[np.int64]
    changed: I32
    changed_again: I32


LISTED_MIN = 1_024
"""Room in the lists of what changed, at the least."""

STATES = 4
LISTED, COPIED, LISTED_AGAIN = 1, 2, 3
"""What `written` says of a row, on top of the mark of the checkpoint; those on top of older marks say nothing."""

MARK_MAX = 0xFFFC
"""Behind this mark the first one comes again. No row still has it: the hand is round in far fewer checkpoints."""


@inlined
def touch(book: Book, row: int) -> None:
    """Note that a row changes: it belongs into the next checkpoint, once more if it was copied for it already."""
    one = book.rows[row]
    state = int(one["written"]) - book.tally[3]
    if state < LISTED or state > LISTED_AGAIN:
        one["written"] = book.tally[3] + LISTED
        if book.tally[1] < len(book.changed):
            book.changed[book.tally[1]] = row
        book.tally[1] += 1
    elif state == COPIED:
        one["written"] = book.tally[3] + LISTED_AGAIN
        if book.tally[2] < len(book.changed_again):
            book.changed_again[book.tally[2]] = row
        book.tally[2] += 1


@inlined
def home(book: Book, key: np.uint64) -> np.int64:
    """Return the slot where the search for a key begins."""
    # Fibonacci hashing: keys are digests already, the multiplication guards against chosen low bits.
    return np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (len(book.slots) - 1)


@loop
def find(book: Book, key: np.uint64) -> int:
    """Return the row of a key, or -1."""
    at = home(book, key)
    while book.slots[at] != 0:
        row = int(book.slots[at]) - 1
        if book.rows[row]["key"] == key:
            return row
        at = (at + 1) & (len(book.slots) - 1)
    return -1


@loop
def find_or_add(book: Book, key: np.uint64) -> int:
    """Return the row of a key, adding it; -1 where there is no free row left."""
    at = home(book, key)
    while book.slots[at] != 0:
        row = int(book.slots[at]) - 1
        if book.rows[row]["key"] == key:
            return row
        at = (at + 1) & (len(book.slots) - 1)
    if book.tally[0] >= len(book.rows):
        return -1
    row = int(book.tally[0])
    book.tally[0] += 1
    book.slots[at] = row + 1
    clear_row(book.rows, row)
    book.rows[row]["key"] = key
    touch(book, row)
    return row


@loop
def clear_row(rows: Rows, row: int) -> None:
    """Make a row that of a customer never seen."""
    one = rows[row]
    one["key"] = 0
    one["last_ms"] = -1
    one["seen"][:] = 0
    one["gap"][:] = LONG_AGO
    one["evidence"][:, :] = 0.0
    one["days"][:] = 0.0
    one["count"][:] = 0
    one["weight"][:] = 0.0
    one["rating"] = 0.0
    one["rating_spread"] = 0.0
    one["rating_count"] = 0
    one["lock"][:] = 0
    one["lock_evidence"][:] = 0.0
    one["lock_peer"][:, :] = 0
    one["minutes_share"] = MINUTES_BEGIN
    one["last_peer"] = 0
    one["again"] = 0
    one["doubt"] = 0
    one["line"] = 0
    one["note"] = DRAFT
    one["mode"] = CALM
    one["written"] = 0


@loop
def _index(book: Book) -> None:
    book.slots[:] = 0
    for row in range(book.tally[0]):
        at = home(book, book.rows[row]["key"])
        while book.slots[at] != 0:
            at = (at + 1) & (len(book.slots) - 1)
        book.slots[at] = row + 1


@loop
def _touch(book: Book, row: int) -> None:
    touch(book, row)


class Roster:
    """All customers' rows; grows by doubling up to `customers_max`, then evicts who was silent longest.

    Args:
        customers_max: rows at the most.
        idle_days: a customer silent for longer may be evicted whenever room is needed.

    Attributes:
        book: the arrays; replaced when they grow.
        evicted_count: customers evicted since the beginning.
        hand: goes round for the checkpoints.
    """

    def __init__(self, customers_max: int, idle_days: int) -> None:
        self.customers_max = customers_max
        self.idle_ms = idle_days * 86_400_000
        self._begin()

    def _begin(self) -> None:
        self.evicted_count = 0
        self.hand = Hand()
        self.book = self._allocate(min(1024, self.customers_max), np.array([0, 0, 0, STATES], np.int64))
        self._done = self._again = 0

    @staticmethod
    def _allocate(size: int, tally: npt.NDArray[np.int64]) -> Book:
        """Return a book of so many empty rows."""
        # At most half full: a probe for a key then looks at 1.5 slots in the mean (Knuth, vol. 3, section 6.4).
        slots = 1 << max(4, int(2 * size - 1).bit_length())
        # To make a list from the marks takes as long as to copy an eighth of the rows.
        listed = max(LISTED_MIN, size // 8)
        # In one piece: a large one goes back to the system when the next larger one replaces it. Small ones would stay
        # with the process as holes, none of which is large enough for their successors.
        piece = np.zeros(size * ROW.itemsize + 4 * (slots + 2 * listed), np.uint8)
        rows, rest = piece[: size * ROW.itemsize].view(ROW), piece[size * ROW.itemsize :].view(np.int32)
        return Book(rows, rest[:slots], tally, rest[slots : slots + listed], rest[slots + listed :])

    def __len__(self) -> int:
        return int(self.book.tally[0])

    def find(self, key: int) -> int:
        """Return the row of a customer's key, or -1."""
        return int(find(self.book, np.uint64(key)))

    def touch(self, row: int) -> None:
        """Note that a row, or what is kept beside it, changes."""
        _touch(self.book, row)

    def make_room(self, now_ms: int) -> Rows:
        """Grow, or evict; return the rows of customers evicted.

        Args:
            now_ms: event time. Customers silent for `idle_days` go first; if there are none, the sixteenth that was
                silent longest. A customer with an open case stays.
        """
        rows = self.book.rows
        if len(rows) < self.customers_max:
            self._grow(min(2 * len(rows), self.customers_max))
            self._list()
            _index(self.book)
            return np.zeros(0, ROW)
        used = rows[: len(self)]
        free = used["mode"] == CALM
        leave = free & (used["last_ms"] < now_ms - self.idle_ms)
        if not leave.any():
            ranked = np.lexsort((used["key"], used["last_ms"], ~free))
            leave[ranked[: max(1, len(used) // 16)]] = True
        self.evicted_count += int(leave.sum())
        return self.remove(leave)

    def _grow(self, size: int) -> None:
        """Have more rows; nobody can be found in them yet."""
        old = self.book
        self.book = self._allocate(size, old.tally)
        raw(self.book.rows)[: len(old.rows)] = raw(old.rows)

    def remove(self, leave: Bools) -> Rows:
        """Remove the customers marked in `leave` (one a used row); return their rows. The last ones fill the gaps."""
        used = self.book.rows[: len(self)]
        gone = copied(used, np.flatnonzero(leave))
        left = len(used) - len(gone)
        gaps, last = np.flatnonzero(leave[:left]), left + np.flatnonzero(~leave[left:])
        words(used)[gaps] = words(used)[last]
        words(used)[left:] = 0
        # What moved is written at its new place; what was listed may have moved.
        used["written"][gaps] = self.book.tally[3] + LISTED
        self.book.tally[0] = left
        self._list()
        _index(self.book)
        return gone

    # State

    def _marked(self, state: int) -> I32:
        """Return the rows whose mark says this."""
        written = self.book.rows["written"][: len(self)]
        return np.flatnonzero(written == self.book.tally[3] + state).astype(np.int32)

    def _list(self) -> None:
        """Make the lists of what changed anew, from the marks."""
        for at, state, room in ((1, LISTED, self.book.changed), (2, LISTED_AGAIN, self.book.changed_again)):
            written = self.book.rows["written"][: len(self)]
            count = np.count_nonzero(written == self.book.tally[3] + state)
            self.book.tally[at] = count
            if count <= len(room):
                room[:count] = self._marked(state)

    def _listed(self, at: int, state: int, room: I32) -> I32:
        """Return what a list holds; where it was too short, what it should hold."""
        count = int(self.book.tally[at])
        return room[:count].copy() if count <= len(room) else self._marked(state)

    @property
    def due(self) -> int:
        """How many rows `gather` would copy because they changed."""
        return int(self.book.tally[1])

    def gather(self, number: int, *, last: bool = False) -> tuple[I32, Rows]:
        """Copy what changed since the last time for the checkpoint of this number, and as many rows again.

        That may be done at any time before the checkpoint, as often as wanted: a row that changes behind its copy is
        copied once more by the last one.

        Args:
            number: of the checkpoint.
            last: it is to be complete.

        Returns:
            (places, rows); of what is gathered for one checkpoint, the newest copy of a place counts.
        """
        book, size = self.book, len(self)
        mark = int(book.tally[3])
        listed = self._listed(1, LISTED, book.changed)
        book.tally[1] = 0
        self._done += len(listed)
        count = len(listed)
        if last:
            listed = np.concatenate([listed, self._listed(2, LISTED_AGAIN, book.changed_again)])
            count = max(count, again(self._done, size) - self._again)
        book.rows["written"][listed] = mark + COPIED
        passed = self.hand.turn(number, size, count)
        self._again += passed.stop - passed.start
        written = book.rows["written"][passed]
        is_rest = (written < mark + LISTED) | (written > mark + LISTED_AGAIN)
        # What the hand passes has no mark of an older checkpoint any more.
        written[is_rest] = 0
        index = np.concatenate([listed, passed.start + np.flatnonzero(is_rest).astype(np.int32)])
        if last:
            self._next()
        return index, self._copy(index)

    def whole(self, number: int) -> tuple[I32, Rows]:
        """Copy all rows for the checkpoint of this number; return them with their places."""
        self.hand = Hand()
        self.hand.turn(number, len(self), len(self))
        self._next()
        index = np.arange(len(self), dtype=np.int32)
        return index, self._copy(index)

    def _copy(self, index: I32) -> Rows:
        rows = copied(self.book.rows, index)
        rows["written"] = 0
        return rows

    def _next(self) -> None:
        """Begin to collect for the next checkpoint."""
        self.book.tally[1:3] = 0
        self.book.tally[3] = self.book.tally[3] % MARK_MAX + STATES
        self._done = self._again = 0

    def take(self, index: I32, rows: Rows, size: int) -> None:
        """Take over gathered rows; those of one checkpoint in the order in which they were gathered.

        Args:
            index, rows: what `gather` gave.
            size: customers there are.
        """
        if size > len(self.book.rows):
            self._grow(max(size, min(1 << (size - 1).bit_length(), self.customers_max)))
        here = index < size
        words(self.book.rows)[index[here]] = words(rows)[here]
        words(self.book.rows)[size:] = 0
        self.book.tally[0] = size

    def settle(self) -> None:
        """Make rows that were taken over findable.

        Raises:
            StateError: some are missing.
        """
        missing = int(np.count_nonzero(self.book.rows["key"][: len(self)] == 0))
        if missing:
            raise StateError(f"the state must hold every customer, {missing} of {len(self)} were missing")
        _index(self.book)

    def reset(self) -> None:
        """Know nobody, with nothing written yet."""
        self._begin()
