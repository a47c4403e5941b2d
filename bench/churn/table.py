"""A churn table, read as the models take it: numbers as they are, words as indicators, what is missing left out."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from detectors.churn.features import FEATURE_MAX, FeatureWords
from schemas.errors import ConfigError

LEVEL_ROWS_MIN = 50
"""A word that fewer rows hold gets no indicator of its own: nothing could be learnt of it."""

POSITIVE, NEGATIVE = frozenset({"yes", "true", "1", "churned", "left", "y"}), frozenset({"no", "false", "0", "n", ""})


class Table(Struct, frozen=True):
    """A table in which every row is a customer.

    Attributes:
        name: of the file.
        rows: the features of each customer; what is missing is absent.
        left: whether each left.
        words: the features, with their names.
        columns: the columns they were made of.
    """

    name: str
    rows: list[dict[str, float]]
    left: npt.NDArray[np.bool_]
    words: Mapping[str, FeatureWords]
    columns: list[str]

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return the features as an array, what is missing as NaN."""
        return np.array([[row.get(name, math.nan) for name in self.words] for row in self.rows])


def read_table(path: Path, label: str, identity: str) -> Table:
    """Read a CSV file with a header.

    Args:
        path: the file.
        label: the column that says who left: yes or no, true or false, 1 or 0.
        identity: the column that names the customer; it is no feature, nor is a column whose numbers only count rows.

    Raises:
        ConfigError: the file or a column is not there, or a label is neither yes nor no.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            records = list(csv.DictReader(stream))
    except OSError as error:
        raise ConfigError([f"--table: {path} must be a file that can be read, was not: {error.strerror}"]) from None
    header = list(records[0]) if records else []
    problems = [
        f"--{option}: must be a column of {path.name}, {name} is none of: {', '.join(header)}"
        for option, name in (("label", label), ("id", identity))
        if name not in header
    ]
    if problems:
        raise ConfigError(problems)
    left = _labels([record[label] for record in records], label)
    columns = [name for name in header if name not in (label, identity)]
    features: dict[str, list[float | None]] = {}
    for name in columns:
        features |= _features(name, [str(record[name] or "").strip() for record in records])
    rows = [
        {name: value for name, values in features.items() if (value := values[index]) is not None}
        for index in range(len(records))
    ]
    return Table(path.name, rows, left, {name: FeatureWords(name) for name in features}, columns)


def _labels(texts: Sequence[str], label: str) -> npt.NDArray[np.bool_]:
    lowered = [text.strip().lower() for text in texts]
    odd = sorted(set(lowered) - POSITIVE - NEGATIVE)
    if odd:
        raise ConfigError([f"--label: {label} must say yes or no, 1 or 0, said {odd[0]!r}"])
    found = np.array([text in POSITIVE for text in lowered])
    if found.all() or not found.any():
        raise ConfigError([f"--label: {label} must hold both customers who left and who stayed, held one kind"])
    return found


def _features(name: str, texts: list[str]) -> dict[str, list[float | None]]:
    numbers = [_number(text) for text in texts]
    if all(number is not None or text.upper() in {"", "NA", "NAN", "NULL"} for number, text in zip(numbers, texts)):  # noqa: B905  made of each other
        counts_rows = len(set(numbers)) == len(numbers) and numbers == sorted(numbers, key=lambda one: one or 0.0)
        return {} if counts_rows else {name: numbers}
    levels = [level for level, count in Counter(texts).most_common() if count >= LEVEL_ROWS_MIN]
    return {f"{name} is {level}": [float(text == level) for text in texts] for level in levels}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= FEATURE_MAX else None
