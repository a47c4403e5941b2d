"""`[input]`: where records come from, and how each of those places is reached."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from dataflows.config.kinds import (
    Address,
    Brokers,
    Digits,
    File,
    FormatName,
    Listen,
    MaySecretHolder,
    Name,
    Networks,
    Partitions,
    SecretHolder,
    Section,
    Topic,
    User,
    Variable,
    Zone,
)
from schemas.formats.columnmap import ColumnMap

TOKEN_KEY_ENV = "STAYLINE_TOKEN_KEY"  # noqa: S105 - the name of a variable
"""Where the key for tokens stands if `[input.tokens]` does not say."""


def _different(given: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(given)) != len(given):
        raise ValueError("must hold different topics")
    return given


def _under_tls(given: Path | None, info: ValidationInfo) -> Path | None:
    if given is not None and info.data.get("tls") is False:
        raise ValueError("must not stand where tls is false")
    return given


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

    `partitions` is "all", for one process that reads all of them together; or those of one process among several, each
    with a state of its own, in topics keyed by customer: a list, a range ("0-3"), or ordinal/processes (three of them
    are "0/3", "1/3" and "2/3"; to the first belong the partitions 0, 3, 6...). An empty list reads nothing: what
    waits is delivered. Offsets are shown to tools under `group`, or `stayline-` and the deployment's name. `on_gap`
    says what to do where the brokers have deleted messages before they were read, or the topic, which was made again
    since; or where a message cannot be unpacked: its checksum is wrong, or it holds more than 100 MB.
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
    customer_networks: Networks = ()


class TokenSettings(SecretHolder):
    """`[input.tokens]`: the key that turns identities into tokens, and how numbers are written.

    `country`, `international_prefix`, `trunk_prefix`, `national_digits`: see `schemas.formats.NumberPlan`.
    `customers_file`: see `dataflows.config.customers`.
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
    timezone: Zone = "UTC"
    csv: Annotated[ColumnMap | None, Field(validate_default=True)] = None

    @property
    def apart(self) -> bool:
        """Whether each partition has a state of its own, which any process may go on with."""
        return self.kind == "kafka" and self.kafka is not None and self.kafka.partitions != "all"

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
