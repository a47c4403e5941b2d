"""`stayline state repartition`: the states of partitions, divided among a multiple of them.

Where a topic has so many times as many partitions, the customers of one partition are in those partitions from then on
whose number leaves the same rest: each of these begins with a copy of its state. The partition itself goes on last, so
that a command which was killed can be given again.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Message

from dataflows.checkpoints import Checkpoints, sole_user
from dataflows.checkpoints.engines import keep, resume
from dataflows.config import engine_settings
from dataflows.config.business import catalogue_of
from dataflows.config.settings import Config
from dataflows.inputs.chunks import Chunk, decoded
from dataflows.inputs.kafka import fours, name_of
from dataflows.inputs.kafka_client import Partition, Tail
from dataflows.inputs.messages import Messages, Origin, Taken, converted, joined, place_of
from dataflows.inputs.spreading import Spread, spread_of
from dataflows.shards import LAYOUT, Commit, folder_of, numbers_in, partitions_folder, read_commit, write_commit
from detectors.engine import RiskEngine
from detectors.splitting import split
from schemas.decode import Decoder
from schemas.errors import ConfigError, StateError
from schemas.formats import Format

LOOKED_AT = 1_000
"""So many messages of each new partition are looked at, to see how customers are spread."""


class Seen(NamedTuple):
    """A record of a customer, and where it stands on a topic."""

    customer: str
    origin: Origin


class Divided(NamedTuple):
    """How many states there were, and are."""

    before: int
    after: int


def repartition(
    config: Config,
    reached: Mapping[str, str],
    open_format: Callable[[], Format] | None = None,
) -> Divided:
    """Divide the states of a stopped deployment among the partitions that its topics have by now.

    Args:
        config: of one process; its folder must hold the states of all.
        reached: how the brokers are reached (see `kafka_client.connection`).
        open_format: see `KafkaReader`.

    Raises:
        ConfigError: the deployment keeps no partitions apart.
        StateError: a process runs, a state is missing or damaged, or something is still to be read in an old partition
            of a customer who is in a new one from now on.
        InputError: the topics cannot be read.
    """
    folder, given = partitions_folder(config), config.input.kafka
    if given is None or not config.input.apart:
        raise ConfigError(
            ['input.kafka.partitions: must be of states that are kept apart, was "all", or there is none']
        )
    with contextlib.ExitStack() as stack:
        commits = {number: stack.enter_context(_held(folder_of(folder, number))) for number in numbers_in(folder)}
        before = min((one.partitions for one in commits.values() if one is not None), default=0)
        old = {number: one for number, one in commits.items() if one is not None and one.partitions == before}
        missing = [number for number in range(before) if commits.get(number) is None]
        if missing or not before:
            raise StateError(f"{folder}: must hold the states of all partitions, holds none of {missing or 'them'}")
        tail = stack.enter_context(contextlib.closing(Tail(reached, given.topics)))
        after = tail.partitions()
        if after <= before or after % before:
            raise StateError(
                f"{folder}: must be of fewer partitions than the topic has, a part: is of {before}, it has {after}"
            )
        for number in set(range(after)) - commits.keys():
            stack.enter_context(sole_user(folder_of(folder, number)))
        engine = RiskEngine(engine_settings(config), catalogue_of(config.remedies))
        task = _Task(folder, before, after, engine)
        names = {name_of(topic): topic for topic in given.topics}
        fresh = {(topic, number): 0 for topic in given.topics for number in range(before, after)}
        found = {(one.customer, one.origin[1], after) for one in _seen(tail.read(fresh, LOOKED_AT), open_format)}
        spread = spread_of(found | {(customer, number, before) for customer, number in task.known(old)}, after)
        _require_read(_seen(tail.read(_ends(old, names)), open_format), spread, after)
        for number in sorted(old):
            task.divide(number, old[number], spread)
    return Divided(before, after)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[Commit | None]:
    with sole_user(folder):
        yield read_commit(folder)


def _seen(messages_in_turn: Iterable[list[Message]], open_format: Callable[[], Format] | None) -> Iterator[Seen]:
    """Give the customers that messages are about."""
    decoder = Decoder()
    for messages in messages_in_turn:
        taken = Taken()
        taken.add(messages)
        chunks = [joined(taken.values, taken)] if open_format is None else converted(taken.values, taken, open_format)
        for chunk in chunks:
            for customer, position in _customers(decoder, chunk):
                if customer:
                    yield Seen(customer, taken[position])


def _customers(decoder: Decoder, chunk: Chunk) -> Iterator[tuple[str, int]]:
    """Give the customers of a chunk, each with the place of its message in the poll."""
    batch, _ = decoded(decoder, chunk)
    if not isinstance(chunk, Messages):
        return
    for columns in (batch.calls, batch.media, batch.links):
        for row in range(len(columns)):
            yield columns.customer_id[row], chunk.positions[int(columns.position[row])]
    for position, event in batch.business:
        yield getattr(event, "customer_id", None) or "", chunk.positions[position]


def _ends(old: dict[int, Commit], names: dict[int, str]) -> dict[Partition, int]:
    places = [four for one in old.values() for four in fours(one.place)]
    return {(names[name], number): at for name, _, number, at in places if name in names}


def _require_read(seen: Iterable[Seen], spread: Spread, after: int) -> None:
    moved = [one for one in seen if spread(one.customer.encode(), after) != one.origin[1]]
    if moved:
        at = place_of(*moved[0].origin)
        rule = "must be read before its customer is known elsewhere, was not"
        raise StateError(f"{at}: {rule}, nor were {len(moved) - 1} more: run the deployment until it has caught up")


class _Task(NamedTuple):
    folder: Path
    before: int
    after: int
    engine: RiskEngine

    def known(self, old: dict[int, Commit]) -> Iterator[tuple[str, int]]:
        """Give the customers that the states know by name, and of which partition."""
        for number, commit in old.items():
            self._resume(number, commit)
            book = self.engine.memory.casebook
            yield from ((case.customer_id, number) for case in (*book.cases.values(), *book.closed.values()))

    def divide(self, number: int, commit: Commit, spread: Spread) -> None:
        """Divide one state; what it was stays until all other parts of it are durable."""
        for part in [*range(number + self.before, self.after, self.before), number]:
            checkpoints = self._resume(number, commit)
            place = commit.place

            def owns(customer: str, part: int = part) -> bool:
                return spread(customer.encode(), self.after) == part

            split(self.engine, owns, first=part == number)
            home = folder_of(self.folder, part)
            if part != number:
                checkpoints, place = Checkpoints(home / "engine"), self._begin(place, part)
            name = keep(self.engine, {}, checkpoints)
            checkpoints.settle()
            write_commit(home, Commit(LAYOUT, name, self.after, place))

    def _resume(self, number: int, commit: Commit) -> Checkpoints:
        checkpoints = Checkpoints(folder_of(self.folder, number) / "engine")
        resume(self.engine, checkpoints, commit.snapshot)
        return checkpoints

    @staticmethod
    def _begin(place: tuple[int, ...], number: int) -> tuple[int, ...]:
        """Return where a partition that is new begins to be read."""
        return tuple(one for name, mark, _, _ in fours(place) for one in (name, mark, number, 0))
