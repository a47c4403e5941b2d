"""The desk with many open cases: how soon an update is on disk, in the live stream, and on a page."""

import time
from collections.abc import Iterator
from contextlib import closing

import httpx2

from bench.cases.common import Bench
from bench.harness import quantiles
from dataflows.inputs.http import Server
from schemas.alerts import (
    Alert,
    CallEvidence,
    Cause,
    ChurnRisk,
    Notification,
    NotificationType,
    Pattern,
    Remedy,
    notification,
)
from sinks.desk.app import desk_application
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore

CASES_OPEN = 10_000
UPDATES = 200
PAGES = 40
NOW_MS = 1_768_680_000_000


def desk_updates(bench: Bench) -> None:
    """Measure a desk on SQLite with ten thousand open cases, asked over loopback."""
    store = DeskStore(SqliteDatabase(bench.folder / "desk.sqlite3"), lambda: NOW_MS)
    with closing(store):
        for begin in range(0, CASES_OPEN, 500):
            store.put([_told(number, 1) for number in range(begin, begin + 500)])
        application = desk_application(store, lambda _: None)
        server = Server(application, "127.0.0.1", 0, before_stop=application.state.streams.close)
        server.start()
        try:
            _measure(bench, store, f"http://{server.address}")
        finally:
            server.stop()


def _measure(bench: Bench, store: DeskStore, base: str) -> None:
    stored: list[float] = []
    streamed: list[float] = []
    pages: list[float] = []
    with httpx2.Client(base_url=base, timeout=30.0, trust_env=False) as client:
        with client.stream("GET", f"/events?since={store.newest_seq()}") as answer:
            heard = _changes(answer.iter_lines())
            for number in range(UPDATES):
                begun_s = time.perf_counter()
                store.put([_told(number * 37 % CASES_OPEN, 2 + number * 37 // CASES_OPEN)])
                stored.append(time.perf_counter() - begun_s)
                next(heard)
                streamed.append(time.perf_counter() - begun_s)
        for _ in range(PAGES):
            begun_s = time.perf_counter()
            client.get("/").raise_for_status()
            pages.append(time.perf_counter() - begun_s)
    bench.report.say(f"desk, SQLite, {CASES_OPEN:,} open cases; milliseconds")
    for name, seconds in (("update durable", stored), ("update in the live stream", streamed), ("feed page", pages)):
        p50, p99, _ = (1_000.0 * value for value in quantiles(seconds))
        bench.report.row({"": name, "count": str(len(seconds)), "p50": f"{p50:.1f}", "p99": f"{p99:.1f}"})
        bench.report.record("desk", name=name, cases=CASES_OPEN, count=len(seconds), p50_ms=p50, p99_ms=p99)


def _changes(lines: Iterator[str]) -> Iterator[str]:
    return (line for line in lines if line.startswith("data: "))


def _told(number: int, revision: int) -> Notification:
    """Make one revision of one case, with ten calls and three remedies as most have."""
    remedies = [
        Remedy(f"remedy_{n}", "A remedy", "What to say. " * 8, "Why it helps. " * 8, 300, 400) for n in range(3)
    ]
    calls = [CallEvidence(f"call{n}", NOW_MS + n, "dropped", 32_000, 4.1) for n in range(10)]
    data = Alert(
        alert_id=f"al_{number:06}",
        revision=revision,
        customer_id=f"c{number:06}",
        severity="major",
        detected_ms=NOW_MS,
        since_ms=NOW_MS - 86_400_000,
        pattern=Pattern("drop_rate", "4 of your last 5 calls were cut off.", 9, 5, 4, 0.8, 0.015, 6.8),
        cause=Cause("access_line_fault", 0.7, ["cpe_or_firmware"]),
        incident_id=None,
        churn=ChurnRisk(0.02, "low", 0.015, [], "model@1"),
        value_at_risk_minor=number,
        currency="EUR",
        remedies=remedies,
        calls=calls,
        region=f"region-{number % 12:02}",
    )
    kind: NotificationType = "stayline.alert.opened" if revision == 1 else "stayline.alert.updated"
    return notification("bench", kind, NOW_MS, data)
