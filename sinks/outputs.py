"""What an output is to the dispatcher, and the words they share.

Two kinds. A *stream* output takes notifications in the outbox's order, a batch at a time, and remembers how far
it came as one integer (a file: its length). A *case* output takes one notification at a time, many at once, and
keeps order within a case only (a webhook: a slow answer about one customer must not hold up another's).
"""

import random
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

from msgspec import Struct

from schemas.alerts import Notification
from schemas.errors import StaylineError

Clock = Callable[[], int]
"""Gives the time in Unix milliseconds."""


class OutputDownError(StaylineError):
    """An output cannot take anything now; waiting may help. The text says what was found."""


class NotificationRefusedError(StaylineError):
    """A stream output can never carry one notification of the batch; it wrote none of the batch.

    Args:
        index: place of the notification in the batch.
        detail: what must hold, what was found.
    """

    def __init__(self, index: int, detail: str) -> None:
        super().__init__(detail)
        self.index = index
        self.detail = detail


class State(StrEnum):
    """Where the delivery of one notification to one output stands."""

    PENDING = "pending"
    """Waiting, in flight, or between two attempts."""
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up, kept with its reason until an operator replays or discards it."""
    SUPERSEDED = "superseded"
    """Never sent: a newer revision of the case stood behind it, and the output wants only the newest."""
    DISCARDED = "discarded"
    """Dropped by an operator's hand."""
    SKIPPED = "skipped"
    """Never sent: the output's rule leaves it out, or its shape has no place for it."""


class Undeliverable(StrEnum):
    """Why a delivery was given up. A closed set: dashboards and runbooks list it."""

    EXPIRED = "expired"
    """Every attempt failed until `give_up_after_s` had passed since the first."""
    REJECTED = "rejected"
    """The receiver says that the message itself is wrong (400, 413, 422), three times."""
    MALFORMED = "malformed"
    """The output cannot carry these bytes or this id at all, or its shape could not be made of them."""


class Health(StrEnum):
    """What an attempt tells of the receiver, whatever became of the message."""

    WELL = "well"
    FAILING = "failing"
    GONE = "gone"
    """The receiver asked not to be called again (410): an operator must enable it."""


class Delivery(Struct, frozen=True):
    """One notification on its way to one output.

    Attributes:
        seq: its place in the outbox.
        attempts: attempts that have failed before.
        first_ms: when the first attempt was made, None before it.
        put_ms: when it was put into the outbox.
    """

    seq: int
    notification: Notification
    attempts: int = 0
    first_ms: int | None = None
    put_ms: int = 0


class Outcome(Struct, frozen=True):
    """What came of one attempt.

    Attributes:
        state: `DELIVERED`, `DEAD`, or `PENDING` for another attempt.
        retry_ms: with `PENDING`, when.
        reason: with `DEAD`, why.
        reply: what the receiver said, scrubbed and cut, for the operator.
        hold_ms: the receiver as a whole must not be called before this time (`Retry-After`).
    """

    state: State
    health: Health
    retry_ms: int = 0
    reason: Undeliverable | None = None
    reply: str = ""
    hold_ms: int = 0


def answer_of(reply: str) -> str:
    """Return what of a reply may stand in lists and logs: of an answer its status, as the rest may repeat a message."""
    return reply[:3] if reply[:3].isdigit() else reply


class StreamOutput(Protocol):
    """Takes batches in the outbox's order. Its methods may block; they run in a thread of their own."""

    @property
    def name(self) -> str:
        """The configured name, unique among the outputs."""

    def recover(self, position: int) -> int:
        """Make the output hold exactly what was committed, and nothing of an unfinished batch.

        Args:
            position: what the last committed `append` returned, 0 at first.

        Returns:
            The position to append at; differs from `position` only where the output begins anew.

        Raises:
            OutputDownError: waiting may help.
            StateError: what was committed is no longer there.
        """

    def append(self, position: int, notifications: Sequence[Notification]) -> int:
        """Add a batch durably and return the new position.

        Raises:
            OutputDownError: the batch is to be tried again, from `recover`.
            NotificationRefusedError: one of them can never be taken.
        """


@runtime_checkable
class CaseOutput(Protocol):
    """Takes single notifications, several at once, one of a case at a time."""

    @property
    def name(self) -> str:
        """The configured name, unique among the outputs."""

    @property
    def concurrency(self) -> int:
        """How many attempts may run at once."""

    @property
    def newest_only(self) -> bool:
        """Whether a newer revision makes the older ones still waiting needless."""

    async def attempt(self, delivery: Delivery, clock: Clock, rng: random.Random) -> Outcome:
        """Try once. Failures of the receiver are outcomes; only a fault of ours raises."""

    async def close(self) -> None:
        """Let go of connections; a later attempt opens new ones."""


Output = StreamOutput | CaseOutput
