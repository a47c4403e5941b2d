"""Recorded events as an Arrow IPC stream: what a probe sends that batches."""

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Literal

import msgspec
import pyarrow as pa
from pyarrow import ipc

from schemas.arrow.schema import FIELDS, Field
from schemas.decode import RecordError, decode_record
from schemas.events import Event

IDENTITIES = frozenset({"call_id", "customer_id", "peer_id", "alert_id", "incident_id", "element_id", "note"})
"""Texts of which there are as many as rows; all others are written as dictionaries."""

_STRUCTS: dict[str, type] = dict(zip(FIELDS, Event.__args__, strict=True))
_TYPES: dict[str, Any] = {
    "integer": pa.int64(),
    "time": pa.int64(),
    "number": pa.float64(),
    "texts": pa.list_(pa.string()),
}


def write_arrow(
    records: Iterable[bytes],
    out: BinaryIO,
    kind: str = "call",
    *,
    rows: int = 16_384,
    compression: Literal["lz4", "zstd"] | None = None,
) -> int:
    """Write the events of one type as a stream; nothing of them is lost.

    Args:
        records: lines of JSON; those of other types and those that break a rule are left out.
        rows: of a record batch, at most.
        compression: of the buffers.

    Returns:
        How many events were written.
    """
    schema = pa.schema([(name, _type(field)) for name, field in FIELDS[kind].items()], metadata={"type": kind})
    written = 0
    with ipc.new_stream(out, schema, options=ipc.IpcWriteOptions(compression=compression)) as stream:
        for events in _groups(records, _STRUCTS[kind], rows):
            columns = [pa.array([getattr(one, field.name) for one in events], field.type) for field in schema]
            stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            written += len(events)
    return written


def _type(field: Field) -> Any:
    if field.kind != "text":
        return _TYPES[field.kind]
    return pa.string() if field.name in IDENTITIES else pa.dictionary(pa.int32(), pa.string())


def _groups(records: Iterable[bytes], kind: type, rows: int) -> Iterator[list[msgspec.Struct]]:
    group: list[msgspec.Struct] = []
    for record in records:
        try:
            event = decode_record(record)
        except RecordError:
            continue
        if isinstance(event, kind):
            group.append(event)
        if len(group) == rows:
            yield group
            group = []
    if group:
        yield group
