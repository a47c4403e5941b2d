"""What the churn model is told of a customer's calls."""

import numpy as np

from detectors.memory import Memory
from detectors.watch.news import feel
from detectors.watch.world import FELT
from schemas.text import F64


def experience(memory: Memory, customer: int, now_ms: int) -> list[float]:
    """Return the churn features that a customer's calls give: `EXPERIENCE`, NaN where one is not known.

    Args:
        memory: everything that is known.
        customer: key.
        now_ms: event time.
    """
    felt = np.empty((1, len(FELT)))
    feel(memory.world(), np.uint64(customer), now_ms, felt[0])
    return [*weighed(felt)[0], float(customer in memory.casebook.cases)]


def weighed(felt: F64) -> list[list[float]]:
    """Return what `feel` wrote as features: float64[n, len(FELT)] as lists, of the evidence its log10."""
    felt[:, 0] = np.log10(np.maximum(felt[:, 0], 1.0))
    rows: list[list[float]] = felt.tolist()
    return rows
