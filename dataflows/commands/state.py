"""`stayline state`: whether what is kept is whole, how much there is of it, and what it says of each customer."""

from collections.abc import Iterator
from pathlib import Path

import orjson
from msgspec import Struct

from dataflows.checkpoints import Checkpoints, sole_user
from dataflows.checkpoints.engines import resume, rewrite
from dataflows.config import engine_settings
from dataflows.config.settings import Config
from dataflows.shards import snapshot_folders
from dataflows.wording import counted
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.standing import standings
from schemas.errors import StateError


class Holding(Struct, frozen=True):
    """What one folder of checkpoints holds.

    Attributes:
        folder: where it lies.
        checkpoint: name of the newest; empty: there is none.
        files, bytes_: of all that are kept.
        counts: of each sort of thing, how many the newest knows.
    """

    folder: Path
    checkpoint: str
    files: int
    bytes_: int
    counts: dict[str, int]


def verify(config: Config) -> list[Holding]:
    """Read every checkpoint that a run may resume from, and hold its digests and counts against what is there.

    Args:
        config: of the deployment; it may be running.

    Raises:
        StateError: there is none, or one is damaged, incomplete, or of another deployment or version.
    """
    return [_verified(config, folder) for folder in _folders(config)]


def _verified(config: Config, folder: Path) -> Holding:
    checkpoints = Checkpoints(folder)
    versions = checkpoints.versions()
    engine = _engine(config)
    for name in versions:
        resume(engine, checkpoints, name)
    sizes = [path.stat().st_size for path in folder.glob("[0-9]*.state")]
    return Holding(folder, versions[-1] if versions else "", len(sizes), sum(sizes), engine.memory.sizes())


def compact(config: Config) -> list[Holding]:
    """Write the oldest checkpoint that a run may resume from as one file, and delete those before it.

    Raises:
        StateError: there is none, it is damaged, or a deployment is running on it.
    """
    folders = _folders(config)
    for folder in folders:
        with sole_user(folder.parent):
            checkpoints, engine = Checkpoints(folder), _engine(config)
            for name in checkpoints.versions()[:1]:
                places = resume(engine, checkpoints, name)
                rewrite(engine, places, checkpoints, name)
                checkpoints.drop_before(name)
    return [_verified(config, folder) for folder in folders]


def export(config: Config) -> Iterator[bytes]:
    """Give how each customer stands by the newest checkpoint, as lines of JSON; customers by their keys and tokens.

    Raises:
        StateError: there is none, or it is damaged.
    """
    for folder in _folders(config):
        checkpoints, engine = Checkpoints(folder), _engine(config)
        newest = checkpoints.newest()
        if newest is not None:
            resume(engine, checkpoints, checkpoints.usable(newest))
            yield from (orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in standings(engine.memory))


def _folders(config: Config) -> list[Path]:
    folders = [folder for folder in snapshot_folders(config) if Checkpoints(folder).newest() is not None]
    if not folders:
        raise StateError(f"{config.state.directory}: must hold a checkpoint of a run, held none")
    return folders


def _engine(config: Config) -> RiskEngine:
    return RiskEngine(engine_settings(config), Catalogue.load(default_catalogue_text()))


def lines(holdings: list[Holding]) -> Iterator[str]:
    """Say what there is, in lines for a terminal."""
    for one in holdings:
        yield f"{one.folder}: {one.checkpoint}, whole, in {counted(one.files, 'file')} of {one.bytes_ / 1e6:,.1f} MB"
        yield "  " + ", ".join(f"{count:,} {sort}" for sort, count in one.counts.items())
