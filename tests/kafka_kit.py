"""What the Kafka tests share: a real broker, a mock of one that fails on demand, certificates, what a topic holds."""

import contextlib
import ctypes
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import confluent_kafka
import httpx2
import orjson
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from needs_kit import absent, make_certificates
from run_kit import lines, recorded, until

from bench.broker import QUICK_START, Broker, make_topic
from bench.maven import NotHereError
from dataflows.commands import replay
from dataflows.config.inputs import KafkaInput
from dataflows.inputs.kafka import KafkaReader
from dataflows.inputs.kafka_client import connection
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.decode import decode

USER, PASSWORD = "probe", "correct horse"

NOT_AUTHORISED, TIMED_OUT, TOO_LARGE, TRANSPORT = 29, 7, 10, -195
PRODUCE, FETCH = 0, 1
"""Numbers of the protocol: errors, requests."""

METRICS = '\n[metrics]\nlisten = "127.0.0.1:0"\n'
FILE_OUTPUT = '\n[[output]]\nkind = "file"\npath = "alerts.ndjson"\n'


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    one = started(tmp_path_factory.mktemp("broker"))
    yield one
    one.kill()


@pytest.fixture
def topic(broker, request):
    """A topic of the test's own, of one partition."""
    name = request.node.name.partition("[")[0][-200:] + str(time.monotonic_ns())
    make_topic(broker.address, name)
    return name


@pytest.fixture(scope="session")
def telco(tmp_path_factory):
    """Recorded events, and what they lead to: every notification that needs no end of the stream."""
    folder = tmp_path_factory.mktemp("telco")
    events = lines(recorded(folder))
    engine = RiskEngine(Settings("test"), Catalogue.load(default_catalogue_text()))
    told = [one.body for one in engine.apply(decode(b"\n".join(events)))]
    replay.replay([folder / "events.ndjson"], folder / "replayed", Settings("test"))
    assert len(told) > 20
    assert set(told) <= set(lines(folder / "replayed"))
    return SimpleNamespace(events=events, told=told, path=folder / "events.ndjson")


def started(folder: Path) -> Broker:
    """Start a broker; where it cannot run, skip the test that asked for it."""
    try:
        settings, listeners, arguments = secured(folder / "tls") if shutil.which("openssl") else ({}, {}, [])
        broker = Broker(
            folder,
            settings=settings | {"message.max.bytes": "4194304", "replica.fetch.max.bytes": "4194304"},
            listeners=listeners,
            arguments=arguments,
            options=QUICK_START,
        )
        broker.start()
        settle_groups(broker.address)
    except NotHereError as error:
        absent("kafka", f"a broker cannot run here: {error}")
    return broker


def settle_groups(address: str) -> None:
    """Let the broker make the topic that keeps groups' offsets, which takes its time once."""
    make_topic(address, "settled")
    consumer = Consumer({"bootstrap.servers": address, "group.id": "any", "log_level": 0})

    def settled() -> bool:
        with contextlib.suppress(KafkaException):
            return bool(consumer.committed([TopicPartition("settled", 0)], timeout=5.0))
        return False

    until(settled, "the topic of the groups' offsets")
    consumer.close()


def secured(tls: Path) -> tuple[dict[str, str], dict[str, tuple[str, str]], list[str]]:
    """Return what a broker needs for a listener with passwords and one with clients' certificates."""
    tls.mkdir()
    make_certificates(tls, "localhost")
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tls / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tls / "ca.pem"),
        "listener.name.certs.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.words.scram-sha-512.sasl.jaas.config": scram,
    }
    listeners = {"WORDS": ("SASL_SSL", "localhost"), "CERTS": ("SSL", "localhost")}
    return settings, listeners, ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]


def end_of(consumer: Consumer, topic: str, number: int) -> int:
    """Return the offset behind a partition's last message; of one made a moment ago, once a broker leads it."""

    def found() -> tuple[int, int] | None:
        with contextlib.suppress(KafkaException):
            return consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
        return None

    return until(found, f"the end of {topic}[{number}]")[1]


def records(address: str, topic: str, partitions: int = 1) -> list[tuple[str, bytes, str]]:
    """Return key, value and id of all that a topic holds, one partition behind the other."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "any", "log_level": 0})
    found = []
    try:
        for number in range(partitions):
            end = end_of(consumer, topic, number)
            consumer.assign([TopicPartition(topic, number, 0)])
            at = 0
            while at < end:
                for message in consumer.consume(1_000, 1.0):
                    assert message.error() is None, message.error()
                    at = message.offset() + 1
                    name = dict(message.headers() or [])["ce_id"].decode()
                    found.append((message.key().decode(), message.value(), name))
    finally:
        consumer.close()
    return found


@contextlib.contextmanager
def reader(address: str, *topics: str, password: str | None = None, open_format=None, **given) -> Iterator[KafkaReader]:
    """Open a reader of topics."""
    access = KafkaInput(brokers=address, topics=topics, **given)
    one = KafkaReader(access, connection(access, password), "tests", open_format)
    try:
        yield one
    finally:
        one.close()


class Mock:
    """A cluster in this process, which answers with errors when told to (librdkafka's mock cluster)."""

    def __init__(self, *topics: str) -> None:
        (path,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*")
        lib = self._lib = ctypes.CDLL(str(path))
        for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
            getattr(lib, name).restype = ctypes.c_void_p
        lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        conf = ctypes.c_void_p(lib.rd_kafka_conf_new())
        text = ctypes.create_string_buffer(512)
        lib.rd_kafka_conf_set(conf, b"log_level", b"0", text, 512)
        self._client = ctypes.c_void_p(lib.rd_kafka_new(0, conf, text, 512))
        self._cluster = ctypes.c_void_p(lib.rd_kafka_mock_cluster_new(self._client, 1))
        self.address = lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        for topic in topics:
            lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), 1, 1)

    def fail(self, request: int, *errors: int) -> None:
        """Answer the next requests of one sort with these errors."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._lib.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), codes
        )

    def down(self) -> None:
        self._lib.rd_kafka_mock_broker_set_down(self._cluster, ctypes.c_int32(1))

    def up(self) -> None:
        self._lib.rd_kafka_mock_broker_set_up(self._cluster, ctypes.c_int32(1))

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)


def keyed(events):
    """Give events their customers as keys, as a deployment with several partitions must."""
    for line in events:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = None
        key = record.get("customer_id") if isinstance(record, dict) else None
        yield key.encode() if isinstance(key, str) else None, line


def deployed(folder, address, topic, *, alerts=None, more="", events=None):
    """Write a configuration that reads from a topic, or from a file."""
    source = f'kind = "kafka"\nkafka = {{ brokers = "{address}", topics = ["{topic}"] {more} }}'
    if events is not None:
        source = f'kind = "file"\nfile = {{ paths = ["{events}"], follow = true }}'
    output = f'\n[[output]]\nkind = "kafka"\nbrokers = "{address}"\ntopic = "{alerts}"\n' if alerts else FILE_OUTPUT
    (folder / "c.toml").write_text(f'[deployment]\nname = "test"\n[input]\n{source}\n{output}{METRICS}')
    return folder


def figures(address):
    page = httpx2.get(f"{address}/metrics", trust_env=False).text
    return {
        name: float(value) for name, value in (line.rsplit(" ", 1) for line in page.splitlines() if line[:1] != "#")
    }


def counted(address):
    return sum(value for name, value in figures(address).items() if name.startswith("stayline_records_total"))


def settled(address, count):
    """Tell whether so many records have been read, and all that they gave has been delivered."""
    pending = sum(value for name, value in figures(address).items() if name.startswith("stayline_outbox_pending{"))
    return counted(address) == count and pending == 0.0


def await_settled(program, count):
    address = program.address("metrics")
    until(lambda: settled(address, count), f"the end of {count} records")


def ended(program):
    program.signal(signal.SIGTERM)
    return program.wait()
