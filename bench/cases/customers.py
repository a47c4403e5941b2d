"""Growing customers and hot customers: what one costs in memory, and what many, or few busy ones, cost in rate.

Each size runs in a process of its own. Everybody makes one good call, which grows the state; then traffic goes on at
`CALLS_PER_DAY` from random customers, whatever their number, with some calls that are dropped, so that evidence builds
up as it would. Memory is measured between the two, of customers without recent bad calls.
"""

import gc
import time

import numpy as np
from msgspec import Struct

from bench.cases.common import Bench, new_engine, parse
from bench.cases.synthetic import BEGIN_MS, CHUNK_CALLS, DAY_MS, calls, everybody
from bench.harness import isolated, resident_bytes
from bench.plot import line_chart
from schemas.decode import Decoder
from schemas.text import F64

CALLS_PER_DAY = 10
CHUNKS_A_ROUND = 12
WARM_UP_CHUNKS = 16
HOT_AMONG = 100_000
"""Hot customers are the busiest of so many."""


class Residence(Struct, frozen=True):
    """What some number of customers cost.

    Attributes:
        first_per_s: rate at which they were taken in.
        detect_per_s, both_per_s, orjson_per_s: rate of the detectors, of decoding and the detectors, and of
            `orjson.loads` over the same calls, chunk by chunk.
        held_bytes: memory of the process when everybody had called, less that before the first customer.
        told: notifications.
    """

    customers: int
    exponent: float
    first_per_s: float
    detect_per_s: list[float]
    both_per_s: list[float]
    orjson_per_s: list[float]
    held_bytes: int
    told: int


def growing_customers(bench: Bench) -> None:
    """Measure rate and memory for numbers of customers, each beside the first number."""
    chunks = CHUNKS_A_ROUND * bench.options.rounds
    found = [isolated(reside, size, 0.0, chunks) for size in bench.options.residents]
    for one in found:
        bench.report.record("customers", residence=one)
        cells = {
            "customers resident": f"{one.customers:,}",
            "bytes each": f"{one.held_bytes / one.customers:,.0f}",
            "each further": _each_further(one, found[0]),
            "new/s": f"{one.first_per_s:,.0f}",
        }
        bench.report.row(cells | _rates(one, found[0]))
    lines = {
        name: [(one.customers, _beside_orjson(getattr(one, attribute), one)) for one in found]
        for name, attribute in (("detectors", "detect_per_s"), ("decode and detectors", "both_per_s"))
    }
    bench.report.pictures["customers"] = line_chart(
        "Rate by customers resident", lines, x_label="customers", y_label="times orjson.loads", log_x=True
    )


def hot_customers(bench: Bench) -> None:
    """Measure the rate when few of many customers make most calls, each exponent beside the first."""
    size = min(HOT_AMONG, max(bench.options.residents))
    chunks = CHUNKS_A_ROUND * bench.options.rounds
    found = [isolated(reside, size, exponent, chunks) for exponent in bench.options.skews]
    for one in found:
        bench.report.record("skew", residence=one)
        cells = {
            f"Zipf's law among {size:,}": f"exponent {one.exponent}",
            "busiest has": f"{_shares(size, one.exponent)[0]:.2%}",
            "told": f"{one.told:,}",
        }
        bench.report.row(cells | _rates(one, found[0]))


def _rates(one: Residence, first: Residence) -> dict[str, str]:
    """Lay out the rates of the detectors, and of decoding and the detectors both.

    Those against the first are of rates in units of `orjson.loads`, chunk by chunk.

    Each size has a process and minutes of its own, and other work on the machine comes and goes: this takes it out.
    """
    return {
        "detect/s": f"{_median(one.detect_per_s):,.0f}",
        "x first": f"{_beside_orjson(one.detect_per_s, one) / _beside_orjson(first.detect_per_s, first):.2f}",
        "both/s": f"{_median(one.both_per_s):,.0f}",
        "both x first": f"{_beside_orjson(one.both_per_s, one) / _beside_orjson(first.both_per_s, first):.2f}",
        "orjson/s": f"{_median(one.orjson_per_s):,.0f}",
        "both x orjson": f"{_beside_orjson(one.both_per_s, one):.2f}",
    }


def _each_further(one: Residence, first: Residence) -> str:
    """Return bytes for each customer beyond the first number: what an engine holds for nobody falls out."""
    more = one.customers - first.customers
    return f"{(one.held_bytes - first.held_bytes) / more:,.0f}" if more > 0 else ""


def _beside_orjson(rates: list[float], one: Residence) -> float:
    return float(np.median(np.array(rates) / np.array(one.orjson_per_s)))


def reside(size: int, exponent: float, chunks: int) -> Residence:
    """Take in so many customers, then apply chunks of their traffic; measure both.

    Args:
        size: number of customers.
        exponent: of Zipf's law for who calls; 0: everybody alike.
        chunks: how many, of `CHUNK_CALLS` each.
    """
    rng = np.random.default_rng(size)
    _warm_up(rng)
    before = resident_bytes()
    decoder, engine = Decoder(), new_engine()
    told, spent_s = 0, 0.0
    grown_ms = DAY_MS // CALLS_PER_DAY
    for chunk in everybody(size, BEGIN_MS, grown_ms, rng, drop_ratio=0.0):
        batch = decoder.decode(chunk)
        begun = time.perf_counter()
        told += len(engine.apply(batch))
        spent_s += time.perf_counter() - begun
    gc.collect()
    held_bytes = resident_bytes() - before
    ranked = rng.permutation(size)
    reach = np.cumsum(_shares(size, exponent))
    step_ms = max(1, CHUNK_CALLS * DAY_MS // (CALLS_PER_DAY * size))
    times = []
    for k in range(chunks):
        who = ranked[np.minimum(np.searchsorted(reach, rng.random(CHUNK_CALLS)), size - 1)]
        chunk = calls(who, BEGIN_MS + 2 * grown_ms + step_ms * k, step_ms, rng)
        moments = [time.perf_counter()]
        parse(chunk.splitlines())
        moments.append(time.perf_counter())
        batch = decoder.decode(chunk)
        moments.append(time.perf_counter())
        told += len(engine.apply(batch))
        moments.append(time.perf_counter())
        times.append(np.diff(moments))
    if engine.counts.applied != size + chunks * CHUNK_CALLS:
        raise RuntimeError(f"every call must be applied, {engine.counts} were")
    orjson_s, decode_s, detect_s = np.array(times).T
    return Residence(
        size,
        exponent,
        size / spent_s,
        (CHUNK_CALLS / detect_s).tolist(),
        (CHUNK_CALLS / (decode_s + detect_s)).tolist(),
        (CHUNK_CALLS / orjson_s).tolist(),
        held_bytes,
        told,
    )


def _warm_up(rng: np.random.Generator) -> None:
    """Load compiled code and whatever chunks and growth need in passing, so that neither counts."""
    decoder, engine = Decoder(), new_engine()
    for chunk in everybody(WARM_UP_CHUNKS * CHUNK_CALLS, BEGIN_MS, DAY_MS, rng):
        engine.apply(decoder.decode(chunk))
        parse(chunk.splitlines())
    del decoder, engine
    gc.collect()


def _shares(size: int, exponent: float) -> F64:
    """Return the share of the calls that each customer makes, the busiest first: Zipf's law."""
    weights: F64 = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    return weights / np.sum(weights)


def _median(rates: list[float]) -> float:
    return float(np.median(rates))
