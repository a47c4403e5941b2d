"""Drawing the faults of single customers: which pattern, since when, how bad."""

from collections.abc import Callable
from math import erf, exp, log, sqrt

import numpy as np

from bench.simulator.columns import Ints, generator
from bench.simulator.endings import HARD, HARD_ENDINGS, SETUP, SETUP_ENDINGS
from bench.simulator.schedule import Fault
from bench.simulator.spec import DAY_MS, SECOND_MS
from bench.simulator.traffic import TALK_MEDIAN_S, peer_numbers, trunk_of, usual_hours
from bench.simulator.world import CODECS, SBCS, SIGNAL_PROBE, TALK_SIGMA, TRUNKS, World
from schemas.alerts import PatternKind

PATTERN_SHARE: dict[PatternKind, float] = {
    "drop_rate": 0.22,
    "duration_lock": 0.12,
    "time_of_day": 0.10,
    "route": 0.12,
    "one_way_audio": 0.10,
    "redial": 0.08,
    "quality": 0.10,
    "setup_failure": 0.08,
    "worsening": 0.08,
}
MEDIA_PATTERNS = ("one_way_audio", "quality")
"""Patterns that show in the media metrics alone."""
LOCKS_S = (32, 60, 300, 900, 1_768, 1_800)
"""Timers that cut calls: 64 T1 of RFC 3261 (32 s), media and NAT timers (60 s, 300 s), and the session timer of
RFC 4028: half of it, its early BYE, and the whole of it."""
LINE_CAUSES = ("dsl_line", "cable_upstream", "optical", "radio", "cpe")
"""What usually breaks on a line of each access technology, in the order of `TECHS`."""

Draft = tuple[World, int, int, int]
"""World, customer, start and end of a fault about to be drawn."""


def draw_faults(world: World) -> list[Fault]:
    """Draw who has a fault, and which: at most one a customer."""
    spec, rng = world.spec, generator(world.spec.seed, 3)
    count = round(spec.faulty_ratio * spec.customers)
    victims: Ints = np.sort(rng.choice(spec.customers, count, replace=False))
    patterns = list(PATTERN_SHARE)
    kinds = [patterns[kind] for kind in rng.choice(len(patterns), count, p=list(PATTERN_SHARE.values()))]
    # Where nobody looks at media, no record could show these.
    unseen = world.network.node_probe[world.customers.node[victims]] == SIGNAL_PROBE
    kinds = [
        "drop_rate" if hidden and kind in MEDIA_PATTERNS else kind for kind, hidden in zip(kinds, unseen, strict=True)
    ]
    return [
        draw_fault(world, int(victim), kind, _period(world, kind, rng), rng)
        for victim, kind in zip(victims, kinds, strict=True)
    ]


def draw_fault(
    world: World, customer: int, pattern: PatternKind, period: tuple[int, int], rng: np.random.Generator
) -> Fault:
    """Draw the particulars of one fault.

    Args:
        world: the telco.
        customer: whose.
        pattern: which kind.
        period: its start and end in ms.
        rng: the random stream.
    """
    return _DRAW[pattern]((world, customer, *period), rng)


def _period(world: World, pattern: PatternKind, rng: np.random.Generator) -> tuple[int, int]:
    """Draw start and end; three in ten last until the end of the run."""
    spec = world.spec
    start_ms = spec.start_ms + int(rng.uniform(0.02, 0.93) * spec.days * DAY_MS)
    days = max(1.0, exp(rng.normal(log(4.5), 0.6)))
    if pattern == "worsening":
        days = max(days, 6.0)
    lasting = rng.random() < 0.3
    end_ms = spec.end_ms if lasting else min(spec.end_ms, start_ms + int(days * DAY_MS))
    return start_ms, end_ms


def _hard(rng: np.random.Generator) -> int:
    return HARD + int(rng.integers(len(HARD_ENDINGS)))


def _line_cause(world: World, customer: int) -> str:
    return LINE_CAUSES[int(world.network.node_tech[world.customers.node[customer]])]


def _drop_rate(draft: Draft, rng: np.random.Generator) -> Fault:
    world, customer, start_ms, end_ms = draft
    cause = _line_cause(world, customer) if rng.random() < 0.6 else ("wifi", "cpe", "power")[int(rng.integers(3))]
    rate, silent = rng.uniform(0.10, 0.40), rng.uniform(0.0, 0.8)
    return Fault(customer, "drop_rate", start_ms, end_ms, cause, rate, _hard(rng), silent)


def _worsening(draft: Draft, rng: np.random.Generator) -> Fault:
    world, customer, start_ms, end_ms = draft
    rate, silent = rng.uniform(0.30, 0.60), rng.uniform(0.0, 0.8)
    return Fault(customer, "worsening", start_ms, end_ms, _line_cause(world, customer), rate, _hard(rng), silent)


def _duration_lock(draft: Draft, rng: np.random.Generator) -> Fault:
    world, customer, start_ms, end_ms = draft
    people = world.customers
    answered = 0.66 * people.calls_per_day[customer] * (end_ms - start_ms) / DAY_MS
    median_s = TALK_MEDIAN_S * people.talk_scale[customer]
    often = [s for s in LOCKS_S if answered * _longer_than(s / median_s) >= 4.0]
    lock_s = int(rng.choice(often)) if often else LOCKS_S[int(rng.integers(2))]
    cause = {32: "lost_ack", 60: "nat_timeout", 300: "media_timer"}.get(lock_s, "session_timer")
    ending = HARD + int(rng.choice((0, 6, 7, 8))) if rng.random() < 0.5 else -1
    dimension = ("duration_s", str(lock_s))
    return Fault(
        customer, "duration_lock", start_ms, end_ms, cause, 0.95, ending,
        lock_ms=lock_s * SECOND_MS, dimension=dimension,
    )  # fmt: skip


def _longer_than(ratio: float) -> float:
    """Share of the calls that last longer than `ratio` times the median."""
    return 0.5 * (1.0 - erf(log(ratio) / TALK_SIGMA / sqrt(2.0)))


def _time_of_day(draft: Draft, rng: np.random.Generator) -> Fault:
    world, customer, start_ms, end_ms = draft
    people = world.customers
    local = int(rng.choice(usual_hours(int(people.rhythm[customer]))))
    first, hours = (local - int(people.utc_offset_h[customer])) % 24, int(rng.integers(2, 5))
    dimension = ("hours_utc", f"{first:02d}-{(first + hours) % 24:02d}")
    return Fault(
        customer, "time_of_day", start_ms, end_ms, "congestion", rng.uniform(0.3, 0.65), _hard(rng),
        rng.uniform(0.2, 0.8), first_hour=first, hours=hours, dimension=dimension,
    )  # fmt: skip


def _route(draft: Draft, rng: np.random.Generator) -> Fault:
    world, customer, start_ms, end_ms = draft
    people = world.customers
    favourite = peer_numbers(world, np.array([customer]), rng.integers(0, 2, 1))
    choices = (
        ("trunk", "trunk", int(trunk_of(favourite)[0]), "trunk_partner"),
        ("codec", "codec", int(people.codecs[1][customer]), "codec_transcoding"),
        ("sbc", "sbc", int(people.sbcs[1][customer]), "sbc"),
        ("peer_id", "peer", int(favourite[0]), "far_end"),
    )
    name, column, code, cause = choices[int(rng.integers(4))]
    value = {"trunk": TRUNKS, "codec": CODECS, "sbc": SBCS}[name][code] if name != "peer_id" else f"{code:012x}"
    return Fault(
        customer, "route", start_ms, end_ms, cause, rng.uniform(0.35, 0.75), _hard(rng), rng.uniform(0.0, 0.6),
        column=column, code=code, dimension=(name, value),
    )  # fmt: skip


def _one_way_audio(draft: Draft, rng: np.random.Generator) -> Fault:
    _, customer, start_ms, end_ms = draft
    cause = ("nat", "sip_alg", "firewall")[int(rng.integers(3))]
    return Fault(customer, "one_way_audio", start_ms, end_ms, cause, rng.uniform(0.2, 0.6))


def _redial(draft: Draft, rng: np.random.Generator) -> Fault:
    _, customer, start_ms, end_ms = draft
    return Fault(customer, "redial", start_ms, end_ms, "hidden_drop", rng.uniform(0.25, 0.5))


def _quality(draft: Draft, rng: np.random.Generator) -> Fault:
    world, customer, start_ms, end_ms = draft
    cause = ("wifi", "congestion", _line_cause(world, customer))[int(rng.integers(3))]
    return Fault(customer, "quality", start_ms, end_ms, cause, rng.uniform(0.5, 1.0))


def _setup_failure(draft: Draft, rng: np.random.Generator) -> Fault:
    _, customer, start_ms, end_ms = draft
    cause = ("registration", "route_missing", "capacity")[int(rng.integers(3))]
    ending = SETUP + int(rng.integers(len(SETUP_ENDINGS)))
    return Fault(customer, "setup_failure", start_ms, end_ms, cause, rng.uniform(0.2, 0.6), ending)


_DRAW: dict[PatternKind, Callable[[Draft, np.random.Generator], Fault]] = {
    "drop_rate": _drop_rate,
    "duration_lock": _duration_lock,
    "time_of_day": _time_of_day,
    "route": _route,
    "one_way_audio": _one_way_audio,
    "redial": _redial,
    "quality": _quality,
    "setup_failure": _setup_failure,
    "worsening": _worsening,
}
