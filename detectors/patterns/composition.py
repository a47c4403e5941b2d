"""What the bad calls are: mostly one-way, mostly failed set-ups, mostly poor media, mostly made again.

Among the bad calls of healthy customers each sort has its usual share; a trouble of one sort shows it almost alone.
"""

import math

import numpy as np

from detectors.history import BAD, ONE_WAY, POOR, REDIALLED
from detectors.patterns.view import LIFT_LOG10_MAX, Finding, Kept, View, flagged, share_lift_log10
from schemas.alerts import PatternKind
from schemas.kernels import loop

ALMOST_ALL = 0.85
"""Under a pattern of one sort, this share of the bad calls is of that sort."""

ONE_WAY_USUAL = 0.08
SETUP_USUAL = 0.30
POOR_USUAL = 0.25
REDIAL_USUAL = 0.35
"""Shares of each sort among the bad calls of customers without trouble: rates of the healthy means of the channels
(`detectors.evidence.PRIORS`), one-way audio a few in a hundred of the drops."""


@loop
def _lift_log10(hits: int, trials: int, usual: float) -> float:
    return min(share_lift_log10(hits, trials, usual, ALMOST_ALL), LIFT_LOG10_MAX) if hits >= 2 else math.nan


@loop
def one_way_audio_log10(kept: Kept) -> float:
    """Return log10 of the likelihood ratio of trouble that is mostly one-way audio; NaN without two such calls."""
    return _lift_log10(flagged(kept.bad, ONE_WAY), len(kept.bad), ONE_WAY_USUAL)


def _finding(kind: PatternKind, hits: int, view: View, usual: float, phrase: str) -> Finding | None:
    lift = _lift_log10(hits, len(view.bad), usual)
    return None if math.isnan(lift) else Finding(kind, lift, phrase)


def one_way_audio(view: View) -> Finding | None:
    """Look for calls in which only one side was heard."""
    return _finding("one_way_audio", flagged(view.bad, ONE_WAY), view, ONE_WAY_USUAL, "with one side not heard")


def setup_failure(view: View) -> Finding | None:
    """Look for attempts that the network did not connect."""
    hits = int(np.count_nonzero(view.bad["setup"] >= BAD))
    return _finding("setup_failure", hits, view, SETUP_USUAL, "before anybody could answer")


def quality(view: View) -> Finding | None:
    """Look for calls that last, with media far below what this customer is used to."""
    lasting = (view.bad["flags"] & POOR != 0) & (view.bad["drop"] < BAD)
    return _finding("quality", int(np.count_nonzero(lasting)), view, POOR_USUAL, "with poor sound")


def redial(view: View) -> Finding | None:
    """Look for calls that nothing is wrong with on paper, and that are made again at once."""
    again = (view.bad["flags"] & REDIALLED != 0) & (view.bad["drop"] < BAD) & (view.bad["flags"] & POOR == 0)
    return _finding("redial", int(np.count_nonzero(again)), view, REDIAL_USUAL, "and had to be made again")
