"""A customer's latest calls: whether one comes again, and whether it comes too late for anybody to tell.

A row keeps the keys of its latest calls, newest first, and beside each the time from it back to the next, in two
bytes: exact below four seconds, cut short by less than a two-thousandth above. So a call that is forgotten seems to
have ended when it did or a little later, never earlier, and one that comes again is never counted twice. What it
costs: of calls that come out of order, one that ended within a two-thousandth of the forgotten one's age after it is
late too.
"""

import math
from typing import Any

import numpy as np

from schemas.kernels import inlined

SEEN = 8
"""How many of a customer's latest calls are remembered to recognise duplicates."""

_BITS = 11
"""A time is held to so many binary digits behind its first."""

LONG_AGO = np.uint16(0xFFFF)
"""More than a century: what lies behind the oldest call until there are more than are remembered."""


@inlined
def coded(span_ms: int) -> np.uint16:
    """Return the two bytes that stand for a time: its leading digits, and how many follow them."""
    # Below two to the twelfth a time is its own code; from there on each doubling takes 2**11 codes.
    _, digits = math.frexp(float(span_ms))
    shift = max(digits - _BITS - 1, 0)
    return np.uint16(min((shift << _BITS) + (span_ms >> shift), 0xFFFF))


@inlined
def span_of(code: np.uint16) -> int:
    """Return the time in milliseconds that two bytes stand for: the one coded, or less by up to 1 part in 2**11."""
    shift = max((int(code) >> _BITS) - 1, 0)
    return (int(code) - (shift << _BITS)) << shift


@inlined
def is_known(one: Any, call: np.uint32) -> bool:
    """Return whether a call is among those that a row remembers."""
    known = False
    for k in range(SEEN):
        known |= one["seen"][k] == call
    return known


@inlined
def is_late(one: Any, end_ms: int, lateness_ms: int) -> bool:
    """Return whether a call ended too long before its customer's newest one, or no later than one that is forgotten."""
    if one["last_ms"] < 0:
        return False
    behind_ms = one["last_ms"] - end_ms
    if behind_ms < 0 or behind_ms > lateness_ms:
        return bool(behind_ms > 0)
    forgotten_ms = 0
    for k in range(SEEN):
        forgotten_ms += span_of(one["gap"][k])
    return bool(behind_ms >= forgotten_ms)


@inlined
def keep(one: Any, call: np.uint32, end_ms: int) -> None:
    """Remember a call that is not late, and forget the one that ended first. `last_ms` is still that before it."""
    at = 0
    behind_ms = one["last_ms"] - end_ms
    rest = LONG_AGO
    if one["last_ms"] >= 0:
        rest = coded(-min(behind_ms, 0))
    if one["last_ms"] >= 0 and behind_ms > 0:
        while at < SEEN - 1 and behind_ms >= span_of(one["gap"][at]):
            behind_ms -= span_of(one["gap"][at])
            at += 1
        code = coded(behind_ms)
        rest = coded(span_of(one["gap"][at]) - span_of(code))
        one["gap"][at] = code
        at += 1
    for k in range(SEEN - 1, at, -1):
        one["seen"][k] = one["seen"][k - 1]
        one["gap"][k] = one["gap"][k - 1]
    # One that ended before all that are remembered is itself the one forgotten.
    if at < SEEN:
        one["seen"][at] = call
        one["gap"][at] = rest
