"""What the bad calls are: mostly one-way, mostly failed set-ups, mostly poor media, mostly made again.

Among the bad calls of healthy customers each sort has its usual share; a trouble of one sort shows it almost alone.
"""

import math

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
def sorts_log10(kept: Kept) -> tuple[float, float, float]:
    """Return log10 of the likelihood ratios of trouble that is mostly redials, poor sound, failed set-ups; NaN: none.

    Redials are calls that nothing is wrong with on paper; of poor sound are calls that last.
    """
    redials, poor, failures = 0, 0, 0
    for call in kept.bad:
        lasts = call["drop"] < BAD
        redials += lasts and (call["flags"] & (REDIALLED | POOR)) == REDIALLED
        poor += lasts and (call["flags"] & POOR) != 0
        failures += call["setup"] >= BAD
    trials = len(kept.bad)
    return (
        _lift_log10(redials, trials, REDIAL_USUAL),
        _lift_log10(poor, trials, POOR_USUAL),
        _lift_log10(failures, trials, SETUP_USUAL),
    )


@loop
def one_way_audio_log10(kept: Kept) -> float:
    """Return log10 of the likelihood ratio of trouble that is mostly one-way audio; NaN without two such calls."""
    return _lift_log10(flagged(kept.bad, ONE_WAY), len(kept.bad), ONE_WAY_USUAL)


def _finding(kind: PatternKind, lift_log10: float, phrase: str) -> Finding | None:
    return None if math.isnan(lift_log10) else Finding(kind, lift_log10, phrase)


def one_way_audio(view: View) -> Finding | None:
    """Look for calls in which only one side was heard."""
    return _finding("one_way_audio", one_way_audio_log10(view.kept()), "with one side not heard")


def redial(view: View) -> Finding | None:
    """Look for calls that nothing is wrong with on paper, and that are made again at once."""
    return _finding("redial", sorts_log10(view.kept())[0], "and had to be made again")


def quality(view: View) -> Finding | None:
    """Look for calls that last, with media far below what this customer is used to."""
    return _finding("quality", sorts_log10(view.kept())[1], "with poor sound")


def setup_failure(view: View) -> Finding | None:
    """Look for attempts that the network did not connect."""
    return _finding("setup_failure", sorts_log10(view.kept())[2], "before anybody could answer")
