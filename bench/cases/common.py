"""What cases share: options, the telco that they read, the flow that they run."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path

import msgspec
import orjson
from msgspec import Struct

from bench.detection import TELCOS
from bench.harness import Report
from bench.peers.race import PEERS
from bench.simulator import TelcoSpec, simulate
from dataflows.checkpoints import Checkpoints
from dataflows.checkpoints.engines import keep
from dataflows.deadletters import DeadLetterFile
from dataflows.execution import execute
from dataflows.flow import OpenInput, Stop, build
from dataflows.inputs.files import CHUNK_BYTES, Cut, FileReader, Place
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.alerts import Notification
from schemas.deadletters import DeadLetter

EPOCH = timedelta(seconds=5)
"""Time between checkpoints, as a deployment has it."""

BASE = "orjson.loads a record"


class Options(Struct, frozen=True):
    """How big a run is.

    Attributes:
        customers, days: of the telco whose events are read.
        rounds: how often each work is timed.
        residents: numbers of customers for the case that grows them, the first being the one to compare with.
        skews: exponents of Zipf's law for the traffic of hot customers.
        offered: rates for the latency, events a second.
        seconds: how long each rate is offered.
        strangers: distinct unknown customers in the flood; a tenth of them fit.
        peers: names of `bench.peers.race.PEERS`.
        notifications: to be delivered.
        telcos: that detectors are graded on.
        table, label, identity: a churn table, its column that says who left, and the one that names the customer.
        markets: numbers of cases for the choice of remedies.
    """

    customers: int = 5_000
    days: int = 7
    rounds: int = 5
    residents: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    skews: tuple[float, ...] = (0.0, 0.8, 1.1, 1.5)
    offered: tuple[int, ...] = (10_000, 50_000)
    seconds: float = 10.0
    strangers: int = 1_000_000
    peers: tuple[str, ...] = tuple(PEERS)
    notifications: int = 20_000
    telcos: tuple[TelcoSpec, ...] = TELCOS
    table: str | None = None
    label: str | None = None
    identity: str | None = None
    markets: tuple[int, ...] = (2_000, 20_000, 60_000)


class Events:
    """Recorded events: where they lie, and as they are read.

    Args:
        path: NDJSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()
        self.lines = [line for line in self.data.split(b"\n") if line]

    def __len__(self) -> int:
        return len(self.lines)

    def chunks(self) -> Iterator[bytes]:
        """Cut them as the flow does, at line ends."""
        at = 0
        while at < len(self.data):
            cut = self.data.rfind(b"\n", at, at + CHUNK_BYTES) + 1 or len(self.data)
            yield self.data[at:cut]
            at = cut

    def parse(self) -> bytes:
        """Turn each record into a dictionary: what every rate is compared with."""
        parse(self.lines)
        return b""


class Bench:
    """One run of some cases.

    Args:
        options: how big.
        folder: scratch, empty.
        report: what is told.
    """

    def __init__(self, options: Options, folder: Path, report: Report) -> None:
        self.options = options
        self.folder = folder
        self.report = report

    @cached_property
    def telco(self) -> Events:
        """The telco's events, the same for every case."""
        spec = TelcoSpec(customers=self.options.customers, days=self.options.days, seed=1)
        events = Events(simulate(spec, self.folder / "telco").events_path)
        self.report.say(f"{len(events):,} records, {len(events.data) / len(events):.0f} bytes each; one core")
        return events


Case = Callable[[Bench], None]
"""Measures something and reports it."""


def parse(lines: list[bytes]) -> None:
    """Turn each line into a dictionary; what is no JSON is passed over."""
    for line in lines:
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            continue


def new_engine(customers_max: int = 10_000_000) -> RiskEngine:
    """Return an engine that knows nobody."""
    return RiskEngine(Settings("bench", customers_max=customers_max), _catalogue())


@cache
def _catalogue() -> Catalogue:
    """Return the catalogue that comes with the program, read once: to read it is part of a start, not of a rate."""
    return Catalogue.load(default_catalogue_text())


def bodies(told: list[Notification]) -> bytes:
    """Return what was told, one notification a line: what digests are taken of."""
    return b"\n".join(one.body for one in told)


def from_file(path: Path) -> OpenInput:
    """Return the input that reads a file of events."""

    def open_input(place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        return iter(FileReader([path], Place() if place is None else Place(*place)))

    return open_input


def run_flow(open_input: OpenInput, engine: RiskEngine) -> list[Notification]:
    """Run the flow as `stayline replay` does: dead letters encoded, nothing kept for a restart."""
    told: list[Notification] = []
    letters: list[bytes] = []

    def write_letters(some: Sequence[DeadLetter]) -> None:
        letters.extend(msgspec.json.encode(letter) for letter in some)

    execute(build(open_input, engine, told.extend, write_letters, Stop(), ends=True), None, EPOCH)
    return told


def run_flow_durably(
    open_input: OpenInput,
    engine: RiskEngine,
    folder: Path,
    write: Callable[[Sequence[Notification]], None],
    *,
    ends: bool = True,
    resumes: bool = False,
) -> None:
    """Run the flow as `stayline run` does: with checkpoints, which wait for dead letters to be on disk.

    Args:
        open_input: what it reads.
        engine: what it detects with.
        folder: where a folder for its state is made; it is removed at the end.
        write: is given the notifications.
        ends: take every decision that waits at the end of the input.
        resumes: the engine knows something, all of which a checkpoint holds already, as behind a restart.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        state = Path(name)
        letters = DeadLetterFile(state / "dead-letters.ndjson")
        checkpoints = Checkpoints(state / "engine")
        if resumes:
            keep(engine, {}, checkpoints)
            checkpoints.settle()
        flow = build(
            open_input,
            engine,
            write,
            letters.append,
            Stop(),
            ends=ends,
            sync_dead_letters=letters.sync,
            checkpoints=checkpoints,
        )
        execute(flow, state / "recovery", EPOCH, checkpoints.settle)
