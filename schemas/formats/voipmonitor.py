"""VoIPmonitor's `cdr` table, exported as CSV under a header or as JSON lines.

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

from typing import Any

from schemas.deadletters import DeadReason
from schemas.errors import InputError
from schemas.formats import Line, Options, Tokens
from schemas.formats.calls import (
    Agent,
    Side,
    agent_of,
    count,
    heard,
    loss_of,
    mos_of,
    place_of,
    present,
    q850_of,
    ratio_of,
    released_by,
    scaled,
    sides,
    span_of,
    status_of,
    worse,
)
from schemas.formats.records import Event, Items, LineReader, converted, csv_row, json_object, span_ms, text_of, time_of
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

_NULLS = frozenset({"", "\\N", "NULL", "null"})
_PAYLOADS = {0: "PCMU", 3: "GSM", 4: "G723", 8: "PCMA", 9: "G722", 15: "G728", 18: "G729"}
"""Static payload types (RFC 3551, table 4)."""

_RTP_STOPPED = 104
_NO_BYE = frozenset({102, 103, 104, 105, 107})
"""`bye` where the sniffer ended the call because nothing came any more."""


def open_voipmonitor(options: Options) -> "VoipmonitorReader":
    """Open one export of the `cdr` table.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return VoipmonitorReader(options.required_tokens(), options.timezone)


class VoipmonitorReader(LineReader):
    """One open export. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens, timezone: str) -> None:
        super().__init__()
        self._tokens = tokens
        self._times = TimeReader(("iso",), timezone, day_first=None)
        self._names: list[str] = []
        self._delimiter = ","

    def _record(self, line: Line) -> Items:
        if line.data.lstrip()[:1] == b"{":
            row = json_object(line.data)
        elif not self._names:
            self._header(line)
            return []
        else:
            cells = csv_row(line.data, self._delimiter)
            if cells == self._names:
                return []
            if len(cells) != len(self._names):
                reason = DeadReason.NOT_JSON if line.ended else DeadReason.TRUNCATED
                raise Unfit(reason, f"a row must have {len(self._names)} columns, had {len(cells)}")
            row = dict(zip(self._names, cells, strict=True))
        return list(converted(line.position, line.data, self._events(row)))

    def _header(self, line: Line) -> None:
        self._delimiter = max(",;\t", key=lambda mark: line.data.count(mark.encode()))
        try:
            names = [cell.strip() for cell in csv_row(line.data, self._delimiter)]
        except Unfit as unfit:
            raise InputError(f"line {line.position}: the first row must name the columns: {unfit.detail}") from None
        if not {"calldate", "caller", "called"}.issubset(names) or len(set(names)) != len(names):
            rule = "the first row must name the columns of VoIPmonitor's cdr table, each once"
            raise InputError(f"line {line.position}: {rule}, did not")
        self._names = names

    def _events(self, row: dict[str, Any]) -> list[Event]:
        """Return the events of one call."""
        start_ms, answer_ms, end_ms = self._span(row)
        bye = count(row.get("bye"))
        hung = _said(row, "whohanged")
        by = "network" if bye in _NO_BYE else hung if hung in ("caller", "callee") else None
        call_id = _said(row, "fbasename", "call_id")
        if call_id is None:
            call_id = f"{_said(row, 'id_sensor')}-{_said(row, 'ID', 'id')}-{start_ms}-{_said(row, 'caller')}"
        fixed = {
            "type": "call",
            "call_id": self._tokens.opaque(call_id),
            "start_ms": start_ms,
            "answer_ms": answer_ms,
            "end_ms": end_ms,
            "sip_status": status_of(row.get("lastSIPresponseNum")),
            "q850": q850_of(row.get("reason_q850_cause")),
            "reason": _reason(row, bye),
            "probe_id": place_of(self._tokens, _said(row, "id_sensor", "sensor")),
        }
        caller, callee = _said(row, "caller"), _said(row, "called")
        return [self._seen(row, side, fixed, by) for side in sides(self._tokens, caller, callee)]

    def _seen(self, row: dict[str, Any], side: Side, fixed: Event, by: str | None) -> Event:
        own, far = ("a", "b") if side.direction == "out" else ("b", "a")
        agent: Agent = agent_of(_said(row, f"{own}_ua"))
        return present({
            **fixed,
            "customer_id": side.customer_id,
            "peer_id": side.peer_id,
            "direction": side.direction,
            "released_by": released_by(side, by),
            **_media(row, own, far),
            "cpe_model": agent.model,
            "cpe_firmware": agent.firmware,
        })  # fmt: skip

    def _span(self, row: dict[str, Any]) -> tuple[int, int | None, int]:
        start_ms = time_of(self._times, "calldate", _said(row, "calldate"))
        end, duration = _said(row, "callend"), _said(row, "duration")
        if end is None and duration is None:
            raise Unfit(DeadReason.MISSING_FIELD, "callend or duration must be present, was absent")
        end_ms = start_ms + span_ms("duration", duration) if end is None else time_of(self._times, "callend", end)
        talk = _said(row, "connect_duration")
        if talk is None:
            return start_ms, None, end_ms
        # Seconds round on their own: talk may seem to begin a second before the call.
        answer_ms = end_ms - span_ms("connect_duration", talk)
        return start_ms, start_ms if -1000 <= answer_ms - start_ms < 0 else answer_ms, end_ms


def _said(row: dict[str, Any], *names: str) -> str | None:
    """Return the first of these columns that is not null."""
    for name in names:
        text = row.get(name)
        if text is not None and not isinstance(text, str):
            text = text_of(row, name)
        if text is not None and text not in _NULLS:
            return text
    return None


def _reason(row: dict[str, Any], bye: int | None) -> str | None:
    """Return the causes of the Reason header, and the sniffer's own."""
    sip, q850 = count(row.get("reason_sip_cause")), count(row.get("reason_q850_cause"))
    values = [f"SIP;cause={sip}"] if sip else []
    values += [f"Q.850;cause={q850}"] if q850 else []
    values += ['VoIPmonitor;cause=104;text="RTP timeout"'] if bye == _RTP_STOPPED else []
    return ", ".join(values) or None


def _media(row: dict[str, Any], own: str, far: str) -> dict[str, Any]:
    """Return the media of a call, for the end that sent the stream `own`."""
    scores = [score for score in (_mos(row, own), _mos(row, far)) if score is not None]
    received, sent = count(row.get(f"{far}_received")), count(row.get(f"{own}_received"))
    audible = heard(received, sent, min(scores, default=None))
    payload = count(_said(row, f"{own}_payload", f"{far}_payload", "payload"))
    trip_ms = worse(span_of(row.get("a_rtcp_avgrtd_mult10"), 0.1), span_of(row.get("b_rtcp_avgrtd_mult10"), 0.1))
    silence_s = scaled(row.get(f"{far}_last_rtp_from_end"), 1.0)
    return {
        "codec": _PAYLOADS.get(-1 if payload is None else payload),
        "mos": audible.mos,
        "loss_ratio": None if audible.received == 0 else worse(_loss(row, own), _loss(row, far)),
        "jitter_ms": worse(span_of(row.get("a_avgjitter_mult10"), 0.1), span_of(row.get("b_avgjitter_mult10"), 0.1)),
        "rtt_ms": trip_ms or None,
        "packets_received": audible.received,
        "packets_sent": audible.sent,
        "silence_ms": None if silence_s is None or audible.received == 0 else round(silence_s * 1000),
    }


def _mos(row: dict[str, Any], stream: str) -> float | None:
    for name in ("f1", "f2", "adapt"):
        score = mos_of(row.get(f"{stream}_mos_{name}_mult10"), 0.1)
        if score is not None:
            return score
    return None


def _loss(row: dict[str, Any], stream: str) -> float | None:
    ratio = loss_of(row.get(f"{stream}_lost"), row.get(f"{stream}_received"))
    return ratio_of(row.get(f"{stream}_packet_loss_perc_mult1000"), 1e-5) if ratio is None else ratio
