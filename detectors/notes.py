"""What is known of a customer for a while only: most have nothing of the sort, and so no note.

A row names its customer's note. Whoever has none has the draft, which says nothing: it is read like any other and
written in while a call is applied. What then stands in it becomes a note of its own, and a note in which nothing is
left is given back, so that the loop need not ask who has one.
"""

from typing import Any

import numpy as np

from detectors.evidence import CHANNELS
from detectors.shelves import Shelf, Shelves, give_back, take_place
from schemas.kernels import inlined, loop

NOTE = np.dtype(
    [
        ("since_ms", np.int64),  # end of the first bad call since the evidence was last low; -1: none
        ("last_bad_ms", np.int64),  # end of the newest bad call; -1: none
        # observations that may yet turn out to be trouble: sum of their x
        ("waiting_weight", np.float32, (len(CHANNELS),)),
        ("waiting_count", np.uint16, (len(CHANNELS),)),  # and how many there are
        ("media_call", np.uint32),  # the call that media reports came for last
        ("media_rating", np.float32),  # and the mean R-factor they gave
        ("media_count", np.float32),
        ("history", np.int32),  # place of the customer's recent calls (detectors.history); -1: none
        ("incident", np.int32),  # serial of the last incident this customer was counted in; 0: none
        ("line", np.int32),  # place of what telemetry says of the customer's line (detectors.lines); -1: nothing
    ],
    align=True,
)

DRAFT = 0
"""The note of those who have none."""

KEPT_MS = 14 * 86_400_000
"""So long after a customer's last bad call the calls before it are forgotten, and that there was one."""


@inlined
def clear_note(one: Any) -> None:
    """Make a note say nothing."""
    one["since_ms"] = -1
    one["last_bad_ms"] = -1
    one["waiting_weight"][:] = 0.0
    one["waiting_count"][:] = 0
    one["media_call"] = 0
    one["media_rating"] = 0.0
    one["media_count"] = 0.0
    one["history"] = -1
    one["incident"] = 0
    one["line"] = -1


@inlined
def _says_nothing(one: Any, now_ms: int) -> bool:
    """Return whether all that a note says is that there was a bad call, long ago."""
    waits = False
    for channel in range(len(CHANNELS)):
        waits |= one["waiting_count"][channel] > 0 or one["waiting_weight"][channel] != 0.0
    recent = one["last_bad_ms"] >= 0 and now_ms - one["last_bad_ms"] <= KEPT_MS
    kept = one["history"] >= 0 or one["line"] >= 0
    return not (waits or recent or kept or one["since_ms"] >= 0 or one["media_count"] > 0.0)


@inlined
def put_away(shelf: Shelf, customer: Any, now_ms: int) -> None:
    """Give a customer a note where something stands in the draft; take it back where nothing is left in it.

    Args:
        shelf: the notes; a free one must be there.
        customer: the row.
        now_ms: event time.
    """
    one = shelf.items[customer["note"]]
    if _says_nothing(one, now_ms):
        if customer["note"] != DRAFT:
            give_back(shelf, customer["note"])
            customer["note"] = DRAFT
    elif customer["note"] == DRAFT:
        customer["note"] = take_place(shelf)
        shelf.items[customer["note"]] = one
        clear_note(one)


@loop
def _clear(shelf: Shelf, place: int) -> None:
    clear_note(shelf.items[place])


class Notes(Shelves):
    """All notes."""

    def __init__(self) -> None:
        super().__init__(NOTE, first=DRAFT + 1)
        _clear(self.shelf, DRAFT)

    def add(self) -> int:
        """Return the place of a new note, which says nothing."""
        if not self.shelf.tally[0]:
            self.make_room()
        place = take_place(self.shelf)
        _clear(self.shelf, place)
        return place
