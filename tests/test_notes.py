"""Notes: who has something to note has one, nobody else; against a dict of what stands in each."""

import hypothesis.strategies as st
import numpy as np
from engine_kit import HOUR_MS, MONDAY_MS, batch, call, engine
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from detectors.notes import DRAFT, KEPT_MS, NOTE, Notes, clear_note, put_away
from detectors.roster import ROW
from schemas.kernels import kernel

BLANK = np.zeros(1, NOTE)
clear_note(BLANK[0])


@kernel
def put(shelf, rows, row, now_ms):
    put_away(shelf, rows[row], now_ms)


class AgainstADict(RuleBasedStateMachine):
    """Customers whose notes are written in as the loop and as Python do; the dict knows row -> what was written."""

    def __init__(self):
        super().__init__()
        self.notes = Notes()
        self.rows = np.zeros(200, ROW)
        self.model = {}
        self.now_ms = 0

    @rule(
        row=st.integers(0, 199),
        name=st.sampled_from(["since_ms", "last_bad_ms", "history", "media_count", "waiting_count", "waiting_weight"]),
    )
    def write(self, row, name):
        self.now_ms += 1
        value = {"since_ms": self.now_ms, "last_bad_ms": self.now_ms}.get(name, 3)
        if not self.notes.shelf.tally[0]:
            self.notes.make_room()
        self.notes.shelf.items[self.rows[row]["note"]][name] = value
        put(self.notes.shelf, self.rows, row, self.now_ms)
        self.model.setdefault(row, {})[name] = np.full(NOTE[name].shape, value).tolist()

    @rule(rows=st.sets(st.integers(0, 199), max_size=90))
    def write_for_many(self, rows):
        for row in sorted(rows):
            self.write(row, "since_ms")

    @rule(later_ms=st.integers(0, KEPT_MS))
    def pass_time(self, later_ms):
        self.now_ms += later_ms
        for row, said in list(self.model.items()):
            put(self.notes.shelf, self.rows, row, self.now_ms)
            if set(said) == {"last_bad_ms"} and self.now_ms - said["last_bad_ms"] > KEPT_MS:
                del self.model[row]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def wipe(self, data):
        row = data.draw(st.sampled_from(sorted(self.model)))
        clear_note(self.notes.shelf.items[self.rows[row]["note"]])
        put(self.notes.shelf, self.rows, row, self.now_ms)
        del self.model[row]

    @rule()
    def restart(self):
        taken = self.rows["note"][self.rows["note"] != DRAFT]
        other = Notes()
        other.take(taken, self.notes.copy(taken))
        other.settle(taken)
        self.notes = other

    @invariant()
    def who_has_something_to_note_has_a_note_and_the_draft_says_nothing(self):
        items = self.notes.shelf.items
        assert items[DRAFT] == BLANK[0]
        assert np.flatnonzero(self.rows["note"] != DRAFT).tolist() == sorted(self.model)
        assert len(self.notes) == len(self.model)
        for row, said in self.model.items():
            one = items[self.rows[row]["note"]]
            found = {name: one[name].tolist() for name in NOTE.names if (one[name] != BLANK[0][name]).any()}
            assert found == said


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_note_written_by_python_begins_blank():
    notes = Notes()
    place = notes.add()
    assert notes.shelf.items[place] == BLANK[0]
    assert place != DRAFT


def test_only_customers_with_a_recent_bad_call_have_a_note():
    one = engine()
    healthy = [call("a", MONDAY_MS + at * HOUR_MS) for at in range(40)]
    one.apply(batch(healthy))
    assert one.memory.sizes()["with recent calls"] == len(one.memory.notes) == 0
    one.apply(batch([call("a", MONDAY_MS + 41 * HOUR_MS, dropped=True)]))
    assert one.memory.sizes()["with recent calls"] == len(one.memory.notes) == 1
    # A few good calls, until what waited has been learnt.
    one.apply(batch([call("a", MONDAY_MS + 41 * HOUR_MS + KEPT_MS + at * HOUR_MS) for at in range(1, 12)]))
    assert one.memory.sizes()["with recent calls"] == len(one.memory.notes) == 0


def test_reports_are_noted_while_their_call_lasts_and_not_after_it():
    one = engine()
    one.apply(batch([call("a", MONDAY_MS)]))
    last = call("a", MONDAY_MS + HOUR_MS)
    report = {
        "type": "media",
        "customer_id": "a",
        "call_id": last["call_id"],
        "at_ms": MONDAY_MS + HOUR_MS - 60_000,
        "interval_ms": 10_000,
        "mos": 4.1,
    }
    one.apply(batch([report, report]))
    assert len(one.memory.notes) == 1
    one.apply(batch([last, report]))
    assert len(one.memory.notes) == 0
