"""The whole flow from a real Kafka broker, as `stayline run` reads it."""

from collections.abc import Iterator

import orjson

from bench.broker import broker_elsewhere, fill, make_topic
from bench.cases.common import BASE, Bench, Events, bodies, new_engine, run_flow, run_flow_durably
from bench.harness import race
from bench.maven import NotHereError
from dataflows.config.inputs import KafkaInput
from dataflows.flow import OpenInput
from dataflows.inputs.chunks import Read
from dataflows.inputs.kafka import KafkaReader
from dataflows.inputs.kafka_client import connection
from schemas.alerts import Notification

TOPIC = "events"


def flow_from_broker(bench: Bench) -> None:
    """Measure the flow from a topic of one partition, connecting included; one sentence where no broker can run."""
    try:
        with broker_elsewhere() as address:
            _measure(bench, address)
    except NotHereError as error:
        bench.report.say(f"kafka: not measured, a broker cannot run here: {error}")


def _measure(bench: Bench, address: str) -> None:
    events = bench.telco
    make_topic(address, TOPIC)
    fill(address, TOPIC, ((_key(line), line) for line in events.lines))
    source = from_broker(address, events)
    works = {
        BASE: events.parse,
        "flow, kafka": lambda: bodies(run_flow(source, new_engine())),
        "flow, kafka, checkpoints": lambda: _durably(source, bench),
    }
    bench.report.race(race(len(events), bench.options.rounds, works))


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


def from_broker(address: str, events: Events) -> OpenInput:
    """Return the input that reads the topic until all events have come."""

    def open_input(place: tuple[int, ...] | None) -> Iterator[Read | None]:
        given = KafkaInput(brokers=address, topics=(TOPIC,))
        reader = KafkaReader(given, connection(given, None), "bench")
        try:
            for read in reader.read(place):
                yield read
                if read is not None and sum(read.place[3::4]) == len(events):
                    return
        finally:
            reader.close()

    return open_input
