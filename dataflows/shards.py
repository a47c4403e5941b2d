"""Partitions kept apart: an engine each, whose state lies on disk beside the place that it was made up to.

What one partition leads to follows from that partition alone: in what company it is read, by how many processes, and
where its messages meet those of others, has no influence. So any process can go on with it, and changing the number of
processes is stopping them and starting others.

A state and its place are one file's matter (`commit`), written behind everything that the state has told. The flow's
own checkpoints, which belong to one process and all that it reads, are not needed then.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from dataflows.checkpoints import Checkpoints, sole_user
from dataflows.checkpoints.engines import keep, resume
from dataflows.config.kinds import Share, owns
from dataflows.config.settings import Config
from dataflows.deadletters import DeadLetterFile
from dataflows.durable import replaced
from dataflows.families import gauge
from dataflows.flow import KEY, Input, Keeping, OpenInput, Output, Part, Passed, Stop
from dataflows.inputs.chunks import decoded
from dataflows.inputs.messages import SPREAD_ANEW, Shard, Sharded
from dataflows.meters import Meters
from detectors.engine import RiskEngine
from schemas.alerts import Notification
from schemas.decode import Decoder
from schemas.errors import StateError

LAYOUT = 1


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a partition's state is.

    Attributes:
        layout: of this file.
        snapshot: name of the engine's snapshot.
        partitions: how many the topic had.
        place: where reading goes on behind what the state was made of.
    """

    layout: int
    snapshot: str
    partitions: int
    place: tuple[int, ...]


class _Held:
    """One partition in this process: its engine, its files, and the lock on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = contextlib.ExitStack()
        self.lock.enter_context(sole_user(folder))
        self.snapshots = Checkpoints(folder / "engine")
        self.engine: RiskEngine | None = None
        self.shard: Shard | None = None
        self.changed = False

    def commit(self, shard: Shard, snapshot: str) -> None:
        """Say that a checkpoint is this partition's state."""
        write_commit(self.folder, Commit(LAYOUT, snapshot, shard.partitions, shard.place))


class Shards(Collector):
    """The partitions of this process.

    Args:
        folder: holds the states of all partitions, those of other processes too.
        partitions: which of them belong to this process.
        make: makes a fresh engine for one of so many partitions.
    """

    def __init__(self, folder: Path, partitions: tuple[int, ...] | Share, make: Callable[[int], RiskEngine]) -> None:
        self._folder = folder
        self._partitions = partitions
        self._make = make
        self._held: dict[int, _Held] = {}

    def __iter__(self) -> Iterator[RiskEngine]:
        """Give the engines of the partitions that this process holds."""
        return iter([one.engine for one in list(self._held.values()) if one.engine is not None])

    def collect(self) -> Iterator[Metric]:
        """Give how far each partition has come: its events' time is its own."""
        engines = {number: one.engine for number, one in list(self._held.items())}
        newest_ms = {str(number): one.clock_ms for number, one in engines.items() if one is not None}
        come = {number: at_ms / 1000.0 for number, at_ms in newest_ms.items() if at_ms >= 0}
        text = "Newest event time seen in a partition that is kept apart, Unix seconds."
        yield gauge("stayline_partition_event_time_seconds", text, come, "partition")

    def open(self) -> tuple[int, ...]:
        """Take over the states that are there; return the places to read from.

        Raises:
            StateError: another process holds one, or it cannot be read.
        """
        place: list[int] = []
        for number in numbers_in(self._folder):
            if owns(self._partitions, number):
                held = self._hold(number)
                commit = read_commit(held.folder)
                if commit is not None:
                    held.engine = self._make(commit.partitions)
                    resume(held.engine, held.snapshots, commit.snapshot)
                    held.shard = Shard(number, commit.partitions, commit.place)
                    place += commit.place
        return tuple(place)

    def engine(self, shard: Shard) -> RiskEngine:
        """Return the engine that a partition's records are for, and take note of where they end.

        Raises:
            StateError: another process holds it, or the state was made when there were more or fewer partitions.
        """
        held = self._held.get(shard.number) or self._hold(shard.number)
        if held.shard is not None and held.shard.partitions != shard.partitions:
            found = f"one of {shard.partitions} partitions, is of one of {held.shard.partitions}"
            raise StateError(f"{held.folder}: must be the state of {found}: {SPREAD_ANEW}")
        held.engine = held.engine or self._make(shard.partitions)
        held.changed = held.changed or shard != held.shard
        held.shard = shard
        return held.engine

    def save(self) -> None:
        """Begin to make durable what has changed; all that it has told must be durable before.

        Raises:
            StateError: what was begun the last time could not be written.
        """
        for held in self._held.values():
            if held.changed and held.engine is not None and held.shard is not None:
                keep(held.engine, {}, held.snapshots, partial(held.commit, held.shard))
                held.changed = False

    def settle(self) -> None:
        """Wait until what was begun is durable.

        Raises:
            StateError: it cannot be written.
        """
        for held in self._held.values():
            held.snapshots.settle()

    def close(self) -> None:
        """Let other processes have the partitions."""
        for held in self._held.values():
            held.lock.close()

    def _hold(self, number: int) -> _Held:
        held = self._held[number] = _Held(folder_of(self._folder, number))
        return held


def partitions_folder(config: Config) -> Path:
    """Return the folder that holds the states of a deployment's partitions."""
    return config.state.directory if config.state.shared_directory is None else config.state.shared_directory


def parted(config: Config) -> int | None:
    """Return of how many partitions a deployment's states are; None if there are none.

    Raises:
        StateError: one cannot be read.
    """
    folder = partitions_folder(config)
    commits = [read_commit(folder_of(folder, number)) for number in numbers_in(folder)]
    return min((commit.partitions for commit in commits if commit is not None), default=None)


def snapshot_folders(config: Config) -> list[Path]:
    """Return the folders with the snapshots of a deployment's engines."""
    folder = partitions_folder(config)
    numbers = numbers_in(folder)
    if not numbers:
        return [config.state.directory / "engine"]
    return [folder_of(folder, number) / "engine" for number in numbers]


def folder_of(folder: Path, number: int) -> Path:
    """Return where the state of one partition lies."""
    return folder / "partitions" / f"{number:06d}"


def numbers_in(folder: Path) -> list[int]:
    """Return the numbers of the partitions that have a state."""
    return sorted(int(path.name) for path in (folder / "partitions").glob("[0-9]*"))


def read_commit(folder: Path) -> Commit | None:
    """Return what a partition's state is; None if there is none yet.

    Raises:
        StateError: it cannot be read, is damaged, or is of another version of this program.
    """
    path = folder / "commit"
    try:
        commit = msgspec.json.decode(path.read_bytes(), type=Commit)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: must be readable, was not: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise StateError(f"{path}: must say what the state is, did not: another version, or damaged: {error}") from None
    if commit.layout != LAYOUT:
        raise StateError(f"{path}: must be of layout {LAYOUT}, was of {commit.layout}")
    return commit


def write_commit(folder: Path, commit: Commit) -> None:
    """Say durably what a partition's state is.

    Raises:
        StateError: it cannot be written.
    """
    path = folder / "commit"
    try:
        with replaced(path) as stream:
            stream.write(msgspec.json.encode(commit))
    except OSError as error:
        raise StateError(f"{path}: must be writable, was not: {error.strerror}") from None


def build(
    open_input: OpenInput,
    shards: Shards,
    write_notifications: Callable[[Sequence[Notification]], None],
    letters: DeadLetterFile,
    stop: Stop,
    meters: Meters,
    committed: Passed = lambda _: None,
) -> Dataflow:
    """Describe the flow over partitions that are kept apart: read, then all the rest in one step, in order.

    Args:
        open_input: opens the input at a place; gives `Sharded`.
        shards: the partitions' engines.
        write_notifications: makes a list durable, then returns.
        letters: where records go that could not be taken.
        stop: ends the flow early.
        meters: what counts and times it.
        committed: is told a place that the states on disk have passed.
    """
    decoder = Decoder()

    def opened(_: object) -> Iterator[Any]:
        for read in open_input(shards.open()):
            if read is not None:
                meters.read(sum(len(cast("Sharded", part).chunks) for part in read.chunks))
            yield read

    def work(part: Sharded) -> None:
        engine = shards.engine(part.shard)
        for chunk in part.chunks:
            begun_s = meters.now_s()
            batch, dead = decoded(decoder, chunk)
            meters.decoded(begun_s, dead)
            if dead:
                letters.append(dead)
            begun_s = meters.now_s()
            told = engine.apply(batch)
            meters.applied(begun_s, batch, told)
            engine.gather()
            if told:
                write_notifications(told)
                meters.written(told)

    def save() -> None:
        begun_s = meters.now_s()
        letters.sync()
        shards.save()
        meters.saved(begun_s)

    flow = Dataflow("stayline")
    source: Any = Input({KEY: Part(opened, committed=committed)}, stop, Keeping())
    parts = op.filter_map("parts", op.input("input", flow, source), lambda item: item.chunk)
    op.output("shards", op.map("key", parts, lambda part: (KEY, part)), Output(work, save))
    return flow
