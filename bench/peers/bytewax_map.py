"""Bytewax, the natural way: `stateful_map` with river objects a customer. No recovery store, one worker."""

from pathlib import Path
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from bench.peers.job import Clock, Found, Work, main
from bench.peers.river_detectors import Detectors

BATCH_LINES = 1_000
"""Lines a source gives at a time: bytewax's own default for files; more was no faster."""


def prepare(events: Path) -> Work:
    """Build the flow."""
    found = Found()
    customers: dict[str, Detectors] = {}
    fired: list[tuple[str, str]] = []

    def keyed(line: str) -> tuple[str, dict[str, Any]]:
        found.events += 1
        call = orjson.loads(line)
        return call["customer_id"], call

    def step(detectors: Detectors | None, call: dict[str, Any]) -> tuple[Detectors, str | None]:
        if detectors is None:
            # Known by name beside the engine only so that the final states can be compared.
            detectors = customers[call["customer_id"]] = Detectors()
        return detectors, call["call_id"] if detectors.see(call) else None

    def firing(item: tuple[str, str | None]) -> tuple[str, str] | None:
        customer, call = item
        return None if call is None else (customer, call)

    flow = Dataflow("small")
    lines = op.input("lines", flow, FileSource(events, batch_size=BATCH_LINES))
    calls = op.map("parse", lines, keyed)
    op.output("firings", op.filter_map("firing", op.stateful_map("detect", calls, step), firing), TestingSink(fired))

    def work(_: Clock) -> Found:
        run_main(flow)  # type: ignore[no-untyped-call]  # it has none
        found.firings = fired
        found.states = {customer: detectors.values() for customer, detectors in customers.items()}
        return found

    return work


if __name__ == "__main__":
    main("bytewax_map", prepare, "bytewax")
