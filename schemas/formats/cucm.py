"""Cisco Unified Communications Manager: CDR files joined with CMR files.

A file begins with a row of names and a row of types (`INTEGER,VARCHAR(50),...`); both kinds may follow one another in
one input, each under its own two rows. A CDR is a call between two legs, a CMR the media of one leg as its device
counted them; they belong together by `globalCallID_*` and the leg's call identifier.

A CDR waits for the CMRs of its legs, in bounded memory and in the order of the CDRs; what has not come when the bound
is reached or the input ends is not waited for. A CMR without a CDR (its file is read on its own, or the CDR is gone)
becomes a `media` event of its own, with the `call_id` that the leg's call has; one without a directory number is a
trunk's, of which no customer is known, and becomes none.

**Who released.** Cisco sets the cause of the party that cleared and leaves the other at 0.

**Causes.** `*Cause_value` is Q.850, or a code of Cisco's above 2^16 whose lowest byte is the Q.850 cause it stands for
(393216, a call split by a feature, has none): the raw SIP status is not in a CDR.

**Media.** `varVQMetrics` holds `key=value` pairs between commas or semicolons, in any order, any of them absent; some
versions have a column for each instead. `MLQKav` is the MOS of the whole call, `MLQK` of its last eight seconds; 0 says
that none was measured. Network `latency` depends on synchronised clocks and is not taken.
"""

import re
from functools import lru_cache
from operator import itemgetter
from typing import Any

from schemas.deadletters import DeadReason
from schemas.formats import Line, Options, Tokens, shape
from schemas.formats.calls import (
    NUMBER_CHARS_MAX,
    count,
    heard,
    loss_of,
    mos_of,
    place_of,
    present,
    released_by,
    sides,
    span_of,
    worse,
)
from schemas.formats.masks import refused
from schemas.formats.records import (
    Event,
    Items,
    LineReader,
    Waiting,
    converted,
    csv_row,
    head,
)
from schemas.formats.rows import Unfit

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "q850", "released_by", "codec",
    "mos", "loss_ratio", "jitter_ms", "packets_received", "packets_sent", "trunk",
)  # fmt: skip
LACKS = (
    "No raw SIP status or Reason and no silence before the end; media only with CMR, in the same input, and CMR is off "
    "by default. Without customers_file a call is the caller's alone."
)

_CDR = (
    "globalCallID_callManagerId", "globalCallID_callId", "origLegCallIdentifier", "destLegIdentifier",
    "destLegCallIdentifier", "dateTimeOrigination", "dateTimeConnect", "dateTimeDisconnect", "duration",
    "callingPartyNumber", "originalCalledPartyNumber", "finalCalledPartyNumber", "origCause_value", "destCause_value",
    "origDeviceName", "destDeviceName", "origMediaCap_payloadCapability",
)  # fmt: skip
_CMR = (
    "globalCallID_callManagerId", "globalCallID_callId", "callIdentifier", "dateTimeStamp", "directoryNum", "duration",
    "numberPacketsSent", "numberPacketsReceived", "numberPacketsLost", "jitter", "varVQMetrics", "MLQK", "MLQKav",
)  # fmt: skip
_REQUIRED = {
    "cdr": ("globalCallID_callId", "dateTimeOrigination", "dateTimeDisconnect", "callingPartyNumber"),
    "cmr": ("globalCallID_callId", "callIdentifier", "numberPacketsReceived"),
}

_TYPE = re.compile(r"(?:INTEGER|VARCHAR|UNIQUEIDENTIFIER|CHAR|BIGINT|SMALLINT|TINYINT|FLOAT|TEXT|BIT)(?:\([0-9]+\))?")
_METRIC = re.compile(r"(MLQKav|MLQK)\s*=\s*([0-9]{1,2}(?:\.[0-9]{1,6})?)")
_PHONE = re.compile(r"(?:SEP|ATA|AN[0-9A-F]|VG|BOT|CSF|TCT|TAB)", re.IGNORECASE)
"""How Cisco names devices that are a person's: by MAC address or by user."""

_CAPABILITIES = {
    2: "PCMA", 3: "PCMA", 4: "PCMU", 5: "PCMU", 6: "G722", 7: "G722", 8: "G722", 9: "G723", 10: "G728", 11: "G729",
    12: "G729", 15: "G729", 16: "G729", 18: "GSM", 19: "GSM", 20: "GSM", 86: "iLBC", 90: "opus",
}  # fmt: skip
"""Encoding names (RFC 3551) by Cisco's media capability."""

_CISCO_MIN = 1 << 16

DURATION_S_MAX = 1_000_000
"""Eleven days: no call lasts longer."""


class _Layout:
    """Where the columns of one kind of row stand."""

    def __init__(self, kind: str, names: list[str]) -> None:
        self.kind = kind
        self.width = len(names)
        place = {name.lower(): at for at, name in enumerate(names)}
        wanted = [name for name in (_CDR if kind == "cdr" else _CMR) if name.lower() in place]
        self._names = wanted
        self._cells = itemgetter(*(place[name.lower()] for name in wanted))

    def row(self, cells: list[str]) -> dict[str, str]:
        """Return what is taken of a row."""
        return dict(zip(self._names, self._cells(cells), strict=True))


class _Call:
    """The records of one global call."""

    __slots__ = ("media", "rows")

    def __init__(self) -> None:
        self.rows: list[tuple[int, bytes, dict[str, str]]] = []
        self.media: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        """By the leg's call identifier."""

    def complete(self) -> bool:
        """Tell whether nothing more is awaited: no call that was answered lacks the media of a leg."""
        for _, _, row in self.rows:
            if _whole(row["dateTimeConnect"]) != 0:
                orig, dest = _legs(row)
                if orig not in self.media or dest not in self.media:
                    return False
        return bool(self.rows)


def open_cucm(options: Options) -> "CucmReader":
    """Open one input of CDR rows, CMR rows or both.

    Raises:
        ConfigError: there is no key for tokens.
    """
    return CucmReader(options.required_tokens())


class CucmReader(LineReader):
    """One open input of CDR and CMR rows. See `schemas.formats` for what every format keeps."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self._tokens = tokens
        self._layout: _Layout | None = None
        self._calls: Waiting[_Call] = Waiting(_Call)

    def _record(self, line: Line) -> Items:
        cells = csv_row(line.data)
        if self._is_header(cells):
            return []
        if self._layout is None:
            raise Unfit(DeadReason.NOT_JSON, "a row must stand under a row of names, stood under none")
        if len(cells) != self._layout.width:
            rule = f"a row must have {self._layout.width} columns, had {len(cells)}"
            raise Unfit(DeadReason.NOT_JSON if line.ended else DeadReason.TRUNCATED, rule)
        row = self._layout.row(cells)
        call_id = row["globalCallID_callId"].strip()
        if not call_id:
            raise Unfit(DeadReason.MISSING_FIELD, "globalCallID_callId must be present, was absent")
        key = f"{row.get('globalCallID_callManagerId', '')}-{call_id}"
        if self._layout.kind == "cdr":
            _checked(row)
            self._calls.hold(key, line.data).rows.append((line.position, line.data, row))
        else:
            held = (line.position, head(line.data), row)
            self._calls.hold(key, line.data).media[row["callIdentifier"].strip()] = held
        return self._ready()

    def _rest(self) -> Items:
        return [item for call in self._calls.all() for item in self._given(call)]

    def _ready(self) -> Items:
        """Give calls in order, as far as they are complete or too many wait."""
        items: Items = []
        oldest = self._calls.oldest()
        while oldest is not None and oldest.complete():
            items += self._given(self._calls.pop())
            oldest = self._calls.oldest()
        for call in self._calls.surplus():
            items += self._given(call)
        return items

    def _is_header(self, cells: list[str]) -> bool:
        """Take a row of names; pass over a row of types."""
        if _TYPE.fullmatch(cells[0].strip()) and all(_TYPE.fullmatch(cell.strip()) for cell in cells):
            return True
        if not cells[0].strip("\ufeff \"'").lower().endswith("recordtype") and "globalCallID_callId" not in cells:
            return False
        names = [cell.strip("\ufeff \"'") for cell in cells]
        known = {name.lower() for name in names}
        for kind, required in _REQUIRED.items():
            if known.issuperset(name.lower() for name in required):
                self._layout = _Layout(kind, names)
                return True
        self._layout = None
        raise Unfit(DeadReason.NOT_JSON, "a row of names must be that of a CDR or a CMR file, lacked some")

    def _given(self, call: _Call) -> Items:
        items: Items = []
        for position, record, row in call.rows:
            media = [call.media.get(leg) for leg in _legs(row)]
            whole = b"\n".join([record, *(found[1] for found in media if found is not None)])
            try:
                events = self._events(row, [None if found is None else found[2] for found in media])
            except Unfit as unfit:
                items.append(refused(position, unfit.reason, unfit.detail, whole))
            else:
                items += converted(position, whole, events)
        known = {leg for _, _, row in call.rows for leg in _legs(row)}
        for leg, (position, record, row) in call.media.items():
            if leg not in known:
                items += self._alone(position, record, row)
        return items

    def _alone(self, position: int, record: bytes, row: dict[str, str]) -> Items:
        """Return the media event of a CMR that belongs to no CDR."""
        if not row.get("directoryNum", "").strip():
            return []
        try:
            return list(converted(position, record, [self._media_event(row)]))
        except Unfit as unfit:
            return [refused(position, unfit.reason, unfit.detail, record)]

    def _media_event(self, row: dict[str, str]) -> Event:
        side = sides(self._tokens, row.get("directoryNum"), None)[0]
        heard_there = _heard(row)
        return present({
            "type": "media",
            "call_id": self._id(row, row["callIdentifier"]),
            "customer_id": side.customer_id,
            "at_ms": _time("dateTimeStamp", row.get("dateTimeStamp", "")),
            "interval_ms": min(count(row.get("duration")) or 0, DURATION_S_MAX) * 1000,
            "mos": heard_there["mos"],
            "loss_ratio": heard_there["loss_ratio"],
            "jitter_ms": heard_there["jitter_ms"],
        })  # fmt: skip

    def _events(self, row: dict[str, str], media: list[dict[str, str] | None]) -> list[Event]:
        """Return the events of one CDR with what its legs measured."""
        connect_s, end_ms = (
            _whole(row.get("dateTimeConnect", "0")),
            _time("dateTimeDisconnect", row["dateTimeDisconnect"]),
        )
        orig, dest = _whole(row.get("origCause_value", "")), _whole(row.get("destCause_value", ""))
        fixed = {
            "type": "call",
            "start_ms": _time("dateTimeOrigination", row["dateTimeOrigination"]),
            "answer_ms": connect_s * 1000 if connect_s else None,
            "end_ms": end_ms,
            "q850": _q850(orig, dest),
            "codec": _CAPABILITIES.get(_whole(row.get("origMediaCap_payloadCapability", "")) or 0),
        }
        by = "caller" if orig and not dest else "callee" if dest and not orig else None
        callee = row.get("finalCalledPartyNumber", "").strip() or row.get("originalCalledPartyNumber")
        legs = _legs(row)
        events = []
        for side in sides(self._tokens, row["callingPartyNumber"], callee):
            own = 0 if side.direction == "out" else 1
            far = row.get("destDeviceName" if own == 0 else "origDeviceName", "")
            events.append(
                present({
                    **fixed,
                    "call_id": self._id(row, legs[own]),
                    "customer_id": side.customer_id,
                    "peer_id": side.peer_id,
                    "direction": side.direction,
                    "released_by": released_by(side, by),
                    **_both(media[own], media[1 - own]),
                    "trunk": None if _PHONE.match(far) else place_of(self._tokens, far),
                })
            )  # fmt: skip
        return events

    def _id(self, row: dict[str, str], leg: str) -> str:
        """Return the id of one leg: CDR and CMR name it alike."""
        cluster = row.get("globalCallID_callManagerId", "").strip()
        return self._tokens.opaque(f"{cluster}-{row['globalCallID_callId'].strip()}-{leg.strip()}")


def _checked(row: dict[str, str]) -> None:
    """Refuse at once a CDR whose times are none, so that it does not wait.

    Raises:
        Unfit: it is so.
    """
    for name in ("dateTimeOrigination", "dateTimeDisconnect"):
        _time(name, row[name])
    row.setdefault("dateTimeConnect", "0")
    if _whole(row["dateTimeConnect"]) is None:
        raise Unfit(DeadReason.WRONG_TYPE, f"dateTimeConnect must be a time, was {shape(row['dateTimeConnect'])}")


def _legs(row: dict[str, str]) -> tuple[str, str]:
    """Return the call identifiers of the two legs."""
    dest = row.get("destLegIdentifier") or row.get("destLegCallIdentifier") or ""
    return row.get("origLegCallIdentifier", "").strip(), dest.strip()


def _whole(text: str) -> int | None:
    """Return a whole number, which may be negative: Cisco writes codes above 2^31 so."""
    return _number(text) if len(text) <= NUMBER_CHARS_MAX else None


@lru_cache(65_536)
def _number(text: str) -> int | None:
    plain = text.strip()
    if not plain:
        return 0
    digits = plain.removeprefix("-")
    return int(plain) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None


def _time(name: str, text: str) -> int:
    """Return a time in milliseconds; Cisco counts seconds since 1970."""
    seconds = _whole(text)
    if seconds is None or seconds < 0:
        raise Unfit(DeadReason.WRONG_TYPE, f"{name} must be a time in seconds since 1970, was {shape(text)}")
    if seconds == 0:
        raise Unfit(DeadReason.MISSING_FIELD, f"{name} must be present, was 0")
    return seconds * 1000


def _q850(orig: int | None, dest: int | None) -> int | None:
    """Return the release cause of the party that cleared; where both have one, the one that says more than 'normal'."""
    causes = [_cause(value) for value in (orig, dest) if value]
    said = [cause for cause in causes if cause is not None]
    return next((cause for cause in said if cause != 16), said[0] if said else None)


def _cause(value: int) -> int | None:
    if 1 <= value <= 127:
        return value
    low = value & 0xFF
    return low if (value >= _CISCO_MIN or value < 0) and 1 <= low <= 127 else None


def _heard(row: dict[str, str]) -> dict[str, Any]:
    """Return the media of one leg."""
    metrics = dict(_METRIC.findall(row.get("varVQMetrics", "")))
    average = mos_of(metrics.get("MLQKav", row.get("MLQKav")))
    mos = mos_of(metrics.get("MLQK", row.get("MLQK"))) if average is None else average
    received, sent = count(row["numberPacketsReceived"]), count(row.get("numberPacketsSent"))
    audible = heard(received, sent, mos)
    return {
        "mos": audible.mos,
        "loss_ratio": None if audible.received == 0 else loss_of(row.get("numberPacketsLost"), received),
        "jitter_ms": None if audible.received == 0 else span_of(row.get("jitter")),
        "packets_received": audible.received,
        "packets_sent": audible.sent,
    }


def _both(own: dict[str, str] | None, other: dict[str, str] | None) -> dict[str, Any]:
    """Return the media of a call: the worse of what both devices had; a direction that one found silent is silent."""
    if own is None or other is None:
        row = other if own is None else own
        return {} if row is None else _heard(row)
    here, there = _heard(own), _heard(other)
    silent = there["packets_received"] is not None and there["packets_received"] == 0 != here["packets_received"]
    counts = there if silent else here
    scores = [score for score in (here["mos"], there["mos"]) if score is not None]
    return {
        "mos": min(scores) if scores and counts["packets_received"] != 0 else None,
        "loss_ratio": worse(here["loss_ratio"], there["loss_ratio"]),
        "jitter_ms": worse(here["jitter_ms"], there["jitter_ms"]),
        "packets_received": counts["packets_received"],
        "packets_sent": counts["packets_sent"],
    }
