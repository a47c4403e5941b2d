"""Bytes to columns: the one place where a record is held against the contract.

`decode` takes a chunk of NDJSON and returns an `EventBatch`. A record that breaks a rule becomes a `Reject` with
its place in the chunk; its neighbours are not touched. `decode_record` is the authority for a single record.
"""

import codecs
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, get_args

import msgspec
import numpy as np

from schemas.columns import (
    DIRECTIONS,
    PLACES,
    RELEASERS,
    CallColumns,
    Columns,
    EventBatch,
    LinkColumns,
    MediaColumns,
    join,
    take,
)
from schemas.deadletters import DeadReason, Reject
from schemas.events import Call, ElementKind, Event, Link, Media, Metric
from schemas.fields import CODED_NAMES, FIELD_NAMES, FIELDS, INTEGER_NAMES, MEASURE_NAMES, TEXT_NAMES, WORD_NAMES
from schemas.scan import BLANK, CALL, LEFT, LINK, MEDIA, Scan, Scanner, transpose
from schemas.text import F32, F64, I8, I64, Bools, CodeColumn, TextColumn, Translation

RECORD_BYTES_MAX = 65_536
"""A record may be this long; a call with every field at its limit needs a fifth of it."""

_decoder = msgspec.json.Decoder(Event)
_FIELD = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")


class RecordError(Exception):
    """One record breaks a rule: `reason` of the closed set, `detail` for a person."""

    def __init__(self, reason: DeadReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def decode_record(record: bytes) -> Event:
    """Decode one record and hold it against the contract.

    Raises:
        RecordError: with the rule, what was found, and the field; never with the value of an identity.
    """
    if len(record) > RECORD_BYTES_MAX:
        text = f"a record must be at most {RECORD_BYTES_MAX} bytes, was longer"
        raise RecordError(DeadReason.TOO_LARGE, text)
    try:
        # Some editors and exports begin a file with a byte order mark.
        event: Event = _decoder.decode(record.removeprefix(codecs.BOM_UTF8))
    except msgspec.ValidationError as error:
        raise _broken_rule(str(error)) from None
    except msgspec.DecodeError as error:
        raise RecordError(DeadReason.NOT_JSON, f"a record must be one JSON object: {error}") from None
    except UnicodeDecodeError as error:
        text = f"a record must be UTF-8, was not at byte {error.start}"
        raise RecordError(DeadReason.NOT_TEXT, text) from None
    except RecursionError:
        raise RecordError(DeadReason.NOT_JSON, "a record must not nest this deeply") from None
    if isinstance(event, Call):
        _check_times(event)
    elif isinstance(event, Link):
        _check_reading(event)
    return event


_KINDS = frozenset(get_args(ElementKind))
_METRICS = frozenset(get_args(Metric))
_RATIOS = frozenset(metric for metric in _METRICS if metric.endswith("_ratio"))


def _range_of(metric: str) -> int:
    return _NO_METRIC if metric not in _METRICS else _STATE if metric == "registered" else int(metric in _RATIOS)


_FREE, _RATIO, _STATE, _NO_METRIC = range(4)
"""What values a metric may have: any, 0..1, 0 or 1; or it is none."""


class _Rules:
    """Holds readings against the rules of kind, metric and value; looks at each word once."""

    def __init__(self) -> None:
        self._ranges = Translation(_range_of, _NO_METRIC)
        self._kinds = Translation(lambda kind: int(kind in _KINDS), 0)

    def sound(self, links: LinkColumns, value: F64) -> Bools:
        """Return which readings keep them; `value` as it was read, before it became float32."""
        ranges = self._ranges.of(links.metric)
        sound: Bools = (self._kinds.of(links.element_kind) == 1) & (ranges != _NO_METRIC)
        sound &= (ranges != _RATIO) | ((value >= 0.0) & (value <= 1.0))
        sound &= (ranges != _STATE) | (value == 0.0) | (value == 1.0)
        return sound


def _check_reading(link: Link) -> None:
    """A state is 0 or 1, a ratio lies between them."""
    if link.metric == "registered" and link.value not in (0.0, 1.0):
        raise RecordError(DeadReason.OUT_OF_RANGE, f"value must be 0 or 1 for registered, was {link.value}")
    if link.metric.endswith("_ratio") and not 0.0 <= link.value <= 1.0:
        raise RecordError(DeadReason.OUT_OF_RANGE, f"value must be in 0..1 for {link.metric}, was {link.value}")


def _check_times(call: Call) -> None:
    """A call starts, is answered, ends, in that order."""
    answer_ms = call.start_ms if call.answer_ms is None else call.answer_ms
    if not call.start_ms <= answer_ms <= call.end_ms:
        found = f"were {call.start_ms}, {call.answer_ms}, {call.end_ms}"
        raise RecordError(DeadReason.INCONSISTENT, f"start_ms <= answer_ms <= end_ms must hold, {found}")


def _broken_rule(message: str) -> RecordError:
    """Turn the decoder's message into reason and detail, leaving out the values of strings."""
    missing = _MISSING.search(message)
    if missing is not None:
        name = missing.group(1)
        reason = DeadReason.UNKNOWN_TYPE if name == "type" else DeadReason.MISSING_FIELD
        return RecordError(reason, f"{name} must be present, was absent")
    place = _FIELD.search(message)
    name = place.group(1) if place is not None and place.group(1) else "the record"
    rule = message[: place.start()] if place is not None else message
    if name == "type":
        return RecordError(DeadReason.UNKNOWN_TYPE, "type must be one of the contract's event types, was another")
    if rule.startswith("Invalid enum value"):
        return RecordError(DeadReason.UNKNOWN_VALUE, f"{name} must be a word of its vocabulary, was another")
    if not rule.startswith("Expected"):
        return RecordError(DeadReason.OUT_OF_RANGE, f"{name} must be a number of its type, was outside")
    expected, _, found = rule.removeprefix("Expected ").partition(", got ")
    if found in ("`null`", "null") and name in _REQUIRED:
        return RecordError(DeadReason.MISSING_FIELD, f"{name} must be present, was null")
    if place is None:
        return RecordError(DeadReason.NOT_JSON, f"a record must be one JSON object, was {found}")
    if found:
        return RecordError(DeadReason.WRONG_TYPE, f"{name} must be {expected}, was {found}")
    return RecordError(DeadReason.OUT_OF_RANGE, f"{name} must be {expected}, was outside")


_REQUIRED = frozenset(field.name for kind in Event.__args__ for field in msgspec.structs.fields(kind) if field.required)


class Decoder:
    """Decodes the chunks of one stream; what it learns of one makes the next cheaper, and changes nothing else."""

    def __init__(self) -> None:
        self._scanner = Scanner()
        self._rules = _Rules()

    def decode(self, chunk: bytes) -> EventBatch:
        """Decode a chunk of NDJSON into columns.

        Args:
            chunk: whole lines; the last one may lack its newline. Blank lines are no records.
        """
        calls: list[tuple[int, Call]] = []
        media: list[tuple[int, Media]] = []
        links: list[tuple[int, Link]] = []
        business: list[Any] = []
        rejects: list[Reject] = []
        bucket: dict[type, list[Any]] = {Call: calls, Media: media, Link: links}
        read = self._scanner.scan(chunk, RECORD_BYTES_MAX)
        words = self._scanner.words()
        scanned = _Scanned(read, LINK, words)
        readings = scanned.links()
        sound = self._rules.sound(readings, scanned.exact("value"))
        read.status[readings.position[~sound]] = LEFT
        left = np.flatnonzero(read.status == LEFT)
        spans = zip(left.tolist(), read.begin[left].tolist(), read.end[left].tolist(), strict=True)
        for position, begin, end in spans:
            line = chunk[begin:end]
            try:
                event = decode_record(line)
            except RecordError as error:
                rejects.append(Reject(position, error.reason, error.detail, line))
            else:
                bucket.get(type(event), business).append((position, event))
        return EventBatch(
            records=int(np.count_nonzero(read.status != BLANK)),
            calls=_with(_Scanned(read, CALL, words).calls(), calls, _call_columns),
            media=_with(_Scanned(read, MEDIA, words).media(), media, _media_columns),
            links=_with(take(readings, np.flatnonzero(sound)), links, _link_columns),
            business=business,
            rejects=rejects,
        )


def _with(scanned: Columns, events: list[Any], columns_of: Callable[[list[Any]], Columns]) -> Columns:
    """Return scanned rows and, in their places, events that were read one by one: few, and mostly none."""
    return join(scanned, columns_of(events)) if events else scanned


def decode(chunk: bytes) -> EventBatch:
    """Decode one chunk of NDJSON by itself into columns (see `Decoder.decode`)."""
    return Decoder().decode(chunk)


_WHOLE_NAMES = (*INTEGER_NAMES, *WORD_NAMES)


class _Scanned:
    """The rows of one type in a scan, field by field."""

    def __init__(self, read: Scan, status: int, words: list[str]) -> None:
        self._data = read.data
        self._cells = read.cells
        self._words = words
        self.position = np.flatnonzero(read.status == status)
        self._rows = read.cell[self.position]
        self._columns = transpose(read.cells, self._rows)

    def calls(self) -> CallColumns:
        return CallColumns(
            position=self.position,
            call_id=self._text("call_id"),
            customer_id=self._text("customer_id"),
            peer_id=self._text("peer_id"),
            start_ms=self._integer("start_ms"),
            end_ms=self._integer("end_ms"),
            answer_ms=self._integer("answer_ms"),
            direction=self._small("direction", np.int8),
            sip_status=self._small("sip_status", np.int16),
            q850=self._small("q850", np.int16),
            released_by=self._small("released_by", np.int8),
            reason=self._coded("reason"),
            codec=self._coded("codec"),
            mos=self._measure("mos"),
            loss_ratio=self._measure("loss_ratio"),
            discard_ratio=self._measure("discard_ratio"),
            burst_ratio=self._measure("burst_ratio"),
            jitter_ms=self._measure("jitter_ms"),
            rtt_ms=self._measure("rtt_ms"),
            packets_received=self._integer("packets_received"),
            packets_sent=self._integer("packets_sent"),
            silence_ms=self._integer("silence_ms"),
            places={name: self._coded(name) for name in PLACES},
        )

    def media(self) -> MediaColumns:
        return MediaColumns(
            position=self.position,
            call_id=self._text("call_id"),
            customer_id=self._text("customer_id"),
            at_ms=self._integer("at_ms"),
            interval_ms=self._integer("interval_ms"),
            codec=self._coded("codec"),
            mos=self._measure("mos"),
            loss_ratio=self._measure("loss_ratio"),
            discard_ratio=self._measure("discard_ratio"),
            burst_ratio=self._measure("burst_ratio"),
            jitter_ms=self._measure("jitter_ms"),
            rtt_ms=self._measure("rtt_ms"),
            probe_id=self._coded("probe_id"),
        )

    def links(self) -> LinkColumns:
        return LinkColumns(
            position=self.position,
            element_kind=self._coded("element_kind"),
            element_id=self._coded("element_id"),
            at_ms=self._integer("at_ms"),
            metric=self._coded("metric"),
            value=self._measure("value"),
            customer_id=self._text("customer_id"),
        )

    def exact(self, name: str) -> F64:
        """Return a measure as float64."""
        column: F64 = self._cells.measures[self._rows.astype(np.int64) * FIELDS + FIELD_NAMES.index(name)]
        return column

    def _integer(self, name: str) -> I64:
        column: I64 = self._columns.whole[_WHOLE_NAMES.index(name)]
        return column

    def _small(self, name: str, dtype: type[np.signedinteger[Any]]) -> Any:
        return self._integer(name).astype(dtype)

    def _measure(self, name: str) -> F32:
        column: F32 = self._columns.measures[MEASURE_NAMES.index(name)]
        return column

    def _text(self, name: str) -> TextColumn:
        text = TEXT_NAMES.index(name)
        return TextColumn(self._data, self._columns.start[text], self._columns.size[text])

    def _coded(self, name: str) -> CodeColumn:
        return CodeColumn(self._columns.codes[CODED_NAMES.index(name)], self._words)


def _columns_of(rows: Sequence[tuple[int, Any]]) -> tuple[I64, Callable[[str], list[Any]]]:
    """Return the positions, and a function that lists one field of every row."""
    events = [event for _, event in rows]
    position = np.fromiter((at for at, _ in rows), np.int64, len(rows))
    return position, lambda name: list(map(attrgetter(name), events))


def _integers(values: list[int | None], dtype: type[np.signedinteger[Any]]) -> Any:
    return np.fromiter((-1 if value is None else value for value in values), dtype, len(values))


def _measures(values: list[float | None]) -> F32:
    # A measure too large for float32 is as good as the largest one.
    column = np.fromiter((np.nan if value is None else value for value in values), np.float64, len(values))
    top = float(np.finfo(np.float32).max)
    return np.clip(column, -top, top).astype(np.float32)


def _words(values: list[str | None], vocabulary: tuple[str, ...]) -> I8:
    codes: dict[str | None, int] = {word: code for code, word in enumerate(vocabulary)}
    return np.fromiter((codes.get(value, -1) for value in values), np.int8, len(values))


def _call_columns(rows: list[tuple[int, Call]]) -> CallColumns:
    position, column = _columns_of(rows)
    return CallColumns(
        position=position,
        call_id=TextColumn.of(column("call_id")),
        customer_id=TextColumn.of(column("customer_id")),
        peer_id=TextColumn.of(column("peer_id")),
        start_ms=_integers(column("start_ms"), np.int64),
        end_ms=_integers(column("end_ms"), np.int64),
        answer_ms=_integers(column("answer_ms"), np.int64),
        direction=_words(column("direction"), DIRECTIONS),
        sip_status=_integers(column("sip_status"), np.int16),
        q850=_integers(column("q850"), np.int16),
        released_by=_words(column("released_by"), RELEASERS),
        reason=CodeColumn.of(column("reason")),
        codec=CodeColumn.of(column("codec")),
        mos=_measures(column("mos")),
        loss_ratio=_measures(column("loss_ratio")),
        discard_ratio=_measures(column("discard_ratio")),
        burst_ratio=_measures(column("burst_ratio")),
        jitter_ms=_measures(column("jitter_ms")),
        rtt_ms=_measures(column("rtt_ms")),
        packets_received=_integers(column("packets_received"), np.int64),
        packets_sent=_integers(column("packets_sent"), np.int64),
        silence_ms=_integers(column("silence_ms"), np.int64),
        places={name: CodeColumn.of(column(name)) for name in PLACES},
    )


def _media_columns(rows: list[tuple[int, Media]]) -> MediaColumns:
    position, column = _columns_of(rows)
    return MediaColumns(
        position=position,
        call_id=TextColumn.of(column("call_id")),
        customer_id=TextColumn.of(column("customer_id")),
        at_ms=_integers(column("at_ms"), np.int64),
        interval_ms=_integers(column("interval_ms"), np.int64),
        codec=CodeColumn.of(column("codec")),
        mos=_measures(column("mos")),
        loss_ratio=_measures(column("loss_ratio")),
        discard_ratio=_measures(column("discard_ratio")),
        burst_ratio=_measures(column("burst_ratio")),
        jitter_ms=_measures(column("jitter_ms")),
        rtt_ms=_measures(column("rtt_ms")),
        probe_id=CodeColumn.of(column("probe_id")),
    )


def _link_columns(rows: list[tuple[int, Link]]) -> LinkColumns:
    position, column = _columns_of(rows)
    return LinkColumns(
        position=position,
        element_kind=CodeColumn.of(column("element_kind")),
        element_id=CodeColumn.of(column("element_id")),
        at_ms=_integers(column("at_ms"), np.int64),
        metric=CodeColumn.of(column("metric")),
        value=_measures(column("value")),
        customer_id=TextColumn.of(column("customer_id")),
    )
