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
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

from schemas.deadletters import DeadReason
from schemas.events import COUNT_MAX
from schemas.formats import Tokens
from schemas.formats.rows import Unfit

PACKETS_MAX = 1_000_000_000
"""No call has more packets (50 a second for half a year): it is a number of another column."""

SPAN_MS_MAX = 1_000_000.0
"""Nor does a packet travel, or vary by, a quarter of an hour."""

NUMBER_CHARS_MAX = 32
"""No number of a record is written longer."""

_KEPT = 65_536
"""So many texts of numbers and ends are kept with what they mean: a few megabytes."""

STARVED_RATIO = 0.02
"""A direction with less than this share of the other's packets carried nothing but silence descriptors, if that."""

_NOBODY = frozenset({
    "", "-", "<unknown>", "anonymous", "h", "invalid", "null", "private", "restricted", "s", "unavailable", "unknown",
    "withheld",
})  # fmt: skip
"""What stands where a number is withheld, or where a dial plan begins or ends (`s`, `h`)."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{0,18})?")
_REASON = re.compile(
    r"(?:^|(?<=[,\n]))\s*(?:Reason:\s*)?([A-Za-z][A-Za-z0-9._-]{0,31})\s*;([^,\n\"]*(?:\"[^\"]*\"[^,\n\"]*)*)"
)
_CAUSE = re.compile(r"cause\s*=\s*\"?([0-9]{1,5})\b", re.IGNORECASE)
_TEXT = re.compile(r"text\s*=\s*(?:\"([^\"]*)\"|([^;\s]+))", re.IGNORECASE)
_CODEC = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,31}")
_CODEC_NAMES = {
    "G711U": "PCMU", "G711MU": "PCMU", "G711ULAW": "PCMU", "ULAW": "PCMU", "G711A": "PCMA", "G711ALAW": "PCMA",
    "ALAW": "PCMA", "PCMA": "PCMA", "PCMU": "PCMU", "G729A": "G729", "G729B": "G729", "G729AB": "G729",
}  # fmt: skip
"""Encoding names (RFC 3551) of what else is written for them."""

_ADDRESS = re.compile(
    r"@|[0-9]{4}|(?:[0-9][ ().-]{0,2}){7}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2}|[0-9A-Fa-f]{12}"
)
"""What a telephone number, a SIP URI, an IP or a MAC address has. Rather a name too many becomes a token."""

_MODEL = re.compile(r"[A-Za-z][A-Za-z0-9 _()+.-]{0,63}")
_UNFIT_MODEL = re.compile(r"@|[0-9]{6}|(?:[0-9]{1,3}\.){3}|(?:[0-9A-Fa-f]{2}[:-]){3}|[0-9A-Fa-f]{12}")
_VERSION = re.compile(r"[/ ][vV]?([0-9]+(?:[._-][0-9A-Za-z]{1,16}){1,5})(?=[ /(]|\Z)")
_PRIVATE = re.compile(r"(?:10\.[0-9]+|127\.[0-9]+|192\.168|172\.(?:1[6-9]|2[0-9]|3[01]))\.[0-9]+\.[0-9]+")


_Value_co = TypeVar("_Value_co", covariant=True)


class _Reader(Protocol[_Value_co]):
    """Reads a value of a record, in another unit where a factor is given."""

    def __call__(self, value: object, factor: float = 1.0) -> _Value_co | None: ...


class Side(NamedTuple):
    """One customer's view of a call.

    Attributes:
        direction: `out` if the customer is the caller.
        customer_id, peer_id: tokens.
    """

    direction: str
    customer_id: str
    peer_id: str | None


def sides(tokens: Tokens, caller: str | None, callee: str | None) -> list[Side]:
    """Return for whom of the two ends a record of a whole call counts. See the module.

    Args:
        caller, callee: numbers, URIs or names as the source writes them.

    Raises:
        Unfit: both ends are unknown.
    """
    ends = _ends(tokens, caller, callee)
    return [side for side, known in ends if known] or [ends[0][0]]


def leg_side(tokens: Tokens, caller: str | None, callee: str | None, *, of_callee: bool) -> Side:
    """Return for whom a record of one leg counts: its own party, unless only the other one is a customer.

    Raises:
        Unfit: both ends are unknown.
    """
    ends = _ends(tokens, caller, callee)
    wanted = "in" if of_callee else "out"
    return min(ends, key=lambda end: (not end[1], end[0].direction != wanted))[0]


def _ends(tokens: Tokens, caller: str | None, callee: str | None) -> list[tuple[Side, bool]]:
    near, near_known = _end(tokens, caller)
    far, far_known = _end(tokens, callee)
    ends = []
    if near is not None:
        ends.append((Side("out", near, far), near_known))
    if far is not None:
        ends.append((Side("in", far, near), far_known))
    if not ends:
        raise Unfit(DeadReason.MISSING_FIELD, "a call must name its caller or its callee, named neither")
    return ends


def _end(tokens: Tokens, text: str | None) -> tuple[str | None, bool]:
    user = None if text is None else _user(text) if len(text) <= 64 else _user_of(text)
    return (None, False) if user is None else tokens.identified(user)


def _user_of(text: str) -> str | None:
    """Return the URI, number or name of an end; None where it names nobody."""
    uri = text
    if "<" in uri:
        uri = uri.partition("<")[2].partition(">")[0] or uri
    user = uri.strip()
    return None if user.partition("@")[0].rpartition(":")[2].lower() in _NOBODY else user


_user = lru_cache(_KEPT)(_user_of)


def released_by(side: Side, by: str | None) -> str | None:
    """Return who ended a call, as one side sees it.

    Args:
        by: `caller`, `callee`, `network`, or None: not known.
    """
    if by is None or by == "network":
        return by
    return "customer" if (by == "caller") == (side.direction == "out") else "peer"


def present(event: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of an event."""
    return {name: value for name, value in event.items() if value is not None}


class Heard(NamedTuple):
    """Packet counts as detection reads them, and the MOS if they allow one."""

    received: int | None
    sent: int | None
    mos: float | None


def heard(received: int | None, sent: int | None, mos: float | None) -> Heard:
    """Judge a vendor's MOS by its packet counts. See the module."""
    received = None if received is not None and received > PACKETS_MAX else received
    sent = None if sent is not None and sent > PACKETS_MAX else sent
    if received is None or sent is None:
        return Heard(received, sent, None if received == 0 or sent == 0 else mos)
    low, high = (received, sent) if received <= sent else (sent, received)
    if low > STARVED_RATIO * high:
        return Heard(received, sent, mos)
    return Heard(low, high, None)


def _remembered(read: Callable[[object, float], _Value_co | None]) -> "_Reader[_Value_co]":
    """Remember what texts mean: the same ones come again and again. Longer ones are no numbers."""
    known = lru_cache(_KEPT)(read)

    def remembering(value: object, factor: float = 1.0) -> _Value_co | None:
        if isinstance(value, str):
            return known(value, factor) if len(value) <= NUMBER_CHARS_MAX else None
        return read(value, factor)

    return remembering


@_remembered
def scaled(value: object, factor: float) -> float | None:
    """Return a measure, at least 0, in another unit; None where the source has none."""
    if isinstance(value, str):
        plain = value.strip()
        return _in_range(float(plain), factor) if _NUMBER.fullmatch(plain) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _in_range(float(value) if abs(value) <= COUNT_MAX else math.inf, factor)
    return None


def _in_range(number: float, factor: float) -> float | None:
    if not 0.0 <= number <= COUNT_MAX:
        return None
    return number if factor == 1.0 else round(number * factor, 6)


measure = scaled
"""A measure, at least 0, as it is."""


@_remembered
def count(value: object, factor: float) -> int | None:
    """Return a count; None where the source has none."""
    number = scaled(value, factor)
    return None if number is None else int(number)


@_remembered
def span_of(value: object, factor: float) -> float | None:
    """Return a jitter or a delay in milliseconds; None where it is none."""
    number = scaled(value, factor)
    return number if number is not None and number <= SPAN_MS_MAX else None


@_remembered
def mos_of(value: object, factor: float) -> float | None:
    """Return a MOS; None where none was measured: what lies outside 1..5 is a vendor's way to say so."""
    number = scaled(value, factor)
    return number if number is not None and 1.0 <= number <= 5.0 else None


@_remembered
def ratio_of(value: object, factor: float) -> float | None:
    """Return a ratio; None where it is none."""
    number = scaled(value, factor)
    return number if number is not None and number <= 1.0 else None


@_remembered
def status_of(value: object, factor: float) -> int | None:
    """Return a SIP status; None where there was none (switches write 0)."""
    number = count(value, factor)
    return number if number is not None and 100 <= number <= 699 else None


@_remembered
def q850_of(value: object, factor: float) -> int | None:
    """Return a release cause; None where there was none (0 is no cause of Q.850)."""
    number = count(value, factor)
    return number if number is not None and 1 <= number <= 1023 else None


def loss_of(lost: object, received: object) -> float | None:
    """Return the share of packets lost; None where nothing was to be received."""
    gone, came = measure(lost), measure(received)
    if gone is None or came is None or gone + came == 0.0:
        return None
    return round(gone / (gone + came), 6)


def worse(first: float | None, second: float | None) -> float | None:
    """Return the higher of two measures, as far as there are any."""
    if first is None or (second is not None and second > first):
        return second
    return first


def codec_of(value: object) -> str | None:
    """Return an encoding name (RFC 3551) without its rate."""
    return _codec(value[:64]) if isinstance(value, str) else None


@lru_cache(4_096)
def _codec(text: str) -> str | None:
    name = text.strip().partition("/")[0]
    name = _CODEC_NAMES.get(name.upper().replace(".", "").replace("-", ""), name)
    return name if _CODEC.fullmatch(name) and not _ADDRESS.search(name) else None


def place_of(tokens: Tokens, value: object) -> str | None:
    """Return a name of equipment; a token where it holds a number or an address."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    return _named(tokens, text[:128]) if text else None


@lru_cache(4_096)
def _named(tokens: Tokens, text: str) -> str:
    return tokens.opaque(text) if _ADDRESS.search(text) else text


def reason_of(value: object) -> str | None:
    """Return the values of a `Reason` header (RFC 3326): protocol, cause and text of each, nothing else.

    A text that holds a number of five digits or more, or an address, is left out.
    """
    text = value.strip() if isinstance(value, str) else ""
    return _reason(text[:1_024]) if text else None


@lru_cache(4_096)
def _reason(text: str) -> str | None:
    return ", ".join(_reason_values(text)) or None


def _reason_values(text: str) -> Iterator[str]:
    for found in _REASON.finditer(text):
        protocol, params = found.groups()
        cause, phrase = _CAUSE.search(params), _TEXT.search(params)
        said = "" if phrase is None else (phrase.group(1) or phrase.group(2) or "")
        shown = f';text="{said}"' if said and said.isprintable() and not _ADDRESS.search(said) else ""
        if (cause is not None or shown) and not _ADDRESS.search(protocol):
            yield protocol + ("" if cause is None else f";cause={cause.group(1)}") + shown


class Agent(NamedTuple):
    """Make and firmware of an endpoint."""

    model: str | None
    firmware: str | None


def agent_of(value: object) -> Agent:
    """Split a `User-Agent` (RFC 3261, section 20.41) into model and firmware; what looks like a MAC is left out."""
    return _agent(value[:256]) if isinstance(value, str) and value else Agent(None, None)


@lru_cache(4_096)
def _agent(text: str) -> Agent:
    version = _VERSION.search(text)
    head = text if version is None else text[: version.start()]
    model = head.partition("/")[0].strip()
    if not _MODEL.fullmatch(model) or _UNFIT_MODEL.search(model):
        return Agent(None, None)
    firmware = None if version is None else version.group(1)
    # Firmware of four numbers is common; one that is a private IPv4 address is an address.
    return Agent(model, None if firmware is not None and _PRIVATE.match(firmware) else firmware)
