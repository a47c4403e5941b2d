"""Quix Streams, from a broker: a streaming dataframe over the topic, river objects in a dict by message key.

Its state store holds JSON values, so river objects cannot lie in it; beside it they are faster and are not recovered,
which favours this peer. The clock starts at the first message: joining the group takes seconds.
"""
# ruff: noqa: PLC0415  imported where its absence can be said in one sentence

import tempfile
from pathlib import Path
from typing import Any

from bench.peers.job import Clock, Found, Work, main
from bench.peers.topic import TOPIC, filled


def prepare(events: Path) -> Work:
    """Start the broker and fill the topic."""
    from quixstreams import Application  # type: ignore[import-not-found]  # in an environment of its own

    from bench.peers.river_detectors import Detectors

    until_done, address, count = filled(events)
    app = Application(
        broker_address=address,
        consumer_group="peers",
        auto_offset_reset="earliest",
        state_dir=until_done.enter_context(tempfile.TemporaryDirectory()),
        loglevel="ERROR",
        auto_create_topics=False,
        use_changelog_topics=False,
    )

    def work(clock: Clock) -> Found:
        found, customers = Found(), dict[str, Detectors]()

        def step(call: dict[str, Any]) -> None:
            if not found.events:
                clock.start()
            found.events += 1
            customer = call["customer_id"]
            detectors = customers.get(customer)
            if detectors is None:
                detectors = customers[customer] = Detectors()
            if detectors.see(call):
                found.firings.append((customer, call["call_id"]))
            if found.events == count:
                clock.stop()

        with until_done:
            app.dataframe(app.topic(TOPIC, value_deserializer="json", key_deserializer="str")).update(step)
            app.run(count=count)
        found.states = {customer: detectors.values() for customer, detectors in customers.items()}
        return found

    return work


if __name__ == "__main__":
    main("quix", prepare, "quixstreams")
