"""What the page comes to: in a few lines at its head, and as sums for many customers at its end."""

import math
import textwrap
from collections.abc import Callable

from bench.harness import quantiles
from bench.numbers.runs import Run, table, times

CALLS_PER_CUSTOMER_S, REPORTS_PER_CUSTOMER_S = 4_000 / 10e6, 60_000 / 10e6
"""Call records and media reports of a customer in the busy hour: a carrier of ten million with as many in all."""

CALL_BYTES, REPORT_BYTES = 489, 200
"""Of a call as the benches simulate it, and of a media report."""

REPLICAS, KEPT_DAYS = 3, 3
"""Of what Kafka holds."""

BUSY_RATIO = 0.5
"""So much of a core a process takes in the busy hour: a backlog of an hour is read within an hour."""

WIDTH = 120

SHORT = """\
- One core reads, judges and checkpoints {rate:,.0f} events a second of NDJSON. \
Reading the same bytes with `orjson.loads` and nothing else is {bare:.1f} times as fast.
- The same work as a map of Python objects on the same engine has {engine:.2f} of our rate. \
In a small job, one detector alone, Flink in Java has {flink:.2f} of it.
- At {offered}, 99 of 100 alerts are there {late_ms:.0f} ms after their call was due to be read; \
{webhooks:,.0f} signed webhooks a second go out.
- Of the simulated faults {ours[recall]:.0%} are found, \
with {ours[false_per_10k_days]:.2f} false alerts in 10,000 healthy customer-days; \
by the rule *three drops in seven days* {rule[recall]:.0%}, with {rule[false_per_10k_days]:.2f}.
"""
"""What the page comes to, also where others do better."""

BUSY_HOUR = """\
In the busy hour a million customers make {calls:,.0f} call records and {reports:,.0f} media reports a second \
(as many a customer as a carrier of ten million with 4,000 and 60,000), of {call_bytes} and {report_bytes} bytes. \
Brokers keep {replicas} replicas for {days} days, at a third of the busy hour's rate in the mean. \
The rest is from the figures above:
"""

SUBSCRIBERS = (1e6, 10e6, 100e6)


def short(run: Callable[[str], Run | None]) -> list[str]:
    """Say in a few lines what the page comes to."""
    speed, board, sent, peers = (run(f) for f in ("throughput-profile", "detection", "delivery-desk-metering", "peers"))
    if speed is None or board is None or sent is None or peers is None:
        return []
    latency = speed.of("latency")[1]
    marks = {line["name"]: line["marks"] for line in board.one("detection")["rows"]}
    ratios = times(peers)
    webhooks = sent.one("delivery")
    told = SHORT.format(
        rate=speed.rate("flow, checkpoints"),
        bare=1 / speed.ratio("flow, checkpoints"),
        engine=ratios["bytewax_whole"],
        flink=ratios["flink_extract"],
        offered=latency["name"],
        late_ms=quantiles(latency["told_ms"])[1],
        webhooks=webhooks["count"] / webhooks["sent_s"],
        ours=marks["Stayline"],
        rule=marks["three in seven"],
    )
    bullets = [line for text in told.splitlines() for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
    return ["## In short", "", *bullets, ""]


def cost(speed: Run | None, state: Run | None) -> list[str]:
    """Return what customers take: sums of figures above, in cores and bytes, as prices differ."""
    if speed is None or state is None:
        return []
    sizes = [line["residence"] for line in speed.of("customers")]
    each = (sizes[-1]["held_bytes"] - sizes[0]["held_bytes"]) / (sizes[-1]["customers"] - sizes[0]["customers"])
    largest = state.of("stalls")[-1]["stalls"]
    disk = largest["held_bytes"] / largest["customers"]
    rate = speed.rate("flow, checkpoints")

    def row(what: str, number: str, a_customer: float) -> list[str]:
        return [what, *(format(a_customer * count, number) for count in SUBSCRIBERS)]

    events_s = CALLS_PER_CUSTOMER_S + REPORTS_PER_CUSTOMER_S
    bytes_s = CALLS_PER_CUSTOMER_S * CALL_BYTES + REPORTS_PER_CUSTOMER_S * REPORT_BYTES
    processes = [f"{math.ceil(events_s * count / (rate * BUSY_RATIO)):,}" for count in SUBSCRIBERS]
    assumed = BUSY_HOUR.format(
        calls=1e6 * CALLS_PER_CUSTOMER_S,
        reports=1e6 * REPORTS_PER_CUSTOMER_S,
        call_bytes=CALL_BYTES,
        report_bytes=REPORT_BYTES,
        replicas=REPLICAS,
        days=KEPT_DAYS,
    )
    return [
        "## What a million customers cost",
        "",
        *textwrap.wrap(assumed, WIDTH),
        "",
        *table(
            ["customers", *(f"{count / 1e6:,.0f} million" for count in SUBSCRIBERS)],
            row("cores, in the busy hour", ",.2f", events_s / rate),
            ["processes, each half busy then", *processes],
            row("memory of their state, GB", ",.1f", each / 1e9),
            row("checkpoints on disk, GB", ",.1f", disk / 1e9),
            row("network in, MB/s", ",.1f", bytes_s / 1e6),
            row("the topic on the brokers' disks, TB", ",.1f", REPLICAS * KEPT_DAYS * 86_400 * bytes_s / 3 / 1e12),
            row("a watcher, which reads the calls alone: cores", ",.3f", CALLS_PER_CUSTOMER_S / rate),
        ),
        "",
        "Multiply by your own price of a core, of memory and of disk. [Sizing](sizing.md) says what to add for bursts,",
        "the outbox and the spool, [scaling](scaling.md) what processes and a watcher are.",
    ]
