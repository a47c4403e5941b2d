"""Where the flow's time goes: one picture.

The flow runs as always, with a stopwatch at the entrance of each of its steps. A step's time is what passed inside it
less what passed in steps inside it, so the parts add up to the whole; what no step accounts for is Bytewax's and the
sinks'. Steps are entered a few times a chunk and a few times a careful look, so the stopwatches weigh little.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from unittest import mock

import numpy as np

import detectors.engine
from bench.cases.common import Bench, Events, bodies, from_file, new_engine, run_flow_durably
from bench.harness import digest
from bench.plot import bar_chart
from dataflows.checkpoints import Checkpoints
from dataflows.inputs.chunks import Read
from detectors.engine import RiskEngine
from schemas.alerts import Notification
from schemas.decode import Decoder
from schemas.scan import Scanner

STEPS: tuple[tuple[str, Any, str], ...] = (
    ("scan", Scanner, "scan"),
    ("columns", Decoder, "decode"),
    ("prepare", detectors.engine, "calls_of"),
    ("prepare", detectors.engine, "media_of"),
    ("hot loop", detectors.engine, "advance"),
    ("looks and stops", RiskEngine, "apply"),
    ("looks and stops", RiskEngine, "finish"),
    ("checkpoint", RiskEngine, "gather"),
    ("checkpoint", RiskEngine, "changes"),
    ("checkpoint", Checkpoints, "save"),
)
"""Part of the picture, and the function whose own time it is, where its caller looks it up."""

PARTS = ("reading", "scan", "columns", "prepare", "hot loop", "looks and stops", "checkpoint", "Bytewax and sinks")

Item = TypeVar("Item")


class Stopwatch:
    """Adds up the time that each part takes itself, parts inside it left out.

    Args:
        clock: seconds from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.spent_s: defaultdict[str, float] = defaultdict(float)
        self._inside_s = [0.0]

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside for a part."""
        self._inside_s.append(0.0)
        begun_s = self._clock()
        try:
            yield
        finally:
            took_s = self._clock() - begun_s
            self.spent_s[name] += took_s - self._inside_s.pop()
            self._inside_s[-1] += took_s

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its calls counted for a part."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        return timed

    def each(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        """Pass items on, what it takes to get one counted for a part."""
        while True:
            with self.part(name):
                item = next(items, None)
            if item is None:
                return
            yield item


def time_by_part(bench: Bench) -> None:
    """Measure what part of the flow takes how long, beside two floors: parsing, and touching each byte once."""
    events = bench.telco
    plain, untimed_s = _run(bench, Stopwatch(), ())
    runs = [(*_run(bench, (watch := Stopwatch()), STEPS), watch) for _ in range(bench.options.rounds)]
    if {result for result, _, _ in runs} != {plain}:
        raise RuntimeError("the flow must give the same result with stopwatches as without, did not")
    _, whole_s, watch = sorted(runs, key=lambda run: run[1])[len(runs) // 2]
    watch.spent_s["Bytewax and sinks"] = whole_s - sum(watch.spent_s.values())
    flow_us = {part: 1e6 * watch.spent_s[part] / len(events) for part in PARTS}
    floors_us = {name: 1e6 * _seconds(work) / len(events) for name, work in _floors(events).items()}
    for part, time_us in flow_us.items():
        bench.report.row(
            {"part": part, "us/event": f"{time_us:.3f}", "of all": f"{time_us / sum(flow_us.values()):.1%}"}
        )
    for name, time_us in {"all": sum(flow_us.values()), **floors_us}.items():
        bench.report.row(
            {"part": name, "us/event": f"{time_us:.3f}", "of all": f"{time_us / sum(flow_us.values()):.1%}"}
        )
    bench.report.say(
        f"most goes to {max(PARTS, key=flow_us.__getitem__)}; with stopwatches the flow took {whole_s / untimed_s:.2f} "
        f"of the time without; digest {plain}"
    )
    bench.report.record("profile", flow_us=flow_us, floors_us=floors_us, events=len(events), digest=plain)
    bars = {"flow": flow_us, **{name: {name: time_us} for name, time_us in floors_us.items()}}
    bench.report.pictures["parts"] = bar_chart("Where the time goes, per event", bars, unit="us")


def _run(bench: Bench, watch: Stopwatch, steps: tuple[tuple[str, Any, str], ...]) -> tuple[str, float]:
    """Run the flow with stopwatches at some steps; return the digest of its result and how long it took."""
    told: list[Notification] = []
    read = from_file(bench.telco.path)

    def open_input(place: tuple[int, ...] | None) -> Iterator[Read | None]:
        return watch.each("reading", iter(read(place)))

    with contextlib.ExitStack() as stack:
        for part, owner, name in steps:
            stack.enter_context(mock.patch.object(owner, name, watch.around(part, getattr(owner, name))))
        engine = new_engine()
        begun = time.perf_counter()
        run_flow_durably(open_input, engine, bench.folder, told.extend)
        return digest(bodies(told)), time.perf_counter() - begun


def _floors(events: Events) -> dict[str, Callable[[], Any]]:
    return {
        "orjson.loads a record": events.parse,
        "touch each byte once": lambda: np.frombuffer(events.data, np.uint8).max(),
    }


def _seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
