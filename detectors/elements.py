"""Network elements: the same evidence as for a customer, per node, trunk, SBC, region, firmware and probe.

A shared fault shows on its element long before it shows on most customers. Each customer speaks at most once an hour
for trouble, so that one bad line with many calls does not blame the node that it hangs on.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.changes import Table
from detectors.evidence import EVIDENCE_MAX, likelihood_ratio
from detectors.history import ELEMENTS
from detectors.snapshots import raw
from schemas.columns import CallColumns
from schemas.errors import StateError
from schemas.kernels import inlined, loop
from schemas.text import F64, I32, I64, CodeColumn, Translation

E_DROP, E_QUALITY, E_SETUP = range(3)
"""The element channels: answered calls that drop; media that is poor; attempts that failed among those not answered
(busy and no answer are the others, so that an attempt speaks in one channel and an answered call in the first two)."""

E_CHANNELS = 3

SUSPICIOUS_DAYS = 10.0
"""From so much evidence on an element is shown as suspicious."""

RISES: tuple[float, ...] = (0.08, 0.25, 0.60)
"""The alternatives: p1 = p0 + (1 - p0) * rise. A little worse, a quarter of calls, most calls."""

ELEMENT = np.dtype(
    [
        ("evidence", np.float32, (E_CHANNELS, len(RISES))),
        ("count", np.float32, (E_CHANNELS,)),
        ("weight", np.float32, (E_CHANNELS,)),
        ("waiting_count", np.float32, (E_CHANNELS,)),  # calls that may yet turn out to be trouble
        ("waiting_weight", np.float32, (E_CHANNELS,)),
        ("last_ms", np.int64, (E_CHANNELS,)),  # when each channel was observed last; -1: never
        ("since_ms", np.int64),  # first bad call since the evidence was last low; -1: none
        ("attempts", np.int64),  # since `since_ms`
        ("answered", np.int64),
        ("drops", np.int64),
        ("failures", np.int64),  # attempts that the network did not set up
        ("poor", np.int64),
        ("rated", np.int64),  # answered calls whose media is known
        ("customers", np.int64),  # that had a bad call in the open incident
        ("fallen_ms", np.int64),  # when a line of it fell last (detectors.lines)
        ("surge_ms", np.int64),  # when lines of it fell together last; -1: never
        ("incident", np.int32),  # serial of the open incident; 0: none
        ("recovery", np.float32),  # evidence that it is over, in days
        ("recovery_p", np.float32),  # the rate that it is over against
        ("recovery_p0", np.float32),  # the healthy rate when the incident opened
        ("fallen", np.float32),  # lines that fell lately, fading
        ("channel", np.int8),  # what the incident is about
        ("kind", np.int8),  # index into ELEMENTS
    ],
    align=True,
)

BAD_CALL = np.dtype(
    [
        ("end_ms", np.int64),
        ("key", np.uint64),  # the customer's
        ("signs", np.float32, (E_CHANNELS,)),  # x by channel
        ("elements", np.int32, (len(ELEMENTS),)),
    ],
    align=True,
)

LOG_KEPT = 16_384
"""How many of the network's latest bad calls are remembered, to find who was inside an outage before it was known."""

ELEMENTS_MAX = 1_000_000
PER_DAY = 1.0 / 86_400_000.0

_MEAN = np.array([0.012, 0.04, 0.06], np.float64)
_STRENGTH = np.array([100.0, 100.0, 100.0], np.float64)
"""What is believed of a network before it has been seen, and how many calls that is worth."""
ALIKE_COUNT = 900.0
"""An element is shrunk to its kind as by so many more calls, once those have been seen: a firmware of yesterday is
expected to be like the others. At seven bad calls in a thousand that lets two in three elements differ by 40 %."""
_P0_MAX = np.array([0.06, 0.20, 0.40], np.float64)
UNLIKE_MAX = 2.5
"""Whatever an element has shown, its normal is no more than so many times that of its kind, or of a network not seen
yet where its kind is better: beside lines that hardly ever drop, an ordinary one is not ill."""
MEMORY_COUNT = 20_000.0
CALM_DAYS, CALM_CALLS = 0.1, 12.0
"""Evidence below so much, or below what so many calls accrue, is none: what waited is learnt."""
WAIT_COUNT = 2_000.0
"""So many calls wait at the most: a level that stayed without an incident is the new normal."""
KIND_MEMORY_COUNT = 200_000.0
_RISE = np.array(RISES, np.float64)
_PART = 1.0 / len(RISES)
RECOVERED_DAYS = 30.0
"""An incident clears at so much evidence that it is over. It is counted as the evidence of trouble is
(`detectors.evidence`), in days: one that goes on is called over once in so many days at the most, however many calls
run through its element."""
TOLD = 0.0
"""`recovery_p` of an incident that somebody else raised: nobody but they say when it is over."""


class Network(NamedTuple):
    """The elements as the kernels see them."""

    elements: npt.NDArray[np.void]
    log: npt.NDArray[np.void]  # BAD_CALL, a ring
    tally: npt.NDArray[np.int64]  # [bad calls ever logged]
    usual: npt.NDArray[np.float64]  # [kind, channel, (calls learnt, sum of their x)] over all elements of a kind


@inlined
def element_p0(channel: int, count: float, weight: float, usual: F64) -> float:
    """Return an element's healthy mean: its own, shrunk to its kind's, with room for what customers differ in.

    Args:
        channel: E_DROP, E_QUALITY or E_SETUP.
        count, weight: calls learnt of the element, and the sum of their x.
        usual: the same of all elements of its kind: float64[2].
    """
    kind = (_STRENGTH[channel] * _MEAN[channel] + usual[1]) / (_STRENGTH[channel] + usual[0])
    alike = _STRENGTH[channel] + min(usual[0], ALIKE_COUNT)
    size = alike + count
    mean = (alike * kind + weight) / size
    mean = min(mean, UNLIKE_MAX * max(kind, _MEAN[channel]))
    return float(min(1.3 * mean + 2.0 * np.sqrt(mean * (1.0 - mean) / size), _P0_MAX[channel]))


@inlined
def days_since(one: Any, channel: int, end_ms: int) -> float:
    """Return the days since a channel was observed last, one at the most; it is observed now."""
    days = 0.0
    if one["last_ms"][channel] >= 0:
        days = min(max(end_ms - one["last_ms"][channel], 0) * PER_DAY, 1.0)
    one["last_ms"][channel] = max(one["last_ms"][channel], end_ms)
    return days


@inlined
def element_accrue(one: Any, channel: int, end_ms: int) -> float:
    """Add the days that passed since a channel was observed to its processes; return them, one at the most."""
    days = days_since(one, channel, end_ms)
    for j in range(len(_RISE)):
        one["evidence"][channel, j] = np.float32(one["evidence"][channel, j] + days)
    return days


@inlined
def element_total(one: Any, channel: int) -> float:
    """Return an element's evidence in one channel, in days."""
    value = 0.0
    for j in range(len(_RISE)):
        value += one["evidence"][channel, j]
    return value * _PART


@inlined
def element_observe(one: Any, channel: int, x: float, days: float, usual: F64) -> float:
    """Let an element see one call; return its evidence in that channel, in days.

    Args:
        one: the element; changed in place.
        channel: E_DROP, E_QUALITY or E_SETUP.
        x: how much the call looks like trouble, 0..1.
        days: since the channel was observed last, from `element_accrue`.
        usual: what was learnt of all elements of its kind; changed in place.
    """
    # L(0) = 1 - rise, whatever p0 is: for most calls it need not be known.
    odds = 0.0
    if x > 0.0:
        p0 = element_p0(channel, one["count"][channel], one["weight"][channel], usual)
        odds = (1.0 - p0) / p0
    for j in range(len(_RISE)):
        ratio = x * (1.0 + _RISE[j] * odds) + (1.0 - x) * (1.0 - _RISE[j])
        one["evidence"][channel, j] = np.float32(min(one["evidence"][channel, j] * ratio, EVIDENCE_MAX))
    value = element_total(one, channel)
    _element_learn(one, channel, x, value < max(CALM_DAYS, CALM_CALLS * days))
    if usual[0] >= KIND_MEMORY_COUNT:
        usual[0] *= 0.5
        usual[1] *= 0.5
    usual[0] += 1.0
    usual[1] += x
    return value


@inlined
def _element_learn(one: Any, channel: int, x: float, calm: bool) -> None:  # noqa: FBT001  a fact beside the others
    """Learn a call once it is known to have been healthy: what a slow fault spoils must not become normal first."""
    one["waiting_count"][channel] += np.float32(1.0)
    one["waiting_weight"][channel] += np.float32(x)
    if not calm and one["waiting_count"][channel] < WAIT_COUNT:
        return
    if one["count"][channel] >= MEMORY_COUNT:
        one["count"][channel] *= np.float32(0.5)
        one["weight"][channel] *= np.float32(0.5)
    one["count"][channel] += one["waiting_count"][channel]
    one["weight"][channel] += one["waiting_weight"][channel]
    one["waiting_count"][channel] = 0.0
    one["waiting_weight"][channel] = 0.0


@inlined
def element_recover(one: Any, x: float, days: float) -> float:
    """Move an open incident's evidence that it is over by one call; return it, in days.

    Args:
        one: the element; changed in place.
        x: how much the call looks like the trouble, 0..1.
        days: since the element's previous call of the sort that the incident is about.
    """
    if one["recovery_p"] == TOLD:
        return 0.0
    ratio = likelihood_ratio(x, one["recovery_p"], one["recovery_p0"])
    one["recovery"] = np.float32(min((one["recovery"] + days) * ratio, EVIDENCE_MAX))
    return float(one["recovery"])


class Elements:
    """The registry of network elements: names to serials, and their array.

    Attributes:
        network: the arrays; replaced when they grow.
        names: (kind, id) of each serial; a firmware's id is `model/firmware`.
        refused_count: names beyond `ELEMENTS_MAX`, not watched.
    """

    def __init__(self) -> None:
        self.names: list[tuple[str, str]] = []
        self.refused_count = 0
        self._serials: dict[tuple[str, str], int] = {}
        self._translations = [Translation(partial(self.serial, kind), -1) for kind in ELEMENTS]
        self.network = Network(
            np.zeros(256, ELEMENT),
            np.zeros(LOG_KEPT, BAD_CALL),
            np.zeros(1, np.int64),
            np.zeros((len(ELEMENTS), E_CHANNELS, 2)),
        )
        self._rows, self._calls = Table(ELEMENT), Table(BAD_CALL)

    def __len__(self) -> int:
        return len(self.names)

    def find(self, kind: str, name: str) -> int:
        """Return an element's serial, or -1."""
        return self._serials.get((kind, name), -1)

    def serial(self, kind: str, name: str) -> int:
        """Return an element's serial, registering it; -1 where there are too many."""
        known = self._serials.get((kind, name))
        if known is not None:
            return known
        if len(self.names) >= ELEMENTS_MAX:
            self.refused_count += 1
            return -1
        serial = len(self.names)
        if serial == len(self.network.elements):
            grown = np.zeros(2 * serial, ELEMENT)
            raw(grown)[:serial] = raw(self.network.elements)
            self.network = self.network._replace(elements=grown)
        self._serials[kind, name] = serial
        self.names.append((kind, name))
        one = self.network.elements[serial]
        one["last_ms"], one["since_ms"], one["surge_ms"] = -1, -1, -1
        one["kind"] = ELEMENTS.index(kind)
        return serial

    def p0(self, serial: int, channel: int) -> float:
        """Return an element's healthy mean in a channel."""
        one = self.network.elements[serial]
        usual = self.network.usual[one["kind"], channel]
        return float(element_p0(channel, one["count"][channel], one["weight"][channel], usual))

    def counts(self, serial: int, channel: int) -> tuple[int, int]:
        """Return (bad calls, calls that could be bad) of an element in a channel, since its trouble began."""
        one = self.network.elements[serial]
        if channel == E_DROP:
            return int(one["drops"]), int(one["answered"])
        if channel == E_SETUP:
            return int(one["failures"]), int(one["attempts"] - one["answered"])
        return int(one["poor"]), int(one["rated"])

    def serials_of(self, calls: CallColumns) -> I32:
        """Return int32[n, len(ELEMENTS)]: the serial of each element that each call ran through; -1 unknown."""
        table = np.full((len(calls), len(ELEMENTS)), -1, np.int32)
        for column, kind in enumerate(ELEMENTS):
            if kind == "cpe_firmware":
                coded = firmware(calls.places["cpe_model"], calls.places["cpe_firmware"])
            else:
                coded = calls.places["probe_id" if kind == "probe" else kind]
            table[:, column] = self._translations[column].of(coded)
        return table

    def recent_bad_calls(self) -> npt.NDArray[np.void]:
        """Return the network's latest bad calls, oldest first: a copy."""
        written = int(self.network.tally[0])
        if written <= LOG_KEPT:
            return raw(self.network.log)[:written].copy().view(BAD_CALL)
        return np.roll(raw(self.network.log), -(written % LOG_KEPT)).view(BAD_CALL)

    def forget(self, customer: int) -> int:
        """Erase a customer's calls from the latest bad calls; return how many there were."""
        log = self.recent_bad_calls()
        kept = log[log["key"] != np.uint64(customer)]
        if len(kept) == len(log):
            return 0
        raw(self.network.log)[: len(kept)] = raw(kept)
        raw(self.network.log)[len(kept) :] = raw(np.zeros(LOG_KEPT - len(kept), BAD_CALL))
        self.network.tally[0] = len(kept)
        return len(log) - len(kept)

    def changes(self, number: int, *, whole: bool) -> dict[str, Any]:
        """Return what the checkpoint of this number has to hold: what changed, and some of the rest; or all of it."""
        if whole:
            self._rows, self._calls = Table(ELEMENT), Table(BAD_CALL)
        log = self.network.log[: min(int(self.network.tally[0]), LOG_KEPT)]
        rows, calls = self._rows.changes(number, self.network.elements[: len(self)]), self._calls.changes(number, log)
        return {
            "size": len(self),
            "names": {int(serial): list(self.names[serial]) for serial in np.frombuffer(rows["index"], np.int64)},
            "refused": self.refused_count,
            "elements": rows,
            "logged": int(self.network.tally[0]),
            "usual": self.network.usual.ravel().tolist(),
            "log": calls,
        }

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest."""
        return min(self._rows.floor, self._calls.floor)

    def take(self, state: dict[str, Any], number: int) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        size = state["size"]
        if size > len(self.network.elements):
            grown = np.zeros(1 << (size - 1).bit_length(), ELEMENT)
            raw(grown)[: len(self.network.elements)] = raw(self.network.elements)
            self.network = self.network._replace(elements=grown)
        self.names += [("", "")] * (size - len(self.names))
        for serial, (kind, name) in state["names"].items():
            self.names[serial] = kind, name
        self.refused_count = state["refused"]
        self.network.tally[0] = state["logged"]
        self.network.usual.ravel()[:] = state["usual"]
        self._rows.take(state["elements"], number, self.network.elements)
        self._calls.take(state["log"], number, self.network.log)

    def settle(self) -> None:
        """Make elements that were taken over findable.

        Raises:
            StateError: some are missing.
        """
        missing = self.names.count(("", ""))
        if missing:
            raise StateError(f"the state must hold every element, {missing} of {len(self.names)} were missing")
        self._serials = {name: serial for serial, name in enumerate(self.names)}
        self._rows.settle(self.network.elements[: len(self)])
        self._calls.settle(self.network.log[: min(int(self.network.tally[0]), LOG_KEPT)])

    def reset(self) -> None:
        """Know no element, with nothing written yet."""
        self.__init__()  # type: ignore[misc]  # begin empty, whatever was there


def firmware(model: CodeColumn, version: CodeColumn) -> CodeColumn:
    """Join CPE model and firmware into one column `model/firmware`; unknown where either is."""
    codes, first = np.empty(len(model), np.int32), np.empty(len(model), np.int64)
    # At most half full, so that a look-up ends soon.
    slots = np.zeros(2 << len(model).bit_length(), np.int32)
    count = _number_pairs(model.codes, version.codes, slots, codes, first)
    return CodeColumn(codes, [f"{model[row]}/{version[row]}" for row in first[:count].tolist()])


@loop
def _number_pairs(one: I32, other: I32, slots: I32, codes: I32, first: I64) -> int:
    """Number the pairs of two columns in order of first appearance, -1 where either is -1; return how many there are.

    Args:
        one, other: the columns.
        slots: zeros, a power of two, more than there are rows: a hash table of numbers + 1.
        codes: is given the number of each row.
        first: is given the first row of each pair.
    """
    count = 0
    mask = len(slots) - 1
    for row in range(len(one)):
        codes[row] = -1
        if one[row] < 0 or other[row] < 0:
            continue
        key = (np.uint64(one[row]) << np.uint64(32) | np.uint64(other[row])) * np.uint64(0x9E3779B97F4A7C15)
        slot = np.int64(key >> np.uint64(32)) & mask
        while slots[slot] > 0 and not _same_pair(one, other, row, first[slots[slot] - 1]):
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            first[count] = row
            count += 1
            slots[slot] = count
        codes[row] = slots[slot] - 1
    return count


@inlined
def _same_pair(one: I32, other: I32, row: int, place: int) -> bool:
    return bool(one[row] == one[place] and other[row] == other[place])
