"""The small job compiled: river's `EWMean`, `EWVar` and `PageHinkley`, bit for bit, over rows of one structured array.

The formulas are river 0.26's (`river.stats.EWMean`, `river.stats.EWVar`, `river.drift.PageHinkley` in its mode "both");
exactness needs no more than the same operations in the same order, which Numba keeps where `fastmath` is off.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.kernels import inlined, loop
from schemas.text import F64, I32, I64, U64, Bools

ROW = np.dtype(
    [
        ("key", np.uint64),  # of the customer; 0: the row is free
        ("mean", np.float64),  # EWMean of the drop bit
        ("mos", np.float64),  # EWVar's two means: of MOS
        ("mos_squared", np.float64),  # and of its square
        ("count", np.float64),  # Page-Hinkley: observations since the last change
        ("level", np.float64),  # their mean
        ("increase", np.float64),  # the two sums
        ("decrease", np.float64),
        ("increase_min", np.float64),
        ("decrease_max", np.float64),
        ("seen", np.bool_),  # whether `mean` has a value
        ("rated", np.bool_),  # whether `mos` has one
        ("changed", np.bool_),  # the last observation was a change: the next one begins anew
    ],
    align=True,
)


class Settings(NamedTuple):
    """What river's constructors take: `fading_factor` of both means; `PageHinkley`'s other four."""

    fade: float
    min_instances: int
    delta: float
    threshold: float
    alpha: float


class Table(NamedTuple):
    """Rows, and how they are found: slots hold row numbers + 1, 0 is free; tally is [used rows]."""

    rows: npt.NDArray[np.void]
    slots: I32
    tally: I64


@inlined
def _faded(mean: float, x: float, fade: float, has_value: bool) -> float:  # noqa: FBT001  no keywords when compiled
    return fade * x + (1.0 - fade) * mean if has_value else x


@inlined
def _begin(one: Any) -> None:
    one["count"] = 0.0
    one["level"] = 0.0
    one["increase"] = 0.0
    one["decrease"] = 0.0
    one["increase_min"] = np.inf
    one["decrease_max"] = -1.0
    one["changed"] = False


@inlined
def page_hinkley(one: Any, x: float, settings: Settings) -> bool:
    """Let a row's Page-Hinkley test see `x`; return whether it detects a change."""
    if one["changed"]:
        _begin(one)
    one["count"] += 1.0
    one["level"] += (1.0 / one["count"]) * (x - one["level"])
    deviation = x - one["level"]
    one["increase"] = settings.alpha * one["increase"] + deviation - settings.delta
    one["decrease"] = settings.alpha * one["decrease"] + deviation + settings.delta
    one["increase_min"] = min(one["increase_min"], one["increase"])
    one["decrease_max"] = max(one["decrease_max"], one["decrease"])
    if one["count"] >= settings.min_instances:
        rise, fall = one["increase"] - one["increase_min"], one["decrease_max"] - one["decrease"]
        one["changed"] = rise > settings.threshold or fall > settings.threshold
    return bool(one["changed"])


@inlined
def ew_variance(one: Any) -> float:
    """Return a row's EWVar of MOS."""
    return float(one["mos_squared"] - one["mos"] * one["mos"])


@inlined
def _slot(slots: I32, rows: npt.NDArray[np.void], key: np.uint64) -> int:
    """Return where a key's row number stands, or the free slot where it belongs."""
    # The upper half of a digest, since its lower bits may be chosen by whoever chooses ids.
    at = int(key >> np.uint64(32)) & (len(slots) - 1)
    while slots[at] != 0 and rows[slots[at] - 1]["key"] != key:
        at = (at + 1) & (len(slots) - 1)
    return at


@loop
def index(table: Table) -> None:
    """Fill the slots from the rows."""
    table.slots[:] = 0
    for row in range(table.tally[0]):
        table.slots[_slot(table.slots, table.rows, table.rows[row]["key"])] = row + 1


@loop
def advance(table: Table, keys: U64, drop: F64, mos: F64, settings: Settings, first: I64, fired: Bools) -> None:
    """Apply calls in order.

    Args:
        table: with free rows for as many customers as there are calls.
        keys: of the customers, one a call; never 0.
        drop: the drop bit.
        mos: NaN where not known.
        settings: of the detectors.
        first: filled by row: the call that added the row's customer.
        fired: filled by call.
    """
    for i in range(len(keys)):
        at = _slot(table.slots, table.rows, keys[i])
        if table.slots[at] == 0:
            row = int(table.tally[0])
            table.tally[0] += 1
            table.slots[at] = row + 1
            table.rows[row]["key"] = keys[i]
            _begin(table.rows[row])
            first[row] = i
        one = table.rows[table.slots[at] - 1]
        one["mean"] = _faded(one["mean"], drop[i], settings.fade, one["seen"])
        one["seen"] = True
        fired[i] = page_hinkley(one, drop[i], settings)
        if not np.isnan(mos[i]):
            one["mos_squared"] = _faded(one["mos_squared"], mos[i] * mos[i], settings.fade, one["rated"])
            one["mos"] = _faded(one["mos"], mos[i], settings.fade, one["rated"])
            one["rated"] = True


@dataclass(slots=True)
class Small:
    """The small job's state of all customers.

    Attributes:
        settings: of the detectors.
        table: replaced when it grows.
    """

    settings: Settings
    table: Table

    @classmethod
    def empty(cls, settings: Settings) -> "Small":
        """Return the state before the first call."""
        return cls(settings, _table(np.zeros(1024, ROW), 0))

    def apply(self, keys: U64, drop: F64, mos: F64) -> tuple[I64, I64]:
        """Apply a batch of calls; return which calls fired, and for each new customer its first call."""
        used = int(self.table.tally[0])
        if used + len(keys) > len(self.table.rows):
            rows = np.zeros(max(2 * len(self.table.rows), used + len(keys)), ROW)
            rows[:used] = self.table.rows[:used]
            self.table = _table(rows, used)
        first = np.zeros(used + len(keys), np.int64)
        fired = np.zeros(len(keys), np.bool_)
        advance(self.table, keys, drop, mos, self.settings, first, fired)
        return np.flatnonzero(fired), first[used : int(self.table.tally[0])]

    def values(self) -> list[tuple[float, ...]]:
        """Return each customer's state as `bench.peers.job.Detectors.values` does, in order of first calls."""
        rows = self.table.rows[: int(self.table.tally[0])]
        variance = rows["mos_squared"] - rows["mos"] * rows["mos"]
        change = [rows[name] for name in ("count", "level", "increase", "decrease", "increase_min", "decrease_max")]
        return list(zip(*(column.tolist() for column in (rows["mean"], variance, *change)), strict=True))


def _table(rows: npt.NDArray[np.void], used: int) -> Table:
    # At most half full: a look-up then probes 1.5 slots in the mean (Knuth, vol. 3, section 6.4).
    slots = np.zeros(1 << int(2 * len(rows) - 1).bit_length(), np.int32)
    table = Table(rows, slots, np.array([used], np.int64))
    index(table)
    return table
