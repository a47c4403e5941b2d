"""Simulated telcos as the scoreboard needs them: what the engine reads, and each customer's calls as a series."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.score import Case, Truth, read_drops, read_truth, three_in_seven
from bench.simulator import TelcoSpec, simulate
from bench.simulator.run import draw_telco
from bench.simulator.world import customer_name
from dataflows.inputs.files import CHUNK_BYTES
from detectors.emodel import quality
from detectors.release import CallEnds, classify
from schemas.columns import CallColumns, EventBatch
from schemas.decode import decode
from schemas.text import F32, F64, I64, U64, key_of

RATING_POOR = 60.0
"""Below this R nearly all users are dissatisfied (ITU-T G.109)."""
BAD = 0.5
"""A call of this trouble or more counts as bad where a detector wants yes or no."""


@dataclass(frozen=True, slots=True)
class Series:
    """One customer's calls, by end.

    Attributes:
        end_ms: int64[n].
        trouble: float64[n], 0..1: how much each call by itself looks spoiled.
        spoiled: bool[n]: it looks so, or the customer's own fault did spoil it, seen or unseen.
        drop_ratio: the rate at which the customer's healthy answered calls drop, as the simulator knows it.
        facts: more of each call, by name: `start_ms`, `talk_s` (NaN: not answered), `drop`, `setup`, `one_way`,
            `rating` (NaN: not known), and codes of `trunk`, `sbc`, `codec` and `peer_id`.
    """

    customer_id: str
    end_ms: I64
    trouble: F64
    spoiled: npt.NDArray[np.bool_]
    drop_ratio: float
    facts: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordedTelco:
    """One simulated telco: its decoded events, its truth, its customers' series, what the rule sold today raises."""

    spec: TelcoSpec
    batches: list[EventBatch]
    truth: Truth
    series: list[Series]
    rule: list[Case]


def record(spec: TelcoSpec, folder: Path) -> RecordedTelco:
    """Simulate a telco and take it into memory.

    Args:
        spec: the telco.
        folder: where its files go.
    """
    written = simulate(spec, folder)
    batches = [decode(chunk) for chunk in _chunks(written.events_path)]
    truth = read_truth(written.truth_path)
    rule = list(three_in_seven(read_drops(written.events_path)))
    return RecordedTelco(spec, batches, truth, _series(spec, batches, truth), rule)


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield whole lines of a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk + file.readline()


def _series(spec: TelcoSpec, batches: list[EventBatch], truth: Truth) -> list[Series]:
    customer = np.concatenate([batch.calls.customer_id.keys() for batch in batches])
    call: U64 = np.concatenate([batch.calls.call_id.keys() for batch in batches])
    end_ms = np.concatenate([batch.calls.end_ms for batch in batches])
    ratings = [_ratings(batch.calls, truth) for batch in batches]
    trouble = np.concatenate([_trouble(batch.calls, r) for batch, r in zip(batches, ratings, strict=True)])
    words: dict[tuple[str, str], int] = {}
    told = [_facts(batch.calls, r, words) for batch, r in zip(batches, ratings, strict=True)]
    facts = {name: np.concatenate([one[name] for one in told]) for name in told[0]}
    # A call that two probes reported counts once.
    _, once = np.unique(call, return_index=True)
    order = once[np.lexsort((end_ms[once], customer[once]))]
    customer, end_ms, trouble = customer[order], end_ms[order], trouble[order]
    facts = {name: values[order] for name, values in facts.items()}
    names = [customer_name(number) for number in range(spec.customers)]
    by_key = {key_of(name): number for number, name in enumerate(names)}
    bad_ends = {fault.customer_id: fault.bad_end_ms for fault in truth.faults}
    ratios = draw_telco(spec).world.customers.drop_ratio
    keys, firsts = np.unique(customer, return_index=True)
    series = []
    for key, first, last in zip(keys, firsts, [*firsts[1:], len(customer)], strict=True):
        number, ends, some = by_key[int(key)], end_ms[first:last], trouble[first:last]
        spoiled = (some >= BAD) | np.isin(ends, bad_ends.get(names[number], []))
        own = {name: values[first:last] for name, values in facts.items()}
        series.append(Series(names[number], ends, some, spoiled, float(ratios[number]), own))
    return sorted(series, key=lambda one: one.customer_id)


def _facts(calls: CallColumns, rating: F32, words: dict[tuple[str, str], int]) -> dict[str, npt.NDArray[Any]]:
    """Return more of each call; `words` holds the numbers of names, from batch to batch."""
    ends = classify(CallEnds.of(calls))
    facts: dict[str, npt.NDArray[Any]] = {
        "start_ms": calls.start_ms,
        "talk_s": np.where(calls.answer_ms >= 0, (calls.end_ms - calls.answer_ms) / 1_000.0, np.nan),
        "drop": ends.drop_weight,
        "setup": ends.setup_weight,
        "one_way": ends.one_way,
        "rating": rating,
        "peer_id": calls.peer_id.keys(),
    }
    for name, column in (("trunk", calls.places["trunk"]), ("sbc", calls.places["sbc"]), ("codec", calls.codec)):
        numbers = np.array([*(words.setdefault((name, word), len(words)) for word in column.values), -1])
        facts[name] = numbers[column.codes]
    return facts


def _ratings(calls: CallColumns, truth: Truth) -> F32:
    """Return the R-factor of each call; NaN where it is not known.

    What a probe said while it lied is left out: no series of one customer could tell.
    """
    rating: F32 = quality(
        calls.loss_ratio, calls.discard_ratio, calls.burst_ratio, calls.rtt_ms, calls.jitter_ms, calls.codec
    ).r.astype(np.float32)
    probe = calls.places["probe_id"]
    for liar in truth.probes:
        lied = (calls.end_ms >= liar.start_ms) & (calls.end_ms < liar.end_ms)
        if liar.probe_id in probe.values:
            rating[lied & (probe.codes == probe.values.index(liar.probe_id))] = np.nan
    return rating


def _trouble(calls: CallColumns, rating: F32) -> F64:
    """Return how much each call by itself looks spoiled, 0..1: dropped, not set up, or hardly intelligible."""
    ends = classify(CallEnds.of(calls))
    poor = (rating < RATING_POOR) & (calls.answer_ms >= 0)
    weight = np.maximum(ends.drop_weight, ends.setup_weight)
    return np.maximum(weight, poor).astype(np.float64)
