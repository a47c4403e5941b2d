"""What telemetry says of customers' own lines: on which days a line was off, and how much that says of its bad calls.

A line is off while its readings break an absolute limit or fall far behind what they usually are, in two polls in a
row: one reading off is an accident. What counts is the day, however often a line is polled. Days before a trouble say
how often this line is off anyway; those of the trouble are held against them by the Bayesian prediction
(beta-binomial), so that a line which retrains every night says nothing new. The likelihood ratio multiplies the
evidence that bad calls hold and has a mean of at most 1 while the line is as it always is: false alarms stay as rare as
promised. It opens no case by itself, for one bad call and a bad line are not two bad calls.

Lines of one access node that fall together are the node's trouble: they say nothing of any one customer's line.
"""

import math
from typing import Any, get_args

import numpy as np

from detectors.shelves import Shelf, Shelves, take_place
from schemas.events import Metric
from schemas.kernels import inlined, loop

METRICS: tuple[Metric, ...] = get_args(Metric)

SNR_MARGIN_OFF_DB = 3.0
"""A DSL line is trained to a margin of 6 dB (the usual target of ITU-T G.997.1); with half of it left it retrains
soon."""
RETRAINS_MANY = 2.0
"""Once may happen to any line."""
RX_POWER_LOW_DBM, RX_POWER_HIGH_DBM = -27.0, -8.0
"""Receive window of a GPON terminal, class B+ (ITU-T G.984.2, amendment 1)."""
LOSS_HIGH_RATIO = 0.01
"""Packet loss that is audible with G.711 without concealment (ITU-T G.113, appendix I)."""
LATENCY_HIGH_MS = 150.0
"""One way, what most users still find acceptable (ITU-T G.114)."""

FALLEN_DB = 3.0
"""Margin or optical power so far below its usual level: half the power is gone."""
FALLEN_SYNC = 0.7
"""So does a line that is trained to less than this part of its usual rate."""
USUAL_FROM, USUAL_MEMORY = 6, 60
"""A usual level is one from so many readings on; it remembers about so many."""

POLL_MS = 60_000
"""Readings this close together are of one poll."""
IN_A_ROW_MS = 2 * 86_400_000
"""Two polls further apart than this are not in a row."""
DAYS_HELD = 32
"""So many days are held one by one; older ones are counted."""
DAYS_COUNTED = 400
"""Counted days fade by halves beyond so many."""

OFF_MEAN, OFF_DAYS = 0.04, 10.0
"""What is believed of a line before it has been seen: the mean share of its days that are off, and how many days that
belief is worth. Judgement: few lines are ever off, and those that are, often."""
TROUBLED_SHARE = 0.7
"""A line that cuts calls is off on this share of its days."""
LINE_SHARE = 0.25
"""So much of the belief goes to lines as the cause of bad calls; what else it is, readings do not say."""
RATIO_MAX = 100.0
"""The days of one trouble say no more than this: noise, too, lasts for days."""

TOGETHER_MS = 3_600_000.0
"""Lines that fall within about this time fall together."""
TOGETHER_MIN = 4.0
"""So many lines of a node at least must fall together before the node is blamed (as many as for its calls)."""
SHARED_MS = 3 * 3_600_000

LEVELS: tuple[Metric, ...] = ("snr_margin_db", "rx_power_dbm", "sync_kbps")
"""Metrics that every line has a level of its own of."""

LINE = np.dtype(
    [
        ("poll_ms", np.int64),  # of the newest poll; -1: none
        ("since_ms", np.int64),  # the line is off since; -1: it is not
        ("day", np.int32),  # UTC day of the newest poll
        ("polled", np.uint32),  # days with polls, as bits: bit k is the day k days before `day`
        ("off", np.uint32),  # days on which the line was off
        ("node", np.int32),  # serial of its access node; -1: no call has told
        ("usual", np.float32, (len(LEVELS),)),
        ("count", np.uint16),  # days older than those
        ("off_count", np.uint16),  # and on how many of them it was off
        ("known", np.uint8, (len(LEVELS),)),  # readings that each usual level rests on
        ("state", np.uint8),  # NOW_OFF, WAS_OFF
    ],
    align=True,
)

NOW_OFF, WAS_OFF = 1, 2
"""The newest poll is off; the one before it was."""

_MARGIN, _RETRAINS, _POWER, _SYNC, _LOSS, _DROPPED, _LATENCY, _REGISTERED = (
    METRICS.index(name)
    for name in (
        "snr_margin_db",
        "retrains",
        "rx_power_dbm",
        "sync_kbps",
        "loss_ratio",
        "packets_dropped_ratio",
        "latency_ms",
        "registered",
    )
)
_LEVEL_OF = np.array([LEVELS.index(name) if name in LEVELS else -1 for name in METRICS])


@inlined
def _breaks_limit(metric: int, value: float) -> bool:
    """Return whether a reading is off whatever line it is of."""
    if metric == _MARGIN:
        return bool(value < SNR_MARGIN_OFF_DB)
    if metric == _RETRAINS:
        return bool(value >= RETRAINS_MANY)
    if metric == _POWER:
        return bool(value < RX_POWER_LOW_DBM or value > RX_POWER_HIGH_DBM)
    if metric in (_LOSS, _DROPPED):
        return bool(value >= LOSS_HIGH_RATIO)
    if metric == _LATENCY:
        return bool(value >= LATENCY_HIGH_MS)
    return bool(metric == _REGISTERED and value < 0.5)


@inlined
def _has_fallen(one: Any, metric: int, value: float) -> bool:
    """Return whether a level lies far below the usual one; learn it if not."""
    level = _LEVEL_OF[metric]
    if level < 0:
        return False
    usual, known = one["usual"][level], one["known"][level]
    far = FALLEN_SYNC * usual if metric == _SYNC else usual - FALLEN_DB
    if known >= USUAL_FROM and value < far:
        return True
    one["known"][level] = known = min(known + 1, USUAL_MEMORY)
    one["usual"][level] = np.float32(usual + (value - usual) / known)
    return False


@inlined
def _pass_days(one: Any, day: int) -> None:
    """Move on to a later day; days that are too old to be held are counted."""
    for _ in range(min(day - one["day"], 2 * DAYS_HELD)):
        oldest = np.uint32(1 << (DAYS_HELD - 1))
        if one["polled"] & oldest:
            if one["count"] >= DAYS_COUNTED:
                one["count"] //= np.uint16(2)
                one["off_count"] = (one["off_count"] + 1) // 2
            one["count"] += np.uint16(1)
            one["off_count"] += np.uint16((one["off"] & oldest) != 0)
        one["polled"] = np.uint32((np.uint64(one["polled"]) << np.uint64(1)) & np.uint64(0xFFFF_FFFF))
        one["off"] = np.uint32((np.uint64(one["off"]) << np.uint64(1)) & np.uint64(0xFFFF_FFFF))
    one["day"] = day


@loop
def clear_line(one: Any) -> None:
    """Make a line one that was never read."""
    one["poll_ms"], one["since_ms"], one["node"] = -1, -1, -1
    one["day"], one["polled"], one["off"] = 0, 0, 0
    one["usual"][:] = 0.0
    one["known"][:] = 0
    one["count"], one["off_count"], one["state"] = 0, 0, 0


@loop
def take_line(shelf: Shelf) -> int:
    """Return the place of a line that was never read, or -1 where none is free."""
    place = take_place(shelf)
    if place >= 0:
        clear_line(shelf.items[place])
    return place


@loop
def read_line(one: Any, metric: int, value: float, at_ms: int) -> bool:
    """Move a line by one reading; return whether it has just fallen: it was not off before.

    Args:
        one: the line; changed in place.
        metric: index into `METRICS`.
        value: what was read.
        at_ms: event time; a reading older than the newest poll says nothing.
    """
    if at_ms < one["poll_ms"]:
        return False
    if one["poll_ms"] < 0 or at_ms >= one["poll_ms"] + POLL_MS:
        in_a_row = at_ms <= one["poll_ms"] + IN_A_ROW_MS
        was_off = in_a_row and (one["state"] & NOW_OFF) != 0
        if not was_off:
            one["since_ms"] = -1
        one["state"] = WAS_OFF if was_off else 0
        if one["poll_ms"] < 0:
            one["day"] = at_ms // 86_400_000
        one["poll_ms"] = at_ms
        _pass_days(one, at_ms // 86_400_000)
        one["polled"] |= np.uint32(1)
    if not (_breaks_limit(metric, value) or _has_fallen(one, metric, value)):
        return False
    one["state"] |= np.uint8(NOW_OFF)
    if not one["state"] & WAS_OFF:
        return False
    one["off"] |= np.uint32(1)
    if one["since_ms"] >= 0:
        return False
    one["since_ms"] = at_ms
    return True


@inlined
def fall_together(element: Any, at_ms: int) -> None:
    """Let an access node see that one of its lines has fallen."""
    apart_ms = max(at_ms - element["fallen_ms"], 0)
    element["fallen"] = np.float32(element["fallen"] * math.exp(-apart_ms / TOGETHER_MS) + 1.0)
    element["fallen_ms"] = max(element["fallen_ms"], at_ms)
    # What has faded a little by the fourth is four all the same.
    if element["fallen"] >= TOGETHER_MIN - 1.0:
        element["surge_ms"] = element["fallen_ms"]


@loop
def line_log10(one: Any, surge_ms: int, since_ms: int) -> float:
    """Return log10 of how much likelier a line's days are if it is the cause of bad calls.

    Args:
        one: the line.
        surge_ms: when lines of its node fell together last; -1: never.
        since_ms: end of the first bad call of the trouble.
    """
    if one["poll_ms"] < 0 or (surge_ms >= 0 and one["since_ms"] >= 0 and abs(one["since_ms"] - surge_ms) <= SHARED_MS):
        return 0.0
    count, off_count = float(one["count"]), float(one["off_count"])
    days, off_days = 0.0, 0.0
    # A line is off before it cuts the first call.
    first = since_ms // 86_400_000 - 1
    for ago in range(DAYS_HELD):
        polled = float((one["polled"] >> np.uint32(ago)) & np.uint32(1))
        off = float((one["off"] >> np.uint32(ago)) & np.uint32(1))
        if one["day"] - ago >= first:
            days += polled
            off_days += off
        else:
            count += polled
            off_count += off
    ratio = 1.0
    for day in range(int(days)):
        whole = OFF_DAYS + count + day
        if day < off_days:
            ratio *= TROUBLED_SHARE * whole / (OFF_DAYS * OFF_MEAN + off_count + day)
        else:
            good = day - off_days
            ratio *= (1.0 - TROUBLED_SHARE) * whole / (OFF_DAYS * (1.0 - OFF_MEAN) + count - off_count + good)
    return math.log10(1.0 - LINE_SHARE + LINE_SHARE * min(ratio, RATIO_MAX))


class Lines(Shelves):
    """The lines of those customers whose lines are read."""

    def __init__(self) -> None:
        super().__init__(LINE)
