"""Calls that end at the same duration though nothing in their release says so.

A lock at T cuts every call that would have lasted longer; shorter ones are untouched. So among calls that reach T the
chance to end within the tolerance of it is that of the hazard of ordinary calls, a few in a hundred or a few in a
thousand, against nine in ten under a lock. The first call that ends at T only names it; what counts is each further
one, with a far end that is neither the first one's nor the newest one's: a device that calls one number for the same
time each day is no lock, whomever else its owner calls.

The evidence is Shiryaev-Roberts like that of `detectors.evidence`, each call opening a process with the days since the
one before. Only the strongest processes are held; dropping one can only lower the evidence.
"""

import math
from typing import Any

import numpy as np

from detectors.evidence import EVIDENCE_MAX, LOCK_SHARE
from detectors.roster import LOCKS, MINUTES_ALL
from schemas.kernels import inlined, loop

TIMERS_S: tuple[float, ...] = (
    30.0, 32.0, 60.0, 64.0, 90.0, 120.0, 180.0, 300.0, 568.0, 600.0, 900.0, 932.0, 1768.0, 1790.0, 1800.0, 3568.0,
    3600.0, 7200.0,
)  # fmt: skip
"""Timers that end calls: RFC 3261 timers B, F, H at 64 T1 (32 s), UDP NAT bindings (30 to 300 s, RFC 4787), RTP
timeouts (60, 300 s), RFC 4028 session timers (90, 600, 1800 s; their refresh at half, 300 and 900 s; the BYE that
comes 32 s early, 568 and 1768 s), guard timers of session border controllers (3600, 7200 s)."""

TOLERANCE_S = 1.5
HELD_S = 0.25
"""Locks are held in these steps, up to four and a half hours; longer calls name none."""
SHORTEST_S = 20.0
"""Shorter calls end for a hundred reasons."""
MEDIAN_S, SIGMA = 80.0, 1.5
"""Durations of calls in general: log-normal, 60 % below 90 s and over 80 % below five minutes (Ofcom, Mobile
Matters, 2019)."""
ALIKE = 1.5
"""One customer's calls are more alike than those of all together: so much likelier are his to end at a duration."""
CUT_SHARE = 0.9
"""Under a lock, this share of the calls that reach it end there."""
KNOWN_SHARE = 0.5
"""Half of the belief in locks goes to the known timers."""
KNOWN_BOOST_MAX = 100.0
WHOLE_MINUTES = 0.9
"""A source whose durations are whole minutes so often has no finer ones: they say nothing about timers."""
WHOLE_MINUTES_FADE = 0.1


@loop
def density(value_s: float) -> float:
    """Return the share of ordinary calls, per second, that last this long."""
    z = math.log(value_s / MEDIAN_S) / SIGMA
    return math.exp(-0.5 * z * z) / (SIGMA * value_s * math.sqrt(2.0 * math.pi))


def ending_chance(value_s: float) -> float:
    """Return the chance that an ordinary call that reaches a duration ends within the tolerance of it."""
    lasting = 0.5 * math.erfc(math.log(value_s / MEDIAN_S) / SIGMA / math.sqrt(2.0))
    return min(max(ALIKE * 2.0 * TOLERANCE_S * density(value_s) / max(lasting, 1e-9), 2e-3), 0.3)


def _boost(value_s: float) -> float:
    """Return how much likelier than any value a known timer is to be the first one seen."""
    for timer_s in TIMERS_S:
        if abs(value_s - timer_s) < TOLERANCE_S:
            told = KNOWN_SHARE * CUT_SHARE / len(TIMERS_S) / (2.0 * TOLERANCE_S * density(value_s))
            return min(max(told, 1.0), KNOWN_BOOST_MAX)
    return 1.0 - KNOWN_SHARE


_STEPS_S = 0.5
"""Steps of the tables: timers are whole seconds and the tolerance one and a half, so that no step lies on an edge."""
_MIDDLES_S = np.arange(_STEPS_S / 2.0, max(TIMERS_S) + 10.0, _STEPS_S)
_BOOST = np.array([_boost(value_s) for value_s in _MIDDLES_S.tolist()])
_ENDING_CHANCE = np.array([ending_chance(value_s) for value_s in _MIDDLES_S.tolist()])


@inlined
def _step(value_s: float) -> int:
    return min(int(value_s * (1.0 / _STEPS_S)), len(_BOOST) - 1)


@inlined
def party_of(peer: np.uint32) -> np.uint16:
    """Return the sixteen bits of a far end that are held beside a lock; 0: not known."""
    return np.uint16(max(int(peer) & 0xFFFF, 1)) if peer != 0 else np.uint16(0)


@inlined
def observe_duration(one: Any, duration_ms: int, peer: np.uint32, days: float) -> bool:
    """Move a customer's locks by one answered call; return whether it was cut at one already suspected.

    Args:
        one: the customer's row; changed in place.
        duration_ms: answer to end.
        peer: the far end; 0: not known.
        days: since the customer's previous call.
    """
    share = one["minutes_share"] / MINUTES_ALL
    whole = 1.0 if duration_ms % 60_000 == 0 else 0.0
    share += WHOLE_MINUTES_FADE * (whole - share)
    one["minutes_share"] = np.uint16(share * MINUTES_ALL)
    duration_s = duration_ms / 1000.0
    if duration_s < SHORTEST_S or share > WHOLE_MINUTES:
        return False
    party = party_of(peer)
    cut = False
    near = False
    weakest = 0
    for k in range(LOCKS):
        lock_s = one["lock"][k] * HELD_S
        if one["lock_evidence"][k] < one["lock_evidence"][weakest]:
            weakest = k
        if lock_s <= 0.0 or duration_s < lock_s - TOLERANCE_S:
            continue
        chance = _ENDING_CHANCE[_step(lock_s)]
        ratio = (1.0 - CUT_SHARE) / (1.0 - chance)
        if duration_s <= lock_s + TOLERANCE_S:
            near = True
            if peer != 0 and party in (one["lock_peer"][k, 0], one["lock_peer"][k, 1]):
                continue
            ratio = CUT_SHARE / chance
            one["lock_peer"][k, 1] = party
            cut = True
        one["lock_evidence"][k] = np.float32(min(one["lock_evidence"][k] * ratio, EVIDENCE_MAX))
    fresh = days * _BOOST[_step(duration_s)]
    if not near and fresh >= one["lock_evidence"][weakest]:
        one["lock"][weakest] = min(round(duration_s / HELD_S), 0xFFFF)
        one["lock_evidence"][weakest] = np.float32(fresh)
        one["lock_peer"][weakest, :] = party
    return cut


@inlined
def lock_total(one: Any) -> float:
    """Return what repeated durations add to a customer's evidence, in days."""
    value = 0.0
    for k in range(LOCKS):
        value += one["lock_evidence"][k]
    return LOCK_SHARE * value
