"""Notifications on a Kafka topic, in the outbox's order.

A batch counts as delivered when the broker has confirmed every message of it. Where it has not, the batch is sent again
later: a message may then stand on the topic twice, with the same id (header `ce_id`), but none is missing.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.alerts import Notification
from schemas.errors import ConfigError
from sinks.outputs import NotificationRefusedError, OutputDownError
from sinks.reach import obstacle

CONFIRMED_S = 10.0
"""So long the broker may take to confirm a batch; a program that is asked to end waits for it."""

ASKED_S = 2.0
"""So long it may take to find out what is wrong with the brokers."""

CONTENT_TYPE = "application/cloudevents+json"
"""CloudEvents 1.0, Kafka binding, section 3.3: structured mode: what a notification is if it has no other shape."""

REFUSED = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG", "INVALID_MSG_SIZE", "_INVALID_ARG"})
"""Errors of one message that no waiting mends; by the client's names."""


class Record(NamedTuple):
    """A message to be written; partition -1: by its key."""

    body: bytes
    key: str
    partition: int = -1


class KafkaOutput:
    """A stream output that writes to a topic.

    The key is the case, so that its revisions keep their order in one partition; of an incident, in the shape that says
    it, it is the element.

    Args:
        name: the configured name.
        topic: it must be there.
        properties: how the brokers are reached, as librdkafka names it; what is given here wins.
        content_type: of the bodies, whatever shape they come in.

    Raises:
        ConfigError: the client does not take the properties: a file of certificates cannot be read, for example.
    """

    def __init__(
        self, name: str, topic: str, properties: Mapping[str, Any], *, content_type: str = CONTENT_TYPE
    ) -> None:
        self.name = name
        self._content_type = content_type
        self.topic = topic
        self._properties = {
            "enable.idempotence": True,
            "linger.ms": 5,
            # A topic may take less at once than the client would send.
            "batch.size": 65_536,
            "compression.type": "lz4",
            # Shorter than what a batch is waited for: each message has its report by then.
            "message.timeout.ms": int(800 * CONFIRMED_S),
            **properties,
        }
        try:
            self._producer: Producer | None = Producer(self._properties)
        except KafkaException as error:
            raise ConfigError([f"output {name}: must be what a client can use, was not: {_said(error)}"]) from None

    def recover(self, position: int) -> int:
        """Return the position: what a topic holds stays, and is told again by its ids."""
        return position

    def append(self, position: int, notifications: Sequence[Notification]) -> int:
        """Write a batch; return the number of notifications written so far.

        Raises:
            OutputDownError: the broker has not confirmed all of them.
            NotificationRefusedError: the broker never takes this one. Others of the batch may have been written, and
                are written again.
        """
        errors = self._send(notifications)
        if any(error is not None and error.name() in REFUSED for error in errors):
            # Messages travel together and are refused together: which of them it is shows when each goes alone.
            errors = [self._send([notification])[0] for notification in notifications]
        for index, error in enumerate(errors):
            if error is not None and error.name() in REFUSED:
                raise NotificationRefusedError(index, f"the broker must take the message, did not: {error.str()}")
        failed = [error for error in errors if error is not None]
        if failed:
            # What the client says of itself, that time has run out for example, is not what went wrong.
            why = self._why() if failed[0].name().startswith("_") else ""
            raise self._down(f"{len(failed)} of {len(errors)} not taken: {failed[0].str()}", why)
        return position + len(notifications)

    def _send(self, notifications: Sequence[Notification]) -> list[KafkaError | None]:
        """Write some, wait for the broker's answers, and return what it said of each."""
        if self._producer is None:
            self._producer = Producer(self._properties)
        reports: list[list[_Report]] = []
        for notification in notifications:
            reports.append([])
            for record in self._records(self._producer, notification):
                reports[-1].append(_Report())
                self._produce(self._producer, notification, record, reports[-1][-1])
        left = self._producer.flush(CONFIRMED_S)
        errors = [next((one.error for one in each if one.error is not None), None) for each in reports]
        silent = left or not all(one.ended for each in reports for one in each)
        if silent or any(error is not None for error in errors):
            self._give_up()
        if silent:
            raise self._down(f"{left} of {len(reports)} without an answer after {CONFIRMED_S:.0f} s", self._why())
        return errors

    def _records(self, _: Producer, notification: Notification) -> list[Record]:
        """Return what a notification is on the topic."""
        return [Record(notification.body, self._key(notification))]

    def _produce(self, producer: Producer, notification: Notification, record: Record, report: "_Report") -> None:
        headers: list[tuple[str, str | bytes | None]] = [
            ("content-type", self._content_type),
            ("ce_id", notification.id.encode()),
        ]
        while True:
            try:
                producer.produce(
                    self.topic,
                    record.body,
                    record.key,
                    record.partition,
                    on_delivery=report.end,
                    headers=headers,
                )
            except BufferError:
                # The client's queue is full: what is in it must go out first, or expire.
                producer.poll(0.1)
            except KafkaException as error:
                report.end(error.args[0], None)
                return
            else:
                return

    def _give_up(self) -> None:
        """Drop a client with all that it holds and believes; the next batch opens another."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.poll(0)
            self._producer = None

    def _key(self, notification: Notification) -> str:
        if self._content_type != CONTENT_TYPE or not notification.type.startswith("stayline.incident."):
            return notification.case
        subject: str = orjson.loads(notification.body)["subject"]
        return subject

    def _why(self) -> str:
        """Return what keeps the client from its brokers, as far as it can be found out.

        What goes wrong with connections is heard by a client of its own: a client that is idle would hoard what nobody
        fetches from it.
        """
        heard: list[KafkaError] = []
        if not (found := obstacle(self._properties)):
            asking = Producer(self._properties | {"error_cb": heard.append})
            with contextlib.suppress(KafkaException):
                asking.list_topics(self.topic, ASKED_S)
            asking.poll(0)
        # That all are down says less than what was said of one.
        told = sorted(heard, key=lambda error: error.name() == "_ALL_BROKERS_DOWN")
        return found or (str(told[0].str()) if told else "")

    def _down(self, found: str, why: str) -> OutputDownError:
        more = f" ({why})" if why else ""
        return OutputDownError(
            f"output {self.name}: topic {self.topic} must confirm every message, found {found}{more}"
        )


class _Report:
    """What the broker said of one message."""

    def __init__(self) -> None:
        self.ended = False
        self.error: KafkaError | None = None

    def end(self, error: KafkaError | None, _: object) -> None:
        self.ended, self.error = True, error


def _said(failure: KafkaException) -> str:
    found = failure.args[0] if failure.args else failure
    return str(found.str()) if isinstance(found, KafkaError) else str(found)
