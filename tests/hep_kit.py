"""What the tests of HEP share: packets written by hand, and the telephones whose calls they show."""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import orjson

from schemas.formats import Converted, Options, open_format
from schemas.formats.identity import NumberPlan, Tokens

TOKENS = Tokens(b"0123456789abcdef", NumberPlan(country="44", national_digits=10))
PAYLOAD = 0x0F
MONDAY_MS = 1_767_600_000_000
A, B, PROXY, OTHER = ("192.0.2.10", 5060), ("192.0.2.20", 5062), ("198.51.100.1", 5060), ("192.0.2.30", 5060)


def chunk(kind: int, value: bytes, vendor: int = 0) -> bytes:
    return struct.pack(">HHH", vendor, kind, 6 + len(value)) + value


def framed(chunks: bytes) -> bytes:
    return b"HEP3" + struct.pack(">H", 6 + len(chunks)) + chunks


def payload_at(packet: bytes) -> int:
    """Return where the chunk of a packet's payload begins, which is the last one."""
    at = 6
    while struct.unpack_from(">H", packet, at + 2)[0] != PAYLOAD:
        at += struct.unpack_from(">H", packet, at + 4)[0]
    return at


def reworded(packet: bytes, payload: bytes) -> bytes:
    """Return a packet with another payload, and lengths that are right."""
    return framed(packet[6 : payload_at(packet)] + chunk(PAYLOAD, payload))


def place(kinds: tuple[int, int, int], host: str, port: int) -> bytes:
    address = ip_address(host)
    return chunk(kinds[0 if address.version == 4 else 1], address.packed) + chunk(kinds[2], struct.pack(">H", port))


def hep(
    payload: bytes,
    at_ms: int,
    source: tuple[str, int] = A,
    target: tuple[str, int] = B,
    *,
    protocol: int = 1,
    agent: int = 2001,
    correlation: bytes = b"",
) -> bytes:
    """Wrap a payload as Kamailio's siptrace does."""
    family = 2 if ip_address(source[0]).version == 4 else 10
    return framed(
        chunk(0x01, bytes([family]))
        + chunk(0x02, b"\x11")
        + place((0x03, 0x05, 0x07), *source)
        + place((0x04, 0x06, 0x08), *target)
        + chunk(0x09, struct.pack(">I", at_ms // 1000))
        + chunk(0x0A, struct.pack(">I", at_ms % 1000 * 1000))
        + chunk(0x0B, bytes([protocol]))
        + chunk(0x0C, struct.pack(">I", agent))
        + (chunk(0x11, correlation) if correlation else b"")
        + chunk(PAYLOAD, payload)
    )


def sdp(host: str, port: int, formats: str = "8 101", *lines: str) -> str:
    return "\r\n".join(
        [
            "v=0", f"o=- 1 1 IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0", f"m=audio {port} RTP/AVP {formats}",
            "a=rtpmap:8 PCMA/8000", "a=rtpmap:101 telephone-event/8000", *lines, "",
        ]
    )  # fmt: skip


@dataclass
class Dialog:
    """One call as its packets: `message` gives one, `packets` is all of them in order."""

    call_id: str = "c1@192.0.2.10"
    caller: str = "<sip:02079460001@example.com>"
    callee: str = "<sip:02079460002@example.com>"
    caller_tag: str = "a1"
    callee_tag: str = "b1"
    agent: int = 2001
    packets: list[bytes] = field(default_factory=list)

    def message(
        self,
        at_ms: int,
        what: str,
        *headers: str,
        by_callee: bool = False,
        cseq: int = 1,
        method: str = "",
        hops: int = 1,
        branch: str = "",
        to_tag: str | None = None,
        body: str = "",
        source: tuple[str, int] | None = None,
        target: tuple[str, int] | None = None,
    ) -> bytes:
        """Add a request (`INVITE`) or a response (`200 INVITE`); `by_callee`: the callee sent the request."""
        status, _, answered = what.rpartition(" ")
        method = answered or what
        first = f"SIP/2.0 {status} X" if status else f"{method} sip:x@example.com SIP/2.0"
        began = method in {"INVITE", "CANCEL"} and not status and cseq <= 2 and not by_callee
        far_tag = ("" if began else self.callee_tag) if to_tag is None else to_tag
        near, far = f"{self.caller};tag={self.caller_tag}", self.callee + (f";tag={far_tag}" if far_tag else "")
        top = branch or f"z9hG4bK{cseq}"
        lines = [
            first,
            *(
                f"Via: SIP/2.0/UDP 192.0.2.{99 - hop};branch={top if hop == hops else f'x{hop}'}"
                for hop in range(hops, 0, -1)
            ),
            f"From: {far if by_callee else near}",
            f"To: {near if by_callee else far}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            *headers,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        outward = by_callee == bool(status)
        ends = (A, B) if outward else (B, A)
        packet = hep("\r\n".join(lines).encode(), at_ms, source or ends[0], target or ends[1], agent=self.agent)
        self.packets.append(packet)
        return packet

    def answered(self, at_ms: int, *headers: str, ring_ms: int = 3_000) -> int:
        """Add everything up to the ACK; return when that was."""
        self.message(at_ms, "INVITE", "User-Agent: Acme HT801 1.0.19", body=sdp("192.0.2.10", 4000, "0 8 101"))
        self.message(at_ms + 10, "100 INVITE", to_tag="")
        self.message(at_ms + 200, "180 INVITE")
        answer_ms = at_ms + ring_ms
        self.message(answer_ms, "200 INVITE", "Server: Box/2.1", *headers, body=sdp("192.0.2.20", 6000))
        self.message(answer_ms + 20, "ACK")
        return answer_ms + 20

    def released(self, at_ms: int, *headers: str, by_callee: bool = False, cseq: int = 7) -> None:
        self.message(at_ms, "BYE", *headers, by_callee=by_callee, cseq=cseq)
        self.message(at_ms + 30, "200 BYE", by_callee=by_callee, cseq=cseq)

    def rtcp(self, at_ms: int, report: dict, source: tuple[str, int], target: tuple[str, int]) -> bytes:
        packet = hep(
            orjson.dumps(report), at_ms, source, target, protocol=5, agent=self.agent, correlation=self.call_id.encode()
        )
        self.packets.append(packet)
        return packet

    def data(self) -> bytes:
        return b"".join(self.packets)


def report(
    *,
    sent: int | None = None,
    ntp: tuple[int, int] = (3_900_000_000, 0),
    block: dict | None = None,
    xr: dict | None = None,
) -> dict:
    """Make a report as heplify writes it."""
    sender = {
        "ntp_timestamp_sec": ntp[0],
        "ntp_timestamp_usec": ntp[1],
        "rtp_timestamp": 1,
        "packets": sent,
        "octets": 1,
    }
    empty = dict.fromkeys(sender, 0)
    return {
        "sender_information": empty if sent is None else sender,
        "ssrc": 1,
        "type": 200,
        "report_count": int(block is not None),
        "report_blocks": None if block is None else [block],
        "report_blocks_xr": {"type": 0, "id": 0, "fraction_lost": 0} | (xr or {}),
        "sdes_ssrc": 0,
    }


def read(data: bytes, cuts: tuple[int, ...] = ()) -> list:
    reader = open_format("hep", Options(tokens=TOKENS))
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    items = [item for low, high in itertools.pairwise(edges) for item in reader.feed(data[low:high])]
    return items + reader.finish()


def events(items: list, kind: str = "call") -> list[dict]:
    made = [orjson.loads(item.line) for item in items if isinstance(item, Converted)]
    return [one for one in made if one["type"] == kind]


def letters(items: list) -> list:
    return [item for item in items if not isinstance(item, Converted)]


def keepalive(at_ms: int, agent: int = 2001) -> bytes:
    """A packet of no call: time passes."""
    message = (
        "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP x\r\nFrom: <sip:p>;tag=1\r\nTo: <sip:x>\r\n"
        "Call-ID: k\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    return hep(message.encode(), at_ms, agent=agent)


def time_passes(begin_ms: int, span_ms: int, agent: int = 2001) -> Iterator[bytes]:
    """Packets of no call, half an hour apart."""
    yield from (keepalive(begin_ms + at, agent) for at in range(0, span_ms + 1, 1_800_000))
    yield keepalive(begin_ms + span_ms, agent)


def packet_time_ms(packet: bytes) -> int:
    """Return when a packet says it was seen."""
    at = packet.index(b"\x00\x00\x00\x09\x00\x0a") + 6
    micros = packet.index(b"\x00\x00\x00\x0a\x00\x0a") + 6
    seconds, fraction = (struct.unpack_from(">I", packet, place)[0] for place in (at, micros))
    return seconds * 1000 + fraction // 1000
