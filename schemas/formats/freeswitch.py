"""FreeSWITCH's json_cdr: one JSON object a leg, written when the leg ends.

Taken are objects on one line or printed over several (older versions; a line `{` opens, a line `}` closes), arrays of
them (what a collector or a database exports), and posted forms (`cdr=`, URL-encoded or base64). Values are texts or
numbers, URL-encoded or not (`encode-values`).

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
from urllib.parse import unquote, unquote_to_bytes

from msgspec import Struct, field

from schemas.deadletters import DeadReason
from schemas.events import TIME_MS_MAX
from schemas.formats import RECORD_BYTES_MAX, Line, Options, shape
from schemas.formats.agents import agent_of
from schemas.formats.calls import (
    Call,
    End,
    Parties,
    Value,
    count,
    heard,
    loss_of,
    measure,
    mos_of,
    packets_of,
    q850_of,
    ratio_of,
    released_by,
    span_of,
    status_of,
)
from schemas.formats.identity import Tokens
from schemas.formats.masks import refused
from schemas.formats.memory import remembered
from schemas.formats.names import codec_of, place_of, reason_of
from schemas.formats.records import RECORDS_SINCE_MS, Items, ListReader, Records, converted, untimely
from schemas.formats.rows import Unfit

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "sip_status", "q850", "reason",
    "released_by", "codec", "mos", "loss_ratio", "burst_ratio", "jitter_ms", "packets_received", "packets_sent",
    "cpe_model", "cpe_firmware", "trunk", "sbc",
)  # fmt: skip
LACKS = "No silence before the end and no round-trip time; jitter only where phones send P-RTP-Stat."

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

_PHONE_STAT = re.compile(r"\b(PS|PR|PL|JI)\s*=\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)")


class _Variables(Struct, gc=False):
    uuid: Value = None
    call_uuid: Value = None
    sip_call_id: Value = None
    direction: Value = None
    caller_id_number: Value = None
    destination_number: Value = None
    sip_from_user: Value = None
    sip_to_user: Value = None
    hangup_cause: Value = None
    hangup_cause_q850: Value = None
    last_bridge_hangup_cause: Value = None
    sip_hangup_disposition: Value = None
    sip_term_status: Value = None
    sip_invite_failure_status: Value = None
    proto_specific_hangup_cause: Value = None
    sip_reason: Value = None
    sip_user_agent: Value = None
    sip_gateway_name: Value = None
    sip_gateway: Value = None
    sip_p_rtp_stat: Value = None
    hold_accum_usec: Value = None
    rtp_use_codec_name: Value = None
    read_codec: Value = None
    start_epoch: Value = None
    start_uepoch: Value = None
    answer_epoch: Value = None
    answer_uepoch: Value = None
    end_epoch: Value = None
    end_uepoch: Value = None
    rtp_audio_in_media_packet_count: Value = None
    rtp_audio_in_jitter_loss_rate: Value = None
    rtp_audio_in_jitter_burst_rate: Value = None
    rtp_audio_in_mean_interval: Value = None
    rtp_audio_in_mos: Value = None
    rtp_audio_out_media_packet_count: Value = None


class _Profile(Struct, gc=False):
    caller_id_number: Value = None
    destination_number: Value = None


class _Times(Struct, gc=False):
    created_time: Value = None
    answered_time: Value = None
    hangup_time: Value = None


class _Flow(Struct, gc=False):
    caller_profile: _Profile = field(default_factory=_Profile)
    times: _Times = field(default_factory=_Times)


class _Direction(Struct, gc=False):
    media_packet_count: Value = None
    mean_interval: Value = None
    mos: Value = None


class _Audio(Struct, gc=False):
    inbound: _Direction = field(default_factory=_Direction)
    outbound: _Direction = field(default_factory=_Direction)


class _Stats(Struct, gc=False):
    audio: _Audio = field(default_factory=_Audio)


class _Channel(Struct, gc=False):
    direction: Value = None


class _Cdr(Struct, gc=False):
    variables: _Variables
    switchname: Value = None
    channel_data: _Channel = field(default_factory=_Channel)
    call_stats: _Stats = field(default_factory=_Stats, name="callStats")
    callflow: list[_Flow] | _Flow = field(default_factory=list)
    """Its newest part first; versions before 1.6 write the only one without a list."""


_NO_FLOW = _Flow()
_records = Records(_Cdr)


def open_freeswitch(options: Options) -> "FreeswitchReader":
    """Open one input of json_cdr records.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return FreeswitchReader(options.required_tokens())


class FreeswitchReader(ListReader):
    """One open input of json_cdr records. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self._tokens = tokens
        self._parties = Parties(tokens)
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._begin = 0

    def _record(self, line: Line) -> Items:
        if self.listed:
            return self._converted(line.position, line.data)
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
        cdr = _records.of_json(record if record.startswith(b"{") else _form(record))
        return converted(position, record, [self._event(cdr)])

    def _event(self, cdr: _Cdr) -> Call:
        """Return the event of one leg."""
        flows = [cdr.callflow] if isinstance(cdr.callflow, _Flow) else cdr.callflow
        given, flow = cdr.variables, flows[-1] if flows else _NO_FLOW
        caller = _text(flow.caller_profile.caller_id_number, given.caller_id_number, given.sip_from_user)
        callee = _text(flow.caller_profile.destination_number, given.destination_number, given.sip_to_user)
        gateway = _text(given.sip_gateway_name, given.sip_gateway)
        outbound = _text(cdr.channel_data.direction, given.direction) == "outbound"
        # Behind a gateway there is no customer: such a leg is rather of the party at the other end.
        side = self._parties.leg_side(caller, callee, of_callee=outbound != (gateway is not None))
        call_id = _text(given.call_uuid, given.sip_call_id, given.uuid)
        if call_id is None:
            raise Unfit(DeadReason.MISSING_FIELD, "variables.call_uuid must be present, was absent")
        answer_ms = _time("answer", given.answer_uepoch, given.answer_epoch, flow.times.answered_time)
        hangup_time = flows[0].times.hangup_time if flows else None
        ending = _ending((
            outbound, answer_ms is not None, given.hangup_cause, given.hangup_cause_q850,
            given.last_bridge_hangup_cause, given.sip_hangup_disposition, given.sip_term_status,
            given.sip_invite_failure_status, given.proto_specific_hangup_cause,
        ))  # fmt: skip
        own = (side.direction == "in") == outbound
        agent = agent_of(_text(given.sip_user_agent) if own and gateway is None else None)
        media = _media(cdr, own=own)
        return Call(
            self._tokens.opaque(call_id),
            side.customer_id,
            _needed("start", _time("start", given.start_uepoch, given.start_epoch, flow.times.created_time)),
            _needed("end", _time("end", given.end_uepoch, given.end_epoch, hangup_time)),
            answer_ms,
            side.direction,
            side.peer_id,
            sip_status=ending.status,
            q850=ending.q850,
            reason=reason_of(_text(given.sip_reason)),
            released_by=released_by(side, ending.by),
            codec=codec_of(_text(given.rtp_use_codec_name, given.read_codec)),
            mos=media.mos,
            loss_ratio=media.loss_ratio,
            burst_ratio=media.burst_ratio,
            jitter_ms=media.jitter_ms,
            packets_received=media.received,
            packets_sent=media.sent,
            cpe_model=agent.model,
            cpe_firmware=agent.firmware,
            trunk=None if gateway is None else place_of(self._tokens, gateway),
            sbc=place_of(self._tokens, _text(cdr.switchname)),
        )


def _form(record: bytes) -> bytes:
    """Return what a posted form holds: mod_json_cdr's `encode` is URL-encoding or base64."""
    body = record.strip()
    if not body.startswith(b"cdr="):
        return body
    body = body[4:]
    if body.startswith((b"%7B", b"%7b", b"{")):
        return unquote_to_bytes(body.replace(b"+", b" "))
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Unfit(DeadReason.NOT_JSON, "cdr= must hold a JSON object, URL-encoded or in base64, did not") from None


_unquoted = remembered(unquote)


def _text(*values: Value) -> str | None:
    """Return the first value that says something, decoded where it is URL-encoded."""
    for value in values:
        if value is not None and value != "":
            text = value if isinstance(value, str) else str(value)
            return _unquoted(text) if "%" in text else text
    return None


def _time(name: str, microseconds: Value, seconds: Value, flow_microseconds: Value) -> int | None:
    """Return a time in milliseconds; None where the switch says 0: it did not happen."""
    found, units_ms = microseconds, 1_000
    if found is None or found == "":
        found = flow_microseconds
        if seconds is not None and seconds != "":
            found, units_ms = seconds, 1
    if found is None or found == "":
        return None
    # Most are different: what has digits alone need not be remembered.
    number = int(found) if isinstance(found, str) and found.isdecimal() and len(found) < 18 else count(found)
    if number is None:
        raise Unfit(DeadReason.WRONG_TYPE, f"{name}_uepoch must be a number, was {shape(str(found))}")
    time_ms = number // 1_000 if units_ms == 1_000 else number * 1_000
    if time_ms and not RECORDS_SINCE_MS <= time_ms <= TIME_MS_MAX:
        raise untimely(f"{name}_uepoch")
    return time_ms or None


def _needed(name: str, time_ms: int | None) -> int:
    if time_ms is None:
        raise Unfit(DeadReason.MISSING_FIELD, f"{name}_uepoch must be present, was absent")
    return time_ms


class _Ending(Struct, frozen=True, gc=False):
    """How a leg ended: `status` of BYE once it was answered, of INVITE before; `q850` as the switch derived it."""

    status: int | None
    q850: int | None
    by: End | None


@remembered
def _ending(said: tuple[Value, ...]) -> _Ending:
    """Return how a leg ended, by the variables that say so, in which few words come again and again."""
    outbound, answered, *variables = said
    cause, q850, bridged, disposition, term_status, invite_status, protocol = map(_text, variables)
    status = None if answered else status_of(invite_status)
    if status is None:
        status = status_of(term_status)
    if status is None and protocol is not None:
        status = status_of(protocol.removeprefix("sip:"))
    derived = None if cause is None else _CAUSES.get(cause)
    near: End
    far: End
    near, far = ("callee", "caller") if outbound else ("caller", "callee")
    how, _, what = (disposition or "").partition("_")
    by: End | None
    if how == "recv":
        refused_by = status_of(invite_status) if what == "refuse" else None
        by = "network" if refused_by is not None and 500 <= refused_by <= 599 else near
    elif cause in _OWN or bridged in _OWN:
        by = "network"
    else:
        # The other leg ended first, or its caller gave up: the switch only passed it on.
        by = far if how == "send" and (bridged is not None or what == "cancel") else None
    return _Ending(status, q850_of(q850) if derived is None else derived, by)


class _Media(Struct, gc=False):
    """The media of a leg; fields as in an event."""

    mos: float | None
    loss_ratio: float | None
    burst_ratio: float | None
    jitter_ms: float | None
    received: int | None
    sent: int | None


def _media(cdr: _Cdr, *, own: bool) -> _Media:
    """Return the media of the leg as its customer had them."""
    given, audio = cdr.variables, cdr.call_stats.audio
    came = packets_of(_first(given.rtp_audio_in_media_packet_count, audio.inbound.media_packet_count))
    went = packets_of(_first(given.rtp_audio_out_media_packet_count, audio.outbound.media_packet_count))
    mos = loss = burst = jitter_ms = None
    if measure(_first(given.rtp_audio_in_mean_interval, audio.inbound.mean_interval)) != 0.0:
        mos = mos_of(_first(given.rtp_audio_in_mos, audio.inbound.mos))
        loss = ratio_of(given.rtp_audio_in_jitter_loss_rate)
        burst = measure(given.rtp_audio_in_jitter_burst_rate)
    received, sent = (went, came) if own else (came, went)
    if own and given.sip_p_rtp_stat is not None:
        phone = dict(_PHONE_STAT.findall(str(given.sip_p_rtp_stat)))
        if "PR" in phone:
            received, sent = packets_of(phone["PR"]), packets_of(phone.get("PS", sent))
            loss, jitter_ms = loss_of(phone.get("PL"), received), span_of(phone.get("JI"))
    audible = heard(received, sent, mos)
    on_hold = bool(measure(given.hold_accum_usec))
    return _Media(
        audible.mos,
        None if not on_hold and audible.received == 0 else loss,
        burst if burst is not None and burst >= 1.0 else None,
        jitter_ms,
        None if on_hold else audible.received,
        None if on_hold else audible.sent,
    )


def _first(value: Value, otherwise: Value) -> Value:
    return otherwise if value is None or value == "" else value
