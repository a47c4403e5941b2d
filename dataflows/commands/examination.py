"""What is found out of some input by reading it: which fields arrive, from whom, how late, and what they allow.

An examination is given chunks as the flow would be, and counts. It keeps no identity: of ids it knows 64-bit digests.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields as columns_of
from typing import Any

import numpy as np
from msgspec import Struct, field

from dataflows.inputs.chunks import Chunk, decoded
from schemas.alerts import PatternKind
from schemas.columns import CallColumns, LinkColumns, MediaColumns
from schemas.deadletters import DeadLetter
from schemas.decode import Decoder
from schemas.patterns import NEEDS, lacking
from schemas.text import I64, Bools, CodeColumn, TextColumn

PROBES_SHOWN = 50
"""Of more, the busiest ones."""

_SIGNS_IN_MEDIA = ("loss_ratio", "mos")


class Fields(Struct):
    """What arrived of one type of event.

    Attributes:
        records: how many.
        shares: field -> share of the records that have it; fields that none has are left out.
    """

    records: int
    shares: dict[str, float]


class Letters(Struct):
    """Dead letters of one reason: how many, and the first one's place and detail."""

    records: int
    at: str
    detail: str


class Pattern(Struct):
    """Whether a kind of pattern could be found in such events.

    Attributes:
        share: share of the calls that it is looked for in (answered ones, unanswered ones, all) whose fields allow it.
        missing: groups of fields of which one must arrive, and none did; empty where nothing is missing.
        calls: how many calls it is looked for in.
    """

    share: float
    missing: list[list[str]]
    calls: int


class Delays(Struct):
    """Some delays in seconds: median, 99th percentile, longest."""

    p50_s: float
    p99_s: float
    max_s: float


class Findings(Struct):
    """What an examination found.

    Attributes:
        records: read, dead letters included; they are `types` and `dead_letters` together.
        types: event type -> what arrived of it.
        answered, unanswered: calls of each sort.
        duplicates: events whose customer, call and time had come before.
        probes: probe -> records; the empty name stands for events that name none.
        first_ms, last_ms: event times; None where there was no event.
        late: between the event's end and its arrival, of an input that is live; None otherwise.
        behind: how far events lay behind the newest one before them.
        dead_letters: reason -> what is known of them.
        patterns: kind -> whether it could be found.
    """

    records: int = 0
    types: dict[str, Fields] = field(default_factory=dict)
    answered: int = 0
    unanswered: int = 0
    duplicates: int = 0
    probes: dict[str, int] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    late: Delays | None = None
    behind: Delays | None = None
    dead_letters: dict[str, Letters] = field(default_factory=dict)
    patterns: dict[PatternKind, Pattern] = field(default_factory=dict)


class Examination:
    """Counts what chunks hold.

    Args:
        live: chunks are given when they arrive, so that it can be told how late they are.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._decoder = Decoder()
        self._decoder.decode(b"")  # what is compiled at first use is not the input's time
        self._records = 0
        self._types: Counter[str] = Counter()
        self._fields: dict[str, Counter[str]] = {}
        self._phases: dict[str, Counter[str]] = {"answered": Counter(), "unanswered": Counter()}
        self._seen: set[tuple[int, int, int]] = set()
        self._duplicates = 0
        self._probes: Counter[str] = Counter()
        self._newest_ms = -1
        self._oldest_ms: int | None = None
        self._late: list[I64] = []
        self._behind: list[I64] = []
        self._letters: dict[str, Letters] = {}

    @property
    def records(self) -> int:
        """How many records were read so far."""
        return self._records

    def take(self, chunk: Chunk, now_ms: int) -> None:
        """Count one chunk, which came at this time."""
        batch, letters = decoded(self._decoder, chunk)
        self._records += batch.records
        for letter in letters:
            self._reject(letter)
        calls, media, links = batch.calls, batch.media, batch.links
        if len(calls):
            self._calls(calls)
            self._timed(calls.end_ms, now_ms)
            self._named(calls.places["probe_id"])
            self._known(calls.customer_id, calls.call_id, calls.end_ms)
        if len(media):
            self._count("media", media, np.ones(len(media), np.bool_))
            self._timed(media.at_ms, now_ms)
            self._named(media.probe_id)
            self._known(media.customer_id, media.call_id, media.at_ms)
        if len(links):
            self._count("link", links, np.ones(len(links), np.bool_))
            self._timed(links.at_ms, now_ms)
        for _, event in batch.business:
            name = type(event).__struct_config__.tag
            self._types[str(name)] += 1
            given = (one for one in event.__struct_fields__ if getattr(event, one) is not None)
            self._fields.setdefault(str(name), Counter()).update(given)
            self._timed(np.array([event.at_ms], np.int64), now_ms)

    def _calls(self, calls: CallColumns) -> None:
        self._count("call", calls, np.ones(len(calls), np.bool_))
        answered = calls.answer_ms >= 0
        for phase, rows in (("answered", answered), ("unanswered", ~answered)):
            self._phases[phase].update(_present(calls, rows))
            self._types[phase] += int(np.count_nonzero(rows))

    def _count(self, name: str, columns: CallColumns | MediaColumns | LinkColumns, rows: Bools) -> None:
        self._types[name] += len(columns)
        self._fields.setdefault(name, Counter()).update(_present(columns, rows))

    def _timed(self, at_ms: I64, now_ms: int) -> None:
        newest = np.maximum.accumulate(np.concatenate([[self._newest_ms], at_ms]))
        self._behind.append(np.maximum(newest[:-1] - at_ms, 0))
        self._newest_ms = int(newest[-1])
        oldest_ms = int(at_ms.min())
        self._oldest_ms = oldest_ms if self._oldest_ms is None else min(self._oldest_ms, oldest_ms)
        if self._live:
            self._late.append(now_ms - at_ms)

    def _named(self, probes: CodeColumn) -> None:
        names = [*probes.values, ""]
        codes, counts = np.unique(probes.codes, return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            self._probes[names[code]] += count

    def _known(self, customer: TextColumn, call: TextColumn, at_ms: I64) -> None:
        rows = zip(customer.keys().tolist(), call.keys().tolist(), at_ms.tolist(), strict=True)
        for row in rows:
            self._duplicates += row in self._seen
            self._seen.add(row)

    def _reject(self, letter: DeadLetter) -> None:
        known = self._letters.setdefault(letter.reason.value, Letters(0, letter.at, letter.detail))
        known.records += 1

    def findings(self) -> Findings:
        """Return what was found so far."""
        types = {name: self._types[name] for name in self._fields}
        return Findings(
            records=self._records,
            types={name: Fields(count, _shares(self._fields[name], count)) for name, count in types.items()},
            answered=self._types["answered"],
            unanswered=self._types["unanswered"],
            duplicates=self._duplicates,
            probes=dict(self._probes.most_common(PROBES_SHOWN)),
            first_ms=self._oldest_ms,
            last_ms=None if self._newest_ms < 0 else self._newest_ms,
            late=_delays(self._late),
            behind=_delays(self._behind),
            dead_letters=self._letters,
            patterns={kind: self._pattern(kind) for kind in NEEDS},
        )

    def _pattern(self, kind: PatternKind) -> Pattern:
        """Judge what arrived by what a kind of pattern needs."""
        phase = {"drop_rate": "answered", "one_way_audio": "answered", "setup_failure": "unanswered"}.get(kind)
        count = self._types["call" if phase is None else phase]
        known = self._fields.get("call", Counter()) if phase is None else self._phases[phase]
        shares = _shares(known, count)
        if count:
            # A report during a call says of its call what the call's own record need not say.
            shares |= {name: 1.0 for name in _SIGNS_IN_MEDIA if self._fields.get("media", Counter())[name]}
        best = [max(shares.get(name, 0.0) for name in group) for group in NEEDS[kind]]
        missing = lacking(kind, shares) if count else NEEDS[kind]
        return Pattern(min(best), [list(group) for group in missing], count)


def _present(columns: Any, rows: Bools) -> dict[str, int]:
    """Return field -> how many of the rows have it."""
    found = {one.name: getattr(columns, one.name) for one in columns_of(columns) if one.name != "position"}
    found |= found.pop("places", {})
    counts = {name: int(np.count_nonzero(_is_known(column) & rows)) for name, column in found.items()}
    return {name: count for name, count in counts.items() if count}


def _is_known(column: Any) -> Bools:
    """Tell of each row whether it is known: see `schemas.columns`."""
    if isinstance(column, TextColumn):
        known: Bools = column.size > 0
    elif isinstance(column, CodeColumn):
        known = column.codes >= 0
    else:
        known = ~np.isnan(column) if column.dtype.kind == "f" else column >= 0
    return known


def _shares(counts: Counter[str], records: int) -> dict[str, float]:
    return {name: count / records for name, count in counts.items()} if records else {}


def _delays(parts: Sequence[I64]) -> Delays | None:
    if not parts:
        return None
    p50_ms, p99_ms, max_ms = np.percentile(np.concatenate(parts), [50, 99, 100]).tolist()
    return Delays(p50_ms / 1000.0, p99_ms / 1000.0, max_ms / 1000.0)
