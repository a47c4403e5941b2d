"""The business side: who speaks to the carrier, who leaves, and the monthly bill."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.simulator.columns import NEVER_MS, UNKNOWN, Floats, Ints, generator
from bench.simulator.schedule import Schedule
from bench.simulator.spec import DAY_MS, HOUR_MS
from bench.simulator.world import BUSINESS, World, customer_name

TOPICS = ("billing", "other", "quality", "cancel")
BILLING, OTHER, QUALITY, CANCEL = range(4)
CHANNELS = ("phone", "chat", "app", "shop")
PLANS = (("talk-s", 16), ("talk-m", 50), ("talk-l", 250), ("office", 100))

LONG_FAULT_DAYS = 4
"""A fault that has lasted so long unresolved weighs on the wish to leave."""
HAZARD = {"young": 0.5, "contract_over": 0.7, "fee": 0.25, "cancel": 2.6, "long_fault": 0.45}
"""Log-odds added to the chance of leaving: a tenure under a year, a contract that has ended or ends within a
month, each standard deviation of the fee, a call to cancel, a long fault. The relationship outweighs the faults,
as it does in the field."""


@dataclass(frozen=True, slots=True)
class Relations:
    """Contacts as columns, and per customer when and how they left (NEVER_MS: not)."""

    contact_customer: Ints
    contact_ms: Ints
    contact_topic: Ints
    left_ms: Ints
    ported: Ints


def draw_relations(world: World, schedule: Schedule) -> Relations:
    """Walk through the run's days: contacts, and who leaves."""
    spec, rng = world.spec, generator(world.spec.seed, 7)
    n = spec.customers
    left_ms, wants_out = np.full(n, NEVER_MS), np.zeros(n, dtype=bool)
    contacts: list[tuple[Ints, Ints, Ints]] = []
    for day in range(spec.days):
        at_ms = spec.start_ms + day * DAY_MS
        here = left_ms == NEVER_MS
        ill_days = _days_ill(schedule, at_ms)
        for topic, chance in _contact_chances(world, ill_days, at_ms).items():
            who = np.flatnonzero(here & (rng.random(n) < chance))
            wants_out[who] |= topic == CANCEL
            when_ms = at_ms + rng.integers(8 * HOUR_MS, 19 * HOUR_MS, len(who))
            contacts.append((who, when_ms, np.full(len(who), topic)))
        leaves = np.flatnonzero(here & (rng.random(n) < _leave_chance(world, wants_out, ill_days, at_ms)))
        left_ms[leaves] = at_ms + rng.integers(19 * HOUR_MS, DAY_MS, len(leaves))
    who, when_ms, topics = (np.concatenate(parts) for parts in zip(*contacts, strict=True))
    return Relations(who, when_ms, topics, left_ms, (rng.random(n) < 0.7).astype(np.int64))


def _days_ill(schedule: Schedule, at_ms: int) -> Floats:
    """Per customer: days since the fault began that is still there; 0 for the healthy."""
    days = np.zeros(len(schedule.fault_of))
    ill = np.flatnonzero(schedule.fault_of != UNKNOWN)
    index = schedule.fault_of[ill]
    since = (at_ms - schedule.table["start_ms"][index]) / DAY_MS
    days[ill] = np.where(at_ms < schedule.table["end_ms"][index], np.maximum(since, 0.0), 0.0)
    return days


def _contact_chances(world: World, ill_days: Floats, at_ms: int) -> dict[int, Floats]:
    n = len(ill_days)
    ending = world.customers.contract_end_ms < at_ms + 30 * DAY_MS
    return {
        BILLING: np.full(n, 1 / 150),
        OTHER: np.full(n, 1 / 300),
        QUALITY: np.where(ill_days > 1.5, 0.06, 1 / 1_500),
        CANCEL: np.where(ill_days > LONG_FAULT_DAYS, 0.008, np.where(ending, 1 / 400, 1 / 2_000)),
    }


def _leave_chance(world: World, wants_out: np.ndarray[Any, Any], ill_days: Floats, at_ms: int) -> Floats:
    """Chance to leave today, per customer: an average day's, shifted in log-odds by the drivers."""
    people = world.customers
    fee = people.fee_minor.astype(float)
    drivers = (
        HAZARD["young"] * (people.tenure_days < 365)
        + HAZARD["contract_over"] * (people.contract_end_ms < at_ms + 30 * DAY_MS)
        + HAZARD["fee"] * (fee - fee.mean()) / max(fee.std(), 1.0)
        + HAZARD["cancel"] * wants_out
        + HAZARD["long_fault"] * (ill_days > LONG_FAULT_DAYS)
    )
    return np.asarray(world.spec.churn_month_ratio / 30.0 * np.exp(drivers - 0.6))


def profile(world: World, customer: int) -> dict[str, Any]:
    """Write what the business knows of a customer at the start of the run."""
    people = world.customers
    business = int(people.rhythm[customer]) == BUSINESS
    plan, mbps = PLANS[3] if business else PLANS[customer % 3]
    consent = [("phone", "email", "sms")[i] for i in range(3) if (customer * 7 + i * 3) % 5]
    return {
        "type": "profile",
        "customer_id": customer_name(customer),
        "at_ms": world.spec.start_ms,
        "plan": plan,
        "plan_down_mbps": mbps,
        "monthly_fee_minor": int(people.fee_minor[customer]),
        "currency": "EUR",
        "tenure_days": int(people.tenure_days[customer]),
        "contract_end_ms": int(people.contract_end_ms[customer]) if customer % 11 else None,
        "segment": "business" if business else "consumer",
        "consent": consent,
        "access_node": world.network.nodes[people.node[customer]],
        "language": ("en", "de", "fr")[customer % 3],
    }


def business_events(world: World, relations: Relations, window: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Write the contacts, bills and departures of a window; profiles come with the first."""
    if window[0] == world.spec.start_ms:
        yield from (profile(world, customer) for customer in range(world.spec.customers))
    who, when_ms, topics = relations.contact_customer, relations.contact_ms, relations.contact_topic
    for row in np.flatnonzero((when_ms >= window[0]) & (when_ms < window[1])):
        yield _contact(int(who[row]), int(when_ms[row]), int(topics[row]))
    for customer in np.flatnonzero((relations.left_ms >= window[0]) & (relations.left_ms < window[1])):
        yield _churn(relations, int(customer))
    for at_ms in range(window[0], window[1], HOUR_MS):
        yield from _bills(world, relations, at_ms)


def _contact(customer: int, at_ms: int, topic: int) -> dict[str, Any]:
    channel = CHANNELS[at_ms % len(CHANNELS)]
    return {
        "type": "contact", "customer_id": customer_name(customer), "at_ms": at_ms,
        "channel": channel, "topic": TOPICS[topic],
    }  # fmt: skip


def _churn(relations: Relations, customer: int) -> dict[str, Any]:
    kind = "port_out" if relations.ported[customer] else "closed"
    at_ms = int(relations.left_ms[customer])
    return {"type": "churn", "customer_id": customer_name(customer), "at_ms": at_ms, "kind": kind}


def _bills(world: World, relations: Relations, at_ms: int) -> list[dict[str, Any]]:
    """Bill one customer in thirty a day, at two in the morning."""
    if (at_ms // HOUR_MS) % 24 != 2:
        return []
    return [
        _usage(world, customer, at_ms)
        for customer in range(at_ms // DAY_MS % 30, world.spec.customers, 30)
        if relations.left_ms[customer] > at_ms
    ]


def _usage(world: World, customer: int, at_ms: int) -> dict[str, Any]:
    people = world.customers
    minutes = float(people.calls_per_day[customer] * people.talk_scale[customer]) * 30 * 0.66 * 3.5
    extra_minor = (customer * 7919 + at_ms // DAY_MS * 104_729) % 900
    return {
        "type": "usage", "customer_id": customer_name(customer), "at_ms": at_ms, "period_days": 30,
        "minutes": round(minutes, 1), "data_mb": round(40.0 * (customer * 31 % 977), 1),
        "bill_minor": int(people.fee_minor[customer]) + extra_minor, "currency": "EUR",
    }  # fmt: skip
