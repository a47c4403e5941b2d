"""Reading back what a detector wrote: numbers, strings and lists in a layout that has a name and a version."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.errors import StateError

S = TypeVar("S", bound=msgspec.Struct)

NUMBER_MAX = 1e12
"""The largest magnitude of a number in a snapshot: far above any count or sum of ours, far below what overflows."""


def read_snapshot(state: Mapping[str, Any], kind: type[S], layout: str) -> S:
    """Read a snapshot into its struct.

    Args:
        state: what `snapshot()` gave, possibly after a trip through msgpack or JSON.
        kind: the struct it was written from; it has a field `layout`.
        layout: the only layout that is known.

    Raises:
        StateError: if the layout is another, a field is missing, unknown or of another type, or a number is
            not finite or beyond `NUMBER_MAX`.
    """
    found = state.get("layout")
    if found != layout:
        raise StateError(f"the layout of the state must be {layout}, was {found!r}")
    try:
        read = msgspec.convert(dict(state), kind)
    except msgspec.ValidationError as error:
        raise StateError(f"the state {layout} must hold its fields: {error}") from error
    plain = msgspec.to_builtins(read)
    # Written so that NaN fails too: every comparison with it is false.
    if not all(abs(number) <= NUMBER_MAX for number in _numbers(plain)):
        raise StateError(
            f"the state {layout} must hold finite numbers up to {NUMBER_MAX:g} only, found one that is not"
        )
    # Structs have defaults for what is fresh; in a snapshot a field that is not there is damage, not a default.
    if plain != state:
        raise StateError(f"the state {layout} must hold every field, found fewer")
    return read


def _numbers(value: object) -> Iterable[float]:
    if isinstance(value, float | int):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)


def raw(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return the same rows as plain bytes: NumPy copies those whole, and of structured ones the fields alone.

    What lies between fields would otherwise be whatever memory held before, and equal states would differ.
    """
    return rows.view(np.dtype((np.void, rows.dtype.itemsize)))
