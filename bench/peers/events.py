"""The calls that all peers read: those of a simulated telco that hold the contract, so that nobody need check them."""

import tempfile
from pathlib import Path

from bench.simulator import TelcoSpec, simulate
from schemas.decode import RecordError, decode_record
from schemas.events import Call


def write_calls(customers: int, days: int, seed: int, out: Path) -> int:
    """Simulate a telco and write its calls to a file, in order of arrival; return how many."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        events = simulate(TelcoSpec(customers=customers, days=days, seed=seed), Path(folder)).events_path
        with events.open("rb") as lines, out.open("wb") as file:
            calls = [line for line in lines if _is_call(line)]
            file.writelines(calls)
    return len(calls)


def _is_call(line: bytes) -> bool:
    try:
        return isinstance(decode_record(line.rstrip(b"\n")), Call)
    except RecordError:
        return False
