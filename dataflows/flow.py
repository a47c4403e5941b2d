"""The Bytewax flow: source, decode, engine, sink. `run` and `replay` are this flow with other ends.

An item of the flow is a whole chunk, so that the engine's cost per item vanishes. The state of the one stateful step
is one key; notifications leave it before the checkpoint of their epoch is taken, so a crash repeats them with equal
ids rather than losing them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from dataflows.checkpoints import KEPT, Checkpoints
from dataflows.checkpoints.engines import keep, resume
from dataflows.execution import said_in_one_line
from dataflows.inputs.chunks import Chunk, Read, decoded
from dataflows.logs import log
from dataflows.meters import Meters
from detectors.engine import RiskEngine
from schemas.alerts import Notification
from schemas.columns import EventBatch
from schemas.deadletters import DeadLetter
from schemas.decode import Decoder
from schemas.errors import StateError

IDLE = timedelta(milliseconds=50)
"""How soon a source that had nothing is asked again."""

KEY = "engine"

Place = tuple[int, ...]
OpenInput = Callable[[Place | None], Iterable[Read | None]]
"""Opens an input at a place that it gave itself; None: at its beginning."""

Passed = Callable[[Place], None]
"""Is told a place that checkpoints have passed."""

Hold = Callable[[list[Notification], Place], list[Notification]]
"""Is given what a read led to and the place where that began; returns what of it need not wait for a checkpoint."""

COMMITTED = 3
"""The place of so many snapshots ago, this one counted, is in a committed checkpoint."""


class Stop:
    """Set once somebody wants the flow to end: the batch in hand is finished, the checkpoint taken, nothing lost."""

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        """Ask the flow to end."""
        self.is_set = True


class Part(NamedTuple):
    """One of the things that a flow reads, each with a place of its own.

    Attributes:
        open_input: opens it at a place.
        passed: is told what of it no restart needs any more: none goes back behind that place.
        committed: is told a place that a checkpoint holds, soon after it was taken.
        idle: how soon it is asked again when it had nothing.
    """

    open_input: OpenInput
    passed: Passed = lambda _: None
    committed: Passed = lambda _: None
    idle: timedelta = IDLE


class _Item(NamedTuple):
    """What travels through the flow.

    Attributes:
        part: name of what was read.
        place: of the part behind this item; None: more of the same read follows.
        chunk: None where a read moved on without giving any.
    """

    part: str
    place: Place | None
    chunk: Chunk | None


class Keeping:
    """What the flow keeps, and where it goes on: the places that belong to the state it began with.

    Args:
        checkpoints: None: nothing is kept here.
    """

    def __init__(self, checkpoints: Checkpoints | None = None) -> None:
        self.checkpoints = checkpoints
        self.places: dict[str, Place] = {}
        self.is_read = False

    def resume(self, engine: RiskEngine, name: str) -> None:
        """Take over a checkpoint; of one that was not finished, the one before it.

        Raises:
            StateError: it cannot be read.
        """
        if self.checkpoints is None:
            return
        # The flow gives steps their states before it asks a source for anything.
        if self.is_read:
            raise StateError("the state must be taken over before the input is read, was not: another engine")
        usable = self.checkpoints.usable(name)
        if usable != name:
            log("checkpoint.unfinished", name=name, resumed=usable)
        self.places = resume(engine, self.checkpoints, usable)

    def save(self, engine: RiskEngine, places: dict[str, Place]) -> str:
        """Begin to keep the engine's state; return the checkpoint's name."""
        return "" if self.checkpoints is None else keep(engine, places, self.checkpoints)

    def settle(self) -> None:
        """Wait until what was kept is durable."""
        if self.checkpoints is not None:
            self.checkpoints.settle()


class _Reading(StatefulSourcePartition[_Item, Place | None]):
    def __init__(self, part: Part, name: str, place: Place | None, stop: Stop, keeping: Keeping) -> None:
        self._open = part.open_input
        self._reads: Iterator[Read | None] | None = None
        self._name = name
        self._place = place
        self._keeping = keeping
        self._stop = stop
        self._passed = part.passed
        self._committed = part.committed
        self._wait = part.idle
        self._snapshots: deque[Place | None] = deque(maxlen=KEPT)
        self._idle = False

    def next_batch(self) -> Sequence[_Item]:
        if self._stop.is_set:
            raise StopIteration
        with said_in_one_line():
            read = next(self._opened())
        self._idle = read is None
        if read is None:
            return []
        before, self._place = self._place, tuple(read.place)
        items = [_Item(self._name, None, chunk) for chunk in read.chunks]
        if items:
            items[-1] = items[-1]._replace(place=self._place)
        elif self._place != before:
            items = [_Item(self._name, self._place, None)]
        return items

    def _opened(self) -> Iterator[Read | None]:
        if self._reads is None:
            # Only now: which places the state is of is known once it is restored.
            self._keeping.is_read = True
            self._place = self._keeping.places.get(self._name, self._place)
            self._reads = iter(self._open(self._place))
        return self._reads

    def next_awake(self) -> datetime | None:
        # The engine's own clock: it decides when to ask again, never what comes out.
        return datetime.now(UTC) + self._wait if self._idle else None  # noqa: TID251  see above

    def snapshot(self) -> Place | None:
        # So at most the newest checkpoint is ever unfinished, and one that cannot be written ends the run soon.
        with said_in_one_line():
            self._keeping.settle()
        self._snapshots.append(self._place)
        oldest = self._snapshots[0]
        if len(self._snapshots) == KEPT and oldest is not None:
            self._passed(oldest)
        kept = self._snapshots[-COMMITTED] if len(self._snapshots) >= COMMITTED else None
        if kept is not None:
            self._committed(kept)
        return self._place


class Input(FixedPartitionedSource[_Item, Place | None]):
    """The input, and what is read beside it: partitions of one source, whose places are part of the checkpoint."""

    def __init__(self, parts: Mapping[str, Part], stop: Stop, keeping: Keeping) -> None:
        self._parts = parts
        self._stop = stop
        self._keeping = keeping

    def list_parts(self) -> list[str]:
        """Return the names of the parts."""
        return list(self._parts)

    def build_part(self, step_id: str, for_part: str, resume_state: Place | None) -> _Reading:  # noqa: ARG002
        """Open a part where the checkpoint says."""
        return _Reading(self._parts[for_part], for_part, resume_state, self._stop, self._keeping)


class _Detecting(StatefulBatchLogic[tuple[_Item, EventBatch | None], list[Notification], str]):
    def __init__(
        self, engine: RiskEngine, keeping: Keeping, stop: Stop, meters: Meters, hold: Hold, *, ends: bool
    ) -> None:
        self._engine = engine
        self._meters = meters
        self._hold = hold
        self._keeping = keeping
        self._places = dict(keeping.places)
        self._stop = stop
        self._ends = ends

    def on_batch(self, values: list[tuple[_Item, EventBatch | None]]) -> tuple[list[list[Notification]], bool]:
        told = []
        with said_in_one_line():
            for item, batch in values:
                if batch is not None:
                    told.append(self._hold(self._applied(batch), self._places.get(KEY, ())))
                if item.place is not None:
                    self._places[item.part] = item.place
            self._engine.gather()
        return [one for one in told if one], StatefulBatchLogic.RETAIN

    def _applied(self, batch: EventBatch) -> list[Notification]:
        begun_s = self._meters.now_s()
        told = self._engine.apply(batch)
        self._meters.applied(begun_s, batch, told)
        return told

    def on_eof(self) -> tuple[list[list[Notification]], bool]:
        if self._stop.is_set or not self._ends:
            return [], StatefulBatchLogic.RETAIN
        told = self._hold(self._engine.finish(), self._places.get(KEY, ()))
        return [told] if told else [], StatefulBatchLogic.RETAIN

    def snapshot(self) -> str:
        # Without recovery the engine asks all the same: there is nothing to keep then.
        begun_s = self._meters.now_s()
        with said_in_one_line():
            name = self._keeping.save(self._engine, self._places)
        self._meters.saved(begun_s)
        return name


class _Writing(StatefulSinkPartition[Any, None]):
    def __init__(self, write: Callable[[Any], None], save: Callable[[], None]) -> None:
        self._write = write
        self._save = save

    def write_batch(self, values: list[Any]) -> None:
        with said_in_one_line():
            for value in values:
                self._write(value)

    def snapshot(self) -> None:
        with said_in_one_line():
            self._save()


class Output(FixedPartitionedSink[Any, None]):
    """A sink of one partition: its items are durable when `write` returns, or when `save` does.

    A `FixedPartitionedSink`, not a dynamic one: the checkpoint waits for this sort alone. `save` is called at the end
    of every epoch, behind all that was written in it and before its checkpoint counts.
    """

    def __init__(self, write: Callable[[Any], None], save: Callable[[], None] = lambda: None) -> None:
        self._write = write
        self._save = save

    def list_parts(self) -> list[str]:
        """Return the one partition."""
        return [KEY]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Writing:  # noqa: ARG002
        """Return the writer."""
        return _Writing(self._write, self._save)


def build(
    open_input: OpenInput,
    engine: RiskEngine,
    write_notifications: Callable[[Sequence[Notification]], None],
    write_dead_letters: Callable[[Sequence[DeadLetter]], None],
    stop: Stop,
    *,
    ends: bool,
    sync_dead_letters: Callable[[], None] = lambda: None,
    checkpoints: Checkpoints | None = None,
    passed: Passed = lambda _: None,
    committed: Passed = lambda _: None,
    beside: Mapping[str, Part] | None = None,
    meters: Meters | None = None,
    hold: Hold = lambda told, _: told,
) -> Dataflow:
    """Describe the flow.

    Args:
        open_input: opens the input at a place.
        engine: a fresh one; it takes over the checkpoint's state.
        write_notifications: makes a list durable, then returns.
        write_dead_letters: takes a list.
        stop: ends the flow early.
        ends: the input has an end, at which every decision that waits is taken.
        sync_dead_letters: makes durable what `write_dead_letters` took; called before a checkpoint passes the records.
        checkpoints: where the engine's state is kept; None: nowhere.
        passed, committed: see `Part`.
        beside: what else is read, by the names under which the checkpoint keeps the places.
        meters: what counts and times it; None: nobody looks.
        hold: keeps back what waits for its checkpoint.

    Raises:
        StateError: (while running) the state cannot be read back.
    """
    meters = Meters() if meters is None else meters
    keeping = Keeping(checkpoints)

    def detect(name: str | None) -> _Detecting:
        if name:
            with said_in_one_line():
                keeping.resume(engine, name)
        return _Detecting(engine, keeping, stop, meters, hold, ends=ends)

    flow = Dataflow("stayline")
    parts = {KEY: Part(open_input, passed, committed), **(beside or {})}
    noted = {name: _noted(part, meters) for name, part in parts.items()}
    items = op.input("input", flow, Input(noted, stop, keeping))
    decoder = Decoder()
    pairs = op.map("decode", items, lambda item: _decode(decoder, item, meters))
    letters = op.filter_map("reject", pairs, lambda pair: (KEY, pair[1]) if pair[1] else None)
    op.output("dead-letters", letters, Output(write_dead_letters, sync_dead_letters))
    batches = op.map("batch", pairs, lambda pair: (KEY, pair[0]))
    told = op.stateful_batch("detect", batches, detect)
    op.output("notifications", told, Output(_metered(write_notifications, meters)))
    return flow


def _noted(part: Part, meters: Meters) -> Part:
    """Return a part whose reads are counted."""

    def opened(place: Place | None) -> Iterator[Read | None]:
        for read in part.open_input(place):
            if read is not None:
                meters.read(len(read.chunks))
            yield read

    return part._replace(open_input=opened)


def _decode(decoder: Decoder, item: _Item, meters: Meters) -> tuple[tuple[_Item, EventBatch | None], list[DeadLetter]]:
    if item.chunk is None:
        return (item, None), []
    begun_s = meters.now_s()
    with said_in_one_line():
        batch, letters = decoded(decoder, item.chunk)
    meters.decoded(begun_s, letters)
    return (item._replace(chunk=None), batch), letters


def _metered(
    write: Callable[[Sequence[Notification]], None], meters: Meters
) -> Callable[[Sequence[Notification]], None]:
    def written(told: Sequence[Notification]) -> None:
        write(told)
        meters.written(told)

    return written
