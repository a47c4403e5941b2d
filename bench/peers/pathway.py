"""Pathway, static: all calls are read, then each customer's are sorted by place and run through river objects.

Within one step of its time Pathway gives rows in no order, and its JSON reader does not say where a line stood, while
the detectors need the order of arrival. So a Python connector numbers the calls, and a customer's are sorted by that.
One worker thread.
"""
# ruff: noqa: PLC0415  imported where its absence can be said in one sentence

import os
from pathlib import Path
from typing import Any

from bench.peers.job import Clock, Found, Work, main

UNKNOWN = -1.0


def prepare(events: Path) -> Work:
    """Build the graph."""
    os.environ["PATHWAY_THREADS"] = "1"
    import orjson
    import pathway as pw  # type: ignore[import-not-found]  # in an environment of its own

    from bench.peers.river_detectors import Detectors, drop_bit

    found = Found()

    def detect(calls: tuple[tuple[int, str, float, float], ...]) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Run one customer's calls through the detectors; return the calls that fired, and the state."""
        detectors = Detectors()
        fired = [call_id for _, call_id, drop, mos in calls if detectors.observe(drop, None if mos == UNKNOWN else mos)]
        return tuple(fired), detectors.values()

    class Lines(pw.io.python.ConnectorSubject):  # type: ignore[misc]  # it has no types here
        """The file's calls, numbered."""

        def run(self) -> None:
            with events.open("rb") as lines:
                for at, line in enumerate(lines):
                    call = orjson.loads(line)
                    mos = call.get("mos")
                    self.next(
                        at=at,
                        customer_id=call["customer_id"],
                        call_id=call["call_id"],
                        drop=drop_bit(call),
                        mos=UNKNOWN if mos is None else mos,
                    )
                    found.events += 1

    class Calls(pw.Schema):  # type: ignore[misc]  # it has no types here
        at: int
        customer_id: str
        call_id: str
        drop: float
        mos: float

    calls = pw.io.python.read(Lines(), schema=Calls, autocommit_duration_ms=None)
    row = pw.make_tuple(calls.at, calls.call_id, calls.drop, calls.mos)
    customers = calls.groupby(calls.customer_id).reduce(calls.customer_id, calls=pw.reducers.sorted_tuple(row))
    results = customers.select(customers.customer_id, result=pw.apply(detect, customers.calls))

    def keep(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:  # noqa: ARG001, FBT001  its signature
        fired, values = row["result"]
        found.firings += [(row["customer_id"], call_id) for call_id in fired]
        found.states[row["customer_id"]] = values

    pw.io.subscribe(results, on_change=keep)

    def work(_: Clock) -> Found:
        pw.run(monitoring_level=pw.MonitoringLevel.NONE)
        return found

    return work


if __name__ == "__main__":
    main("pathway", prepare, "pathway")
