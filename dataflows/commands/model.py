"""`stayline model`: what was learnt, as a page; taken out of one deployment and put into another."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, as in `dataflows.cli`

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataflows.wording import counted
from schemas.errors import ConfigError, StateError

if TYPE_CHECKING:
    from dataflows.config import Config
    from detectors.engine import RiskEngine

model = typer.Typer(help="What was learnt of who leaves and what helps.", no_args_is_help=True, rich_markup_mode=None)

ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration, a TOML file.")]

LAYOUT = "stayline-model/1"


@model.command("report")
def report(
    config: ConfigFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The page: HTML, whole in itself.")],
) -> None:
    """Write how good the model is, what it learnt of remedies and partners, and what the log says of other policies."""
    from dataflows.commands.model_page import page

    engines, name = _engines(config)
    out.write_text(page(name, engines), encoding="utf-8")
    typer.echo(f"written: {out}")


@model.command("export")
def export(
    config: ConfigFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON: numbers and names of features, of nobody.")],
) -> None:
    """Write the state of the churn models and the bandit: to be kept, looked at, or imported elsewhere."""
    import msgspec

    engines, _ = _engines(config)
    if len(engines) > 1:
        raise ConfigError(
            [f"model export: must be one engine, and {config} keeps {len(engines)}: each partition learns its own"]
        )
    advisor = engines[0].memory.advisor
    state = {"layout": LAYOUT, "churn": advisor.model.snapshot(), "uplift": advisor.chooser.bandit.snapshot()}
    out.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")
    typer.echo(f"written: {out}, {counted(advisor.model.report().labels, 'label')} learnt")


@model.command("import")
def import_(
    config: ConfigFile,
    source: Annotated[Path, typer.Argument(metavar="IN", help="What `stayline model export` wrote.")],
) -> None:
    """Put an exported state in the place of what a stopped deployment has learnt; customers and cases stay."""
    from dataflows.checkpoints import Checkpoints, sole_user
    from dataflows.checkpoints.engines import resume, rewrite
    from dataflows.config import load
    from dataflows.shards import snapshot_folders

    loaded = load(config, os.environ)
    state = _read(source)
    with sole_user(loaded.state.directory):
        folders = [(folder, Checkpoints(folder)) for folder in snapshot_folders(loaded)]
        if not any(checkpoints.newest() for _, checkpoints in folders):
            raise StateError(f"{loaded.state.directory}: must hold a checkpoint of a run, held none")
        for folder, checkpoints in folders:
            # The newest first: what is written anew is whole, and those before it need nothing that comes after them.
            for name in reversed(checkpoints.versions()):
                engine = _engine(loaded)
                places = resume(engine, checkpoints, name)
                _take(state, engine, source)
                rewrite(engine, places, checkpoints, name)
            typer.echo(f"imported into {folder}")


def _take(state: dict[str, Any], engine: "RiskEngine", source: Path) -> None:
    advisor = engine.memory.advisor
    try:
        advisor.model.restore(state["churn"])
        advisor.chooser.bandit.restore(state["uplift"])
    except (AttributeError, TypeError, ValueError) as error:
        raise StateError(f"{source}: must hold what an export holds: {error}") from None


def _read(source: Path) -> dict[str, Any]:
    import msgspec

    try:
        state = msgspec.json.decode(source.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigError([f"{source}: must be a file that can be read, was not: {error.strerror}"]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{source}: must be what `stayline model export` wrote, was not: {error}"]) from None
    if state.get("layout") != LAYOUT or not {"churn", "uplift"} <= state.keys():
        raise ConfigError([f"{source}: must be of layout {LAYOUT}, was of {state.get('layout')!r}"])
    return state


def _engines(config: Path) -> "tuple[list[RiskEngine], str]":
    """Return every engine of a deployment as its newest checkpoint has it, and the deployment's name."""
    from dataflows.checkpoints import Checkpoints
    from dataflows.checkpoints.engines import resume
    from dataflows.config import load
    from dataflows.shards import snapshot_folders

    loaded = load(config, os.environ)
    found = []
    for folder in snapshot_folders(loaded):
        checkpoints = Checkpoints(folder)
        newest = checkpoints.newest()
        if newest is not None:
            engine = _engine(loaded)
            resume(engine, checkpoints, checkpoints.usable(newest))
            found.append(engine)
    if not found:
        raise StateError(f"{loaded.state.directory}: must hold a checkpoint of a run, held none")
    return found, loaded.deployment.name


def _engine(loaded: "Config") -> "RiskEngine":
    from dataflows.config import engine_settings
    from dataflows.config.business import catalogue_of
    from detectors.engine import RiskEngine

    return RiskEngine(engine_settings(loaded), catalogue_of(loaded.remedies))
