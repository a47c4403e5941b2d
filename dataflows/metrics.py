"""What Prometheus sees: read from the engine, the outbox and the disk when it asks, and what `Meters` counted.

Labels come from closed sets and from the configuration. No customer, peer or call is one, nor is a network element:
there may be a hundred thousand of those.
"""

import contextlib
import math
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from dataflows.families import counter, gauge
from dataflows.inputs.spool import Spool
from dataflows.meters import Meters
from detectors.calibration import BIN_EDGES
from detectors.engine import SUSPICIOUS_DAYS, RiskEngine
from detectors.history import ELEMENTS
from schemas.alerts import PatternKind, Severity
from sinks.outbox import Outbox, OutputStats
from sinks.outputs import Clock, Undeliverable

STATE_PARTS = ("engine", "recovery", "outbox.sqlite3", "desk.sqlite3", "spool", "calls", "dead-letters.ndjson")
"""What lies in a state directory, as far as its size is worth watching."""

CHANNELS = ("drop", "quality")
"""The element channels, in their order."""


class Gauges(Collector):
    """The figures of one process.

    Args:
        engine, outbox: what is read.
        spool: what waits to be read; None for an input that has none.
        of_input: what the input has to show of its own.
        meters: what was counted while it happened.
        folder: the state directory; None: its size is not shown.
        clock: Unix milliseconds; None: how far the events are behind is not shown.
    """

    def __init__(
        self,
        engine: RiskEngine,
        outbox: Outbox,
        spool: Spool | None = None,
        of_input: Collector | None = None,
        *,
        meters: Meters | None = None,
        folder: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._outbox = outbox
        self._spool = spool
        self._folder = folder
        self._clock = clock
        self._registry = CollectorRegistry()
        self._registry.register(self)
        for part in (of_input, meters):
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
        yield from self._of_records()
        yield from self._of_customers()
        yield from self._of_network()
        yield from self._of_churn()
        yield from self._of_outbox()
        if self._spool is not None:
            yield gauge("stayline_spool_bytes", "Bytes of posted records that are kept.", self._spool.total_bytes)
        if self._folder is not None:
            yield from _of_disk(self._folder)

    def _of_records(self) -> Iterator[Metric]:
        engine = self._engine
        outcomes = ("applied", "duplicate", "late", "dead_lettered")
        counts = {outcome: getattr(engine.counts, outcome) for outcome in outcomes}
        yield counter("stayline_records", "Records read, by what became of them.", counts, "outcome")
        newest_ms = max(engine.clock_ms, 0)
        yield gauge("stayline_event_time_seconds", "Newest event time seen, Unix seconds.", newest_ms / 1000.0)
        if self._clock is not None:
            delay_s = (self._clock() - newest_ms) / 1000.0 if newest_ms else math.nan
            text = "How far the newest event time is behind the clock; unknown before the first event."
            yield gauge("stayline_watermark_delay_seconds", text, delay_s)

    def _of_customers(self) -> Iterator[Metric]:
        engine = self._engine
        settings, shelf = engine.settings, engine.histories.shelf
        yield gauge("stayline_customers", "Customers held in memory.", len(engine.roster))
        yield gauge("stayline_customers_max", "Customers that memory may hold.", settings.customers_max)
        evicted = engine.roster.evicted_count
        yield counter("stayline_customers_evicted", "Customers evicted for want of room.", evicted)
        cases = list(engine.casebook.cases.values())
        # Whoever had a bad call lately has a history; whoever has a case is more than a candidate.
        candidates = len(shelf.histories) - int(shelf.tally[0]) - len(cases)
        yield gauge("stayline_candidates", "Customers watched closely, without a case.", max(candidates, 0))
        told = Counter((case.kind, case.severity) for case in cases if case.told)
        kinds = [(kind, severity) for kind in get_args(PatternKind) for severity in get_args(Severity)]
        by_kind = {labels: told[labels] for labels in kinds}
        yield gauge("stayline_cases_open", "Open cases that were told.", by_kind, "kind", "severity")
        waiting = {"incident": sum(case.due_ms > 0 for case in cases), "budget": sum(c.deferred for c in cases)}
        yield gauge("stayline_cases_waiting", "Cases not told yet, by what they wait for.", waiting, "reason")
        taken_over = engine.casebook.taken_over_count
        yield counter("stayline_cases_taken_over", "Cases that an incident explained.", taken_over)
        deferred = engine.advisor.deferred_count
        yield counter("stayline_cases_deferred", "Cases over the day's budget.", deferred)
        text = "Healthy customer-days promised for each false alert."
        yield gauge("stayline_false_alarm_days", text, settings.false_alarm_days)
        yield gauge("stayline_alerts_per_day_max", "Alerts that may be opened a day.", settings.alerts_per_day_max)

    def _of_network(self) -> Iterator[Metric]:
        engine = self._engine
        known = len(engine.elements)
        array = engine.elements.network.elements[:known]
        # A scrape reads beside the flow: the array is copied once, so that all figures are of one moment.
        kinds, evidence = array["kind"].copy(), array["evidence"].mean(axis=2).max(axis=1)
        counts, weights = array["count"].astype(np.float64), array["weight"].astype(np.float64)
        yield gauge("stayline_elements", "Network elements known.", _per_kind(kinds), "element_kind")
        suspicious = _per_kind(kinds[evidence >= SUSPICIOUS_DAYS])
        text = f"Network elements with evidence of {SUSPICIOUS_DAYS:g} days or more against them."
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
        opened = list(engine.incidents.open.values())
        elements = engine.elements.names
        found = Counter(elements[one.element][0] for one in opened)
        by_kind = {kind: found[kind] for kind in (*ELEMENTS, *(set(found) - set(ELEMENTS)))}
        yield gauge("stayline_incidents_open", "Open incidents.", by_kind, "element_kind")
        customers = sum(int(array[one.element]["customers"]) for one in opened if one.element < known)
        yield gauge("stayline_incident_customers", "Customers with a bad call in an open incident.", customers)

    def _of_churn(self) -> Iterator[Metric]:
        report = self._engine.advisor.model.report()
        yield counter("stayline_churn_labels", "Customers of whom the model learnt what became.", report.labels)
        yield counter("stayline_churn_left", "Customers of those who left.", report.left)
        for name, text, value in (
            ("base_ratio", "Share of customers that leave within the horizon, as learnt.", report.base_rate),
            ("brier_score", "Mean squared distance of probability and outcome.", report.brier),
            ("brier_base_score", "The same for a forecast that always says the mean.", report.brier_base),
            ("calibration_error_ratio", "Mean distance of predicted and observed share.", report.calibration_error),
            ("calibration_slope", "Factor on the score that calibration learnt; 1 corrects nothing.", report.slope),
            ("calibration_offset", "Offset of the log-odds that calibration learnt; 0: nothing.", report.offset),
        ):
            yield gauge(f"stayline_churn_{name}", text, math.nan if value is None else value)
        edges = [f"{edge:g}" for edge in (*BIN_EDGES, 1.0)]
        for name, text in (("predicted", "Mean probability given"), ("observed", "Share that left")):
            found = [getattr(one, name) for one in report.bins]
            values = {edge: math.nan if v is None else v for edge, v in zip(edges, found, strict=True)}
            yield gauge(f"stayline_churn_{name}_ratio", f"{text}, by bin of probability.", values, "bin")

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
        yield counter("stayline_outbox_conflicts", "Notifications of one id that differed.", stats.conflicts)


def _of_disk(folder: Path) -> Iterator[Metric]:
    sizes = {part: float(sum(one.st_size for one in _files(folder / part))) for part in STATE_PARTS}
    yield gauge("stayline_state_bytes", "Bytes on disk, by part of the state directory.", sizes, "part")
    snapshots = _files(folder / "engine", ".state")
    newest = max(snapshots, key=lambda one: one.st_mtime_ns, default=None)
    size, at_s = (math.nan, math.nan) if newest is None else (newest.st_size, newest.st_mtime)
    yield gauge("stayline_checkpoint_bytes", "Size of the newest snapshot.", size)
    yield gauge("stayline_checkpoint_time_seconds", "When the newest snapshot was written, Unix seconds.", at_s)


def _files(path: Path, suffix: str = "") -> list[os.stat_result]:
    """Return what the system says of the files in a folder, or of a file and what SQLite keeps beside it."""
    beside = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    found = []
    for one in path.iterdir() if path.is_dir() else beside:
        # A checkpoint may delete a snapshot between the listing and this.
        with contextlib.suppress(FileNotFoundError):
            if one.name.endswith(suffix):
                found.append(one.stat())
    return found


def _per_kind(kinds: Any) -> dict[str, float]:
    counts = np.bincount(kinds, minlength=len(ELEMENTS))
    return {kind: float(counts[k]) for k, kind in enumerate(ELEMENTS)}


def _per_output(outputs: Mapping[str, OutputStats], words: tuple[str, ...], of: Any) -> dict[tuple[str, str], float]:
    return {(name, str(word)): float(of(one, word)) for name, one in outputs.items() for word in words}


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan
