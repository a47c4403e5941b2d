"""What vendors' call records have in common: whose call it is, who ended it, and what must not leave ingest.

**Whose call.** A record tells of a caller and a callee, and both may be customers. Where `customers_file` says who is
one, each end that is a customer has an event of its own, both with the same `call_id`. Where nothing is known of
customers, or neither end is one, the call is the caller's, or the callee's if the caller withholds the number. Where a
vendor writes one record for each leg, the leg's own party comes first (see `schemas.formats.freeswitch`).

**Media.** Where both directions of a call are measured, the worse one counts: a conversation is as good as its worse
half. Packets of a direction in which next to nothing was heard are given as the ones received, whichever end went
without them, since that is what detection knows as one-way audio; a MOS beside such counts is none of the call.

**Values.** What a call needs (its times, its ends) must be readable, or the record is a reject. A statistic that is no
number, or is outside what it can be (a MOS of 0), was not measured: it is left out.
"""

import math
import re
from typing import Literal

from msgspec import Struct

from schemas import events
from schemas.deadletters import DeadReason
from schemas.events import COUNT_MAX
from schemas.formats.identity import Tokens
from schemas.formats.memory import Reading, remembered
from schemas.formats.rows import Unfit

PACKETS_MAX = 1_000_000_000
"""No call has more packets (50 a second for half a year): it is a number of another column."""

SPAN_MS_MAX = 1_000_000.0
"""Nor does a packet travel, or vary by, a quarter of an hour."""

NUMBER_CHARS_MAX = 32
"""No number of a record is written longer."""

STARVED_RATIO = 0.02
"""A direction with less than this share of the other's packets carried nothing but silence descriptors, if that."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{0,18})?")
PAYLOADS = {0: "PCMU", 3: "GSM", 4: "G723", 8: "PCMA", 9: "G722", 15: "G728", 18: "G729"}
"""Static payload types (RFC 3551, table 4)."""

Value = str | int | float | None
"""A value of a vendor's record: texts and numbers are written for one another, and `null` or nothing for neither."""


class Call(events.Call, tag="call", omit_defaults=True, gc=False):
    """A `call` event as a format writes it: without what is not known. See `schemas.events`."""


class Media(events.Media, tag="media", omit_defaults=True, gc=False):
    """A `media` event, written likewise."""


End = Literal["caller", "callee", "network"]
"""Who ended a call, whoever of the two is the customer."""


class Side(Struct, frozen=True, gc=False):
    """One customer's view of a call.

    Attributes:
        direction: `out` if the customer is the caller.
        customer_id, peer_id: tokens.
    """

    direction: events.Direction
    customer_id: str
    peer_id: str | None


class Parties:
    """Says whose a call is. See the module.

    Args:
        tokens: turn ends into pseudonyms, and know who is a customer.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._end = tokens.party

    def sides(self, caller: str | None, callee: str | None) -> list[Side]:
        """Return for whom of the two ends a record of a whole call counts.

        Args:
            caller, callee: numbers, URIs or names as the source writes them.

        Raises:
            Unfit: both ends are unknown.
        """
        near, near_known = self._end(caller)
        far, far_known = self._end(callee)
        if near is not None and (near_known or not far_known):
            mine = Side("out", near, far)
            return [mine, Side("in", far, near)] if near_known and far_known and far is not None else [mine]
        if far is None:
            raise Unfit(DeadReason.MISSING_FIELD, "a call must name its caller or its callee, named neither")
        return [Side("in", far, near)]

    def leg_side(self, caller: str | None, callee: str | None, *, of_callee: bool) -> Side:
        """Return for whom a record of one leg counts: its own party, unless only the other one is a customer.

        Raises:
            Unfit: both ends are unknown.
        """
        found = self.sides(caller, callee)
        if len(found) == 2:
            return found[of_callee]
        near, far = self._end(caller), self._end(callee)
        if of_callee and far[0] is not None and near[1] == far[1]:
            return Side("in", far[0], near[0])
        return found[0]

    def names(self, text: str | None) -> bool:
        """Tell whether an end names somebody."""
        return self._end(text)[0] is not None


def released_by(side: Side, by: End | None) -> events.Releaser | None:
    """Return who ended a call, as one side sees it.

    Args:
        by: `caller`, `callee`, `network`, or None: not known.
    """
    if by is None or by == "network":
        return by
    return "customer" if (by == "caller") == (side.direction == "out") else "peer"


class Heard(Struct, frozen=True, gc=False):
    """Packet counts as detection reads them, and the MOS if they allow one."""

    received: int | None
    sent: int | None
    mos: float | None


def heard(received: int | None, sent: int | None, mos: float | None) -> Heard:
    """Judge a vendor's MOS by its packet counts. See the module."""
    if received is None or sent is None:
        return Heard(received, sent, None if received == 0 or sent == 0 else mos)
    low, high = (received, sent) if received <= sent else (sent, received)
    if low > STARVED_RATIO * high:
        return Heard(received, sent, mos)
    return Heard(low, high, None)


def measured(low: float = 0.0, high: float = COUNT_MAX, factor: float = 1.0) -> Reading[float]:
    """Return what reads a measure.

    Args:
        low, high: what it can be, in the unit that is wanted; anything else was not measured and is None.
        factor: of the source's number to that unit.
    """

    def read(value: Value) -> float | None:
        if isinstance(value, str):
            plain = value.strip()
            number = float(plain) if len(plain) <= NUMBER_CHARS_MAX and _NUMBER.fullmatch(plain) else math.nan
        else:
            number = math.nan if value is None or abs(value) > COUNT_MAX else float(value)
        scaled = number if factor == 1.0 else round(number * factor, 6)
        return scaled if low <= scaled <= high and number <= COUNT_MAX else None

    return remembered(read)


def counted(low: int = 0, high: int = COUNT_MAX) -> Reading[int]:
    """Return what reads a count, rounded down; None where the source has none in this range."""
    measure_of = measured()

    def read(value: Value) -> int | None:
        number = measure_of(value)
        return int(number) if number is not None and low <= int(number) <= high else None

    return remembered(read)


measure = measured()
"""A measure, at least 0, as it is."""

count = counted()
"""A count."""

packets_of = counted(high=PACKETS_MAX)
"""A count of packets."""

span_of = measured(high=SPAN_MS_MAX)
"""A jitter or a delay in milliseconds; None where it is none."""

mos_of = measured(1.0, 5.0)
"""A MOS; None where none was measured: what lies outside 1..5 is a vendor's way to say so."""

ratio_of = measured(high=1.0)
"""A ratio; None where it is none."""

status_of = counted(100, 699)
"""A SIP status; None where there was none (switches write 0)."""

q850_of = counted(1, 1023)
"""A release cause; None where there was none (0 is no cause of Q.850)."""


def loss_of(lost: Value, received: Value) -> float | None:
    """Return the share of packets lost; None where nothing was to be received."""
    gone, came = measure(lost), measure(received)
    if gone is None or came is None:
        return None
    if gone == 0.0:
        return None if came == 0.0 else 0.0
    return round(gone / (gone + came), 6)


def worse(first: float | None, second: float | None) -> float | None:
    """Return the higher of two measures, as far as there are any."""
    if first is None or (second is not None and second > first):
        return second
    return first


def lower(first: float | None, second: float | None) -> float | None:
    """Return the lower of two measures, as far as there are any."""
    if first is None or (second is not None and second < first):
        return second
    return first
