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

ROWS_MIN = 20
"""So many who left and so many who stayed: with fewer no measure says anything."""

POSITIVE = frozenset({"yes", "true", "1", "1.0", "churned", "left", "y"})
NEGATIVE = frozenset({"no", "false", "0", "0.0", "stayed", "n"})
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
INFINITE = frozenset({"inf", "-inf", "+inf", "infinity", "-infinity", "+infinity"})


class Table(Struct, frozen=True):
    """A table in which every row is a customer.

    Attributes:
        name: of the file.
        rows: the features of each customer; what is missing is absent.
        left: whether each left.
        words: the features, with their names.
        columns: the columns they were made of.
        unlabelled: rows that were left out.
        repeated: rows whose customer stands in an earlier one.
    """

    name: str
    rows: list[dict[str, float]]
    left: npt.NDArray[np.bool_]
    words: Mapping[str, FeatureWords]
    columns: list[str]
    unlabelled: int = 0
    repeated: int = 0

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return the features as an array, what is missing as NaN."""
        return np.array([[row.get(name, math.nan) for name in self.words] for row in self.rows])


def read_table(path: Path, label: str, identity: str) -> Table:
    """Read a CSV file with a header.

    Args:
        path: the file.
        label: the column that says who left: yes or no, true or false, 1 or 0.
        identity: the column that names the customer; it is no feature, nor is a column whose numbers only count rows.

    Rows whose label is missing are left out. Columns that say the same of everybody, or nothing, are no features.

    Raises:
        ConfigError: the file or a column is not there, a row does not fit the header, or a label is neither yes nor no.
    """
    header, lines = _read(path)
    problems = [
        f"--{option}: must be a column of {path.name}, {name} is none of: {', '.join(header)}"
        for option, name in (("label", label), ("id", identity))
        if name not in header
    ]
    problems += [f"{path.name}: {name} must be the name of one column" for name in header if header.count(name) > 1]
    if label == identity:
        problems.append(f"--id: must be another column than --label, both were {label}")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    said = header.index(label)
    known = [line for line in lines if line[said].strip().lower() not in MISSING]
    left = _labels([line[said] for line in known], label)
    columns = [name for name in header if name not in (label, identity)]
    features: dict[str, list[float | None]] = {}
    for name in columns:
        place = header.index(name)
        features |= _features(name, [line[place].strip() for line in known])
    features = {name: values for name, values in features.items() if len(set(values)) > 1}
    if not features:
        raise ConfigError([f"{path.name}: must hold a column that differs between customers, held none"])
    rows = [
        {name: value for name, values in features.items() if (value := values[index]) is not None}
        for index in range(len(known))
    ]
    who = header.index(identity)
    return Table(
        name=path.name,
        rows=rows,
        left=left,
        words={name: FeatureWords(name) for name in features},
        columns=columns,
        unlabelled=len(lines) - len(known),
        repeated=len(known) - len({line[who] for line in known}),
    )


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(lines, [])]
            rows = []
            for row in lines:
                if row and len(row) != len(header):
                    place = f"{path.name}:{lines.line_num}"
                    raise ConfigError([f"{place}: must have {len(header)} fields like its header, has {len(row)}"])
                rows.append(row)
    except OSError as error:
        raise ConfigError([f"--table: {path} must be a file that can be read, was not: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"--table: {path} must be UTF-8, was not at byte {error.start}"]) from None
    except csv.Error as error:
        raise ConfigError([f"{path.name}:{lines.line_num}: must be CSV: {error}"]) from None
    return header, [row for row in rows if row]


def _labels(texts: Sequence[str], label: str) -> npt.NDArray[np.bool_]:
    lowered = [text.strip().lower() for text in texts]
    odd = sorted(set(lowered) - POSITIVE - NEGATIVE)
    if odd:
        raise ConfigError([f"--label: {label} must say yes or no, 1 or 0, said {odd[0]!r}"])
    found = np.array([text in POSITIVE for text in lowered], bool)
    held = int(found.sum()), int((~found).sum())
    if min(held) < ROWS_MIN:
        wanted = f"{ROWS_MIN} who left and {ROWS_MIN} who stayed"
        raise ConfigError([f"--label: {label} must hold {wanted}, held {held[0]} and {held[1]}"])
    return found


def _features(name: str, texts: list[str]) -> dict[str, list[float | None]]:
    numbers = [_number(text) for text in texts]
    unknown = MISSING | INFINITE
    if all(number is not None or text.lower() in unknown for number, text in zip(numbers, texts)):  # noqa: B905  made of each other
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
