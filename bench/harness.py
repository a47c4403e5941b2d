"""What every benchmark shares: rounds, rates, the machine it ran on, and memory as the process has it."""

import hashlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

LIBRARIES: tuple[str, ...] = ("bytewax", "msgspec", "numba", "numpy", "orjson", "river", "stayline")


class Rate(Struct, frozen=True):
    """How fast something was, over several rounds.

    Attributes:
        name: the case.
        events: how many in a round.
        per_second: events a second of each round, in order.
        digest: of the round's result, so that nobody makes it fast by making it wrong; empty where there is none.
    """

    name: str
    events: int
    per_second: list[float]
    digest: str = ""

    @property
    def median(self) -> float:
        """The rate to quote."""
        return statistics.median(self.per_second)


def measure(name: str, events: int, rounds: int, work: Callable[[], bytes]) -> Rate:
    """Time some work, after one round that is not counted.

    Args:
        name: of the case.
        events: how many the work handles.
        rounds: how often it is timed.
        work: does it once; returns what the digest is taken of.

    Raises:
        RuntimeError: two rounds gave different results.
    """
    digests = {_digest(work())}
    rates = []
    for _ in range(rounds):
        begun = time.perf_counter()
        result = work()
        rates.append(events / (time.perf_counter() - begun))
        digests.add(_digest(result))
    if len(digests) > 1:
        raise RuntimeError(f"{name}: every round must give the same result, gave {len(digests)}")
    return Rate(name, events, rates, digests.pop())


def _digest(result: bytes) -> str:
    return hashlib.sha256(result).hexdigest()[:12] if result else ""


def quantiles(seconds: Iterable[float]) -> tuple[float, float, float]:
    """Return p50, p99 and p99.9 of some times."""
    ranked = sorted(seconds)
    return tuple(ranked[min(int(share * len(ranked)), len(ranked) - 1)] for share in (0.5, 0.99, 0.999))  # type: ignore[return-value]  # three of them


def resident_bytes() -> int:
    """Return the memory that this process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def conditions() -> list[str]:
    """Return what a figure depends on: processor, system, versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        libraries,
    ]
