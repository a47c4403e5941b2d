"""Kamailio's accounting as JSON lines: `acc` and `missed_calls` rows, `acc_cdrs` rows, and dialog events.

Kamailio's rows are what its administrator makes of them (`acc_extra`, `cdr_extra`, `acc_json`, `jansson` in a route),
so a field is looked for under the names in `_FIELDS`.

- An **acc row** has a `method`. The INVITE row with a 2xx opens a call and the BYE row with the same `callid` ends it;
  whose `from_tag` the BYE has says who released. Any other final status is an attempt that failed; where it asks for
  another attempt (3xx, 401, 407, 422, 491), the attempt waits for that.
- An **acc_cdrs row** has `start_time` and `end_time` and is a whole call; from the dialog's creation on, unless
  `cdr_start_on_confirmed` is set: ringing then counts as talk, if no acc row of the answer was there before.
  One that lasted for no time and has no status is an attempt that failed (`cdr_on_failed`).
- A **dialog event** has an `event`: `dialog:start` (answered), `dialog:end`, `dialog:failed`. A dialog that lived to
  its `timeout`, or ended without a BYE (the `method` is of a message that Kamailio made up), was ended by Kamailio. Its
  `from_tag` may be the dialog's or that of the BYE: only where it is the callee's does it say who released.

A call ends once. Where a route writes all of these, an acc row says most, the raw status and the Reason, and comes
last, when the transaction is over: in an input that has acc rows, events and acc_cdrs rows wait for them, up to
`WAIT_MS` by the rows' own times. What comes later of a call says nothing new. A call that was answered and whose end
never came is a dead letter: it may have been cut off, or BYE is not accounted, or the call goes on in the next file,
and no row says which.

Routes print `<null>` for what is empty, and 0 for a time that has not come.

Times without an offset (database rows) are in `input.timezone`.
"""

import re
from typing import Any, NamedTuple

from schemas.deadletters import DeadReason, Reject
from schemas.formats import Converted, Line, Options
from schemas.formats.calls import Call, End, Parties, q850_of, released_by, status_of
from schemas.formats.identity import Tokens
from schemas.formats.masks import refused
from schemas.formats.names import place_of, reason_of
from schemas.formats.records import (
    ENDED_MAX,
    Items,
    JoiningReader,
    Waiting,
    converted,
    head,
    json_object,
    span_ms,
    time_of,
)
from schemas.formats.rows import Unfit
from schemas.formats.times import TimeReader

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "sip_status", "q850", "reason",
    "released_by", "trunk", "sbc",
)  # fmt: skip
LACKS = (
    "No media: neither one-way audio nor poor sound can be seen. Drops are seen only where BYE's Reason is accounted "
    "(acc_extra reason=$hdr(Reason)); a call without any BYE has no row of its end and becomes a dead letter, unless "
    "dialog events or cdr_expired_dlg_enable tell of it."
)

_FIELDS = {
    "callid": ("callid", "call_id", "callId", "ci"),
    "from_tag": ("from_tag", "ft"),
    "to_tag": ("to_tag", "tt"),
    "caller": ("from_uri", "src_user", "from_user", "caller", "caller_id", "fu"),
    "callee": ("to_uri", "dst_ouser", "dst_user", "to_user", "callee", "ru", "tu"),
    "status": ("sip_code", "code", "status"),
    "reason": ("reason_header", "reason_hdr", "reason", "hdr_reason"),
    "q850": ("q850", "q850_cause"),
    "time": ("time", "timestamp", "time_hires", "event_time"),
    "start": ("start_time", "start", "setup_time"),
    "answer": ("answer_time", "connect_time", "confirmed_time"),
    "end": ("end_time", "end"),
    "trunk": ("gateway", "gw", "dst_gw", "trunk"),
    "sbc": ("server", "node", "hostname"),
    "event": ("event",),
    "method": ("method",),
    "duration": ("duration", "ms_duration"),
    "lifetime": ("timeout", "lifetime"),
}
"""Our name -> the names under which it is looked for, the plainest first."""

_LATER, _ZERO = frozenset({"start", "answer"}), re.compile(r"0+(?:\.0*)?")

_RETRIED = frozenset({401, 407, 422, 423, 491})
"""Statuses after which the caller tries again within the same call."""

_IGNORED = frozenset({"ACK", "CANCEL", "PRACK", "UPDATE", "INFO", "REFER", "MESSAGE", "NOTIFY", "OPTIONS", "REGISTER"})

WAIT_MS = 200_000
"""So much later the last word of an attempt comes: more than timer C, 180 s (RFC 3261, section 16.6), which ends a
second attempt that nobody answers; a BYE is over after 32 s."""

_PRINTED_NULL = "<null>"

TABLES_MAX = 64
"""So many sets of names are known at once: a route writes a handful."""

Row = dict[str, str]
"""What a row says, by our names."""


class _Times(NamedTuple):
    """When a call began, was answered and ended."""

    start_ms: int
    answer_ms: int | None
    end_ms: int


class _Open:
    """What is known of a call whose end has not come."""

    __slots__ = (
        "answer_ms", "callee", "caller", "from_tag", "position", "record", "start_ms", "to_tag", "told", "told_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.position = 0
        self.record = b""
        self.start_ms: int | None = None
        self.answer_ms: int | None = None
        self.caller: str | None = None
        self.callee: str | None = None
        self.from_tag: str | None = None
        self.to_tag: str | None = None
        self.told: list[Call] = []
        """The events of an end after which another attempt, or a row that says more, may come."""
        self.told_ms = 0


def open_kamailio(options: Options) -> "KamailioReader":
    """Open one input of accounting rows and dialog events.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return KamailioReader(options.required_tokens(), options.timezone)


class KamailioReader(JoiningReader):
    """One open input of rows and events. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens, timezone: str) -> None:
        super().__init__()
        self._tokens = tokens
        self._parties = Parties(tokens)
        self._times = TimeReader(("unix_s", "iso"), timezone, day_first=None)
        self._calls: Waiting[_Open] = Waiting(_Open)
        self._told: Waiting[_Open] = Waiting(_Open)
        """Calls of which an end was told, and more may be."""
        self._now_ms = 0
        self._acc_seen = False
        self._tables: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        """Of rows with these names: the fields that are taken, each with its name there."""
        self._ended: Waiting[None] = Waiting(lambda: None, ENDED_MAX)

    def _record(self, line: Line) -> Items:
        row = self._row(json_object(line.data))
        callid = row.get("callid")
        if callid is None:
            raise Unfit(DeadReason.MISSING_FIELD, "callid must be present, was absent")
        if callid in self._ended:
            return []
        event, method = row.get("event"), row.get("method")
        if event is not None:
            items = self._dialog_event(line, row, callid, event.rpartition(":")[2])
        elif method is not None:
            items = self._acc(line, row, callid, method.upper())
        else:
            items = self._cdr(line, row, callid)
        oldest = self._told.oldest()
        while oldest is not None and oldest.told_ms + WAIT_MS < self._now_ms:
            items += _left(self._told.pop())
            oldest = self._told.oldest()
        for call in self._calls.surplus():
            items += _left(call)
        return items

    def _row(self, given: dict[str, Any]) -> Row:
        """Return what a row says, under the plainest of each field's names that says something.

        Raises:
            Unfit: a value of it is no single one.
        """
        table = self._tables.get(names := tuple(given))
        if table is None:
            if len(self._tables) == TABLES_MAX:
                self._tables.clear()
            table = self._tables[names] = [
                (field, name) for field, known in _FIELDS.items() for name in known if name in given
            ]
        row: Row = {}
        for field, name in table:
            value = given[name]
            if value is None or field in row:
                continue
            if not isinstance(value, str):
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise Unfit(DeadReason.WRONG_TYPE, f"{name} must be a text or a number, was neither")
                value = str(value)
            if _says(field, value):
                row[field] = value
        return row

    def _rest(self) -> Items:
        return [item for calls in (self._told, self._calls) for call in calls.all() for item in _left(call)]

    def _acc(self, line: Line, row: Row, callid: str, method: str) -> Items:
        if method in _IGNORED:
            return []
        time_ms = self._now_ms = self._time(row, "time")
        self._acc_seen = True
        if method == "BYE":
            return self._end(line, row, callid, time_ms)
        if method != "INVITE":
            raise Unfit(DeadReason.UNKNOWN_VALUE, "method must be INVITE, BYE or another that SIP has, was none")
        status = status_of(row.get("status"))
        if status is None:
            raise Unfit(DeadReason.MISSING_FIELD, "sip_code must be a final status, was none")
        start_ms = self._time(row, "start", time_ms)
        if status < 300:
            return self._answered(line, row, callid, start_ms, time_ms)
        return self._failed(line, row, callid, start_ms, time_ms)

    def _dialog_event(self, line: Line, row: Row, callid: str, event: str) -> Items:
        time_ms = self._time(row, "time", None if row.get("end") is None else self._time(row, "end"))
        self._now_ms = time_ms
        start_ms = self._time(row, "start", time_ms)
        if event == "start":
            return self._answered(line, row, callid, start_ms, self._time(row, "answer", time_ms))
        if event == "failed":
            return self._failed(line, row, callid, start_ms, time_ms)
        if event == "end":
            return self._end(line, row, callid, time_ms)
        raise Unfit(DeadReason.UNKNOWN_VALUE, "event must be dialog:start, dialog:end or dialog:failed, was another")

    def _answered(self, line: Line, row: Row, callid: str, start_ms: int, answer_ms: int) -> Items:
        call = self._kept(line, row, callid)
        call.start_ms = start_ms if call.start_ms is None else min(call.start_ms, start_ms)
        call.answer_ms = answer_ms if call.answer_ms is None else min(call.answer_ms, answer_ms)
        call.told = []
        self._told.move(callid, self._calls)
        return []

    def _failed(self, line: Line, row: Row, callid: str, start_ms: int, end_ms: int) -> Items:
        """Give an attempt that failed, or keep it while another may follow."""
        call = self._kept(line, row, callid)
        if call.answer_ms is not None:
            return []
        status = status_of(row.get("status"))
        call.start_ms = start_ms if call.start_ms is None else min(call.start_ms, start_ms)
        times = _Times(call.start_ms, None, max(end_ms, call.start_ms))
        events = self._events(row, callid, call, times, status, "caller" if status == 487 else None)
        again = status is not None and (status in _RETRIED or status < 400)
        return self._over(line, callid, call, events, waits=again or (status is None and self._acc_seen))

    def _end(self, line: Line, row: Row, callid: str, end_ms: int) -> Items:
        """End an answered call."""
        call = self._calls.get(callid) or self._told.get(callid)
        if call is None or call.answer_ms is None:
            began, answered = row.get("start"), row.get("answer")
            if began is None and answered is None:
                raise Unfit(DeadReason.MISSING_FIELD, "the answer of a call must come before its end, did not")
            call = self._kept(line, row, callid)
            call.start_ms = self._time(row, "start", None if answered is None else self._time(row, "answer"))
            call.answer_ms = self._time(row, "answer", call.start_ms)
        event, method = row.get("event"), row.get("method")
        lifetime_ms = span_ms("timeout", row.get("lifetime"))
        expired = bool(lifetime_ms) and end_ms - call.answer_ms >= lifetime_ms
        unasked = expired or (event is not None and method is not None and method.upper() != "BYE")
        released = "network" if unasked else _releaser(row, call)
        times = _Times(call.answer_ms if call.start_ms is None else call.start_ms, call.answer_ms, end_ms)
        status = status_of(row.get("status"))
        # A BYE that nobody answered: the far end was gone. A 481 is two who hung up at once.
        events = self._events(row, callid, call, times, 408 if status == 408 else 200, released)
        return self._over(line, callid, call, events, waits=self._acc_seen and event is not None and not unasked)

    def _cdr(self, line: Line, row: Row, callid: str) -> Items:
        call = self._kept(line, row, callid)
        start_ms = self._time(row, "start")
        if row.get("end") is not None:
            end_ms = self._time(row, "end")
        else:
            end_ms = start_ms + span_ms("duration", row.get("duration"))
        self._now_ms = end_ms
        status, answer_ms = status_of(row.get("status")), None
        told = row.get("answer") is not None or call.answer_ms is not None
        if status < 300 if status is not None else told or end_ms > start_ms:
            answer_ms = self._time(row, "answer", start_ms if call.answer_ms is None else call.answer_ms)
        call.start_ms = start_ms if call.start_ms is None else min(call.start_ms, start_ms)
        times = _Times(start_ms, answer_ms, end_ms)
        events = self._events(row, callid, call, times, status, _releaser(row, call))
        return self._over(line, callid, call, events, waits=self._acc_seen and status is None)

    def _over(self, line: Line, callid: str, call: _Open, events: list[Call], *, waits: bool) -> Items:
        """Give a call, of which all that comes later says nothing new; or keep what an end says while more may come."""
        if waits:
            if not call.told or events[0].sip_status is not None:
                call.told, call.told_ms = events, self._now_ms
                self._calls.move(callid, self._told)
            return [item for other in self._told.surplus() for item in _left(other)]
        self._calls.drop(callid)
        self._told.drop(callid)
        self._ended.hold(callid)
        self._ended.surplus()
        return converted(line.position, line.data, events)

    def _kept(self, line: Line, row: Row, callid: str) -> _Open:
        """Keep who a call is between, as the first row says that names both."""
        calls = self._told if callid in self._told else self._calls
        call = calls.hold(callid, b"" if callid in calls else head(line.data))
        if not call.position:
            call.position, call.record = line.position, head(line.data)
        if call.caller is None:
            call.caller = row.get("caller")
        if call.callee is None:
            call.callee = row.get("callee")
        if call.from_tag is None:
            call.from_tag, call.to_tag = row.get("from_tag"), row.get("to_tag")
        elif not call.to_tag:
            call.to_tag = row.get("to_tag")
        return call

    def _events(
        self, row: Row, callid: str, call: _Open, times: _Times, status: int | None, by: End | None
    ) -> list[Call]:
        call_id, q850, reason = self._tokens.opaque(callid), row.get("q850"), row.get("reason")
        trunk, sbc, end_ms = row.get("trunk"), row.get("sbc"), times.end_ms
        if end_ms < times.start_ms:
            end_ms = self._times.not_before(times.start_ms, end_ms)
        return [
            Call(
                call_id=call_id,
                customer_id=side.customer_id,
                start_ms=times.start_ms,
                end_ms=end_ms,
                answer_ms=times.answer_ms,
                direction=side.direction,
                peer_id=side.peer_id,
                sip_status=status,
                q850=q850_of(q850),
                reason=reason_of(reason),
                released_by=released_by(side, by),
                trunk=place_of(self._tokens, trunk),
                sbc=place_of(self._tokens, sbc),
            )
            for side in self._parties.sides(call.caller, call.callee)
        ]

    def _time(self, row: Row, name: str, otherwise: int | None = None) -> int:
        text = row.get(name)
        return otherwise if text is None and otherwise is not None else time_of(self._times, _FIELDS[name][0], text)


def _says(field: str, value: str) -> bool:
    """Tell whether a value says something: no printed null, and of a time that may come later no 0."""
    if not value or value == _PRINTED_NULL:
        return False
    return value[0] != "0" or field not in _LATER or _ZERO.fullmatch(value) is None


def _releaser(row: Row, call: _Open) -> End | None:
    """Tell who sent BYE: its From tag is the sender's."""
    tag, event, method = row.get("from_tag"), row.get("event"), row.get("method")
    if tag is None or call.from_tag is None or method not in (None, "BYE") or (method is None and event is None):
        return None
    if tag == call.from_tag:
        return "caller" if event is None else None
    return "callee" if call.from_tag == row.get("to_tag") or tag == call.to_tag else None


def _left(call: _Open) -> list[Converted | Reject]:
    """Return what a call gives of which no more is awaited."""
    if call.told:
        return converted(call.position, call.record, call.told)
    if call.answer_ms is None:
        return []  # its row is a dead letter already
    detail = "an answered call must have a row or an event of its end, none came"
    return [refused(call.position, DeadReason.TRUNCATED, detail, call.record)]
