"""Kafka as an input: what one poll gives is one item of the flow.

Where reading goes on stands in the checkpoint alone. The group's offsets on the brokers are written too, behind the
checkpoint, for tools that show lag; they are never read. An offset that the brokers do not have (any more) is an
error: the client's own answer to it would be to go on somewhere else without a word.
"""

import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from itertools import groupby
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dataflows.config.inputs import KafkaInput
from dataflows.config.kinds import owns
from dataflows.inputs.chunks import Chunk
from dataflows.inputs.files import CHUNK_BYTES
from dataflows.inputs.kafka_client import DAMAGED, GONE, Brokers, Partition, Topic, Trouble, described, error_of, passes
from dataflows.inputs.messages import SPREAD_ANEW, Shard, Sharded, Taken, converted, joined, place_of
from dataflows.logs import log
from schemas.errors import ConfigError, InputError
from schemas.formats import Format

POLL_S = 0.05
"""So long a poll may wait for its chunk to fill: what it adds to an alert's delay."""

MESSAGES_MAX = 5_000
"""Messages of one poll; fewer where they are large, so that a chunk stays near `CHUNK_BYTES`."""

STEPS = 20
"""A chunk is taken from the client in so many steps: its messages are in a cache of the processor still when they are
let go of, and so it takes two thirds of the time that one step of them all takes."""

QUEUE_KB = 8_192
"""What the client fetches ahead: more than comes while a chunk is worked on, and so little that it stays in a cache."""

LOOK_S = 10.0
"""How often topics are looked at: for new partitions, and whether they are still the same."""

FINISH_S = 5.0
"""So long the end of a run waits until the brokers have taken the last offsets."""


class Poll(NamedTuple):
    """What one poll gave, and where reading goes on behind it: of partitions that are kept apart, `Sharded`."""

    chunks: list[Any]
    place: tuple[int, ...]

    def joined(self) -> Iterator[Chunk]:
        """Give the chunks, whether partitions are kept apart or not."""
        for one in self.chunks:
            yield from one.chunks if isinstance(one, Sharded) else [one]


class KafkaReader:
    """Reads partitions of topics: all of them together, or those that are named, each apart.

    Args:
        given: `[input.kafka]`.
        reached: how the brokers are reached (see `kafka_client.connection`).
        group: under whose name offsets are shown to tools.
        open_format: opens the vendor's format for one message; None: messages hold contract events.
        parted: of how many partitions the states are, where they are kept apart; None: there are none yet. Those that
            came to a topic since then are not read: whose they are is known in others until states are divided anew.

    Attributes:
        lag: messages of each partition that waited to be read when it was measured last.
        lost: messages that were gone before they were read, and were passed over.

    Raises:
        ConfigError: the client does not take the properties: a file of certificates cannot be read, for example.
    """

    def __init__(
        self,
        given: KafkaInput,
        reached: Mapping[str, str],
        group: str,
        open_format: Callable[[], Format] | None = None,
        parted: int | None = None,
    ) -> None:
        self._given = given
        self._open_format = open_format
        self._parted = parted
        self._trouble = Trouble(reached)
        own = {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            # Behind the last message may lie what is none: ends of transactions, and what was taken back.
            "enable.partition.eof": True,
            "check.crcs": True,
            # By default a full queue is looked at again after a second: longer than it takes to empty it.
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": QUEUE_KB,
            "error_cb": self._trouble.hear,
            "on_commit": self._trouble.of_commit,
        }
        try:
            self._consumer = Consumer(dict(reached) | own)
            self._brokers = Brokers(reached, given.topics, self._trouble)
        except KafkaException as error:
            raise ConfigError(
                [f"input.kafka: must be what a client can use, was not: {error_of(error).str()}"]
            ) from None
        self._topics: dict[str, Topic] = {}
        self._offsets: dict[Partition, int] = {}
        self._kept: list[int] = []
        self._count = MESSAGES_MAX
        self._asked: dict[str, Future[Any]] = {}
        self._look_at_s = 0.0
        self._shown: dict[Partition, int] = {}
        self._commits = 0
        self._said = False
        self.lag: dict[Partition, int] = {}
        self.lost = 0

    def read(self, place: tuple[int, ...] | None) -> Iterator[Poll | None]:
        """Give what the partitions hold from a place on, for ever; None where there is nothing new yet.

        Args:
            place: four integers a partition: the topic's name (CRC-32) and mark, the partition's number, the offset.

        Raises:
            InputError: a topic is not there, is another one than before, may not be read, or no longer holds what
                comes next (on iteration).
        """
        try:
            yield from self._read(() if place is None else place)
        except KafkaException as error:
            raise InputError(f"input.kafka: must be readable, was not: {error_of(error).str()}") from None

    def _read(self, place: tuple[int, ...]) -> Iterator[Poll | None]:
        self._topics = yield from self._brokers.topics(lambda: self._consumer.poll(0.0))
        yield from self._begin(place)
        self._brokers.tell_of_compacted()
        self._brokers.patient = True
        # Where it begins is fixed now: a restart before the first message must not begin somewhere else.
        yield Poll([self._sharded(number) for number in self._numbers()], self._place())
        while True:
            taken, ends, failed = self._take()
            yield self._poll(taken, ends)
            for message in failed:
                yield from self._mend(message)
            yield from self._look()

    def committed(self, place: tuple[int, ...]) -> None:
        """Show a place that a checkpoint holds to tools that watch the group; passed over while one is on its way."""
        offsets = {part: at for part, at in self._known(place).items() if part in self._offsets}
        # Two that wait for the group's broker may come there in either order.
        if offsets == self._shown or self._trouble.commits < self._commits:
            return
        self._shown = offsets
        self._commits += 1
        try:
            fresh = [TopicPartition(*part, at) for part, at in offsets.items()]
            self._consumer.commit(offsets=fresh, asynchronous=True)
        except KafkaException as error:
            self._trouble.of_commit(error_of(error), None)

    def finish(self) -> None:
        """Show how far reading came, once the last checkpoint is taken, and wait a moment until the brokers know."""
        deadline_s = time.monotonic() + FINISH_S
        self._consumer.unassign()
        self._await_shown(deadline_s)
        self.committed(self._place())
        self._await_shown(deadline_s)

    def _await_shown(self, deadline_s: float) -> None:
        while self._trouble.commits < self._commits and time.monotonic() < deadline_s:
            self._consumer.consume(1, POLL_S)

    def close(self) -> None:
        """Let go of the brokers."""
        self._brokers.close()
        self._consumer.close()

    # Where reading begins and goes on

    def _begin(self, place: tuple[int, ...]) -> Generator[None, None, None]:
        # What came while nobody read, or with another topic of the same name, is new from its first message on.
        seen = {topic for topic, _ in self._known(place)}
        place = self._of_same_topics(place)
        known = self._known(place)
        self._require_parted(self._topics)
        wanted = [(topic, number) for topic in self._given.topics for number in self._wanted(topic)]
        fresh = [part for part in wanted if part not in known]
        late = [part for part in fresh if part[0] not in seen and self._given.start == "latest"]
        early = [part for part in fresh if part not in late]
        self._offsets = {part: at for part, at in known.items() if part in wanted}
        self._offsets |= yield from self._brokers.ends(early, latest=False)
        self._offsets |= yield from self._brokers.ends(late, latest=True)
        # What is known of partitions that are not read now is kept: they may be read again.
        read = {(name_of(topic), number) for topic, number in wanted}
        self._kept = [number for four in fours(place) if (four[0], four[2]) not in read for number in four]
        self._assign()

    def _of_same_topics(self, place: tuple[int, ...]) -> tuple[int, ...]:
        """Return a place without the topics that were made again since, if these may be begun anew."""
        topics = {name_of(topic): topic for topic in self._given.topics}
        kept: list[int] = []
        for name, mark, number, at in fours(place):
            topic = topics.get(name)
            problem = "" if topic is None else _made_again(topic, mark, self._topics[topic].mark)
            if problem and self._given.on_gap == "stop":
                raise InputError(f'{problem}; on_gap = "skip" begins it at its first message')
            if topic is not None and problem:
                log("input.lost", at=place_of(topic, number, at), problem=problem)
            else:
                kept += (name, mark, number, at)
        return tuple(kept)

    def _known(self, place: tuple[int, ...]) -> dict[Partition, int]:
        topics = {name_of(topic): topic for topic in self._given.topics}
        return {(topics[name], number): at for name, _, number, at in fours(place) if name in topics}

    def _wanted(self, topic: str) -> Iterable[int]:
        there = self._topics[topic].partitions
        named = self._given.partitions
        missing = set(named) - set(there) if type(named) is tuple else set()
        if missing:
            found = f"{topic} has {len(there)}, and none of number {min(missing)}"
            raise InputError(f"input.kafka.partitions: must be partitions of each topic, were not: {found}")
        return [number for number in there if owns(named, number) and not self._waits(number)]

    def _waits(self, number: int) -> bool:
        """Whether a partition came since states are kept apart."""
        return self._parted is not None and number >= self._parted

    def _require_parted(self, topics: Mapping[str, Topic]) -> None:
        """Hold topics whose partitions are kept apart against each other, and against what states are of.

        A customer has one number in all of them. Where there are a multiple of the partitions that the states are of,
        these hold what they always held, and no customer that they did not.
        """
        if self._given.partitions == "all":
            return
        counts = {topic: len(found.partitions) for topic, found in topics.items()}
        now = max(counts.values())
        if self._parted is None and min(counts.values()) < now:
            found = ", ".join(f"{topic} {count}" for topic, count in counts.items())
            raise InputError(f"input.kafka.topics: must have equally many partitions, have: {found}")
        self._parted = now if self._parted is None else self._parted
        for topic, count in counts.items():
            if count % self._parted:
                rule = f"must have {self._parted} partitions, as when states were begun, or a multiple, has {count}"
                raise InputError(f"{topic}: {rule}: {SPREAD_ANEW}")
        if now > self._parted and not self._said:
            self._said = True
            log("input.partitions", read=self._parted, waiting=now - self._parted)

    def _numbers(self) -> list[int]:
        """Return the numbers of the partitions that are kept apart."""
        return [] if self._given.partitions == "all" else sorted({number for _, number in self._offsets})

    def _place(self) -> tuple[int, ...]:
        flat = list(self._kept)
        for (topic, number), at in self._offsets.items():
            flat += (name_of(topic), self._topics[topic].mark, number, at)
        return tuple(flat)

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(*part, at) for part, at in self._offsets.items()])

    # What comes

    def _take(self) -> tuple[dict[int, Taken], dict[Partition, int], list[Message]]:
        """Take what comes, by partition where those are kept apart.

        Returns:
            What came; the ends of partitions that were reached; what came in a message's place.
        """
        taken: dict[int, Taken] = {}
        ends: dict[Partition, int] = {}
        failed: list[Message] = []
        left, step, deadline_s = self._count, max(1, self._count // STEPS), time.monotonic() + POLL_S
        while left > 0 and not failed and (rest_s := deadline_s - time.monotonic()) > 0:
            messages = self._consumer.consume(min(left, step), rest_s)
            left -= len(messages)
            # Errors are few, and found without a step of Python for each message. (An error is true; it must not be
            # compared with None, which leaves an exception behind.)
            if any(map(Message.error, messages)):
                odd = [message for message in messages if message.error() is not None]
                ends |= {_part_of(message): int(message.offset() or 0) for message in odd if _is_end(message)}
                failed = [message for message in odd if not _is_end(message)]
                messages = [message for message in messages if message.error() is None]
            for number, run in self._apart(messages):
                if number not in taken:
                    taken[number] = self._begun(number)
                taken[number].add(run)
        return taken, ends, failed

    def _begun(self, number: int) -> Taken:
        """Return what takes messages: of a partition that is kept apart, or of all that are read together."""
        topic = self._given.topics[0] if len(self._given.topics) == 1 else None
        if self._given.partitions != "all":
            return Taken(topic, number)
        return Taken(topic, next(iter(self._offsets))[1] if len(self._offsets) == 1 else None)

    def _apart(self, messages: list[Message]) -> Iterator[tuple[int, list[Message]]]:
        if not messages:
            return
        if self._given.partitions == "all":
            yield 0, messages
            return
        # Messages of a partition come in runs: what is fetched at once is handed out at once.
        if len(self._offsets) == 1 or len(set(map(Message.partition, messages))) == 1:
            yield messages[0].partition() or 0, messages
            return
        for number, run in groupby(messages, Message.partition):
            yield number or 0, list(run)

    def _poll(self, taken: dict[int, Taken], ends: Mapping[Partition, int]) -> Poll | None:
        for one in taken.values():
            self._offsets.update(one.ends())
        moved = {part: at for part, at in ends.items() if at > self._offsets.get(part, at)}
        self._offsets |= moved
        if taken:
            size = sum(one.size for one in taken.values()) + 1
            self._count = max(1, min(MESSAGES_MAX, CHUNK_BYTES * sum(map(len, taken.values())) // size))
        elif not moved:
            return None
        if self._given.partitions == "all":
            return Poll(self._chunks(taken[0]) if taken else [], self._place())
        numbers = taken.keys() | {number for _, number in moved}
        return Poll([self._sharded(number, taken.get(number)) for number in sorted(numbers)], self._place())

    def _chunks(self, taken: Taken) -> list[Chunk]:
        if self._open_format is None:
            return [joined(taken.values, taken)]
        return converted(taken.values, taken, self._open_format)

    def _sharded(self, number: int, taken: Taken | None = None) -> Sharded:
        place: list[int] = []
        for topic in self._given.topics:
            place += (name_of(topic), self._topics[topic].mark, number, self._offsets[topic, number])
        return Sharded(Shard(number, self._parted or 0, tuple(place)), [] if taken is None else self._chunks(taken))

    # What goes wrong

    def _mend(self, message: Message) -> Generator[None, None, None]:
        """Judge what a partition gave in place of a message."""
        error, part = message.error(), _part_of(message)
        if error is None or passes(error):
            return
        if error.name() in GONE:
            self._trouble.gone = True
        elif error.name() in DAMAGED and part in self._offsets:
            self._step_over(part, max(self._offsets[part], int(message.offset() or 0)), error.str())
        elif error.name() == "_AUTO_OFFSET_RESET" and part in self._offsets:
            yield from self._pass_over(part)
        else:
            raise InputError(f"{part[0]}[{part[1]}]: must be readable, was not: {error.str()}")

    def _pass_over(self, part: Partition) -> Generator[None, None, None]:
        """Go on behind messages that are gone, if that is wanted."""
        at = self._offsets[part]
        first = (yield from self._brokers.ends([part], latest=False))[part]
        behind = (yield from self._brokers.ends([part], latest=True))[part]
        rule = f"{place_of(*part, at)}: must be there, where reading goes on; the partition begins at {first}"
        if at > behind:
            raise InputError(f"{rule} and ends at {behind}: the brokers have lost what was read already")
        if at < first and self._given.on_gap == "stop":
            raise InputError(f'{rule}: {first - at} messages are lost unread; on_gap = "skip" passes over such gaps')
        if at < first:
            log("input.lost", at=place_of(*part, at), messages=first - at)
            self.lost += first - at
            self._offsets[part] = first
        self._assign()

    def _step_over(self, part: Partition, at: int, found: str) -> None:
        """Go on behind a message that cannot be unpacked, if that is wanted; of a batch the next one is tried then."""
        if self._given.on_gap == "stop":
            rule = f"{place_of(*part, at)}: must be readable, was not: {found}"
            raise InputError(f'{rule}; on_gap = "skip" passes over what cannot be unpacked')
        log("input.lost", at=place_of(*part, at), messages=1)
        self.lost += 1
        self._offsets[part] = at + 1
        self._assign()

    def _look(self) -> Generator[None, None, None]:
        """Look now and then whether topics are the same, and have new partitions."""
        self._trouble.raise_if_fatal(starting=False)
        now_s = time.monotonic()
        if not self._asked and (now_s >= self._look_at_s or self._trouble.gone):
            self._look_at_s, self._trouble.gone = now_s + LOOK_S, False
            self._asked = self._brokers.ask_topics()
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return
        asked, self._asked = self._asked, {}
        errors = {topic: error_of(one) for topic, future in asked.items() if (one := future.exception()) is not None}
        for topic, error in errors.items():
            if not passes(error):
                raise InputError(f"{topic}: must stay a topic that can be read, did not: {error.str()}")
        if not errors:
            yield from self._learn(described({topic: future.result() for topic, future in asked.items()}))

    def _learn(self, topics: dict[str, Topic]) -> Generator[None, None, None]:
        for topic, found in topics.items():
            if problem := _made_again(topic, self._topics[topic].mark, found.mark):
                raise InputError(problem)
        self._require_parted(topics)
        self._topics = topics
        new = [(topic, n) for topic in topics for n in self._wanted(topic) if (topic, n) not in self._offsets]
        if new:
            self._offsets |= yield from self._brokers.ends(new, latest=False)
            log("input.partitions", new=len(new), all=len(self._offsets))
            self._assign()

    def measure(self) -> None:
        """Measure the lag, also while nobody reads and from another thread; keep the old one if nobody answers."""
        # What waits for states to be divided is lag too.
        waiting = [(topic, number) for topic, found in self._topics.items() for number in found.partitions]
        offsets = dict.fromkeys((part for part in waiting if self._waits(part[1])), 0) | self._offsets
        for part, end in self._brokers.ends_now(offsets).items():
            self.lag[part] = max(0, end - offsets[part])


class KafkaFigures(Collector):
    """What a reader shows of itself."""

    def __init__(self, reader: KafkaReader) -> None:
        self._reader = reader

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it stands."""
        self._reader.measure()
        labels = ["topic", "partition"]
        lag = GaugeMetricFamily("stayline_input_lag_messages", "Messages that wait to be read.", labels=labels)
        for (topic, number), count in dict(self._reader.lag).items():
            lag.add_metric([topic, str(number)], count)
        yield lag
        lost = CounterMetricFamily("stayline_input_lost_messages", "Messages gone before they were read.")
        lost.add_metric([], self._reader.lost)
        yield lost


def _part_of(message: Message) -> Partition:
    return str(message.topic()), int(message.partition() or 0)


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.name() == "_PARTITION_EOF"


def name_of(topic: str) -> int:
    """Return what stands for a topic's name in a place."""
    return zlib.crc32(topic.encode())


def messages_before(place: tuple[int, ...]) -> int:
    """Return how many messages lie before a place, those of each partition's first offset counted: it only grows."""
    return sum(place[3::4])


def fours(place: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Give the topic's name, its mark, the partition's number and the offset of each partition of a place."""
    return zip(*[iter(place)] * 4, strict=True)


def _made_again(topic: str, before: int, now: int) -> str:
    """Return what is wrong with a topic that is another one of its name; empty: nothing."""
    # Brokers before 2.8 have no ids.
    if not before or not now or before == now:
        return ""
    return f"{topic}: must be the topic that was read before, is another one of its name: it was deleted and made again"
