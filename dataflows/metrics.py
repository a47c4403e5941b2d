"""What Prometheus sees: read from the engine, the outbox and the disk when it asks, and what `Meters` counted.

Labels come from closed sets and from the configuration. No customer, peer or call is one, nor is a network element:
there may be a hundred thousand of those. Of probes a hundred are named, those furthest behind.
"""

import contextlib
import math
import os
import platform
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from dataflows.families import counter, gauge
from dataflows.inputs.spool import Spool
from detectors.churn.measures import BIN_EDGES
from detectors.churn.model import ModelReport
from detectors.elements import ELEMENT, SUSPICIOUS_DAYS
from detectors.engine import RiskEngine
from detectors.history import ELEMENTS
from schemas.alerts import PatternKind, Severity
from sinks.outbox import Outbox, OutputStats
from sinks.outputs import Clock, Undeliverable
from sinks.webhook.policy import is_misconfigured

STATE_PARTS = (
    "engine", "partitions", "recovery", "outbox.sqlite3", "desk.sqlite3", "spool", "outcomes", "calls",
    "dead-letters.ndjson",
)  # fmt: skip
"""What lies in a state directory, as far as its size is worth watching."""

CHANNELS = ("drop", "quality")
"""The element channels, in their order."""


class Gauges(Collector):
    """The figures of one process.

    Args:
        engines: what is read; more than one where each partition has its own.
        outbox: what is read.
        spool: what waits to be read; None for an input that has none.
        of_input: what the input has to show of its own.
        meters: what was counted while it happened.
        disk: what lies in the state directory.
        shards: the partitions, where they are kept apart.
        incidents: what the process does about shared faults: "found", or "announced" to others besides, or it
            is "told" of them.
        clock: Unix milliseconds; None: how far the events are behind is not shown.
    """

    def __init__(
        self,
        engines: Iterable[RiskEngine],
        outbox: Outbox,
        spool: Spool | None = None,
        of_input: Collector | None = None,
        *,
        meters: Collector | None = None,
        disk: Collector | None = None,
        shards: Collector | None = None,
        incidents: str = "found",
        clock: Clock | None = None,
    ) -> None:
        self._engines = engines
        self._incidents = incidents
        self._outbox = outbox
        self._spool = spool
        self._clock = clock
        self._registry = CollectorRegistry()
        self._registry.register(self)
        for part in (of_input, meters, disk, shards):
            if part is not None:
                self._registry.register(part)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it stands."""
        build = {(version("stayline"), platform.python_version()): 1.0}
        yield gauge("stayline_build_info", "What runs.", build, "version", "python")
        text = "1 for what the process does about shared faults: found, announced (to others), told (by others)."
        yield gauge("stayline_incident_role", text, {self._incidents: 1.0}, "role")
        engines = list(self._engines)
        yield from self._of_records(engines)
        yield from _of_customers(engines)
        yield from _of_cases(engines)
        yield from _of_network(engines)
        yield from _of_churn([one.memory.advisor.model.report() for one in engines])
        yield from self._of_outbox()
        if self._spool is not None:
            yield gauge("stayline_spool_bytes", "Bytes of posted records that are kept.", self._spool.total_bytes)

    def _of_records(self, engines: list[RiskEngine]) -> Iterator[Metric]:
        outcomes = ("applied", "duplicate", "late", "dead_lettered")
        counts = {outcome: sum(getattr(one.counts, outcome) for one in engines) for outcome in outcomes}
        yield counter("stayline_records", "Records read, by what became of them.", counts, "outcome")
        newest_ms = max([0, *(one.clock_ms for one in engines)])
        yield gauge("stayline_event_time_seconds", "Newest event time seen, Unix seconds.", newest_ms / 1000.0)
        if self._clock is not None:
            delay_s = (self._clock() - newest_ms) / 1000.0 if newest_ms else math.nan
            text = "How far the newest event time is behind the clock; unknown before the first event."
            yield gauge("stayline_watermark_delay_seconds", text, delay_s)

    def _of_outbox(self) -> Iterator[Metric]:
        stats = self._outbox.stats()
        outputs = stats.outputs
        pending = {name: one.pending for name, one in outputs.items()}
        yield gauge("stayline_outbox_pending", "Deliveries that wait.", pending, "output")
        room = {name: one.backlog_max for name, one in outputs.items()}
        yield gauge("stayline_outbox_pending_max", "Deliveries that may wait.", room, "output")
        held = _per_output(outputs, ("quiet_hours", "contact_cap"), lambda one, why: one.held.get(why, 0))
        yield gauge("stayline_outbox_held", "Deliveries that wait for a better hour.", held, "output", "reason")
        oldest = {name: (one.oldest_age_ms or 0) / 1000.0 for name, one in outputs.items()}
        text = "Age of the oldest delivery that waits; 0 if none does."
        yield gauge("stayline_outbox_oldest_seconds", text, oldest, "output")
        ends = ("delivered", "dead", "superseded", "discarded", "skipped")
        done = _per_output(outputs, ends, getattr)
        yield counter("stayline_deliveries", "Deliveries ended.", done, "output", "result")
        given_up = _per_output(outputs, tuple(Undeliverable), lambda one, why: one.given_up.get(why, 0))
        text = "Deliveries given up that lie there, by reason."
        yield gauge("stayline_dead_deliveries", text, given_up, "output", "reason")
        states = _per_output(outputs, ("closed", "open", "disabled"), lambda one, state: one.breaker == state)
        text = (
            "1 for the state that an output is in: closed (sends), open (its receiver fails and is left alone), "
            "disabled (its receiver asked for no more: 410)."
        )
        yield gauge("stayline_output_state", text, states, "output", "state")
        wrong = {name: int(is_misconfigured(one.trouble)) for name, one in outputs.items()}
        text = "1 if the last trouble was an answer that somebody must put right: a redirect, 401, 403, 404..."
        yield gauge("stayline_output_misconfigured", text, wrong, "output")
        yield counter("stayline_outbox_conflicts", "Notifications of one id that differed.", stats.conflicts)


def _of_customers(engines: list[RiskEngine]) -> Iterator[Metric]:
    known = [one.memory for one in engines]
    yield gauge("stayline_customers", "Customers held in memory.", sum(len(one.roster) for one in known))
    room = sum(one.settings.customers_max for one in known)
    yield gauge("stayline_customers_max", "Customers that memory may hold.", room)
    evicted = sum(one.roster.evicted_count for one in known)
    yield counter("stayline_customers_evicted", "Customers evicted for want of room.", evicted)
    # Whoever had a bad call lately has a history; whoever has a case is more than a candidate.
    kept = sum(len(one.histories) for one in known)
    candidates = max(kept - sum(len(one.casebook.cases) for one in known), 0)
    yield gauge("stayline_candidates", "Customers watched closely, without a case.", candidates)


def _of_cases(engines: list[RiskEngine]) -> Iterator[Metric]:
    known = [one.memory for one in engines]
    cases = [case for one in known for case in list(one.casebook.cases.values())]
    told = Counter((case.kind, case.severity) for case in cases if case.told)
    kinds = [(kind, severity) for kind in get_args(PatternKind) for severity in get_args(Severity)]
    by_kind = {labels: told[labels] for labels in kinds}
    yield gauge("stayline_cases_open", "Open cases that were told.", by_kind, "kind", "severity")
    waiting = {"incident": sum(case.due_ms > 0 for case in cases), "budget": sum(case.deferred for case in cases)}
    yield gauge("stayline_cases_waiting", "Cases not told yet, by what they wait for.", waiting, "reason")
    taken_over = sum(one.casebook.taken_over_count for one in known)
    yield counter("stayline_cases_taken_over", "Cases that an incident explained.", taken_over)
    deferred = sum(one.advisor.deferred_count for one in known)
    yield counter("stayline_cases_deferred", "Cases over the day's budget.", deferred)
    days = max((one.settings.false_alarm_days for one in known), default=math.nan)
    yield gauge("stayline_false_alarm_days", "Healthy customer-days promised for each false alert.", days)
    budget = sum(one.settings.alerts_per_day_max for one in known)
    yield gauge("stayline_alerts_per_day_max", "Alerts that may be opened a day.", budget)


def _of_network(engines: list[RiskEngine]) -> Iterator[Metric]:
    known = [one.memory for one in engines]
    # A scrape reads beside the flow: each array is copied once, so that all figures are of one moment.
    arrays = [one.elements.network.elements[: len(one.elements)].copy() for one in known]
    array = np.concatenate(arrays) if arrays else np.zeros(0, ELEMENT)
    kinds, evidence = array["kind"], array["evidence"].mean(axis=2).max(axis=1)
    counts, weights = array["count"].astype(np.float64), array["weight"].astype(np.float64)
    text = "Network elements known; one that several partitions know counts for each."
    yield gauge("stayline_elements", text, _per_kind(kinds), "element_kind")
    text = f"Network elements with evidence of {SUSPICIOUS_DAYS:g} days or more against them."
    suspicious = _per_kind(kinds[evidence >= SUSPICIOUS_DAYS])
    yield gauge("stayline_elements_suspicious", text, suspicious, "element_kind")
    worst = {kind: float(evidence[kinds == k].max(initial=0.0)) for k, kind in enumerate(ELEMENTS)}
    text = "Evidence against the worst element, in days."
    yield gauge("stayline_element_evidence_days_max", text, worst, "element_kind")
    learnt = {
        (kind, channel): _ratio(weights[kinds == k, c].sum(), counts[kinds == k, c].sum())
        for k, kind in enumerate(ELEMENTS)
        for c, channel in enumerate(CHANNELS)
    }
    text = "Share of bad calls that is normal, as learnt over all elements of a kind."
    yield gauge("stayline_element_baseline_ratio", text, learnt, "element_kind", "channel")
    yield from _of_incidents(engines, arrays)


def _of_incidents(engines: list[RiskEngine], arrays: list[Any]) -> Iterator[Metric]:
    found: Counter[str] = Counter()
    customers = 0
    for engine, array in zip(engines, arrays, strict=True):
        for one in list(engine.memory.incidents.open.values()):
            found[engine.memory.elements.names[one.element][0]] += 1
            customers += int(array[one.element]["customers"]) if one.element < len(array) else 0
    by_kind = {kind: found[kind] for kind in ELEMENTS}
    yield gauge("stayline_incidents_open", "Open incidents.", by_kind, "element_kind")
    yield gauge("stayline_incident_customers", "Customers with a bad call in an open incident.", customers)


def _of_churn(reports: list[ModelReport]) -> Iterator[Metric]:
    labels = sum(one.labels for one in reports)
    yield counter("stayline_churn_labels", "Customers of whom the model learnt what became.", labels)
    yield counter("stayline_churn_left", "Customers of those who left.", sum(one.left for one in reports))
    measures = [one.served.measures for one in reports]
    weights = [one.weight for one in measures]
    served = [one.served for one in reports]
    alarms = sum(one.alarms for one in served)
    yield counter("stayline_churn_drift_alarms", "How often the mean of the model's errors was found changed.", alarms)
    for name, text, values in (
        ("base_ratio", "Share of customers that leave within the horizon, as learnt.", [r.base_rate for r in reports]),
        ("brier_score", "Mean squared distance of probability and outcome.", [m.brier for m in measures]),
        ("brier_base_score", "The same for a forecast that always says the mean.", [m.brier_base for m in measures]),
        (
            "calibration_error_ratio",
            "Mean distance of said and seen share.",
            [m.calibration_error for m in measures],
        ),
        (
            "calibration_slope",
            "Factor on the score that calibration learnt; 1 corrects nothing.",
            [one.slope for one in served],
        ),
        (
            "calibration_offset",
            "Offset of the log-odds that calibration learnt; 0 corrects nothing.",
            [one.offset for one in served],
        ),
    ):
        yield gauge(f"stayline_churn_{name}", text, _mean(list(values), weights))
    for name, what in (("predicted", "Mean probability given"), ("observed", "Share that left")):
        by_bin = {}
        for place, edge in enumerate((*BIN_EDGES, 1.0)):
            bins = [one.bins[place] for one in measures]
            by_bin[f"{edge:g}"] = _mean([getattr(one, name) for one in bins], [one.weight for one in bins])
        yield gauge(f"stayline_churn_{name}_ratio", f"{what}, by bin of probability.", by_bin, "bin")


def _mean(values: list[Any], weights: list[float]) -> float:
    """Return the mean of what is known, by weight; alike where nothing weighs anything."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    if not known:
        return math.nan
    whole = sum(weight for _, weight in known)
    return float(sum(v * w for v, w in known) / whole if whole else sum(v for v, _ in known) / len(known))


class Disk(Collector):
    """What lies in a state directory.

    Args:
        folder: the directory.
        snapshots: gives the folders that hold engines' snapshots.
    """

    def __init__(self, folder: Path, snapshots: Callable[[], list[Path]]) -> None:
        self._folder = folder
        self._snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it stands."""
        sizes = {part: float(sum(one.st_size for one in _files(self._folder / part))) for part in STATE_PARTS}
        yield gauge("stayline_state_bytes", "Bytes on disk, by part of the state directory.", sizes, "part")
        text = "Bytes that are free on the disk of the state directory."
        yield gauge("stayline_state_free_bytes", text, shutil.disk_usage(self._folder).free)
        found = [_files(folder, ".state") for folder in self._snapshots()]
        newest = [max(files, key=lambda one: one.st_mtime_ns) for files in found if files]
        size = float(sum(one.st_size for one in newest)) if newest else math.nan
        at_s = max((one.st_mtime for one in newest), default=math.nan)
        yield gauge("stayline_checkpoint_bytes", "Size of the newest snapshot, of all partitions together.", size)
        yield gauge("stayline_checkpoint_time_seconds", "When the newest snapshot was written, Unix seconds.", at_s)


def _files(path: Path, suffix: str = "") -> list[os.stat_result]:
    """Return what the system says of the files below a folder, or of a file and what SQLite keeps beside it."""
    beside = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    found = []
    # A checkpoint may delete a snapshot between the listing and the look at it.
    with contextlib.suppress(FileNotFoundError):
        for one in list(path.rglob("*")) if path.is_dir() else beside:
            with contextlib.suppress(FileNotFoundError):
                if one.name.endswith(suffix) and one.name[0] != "." and stat.S_ISREG((status := one.stat()).st_mode):
                    found.append(status)
    return found


def _per_kind(kinds: Any) -> dict[str, float]:
    counts = np.bincount(kinds, minlength=len(ELEMENTS))
    return {kind: float(counts[k]) for k, kind in enumerate(ELEMENTS)}


def _per_output(outputs: Mapping[str, OutputStats], words: tuple[str, ...], of: Any) -> dict[tuple[str, str], float]:
    return {(name, str(word)): float(of(one, word)) for name, one in outputs.items() for word in words}


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan
