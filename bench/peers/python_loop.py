"""A plain Python loop: orjson, and river objects in a dict. No engine, no checkpoints, no way to scale out."""

from pathlib import Path

import orjson

from bench.peers.job import Clock, Found, Work, main
from bench.peers.river_detectors import Detectors


def prepare(events: Path) -> Work:
    """Nothing is left to prepare: the imports were it."""

    def work(_: Clock) -> Found:
        found = Found()
        customers: dict[str, Detectors] = {}
        with events.open("rb") as lines:
            for line in lines:
                call = orjson.loads(line)
                customer = call["customer_id"]
                detectors = customers.get(customer)
                if detectors is None:
                    detectors = customers[customer] = Detectors()
                if detectors.see(call):
                    found.firings.append((customer, call["call_id"]))
                found.events += 1
        found.states = {customer: detectors.values() for customer, detectors in customers.items()}
        return found

    return work


if __name__ == "__main__":
    main("python_loop", prepare)
