"""Arrow IPC instead of JSON: no parsing at all."""

from pathlib import Path

import numpy as np
import orjson

from bench.cases.common import BASE, Bench, Events, bodies, new_engine, run_flow
from bench.harness import race
from dataflows.flow import OpenInput
from dataflows.inputs.files import Cut, FileReader, Place
from schemas.arrow.writer import write_arrow
from schemas.decode import Decoder
from schemas.formats import Options, open_format
from schemas.formats.arrow import decode_stream

ROWS = 16_384


def arrow_streams(bench: Bench) -> None:
    """Measure decoding and the whole flow from Arrow, beside `orjson.loads` over the same calls as JSON."""
    path = bench.folder / "calls.arrow"
    calls = calls_of(bench.telco, bench.folder / "calls.ndjson")
    with path.open("wb") as out:
        write_arrow(calls.lines, out, rows=ROWS)
    bench.report.say(f"{len(calls):,} calls, {path.stat().st_size / len(calls):.0f} bytes each as Arrow")
    data = path.read_bytes()
    works = {
        BASE: calls.parse,
        "decode, arrow": lambda: _decode(data),
        "flow, arrow": lambda: bodies(run_flow(from_arrow(path), new_engine())),
    }
    bench.report.race(race(len(calls), bench.options.rounds, works))


def calls_of(events: Events, path: Path) -> Events:
    """Keep the calls, those that a stream of one type can hold."""
    lines = [line for line in events.lines if line.startswith(b'{"type":"call"') and _is_json(line)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return Events(path)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _decode(data: bytes) -> bytes:
    rows = [(batch.records, len(batch.calls), len(batch.rejects)) for batch in decode_stream(Decoder(), data)]
    return repr(np.sum(rows, axis=0).tolist()).encode()


def from_arrow(path: Path) -> OpenInput:
    """Return the input that reads a file of Arrow streams."""

    def open_input(place: tuple[int, ...] | None) -> "list[Cut | None] | FileReader":
        begin = Place() if place is None else Place(*place)
        return FileReader([path], begin, open_format=lambda: open_format("arrow", Options()))

    return open_input
