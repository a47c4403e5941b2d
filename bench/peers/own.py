"""Stayline's way: chunks decoded to columns, all fields, checked; one compiled pass over each (`kernels`).

MOS comes in hundredths and the columns hold it as float32: the nearest hundredth is the double that JSON readers give.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.peers.job import ALPHA, DELTA, FADE, MIN_INSTANCES, THRESHOLD, Clock, Found, Work, main
from bench.peers.kernels import Settings, Small
from dataflows.inputs.files import CHUNK_BYTES
from schemas.columns import RELEASERS, CallColumns
from schemas.decode import Decoder

NETWORK = RELEASERS.index("network")
WARM_UP = (
    b'{"type":"call","call_id":"a","customer_id":"a","start_ms":0,"answer_ms":1,"end_ms":2,"mos":4.1,'
    b'"released_by":"network"}\n'
)


def apply(small: Small, calls: CallColumns, found: Found, names: list[str]) -> None:
    """Apply a batch of calls; add what fired, and the names of new customers in order of their rows."""
    drop = ((calls.answer_ms >= 0) & (calls.released_by == NETWORK)).astype(np.float64)
    mos = np.rint(100.0 * calls.mos.astype(np.float64)) / 100.0
    fired, first = small.apply(calls.customer_id.keys(), drop, mos)
    found.firings += [(calls.customer_id[row], calls.call_id[row]) for row in fired.tolist()]
    names += [calls.customer_id[row] for row in first.tolist()]
    found.events += len(calls)


def chunks(events: Path) -> Iterator[bytes]:
    """Yield a file's lines, about a megabyte at a time."""
    with events.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk + file.readline()


def prepare(events: Path) -> Work:
    """Load the compiled code: the first batch calls for all of it."""
    settings = Settings(FADE, MIN_INSTANCES, DELTA, THRESHOLD, ALPHA)
    apply(Small.empty(settings), Decoder().decode(WARM_UP).calls, Found(), [])

    def work(_: Clock) -> Found:
        found, names, decoder = Found(), list[str](), Decoder()
        small = Small.empty(settings)
        for chunk in chunks(events):
            apply(small, decoder.decode(chunk).calls, found, names)
        found.states = dict(zip(names, small.values(), strict=True))
        return found

    return work


if __name__ == "__main__":
    main("own", prepare, "stayline")
