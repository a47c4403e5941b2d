"""A plain loop over a Kafka consumer: orjson, and river objects in a dict. No engine, no checkpoints.

The clock starts at the first message: connecting is not in it.
"""
# ruff: noqa: PLC0415  imported where its absence can be said in one sentence

from pathlib import Path

from bench.peers.job import Clock, Found, Work, main
from bench.peers.topic import TOPIC, filled

BATCH = 10_000
"""Messages that one call to the library gives at the most."""


def prepare(events: Path) -> Work:
    """Start the broker and fill the topic."""
    import orjson
    from confluent_kafka import Consumer, TopicPartition

    from bench.peers.river_detectors import Detectors

    until_done, address, count = filled(events)

    def work(clock: Clock) -> Found:
        found, customers = Found(), dict[str, Detectors]()
        consumer = Consumer({"bootstrap.servers": address, "group.id": "peers", "enable.auto.commit": False})
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        while found.events < count:
            messages = consumer.consume(BATCH, 1.0)
            if not found.events:
                clock.start()
            for message in messages:
                if message.error():
                    raise RuntimeError(str(message.error()))
                call = orjson.loads(message.value() or b"")
                customer = call["customer_id"]
                detectors = customers.get(customer)
                if detectors is None:
                    detectors = customers[customer] = Detectors()
                if detectors.see(call):
                    found.firings.append((customer, call["call_id"]))
            found.events += len(messages)
        clock.stop()
        consumer.close()
        until_done.close()
        found.states = {customer: detectors.values() for customer, detectors in customers.items()}
        return found

    return work


if __name__ == "__main__":
    main("consumer", prepare, "confluent-kafka")
