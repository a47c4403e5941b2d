"""Trace context: well formed, one trace a notification, one parent an attempt; and the spans that a tracer sends."""

import re

import pytest
from delivery_kit import LOOPBACK, SECRET, FakeClock, Receiver, Reply, dispatcher_of, notice, run_out
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from dataflows.tracing import Tracer
from sinks.outbox import Outbox
from sinks.webhook import WebhookOutput
from sinks.webhook.trace import traceparent

FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01")


@given(st.text(min_size=1), st.text(), st.integers(0, 1_000))
def test_it_is_what_the_standard_asks_for_and_the_same_every_time(identity, output, attempts):
    assert FORM.fullmatch(traceparent(identity, output, attempts))
    assert traceparent(identity, output, attempts) == traceparent(identity, output, attempts)


def test_attempts_share_their_trace_and_differ_in_their_parent():
    made = [traceparent("al-1-1", output, attempts).split("-") for output in "ab" for attempts in range(10)]
    assert len({trace for _, trace, _, _ in made}) == 1
    assert len({parent for _, _, parent, _ in made}) == 20


def test_notifications_have_traces_of_their_own():
    assert len({traceparent(f"al-{number}-1", "crm", 0)[3:35] for number in range(1_000)}) == 1_000


def exported(collector):
    """Return the spans that a collector was sent, and their resources' attributes."""
    spans, resources = [], []
    for request in collector.requests:
        for one in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            resources.append({pair.key: pair.value.string_value for pair in one.resource.attributes})
            spans += [span for scope in one.scope_spans for span in scope.spans]
    return spans, resources


@pytest.fixture
def traced(tmp_path, monkeypatch):
    """Deliver one notification at the third attempt, traced; return the receiver's requests and the collector."""
    clock = FakeClock()
    outbox = Outbox.open(tmp_path / "outbox.db", {"crm": 10}, clock)
    outbox.put([notice("a", 1, customer="+441632960961")])
    with Receiver() as collector, Receiver(lambda _, nth: Reply(500 if nth < 2 else 204)) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        tracer = Tracer("west")
        output = WebhookOutput("crm", receiver.url, [SECRET], allow_networks=LOOPBACK, seen=tracer.attempted)
        run_out(dispatcher_of(outbox, clock, output), clock)
        tracer.close()
        outbox.close()
    return receiver.requests, collector


def test_a_tracer_sends_the_spans_that_the_receiver_was_told_of(traced):
    requests, collector = traced
    spans, resources = exported(collector)
    attempts = [span for span in spans if span.name == "attempt"]
    (delivery,) = (span for span in spans if span.name == "delivery")
    told = [request.headers["traceparent"].split("-") for request in requests]
    assert [[span.trace_id.hex(), span.span_id.hex()] for span in attempts] == [[trace, at] for _, trace, at, _ in told]
    assert {span.parent_span_id for span in attempts} == {delivery.span_id}
    assert delivery.parent_span_id == b""
    assert delivery.start_time_unix_nano <= attempts[0].start_time_unix_nano
    assert delivery.end_time_unix_nano == attempts[-1].end_time_unix_nano
    statuses = [pair.value.int_value for span in attempts for pair in span.attributes if "status_code" in pair.key]
    assert statuses == [500, 500, 204]
    assert [span.status.code for span in (*attempts, delivery)] == [2, 2, 1, 1]
    assert all(one["service.instance.id"] == "west" for one in resources)


def test_no_identity_is_in_a_span(traced):
    _, collector = traced
    assert collector.requests
    assert not any(b"1632960961" in request.body for request in collector.requests)


def test_a_collector_that_is_not_there_costs_log_lines_and_nothing_else(tmp_path, monkeypatch):
    clock = FakeClock()
    outbox = Outbox.open(tmp_path / "outbox.db", {"crm": 10}, clock)
    outbox.put([notice("a", 1)])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    tracer = Tracer("west")
    with Receiver() as receiver:
        output = WebhookOutput("crm", receiver.url, [SECRET], allow_networks=LOOPBACK, seen=tracer.attempted)
        run_out(dispatcher_of(outbox, clock, output), clock)
    with capture_logs() as logged:
        tracer.close()
    assert outbox.stats().outputs["crm"].delivered == 1
    outbox.close()
    assert {(line["event"], line["library"].split(".")[0]) for line in logged} == {("library.problem", "opentelemetry")}
