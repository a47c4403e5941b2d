"""Histories: the newest calls of each sort, in order, for those who have one; the rest is handed on clean."""

from collections import Counter

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from state_kit import whole

from detectors.history import (
    BAD_KEPT,
    CALL,
    COUNTERS,
    GOOD_KEPT,
    HABIT_MAX,
    HISTORY,
    WAY_VALUES,
    WAYS,
    Histories,
    copy_habit,
    count_good,
    no_habit,
    reset_counters,
    take,
)
from detectors.zone import local_time


def keep(histories, index, number, *, bad):
    """Keep a call as the hot loop does: at the ring's place, its id beside it if it was bad."""
    one = histories.shelf.items[index]
    ring, count, kept = ("bad", "bad_count", BAD_KEPT) if bad else ("good", "good_count", GOOD_KEPT)
    place = int(one[count]) % kept
    one[ring][place]["end_ms"] = number
    one[count] += 1
    if bad:
        histories.name_calls([index], [place], [f"call {number}"])


def reborn(histories, taken):
    """Return histories that have taken over those of some places."""
    index = np.array(sorted(taken), np.int32)
    other = Histories()
    other.take(index, histories.copy(index))
    other.call_ids.take(whole(histories.call_ids), 1)
    other.settle(index)
    return other


class AgainstLists(RuleBasedStateMachine):
    """The model of a history: its bad calls and its good ones, as lists."""

    def __init__(self):
        super().__init__()
        self.histories = Histories()
        self.model = {}
        self.number = 0

    @rule()
    def begin(self):
        index = take(self.histories.shelf)
        if index < 0:
            assert len(self.model) == len(self.histories.shelf.items)
            self.histories.make_room()
            index = take(self.histories.shelf)
        assert index not in self.model
        self.model[index] = ([], [])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), bad=st.booleans(), count=st.integers(1, 20))
    def call(self, data, bad, count):
        index = data.draw(st.sampled_from(sorted(self.model)))
        for _ in range(count):
            self.number += 1
            keep(self.histories, index, self.number, bad=bad)
            self.model[index][0 if bad else 1].append(self.number)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def end(self, data):
        index = data.draw(st.sampled_from(sorted(self.model)))
        self.histories.give_back(index)
        del self.model[index]

    @rule()
    def grow(self):
        if len(self.histories.shelf.items) < 512:
            self.histories.make_room()

    @rule()
    def restart(self):
        self.histories = reborn(self.histories, self.model)

    @invariant()
    def holds_the_newest_calls_oldest_first(self):
        for index, (bad, good) in self.model.items():
            calls, ids = self.histories.bad_calls(index)
            assert calls["end_ms"].tolist() == bad[-BAD_KEPT:]
            assert ids == [f"call {number}" for number in bad[-BAD_KEPT:]]
            assert self.histories.good_calls(index)["end_ms"].tolist() == good[-GOOD_KEPT:]

    @invariant()
    def hands_out_every_free_history_once(self):
        shelf = self.histories.shelf
        free = shelf.free[: shelf.tally[0]].tolist()
        assert sorted([*free, *self.model]) == list(range(len(shelf.items)))


TestAgainstLists = AgainstLists.TestCase
TestAgainstLists.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_a_history_taken_anew_knows_nothing_of_its_last_owner():
    histories = Histories()
    index = take(histories.shelf)
    for name in COUNTERS:
        histories.shelf.items[index][name] = 9
    keep(histories, index, 1, bad=True)
    keep(histories, index, 2, bad=False)
    histories.give_back(index)
    assert take(histories.shelf) == index
    calls, ids = histories.bad_calls(index)
    assert (len(calls), ids, len(histories.good_calls(index))) == (0, [], 0)
    assert [int(histories.shelf.items[index][name]) for name in COUNTERS] == [0] * len(COUNTERS)


def test_counting_anew_keeps_the_calls():
    histories = Histories()
    index = take(histories.shelf)
    keep(histories, index, 1, bad=True)
    for name in COUNTERS:
        histories.shelf.items[index][name] = 9
    reset_counters(histories.shelf, index)
    assert [int(histories.shelf.items[index][name]) for name in COUNTERS] == [0] * len(COUNTERS)
    assert histories.bad_calls(index)[1] == ["call 1"]


def test_the_lowest_histories_are_used_first():
    histories = Histories()
    assert [take(histories.shelf) for _ in range(5)] == [0, 1, 2, 3, 4]
    histories.give_back(1)
    assert take(histories.shelf) == 1


@given(st.integers(1, 200), st.integers(0, 200))
def test_a_restored_shelf_hands_out_the_free_ones_the_lowest_first(taken, returned):
    histories = Histories()
    for _ in range(taken):
        if histories.shelf.tally[0] == 0:
            histories.make_room()
        take(histories.shelf)
    free = set(range(0, min(taken, returned), 3))
    other = reborn(histories, set(range(taken)) - free)
    handed = [take(other.shelf) for _ in range(int(other.shelf.tally[0]))]
    assert handed == sorted(handed)
    assert set(handed) == free | set(range(taken, len(other.shelf.items)))


def test_a_snapshot_is_a_copy():
    histories = Histories()
    keep(histories, take(histories.shelf), 1, bad=True)
    other = reborn(histories, [0])
    keep(histories, 0, 2, bad=True)
    assert other.bad_calls(0)[1] == ["call 1"]
    keep(other, 0, 3, bad=True)
    assert histories.bad_calls(0)[1] == ["call 1", "call 2"]


def test_an_empty_shelf_gives_nothing():
    histories = Histories()
    while histories.shelf.tally[0]:
        take(histories.shelf)
    assert take(histories.shelf) == -1


def test_the_counts_of_a_history_are_those_of_its_fields():
    histories = Histories()
    take(histories.shelf)
    index = take(histories.shelf)
    for number, name in enumerate(COUNTERS):
        histories.shelf.items[index][name] = 7 * number + 1
    one = histories.shelf.items[index]
    assert histories.counts(index) == {name: int(one[name]) for name in COUNTERS}


UTC = local_time("UTC").ahead_min


def counted(codecs, hour=0):
    """Count good calls of these codecs, all in one hour and of no other known way."""
    one, habit, kept = np.zeros(1, HISTORY)[0], no_habit(), np.zeros(len(codecs), CALL)
    kept["end_ms"], kept["codec"], kept["elements"] = hour * 3_600_000, codecs, -1
    for good in kept:
        count_good(one, good, UTC)
    copy_habit(one, habit)
    return habit


@given(st.lists(st.integers(-1, 2 * WAY_VALUES), max_size=80), st.integers(0, 23))
def test_good_calls_are_counted_by_hour_and_no_way_seems_rarer_than_it_is(codecs, hour):
    habit, way = counted(codecs, hour), WAYS.index("codec")
    assert habit.hours.tolist() == [len(codecs) * (at == hour) for at in range(24)]
    true = Counter(code for code in codecs if code >= 0)
    assert habit.seen.tolist() == [true.total() * (name == "codec") for name in WAYS]
    slots = zip(habit.values[way].tolist(), habit.counts[way].tolist(), strict=True)
    known = {code: count for code, count in slots if count}
    rarest = habit.counts[way].min()
    assert habit.counts[way].sum() == true.total()
    for code, count in true.items():
        assert known.get(code, rarest) >= count
    if len(true) <= WAY_VALUES:
        assert known == true


def test_old_good_calls_fade():
    habit = counted([1] * (3 * HABIT_MAX))
    assert HABIT_MAX / 2 <= habit.hours[0] <= HABIT_MAX
    assert HABIT_MAX / 2 <= habit.seen[WAYS.index("codec")] <= HABIT_MAX
