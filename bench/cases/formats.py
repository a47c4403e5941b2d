"""Vendor formats on one core: records a second of each, beside `orjson.loads` over the events that come out.

For HEP also what a listener loses: packets are sent over UDP at a stated rate while they are written, read and
assembled, and what the kernel dropped stands beside what arrived.
"""

import socket
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from bench.cases.common import BASE, Bench, parse
from bench.cases.vendor_records import CSV_COLUMNS, RECORDS, calls, packets
from bench.harness import isolated, race
from dataflows.inputs.hep import Listener, Source
from dataflows.inputs.spool import Spool
from schemas.formats import Converted, Options, open_format
from schemas.formats.columnmap import ColumnMap
from schemas.formats.hep import open_hep
from schemas.formats.identity import NumberPlan, Tokens

RECORDS_A_CUSTOMER = 4
"""So many records are read of each format for every customer of the bench."""

GOAL = 50_000
"""Records a second that each format is to reach on one core."""

CHUNK_BYTES = 1 << 20
SENT_AT_ONCE = 32

QUIET_S = 2.0
"""Nothing has come for so long: the rest is lost."""

_FIELDS = ("call_id", "customer_id", "peer_id", "start_ms", "duration_s", "sip_status", "q850", "loss_ratio", "mos")
OPTIONS = Options(
    tokens=Tokens(b"a key for benchmarks alone", NumberPlan("44")),
    csv=ColumnMap(columns=dict(zip(_FIELDS, CSV_COLUMNS, strict=True))),
)


def vendor_formats(bench: Bench) -> None:
    """Measure each format's records a second, and what a listener for HEP loses."""
    records = bench.options.customers * RECORDS_A_CUSTOMER
    slow = []
    for name, (write, each) in RECORDS.items():
        data = write(list(calls(records // each)))
        events = [item.line for item in read(name, data) if isinstance(item, Converted)]
        bench.report.say(f"{name}: {len(data) / records:.0f} bytes a record, {len(events):,} events of {records:,}")
        works = {BASE: partial(_parsed, events), name: partial(_events, name, data)}
        rates = race(records // each * each, bench.options.rounds, works)
        bench.report.race(rates)
        per_cpu_second = sorted(rates[1].per_cpu_second)[len(rates[1].per_cpu_second) // 2]
        bench.report.record("format", name=name, records=records, bytes=len(data), per_cpu_second=per_cpu_second)
        bench.report.say(f"{name}: {per_cpu_second:,.0f} records a second of processor time")
        slow += [name] if per_cpu_second < GOAL else []
    bench.report.say(f"below {GOAL:,}/s: {', '.join(slow) or 'none'}")
    for rate in bench.options.offered:
        _over_udp(bench, rate)


def read(name: str, data: bytes) -> list[object]:
    """Read an input, cut as files are."""
    reader = open_format(name, OPTIONS)
    items = [item for at in range(0, len(data), CHUNK_BYTES) for item in reader.feed(data[at : at + CHUNK_BYTES])]
    return [*items, *reader.finish()]


def _parsed(lines: list[bytes]) -> bytes:
    parse(lines)
    return b""


def _events(name: str, data: bytes) -> bytes:
    return b"".join(item.line for item in read(name, data) if isinstance(item, Converted))


def _over_udp(bench: Bench, rate: int) -> None:
    """Send packets at a rate to a listener whose packets are read at the same time."""
    count = int(rate * bench.options.seconds)
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        told = isolated(listened, Path(name), count, rate)
    bench.report.record("hep", offered=rate, packets=count, **told)
    bench.report.row(
        {
            "": "hep over UDP",
            "offered/s": f"{rate:,}",
            "sent": f"{count:,}",
            "received": f"{told['received']:,}",
            "dropped": f"{told['dropped']:,}",
            "events": f"{told['events']:,}",
            "behind, s": f"{told['behind_s']:.2f}",
        }
    )


def listened(folder: Path, count: int, rate: int) -> dict[str, float]:
    """Listen while another process sends; return what arrived, what was dropped, and how far reading was behind."""
    source = Source(Spool(folder / "spool"), folder / "calls", open_hep(OPTIONS))
    listener = Listener(source.spool, "127.0.0.1", 0)
    host, _, port = listener.address.rpartition(":")
    listener.start()
    sender = _sender(host, int(port), count, rate)
    events, ended_s, arrived, arrived_s = 0, 0.0, 0, 0.0
    try:
        for cut in source.read(None):
            events += 0 if cut is None else len(cut.chunk.positions)
            now_s = time.perf_counter()
            if ended_s == 0.0 and not sender.is_alive():
                ended_s = now_s
            before, arrived = arrived, listener.received + (listener.dropped() or 0)
            if cut is not None or arrived != before:
                arrived_s = now_s
            elif ended_s and (arrived >= count or now_s - arrived_s > QUIET_S):
                break
            else:
                time.sleep(0.005)
    finally:
        behind_s = max(arrived_s - ended_s, 0.0)
        received, dropped = listener.received, listener.dropped() or 0
        listener.stop()
        sender.join()
    return {"received": received, "dropped": dropped, "events": events, "behind_s": behind_s}


def _sender(host: str, port: int, count: int, rate: int) -> SpawnProcess:
    ready = get_context("spawn").Event()
    process = get_context("spawn").Process(target=_send, args=(host, port, count, rate, ready), daemon=True)
    process.start()
    ready.wait()
    return process


def _send(host: str, port: int, count: int, rate: int, ready: Event) -> None:
    """Send calls, packet by packet, at a rate."""
    sending = packets(calls(count // 8 + 1))[:count]
    ready.set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((host, port))
        begun_s = time.perf_counter()
        for at in range(0, len(sending), SENT_AT_ONCE):
            wait_s = begun_s + at / rate - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            for packet in sending[at : at + SENT_AT_ONCE]:
                udp.send(packet)
