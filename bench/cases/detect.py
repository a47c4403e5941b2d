"""Detectors only: columns to notifications, decoded beforehand."""

from bench.cases.common import BASE, Bench, bodies, new_engine
from bench.harness import race
from schemas.columns import EventBatch
from schemas.decode import Decoder


def detect_only(bench: Bench) -> None:
    """Measure the detectors alone."""
    events = bench.telco
    decoder = Decoder()
    batches = [decoder.decode(chunk) for chunk in events.chunks()]
    works = {BASE: events.parse, "detect": lambda: _detect(batches)}
    bench.report.race(race(len(events), bench.options.rounds, works))


def _detect(batches: list[EventBatch]) -> bytes:
    engine = new_engine()
    told = [one for batch in batches for one in engine.apply(batch)]
    return bodies([*told, *engine.finish()])
