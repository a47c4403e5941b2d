"""What ended a call, and how much it looks like a drop.

The same code means different things before and after answer (Q.850 44 is a busy circuit before it, dead media
after it), so every verdict is looked up by phase, cause and clearer, in tables built from `release.toml` at import.

Which source is asked first: a specific cause in the raw `Reason` header (RFC 3326), the raw SIP status, a generic
cause in `Reason` ("normal clearing"), and last `q850`, which switches derive and each in its own way (one 480 is
18, 19 or 20). A source that is null, or says nothing in this phase, is passed over. If all are silent, an answered
call is NORMAL with weight 0 (a missing BYE is no drop), and an unanswered attempt UNKNOWN, or USER if a party
ended it.

A cause that says "normal" does not clear a call: people hang up on a dead line. So the media add soft evidence,
silence before the end or one-way audio. These two are one observation (the stronger counts), independent of the
cause: weight = 1 - (1 - cause) * (1 - media). A short call alone proves nothing (most mobile calls last under
90 s) and has no weight of its own; it makes one-way audio the more telling. That an unavailable (480) attempt rang
is told by Q.850 19 beside it, or by the time that it took: no registrar needs so long to say that nobody is there.

Example:
    >>> ends = CallEnds.of(batch.calls)
    >>> classify(ends).drop_weight
    array([0. , 1. , 0.9], dtype=float32)
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np

from schemas.columns import CallColumns
from schemas.kernels import inlined, loop
from schemas.text import F32, I8, I16, I32, I64, Bools, CodeColumn


class Outcome(IntEnum):
    """What became of a call or of an attempt."""

    NORMAL = 0
    """Ended by intention."""
    USER = 1
    """Not answered, and nobody's fault: busy, no answer, cancelled, misdialled."""
    DROP = 2
    """Answered, and ended against the parties' will."""
    SETUP_FAILURE = 3
    """Not answered, because the network or an endpoint failed."""
    BLOCKED = 4
    """Refused or cut off by policy: barred, no credit, analytics, pre-empted."""
    UNKNOWN = 5
    """Not answered, and no source says why."""
    IGNORED = 6
    """No call of interest: cleared by an administrator, or to be tried again by the endpoint itself."""


DROP_WEIGHT_MIN = 0.5
"""An answered call is named DROP from this weight on: more likely a drop than not."""

RANG_MS = 8_000
"""An attempt that took longer to be unavailable (480) rang: whoever is not registered is refused at once, while phones
ring for ten seconds and more before nobody answers."""

PACKET_MS = 20
"""Usual packetisation (RFC 3551, section 4.2). Up to 60 ms occur: shares of the packets it gives are loose."""

RECEIVED_RATIO_MAX = 0.02
"""Below this share of the packets expected is nothing: silence descriptors alone (AMR: every 160 ms) give 0.125."""

SENT_RATIO_MIN = 0.25
"""As many packets sent show that the source sees media at all; 60 ms packets without a gap give 0.33."""

WHOLE_RATIO = 0.98
"""Silence over this share of the call is no gap at the end: nothing was heard at all."""

UNCONFIRMED = 0.5
"""Factor on the weight where nothing was heard at all and no packet count shows that the source sees media."""


class _Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs from the verdict in one case."""

    outcome: str | None = None
    weight: float | None = None


class _Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An outcome and its weight, by clearer or by direction."""

    outcome: str
    weight: float = 0.0
    party: _Case = _Case()
    network: _Case = _Case()
    inbound: _Case = _Case()
    outbound: _Case = _Case()

    def in_case(self, *cases: str) -> tuple[Outcome, float]:
        """Return the outcome and the weight that hold in all these cases ("" is none)."""
        outcome, weight = self.outcome, self.weight
        for case in (getattr(self, name) for name in cases if name):
            outcome = outcome if case.outcome is None else case.outcome
            weight = weight if case.weight is None else case.weight
        return Outcome[outcome], weight


class _Cause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row: what these codes of this protocol mean in each phase; None says nothing."""

    protocol: str
    meaning: str
    source: str
    codes: list[int] = []
    texts: list[str] = []
    generic: bool = False
    before: str | None = None
    after: str | None = None


class _Hump(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A weight that rises smoothly, stays, and falls smoothly to a part of itself."""

    weight: float
    rise_ms: tuple[int, int]
    fall_ms: tuple[int, int]
    floor: float


class _Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verdict: dict[str, _Verdict]
    unlisted: dict[str, list[tuple[int, int, int]]]
    protocols: dict[str, str]
    silence: _Hump
    one_way: _Hump
    cause: list[_Cause]


_TABLES = msgspec.convert(
    tomllib.loads(resources.files("detectors").joinpath("release.toml").read_text(encoding="utf-8")), _Tables
)

_PHASES = ("before", "after")
_CLEARERS = ("", "party", "network")
_CLEARER_OF = np.array([0, 1, 1, 2, 0], np.int16)
"""Index into `_CLEARERS` by `released_by` + 1: null, customer, peer, network, unknown."""
_DIRECTIONS = ("", "outbound", "inbound")
"""By `direction` + 1."""

# Rows are numbered in the file's order from 1; row 0 is "nothing said".
_NONE = 0
_ROWS = len(_TABLES.cause) + 1
_SPECIFIC = np.array([False, *(not cause.generic for cause in _TABLES.cause)])
_TEXTS = [
    (re.compile(rf"\b{re.escape(text)}\b"), row) for row, cause in enumerate(_TABLES.cause, 1) for text in cause.texts
]


def _rows_by_code() -> dict[tuple[str, int], int]:
    """Return the row of each (protocol, code), codes that are in no row of their own included."""
    rows = {(cause.protocol, code): row for row, cause in enumerate(_TABLES.cause, 1) for code in cause.codes}
    for protocol, ranges in _TABLES.unlisted.items():
        for first, last, stands_for in ranges:
            for code in range(first, last + 1):
                rows.setdefault((protocol, code), rows[protocol, stands_for])
    return rows


def _row_in_phase(row: int, phase: str) -> int:
    """Return the row, or `_NONE` if it says nothing in this phase."""
    says = row != _NONE and getattr(_TABLES.cause[row - 1], phase) is not None
    return row if says else _NONE


def _lookup(protocol: str, codes: int) -> I16:
    """Return the row by phase and code + 1, flat: code -1 and codes that say nothing have `_NONE`."""
    rows = [_ROW_BY_CODE.get((protocol, code), _NONE) for code in range(-1, codes)]
    return np.array([_row_in_phase(row, phase) for phase in _PHASES for row in rows], np.int16)


def _verdicts() -> tuple[I8, F32]:
    """Return outcome and weight by (phase, clearer, direction, row), flat.

    A candidate for a drop is NORMAL here: it becomes a DROP when its final weight is enough.
    """
    silent = {"before": "unknown", "after": "normal"}
    cases = [
        _TABLES.verdict[name].in_case(clearer, direction)
        for phase in _PHASES
        for clearer in _CLEARERS
        for direction in _DIRECTIONS
        for name in (
            silent[phase],
            *(getattr(cause, phase) or silent[phase] for cause in _TABLES.cause),
        )
    ]
    named = [Outcome.NORMAL if outcome == Outcome.DROP else outcome for outcome, _ in cases]
    return np.array(named, np.int8), np.array([case[1] for case in cases], np.float32)


_SIP_CODES, _Q850_CODES = 700, 1024
_ROW_BY_CODE = _rows_by_code()
_SIP_ROW, _Q850_ROW = _lookup("sip", _SIP_CODES), _lookup("q850", _Q850_CODES)
_OUTCOME, _WEIGHT = _verdicts()
_MEDIA_COUNT = np.array([outcome not in {Outcome.BLOCKED, Outcome.IGNORED} for outcome in Outcome])
"""By outcome: whether silence can turn the call into a drop. A call that policy cut off was cut off on purpose."""
_ZERO = np.float32(0.0)
_DROP = np.int8(Outcome.DROP)
_NETWORK = _CLEARERS.index("network")
_RANG = _ROW_BY_CODE["q850", 19]
_SILENT_MS = _TABLES.silence.rise_ms[0]
"""An answered call that ended in longer silence has media evidence."""
_ONE_WAY_MS = _TABLES.one_way.rise_ms[0]


class _Slopes(NamedTuple):
    """A `_Hump` as the loop sees it."""

    weight: float
    rise_from_ms: int
    rise_to_ms: int
    fall_from_ms: int
    fall_to_ms: int
    floor: float

    @classmethod
    def of(cls, hump: _Hump) -> Self:
        return cls(hump.weight, *hump.rise_ms, *hump.fall_ms, hump.floor)


_SILENCE, _ONE_WAY = _Slopes.of(_TABLES.silence), _Slopes.of(_TABLES.one_way)


@dataclass(frozen=True, slots=True)
class CallEnds:
    """What is known of the ends of n calls: one a row, all columns of length n.

    Attributes:
        answered: whether the attempt was ever answered.
        sip_status: 100..699, the status that decided the call; -1 if not known.
        q850: 0..1023; -1 if not known.
        reason: raw `Reason` header values.
        released_by: code into `schemas.columns.RELEASERS`; -1 if not known.
        direction: code into `schemas.columns.DIRECTIONS`; -1 if not known.
        duration_ms: answer to end; start to end if never answered.
        silence_ms: last media packet from the far end to the end of the call; -1 if not known.
        packets_received, packets_sent: -1 if not known.
    """

    answered: Bools
    sip_status: I16
    q850: I16
    reason: CodeColumn
    released_by: I8
    direction: I8
    duration_ms: I64
    silence_ms: I64
    packets_received: I64
    packets_sent: I64

    @classmethod
    def of(cls, calls: CallColumns) -> Self:
        """Take the columns from decoded calls."""
        answered = calls.answer_ms >= 0
        return cls(
            answered=answered,
            sip_status=calls.sip_status,
            q850=calls.q850,
            reason=calls.reason,
            released_by=calls.released_by,
            direction=calls.direction,
            duration_ms=calls.end_ms - np.where(answered, calls.answer_ms, calls.start_ms),
            silence_ms=calls.silence_ms,
            packets_received=calls.packets_received,
            packets_sent=calls.packets_sent,
        )


@dataclass(frozen=True, slots=True)
class Releases:
    """What ended n calls, one a row.

    Attributes:
        outcome: values of `Outcome`.
        drop_weight: 0..1, how much an answered call looks like a drop; 0 if never answered.
        setup_weight: 0..1, how much an unanswered attempt looks like a failure of the network or of the customer's
            line; 0 if the parties caused it, and 0 if answered.
        one_way: answered, 2 s or longer, and (next to) nothing received while packets were sent.
    """

    outcome: I8
    drop_weight: F32
    setup_weight: F32
    one_way: Bools


def classify(ends: CallEnds) -> Releases:
    """Say of each call what ended it. Rows do not affect each other."""
    count = len(ends.answered)
    outcome, one_way = np.empty(count, np.int8), np.empty(count, np.bool_)
    drop_weight, setup_weight = np.empty(count, np.float32), np.empty(count, np.float32)
    columns = _Columns._make([*(getattr(ends, name) for name in _Columns._fields[:-1]), _reason_rows(ends.reason)])
    _judge(columns, ends.reason.codes, _Verdicts(outcome, drop_weight, setup_weight, one_way))
    return Releases(outcome, drop_weight, setup_weight, one_way)


class _Columns(NamedTuple):
    """`CallEnds` as the loop sees them, and the row of each Reason header by phase and code."""

    answered: Bools
    sip_status: I16
    q850: I16
    released_by: I8
    direction: I8
    duration_ms: I64
    silence_ms: I64
    packets_received: I64
    packets_sent: I64
    reason_row: I16


class _Verdicts(NamedTuple):
    """What the loop says."""

    outcome: I8
    drop_weight: F32
    setup_weight: F32
    one_way: Bools


@loop
def _judge(ends: _Columns, reason_code: I32, verdicts: _Verdicts) -> None:
    """Look up each call's verdict by its causes, and let the media add to it where they may."""
    for i in range(len(reason_code)):
        answered = ends.answered[i]
        phase = 1 if answered else 0
        sip = _SIP_ROW[phase * (_SIP_CODES + 1) + ends.sip_status[i] + 1]
        q850 = _Q850_ROW[phase * (_Q850_CODES + 1) + ends.q850[i] + 1]
        reason = ends.reason_row[phase, reason_code[i]]
        # Weakest source first: each line overrules those before it.
        row = q850 if q850 != _NONE else sip
        row = reason if reason != _NONE else row
        row = sip if _SPECIFIC[sip] else row
        # Cause 19 says that it rang; RFC 3398 (section 7.2.4.1) writes it as a 480, which by itself does not say so.
        if ends.sip_status[i] == 480 and not answered and (ends.q850[i] == 19 or ends.duration_ms[i] >= RANG_MS):
            row = _RANG
        row = reason if _SPECIFIC[reason] else row
        case = phase * len(_CLEARERS) + _CLEARER_OF[ends.released_by[i] + 1]
        at = (case * len(_DIRECTIONS) + ends.direction[i] + 1) * _ROWS + row
        weight, outcome = _WEIGHT[at], _OUTCOME[at]
        one_way = answered and _is_one_way(ends.duration_ms[i], ends.packets_received[i], ends.packets_sent[i])
        silent = answered and ends.silence_ms[i] > _SILENT_MS
        if _MEDIA_COUNT[outcome] and (one_way or silent):
            # Few calls have media evidence.
            weight = np.float32(1.0 - (np.float32(1.0) - weight) * (1.0 - _media_weight(ends, one_way, i)))
        verdicts.one_way[i] = one_way
        verdicts.outcome[i] = _DROP if answered and weight >= DROP_WEIGHT_MIN else outcome
        verdicts.drop_weight[i] = weight if answered else _ZERO
        verdicts.setup_weight[i] = _ZERO if answered else weight


@inlined
def _is_one_way(duration_ms: int, received: int, sent: int) -> bool:
    """Return whether an answered call sent packets and received none to speak of."""
    expected = duration_ms / PACKET_MS
    # A source that counts only what it received is believed when it says: none at all.
    confirmed = sent >= SENT_RATIO_MIN * expected or (sent < 0 and received == 0)
    return confirmed and 0 <= received < RECEIVED_RATIO_MAX * expected and duration_ms >= _ONE_WAY_MS


@inlined
def _media_weight(ends: _Columns, one_way: bool, i: int) -> float:  # noqa: FBT001  a fact of the row
    """Return how much the media alone make an answered call look like a drop, 0..1.

    Silence counts as far as the call reaches. Where the network cleared, long silence is no sign of a call on
    hold but of a media guard timer (rtpengine 60 s, FreeSWITCH 300 s), so its weight does not fall. Where no
    packet was received, silence adds nothing to what the packet counts say.
    """
    duration_ms, silence_ms = ends.duration_ms[i], ends.silence_ms[i]
    network = _CLEARER_OF[ends.released_by[i] + 1] == _NETWORK
    silence = _hump(min(silence_ms, duration_ms), _SILENCE, network)
    if silence_ms >= WHOLE_RATIO * duration_ms:
        silence *= UNCONFIRMED
    if ends.packets_received[i] == 0:
        silence = 0.0
    if not one_way:
        return silence
    starved = _hump(duration_ms, _ONE_WAY, False)  # noqa: FBT003  it falls
    if ends.packets_sent[i] < 0:
        starved *= UNCONFIRMED
    return max(silence, starved)


@inlined
def _hump(at_ms: int, hump: _Slopes, stays: bool) -> float:  # noqa: FBT001  a fact of the row
    """Return the hump's weight at a time; where it `stays`, it does not fall again."""
    fall = 0.0 if stays else _smoothstep(at_ms, hump.fall_from_ms, hump.fall_to_ms)
    rise = _smoothstep(at_ms, hump.rise_from_ms, hump.rise_to_ms)
    return hump.weight * rise * (1.0 - (1.0 - hump.floor) * fall)


@inlined
def _smoothstep(at_ms: int, from_ms: int, to_ms: int) -> float:
    """Return 3t^2 - 2t^3, where t goes from 0 to 1 over the span."""
    t = min(max((at_ms - from_ms) / (to_ms - from_ms), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


def _reason_rows(reason: CodeColumn) -> I16:
    """Return the row that each `Reason` header comes to, by phase and code; each string that occurs is read once."""
    occurs = np.zeros(len(reason.values) + 1, np.bool_)
    occurs[reason.codes] = True  # code -1 marks the place behind the dictionary, which stays _NONE
    rows = np.full((len(_PHASES), len(occurs)), _NONE, np.int16)
    for code in np.flatnonzero(occurs[:-1]):
        rows[:, code] = rows_of_reason(reason.values[code])
    return rows


@lru_cache(maxsize=1 << 16)
def rows_of_reason(header: str) -> tuple[int, ...]:
    """Return, for each phase, the number of the row of `release.toml` that a Reason header comes to; 0 for none.

    Of several values the specific one counts, and of these the one whose row stands first.

    Args:
        header: one or several values, separated by commas or lines, with or without the header's name.
    """
    rows = [row for value in _values(header) for row in _rows_of_value(*value)]
    said = [[_row_in_phase(row, phase) for row in rows] for phase in _PHASES]
    return tuple(
        min((row for row in group if row != _NONE), key=lambda row: (not _SPECIFIC[row], row), default=_NONE)
        for group in said
    )


def _rows_of_value(protocol: str, params: dict[str, str]) -> Iterator[int]:
    """Yield the rows that one Reason value names: by its text, and by its code (RFC 8606 location first)."""
    text = re.sub(r"[\s_-]+", " ", params.get("text", "").lower())
    yield from (row for pattern, row in _TEXTS if pattern.search(text))
    cause = params.get("cause", "")
    if not re.fullmatch(r"[0-9]{1,4}", cause):
        return
    name = _TABLES.protocols.get(protocol, protocol)
    location = params.get("location", "").upper()
    # "U" is the user, "LPN" and "RPN" are private networks at either end; all others are public networks.
    place = "user" if location in {"U", "LPN", "RPN"} else "network" if location else ""
    by_code = _ROW_BY_CODE.get((name, int(cause)), _NONE)
    yield _ROW_BY_CODE.get((f"{name}_{place}", int(cause)), by_code)


# Text in quotes (with escapes; a missing end quote is forgiven) hides commas and semicolons.
_PIECE = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^",;])+|[,;]', re.DOTALL)
_NAME = re.compile(r"(?:^|[\r\n]+)\s*(?:reason\s*:)?", re.IGNORECASE)


def _values(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield protocol and parameters of each value of a Reason header, names in lower case."""
    value: list[str] = []
    for piece in [*_PIECE.findall(_NAME.sub(",", header)), ","]:
        if piece not in {",", ";"}:
            value.append(piece)
        elif piece == "," and value:
            params: list[Any] = [param.partition("=") for param in value[1:]]
            yield (
                value[0].strip().lower(),
                {name.strip().lower(): text.strip().strip('"') for name, _, text in params},
            )
            value = []
