"""One file of a checkpoint: a head in MessagePack, behind it arrays as they are, all under a digest.

No pickle, no code: numbers and strings in a layout of a stated version.
"""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from dataflows.durable import replaced
from schemas.errors import StateError

FAMILY = b"stayline-state/"
MAGIC = FAMILY + b"2\n"
"""What a file begins with, and in which layout it is."""

SECTION_MIN = 1_024
"""So many bytes are worth a section of their own: what is shorter stands in the head."""

_DIGEST = hashlib.sha256
_AT_DIGEST = len(MAGIC)
_AT_SIZES = _AT_DIGEST + _DIGEST().digest_size
_AT_HEAD = _AT_SIZES + 8


class Link(Struct, frozen=True):
    """What ties a file to its neighbours.

    Attributes:
        number: of the checkpoint.
        floor: number of the first file that is needed beside this one; its own, if it is whole.
        run: names the run that wrote it.
        after: the run that wrote the file before it; empty: there was none.
    """

    number: int
    floor: int
    run: str
    after: str


class _Head(Struct, frozen=True):
    link: Link
    sections: list[int]
    state: dict[str, Any]


def write(path: Path, link: Link, state: dict[str, Any]) -> None:
    """Write a file that is there as a whole or not at all, and make it durable.

    Raises:
        OSError: it cannot be written.
    """
    sections: list[memoryview] = []
    state = _apart(state, sections)
    head = msgspec.msgpack.encode(_Head(link, [section.nbytes for section in sections], state))
    sizes = len(head).to_bytes(8, "little")
    digest = _DIGEST(sizes)
    parts: list[bytes | memoryview] = [head, *sections]
    for part in parts:
        digest.update(part)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replaced(path) as stream:
        stream.write(MAGIC + digest.digest() + sizes)
        stream.writelines(parts)


def read(path: Path) -> tuple[Link, dict[str, Any]]:
    """Read a file back; arrays are views of its bytes.

    Raises:
        StateError: it is missing, damaged, or of a layout that this program does not know.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise StateError(f"{path}: must be readable, was not: {error.strerror}") from None
    if data[:_AT_DIGEST] != MAGIC:
        raise StateError(f"{path}: must begin with {MAGIC.decode().strip()}, {_found(bytes(data[:_AT_DIGEST]))}")
    if _DIGEST(data[_AT_SIZES:]).digest() != data[_AT_DIGEST:_AT_SIZES]:
        raise StateError(f"{path}: must match its digest, did not: the file is damaged")
    end = _AT_HEAD + int.from_bytes(data[_AT_SIZES:_AT_HEAD], "little")
    head = msgspec.msgpack.decode(data[_AT_HEAD:end], type=_Head, strict=False)
    sections = []
    for size in head.sections:
        sections.append(data[end : end + size])
        end += size
    return head.link, _together(head.state, sections)


def _found(begin: bytes) -> str:
    if begin.startswith(FAMILY):
        of = begin[len(FAMILY) :].split(b"\n")[0].decode("ascii", "replace")
        return f"is of layout {of}: made by another version of this program"
    return "did not: the file is damaged"


def _apart(value: Any, sections: list[memoryview]) -> Any:
    """Put long arrays into sections, and the number of the section in their place."""
    if _is_named(value):
        return {name: _apart(inner, sections) for name, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_apart(inner, sections) for inner in value]
    if isinstance(value, memoryview) and value.nbytes >= SECTION_MIN:
        sections.append(value)
        return msgspec.msgpack.Ext(1, (len(sections) - 1).to_bytes(4, "little"))
    return value


def _together(value: Any, sections: list[memoryview]) -> Any:
    """Put the sections back."""
    if _is_named(value):
        return {name: _together(inner, sections) for name, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_together(inner, sections) for inner in value]
    if isinstance(value, msgspec.msgpack.Ext):
        return sections[int.from_bytes(value.data, "little")]
    return value


def _is_named(value: Any) -> bool:
    # What has numbers for keys is a table of very many small entries.
    return isinstance(value, dict) and isinstance(next(iter(value), None), str)
