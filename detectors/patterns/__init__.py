"""What is wrong: each pattern a function of the customer's recent calls.

A new pattern is one file with one function `View -> Finding | None` and one entry in `STRUCTURES` or `SORTS`.
"""

import numpy as np

from detectors.patterns.composition import one_way_audio, quality, redial, setup_failure
from detectors.patterns.duration_lock import duration_lock
from detectors.patterns.route import route
from detectors.patterns.time_of_day import time_of_day
from detectors.patterns.view import Finding, Names, PatternTest, View
from detectors.patterns.worsening import worsening

__all__ = ["PATTERNS", "Finding", "Names", "View", "read"]

STRUCTURES: tuple[PatternTest, ...] = (duration_lock, time_of_day, route, one_way_audio, worsening)
"""Patterns that chance does not make: their likelihood ratios are evidence of their own."""

SORTS: tuple[PatternTest, ...] = (redial, quality, setup_failure)
"""Patterns that say of what sort the bad calls are: each has its channel in the evidence already, and a customer whose
habit is of that sort must not count twice."""

PATTERNS: tuple[PatternTest, ...] = (*STRUCTURES, *SORTS)

PLAIN_SHARE = 0.85
"""Most of the belief goes to a plain rise of the rate, which most trouble shows; the patterns share the rest."""

NAME_FROM_LOG10 = 0.35
"""A structure is named from this lift on, for plain trouble is about twice as common as any one of them; below, the
trouble is a plain `drop_rate`."""


def read(view: View) -> tuple[Finding, float]:
    """Return the pattern that names the trouble, and log10 of what structure adds to its evidence.

    The second is the mean of the likelihood ratios of all structures, a plain rise being one at 1: an average of
    likelihood ratios is one, so that looking for five structures in everybody costs no false alarms.
    """
    structures = [finding for pattern in STRUCTURES if (finding := pattern(view)) is not None]
    found = structures + [finding for pattern in SORTS if (finding := pattern(view)) is not None]
    ratios = [10.0**finding.lift_log10 for finding in structures]
    added = PLAIN_SHARE + (1.0 - PLAIN_SHARE) * sum(ratios) / len(STRUCTURES)
    plain = Finding("drop_rate", NAME_FROM_LOG10, "")
    return max([plain, *found], key=lambda finding: finding.lift_log10), float(np.log10(added))
