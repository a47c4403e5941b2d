"""The whole job on Bytewax, the natural way: every event an item, objects a customer and an element (`whole_state`).

It need not and does not give Stayline's alerts. It does the same work for a call: typed decoding with dead letters,
what ended the call, the E-model, duplicates, four detectors a customer, tallies and a detector for each element that
the call ran through (a second keyed step, since elements are not in a customer's state), an alert as JSON where one
fires. It leaves out churn, remedies, credits, patterns and cases. WAY `recovery` keeps checkpoints, as often as
Stayline's row does.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, run_main

from bench.peers.bytewax_map import BATCH_LINES
from bench.peers.job import Clock, Found, Work, main
from bench.peers.own_whole import EPOCH
from bench.peers.whole_state import Customer, Element, Verdict, elements_of, rating_of
from schemas.decode import RecordError, decode_record
from schemas.events import Call, Event, Link, Media

Impact = tuple[str, tuple[Verdict, bool, bool]]
"""An element, and of a call through it: what ended it, whether it was answered, whether its media was poor."""
Out = tuple[bytes | None, list[Impact]]
"""An alert, and what the elements are to know."""


def parsed(line: str) -> Event | RecordError:
    """Return the event, or why there is none."""
    try:
        return decode_record(line.encode())
    except RecordError as error:
        return error


def keyed(event: Event | RecordError) -> tuple[str, Event] | None:
    """Return the event under its customer; None where it has none."""
    if isinstance(event, RecordError):
        return None
    customer = getattr(event, "customer_id", None)
    return None if customer is None or isinstance(event, Link) else (customer, event)


def step(customer: Customer | None, event: Event) -> tuple[Customer, Out]:
    """Let a customer see an event."""
    if customer is None:
        customer = Customer()
    if isinstance(event, Call):
        fired, verdict, poor = customer.see(event)
        if verdict is None:
            return customer, (None, [])
        impact = (verdict, event.answer_ms is not None, poor)
        return customer, (_alert(event, fired), [(name, impact) for name in elements_of(event)])
    if isinstance(event, Media) and (rating := rating_of(event)) is not None:
        customer.rate(rating)
    return customer, (None, [])


def _alert(call: Call, fired: list[str]) -> bytes | None:
    if not fired:
        return None
    return orjson.dumps({"customer_id": call.customer_id, "call_id": call.call_id, "kind": fired[0]})


def step_element(element: Element | None, impact: tuple[Verdict, bool, bool]) -> tuple[Element, bool]:
    """Let an element see a call."""
    if element is None:
        element = Element()
    verdict, answered, poor = impact
    return element, element.see(verdict, answered=answered, poor=poor)


def impacts(item: tuple[str, Out]) -> Iterable[Impact]:
    """Return what the elements are to know of a call."""
    return item[1][1]


def prepare(events: Path, way: str = "") -> Work:
    """Build the flow."""
    found, letters = Found(), list[Any]()
    alerts, incidents = list[bytes](), list[str]()

    def counted(line: str) -> Event | RecordError:
        found.events += 1
        return parsed(line)

    flow = Dataflow("whole")
    lines = op.input("lines", flow, FileSource(events, batch_size=BATCH_LINES))
    read = op.map("parse", lines, counted)
    refused = op.filter_map("refused", read, lambda one: str(one) if isinstance(one, RecordError) else None)
    op.output("letters", refused, TestingSink(letters))
    seen = op.stateful_map("customers", op.filter_map("keyed", read, keyed), step)
    op.output("alerts", op.filter_map("alert", seen, lambda item: item[1][0]), TestingSink(alerts))
    known = op.stateful_map("elements", op.flat_map("impacts", seen, impacts), step_element)
    op.output(
        "incidents", op.filter_map("incident", known, lambda one: one[0] if one[1] else None), TestingSink(incidents)
    )

    def work(_: Clock) -> Found:
        with tempfile.TemporaryDirectory() as folder:
            recovery = None
            if way == "recovery":
                init_db_dir(Path(folder), 1)  # type: ignore[no-untyped-call]  # it has none
                recovery = RecoveryConfig(folder)  # type: ignore[no-untyped-call]  # it has none
            run_main(flow, epoch_interval=EPOCH, recovery_config=recovery)  # type: ignore[no-untyped-call]  # it has none
        told = map(orjson.loads, alerts)
        found.firings = [(alert["customer_id"], f"{alert['call_id']} {alert['kind']}") for alert in told]
        found.firings += [("", name) for name in incidents]
        found.extra = {"dead_letters": len(letters), "incidents": len(incidents)}
        return found

    return work


if __name__ == "__main__":
    main("bytewax_whole", prepare, "bytewax")
