"""Record batches to columns: events that come without any parsing.

The numbers of a record batch are copied while they are held against their limits, its identities are spans over a
copy of their buffer, its dictionaries stay dictionaries. A row that may break a rule of the contract is written as
JSON and goes to `schemas.decode`, which alone says whether and why.
"""

from dataclasses import fields, replace
from functools import cache
from typing import Any, TypeVar, get_args

import msgspec
import numpy as np
import pyarrow as pa

from schemas.arrow.batch import is_text, known_of, offsets, rows_as_json, values_of
from schemas.arrow.schema import FIELDS
from schemas.columns import DIRECTIONS, PLACES, RELEASERS, CallColumns, EventBatch, MediaColumns, join, take
from schemas.decode import Decoder, decode
from schemas.kernels import inlined, kernel
from schemas.swar import padded
from schemas.text import F32, F64, I32, I64, U8, Bools, CodeColumn, TextColumn

TEXT_BYTES_MAX = 256
"""A longer text is left to `schemas.decode`: its row may be longer than a record may be."""

MEASURE_MAX = 1e15
"""A larger measure is left to `schemas.decode` too: not every one fits a float32."""

_WORDS: dict[str, tuple[str, ...]] = {"direction": DIRECTIONS, "released_by": RELEASERS}

Columns = TypeVar("Columns", CallColumns, MediaColumns)


def decode_batch(kind: str, batch: Any, decoder: Decoder) -> EventBatch:
    """Turn a `pyarrow.RecordBatch` into columns; the positions are its rows.

    A not-a-number is not known, as JSON has none.

    Args:
        kind: the event type.
        batch: what `schemas.arrow.batch.checked` returned.
        decoder: judges rows of other types, and those that may break a rule.
    """
    if kind not in ("call", "media") or not is_text(batch):
        return decoder.decode(b"\n".join(rows_as_json(kind, batch)))
    rows = _Rows(kind, batch)
    read = replace(_nothing(), records=len(batch))
    if kind == "call":
        calls = _columns(CallColumns, rows)
        rows.bad |= (calls.start_ms > calls.end_ms) | (calls.answer_ms > calls.end_ms)
        rows.bad |= (calls.answer_ms >= 0) & (calls.answer_ms < calls.start_ms)
        read = replace(read, calls=calls)
    else:
        read = replace(read, media=_columns(MediaColumns, rows))
    if not rows.bad.any():
        return read
    left = np.flatnonzero(rows.bad)
    judged = decoder.decode(b"\n".join(rows_as_json(kind, batch.take(pa.array(left)))))
    return _merged(read, np.flatnonzero(~rows.bad), judged, left)


@cache
def _nothing() -> EventBatch:
    return decode(b"")


def _merged(read: EventBatch, good: I64, judged: EventBatch, left: I64) -> EventBatch:
    """Put rows that were judged one by one in the place of those that were left."""
    return replace(
        read,
        calls=join(take(read.calls, good), _placed(judged.calls, left)) if len(read.calls) else read.calls,
        media=join(take(read.media, good), _placed(judged.media, left)) if len(read.media) else read.media,
        rejects=[msgspec.structs.replace(one, position=int(left[one.position])) for one in judged.rejects],
    )


def _placed(columns: Columns, rows: I64) -> Columns:
    return replace(columns, position=rows[columns.position])


def _columns(kind: type[Columns], rows: "_Rows") -> Columns:
    return kind(**{field.name: rows.column(field.name, field.type) for field in fields(kind)})


class _Rows:
    """The columns of one record batch, each as the batch of events has it.

    Attributes:
        bad: rows of which some column may break a rule.
    """

    def __init__(self, kind: str, batch: Any) -> None:
        self._fields = FIELDS[kind]
        self._columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        self._count = len(batch)
        self.bad = np.zeros(len(batch), np.bool_)

    def column(self, name: str, annotation: Any) -> Any:
        """Return one column.

        Args:
            annotation: what type it must have.
        """
        if name == "position":
            return np.arange(self._count, dtype=np.int64)
        if annotation == dict[str, CodeColumn]:
            return {place: self._coded(place) for place in PLACES}
        if annotation is TextColumn:
            return self._text(name)
        if annotation is CodeColumn:
            return self._coded(name)
        dtype = get_args(get_args(annotation)[1])[0]
        return self._words(name).astype(dtype) if name in _WORDS else self._numbers(name, dtype)

    def _numbers(self, name: str, dtype: Any) -> Any:
        whole = np.issubdtype(dtype, np.integer)
        column, field = self._columns.get(name), self._fields[name]
        if column is None:
            return np.full(self._count, -1 if whole else np.nan, dtype)
        # What is too large for int64 becomes negative, which none of these fields may be.
        values = values_of(column).astype(np.int64 if whole else np.float64, copy=False)
        values.flags.writeable = False  # one sort of array, one compiled function
        bits = np.zeros(0, np.uint8) if not column.null_count else np.frombuffer(column.buffers()[0], np.uint8)
        numbers = np.empty(self._count, dtype)
        low, high = field.low or 0, MEASURE_MAX if field.high is None else field.high
        if whole:
            _take_integers(values, bits, column.offset, (int(low), int(high)), numbers, self.bad)
        else:
            _take_measures(values, bits, column.offset, (float(low), float(high)), numbers, self.bad)
        if field.required and column.null_count:
            self.bad |= numbers < 0
        return numbers

    def _text(self, name: str) -> TextColumn:
        column, field = self._columns.get(name), self._fields[name]
        if column is None:
            return TextColumn(padded(b""), np.zeros(self._count, np.int64), np.zeros(self._count, np.int32))
        if pa.types.is_dictionary(column.type):
            # One entry more, empty, for the rows that have none.
            entries, known = _spans(column.dictionary), known_of(column.indices)
            index = values_of(column.indices).astype(np.int64)
            text = TextColumn(entries.data, np.append(entries.start, 0), np.append(entries.size, np.int32(0)))
            text = text.take(index if known is None else np.where(known, index, len(entries)))
        else:
            text = _spans(column)
        high = TEXT_BYTES_MAX if field.high is None else int(field.high)
        self.bad |= (text.size > high) | (text.size < field.required)
        return text

    def _coded(self, name: str) -> CodeColumn:
        column, field = self._columns.get(name), self._fields[name]
        if column is None:
            return CodeColumn(np.full(self._count, -1, np.int32), [])
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        known = known_of(column.indices)
        codes, used = _renumbered(
            values_of(column.indices).astype(np.int32),
            np.zeros(0, np.bool_) if known is None else known,
            len(column.dictionary),
        )
        values = column.dictionary.take(pa.array(used)).to_pylist()
        if None in values or len(set(values)) < len(values):
            once = CodeColumn.of(values)
            codes, values = np.append(once.codes, np.int32(-1))[codes], once.values
        low, high = field.low or 0, TEXT_BYTES_MAX if field.high is None else field.high
        self._refuse(codes, [not low <= len(value) <= high for value in values])
        return CodeColumn(codes, values)

    def _words(self, name: str) -> I32:
        column, vocabulary = self._coded(name), _WORDS[name]
        self._refuse(column.codes, [value not in vocabulary for value in column.values])
        codes = [vocabulary.index(value) if value in vocabulary else -1 for value in column.values]
        return np.array([*codes, -1], np.int32)[column.codes]

    def _refuse(self, codes: I32, breaks: list[bool]) -> None:
        if any(breaks):
            self.bad |= np.array([*breaks, False])[codes]


def _spans(column: Any) -> TextColumn:
    """Return the texts of a column, padded: the one copy that is made of them."""
    edges, known = offsets(column), known_of(column)
    size = np.diff(edges).astype(np.int32)
    if known is not None:
        size[~known] = 0
    data = column.buffers()[2]
    used = b"" if data is None else bytes(memoryview(data)[edges[0] : edges[-1]])
    return TextColumn(padded(used), edges[:-1] - edges[0], size)


@inlined
def _is_known(bits: U8, row: int) -> bool:
    """Read Arrow's validity bitmap, which is none where every row has a value."""
    return len(bits) == 0 or (bits[row >> 3] >> np.uint8(row & 7)) & np.uint8(1) != 0


@kernel
def _take_integers(values: I64, bits: U8, first: int, limits: tuple[int, int], taken: Any, bad: Bools) -> None:
    """Copy integers, -1 where not known; mark the rows in which a rule is broken.

    Args:
        bits: which are known, from bit `first` on.
        limits: least and greatest value.
        taken, bad: the results; marks that `bad` has already stay.
    """
    for row in range(len(values)):
        if _is_known(bits, first + row):
            taken[row] = values[row]
            bad[row] |= values[row] < limits[0] or values[row] > limits[1]
        else:
            taken[row] = -1


@kernel
def _take_measures(values: F64, bits: U8, first: int, limits: tuple[float, float], taken: F32, bad: Bools) -> None:
    """Copy measures, not-a-number where not known; see `_take_integers`."""
    for row in range(len(values)):
        if _is_known(bits, first + row):
            taken[row] = values[row]
            bad[row] |= values[row] < limits[0] or values[row] > limits[1]
        else:
            taken[row] = np.nan


@kernel
def _renumbered(index: I32, known: Bools, entries: int) -> tuple[I32, I32]:
    """Number the entries of a dictionary in order of first appearance.

    The order of a dictionary is its writer's; nothing that follows may depend on it.

    Args:
        index: int32, one a row, into the dictionary.
        known: bool, one a row, or none where every row has a value.
        entries: size of the dictionary.

    Returns:
        int32 codes, one a row, -1 where not known; int32 entry of each code.
    """
    table = np.full(entries, -1, np.int32)
    used = np.empty(min(entries, len(index)), np.int32)
    codes = np.full(len(index), -1, np.int32)
    count = 0
    for row in range(len(index)):
        if len(known) and not known[row]:
            continue
        entry = index[row]
        if table[entry] < 0:
            table[entry] = count
            used[count] = entry
            count += 1
        codes[row] = table[entry]
    return codes, used[:count]
