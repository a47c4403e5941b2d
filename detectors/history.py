"""The recent calls of those customers who had a bad one: what patterns are read from.

Nine customers in ten have no history. One that has keeps its latest bad calls and, apart, its latest good ones: what
trouble looks like, and what this customer's calls look like by chance. All its good calls are counted by the hour and
by the way they took, for sixteen are two days of some customers.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.changes import Ledger, plain, words
from detectors.shelves import Shelf, Shelves, give_back, take_place
from detectors.snapshots import raw
from detectors.zone import hour_of
from schemas.errors import StateError
from schemas.kernels import inlined, kernel, loop
from schemas.text import I16, I32, I64, U64

BAD_KEPT, GOOD_KEPT = 16, 16
"""How many calls of each sort a history keeps; the newest push out the oldest."""

DAYS_KEPT = 16
"""So many days of a trouble are counted apart; what comes later counts to the last."""

ELEMENTS: tuple[str, ...] = ("access_node", "trunk", "sbc", "region", "cpe_firmware", "probe")
"""The kinds of network element that a call runs through, in the order of a call's element columns."""

OF_LINE: tuple[str, ...] = ("access_node", "region", "cpe_firmware")
"""Those that a customer's line hangs on, from one call to the next: a call that does not tell took the last known."""

WAYS: tuple[str, ...] = ("trunk", "sbc", "codec", "peer_id")
"""Ways that a call may take and another not."""
WAY_VALUES = 6
"""So many values of a way are counted. A new one takes the place of the rarest and its count too: no value counts less
than it was taken, so that a bad way never seems rarer than it is (Metwally, Agrawal, El Abbadi, "Efficient computation
of frequent and top-k elements in data streams", ICDT 2005: Space-Saving)."""
HABIT_MAX = 1_000
"""Counts of good calls fade by halves beyond so many."""

CALL = np.dtype(
    [
        ("end_ms", np.int64),
        ("duration_ms", np.int32),  # answer to end; 0: never answered
        ("peer", np.uint32),
        ("drop", np.float32),  # x of the drop channel
        ("setup", np.float32),  # x of the setup channel
        ("rating", np.float32),  # R-factor; NaN: not known
        ("evidence", np.float32),  # its customer's, in days, after it
        ("outcome", np.int8),  # detectors.release.Outcome
        ("flags", np.uint8),  # ONE_WAY, REDIALLED, POOR, ANSWERED, LOCKED, BAD_CALL
        ("codec", np.int16),
        ("elements", np.int32, (len(ELEMENTS),)),  # serials; -1: not known
    ],
    align=True,
)

ONE_WAY, REDIALLED, POOR, ANSWERED, LOCKED, BAD_CALL = 1, 2, 4, 8, 16, 32

CASE = np.dtype(
    [
        ("recovery", np.float64),  # log-likelihood ratio for "it is over"
        ("lock_s", np.float64),  # where its calls are cut, if that is what it is
        ("last_bad_ms", np.int64),  # end of its newest bad call
        ("bad", np.int32),  # as its kind counts them
        ("trials", np.int32),
        ("attempts", np.int32),
        ("answered", np.int32),
        ("told_bad", np.int32),  # when it was last told
        ("until", np.int32),  # of `bad_count`: so many bad calls the case has seen
        ("unseen", np.int16),  # and so many of them without Python
        ("kind", np.int8),  # one more than its place in `detectors.patterns.KINDS`; 0: Python sees every bad call
        ("rank", np.int8),  # of its severity
    ],
    align=True,
)
"""An open case that was told, as far as the loop follows it by itself (`detectors.watch.cases`)."""

BAD = 0.5
"""An x of this or more makes a bad call."""

HISTORY = np.dtype(
    [
        ("attempts", np.int32),  # calls since `since_ms`
        ("answered", np.int32),
        ("drops", np.int32),
        ("failures", np.int32),  # attempts that failed in the network
        ("poor", np.int32),  # answered calls with poor media
        ("redials", np.int32),
        ("bad_calls", np.int32),  # answered calls that were bad in any way
        ("bad_count", np.int32),  # bad calls ever written; the ring goes on at bad_count % BAD_KEPT
        ("good_count", np.int32),
        ("unseen", np.int32),  # good calls that the customer's case has not been told of
        ("enough", np.int32),  # and how many of them may end it
        ("case", CASE),
        ("day_calls", np.uint8, (DAYS_KEPT,)),  # answered calls by day since `since_ms`, 255 at the most
        ("day_bad", np.uint8, (DAYS_KEPT,)),  # and how many of them were bad
        ("hours", np.uint16, (24,)),  # good calls by local hour, since the history began
        ("way_seen", np.uint16, (len(WAYS),)),  # and those of which a way is known
        ("way_count", np.uint16, (len(WAYS), WAY_VALUES)),  # by the value that they took
        ("way_value", np.uint32, (len(WAYS), WAY_VALUES)),
        ("bad", CALL, (BAD_KEPT,)),
        ("good", CALL, (GOOD_KEPT,)),
    ],
    align=True,
)

_NO_IDS = ("",) * BAD_KEPT


class Counters(NamedTuple):
    """What a history counts since the trouble began: fields of `HISTORY`, the first ones."""

    attempts: int
    answered: int
    drops: int
    failures: int
    poor: int
    redials: int
    bad_calls: int


COUNTERS = Counters._fields


@loop
def take(shelf: Shelf) -> int:
    """Return the place of a cleared history, or -1 where none is free."""
    index = take_place(shelf)
    if index >= 0:
        reset_counters(shelf, index)
        shelf.items[index]["bad_count"] = 0
        shelf.items[index]["good_count"] = 0
        shelf.items[index]["unseen"] = 0
        shelf.items[index]["enough"] = 0
        shelf.items[index]["case"]["kind"] = 0
        shelf.items[index]["case"]["unseen"] = 0
        shelf.items[index]["hours"][:] = 0
        shelf.items[index]["way_seen"][:] = 0
        shelf.items[index]["way_count"][:] = 0
    return index


@loop
def reset_counters(shelf: Shelf, index: int) -> None:
    """Begin to count anew: the trouble that was counted is over."""
    one = shelf.items[index]
    one["attempts"] = 0
    one["answered"] = 0
    one["drops"] = 0
    one["failures"] = 0
    one["poor"] = 0
    one["redials"] = 0
    one["bad_calls"] = 0
    one["day_calls"][:] = 0
    one["day_bad"][:] = 0


UNKNOWN = -1
_CODEC, _PEER = WAYS.index("codec"), WAYS.index("peer_id")
_COLUMNS = np.array([ELEMENTS.index(name) if name in ELEMENTS else -1 for name in WAYS])


@inlined
def way_of(call: Any, way: int) -> int:
    """Return the number of what a kept call took, one of `WAYS`; UNKNOWN where nobody told."""
    if way == _CODEC:
        return int(call["codec"])
    if way == _PEER:
        return int(call["peer"]) if call["peer"] != 0 else UNKNOWN
    return int(call["elements"][_COLUMNS[way]])


@loop
def count_good(one: Any, call: Any, ahead_min: I16) -> None:
    """Count a good call of a history by its hour and by its ways.

    Args:
        one: the history; changed in place.
        call: as it was kept.
        ahead_min: of `detectors.zone.LocalTime`.
    """
    hour = hour_of(call["end_ms"], ahead_min)
    if one["hours"][hour] >= HABIT_MAX:
        for h in range(24):
            one["hours"][h] //= np.uint16(2)
    one["hours"][hour] += np.uint16(1)
    for way in range(len(WAYS)):
        value = way_of(call, way)
        if value != UNKNOWN:
            _count_way(one, way, np.uint32(value))


@inlined
def _count_way(one: Any, way: int, value: np.uint32) -> None:
    if one["way_seen"][way] >= HABIT_MAX:
        one["way_seen"][way] //= np.uint16(2)
        for slot in range(WAY_VALUES):
            one["way_count"][way, slot] //= np.uint16(2)
    one["way_seen"][way] += np.uint16(1)
    rarest = 0
    for slot in range(WAY_VALUES):
        if one["way_count"][way, slot] > 0 and one["way_value"][way, slot] == value:
            one["way_count"][way, slot] += np.uint16(1)
            return
        if one["way_count"][way, slot] < one["way_count"][way, rarest]:
            rarest = slot
    one["way_value"][way, rarest] = value
    one["way_count"][way, rarest] += np.uint16(1)


class Habit(NamedTuple):
    """How a customer's good calls are spread, in wide numbers.

    Attributes:
        hours: int64[24], by local hour.
        seen: int64[len(WAYS)], those of which a way is known.
        values, counts: int64[len(WAYS), WAY_VALUES]: what they took, and how many did at the most.
    """

    hours: I64
    seen: I64
    values: I64
    counts: I64


def no_habit() -> Habit:
    """Return the habit of whoever has made no good call."""
    ways = np.zeros((2, len(WAYS), WAY_VALUES), np.int64)
    return Habit(np.zeros(24, np.int64), np.zeros(len(WAYS), np.int64), ways[0], ways[1])


@loop
def copy_habit(one: Any, habit: Habit) -> None:
    """Write how the good calls of a history are spread into `habit`."""
    for hour in range(24):
        habit.hours[hour] = one["hours"][hour]
    for way in range(len(WAYS)):
        habit.seen[way] = one["way_seen"][way]
        for slot in range(WAY_VALUES):
            habit.values[way, slot] = one["way_value"][way, slot]
            habit.counts[way, slot] = one["way_count"][way, slot]


_HEAD_WORDS, _CALL_WORDS = HISTORY.fields["bad"][1] // 8, CALL.itemsize // 8  # type: ignore[index]  # it has fields
_GOOD_AT = _HEAD_WORDS + BAD_KEPT * _CALL_WORDS


@kernel
def _pack(histories: npt.NDArray[np.void], all_words: U64, index: I32) -> U64:
    """Return histories one behind the other, without the places of their rings that were never used."""
    size = 0
    for i in index:
        bad, good = min(histories[i]["bad_count"], BAD_KEPT), min(histories[i]["good_count"], GOOD_KEPT)
        size += _HEAD_WORDS + (bad + good) * _CALL_WORDS
    packed = np.empty(size, np.uint64)
    at = 0
    for i in index:
        bad = _HEAD_WORDS + min(histories[i]["bad_count"], BAD_KEPT) * _CALL_WORDS
        good = min(histories[i]["good_count"], GOOD_KEPT) * _CALL_WORDS
        packed[at : at + bad] = all_words[i, :bad]
        packed[at + bad : at + bad + good] = all_words[i, _GOOD_AT : _GOOD_AT + good]
        at += bad + good
    return packed


@kernel
def _unpack(histories: npt.NDArray[np.void], all_words: U64, index: I32, packed: U64) -> bool:
    """Put packed histories into their places; return whether they were as long as they said."""
    at = 0
    for i in index:
        if at + _HEAD_WORDS > len(packed):
            return False
        all_words[i, :] = 0
        all_words[i, :_HEAD_WORDS] = packed[at : at + _HEAD_WORDS]
        at += _HEAD_WORDS
        bad = min(max(histories[i]["bad_count"], 0), BAD_KEPT) * _CALL_WORDS
        good = min(max(histories[i]["good_count"], 0), GOOD_KEPT) * _CALL_WORDS
        if at + bad + good > len(packed):
            return False
        all_words[i, _HEAD_WORDS : _HEAD_WORDS + bad] = packed[at : at + bad]
        all_words[i, _GOOD_AT : _GOOD_AT + good] = packed[at + bad : at + bad + good]
        at += bad + good
    return at == len(packed)


class Histories(Shelves):
    """All histories, and the ids of the bad calls in them.

    Attributes:
        call_ids: for each history, the id of the call in each place of its `bad` ring.
    """

    def __init__(self) -> None:
        super().__init__(HISTORY)
        # Tuples, for the garbage collector passes over those that hold strings alone.
        self.call_ids: Ledger[int, tuple[str, ...]] = Ledger("call ids", tuple[str, ...])

    def name_calls(self, indices: list[int], places: list[int], call_ids: list[str]) -> None:
        """Keep the ids of bad calls, each in one place of the ring of its history."""
        named = self.call_ids
        for index, place, call_id in zip(indices, places, call_ids, strict=True):
            ids = named.get(index, _NO_IDS)
            named[index] = (*ids[:place], call_id, *ids[place + 1 :])

    def give_back(self, index: int) -> None:
        """Free a history and forget its call ids."""
        give_back(self.shelf, index)
        self.call_ids.take_out(index)

    def counts(self, index: int) -> dict[str, int]:
        """Return a history's `COUNTERS`, by name."""
        # They stand first, side by side: a field of a structured row costs as much as all of them so.
        return dict(
            zip(COUNTERS, self.shelf.items[index : index + 1].view(np.int32)[: len(COUNTERS)].tolist(), strict=True)
        )

    def bad_calls(self, index: int) -> tuple[npt.NDArray[np.void], list[str]]:
        """Return a history's bad calls, oldest first, and their ids."""
        one = self.shelf.items[index]
        order = _ring_order(int(one["bad_count"]), BAD_KEPT)
        ids = self.call_ids.get(index, _NO_IDS)
        return _in_order(one["bad"], order), [ids[place] for place in order]

    def good_calls(self, index: int) -> npt.NDArray[np.void]:
        """Return a history's good calls, oldest first."""
        one = self.shelf.items[index]
        return _in_order(one["good"], _ring_order(int(one["good_count"]), GOOD_KEPT))

    # State

    def copy(self, index: I32) -> memoryview:
        """Return some histories as a checkpoint holds them."""
        return plain(_pack(self.shelf.items, words(self.shelf.items), index))

    def take(self, index: I32, packed: memoryview) -> None:
        """Take over what `copy` gave.

        Raises:
            StateError: it is not as long as it says.
        """
        self.hold(int(index.max(initial=0)) + 1)
        histories = self.shelf.items
        if not _unpack(histories, words(histories), index, np.frombuffer(packed, np.uint64)):
            raise StateError("the state must hold its histories as they count their calls, did not")

    def settle(self, taken: I32) -> None:
        """Make those histories free that nobody has, and forget their call ids.

        Args:
            taken: places of the others.
        """
        super().settle(taken)
        for index in sorted(set(self.call_ids) - set(taken.tolist())):
            del self.call_ids[index]
        self.call_ids.settle()


def _ring_order(count: int, kept: int) -> list[int]:
    return [place % kept for place in range(max(0, count - kept), count)]


def _in_order(ring: npt.NDArray[np.void], order: list[int]) -> npt.NDArray[np.void]:
    # Structured items are copied one by one; a ring that never turned needs no copy, the others one of plain bytes.
    return ring[: len(order)] if order[:1] in ([], [0]) else raw(ring)[order].view(CALL)
