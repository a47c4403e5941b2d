"""Bad input costs its own time only: the flow with one broken record in a hundred, beside the flow without."""

import random
from collections.abc import Callable

from bench.cases.common import BASE, Bench, Events
from bench.cases.flow import durable_flow
from bench.harness import race

EVERY = 100
"""One record in so many is broken."""

BREAKS: tuple[Callable[[bytes], bytes], ...] = (
    lambda record: record[: len(record) // 2],  # cut off
    lambda record: record.replace(b'"customer_id"', b'"customer"'),  # a field is missing
    lambda record: record.replace(b'"start_ms":', b'"start_ms":"soon",'),  # of another type
    lambda record: record.replace(b'"type":"', b'"type":"no-'),  # of no type known
    lambda record: record.replace(b'":"', b'":"\xff'),  # not UTF-8
    lambda _: b"a line of some log",
)
"""Ways in which records go wrong."""


def flow_with_broken_records(bench: Bench) -> None:
    """Measure the flow with checkpoints over whole and over partly broken records, in one race."""
    whole = bench.telco
    path = bench.folder / "broken.ndjson"
    path.write_bytes(b"".join(line + b"\n" for line in broken_lines(whole)))
    events = Events(path)
    works = {
        BASE: events.parse,
        "flow, checkpoints, all whole": lambda: durable_flow(whole.path, bench.folder),
        "flow, checkpoints, 1 % broken": lambda: durable_flow(path, bench.folder),
    }
    rates = race(len(events), bench.options.rounds, works)
    bench.report.race(rates)
    ratio, cpu_ratio = rates[2].ratio_to(rates[1]), rates[2].cpu_ratio_to(rates[1])
    bench.report.record("broken", ratio=ratio, cpu_ratio=cpu_ratio)
    bench.report.say(f"with 1 % broken records the flow runs at {ratio:.3f} of its rate, {cpu_ratio:.3f} by cpu time")


def broken_lines(events: Events) -> list[bytes]:
    """Return the records, one in a hundred broken in one of the ways there are."""
    rng = random.Random(1)
    lines = list(events.lines)
    for at in range(0, len(lines), EVERY):
        line = rng.choice(BREAKS)(lines[at])
        lines[at] = line if line != lines[at] else b"{}"
    return lines
