"""What the two ends of a call report of the sound: RTCP (RFC 3550) and RTCP XR (RFC 3611) as capture agents' JSON.

Of a report, the sender's own count says what it sent, its report block what it *hears* of the other end. So loss and
jitter in a block belong to the side that sent the report.

Field names are those of heplify, captagent and rtpengine: `sender_information` (`ntp_timestamp_sec` and
`ntp_timestamp_usec` are the two words of the NTP time, `packets`), `report_blocks` (`fraction_lost`, `packets_lost`,
`ia_jitter`, `lsr`, `dlsr`), `report_blocks_xr` (`type` 7: VoIP metrics).
"""

import zlib
from typing import Any

import orjson
from msgspec import Struct, field

from schemas.deadletters import DeadReason
from schemas.formats.hep.packets import BadPacketError

FRACTION = 256.0
"""Loss and discards are parts of 256 (RFC 3550, section 6.4.1; RFC 3611, section 4.7.1)."""

SHORT_UNITS_PER_MS = 65.536
"""`dlsr` counts 1/65536 s (RFC 3550, section 6.4.1)."""

VOIP_METRICS = 7
"""Block type of RFC 3611, section 4.7."""

RTT_MS_MAX = 60_000
"""A longer round trip is a clock that was set."""

JITTER_MS_MAX = 10_000.0
"""More jitter than that is none: no packet is played so late. Encrypted RTCP read as if it were plain gives hours."""

COUNT_32 = 1 << 32

COPIES_KEPT = 8
"""So many reports are remembered by their digest: a second probe sends the same ones, seconds later at most."""

DEAF_REPORTS_MIN, DEAF_MS_MIN = 2, 8_000
"""From so many reports over so long that name no source it is concluded that nothing is heard: reports come every 5 s,
and the first one may precede the first packet (RFC 3550, section 6.2)."""


class Report(Struct, frozen=True, gc=False):
    """One RTCP packet. What it does not say is None.

    Attributes:
        digest: tells a copy from the next report.
        sent_packets: what its sender has sent so far.
        sent_mid: middle half of the NTP time of its sender report, by which the other end refers to it.
        hears: it has a report block: its sender received something since its last report.
        loss_ratio, discard_ratio: of what its sender should have received since its last report.
        lost_packets: since the beginning.
        jitter_units: in units of the RTP clock.
        heard_mid, held_ms: of the other end's sender report: its `sent_mid`, and how long before this report it came.
        rtt_ms: as the endpoint measured it (RFC 3611).
    """

    digest: int
    sent_packets: int | None
    sent_mid: int
    hears: bool
    loss_ratio: float | None
    discard_ratio: float | None
    lost_packets: int | None
    jitter_units: int | None
    heard_mid: int
    held_ms: float
    rtt_ms: int | None


class Ear(Struct, gc=False):
    """What one side of a call reported up to now. Everything is what this side hears, except `sent_packets`."""

    reports: int = 0
    hearing: int = 0
    first_ms: int = 0
    last_ms: int = 0
    weight_ms: int = 0
    loss_weighted: float = 0.0
    discard_weighted: float | None = None
    jitter_weighted: float = 0.0
    lost_packets: int | None = None
    sent_packets: int | None = None
    sent_mid: int = 0
    sent_at_ms: int = 0
    half_rtt_ms: float | None = None
    rtt_ms: float | None = None
    digests: list[int] = field(default_factory=list)

    def known(self, report: Report) -> bool:
        """Tell whether this is a copy of a recent report; remember it."""
        if report.digest in self.digests:
            return True
        self.digests = [*self.digests[1 - COPIES_KEPT :], report.digest]
        return False

    def take(self, report: Report, other: "Ear", at_ms: int, interval_ms: int, clock_hz: int) -> dict[str, Any]:
        """Add one report; return what a `media` event says of it."""
        self.first_ms = self.first_ms if self.reports else at_ms
        self.reports, self.last_ms = self.reports + 1, max(self.last_ms, at_ms)
        if report.sent_packets is not None:
            self.sent_packets = max(self.sent_packets or 0, report.sent_packets)
            self.sent_mid, self.sent_at_ms = report.sent_mid, at_ms
        if report.rtt_ms is not None:
            self.rtt_ms = float(report.rtt_ms)
        elif report.heard_mid and report.heard_mid == other.sent_mid:
            # From the probe to this side and back; with the other half, the way from end to end and back.
            half_ms = at_ms - other.sent_at_ms - report.held_ms
            self.half_rtt_ms = half_ms if 0.0 <= half_ms <= RTT_MS_MAX else self.half_rtt_ms
        said: dict[str, Any] = {"rtt_ms": round_trip_ms(self, other)}
        if report.hears and report.loss_ratio is not None:
            said |= self._heard(report, max(interval_ms, 1), clock_hz)
        return {name: value for name, value in said.items() if value is not None}

    def _heard(self, report: Report, interval_ms: int, clock_hz: int) -> dict[str, Any]:
        loss_ratio = report.loss_ratio or 0.0
        jitter_ms = None if report.jitter_units is None else report.jitter_units * 1000.0 / clock_hz
        jitter_ms = None if jitter_ms is None or jitter_ms > JITTER_MS_MAX else jitter_ms
        self.hearing += 1
        self.weight_ms += interval_ms
        self.loss_weighted += loss_ratio * interval_ms
        self.jitter_weighted += (jitter_ms or 0.0) * interval_ms
        if report.discard_ratio is not None:
            self.discard_weighted = (self.discard_weighted or 0.0) + report.discard_ratio * interval_ms
        if report.lost_packets is not None:
            self.lost_packets = report.lost_packets
        return {
            "loss_ratio": loss_ratio,
            "discard_ratio": report.discard_ratio,
            "jitter_ms": None if jitter_ms is None else round(jitter_ms, 3),
        }

    def summary(self, other: "Ear") -> dict[str, Any]:
        """Return what a `call` event says of the media; None: not known."""
        said: dict[str, Any] = {"rtt_ms": round_trip_ms(self, other), "packets_sent": self.sent_packets}
        if self.weight_ms:
            said["loss_ratio"] = round(self.loss_weighted / self.weight_ms, 6)
            said["jitter_ms"] = round(self.jitter_weighted / self.weight_ms, 3)
            if self.discard_weighted is not None:
                said["discard_ratio"] = round(min(self.discard_weighted / self.weight_ms, 1.0), 6)
        if self.hearing and other.sent_packets is not None and self.lost_packets is not None:
            said["packets_received"] = max(other.sent_packets - self.lost_packets, 0)
        elif self._is_deaf():
            said["packets_received"] = 0
        return said

    def _is_deaf(self) -> bool:
        return not self.hearing and self.reports >= DEAF_REPORTS_MIN and self.last_ms - self.first_ms >= DEAF_MS_MIN


def round_trip_ms(one: Ear, other: Ear) -> float | None:
    """Return the round trip from end to end: as an end measured it, else over the probe's two halves."""
    for ear in (one, other):
        if ear.rtt_ms is not None:
            return ear.rtt_ms
    if one.half_rtt_ms is None or other.half_rtt_ms is None:
        return None
    return round(one.half_rtt_ms + other.half_rtt_ms, 1)


def read_report(payload: bytes) -> Report:
    """Read one report.

    Raises:
        BadPacketError: it is not JSON, or no object.
    """
    try:
        said = orjson.loads(payload)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise BadPacketError(DeadReason.NOT_JSON, "a payload of protocol type 5 must be a JSON object, was not")
    sender = _object(said.get("sender_information"))
    block = _object(said.get("report_blocks"))
    metrics = _object(said.get("report_blocks_xr"))
    metrics = metrics if metrics.get("type") == VOIP_METRICS else {}
    seconds = _count(sender, "ntp_timestamp_sec")
    fraction = _count(sender, "ntp_timestamp_usec")
    # An agent that found no sender report fills in zeros.
    is_sender = bool(seconds or _count(sender, "packets"))
    loss = _count(metrics or block, "fraction_lost")
    discard = _count(metrics, "fraction_discard")
    return Report(
        digest=zlib.crc32(payload),
        sent_packets=_count(sender, "packets") if is_sender else None,
        sent_mid=((seconds or 0) & 0xFFFF) << 16 | (fraction or 0) >> 16,
        hears=bool(metrics) or _names_a_source(block),
        loss_ratio=None if loss is None else min(loss / FRACTION, 1.0),
        discard_ratio=None if discard is None else min(discard / FRACTION, 1.0),
        lost_packets=_lost(block),
        jitter_units=_count(block, "ia_jitter"),
        heard_mid=_count(block, "lsr") or 0,
        held_ms=(_count(block, "dlsr") or 0) / SHORT_UNITS_PER_MS,
        rtt_ms=_round_trip(metrics),
    )


def _object(given: Any) -> dict[str, Any]:
    """Return an object, or the first one of a list; empty where there is none."""
    if isinstance(given, list) and given:
        given = given[0]
    return given if isinstance(given, dict) else {}


def _names_a_source(block: dict[str, Any]) -> bool:
    """Tell whether a report block is about a stream: some endpoints send one full of zeros while they hear nothing."""
    return bool(block) and (block.get("source_ssrc") != 0 or block.get("highest_seq_no", 0) != 0)


def _count(given: dict[str, Any], name: str) -> int | None:
    value = given.get(name)
    return value if type(value) is int and 0 <= value < COUNT_32 else None


def _lost(block: dict[str, Any]) -> int | None:
    """Return the packets lost in all: a signed number of 24 bits, which agents pass on as unsigned."""
    lost = _count(block, "packets_lost")
    if lost is None or lost >= 1 << 24:
        return None
    return lost - (1 << 24) if lost >= 1 << 23 else lost


def _round_trip(metrics: dict[str, Any]) -> int | None:
    value = _count(metrics, "round_trip_delay")
    # Zero: the endpoint has not measured it yet (RFC 3611, section 4.7.3).
    return value if value and value <= RTT_MS_MAX else None
