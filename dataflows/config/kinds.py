"""What the tables of the configuration are made of: kinds of values with their rules, and the table itself."""

import ipaddress
import re
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
from schemas.errors import ConfigError
from schemas.formats.times import zone_exists
from sinks.shapes import NAMES as SHAPE_NAMES
from sinks.webhook.guard import parse_networks


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


PARTITIONS_MAX = 100_000
"""More of one topic than any cluster has: a longer range is a slip of the pen."""


class Share(NamedTuple):
    """Of all partitions those whose number divided by `processes` leaves `ordinal`; written `ordinal/processes`."""

    ordinal: int
    processes: int

    def __str__(self) -> str:
        return f"{self.ordinal}/{self.processes}"


def owns(partitions: Literal["all"] | tuple[int, ...] | Share, number: int) -> bool:
    """Tell whether a partition is among those that a configuration names."""
    if isinstance(partitions, Share):
        return number % partitions.processes == partitions.ordinal
    return partitions == "all" or number in partitions


def _partitions(given: Any) -> Any:
    if given == "all":
        return given
    if isinstance(given, str):
        return _range_or_share(given)
    whole = isinstance(given, list) and all(type(number) is int and 0 <= number <= 2**31 - 1 for number in given)
    if not whole or len(set(given)) != len(given):
        raise ValueError(_PARTITIONS_RULE)
    return tuple(given)


_PARTITIONS_RULE = (
    'must be "all", a list of different partition numbers, a range such as "0-3", or ordinal/processes such as "0/3"'
)


def _range_or_share(text: str) -> tuple[int, ...] | Share:
    found = re.fullmatch(r"([0-9]{1,6})([-/])([0-9]{1,6})", text)
    first, last = (int(found[1]), int(found[3])) if found else (1, 0)
    if found and found[2] == "/" and first < last:
        return Share(first, last)
    if found and found[2] == "-" and first <= last <= PARTITIONS_MAX:
        return tuple(range(first, last + 1))
    raise ValueError(_PARTITIONS_RULE)


def _timezone(name: str) -> str:
    if not zone_exists(name):
        raise ValueError("must be a time zone such as Europe/Oslo")
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


Listen = Annotated[Address, PlainValidator(parse_address), PlainSerializer(str)]
File = Annotated[Path, PlainValidator(_path), PlainSerializer(str)]
Name = Annotated[str, _matching(r"[A-Za-z0-9._-]{1,64}", "must be 1 to 64 letters, digits, dots, dashes, underscores")]
Variable = Annotated[
    str, _matching(r"(?!whsec_)[A-Za-z_][A-Za-z0-9_]{0,127}", "must be the name of an environment variable")
]
Topic = Annotated[str, _matching(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}", "must be the name of a Kafka topic")]
Partitions = Annotated[
    Literal["all"] | tuple[int, ...] | Share,
    PlainValidator(_partitions),
    PlainSerializer(lambda given: list(given) if type(given) is tuple else str(given)),
]
Brokers = Annotated[str, AfterValidator(_brokers)]
Hours = Annotated[str, AfterValidator(_hours)]
Zone = Annotated[str, AfterValidator(_timezone)]
Networks = Annotated[tuple[str, ...], AfterValidator(_networks)]
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
