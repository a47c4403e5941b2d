"""What Prometheus sees: read from the engine and the outbox when it asks. No customer, peer or call is a label."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dataflows.inputs.spool import Spool
from detectors.engine import RiskEngine
from sinks.outbox import Outbox


class Gauges(Collector):
    """The figures of one process.

    Args:
        engines: what is read; more than one where each partition has its own.
        outbox: what is read.
        spool: what waits to be read; None for an input that has none.
        of_input: what the input has to show of its own.
    """

    def __init__(
        self,
        engines: Iterable[RiskEngine],
        outbox: Outbox,
        spool: Spool | None = None,
        of_input: Collector | None = None,
    ) -> None:
        self._engines = engines
        self._outbox = outbox
        self._spool = spool
        self._of_input = of_input
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def page(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it stands."""
        yield from self._of_engine()
        yield from self._of_outbox()
        if self._spool is not None:
            gauge = GaugeMetricFamily("stayline_spool_bytes", "Bytes of posted records that are kept.")
            gauge.add_metric([], self._spool.total_bytes)
            yield gauge
        if self._of_input is not None:
            yield from self._of_input.collect()

    def _of_engine(self) -> Iterator[Metric]:
        engines = list(self._engines)
        known = [one.memory for one in engines]
        records = CounterMetricFamily("stayline_records", "Records read, by what became of them.", labels=["outcome"])
        for outcome in ("applied", "duplicate", "late", "dead_lettered"):
            records.add_metric([outcome], sum(getattr(one.counts, outcome) for one in engines))
        yield records
        clock = GaugeMetricFamily("stayline_event_time_seconds", "Newest event time seen, Unix seconds.")
        clock.add_metric([], max([0, *(one.clock_ms for one in engines)]) / 1000.0)
        yield clock
        for name, text, value in (
            ("stayline_customers", "Customers held in memory.", sum(len(one.roster) for one in known)),
            ("stayline_cases_open", "Open cases.", sum(len(one.casebook.cases) for one in known)),
            ("stayline_incidents_open", "Open incidents.", sum(len(one.incidents.open) for one in known)),
        ):
            gauge = GaugeMetricFamily(name, text)
            gauge.add_metric([], value)
            yield gauge
        evicted = sum(one.roster.evicted_count for one in known)
        taken_over = sum(one.casebook.taken_over_count for one in known)
        deferred = sum(one.advisor.deferred_count for one in known)
        for name, text, value in (
            ("stayline_customers_evicted", "Customers evicted for want of room.", evicted),
            ("stayline_cases_taken_over", "Cases that an incident explained.", taken_over),
            ("stayline_cases_deferred", "Cases over the day's budget.", deferred),
        ):
            counter = CounterMetricFamily(name, text)
            counter.add_metric([], value)
            yield counter

    def _of_outbox(self) -> Iterator[Metric]:
        stats = self._outbox.stats()
        pending = GaugeMetricFamily("stayline_outbox_pending", "Deliveries that wait.", labels=["output"])
        held = GaugeMetricFamily(
            "stayline_outbox_held", "Deliveries that wait for a better hour.", labels=["output", "reason"]
        )
        done = CounterMetricFamily("stayline_deliveries", "Deliveries ended.", labels=["output", "result"])
        for name, output in stats.outputs.items():
            pending.add_metric([name], output.pending)
            for result in ("delivered", "dead", "superseded", "discarded", "skipped"):
                done.add_metric([name, result], getattr(output, result))
            for reason in ("quiet_hours", "contact_cap"):
                held.add_metric([name, reason], output.held.get(reason, 0))
        yield pending
        yield held
        yield done
        oldest = GaugeMetricFamily(
            "stayline_outbox_oldest_seconds",
            "Age of the oldest delivery that waits; 0 if none does.",
            labels=["output"],
        )
        breaker = GaugeMetricFamily(
            "stayline_output_state",
            "1 for the state that an output is in: closed (sends), open (its receiver fails and is left alone), "
            "disabled (its receiver asked for no more: 410).",
            labels=["output", "state"],
        )
        for name, output in stats.outputs.items():
            oldest.add_metric([name], (output.oldest_age_ms or 0) / 1000.0)
            for state in ("closed", "open", "disabled"):
                breaker.add_metric([name, state], float(output.breaker == state))
        yield oldest
        yield breaker
        conflicts = CounterMetricFamily("stayline_outbox_conflicts", "Notifications of one id that differed.")
        conflicts.add_metric([], stats.conflicts)
        yield conflicts
