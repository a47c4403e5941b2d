"""What is done to a notification before any transport sees it: routed by the output's rule, then put in its shape."""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from schemas.alerts import Notification
from sinks.outputs import State, Undeliverable
from sinks.routing import Facts, HoldReason, Rule, Standing, UnreadableError, facts_of, route
from sinks.shapes import CLOUDEVENTS, Shape


class Treatment(Struct, frozen=True):
    """An output's rule and shape.

    Attributes:
        rule: what it wants; the default is all.
        shape: what it sends; the default is the notification as it is.
    """

    rule: Rule = Rule()
    shape: Shape = CLOUDEVENTS

    @property
    def holds(self) -> bool:
        """Whether it may hold something back."""
        return self.rule.quiet is not None or self.rule.cap is not None


class Ready(Struct, frozen=True):
    """To be sent now.

    Attributes:
        notification: with the bytes to send as its body; all else is unchanged.
        contact: the customer whose contacts are counted and grow by one with this; None: nobody's.
    """

    notification: Notification
    contact: str | None = None


class Aside(Struct, frozen=True):
    """Not to be sent: `PENDING` until a time, `SKIPPED`, or `DEAD`.

    Attributes:
        held: with `PENDING`, why.
        reason: with `DEAD`, why.
        detail: what was found.
    """

    state: State
    until_ms: int = 0
    held: HoldReason | None = None
    reason: Undeliverable | None = None
    detail: str = ""


EVERYTHING = Treatment()
"""All of it, as it is."""


def treat(
    treatment: Treatment, notification: Notification, standing: Callable[[Facts], Standing], now_ms: int
) -> Ready | Aside:
    """Return what becomes of a notification at an output.

    Args:
        treatment: the output's.
        notification: as it was put.
        standing: what the output was told before; asked only where the rule asks anything.
        now_ms: the wall clock.
    """
    contact = None
    try:
        if treatment.rule != EVERYTHING.rule:
            facts = facts_of(notification)
            known = standing(facts)
            decision = route(facts, treatment.rule, known, now_ms)
            if decision.verb == "hold":
                return Aside(State.PENDING, decision.until_ms, decision.reason)
            if decision.verb == "skip":
                return Aside(State.SKIPPED, detail="the output's rule leaves it out")
            contact = facts.customer_id if treatment.rule.cap is not None and not known.told else None
        body = treatment.shape.render(notification)
    except UnreadableError as error:
        return Aside(State.DEAD, reason=Undeliverable.MALFORMED, detail=str(error))
    if body is None:
        return Aside(State.SKIPPED, detail=f"shape {treatment.shape.name} has no place for it")
    return Ready(notification if body is notification.body else replace(notification, body=body), contact)
