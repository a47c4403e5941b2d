"""The small job's calls in a topic of a broker, for peers that read from one; it has cores of its own if there are."""
# ruff: noqa: PLC0415  not of the standard library: imported by who needs it

from contextlib import ExitStack
from pathlib import Path

from bench.broker import broker_elsewhere, fill, make_topic

TOPIC = "calls"


def filled(events: Path) -> tuple[ExitStack, str, int]:
    """Start a broker and fill a topic of one partition, keyed by customer.

    Returns:
        what ends the broker when closed, its address, and how many calls there are.

    Raises:
        NotHereError: no broker can run here.
    """
    import orjson

    with ExitStack() as stack:
        address = stack.enter_context(broker_elsewhere())
        make_topic(address, TOPIC)
        with events.open("rb") as lines:
            count = fill(address, TOPIC, ((orjson.loads(line)["customer_id"].encode(), line[:-1]) for line in lines))
        return stack.pop_all(), address, count
