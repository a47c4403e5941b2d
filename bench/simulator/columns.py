"""Calls as columns: one NumPy array per field, all of one length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Columns = dict[str, NDArray[Any]]

UNKNOWN = -1
"""In an integer column: no value. In a float column it is NaN."""

NEVER_MS = 2**60
"""Later than everything."""


def height(columns: Columns) -> int:
    """Count the rows."""
    return len(columns["customer"])


def take(columns: Columns, rows: NDArray[Any]) -> Columns:
    """Copy some rows, given by index or by mask, in that order."""
    return {name: values[rows] for name, values in columns.items()}


def join(parts: Sequence[Columns]) -> Columns:
    """Stack tables of the same columns."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def mix(values: NDArray[Any], salt: int) -> NDArray[np.uint64]:
    """Scramble integers one to one: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    mixed = values.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Open the random stream of one purpose, independent of every other purpose's."""
    return np.random.default_rng([seed, *stream])
