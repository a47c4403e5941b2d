"""What the tests of partitions kept apart share: a topic of several, processes that read it, what they must tell."""

import signal
from collections import defaultdict

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition
from kafka_kit import METRICS, counted, end_of, figures
from run_kit import Program, lines, until

from bench.broker import make_topic
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.decode import decode

PARTITIONS = 5
"""No multiple of any number of processes here."""


@pytest.fixture
def parted(broker, topic):
    """A topic of several partitions."""
    name = f"{topic}.parted"
    make_topic(broker.address, name, PARTITIONS)
    return name


def deployed_apart(folder, address, topic, partitions, more="", *, shared=True):
    """Write the configuration of one process; those that keep partitions apart may share the states."""
    folder.mkdir(exist_ok=True, parents=True)
    kafka = f'brokers = "{address}", topics = ["{topic}"], partitions = {orjson.dumps(partitions).decode()}'
    output = '\n[[output]]\nkind = "file"\npath = "alerts.ndjson"\n'
    state = "" if partitions == "all" or not shared else f'[state]\nshared_directory = "{folder.parent / "shared"}"'
    text = (
        f'[deployment]\nname = "test"\n[input]\nkind = "kafka"\nkafka = {{ {kafka} }}\n{state}\n{output}{METRICS}{more}'
    )
    (folder / "c.toml").write_text(text)
    return folder


def held(address, topic, partitions=PARTITIONS):
    """Return what each partition of a topic holds, in order."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "any", "log_level": 0})
    found = defaultdict(list)
    for number in range(partitions):
        end = end_of(consumer, topic, number)
        consumer.assign([TopicPartition(topic, number, 0)])
        while len(found[number]) < end:
            found[number] += [message.value() for message in consumer.consume(end - len(found[number]), 1.0)]
    consumer.close()
    return found


def expected(address, topic):
    """Return what an engine of each partition tells: id -> body."""
    share = Settings("test", alerts_per_day_max=200 // PARTITIONS, customers_max=2_000_000 // PARTITIONS)
    told = {}
    for values in held(address, topic).values():
        engine = RiskEngine(share, Catalogue.load(default_catalogue_text()))
        told |= {one.id: one.body for one in engine.apply(decode(b"\n".join(values)))}
    return told


def delivered(folder):
    """Return what all processes wrote, id -> body: an id has one body, however many processes told it."""
    found = {}
    for path in sorted(folder.glob("*/alerts.ndjson")):
        for line in lines(path):
            assert found.setdefault(orjson.loads(line)["id"], line) == line
    return found


class Processes:
    """The processes of a deployment, started and stopped together."""

    def __init__(self, folder, address, topic, more=""):
        self._more = more
        self._folder, self._address, self._topic = folder, address, topic
        self.running = []

    def start(self, count, epoch_ms=50):
        self.running = [self.one(ordinal, count, epoch_ms) for ordinal in range(count)]

    def one(self, ordinal, count, epoch_ms=50):
        folder = deployed_apart(
            self._folder / str(ordinal), self._address, self._topic, f"{ordinal}/{count}", self._more
        )
        return Program(folder, "run", "-c", "c.toml", epoch_ms=epoch_ms)

    def await_count(self, count):
        def all_read():
            addresses = [program.address("metrics") for program in self.running]
            pending = sum(value for a in addresses for name, value in figures(a).items() if "outbox_pending{" in name)
            return sum(map(counted, addresses)) == count and pending == 0.0

        until(all_read, f"{count} records")

    def stop(self):
        for program in self.running:
            program.signal(signal.SIGTERM)
        assert [program.wait() for program in self.running] == [0] * len(self.running), self.running[0].stderr()
