"""Stayline's kernels behind a decoder of the five fields that the small job uses: what decoding less would give.

msgspec reads a chunk's lines into typed objects of these fields; columns are made of them.
"""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from bench.peers.job import ALPHA, DELTA, FADE, MIN_INSTANCES, THRESHOLD, Clock, Found, Work, main
from bench.peers.kernels import Settings, Small
from bench.peers.own import WARM_UP, chunks
from schemas.text import TextColumn


class Narrow(msgspec.Struct, gc=False):
    """What the small job uses of a call."""

    call_id: str
    customer_id: str
    answer_ms: int | None = None
    released_by: Literal["customer", "peer", "network", "unknown"] | None = None
    mos: float | None = None


_decoder = msgspec.json.Decoder(Narrow)


def apply(small: Small, chunk: bytes, found: Found, names: list[str]) -> None:
    """Apply a chunk of calls; add what fired, and the names of new customers in order of their rows."""
    calls = _decoder.decode_lines(chunk)
    size = len(calls)
    drop = np.fromiter((call.answer_ms is not None and call.released_by == "network" for call in calls), float, size)
    mos = np.fromiter((np.nan if call.mos is None else call.mos for call in calls), float, size)
    fired, first = small.apply(TextColumn.of([call.customer_id for call in calls]).keys(), drop, mos)
    found.firings += [(calls[row].customer_id, calls[row].call_id) for row in fired.tolist()]
    names += [calls[row].customer_id for row in first.tolist()]
    found.events += size


def prepare(events: Path) -> Work:
    """Load the compiled code."""
    settings = Settings(FADE, MIN_INSTANCES, DELTA, THRESHOLD, ALPHA)
    apply(Small.empty(settings), WARM_UP, Found(), [])

    def work(_: Clock) -> Found:
        found, names = Found(), list[str]()
        small = Small.empty(settings)
        for chunk in chunks(events):
            apply(small, chunk, found, names)
        found.states = dict(zip(names, small.values(), strict=True))
        return found

    return work


if __name__ == "__main__":
    main("own_narrow", prepare, "msgspec")
