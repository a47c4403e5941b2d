"""RFC 6035 voice quality reports (`application/vq-rtcpxr`), one after the other.

A report begins with a line `VQSessionReport`, `VQIntervalReport` or `VQAlertReport` and ends where the next one
does; where it is silent, the headers of the SIP message that brought it (`PUBLISH ...`) speak. A session report, which
a phone sends when the call ends, becomes a `call`; interval and alert reports become `media`.

What phones write instead of the RFC's text, and is read alike: `TimeStamps`; `FromID` and `ToID` for `LocalID` and
`RemoteID`; `Metrics:` for `LocalMetrics:`; `=` for `:` behind a name; spaces missing or too many; other case; lines in
another order, folded, indented or without their name; no `CallTerm`; an id for the call in `DialogID` alone.

The customer is the reporter, `LocalID`, unless only the remote end is known as one; a report without `LocalID` is of
whom its message is `From`, or of the device at `LocalAddr` if that address is public or in `customers_file` (private
ones are the same in every home). A report without `Timestamps` was made at its message's `Date`: it says how a call
was and not when it began, so it becomes `media` whatever its name. `OrigID` says who called. Of local and remote
metrics the worse one counts. MOS-CQ, which knows of the delay, is preferred to MOS-LQ; 127 and 0 mean that nothing was
measured (RFC 3611, section 4.7), and so does a round trip of 0.
"""

import ipaddress
import re
from collections.abc import Iterator

from schemas.deadletters import DeadReason
from schemas.events import Direction
from schemas.formats import BOM, HEAD_BYTES, RECORD_BYTES_MAX, UTF16_BYTES, Options, require_utf8
from schemas.formats.agents import agent_of
from schemas.formats.calls import PAYLOADS, Call, Media, Parties, Side, lower, worse
from schemas.formats.identity import Tokens
from schemas.formats.masks import refused
from schemas.formats.memory import remembered
from schemas.formats.names import codec_of
from schemas.formats.records import Items, converted, decoded, time_of, too_large
from schemas.formats.rows import Unfit
from schemas.formats.times import TimeReader

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "codec", "mos", "loss_ratio",
    "discard_ratio", "jitter_ms", "rtt_ms", "cpe_model", "cpe_firmware",
)  # fmt: skip
LACKS = (
    "No release cause, nobody who released, no failed attempts and no packet counts: drops, set-up failures and "
    "one-way audio cannot be seen. A phone that loses its power or its line sends no report."
)

_START = re.compile(rb"VQ(?:Session|Interval|Alert)Report\b")
_NAMED = re.compile(rb"VQ(?:Session|Interval|Alert)Report")
_MESSAGE = re.compile(rb"^(?:(?:PUBLISH|NOTIFY) [^\r\n]{1,512} SIP/2\.0|SIP/2\.0 [0-9])", re.MULTILINE)
_FROM = re.compile(rb"^(?:From|f)[ \t]*:[ \t]*([^\r\n]{1,512})", re.MULTILINE | re.IGNORECASE)
_DATE = re.compile(rb"^Date[ \t]*:[ \t]*([^\r\n]{1,40})", re.MULTILINE | re.IGNORECASE)
_AGENT = re.compile(rb"^User-Agent[ \t]*:[ \t]*([^\r\n]{1,256})", re.MULTILINE | re.IGNORECASE)
_SIP_DATE = "%a, %d %b %Y %H:%M:%S GMT"
"""RFC 3261, section 25.1."""

_FOLDED = re.compile(rb"\r?\n[ \t]+(?![ \t]*[A-Za-z-]{2,20}[ \t]*:)")
"""A line goes on in the next one that is indented, if that has no name of its own."""

_SPAN = re.compile(rb"START[ \t]*=[ \t]*([0-9][0-9T:.+Z-]{9,40})[ \t]*STOP[ \t]*=[ \t]*([0-9][0-9T:.+Z-]{9,40})")
_TIMES = {
    name: re.compile(name + rb"[ \t]*=[ \t]*([0-9][0-9T:.+Z-]{9,40})", re.IGNORECASE) for name in (b"START", b"STOP")
}
_MEASURES = re.compile(rb"(NLR|JDR|IAJ|RTD|MOSLQ|MOSCQ) ?= ?([0-9]{1,6}(?:\.[0-9]{1,6})?)")
_PLACES = {b"MOSCQ": 0, b"MOSLQ": 1, b"NLR": 2, b"JDR": 3, b"IAJ": 4, b"RTD": 5}
_CODEC = re.compile(rb"(?<![A-Z])PD[ \t]*=[ \t]*([A-Z0-9._/-]{1,32}(?: [AU]-LAW)?)")
_PAYLOAD = re.compile(rb"(?<![A-Z])PT[ \t]*=[ \t]*([0-9]{1,3})")
_ADDRESS = re.compile(rb"IP[ \t]*[=:][ \t]*([0-9A-F.:]{2,45})", re.IGNORECASE)

_FIRST = (
    "CALLID", "DIALOGID", "LOCALID", "FROMID", "REMOTEID", "TOID", "ORIGID", "LOCALADDR", "X-USERAGENT", "SESSIONDESC",
    "TIMESTAMPS",
)  # fmt: skip
"""Lines of which the first one of the name counts."""

_USUAL = re.compile(
    rb"VQ[A-Za-z]+(?::[^\n]*)?\r?\nCallID:([^\n]*)\nLocalID:([^\n]*)\nRemoteID:([^\n]*)\nOrigID:([^\n]*)\n"
    rb"(?:LocalGroup:[^\n]*\n)?(?:RemoteGroup:[^\n]*\n)?LocalAddr:([^\n]*)\n(?:LocalMAC:[^\n]*\n)?"
    rb"RemoteAddr:[^\n]*\n(?:RemoteMAC:[^\n]*\n)?LocalMetrics:[ \t]*\r?\n"
    rb"Time[Ss]tamps:([^\n]*)\n(?:SessionDesc:([^\n]*)\n)?(?:JitterBuffer:[^\n]*\n)?PacketLoss:([^\n]*)\n"
    rb"(?:BurstGapLoss:[^\n]*\n)?Delay:([^\n]*)\n(?:Signal:[^\n]*\n)?QualityEst:([^\n]*)\n"
    rb"(?:DialogID:([^\n]*)\n)?(?:\r?\n)*"
)
"""A report in the order of the RFC (section 4.6.1) without remote metrics, which is what most phones write: read at
once instead of line by line, three times as fast."""

_MEASURED, _NEAR, _FAR, _UNKNOWN, _NOTHING = range(len(_FIRST), len(_FIRST) + 5)
_KINDS = {name: kind for kind, name in enumerate(_FIRST)} | {
    "PACKETLOSS": _MEASURED, "DELAY": _MEASURED, "QUALITYEST": _MEASURED, "LOCALMETRICS": _NEAR, "METRICS": _NEAR,
    "REMOTEMETRICS": _FAR, "": _NOTHING, "BURSTGAPLOSS": _NOTHING, "JITTERBUFFER": _NOTHING, "LOCALGROUP": _NOTHING,
    "LOCALMAC": _NOTHING, "REMOTEADDR": _NOTHING, "REMOTEGROUP": _NOTHING, "REMOTEMAC": _NOTHING, "SIGNAL": _NOTHING,
    "VQALERTREPORT": _NOTHING, "VQINTERVALREPORT": _NOTHING, "VQSESSIONREPORT": _NOTHING, "X-SIPMETRICS": _NOTHING,
    "X-SIPTERM": _NOTHING,
}  # fmt: skip
"""What a line is, by its name."""

_LINE_END = 10

Measures = list[float | None]
"""What was measured at one end, by `_PLACES`."""


def open_vqrtcpxr(options: Options) -> "VqrtcpxrReader":
    """Open one input of reports.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return VqrtcpxrReader(options.required_tokens(), options.timezone)


class VqrtcpxrReader:
    """One open input of reports. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens, timezone: str) -> None:
        self._tokens = tokens
        self._parties = Parties(tokens)
        self._times = TimeReader(("iso",), timezone, day_first=None)
        self._dates = TimeReader((_SIP_DATE,), "UTC", day_first=None)
        self._cutter = _Cutter()
        self._first = b""
        self._headers = b""
        """Of the message in which the next report lies."""

    def feed(self, chunk: bytes) -> Items:
        """Take the next bytes; return what they completed.

        Raises:
            InputError: they are UTF-16.
        """
        if len(self._first) < UTF16_BYTES:
            self._first += chunk[:UTF16_BYTES]
            require_utf8(self._first)
        return [item for found in self._cutter.feed(chunk) for item in self._taken(*found)]

    def finish(self) -> Items:
        """Return the last report."""
        return [item for found in self._cutter.feed(b"", final=True) for item in self._taken(*found)]

    def _taken(self, position: int, data: bytes, too_long: bool) -> Items:  # noqa: FBT001 - as the cutter gives it
        headers, self._headers = self._headers, b""
        if too_long:
            return [too_large(position, data)]
        data = data.removeprefix(BOM).removesuffix(BOM)
        message = _MESSAGE.search(data) if b"SIP/2.0" in data else None
        if message is not None:
            self._headers = data[message.start() :]
        if _START.match(data) is None:
            # Before the first report stand the headers of its message, or nothing that belongs here.
            known = not data or data.isspace() or (message is not None and _NAMED.search(data) is None)
            rule = "a report must begin a line with VQSessionReport, VQIntervalReport or VQAlertReport, did not"
            return [] if known else [refused(position, DeadReason.NOT_JSON, rule, data)]
        report = data if message is None else data[: message.start()]
        try:
            return converted(position, report, [self._event(report, headers)])
        except Unfit as unfit:
            return [refused(position, unfit.reason, unfit.detail, report)]

    def _event(self, report: bytes, headers: bytes) -> Call | Media:
        """Return the event of one report."""
        first, near, far = _read(report)
        called, dialog, local_id, from_id, remote_id, to_id, origin, address, user_agent, description, times = first
        name = (called or b"").strip() or (dialog or b"").partition(b";")[0].strip()
        if not name:
            raise Unfit(DeadReason.MISSING_FIELD, "CallID must be present, was absent")
        call_id = self._tokens.opaque(decoded(name))
        start_ms, stop_ms = self._span(report, headers, times)
        local = _said(local_id) or _said(from_id) or self._sender(address, headers)
        remote = _said(remote_id) or _said(to_id)
        side = self._parties.leg_side(local, remote, of_callee=False)
        codec = _codec(description)
        mos, loss_ratio, discard_ratio, jitter_ms, rtt_ms = _worse(near, far)
        if start_ms is None or not report.startswith(b"VQSession"):
            start_ms = stop_ms if start_ms is None else start_ms
            if stop_ms < start_ms:
                raise Unfit(DeadReason.INCONSISTENT, "START <= STOP must hold, did not")
            return Media(
                call_id=call_id,
                customer_id=side.customer_id,
                at_ms=stop_ms,
                interval_ms=stop_ms - start_ms,
                codec=codec,
                mos=mos,
                loss_ratio=loss_ratio,
                discard_ratio=discard_ratio,
                jitter_ms=jitter_ms,
                rtt_ms=rtt_ms,
            )
        if user_agent is None and headers:
            found = _AGENT.search(headers)
            user_agent = None if found is None else found[1]
        agent = agent_of(_said(user_agent) if side.direction == "out" else None)
        return Call(
            call_id,
            side.customer_id,
            start_ms,
            stop_ms,
            start_ms,
            self._direction(side, local, remote, _said(origin)),
            side.peer_id,
            codec=codec,
            mos=mos,
            loss_ratio=loss_ratio,
            discard_ratio=discard_ratio,
            jitter_ms=jitter_ms,
            rtt_ms=rtt_ms,
            cpe_model=agent.model,
            cpe_firmware=agent.firmware,
        )

    def _direction(self, side: Side, local: str | None, remote: str | None, origin: str | None) -> Direction | None:
        """Tell who called, by `OrigID`."""
        if origin is None:
            return None
        if origin not in (local, remote):
            uri = origin.partition("<")[2].partition(">")[0] if "<" in origin else origin
            caller = self._tokens.identity(uri.strip())
            return "out" if caller == side.customer_id else "in" if caller == side.peer_id else None
        own = local if side.direction == "out" else remote
        return "out" if origin == own else "in"

    def _span(self, report: bytes, headers: bytes, times: bytes | None) -> tuple[int | None, int]:
        """Return when the report begins, None if nobody says, and when it ends."""
        found = None if times is None else _SPAN.search(times.upper())
        start, stop = (None, None) if found is None else found.groups()
        if found is None:
            start, stop = (None if one is None else one[1] for one in (form.search(report) for form in _TIMES.values()))
        date = _DATE.search(headers) if start is None and stop is None else None
        if date is not None:
            return None, time_of(self._dates, "Date", decoded(date[1]))
        return self._time("Timestamps START", start), self._time("Timestamps STOP", stop)

    def _time(self, name: str, text: bytes | None) -> int:
        return time_of(self._times, name, None if text is None else _upper(text))

    def _sender(self, line: bytes | None, headers: bytes) -> str | None:
        """Return who reports, where the report does not say."""
        sender = _FROM.search(headers)
        if sender is not None:
            return decoded(sender[1])
        found = _ADDRESS.search(b"" if line is None else line)
        address = "" if found is None else found[1].decode("ascii")
        return address if _is_public(address) or self._tokens.identified(address)[1] else None


def _read(report: bytes) -> tuple[list[bytes | None], Measures, Measures | None]:
    """Return the lines of `_FIRST`, and what was measured at the local and the remote end."""
    usual = _USUAL.fullmatch(report)
    if usual is None:
        return _read_lines(_FOLDED.sub(b" ", report) if b"\n " in report or b"\n\t" in report else report)
    called, local, remote, origin, address, times, description, *figures, dialog = usual.groups()
    near: Measures = [None] * len(_PLACES)
    for line in figures:
        for place, value in _measured(line):
            near[place] = value
    return [called, dialog, local, None, remote, None, origin, address, None, description, times], near, None


def _read_lines(report: bytes) -> tuple[list[bytes | None], Measures, Measures | None]:
    """Return the same of a report in any order, line by line."""
    first: list[bytes | None] = [None] * len(_FIRST)
    near: Measures = [None] * len(_PLACES)
    far: Measures | None = None
    part = near
    for line in report.split(b"\n"):
        name, _, rest = line.partition(b":")
        kind = _kind(name)
        if kind == _NOTHING:
            continue
        if kind >= _NEAR:
            if kind == _FAR:
                part = far = [None] * len(_PLACES)
            kind, rest = _within(line if kind == _UNKNOWN else rest)
        if kind < _MEASURED:
            if first[kind] is None:
                first[kind] = rest
        else:
            for place, value in _measured(rest):
                part[place] = value
    return first, near, far


def _within(line: bytes) -> tuple[int, bytes]:
    """Return what stands where no name of a line does: a line behind another name, one with `=`, or figures alone."""
    for mark in (b":", b"="):
        name, _, rest = line.partition(mark)
        kind = _kind(name)
        if kind <= _MEASURED:
            return kind, rest
    return _MEASURED, line


@remembered
def _kind(name: bytes) -> int:
    return _KINDS.get(name.strip().upper().decode("latin-1"), _UNKNOWN)


@remembered
def _said(text: bytes | None) -> str | None:
    return None if text is None else decoded(text).strip() or None


@remembered
def _codec(description: bytes | None) -> str | None:
    """Return the codec that a `SessionDesc` names, or whose payload type it gives."""
    upper = b"" if description is None else description.upper()
    named, typed = _CODEC.search(upper), _PAYLOAD.search(upper)
    codec = None if named is None else codec_of(named[1].decode("ascii"))
    return codec if codec is not None or typed is None else PAYLOADS.get(int(typed[1]))


@remembered
def _measured(line: bytes) -> tuple[tuple[int, float | None], ...]:
    """Return what a line says was measured, each with its place."""
    return tuple((_PLACES[name], _value(name, float(text))) for name, text in _MEASURES.findall(line.upper()))


def _value(name: bytes, number: float) -> float | None:
    if name in (b"MOSCQ", b"MOSLQ"):
        return number if 1.0 <= number <= 5.0 else None
    if name in (b"NLR", b"JDR"):
        return round(number * 0.01, 6) if number <= 100.0 else None
    return number


def _worse(near: Measures, far: Measures | None) -> tuple[float | None, ...]:
    """Return MOS, loss, discards, jitter and round trip of the end that is worse."""
    conversational, listening, loss, discards, jitter, trip = near
    mos = listening if conversational is None else conversational
    if far is None:
        return mos, loss, discards, jitter, trip or None
    far_mos = far[1] if far[0] is None else far[0]
    loss, discards, jitter, trip = map(worse, (loss, discards, jitter, trip), far[2:])
    return lower(mos, far_mos), loss, discards, jitter, trip or None


@remembered
def _upper(text: bytes) -> str:
    return text.decode("ascii").upper()


@remembered
def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


class _Cutter:
    """Cuts a stream of bytes into reports and holds no more than one of them, never longer than a record may be."""

    def __init__(self) -> None:
        self._held = b""
        self._position = 1
        self._head = b""
        """Of the open report, if whole lines of it are no longer held."""
        self._dropped = 0
        """Bytes of it that are no longer held; the last `_tail` of them belong to the line that is open."""
        self._tail = 0
        self._lines = 0
        """Line ends among them."""

    def feed(self, chunk: bytes, *, final: bool = False) -> Iterator[tuple[int, bytes, bool]]:
        """Give what this chunk completes: line, bytes (the head alone if there are too many), whether there are."""
        opened = self._held.rfind(b"\n") + 1
        self._held += chunk
        end = len(self._held) if final else self._held.rfind(b"\n") + 1
        begin = 0
        for start in self._starts(opened, end):
            if start or self._dropped > self._tail:
                # What was dropped of a line goes with the report that begins in it.
                yield self._cut(begin, start, self._tail if start == opened else 0)
                begin = start
        if end > opened:
            self._tail = 0
        self._held = self._held[begin:]
        if final and (self._held or self._dropped):
            yield self._cut(0, len(self._held), 0)
            self._held = b""
        elif len(self._held) > RECORD_BYTES_MAX:
            self._drop()

    def _starts(self, begin: int, end: int) -> list[int]:
        """Return where reports begin: at the beginning of a line."""
        found = []
        at = self._held.find(b"VQ", begin, end)
        while at >= 0:
            line = at - len(BOM) if self._held.endswith(BOM, 0, at) else at
            if (line == 0 or self._held[line - 1] == _LINE_END) and _START.match(self._held, at, end):
                found.append(at)
            at = self._held.find(b"VQ", at + 2, end)
        return found

    def _cut(self, begin: int, end: int, tail: int) -> tuple[int, bytes, bool]:
        """Return the open report; another one begins behind it, of which `tail` bytes are dropped already."""
        too_long = self._dropped - tail + end - begin > RECORD_BYTES_MAX
        data = self._head or self._held[begin:end]
        found = self._position, data[:HEAD_BYTES] if too_long else data, too_long
        self._position += self._lines + self._held.count(b"\n", begin, end)
        self._head, self._dropped, self._tail, self._lines = b"", tail, tail, 0
        return found

    def _drop(self) -> None:
        """Let go of all but the heads of a report and of a line that are too long: another may begin in the line."""
        last = self._held.rfind(b"\n") + 1
        if self._dropped - self._tail + last > RECORD_BYTES_MAX:
            self._head = self._head or self._held[:HEAD_BYTES]
            self._lines += self._held.count(b"\n", 0, last)
            self._dropped += last
            self._held = self._held[last:]
            last = 0
        surplus = len(self._held) - last - HEAD_BYTES
        if self._tail or surplus > RECORD_BYTES_MAX:
            self._held = self._held[: last + HEAD_BYTES]
            self._tail += surplus
            self._dropped += surplus
