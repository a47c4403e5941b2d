"""Asterisk's call detail records, joined with its channel event log where that is in the same input.

**CDR** rows are CSV with a header of any order, CSV without one in the order of `cdr_csv`, of `cdr_custom`'s sample or
of the SQL back ends (which of them is seen from where the times stand), or JSON lines with the same names. A row says
when and between whom, and no more than ANSWERED or not: **a CDR has no release cause, so a call that was cut off looks
like any other**. An unanswered row's disposition is given as the cause that it comes nearest to. A channel that goes on
in the dial plan after nobody answered (`unanswered=yes`) has a second row without a far channel: that is no other call.

**CEL** rows (with a header, in the order of `cel_custom`'s sample, or JSON lines) are told by their event. HANGUP says
why and by whom in its `extra`: `hangupcause`, `hangupsource` (the channel that hung up, or the dial plan). Rows of one
call are joined by `linkedid` and `uniqueid`. An unanswered call that says no more than normal clearing has the cause
that its `dialstatus` comes nearest to. Once a CEL row has been seen, a CDR waits for the HANGUP of its channel,
in bounded memory; calls of which only the channel events came are made from these alone.

Where neither end shows a number (withheld, or not kept), a call counts for the endpoint of the caller's channel.

**Media** are in no CDR by default. Where the dial plan keeps `RTPAUDIOQOS` in a column of its own or in `userfield`,
its counts are those of Asterisk towards the caller.

Times without an offset are local to the switch: `input.timezone`.
"""

import re
from typing import Any

import orjson
from msgspec import Struct

from schemas.deadletters import DeadReason
from schemas.formats import Line, Options
from schemas.formats.asterisk_rows import DISPOSITIONS, Cdr, Cel, RowReader
from schemas.formats.calls import (
    SPAN_MS_MAX,
    Call,
    End,
    Parties,
    Side,
    Value,
    heard,
    loss_of,
    measure,
    measured,
    packets_of,
    q850_of,
    released_by,
    worse,
)
from schemas.formats.identity import Tokens
from schemas.formats.masks import refused
from schemas.formats.memory import remembered
from schemas.formats.names import place_of
from schemas.formats.records import (
    ENDED_MAX,
    Items,
    JoiningReader,
    Waiting,
    converted,
    head,
    span_ms,
    text_of,
    time_of,
)
from schemas.formats.rows import Unfit
from schemas.formats.times import TimeReader

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "q850", "released_by",
    "loss_ratio", "jitter_ms", "rtt_ms", "packets_received", "packets_sent", "trunk",
)  # fmt: skip
LACKS = (
    "A CDR alone cannot show drops: it has no release cause, and a call cut off is ANSWERED like any other. Causes and "
    "who released need CEL's HANGUP events in the same input; media need RTPAUDIOQOS in a column or in userfield. "
    "No MOS, no SIP status."
)

_DIAL_STATUS = {"NOANSWER": 19, "BUSY": 17, "CONGESTION": 42}
"""Likewise of what Dial says; CHANUNAVAIL is said of anything."""

_DISPOSITION_NUMBERS = {
    "0": "NO ANSWER",
    "2": "FAILED",
    "4": "BUSY",
    "8": "ANSWERED",
    "16": "CONGESTION",
    "32": "CANCEL",
}

_NONE_AT_ALL = "0000-00-00 00:00:00"
_ENDPOINT = re.compile(r"[A-Za-z0-9]+/(.+)-[0-9a-f]{8}(?:;[12])?")

_span_in_s = measured(high=SPAN_MS_MAX, factor=1000.0)
_below_second = measured(high=999.999999, factor=1000.0)


class _Call:
    """What has come of the call of one `linkedid`."""

    __slots__ = (
        "answer_ms", "callee", "caller", "dialled", "done", "end_ms", "hangups", "position", "record", "rows",
        "someone", "start_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.position = 0
        self.record = b""
        self.start_ms: int | None = None
        self.answer_ms: int | None = None
        self.end_ms: int | None = None
        self.caller: str | None = None
        self.callee: str | None = None
        self.someone: str | None = None
        """The first number that shows anywhere: who a call is made for that the switch itself began."""
        self.hangups: dict[str, tuple[int | None, str, str]] = {}
        """By `uniqueid`: cause, who hung up, and which channel this was."""
        self.dialled = ""
        """What Dial said of the caller's channel."""
        self.rows: list[tuple[int, bytes, Cdr]] = []
        """CDRs that wait."""
        self.done = False
        """A CDR of the call has been given."""


def open_asterisk(options: Options) -> "AsteriskReader":
    """Open one input of CDR rows, CEL rows or both.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return AsteriskReader(options.required_tokens(), options.timezone)


class AsteriskReader(JoiningReader):
    """One open input of CDR and CEL rows. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens, timezone: str) -> None:
        super().__init__()
        self._tokens = tokens
        self._parties = Parties(tokens)
        self._times = TimeReader(("iso", "unix_s"), timezone, day_first=None)
        self._rows = RowReader()
        self._calls: Waiting[_Call] = Waiting(_Call)
        self._over: Waiting[_Call] = Waiting(_Call, ENDED_MAX)
        """Calls that their caller's channel has left: what is still written of them comes soon."""
        self._cel_seen = False
        self._dialled: Waiting[None] = Waiting(lambda: None, ENDED_MAX)
        """Channels that called somebody in vain: what they do afterwards is no other call."""

    def _record(self, line: Line) -> Items:
        row = self._rows.read(line)
        if row is None:
            return []
        items = self._cdr(line, row) if isinstance(row, Cdr) else self._cel(line, row)
        if self._cel_seen:
            for calls in (self._over, self._calls):
                for call in calls.surplus():
                    items += self._left(call)
        return items

    def _rest(self) -> Items:
        return [item for calls in (self._over, self._calls) for call in calls.all() for item in self._left(call)]

    def _cdr(self, line: Line, row: Cdr) -> Items:
        if row.disposition != "ANSWERED" and self._is_rest(row):
            return []
        key = text_of(row.linkedid, row.uniqueid) if self._cel_seen else None
        if key is None:
            return converted(line.position, line.data, self._events(row, None))
        call = self._held(key, line.data)
        if row.uniqueid not in call.hangups:
            call.rows.append((line.position, head(line.data), row))
            return []
        call.done = True
        return converted(line.position, line.data, self._events(row, call))

    def _is_rest(self, row: Cdr) -> bool:
        """Tell whether a row is of what a channel did after a call in vain that has a row of its own."""
        unique = text_of(row.uniqueid)
        if unique is None or _disposition(row.disposition) == "ANSWERED":
            return False
        if not text_of(row.dstchannel):
            return unique in self._dialled
        self._dialled.hold(unique)
        self._dialled.surplus()
        return False

    def _cel(self, line: Line, row: Cel) -> Items:
        """Keep what an event says of its call; give the CDRs that waited for it."""
        self._cel_seen = True
        event, key, channel = text_of(row.eventtype), text_of(row.linkedid, row.uniqueid), text_of(row.uniqueid)
        if key is None or channel is None:
            raise Unfit(DeadReason.MISSING_FIELD, "uniqueid must be present, was absent")
        if event not in ("CHAN_START", "ANSWER", "HANGUP"):
            begun = self._calls.get(key)
            if begun is not None and begun.someone is None:
                begun.someone = text_of(row.cidnum, row.cidani)
            return []
        time_ms = time_of(self._times, "eventtime", text_of(row.eventtime))
        call = self._held(key)
        if not call.position:
            call.position, call.record = line.position, head(line.data)
        if event == "HANGUP":
            cause, by, dialled = _hangup(row.extra)
            call.hangups[channel] = cause, by, text_of(row.channame) or ""
            call.dialled = dialled or call.dialled
        if event != "HANGUP":
            if channel == key:
                _on_caller(call, event, time_ms, row)
            return []
        if channel == key or channel in self._calls:
            # A channel that was bridged into another call has that one's linkedid from then on.
            own = self._held(channel)
            _on_caller(own, event, time_ms, row)
            own.hangups[channel] = call.hangups[channel]
            self._calls.move(channel, self._over)
        ready = [held for held in call.rows if held[2].uniqueid == channel]
        call.rows = [held for held in call.rows if held[2].uniqueid != channel]
        return self._given(call, ready)

    def _held(self, key: str, record: bytes = b"") -> _Call:
        return (self._over if key in self._over else self._calls).hold(key, record)

    def _left(self, call: _Call) -> Items:
        """Return what a call gives of which no more is awaited."""
        if call.rows or call.done:
            return self._given(call, call.rows)
        try:
            events = self._from_channels(call)
        except Unfit as unfit:
            return [refused(call.position, unfit.reason, unfit.detail, call.record)]
        return converted(call.position, call.record, events)

    def _given(self, call: _Call, rows: list[tuple[int, bytes, Cdr]]) -> Items:
        items: Items = []
        for position, record, row in rows:
            call.done = True
            try:
                items += converted(position, record, self._events(row, call))
            except Unfit as unfit:
                items.append(refused(position, unfit.reason, unfit.detail, record))
        return items

    def _from_channels(self, call: _Call) -> list[Call]:
        """Return the events of a call of which no CDR came."""
        if call.start_ms is None or call.end_ms is None:
            raise Unfit(
                DeadReason.MISSING_FIELD, "channel events must hold CHAN_START and HANGUP of the caller, did not"
            )
        name = min(call.hangups)
        cause, by = _release(call, name, Cdr(channel=call.hangups[name][2]))
        if cause in (None, 16) and call.answer_ms is None:
            cause = _DIAL_STATUS.get(call.dialled, cause)
        call_id = self._tokens.opaque(name)
        return [
            Call(
                call_id=call_id,
                customer_id=side.customer_id,
                start_ms=call.start_ms,
                end_ms=call.end_ms,
                answer_ms=call.answer_ms,
                direction=side.direction,
                peer_id=side.peer_id,
                q850=cause,
                released_by=released_by(side, by),
            )
            for side in self._sides(*self._ends(call), call.hangups[name][2])
        ]

    def _ends(self, call: _Call) -> tuple[str | None, str | None]:
        """Return caller and callee; where neither is anybody, whose call it is that the switch made."""
        named = self._parties.names(call.caller) or self._parties.names(call.callee)
        return (call.caller, call.callee) if named else (call.someone, None)

    def _sides(self, caller: str | None, callee: str | None, channel: Value) -> list[Side]:
        """Return for whom a call counts; where neither end has a number, for the endpoint of the caller's channel."""
        try:
            return self._parties.sides(caller, callee)
        except Unfit:
            found = _ENDPOINT.fullmatch(text_of(channel) or "")
            if found is None or found.group().startswith("Local/"):
                raise
            return self._parties.sides(found.group(1), None)

    def _events(self, row: Cdr, call: _Call | None) -> list[Call]:
        """Return the events of one CDR."""
        disposition = _disposition(row.disposition)
        if disposition is None:
            raise Unfit(DeadReason.UNKNOWN_VALUE, "disposition must be a word of Asterisk's, was another")
        start_ms, answer_ms, end_ms = self._span(row, answered=disposition == "ANSWERED")
        unique = text_of(row.uniqueid)
        cause, by = (None, None) if call is None or unique is None else _release(call, unique, row)
        if cause in (None, 16) and answer_ms is None:
            nearest = DISPOSITIONS[disposition]
            cause = cause if nearest is None or (cause == 16 and disposition == "FAILED") else nearest
        if by is None and disposition == "CANCEL":
            by = "caller"
        call_id = self._tokens.opaque(
            f"{unique}|{row.sequence}|{row.dstchannel}|{start_ms}|{None if unique else row.src}{_forked(row)}"
        )
        media = _media(row)
        return [
            Call(
                call_id,
                side.customer_id,
                start_ms,
                end_ms,
                answer_ms,
                side.direction,
                side.peer_id,
                q850=cause,
                released_by=released_by(side, by),
                loss_ratio=media.loss_ratio,
                jitter_ms=media.jitter_ms,
                rtt_ms=media.rtt_ms,
                packets_received=media.received,
                packets_sent=media.sent,
                trunk=self._trunk(row, side.direction) if self._tokens.customers_known else None,
            )
            for side in self._sides(text_of(row.src), text_of(row.dst), row.channel)
        ]

    def _span(self, row: Cdr, *, answered: bool) -> tuple[int, int | None, int]:
        start_ms = time_of(self._times, "start", text_of(row.start))
        end = text_of(row.end)
        if end is None:
            end_ms = start_ms + span_ms("duration", text_of(row.duration))
        else:
            end_ms = self._times.not_before(start_ms, time_of(self._times, "end", end))
        if not answered:
            return start_ms, None, end_ms
        answer = text_of(row.answer)
        if answer is not None and answer != _NONE_AT_ALL:
            return start_ms, self._times.not_before(start_ms, time_of(self._times, "answer", answer)), end_ms
        return start_ms, max(start_ms, end_ms - span_ms("billsec", text_of(row.billsec))), end_ms

    def _trunk(self, row: Cdr, direction: str) -> str | None:
        """Return the endpoint at the other end, where it is known that no customer is there."""
        number, channel = (row.dst, row.dstchannel) if direction == "out" else (row.src, row.channel)
        found = _ENDPOINT.fullmatch(text_of(channel) or "")
        if found is None or any(self._tokens.identified(end)[1] for end in (text_of(number) or "", found.group(1))):
            return None
        return place_of(self._tokens, found.group(1))


def _forked(row: Cdr) -> str:
    """Return what else tells rows of one channel apart: those of ForkCDR that have no number are to somebody else."""
    return f"|{row.dst}" if row.sequence is None and not row.dstchannel else ""


@remembered
def _disposition(value: Value) -> str | None:
    """Return one of `DISPOSITIONS`; None where it is another word."""
    word = (text_of(value) or "").upper()
    word = _DISPOSITION_NUMBERS.get(word, word)
    return word if word in DISPOSITIONS else None


def _on_caller(call: _Call, event: str, time_ms: int, row: Cel) -> None:
    """Keep what an event of the caller's channel says."""
    if event == "CHAN_START":
        call.start_ms, call.caller = time_ms, text_of(row.cidnum, row.cidani)
        call.callee = text_of(row.exten, row.ciddnid)
    elif event == "ANSWER":
        call.answer_ms = time_ms
    else:
        call.end_ms = time_ms


def _hangup(extra: Value | dict[str, Any]) -> tuple[int | None, str, str]:
    """Return cause, source and what Dial said, of a HANGUP; what its `extra` says is JSON inside the row."""
    found: Any = extra
    if isinstance(extra, str):
        try:
            found = orjson.loads(extra)
        except orjson.JSONDecodeError:
            found = None
    if not isinstance(found, dict):
        return None, "", ""
    cause = found.get("hangupcause")
    known = isinstance(cause, str | int) and not isinstance(cause, bool)
    source, dialled = (said if isinstance(said, str) else "" for said in map(found.get, ("hangupsource", "dialstatus")))
    return q850_of(cause) if known else None, source, dialled


def _release(call: _Call, unique: str, row: Cdr) -> tuple[int | None, End | None]:
    """Return why and by whom the channel of this `uniqueid` was released."""
    cause, source, _ = call.hangups.get(unique, (None, "", ""))
    if cause in (None, 16):
        # The other channel may know better: normal clearing is also what is passed on.
        others = [other for other, _, _ in call.hangups.values() if other not in (None, 16)]
        cause = others[0] if others else cause
    if not source:
        return cause, None
    if source == row.channel:
        return cause, "caller"
    callee = source == row.dstchannel or any(source == channel for _, _, channel in call.hangups.values())
    return cause, "callee" if callee else "network"


class _Media(Struct, gc=False):
    """The media of a call; fields as in an event."""

    loss_ratio: float | None = None
    jitter_ms: float | None = None
    rtt_ms: float | None = None
    received: int | None = None
    sent: int | None = None


_NO_MEDIA = _Media()


def _media(row: Cdr) -> _Media:
    """Return what RTPAUDIOQOS says: rx is what came from the caller, tx what was sent there; seconds."""
    for text in (row.rtpaudioqos, row.userfield):
        if isinstance(text, str) and "rxcount=" in text:
            break
    else:
        return _NO_MEDIA
    said = {name.strip(): value for name, _, value in (pair.partition("=") for pair in text.split(";"))}.get
    audible = heard(packets_of(said("txcount")), packets_of(said("rxcount")), None)
    loss = worse(loss_of(said("lp"), said("rxcount")), _sent_loss(said("rlp"), said("txcount")))
    return _Media(
        None if audible.received == 0 else loss,
        # Newer versions count in units of the codec's clock: what is no fraction of a second cannot be told.
        worse(
            *(_below_second(said(f"{way}jitter")) if packets_of(said(f"{way}count")) else None for way in ("rx", "tx"))
        ),
        _span_in_s(said("rtt")) or None,
        audible.received,
        audible.sent,
    )


def _sent_loss(reported: str | None, packets: str | None) -> float | None:
    lost, sent = measure(reported), measure(packets)
    return None if lost is None or not sent or lost > sent else round(lost / sent, 6)
