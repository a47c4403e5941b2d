"""How fast it is: decoding, detecting, the whole flow, with and without checkpoints, for few and many customers.

Every figure is a rate inside one run, beside `orjson.loads` over the same bytes in the same run: machines differ, the
ratio hardly does.
"""

import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from bench.harness import Rate, conditions, measure, resident_bytes
from bench.simulator import TelcoSpec, simulate
from dataflows.checkpoints import Checkpoints
from dataflows.files import CHUNK_BYTES, Cut, FileReader, Place
from dataflows.flow import Stop, build, execute
from detectors.catalogue import Catalogue, default_catalogue_text
from detectors.engine import RiskEngine
from detectors.settings import Settings
from schemas.alerts import Notification
from schemas.columns import PLACES, CallColumns, EventBatch, LinkColumns, MediaColumns
from schemas.decode import decode
from schemas.text import CodeColumn, TextColumn

EPOCH = timedelta(seconds=5)
SYNTHETIC_BATCH = 8_192


def throughput(customers: int, days: int, rounds: int, sizes: tuple[int, ...]) -> list[str]:
    """Run every case and return the report, line by line.

    Args:
        customers, days: of the telco whose events are read.
        rounds: how often each case is timed.
        sizes: numbers of customers for the detectors alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        events = simulate(TelcoSpec(customers=customers, days=days, seed=1), Path(folder)).events_path
        data = events.read_bytes()
        lines = [line for line in data.split(b"\n") if line]
        rates = [
            measure("orjson.loads a record", len(lines), rounds, lambda: _parse(lines)),
            measure("decode", len(lines), rounds, lambda: _decode(data)),
            _detect(data, len(lines), rounds),
            measure("flow", len(lines), rounds, lambda: _flow(events, None)),
            measure("flow, checkpoints", len(lines), rounds, lambda: _flow(events, Path(folder))),
        ]
    report = [*conditions(), "", f"{len(lines):,} records, {len(data) / len(lines):.0f} bytes each; one core", ""]
    report += _table(rates)
    report += ["", "detectors alone, by customers resident:"]
    report += [_resident(size, rounds) for size in sizes]
    return report


def _table(rates: list[Rate]) -> list[str]:
    base = rates[0].median
    rows = [f"{'case':<24} {'events/s':>12} {'min':>12} {'max':>12} {'x orjson':>9}  digest"]
    rows += [
        f"{rate.name:<24} {rate.median:>12,.0f} {min(rate.per_second):>12,.0f} {max(rate.per_second):>12,.0f} "
        f"{rate.median / base:>9.2f}  {rate.digest}"
        for rate in rates
    ]
    slowest = min(rates[1:3], key=lambda rate: rate.median)
    return [*rows, "", f"bottleneck: {slowest.name}"]


def _parse(lines: list[bytes]) -> bytes:
    for line in lines:
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
    return b""


def _chunks(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        cut = data.rfind(b"\n", at, at + CHUNK_BYTES) + 1 or len(data)
        yield data[at:cut]
        at = cut


def _decode(data: bytes) -> bytes:
    rows = [(batch.records, len(batch.calls), len(batch.rejects)) for batch in map(decode, _chunks(data))]
    return repr(np.sum(rows, axis=0).tolist()).encode()


def _engine() -> RiskEngine:
    return RiskEngine(Settings("bench"), Catalogue.load(default_catalogue_text()))


def _bodies(told: list[Notification]) -> bytes:
    return b"\n".join(one.body for one in told)


def _detect(data: bytes, events: int, rounds: int) -> Rate:
    batches = [decode(chunk) for chunk in _chunks(data)]

    def work() -> bytes:
        engine = _engine()
        told = [one for batch in batches for one in engine.apply(batch)]
        return _bodies([*told, *engine.finish()])

    return measure("detect", events, rounds, work)


def _flow(events: Path, folder: Path | None) -> bytes:
    told: list[Notification] = []

    def open_input(place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        return iter(FileReader([events], Place() if place is None else Place(*place)))

    if folder is None:
        execute(build(open_input, _engine(), told.extend, lambda _: None, Stop(), ends=True), None, EPOCH)
        return _bodies(told)
    with tempfile.TemporaryDirectory(dir=folder) as state:
        checkpoints = Checkpoints(Path(state) / "engine")
        flow = build(open_input, _engine(), told.extend, lambda _: None, Stop(), ends=True, checkpoints=checkpoints)
        execute(flow, Path(state) / "recovery", EPOCH)
    return _bodies(told)


def _resident(customers: int, rounds: int) -> str:
    """Apply calls of many customers to one engine; return a line with rate and memory."""
    rng = np.random.default_rng(customers)
    engine = _engine()
    before = resident_bytes()
    for first in range(0, customers, SYNTHETIC_BATCH):
        ids = np.arange(first, min(first + SYNTHETIC_BATCH, customers))
        engine.apply(synthetic(ids, 1_700_000_000_000, rng))
    held = resident_bytes() - before
    batches = [
        synthetic(rng.integers(0, customers, SYNTHETIC_BATCH), 1_700_000_600_000 + 600_000 * k, rng)
        for k in range(4 * rounds)
    ]

    rates = []
    for batch in batches:
        begun = time.perf_counter()
        engine.apply(batch)
        rates.append(SYNTHETIC_BATCH / (time.perf_counter() - begun))
    median = float(np.median(rates))
    return f"{customers:>12,} customers {median:>12,.0f} events/s {held / customers:>8.0f} bytes a customer"


def synthetic(customers: npt.NDArray[np.int64], start_ms: int, rng: np.random.Generator) -> EventBatch:
    """Return a batch of one plain call for each customer listed: 1 % of them end as drops."""
    size = len(customers)
    end_ms = start_ms + np.sort(rng.integers(0, 600_000, size)) + 120_000
    nothing = np.full(size, -1, np.int64)
    unknown = np.full(size, np.nan, np.float32)
    drops = rng.random(size) < 0.01
    calls = CallColumns(
        position=np.arange(size),
        call_id=TextColumn.of([f"{start_ms}-{row}" for row in range(size)]),
        customer_id=TextColumn.of([f"c{customer:08d}" for customer in customers.tolist()]),
        peer_id=TextColumn.of([f"p{peer}" for peer in rng.integers(0, 1000, size).tolist()]),
        start_ms=end_ms - 90_000,
        end_ms=end_ms,
        answer_ms=end_ms - 80_000 + rng.integers(0, 60_000, size),
        direction=np.zeros(size, np.int8),
        sip_status=np.full(size, 200, np.int16),
        q850=np.where(drops, 41, 16).astype(np.int16),
        released_by=np.where(drops, 2, 0).astype(np.int8),
        reason=CodeColumn(np.full(size, -1, np.int32), []),
        codec=CodeColumn(np.zeros(size, np.int32), ["PCMA"]),
        mos=unknown,
        loss_ratio=np.full(size, 0.001, np.float32),
        discard_ratio=unknown,
        burst_ratio=unknown,
        jitter_ms=unknown,
        rtt_ms=unknown,
        packets_received=nothing,
        packets_sent=nothing,
        silence_ms=nothing,
        places={
            name: CodeColumn((customers % 50).astype(np.int32), [f"{name}-{k}" for k in range(50)]) for name in PLACES
        },
    )
    return EventBatch(size, calls, _no_media(), _no_links())


def _no_media() -> MediaColumns:
    return decode(b"").media


def _no_links() -> LinkColumns:
    return decode(b"").links
