"""The column map: which column of a delimited file is which field of an event, and how its values are written.

A field may be given by its own name or, where sources measure otherwise, in another unit: `rtt_s` for `rtt_ms` (any
length of time), `loss_percent` for `loss_ratio` (any ratio). A call may have `duration_s` or `duration_ms` (start
to end) instead of `end_ms`, and `talk_s` or `talk_ms` (answer to end; 0: never answered) instead of `answer_ms`.
Lengths of time in seconds may also be written `mm:ss` or `h:mm:ss`.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from msgspec import inspect

from schemas.events import COUNT_MAX, TIME_MS_MAX, TYPES, Event
from schemas.formats import times

Kind = Literal["time", "integer", "number", "text"]
Column = str | int | list[str | int]
Value = str | int | float

PHONES = frozenset({"customer_id", "peer_id"})
"""Identities that may be telephone numbers: normalised before they become tokens."""


@dataclass(frozen=True, kw_only=True)
class ColumnMap:
    """How one kind of delimited file becomes events of one type.

    Attributes:
        columns: event field -> name of the column, or its number from 1 where there is no header; several columns
            are joined, with a space for a time and with `-` otherwise.
        type: the event type of every row.
        constants: event field -> its value in every row.
        values: event field -> what the source writes -> what the event says. `"*"` stands for every other text; an
            empty word means not known. Without `"*"` any other text makes the row a reject.
        delimiter: one ASCII character.
        quote: one ASCII character, or empty: nothing is quoted.
        header: the first row names the columns.
        encoding: any in which every ASCII byte is that character; so not UTF-16.
        nulls: texts that mean not known.
        timezone: of times without an offset, a name of the IANA database.
        date_formats: tried in order, see `schemas.formats.times`.
        day_first: must be stated where `date_formats` hold both orders of day and month: which one wins.
        decimal_comma: numbers are written `0,5`.
        tokenise: fields that are identities and become tokens; telephone numbers among them are normalised first.
    """

    # Read by pydantic where the map is part of a configuration: unknown keys and wrong types are errors.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    columns: dict[str, Column]
    type: str = "call"
    constants: dict[str, Value] = field(default_factory=dict)
    values: dict[str, dict[str, Value]] = field(default_factory=dict)
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("",)
    timezone: str = "UTC"
    date_formats: tuple[str, ...] = ("iso",)
    day_first: bool | None = None
    decimal_comma: bool = False
    tokenise: tuple[str, ...] = ("customer_id", "peer_id")

    def problems(self) -> list[str]:
        """Return what does not hold, one sentence each, beginning with the key; empty where all is well."""
        found = [*_text_problems(self), *times.problems(self.date_formats, self.timezone, day_first=self.day_first)]
        if self.type not in TYPES:
            return [*found, f"type: must be one of {', '.join(TYPES)}, was {self.type!r}"]
        return [*found, *_name_problems(self), *_source_problems(self), *_column_problems(self)]

    def tokenised(self) -> list[str]:
        """Return the mapped fields that become tokens, and so need a key."""
        return [name for name in self.columns if name in self.tokenise]


class Target(NamedTuple):
    """What a mapped name stands for.

    Attributes:
        field: the event's field, or `duration_ms` or `talk_ms`, from which fields are computed.
        kind: how it is written.
        factor: what the source's number is multiplied by to be in the field's unit.
    """

    field: str
    kind: Kind
    factor: Decimal


def targets(event_type: str) -> dict[str, Target]:
    """Return every name that may be mapped for this event type."""
    found: dict[str, Target] = {}
    for info in _struct(event_type).fields:
        kind = _kind(info.type)
        if kind is None:
            continue
        found[info.name] = Target(info.name, kind, Decimal(1))
        stem, _, unit = info.name.rpartition("_")
        if unit == "ms" and kind != "time":
            found[f"{stem}_s"] = Target(info.name, kind, Decimal(1000))
        if unit == "ratio" and isinstance(info.type, inspect.UnionType) and info.name != "burst_ratio":
            found[f"{stem}_percent"] = Target(info.name, kind, Decimal("0.01"))
    for span in ("duration", "talk") if event_type == "call" else ():
        found[f"{span}_ms"] = Target(f"{span}_ms", "integer", Decimal(1))
        found[f"{span}_s"] = Target(f"{span}_ms", "integer", Decimal(1000))
    return found


def parts(column: Column) -> list[str | int]:
    """Return the columns that make up one field."""
    return column if isinstance(column, list) else [column]


def _struct(event_type: str) -> inspect.StructType:
    infos = (inspect.type_info(kind) for kind in get_args(Event))
    return next(info for info in infos if isinstance(info, inspect.StructType) and info.tag == event_type)


def _kind(info: inspect.Type) -> Kind | None:
    """Tell how a field is written; None for one that is no single value."""
    if isinstance(info, inspect.UnionType):
        return next(kind for kind in map(_kind, info.types) if kind is not None or len(info.types) == 1)
    if isinstance(info, inspect.IntType):
        return "time" if info.le == TIME_MS_MAX else "integer"
    if isinstance(info, inspect.FloatType):
        return "number"
    return "text" if isinstance(info, inspect.StrType | inspect.LiteralType) else None


def _text_problems(given: ColumnMap) -> Iterator[str]:
    line_ends = "\r\n"
    if len(given.delimiter) != 1 or not given.delimiter.isascii() or given.delimiter in f' "{line_ends}{given.quote}':
        rule = "must be one ASCII character that is no quote, space or line end"
        yield f"delimiter: {rule}, was {given.delimiter!r}"
    if len(given.quote) > 1 or not given.quote.isascii() or (given.quote and given.quote in f" {line_ends}"):
        rule = "must be empty or one ASCII character that is no space or line end"
        yield f"quote: {rule}, was {given.quote!r}"
    if not _keeps_ascii(given.encoding):
        rule = "must be the name of an encoding in which every ASCII byte is that character"
        yield f"encoding: {rule}, was {given.encoding!r}"


def _keeps_ascii(encoding: str) -> bool:
    # Encodings with states (ISO 2022, HZ, UTF-7) or escapes give themselves away on their own sequences.
    probe = bytes(range(128)) + b"\x1b$B!!\x1b(B~{!!~}+AGE-\\x41"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return probe.decode(encoding) == probe.decode("ascii")
        except (LookupError, ValueError):
            return False


def _name_problems(given: ColumnMap) -> Iterator[str]:
    """Every name must be a field of the event type."""
    known = targets(given.type)
    plain = {name for name, target in known.items() if name == target.field and name not in ("duration_ms", "talk_ms")}
    for name in sorted(given.columns.keys() - known.keys()):
        yield f"columns.{name}: must be a field of a {given.type} event, was no such name"
    for name in sorted(given.constants.keys() - plain):
        yield f"constants.{name}: must be a field of a {given.type} event, was no such name"
    for name in sorted(given.values.keys() - given.columns.keys()):
        yield f"values.{name}: must be one of columns, was no such name"
    for name, value in given.constants.items():
        if not isinstance(value, str) and not abs(value) <= COUNT_MAX:
            yield f"constants.{name}: must be within {COUNT_MAX} of zero, was beyond"
    for name in given.tokenise:
        if name not in PHONES and (name not in known or known[name].kind != "text"):
            yield f"tokenise: must name text fields of a {given.type} event, was {name!r}"


def _source_problems(given: ColumnMap) -> Iterator[str]:
    """Every field must have one source at most, a required field exactly one."""
    known = targets(given.type)
    sources: dict[str, list[str]] = {}
    for section in ("columns", "constants"):
        for name in getattr(given, section):
            if name in known:
                field_name = known[name].field
                replaced = {"duration_ms": "end_ms", "talk_ms": "answer_ms"}.get(field_name, field_name)
                sources.setdefault(replaced, []).append(f"{section}.{name}")
    for field_name, names in sources.items():
        if len(names) > 1:
            yield f"{names[1]}: must be the only source of {field_name}, was a second one beside {names[0]}"
    for info in _struct(given.type).fields:
        if info.required and info.name not in sources:
            yield f"columns.{info.name}: must be given, as every {given.type} event has one; was absent"


def _column_problems(given: ColumnMap) -> Iterator[str]:
    rule = "must be the name of a column" if given.header else "must be the number of a column, from 1"
    for name, column in given.columns.items():
        fits = [
            isinstance(part, str) if given.header else isinstance(part, int) and part >= 1 for part in parts(column)
        ]
        if not all(fits) or not fits:
            yield f"columns.{name}: {rule}, or a list of them, was {column!r}"
