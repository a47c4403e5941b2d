"""Everything that is known: customers, their recent calls, the network, open cases, what the business told."""

from typing import Any

from detectors.advice import Advisor
from detectors.casebook import Casebook
from detectors.catalogue import Catalogue
from detectors.elements import Elements
from detectors.history import Histories
from detectors.incidents import Incidents
from detectors.relations import Relations
from detectors.roster import Roster
from detectors.settings import Settings
from schemas.text import Translation


class Memory:
    """All state of an engine, by what it is about.

    Args:
        settings: what the configuration fixes.
        catalogue: the remedies.

    Attributes:
        codecs: gives a codec's name its number.
    """

    PARTS = ("codecs", "roster", "histories", "elements", "incidents", "casebook", "relations", "advisor")
    """What a snapshot holds."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.settings = settings
        self.codecs = Codecs()
        self.roster = Roster(settings.customers_max, settings.idle_days)
        self.histories = Histories()
        self.elements = Elements()
        self.incidents = Incidents(settings.deployment, self.elements)
        self.casebook = Casebook()
        self.relations = Relations(settings.customers_max)
        self.advisor = Advisor(settings, catalogue, self.relations)

    def row(self, row: int) -> Any:
        """Return a customer's row; what is written to it stays."""
        return self.roster.book.rows[row]

    def row_of(self, customer: int) -> Any | None:
        """Return the row of a customer's key, or None."""
        row = self.roster.find(customer)
        return None if row < 0 else self.row(row)

    def make_room(self, now_ms: int) -> None:
        """Let the roster grow, or forget what there is of those customers that it evicts."""
        for row in self.roster.make_room(now_ms):
            key = int(row["key"])
            if row["history"] >= 0:
                self.histories.give_back(int(row["history"]))
            self.relations.forget(key)
            self.advisor.forget(key)
            if self.casebook.cases.pop(key, None) is not None:
                self.casebook.reschedule()


class Codecs:
    """Codec names and the small numbers that stand for them in kept calls."""

    MAX = 32_000
    """Numbers are int16; a network with more codecs than that has none that matter beyond."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.translation = Translation(self._number, -1)

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
