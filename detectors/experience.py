"""What the churn model is told of a customer's calls."""

import numpy as np

from detectors.evidence import DROP, QUALITY
from detectors.memory import Memory
from detectors.watch import evidence_days


def experience(memory: Memory, customer: int) -> dict[str, float]:
    """Return the churn features that a customer's calls give.

    Args:
        memory: everything that is known.
        customer: key.
    """
    known = {"cases_open": float(customer in memory.casebook.cases)}
    one = memory.row_of(customer)
    if one is None:
        return known
    known["evidence"] = float(np.log10(max(evidence_days(one), 1.0)))
    for channel, name in ((DROP, "drop_ratio_30d"), (QUALITY, "bad_quality_ratio_30d")):
        if one["count"][channel] > 0:
            known[name] = float(one["weight"][channel] / one["count"][channel])
    return known
