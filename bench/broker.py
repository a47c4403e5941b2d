"""A real Kafka broker of one node, for tests and benchmarks: on loopback, its data in a folder of the caller's.

It is started from jars that Maven fetches (`kafka/pom.xml`), with a JDK; where there is none, from an image by Docker.
The standard library alone is imported
before a topic is filled: peers of the race use this module in other interpreters than the project's own.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from bench.maven import NotHereError, built

CLUSTER = "c3RheWxpbmUtcGVlcnMtMQ"
"""Kafka wants 16 bytes, base64url."""

READY_S = 180.0
"""So long it may take to answer: on a busy machine the JVM is slow to come up."""

IMAGE = "apache/kafka:3.9.1"
"""By the project itself; of the version whose jars Maven fetches."""

QUICK_START = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For the JVM: up in half the time, and slower once it runs. For tests, which start it often."""


class Broker:
    """A broker that can be started, ended and started again, on the same port with the same data.

    Args:
        folder: for its settings, its log and its data.
        settings: of the broker, added to or put in the place of those that it needs to run alone.
        listeners: further listeners: name -> (security protocol, host that it is known by).
        arguments: of `kafka-storage format`.
        options: of the JVM.

    Attributes:
        address: `host:port` for clients, without encryption.
        addresses: the same of each further listener.

    Raises:
        NotHereError: it cannot be built.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        listeners: Mapping[str, tuple[str, str]] | None = None,
        arguments: Iterable[str] = (),
        options: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self._options = list(options)
        self._jars: str | None = None
        self._containers = 0
        try:
            self._jars = built(Path(__file__).parent / "kafka")
        except NotHereError as error:
            _require_docker(error)
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._port, controller = free_port(), free_port()
        further = {name: (protocol, f"{host}:{free_port()}") for name, (protocol, host) in (listeners or {}).items()}
        self.address = f"127.0.0.1:{self._port}"
        self.addresses = {name: address for name, (_, address) in further.items()}
        given = _settings(self.address, f"127.0.0.1:{controller}", further, folder) | dict(settings or {})
        lines = "".join(f"{name}={value}\n" for name, value in given.items())
        self._settings = folder / "server.properties"
        self._settings.write_text(lines, encoding="utf-8")

    def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            NotHereError: it ends, or does not listen in time.
        """
        if not (self.folder / "data").exists():
            form = ["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(self._settings), *self._arguments]
            done = subprocess.run([*self._java(), *form], check=False, capture_output=True, text=True)  # noqa: S603  ours
            if done.returncode != 0:
                raise NotHereError(f"the broker's folder could not be prepared: {done.stderr.strip()[-300:]}")
        with (self.folder / "log").open("ab") as log:
            command = [*self._java(), "kafka.Kafka", str(self._settings)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603  our own words
        deadline_s = time.monotonic() + READY_S
        while not _listens(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                raise NotHereError(f"the broker did not come up in {READY_S:.0f} s; its log: {self.folder / 'log'}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is None:
            return
        if self._jars is None and self._process.poll() is None:
            # To kill the client of Docker alone would leave the broker running.
            subprocess.run(["docker", "kill", self._container()], check=False, capture_output=True)  # noqa: S603, S607
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _java(self) -> list[str]:
        """Return how the JVM is started with Kafka's classes: here, or in a container that is as good as here."""
        if self._jars is not None:
            return ["java", *self._options, "-cp", self._jars]
        # A container that was killed may keep its name for a while.
        self._containers += 1
        shared = [
            "--network",
            "host",
            "--user",
            f"{os.getuid()}:{os.getgid()}",
            "--volume",
            f"{self.folder}:{self.folder}",
        ]
        run = ["docker", "run", "--rm", "--name", self._container(), *shared, "--entrypoint", "java", IMAGE]
        return [*run, *self._options, "-cp", "/opt/kafka/libs/*"]

    def _container(self) -> str:
        return f"stayline-broker-{self._port}-{self._containers}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def broker_elsewhere() -> Iterator[str]:
    """Give the address of a broker that runs on the cores that this process does not use; end it.

    Raises:
        NotHereError: it cannot be built, or does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        one = Broker(Path(folder))
        with _other_cores():
            one.start()
        try:
            yield one.address
        finally:
            one.kill()


def make_topic(address: str, topic: str, partitions: int = 1, settings: Mapping[str, str] | None = None) -> None:
    """Make a topic.

    Raises:
        NotHereError: the broker does not make it.
    """
    # Not of the standard library: imported by who needs it.
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415
    from confluent_kafka.cimpl import NewTopic  # noqa: PLC0415

    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    wanted = NewTopic(topic, partitions, 1, config=dict(settings or {}))
    try:
        admin.create_topics([wanted], operation_timeout=READY_S)[topic].result(READY_S)
    except Exception as error:  # the library has one exception for all
        raise NotHereError(f"the broker did not make a topic within {READY_S:.0f} s: {error}") from error


def fill(address: str, topic: str, records: Iterable[tuple[bytes | None, bytes | None]], partition: int = -1) -> int:
    """Write records, each a key and a value, and wait until the broker has them; return how many.

    Args:
        address: of the broker.
        topic: must be there.
        records: keys and values; None is null.
        partition: to write all to; -1: by the key.

    Raises:
        NotHereError: the broker does not take them.
    """
    from confluent_kafka import Producer  # noqa: PLC0415  as above

    # What is sent again for want of an answer must neither come twice nor overtake what was sent behind it.
    settings = {"bootstrap.servers": address, "linger.ms": 20, "queue.buffering.max.messages": 2_000_000}
    settings |= {"enable.idempotence": True}
    producer: Any = Producer({**settings, "message.max.bytes": 8 << 20, "log_level": 0})
    failures: list[Any] = []
    count = 0
    for key, value in records:
        producer.produce(
            topic, value, key, partition, on_delivery=lambda error, _: failures.append(error) if error else None
        )
        count += 1
        if count % 10_000 == 0:
            producer.poll(0)
    left = producer.flush(READY_S)
    if left or failures:
        raise NotHereError(f"the broker must take all {count} records, did not take {left + len(failures)}")
    return count


def _require_docker(found: NotHereError) -> None:
    asked = None
    if shutil.which("docker") is not None:
        asked = subprocess.run(["docker", "info"], check=False, capture_output=True)  # noqa: S607  of the PATH
    if asked is None or asked.returncode != 0:
        raise NotHereError(f"{found}; nor does Docker run") from found


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex(("127.0.0.1", port)) == 0


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


def _settings(plain: str, controller: str, further: Mapping[str, tuple[str, str]], folder: Path) -> dict[str, str]:
    known = {"PLAIN": plain, **{name: address for name, (_, address) in further.items()}}
    protocols = {"PLAIN": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **{name: one for name, (one, _) in further.items()}}
    # A further listener may be known by a name; it listens on loopback all the same.
    bound = {name: f"127.0.0.1:{address.rpartition(':')[2]}" for name, address in known.items()}
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "listeners": _joined(bound | {"CONTROLLER": controller}, "://"),
        "advertised.listeners": _joined(known, "://"),
        "listener.security.protocol.map": _joined(protocols, ":"),
        "inter.broker.listener.name": "PLAIN",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "data"),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
    }


def _joined(pairs: Mapping[str, str], between: str) -> str:
    return ",".join(f"{name}{between}{value}" for name, value in pairs.items())
