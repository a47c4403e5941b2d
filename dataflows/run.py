"""The deployment: the flow over a live input, an outbox between it and the outputs, checkpoints beside both."""

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import NamedTuple

from msgspec import structs

from dataflows import config as configuration
from dataflows import shards as sharded
from dataflows.canary import GuardedEngine, Told
from dataflows.checkpoints import Checkpoints, sole_user
from dataflows.clock import now_ms
from dataflows.config import outputs
from dataflows.config.business import catalogue_of
from dataflows.config.problems import file_problems
from dataflows.config.settings import Config
from dataflows.config.treatments import treatments
from dataflows.deadletters import DeadLetterFile
from dataflows.desk import desk_server, open_store, outcomes_of
from dataflows.destinations import output_of, tracer_of
from dataflows.execution import execute
from dataflows.flow import OpenInput, Stop, build
from dataflows.held import Held
from dataflows.inputs import hep
from dataflows.inputs.chunks import Read
from dataflows.inputs.http import Server, events_application, metrics_application
from dataflows.inputs.resubmitted import Resubmitted
from dataflows.logs import log
from dataflows.meters import Meters
from dataflows.metrics import Disk, Gauges
from dataflows.private import require_private
from dataflows.shards import Shards, partitions_folder
from dataflows.sources import Source, beside, source_of
from detectors.engine import Counts, RiskEngine
from schemas.alerts import Notification
from schemas.errors import ConfigError, StateError, StaylineError
from sinks.desk.store import DeskStore
from sinks.dispatcher import Dispatcher
from sinks.outbox import Outbox, OutboxFull
from sinks.treatment import Treatment
from sinks.webhook.policy import is_misconfigured

EPOCH = timedelta(seconds=5)
"""Time between checkpoints: what a crash makes the engine read again."""

OUTCOMES = "outcomes"
"""Where the desk's outcomes lie until they are read, for an input that nothing can be written to."""

WAIT_S = 0.25
"""How often whoever waits looks whether it should stop."""


Announce = Callable[[str, str], None]
"""Is told a name (`events`, `desk`, `metrics`) and the address that it answers on."""


class InterruptedRunError(StaylineError):
    """The run was told to stop while an output's backlog was full: the checkpoint before stands, nothing is lost."""


def run(config: Config, announce: Announce | None = None, epoch: timedelta = EPOCH) -> None:
    """Run a deployment until its input ends or it is told to stop.

    SIGTERM and SIGINT finish the batch in hand, take a checkpoint and return; a second one ends the process at once.

    Args:
        config: a configuration that `runnable` has no objection to.
        announce: is told what is listened on, and where; without it the log is.
        epoch: time between checkpoints.

    Raises:
        ConfigError: a secret is missing, or an address cannot be listened on.
        StaylineError: state on disk is damaged, or an output can never work.
    """
    secrets = configuration.resolve_secrets(config, os.environ)
    treated = treatments(config, secrets.routing_keys)
    if problems := file_problems(config):
        raise ConfigError(problems)
    stopping = Stop()
    folder = config.state.directory
    with sole_user(folder), _signals(stopping), contextlib.ExitStack() as stack:
        for each in {folder, sharded.partitions_folder(config)}:
            if each.exists():
                require_private(each)
        opened = _open(config, secrets, treated, stack)
        opened.dispatcher.start()
        stack.callback(opened.dispatcher.stop)
        for name, server in _servers(config, secrets, opened):
            server.start()
            stack.callback(server.stop)
            (announce or _log_address)(name, server.address)
        log("run.started", deployment=config.deployment.name, input=config.input.kind)
        with contextlib.suppress(InterruptedRunError):
            _detect(config, opened, stopping, epoch)
            opened.source.finish()
        _wind_up(opened.dispatcher, opened.engines, stopping)


class _Deployment(NamedTuple):
    """What a deployment is made of, opened."""

    outbox: Outbox
    dispatcher: Dispatcher
    source: Source
    shards: Shards | None
    engines: Iterable[RiskEngine]
    store: DeskStore | None
    outcomes: Resubmitted | None
    meters: Meters


def _open(
    config: Config, secrets: configuration.Secrets, treated: Mapping[str, Treatment], stack: contextlib.ExitStack
) -> _Deployment:
    """Open everything; what was opened is closed by the stack, the last first."""
    folder = config.state.directory
    if not (folder / "outbox.sqlite3").exists():
        _keep_earlier_alerts(config)
    outbox = Outbox.open(
        folder / "outbox.sqlite3", {output.name: output.backlog_max for output in config.output}, now_ms
    )
    stack.callback(outbox.close)
    meters = Meters([one.name for one in config.output])
    outbox.on_delivered, outbox.on_happened = meters.delivered, _log_delivery
    source = source_of(config, secrets, folder)
    stack.callback(source.close)
    make = partial(_engine, config, partial(_tell_canary, meters))
    shards = _shards(config, make)
    if shards is not None:
        stack.callback(shards.close)
    store = _desk_store(config, stack)
    seen = tracer_of(config, stack)
    dispatcher = Dispatcher(
        outbox,
        [output_of(one, secrets, treated[one.name].shape, store, seen) for one in config.output],
        now_ms,
        random.SystemRandom(),
        treatments=treated,
    )
    # Partitions kept apart are read from Kafka alone: an outcome has to come that way too.
    outcomes = None if shards is not None else Resubmitted(folder / OUTCOMES)
    engines: Iterable[RiskEngine] = [make()] if shards is None else shards
    return _Deployment(outbox, dispatcher, source, shards, engines, store, outcomes, meters)


def _detect(config: Config, opened: _Deployment, stopping: Stop, epoch: timedelta) -> None:
    """Run the flow until its input ends or it is told to stop."""
    folder, source, shards = config.state.directory, opened.source, opened.shards
    letters = DeadLetterFile(folder / "dead-letters.ndjson")
    open_input = _watched(source.open_input, opened.dispatcher)
    write = _writer(opened.outbox, opened.dispatcher, stopping)
    if shards is not None:
        flow = sharded.build(open_input, shards, write, letters, stopping, opened.meters, source.committed)
        execute(flow, None, epoch, shards.settle)
        return
    (engine,) = opened.engines
    checkpoints = Checkpoints(folder / "engine")
    held = Held(folder / "incidents.json", write, holds=_announces(config) and config.input.kind == "kafka")

    def committed(place: tuple[int, ...]) -> None:
        held.committed(place)
        source.committed(place)

    flow = build(
        held.reading(open_input),
        engine,
        write,
        letters.append,
        stopping,
        ends=source.ends,
        sync_dead_letters=letters.sync,
        checkpoints=checkpoints,
        passed=source.passed,
        committed=committed,
        beside={
            "resubmitted": beside(Resubmitted(folder / "resubmitted"), ends=source.ends),
            OUTCOMES: beside(Resubmitted(folder / OUTCOMES), ends=source.ends),
        },
        meters=opened.meters,
        hold=held.hold,
    )
    execute(flow, folder / "recovery", epoch, checkpoints.settle)
    held.finish()


def _wind_up(dispatcher: Dispatcher, engines: Iterable[RiskEngine], stopping: Stop) -> None:
    """Wait until all is delivered, unless told to stop, and log what became of the records."""
    if stopping.is_set:
        log("run.stopping")
    while not stopping.is_set and not dispatcher.drain(WAIT_S):
        pass
    counts = {name: sum(getattr(one.counts, name) for one in engines) for name in Counts.__struct_fields__}
    log("run.ended", **counts, interrupted=stopping.is_set)


def _tell_canary(meters: Meters, newest_ms: int, told: Sequence[Notification]) -> None:
    at_ms = now_ms()
    meters.canary((at_ms - newest_ms) / 1000.0, at_ms / 1000.0, told)


def _engine(config: Config, canaries: Told, parts: int = 1) -> RiskEngine:
    """Make a fresh engine; of several parts of a deployment each has an equal share of what is limited."""
    settings = configuration.engine_settings(config)
    shared = {name: -(-getattr(settings, name) // parts) for name in ("alerts_per_day_max", "customers_max")}
    return GuardedEngine(structs.replace(settings, **shared), catalogue_of(config.remedies), canaries)


def _announces(config: Config) -> bool:
    """Tell whether other processes are told of the incidents that this one finds."""
    return any(isinstance(one, outputs.KafkaOutput) and one.announce for one in config.output)


def _shards(config: Config, make: Callable[[int], RiskEngine]) -> Shards | None:
    """Return the partitions that have a state each; None where one state is made of the whole input.

    Raises:
        StateError: the state that is there is of the other sort, which cannot be taken apart or joined.
    """
    folder, given = partitions_folder(config), config.input.kafka
    if given is None or config.input.kind != "kafka" or given.partitions == "all":
        if sharded.numbers_in(folder):
            raise StateError(f"{folder}: must hold one state of the whole input, holds one of each of its partitions")
        return None
    whole = config.state.directory / "recovery"
    if whole.exists():
        raise StateError(f"{whole}: must not be there where each partition has a state: it is of all of them together")
    return Shards(folder, given.partitions, make)


def _keep_earlier_alerts(config: Config) -> None:
    """Move alerts of an earlier state out of the way: a new outbox knows nothing of them and begins its own file."""
    for one in config.output:
        if isinstance(one, outputs.FileOutput) and one.path.exists() and one.path.stat().st_size:
            number = 1
            while (kept := one.path.with_name(f"{one.path.name}.{number}")).exists():
                number += 1
            one.path.rename(kept)
            log("output.earlier_file_kept", output=one.name, file=str(kept))


def _log_delivery(event: str, output: str, known: dict[str, str]) -> None:
    """Log what became of a receiver; one that somebody must put right has a name of its own, as its alert has."""
    wrong = event == "output.failing" and is_misconfigured(known["answer"])
    log("output.misconfigured" if wrong else event, output=output, **known)


def _log_address(name: str, address: str) -> None:
    log("listening", what=name, address=address)


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    def ask(_: int, __: FrameType | None) -> None:
        stop.set()
        # A second one, of either sort, is for somebody in a hurry: the checkpoint before stands.
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _desk_store(config: Config, stack: contextlib.ExitStack) -> DeskStore | None:
    if not any(isinstance(output, outputs.DeskOutput) for output in config.output):
        return None
    return stack.enter_context(contextlib.closing(open_store(config, config.state.directory, now_ms)))


def _servers(
    config: Config, secrets: configuration.Secrets, opened: _Deployment
) -> Iterator[tuple[str, Server | hep.Listener]]:
    """Return what listens, by name, not started yet.

    Raises:
        ConfigError: an address cannot be listened on.
    """
    source, engines, outbox = opened.source, opened.engines, opened.outbox
    if source.listener is not None:
        yield "hep", source.listener
    if source.spool is not None:
        yield "events", Server(events_application(source.spool, source.opener), *config.input.http.listen)
    if opened.store is not None:
        take = outcomes_of(source.spool, opened.outcomes, engines)
        yield "desk", desk_server(config, secrets, opened.store, take, engines, outbox)
    if config.metrics is not None:
        disk = Disk(config.state.directory, partial(sharded.snapshot_folders, config))
        gauges = Gauges(
            engines,
            outbox,
            source.spool,
            source.figures,
            meters=opened.meters,
            disk=disk,
            shards=opened.shards,
            incidents="announced" if _announces(config) else config.detection.incidents,
            clock=now_ms,
        )
        yield "metrics", Server(metrics_application(gauges), *config.metrics.listen)


def _watched(open_input: OpenInput, dispatcher: Dispatcher) -> OpenInput:
    """Return an input that ends with an error as soon as an output can never work: to go on would tell nobody."""

    def watched(place: tuple[int, ...] | None) -> Iterator[Read | None]:
        for read in open_input(place):
            dispatcher.raise_if_failed()
            yield read

    return watched


def _writer(outbox: Outbox, dispatcher: Dispatcher, stop: Stop) -> Callable[[Sequence[Notification]], None]:
    """Return what makes notifications durable; while a backlog is full it waits, and so does the input."""
    known = outbox.stats().conflicts

    def write(notifications: Sequence[Notification]) -> None:
        nonlocal known
        while True:
            dispatcher.raise_if_failed()
            try:
                fresh = outbox.put(notifications)
            except OutboxFull as full:
                if stop.is_set:
                    raise InterruptedRunError(f"stopped while {full}") from None
                outbox.wait_for_room(WAIT_S)
            else:
                break
        # A repeat after a crash is an old id with its old body. With another one it is a fault of ours.
        if fresh < len(notifications) and (found := outbox.stats().conflicts) > known:
            known = found
            log("outbox.conflict", conflicts=found, problem="an id came again with another body, which was kept apart")

    return write
