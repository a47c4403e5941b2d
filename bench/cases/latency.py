"""From read to notification at fixed offered rates, counted from when an event was due.

The load is open: event number i is due i / rate seconds after the beginning, whether or not the flow has come that
far. Time is counted from then, so whatever waits in a queue, behind a checkpoint too, counts in full (no coordinated
omission: G. Tene, "How NOT to Measure Latency").
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.cases.common import Bench, Events, run_flow_durably
from bench.cases.synthetic import CHUNK_CALLS, DAY_MS, everybody
from bench.harness import digest, isolated, quantiles
from bench.plot import line_chart
from bench.simulator import TelcoSpec, simulate
from bench.simulator.spec import MONDAY_MS
from dataflows.checkpoints import Checkpoints
from dataflows.checkpoints.engines import keep, resume
from dataflows.inputs.chunks import Chunk
from dataflows.inputs.files import CHUNK_BYTES, Cut, Place
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.alerts import Notification
from schemas.columns import EventBatch
from schemas.decode import Decoder
from schemas.text import F64

DAYS, EVENTS_PER_CUSTOMER_WEEK, FAULTY_RATIO = 10, 34, 0.1
"""Of the telco: three days that the state knows already, and a week that is offered."""

SLICE = 100
"""Notifications are traced to their cause among so many events; the first of them counts as the cause."""

TAILS = 3
"""The picture ends at the quantile 1 - 10^-3."""

RAW_QUANTILES = [*(k / 100 for k in range(100)), 0.999, 0.9999, 1.0]


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things took at one offered rate.

    Attributes:
        told_s: of each notification, seconds from when its cause was due to when the output had it.
        applied_s: of each event, seconds from when it was due to when the detectors were through with its chunk.
        chunks: that the events came in.
        behind_s: seconds from when the last event was due to the end.
        told: notification -> digest of it.
    """

    told_s: F64
    applied_s: F64
    chunks: int
    behind_s: float
    told: dict[str, str]


class PacedReader:
    """Gives events as they come due; what is due while nobody asks comes in one chunk, as from a file that grows.

    Args:
        lines: the events.
        rate: events a second.
        clock: seconds from any moment on.

    Attributes:
        begun_s: when the first was asked for, by the clock.
        chunks: (first event, events) of each chunk given.
    """

    def __init__(self, lines: list[bytes], rate: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._lines = lines
        self._rate = rate
        self._clock = clock
        self.begun_s = 0.0
        self.chunks: list[tuple[int, int]] = []

    def open(self, _: tuple[int, ...] | None) -> Iterator[Cut | None]:
        """Read from the beginning."""
        lines = self._lines
        behind = np.cumsum([0, *(len(line) + 1 for line in lines)])
        self.begun_s, at = self._clock(), 0
        while at < len(lines):
            due = int((self._clock() - self.begun_s) * self._rate) + 1
            fits = int(np.searchsorted(behind, behind[at] + CHUNK_BYTES, side="right")) - 1
            end = min(due, fits, len(lines))
            if end <= at:
                yield None
                continue
            self.chunks.append((at, end - at))
            data = b"\n".join(lines[at:end]) + b"\n"
            yield Cut(Chunk("file", "paced", data, range(at + 1, end + 1)), Place(0, int(behind[end]), end))
            at = end


class TimedEngine(RiskEngine):
    """An engine that notes when it is through with each batch, and may tell of as many cases as there are."""

    def __init__(self) -> None:
        settings = Settings("bench", customers_max=10_000_000, alerts_per_day_max=1_000_000)
        super().__init__(settings, Catalogue.load(default_catalogue_text()))
        self.applied_at_s: list[float] = []

    def apply(self, batch: EventBatch) -> list[Notification]:
        """Apply a batch."""
        told = super().apply(batch)
        self.applied_at_s.append(time.perf_counter())
        return told


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered, and what must come of it.

    Attributes:
        path: of the events.
        skipped: events at its beginning that the state holds already.
        state: folder of the checkpoint behind them.
        causes: notification -> number of the event that caused it, behind those skipped, and digest.
    """

    path: Path
    skipped: int
    state: Path
    causes: dict[str, tuple[int, str]]


def latency_at_rates(bench: Bench) -> None:
    """Measure the latency at each rate, and at the highest once more with many customers resident."""
    options = bench.options
    events_max = int(max(options.offered) * options.seconds)
    # More trouble than usual, so that there are notifications enough for a tail.
    spec = TelcoSpec(
        customers=max(50, events_max // EVENTS_PER_CUSTOMER_WEEK), days=DAYS, seed=2, faulty_ratio=FAULTY_RATIO
    )
    path = simulate(spec, bench.folder / "latency").events_path
    runs = [(rate, 0) for rate in options.offered] + [(max(options.offered), max(options.residents))]
    lines = {}
    offers = {
        resident: isolated(trace, path, events_max, resident, bench.folder / f"latency-{resident}")
        for resident in sorted({resident for _, resident in runs})
    }
    for rate, resident in runs:
        found = isolated(take, offers[resident], rate, int(rate * options.seconds), bench.folder)
        name = f"{rate:,}/s" + (f", {resident:,} more" if resident else "")
        _report(bench, name, found)
        if len(found.told_s):
            ranks = np.linspace(0, TAILS, 40)
            spread = np.quantile(found.told_s, 1 - 10.0**-ranks) * 1e3
            lines[name] = list(zip(ranks.tolist(), spread.tolist(), strict=True))
    if lines:
        bench.report.pictures["latency"] = line_chart(
            "From the moment an event is due to its notification",
            lines,
            x_label="share of the notifications",
            y_label="milliseconds",
            log_y=True,
            x_ticks={0.0: "0", 0.30103: "50 %", 1.0: "90 %", 2.0: "99 %", 3.0: "99.9 %"},
        )


def _report(bench: Bench, name: str, found: Delays) -> None:
    for what, delays in (("told", found.told_s), ("applied", found.applied_s)):
        if not len(delays):
            bench.report.say(f"{name}: nothing {what}")
            continue
        p50, p99, p999 = quantiles(delays.tolist())
        bench.report.row(
            {
                "milliseconds until": f"{what}, {name}",
                "p50": f"{p50 * 1e3:,.1f}",
                "p99": f"{p99 * 1e3:,.1f}",
                "p99.9": f"{p999 * 1e3:,.1f}",
                "max": f"{delays.max() * 1e3:,.1f}",
                "of": f"{len(delays):,}",
                "chunks": f"{found.chunks:,}",
                "behind s": f"{found.behind_s:.2f}",
            }
        )
    bench.report.record(
        "latency",
        name=name,
        digest=digest(repr(sorted(found.told.items())).encode()),
        told_ms=np.round(found.told_s * 1e3, 3).tolist(),
        applied_quantiles_ms=np.round(np.quantile(found.applied_s, RAW_QUANTILES) * 1e3, 3).tolist(),
        quantiles=RAW_QUANTILES,
        chunks=found.chunks,
        behind_s=found.behind_s,
    )


def trace(path: Path, events_max: int, resident: int, folder: Path) -> Offer:
    """Apply events, the last ones a few at a time to see which cause notifications, and keep the state before these.

    Args:
        path: of the events.
        events_max: how many will be offered.
        resident: further customers known beforehand, who are healthy and do not call again.
        folder: for the state.
    """
    decoder, engine, causes = Decoder(), TimedEngine(), {}
    lines = Events(path).lines
    skipped = max(0, len(lines) - events_max)
    for at in range(0, skipped, CHUNK_CALLS):
        engine.apply(decoder.decode(b"\n".join(lines[at : min(at + CHUNK_CALLS, skipped)])))
    # They called before everybody else did: the clock of the state stays as it is.
    for chunk in everybody(resident, MONDAY_MS - 2 * DAY_MS, DAY_MS, np.random.default_rng(1), drop_ratio=0.0):
        engine.apply(decoder.decode(chunk))
    checkpoints = Checkpoints(folder / "state")
    keep(engine, {}, checkpoints)
    checkpoints.settle()
    for at in range(skipped, len(lines), SLICE):
        for one in engine.apply(decoder.decode(b"\n".join(lines[at : at + SLICE]))):
            causes[one.id] = at - skipped, digest(one.body)
    return Offer(path, skipped, folder / "state", causes)


def take(offer: Offer, rate: int, events_max: int, folder: Path) -> Delays:
    """Run the flow, with checkpoints, over events that come due at a rate.

    Args:
        offer: the events, and what must come of them.
        rate: events a second.
        events_max: how many at the most.
        folder: for the state.

    Raises:
        RuntimeError: other notifications came than `trace` found.
    """
    lines = Events(offer.path).lines[offer.skipped :][:events_max]
    engine = _prepared(offer, lines[:SLICE])
    reader = PacedReader(lines, rate)
    told: dict[str, tuple[float, bytes]] = {}

    def write(some: Sequence[Notification]) -> None:
        now_s = time.perf_counter()
        told.update((one.id, (now_s, one.body)) for one in some)

    run_flow_durably(reader.open, engine, folder, write, ends=False, resumes=True)
    ended_s = time.perf_counter()
    # The last slice may reach beyond the events offered here.
    expected = {name: body for name, (cause, body) in offer.causes.items() if cause + SLICE <= len(lines)}
    digests = {name: digest(body) for name, (_, body) in told.items()}
    if not expected.items() <= digests.items():
        raise RuntimeError(f"the flow must tell the {len(expected)} notifications as they are, told {len(digests)}")
    sizes = np.array([size for _, size in reader.chunks])
    due_s = reader.begun_s + np.arange(sizes.sum()) / rate
    return Delays(
        told_s=np.array([at_s - due_s[offer.causes[name][0]] for name, (at_s, _) in told.items()]),
        applied_s=np.repeat(engine.applied_at_s, sizes) - due_s,
        chunks=len(sizes),
        behind_s=ended_s - float(due_s[-1]),
        told=digests,
    )


def _prepared(offer: Offer, lines: list[bytes]) -> TimedEngine:
    """Return an engine in the state before the offer, with compiled code loaded."""
    decoder, engine = Decoder(), TimedEngine()
    TimedEngine().apply(decoder.decode(b"\n".join(lines)))
    checkpoints = Checkpoints(offer.state)
    resume(engine, checkpoints, str(checkpoints.newest()))
    engine.applied_at_s.clear()
    return engine
