"""The small job, and how a peer reports: what must hold is written here once for all peers.

For each customer, an exponentially weighted mean and a Page-Hinkley test of the drop bit and an exponentially weighted
variance of MOS, as river defines them from 0.24 on. A call whose drop bit makes the Page-Hinkley test detect a change
is a *firing*. The drop bit here is the crude one that a first draft would take: answered, and cleared by the network.
River's threshold of 50 would never fire on it; 3 does for about one customer in fifteen.

This module runs in other interpreters than the project's own too, so what it imports needs the standard library alone.
"""

import hashlib
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench.maven import NotHereError

FADE = 0.05
"""Weight of the newest value in both exponentially weighted statistics."""
MIN_INSTANCES, DELTA, THRESHOLD, ALPHA = 30, 0.005, 3.0, 1 - 0.0001
"""Of Page-Hinkley: river's defaults but for the threshold."""

DIGEST_SIZE = 12


@dataclass(slots=True)
class Found:
    """What a peer found.

    Attributes:
        firings: (customer, call) of each, in any order.
        states: of each customer: drop mean, MOS variance, and Page-Hinkley's count, mean, two sums, least increase and
            greatest decrease.
        events: how many calls were read.
        extra: what else goes into the line of JSON.
    """

    firings: list[tuple[str, str]] = field(default_factory=list)
    states: dict[str, tuple[float, ...]] = field(default_factory=dict)
    events: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def write(self, out: Path) -> None:
        """Write one line a firing and one a customer, numbers as the hexadecimal digits of their bits."""
        lines = [f"F\t{customer}\t{call}\tdrop" for customer, call in self.firings]
        lines += ["\t".join(("S", customer, *map(_bits, values))) for customer, values in self.states.items()]
        out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def digests(out: Path) -> dict[str, Any]:
    """Return the digests of firings and of final states in a peer's OUT, and how many there are."""
    lines = out.read_text(encoding="utf-8").splitlines()
    firings, states = ([line for line in lines if line.startswith(mark)] for mark in ("F\t", "S\t"))
    return {
        "digest": _digest(firings),
        "states_digest": _digest(states),
        "firings": len(firings),
        "customers": len(states),
    }


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:DIGEST_SIZE]


class Reading(NamedTuple):
    """Both times of one moment: what passed on the wall, and what this process used of its cores."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Reading":
        """Read both."""
        return cls(time.perf_counter(), time.process_time())


class Clock:
    """Times the job without what comes before and after it."""

    def __init__(self) -> None:
        self._begun = self._ended = Reading.now()
        self._stopped = False
        self.startup_s = 0.0

    def start(self) -> None:
        """The job begins now; called again, it begins anew."""
        self.startup_s = process_age_s()
        self._begun = Reading.now()
        self._stopped = False

    def stop(self) -> None:
        """The job ended now, unless it had ended already."""
        if not self._stopped:
            self._ended = Reading.now()
            self._stopped = True

    def set(self, begun: Reading, ended: Reading) -> None:
        """The job began and ended at these readings, taken in another process of this machine."""
        self.startup_s += begun.wall_s - self._begun.wall_s
        self._begun, self._ended, self._stopped = begun, ended, True

    @property
    def seconds(self) -> float:
        """From the last start to the stop, on the wall."""
        return self._ended.wall_s - self._begun.wall_s

    @property
    def cpu_s(self) -> float:
        """The same, as the process used its cores: what the wall would show on a machine with nothing else to do."""
        return self._ended.cpu_s - self._begun.cpu_s


def process_age_s() -> float:
    """Return how long ago this process was started (Linux: proc_pid_stat(5), field 22)."""
    after_name = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(after_name[19]) / os.sysconf("SC_CLK_TCK")


Work = Callable[[Clock], Found]


def peak_mb(pid: int | None = None) -> int:
    """Return the most memory that a process has held (Linux); of this one if not told which."""
    status = Path(f"/proc/{'self' if pid is None else pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def main(name: str, prepare: Callable[..., Work], library: str = "river") -> None:
    """Be a peer: `EVENTS OUT [WAY...]` on the command line, one line of JSON on the standard output.

    Args:
        name: of the peer.
        prepare: given EVENTS and each WAY, imports and builds what the job needs, which is not timed; returns what does
            the job.
        library: the distribution that the peer is about.
    """
    events, out, *ways = sys.argv[1:]
    name = "_".join((name, *ways))
    clock = Clock()
    try:
        work = prepare(Path(events), *ways)
    except NotHereError as error:
        print(json.dumps({"name": name, "not_here": str(error)}))
        return
    except ModuleNotFoundError as error:
        missing = f"{sys.executable} has no module {error.name}"
        print(json.dumps({"name": name, "not_here": missing}))
        return
    clock.start()
    found = work(clock)
    clock.stop()
    found.write(Path(out))
    figures = {
        "events": found.events,
        "seconds": round(clock.seconds, 4),
        "cpu_s": round(clock.cpu_s, 4),
        "startup_s": round(clock.startup_s, 2),
        "rss_mb": peak_mb(),
        "library": f"{library} {version(library)}",
    }
    report(name, figures | found.extra, Path(out))


def report(name: str, figures: dict[str, Any], out: Path) -> None:
    """Print a peer's line: its name, its figures, and the digests of what it found."""
    print(json.dumps({"name": name, **figures, **digests(out)}))
