"""The events that all peers read: those of a simulated telco that hold the contract, so that nobody need check them.

Bytewax's own file source ends the whole flow at a byte that is not UTF-8, the other peers at a broken record.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

from bench.simulator import TelcoSpec, simulate
from schemas.decode import RecordError, decode_record
from schemas.events import Call


class Files(NamedTuple):
    """The small job's calls, the whole job's events of all types, and how many of each."""

    calls: Path
    events: Path
    calls_count: int
    events_count: int


def write(customers: int, days: int, seed: int, folder: Path) -> Files:
    """Simulate a telco and write both files, in order of arrival."""
    calls_path, events_path = folder / "calls.ndjson", folder / "events.ndjson"
    calls_count = events_count = 0
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        simulated = simulate(TelcoSpec(customers=customers, days=days, seed=seed), Path(scratch)).events_path
        with simulated.open("rb") as lines, calls_path.open("wb") as calls, events_path.open("wb") as events:
            for line in lines:
                try:
                    event = decode_record(line.rstrip(b"\n"))
                except RecordError:
                    continue
                events_count += events.write(line) > 0
                if isinstance(event, Call):
                    calls_count += calls.write(line) > 0
    return Files(calls_path, events_path, calls_count, events_count)
