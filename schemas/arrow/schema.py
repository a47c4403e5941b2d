"""Which columns an Arrow stream of one event type may have, taken from the contract's own structs.

The schema's metadata name the `type`. A column stands for the field of its name; columns of other names are ignored,
and an optional field without a column is not known. A column of a wrong type spoils every row, so it is an error of
the whole stream.
"""

from collections import Counter
from typing import Any, NamedTuple

import pyarrow as pa
from msgspec import inspect

from schemas.errors import InputError
from schemas.events import TIME_MS_MAX, TYPES, Event

_FOUND_CHARS_MAX = 80
_TEXT = (pa.string(), pa.large_string(), pa.string_view())


class Field(NamedTuple):
    """What the contract says of one field.

    Attributes:
        kind: `integer`, `time`, `number`, `text` or `texts`.
        low, high: of a number its least and greatest value, of a text its size in characters; None: no limit.
    """

    name: str
    kind: str
    required: bool
    low: float | None
    high: float | None


MUST_BE = {
    "integer": "an integer",
    "time": "an integer or a timestamp[ms] with a time zone",
    "number": "a float32, a float64 or an integer",
    "text": "text (utf8, large_utf8, utf8_view, or a dictionary of these)",
    "texts": "a list of utf8 or large_utf8",
}


def _fields(kind: type) -> dict[str, Field]:
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)  # noqa: S101 - every event is one
    return {field.encode_name: _field(field) for field in shape.fields}


def _field(field: inspect.Field) -> Field:
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    kind = next(one for one in kinds if not isinstance(one, inspect.NoneType))
    low: float | None = None
    high: float | None = None
    match kind:
        case inspect.IntType():
            name, low, high = "time" if kind.le == TIME_MS_MAX else "integer", kind.ge, kind.le
        case inspect.FloatType():
            name, low, high = "number", kind.ge, kind.le
        case inspect.ListType():
            name = "texts"
        case inspect.StrType():
            name, low, high = "text", kind.min_length, kind.max_length
        case _:
            name = "text"
    return Field(field.encode_name, name, field.required, low, high)


FIELDS: dict[str, dict[str, Field]] = {name: _fields(kind) for name, kind in zip(TYPES, Event.__args__, strict=True)}
"""Every event type, every field of it."""


def kind_of(schema: Any) -> str:
    """Hold a `pyarrow.Schema` against the contract; return its event type.

    Raises:
        InputError: with every column that is not as it must be.
    """
    kind: str = (schema.metadata or {}).get(b"type", b"").decode("utf-8", "replace")
    if kind not in FIELDS:
        found = repr(kind[:_FOUND_CHARS_MAX]) if kind else "absent"
        raise InputError(f"the schema's metadata must give a type, one of {', '.join(TYPES)}, was {found}")
    count = Counter(schema.names)
    problems = [problem for field in FIELDS[kind].values() for problem in _problems(schema, field, count[field.name])]
    if problems:
        raise InputError(f"a stream of type {kind}: {'; '.join(problems)}")
    return kind


def _problems(schema: Any, field: Field, count: int) -> list[str]:
    if count > 1:
        return [f"column {field.name} must be there once, was there {count} times"]
    if not count:
        return [f"column {field.name} must be there, was absent"] if field.required else []
    found = schema.field(field.name).type
    fits = _fits(found, field.kind) or (pa.types.is_null(found) and not field.required)
    return [] if fits else [f"column {field.name} must be {MUST_BE[field.kind]}, was {str(found)[:_FOUND_CHARS_MAX]}"]


def _fits(found: Any, kind: str) -> bool:
    if kind == "time":
        return bool(pa.types.is_integer(found)) or (pa.types.is_timestamp(found) and found.unit == "ms" and found.tz)
    if kind == "integer":
        return bool(pa.types.is_integer(found))
    if kind == "number":
        return any(check(found) for check in (pa.types.is_float32, pa.types.is_float64, pa.types.is_integer))
    if kind == "texts":
        return (pa.types.is_list(found) or pa.types.is_large_list(found)) and found.value_type in (
            pa.string(),
            pa.large_string(),
        )
    return (found.value_type if pa.types.is_dictionary(found) else found) in _TEXT
