"""The configuration: one TOML file, overridden key by key from the environment, held against every rule at once.

    config = load(Path("stayline.toml"), os.environ)
    secrets = resolve_secrets(config, os.environ)

Any key is overridden by `STAYLINE_SECTION__KEY` (see `dataflows.config.overrides`). Secrets stand in the environment
or in a file, named by `secret_env` or `secret_file`; the configuration itself holds none, so it can be shown. Relative
paths are relative to the working directory of the program, not to the file.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dataflows.config import toml
from dataflows.config.business import business_of
from dataflows.config.customers import read_customers
from dataflows.config.kinds import MaySecretHolder
from dataflows.config.outputs import KafkaOutput, ShapedOutput, WebhookOutput
from dataflows.config.overrides import override
from dataflows.config.problems import duplicate_names, shape_problems, shared_files
from dataflows.config.settings import Config
from dataflows.config.treatments import routing_key_problem
from dataflows.redaction import redacted
from detectors.settings import Settings
from schemas import formats
from schemas.errors import ConfigError
from schemas.formats.columnmap import ColumnMap
from schemas.formats.identity import NumberPlan, Tokens
from sinks.webhook.signing import PREFIX as WEBHOOK_PREFIX
from sinks.webhook.signing import parse_secret

__all__ = [
    "Config", "Secrets", "engine_settings", "format_options", "load", "render", "resolve_input_password",
    "resolve_output_secrets", "resolve_secrets", "resolve_token_key", "runnable", "with_format",
]  # fmt: skip

TOKEN_KEY_BYTES_MIN, TOKEN_KEY_BYTES_MAX = 16, 1_024
"""128 bits are the least that cannot be searched through; more than a block of the hash adds nothing (RFC 2104)."""

SECRET_FILE_BYTES_MAX = 4_096

PASSWORD = "the password for the brokers"  # noqa: S105 - what it is called


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration.

    Args:
        path: the TOML file; None: defaults and the environment alone.
        environ: the environment.

    Raises:
        ConfigError: it does not hold; every problem is listed.
    """
    raw, problems, variables = override({} if path is None else _read(path), environ, Config)
    # As JSON, where a strict model takes a list for a tuple and text for a path, and nothing else for anything.
    text = json.dumps(raw, default=str)
    raw = json.loads(text)
    try:
        config = Config.model_validate_json(text)
    except ValidationError as error:
        problems += shape_problems(error, raw, Config, variables)
    problems += duplicate_names(raw)
    problems += _column_map_problems(raw, problems)
    if not problems and config.input.kind in ("kafka", "http") and config.input.format == "hep":
        rule = f"must be one whose records stand alone where input.kind is {config.input.kind}"
        problems.append(f"input.format: {rule}, was hep")
    if not problems and config.state.shared_directory is not None and not config.input.apart:
        rule = "must be left out where one process reads the whole input: its one state lies in state.directory"
        problems.append(f"state.shared_directory: {rule}, was {config.state.shared_directory}")
    problems += shared_files(raw)
    if problems:
        raise ConfigError(problems)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: must be a file that can be read, was not: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: must be UTF-8, was not at byte {error.start}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: must be TOML, was not: {error}"]) from None


def _column_map_problems(raw: Mapping[str, Any], problems: list[str]) -> list[str]:
    """Hold the column map against its own rules, what has the wrong shape left out."""
    table = raw.get("input")
    given = table.get("csv") if isinstance(table, dict) else None
    if not isinstance(given, dict):
        return []

    def has_shape(key: str) -> bool:
        return not any(re.match(rf"input\.csv\.{re.escape(key)}[.: ]", problem) for problem in problems)

    usable: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
        if key in ColumnMap.__dataclass_fields__ and has_shape(key)
    }
    # A column of the wrong shape is in its place all the same: it is not also missing.
    stand_in = "?" if usable.get("header", True) else 1
    columns = given.get("columns")
    named = columns if isinstance(columns, dict) else {}
    usable["columns"] = {key: one if has_shape(f"columns.{key}") else stand_in for key, one in named.items()}
    return [f"input.csv.{problem}" for problem in ColumnMap(**usable).problems()]


def render(config: Config) -> str:
    """Write the configuration as TOML, defaults included, secrets not.

    It holds none, and reads back to the same; only what a webhook's address asks (`?token=...`) may be one, and is left
    out.
    """
    shown = config.model_dump(mode="json", exclude_none=True)
    for one in shown["output"]:
        if "url" in one:
            one["url"] = redacted(one["url"])
    return toml.dumps(shown)


def with_format(config: Config, name: str) -> Config:
    """Return the configuration with another `input.format`.

    Raises:
        ConfigError: there is no such format.
    """
    if name not in ("stayline", *formats.NAMES):
        raise ConfigError([f"--format: must be stayline or one of {', '.join(formats.NAMES)}, was {name}"])
    return config.model_copy(update={"input": config.input.model_copy(update={"format": name})})


def runnable(config: Config) -> list[str]:
    """Return what of a valid configuration this version of `stayline run` cannot do, one sentence each."""
    found = []
    if config.input.kind == "file" and not config.input.file.paths:
        found.append("input.file.paths: must name at least one file where input.kind is file, was empty")
    if not config.output:
        found.append("output: must be at least one, was none")
    return found


@dataclass(frozen=True)
class Secrets:
    """What the configuration only names. Not shown by `repr`.

    Attributes:
        webhooks: name of the output -> its `whsec_` secrets, the current one first.
        token_key: turns identities into tokens; None: the input's format has no use for it.
        routing_keys: name of the output -> PagerDuty's key.
        authorizations: name of the output -> the value of its requests' Authorization header.
        input_password: of the user that reads from Kafka; None: there is none.
        output_passwords: name of the output -> password of the user that writes to Kafka.
        desk_client: the desk's secret at its identity provider; None: it has none.
        desk_resolver: shown to the resolver of identities; None: there is none.
    """

    webhooks: Mapping[str, tuple[str, ...]] = field(repr=False)
    token_key: bytes | None = field(repr=False)
    routing_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorizations: Mapping[str, str] = field(default_factory=dict, repr=False)
    input_password: str | None = field(default=None, repr=False)
    output_passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    desk_client: str | None = field(default=None, repr=False)
    desk_resolver: str | None = field(default=None, repr=False)


def resolve_secrets(config: Config, environ: Mapping[str, str]) -> Secrets:
    """Fetch every secret that the configuration names, and hold it against its rules.

    A webhook has one secret or, while its receiver changes over, two, the new one first, separated by a space.

    Raises:
        ConfigError: a secret is not there or is none; every problem is listed, none quotes a secret.
    """
    problems: list[str] = []
    found = _output_secrets(config, None, environ, problems)
    token_key = _token_key(config, environ, problems)
    password = _input_password(config, environ, problems)
    client, resolver = _desk_secrets(config, environ, problems)
    if problems:
        raise ConfigError(problems)
    return replace(found, token_key=token_key, input_password=password, desk_client=client, desk_resolver=resolver)


def resolve_output_secrets(config: Config, name: str, environ: Mapping[str, str]) -> Secrets:
    """Fetch the secrets of one output alone.

    Raises:
        ConfigError: as `resolve_secrets`.
    """
    problems: list[str] = []
    found = _output_secrets(config, name, environ, problems)
    if problems:
        raise ConfigError(problems)
    return found


def _output_secrets(config: Config, only: str | None, environ: Mapping[str, str], problems: list[str]) -> Secrets:
    webhooks: dict[str, tuple[str, ...]] = {}
    passwords: dict[str, str] = {}
    authorizations: dict[str, str] = {}
    routing_keys: dict[str, str] = {}
    for key, output in config.placed(only):
        if isinstance(output, WebhookOutput):
            secrets = tuple(_secret(output, key, "the webhook's secret", environ, problems).split())
            problems += _webhook_problems(key, secrets)
            webhooks[output.name] = secrets
            if output.authorization is not None:
                text = _authorization(output.authorization, f"{key}.authorization", environ, problems)
                authorizations[output.name] = text
        elif isinstance(output, KafkaOutput) and output.username is not None:
            passwords[output.name] = _secret(output, key, PASSWORD, environ, problems)
        if isinstance(output, ShapedOutput) and output.pagerduty is not None:
            routing_keys[output.name] = _routing_key(output.pagerduty, f"{key}.pagerduty", environ, problems)
    return Secrets(webhooks, None, routing_keys, authorizations, output_passwords=passwords)


def _desk_secrets(config: Config, environ: Mapping[str, str], problems: list[str]) -> tuple[str | None, str | None]:
    desk = config.desk
    oidc, resolver = (None, None) if desk is None else (desk.oidc, desk.resolver)
    return (
        None if oidc is None else _secret(oidc, "desk.oidc", "the desk's client secret", environ, problems),
        None if resolver is None else _secret(resolver, "desk.resolver", "the resolver's key", environ, problems),
    )


def _input_password(config: Config, environ: Mapping[str, str], problems: list[str]) -> str | None:
    given = config.input.kafka
    if config.input.kind != "kafka" or given is None or given.username is None:
        return None
    return _secret(given, "input.kafka", PASSWORD, environ, problems)


def resolve_input_password(config: Config, environ: Mapping[str, str]) -> str | None:
    """Fetch the password of the user that reads from Kafka alone; None where there is no such user.

    Raises:
        ConfigError: there is none where the configuration says.
    """
    problems: list[str] = []
    password = _input_password(config, environ, problems)
    if problems:
        raise ConfigError(problems)
    return password


def resolve_token_key(config: Config, environ: Mapping[str, str]) -> bytes | None:
    """Fetch the key for tokens alone; None where the input's format has no use for it.

    Raises:
        ConfigError: there is none, or it is too short.
    """
    problems: list[str] = []
    token_key = _token_key(config, environ, problems)
    if problems:
        raise ConfigError(problems)
    return token_key


def _routing_key(holder: MaySecretHolder, key: str, environ: Mapping[str, str], problems: list[str]) -> str:
    text = _secret(holder, key, "PagerDuty's key", environ, problems)
    problem = routing_key_problem(text) if text else None
    problems += [] if problem is None else [f"{key}: {problem}"]
    return text


def _authorization(holder: MaySecretHolder, key: str, environ: Mapping[str, str], problems: list[str]) -> str:
    text = _secret(holder, key, "the header's value", environ, problems)
    if not re.fullmatch(r"[ -~]*", text):
        problems.append(f"{key}: must be one line of printable ASCII, was not")
    return text


def _secret(holder: MaySecretHolder, key: str, what: str, environ: Mapping[str, str], problems: list[str]) -> str:
    """Return the text of one secret, empty (and a problem) where there is none."""
    if holder.secret_file is None:
        text = environ.get(str(holder.secret_env), "").strip()
        if not text:
            problems.append(
                f"{key}.secret_env: {what} must stand in the variable named, and {holder.secret_env} is not set"
            )
        return text
    try:
        with holder.secret_file.open("rb") as file:
            text = file.read(SECRET_FILE_BYTES_MAX).decode("utf-8").strip()
    except OSError as error:
        problems.append(f"{key}.secret_file: {holder.secret_file} must be readable, was not: {error.strerror}")
        return ""
    except UnicodeDecodeError:
        problems.append(f"{key}.secret_file: {holder.secret_file} must be UTF-8, was not")
        return ""
    if not text:
        problems.append(f"{key}.secret_file: {holder.secret_file} must hold {what}, was empty")
    return text


def _webhook_problems(key: str, secrets: tuple[str, ...]) -> list[str]:
    found = [] if len(secrets) <= 2 else [f"{key}: must have one secret, or two while they change over, had more"]
    for secret in secrets:
        if not secret.startswith(WEBHOOK_PREFIX):
            found.append(f"{key}: its secret must begin with {WEBHOOK_PREFIX}, and does not")
            continue
        try:
            parse_secret(secret)
        except ConfigError as error:
            found += [f"{key}: {problem}" for problem in error.problems]
    return found


def _needs_tokens(config: Config) -> bool:
    """Tell whether the input's format gives identities that become tokens."""
    if config.input.format == "csv":
        return config.input.csv is not None and bool(config.input.csv.tokenised())
    return config.input.format not in ("stayline", "arrow")  # what comes as events has its tokens already


def _token_key(config: Config, environ: Mapping[str, str], problems: list[str]) -> bytes | None:
    if not _needs_tokens(config):
        return None
    what = "the key that turns identities into tokens"
    key = _secret(config.input.tokens, "input.tokens", what, environ, problems).encode()
    if key and not TOKEN_KEY_BYTES_MIN <= len(key) <= TOKEN_KEY_BYTES_MAX:
        rule = f"must hold a key of {TOKEN_KEY_BYTES_MIN} to {TOKEN_KEY_BYTES_MAX} bytes"
        problems.append(f"input.tokens: {rule}, held {len(key)}")
    return key


def format_options(
    config: Config, token_key: bytes | None, *, endless: bool = False, whole_files: bool = False
) -> formats.Options:
    """Return what `schemas.formats.open_format` needs to open `input.format`.

    Args:
        endless, whole_files: the input goes on for ever, and does so by whole files.

    Raises:
        ConfigError: `input.tokens.customers_file` does not hold.
    """
    given = config.input.tokens
    plan = NumberPlan(given.country, given.international_prefix, given.trunk_prefix, given.national_digits)
    tokens = None
    if token_key is not None:
        customers = None if given.customers_file is None else read_customers(given.customers_file, plan)
        tokens = Tokens(token_key, plan, customers)
    return formats.Options(
        tokens=tokens,
        csv=config.input.csv,
        timezone=config.input.timezone,
        customer_networks=config.input.hep.customer_networks,
        endless=endless,
        whole_files=whole_files,
    )


def engine_settings(config: Config) -> Settings:
    """Return what the configuration fixes for detection."""
    return Settings(
        deployment=config.deployment.name,
        false_alarm_days=config.detection.false_alarm_days,
        alerts_per_day_max=config.detection.alerts_per_day_max,
        lateness_s=config.detection.lateness_s,
        timezone=config.detection.timezone,
        customers_max=config.state.customers_max,
        idle_days=config.state.idle_days,
        finds_incidents=config.detection.incidents == "found",
        business=business_of(config.churn, config.remedies, config.credits),
    )
