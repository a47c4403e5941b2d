"""Labels that come late: the features of a scoring are kept until it is known whether the customer left.

Somebody who leaves is known at once; that somebody stayed is known only when the horizon has passed. An example
carries the features of the time of scoring, never those of the time of the label, or the model would learn to
tell the past.

While the first horizon runs only leavers are known; `ChurnModel.learn` tells what becomes of those.
"""

import heapq
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from msgspec import Struct

from detectors.changes import Ledger
from detectors.churn.features import known_in, row_of
from schemas.errors import ConfigError

DAY_MS: Final = 86_400_000
HORIZON_MS: Final = 30 * DAY_MS
"""A score is about the 30 days after it."""

GAP_MS: Final = 7 * DAY_MS
"""At most one example a customer in seven days: scores of the same week say nearly the same, and a customer with
daily alerts must not outvote the quiet ones."""

PENDING_MAX: Final = 200_000
"""Examples that wait for their label, at most; some 130 MB."""


class Example(Struct, frozen=True):
    """One customer as scored at `at_ms`, and whether they left within the horizon."""

    customer: str
    at_ms: int
    features: dict[str, float]
    left: bool


class PendingExample(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An example whose label is not known yet; its features are a row of float64 (`features.row_of`)."""

    customer: str
    at_ms: int
    row: bytes

    def labelled(self, *, left: bool) -> Example:
        """Return the example, now that its label is known."""
        return Example(self.customer, self.at_ms, known_in(self.row), left)


class _Entry(NamedTuple):
    """A pending example in its order: `sequence` is unique, so entries never compare further."""

    at_ms: int
    sequence: int
    example: PendingExample


class LabelDesk:
    """Keeps what was scored until its label is known.

    What becomes of an example depends on event times alone, not on how often `mature` is called: one older than
    the horizon stays a negative even if the customer leaves before it is collected.

    Args:
        horizon_ms: time after a score within which leaving counts.
        gap_ms: least time between two examples of one customer.
        pending_max: examples kept at most; beyond it the oldest are dropped and counted.

    Attributes:
        dropped_count: examples dropped for want of room.
        discarded_count: examples scored after their customer had left, and so about nobody.

    Raises:
        ConfigError: if an argument is out of range.
    """

    def __init__(self, horizon_ms: int = HORIZON_MS, gap_ms: int = GAP_MS, pending_max: int = PENDING_MAX) -> None:
        problems = [
            f"{name} must be at least 1, was {value}"
            for name, value in (("horizon_ms", horizon_ms), ("gap_ms", gap_ms), ("pending_max", pending_max))
            if value < 1
        ]
        if problems:
            raise ConfigError(problems)
        self._horizon_ms, self._gap_ms, self._pending_max = horizon_ms, gap_ms, pending_max
        self.reset()

    @property
    def pending_count(self) -> int:
        """Examples that wait for their label."""
        return len(self._pending)

    def remember(self, customer: str, at_ms: int, features: Mapping[str, float]) -> bool:
        """Keep the features used for a score.

        Returns:
            False if the customer has an example less than `gap_ms` older (or a newer one): this one is not kept.
        """
        if not self.wants(customer, at_ms):
            return False
        self.keep(customer, at_ms, features)
        return True

    def keep(self, customer: str, at_ms: int, features: Mapping[str, float]) -> None:
        """Keep the features of a customer of whom an example is wanted, as they are now."""
        entry = _Entry(at_ms, self._sequence, PendingExample(customer, at_ms, row_of(features)))
        self._sequence += 1
        self._pending[entry.sequence] = entry.example
        self._entries.setdefault(customer, []).append(entry)
        heapq.heappush(self._queue, entry)
        self._make_room()

    def wants(self, customer: str, at_ms: int) -> bool:
        """Tell whether an example of this customer would be kept."""
        mine = self._entries.get(customer)
        return not mine or at_ms - mine[-1].at_ms >= self._gap_ms

    def left(self, customer: str, at_ms: int) -> list[Example]:
        """Return the customer's examples of the horizon before they left, oldest first: positives.

        Older ones stay and mature as negatives. Later ones, scored before the news came, are discarded.
        """
        entries = self._entries.get(customer, [])
        kept = [entry for entry in entries if at_ms - entry.at_ms >= self._horizon_ms]
        self._leave(customer, kept)
        fresh = [entry.example for entry in entries[len(kept) :]]
        positives = [example for example in fresh if example.at_ms <= at_ms]
        self.discarded_count += len(fresh) - len(positives)
        return [example.labelled(left=True) for example in positives]

    def mature(self, now_ms: int) -> list[Example]:
        """Return the examples whose horizon has passed at `now_ms` without leaving, oldest first: negatives.

        `now_ms` is event time up to which departures are known. For results that do not depend on how events
        are batched, call it with times that events alone determine, such as the time of each score.
        """
        # Whoever is first in the queue is the oldest, or was.
        if not self._queue or now_ms - self._queue[0].at_ms < self._horizon_ms:
            return []
        negatives = []
        while (oldest := self._oldest()) is not None and now_ms - oldest.at_ms >= self._horizon_ms:
            self._remove_oldest()
            negatives.append(oldest.labelled(left=False))
        return negatives

    def wait_for(self, customers: set[str]) -> None:
        """Erase the examples of all customers but these."""
        for customer in self._entries.keys() - customers:
            self._leave(customer, [])

    def forget(self, customer: str) -> int:
        """Erase the customer's examples; return how many there were."""
        count = len(self._entries.get(customer, []))
        self._leave(customer, [])
        return count

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest."""
        return self._pending.floor

    def changes(self, number: int, *, whole: bool) -> dict[str, Any]:
        """Return what the checkpoint of this number has to hold."""
        return {
            "sequence": self._sequence,
            "dropped": self.dropped_count,
            "discarded": self.discarded_count,
            "pending": self._pending.changes(number, whole=whole),
        }

    def take(self, state: Mapping[str, Any], number: int) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        self._sequence = state["sequence"]
        self.dropped_count, self.discarded_count = state["dropped"], state["discarded"]
        self._pending.take(state["pending"], number)

    def settle(self) -> None:
        """Make ready what was taken over.

        Raises:
            StateError: an example is missing.
        """
        self._pending.settle()
        self._entries.clear()
        for sequence, example in self._pending.items():
            entry = _Entry(example.at_ms, sequence, example)
            self._entries.setdefault(example.customer, []).append(entry)
        self._queue[:] = self._in_order()
        self._make_room()

    def reset(self) -> None:
        """Hold nothing, with nothing written yet."""
        self._entries: dict[str, list[_Entry]] = {}
        self._queue: list[_Entry] = []
        self._pending: Ledger[int, PendingExample] = Ledger("labels", PendingExample)
        self._sequence = 0
        self.dropped_count = self.discarded_count = 0

    def _leave(self, customer: str, entries: list[_Entry]) -> None:
        """Leave the customer with no more than `entries`, their oldest."""
        for entry in self._entries.pop(customer, [])[len(entries) :]:
            del self._pending[entry.sequence]
        if entries:
            self._entries[customer] = entries
        # What is gone stays in the queue as dead weight until it outweighs the living.
        if len(self._queue) > 2 * len(self._pending) + 64:
            self._queue = self._in_order()

    def _in_order(self) -> list[_Entry]:
        return sorted(entry for mine in self._entries.values() for entry in mine)

    def _oldest(self) -> PendingExample | None:
        while self._queue:
            entry = self._queue[0]
            mine = self._entries.get(entry.example.customer)
            if mine and mine[0] is entry:
                return entry.example
            heapq.heappop(self._queue)
        return None

    def _remove_oldest(self) -> None:
        oldest = heapq.heappop(self._queue)
        customer = oldest.example.customer
        del self._pending[oldest.sequence]
        mine = self._entries[customer]
        del mine[0]
        if not mine:
            del self._entries[customer]

    def _make_room(self) -> None:
        while len(self._pending) > self._pending_max and self._oldest() is not None:
            self._remove_oldest()
            self.dropped_count += 1
