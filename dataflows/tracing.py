"""Traces of deliveries, for OpenTelemetry: a span of each notification's way to an output, and one of each attempt.

Their ids are those of the `traceparent` header, so that what a receiver's own tracer records hangs below them. Names
and numbers of the deployment go out, never an identity. Spans that the collector does not take are lost: they are seen
from outside, and nothing waits for them.
"""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from sinks.outputs import State
from sinks.webhook.trace import Attempt, attempt_of, delivery_of, trace_of

NS_PER_MS = 1_000_000


class Tracer:
    """Sends spans, in a thread of its own.

    Args:
        deployment: the deployment's name.
        exporter: where to; by OTLP over HTTP, as OpenTelemetry's variables say, if not given.
    """

    def __init__(self, deployment: str, exporter: SpanExporter | None = None) -> None:
        self._resource = Resource.create({SERVICE_NAME: "stayline", SERVICE_INSTANCE_ID: deployment})
        self._spans = BatchSpanProcessor(OTLPSpanExporter() if exporter is None else exporter)

    def attempted(self, attempt: Attempt) -> None:
        """Make a span of an attempt, and one of the delivery as a whole where the attempt ended it."""
        delivery = _context(attempt, delivery_of(attempt.identity, attempt.output))
        one = _context(attempt, attempt_of(attempt.identity, attempt.output, attempt.attempts))
        tried: dict[str, str | int] = {"http.request.method": "POST", "http.request.resend_count": attempt.attempts}
        if attempt.status is not None:
            tried["http.response.status_code"] = attempt.status
        self._end(attempt, "attempt", one, delivery, attempt.begun_ms, tried)
        if attempt.outcome.state is not State.PENDING:
            self._end(attempt, "delivery", delivery, None, attempt.put_ms, {"stayline.attempts": attempt.attempts + 1})

    def close(self) -> None:
        """Send what is left, and end the thread."""
        self._spans.shutdown()  # type: ignore[no-untyped-call]  # the library's

    def _end(
        self,
        attempt: Attempt,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        begun_ms: int,
        about: dict[str, str | int],
    ) -> None:
        well = attempt.outcome.state is State.DELIVERED
        shared = {
            "stayline.output": attempt.output,
            "stayline.notification.id": attempt.identity,
            "stayline.notification.type": str(attempt.type),
            "stayline.delivery.state": str(attempt.outcome.state),
        }
        span = ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            {**shared, **about},
            kind=SpanKind.CLIENT if parent is not None else SpanKind.INTERNAL,
            status=Status(StatusCode.OK if well else StatusCode.ERROR),
            start_time=begun_ms * NS_PER_MS,
            end_time=attempt.ended_ms * NS_PER_MS,
        )
        self._spans.on_end(span)


def _context(attempt: Attempt, span: str) -> SpanContext:
    return SpanContext(
        int(trace_of(attempt.identity), 16), int(span, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
