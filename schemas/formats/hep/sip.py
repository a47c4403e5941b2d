"""As much of SIP (RFC 3261) and SDP (RFC 8866) as it takes to follow a call from outside."""

import ipaddress
import re
from functools import lru_cache

from msgspec import Struct

from schemas.deadletters import DeadReason
from schemas.formats.agents import Agent, agent_of
from schemas.formats.hep.packets import BadPacketError
from schemas.formats.memory import remembered
from schemas.formats.names import codec_of

_WANTED = (
    b"call-id", b"from", b"to", b"cseq", b"via", b"reason", b"p-asserted-identity", b"user-agent", b"server",
    b"session-expires",
)  # fmt: skip
_LISTS = frozenset({b"via", b"reason", b"p-asserted-identity"})
"""Headers that may come more than once (RFC 3261, section 7.3.1); of any other the first one counts."""

_COMPACT = {b"i": b"call-id", b"f": b"from", b"t": b"to", b"v": b"via", b"x": b"session-expires"}
"""RFC 3261, section 7.3.3; RFC 4028, section 4."""

CALL_ID_BYTES_MAX = 1_024

_NAMES_KEPT = 4_096
"""How a header's name is written comes from outside: beyond so many spellings none is remembered."""

_UNWANTED = b""
_NAMES: dict[bytes, bytes] = {}

_BLANK = (b" ", b"\t")
_FOLD = re.compile(rb"\n[ \t]+")
_TAG = re.compile(rb";\s*tag\s*=\s*([^\s;,>]+)", re.IGNORECASE)
_PLAIN_TAG = re.compile(rb"[^\s;,>]+").fullmatch
_BRANCH = re.compile(rb";\s*branch\s*=\s*([^\s;,]+)", re.IGNORECASE)
_HOP = re.compile(rb"SIP\s*/\s*2\.0\s*/", re.IGNORECASE)
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_VERSION = b"SIP/2.0 "
_METHODS = frozenset({b"INVITE", b"ACK", b"BYE", b"CANCEL", b"OPTIONS", b"PRACK", b"UPDATE", b"INFO"})
_METHOD = re.compile(rb"[A-Z][A-Z0-9.!%*_+`'~-]{0,31}")


class Message(Struct, frozen=True, gc=False):
    """One request or response.

    Attributes:
        method: the request's, or that of the request which is answered.
        status: of a response, 100..699; 0: a request.
        call_id, from_tag, to_tag: what they are; a tag is empty where there is none.
        cseq: the number of the request.
        headers: those that are wanted, by their long names in lower case; repeated lists joined by commas.
        body: what follows the headers.
    """

    method: bytes
    status: int
    call_id: bytes
    from_tag: bytes
    to_tag: bytes
    cseq: int
    headers: dict[bytes, bytes]
    body: bytes

    def hops(self) -> int:
        """Return how many elements it has passed, the sender of the request included."""
        via = self.headers.get(b"via", b"")
        return via.count(b"SIP/2.0/") or len(_HOP.findall(via))

    def branch(self) -> bytes:
        """Return what names the transaction on this hop (RFC 3261, section 8.1.1.7)."""
        found = _BRANCH.search(self.headers.get(b"via", b""))
        return found.group(1) if found else b""


def read_message(data: bytes) -> Message:
    """Read one message.

    Raises:
        BadPacketError: it is none, or lacks what every message must have.
    """
    at = data.find(b"\r\n\r\n")
    head, body = (data[:at], data[at + 4 :]) if at >= 0 else _untidy(data)
    lines = head.split(b"\r\n")
    if head.count(b"\n") != len(lines) - 1:
        lines = head.replace(b"\r\n", b"\n").split(b"\n")
    start = lines[0]
    status, method = _status(start) if start.startswith(_VERSION) else (0, _method(start))
    headers = _headers(lines)
    if headers is None:
        headers = _headers(_FOLD.sub(b" ", b"\n".join(lines)).split(b"\n")) or {}
    try:
        number, answered = _sequence(headers[b"cseq"])
        call_id, sender, target = headers[b"call-id"], headers[b"from"], headers[b"to"]
    except KeyError as error:
        name = error.args[0].decode("ascii")
        raise BadPacketError(DeadReason.MISSING_FIELD, f"a SIP message must have {name}, had none") from None
    if not answered or not 0 < len(call_id) <= CALL_ID_BYTES_MAX:
        rule = "cseq must be a number and a method, call-id 1 to 1024 bytes"
        raise BadPacketError(DeadReason.WRONG_TYPE, f"a SIP message's {rule}, were not")
    return Message(answered if status else method, status, call_id, _tag(sender), _tag(target), number, headers, body)


@remembered
def _sequence(cseq: bytes) -> tuple[int, bytes]:
    """Return number and method of a CSeq; no method where it holds none, or no number."""
    number, _, method = cseq.partition(b" ")
    return (int(number), method.strip()) if number.isdigit() and len(number) <= 10 else (0, b"")


def _untidy(data: bytes) -> tuple[bytes, bytes]:
    """Return head and body of a message whose lines lack their returns, or that has no body."""
    at = data.find(b"\n\n")
    return (data[:at], data[at + 2 :]) if at >= 0 else (data, b"")


def _headers(lines: list[bytes]) -> dict[bytes, bytes] | None:
    """Return the headers that are wanted; None if a line goes on with the one before (RFC 3261, section 7.3.1)."""
    headers: dict[bytes, bytes] = {}
    name_of = _NAMES.get
    rest = iter(lines)
    next(rest)
    for line in rest:
        name, _, value = line.partition(b":")
        known = name_of(name)
        if known is None:
            if line[:1] in _BLANK:
                return None
            known = _known(name)
        if known:
            if known not in headers:
                headers[known] = value.strip()
            elif known in _LISTS:
                headers[known] += b"," + value.strip()
    return headers


@remembered
def _status(line: bytes) -> tuple[int, bytes]:
    """Return the status of a response, and no method."""
    code = line[8:11]
    if code.isdigit() and b"100" <= code <= b"699":
        return int(code), b""
    raise _no_message()


def _method(line: bytes) -> bytes:
    """Return the method of a request."""
    method, _, rest = line.partition(b" ")
    if rest.rstrip().endswith(b"SIP/2.0") and (method in _METHODS or _METHOD.fullmatch(method)):
        return method
    raise _no_message()


def _no_message() -> BadPacketError:
    return BadPacketError(DeadReason.NOT_TEXT, "a payload of protocol type 1 must be a SIP message, was not")


def _known(name: bytes) -> bytes:
    plain = name.strip().lower()
    plain = _COMPACT.get(plain, plain)
    known = plain if plain in _WANTED else _UNWANTED
    if len(_NAMES) < _NAMES_KEPT and len(name) <= 64 and name[:1] not in _BLANK:
        _NAMES[name] = known
    return known


def _tag(value: bytes) -> bytes:
    at = value.rfind(b";tag=")
    tag = value[at + 5 :]
    if at >= 0 and (tag.isalnum() or _PLAIN_TAG(tag)):
        return tag  # nothing behind it: as nearly always
    found = _TAG.search(value, value.rfind(b">") + 1)
    return found.group(1) if found else b""


def address_of(value: bytes) -> str | None:
    """Return the URI of a From, To or P-Asserted-Identity header; None where it names nobody.

    Of several values the first counts. A caller who is withheld (RFC 3323, section 4.1.1.3) is nobody: else all of
    them were one.
    """
    plain = _QUOTED.sub(b"", value) if b'"' in value else value
    uri = plain.partition(b"<")[2].partition(b">")[0] if b"<" in plain else plain.partition(b";")[0].partition(b",")[0]
    text = uri.strip().decode("utf-8", "replace")
    scheme, _, rest = text.partition(":")
    user = rest.partition(";")[0].partition("@")[0] if scheme.lower() in {"sip", "sips", "tel"} else text
    if not user or user.lower() in _NOBODY or rest.lower().partition("@")[2].startswith("anonymous.invalid"):
        return None
    return text


_NOBODY = frozenset({"anonymous", "restricted", "unavailable", "unknown", "withheld", "private"})


class Audio(Struct, frozen=True):
    """The first audio stream of a session description.

    Attributes:
        place: where RTP is wanted: address (4 or 16 bytes) and port (2 bytes); empty where not said.
        codec: RTP encoding name; empty where not known.
        clock_hz: its timestamp clock; 0: nothing is said of how speech is encoded.
    """

    place: bytes
    codec: str
    clock_hz: int


_STATIC = {
    0: ("PCMU", 8_000), 3: ("GSM", 8_000), 4: ("G723", 8_000), 5: ("DVI4", 8_000), 7: ("LPC", 8_000),
    8: ("PCMA", 8_000), 9: ("G722", 8_000), 15: ("G728", 8_000), 18: ("G729", 8_000),
}  # fmt: skip
"""Payload types that need no rtpmap (RFC 3551, table 4)."""

_NOT_SPEECH = frozenset({"telephone-event", "CN", "RED"})
_AUDIO = re.compile(rb"^m=audio ([0-9]{1,5})(?:/[0-9]+)? \S+((?: [0-9]{1,3})+)", re.MULTILINE)
_CONNECTION = re.compile(rb"^c=IN IP[46] ([0-9A-Fa-f.:]{2,45})", re.MULTILINE)
_RTPMAP = re.compile(rb"^a=rtpmap:([0-9]{1,3}) ([A-Za-z0-9._-]{1,32})/([0-9]{1,6})", re.MULTILINE)


@lru_cache(1_024)
def read_audio(body: bytes) -> Audio | None:
    """Read a session description; None where there is no audio in it, or the audio is refused (port 0).

    The codec is the first one listed: in an answer the one that will be used (RFC 3264, section 6.1).
    """
    found = _AUDIO.search(body)
    if found is None or int(found.group(1)) == 0:
        return None
    names = {int(kind): (codec_of(name.decode()) or "", int(clock)) for kind, name, clock in _RTPMAP.findall(body)}
    kinds = [names.get(int(kind), _STATIC.get(int(kind))) for kind in found.group(2).split()]
    codec, clock_hz = next((one for one in kinds if one and one[0] not in _NOT_SPEECH), ("", 0))
    # A connection line of the stream itself overrules that of the session.
    line = _CONNECTION.search(body, found.end()) or _CONNECTION.search(body)
    port = int(found.group(1))
    place = _packed(line.group(1)) if line else b""
    return Audio(place + port.to_bytes(2, "big") if place and port <= 65_535 else b"", codec, clock_hz)


@lru_cache(16_384)
def _packed(text: bytes) -> bytes:
    try:
        return ipaddress.ip_address(text.decode("ascii")).packed
    except ValueError:
        return b""


_CAUSE = re.compile(r"Q\.850\s*;[^,]*?cause\s*=\s*([0-9]{1,3})(?![0-9])", re.IGNORECASE)


def q850_of(reason: str) -> int | None:
    """Return the cause that a Reason header gives in terms of Q.850 (RFC 3326)."""
    found = _CAUSE.search(reason)
    return int(found.group(1)) if found else None


def endpoint_of(agent: bytes, message: Message) -> Agent:
    """Return what a User-Agent or Server says of who sent it, without a version that is an address of this message."""
    said = agent_of(agent.decode("ascii", "replace"))
    if said.firmware is None or said.firmware.count(".") < 3:
        return said
    version = said.firmware.encode()
    others = (value for name, value in message.headers.items() if name not in {b"user-agent", b"server"})
    return Agent(said.model, None) if version in message.body or any(version in one for one in others) else said


_EXPIRES = re.compile(rb"\s*([0-9]{1,7})")


def session_ms(message: Message) -> int | None:
    """Return after how long without a refresh the session is over (RFC 4028); None where no timer is agreed."""
    found = _EXPIRES.match(message.headers.get(b"session-expires", b""))
    return int(found.group(1)) * 1000 if found else None
