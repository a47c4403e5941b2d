"""Asterisk's call detail records, joined with its channel event log where that is in the same input.

**CDR** rows are CSV with a header of any order, CSV without one in the order of `cdr_csv`, of `cdr_custom`'s sample or
of the SQL back ends (which of them is seen from where the times stand), or JSON lines with the same names. A row says
when and between whom, and no more than ANSWERED or not: **a CDR has no release cause, so a call that was cut off looks
like any other**. An unanswered row's disposition is given as the cause that it comes nearest to.

**CEL** rows (with a header, in the order of `cel_custom`'s sample, or JSON lines) are told by their event. HANGUP says
why and by whom in its `extra`: `hangupcause`, `hangupsource` (the channel that hung up, or the dial plan). Rows of one
call are joined by `linkedid` and `uniqueid`. Once a CEL row has been seen, a CDR waits for the HANGUP of its channel,
in bounded memory; calls of which only the channel events came are made from these alone.

**Media** are in no CDR by default. Where the dial plan keeps `RTPAUDIOQOS` in a column of its own or in `userfield`,
its counts are those of Asterisk towards the caller.

Times without an offset are local to the switch: `input.timezone`.
"""

import re
from typing import Any

import orjson

from schemas.deadletters import DeadReason
from schemas.formats import Line, Options, Tokens
from schemas.formats.calls import (
    count,
    heard,
    loss_of,
    measure,
    place_of,
    present,
    q850_of,
    released_by,
    scaled,
    sides,
    span_of,
    worse,
)
from schemas.formats.masks import refused
from schemas.formats.records import (
    ENDED_MAX,
    Event,
    Items,
    LineReader,
    Waiting,
    converted,
    csv_row,
    head,
    json_object,
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

_CSV = (
    "accountcode", "src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer",
    "end", "duration", "billsec", "disposition", "amaflags",
)  # fmt: skip
"""The order of cdr_csv.c; what follows depends on its options."""

_CUSTOM = (
    "clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer", "end",
    "duration", "billsec", "disposition", "amaflags", "accountcode", "uniqueid", "userfield", "sequence",
)  # fmt: skip
"""The order of cdr_custom.conf.sample."""

_SQL = (
    "start", "clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "duration", "billsec",
    "disposition", "amaflags", "accountcode", "uniqueid", "userfield", "peeraccount", "linkedid", "sequence",
)  # fmt: skip
"""The order of the SQL table, whose start is named calldate."""

_CEL = (
    "eventtype", "eventtime", "cidname", "cidnum", "cidani", "cidrdnis", "ciddnid", "exten", "context", "channame",
    "appname", "appdata", "amaflags", "accountcode", "uniqueid", "linkedid", "peer", "userfield", "userdeftype",
    "extra",
)  # fmt: skip
"""The order of cel_custom.conf.sample."""

_SAME = {"calldate": "start", "eventextra": "extra", "channel": "channel", "cid_num": "cidnum", "acctid": "id"}
"""Columns that other back ends name otherwise."""

_EVENTS = frozenset({
    "ANSWER", "APP_END", "APP_START", "ATTENDEDTRANSFER", "BLINDTRANSFER", "BRIDGE_ENTER", "BRIDGE_EXIT", "CHAN_END",
    "CHAN_START", "DTMF", "FORWARD", "HANGUP", "LINKEDID_END", "LOCAL_OPTIMIZE", "LOCAL_OPTIMIZE_BEGIN", "PARK_END",
    "PARK_START", "PICKUP", "STREAM_BEGIN", "STREAM_END", "USER_DEFINED",
})  # fmt: skip

_DISPOSITIONS = {"NO ANSWER": 19, "BUSY": 17, "CONGESTION": 42, "FAILED": 127, "CANCEL": None, "ANSWERED": None}
"""The nearest Q.850 cause of an unanswered row; FAILED says no more than that the true one was lost: interworking."""

_DISPOSITION_NUMBERS = {
    "0": "NO ANSWER",
    "2": "FAILED",
    "4": "BUSY",
    "8": "ANSWERED",
    "16": "CONGESTION",
    "32": "CANCEL",
}

_NONE_AT_ALL = "0000-00-00 00:00:00"
_UNIQUE_ID = re.compile(r"(?:[^,]{1,80}-)?[0-9]{9,11}\.[0-9]{1,10}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9:]{4,6})?")
_ENDPOINT = re.compile(r"[A-Za-z0-9]+/(.+)-[0-9a-f]{8}(?:;[12])?")

Row = dict[str, Any]


class _Call:
    """What has come of the call of one `linkedid`."""

    __slots__ = ("answer_ms", "callee", "caller", "done", "end_ms", "hangups", "position", "record", "rows", "start_ms")

    def __init__(self) -> None:
        self.position = 0
        self.record = b""
        self.start_ms: int | None = None
        self.answer_ms: int | None = None
        self.end_ms: int | None = None
        self.caller: str | None = None
        self.callee: str | None = None
        self.hangups: dict[str, tuple[int | None, str, str]] = {}
        """By `uniqueid`: cause, who hung up, and which channel this was."""
        self.rows: list[tuple[int, bytes, Row]] = []
        """CDRs that wait."""
        self.done = False
        """A CDR of the call has been given."""


def open_asterisk(options: Options) -> "AsteriskReader":
    """Open one input of CDR rows, CEL rows or both.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return AsteriskReader(options.required_tokens(), options.timezone)


class AsteriskReader(LineReader):
    """One open input of CDR and CEL rows. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens, timezone: str) -> None:
        super().__init__()
        self._tokens = tokens
        self._times = TimeReader(("iso", "unix_s"), timezone, day_first=None)
        self._cdr_names: tuple[str, ...] = ()
        self._cel_names: tuple[str, ...] = _CEL
        self._cel_event = 0
        self._calls: Waiting[_Call] = Waiting(_Call)
        self._over: Waiting[_Call] = Waiting(_Call, ENDED_MAX)
        """Calls that their caller's channel has left: what is still written of them comes soon."""
        self._cel_seen = False

    def _record(self, line: Line) -> Items:
        row = self._row(line)
        if row is None:
            return []
        items = self._cel(line, row) if "eventtype" in row else self._cdr(line, row)
        for calls in (self._over, self._calls):
            for call in calls.surplus():
                items += self._left(call)
        return items

    def _rest(self) -> Items:
        return [item for calls in (self._over, self._calls) for call in calls.all() for item in self._left(call)]

    def _row(self, line: Line) -> Row | None:
        """Return a row by the names of its columns, or None for a header, which says what they are from here on."""
        if line.data.lstrip()[:1] == b"{":
            return {_SAME.get(name.lower(), name.lower()): value for name, value in json_object(line.data).items()}
        cells = csv_row(line.data)
        low = line.data.lower()
        if (b"disposition" in low or b"eventtype" in low) and self._is_header(cells):
            return None
        names = self._names(cells)
        if names is None:
            rule = "a row must be a CDR or a CEL row in a known order of columns, or stand under a header"
            raise Unfit(DeadReason.NOT_JSON, f"{rule}, had {len(cells)} columns")
        return dict(zip(names, cells, strict=False))

    def _is_header(self, cells: list[str]) -> bool:
        named = [cell.strip().lower() for cell in cells]
        names = tuple(_SAME.get(name, name) for name in named)
        if "eventtype" in names and "uniqueid" in names:
            self._cel_names, self._cel_event = names, names.index("eventtype")
        elif "disposition" in names and "dst" in names:
            self._cdr_names = names
        else:
            return False
        return True

    def _names(self, cells: list[str]) -> tuple[str, ...] | None:
        """Return the names of a row's columns."""
        width = len(cells)
        if width == len(self._cel_names) and cells[self._cel_event] in _EVENTS:
            return self._cel_names
        if self._cdr_names:
            return self._cdr_names if width == len(self._cdr_names) else None
        if width >= len(_CSV) and _is_date(cells[9]) and cells[14] in _DISPOSITIONS:
            return _CSV + _tail(cells[16:])
        if width >= len(_CUSTOM) - 3 and _is_date(cells[8]) and cells[13] in _DISPOSITIONS:
            return _CUSTOM
        if width >= 13 and _is_date(cells[0]) and cells[11] in _DISPOSITIONS:
            return _SQL
        return None

    def _cdr(self, line: Line, row: Row) -> Items:
        key = text_of(row, "linkedid", "uniqueid")
        if not self._cel_seen or key is None:
            return list(converted(line.position, line.data, self._events(row, None)))
        call = self._held(key, line.data)
        if text_of(row, "uniqueid") not in call.hangups:
            call.rows.append((line.position, head(line.data), row))
            return []
        call.done = True
        return list(converted(line.position, line.data, self._events(row, call)))

    def _cel(self, line: Line, row: Row) -> Items:
        """Keep what an event says of its call; give the CDRs that waited for it."""
        self._cel_seen = True
        event, key, channel = text_of(row, "eventtype"), text_of(row, "linkedid", "uniqueid"), text_of(row, "uniqueid")
        if key is None or channel is None:
            raise Unfit(DeadReason.MISSING_FIELD, "uniqueid must be present, was absent")
        if event not in ("CHAN_START", "ANSWER", "HANGUP"):
            return []
        time_ms = time_of(self._times, "eventtime", text_of(row, "eventtime"))
        call = self._held(key)
        if not call.position:
            call.position, call.record = line.position, head(line.data)
        if event == "HANGUP":
            call.hangups[channel] = (*_hangup(row), text_of(row, "channame") or "")
        if channel == key:
            _on_caller(call, str(event), time_ms, row)
        if event != "HANGUP":
            return []
        if channel == key:
            self._calls.move(key, self._over)
        ready = [held for held in call.rows if held[2].get("uniqueid") == channel]
        call.rows = [held for held in call.rows if held[2].get("uniqueid") != channel]
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
        return list(converted(call.position, call.record, events))

    def _given(self, call: _Call, rows: list[tuple[int, bytes, Row]]) -> Items:
        items: Items = []
        for position, record, row in rows:
            call.done = True
            try:
                items += converted(position, record, self._events(row, call))
            except Unfit as unfit:
                items.append(refused(position, unfit.reason, unfit.detail, record))
        return items

    def _from_channels(self, call: _Call) -> list[Event]:
        """Return the events of a call of which no CDR came."""
        if call.start_ms is None or call.end_ms is None:
            raise Unfit(
                DeadReason.MISSING_FIELD, "channel events must hold CHAN_START and HANGUP of the caller, did not"
            )
        name = min(call.hangups)
        cause, by = _release(call, name, {"channel": call.hangups[name][2]})
        fixed = {"start_ms": call.start_ms, "answer_ms": call.answer_ms, "end_ms": call.end_ms, "q850": cause}
        call_id = self._tokens.opaque(name)
        return [
            present({
                "type": "call", "call_id": call_id, "customer_id": side.customer_id, "peer_id": side.peer_id,
                "direction": side.direction, **fixed, "released_by": released_by(side, by),
            })
            for side in sides(self._tokens, call.caller, call.callee)
        ]  # fmt: skip

    def _events(self, row: Row, call: _Call | None) -> list[Event]:
        """Return the events of one CDR."""
        disposition = str(text_of(row, "disposition") or "").upper()
        disposition = _DISPOSITION_NUMBERS.get(disposition, disposition)
        if disposition not in _DISPOSITIONS:
            raise Unfit(DeadReason.UNKNOWN_VALUE, "disposition must be a word of Asterisk's, was another")
        start_ms, answer_ms, end_ms = self._span(row, answered=disposition == "ANSWERED")
        unique = text_of(row, "uniqueid")
        cause, by = (None, None) if call is None or unique is None else _release(call, unique, row)
        if cause is None and answer_ms is None:
            cause = _DISPOSITIONS[disposition]
        if by is None and disposition == "CANCEL":
            by = "caller"
        parts = (unique, row.get("sequence"), row.get("dstchannel"), start_ms, None if unique else row.get("src"))
        fixed = {
            "type": "call",
            "call_id": self._tokens.opaque("|".join(map(str, parts))),
            "start_ms": start_ms,
            "answer_ms": answer_ms,
            "end_ms": end_ms,
            "q850": cause,
            **_media(row),
        }
        caller, callee = text_of(row, "src"), text_of(row, "dst")
        return [
            present({
                **fixed, "customer_id": side.customer_id, "peer_id": side.peer_id, "direction": side.direction,
                "released_by": released_by(side, by), "trunk": self._trunk(row, side.direction),
            })
            for side in sides(self._tokens, caller, callee)
        ]  # fmt: skip

    def _span(self, row: Row, *, answered: bool) -> tuple[int, int | None, int]:
        start_ms = time_of(self._times, "start", text_of(row, "start"))
        end = text_of(row, "end")
        duration_ms = span_ms("duration", text_of(row, "duration"))
        end_ms = start_ms + duration_ms if end is None else time_of(self._times, "end", end)
        answer = text_of(row, "answer")
        if not answered:
            return start_ms, None, end_ms
        if answer is not None and answer != _NONE_AT_ALL:
            return start_ms, time_of(self._times, "answer", answer), end_ms
        return start_ms, max(start_ms, end_ms - span_ms("billsec", text_of(row, "billsec"))), end_ms

    def _trunk(self, row: Row, direction: str) -> str | None:
        """Return the endpoint at the other end, where it is known that no customer is there."""
        if not self._tokens.customers_known:
            return None
        ends = ("dst", "dstchannel") if direction == "out" else ("src", "channel")
        number, channel = (text_of(row, name) or "" for name in ends)
        found = _ENDPOINT.fullmatch(channel)
        if found is None or any(self._tokens.identified(end)[1] for end in (number, found.group(1))):
            return None
        return place_of(self._tokens, found.group(1))


def _is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None


def _tail(cells: list[str]) -> tuple[str, ...]:
    """Name what cdr_csv writes behind its fixed columns (`loguniqueid`, `loguserfield`, `newcdrcolumns`)."""
    new = ("peeraccount", "linkedid", "sequence") if len(cells) >= 3 else ()
    own = cells[: len(cells) - len(new)]
    if not own:
        return new
    first = "uniqueid" if _UNIQUE_ID.fullmatch(own[0]) else "userfield"
    return (first, *(("userfield",) if len(own) > 1 else ()), *new)


def _on_caller(call: _Call, event: str, time_ms: int, row: Row) -> None:
    """Keep what an event of the caller's channel says."""
    if event == "CHAN_START":
        call.start_ms, call.caller = time_ms, text_of(row, "cidnum", "cidani")
        call.callee = text_of(row, "exten", "ciddnid")
    elif event == "ANSWER":
        call.answer_ms = time_ms
    else:
        call.end_ms = time_ms


def _hangup(row: Row) -> tuple[int | None, str]:
    """Return cause and source of a HANGUP; what its `extra` says is JSON inside the row."""
    extra = row.get("extra")
    if isinstance(extra, str):
        try:
            extra = orjson.loads(extra)
        except orjson.JSONDecodeError:
            extra = None
    if not isinstance(extra, dict):
        return None, ""
    source = extra.get("hangupsource")
    return q850_of(extra.get("hangupcause")), source if isinstance(source, str) else ""


def _release(call: _Call, unique: str, row: Row) -> tuple[int | None, str | None]:
    """Return why and by whom the channel of this `uniqueid` was released."""
    cause, source, _ = call.hangups.get(unique, (None, "", ""))
    if cause in (None, 16):
        # The other channel may know better: normal clearing is also what is passed on.
        others = [other for other, _, _ in call.hangups.values() if other not in (None, 16)]
        cause = others[0] if others else cause
    if not source:
        return cause, None
    if source == row.get("channel"):
        return cause, "caller"
    callee = source == row.get("dstchannel") or any(source == channel for _, _, channel in call.hangups.values())
    return cause, "callee" if callee else "network"


def _media(row: Row) -> dict[str, Any]:
    """Return what RTPAUDIOQOS says: rx is what came from the caller, tx what was sent there; seconds."""
    text = next(
        (text for text in map(row.get, ("rtpaudioqos", "userfield")) if isinstance(text, str) and "rxcount=" in text),
        None,
    )
    if text is None:
        return {}
    said: dict[str, str] = {name.strip(): value for name, _, value in (pair.partition("=") for pair in text.split(";"))}
    audible = heard(count(said.get("txcount")), count(said.get("rxcount")), None)
    loss = worse(loss_of(said.get("lp"), said.get("rxcount")), _sent_loss(said))
    return {
        "loss_ratio": None if audible.received == 0 else loss,
        # Newer versions count in units of the codec's clock: what is no fraction of a second cannot be told.
        "jitter_ms": worse(_within_second(said.get("rxjitter")), _within_second(said.get("txjitter"))),
        "rtt_ms": span_of(said.get("rtt"), 1000.0) or None,
        "packets_received": audible.received,
        "packets_sent": audible.sent,
    }


def _sent_loss(said: dict[str, str]) -> float | None:
    lost, sent = measure(said.get("rlp")), measure(said.get("txcount"))
    return None if lost is None or not sent or lost > sent else round(lost / sent, 6)


def _within_second(text: str | None) -> float | None:
    value = scaled(text, 1000.0)
    return value if value is not None and value < 1000.0 else None
