"""The whole flow from a real Kafka broker, as `stayline run` reads it: by how many events a message holds.

Beside the flow stands what reading alone takes, and how much of the time is that of the client's own threads, which
fetch, check and unpack beside the flow: on the same core here, and counted.
"""

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO

import orjson
from msgspec import Struct

from bench.broker import broker_elsewhere, fill, make_topic
from bench.cases.arrow import calls_of
from bench.cases.common import BASE, Bench, bodies, from_file, new_engine, run_flow, run_flow_durably
from bench.harness import race
from bench.maven import NotHereError
from dataflows.config.inputs import KafkaInput
from dataflows.flow import OpenInput
from dataflows.inputs.chunks import Read
from dataflows.inputs.kafka import KafkaReader
from dataflows.inputs.kafka_client import connection
from schemas.alerts import Notification
from schemas.arrow.writer import write_arrow
from schemas.formats import Options, open_format

TOPIC = "events"

LINES, ROWS = 50, 4_000
"""Events in a message where a sender gathers them: as lines, and as rows of Arrow."""


class Filled(Struct, frozen=True):
    """A topic of one partition: how many messages it holds, and of what format."""

    topic: str
    messages: int
    format: str = "stayline"


def flow_from_broker(bench: Bench) -> None:
    """Measure the flow from topics of one partition; one sentence where no broker can run."""
    try:
        with broker_elsewhere() as address:
            _measure(bench, address)
    except NotHereError as error:
        bench.report.say(f"kafka: not measured, a broker cannot run here: {error}")


def _measure(bench: Bench, address: str) -> None:
    events = bench.telco
    calls = calls_of(events, bench.folder / "calls.ndjson")
    single = _filled(address, TOPIC, ((_key(line), line) for line in events.lines))
    lined = _filled(address, f"{TOPIC}.lines", _gathered(events.lines, LINES, b"\n".join))
    alone = _filled(address, f"{TOPIC}.calls", ((_key(line), line) for line in calls.lines))
    some = _filled(address, f"{TOPIC}.calls.lines", _gathered(calls.lines, LINES, b"\n".join))
    rows = _filled(address, f"{TOPIC}.arrow", _gathered(calls.lines, ROWS, _arrow), "arrow")
    shares: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        one, many, call, several, arrow = (
            stack.enter_context(_reading(address, filled)) for filled in (single, lined, alone, some, rows)
        )
        works = {
            BASE: events.parse,
            "flow, file": lambda: bodies(run_flow(from_file(events.path), new_engine())),
            "flow, kafka": lambda: bodies(run_flow(one, new_engine())),
            "flow, kafka, lines": lambda: bodies(run_flow(many, new_engine())),
            "flow, kafka, checkpoints": lambda: _durably(one, bench),
            "flow, kafka, lines, checkpoints": lambda: _durably(many, bench),
        }
        bench.report.say(f"one event a message; lines: {LINES}; arrow: {ROWS} rows; connecting is not counted")
        found = race(len(events), bench.options.rounds, _shared(works, shares))
        bench.report.race(found)
        bench.report.say(f"the {len(calls):,} calls of them alone")
        works = {
            BASE: calls.parse,
            "flow, file, calls": lambda: bodies(run_flow(from_file(calls.path), new_engine())),
            "reading alone, calls": lambda: _read(call),
            "flow, kafka, calls": lambda: bodies(run_flow(call, new_engine())),
            "flow, kafka, calls, checkpoints": lambda: _durably(call, bench),
            "flow, kafka, calls, lines, checkpoints": lambda: _durably(several, bench),
            "flow, kafka, calls, arrow": lambda: bodies(run_flow(arrow, new_engine())),
        }
        of_calls = race(len(calls), bench.options.rounds, _shared(works, shares))
        bench.report.race(of_calls)
    for rate in (*found, *of_calls[1:]):
        share = statistics.median(shares[rate.name])
        per_second = f"{statistics.median(rate.per_cpu_second):,.0f}"
        bench.report.row({"": rate.name, "a second of cpu": per_second, "client's threads": f"{share:.0%}"})


def _shared(works: dict[str, Callable[[], bytes]], shares: dict[str, list[float]]) -> dict[str, Callable[[], bytes]]:
    """Note of each work how much of its time other threads had than the one that does it."""

    def noted(name: str) -> bytes:
        begun_s, own_s = time.process_time(), time.thread_time()
        result = works[name]()
        shares[name].append(1.0 - (time.thread_time() - own_s) / (time.process_time() - begun_s))
        return result

    return {name: partial(noted, name) for name in works}


def _read(source: OpenInput) -> bytes:
    """Read a topic and do nothing with it."""
    for _ in source(None):
        pass
    return b""


def _filled(address: str, topic: str, messages: Iterable[tuple[bytes | None, bytes]], kind: str = "stayline") -> Filled:
    make_topic(address, topic)
    return Filled(topic, fill(address, topic, messages), kind)


def _gathered(lines: list[bytes], count: int, join: Callable[[list[bytes]], bytes]) -> Iterator[tuple[None, bytes]]:
    return ((None, join(lines[at : at + count])) for at in range(0, len(lines), count))


def _arrow(lines: list[bytes]) -> bytes:
    out = BytesIO()
    write_arrow(lines, out, rows=len(lines))
    return out.getvalue()


def _durably(source: OpenInput, bench: Bench) -> bytes:
    told: list[Notification] = []
    run_flow_durably(source, new_engine(), bench.folder, told.extend)
    return bodies(told)


def _key(line: bytes) -> bytes | None:
    try:
        customer = orjson.loads(line).get("customer_id")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return str(customer).encode()


@contextlib.contextmanager
def _reading(address: str, filled: Filled) -> Iterator[OpenInput]:
    """Give the input that reads a topic until all of it has come, with a client that stays connected."""
    given = KafkaInput(brokers=address, topics=(filled.topic,))
    opener = None if filled.format == "stayline" else lambda: open_format(filled.format, Options())
    reader = KafkaReader(given, connection(given, None), "bench", opener)

    def open_input(place: tuple[int, ...] | None) -> Iterator[Read | None]:
        for read in reader.read(place):
            yield read
            if read is not None and sum(read.place[3::4]) == filled.messages:
                return

    try:
        yield open_input
    finally:
        reader.close()
