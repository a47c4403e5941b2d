"""Places for what only some customers have: handed out one by one, and taken back."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.changes import copied, words
from detectors.snapshots import raw
from schemas.kernels import loop
from schemas.text import I32

SIZE_MIN = 64


class Shelf(NamedTuple):
    """The places as the kernels see them."""

    items: npt.NDArray[np.void]
    free: I32  # a stack of free places
    tally: npt.NDArray[np.int64]  # [length of the stack]


@loop
def take_place(shelf: Shelf) -> int:
    """Return a free place, in which still lies what it held last; -1 where none is free."""
    if shelf.tally[0] == 0:
        return -1
    shelf.tally[0] -= 1
    return int(shelf.free[shelf.tally[0]])


@loop
def give_back(shelf: Shelf, place: int) -> None:
    """Free a place."""
    shelf.free[shelf.tally[0]] = place
    shelf.tally[0] += 1


class Shelves:
    """Places of one sort; grows by doubling.

    Args:
        dtype: of what lies in a place; a multiple of eight bytes.
        first: the places before this one are never handed out.

    Attributes:
        shelf: the arrays; replaced when they grow.
    """

    def __init__(self, dtype: np.dtype[np.void], first: int = 0) -> None:
        self._dtype, self._first = dtype, first
        self.shelf = self._allocate(SIZE_MIN)

    def __len__(self) -> int:
        return len(self.shelf.items) - self._first - int(self.shelf.tally[0])

    def _allocate(self, size: int) -> Shelf:
        # The lowest place lies on top of the stack, so that few stay close together.
        free = np.arange(size - 1, self._first - 1, -1, dtype=np.int32)
        return Shelf(np.zeros(size, self._dtype), free, np.array([len(free)], np.int64))

    def make_room(self) -> None:
        """Double."""
        old = self.shelf
        size = len(old.items)
        self.hold(2 * size)
        free = np.concatenate([np.arange(2 * size - 1, size - 1, -1, dtype=np.int32), old.free[: old.tally[0]]])
        self.shelf.free[: len(free)] = free
        self.shelf.tally[0] = len(free)

    def hold(self, size: int) -> None:
        """Have at least so many places, those there are as they were; which ones are free is left to say."""
        old = self.shelf
        if size > len(old.items):
            self.shelf = self._allocate(1 << (size - 1).bit_length())
            raw(self.shelf.items)[: len(old.items)] = raw(old.items)

    # State

    def copy(self, index: I32) -> Any:
        """Return what lies in some places, as a checkpoint holds it: a copy."""
        return copied(self.shelf.items, index)

    def take(self, index: I32, kept: Any) -> None:
        """Take over what `copy` gave."""
        self.hold(int(index.max(initial=0)) + 1)
        words(self.shelf.items)[index] = words(kept)

    def reset(self) -> None:
        """Hold nothing, with nothing written yet."""
        self.__init__()  # type: ignore[misc]  # begin empty, whatever was there

    def settle(self, taken: I32) -> None:
        """Make those places free that nobody has, once all were taken over; nothing is left in them.

        Args:
            taken: the others.
        """
        kept = np.zeros(len(self.shelf.items), bool)
        kept[: self._first] = True
        kept[taken] = True
        words(self.shelf.items)[~kept] = 0
        free = np.flatnonzero(~kept)[::-1]
        self.shelf.free[: len(free)] = free
        self.shelf.tally[0] = len(free)
