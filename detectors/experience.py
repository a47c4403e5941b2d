"""What the churn model is told of a customer's calls."""

import numpy as np

from detectors.evidence import DROP, QUALITY
from detectors.memory import Memory
from detectors.watch.customers import evidence_days

DAY_MS = 86_400_000


def experience(memory: Memory, customer: int, now_ms: int) -> dict[str, float]:
    """Return the churn features that a customer's calls give.

    Args:
        memory: everything that is known.
        customer: key.
        now_ms: event time.
    """
    known = {"cases_open": float(customer in memory.casebook.cases)}
    row = memory.roster.find(customer)
    if row < 0:
        return known
    one = memory.roster.book.rows[row]
    known["evidence"] = float(np.log10(max(evidence_days(one), 1.0)))
    for channel, name in ((DROP, "drop_ratio"), (QUALITY, "bad_quality_ratio")):
        if one["count"][channel] > 0:
            known[name] = float(one["weight"][channel] / one["count"][channel])
    known["days_since_call"] = max(0, now_ms - int(one["last_ms"])) / DAY_MS
    known["drops_7d"] = 0.0
    history = int(memory.note_of(one)["history"])
    if history >= 0:
        bad, _ = memory.histories.bad_calls(history)
        known["drops_7d"] = float(np.count_nonzero(bad["end_ms"] > now_ms - 7 * DAY_MS))
    return known
