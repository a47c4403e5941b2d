"""What the churn model is told of a customer's calls."""

import math
from collections.abc import Sequence

import numpy as np

from detectors.memory import Memory
from detectors.watch.news import feel
from detectors.watch.world import FELT
from schemas.text import F64


def experience(memory: Memory, customer: int, now_ms: int) -> dict[str, float]:
    """Return the churn features that a customer's calls give.

    Args:
        memory: everything that is known.
        customer: key.
        now_ms: event time.
    """
    felt = np.empty((1, len(FELT)))
    feel(memory.world(), np.uint64(customer), now_ms, felt[0])
    return named(memory, customer, weighed(felt)[0])


def weighed(felt: F64) -> list[list[float]]:
    """Return what `feel` wrote as features: float64[n, len(FELT)] as lists, of the evidence its log10."""
    felt[:, 0] = np.log10(np.maximum(felt[:, 0], 1.0))
    rows: list[list[float]] = felt.tolist()
    return rows


def named(memory: Memory, customer: int, features: Sequence[float]) -> dict[str, float]:
    """Return features of `FELT` by name, those that are known, and whether the customer has a case."""
    known = {name: value for name, value in zip(FELT, features, strict=True) if not math.isnan(value)}
    known["cases_open"] = float(customer in memory.casebook.cases)
    return known
