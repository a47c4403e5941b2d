"""HEP version 3, the Homer Encapsulation Protocol: what a capture agent saw of one packet, as a list of chunks.

A packet is `HEP3`, its length (two bytes, itself and the name included), and chunks: vendor, type and length (two
bytes each, these six included), then the value; numbers are big-endian. Source: the HEP3 network protocol
specification of the HOMER project (github.com/sipcapture/HEP), and what Kamailio's siptrace and heplify send.
"""

import struct
import zlib
from operator import itemgetter

from msgspec import Struct

from schemas.deadletters import DeadReason

MAGIC = b"HEP3"

HEAD_BYTES = 6
"""Name and length; also vendor, type and length of a chunk."""

CHUNKS_MAX = 64
"""Agents send some fifteen; without a bound a forged packet of empty chunks would cost a thousand honest ones."""

PAYLOAD_BYTES_MAX = 1 << 18
"""What a compressed payload may unpack to: four times the longest packet."""

LAYOUTS_MAX = 4
"""Agents of so many sorts, each with either family of addresses, are read at full speed."""

SIP, RTCP_JSON = 1, 5
"""Protocol types (chunk 0x0b) that are read; logs, statistics and other signalling are counted."""

_V4_FROM, _V4_TO, _V6_FROM, _V6_TO, _PORT_FROM, _PORT_TO = 0x03, 0x04, 0x05, 0x06, 0x07, 0x08
_SECONDS, _MICROSECONDS, _PROTOCOL, _AGENT, _PAYLOAD, _PACKED, _CORRELATION = 0x09, 0x0A, 0x0B, 0x0C, 0x0F, 0x10, 0x11

_LENGTH = struct.Struct(">H").unpack_from
_CHUNK = struct.Struct(">HHH").unpack_from
_FIXED = {
    0x01: "B", 0x02: "B", _V4_FROM: "4s", _V4_TO: "4s", _V6_FROM: "16s", _V6_TO: "16s", _PORT_FROM: "2s",
    _PORT_TO: "2s", _SECONDS: "I", _MICROSECONDS: "I", _PROTOCOL: "B", _AGENT: "I",
}  # fmt: skip
"""Chunks whose size never changes, as `struct` writes them: family and IP protocol too."""

_NEEDED = {_SECONDS, _MICROSECONDS, _PROTOCOL, _AGENT, _PORT_FROM, _PORT_TO}


class Packet(Struct, frozen=True, gc=False):
    """One packet as an agent saw it.

    Attributes:
        protocol: see `SIP`, `RTCP_JSON`.
        at_ms: when it was seen, Unix milliseconds by the agent's clock.
        agent: the agent's number, decimal; empty where it has none.
        source, target: address (4 or 16 bytes) and port (2 bytes); empty where not given.
        payload: the packet itself.
        correlation: what it belongs to, for RTCP the Call-ID; empty where not given.
    """

    protocol: int
    at_ms: int
    agent: str
    source: bytes
    target: bytes
    payload: bytes
    correlation: bytes


class BadPacketError(Exception):
    """The bytes are no packet.

    Attributes:
        reason, detail: as in `schemas.deadletters.Reject`.
    """

    def __init__(self, reason: DeadReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def packet_bytes(data: bytes | bytearray, at: int) -> int:
    """Return how long the packet that begins at `at` says it is; 0 while its head is not whole.

    Raises:
        BadPacketError: it says less than a head.
    """
    if len(data) - at < HEAD_BYTES:
        return 0
    size: int = _LENGTH(data, at + 4)[0]
    if size < HEAD_BYTES:
        raise BadPacketError(DeadReason.NOT_JSON, f"a packet must be at least {HEAD_BYTES} bytes, said {size}")
    return size


class _Layout:
    """The chunks of fixed size with which an agent's packets begin: their heads are compared all at once.

    Args:
        heads: vendor, type and length of each, as they stand in the packet; those of `_NEEDED` among them.
    """

    def __init__(self, heads: list[bytes]) -> None:
        kinds = [_CHUNK(head)[1] for head in heads]
        form = struct.Struct(">" + "".join(f"{HEAD_BYTES}x{_FIXED[kind]}" for kind in kinds))
        at = {kind: index for index, kind in enumerate(kinds)}
        sizes = [struct.calcsize(_FIXED[kind]) for kind in kinds]
        self.size = form.size
        self.count = len(heads)
        # As one number each: what stands between the heads is masked out, and the rest compared.
        known = b"".join(head + bytes(size) for head, size in zip(heads, sizes, strict=True))
        mask = b"".join(b"\xff" * HEAD_BYTES + bytes(size) for size in sizes)
        self._heads, self._mask = int.from_bytes(known, "big"), int.from_bytes(mask, "big")
        self._unpack = form.unpack_from
        source, target = (_V4_FROM, _V4_TO) if _V4_FROM in at else (_V6_FROM, _V6_TO)
        self._values = itemgetter(
            *(at[kind] for kind in (_SECONDS, _MICROSECONDS, _PROTOCOL, _AGENT)),
            *(at[kind] for kind in (source, _PORT_FROM, target, _PORT_TO)),
        )

    def read(self, data: bytes, at: int, end: int) -> Packet | None:
        """Read a packet that is laid out like this; None where it is not."""
        behind = at + self.size
        if behind > end or int.from_bytes(data[at:behind], "big") & self._mask != self._heads:
            return None
        seconds, micros, protocol, agent, source, port, target, port_to = self._values(self._unpack(data, at))
        found = _chunks(data, behind, end, CHUNKS_MAX - self.count)
        payload = found.get(_PAYLOAD)
        return Packet(
            protocol,
            seconds * 1000 + micros // 1000,
            str(agent),
            source + port,
            target + port_to,
            _unpacked(found.get(_PACKED, b"")) if payload is None else payload,
            found.get(_CORRELATION, b""),
        )


class PacketReader:
    """Reads packets. An agent lays out all its packets alike: what the first one taught makes the next ones cheap."""

    def __init__(self) -> None:
        self._layouts: list[_Layout] = []

    def read(self, data: bytes, at: int, end: int) -> Packet:
        """Read the packet that lies at `at` and must end at `end`.

        Raises:
            BadPacketError: it is not whole, its chunks do not fill it, or what every packet must have is missing.
        """
        if end > len(data):
            raise BadPacketError(DeadReason.TRUNCATED, "a packet must be whole, the input ended in it")
        at += HEAD_BYTES
        for layout in self._layouts:
            packet = layout.read(data, at, end)
            if packet is not None:
                return packet
        packet = _packet(_chunks(data, at, end, CHUNKS_MAX))
        heads = _fixed_heads(data, at, end)
        if heads:
            self._layouts = [_Layout(heads), *self._layouts][:LAYOUTS_MAX]
        return packet


def _fixed_heads(data: bytes, at: int, end: int) -> list[bytes]:
    """Return the heads of the leading chunks whose sizes never change; none unless all that is needed is there."""
    heads: list[bytes] = []
    kinds: set[int] = set()
    while at < end:
        vendor, kind, size = _CHUNK(data, at)
        if vendor != 0 or kind in kinds or kind not in _FIXED or size - HEAD_BYTES != struct.calcsize(_FIXED[kind]):
            break
        kinds.add(kind)
        heads.append(data[at : at + HEAD_BYTES])
        at += size
    families = ({_V4_FROM, _V4_TO}, {_V6_FROM, _V6_TO})
    # With both families, or one in halves, which address counts is for the slow way to say.
    plain = [kinds & family for family in families] in ([families[0], set()], [set(), families[1]])
    return heads if plain and kinds >= _NEEDED else []


def _chunks(data: bytes, at: int, end: int, count_max: int) -> dict[int, bytes]:
    """Return the chunks of the common vendor (0) by type, the first of each; those of others are passed over."""
    found: dict[int, bytes] = {}
    for _ in range(count_max):
        if at == end:
            return found
        if end - at < HEAD_BYTES:
            raise BadPacketError(DeadReason.NOT_JSON, "chunks must fill their packet, the last one has no whole head")
        vendor, kind, size = _CHUNK(data, at)
        if size < HEAD_BYTES or at + size > end:
            rule = f"a chunk must be {HEAD_BYTES} bytes or longer and end inside its packet"
            raise BadPacketError(DeadReason.NOT_JSON, f"{rule}, said {size} where {end - at} are left")
        if vendor == 0:
            if kind not in found:
                found[kind] = data[at + HEAD_BYTES : at + size]
        elif data.startswith(MAGIC, at):
            raise BadPacketError(DeadReason.NOT_JSON, "a packet must end where the next one begins, ran on into it")
        at += size
    raise BadPacketError(DeadReason.TOO_LARGE, f"a packet must have fewer than {CHUNKS_MAX} chunks, had more")


def _packet(found: dict[int, bytes]) -> Packet:
    """Make a packet of its chunks."""
    try:
        seconds, micros, protocol = found[_SECONDS], found[_MICROSECONDS], found[_PROTOCOL]
    except KeyError as error:
        detail = f"a packet must have chunk {error.args[0]:#04x} (time or protocol type), had none"
        raise BadPacketError(DeadReason.MISSING_FIELD, detail) from None
    if len(seconds) != 4 or len(micros) != 4 or len(protocol) != 1:
        raise BadPacketError(DeadReason.WRONG_TYPE, "time must be two chunks of 4 bytes, protocol type one of 1 byte")
    agent = found.get(_AGENT, b"")
    payload = found.get(_PAYLOAD)
    return Packet(
        protocol[0],
        int.from_bytes(seconds, "big") * 1000 + int.from_bytes(micros, "big") // 1000,
        str(int.from_bytes(agent[:8], "big")) if agent else "",
        _place(found.get(_V4_FROM, b"") or found.get(_V6_FROM, b""), found.get(_PORT_FROM, b"")),
        _place(found.get(_V4_TO, b"") or found.get(_V6_TO, b""), found.get(_PORT_TO, b"")),
        _unpacked(found.get(_PACKED, b"")) if payload is None else payload,
        found.get(_CORRELATION, b""),
    )


def _place(address: bytes, port: bytes) -> bytes:
    """Return address and port as one key; nothing where either is absent or of a wrong size."""
    return address + port if len(port) == 2 and len(address) in {4, 16} else b""


def _unpacked(data: bytes) -> bytes:
    """Return a payload that was compressed with zlib (RFC 1950) or gzip (RFC 1952)."""
    if not data:
        return b""
    unpacker = zlib.decompressobj(wbits=47)  # tells the two apart by their heads
    try:
        payload = unpacker.decompress(data, PAYLOAD_BYTES_MAX)
    except zlib.error:
        raise BadPacketError(DeadReason.NOT_TEXT, "a compressed payload must decompress, did not") from None
    if unpacker.unconsumed_tail:
        rule = f"a compressed payload must unpack to at most {PAYLOAD_BYTES_MAX} bytes"
        raise BadPacketError(DeadReason.TOO_LARGE, f"{rule}, did not")
    if not unpacker.eof:
        raise BadPacketError(DeadReason.TRUNCATED, "a compressed payload must be whole, was not")
    return payload
