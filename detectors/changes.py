"""What of the state changed since the last checkpoint, and what is written again so that old checkpoints can go.

A checkpoint holds what changed and, besides, some of what did not: a hand goes round over every table. So the newest
few checkpoints hold everything, none is ever copied into another, and each costs what changed. `floor` says how far
back the newest needs those before it.
"""

from collections import deque
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.errors import StateError

ROUND = 64
"""A table is written anew in so many checkpoints at the most, however little of it changes."""

AGAIN_MIN = 256
"""So many entries are written again at the least: a small table is then as good as whole in every checkpoint."""

K = TypeVar("K")
V = TypeVar("V")


def again(changed: int, size: int) -> int:
    """Return how many entries to write again beside so many changed ones.

    As many as changed: a table is then written twice for each time that it changes, and takes twice its size on disk.
    """
    return max(changed, -(-size // ROUND), AGAIN_MIN)


class Hand:
    """Goes round over the places of a table.

    What lies before it was written by the checkpoint `floor` or a later one: by the hand when it came by the last
    time, or because it is newer than that.
    """

    def __init__(self) -> None:
        self._at = 0
        self._rounds = 0
        self._turns: deque[list[int]] = deque()

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest."""
        return self._turns[0][0]

    def turn(self, number: int, size: int, count: int) -> slice:
        """Move on by `count` places of `size`, for the checkpoint of this number; return the places passed."""
        begin = self._at if self._at < size else 0
        end = min(begin + count, size)
        if end > begin or size == 0:
            self._pass(number, begin, end)
        return slice(begin, end)

    def turns(self, number: int) -> list[list[int]]:
        """Return the turns that were made for a checkpoint: first place, and the one behind the last."""
        return [[begin, end] for of, _, begin, end in self._turns if of == number]

    def take(self, turns: list[list[int]], number: int) -> None:
        """Take over the turns of a checkpoint, behind those of the one before it."""
        for begin, end in turns:
            self._pass(number, begin, end)

    def _pass(self, number: int, begin: int, end: int) -> None:
        self._rounds += begin == 0
        self._at = end
        if begin == end:
            # Of an empty table nothing is needed any more.
            self._turns.clear()
        last = self._turns[-1] if self._turns else None
        if last is not None and begin > 0 and last[0] == number and last[3] == begin:
            last[3] = end
        else:
            self._turns.append([number, self._rounds, begin, end])
        while self._is_over(*self._turns[0]):
            self._turns.popleft()

    def _is_over(self, _number: int, round_: int, _begin: int, end: int) -> bool:
        """Whether everything of a turn has been passed again."""
        return round_ < self._rounds - 1 or (round_ == self._rounds - 1 and end <= self._at)


class Table:
    """Finds the changed rows of an array that is small enough to be held twice.

    Args:
        dtype: of the rows; a multiple of eight bytes.
    """

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._hand = Hand()
        self.settle(np.zeros(0, dtype))

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest."""
        return self._hand.floor

    def changes(self, number: int, rows: npt.NDArray[np.void]) -> dict[str, Any]:
        """Return the rows that are not those written last, and some of the others."""
        now = words(rows)
        both = min(len(now), len(self._written))
        differs = np.ones(len(now), bool)
        differs[:both] = (now[:both] != self._written[:both]).any(axis=1)
        passed = self._hand.turn(number, len(now), again(int(np.count_nonzero(differs)), len(now)))
        differs[passed] = True
        index = np.flatnonzero(differs)
        self.settle(rows)
        return {"index": plain(index), "rows": plain(copied(rows, index)), "turns": self._hand.turns(number)}

    def take(self, state: dict[str, Any], number: int, rows: npt.NDArray[np.void]) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        index = np.frombuffer(state["index"], np.int64)
        words(rows)[index] = words(np.frombuffer(state["rows"], rows.dtype))
        self._hand.take(state["turns"], number)

    def settle(self, rows: npt.NDArray[np.void]) -> None:
        """Take these rows for those written last."""
        self._written = words(rows).copy()


class Ledger(dict[K, V], Generic[K, V]):
    """A dictionary that writes what changed. Whoever changes a value in place says so with `touch`.

    The order of its keys survives: each round begins with them all.

    Args:
        name: of the entries, as errors say it.
        kind: type of the values, as msgspec decodes it.
    """

    def __init__(self, name: str, kind: Any) -> None:
        super().__init__()
        self._name = name
        self._kind = kind
        self.reset()

    def reset(self) -> None:
        """Be empty, with nothing written yet."""
        self.clear()
        self._changed: dict[K, None] = {}
        self._gone: dict[K, None] = {}
        self._left: list[K] = []
        self._begun: deque[int] = deque(maxlen=2)

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest: the last whole round began with it."""
        return self._begun[0]

    def __setitem__(self, key: K, value: V) -> None:
        """Set an entry."""
        dict.__setitem__(self, key, value)
        self._changed[key] = None

    def __delitem__(self, key: K) -> None:
        """Remove an entry."""
        super().__delitem__(key)
        self._changed.pop(key, None)
        self._gone[key] = None

    def drop_oldest(self) -> None:
        """Remove the entry that was set first."""
        del self[next(iter(self))]

    def take_out(self, key: K) -> V | None:
        """Remove an entry and return it; None where there is none."""
        value = self.get(key)
        if key in self:
            del self[key]
        return value

    def touch(self, key: K) -> None:
        """Note that the value of a key has changed."""
        self._changed[key] = None

    def changes(self, number: int, *, whole: bool) -> dict[str, Any]:
        """Return what the checkpoint of this number has to hold.

        Args:
            number: of the checkpoint.
            whole: everything, whatever changed.
        """
        state: dict[str, Any] = {"gone": [] if whole else list(self._gone)}
        if whole or not self._left:
            if whole:
                self._begun.clear()
            self._begun.append(number)
            state["order"] = list(self)
            self._left = state["order"][::-1]
        count = len(self) if whole else again(len(self._changed), len(self))
        keys = dict.fromkeys(self._left[: -count - 1 : -1])
        del self._left[-count:]
        # The order of new ones is that in which they came, so they stand first.
        written = [*self._changed, *(key for key in keys if key in self and key not in self._changed)]
        state |= {"left": len(self._left), "entries": {key: _ENCODER.encode(self[key]) for key in written}}
        self._changed, self._gone = {}, {}
        return state

    def take(self, state: dict[str, Any], number: int) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        decoder = _decoder(self._kind)
        for key in state["gone"]:
            self.pop(key, None)
        if "order" in state:
            known = dict(self)
            self.clear()
            self.update({key: known.get(key) for key in state["order"]})  # None: comes yet
            self._left = list(reversed(state["order"]))
            self._begun.append(number)
        del self._left[state["left"] :]
        self.update({key: decoder.decode(value) for key, value in state["entries"].items()})

    def settle(self) -> None:
        """Hold what was taken over against the order of the keys.

        Raises:
            StateError: an entry is missing.
        """
        missing = sum(value is None for value in self.values())
        if missing:
            found = f"{missing} of {len(self)} were missing"
            raise StateError(f"the state must hold every entry of its {self._name}, {found}")


def words(rows: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Return rows as uint64[n, words]: those are compared and copied whole, structured ones field by field."""
    return rows.view(np.uint64).reshape(len(rows), rows.dtype.itemsize // 8)


def copied(rows: npt.NDArray[np.void], index: npt.NDArray[np.integer]) -> npt.NDArray[np.void]:
    """Return the rows at some places: a copy."""
    return np.take(words(rows), index, axis=0).view(rows.dtype).reshape(len(index))


def plain(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of an array, without a copy: what a checkpoint writes as it is."""
    return array.reshape(-1).view(np.uint8).data


_ENCODER = msgspec.msgpack.Encoder()


def _decoder(kind: Any) -> Any:
    return msgspec.msgpack.Decoder(kind)
