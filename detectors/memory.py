"""Everything that is known: customers, their recent calls, the network, open cases, what the business told."""

from typing import Any

import numpy as np

from detectors.advice import Advisor
from detectors.casebook import Casebook
from detectors.changes import plain
from detectors.churn.relations import Relations
from detectors.elements import Elements
from detectors.emodel import codec_index
from detectors.history import Histories
from detectors.incidents import Incidents
from detectors.lines import LINE, Lines
from detectors.notes import DRAFT, NOTE, Notes
from detectors.remedies.catalogue import Catalogue
from detectors.roster import CALM, ROW, Roster, Rows
from detectors.settings import Settings
from detectors.shelves import give_back
from detectors.watch.world import World
from detectors.zone import local_time
from schemas.text import I32, Translation

GATHER_MIN = 1_024
"""So many changed rows are worth copying ahead of the checkpoint."""


class Memory:
    """All state of an engine, by what it is about.

    Args:
        settings: what the configuration fixes.
        catalogue: the remedies.

    Attributes:
        codecs: gives a codec's name its number.
        zone: what the network's customers call a day and an hour.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.settings = settings
        self.zone = local_time(settings.timezone)
        self.codecs = Codecs()
        self.roster = Roster(settings.customers_max, settings.idle_days)
        self.notes = Notes()
        self.histories = Histories()
        self.lines = Lines()
        self.elements = Elements()
        self.incidents = Incidents(settings.deployment, self.elements)
        self.casebook = Casebook()
        self.relations = Relations(settings.customers_max)
        self.advisor = Advisor(settings, catalogue, self.relations)
        self._number: int | None = None
        self._gathered: list[dict[str, Any]] = []

    def world(self) -> World:
        """Return the state that the hot loop works on; good until some part of it grows."""
        return World(self.roster.book, self.notes.shelf, self.histories.shelf, self.lines.shelf, self.elements.network)

    def row(self, row: int) -> Any:
        """Return a customer's row; what is written to it, to its note, history or case stays."""
        self.roster.touch(row)
        return self.roster.book.rows[row]

    def note(self, row: int) -> Any:
        """Return the note of a customer's row, to write in."""
        one = self.row(row)
        if one["note"] == DRAFT:
            one["note"] = self.notes.add()
        return self.note_of(one)

    def note_of(self, one: Any) -> Any:
        """Return the note of a customer's row, to read: there may be none, which says nothing."""
        return self.notes.shelf.items[one["note"]]

    def row_of(self, customer: int) -> Any | None:
        """Return the row of a customer's key, or None."""
        row = self.roster.find(customer)
        return None if row < 0 else self.row(row)

    def history_of(self, customer: int) -> int:
        """Return the place of the history of a customer's key; what is written to it stays. -1: none."""
        one = self.row_of(customer)
        return -1 if one is None else int(self.note_of(one)["history"])

    def next_due_ms(self, never: int) -> int:
        """Return an event time up to which no decision is due."""
        return min(
            self.casebook.next_due_ms(never),
            self.advisor.chooser.follow_ups.next_due_ms(never),
            self.incidents.next_due_ms(never),
        )

    def make_room(self, now_ms: int) -> None:
        """Let the roster grow, or forget what there is of those customers that it evicts."""
        for row in self.roster.make_room(now_ms):
            key = int(row["key"])
            self.give_back(row)
            self.relations.forget(key)
            self.advisor.forget(key)
            self.casebook.forget(key)

    def give_back(self, one: Any) -> None:
        """Free what is kept beside the row of a customer who leaves."""
        if one["note"] == DRAFT:
            return
        note = self.note_of(one)
        if note["history"] >= 0:
            self.histories.give_back(int(note["history"]))
        if note["line"] >= 0:
            give_back(self.lines.shelf, int(note["line"]))
        give_back(self.notes.shelf, int(one["note"]))

    def make_shelf_room(self) -> None:
        """Let notes, histories or lines grow, where there is none left."""
        for part in (self.notes, self.histories, self.lines):
            if not part.shelf.tally[0]:
                part.make_room()

    def sizes(self) -> dict[str, int]:
        """Return how many there are of each sort of thing that is known."""
        return {
            "customers": len(self.roster),
            "with recent calls": len(self.histories),
            "open cases": len(self.casebook.cases),
            "with lines read": len(self.lines),
            "elements": len(self.elements),
            "open incidents": len(self.incidents.open),
            "relations": len(self.relations),
        }

    # State

    def gather(self) -> None:
        """Copy what has changed so far for the next checkpoint, if that is a good deal: less is left for `changes`."""
        if self._number is not None and self.roster.due >= GATHER_MIN:
            self._gathered.append(self._copied(*self.roster.gather(self._number + 1)))

    def changes(self, number: int) -> dict[str, Any]:
        """Return what the checkpoint of this number has to hold, as plain values: a copy.

        Those from its `floor` on are the whole state. If the one before it did not come from here, it is so by itself.
        """
        whole = self._number is None or number != self._number + 1
        customers = self.roster.whole(number) if whole else self.roster.gather(number, last=True)
        gathered, self._gathered = [] if whole else self._gathered, []
        state = {
            "number": number,
            "codecs": self.codecs.snapshot(),
            "size": len(self.roster),
            "evicted": self.roster.evicted_count,
            "customers": [*gathered, self._copied(*customers)],
            "turns": self.roster.hand.turns(number),
            "call_ids": self.histories.call_ids.changes(number, whole=whole),
            "elements": self.elements.changes(number, whole=whole),
            "incidents": self.incidents.snapshot(),
            "casebook": self.casebook.changes(number, whole=whole),
            "relations": self.relations.changes(number, whole=whole),
            "advisor": self.advisor.changes(number, whole=whole),
        }
        floors = (self.histories.call_ids, self.elements, self.casebook, self.relations, self.advisor)
        self._number = number
        return state | {"floor": min(self.roster.hand.floor, *(part.floor for part in floors))}

    def _copied(self, index: I32, rows: Rows) -> dict[str, Any]:
        """Return copied rows with what is kept beside them; the case of a changed row is written too."""
        for key in rows["key"][rows["mode"] != CALM].tolist():
            if key in self.casebook.cases:
                self.casebook.cases.touch(key)
        notes = self.notes.copy(_noted(rows))
        return {
            "index": plain(index),
            "rows": plain(rows),
            "notes": plain(notes),
            "histories": self.histories.copy(_with_history(notes)),
            "lines": plain(self.lines.copy(_with_line(notes))),
        }

    def write_whole(self) -> None:
        """Let the next checkpoint be whole: something changed that no row was touched for."""
        self._number = None

    def reset(self) -> None:
        """Know nothing, as before `take`."""
        for table in (self.roster, self.notes, self.histories, self.lines, self.elements):
            table.reset()
        for part in (self.casebook, self.relations, self.advisor):
            part.reset()
        self._gathered = []

    def take(self, state: dict[str, Any]) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        number = state["number"]
        # What is of no checkpoint is followed by none.
        self._number = number or None
        self.codecs.restore(state["codecs"])
        self.roster.evicted_count = state["evicted"]
        self.roster.hand.take(state["turns"], number)
        for some in state["customers"]:
            rows, notes = np.frombuffer(some["rows"], ROW), np.frombuffer(some["notes"], NOTE)
            self.roster.take(np.frombuffer(some["index"], np.int32), rows, state["size"])
            self.notes.take(_noted(rows), notes)
            self.histories.take(_with_history(notes), some["histories"])
            self.lines.take(_with_line(notes), np.frombuffer(some["lines"], LINE))
        self.histories.call_ids.take(state["call_ids"], number)
        self.elements.take(state["elements"], number)
        self.incidents.restore(state["incidents"])
        self.casebook.take(state["casebook"], number)
        self.relations.take(state["relations"], number)
        self.advisor.take(state["advisor"], number)

    def settle(self) -> None:
        """Make ready what was taken over.

        Raises:
            StateError: it is not all there.
        """
        self.roster.settle()
        taken = _noted(self.roster.book.rows[: len(self.roster)])
        self.notes.settle(taken)
        notes = self.notes.copy(taken)
        self.histories.settle(_with_history(notes))
        self.lines.settle(_with_line(notes))
        for part in (self.elements, self.casebook, self.relations, self.advisor):
            part.settle()


def _noted(rows: Rows) -> I32:
    places: I32 = rows["note"]
    return places[np.flatnonzero(places != DRAFT)]


def _with_history(notes: Rows) -> I32:
    places: I32 = notes["history"]
    return places[np.flatnonzero(places >= 0)]


def _with_line(notes: Rows) -> I32:
    places: I32 = notes["line"]
    return places[np.flatnonzero(places >= 0)]


class Codecs:
    """Codec names and the small numbers that stand for them in kept calls.

    Attributes:
        translation: gives a name's number.
        kinds: gives a name's index into the codecs that the E-model knows.
    """

    MAX = 32_000
    """Numbers are int16; a network with more codecs than that has none that matter beyond."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.translation = Translation(self._number, -1)
        self.kinds = Translation(codec_index, 0)

    def _number(self, name: str) -> int:
        known = self._numbers.get(name)
        if known is None and len(self._numbers) < self.MAX:
            known = self._numbers[name] = len(self._numbers)
        return -1 if known is None else known

    def name(self, number: int) -> str:
        """Return what a number stands for."""
        return next((name for name, known in self._numbers.items() if known == number), "unknown")

    def snapshot(self) -> list[str]:
        """Return the state as plain values: a copy."""
        return list(self._numbers)

    def restore(self, state: list[str]) -> None:
        """Take over a snapshot."""
        self._numbers = {name: number for number, name in enumerate(state)}
        self.translation = Translation(self._number, -1)
