"""A record batch before anything is taken from it: is it what it says it is, and how large may its rows become.

Arrow lets many rows share one text, by a dictionary or by views. So a few bytes can stand for gigabytes once every
row has its text for itself, and what may be unfolded is limited here.
"""

import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.arrow.stream import BATCH_BYTES_MAX, REFUSED
from schemas.decode import RECORD_BYTES_MAX
from schemas.text import I64, Bools

_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
_UNFOLDED = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def checked(batch: Any) -> Any:
    """Hold a `pyarrow.RecordBatch` against Arrow's own rules.

    Returns:
        The same rows with times as integers, texts behind offsets (as bytes, if any of them is not UTF-8), and
        without columns of no type; None if its buffers and lengths contradict each other or unfold to too much.
    """
    if not _is_valid(batch):
        batch = _mapped(batch, _as_bytes)
        if not _is_valid(batch):
            return None
    return batch if all(map(_is_plain, batch.schema.types)) else _mapped(batch, _plain)


def is_text(batch: Any) -> bool:
    """Tell whether all texts of a batch that was `checked` are UTF-8."""
    return not any(map(_is_bytes, batch.schema.types))


def longest_text(batch: Any) -> int:
    """Return the size of the longest text in any row or dictionary of a batch that was `checked`, in bytes."""
    columns = [column.dictionary if pa.types.is_dictionary(column.type) else column for column in batch.columns]
    return max((int(np.diff(offsets(one)).max(initial=0)) for one in columns if _has_offsets(one.type)), default=0)


def offsets(column: Any) -> I64:
    """Return where the texts of a column begin in its data, and behind the last one where that ends."""
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    dtype = np.dtype(np.int64 if wide else np.int32)
    if not len(column):
        return np.zeros(1, np.int64)
    buffer = column.buffers()[1]
    return np.frombuffer(buffer, dtype, len(column) + 1, column.offset * dtype.itemsize).astype(np.int64)


def known_of(column: Any) -> Bools | None:
    """Return which rows have a value; None: all have."""
    if not column.null_count:
        return None
    bits = np.frombuffer(column.buffers()[0], np.uint8)
    first = column.offset % 8
    some = np.unpackbits(bits[column.offset // 8 :], count=first + len(column), bitorder="little")
    return some[first:].view(np.bool_)


def values_of(column: Any) -> Any:
    """Return the numbers of a column; where it has none they are anything."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def rows_as_json(kind: str, batch: Any) -> list[bytes]:
    """Write the rows of a batch that was `checked` as records of JSON; what is not known is left out."""
    if longest_text(batch) > RECORD_BYTES_MAX:
        batch = _mapped(batch, _cut)
    names = batch.schema.names
    rows = zip(*map(_cells, batch.columns), strict=True)
    return [
        orjson.dumps({"type": kind, **{name: cell for name, cell in zip(names, row, strict=True) if cell is not None}})
        for row in rows
    ]


def _cells(column: Any) -> list[Any]:
    """Return values as JSON can hold them, wrong ones as wrong as they were."""
    if not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        texts: list[Any] = column.to_pylist()
        return [None if text is None else _quoted(text) for text in texts] if _is_bytes(column.type) else texts
    values, known = values_of(column), known_of(column)
    cells: list[Any] = values.tolist()
    if known is not None:
        cells = [cell if there else None for cell, there in zip(cells, known.tolist(), strict=True)]
    if np.isfinite(values).all():
        return cells
    return [cell if cell is None or math.isfinite(cell) else _beyond(cell) for cell in cells]


def _beyond(number: float) -> Any:
    """JSON has neither not-a-number nor infinity, but it has numbers beyond every limit."""
    return None if math.isnan(number) else orjson.Fragment(b"1e999" if number > 0 else b"-1e999")


def _quoted(text: bytes | list[bytes | None]) -> Any:
    if isinstance(text, list):
        return [None if one is None else _quoted(one) for one in text]
    quoted = json.dumps(text.decode("utf-8", "surrogateescape"), ensure_ascii=False)
    return orjson.Fragment(quoted.encode("utf-8", "surrogateescape"))


def _is_valid(batch: Any) -> bool:
    try:
        batch.validate(full=True)
    except REFUSED:
        return False
    return all(
        _unfolded_bytes(column) <= BATCH_BYTES_MAX
        for column, kind in zip(batch.columns, batch.schema.types, strict=True)
        if not _is_plain(kind)
    )


def _unfolded_bytes(column: Any) -> int:
    if pa.types.is_dictionary(column.type):
        return _unfolded_bytes(column.dictionary)
    if column.type not in _UNFOLDED or not len(column):
        return 0
    # A view is 16 bytes, and the first four are the size of its text.
    views = np.frombuffer(column.buffers()[1], np.int32, 4 * len(column), 16 * column.offset).reshape(-1, 4)
    known = column.is_valid().to_numpy(zero_copy_only=False)
    return int(views[known, 0].sum(dtype=np.int64))


def _mapped(batch: Any, change: Callable[[Any], Any]) -> Any:
    names = [field.name for field in batch.schema if not pa.types.is_null(field.type)]
    return pa.RecordBatch.from_arrays([_changed(batch.column(name), change) for name in names], names=names)


def _changed(column: Any, change: Callable[[Any], Any]) -> Any:
    if not pa.types.is_dictionary(column.type):
        return change(column)
    # One width for all: two narrow dictionaries together may need a wider index.
    return pa.DictionaryArray.from_arrays(
        column.indices.cast(pa.int32(), safe=False), change(column.dictionary), safe=False
    )


@lru_cache(256)  # a zone's name is part of a type: a stream may make up as many as it likes
def _is_plain(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return kind.index_type == pa.int32() and _is_plain(kind.value_type)
    return not (pa.types.is_timestamp(kind) or pa.types.is_null(kind) or kind in _UNFOLDED)


def _plain(column: Any) -> Any:
    if pa.types.is_timestamp(column.type):
        return column.view(pa.int64())
    return column.cast(_UNFOLDED[column.type]) if column.type in _UNFOLDED else column


def _as_bytes(column: Any) -> Any:
    kind = column.type
    if pa.types.is_list(kind):
        return column.view(pa.list_(_BYTES[kind.value_type]))
    if pa.types.is_large_list(kind):
        return column.view(pa.large_list(_BYTES[kind.value_type]))
    return column.view(_BYTES[kind]) if kind in _BYTES else column


def _cut(column: Any) -> Any:
    """Cut texts that no record may hold: enough of them stays to be too long still."""
    if _is_bytes(column.type):
        return pc.binary_slice(column, 0, RECORD_BYTES_MAX + 1)
    return pc.utf8_slice_codeunits(column, 0, RECORD_BYTES_MAX + 1) if _has_offsets(column.type) else column


def _has_offsets(kind: Any) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _is_bytes(kind: Any) -> bool:
    nested = pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    kind = kind.value_type if nested else kind
    return kind in (pa.binary(), pa.large_binary())
