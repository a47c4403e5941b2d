"""FreeSWITCH's json_cdr: one JSON object a leg, written when the leg ends.

Taken are objects on one line or printed over several (older versions; a line `{` opens, a line `}` closes), and posted
forms (`cdr=`, URL-encoded or base64). Values are texts or numbers, URL-encoded or not (`encode-values`).

**Whose leg.** An inbound leg is the caller's, an outbound leg the callee's, unless it leads to a gateway, where no
customer is. Where only the other end is a customer, the leg counts for that one: by default FreeSWITCH writes the
caller's leg alone (`log-b-leg`). Both legs of a call have one `call_id`, so that no customer counts a call twice.

**Who released.** `sip_hangup_disposition` says whether the leg's own party ended it (`recv_*`) or the switch did
(`send_*`): the latter for the other party's sake if that one's leg ended first, or of itself if a timer or a fault
was the cause.

**Causes.** The raw status and the raw `Reason` come first; `q850` is what the switch derived (its own causes are above
127, `switch_types.h`).

**Media.** `rtp_audio_in_*` counts what came from the leg's party, `rtp_audio_out_*` what was sent to it. Where the
phone reports its own counts (`P-RTP-Stat` on BYE), those are taken. `rtp_audio_in_mos` is no E-model value: it is the
share of packets without a flaw, whatever the codec, and 4.5 at most (`switch_rtp.c`). It begins with 4.5 and its loss
with 0: where no interval between packets was measured (`rtp_audio_in_mean_interval` of 0) neither says anything. A
call that was on hold (`hold_accum_usec`) has silence by intention, so its counts are no sign of one-way audio.
"""

import base64
import binascii
import re
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct, field

from schemas.deadletters import DeadReason
from schemas.formats import RECORD_BYTES_MAX, Line, Options, Tokens, shape
from schemas.formats.calls import (
    Heard,
    agent_of,
    codec_of,
    count,
    heard,
    leg_side,
    loss_of,
    measure,
    mos_of,
    place_of,
    present,
    q850_of,
    ratio_of,
    reason_of,
    released_by,
    span_of,
    status_of,
)
from schemas.formats.masks import refused
from schemas.formats.records import Event, Items, LineReader, converted, decoded
from schemas.formats.rows import Unfit

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "sip_status", "q850", "reason",
    "released_by", "codec", "mos", "loss_ratio", "burst_ratio", "jitter_ms", "packets_received", "packets_sent",
    "cpe_model", "cpe_firmware", "trunk", "sbc",
)  # fmt: skip
LACKS = "No silence before the end and no round-trip time; jitter only where phones send P-RTP-Stat."

_Value = str | int | float | None

_CAUSES = {
    "UNALLOCATED_NUMBER": 1, "NO_ROUTE_TRANSIT_NET": 2, "NO_ROUTE_DESTINATION": 3, "CHANNEL_UNACCEPTABLE": 6,
    "NORMAL_CLEARING": 16, "USER_BUSY": 17, "NO_USER_RESPONSE": 18, "NO_ANSWER": 19, "SUBSCRIBER_ABSENT": 20,
    "CALL_REJECTED": 21, "NUMBER_CHANGED": 22, "EXCHANGE_ROUTING_ERROR": 25, "DESTINATION_OUT_OF_ORDER": 27,
    "INVALID_NUMBER_FORMAT": 28, "FACILITY_REJECTED": 29, "NORMAL_UNSPECIFIED": 31, "NORMAL_CIRCUIT_CONGESTION": 34,
    "NETWORK_OUT_OF_ORDER": 38, "NORMAL_TEMPORARY_FAILURE": 41, "SWITCH_CONGESTION": 42, "REQUESTED_CHAN_UNAVAIL":
    44, "OUTGOING_CALL_BARRED": 52, "INCOMING_CALL_BARRED": 54, "BEARERCAPABILITY_NOTAVAIL": 58,
    "SERVICE_UNAVAILABLE": 63, "INCOMPATIBLE_DESTINATION": 88, "RECOVERY_ON_TIMER_EXPIRE": 102, "INTERWORKING": 127,
    "SUCCESS": 142, "ORIGINATOR_CANCEL": 487, "CRASH": 700, "SYSTEM_SHUTDOWN": 701, "LOSE_RACE": 702,
    "MANAGER_REQUEST": 703, "BLIND_TRANSFER": 800, "ATTENDED_TRANSFER": 801, "ALLOTTED_TIMEOUT": 802,
    "USER_CHALLENGE": 803, "MEDIA_TIMEOUT": 804, "PICKED_OFF": 805, "USER_NOT_REGISTERED": 806, "PROGRESS_TIMEOUT":
    807, "INVALID_GATEWAY": 808, "GATEWAY_DOWN": 809, "INVALID_URL": 810, "INVALID_PROFILE": 811, "NO_PICKUP": 812,
    "SRTP_READ_ERROR": 813, "BOWOUT": 814, "BUSY_EVERYWHERE": 815, "DECLINE": 816, "DOES_NOT_EXIST_ANYWHERE": 817,
    "NOT_ACCEPTABLE": 818, "UNWANTED": 819, "NO_IDENTITY": 820, "BAD_IDENTITY_INFO": 821, "UNSUPPORTED_CERTIFICATE":
    822, "INVALID_IDENTITY": 823, "STALE_DATE": 824, "REJECT_ALL": 825,
}  # fmt: skip
"""Of switch_types.h; a cause that is not here is taken from `hangup_cause_q850`, which knows no codes above 127."""

_OWN = frozenset({
    "MEDIA_TIMEOUT", "SRTP_READ_ERROR", "CRASH", "SYSTEM_SHUTDOWN", "MANAGER_REQUEST", "ALLOTTED_TIMEOUT",
    "PROGRESS_TIMEOUT", "RECOVERY_ON_TIMER_EXPIRE", "GATEWAY_DOWN", "INVALID_GATEWAY", "NETWORK_OUT_OF_ORDER",
})  # fmt: skip
"""Causes for which the switch ends a leg of itself."""

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_PHONE_STAT = re.compile(r"\b(PS|PR|PL|JI)\s*=\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)")


class _Variables(Struct, gc=False):
    uuid: _Value = None
    call_uuid: _Value = None
    sip_call_id: _Value = None
    direction: _Value = None
    caller_id_number: _Value = None
    destination_number: _Value = None
    sip_from_user: _Value = None
    sip_to_user: _Value = None
    hangup_cause: _Value = None
    hangup_cause_q850: _Value = None
    last_bridge_hangup_cause: _Value = None
    sip_hangup_disposition: _Value = None
    sip_term_status: _Value = None
    sip_invite_failure_status: _Value = None
    proto_specific_hangup_cause: _Value = None
    sip_reason: _Value = None
    sip_user_agent: _Value = None
    sip_gateway_name: _Value = None
    sip_gateway: _Value = None
    sip_p_rtp_stat: _Value = None
    hold_accum_usec: _Value = None
    rtp_use_codec_name: _Value = None
    read_codec: _Value = None
    start_epoch: _Value = None
    start_uepoch: _Value = None
    answer_epoch: _Value = None
    answer_uepoch: _Value = None
    end_epoch: _Value = None
    end_uepoch: _Value = None
    rtp_audio_in_media_packet_count: _Value = None
    rtp_audio_in_jitter_loss_rate: _Value = None
    rtp_audio_in_jitter_burst_rate: _Value = None
    rtp_audio_in_mean_interval: _Value = None
    rtp_audio_in_mos: _Value = None
    rtp_audio_out_media_packet_count: _Value = None


class _Profile(Struct, gc=False):
    caller_id_number: _Value = None
    destination_number: _Value = None


class _Times(Struct, gc=False):
    created_time: _Value = None
    answered_time: _Value = None
    hangup_time: _Value = None


class _Flow(Struct, gc=False):
    caller_profile: _Profile = field(default_factory=_Profile)
    times: _Times = field(default_factory=_Times)


class _Direction(Struct, gc=False):
    media_packet_count: _Value = None
    mean_interval: _Value = None
    mos: _Value = None


class _Audio(Struct, gc=False):
    inbound: _Direction = field(default_factory=_Direction)
    outbound: _Direction = field(default_factory=_Direction)


class _Stats(Struct, gc=False):
    audio: _Audio = field(default_factory=_Audio)


class _Channel(Struct, gc=False):
    direction: _Value = None


class _Cdr(Struct, gc=False):
    variables: _Variables
    switchname: _Value = None
    channel_data: _Channel = field(default_factory=_Channel)
    call_stats: _Stats = field(default_factory=_Stats, name="callStats")
    callflow: list[_Flow] = field(default_factory=list)


_decoder = msgspec.json.Decoder(_Cdr)


def open_freeswitch(options: Options) -> "FreeswitchReader":
    """Open one input of json_cdr records.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return FreeswitchReader(options.required_tokens())


class FreeswitchReader(LineReader):
    """One open input of json_cdr records. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self._tokens = tokens
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._begin = 0

    def _record(self, line: Line) -> Items:
        if self._held and line.data[:1] in (b"\t", b" ", b"}"):
            return self._inside(line)
        if self._held:
            # Inside a printed object every line is indented: this one belongs to the next record.
            return [*self._rest(), *self._take(line)]
        if line.data == b"{":
            self._held, self._held_bytes, self._begin = [line.data], len(line.data), line.position
            return []
        return self._converted(line.position, line.data)

    def _inside(self, line: Line) -> Items:
        """Take a line of an object that is printed over several."""
        self._held.append(line.data)
        self._held_bytes += len(line.data) + 1
        if self._held_bytes > RECORD_BYTES_MAX:
            return list(self._rest())
        if line.data != b"}":
            return []
        record, begin = b"\n".join(self._held), self._begin
        self._held = []
        try:
            return self._converted(begin, record)
        except Unfit as unfit:
            return [refused(begin, unfit.reason, unfit.detail, record)]

    def _rest(self) -> Items:
        """Give up an object that never closed; its first line stands for it."""
        if not self._held:
            return []
        record, self._held = self._held[0], []
        return [
            refused(self._begin, DeadReason.TRUNCATED, "an object must close with a line of its own, did not", record)
        ]

    def _converted(self, position: int, record: bytes) -> Items:
        data = record if record[:1] == b"{" else _form(record)
        try:
            cdr = _decoder.decode(data)
        except msgspec.ValidationError as error:
            rule = str(error).partition(" - at ")
            missing = rule[0].startswith("Object missing required field")
            reason = DeadReason.MISSING_FIELD if missing else DeadReason.WRONG_TYPE
            raise Unfit(reason, f"a record must be a json_cdr object: {rule[0]} at {rule[2] or 'its top'}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            decoded(data)
            raise Unfit(DeadReason.NOT_JSON, "a record must be one JSON object, was not") from None
        return list(converted(position, record, [_event(cdr, self._tokens)]))


def _form(record: bytes) -> bytes:
    """Return what a posted form holds: mod_json_cdr's `encode` is URL-encoding or base64."""
    body = record.strip()
    if not body.startswith(b"cdr="):
        return body
    body = body[4:]
    if body.startswith((b"%7B", b"%7b", b"{")):
        return _plain(body.replace(b"+", b" "))
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Unfit(DeadReason.NOT_JSON, "cdr= must hold a JSON object, URL-encoded or in base64, did not") from None


def _event(cdr: _Cdr, tokens: Tokens) -> Event:
    """Return the event of one leg."""
    given = cdr.variables
    flow = cdr.callflow[-1] if cdr.callflow else _Flow()
    caller = _text(flow.caller_profile.caller_id_number, given.caller_id_number, given.sip_from_user)
    callee = _text(flow.caller_profile.destination_number, given.destination_number, given.sip_to_user)
    gateway = _text(given.sip_gateway_name, given.sip_gateway)
    outbound = _text(cdr.channel_data.direction, given.direction) == "outbound"
    # Behind a gateway there is no customer: such a leg is rather of the party at the other end.
    side = leg_side(tokens, caller, callee, of_callee=outbound != (gateway is not None))
    start_ms = _time("start", given.start_uepoch, given.start_epoch, flow.times.created_time)
    answer_ms = _time("answer", given.answer_uepoch, given.answer_epoch, flow.times.answered_time)
    end_ms = _time(
        "end", given.end_uepoch, given.end_epoch, cdr.callflow[0].times.hangup_time if cdr.callflow else None
    )
    own = (side.direction == "in") == outbound
    agent = agent_of(_text(given.sip_user_agent) if own and gateway is None else None)
    cause = _text(given.hangup_cause)
    call_id = _text(given.call_uuid, given.sip_call_id, given.uuid)
    if call_id is None:
        raise Unfit(DeadReason.MISSING_FIELD, "variables.call_uuid must be present, was absent")
    return present({
        "type": "call",
        "call_id": tokens.opaque(call_id),
        "customer_id": side.customer_id,
        "peer_id": side.peer_id,
        "direction": side.direction,
        "start_ms": start_ms,
        "answer_ms": answer_ms,
        "end_ms": end_ms,
        "sip_status": _status(given, answered=answer_ms is not None),
        "q850": _CAUSES.get(str(cause), q850_of(_text(given.hangup_cause_q850))),
        "reason": reason_of(_text(given.sip_reason)),
        "released_by": released_by(side, _cleared(given, cause, outbound=outbound)),
        "codec": codec_of(_text(given.rtp_use_codec_name, given.read_codec)),
        **_media(cdr, own=own),
        "cpe_model": agent.model,
        "cpe_firmware": agent.firmware,
        "trunk": place_of(tokens, gateway),
        "sbc": place_of(tokens, _text(cdr.switchname)),
    })  # fmt: skip


@lru_cache(4_096)
def _unquoted(text: str) -> str:
    return _plain(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")


def _plain(encoded: bytes) -> bytes:
    """Undo URL-encoding (RFC 3986, section 2.1); a `%` that is none stays."""
    return _ESCAPE.sub(lambda found: bytes.fromhex(found.group(1).decode("ascii")), encoded)


def _text(*values: _Value) -> str | None:
    """Return the first value that says something, decoded where it is URL-encoded."""
    for value in values:
        if value is not None and value != "":
            text = value if isinstance(value, str) else str(value)
            return _unquoted(text) if "%" in text else text
    return None


def _time(name: str, microseconds: _Value, seconds: _Value, flow_microseconds: _Value) -> int | None:
    """Return a time in milliseconds; None where the switch says 0: it did not happen."""
    for value, in_seconds in ((microseconds, False), (seconds, True), (flow_microseconds, False)):
        if value is None or value == "":
            continue
        number = count(value)
        if number is None:
            raise Unfit(DeadReason.WRONG_TYPE, f"{name}_uepoch must be a number, was {shape(str(value))}")
        return (number * 1000 if in_seconds else number // 1000) or None
    return None


def _status(given: _Variables, *, answered: bool) -> int | None:
    """Return the status that decided the leg: of BYE once it was answered, of INVITE before."""
    status = None if answered else status_of(given.sip_invite_failure_status)
    if status is None:
        status = status_of(given.sip_term_status)
    if status is None:
        status = status_of((_text(given.proto_specific_hangup_cause) or "").removeprefix("sip:"))
    return status


def _cleared(given: _Variables, cause: str | None, *, outbound: bool) -> str | None:
    near, far = ("callee", "caller") if outbound else ("caller", "callee")
    how, _, what = (_text(given.sip_hangup_disposition) or "").partition("_")
    bridged = _text(given.last_bridge_hangup_cause)
    if how == "recv":
        status = status_of(given.sip_invite_failure_status) if what == "refuse" else None
        return "network" if status is not None and 500 <= status <= 599 else near
    if cause in _OWN or bridged in _OWN:
        return "network"
    # The other leg ended first, or its caller gave up: the switch only passed it on.
    return far if how == "send" and (bridged is not None or what == "cancel") else None


def _media(cdr: _Cdr, *, own: bool) -> dict[str, Any]:
    """Return the media of the leg as its customer had them."""
    given, audio = cdr.variables, cdr.call_stats.audio
    came = count(_first(given.rtp_audio_in_media_packet_count, audio.inbound.media_packet_count))
    went = count(_first(given.rtp_audio_out_media_packet_count, audio.outbound.media_packet_count))
    mos = loss = burst = jitter_ms = None
    if measure(_first(given.rtp_audio_in_mean_interval, audio.inbound.mean_interval)) != 0.0:
        mos = mos_of(_first(given.rtp_audio_in_mos, audio.inbound.mos))
        loss = ratio_of(given.rtp_audio_in_jitter_loss_rate)
        burst = measure(given.rtp_audio_in_jitter_burst_rate)
    received, sent = (went, came) if own else (came, went)
    phone = {} if not own or given.sip_p_rtp_stat is None else dict(_PHONE_STAT.findall(str(given.sip_p_rtp_stat)))
    if "PR" in phone:
        received, sent = count(phone["PR"]), count(phone.get("PS", sent))
        loss, jitter_ms = loss_of(phone.get("PL"), received), span_of(phone.get("JI"))
    audible = heard(received, sent, mos)
    if measure(given.hold_accum_usec):
        audible = Heard(None, None, audible.mos)
    return {
        "mos": audible.mos,
        "loss_ratio": None if audible.received == 0 else loss,
        "burst_ratio": burst if burst is not None and burst >= 1.0 else None,
        "jitter_ms": jitter_ms,
        "packets_received": audible.received,
        "packets_sent": audible.sent,
    }


def _first(*values: _Value) -> _Value:
    return next((value for value in values if value is not None and value != ""), None)
