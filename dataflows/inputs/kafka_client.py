"""How Kafka's brokers are reached and asked, and what the client says of them on the side."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from dataflows.config.inputs import KafkaAccess
from dataflows.logs import log
from schemas.errors import InputError
from sinks.reach import obstacle

CONNECT_S = 30.0
"""So long brokers may take to answer at the start. Later they may be away as long as they like."""

ANSWER_S = 5.0
"""So long one question may take before it is asked again."""

AT_ONCE_S = 1.0
"""So long whoever looks at the metrics waits for the brokers."""

TELL_S = 60.0
"""How often one sort of trouble is logged while it lasts."""

AWAY = frozenset({
    "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_TIMED_OUT_QUEUE", "_TRANSPORT", "_WAIT_COORD",
    "LEADER_NOT_AVAILABLE", "REQUEST_TIMED_OUT",
})  # fmt: skip
"""Errors that pass when brokers come back, beside those that say so of themselves; by the client's names."""

REFUSED = frozenset({"_AUTHENTICATION", "_SSL"})
"""Errors of brokers that do not let the client in."""

GONE = frozenset({"UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID", "_UNKNOWN_PARTITION"})
"""Errors that ask for a look at the topics."""

DAMAGED = frozenset({"_BAD_MSG", "_BAD_COMPRESSION"})
"""Errors of a batch that is not what its checksum says, or holds more than the client unpacks (100 MB)."""

Partition = tuple[str, int]
"""A topic's name and the number of one of its partitions."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class Topic(NamedTuple):
    """A topic as the brokers describe it.

    Attributes:
        partitions: their numbers.
        mark: half of the topic's id, by which it is told from another one of its name; 0 if the brokers have no ids.
    """

    partitions: list[int]
    mark: int


def connection(access: KafkaAccess, password: str | None) -> dict[str, str]:
    """Return how brokers are reached, as properties of librdkafka.

    Args:
        access: addresses, encryption and user.
        password: the user's; None where there is no user.
    """
    protocol = ("SASL_" if access.username is not None else "") + ("SSL" if access.tls else "PLAINTEXT")
    given = {
        "bootstrap.servers": ",".join(part.strip() for part in access.brokers.split(",")),
        "client.id": "stayline",
        "security.protocol": protocol,
        # What these are by default anyway: a certificate must be valid, and of the host that was called.
        "enable.ssl.certificate.verification": "true",
        "ssl.endpoint.identification.algorithm": "https",
        "socket.keepalive.enable": "true",
        "reconnect.backoff.max.ms": "2000",
        # The other way, a client that has committed and lost all brokers calls them forty times a second.
        "metadata.recovery.strategy": "none",
        # Errors come by callbacks; the library need not write them to standard error as well.
        "log_level": "0",
    }
    if access.ca_file is not None:
        given["ssl.ca.location"] = str(access.ca_file)
    if access.client_cert_file is not None:
        given["ssl.certificate.location"] = given["ssl.key.location"] = str(access.client_cert_file)
    if access.username is not None and password is not None:
        given |= {"sasl.mechanism": access.sasl_mechanism, "sasl.username": access.username, "sasl.password": password}
    return given


def passes(error: KafkaError) -> bool:
    """Tell whether an error goes away by waiting."""
    return error.retriable() or error.name() in AWAY


def error_of(failure: BaseException) -> KafkaError:
    """Return what an exception of the library is about; raise what is none of the library's."""
    found = failure.args[0] if failure.args else None
    if not isinstance(found, KafkaError):
        raise failure
    return found


class Trouble:
    """What the client says of brokers on the side: logged, each sort once in a while.

    Args:
        reached: how the brokers are reached.

    Attributes:
        last: the last of it.
        gone: a topic may be gone; to be set back by who has looked.
        commits: how many commits of offsets have ended.
    """

    def __init__(self, reached: Mapping[str, Any]) -> None:
        self._reached = reached
        self._logged_s: dict[str, float] = {}
        self._fatal = ""
        self._refused = ""
        self.last = ""
        self.gone = False
        self.commits = 0

    def hear(self, error: KafkaError) -> None:
        """Take note of an error."""
        if error.fatal():
            self._fatal = error.str()
        if error.name() in REFUSED:
            self._refused = error.str()
        self.gone |= error.name() in GONE
        # That all are down says less than what was said of one.
        if error.name() != "_ALL_BROKERS_DOWN" or not self.last:
            self.last = error.str()
        self._log("input.trouble", error)

    def of_commit(self, error: KafkaError | None, _: object) -> None:
        """Take note of what became of offsets shown to tools: nothing depends on them."""
        self.commits += 1
        if error is not None:
            self._log("input.offsets_not_shown", error)

    def raise_if_fatal(self, *, starting: bool) -> None:
        """Raise what waiting does not mend.

        Raises:
            InputError: the client is out of order or, at the start, not let in.
        """
        found = self._fatal or (self._refused if starting else "")
        if found:
            raise InputError(f"input.kafka: must be let in by the brokers, was not: {self.words(found)}")

    def words(self, said: str) -> str:
        """Return what is in the way to the brokers; what the client said of it, where nothing is found."""
        return obstacle(self._reached) or said

    def _log(self, event: str, error: KafkaError) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s.get(error.name(), -TELL_S) >= TELL_S:
            self._logged_s[error.name()] = now_s
            # Of a certificate the client says that it is refused, and not why: one day it expires.
            text = self.words(error.str()) if error.name() == "_SSL" else error.str()
            log(event, error=error.name(), text=text)


class Brokers:
    """Questions to the brokers about topics; None is given while an answer is on its way.

    Args:
        properties: of the client.
        topics: that are asked about.
        trouble: what another client of the same properties has heard.

    Attributes:
        patient: wait for answers as long as it takes; at first nobody waits longer than `CONNECT_S`.
    """

    def __init__(self, properties: Mapping[str, Any], topics: Iterable[str], trouble: Trouble) -> None:
        # Without a callback of its own: what nobody fetches from it would pile up.
        self._admin = AdminClient(dict(properties))
        self._address = properties["bootstrap.servers"]
        self._names = list(topics)
        self._trouble = trouble
        self.patient = False

    def close(self) -> None:
        """Let go of the client while the interpreter lives.

        Questions that are open are then answered, from a thread of the client's: at the end of the process, when
        Python collects what is left, that thread would abort it.
        """
        del self._admin

    def ask_topics(self) -> dict[str, Future[Any]]:
        """Ask for a description of the topics; the answer can be read by `described` once all of it is there."""
        return self._admin.describe_topics(TopicCollection(self._names), request_timeout=ANSWER_S)

    def tell_of_compacted(self) -> None:
        """Log which topics are compacted, once the brokers say so: of each key these keep the last message alone.

        Nothing is said of topics whose settings may not be read: they are no business of a reader.
        """
        asked = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in self._names], request_timeout=ANSWER_S
        )
        for topic, answer in asked.items():
            answer.add_done_callback(partial(_tell_if_compacted, topic.name))

    def topics(self, meanwhile: Callable[[], object]) -> Generator[None, None, dict[str, Topic]]:
        """Return the topics.

        Args:
            meanwhile: is called while nothing has come; lets the other client hear what is wrong.

        Raises:
            InputError: one cannot be read, nobody answers, or the client is not let in.
        """
        return described((yield from self._answers(self.ask_topics, meanwhile)))

    def ends(self, parts: Iterable[Partition], *, latest: bool) -> Generator[None, None, dict[Partition, int]]:
        """Return the first offsets of partitions, or those behind the last messages.

        Raises:
            InputError: one cannot be read, or nobody answers.
        """
        end = (OffsetSpec.latest if latest else OffsetSpec.earliest)()  # type: ignore[no-untyped-call]  # it has none
        wanted = {TopicPartition(*part): end for part in parts}
        if not wanted:
            return {}
        while True:
            found = yield from self._answers(lambda: self._admin.list_offsets(wanted, request_timeout=ANSWER_S))
            offsets = {(part.topic, part.partition): result.offset for part, result in found.items()}
            # Of a partition that was made a moment ago the answer may be -1001, "none", and no error.
            if min(offsets.values()) >= 0:
                return offsets
            yield None

    def ends_now(self, parts: Iterable[Partition]) -> dict[Partition, int]:
        """Return the offsets behind the last messages; of partitions whose brokers do not answer at once, nothing."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has none
        wanted = {TopicPartition(*part): latest for part in parts}
        asked = self._admin.list_offsets(wanted, request_timeout=AT_ONCE_S) if wanted else {}
        done, _ = wait(asked.values(), AT_ONCE_S)
        return {
            (part.topic, part.partition): future.result().offset
            for part, future in asked.items()
            if future in done and future.exception() is None
        }

    def _answers(
        self, ask: Callable[[], dict[Key, Future[Value]]], meanwhile: Callable[[], object] = lambda: None
    ) -> Generator[None, None, dict[Key, Value]]:
        deadline_s = time.monotonic() + CONNECT_S
        while True:
            futures = ask()
            while not all(future.done() for future in futures.values()):
                meanwhile()
                self._trouble.raise_if_fatal(starting=not self.patient)
                yield None
            errors = [error_of(one) for future in futures.values() if (one := future.exception()) is not None]
            if not errors:
                return {key: future.result() for key, future in futures.items()}
            if not passes(errors[0]):
                raise InputError(f"input.kafka.topics: must be topics that can be read, were not: {errors[0].str()}")
            if time.monotonic() > deadline_s and not self.patient:
                found = self._trouble.words(self._trouble.last or errors[0].str())
                raise InputError(f"{self._address}: must answer within {CONNECT_S:.0f} s, did not: {found}")


class Tail:
    """Reads what topics hold by now, and no more.

    Args:
        reached: how the brokers are reached.
        topics: names.

    Raises:
        InputError: they cannot be read (every method).
    """

    def __init__(self, reached: Mapping[str, str], topics: Iterable[str]) -> None:
        own = {"group.id": "stayline", "enable.auto.commit": False, "enable.partition.eof": True}
        self._consumer = Consumer(dict(reached) | own | {"auto.offset.reset": "earliest"})
        self._topics = list(topics)

    def partitions(self) -> int:
        """Return how many partitions each topic has."""
        with self._readable():
            found = [self._consumer.list_topics(topic, CONNECT_S).topics[topic] for topic in self._topics]
        counts = {len(one.partitions) for one in found}
        if len(counts) > 1 or 0 in counts:
            raise InputError(f"input.kafka.topics: must have equally many partitions, have {sorted(counts)}")
        return counts.pop()

    def read(self, begin: Mapping[Partition, int], most: int | None = None) -> Iterator[list[Message]]:
        """Give the messages of partitions from offsets on; of one that has lost them, from its first on.

        Args:
            begin: the offsets.
            most: about so many of each are enough; None: all that are there.
        """
        ends = {part: at + most for part, at in begin.items()} if most is not None else {}
        left, heard_s = set(begin), time.monotonic()
        with self._readable():
            self._consumer.assign([TopicPartition(*part, at) for part, at in begin.items()])
            while left:
                messages = self._consumer.consume(1_000, 0.2)
                heard_s = time.monotonic() if messages else heard_s
                if time.monotonic() > heard_s + CONNECT_S:
                    raise InputError(f"input.kafka: must be readable to the end, nothing came for {CONNECT_S:.0f} s")
                left -= set(self._ended(messages, ends))
                yield [message for message in messages if message.error() is None]

    @staticmethod
    def _ended(messages: list[Message], ends: Mapping[Partition, int]) -> Iterator[Partition]:
        for message in messages:
            error, part = message.error(), (str(message.topic()), int(message.partition() or 0))
            if error is not None and error.name() != "_PARTITION_EOF":
                raise KafkaException(error)
            if error is not None or (part in ends and int(message.offset() or 0) >= ends[part]):
                yield part

    def close(self) -> None:
        """Let go of the brokers."""
        self._consumer.close()

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise InputError(f"input.kafka: must be readable, was not: {error_of(error).str()}") from None


def _tell_if_compacted(topic: str, answer: Future[Any]) -> None:
    policy = "" if answer.exception() is not None else str(answer.result()["cleanup.policy"].value)
    if "compact" in policy:
        problem = "earlier calls of a customer are removed unread, and cannot be told from gaps: calls need delete"
        log("input.compacted", topic=topic, policy=policy, problem=problem)


def described(found: Mapping[str, Any]) -> dict[str, Topic]:
    """Return topics as the brokers describe them."""
    return {
        name: Topic(sorted(part.id for part in one.partitions), one.topic_id.get_most_significant_bits())
        for name, one in found.items()
    }
