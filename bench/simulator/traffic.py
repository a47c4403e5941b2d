"""Who calls whom, when and for how long, while nothing is wrong."""

import numpy as np

from bench.simulator.columns import NEVER_MS, UNKNOWN, Bools, Columns, Floats, Ints, height, join, mix, take
from bench.simulator.endings import ANSWER_ENDINGS, BUSY, NO_ANSWER, NORMAL
from bench.simulator.schedule import Schedule
from bench.simulator.spec import DAY_MS, HOUR_MS, SECOND_MS
from bench.simulator.world import NEW_FIRMWARE, PROBES, RESIDENT, TALK_SIGMA, TRUNKS, World

TALK_MEDIAN_S = 60.0
WEEKEND = (0.85, 0.12, 0.55)
"""Traffic of a weekend day relative to a weekday, by rhythm."""
HOURS = np.array(
    [
        [1, 0.5, 0.3, 0.2, 0.2, 0.5, 1.5, 3, 4, 5, 5, 5, 5, 4.5, 4.5, 5, 6, 8, 10, 11, 10, 7, 4, 2],
        [0.2, 0.1, 0.1, 0.1, 0.1, 0.3, 1, 4, 9, 12, 12, 11, 8, 10, 11, 10, 8, 4, 2, 1, 0.7, 0.5, 0.3, 0.2],
        [1.5, 1, 0.8, 0.6, 0.6, 1, 2, 3, 5, 6, 6, 6, 5, 6, 6, 6, 6, 6, 7, 7, 6, 5, 3, 2],
    ]
)
"""Calls by local hour, for residents (an evening peak), businesses (office hours) and those in between."""


def plan_calls(
    world: World, schedule: Schedule, window: tuple[int, int], line_free_ms: Ints, rng: np.random.Generator
) -> Columns:
    """Draw the calls that begin in a window, as they would run undisturbed.

    Args:
        world: the telco.
        schedule: who has left, and who has which firmware.
        window: first and past-the-last moment; full hours.
        line_free_ms: when each line's last call ended; a line holds one call at a time.
        rng: the window's random stream.

    Returns:
        Calls in the order of line and start. `limit_ms` is the start of the line's next call.
    """
    customer, start_ms = _attempts(world, window, rng)
    here = start_ms < schedule.left_ms[customer]
    customer, start_ms = customer[here], start_ms[here]
    people = world.customers
    channel = (rng.random(len(customer)) * people.channels[customer]).astype(np.int64)
    order = np.lexsort((start_ms, people.first_line[customer] + channel))
    customer, start_ms, channel = customer[order], start_ms[order], channel[order]
    calls = _with_callers(world, customer, start_ms, rng)
    calls["line"] = people.first_line[customer] + channel
    _dial(world, calls, rng)
    calls = _with_followers(world, calls, rng)
    _lay_on_lines(calls, line_free_ms, _gaps_ms(calls, rng))
    calls["firmware"] = np.where(
        calls["start_ms"] >= schedule.firmware_ms[calls["customer"]], NEW_FIRMWARE, calls["firmware"]
    )
    return calls


def hourly_shares(utc_offset_h: int, rhythm: int, window: tuple[int, int]) -> Floats:
    """Weigh each hour of a window: the share of a weekday's calls that falls into it."""
    first_hour = window[0] // HOUR_MS + utc_offset_h
    hours = first_hour + np.arange((window[1] - window[0]) // HOUR_MS)
    # The Unix epoch was a Thursday, so days 2 and 3 of each seven are the weekend.
    weekend = np.isin((hours // 24) % 7, (2, 3))
    weights = HOURS[rhythm] / HOURS[rhythm].sum()
    return np.asarray(weights[hours % 24] * np.where(weekend, WEEKEND[rhythm], 1.0))


def peer_numbers(world: World, customer: Ints, rank: Ints) -> Ints:
    """Name a customer's contacts: 48-bit tokens, the same for the same customer and rank."""
    return (mix(customer * 4096 + rank, world.spec.seed + 11) >> np.uint64(16)).astype(np.int64)


def trunk_of(peer: Ints) -> Ints:
    """Route a far end: its calls always take the same trunk."""
    return (mix(peer, 5) % np.uint64(len(TRUNKS))).astype(np.int64)


def draw_talk(calls: Columns, world: World, rng: np.random.Generator) -> None:
    """Draw anew how the calls go: answered or not, ringing and talking time; ends follow from them."""
    n = height(calls)
    answered = rng.random(n) < 0.66
    median_s = TALK_MEDIAN_S * world.customers.talk_scale[calls["customer"]]
    talk_ms = np.clip(median_s * np.exp(rng.normal(0.0, TALK_SIGMA, n)), 1.0, 4 * 3600.0) * SECOND_MS
    ending = np.where(answered, NORMAL, rng.choice(len(ANSWER_ENDINGS), n, p=[e.share for e in ANSWER_ENDINGS]))
    ring_ms = np.clip(np.exp(rng.normal(2.0, 0.55, n)), 1.0, 40.0) * SECOND_MS
    ring_ms = np.where(ending == BUSY, rng.uniform(300, 4_000, n), ring_ms)
    ring_ms = np.where(ending == NO_ANSWER, rng.uniform(15_000, 50_000, n), ring_ms)
    answer_ms = calls["start_ms"] + ring_ms.astype(np.int64)
    calls["answer_ms"] = np.where(answered, answer_ms, UNKNOWN)
    calls["end_ms"] = answer_ms + np.where(answered, talk_ms, 0.0).astype(np.int64)
    calls["ending"] = ending


def _attempts(world: World, window: tuple[int, int], rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw how many calls each customer begins in the window, and when."""
    people = world.customers
    group = people.rhythm * 3 + people.utc_offset_h
    shares = np.array([hourly_shares(g % 3, g // 3, window) for g in range(9)])
    total = shares.sum(axis=1)
    count = rng.poisson(people.calls_per_day * total[group])
    customer = np.repeat(np.arange(len(count)), count)
    reach = np.cumsum(shares / total[:, None], axis=1)[:, :-1]
    pick, hour = rng.random(len(customer)), np.zeros(len(customer), dtype=np.int64)
    for edge in reach.T:
        hour += pick > edge[group[customer]]
    return customer, window[0] + hour * HOUR_MS + rng.integers(0, HOUR_MS, len(customer))


def _with_callers(world: World, customer: Ints, start_ms: Ints, rng: np.random.Generator) -> Columns:
    """Start the table: what follows from whose call it is."""
    people, network, n = world.customers, world.network, len(customer)
    node = people.node[customer]
    other_codec, other_sbc = (rng.random((2, n)) < people.second_share[customer]).astype(bool)
    # One call in fifty is seen by another region's probe.
    probe = np.where(rng.random(n) < 0.02, rng.integers(0, len(PROBES), n), network.node_probe[node])
    return {
        "customer": customer,
        "start_ms": start_ms,
        "node": node,
        "region": network.node_region[node],
        "model": people.model[customer],
        "firmware": people.firmware[customer],
        "codec": np.where(other_codec, people.codecs[1][customer], people.codecs[0][customer]),
        "sbc": np.where(other_sbc, people.sbcs[1][customer], people.sbcs[0][customer]),
        "probe": probe,
    }


def _dial(world: World, calls: Columns, rng: np.random.Generator) -> None:
    """Choose the far end by Zipf's law over the contact list, and add the columns of an undisturbed call."""
    n, customer = height(calls), calls["customer"]
    rank = (world.customers.contacts[customer] + 1.0) ** rng.random(n) - 1.0
    calls["peer"] = peer_numbers(world, customer, rank.astype(np.int64))
    # A few numbers are everybody's: the bank, the doctor, the carrier itself.
    shared = peer_numbers(world, np.full(n, UNKNOWN), rng.integers(0, 200, n))
    calls["peer"] = np.where(rng.random(n) < 0.04, shared, calls["peer"])
    calls["trunk"] = trunk_of(calls["peer"])
    calls["outbound"] = rng.random(n) < 0.56
    draw_talk(calls, world, rng)
    calls["follows"] = np.zeros(n, dtype=bool)
    add_trouble_columns(calls)


def add_trouble_columns(calls: Columns) -> None:
    """Add what trouble will write into, all at rest."""
    n = height(calls)
    for name in ("fault", "outage"):
        calls[name] = np.full(n, UNKNOWN)
    for name in ("loss_added", "jitter_added", "burst_added", "redial_chance"):
        calls[name] = np.zeros(n)
    for name in ("spoiled", "mutual", "deaf"):
        calls[name] = np.zeros(n, dtype=bool)
    calls["silence_ms"] = np.full(n, UNKNOWN)
    calls["limit_ms"] = np.full(n, NEVER_MS)


def _with_followers(world: World, calls: Columns, rng: np.random.Generator) -> Columns:
    """Add the benign redials: something was forgotten, or the line was busy."""
    patience = np.where(calls["answer_ms"] >= 0, world.customers.redial_ratio[calls["customer"]], 0.07)
    parents = np.flatnonzero(rng.random(height(calls)) < patience)
    children = take(calls, parents)
    children["follows"] = np.ones(len(parents), dtype=bool)
    children["outbound"] = children["outbound"] | (rng.random(len(parents)) < 0.5)
    draw_talk(children, world, rng)
    joined = join([calls, children])
    order = np.argsort(np.concatenate([np.arange(height(calls)), parents + 0.5]), kind="stable")
    return take(joined, order)


def _gaps_ms(calls: Columns, rng: np.random.Generator) -> Ints:
    """Draw the least pause of a line before each call; a follower comes within two minutes."""
    n = height(calls)
    gaps_ms = np.where(calls["follows"], rng.uniform(5_000, 115_000, n), rng.exponential(30_000, n) + 4_000)
    return gaps_ms.astype(np.int64)


def _lay_on_lines(calls: Columns, line_free_ms: Ints, gap_ms: Ints) -> None:
    """Delay calls so that each line holds one at a time, with a gap before each.

    The k-th call of a line begins at the latest of its own wish and the end of the one before it. With B the
    running sum of busy times, that is B + cummax(wish - B): one pass, no loop.
    """
    line = calls["line"]
    if len(line) == 0:
        return
    first = np.concatenate([[True], line[1:] != line[:-1]])
    wish_ms = np.where(first, np.maximum(calls["start_ms"], line_free_ms[line] + gap_ms), calls["start_ms"])
    lasted_ms = calls["end_ms"] - calls["start_ms"]
    busy_ms = np.concatenate([[0], (lasted_ms[:-1] + gap_ms[1:])])
    start_ms = _cummax_by_group(wish_ms - np.cumsum(busy_ms), first) + np.cumsum(busy_ms)
    shift_ms = start_ms - calls["start_ms"]
    for name in ("start_ms", "end_ms"):
        calls[name] = calls[name] + shift_ms
    calls["answer_ms"] = np.where(calls["answer_ms"] >= 0, calls["answer_ms"] + shift_ms, UNKNOWN)
    calls["limit_ms"] = np.concatenate([np.where(first[1:], NEVER_MS, start_ms[1:]), [NEVER_MS]])


def _cummax_by_group(values: Ints, first: Bools) -> Ints:
    """Running maximum within each group of neighbours; `first` marks where one begins."""
    group = np.cumsum(first)
    low = values.min()
    step = int(values.max() - low) + 1
    lifted = values - low + group * step
    return np.asarray(np.maximum.accumulate(lifted) + low - group * step)


def usual_hours(rhythm: int) -> tuple[int, ...]:
    """Local hours at which congestion would begin for customers of this rhythm."""
    return (18, 19, 20) if rhythm == RESIDENT else (9, 10, 14)


def day_windows(start_ms: int, end_ms: int, step_ms: int = DAY_MS) -> list[tuple[int, int]]:
    """Cut a run into windows."""
    return [(at_ms, min(at_ms + step_ms, end_ms)) for at_ms in range(start_ms, end_ms, step_ms)]
