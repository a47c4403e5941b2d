"""A plain Python loop: orjson, and river objects in a dict. No engine, no checkpoints, no way to scale out."""

from pathlib import Path

from bench.peers.job import Clock, Detectors, Found, Work, main


def prepare(events: Path) -> Work:
    """Import what the loop needs."""
    import orjson

    Detectors()

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
