"""The canary: a customer who does not exist, whose trouble must come out as an alert every few minutes.

A sender (`stayline canary`) puts calls of a reserved customer into the real input. They are read, decoded and queued as
all others are, and then judged by an engine of their own: no real customer's evidence, baseline or budget is touched,
and nothing is put into the outbox. What comes out is a figure that Prometheus watches; when it stops coming, something
on the way is broken, whatever it is.

`replay` keeps canaries apart in the same way, so that recorded events tell what they told.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import orjson

from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue
from detectors.settings import Settings
from schemas.alerts import Notification
from schemas.columns import EventBatch, take
from schemas.text import I64

PREFIX = "stayline.canary."
"""Customers whose id begins like this, and is as long as a canary's, are reserved."""

ID_SIZE = len(PREFIX) + 32

_PREFIX = np.frombuffer(PREFIX.encode(), np.uint8)

CALLS = 12
EVERY_MS = 600_000
TALK_MS = 31_013

ROUNDS_KEPT = 32
"""After so many rounds the canaries' engine is begun anew."""

Told = Callable[[int, Sequence[Notification]], None]
"""Is told the event time of the newest canary call, and what it led to."""


def calls(at_ms: int) -> tuple[str, bytes]:
    """Return a new canary, and its calls as NDJSON: two hours of them, each cut off by the network, the last one now.

    Args:
        at_ms: when the last call ends; it also makes the customer a new one.
    """
    customer = f"{PREFIX}{at_ms:032x}"
    lines = []
    for number in range(CALLS):
        end_ms = at_ms - EVERY_MS * (CALLS - 1 - number)
        # No two last equally long: this is a line that drops calls, not a timer.
        answer_ms = end_ms - TALK_MS * (number + 1)
        one = {
            "type": "call",
            "call_id": f"{customer}.{number}",
            "customer_id": customer,
            "peer_id": f"{PREFIX}peer.{number}",
            "start_ms": answer_ms - 5_000,
            "answer_ms": answer_ms,
            "end_ms": end_ms,
            "direction": "out",
            "q850": 41,
            "released_by": "network",
        }
        lines.append(orjson.dumps(one) + b"\n")
    return customer, b"".join(lines)


class GuardedEngine(RiskEngine):
    """An engine that keeps canaries out of all that it knows.

    Args:
        settings, catalogue: as for any engine.
        told: hears what canaries led to.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, told: Told = lambda _at_ms, _told: None) -> None:
        super().__init__(settings, catalogue)
        self._catalogue = catalogue
        self._apart = self._fresh()
        self._told = told

    def _fresh(self) -> RiskEngine:
        """Return an engine for canaries. It is kept in no snapshot: every round has a customer of its own."""
        name = f"{self.settings.deployment}.canary"
        own = Settings(name, false_alarm_days=100, alerts_per_day_max=10**6, customers_max=2 * ROUNDS_KEPT)
        return RiskEngine(own, self._catalogue)

    def apply(self, batch: EventBatch) -> list[Notification]:
        """Apply a batch; what canaries lead to is not among what is returned."""
        found = _canaries(batch)
        if len(found):
            batch = self._set_apart(batch, found)
        return super().apply(batch)

    def _set_apart(self, batch: EventBatch, found: I64) -> EventBatch:
        # No case of a canary ever ends: begun anew now and then, the engine stays small.
        if self._apart.counts.applied >= ROUNDS_KEPT * CALLS:
            self._apart = self._fresh()
        others = np.setdiff1d(np.arange(len(batch.calls)), found)
        none = np.zeros(0, np.int64)
        mine = EventBatch(len(found), take(batch.calls, found), take(batch.media, none), take(batch.links, none))
        before = self._apart.counts.applied, self._apart.counts.duplicate, self._apart.counts.late
        told = self._apart.apply(mine)
        after = self._apart.counts
        # They are records like all others: read, and accounted for.
        self.counts.applied += after.applied - before[0]
        self.counts.duplicate += after.duplicate - before[1]
        self.counts.late += after.late - before[2]
        self._told(self._apart.clock_ms, told)
        return replace(batch, records=batch.records - len(found), calls=take(batch.calls, others))


def _canaries(batch: EventBatch) -> I64:
    """Return the rows of canaries' calls; looks at the ids of the right size alone, as all of them may be."""
    customers = batch.calls.customer_id
    sized = np.flatnonzero(customers.size == ID_SIZE)
    beginnings = customers.data[customers.start[sized, np.newaxis] + np.arange(len(_PREFIX))]
    found: I64 = sized[(beginnings == _PREFIX).all(axis=1)]
    return found
