"""The small job's detectors as river's own objects: the natural way, and what is right."""

from typing import Any

from river.drift import PageHinkley
from river.stats import EWMean, EWVar

from bench.peers.job import ALPHA, DELTA, FADE, MIN_INSTANCES, THRESHOLD


class Detectors:
    """One customer's three river objects."""

    __slots__ = ("drop_change", "drop_mean", "mos_variance")

    def __init__(self) -> None:
        self.drop_mean = EWMean(FADE)
        self.drop_change = PageHinkley(MIN_INSTANCES, DELTA, THRESHOLD, ALPHA)
        self.mos_variance = EWVar(FADE)

    def see(self, call: dict[str, Any]) -> bool:
        """Take in one call; return whether it fires."""
        return self.observe(drop_bit(call), call.get("mos"))

    def observe(self, drop: float, mos: float | None) -> bool:
        """Take in what matters of one call; return whether it fires."""
        self.drop_mean.update(drop)
        self.drop_change.update(drop)  # type: ignore[no-untyped-call]  # it has none
        if mos is not None:
            self.mos_variance.update(mos)
        return bool(self.drop_change.drift_detected)

    def values(self) -> tuple[float, ...]:
        """Return the state in numbers, in the order that `bench.peers.job.Found.states` has."""
        inside = vars(self.drop_change)
        mean = inside["_x_mean"]
        sums = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")
        return (self.drop_mean.get(), self.mos_variance.get(), mean.n, mean.get(), *(inside[name] for name in sums))


def drop_bit(call: dict[str, Any]) -> float:
    """Return 1 for an answered call that the network cleared, else 0."""
    return 1.0 if call.get("answer_ms") is not None and call.get("released_by") == "network" else 0.0
