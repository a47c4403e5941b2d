"""What the `[[output]]` tables of a configuration are once they are opened."""

import contextlib

from dataflows import config as configuration
from dataflows.clock import now_ms
from dataflows.config import outputs
from dataflows.config.settings import Config
from dataflows.inputs.kafka_client import connection
from schemas.errors import StaylineError
from sinks.announcements import Announcements
from sinks.desk.output import DeskOutput
from sinks.desk.store import DeskStore
from sinks.file import FileOutput, Rotation
from sinks.kafka import KafkaOutput
from sinks.outputs import Output
from sinks.shapes import Shape
from sinks.webhook import WebhookOutput
from sinks.webhook.trace import Seen


def tracer_of(config: Config, stack: contextlib.ExitStack) -> Seen | None:
    """Return what is told of each attempt of a webhook, ended with the stack; None: nobody wants to know."""
    if not config.telemetry.traces:
        return None
    # Read only where the configuration asks for it: it costs half a second.
    from dataflows.tracing import Tracer  # noqa: PLC0415

    tracer = Tracer(config.deployment.name)
    stack.callback(tracer.close)
    return tracer.attempted


def output_of(
    one: outputs.FileOutput | outputs.WebhookOutput | outputs.KafkaOutput | outputs.DeskOutput,
    secrets: configuration.Secrets,
    shape: Shape,
    store: DeskStore | None = None,
    seen: Seen | None = None,
) -> Output:
    """Make an output of its table; that of the desk needs the desk's store.

    Raises:
        StaylineError: there is none of this sort.
    """
    if isinstance(one, outputs.FileOutput):
        return FileOutput(one.path, one.name, Rotation(one.rotate_bytes, one.rotate_s), now_ms)
    if isinstance(one, outputs.WebhookOutput):
        return WebhookOutput(
            one.name,
            one.url,
            secrets.webhooks[one.name],
            allow_networks=one.allow_networks,
            give_up_after_s=one.give_up_after_s,
            timeout_s=one.timeout_s,
            concurrency=one.concurrency,
            newest_only=one.newest_only,
            ca_file=one.ca_file,
            client_cert_file=one.client_cert_file,
            content_type=shape.content_type,
            authorization=secrets.authorizations.get(one.name),
            seen=seen,
        )
    if isinstance(one, outputs.KafkaOutput):
        reached = connection(one, secrets.output_passwords.get(one.name))
        if one.announce:
            return Announcements(one.name, one.topic, reached)
        return KafkaOutput(one.name, one.topic, reached, content_type=shape.content_type)
    if isinstance(one, outputs.DeskOutput) and store is not None:
        return DeskOutput(one.name, store)
    raise StaylineError(f"output {one.name}: must have a store where its kind is desk, had none")
