"""One evening to watch: a telco of a few thousand customers in which several things go wrong early; and its past."""

from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter

import numpy as np
import orjson

from bench.simulator.arrivals import Counts, Outbox, travel
from bench.simulator.columns import NEVER_MS, Ints, generator
from bench.simulator.endings import HARD
from bench.simulator.faults import draw_fault
from bench.simulator.relations import business_events, draw_relations
from bench.simulator.run import Telco, found, other_events
from bench.simulator.schedule import Fault, Outage, ProbeFault, make_schedule
from bench.simulator.spec import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, TelcoSpec
from bench.simulator.traffic import day_windows
from bench.simulator.window import Exchange
from bench.simulator.world import MIXED, World, build_world, customer_name
from schemas.alerts import PatternKind

EVENING = TelcoSpec(customers=5_000, days=1, seed=5)
"""A telco that suits a demonstration."""
BEGINS_HOUR = 17
EVENING_MS = 6 * HOUR_MS
HEAD_MS = 130 * MINUTE_MS
"""So much of the evening is over when watching begins: most of the faults are found, and a node has failed."""
PAST_DAYS = 120
"""Four bills of everybody, and some three hundred departures, from which it is learnt who leaves."""

CAST: tuple[PatternKind, ...] = (
    "one_way_audio",
    "drop_rate",
    "setup_failure",
    "duration_lock",
    "redial",
    "quality",
    "route",
    "drop_rate",
)
"""The faults of the evening in the order in which they begin."""
VICTIM_CALLS_PER_DAY = 250.0
"""The victims are busy offices: about sixteen calls an hour, so that trouble shows within the hour."""
VICTIM_CHANNELS = 6
FAULT_RATE_MIN = 0.5
STEP_SHOWN_S = 15
"""Seconds of watching between two troubles; `STEP_MS` of the evening at most."""
STEP_MS = 10 * MINUTE_MS


def past(spec: TelcoSpec) -> Iterator[bytes]:
    """Tell what the business knew before the evening: profiles, bills, contacts, and who left.

    Who left is a former customer, under another name than those of the evening.

    Args:
        spec: the telco of the evening.

    Yields:
        One NDJSON line with its line end, in the order of event time.
    """
    begins_ms = spec.start_ms - spec.start_ms % DAY_MS - PAST_DAYS * DAY_MS
    world = build_world(replace(spec, start_ms=begins_ms, days=PAST_DAYS))
    nothing = make_schedule([], [], [], np.full(spec.customers, NEVER_MS))
    relations = draw_relations(world, nothing)
    former = {customer_name(int(one)) for one in np.flatnonzero(relations.left_ms != NEVER_MS)}
    for window in day_windows(begins_ms, begins_ms + PAST_DAYS * DAY_MS, DAY_MS):
        for event in sorted(business_events(world, relations, window), key=itemgetter("at_ms")):
            if event["customer_id"] in former:
                event["customer_id"] = event["customer_id"].replace("c", "f")
            if event["type"] == "profile":
                event["tenure_days"] = max(event["tenure_days"] - PAST_DAYS, 0)
            yield orjson.dumps(event) + b"\n"


def story(spec: TelcoSpec, speed: float) -> Iterator[tuple[int, bytes]]:
    """Tell one evening, 17 to 23 h UTC of the spec's first day, in the order of event time.

    The evening is made hour by hour, so that it begins at once. The same arguments tell the same story.

    Args:
        spec: the telco; its own share of faults and outages is not used.
        speed: seconds of the evening that will be shown in one second. Trouble is placed by it: something new
            begins every 15 s of watching, or every ten minutes of the evening, whichever is sooner.

    Yields:
        Event time in ms, and one NDJSON line with its line end.
    """
    telco = cast_evening(spec, speed)
    world = telco.world
    begins_ms = world.spec.start_ms
    exchange, outbox = Exchange(world, telco.schedule), Outbox(world, order="end_ms")
    for window in day_windows(begins_ms, begins_ms + EVENING_MS, HOUR_MS):
        rng = generator(spec.seed, 30, window[0])
        calls = exchange.run(window)
        events = other_events(telco, calls, window, rng)
        outbox.put(travel(world.spec, calls, Counts(), rng), events)
        for times_ms, lines in outbox.release(window[1]):
            for at_ms, line in zip(times_ms.tolist(), lines, strict=True):
                yield at_ms, line + b"\n"


def cast_evening(spec: TelcoSpec, speed: float) -> Telco:
    """Set up the telco of a story: who has which trouble, and from when. Arguments as for `story`."""
    begins_ms = spec.start_ms - spec.start_ms % DAY_MS + BEGINS_HOUR * HOUR_MS
    spec = replace(spec, start_ms=begins_ms, days=1)
    step_ms = min(STEP_MS, int(STEP_SHOWN_S * SECOND_MS * speed))
    rng = generator(spec.seed, 31)
    victims = rng.choice(spec.customers, min(len(CAST), spec.customers), replace=False)
    world = _make_busy(build_world(spec), victims)
    faults = [
        _evident(world, int(victim), pattern, (begins_ms + place * step_ms, begins_ms + EVENING_MS), rng)
        for place, (victim, pattern) in enumerate(zip(victims, CAST, strict=False), 1)
    ]
    outage_ms = begins_ms + (len(CAST) + 1) * step_ms
    outage = _node_outage(world, victims, outage_ms)
    liar = ProbeFault(0, outage_ms + HOUR_MS, outage_ms + 3 * HOUR_MS)
    return found(world, make_schedule(faults, [outage], [liar], np.full(spec.customers, NEVER_MS)))


def _make_busy(world: World, victims: Ints) -> World:
    """Turn customers into busy offices."""
    people = world.customers
    busy = np.isin(np.arange(world.spec.customers), victims)
    channels = np.where(busy, VICTIM_CHANNELS, people.channels)
    customers = replace(
        people,
        calls_per_day=np.where(busy, VICTIM_CALLS_PER_DAY, people.calls_per_day),
        rhythm=np.where(busy, MIXED, people.rhythm),
        contacts=np.where(busy, 300, people.contacts),
        second_share=np.where(busy, 0.4, people.second_share),
        channels=channels,
        first_line=np.cumsum(channels) - channels,
    )
    return replace(world, customers=customers)


def _evident(
    world: World, customer: int, pattern: PatternKind, period: tuple[int, int], rng: np.random.Generator
) -> Fault:
    """Draw a fault that shows soon: often enough, and not on a route that is seldom taken."""
    fault = draw_fault(world, customer, pattern, period, rng)
    while fault.pattern == "route" and fault.column not in ("sbc", "codec"):
        fault = draw_fault(world, customer, pattern, period, rng)
    return replace(fault, rate=max(fault.rate, FAULT_RATE_MIN))


def _node_outage(world: World, victims: Ints, start_ms: int) -> Outage:
    """Break the busiest access node that no victim hangs on, for an hour and a half."""
    people, nodes = world.customers, world.network.nodes
    load = np.bincount(people.node, weights=people.calls_per_day, minlength=len(nodes))
    load[people.node[victims]] = 0.0
    code = int(load.argmax())
    return Outage("access_node", nodes[code], "node", code, start_ms, start_ms + 90 * MINUTE_MS, 0.85, HARD + 2)
