"""The commands of an operator who looks after a deployment: `stayline dead-letters`, `state` and `outputs`."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, as in `dataflows.cli`

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataflows.wording import counted
from schemas.errors import ConfigError, DeliveryError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dataflows.commands.again import Found
    from dataflows.commands.letterbox import Letter, Letterbox, Wanted
    from dataflows.config import Config
    from schemas.deadletters import DeadLetter

dead_letters = typer.Typer(
    help="Records that could not be read, and deliveries that an output gave up.",
    no_args_is_help=True,
    # The program's own `--help` shows these beside its commands.
    rich_markup_mode=None,
)
state = typer.Typer(help="What a deployment keeps.", no_args_is_help=True, rich_markup_mode=None)
outputs = typer.Typer(help="The outputs: test them, let them begin again.", no_args_is_help=True, rich_markup_mode=None)

ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration, a TOML file.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help="Of records and deliveries, as list shows them.")
]
Kind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="record or delivery alone.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Of this reason alone.")]
Source = Annotated[str | None, typer.Option("--source", metavar="NAME", help="From this input kind, or output, alone.")]
Everything = Annotated[bool, typer.Option("--all", help="All of them.")]

SHOWN_MAX = 100
"""Lines that a list for people has, unless told otherwise."""


@dead_letters.command("list")
def list_(
    config: ConfigFile,
    kind: Kind = None,
    reason: Reason = None,
    source: Source = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="So many lines at most; --json has no limit.")
    ] = SHOWN_MAX,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, all of them.")] = False,
) -> None:
    """List them, without their contents."""
    wanted = _wanted([], kind, reason, source)
    with _letterbox(config) as box:
        if source is not None and source not in (known := box.sources() | {one.name for one in _loaded(config).output}):
            raise ConfigError([f"--source: must be one of {', '.join(sorted(known))}, was {source}"])
        count = 0
        for count, letter in enumerate(box.letters(wanted), 1):
            if as_json:
                from msgspec.json import encode

                typer.echo(encode(letter))
            elif count <= limit:
                typer.echo(_line(letter))
    if not count:
        narrowed = kind or reason or source
        typer.echo("no dead letters" + (" of that sort" if narrowed else ""), err=as_json)
    elif not as_json and count > limit:
        typer.echo(f"{count - limit:,} more of {count:,}: --limit, or --json for all", err=True)


@dead_letters.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="Of a record or delivery, as list shows it.")],
    config: ConfigFile,
    *,
    contents: Annotated[
        bool, typer.Option("--contents", help="Print the record or body alone, as it is: it may name people.")
    ] = False,
) -> None:
    """Show one of them, what its receiver answered, and how large it is."""
    with _letterbox(config) as box:
        found = box.contents(name)
    if found is None:
        raise StateError(f"{name}: must be the id of a dead letter, is none (any more)")
    letter, reply, data = found
    if contents:
        typer.echo(data, nl=not data.endswith(b"\n"))
        return
    for title in ("id", "kind", "source", "at", "reason", "detail"):
        typer.echo(f"{title:<9}{getattr(letter, title)}")
    if reply:
        typer.echo(f"answer   {reply}")
    typer.echo(f"contents {counted(len(data), 'byte')}; --contents prints them")


@dead_letters.command()
def replay(
    config: ConfigFile,
    ids: Ids = None,
    kind: Kind = None,
    reason: Reason = None,
    source: Source = None,
    *,
    everything: Everything = False,
) -> None:
    """Give records to the input again, and queue deliveries again with the ids that they had.

    A deployment that runs takes them within a second or two, one that is stopped when it starts. A record that still
    cannot be read stays a dead letter.
    """
    wanted = _chosen(ids or [], kind, reason, source, everything=everything)
    from dataflows.commands.progress import progress

    with _letterbox(config) as box, progress("replay", None, "bytes") as report:
        _require_known(box, wanted)
        done = box.replay(wanted, report)
    records, deliveries = counted(done.records, "record"), counted(done.deliveries, "delivery", "deliveries")
    typer.echo(f"{records} given to the input again, {deliveries} queued again")
    for name, problem in done.refused[:SHOWN_MAX]:
        typer.echo(f"still no event: {name}: {problem}", err=True)
    if len(done.refused) > SHOWN_MAX:
        typer.echo(f"and {len(done.refused) - SHOWN_MAX:,} more that are still no events", err=True)
    if done.refused:
        raise typer.Exit(1)


@dead_letters.command()
def discard(
    config: ConfigFile,
    ids: Ids = None,
    kind: Kind = None,
    reason: Reason = None,
    source: Source = None,
    *,
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", help="Really: there is no way back.")] = False,
) -> None:
    """Drop them for good; they stay counted."""
    wanted = _chosen(ids or [], kind, reason, source, everything=everything)
    with _letterbox(config) as box:
        _require_known(box, wanted)
        if not yes:
            count = sum(1 for _ in box.letters(wanted))
            raise ConfigError([f"--yes: must be given to drop {counted(count, 'dead letter')} for good, was not"])
        typer.echo(f"{counted(box.discard(wanted), 'dead letter')} dropped")


@outputs.command()
def test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the output, as the configuration has it.")],
    config: ConfigFile,
) -> None:
    """Send a signed stayline.test.ping to an output; say what came of it."""
    from dataflows.clock import now_ms
    from dataflows.commands.ping import ping
    from dataflows.config import resolve_output_secrets
    from dataflows.config.treatments import treatments
    from dataflows.destinations import output_of

    loaded = _loaded(config)
    one = next((each for each in loaded.output if each.name == name), None)
    if one is None:
        raise ConfigError([_no_output(name, loaded)])
    secrets = resolve_output_secrets(loaded, name, os.environ)
    shape = treatments(loaded, secrets.routing_keys, name)[name].shape
    found = ping(output_of(one, secrets, shape), loaded.deployment.name, now_ms)
    typer.echo(f"{name}: {found.words} ({found.latency_ms:,.0f} ms)")
    typer.echo(f"found: {found.answer}")
    if not found.taken:
        raise typer.Exit(1)


@outputs.command()
def enable(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the output, as the configuration has it.")],
    config: ConfigFile,
) -> None:
    """Let an output begin again that is paused, or that its receiver disabled (410)."""
    from dataflows.clock import now_ms
    from sinks.outbox import Outbox

    loaded = _loaded(config)
    backlogs = {each.name: each.backlog_max for each in loaded.output}
    path = loaded.state.directory / "outbox.sqlite3"
    if name not in backlogs:
        raise ConfigError([_no_output(name, loaded)])
    if not path.exists():
        raise StateError(f"{path}: must be the outbox of a deployment, and there is none")
    with closing(Outbox.open(path, backlogs, now_ms)) as outbox:
        before = outbox.stats().outputs[name]
        outbox.enable(name)
    typer.echo(f"{name}: was {before.breaker}, now sends again; {counted(before.pending, 'notification')} waiting")


def _loaded(config: Path) -> "Config":
    from dataflows.config import load

    return load(config, os.environ)


@state.command()
def verify(config: ConfigFile) -> None:
    """Read every checkpoint that a run may resume from; hold its digests and counts against what is there."""
    from dataflows.commands.state import lines
    from dataflows.commands.state import verify as execute

    for line in lines(execute(_loaded(config))):
        typer.echo(line)


@state.command()
def compact(config: ConfigFile) -> None:
    """Make one file of what the oldest checkpoint needs, and delete the rest, while the deployment is stopped."""
    from dataflows.commands.state import compact as execute
    from dataflows.commands.state import lines

    for line in lines(execute(_loaded(config))):
        typer.echo(line)


@state.command()
def export(config: ConfigFile) -> None:
    """Print how each customer stands, as lines of JSON; by their keys, and tokens where a case is open."""
    from dataflows.commands.state import export as execute

    for line in execute(_loaded(config)):
        typer.echo(line, nl=False)


@state.command()
def repartition(config: ConfigFile) -> None:
    """Divide the states among the partitions that were added to the topics, while the deployment is stopped."""
    from functools import partial

    from dataflows.commands.repartition import repartition as execute
    from dataflows.config import format_options, resolve_token_key
    from schemas.formats import open_format

    loaded = _loaded(config)
    opened = partial(open_format, loaded.input.format, format_options(loaded, resolve_token_key(loaded, os.environ)))
    done = execute(loaded, _reached(loaded), None if loaded.input.format == "stayline" else opened)
    typer.echo(f"{done.before} states divided among {done.after} partitions")


def _no_output(name: str, loaded: "Config") -> str:
    names = ", ".join(each.name for each in loaded.output) or "none"
    return f"{name}: must be the name of an output ({names}), was not"


@contextmanager
def _letterbox(config: Path) -> Iterator["Letterbox"]:
    from dataflows.clock import now_ms
    from dataflows.commands.letterbox import Letterbox

    loaded = _loaded(config)
    events = loaded.input.format in {"stayline", "arrow"}  # rows of Arrow lie among dead letters as events

    def write_back(letters: "Sequence[DeadLetter]") -> None:
        from dataflows.commands.rewriting import rewrite

        rewrite(_reached(loaded), letters, whole=loaded.input.format != "stayline")

    read_again = None if events else partial(_read_again, loaded)
    given = write_back if loaded.input.apart else None
    with closing(Letterbox(loaded.state.directory, read_again, now_ms, given)) as box:
        yield box


def _read_again(loaded: "Config", places: "Collection[str]", report: "Callable[[int], None]") -> "Mapping[str, Found]":
    """Read vendors' records again; keys and passwords are asked for here alone: a list needs none."""
    from dataflows.commands.again import in_files, in_topics
    from dataflows.config import format_options, resolve_token_key
    from dataflows.inputs.folder import files_of
    from schemas.formats import open_format

    given = loaded.input
    opener = partial(open_format, given.format, format_options(loaded, resolve_token_key(loaded, os.environ)))
    if given.kind == "kafka":
        return in_topics(_reached(loaded), places, opener)
    return in_files(files_of(given.file.paths), places, opener, report)


def _reached(loaded: "Config") -> dict[str, str]:
    """Return how the input's brokers are reached."""
    from dataflows.config import resolve_input_password
    from dataflows.inputs.kafka_client import connection

    given = loaded.input.kafka
    return {} if given is None else connection(given, resolve_input_password(loaded, os.environ))


def _wanted(ids: list[str], kind: str | None, reason: str | None, source: str | None) -> "Wanted":
    from dataflows.commands.letterbox import REASONS, Wanted

    problems = []
    if kind not in {None, "record", "delivery"}:
        problems.append(f"--kind: must be record or delivery, was {kind}")
    if reason is not None and reason not in REASONS:
        problems.append(f"--reason: must be one of {', '.join(sorted(REASONS))}, was {reason}")
    if problems:
        raise ConfigError(problems)
    return Wanted(frozenset(ids), kind, source, reason)


def _chosen(ids: list[str], kind: str | None, reason: str | None, source: str | None, *, everything: bool) -> "Wanted":
    """Return which ones are meant; nobody means all of them by saying nothing."""
    wanted = _wanted(ids, kind, reason, source)
    if not (ids or kind or reason or source or everything):
        raise ConfigError(["ID...: must be given, or --kind, --reason, --source or --all; none was"])
    if ids and everything:
        raise ConfigError(["--all: must not be given with ids, was"])
    return wanted


def _require_known(box: "Letterbox", wanted: "Wanted") -> None:
    if wanted.ids:
        unknown = sorted(wanted.ids - {letter.id for letter in box.letters(wanted)})
        if unknown:
            raise DeliveryError(f"{', '.join(unknown)}: must be ids of dead letters of that sort, are none (any more)")


def _line(letter: "Letter") -> str:
    return f"{letter.id:<29} {letter.source:<12} {letter.reason:<14} {letter.at:<28} {letter.detail}"
