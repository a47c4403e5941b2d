"""What is counted and timed while it happens, one `Meters` a process; `dataflows.metrics` shows it.

A chunk of records costs a handful of calls here, whatever it holds: under a hundredth of its time, which
`bench/cases/metering.py` measures. Only the thread that runs the flow writes the figures of the flow, and only the
dispatcher's those of deliveries; a scrape reads them in between, so what it shows may be one chunk apart.
"""

import math
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import get_args

import msgspec
import numpy as np
from prometheus_client.core import HistogramMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from dataflows.families import counter, gauge
from dataflows.probes import Probes
from detectors.history import ELEMENTS
from schemas.alerts import Notification, PatternKind, Severity
from schemas.columns import EventBatch
from schemas.deadletters import DeadLetter, DeadReason
from schemas.events import Business, Outcome, Result

WORK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds for the work on one chunk: a megabyte takes some milliseconds."""

CHECKPOINT_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

NOTIFY_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds round the objective of a second from record to outbox."""

DELIVER_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 21_600.0, 86_400.0)
"""Bounds round the objective of five seconds from outbox to receiver; retries and quiet hours reach far beyond."""

EVENTS = ("call", "media", "link", *(kind.__struct_config__.tag for kind in get_args(Business)))


class _Pattern(msgspec.Struct):
    kind: str = ""


class _Data(msgspec.Struct):
    pattern: _Pattern = msgspec.field(default_factory=_Pattern)
    severity: str = ""
    element_kind: str = ""


class _Body(msgspec.Struct):
    """What of a notification's body is counted."""

    data: _Data = msgspec.field(default_factory=_Data)


_read = msgspec.json.Decoder(_Body).decode


class Timing:
    """A histogram of durations in seconds.

    Args:
        bounds: upper bounds of the buckets, rising; one more bucket holds what is longer.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return bound and cumulative count of each bucket."""
        found, total = [], 0
        for bound, count in zip((*self._bounds, np.inf), list(self._counts), strict=True):
            total += count
            found.append(("+Inf" if bound == np.inf else repr(bound), float(total)))
        return found

    @property
    def sum_s(self) -> float:
        """All durations together."""
        return self._sum_s


class Meters(Collector):
    """The figures of the flow, and of deliveries.

    Args:
        outputs: names of the outputs, so that each shows from the start.
        clock: seconds, never going back.
    """

    def __init__(self, outputs: Sequence[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reads: deque[float] = deque()
        self._told: deque[float] = deque()
        self._decode, self._apply = Timing(WORK_S), Timing(WORK_S)
        self._checkpoint, self._notify = Timing(CHECKPOINT_S), Timing(NOTIFY_S)
        self._canary, self._canary_at_s = Timing(NOTIFY_S), math.nan
        self._delivered = {output: Timing(DELIVER_S) for output in outputs}
        self._events = dict.fromkeys(EVENTS, 0)
        self._probes = Probes()
        self._answered = self._rated = 0
        self._mos_sum = 0.0
        self._outcomes = dict.fromkeys(get_args(Result), 0)
        self._dead = dict.fromkeys(DeadReason, 0)
        alerts = product(("opened", "updated", "resolved"), get_args(PatternKind), get_args(Severity))
        self._alerts = Counter(dict.fromkeys(alerts, 0))
        self._incidents = Counter(dict.fromkeys(product(("opened", "cleared"), ELEMENTS), 0))

    # What the flow tells

    def now_s(self) -> float:
        """Return the time that the methods below count from."""
        return self._clock()

    def read(self, chunks: int) -> None:
        """Chunks enter the flow; they are applied in this order."""
        self._reads.extend([self._clock()] * chunks)

    def decoded(self, begun_s: float, letters: Sequence[DeadLetter]) -> None:
        """A chunk was decoded, beginning at `begun_s`; `letters` are the records that could not be."""
        self._decode.observe(self._clock() - begun_s)
        for letter in letters:
            self._dead[letter.reason] += 1

    def applied(self, begun_s: float, batch: EventBatch, told: Sequence[Notification]) -> None:
        """The oldest chunk that was read was applied, beginning at `begun_s`, and this is what it told."""
        self._apply.observe(self._clock() - begun_s)
        read_s = self._reads.popleft() if self._reads else begun_s
        if told:
            self._told.append(read_s)
        self._count(batch)

    def _count(self, batch: EventBatch) -> None:
        calls, events = batch.calls, self._events
        if len(calls):
            events["call"] += len(calls)
            self._probes.saw(calls)
            self._answered += int(np.count_nonzero(calls.answer_ms >= 0))
            mos = calls.mos[calls.mos > 0.0]  # NaN, which stands for not known, is not above anything
            self._rated += len(mos)
            self._mos_sum += float(mos.sum(dtype=np.float64))
        events["media"] += len(batch.media)
        events["link"] += len(batch.links)
        kinds = Counter([type(event) for _, event in batch.business])
        for kind, count in kinds.items():
            events[kind.__struct_config__.tag] += count
        if Outcome in kinds:
            for _, event in batch.business:
                if isinstance(event, Outcome):
                    self._outcomes[event.result] += 1

    def written(self, told: Sequence[Notification]) -> None:
        """What the oldest chunk told is in the outbox."""
        now_s = self._clock()
        read_s = self._told.popleft() if self._told else now_s
        for one in told:
            self._notify.observe(now_s - read_s)
            data = _read(one.body).data
            _, part, what = one.type.split(".")
            if part == "alert":
                self._alerts[what, data.pattern.kind, data.severity] += 1
            else:
                self._incidents[what, data.element_kind] += 1

    def saved(self, begun_s: float) -> None:
        """A checkpoint was taken, beginning at `begun_s`."""
        self._checkpoint.observe(self._clock() - begun_s)

    def delivered(self, output: str, waited_ms: int) -> None:
        """An output took a notification, so long after it was put into the outbox."""
        self._delivered[output].observe(waited_ms / 1000.0)

    def canary(self, delay_s: float, at_s: float, told: Sequence[Notification]) -> None:
        """Canaries' calls, the newest `delay_s` old, led to this at `at_s` (Unix seconds)."""
        for one in told:
            if one.type == "stayline.alert.opened":
                self._canary.observe(delay_s)
                self._canary_at_s = at_s

    # What is shown

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it stands."""
        for name, text, timing in (
            ("stayline_decode_seconds", "Time to decode one chunk of records.", self._decode),
            ("stayline_apply_seconds", "Time to apply one chunk of events to the state.", self._apply),
            ("stayline_canary_delay_seconds", "From the end of a canary's last call to its alert.", self._canary),
            (
                "stayline_checkpoint_seconds",
                "Time that events waited for one checkpoint.",
                self._checkpoint,
            ),
            (
                "stayline_read_to_notification_seconds",
                "From a record's read to its notification's commit.",
                self._notify,
            ),
        ):
            yield _histogram(name, text, {(): timing})
        yield _histogram(
            "stayline_notification_to_delivery_seconds",
            "From a notification's commit to the output that took it; of a webhook: its 2xx.",
            {(output,): timing for output, timing in self._delivered.items()},
            ["output"],
        )
        text = "When a canary's alert came out last, Unix seconds; unknown before the first."
        yield gauge("stayline_canary_time_seconds", text, self._canary_at_s)
        yield from self._of_events()
        yield from self._of_notifications()

    def _of_events(self) -> Iterator[Metric]:
        yield counter("stayline_events", "Events applied or known already, by type.", self._events, "type")
        behind = {name: end_ms / 1000.0 for name, end_ms in self._probes.furthest_behind().items()}
        text = "End of a probe's latest call, Unix seconds; of the hundred that are furthest behind."
        yield gauge("stayline_probe_event_time_seconds", text, behind, "probe")
        yield counter("stayline_calls_answered", "Call legs that were answered.", self._answered)
        mos = SummaryMetricFamily("stayline_call_mos", "MOS of calls as their sources reported it.")
        mos.add_metric([], self._rated, self._mos_sum)
        yield mos
        dead = {str(reason): count for reason, count in self._dead.items()}
        yield counter("stayline_dead_letters", "Records that could not be read, by reason.", dead, "reason")
        yield counter("stayline_outcomes", "What became of alerts, as reported.", self._outcomes, "result")

    def _of_notifications(self) -> Iterator[Metric]:
        text = "Notifications about customers, by what they say."
        yield counter("stayline_alerts", text, self._alerts.copy(), "event", "kind", "severity")
        text = "Notifications about shared faults."
        yield counter("stayline_incidents", text, self._incidents.copy(), "event", "element_kind")


def _histogram(
    name: str, text: str, timings: dict[tuple[str, ...], Timing], labels: Sequence[str] = ()
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, timing in timings.items():
        family.add_metric(list(values), timing.buckets(), timing.sum_s)
    return family
