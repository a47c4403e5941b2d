"""Incidents told to the processes of the same deployment: as `incident` events, in every partition that they read.

Each process takes them in the order in which they stand among its partition's other events. So what they lead to is
again a matter of that partition alone, and the same after a restart.
"""

import orjson
from confluent_kafka import KafkaException, Producer

from schemas.alerts import Notification
from sinks.kafka import CONFIRMED_S, KafkaOutput, Record
from sinks.outputs import OutputDownError


class Announcements(KafkaOutput):
    """A stream output that writes incidents to every partition of a topic, keyed by element; of all else nothing."""

    def _records(self, producer: Producer, notification: Notification) -> list[Record]:
        event = event_of(notification)
        if event is None:
            return []
        try:
            found = producer.list_topics(self.topic, CONFIRMED_S).topics[self.topic]
        except KafkaException as error:
            raise OutputDownError(f"output {self.name}: topic {self.topic} must be known, was not: {error}") from None
        if found.error is not None or not found.partitions:
            raise OutputDownError(f"output {self.name}: topic {self.topic} must have partitions: {found.error}")
        key = orjson.loads(event)["element_id"]
        return [Record(event, key, number) for number in sorted(found.partitions)]


def event_of(notification: Notification) -> bytes | None:
    """Return the `incident` event that says what a notification says; None where it says nothing of an incident."""
    if not notification.type.startswith("stayline.incident."):
        return None
    told = orjson.loads(notification.body)["data"]
    is_over = notification.type == "stayline.incident.cleared"
    event = {
        "type": "incident",
        "incident_id": told["incident_id"],
        "element_kind": told["element_kind"],
        "element_id": told["element_id"],
        "at_ms": told["cleared_ms"] if is_over else told["since_ms"],
        "status": "cleared" if is_over else "open",
    }
    return orjson.dumps(event)
