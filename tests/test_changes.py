"""What changed and what is written again: any chain of checkpoints from its floor on is the whole state."""

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from detectors import changes as module
from detectors.changes import Hand, Ledger, Table, copied
from detectors.roster import CALM, MARK_MAX, STATES, Roster, find_or_add
from schemas.errors import StateError

ROW = np.dtype([("a", np.int64), ("b", np.float32), ("c", np.int32)])


@pytest.fixture(autouse=True)
def small_rounds(monkeypatch):
    """Let rounds take a few checkpoints even of few entries."""
    monkeypatch.setattr(module, "AGAIN_MIN", 1)
    monkeypatch.setattr(module, "ROUND", 4)


def through_bytes(state):
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), strict=False)


class Chain:
    """Checkpoints as they are kept: those before the floor of the newest are gone."""

    def __init__(self):
        self.kept = {}
        self.number = 0

    def keep(self, state, floor):
        self.kept[self.number] = through_bytes(state)
        self.kept = {number: state for number, state in self.kept.items() if number >= floor}


class AgainstADict(RuleBasedStateMachine):
    """A ledger, restarted at will from what is kept, holds what a dict holds, in its order."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger("entries", list[int])
        self.model = {}
        self.chain = Chain()
        self.write(whole=True)

    def write(self, *, whole=False):
        self.chain.number += 1
        state = self.ledger.changes(self.chain.number, whole=whole)
        self.chain.keep(state, self.ledger.floor)

    keys = st.integers(0, 12)

    @rule(key=keys, value=st.integers(-9, 9))
    def set(self, key, value):
        self.ledger[key] = [value]
        self.model[key] = [value]

    @rule(key=keys, value=st.integers(0, 9))
    def change_in_place(self, key, value):
        if key in self.model:
            self.ledger[key].append(value)
            self.ledger.touch(key)
            self.model[key] = list(self.ledger[key])

    @rule(key=keys)
    def remove(self, key):
        assert self.ledger.take_out(key) == self.model.pop(key, None)

    @rule()
    def checkpoint(self):
        self.write()

    @rule()
    def checkpoint_of_everything(self):
        self.write(whole=True)

    @rule()
    def restart(self):
        self.write()
        self.ledger = self.read()

    def read(self):
        other = Ledger("entries", list[int])
        for number, state in self.chain.kept.items():
            other.take(state, number)
        other.settle()
        return other

    @invariant()
    def a_chain_is_never_long(self):
        assert len(self.chain.kept) <= 2 * 4 + 3

    def teardown(self):
        self.write()
        assert list(self.read().items()) == list(self.model.items())


TestLedger = AgainstADict.TestCase
TestLedger.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class AgainstAnArray(RuleBasedStateMachine):
    """A table that is compared with what was written last."""

    def __init__(self):
        super().__init__()
        self.rows = np.zeros(0, ROW)
        self.table = Table(ROW)
        self.chain = Chain()

    @rule(count=st.integers(1, 9))
    def grow(self, count):
        self.rows = np.concatenate([self.rows, np.zeros(count, ROW)])

    @precondition(lambda self: len(self.rows))
    @rule(data=st.data(), value=st.integers(-9, 9))
    def change(self, data, value):
        self.rows[data.draw(st.integers(0, len(self.rows) - 1))]["c"] = value

    @rule()
    def checkpoint(self):
        self.chain.number += 1
        self.chain.keep(self.table.changes(self.chain.number, self.rows), self.table.floor)

    @rule()
    def restart(self):
        self.checkpoint()
        rows, table = np.zeros(len(self.rows), ROW), Table(ROW)
        for number, state in self.chain.kept.items():
            table.take(state, number, rows)
        table.settle(rows)
        assert rows.tobytes() == self.rows.tobytes()
        self.table = table

    def teardown(self):
        self.restart()
        assert len(self.chain.kept) <= 2 * 4 + 3


TestTable = AgainstAnArray.TestCase
TestTable.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class AgainstItself(RuleBasedStateMachine):
    """A roster whose rows are copied ahead of the checkpoint, whenever it may please."""

    def __init__(self):
        super().__init__()
        self.roster = Roster(40, 30)
        # The lists are too short for many, and the marks soon begin anew.
        self.shorten(self.roster)
        self.roster.book.tally[3] = MARK_MAX - 4 * STATES
        self.chain = Chain()
        self.ahead = []
        self.next = 1
        self.keep([self.roster.whole(1)])

    def keep(self, copies):
        self.chain.number += 1
        state = {
            "copies": [(index.tobytes(), rows.tobytes()) for index, rows in copies],
            "turns": self.roster.hand.turns(self.chain.number),
            "size": len(self.roster),
        }
        self.chain.keep(state, self.roster.hand.floor)

    @rule(count=st.integers(1, 12))
    def come(self, count):
        for _ in range(count):
            row = find_or_add(self.roster.book, np.uint64(self.next))
            if row < 0:
                self.roster.make_room(0)
                row = find_or_add(self.roster.book, np.uint64(self.next))
            self.roster.book.rows[row]["last_ms"] = self.next
            self.next += 1

    @precondition(lambda self: len(self.roster))
    @rule(data=st.data(), value=st.integers(0, 99))
    def call(self, data, value):
        row = data.draw(st.integers(0, len(self.roster) - 1))
        self.roster.touch(row)
        self.roster.book.rows[row]["rating"] = value

    @precondition(lambda self: len(self.roster))
    @rule(data=st.data())
    def leave(self, data):
        gone = data.draw(st.sets(st.integers(0, len(self.roster) - 1), min_size=1))
        self.roster.remove(np.isin(np.arange(len(self.roster)), sorted(gone)))

    @rule()
    def copy_ahead(self):
        self.ahead.append(self.roster.gather(self.chain.number + 1))

    @rule()
    def checkpoint(self):
        self.keep([*self.ahead, self.roster.gather(self.chain.number + 1, last=True)])
        self.ahead = []

    @rule()
    def restart(self):
        self.checkpoint()
        other = self.read()
        assert self.content(other) == self.content(self.roster)
        self.roster = other
        self.shorten(other)

    @staticmethod
    def shorten(roster):
        roster.book = roster.book._replace(changed=np.zeros(5, np.int32), changed_again=np.zeros(2, np.int32))

    def read(self):
        other = Roster(40, 30)
        for number, state in self.chain.kept.items():
            other.hand.take(state["turns"], number)
            for index, rows in state["copies"]:
                other.take(np.frombuffer(index, np.int32), np.frombuffer(rows, other.book.rows.dtype), state["size"])
        other.settle()
        return other

    @staticmethod
    def content(roster):
        used = copied(roster.book.rows, np.arange(len(roster)))
        used["written"] = 0
        return used.tobytes()

    @invariant()
    def knows_everybody(self):
        used = self.roster.book.rows[: len(self.roster)]
        assert [self.roster.find(key) for key in used["key"].tolist()] == list(range(len(used)))
        assert (used["mode"] == CALM).all()

    def teardown(self):
        self.restart()
        assert len(self.chain.kept) <= 2 * 4 + 3


TestRoster = AgainstItself.TestCase
TestRoster.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_what_a_ledger_lost_is_noticed():
    ledger = Ledger("words", int)
    ledger["a"], ledger["b"] = 1, 2
    state = ledger.changes(1, whole=True)
    del state["entries"]["a"]
    other = Ledger("words", int)
    other.take(state, 1)
    with pytest.raises(StateError, match="must hold every entry of its words, 1 of 2 were missing"):
        other.settle()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=60))
def test_a_hand_says_how_far_back_the_place_lies_that_was_passed_first(turns):
    hand, passed = Hand(), {}
    for number, (grown, count) in enumerate(turns):
        size = max(len(passed), grown)
        # What is new is written because it is.
        passed.update(dict.fromkeys(range(len(passed), size), number))
        here = hand.turn(number, size, count)
        passed.update(dict.fromkeys(range(here.start, here.stop), number))
        assert hand.floor <= min(passed.values(), default=number)
