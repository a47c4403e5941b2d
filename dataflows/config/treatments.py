"""From the tables of the outputs to what is done to notifications on their way there: rules, shapes, templates."""

import re
from collections.abc import Mapping
from pathlib import Path

from dataflows.config.kinds import minutes_of
from dataflows.config.outputs import FileOutput, Output, ShapedOutput, WebhookOutput
from dataflows.config.settings import Config
from schemas.errors import ConfigError
from sinks.routing import ContactCap, QuietHours, Rule
from sinks.shapes import CLOUDEVENTS, FIXED, Shape, pagerduty, samples, template
from sinks.treatment import Treatment


def treatments(config: Config, routing_keys: Mapping[str, str], only: str | None = None) -> dict[str, Treatment]:
    """Return what is done to notifications on their way to each output, by its name.

    Args:
        config: the configuration.
        routing_keys: name of the output -> PagerDuty's key; every output of that shape is there.
        only: of this output alone.

    Raises:
        ConfigError: a template cannot be read or fails on a sample; every problem is listed.
    """
    problems: list[str] = []
    made = {}
    for key, output in config.placed(only):
        try:
            made[output.name] = Treatment(_rule(output), _shape(output, routing_keys))
        except ConfigError as error:
            problems += [f"{key}.template_file: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return made


def template_problems(config: Config) -> list[str]:
    """Try every template on every sample, and return what is wrong; asks for no secret."""
    try:
        treatments(config, {output.name: "" for output in config.output})
    except ConfigError as error:
        return error.problems
    return []


def _rule(output: Output) -> Rule:
    only = output.only
    quiet = cap = None
    if isinstance(output, WebhookOutput):
        if output.quiet is not None:
            quiet = QuietHours(*minutes_of(output.quiet.hours), output.quiet.zone)
        if output.contact_cap is not None:
            cap = ContactCap(output.contact_cap.contacts, output.contact_cap.days)
    return Rule(
        types=frozenset(only.types),
        severity_min=only.severity_min,
        regions=frozenset(only.regions),
        segments=frozenset(only.segments),
        bands=frozenset(only.bands),
        quiet=quiet,
        cap=cap,
    )


def _shape(output: Output, routing_keys: Mapping[str, str]) -> Shape:
    if not isinstance(output, ShapedOutput):
        return CLOUDEVENTS
    if output.shape == "pagerduty":
        return pagerduty(routing_keys[output.name])
    if output.template_file is not None:
        return _template(output, output.template_file)
    return FIXED[output.shape]


def _template(output: ShapedOutput, path: Path) -> Shape:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError([f"{path} must be a file that can be read, was not: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} must be UTF-8, was not at byte {error.start}"]) from None
    tried = samples()
    try:
        shape = template(text, output.content_type, tried)
    except ConfigError as error:
        raise ConfigError([f"{path} {problem}" for problem in error.problems]) from None
    if isinstance(output, FileOutput):
        lines = [name for name, sample in tried.items() if b"\n" in (shape.render(sample) or b"")]
        if lines:
            raise ConfigError([f"{path} must give one line, as a file takes, and gave more for {', '.join(lines)}"])
    return shape


def routing_key_problem(key: str) -> str | None:
    """Return what is wrong with a key of PagerDuty, None if nothing is; never quotes it."""
    if re.fullmatch(r"[A-Za-z0-9]{32}", key):
        return None
    return f"PagerDuty's key must be 32 letters and digits, and had {len(key)} characters, or others"
