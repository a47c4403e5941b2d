"""What every benchmark shares: races, what they are reported with, the machine, and memory as the process has it."""

import gc
import hashlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import orjson
from msgspec import Struct, to_builtins

LIBRARIES: tuple[str, ...] = ("bytewax", "msgspec", "numba", "numpy", "orjson", "river", "stayline")

Result = TypeVar("Result")


class Rate(Struct, frozen=True):
    """How fast something was, over several rounds.

    Attributes:
        name: what was measured.
        events: how many in a round.
        per_second: events a second of each round, in order.
        digest: of the round's result, so that nobody makes it fast by making it wrong; empty where there is none.
        per_cpu_second: the same by the time that the process had a processor: waiting for a disk is not in it, nor
            for a processor that others use.
    """

    name: str
    events: int
    per_second: list[float]
    digest: str = ""
    per_cpu_second: list[float] = []

    @property
    def median(self) -> float:
        """The rate to quote."""
        return statistics.median(self.per_second)

    def ratio_to(self, other: "Rate") -> float:
        """Return how many times as fast as another of the same race: the median over the rounds.

        A round's two rates stand beside each other in time, so what else the machine does hits both.
        """
        return _ratio(self.per_second, other.per_second)

    def cpu_ratio_to(self, other: "Rate") -> float:
        """Return the same by processor time."""
        return _ratio(self.per_cpu_second, other.per_cpu_second)


def _ratio(ones: list[float], bases: list[float]) -> float:
    return statistics.median(one / base for one, base in zip(ones, bases, strict=True))


def race(events: int, rounds: int, works: Mapping[str, Callable[[], bytes]]) -> list[Rate]:
    """Time several works in turns, round by round, after one round that is not counted.

    Args:
        events: how many each work handles.
        rounds: how often each is timed.
        works: name -> does it once; returns what the digest is taken of.

    Raises:
        RuntimeError: two rounds of a work gave different results.
    """
    digests = {name: {digest(work())} for name, work in works.items()}
    rates: dict[str, list[float]] = {name: [] for name in works}
    cpu_rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            gc.collect()
            begun, cpu_begun = time.perf_counter(), time.process_time()
            result = work()
            rates[name].append(events / (time.perf_counter() - begun))
            cpu_rates[name].append(events / (time.process_time() - cpu_begun))
            digests[name].add(digest(result))
    for name, found in digests.items():
        if len(found) > 1:
            raise RuntimeError(f"{name}: every round must give the same result, gave {len(found)}")
    return [Rate(name, events, rates[name], digests[name].pop(), cpu_rates[name]) for name in works]


def measure(name: str, events: int, rounds: int, work: Callable[[], bytes]) -> Rate:
    """Time some work alone: a race of one."""
    return race(events, rounds, {name: work})[0]


def digest(result: bytes) -> str:
    """Return a short digest of a result; empty where there is none."""
    return hashlib.sha256(result).hexdigest()[:12] if result else ""


def quantiles(seconds: Iterable[float]) -> tuple[float, float, float]:
    """Return p50, p99 and p99.9 of some times."""
    ranked = sorted(seconds)
    return tuple(ranked[min(int(share * len(ranked)), len(ranked) - 1)] for share in (0.5, 0.99, 0.999))  # type: ignore[return-value]  # three of them


def resident_bytes() -> int:
    """Return the memory that this process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """Return the most memory that this process has held (Linux): of its own, unlike `ru_maxrss`, which is inherited."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def isolated(work: Callable[..., Result], *arguments: Any) -> Result:
    """Do some work in a fresh process, so that earlier allocations do not hide what it takes; return its result.

    Args:
        work: a function of a module, not a nested one; it and its arguments travel as pickles.
        arguments: its arguments.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


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


class Report:
    """What a run tells: text as it goes, raw lines and pictures for the record.

    Args:
        show: is told each line of text.

    Attributes:
        text: the lines so far.
        raw: the figures that they were made of.
        pictures: name -> SVG.
        rates: name -> rate, of every race.
        ratios: name -> how many times as fast as the first of its race.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._columns: tuple[str, ...] = ()
        self.text: list[str] = []
        self.raw: list[dict[str, Any]] = []
        self.pictures: dict[str, str] = {}
        self.rates: dict[str, Rate] = {}
        self.ratios: dict[str, float] = {}

    def say(self, line: str = "") -> None:
        """Show a line of text."""
        self._columns = ()
        self._tell(line)

    def row(self, cells: Mapping[str, str]) -> None:
        """Show a row of a table, column -> cell, the first one a label; the header goes before where columns change."""
        if tuple(cells) != self._columns:
            if self.text and self.text[-1]:
                self._tell("")
            self._tell(_laid_out(list(cells)))
        self._columns = tuple(cells)
        self._tell(_laid_out(list(cells.values())))

    def race(self, rates: list[Rate]) -> None:
        """Show the rates of one race, each beside the first, which is `orjson.loads` over the same bytes."""
        base, *others = rates
        for rate in rates:
            self.rates[rate.name] = rate
            self.record("rate", rate=rate)
        for rate in others:
            self.ratios[rate.name] = rate.ratio_to(base)
            self.row(
                {
                    "": rate.name,
                    "events/s": f"{rate.median:,.0f}",
                    "min": f"{min(rate.per_second):,.0f}",
                    "max": f"{max(rate.per_second):,.0f}",
                    "orjson/s": f"{base.median:,.0f}",
                    "x orjson": f"{rate.ratio_to(base):.2f}",
                    "x by cpu": f"{rate.cpu_ratio_to(base):.2f}",
                    "digest": rate.digest,
                }
            )

    def record(self, kind: str, **fields: Any) -> None:
        """Keep a raw line: numbers, strings, and structs of them."""
        self.raw.append(to_builtins({"kind": kind, **fields}))

    def write(self, folder: Path, stem: str) -> list[Path]:
        """Write text, raw lines and pictures into a folder, made if missing; return the files."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            f"{stem}.txt": "\n".join([*self.text, ""]),
            f"{stem}.jsonl": b"".join(orjson.dumps(one) + b"\n" for one in self.raw).decode(),
            **{f"{stem}-{name}.svg": picture for name, picture in self.pictures.items()},
        }
        for name, content in files.items():
            (folder / name).write_text(content)
        return [folder / name for name in files]

    def _tell(self, line: str) -> None:
        self.text.append(line)
        self._show(line)


def _laid_out(cells: list[str]) -> str:
    return (f"{cells[0]:<36}" + "".join(f" {cell:>13}" for cell in cells[1:])).rstrip()
