"""Customer id to row, and the one array that all per-customer state lives in.

A customer is a row of a structured array: a call touches three cache lines of one row, not one line of each of
thirty arrays. Rows are found through an open-addressing table of row numbers, keyed by the id's 64-bit key.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.evidence import CHANNELS, RISES
from detectors.snapshots import raw
from schemas.kernels import inlined, loop
from schemas.text import I32, Bools

SEEN = 8
"""How many of a customer's latest calls are remembered to recognise duplicates."""

LOCKS = 2
"""How many durations are held in suspicion for a customer at a time."""

ROW = np.dtype(
    [
        ("key", np.uint64),  # XXH64 of the customer id; 0: the row is free
        ("last_ms", np.int64),  # end of the newest call applied; -1: none yet
        ("since_ms", np.int64),  # end of the first bad call since the evidence was last low; -1: none
        ("last_bad_ms", np.int64),  # end of the newest bad call; -1: none
        ("forgotten_ms", np.int64),  # newest end among the calls that `seen` no longer holds; -1: none
        ("seen_ms", np.int64, (SEEN,)),  # when the latest calls ended
        ("seen", np.uint32, (SEEN,)),  # and their keys; 0: a free place
        ("evidence", np.float32, (len(CHANNELS), len(RISES))),
        ("days", np.float32, (len(CHANNELS),)),  # that passed since each channel was observed
        ("count", np.float32, (len(CHANNELS),)),  # baseline: observations learnt
        ("weight", np.float32, (len(CHANNELS),)),  # baseline: sum of their x
        ("waiting_count", np.float32, (len(CHANNELS),)),  # observations that may yet turn out to be trouble
        ("waiting_weight", np.float32, (len(CHANNELS),)),
        ("rating", np.float32),  # mean R-factor of healthy calls
        ("rating_spread", np.float32),  # and their mean absolute deviation from it
        ("rating_count", np.float32),
        ("lock_s", np.float32, (LOCKS,)),  # durations that calls may be cut at (detectors.locks)
        ("lock_evidence", np.float32, (LOCKS,)),
        ("lock_peer", np.uint32, (LOCKS,)),  # far end of the newest call cut there
        ("minutes_share", np.float32),  # how many durations are whole minutes, recent ones weighing more
        ("last_peer", np.uint32),  # far end of the newest call
        ("media_call", np.uint32),  # the call that media reports came for last
        ("media_rating", np.float32),  # and the mean R-factor they gave
        ("media_count", np.float32),
        ("history", np.int32),  # index into the histories; -1: none
        ("incident", np.int32),  # serial of the last incident this customer was counted in
        ("mode", np.uint8),  # CALM or CASE
        # direction + 1 of the newest call if it was made again to the same far end; 0: it was not
        ("again", np.uint8),
        # how much the newest answered call looked dropped, 0..FULL, until the parties have parted; FULL: settled
        ("doubt", np.uint8),
    ],
    align=True,
)

CALM, CASE = 0, 1

FULL = 255
"""A whole drop, in units of `doubt`."""

Rows = npt.NDArray[np.void]


class Book(NamedTuple):
    """The roster as the kernels see it."""

    rows: Rows
    slots: I32
    tally: npt.NDArray[np.int64]  # [used rows]


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
    return row


@loop
def clear_row(rows: Rows, row: int) -> None:
    """Make a row that of a customer never seen."""
    one = rows[row]
    one["key"] = 0
    one["last_ms"] = -1
    one["since_ms"] = -1
    one["last_bad_ms"] = -1
    one["seen"][:] = 0
    one["seen_ms"][:] = -1
    one["forgotten_ms"] = -1
    one["evidence"][:, :] = 0.0
    one["days"][:] = 0.0
    one["count"][:] = 0.0
    one["weight"][:] = 0.0
    one["waiting_count"][:] = 0.0
    one["waiting_weight"][:] = 0.0
    one["rating"] = 0.0
    one["rating_spread"] = 0.0
    one["rating_count"] = 0.0
    one["lock_s"][:] = 0.0
    one["lock_evidence"][:] = 0.0
    one["lock_peer"][:] = 0
    one["minutes_share"] = 0.95
    one["last_peer"] = 0
    one["again"] = 0
    one["doubt"] = 0
    one["media_call"] = 0
    one["media_rating"] = 0.0
    one["media_count"] = 0.0
    one["history"] = -1
    one["incident"] = 0
    one["mode"] = CALM


@loop
def _index(book: Book) -> None:
    book.slots[:] = 0
    for row in range(book.tally[0]):
        at = home(book, book.rows[row]["key"])
        while book.slots[at] != 0:
            at = (at + 1) & (len(book.slots) - 1)
        book.slots[at] = row + 1


class Roster:
    """All customers' rows; grows by doubling up to `customers_max`, then evicts who was silent longest.

    Args:
        customers_max: rows at the most.
        idle_days: a customer silent for longer may be evicted whenever room is needed.

    Attributes:
        book: the arrays; replaced when they grow.
        evicted_count: customers evicted since the beginning.
    """

    def __init__(self, customers_max: int, idle_days: int) -> None:
        self.customers_max = customers_max
        self.idle_ms = idle_days * 86_400_000
        self.evicted_count = 0
        self.book = self._allocate(np.zeros(min(1024, customers_max), ROW), 0)

    @staticmethod
    def _allocate(rows: Rows, used: int) -> Book:
        # At most half full: a probe for a key then looks at 1.5 slots in the mean (Knuth, vol. 3, section 6.4).
        slots = np.zeros(1 << max(4, int(2 * len(rows) - 1).bit_length()), np.int32)
        book = Book(rows, slots, np.array([used], np.int64))
        _index(book)
        return book

    def __len__(self) -> int:
        return int(self.book.tally[0])

    def find(self, key: int) -> int:
        """Return the row of a customer's key, or -1."""
        return int(find(self.book, np.uint64(key)))

    def make_room(self, now_ms: int) -> Rows:
        """Grow, or evict; return the rows of customers evicted.

        Args:
            now_ms: event time. Customers silent for `idle_days` go first; if there are none, the sixteenth that was
                silent longest. A customer with an open case stays.
        """
        rows = self.book.rows
        if len(rows) < self.customers_max:
            grown = np.zeros(min(2 * len(rows), self.customers_max), ROW)
            raw(grown)[: len(rows)] = raw(rows)
            self.book = self._allocate(grown, len(self))
            return np.zeros(0, ROW)
        used = rows[: len(self)]
        free = used["mode"] == CALM
        leave = free & (used["last_ms"] < now_ms - self.idle_ms)
        if not leave.any():
            ranked = np.lexsort((used["key"], used["last_ms"], ~free))
            leave[ranked[: max(1, len(used) // 16)]] = True
        self.evicted_count += int(leave.sum())
        return self.remove(leave)

    def remove(self, leave: Bools) -> Rows:
        """Remove the customers marked in `leave` (one a used row); return their rows. Other rows move."""
        used = self.book.rows[: len(self)]
        keep = ~leave
        gone = used[leave].copy()
        kept = np.zeros(len(self.book.rows), ROW)
        raw(kept)[: int(keep.sum())] = raw(used)[keep]
        self.book = self._allocate(kept, int(keep.sum()))
        return gone

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values: a copy."""
        return {"rows": self.book.rows[: len(self)].tobytes(), "evicted": self.evicted_count}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a snapshot."""
        used = np.frombuffer(state["rows"], ROW)
        size = max(min(1024, self.customers_max), 1 << max(0, len(used) - 1).bit_length())
        rows = np.zeros(max(min(size, self.customers_max), len(used)), ROW)
        raw(rows)[: len(used)] = raw(used)
        self.book = self._allocate(rows, len(used))
        self.evicted_count = state["evicted"]
