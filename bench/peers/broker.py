"""A Kafka broker of one node for as long as a peer needs it, on the cores that the peer does not use."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peers.job import NotHereError
from bench.peers.maven import built

TOPIC = "calls"
CLUSTER = "c3RheWxpbmUtcGVlcnMtMQ"
"""Kafka wants 16 bytes, base64url."""
READY_S = 60


@contextmanager
def broker() -> Iterator[str]:
    """Start a broker; give its address; stop it.

    Raises:
        NotHereError: it cannot be built, or does not answer.
    """
    classes = built(Path(__file__).parent / "kafka")
    with tempfile.TemporaryDirectory() as folder:
        plain, controller = _free_port(), _free_port()
        settings = Path(folder) / "server.properties"
        settings.write_text(_settings(plain, controller, folder), encoding="utf-8")
        java = ["java", "-cp", classes]
        form = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(settings)]
        subprocess.run(form, check=True, capture_output=True)  # noqa: S603  our own words
        with _other_cores():
            run = [*java, "kafka.Kafka", str(settings)]
            process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603  as above
        try:
            yield f"127.0.0.1:{plain}"
        finally:
            process.kill()
            process.wait()


def fill(address: str, events: Path) -> int:
    """Create the topic, of one partition, and write calls to it with the customer as key; return how many."""
    # A peer's library, not the race's: imported by who needs it.
    import orjson  # noqa: PLC0415
    from confluent_kafka import Producer  # noqa: PLC0415
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415
    from confluent_kafka.cimpl import NewTopic  # noqa: PLC0415

    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    try:
        admin.create_topics([NewTopic(TOPIC, 1, 1)], operation_timeout=READY_S)[TOPIC].result(READY_S)
    except Exception as error:  # the library has one exception for all
        raise NotHereError(f"the broker did not make a topic within {READY_S} s: {error}") from error
    producer: Any = Producer({"bootstrap.servers": address, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000})
    count = 0
    with events.open("rb") as lines:
        for line in lines:
            producer.produce(TOPIC, line.rstrip(b"\n"), orjson.loads(line)["customer_id"].encode())
            count += 1
            if count % 10_000 == 0:
                producer.poll(0)
    if producer.flush(READY_S):
        raise NotHereError("the broker did not take all calls")
    return count


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def _other_cores() -> Iterator[None]:
    """Let what is started here use the cores that this process does not, if there are any."""
    mine = os.sched_getaffinity(0)
    others = set(range(os.cpu_count() or 1)) - mine
    os.sched_setaffinity(0, others or mine)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def _settings(plain: int, controller: int, folder: str) -> str:
    return f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain}
controller.listener.names=CONTROLLER
log.dirs={folder}/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""
