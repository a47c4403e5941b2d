"""What counting and timing costs: every call that a flow makes to its meters, made again, beside the flow's own time.

A race of the flow with and without meters would have to tell apart what differs by less than two runs of the same
flow do. So the calls of one run are recorded and then repeated alone, and both are timed in CPU seconds.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from bench.cases.common import EPOCH, Bench, from_file, new_engine
from dataflows.execution import execute
from dataflows.flow import Stop, build
from dataflows.meters import Meters
from detectors.engine import RiskEngine
from schemas.alerts import Notification
from schemas.columns import EventBatch
from schemas.deadletters import DeadLetter

SCRAPES = 50


class _Recorded(Meters):
    """Keeps what it is told, so that it can be told again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def read(self, chunks: int) -> None:
        self.calls.append(("read", (chunks,)))

    def decoded(self, begun_s: float, letters: Sequence[DeadLetter]) -> None:
        self.calls.append(("decoded", (begun_s, letters)))

    def applied(self, begun_s: float, batch: EventBatch, told: Sequence[Notification]) -> None:
        self.calls.append(("applied", (begun_s, batch, told)))

    def written(self, told: Sequence[Notification]) -> None:
        self.calls.append(("written", (told,)))


def metering_overhead(bench: Bench) -> None:
    """Measure the share of the flow's time that goes to its meters, and what one scrape of them costs."""
    events = bench.telco
    recorded = _Recorded()
    flow_s = min(_cpu_s(lambda: _flow(bench, recorded)) for _ in range(bench.options.rounds))
    calls = recorded.calls[-len(recorded.calls) // bench.options.rounds :]
    metered_s = min(_cpu_s(lambda: _repeat(calls)) for _ in range(bench.options.rounds))
    registry = CollectorRegistry()
    registry.register(recorded)
    scrape_s = _cpu_s(lambda: [generate_latest(registry) for _ in range(SCRAPES)]) / SCRAPES
    chunks = sum(1 for name, _ in calls if name == "applied")
    cells = {
        "records": f"{len(events):,}",
        "flow, CPU s": f"{flow_s:.3f}",
        "meters, CPU s": f"{metered_s:.5f}",
        "share": f"{metered_s / flow_s:.3%}",
        "us a chunk": f"{metered_s / chunks * 1e6:.1f}",
        "ms a scrape of them": f"{scrape_s * 1e3:.2f}",
    }
    bench.report.record("metering", flow_s=flow_s, meters_s=metered_s, chunks=chunks, scrape_s=scrape_s)
    bench.report.row(cells)


def _flow(bench: Bench, meters: Meters) -> None:
    engine: RiskEngine = new_engine()
    told: list[Notification] = []
    opened = from_file(bench.telco.path)
    execute(build(opened, engine, told.extend, lambda _: None, Stop(), ends=True, meters=meters), None, EPOCH)


def _repeat(calls: list[tuple[str, tuple[Any, ...]]]) -> None:
    meters = Meters()
    for name, given in calls:
        # The flow asks for the time before it decodes and before it applies.
        meters.now_s()
        getattr(meters, name)(*given)


def _cpu_s(work: Callable[[], object]) -> float:
    begun_s = time.process_time()
    work()
    return time.process_time() - begun_s
