"""How far each probe has come: what shows that one has fallen silent, or sends late."""

import numpy as np

from schemas.columns import CallColumns
from schemas.text import Translation

PROBES_MAX = 10_000
"""So many are known at the most; whoever comes later is not watched."""

SHOWN_MAX = 100
"""So many are shown: those that are furthest behind."""


class Probes:
    """The time of each probe's latest call, as they are read: not the newest, which one wrong clock would spoil."""

    def __init__(self) -> None:
        self._serials: dict[str, int] = {}
        self._translation = Translation(self._serial, -1)
        # The last place is for calls of which no probe is known.
        self._end_ms = np.zeros(PROBES_MAX + 1, np.int64)

    def __len__(self) -> int:
        return len(self._serials)

    def saw(self, calls: CallColumns) -> None:
        """Take note of calls, in order of arrival."""
        # Of equal indices the last one counts.
        self._end_ms[self._translation.of(calls.places["probe_id"])] = calls.end_ms

    def _serial(self, name: str) -> int:
        if len(self._serials) >= PROBES_MAX and name not in self._serials:
            return -1
        return self._serials.setdefault(name, len(self._serials))

    def furthest_behind(self) -> dict[str, int]:
        """Return the probes that are furthest behind, the furthest first, and when their latest calls ended (ms)."""
        names = list(self._serials)
        order = np.argsort(self._end_ms[: len(names)], kind="stable")[:SHOWN_MAX]
        return {names[serial]: int(self._end_ms[serial]) for serial in order.tolist()}
