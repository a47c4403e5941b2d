"""Pathway, static: all calls are read, then each customer's are sorted by place and run through river objects.

Within one step of its time Pathway gives rows in no order, and its JSON reader does not say where a line stood, while the
detectors need the order of arrival. So a Python connector numbers the calls, and a customer's are sorted by that number.
One worker thread.
"""

import os
from pathlib import Path
from typing import Any

from bench.peers.job import Clock, Detectors, Found, Work, main


def _detect(calls: tuple[tuple[int, str, bool, str, float], ...]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Run one customer's calls through the detectors; return the calls that fired, and the state."""
    detectors = Detectors()
    fired = []
    for _, call_id, answered, released_by, mos in calls:
        call = {"answer_ms": answered or None, "released_by": released_by, "mos": None if mos < 0.0 else mos}
        if detectors.see(call):
            fired.append(call_id)
    return tuple(fired), detectors.values()


def prepare(events: Path) -> Work:
    """Build the graph."""
    os.environ["PATHWAY_THREADS"] = "1"
    import orjson
    import pathway as pw  # type: ignore[import-not-found]  # in an environment of its own

    Detectors()
    found = Found()

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
                        answered=call.get("answer_ms") is not None,
                        released_by=call.get("released_by") or "",
                        mos=-1.0 if mos is None else mos,
                    )
                    found.events += 1

    class Calls(pw.Schema):  # type: ignore[misc]  # it has no types here
        at: int
        customer_id: str
        call_id: str
        answered: bool
        released_by: str
        mos: float

    calls = pw.io.python.read(Lines(), schema=Calls, autocommit_duration_ms=None)
    row = pw.make_tuple(calls.at, calls.call_id, calls.answered, calls.released_by, calls.mos)
    customers = calls.groupby(calls.customer_id).reduce(calls.customer_id, calls=pw.reducers.sorted_tuple(row))
    results = customers.select(customers.customer_id, result=pw.apply(_detect, customers.calls))

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
    main("pathway", prepare)
