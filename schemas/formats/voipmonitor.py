"""VoIPmonitor's `cdr` table, exported as CSV under a header or as JSON lines, or the array that its API answers with.

The sniffer sees both ends of a call: `a_*` is the stream that the caller sent, `b_*` the one that the callee sent. So
the caller receives b, and the silence that the caller heard at the end is b's `last_rtp_from_end`.

**Who released.** `whohanged`, unless `bye` says that the sniffer ended the call itself (102..107): there was no BYE.

**Causes.** `lastSIPresponseNum` is raw; `reason_sip_cause` and `reason_q850_cause` are the causes of the `Reason`
header, whose texts stand in another table. `bye` 104 is VoIPmonitor's finding that RTP stopped: it is given as a
`Reason` of its own. `bye` 1 (answered, no BYE seen) says nothing of how the call ended.

**Media.** MOS is the lowest of both streams' scores with a fixed 50 ms buffer (`mos_f1`), else 200 ms (`mos_f2`), else
adaptive; `*_mult10` and the like are what their name says.

`calldate` and `callend` are local to the database: `input.timezone`.
"""

from msgspec import Struct, field

from schemas.deadletters import DeadReason
from schemas.errors import InputError
from schemas.formats import Line, Options
from schemas.formats.agents import agent_of
from schemas.formats.calls import (
    PAYLOADS,
    SPAN_MS_MAX,
    Call,
    End,
    Parties,
    Value,
    count,
    heard,
    loss_of,
    lower,
    measured,
    packets_of,
    q850_of,
    released_by,
    status_of,
    worse,
)
from schemas.formats.identity import Tokens
from schemas.formats.memory import remembered
from schemas.formats.names import place_of
from schemas.formats.records import Items, ListReader, Records, converted, csv_row, delimiter_of, span_ms, time_of
from schemas.formats.rows import Unfit
from schemas.formats.times import TimeReader

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "sip_status", "q850", "reason",
    "released_by", "codec", "mos", "loss_ratio", "jitter_ms", "rtt_ms", "packets_received", "packets_sent",
    "silence_ms", "cpe_model", "cpe_firmware", "probe_id",
)  # fmt: skip
LACKS = (
    "No trunk, and the texts of Reason are in another table; the SIP Call-ID (fbasename) is in cdr_next: without it in "
    "the export a call of two sniffers counts twice. Without customers_file a call is the caller's alone."
)

_NULLS = frozenset({None, "", "\\N", "NULL", "null"})
_RTP_STOPPED = 104
_NO_BYE = frozenset({102, 103, 104, 105, 107})
"""`bye` where the sniffer ended the call because nothing came any more."""


_ENDS: dict[Value, End] = {"caller": "caller", "callee": "callee"}

_mos_tenths = measured(1.0, 5.0, 0.1)
_ms_tenths = measured(high=SPAN_MS_MAX, factor=0.1)
_percent_thousandths = measured(high=1.0, factor=1e-5)
_seconds = measured(factor=1000.0)


class _Row(Struct, gc=False):
    """What is taken of a call."""

    calldate: Value = None
    callend: Value = None
    duration: Value = None
    connect_duration: Value = None
    caller: Value = None
    called: Value = None
    whohanged: Value = None
    bye: Value = None
    last_response: Value = field(default=None, name="lastSIPresponseNum")
    reason_sip_cause: Value = None
    reason_q850_cause: Value = None
    id_sensor: Value = None
    sensor: Value = None
    number: Value = field(default=None, name="ID")
    id: Value = None
    fbasename: Value = None
    callid: Value = None
    call_id: Value = None
    payload: Value = None
    a_ua: Value = None
    a_payload: Value = None
    a_received: Value = None
    a_lost: Value = None
    a_packet_loss_perc_mult1000: Value = None
    a_avgjitter_mult10: Value = None
    a_mos_f1_mult10: Value = None
    a_mos_f2_mult10: Value = None
    a_mos_adapt_mult10: Value = None
    a_rtcp_avgrtd_mult10: Value = None
    a_last_rtp_from_end: Value = None
    b_ua: Value = None
    b_payload: Value = None
    b_received: Value = None
    b_lost: Value = None
    b_packet_loss_perc_mult1000: Value = None
    b_avgjitter_mult10: Value = None
    b_mos_f1_mult10: Value = None
    b_mos_f2_mult10: Value = None
    b_mos_adapt_mult10: Value = None
    b_rtcp_avgrtd_mult10: Value = None
    b_last_rtp_from_end: Value = None


class _Stream(Struct, gc=False):
    """What one end sent, as it was measured."""

    agent: Value
    payload: Value
    packets: int | None
    mos: float | None
    loss: float | None
    silence_ms: float | None


def open_voipmonitor(options: Options) -> "VoipmonitorReader":
    """Open one export of the `cdr` table.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return VoipmonitorReader(options.required_tokens(), options.timezone)


class VoipmonitorReader(ListReader):
    """One open export. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens, timezone: str) -> None:
        super().__init__()
        self._tokens = tokens
        self._parties = Parties(tokens)
        self._times = TimeReader(("iso",), timezone, day_first=None)
        self._rows = Records(_Row)
        self._names: list[str] = []
        self._delimiter = ","
        self._objects = False
        """Lines are objects: no header is awaited."""

    def _record(self, line: Line) -> Items:
        if line.data.lstrip().startswith(b"{") or self.listed:
            self._objects = True
            return converted(line.position, line.data, self._events(self._rows.of_json(line.data)))
        if self._objects:
            raise Unfit(DeadReason.NOT_JSON, "a line among JSON objects must be one, was not")
        if not self._names:
            self._header(line)
            return []
        cells = csv_row(line.data, self._delimiter)
        if cells == self._names:
            return []
        return converted(line.position, line.data, self._events(self._rows.of_row(cells)))

    def _header(self, line: Line) -> None:
        self._delimiter = delimiter_of(line.data)
        try:
            names = [cell.strip() for cell in csv_row(line.data, self._delimiter)]
        except Unfit as unfit:
            raise InputError(f"line {line.position}: the first row must name the columns: {unfit.detail}") from None
        if not {"calldate", "caller", "called"}.issubset(names) or len(set(names)) != len(names):
            rule = "the first row must name the columns of VoIPmonitor's cdr table, each once"
            raise InputError(f"line {line.position}: {rule}, did not")
        self._names = names
        self._rows.named(names)

    def _events(self, row: _Row) -> list[Call]:
        """Return the events of one call."""
        start_ms, answer_ms, end_ms = self._span(row)
        ending = _ending((row.whohanged, row.bye, row.last_response, row.reason_sip_cause, row.reason_q850_cause))
        caller, callee = _said(row.caller), _said(row.called)
        name = _first(row.fbasename, row.callid, row.call_id)
        if name is None:
            name = f"{_said(row.id_sensor)}-{_first(row.number, row.id)}-{start_ms}-{caller}"
        call_id, probe = self._tokens.opaque(name), _first(row.id_sensor, row.sensor)
        trip_ms = worse(_ms_tenths(row.a_rtcp_avgrtd_mult10), _ms_tenths(row.b_rtcp_avgrtd_mult10))
        jitter_ms = worse(_ms_tenths(row.a_avgjitter_mult10), _ms_tenths(row.b_avgjitter_mult10))
        a, b = _streams(row)
        events = []
        for side in self._parties.sides(caller, callee):
            own, far = (a, b) if side.direction == "out" else (b, a)
            audible = heard(far.packets, own.packets, lower(own.mos, far.mos))
            agent = agent_of(_said(own.agent))
            events.append(Call(
                call_id,
                side.customer_id,
                start_ms,
                end_ms,
                answer_ms,
                side.direction,
                side.peer_id,
                sip_status=ending.status,
                q850=ending.q850,
                reason=ending.reason,
                released_by=released_by(side, ending.by),
                codec=_codec(own.payload, far.payload, row.payload),
                mos=audible.mos,
                loss_ratio=None if audible.received == 0 else worse(own.loss, far.loss),
                jitter_ms=jitter_ms,
                rtt_ms=trip_ms or None,
                packets_received=audible.received,
                packets_sent=audible.sent,
                silence_ms=None if far.silence_ms is None or audible.received == 0 else round(far.silence_ms),
                cpe_model=agent.model,
                cpe_firmware=agent.firmware,
                probe_id=None if probe is None else place_of(self._tokens, probe),
            ))  # fmt: skip
        return events

    def _span(self, row: _Row) -> tuple[int, int | None, int]:
        start_ms = time_of(self._times, "calldate", _said(row.calldate))
        end, duration = _said(row.callend), _said(row.duration)
        if end is None and duration is None:
            raise Unfit(DeadReason.MISSING_FIELD, "callend or duration must be present, was absent")
        if end is None:
            end_ms = start_ms + span_ms("duration", duration)
        else:
            end_ms = self._times.not_before(start_ms, time_of(self._times, "callend", end))
        talk = _said(row.connect_duration)
        if talk is None:
            return start_ms, None, end_ms
        # Seconds round on their own: talk may seem to begin a second before the call.
        answer_ms = end_ms - span_ms("connect_duration", talk)
        return start_ms, start_ms if -1000 <= answer_ms - start_ms < 0 else answer_ms, end_ms


def _said(value: Value) -> str | None:
    """Return what a column says; None for null."""
    return None if value in _NULLS else str(value)


def _first(*values: Value) -> str | None:
    """Return what the first of some columns says that says something."""
    for value in values:
        if value not in _NULLS:
            return str(value)
    return None


def _codec(*payloads: Value) -> str | None:
    """Return the codec of the first payload type that is known."""
    for payload in payloads:
        kind = count(payload)
        if kind is not None:
            return PAYLOADS.get(kind)
    return None


class _Ending(Struct, frozen=True, gc=False):
    """How a call ended; `reason` holds the causes of the Reason header, and the sniffer's own."""

    status: int | None
    q850: int | None
    reason: str | None
    by: End | None


@remembered
def _ending(said: tuple[Value, ...]) -> _Ending:
    """Return how a call ended, by the columns that say so, in which the same comes again and again."""
    who, sniffed, response, sip_cause, q850_cause = said
    bye, sip, q850 = count(sniffed), status_of(sip_cause), q850_of(q850_cause)
    values = [f"SIP;cause={sip}"] if sip else []
    values += [f"Q.850;cause={q850}"] if q850 else []
    values += ['VoIPmonitor;cause=104;text="RTP timeout"'] if bye == _RTP_STOPPED else []
    by: End | None = "network" if bye in _NO_BYE else _ENDS.get(who)
    return _Ending(status_of(response), q850_of(q850_cause), ", ".join(values) or None, by)


def _streams(row: _Row) -> tuple[_Stream, _Stream]:
    """Return what the caller sent, and what the callee did."""
    a = _Stream(
        row.a_ua,
        row.a_payload,
        packets_of(row.a_received),
        _mos((row.a_mos_f1_mult10, row.a_mos_f2_mult10, row.a_mos_adapt_mult10)),
        _loss(row.a_lost, row.a_received, row.a_packet_loss_perc_mult1000),
        _seconds(row.a_last_rtp_from_end),
    )
    b = _Stream(
        row.b_ua,
        row.b_payload,
        packets_of(row.b_received),
        _mos((row.b_mos_f1_mult10, row.b_mos_f2_mult10, row.b_mos_adapt_mult10)),
        _loss(row.b_lost, row.b_received, row.b_packet_loss_perc_mult1000),
        _seconds(row.b_last_rtp_from_end),
    )
    return a, b


@remembered
def _mos(scores: tuple[Value, ...]) -> float | None:
    """Return the first score that is one, of what buffers of 50 ms, of 200 ms and adaptive ones give."""
    return next((score for score in map(_mos_tenths, scores) if score is not None), None)


def _loss(lost: Value, received: Value, percent: Value) -> float | None:
    ratio = loss_of(lost, received)
    return _percent_thousandths(percent) if ratio is None else ratio
