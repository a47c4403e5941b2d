"""The roster against a plain dict: who is in it, where, and who has to leave."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from detectors.roster import CALM, CASE, ROW, Book, Roster, clear_row, find, find_or_add, home
from schemas.kernels import kernel

DAY_MS = 86_400_000
NOBODY = np.zeros(0, np.int32)
SLOTS = Book(np.zeros(0, ROW), np.zeros(64, np.int32), np.zeros(4, np.int64), NOBODY, NOBODY)


@kernel
def place(book, key):
    return home(book, key)


CROWDED = [key for key in range(1, 60_000) if place(SLOTS, np.uint64(key)) == 5][:40]
"""Keys that all want the same place."""

KEYS = st.sampled_from(CROWDED) | st.integers(1, 2**64 - 1)
TIMES = st.integers(0, 100 * DAY_MS)


def add(roster, key, last_ms=0):
    """Add a customer who must find room; return the row."""
    row = find_or_add(roster.book, np.uint64(key))
    assert row >= 0
    roster.book.rows[row]["last_ms"] = last_ms
    return row


def reborn(roster):
    """Return a roster that has taken over another one."""
    other = Roster(roster.customers_max, roster.idle_ms // DAY_MS)
    other.take(*roster.whole(1), len(roster))
    other.evicted_count = roster.evicted_count
    other.settle()
    return other


def keys_of(rows):
    return {int(key) for key in rows["key"]}


class AgainstADict(RuleBasedStateMachine):
    """Customers come, call, open cases, leave; the dict knows key -> (last call, mode)."""

    customers_max = 24
    idle_days = 30

    def __init__(self):
        super().__init__()
        self.roster = Roster(self.customers_max, self.idle_days)
        self.model = {}
        self.evicted = 0

    def row(self, key):
        return self.roster.book.rows[self.roster.find(key)]

    @rule(key=KEYS, last_ms=TIMES)
    def come(self, key, last_ms):
        row = find_or_add(self.roster.book, np.uint64(key))
        if row < 0:
            assert key not in self.model
            assert len(self.model) == self.customers_max
            return
        if key not in self.model:
            assert self.roster.book.rows[row]["last_ms"] == -1
            assert not self.roster.book.rows[row]["evidence"].any()
        self.roster.book.rows[row]["last_ms"] = last_ms
        self.model[key] = (last_ms, self.model.get(key, (0, CALM))[1])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), mode=st.sampled_from([CALM, CASE]))
    def turn(self, data, mode):
        key = data.draw(st.sampled_from(sorted(self.model)))
        self.row(key)["mode"] = mode
        self.model[key] = (self.model[key][0], mode)

    @precondition(lambda self: len(self.model) == self.customers_max)
    @precondition(lambda self: any(mode == CALM for _, mode in self.model.values()))
    @rule(now_ms=TIMES)
    def make_room(self, now_ms):
        calm = {key: last_ms for key, (last_ms, mode) in self.model.items() if mode == CALM}
        idle = {key for key, last_ms in calm.items() if last_ms < now_ms - self.idle_days * DAY_MS}
        longest_silent = min(calm, key=lambda key: (calm[key], key))
        gone = keys_of(self.roster.make_room(now_ms))
        assert gone == (idle or {longest_silent})
        self.evicted += len(gone)
        for key in gone:
            del self.model[key]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def leave(self, data):
        gone = data.draw(st.sets(st.sampled_from(sorted(self.model)), min_size=1))
        used = self.roster.book.rows[: len(self.roster)]
        marked = np.isin(used["key"], np.array(sorted(gone), np.uint64))
        assert keys_of(self.roster.remove(marked)) == gone
        for key in gone:
            del self.model[key]

    @rule()
    def restart(self):
        self.roster = reborn(self.roster)

    @invariant()
    def knows_whom_the_dict_knows(self):
        assert len(self.roster) == len(self.model)
        assert self.roster.evicted_count == self.evicted
        for key, (last_ms, mode) in self.model.items():
            assert (self.row(key)["key"], self.row(key)["last_ms"], self.row(key)["mode"]) == (key, last_ms, mode)

    @rule(key=KEYS)
    def ask_for_anybody(self, key):
        assert (self.roster.find(key) >= 0) == (key in self.model)


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(KEYS, unique=True, max_size=60))
def test_customers_who_want_the_same_place_are_told_apart(keys):
    roster = Roster(100, 90)
    rows = [add(roster, key) for key in keys]
    assert rows == list(range(len(keys)))
    assert [find(roster.book, np.uint64(key)) for key in keys] == rows
    assert [find_or_add(roster.book, np.uint64(key)) for key in keys] == rows


def test_nobody_is_found_under_no_key():
    roster = Roster(10, 90)
    add(roster, 5)
    assert roster.find(0) == -1


def test_growth_keeps_every_customer_where_he_was_and_stops_at_the_limit():
    roster = Roster(3_000, 90)
    keys = np.random.default_rng(1).integers(1, 2**63, 3_000).tolist()
    for at, key in enumerate(keys):
        if len(roster) == len(roster.book.rows):
            assert len(roster.make_room(0)) == 0
        add(roster, key, last_ms=at)
    assert len(roster.book.rows) == 3_000
    assert [roster.find(key) for key in keys] == list(range(3_000))
    assert roster.book.rows["last_ms"].tolist() == list(range(3_000))
    assert roster.evicted_count == 0


def test_the_table_stays_at_most_half_full():
    roster = Roster(5_000, 90)
    for key in range(1, 5_001):
        if len(roster) == len(roster.book.rows):
            roster.make_room(0)
        add(roster, key)
        assert 2 * len(roster) <= len(roster.book.slots)


def test_the_idle_leave_before_the_silent():
    roster = Roster(20, 30)
    for key in range(1, 21):
        add(roster, key, last_ms=key * DAY_MS)
    assert keys_of(roster.make_room(36 * DAY_MS)) == {1, 2, 3, 4, 5}
    assert len(roster) == 15


def test_where_nobody_is_idle_a_sixteenth_leaves_the_longest_silent_first():
    roster = Roster(64, 30)
    for key in range(1, 65):
        add(roster, key, last_ms=1_000 - key)
    gone = roster.make_room(1_000)
    assert keys_of(gone) == {61, 62, 63, 64}
    assert sorted(gone["last_ms"].tolist()) == [936, 937, 938, 939]


def test_among_the_idle_a_customer_with_an_open_case_stays():
    roster = Roster(20, 30)
    for key in range(1, 21):
        add(roster, key)
    roster.book.rows["mode"][:10] = CASE
    assert keys_of(roster.make_room(100 * DAY_MS)) == set(range(11, 21))


def test_a_snapshot_is_a_copy():
    roster = Roster(20, 30)
    add(roster, 7, last_ms=5)
    index, rows = roster.whole(1)
    roster.book.rows[0]["last_ms"] = 9
    other = Roster(20, 30)
    other.take(index, rows, 1)
    other.settle()
    assert other.book.rows[0]["last_ms"] == 5
    other.book.rows[0]["last_ms"] = 11
    assert roster.book.rows[0]["last_ms"] == 9


@pytest.mark.parametrize("count", [0, 1, 20])
def test_a_restored_roster_can_be_filled_further(count):
    roster = Roster(40, 30)
    for key in range(1, count + 1):
        add(roster, key)
    other = reborn(roster)
    for key in range(1, 41):
        add(other, key)
    assert [other.find(key) for key in range(1, 41)] == list(range(40))


def test_a_cleared_row_is_that_of_nobody():
    # Every byte of a used row is dirty; none may be left behind for the next customer.
    rows = np.frombuffer(bytearray(b"\x55" * 2 * ROW.itemsize), ROW)
    clear_row(rows, 0)
    blank = np.zeros(1, ROW)
    clear_row(blank, 0)
    for name in ROW.names:
        assert rows[0][name].tolist() == blank[0][name].tolist(), name
        assert rows[1][name].tobytes() == b"\x55" * ROW[name].itemsize
