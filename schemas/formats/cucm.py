"""Cisco Unified Communications Manager: CDR files joined with CMR files.

A file begins with a row of names and a row of types (`INTEGER,VARCHAR(50),...`); both kinds may follow one another in
one input, each under its own two rows. A CDR is a call between two legs, a CMR the media of one leg as its device
counted them; they belong together by `globalCallID_*` and the leg's call identifier.

A CDR waits for the CMRs of its legs, which may be in another file, in bounded memory and in the order of the CDRs. What
has not come when the bound is reached or the input ends is not waited for, nor what should have come before CMRs of
`WAIT_S` later (in an input without end, before any record of then, of files that come whole one of a file before: CMR
may be off). A CMR without a CDR (its file is
read on its own, or the CDR is gone) becomes a `media` event of its own, with the `call_id` that the leg's call has; one
without a directory number is a trunk's, of which no customer is known, and becomes none.

**Who released.** Cisco sets the cause of the party that cleared and leaves the other at 0.

**Causes.** `*Cause_value` is Q.850, or a code of Cisco's above 2^16 whose lowest byte is the Q.850 cause it stands for
(393216, a call split by a feature, has none): the raw SIP status is not in a CDR.

**Media.** `varVQMetrics` holds `key=value` pairs between commas or semicolons, in any order, any of them absent; some
versions have a column for each instead. `MLQKav` is the MOS of the whole call, `MLQK` of its last eight seconds; 0 says
that none was measured. Network `latency` depends on synchronised clocks and is not taken.
"""

import re

from msgspec import Struct, field

from schemas.deadletters import DeadReason
from schemas.formats import Line, Options, shape
from schemas.formats.calls import (
    NUMBER_CHARS_MAX,
    Call,
    End,
    Heard,
    Media,
    Parties,
    count,
    heard,
    loss_of,
    lower,
    mos_of,
    packets_of,
    released_by,
    span_of,
    worse,
)
from schemas.formats.identity import Tokens
from schemas.formats.masks import refused
from schemas.formats.memory import remembered
from schemas.formats.names import place_of
from schemas.formats.records import Items, JoiningReader, Records, Waiting, converted, csv_row, head
from schemas.formats.rows import Unfit

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "q850", "released_by", "codec",
    "mos", "loss_ratio", "jitter_ms", "packets_received", "packets_sent", "trunk",
)  # fmt: skip
LACKS = (
    "No raw SIP status or Reason and no silence before the end; media only with CMR, in the same input, and CMR is off "
    "by default. Without customers_file a call is the caller's alone."
)


class _Cdr(Struct, gc=False):
    """What is taken of a call. Columns are told by their names in lower case."""

    cluster: str = field(default="", name="globalcallid_callmanagerid")
    call: str = field(default="", name="globalcallid_callid")
    orig_leg: str = field(default="", name="origlegcallidentifier")
    dest_leg: str = field(default="", name="destlegidentifier")
    dest_leg_call: str = field(default="", name="destlegcallidentifier")
    origination: str = field(default="", name="datetimeorigination")
    connect: str = field(default="", name="datetimeconnect")
    disconnect: str = field(default="", name="datetimedisconnect")
    caller: str = field(default="", name="callingpartynumber")
    original_called: str = field(default="", name="originalcalledpartynumber")
    final_called: str = field(default="", name="finalcalledpartynumber")
    orig_cause: str = field(default="", name="origcause_value")
    dest_cause: str = field(default="", name="destcause_value")
    orig_device: str = field(default="", name="origdevicename")
    dest_device: str = field(default="", name="destdevicename")
    capability: str = field(default="", name="origmediacap_payloadcapability")

    def legs(self) -> tuple[str, str]:
        """Return the call identifiers of the two legs."""
        return self.orig_leg.strip(), self.dest_leg.strip() or self.dest_leg_call.strip()


class _Cmr(Struct, gc=False):
    """What is taken of the media of a leg."""

    cluster: str = field(default="", name="globalcallid_callmanagerid")
    call: str = field(default="", name="globalcallid_callid")
    leg: str = field(default="", name="callidentifier")
    time: str = field(default="", name="datetimestamp")
    number: str = field(default="", name="directorynum")
    duration: str = field(default="", name="duration")
    sent: str = field(default="", name="numberpacketssent")
    received: str = field(default="", name="numberpacketsreceived")
    lost: str = field(default="", name="numberpacketslost")
    jitter: str = field(default="", name="jitter")
    metrics: str = field(default="", name="varvqmetrics")
    mlqk: str = field(default="", name="mlqk")
    mlqk_average: str = field(default="", name="mlqkav")


_REQUIRED = {
    "cdr": ("globalCallID_callId", "dateTimeOrigination", "dateTimeDisconnect", "callingPartyNumber"),
    "cmr": ("globalCallID_callId", "callIdentifier", "numberPacketsReceived"),
}

_TYPE = re.compile(
    r"(?:INTEGER|STRING|VARCHAR|UNIQUEIDENTIFIER|CHAR|BIGINT|SMALLINT|TINYINT|FLOAT|TEXT|BIT)(?:\([0-9]+\))?"
)
_AVERAGE, _LATEST = (re.compile(rf"{key}\s*=\s*([0-9]{{1,2}}(?:\.[0-9]{{1,6}})?)") for key in ("MLQKav", "MLQK"))
_PHONE = re.compile(r"(?:SEP|ATA|AN[0-9A-F]|VG|BOT|CSF|TCT|TAB)", re.IGNORECASE)
"""How Cisco names devices that are a person's: by MAC address or by user."""

_CAPABILITIES: dict[int | None, str] = {
    2: "PCMA", 3: "PCMA", 4: "PCMU", 5: "PCMU", 6: "G722", 7: "G722", 8: "G722", 9: "G723", 10: "G728", 11: "G729",
    12: "G729", 15: "G729", 16: "G729", 18: "GSM", 19: "GSM", 20: "GSM", 86: "iLBC", 90: "opus",
}  # fmt: skip
"""Encoding names (RFC 3551) by Cisco's media capability."""

_CISCO_MIN = 1 << 16

WAIT_S = 600
"""So much later CMRs come, by their own times: nodes write a file a minute and the publisher hands them on in turn."""

DURATION_S_MAX = 1_000_000
"""Eleven days: no call lasts longer."""


class _Ended(Struct, gc=False):
    """A CDR that waits for the media of its legs.

    Attributes:
        position, record: where it stood, and what.
        legs: the call identifiers of the caller's leg and of the callee's.
    """

    position: int
    record: bytes
    row: _Cdr
    legs: tuple[str, str]
    start_ms: int
    end_ms: int
    answer_ms: int | None


class _Call:
    """The records of one global call."""

    __slots__ = ("awaited", "ended_s", "media", "rows")

    def __init__(self) -> None:
        self.ended_s = 0
        """By the newest of its records."""
        self.rows: list[_Ended] = []
        self.media: dict[str, tuple[int, bytes, _Cmr]] = {}
        """By the leg's call identifier."""
        self.awaited: set[str] = set()
        """Legs of calls that were answered whose media have not come."""

    def end(self, ended: _Ended) -> None:
        """Take a CDR."""
        self.rows.append(ended)
        if ended.answer_ms is not None:
            self.awaited.update(leg for leg in ended.legs if leg not in self.media)

    def hear(self, position: int, record: bytes, row: _Cmr) -> None:
        """Take the media of a leg."""
        leg = row.leg.strip()
        self.media[leg] = position, head(record), row
        self.awaited.discard(leg)

    def complete(self) -> bool:
        """Tell whether nothing more is awaited: no call that was answered lacks the media of a leg."""
        return bool(self.rows) and not self.awaited


def open_cucm(options: Options) -> "CucmReader":
    """Open one input of CDR rows, CMR rows or both.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return CucmReader(options.required_tokens(), endless=options.endless, whole_files=options.whole_files)


class CucmReader(JoiningReader):
    """One open input of CDR and CMR rows. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens, *, endless: bool = False, whole_files: bool = False) -> None:
        super().__init__()
        self._endless = endless and not whole_files
        self._whole_files = whole_files
        self._last_s = self._last_before_s = 0
        """When the last CDR was, of this file and of the one before."""
        self._now_s = 0
        self._tokens = tokens
        self._parties = Parties(tokens)
        self._cdrs, self._cmrs = Records(_Cdr), Records(_Cmr)
        self._kind = ""
        self._calls: Waiting[_Call] = Waiting(_Call)

    def _record(self, line: Line) -> Items:
        cells = csv_row(line.data)
        if self._is_header(cells):
            return []
        if not self._kind:
            raise Unfit(DeadReason.NOT_JSON, "a row must stand under a row of names, stood under none")
        if self._kind == "cdr":
            cdr = self._cdrs.of_row(cells)
            ended = _ended(line, cdr)
            self._held(cdr, line, cdr.disconnect).end(ended)
        else:
            cmr = self._cmrs.of_row(cells)
            self._held(cmr, line, cmr.time).hear(line.position, line.data, cmr)
        return self._ready()

    def _held(self, row: _Cdr | _Cmr, line: Line, time: str) -> _Call:
        call_id = row.call.strip()
        if not call_id:
            raise Unfit(DeadReason.MISSING_FIELD, "globalCallID_callId must be present, was absent")
        call, time_s = self._calls.hold(f"{row.cluster}-{call_id}", line.data), _whole(time) or 0
        call.ended_s = max(call.ended_s, time_s)
        if isinstance(row, _Cdr):
            self._last_s = time_s
        if self._endless or isinstance(row, _Cmr):
            # Not the newest of all: one record with a wrong clock must not end the waiting for ever.
            self._now_s = time_s
        return call

    def turn(self, *, torn: bool = False) -> Items:
        """Say that another file begins; return what was left, and what has waited for this one in vain."""
        items = super().turn(torn=torn)
        if not self._whole_files:
            return items
        self._now_s, self._last_before_s = self._last_before_s, self._last_s
        return items + self._ready()

    def _rest(self) -> Items:
        return [item for call in self._calls.all() for item in self._given(call)]

    def _ready(self) -> Items:
        """Give calls in order, as far as they are complete or too many wait."""
        items: Items = []
        oldest = self._calls.oldest()
        while oldest is not None and (oldest.complete() or oldest.ended_s + WAIT_S < self._now_s):
            items += self._given(self._calls.pop())
            oldest = self._calls.oldest()
        for call in self._calls.surplus():
            items += self._given(call)
        return items

    def _is_header(self, cells: list[str]) -> bool:
        """Take a row of names; pass over a row of types."""
        if cells[0].isdecimal():
            return False
        if _TYPE.fullmatch(cells[0].strip()) and all(_TYPE.fullmatch(cell.strip()) for cell in cells):
            return True
        if not cells[0].strip("\ufeff \"'").lower().endswith("recordtype") and "globalCallID_callId" not in cells:
            return False
        names = [cell.strip("\ufeff \"'") for cell in cells]
        known = {name.lower() for name in names}
        for kind, required in _REQUIRED.items():
            if known.issuperset(name.lower() for name in required):
                self._kind = kind
                rows = self._cdrs if kind == "cdr" else self._cmrs
                rows.named([name.lower() for name in names])
                return True
        self._kind = ""
        raise Unfit(DeadReason.NOT_JSON, "a row of names must be that of a CDR or a CMR file, lacked some")

    def _given(self, call: _Call) -> Items:
        items: Items = []
        for ended in call.rows:
            found = [call.media.get(leg) for leg in ended.legs]
            whole = b"\n".join([ended.record, *(one[1] for one in found if one is not None)])
            try:
                events = self._events(ended, [None if one is None else one[2] for one in found])
            except Unfit as unfit:
                items.append(refused(ended.position, unfit.reason, unfit.detail, whole))
            else:
                items += converted(ended.position, whole, events)
        for leg, (position, record, media) in call.media.items():
            if not any(leg in ended.legs for ended in call.rows):
                items += self._alone(position, record, media)
        return items

    def _alone(self, position: int, record: bytes, row: _Cmr) -> Items:
        """Return the media event of a CMR that belongs to no CDR."""
        if not row.number.strip():
            return []
        try:
            return converted(position, record, [self._media_event(row)])
        except Unfit as unfit:
            return [refused(position, unfit.reason, unfit.detail, record)]

    def _media_event(self, row: _Cmr) -> Media:
        side, audible = self._parties.sides(row.number, None)[0], _heard(row)
        return Media(
            call_id=self._id(row, row.leg),
            customer_id=side.customer_id,
            at_ms=_time("dateTimeStamp", row.time),
            interval_ms=min(count(row.duration) or 0, DURATION_S_MAX) * 1000,
            mos=audible.mos,
            loss_ratio=_loss(row, audible),
            jitter_ms=_jitter(row, audible),
        )

    def _events(self, ended: _Ended, media: list[_Cmr | None]) -> list[Call]:
        """Return the events of one CDR with what its legs measured."""
        row = ended.row
        q850, by = _release((row.orig_cause, row.dest_cause))
        callee = row.final_called.strip() or row.original_called
        events = []
        for side in self._parties.sides(row.caller, callee):
            own = 0 if side.direction == "out" else 1
            far = row.dest_device if own == 0 else row.orig_device
            audible, loss, jitter_ms = _both(media[own], media[1 - own])
            events.append(
                Call(
                    self._id(row, ended.legs[own]),
                    side.customer_id,
                    ended.start_ms,
                    ended.end_ms,
                    ended.answer_ms,
                    side.direction,
                    side.peer_id,
                    q850=q850,
                    released_by=released_by(side, by),
                    codec=_codec(row.capability),
                    mos=audible.mos,
                    loss_ratio=loss,
                    jitter_ms=jitter_ms,
                    packets_received=audible.received,
                    packets_sent=audible.sent,
                    trunk=None if _is_phone(far) else place_of(self._tokens, far),
                )
            )
        return events

    def _id(self, row: _Cdr | _Cmr, leg: str) -> str:
        """Return the id of one leg: CDR and CMR name it alike."""
        return self._tokens.opaque(f"{row.cluster.strip()}-{row.call.strip()}-{leg.strip()}")


def _ended(line: Line, row: _Cdr) -> _Ended:
    """Return a CDR as it waits; one whose times are none is refused at once and does not wait.

    Raises:
        Unfit: it is so.
    """
    start_ms, end_ms = _time("dateTimeOrigination", row.origination), _time("dateTimeDisconnect", row.disconnect)
    connect_s = _whole(row.connect)
    if connect_s is None:
        raise Unfit(DeadReason.WRONG_TYPE, f"dateTimeConnect must be a time, was {shape(row.connect)}")
    answer_ms = connect_s * 1000 if connect_s else None
    return _Ended(line.position, line.data, row, row.legs(), start_ms, end_ms, answer_ms)


@remembered
def _whole(text: str) -> int | None:
    """Return a whole number, which may be negative: Cisco writes codes above 2^31 so."""
    plain = text.strip()
    if not plain:
        return 0
    digits = plain.removeprefix("-")
    fits = digits.isascii() and digits.isdigit() and len(digits) <= 12 and len(text) <= NUMBER_CHARS_MAX
    return int(plain) if fits else None


def _time(name: str, text: str) -> int:
    """Return a time in milliseconds; Cisco counts seconds since 1970."""
    seconds = _whole(text)
    if seconds is None or seconds < 0:
        raise Unfit(DeadReason.WRONG_TYPE, f"{name} must be a time in seconds since 1970, was {shape(text)}")
    if seconds == 0:
        raise Unfit(DeadReason.MISSING_FIELD, f"{name} must be present, was 0")
    return seconds * 1000


@remembered
def _release(causes: tuple[str, str]) -> tuple[int | None, End | None]:
    """Return why and by whom a call was released.

    The cause is that of the party that cleared; where both have one, the one that says more than 'normal'.
    """
    orig, dest = map(_whole, causes)
    by: End | None = "caller" if orig and not dest else "callee" if dest and not orig else None
    said = [cause for cause in (_cause(value) for value in (orig, dest) if value) if cause is not None]
    return next((cause for cause in said if cause != 16), said[0] if said else None), by


@remembered
def _codec(capability: str) -> str | None:
    return _CAPABILITIES.get(_whole(capability))


@remembered
def _is_phone(device: str) -> bool:
    return _PHONE.match(device) is not None


def _cause(value: int) -> int | None:
    if 1 <= value <= 127:
        return value
    low = value & 0xFF
    return low if (value >= _CISCO_MIN or value < 0) and 1 <= low <= 127 else None


def _heard(row: _Cmr) -> Heard:
    """Return packets and score of one leg."""
    average = _AVERAGE.search(row.metrics)
    score = mos_of(row.mlqk_average if average is None else average[1])
    if score is None:
        latest = _LATEST.search(row.metrics)
        score = mos_of(row.mlqk if latest is None else latest[1])
    return heard(packets_of(row.received), packets_of(row.sent), score)


def _loss(row: _Cmr, audible: Heard) -> float | None:
    return None if audible.received == 0 else loss_of(row.lost, row.received)


def _jitter(row: _Cmr, audible: Heard) -> float | None:
    return None if audible.received == 0 else span_of(row.jitter)


def _both(own: _Cmr | None, other: _Cmr | None) -> tuple[Heard, float | None, float | None]:
    """Return packets and score, loss and jitter of a call: the worse of what both devices had.

    A direction that one of them found silent is silent.
    """
    if own is None:
        own, other = other, None
    if own is None:
        return Heard(None, None, None), None, None
    here = _heard(own)
    loss, jitter_ms = _loss(own, here), _jitter(own, here)
    if other is None:
        return here, loss, jitter_ms
    there = _heard(other)
    counts = there if there.received == 0 and here.received != 0 else here
    mos = lower(here.mos, there.mos) if counts.received != 0 else None
    return (
        Heard(counts.received, counts.sent, mos),
        worse(loss, _loss(other, there)),
        worse(jitter_ms, _jitter(other, there)),
    )
