"""Decode only: chunks of bytes to columns."""

import numpy as np

from bench.cases.common import BASE, Bench, Events
from bench.harness import race
from schemas.decode import Decoder


def decode_only(bench: Bench) -> None:
    """Measure decoding alone."""
    events = bench.telco
    works = {BASE: events.parse, "decode": lambda: _decode(events)}
    bench.report.race(race(len(events), bench.options.rounds, works))


def _decode(events: Events) -> bytes:
    batches = map(Decoder().decode, events.chunks())
    rows = [(batch.records, len(batch.calls), len(batch.media), len(batch.rejects)) for batch in batches]
    return repr(np.sum(rows, axis=0).tolist()).encode()
