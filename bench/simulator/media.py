"""What the voice was like: loss, jitter, delay, packets, and the MOS that follows from them and the codec."""

import numpy as np

from bench.simulator.columns import UNKNOWN, Bools, Columns, Floats, Ints, height
from bench.simulator.schedule import ProbeFault
from bench.simulator.world import CODECS, World

PACKETS_A_SECOND = 50
"""At the usual 20 ms of voice in a packet."""

EQUIPMENT_IMPAIRMENT = np.array([0.0, 0.0, 10.0, 5.0, np.nan])
"""Ie by codec, in the order of `CODECS`: ITU-T G.113 appendix I. AMR is its 12.2 kbit/s mode. None is published
for opus on the narrowband scale, so its calls carry no MOS."""
LOSS_ROBUSTNESS = np.array([25.1, 25.1, 19.0, 10.0, np.nan])
"""Bpl by codec: ITU-T G.113 appendix I, with packet loss concealment."""

MOS_UNKNOWN_SHARE = 0.03
"""Calls whose source could not grade them for reasons of its own."""


def add_media(world: World, liars: tuple[ProbeFault, ...], calls: Columns, rng: np.random.Generator) -> None:
    """Fill in the media columns of all calls; they mean something for answered calls only."""
    people, n, customer = world.customers, height(calls), calls["customer"]
    talk_ms = calls["end_ms"] - np.where(calls["answer_ms"] >= 0, calls["answer_ms"], calls["end_ms"])
    _settle_silence(calls, talk_ms, rng)
    loss = people.loss_ratio[customer] * np.exp(rng.normal(0.0, 0.6, n)) + calls["loss_added"]
    jitter_ms = people.jitter_ms[customer] * np.exp(rng.normal(0.0, 0.35, n)) + calls["jitter_added"]
    rtt_ms = people.rtt_ms[customer] * np.exp(rng.normal(0.0, 0.15, n)) + calls["jitter_added"]
    burst = 1.0 + rng.exponential(0.12, n) + calls["burst_added"]
    lied = lied_about(calls, liars)
    loss[lied] = rng.uniform(0.08, 0.30, int(lied.sum()))
    burst[lied] += 2.0
    calls["loss_ratio"] = np.minimum(loss, 0.6).round(5)
    calls["jitter_ms"], calls["rtt_ms"] = jitter_ms.round(1), rtt_ms.round(1)
    calls["burst_ratio"] = burst.round(2)
    # What the jitter buffer throws away begins where the jitter outgrows it.
    calls["discard_ratio"] = np.clip((jitter_ms - 18.0) / 900.0 * rng.random(n), 0.0, 0.2).round(5)
    _count_packets(calls, talk_ms, rng)
    calls["mos"] = mos_of(calls, calls["loss_ratio"] + calls["discard_ratio"])
    calls["mos"][(rng.random(n) < MOS_UNKNOWN_SHARE) | calls["deaf"] | (talk_ms < 2_000)] = np.nan


def lied_about(calls: Columns, liars: tuple[ProbeFault, ...]) -> Bools:
    """Mark the calls that a lying probe reports."""
    lied = np.zeros(height(calls), dtype=bool)
    for liar in liars:
        inside = (calls["end_ms"] >= liar.start_ms) & (calls["end_ms"] < liar.end_ms)
        lied |= inside & (calls["probe"] == liar.probe) & (calls["answer_ms"] >= 0)
    return lied


def mos_of(calls: Columns, lost_ratio: Floats) -> Floats:
    """Grade calls by the E-model in its short form, R = 93.2 - Id - Ie,eff (ITU-T G.107, clause 7).

    Id is the usual approximation 0.024 d + 0.11 (d - 177.3) H(d - 177.3), with d the mouth-to-ear delay in ms.

    Args:
        calls: columns `codec`, `rtt_ms`, `jitter_ms`, `burst_ratio`.
        lost_ratio: lost and discarded, 0..1.

    Returns:
        MOS in 1..4.5, two decimals; NaN where the codec has no published impairment.
    """
    impairment, robustness = EQUIPMENT_IMPAIRMENT[calls["codec"]], LOSS_ROBUSTNESS[calls["codec"]]
    percent = 100.0 * lost_ratio
    effective = impairment + (95.0 - impairment) * percent / (percent / calls["burst_ratio"] + robustness)
    delay_ms = calls["rtt_ms"] / 2.0 + 2.0 * calls["jitter_ms"] + 20.0
    rating = 93.2 - 0.024 * delay_ms - 0.11 * np.maximum(delay_ms - 177.3, 0.0) - effective
    rating = np.clip(rating, 0.0, 100.0)
    mos = 1.0 + 0.035 * rating + 7e-6 * rating * (rating - 60.0) * (100.0 - rating)
    return np.asarray(np.maximum(mos, 1.0).round(2))


def _settle_silence(calls: Columns, talk_ms: Ints, rng: np.random.Generator) -> None:
    """Give undisturbed calls the few milliseconds between the last packet and the BYE."""
    usual = rng.exponential(60.0, height(calls)).astype(np.int64)
    silence_ms = np.where(calls["silence_ms"] == UNKNOWN, usual, calls["silence_ms"])
    calls["silence_ms"] = np.minimum(silence_ms, talk_ms)


def _count_packets(calls: Columns, talk_ms: Ints, rng: np.random.Generator) -> None:
    heard_s = (talk_ms - calls["silence_ms"]) / 1000.0
    received = (heard_s * PACKETS_A_SECOND * (1.0 - calls["loss_ratio"])).astype(np.int64)
    calls["packets_received"] = np.where(calls["deaf"], rng.choice((0, 0, 0, 2, 6), height(calls)), received)
    calls["packets_sent"] = (talk_ms / 1000.0 * PACKETS_A_SECOND).astype(np.int64)


assert len(EQUIPMENT_IMPAIRMENT) == len(LOSS_ROBUSTNESS) == len(CODECS)  # noqa: S101 one entry a codec
