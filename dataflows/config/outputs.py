"""`[[output]]`: where notifications go, which of them, and in which shape."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from dataflows.config.inputs import KafkaAccess
from dataflows.config.kinds import (
    ContentType,
    File,
    Hours,
    Label,
    Name,
    Networks,
    SecretHolder,
    Section,
    ShapeName,
    Topic,
    Zone,
)
from schemas.alerts import Band, NotificationType, Severity
from schemas.errors import ConfigError
from sinks.webhook.guard import check_literal, parse_networks, parse_url

JSON = "application/json"


class Only(Section):
    """`[output.only]`: what an output wants; an empty list: all. See `sinks.routing.route`."""

    types: tuple[NotificationType, ...] = ()
    severity_min: Severity = "minor"
    regions: tuple[Label, ...] = ()
    segments: tuple[Label, ...] = ()
    bands: tuple[Band, ...] = ()


class Quiet(Section):
    """`[output.quiet]`: hours of the local day in which nothing is pushed; it waits for their end."""

    hours: Hours
    zone: Zone = "UTC"


class ContactCap(Section):
    """`[output.contact_cap]`: at most so many cases opened about one customer in any so many days; more wait."""

    contacts: Annotated[int, Field(ge=1, le=1_000)]
    days: Annotated[int, Field(ge=1, le=365)]


class OutputSection(Section):
    """What every `[[output]]` has: a name of its own, how many notifications may wait for it, and what it wants."""

    kind: str
    name: Name = Field(default_factory=lambda given: given.get("kind", ""))
    backlog_max: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    only: Only = Only()


class PagerDuty(SecretHolder):
    """`[output.pagerduty]`: where the integration's key stands."""


class Authorization(SecretHolder):
    """`[output.authorization]`: where the whole value of the header stands (`Bearer ...`, `Basic ...`)."""


class ShapedOutput(OutputSection):
    """An output that may send a notification in the shape that its receiver takes: see `sinks.shapes`."""

    shape: ShapeName = "cloudevents"
    template_file: Annotated[File | None, Field(validate_default=True)] = None
    content_type: Annotated[ContentType, Field(validate_default=True)] = JSON
    pagerduty: Annotated[PagerDuty | None, Field(validate_default=True)] = None

    @field_validator("template_file", "pagerduty")
    @classmethod
    def _given_with_its_shape(cls, value: Any, info: ValidationInfo) -> Any:
        shape = {"template_file": "template", "pagerduty": "pagerduty"}[str(info.field_name)]
        if "shape" in info.data and (value is None) == (info.data["shape"] == shape):
            raise ValueError(f'must be given where shape is "{shape}", and nowhere else')
        return value

    @field_validator("content_type")
    @classmethod
    def _of_templates(cls, value: str, info: ValidationInfo) -> str:
        if value != JSON and info.data.get("shape", "template") != "template":
            raise ValueError('must not be given unless shape is "template": every other shape has its own')
        return value


class FileOutput(ShapedOutput):
    """`kind = "file"`: one notification a line; `rotate_bytes` and `rotate_s` see `sinks.file.Rotation`."""

    kind: Literal["file"]
    path: File
    rotate_bytes: Annotated[int | None, Field(ge=1_024, le=1 << 40)] = None
    rotate_s: Annotated[int | None, Field(ge=60, le=31_622_400)] = None


class WebhookOutput(SecretHolder, ShapedOutput):
    """`kind = "webhook"`: see `sinks.webhook.WebhookOutput`."""

    kind: Literal["webhook"]
    allow_networks: Networks = ()
    url: str
    give_up_after_s: Annotated[int, Field(ge=1, le=2_592_000)] = 86_400
    timeout_s: Annotated[int, Field(ge=1, le=120)] = 15
    concurrency: Annotated[int, Field(ge=1, le=1_024)] = 16
    newest_only: bool = False
    authorization: Authorization | None = None
    quiet: Quiet | None = None
    contact_cap: ContactCap | None = None
    ca_file: File | None = None
    client_cert_file: File | None = None

    @field_validator("url")
    @classmethod
    def _may_be_called(cls, url: str, info: ValidationInfo) -> str:
        if "@" in url:
            raise ValueError("must hold no user name or password")
        try:
            place = parse_url(url)
            if "allow_networks" in info.data:
                check_literal(place, parse_networks(info.data["allow_networks"]))
        except ConfigError as error:
            raise ValueError(error.problems[0].removeprefix("url ").partition(", was ")[0]) from None
        is_name = ":" not in place.host and not re.fullmatch(r"[0-9.]+", place.host)
        if place.scheme == "http" and is_name and place.host != "localhost":
            raise ValueError("must begin with https:// unless it leads to loopback")
        return url


class KafkaOutput(KafkaAccess, ShapedOutput):
    """`kind = "kafka"`; with `announce`, incidents alone and as `incident` events, to every partition of an input."""

    kind: Literal["kafka"]
    topic: Topic
    announce: bool = False

    @field_validator("announce")
    @classmethod
    def _as_events(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  pydantic's
        if value and info.data.get("shape") not in {None, "cloudevents"}:
            raise ValueError("must not stand beside a shape: what is announced has its own")
        return value


class DeskOutput(OutputSection):
    """`kind = "desk"`: the CSR desk of this deployment."""

    kind: Literal["desk"]


Output = Annotated[FileOutput | WebhookOutput | KafkaOutput | DeskOutput, Field(discriminator="kind")]
