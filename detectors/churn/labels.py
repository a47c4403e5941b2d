"""Labels that come late: the features of a scoring are kept until it is known whether the customer left.

Somebody who leaves is known at once; that somebody stayed is known only when the horizon has passed. An example
carries the features of the time of scoring, never those of the time of the label, or the model would learn to
tell the past.

While the first horizon runs only leavers are known; `ChurnModel.learn` tells what becomes of those.
"""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from detectors.changes import Ledger
from detectors.churn.features import known_in, packed, row_of
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
    """An example whose label is not known yet; its features are a row (`features.packed`)."""

    customer: str
    at_ms: int
    row: bytes

    def labelled(self, *, left: bool) -> Example:
        """Return the example, now that its label is known."""
        return Example(self.customer, self.at_ms, known_in(packed.unpack(self.row)), left)


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
        self.keep(customer, at_ms, row_of(features))
        return True

    def keep(self, customer: str, at_ms: int, row: Sequence[float]) -> None:
        """Keep the features of a customer of whom an example is wanted, as they are now: a row of `FEATURES`."""
        sequence = self._sequence
        self._sequence += 1
        self._pending[sequence] = PendingExample(customer, at_ms, packed.pack(*row))
        self._of[customer] = (*self._of.get(customer, ()), sequence)
        heapq.heappush(self._queue, (at_ms, sequence))
        self._make_room()

    def wants(self, customer: str, at_ms: int) -> bool:
        """Tell whether an example of this customer would be kept."""
        mine = self._of.get(customer)
        return mine is None or at_ms - self._pending[mine[-1]].at_ms >= self._gap_ms

    def left(self, customer: str, at_ms: int) -> list[Example]:
        """Return the customer's examples of the horizon before they left, oldest first: positives.

        Older ones stay and mature as negatives. Later ones, scored before the news came, are discarded.
        """
        mine = self._of.get(customer, ())
        examples = [self._pending[sequence] for sequence in mine]
        kept = sum(at_ms - example.at_ms >= self._horizon_ms for example in examples)
        self._leave(customer, mine[:kept])
        fresh = examples[kept:]
        positives = [example for example in fresh if example.at_ms <= at_ms]
        self.discarded_count += len(fresh) - len(positives)
        return [example.labelled(left=True) for example in positives]

    def mature(self, now_ms: int) -> list[Example]:
        """Return the examples whose horizon has passed at `now_ms` without leaving, oldest first: negatives.

        `now_ms` is event time up to which departures are known. For results that do not depend on how events
        are batched, call it with times that events alone determine, such as the time of each score.
        """
        # Whoever is first in the queue is the oldest, or was.
        if not self._queue or now_ms - self._queue[0][0] < self._horizon_ms:
            return []
        negatives = []
        while (oldest := self._oldest()) is not None and now_ms - oldest.at_ms >= self._horizon_ms:
            self._remove_oldest()
            negatives.append(oldest.labelled(left=False))
        return negatives

    def wait_for(self, customers: set[str]) -> None:
        """Erase the examples of all customers but these."""
        for customer in self._of.keys() - customers:
            self._leave(customer, ())

    def forget(self, customer: str) -> int:
        """Erase the customer's examples; return how many there were."""
        count = len(self._of.get(customer, ()))
        self._leave(customer, ())
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
        self._of.clear()
        for sequence, example in self._pending.items():
            self._of[example.customer] = (*self._of.get(example.customer, ()), sequence)
        self._queue[:] = self._in_order()
        self._make_room()

    def reset(self) -> None:
        """Hold nothing, with nothing written yet."""
        # By customer their examples, and all of them by time: tuples, for the garbage collector passes over those that
        # hold numbers alone.
        self._of: dict[str, tuple[int, ...]] = {}
        self._queue: list[tuple[int, int]] = []
        self._pending: Ledger[int, PendingExample] = Ledger("labels", PendingExample)
        self._sequence = 0
        self.dropped_count = self.discarded_count = 0

    def _leave(self, customer: str, kept: tuple[int, ...]) -> None:
        """Leave the customer with no more than `kept`, their oldest."""
        for sequence in self._of.pop(customer, ())[len(kept) :]:
            del self._pending[sequence]
        if kept:
            self._of[customer] = kept
        # What is gone stays in the queue as dead weight until it outweighs the living.
        if len(self._queue) > 2 * len(self._pending) + 64:
            self._queue = self._in_order()

    def _in_order(self) -> list[tuple[int, int]]:
        return sorted((example.at_ms, sequence) for sequence, example in self._pending.items())

    def _oldest(self) -> PendingExample | None:
        while self._queue:
            example = self._pending.get(self._queue[0][1])
            if example is not None:
                return example
            heapq.heappop(self._queue)
        return None

    def _remove_oldest(self) -> None:
        _, sequence = heapq.heappop(self._queue)
        customer = self._pending[sequence].customer
        del self._pending[sequence]
        # A customer's stand in order of time: this is their first.
        self._of[customer] = self._of[customer][1:]
        if not self._of[customer]:
            del self._of[customer]

    def _make_room(self) -> None:
        while len(self._pending) > self._pending_max and self._oldest() is not None:
            self._remove_oldest()
            self.dropped_count += 1
