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

import re
from collections.abc import Iterator

from schemas.deadletters import DeadReason
from schemas.formats import HEAD_BYTES, RECORD_BYTES_MAX, Options, Tokens
from schemas.formats.calls import Side, agent_of, codec_of, leg_side, present, worse
from schemas.formats.masks import refused
from schemas.formats.records import Event, Items, converted, decoded, time_of, too_large
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
_ID = re.compile(rb"[ \t]*[:=][ \t]*([^\r\n]*)")
_MOMENT = re.compile(rb"[0-9][0-9T:.+Z-]{9,40}")
_MEASURES = re.compile(rb"(NLR|JDR|IAJ|RTD|MOSLQ|MOSCQ)=([0-9]{1,6}(?:\.[0-9]{1,6})?)")
_BLOCKS = (b"PACKETLOSS", b"DELAY", b"QUALITYEST")
_LINE_END = 10
_WORD = re.compile(rb"[A-Za-z0-9._/-]{1,32}")


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
            return list(converted(position, report, [self._event(report)]))
        except Unfit as unfit:
            return [refused(position, unfit.reason, unfit.detail, report)]

    def _event(self, report: bytes) -> Event:
        """Return the event of one report."""
        plain = report.replace(b" =", b"=").replace(b"= ", b"=")
        upper = plain.upper()
        start_ms, stop_ms = self._time(upper, b"START="), self._time(upper, b"STOP=")
        call_id = _named(plain, upper, b"CALLID") or (_named(plain, upper, b"DIALOGID") or "").partition(";")[0]
        if not call_id:
            raise Unfit(DeadReason.MISSING_FIELD, "CallID must be present, was absent")
        local = _named(plain, upper, b"LOCALID") or _named(plain, upper, b"FROMID")
        remote = _named(plain, upper, b"REMOTEID") or _named(plain, upper, b"TOID")
        side = leg_side(self._tokens, local, remote, of_callee=False)
        codec = _after(plain, upper, b"PD=", _WORD)
        fixed = {"call_id": self._tokens.opaque(call_id), "customer_id": side.customer_id}
        media = {"codec": None if codec is None else codec_of(codec.decode("ascii")), **_metrics(upper)}
        if not report.startswith(b"VQSession"):
            if stop_ms < start_ms:
                raise Unfit(DeadReason.INCONSISTENT, "START <= STOP must hold, did not")
            return present({"type": "media", **fixed, "at_ms": stop_ms, "interval_ms": stop_ms - start_ms, **media})
        agent = agent_of(_named(plain, upper, b"X-USERAGENT") if side.direction == "out" else None)
        return present({
            "type": "call",
            **fixed,
            "peer_id": side.peer_id,
            "direction": self._direction(side, local, remote, _named(plain, upper, b"ORIGID")),
            "start_ms": start_ms,
            "answer_ms": start_ms,
            "end_ms": stop_ms,
            **media,
            "cpe_model": agent.model,
            "cpe_firmware": agent.firmware,
        })  # fmt: skip

    def _direction(self, side: Side, local: str | None, remote: str | None, origin: str | None) -> str | None:
        """Tell who called, by `OrigID`."""
        if origin is None:
            return None
        if origin not in (local, remote):
            uri = origin.partition("<")[2].partition(">")[0] if "<" in origin else origin
            caller = self._tokens.identity(uri.strip())
            return "out" if caller == side.customer_id else "in" if caller == side.peer_id else None
        own = local if side.direction == "out" else remote
        return "out" if origin == own else "in"

    def _time(self, upper: bytes, key: bytes) -> int:
        text = _after(upper, upper, key, _MOMENT)
        return time_of(self._times, f"Timestamps {key[:-1].decode()}", None if text is None else text.decode("ascii"))


def _named(plain: bytes, upper: bytes, key: bytes) -> str | None:
    """Return what stands on the line of that name."""
    at = upper.find(key)
    while at >= 0:
        begin = upper.rfind(b"\n", 0, at) + 1
        found = _ID.match(plain, at + len(key)) if begin == at or upper[begin:at].isspace() else None
        if found is not None:
            return decoded(found[1]).strip() or None
        at = upper.find(key, at + 1)
    return None


def _after(plain: bytes, upper: bytes, key: bytes, value: re.Pattern[bytes]) -> bytes | None:
    """Return what stands behind a key."""
    at = upper.find(key)
    found = None if at < 0 else value.match(plain, at + len(key))
    return None if found is None else found.group()


def _metrics(upper: bytes) -> dict[str, float | None]:
    """Return the worse of local and remote metrics."""
    split = upper.find(b"REMOTEMETRICS")
    # The ids before the first block of figures need not be searched.
    begin = min(at for at in (*map(upper.find, _BLOCKS), len(upper)) if at >= 0)
    local = {key: float(value) for key, value in _MEASURES.findall(upper, begin, len(upper) if split < 0 else split)}
    remote = {} if split < 0 else {key: float(value) for key, value in _MEASURES.findall(upper, split)}
    here, there = _mos(local), _mos(remote)
    return {
        "mos": there if here is None or (there is not None and there < here) else here,
        "loss_ratio": _ratio(local, remote, b"NLR"),
        "discard_ratio": _ratio(local, remote, b"JDR"),
        "jitter_ms": worse(local.get(b"IAJ"), remote.get(b"IAJ")),
        "rtt_ms": worse(local.get(b"RTD"), remote.get(b"RTD")) or None,
    }


def _mos(metrics: dict[bytes, float]) -> float | None:
    for name in (b"MOSCQ", b"MOSLQ"):
        score = metrics.get(name, 0.0)
        if 1.0 <= score <= 5.0:
            return score
    return None


def _ratio(local: dict[bytes, float], remote: dict[bytes, float], key: bytes) -> float | None:
    percent = worse(local.get(key), remote.get(key))
    return None if percent is None or percent > 100.0 else round(percent * 0.01, 6)


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
