"""RFC 6035 voice quality reports (`application/vq-rtcpxr`), one after the other.

A report begins with a line `VQSessionReport`, `VQIntervalReport` or `VQAlertReport` and ends where the next one
does; SIP messages around the bodies (`PUBLISH ...` and its headers) are passed over. A session report, which a phone
sends when the call ends, becomes a `call`; interval and alert reports become `media`.

What phones write instead of the RFC's text, and is read alike: `TimeStamps`; `FromID` and `ToID` for `LocalID` and
`RemoteID`; `Metrics:` for `LocalMetrics:`; `=` for `:` behind a name; spaces missing or too many; other case; ids
behind the metrics; no `CallTerm`; an id for the call in `DialogID` alone.

The customer is the reporter, `LocalID`, unless only the remote end is known as one. `OrigID` says who called. Of local
and remote metrics the worse one counts. MOS-CQ, which knows of the delay, is preferred to MOS-LQ; 127 and 0 mean that
nothing was measured (RFC 3611, section 4.7), and so does a round trip of 0.
"""

import math
import re
from collections.abc import Iterator

from msgspec import Struct

from schemas.deadletters import DeadReason
from schemas.events import Direction
from schemas.formats import HEAD_BYTES, RECORD_BYTES_MAX, Options, Tokens
from schemas.formats.calls import Call, Media, Parties, Side, agent_of, codec_of, lower, worse
from schemas.formats.masks import refused
from schemas.formats.memory import remembered
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
_MESSAGE = re.compile(rb"^(?:PUBLISH|NOTIFY|SIP/2\.0) ", re.MULTILINE)
_START_TIME = re.compile(rb"START[ \t]*=[ \t]*([0-9][0-9T:.+Z-]{9,40})")
_STOP_TIME = re.compile(rb"STOP[ \t]*=[ \t]*([0-9][0-9T:.+Z-]{9,40})")
_SPAN = re.compile(rb"START[ \t]*=[ \t]*([0-9][0-9T:.+Z-]{9,40})[ \t]+STOP[ \t]*=[ \t]*([0-9][0-9T:.+Z-]{9,40})")
_MEASURES = re.compile(rb"(NLR|JDR|IAJ|RTD|MOSLQ|MOSCQ) ?= ?([0-9]{1,6}(?:\.[0-9]{1,6})?)")
_USUAL = re.compile(
    rb"\nCallID:[ \t]*(?P<CALLID>[^\s][^\n]*)\n"
    rb"LocalID:(?P<LOCALID>[^\n]*)\nRemoteID:(?P<REMOTEID>[^\n]*)\nOrigID:(?P<ORIGID>[^\n]*)\n"
)
"""The ids in the order of the RFC: what most phones write, found at once."""

_IDS = frozenset({
    "CALLID", "DIALOGID", "LOCALID", "FROMID", "REMOTEID", "TOID", "ORIGID", "X-USERAGENT",
})  # fmt: skip
"""Names of lines whose text is taken as it is."""

_LINE_END = 10
_CODEC = re.compile(rb"(?<![A-Z])PD[ \t]*=[ \t]*([A-Z0-9._/-]{1,32})")


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
        self._cutter = _Cutter()

    def feed(self, chunk: bytes) -> Items:
        """Take the next bytes; return what they completed."""
        return [item for found in self._cutter.feed(chunk) for item in self._taken(*found)]

    def finish(self) -> Items:
        """Return the last report."""
        return [item for found in self._cutter.feed(b"", final=True) for item in self._taken(*found)]

    def _taken(self, position: int, data: bytes, too_long: bool) -> Items:  # noqa: FBT001 - as the cutter gives it
        if too_long:
            return [too_large(position, data)]
        message = _MESSAGE.search(data) if b"PUBLISH " in data or b"NOTIFY " in data or b"SIP/2.0 " in data else None
        if _START.match(data) is None:
            # Before the first report stand the headers of its message, or nothing that belongs here.
            known = not data or data.isspace() or message is not None
            rule = "a report must begin with VQSessionReport, VQIntervalReport or VQAlertReport, did not"
            return [] if known else [refused(position, DeadReason.NOT_JSON, rule, data)]
        report = data if message is None else data[: message.start()]
        try:
            return converted(position, report, [self._event(report)])
        except Unfit as unfit:
            return [refused(position, unfit.reason, unfit.detail, report)]

    def _event(self, report: bytes) -> Call | Media:
        """Return the event of one report."""
        upper = report.upper()
        ids = _ids(report, upper)
        start_ms, stop_ms = self._span(upper)
        name = ids.get("CALLID", b"").strip() or ids.get("DIALOGID", b"").partition(b";")[0].strip()
        if not name:
            raise Unfit(DeadReason.MISSING_FIELD, "CallID must be present, was absent")
        call_id = decoded(name)
        local = _said(ids.get("LOCALID")) or _said(ids.get("FROMID"))
        remote = _said(ids.get("REMOTEID")) or _said(ids.get("TOID"))
        side = self._parties.leg_side(local, remote, of_callee=False)
        codec = _CODEC.search(upper, max(upper.find(b"SESSIONDESC"), 0))
        codec_name = None if codec is None else codec_of(codec[1].decode("ascii"))
        media = _metrics(upper)
        if not report.startswith(b"VQSession"):
            if stop_ms < start_ms:
                raise Unfit(DeadReason.INCONSISTENT, "START <= STOP must hold, did not")
            return Media(
                call_id=self._tokens.opaque(call_id),
                customer_id=side.customer_id,
                at_ms=stop_ms,
                interval_ms=stop_ms - start_ms,
                codec=codec_name,
                mos=media.mos,
                loss_ratio=media.loss_ratio,
                discard_ratio=media.discard_ratio,
                jitter_ms=media.jitter_ms,
                rtt_ms=media.rtt_ms,
            )
        agent = agent_of(_said(ids.get("X-USERAGENT")) if side.direction == "out" else None)
        return Call(
            call_id=self._tokens.opaque(call_id),
            customer_id=side.customer_id,
            start_ms=start_ms,
            end_ms=stop_ms,
            answer_ms=start_ms,
            direction=self._direction(side, local, remote, _said(ids.get("ORIGID"))),
            peer_id=side.peer_id,
            codec=codec_name,
            mos=media.mos,
            loss_ratio=media.loss_ratio,
            discard_ratio=media.discard_ratio,
            jitter_ms=media.jitter_ms,
            rtt_ms=media.rtt_ms,
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

    def _span(self, upper: bytes) -> tuple[int, int]:
        found = _SPAN.search(upper)
        if found is not None:
            start, stop = found.groups()
        else:
            start, stop = (
                None if one is None else one[1] for one in (_START_TIME.search(upper), _STOP_TIME.search(upper))
            )
        return self._time("Timestamps START", start), self._time("Timestamps STOP", stop)

    def _time(self, name: str, text: bytes | None) -> int:
        return time_of(self._times, name, None if text is None else text.decode("ascii"))


def _ids(report: bytes, upper: bytes) -> dict[str, bytes]:
    """Return what stands on the lines of `_IDS`, the first of each."""
    usual = _USUAL.search(report)
    if usual is not None and b"X-USERAGENT" not in upper:
        return usual.groupdict()
    found: dict[str, bytes] = {}
    for line in report.split(b"\n"):
        name, _, value = line.partition(b":")
        key = _known(name)
        if key is None and b"=" in name:
            name, _, value = line.partition(b"=")
            key = _known(name)
        if key is not None and key not in found:
            found[key] = value
    return found


@remembered
def _known(name: bytes) -> str | None:
    """Return which of `_IDS` a name is."""
    plain = name.strip(b" \t").upper().decode("latin-1")
    return plain if plain in _IDS else None


@remembered
def _said(text: bytes | None) -> str | None:
    return None if text is None else decoded(text).strip() or None


class _Metrics(Struct, gc=False):
    """The media of a report; fields as in an event."""

    mos: float | None
    loss_ratio: float | None
    discard_ratio: float | None
    jitter_ms: float | None
    rtt_ms: float | None


def _metrics(upper: bytes) -> _Metrics:
    """Return the worse of local and remote metrics."""
    # The ids before the first block of figures need not be searched.
    split, begin = upper.find(b"REMOTEMETRICS"), max(upper.find(b"\nLOCALMETRICS"), 0)
    if split < 0:
        near = dict(_MEASURES.findall(upper, begin)).get
        return _Metrics(
            _mos(near(b"MOSCQ"), near(b"MOSLQ")),
            _percent(near(b"NLR")),
            _percent(near(b"JDR")),
            _number(near(b"IAJ")),
            _number(near(b"RTD")) or None,
        )
    near, far = dict(_MEASURES.findall(upper, begin, split)).get, dict(_MEASURES.findall(upper, split)).get
    return _Metrics(
        lower(_mos(near(b"MOSCQ"), near(b"MOSLQ")), _mos(far(b"MOSCQ"), far(b"MOSLQ"))),
        worse(_percent(near(b"NLR")), _percent(far(b"NLR"))),
        worse(_percent(near(b"JDR")), _percent(far(b"JDR"))),
        worse(_number(near(b"IAJ")), _number(far(b"IAJ"))),
        worse(_number(near(b"RTD")), _number(far(b"RTD"))) or None,
    )


@remembered
def _number(text: bytes | None) -> float | None:
    return None if text is None else float(text)


def _mos(conversational: bytes | None, listening: bytes | None) -> float | None:
    score = _score(conversational)
    return _score(listening) if score is None else score


@remembered
def _score(text: bytes | None) -> float | None:
    score = 0.0 if text is None else float(text)
    return score if 1.0 <= score <= 5.0 else None


@remembered
def _percent(text: bytes | None) -> float | None:
    percent = math.inf if text is None else float(text)
    return None if percent > 100.0 else round(percent * 0.01, 6)


class _Cutter:
    """Cuts a stream of bytes into reports and holds no more than one of them, never longer than a record may be."""

    def __init__(self) -> None:
        self._held = bytearray()
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
        del self._held[:begin]
        if final and (self._held or self._dropped):
            yield self._cut(0, len(self._held), 0)
            self._held.clear()
        elif len(self._held) > RECORD_BYTES_MAX:
            self._drop()

    def _starts(self, begin: int, end: int) -> list[int]:
        """Return where reports begin: at the beginning of a line."""
        found = []
        at = self._held.find(b"VQ", begin, end)
        while at >= 0:
            if (at == 0 or self._held[at - 1] == _LINE_END) and _START.match(self._held, at, end):
                found.append(at)
            at = self._held.find(b"VQ", at + 2, end)
        return found

    def _cut(self, begin: int, end: int, tail: int) -> tuple[int, bytes, bool]:
        """Return the open report; another one begins behind it, of which `tail` bytes are dropped already."""
        too_long = self._dropped - tail + end - begin > RECORD_BYTES_MAX
        data = self._head or bytes(self._held[begin:end])
        found = self._position, data[:HEAD_BYTES] if too_long else data, too_long
        self._position += self._lines + self._held.count(b"\n", begin, end)
        self._head, self._dropped, self._tail, self._lines = b"", tail, tail, 0
        return found

    def _drop(self) -> None:
        """Let go of all but the heads of a report and of a line that are too long: another may begin in the line."""
        last = self._held.rfind(b"\n") + 1
        if self._dropped - self._tail + last > RECORD_BYTES_MAX:
            self._head = self._head or bytes(self._held[:HEAD_BYTES])
            self._lines += self._held.count(b"\n", 0, last)
            self._dropped += last
            del self._held[:last]
            last = 0
        surplus = len(self._held) - last - HEAD_BYTES
        if self._tail or surplus > RECORD_BYTES_MAX:
            del self._held[last + HEAD_BYTES :]
            self._tail += surplus
            self._dropped += surplus
