"""The tables of the configuration: every key with its type, its bounds and its default.

What a key means stands here; reading a file is `dataflows.config`'s.
"""

import ipaddress
import re
import zoneinfo
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from schemas import formats
from schemas.alerts import Band, NotificationType, Severity
from schemas.errors import ConfigError
from schemas.formats.columnmap import ColumnMap
from schemas.formats.times import zone_exists
from sinks.shapes import NAMES as SHAPE_NAMES
from sinks.webhook.guard import check_literal, parse_networks, parse_url

JSON = "application/json"

TOKEN_KEY_ENV = "STAYLINE_TOKEN_KEY"  # noqa: S105 - the name of a variable
"""Where the key for tokens stands if `[input.tokens]` does not say."""


class Address(NamedTuple):
    """Where to listen: host without brackets, port 0 for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: Any, port_min: int = 0) -> Address:
    """Read `host:port`, or `[address]:port` for IPv6.

    Raises:
        ValueError: it is not that.
    """
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    plain = re.fullmatch(r"[A-Za-z0-9._-]{1,253}", host) is not None
    numeric = re.fullmatch(r"[0-9]{1,5}", port) is not None and port_min <= int(port) <= 65_535
    if not numeric or not (plain or _is_bracketed(host)):
        raise ValueError(f"must be host:port with a port in {port_min}..65535")
    return Address(host.strip("[]"), int(port))


def _is_bracketed(host: str) -> bool:
    try:
        return host[:1] + host[-1:] == "[]" and ipaddress.IPv6Address(host[1:-1]) is not None
    except ValueError:
        return False


def _brokers(text: str) -> str:
    for part in text.split(","):
        parse_address(part.strip(), port_min=1)
    return text


def _matching(pattern: str, rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def _path(given: Any) -> Path:
    if not isinstance(given, str) or not given or "\0" in given:
        raise ValueError("must be the path of a file")
    return Path(given)


def _partitions(given: Any) -> Any:
    if given == "all":
        return given
    whole = isinstance(given, list) and all(type(number) is int and 0 <= number <= 2**31 - 1 for number in given)
    if not whole or not given or len(set(given)) != len(given):
        raise ValueError('must be "all" or a list of different partition numbers')
    return tuple(given)


def _timezone(name: str) -> str:
    if not zone_exists(name):
        raise ValueError("must be a name of the IANA time zone database")
    return name


def _networks(given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parse_networks(given)
    except ConfigError:
        raise ValueError("must hold address ranges such as 10.0.0.0/8") from None
    return given


def minutes_of(hours: str) -> tuple[int, int]:
    """Read `21:00-08:00` as two minutes of the day.

    Raises:
        ValueError: it is not that.
    """
    found = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])", hours)
    numbers = [int(group) for group in found.groups()] if found else [0, 0, 0, 0]
    begin, end = 60 * numbers[0] + numbers[1], 60 * numbers[2] + numbers[3]
    if begin == end:
        raise ValueError("must be two different times of day, such as 21:00-08:00")
    return begin, end


def _hours(text: str) -> str:
    minutes_of(text)
    return text


def _zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError("must be a time zone such as Europe/Oslo") from None
    return text


def _different(given: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(given)) != len(given):
        raise ValueError("must hold different topics")
    return given


def _under_tls(given: Path | None, info: ValidationInfo) -> Path | None:
    if given is not None and info.data.get("tls") is False:
        raise ValueError("must not stand where tls is false")
    return given


Listen = Annotated[Address, PlainValidator(parse_address), PlainSerializer(str)]
File = Annotated[Path, PlainValidator(_path), PlainSerializer(str)]
Name = Annotated[str, _matching(r"[A-Za-z0-9._-]{1,64}", "must be 1 to 64 letters, digits, dots, dashes, underscores")]
Variable = Annotated[
    str, _matching(r"(?!whsec_)[A-Za-z_][A-Za-z0-9_]{0,127}", "must be the name of an environment variable")
]
Topic = Annotated[str, _matching(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}", "must be the name of a Kafka topic")]
Partitions = Annotated[
    Literal["all"] | tuple[int, ...],
    PlainValidator(_partitions),
    PlainSerializer(lambda given: given if given == "all" else list(given)),
]
Brokers = Annotated[str, AfterValidator(_brokers)]
Hours = Annotated[str, AfterValidator(_hours)]
Zone = Annotated[str, AfterValidator(_zone)]
Label = Annotated[str, _matching(r"[^\x00-\x1f]{1,128}", "must be 1 to 128 characters")]
ContentType = Annotated[
    str,
    _matching(
        r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}(; ?charset=utf-8)?", "must be a media type, lower case"
    ),
]
ShapeName = Annotated[str, _matching("|".join(SHAPE_NAMES), f"must be one of {', '.join(SHAPE_NAMES)}")]
User = Annotated[str, _matching(r"[!-~]{1,256}", "must be a user's name: printable ASCII without spaces")]
Digits = Annotated[str, _matching(r"[0-9]{0,8}", "must be up to 8 digits")]
FormatName = Annotated[
    str,
    _matching("|".join(("stayline", *formats.NAMES)), f"must be stayline or one of {', '.join(formats.NAMES)}"),
]


class Section(BaseModel):
    """What every table has in common: fixed once read, unknown keys refused, no guessing of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class MaySecretHolder(Section):
    """A table that may name where its secret stands."""

    secret_file: File | None = None
    secret_env: Variable | None = None


class SecretHolder(MaySecretHolder):
    """A table that names where its secret stands."""

    secret_env: Variable | None = Field(default=None, validate_default=True)

    @field_validator("secret_env")
    @classmethod
    def _one_of_two(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "secret_file" in info.data and (value is None) == (info.data["secret_file"] is None):
            raise ValueError("must be given, or else secret_file, but not both")
        return value


class Deployment(Section):
    """`[deployment]`: the name is part of every notification's `source` and of every id."""

    name: Name = "stayline"


class FileInput(Section):
    """`[input.file]`; with `follow` the files are read on as they grow."""

    paths: tuple[File, ...] = ()
    follow: bool = False


class KafkaAccess(MaySecretHolder):
    """How brokers are reached, by reader and writer alike.

    `tls` encrypts, and holds the certificate against the host's name and the system's authorities, or those of
    `ca_file`; `client_cert_file` is certificate and key (PEM) to show to the brokers. `username` logs in with the
    password that stands where the secret does.
    """

    brokers: Brokers
    tls: bool = False
    ca_file: Annotated[File | None, AfterValidator(_under_tls)] = None
    client_cert_file: Annotated[File | None, AfterValidator(_under_tls)] = None
    username: Annotated[User | None, Field(validate_default=True)] = None
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"

    @field_validator("username")
    @classmethod
    def _with_password(cls, value: str | None, info: ValidationInfo) -> str | None:
        secrets = [info.data.get(key) for key in ("secret_file", "secret_env")]
        if secrets.count(None) != (2 if value is None else 1):
            raise ValueError("must stand beside secret_env or secret_file, one of them, and they beside it")
        return value

    @field_validator("sasl_mechanism")
    @classmethod
    def _unreadable(cls, value: str, info: ValidationInfo) -> str:
        if value == "PLAIN" and not info.data.get("tls"):
            raise ValueError("must not be PLAIN without tls: anybody could read the password")
        return value


class KafkaInput(KafkaAccess):
    """`[input.kafka]`.

    Offsets are shown to tools under `group`, or `stayline-` and the deployment's name. `on_gap` says what to do where
    the brokers have deleted messages before they were read.
    """

    topics: Annotated[tuple[Topic, ...], Field(min_length=1), AfterValidator(_different)]
    partitions: Partitions = "all"
    start: Literal["earliest", "latest"] = "earliest"
    group: Name | None = None
    on_gap: Literal["stop", "skip"] = "stop"


class HttpInput(Section):
    """`[input.http]`: POST /v1/events."""

    listen: Listen = Address("127.0.0.1", 8090)


class HepInput(Section):
    """`[input.hep]`: HEP3 over UDP and TCP; `customer_networks` see `schemas.formats.hep.events.Customers`."""

    listen: Listen = Address("127.0.0.1", 9060)
    customer_networks: Annotated[tuple[str, ...], AfterValidator(_networks)] = ()


class TokenSettings(SecretHolder):
    """`[input.tokens]`: the key that turns identities into tokens, and how numbers are written.

    `country`, `international_prefix`, `trunk_prefix`, `national_digits`: see `schemas.formats.NumberPlan`.
    `customers_file`: see `dataflows.customers`.
    """

    secret_env: Variable | None = Field(
        default_factory=lambda given: None if given.get("secret_file") else TOKEN_KEY_ENV, validate_default=True
    )
    country: Digits = ""
    international_prefix: Digits = "00"
    trunk_prefix: Digits = "0"
    national_digits: Annotated[int, Field(ge=0, le=15)] = 0
    customers_file: File | None = None


class Input(Section):
    """`[input]`: where records come from; the table of `kind` is the one that counts.

    `timezone` is that of times which a vendor's format writes without an offset (`csv` has its own).
    """

    kind: Literal["file", "kafka", "http", "hep"] = "file"
    format: FormatName = Field(default="stayline", validate_default=True)
    file: FileInput = FileInput()
    kafka: Annotated[KafkaInput | None, Field(validate_default=True)] = None
    http: HttpInput = HttpInput()
    hep: HepInput = HepInput()
    tokens: TokenSettings = TokenSettings()
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    csv: Annotated[ColumnMap | None, Field(validate_default=True)] = None

    @field_validator("format")
    @classmethod
    def _fits_kind(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("kind") != "hep":
            return value
        if value not in {"stayline", "hep"}:
            raise ValueError('must be hep where input.kind is "hep"')
        return "hep"

    @field_validator("kafka", "csv")
    @classmethod
    def _given_where_used(cls, value: Any, info: ValidationInfo) -> Any:
        chooser = {"kafka": "kind", "csv": "format"}[str(info.field_name)]
        if value is None and info.data.get(chooser) == info.field_name:
            raise ValueError(f'must be given where input.{chooser} is "{info.field_name}"')
        return value


class State(Section):
    """`[state]`: what is learnt, on disk and in memory."""

    directory: File = Path("state")
    customers_max: Annotated[int, Field(ge=1, le=1_000_000_000)] = 2_000_000
    idle_days: Annotated[int, Field(ge=1, le=3_650)] = 90


class Detection(Section):
    """`[detection]`: what the CSR team can call a day, and how seldom a healthy customer may be among them."""

    alerts_per_day_max: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    false_alarm_days: Annotated[int, Field(ge=1, le=1_000_000_000)] = 10_000
    lateness_s: Annotated[int, Field(ge=0, le=604_800)] = 300


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
    allow_networks: Annotated[tuple[str, ...], AfterValidator(_networks)] = ()
    url: str
    give_up_after_s: Annotated[int, Field(ge=1, le=2_592_000)] = 86_400
    timeout_s: Annotated[int, Field(ge=1, le=120)] = 15
    concurrency: Annotated[int, Field(ge=1, le=1_024)] = 16
    newest_only: bool = False
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
    """`kind = "kafka"`."""

    kind: Literal["kafka"]
    topic: Topic


class DeskOutput(OutputSection):
    """`kind = "desk"`: the CSR desk of this deployment."""

    kind: Literal["desk"]


Output = Annotated[FileOutput | WebhookOutput | KafkaOutput | DeskOutput, Field(discriminator="kind")]


class Desk(Section):
    """`[desk]`: the representatives' pages; without the table there are none."""

    listen: Listen = Address("127.0.0.1", 8080)


class Metrics(Section):
    """`[metrics]`: Prometheus metrics; without the table there are none."""

    listen: Listen = Address("127.0.0.1", 9100)


class Config(Section):
    """The whole configuration."""

    deployment: Deployment = Deployment()
    input: Input = Input()
    state: State = State()
    detection: Detection = Detection()
    output: tuple[Output, ...] = ()
    desk: Desk | None = None
    metrics: Metrics | None = None
