"""The one program: `stayline`.

Exit codes: 0 done; 1 a failure at run time, in one line; 2 arguments or configuration that do not hold, with every
problem on a line of its own. What a command needs is imported when it runs, so that `--help` answers at once.
"""
# ruff: noqa: PLC0415 - see above

import os
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dataflows.commands.model import model
from dataflows.commands.operator import dead_letters, outputs, state
from dataflows.wording import counted
from schemas.errors import ConfigError, StaylineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataflows.config import Config
    from schemas.formats import Format

app = typer.Typer(
    name="stayline",
    help="Finds the customers whose calls have turned bad, and says what to do about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes and colours are for people: a pipe gets plain text.
    rich_markup_mode="markdown" if sys.stdout.isatty() else None,
)

app.add_typer(dead_letters, name="dead-letters")
app.add_typer(outputs, name="outputs")
app.add_typer(state, name="state")
app.add_typer(model, name="model")

ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration, a TOML file.")]
MaybeConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="The configuration; without it, the defaults.")
]
FormatName = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="What the input is written in, instead of input.format."),
]


def main() -> NoReturn:
    """Run the program and end the process."""
    try:
        app()
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(f"stayline: {problem}", err=True)
        sys.exit(2)
    except StaylineError as error:
        typer.echo(f"stayline: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        typer.echo(f"stayline: {place}{error if error.strerror is None else error.strerror}", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - nobody at a prompt is helped by a traceback
        typer.echo(f"stayline: {type(error).__name__} at {_place(error)}: {error}", err=True)
        sys.exit(1)
    sys.exit(0)


def _place(error: BaseException) -> str:
    """Return where an error that nobody expected was raised: what a report of it needs."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "start" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer's callback
    if wanted:
        from importlib.metadata import version

        typer.echo(f"stayline {version('stayline')}")
        raise typer.Exit


@app.callback()
def _program(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo() -> None:
    """Show everything on a small telco, live."""
    from dataflows.commands.demo import demo as show

    show()


@app.command()
def run(config: ConfigFile) -> None:
    """Run the deployment."""
    from dataflows.logs import log
    from schemas.kernels import cold

    # Before anything else is imported: some of it compiles then.
    if cold("detectors"):
        log("run.compiling", detail="a first start compiles for a minute or two; records wait meanwhile")
    from dataflows.config import load, runnable

    loaded = load(config, os.environ)
    _refuse(runnable(loaded))
    from dataflows.run import run as execute

    execute(loaded)


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recorded events; .gz and .zst too.")],
    alerts: Annotated[Path, typer.Option(metavar="OUT", help="Where notifications go, in event-time order.")],
    dead_letters: Annotated[Path | None, typer.Option(metavar="OUT", help="Where broken records go.")] = None,
    config: MaybeConfigFile = None,
    format_name: FormatName = None,
    chunk_bytes: Annotated[
        int, typer.Option(metavar="N", min=1, max=1 << 28, help="Read so much at a time; the result is the same.")
    ] = 1 << 20,
) -> None:
    """Run recorded events through the dataflow."""
    _tell_if_cold("detectors")
    outs = [alerts] if dead_letters is None else [alerts, dead_letters]
    loaded, opener = _prepared(config, format_name, files, different=[*dict.fromkeys(files), *outs])
    from dataflows.commands.progress import progress
    from dataflows.commands.replay import replay as execute
    from dataflows.config import engine_settings
    from dataflows.config.business import catalogue_of

    catalogue = catalogue_of(loaded.remedies)

    with progress("replay", sum(path.stat().st_size for path in files), "bytes") as report:
        counts = execute(
            files,
            alerts,
            engine_settings(loaded),
            catalogue,
            dead_letters=dead_letters,
            open_format=opener,
            chunk_bytes=chunk_bytes,
            report=report,
        )
    typer.echo(
        f"{counted(counts.applied, 'record')} applied, {counts.duplicate:,} duplicate, {counts.late:,} late, "
        f"{counted(counts.dead_lettered, 'dead letter')}; notifications in {alerts}"
    )


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where events.ndjson and truth.ndjson go.")],
    customers: Annotated[int | None, typer.Option(metavar="N", help="How many customers.")] = None,
    days: Annotated[int | None, typer.Option(metavar="D", help="How many days.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Of everything random.")] = None,
) -> None:
    """Simulate a telco: events, and the truth."""
    from bench.simulator import TelcoSpec
    from bench.simulator import simulate as execute
    from dataflows.commands.progress import progress

    given = {"customers": customers, "days": days, "seed": seed}
    spec = TelcoSpec(**{name: value for name, value in given.items() if value is not None})
    with progress("simulate", spec.days, "days") as report:
        summary = execute(spec, out, lambda done, _: report(done))
    typer.echo(
        f"{counted(summary.events, 'event')} of {counted(summary.calls, 'call')} in {summary.events_path}; "
        f"{counted(summary.faults, 'fault')} and {counted(summary.outages, 'outage')} in {summary.truth_path}"
    )


@app.command()
def score(
    alerts: Annotated[Path, typer.Argument(metavar="ALERTS", help="Notifications, as replay writes them.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="The truth, with its events.ndjson beside it.")],
) -> None:
    """Grade alerts against a simulation's truth."""
    _refuse(_unreadable([alerts, truth]))
    from rich.console import Console

    from bench.score import render
    from bench.score import score as grade

    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(render(grade(alerts, truth)))


@app.command()
def bench(
    cases: Annotated[
        list[str], typer.Argument(metavar="CASE...", help="What to measure: throughput, or single cases.")
    ],
    customers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Customers of the telco whose events are read.")
    ] = 5_000,
    days: Annotated[int, typer.Option(metavar="D", min=1, help="Days of it.")] = 7,
    rounds: Annotated[int, typer.Option(metavar="R", min=1, help="How often each work is timed.")] = 5,
    residents: Annotated[
        str, typer.Option(metavar="N,N...", help="Numbers of customers to grow to.")
    ] = "10000,100000,1000000",
    offered: Annotated[str, typer.Option(metavar="N,N...", help="Events a second, for the latency.")] = "10000,50000",
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of churn: a CSV file, one customer a row.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of churn: says who left.")] = None,
    identity: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Of churn: names the customer.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where text, raw lines and pictures go as well.")
    ] = None,
) -> None:
    """Measure, with the conditions beside the figures."""
    lists = {"residents": residents, "offered": offered}
    _refuse(
        [
            f"--{name}: must be numbers above 0 separated by commas, was {given}"
            for name, given in lists.items()
            if not all(number.isdecimal() and int(number) > 0 for number in given.split(","))
        ]
    )
    from bench.cases import Options
    from bench.cases import run as execute

    sizes, rates = (tuple(map(int, given.split(","))) for given in lists.values())
    options = Options(
        customers=customers,
        days=days,
        rounds=rounds,
        residents=sizes,
        offered=rates,
        table=None if table is None else str(table),
        label=label,
        identity=identity,
    )
    execute(cases, options, typer.echo, out)


@app.command()
def convert(
    sources: Annotated[
        list[Path], typer.Argument(metavar="IN...", help="The vendor's files, in order; .gz and .zst too.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Events, one a line; .gz and .zst too.")],
    format_name: FormatName = None,
    config: MaybeConfigFile = None,
    dead_letters: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where broken records go; OUT.dead.ndjson if not given.")
    ] = None,
    *,
    by_time: Annotated[
        bool, typer.Option("--by-time", help="Write events in order of time: for files that lie account by account.")
    ] = False,
) -> None:
    """Turn a vendor's records into events."""
    letters = out.with_name(f"{out.name}.dead.ndjson") if dead_letters is None else dead_letters
    _, opener = _prepared(config, format_name, sources, different=[*dict.fromkeys(sources), out, letters])
    if opener is None:
        raise ConfigError(["--format: must name a vendor's format, as the input must not be events already"])
    from dataflows.commands.convert import convert as execute
    from dataflows.commands.progress import progress

    plain = all(source.is_file() for source in sources)
    total_bytes = sum(source.stat().st_size for source in sources) if plain else None
    with progress("convert", total_bytes, "bytes") as report:
        counts = execute(sources, out, letters, opener, report, by_time=by_time)
    typer.echo(
        f"{counted(counts.records, 'record')} read: {counted(counts.events, 'event')} in {out}, "
        f"{counted(counts.rejected, 'dead letter')} in {letters}"
    )


@app.command()
def formats() -> None:
    """List the vendor formats: what each gives and cannot give."""
    from schemas.formats import described

    for name, gives, shows, lacks in described():
        typer.echo(name)
        for title, text in (("gives", ", ".join(gives)), ("shows", ", ".join(shows)), ("lacks", lacks)):
            typer.echo(textwrap.fill(text, 116, initial_indent=f"  {title}  ", subsequent_indent=" " * 9))


@app.command()
def check(config: ConfigFile) -> None:
    """Validate and show the configuration; what it names, secrets and templates, must be there."""
    from dataflows.config import load, render, resolve_secrets, runnable
    from dataflows.config.business import catalogue_of
    from dataflows.config.problems import file_problems
    from dataflows.config.treatments import template_problems

    loaded = load(config, os.environ)
    catalogue_of(loaded.remedies)
    typer.echo(render(loaded), nl=False)
    # What is not there may never be needed: files are replayed without an output.
    for note in runnable(loaded):
        typer.echo(f"stayline: valid, and `stayline run` would need more: {note}", err=True)
    problems = template_problems(loaded)
    # The files that the input reads may come later; where alerts go must be there.
    problems += [problem for problem in file_problems(loaded) if problem.startswith("output.")]
    try:
        resolve_secrets(loaded, os.environ)
    except ConfigError as error:
        problems += error.problems
    _refuse(problems)


@app.command()
def doctor(
    config: ConfigFile,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.1, max=3_600, help="How long to read at most.")
    ] = 60.0,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Read a minute of the input: what arrives, how late, what is missing. Takes and changes nothing."""
    _tell_if_cold("schemas")
    from dataflows.commands.doctor import diagnose, told
    from dataflows.commands.progress import progress
    from dataflows.config import load, resolve_token_key

    loaded = load(config, os.environ)
    key = resolve_token_key(loaded, os.environ)
    with progress("doctor", int(seconds), "seconds") as report:
        diagnosis = diagnose(loaded, key, partial(typer.echo, err=True), seconds=seconds, report=report)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(diagnosis))
        return
    for line in told(diagnosis):
        typer.echo(line)


@app.command()
def canary(
    config: ConfigFile,
    every_s: Annotated[float, typer.Option("--every", metavar="S", min=1.0, help="Seconds between two.")] = 120.0,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=0, help="How many; 0: until Ctrl-C.")] = 0,
) -> None:
    """Put a customer who does not exist into the input, whose trouble must come out as an alert in the metrics."""
    from dataflows.clock import now_ms
    from dataflows.commands.canary import round_after_round, sender
    from dataflows.config import load, resolve_secrets

    loaded = load(config, os.environ)
    secrets = resolve_secrets(loaded, os.environ)
    try:
        round_after_round(sender(loaded, secrets.input_password), every_s, rounds, now_ms)
    except KeyboardInterrupt:
        typer.echo("canary: ended", err=True)


@app.command()
def explain(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id, as events have it.")],
    config: ConfigFile,
) -> None:
    """Show what is known of one customer."""
    from dataflows.config import load

    loaded = load(config, os.environ)
    from dataflows.commands.explain import explain as tell

    for line in tell(customer, loaded):
        typer.echo(line)


@app.command()
def forget(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id, as events have it.")],
    config: ConfigFile,
) -> None:
    """Erase what was learnt and stored about one customer."""
    from dataflows.clock import now_ms
    from dataflows.commands.forget import forget as erase
    from dataflows.commands.forget import size
    from dataflows.commands.progress import progress
    from dataflows.config import format_options, load, resolve_token_key

    loaded = load(config, os.environ)
    tokens = format_options(loaded, resolve_token_key(loaded, os.environ)).tokens
    with progress("forget", size(loaded), "bytes") as report:
        done = erase(customer, loaded, now_ms, tokens, report)
    for place, found in done.erased.items():
        typer.echo(f"erased from {place}: {found}")
    if not done.erased:
        typer.echo("nothing was known of this customer")
    typer.echo("not erased, as it is out of reach:")
    for one in done.left:
        typer.echo(f"  {one}")


def _tell_if_cold(package: str) -> None:
    """Say that a first use compiles, where that makes somebody wait."""
    from schemas.kernels import cold

    if cold(package):
        typer.echo("a first start compiles for a minute or two; the next ones do not", err=True)


def _prepared(
    config: Path | None, format_name: str | None, files: list[Path], different: list[Path] | None = None
) -> "tuple[Config, Callable[[], Format] | None]":
    """Hold all arguments of a command that reads files against their rules at once.

    Returns:
        The configuration, and what opens the input's format; None: the files hold events.

    Raises:
        ConfigError: with every problem of files and configuration.
    """
    from dataflows.config import format_options, load, resolve_token_key, with_format
    from schemas.formats import open_format

    problems = _unreadable(files) + _same(different or [])
    try:
        loaded = load(config, os.environ)
        loaded = loaded if format_name is None else with_format(loaded, format_name)
        name = loaded.input.format
        options = format_options(loaded, resolve_token_key(loaded, os.environ))
        opener = None if name == "stayline" else partial(open_format, name, options)
        if opener is not None:
            opener()  # so that it tells now what it would tell at the first file
    except ConfigError as error:
        problems += error.problems
    _refuse(problems)
    return loaded, opener


def _unreadable(files: list[Path]) -> list[str]:
    return [f"{path}: must be a file, was not" for path in files if not path.exists() or path.is_dir()]


def _same(files: list[Path]) -> list[str]:
    # A device may be named more than once: nothing of it is lost.
    places = [path.resolve() for path in files if path.is_file() or not path.exists()]
    return (
        []
        if len(set(places)) == len(places)
        else ["what is read and what is written must be different files, were not"]
    )


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError(problems)
