"""Delivery: how fast notifications become durable, and how fast a webhook's receiver on this machine gets them."""

import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import orjson

from bench.cases.common import Bench
from bench.harness import quantiles
from dataflows.clock import now_ms
from schemas.alerts import Notification
from sinks.dispatcher import Dispatcher
from sinks.outbox import Outbox
from sinks.webhook import WebhookOutput

PUT_BATCH = 200
"""Notifications of one `put`: what a batch of a busy flow tells at most."""

BODY_BYTES = 4_000
"""Of one notification: an alert with remedies and ten calls has about as many."""

SECRET = "whsec_" + "QUJD" * 8

CONCURRENCY = 64

ANSWER = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


def delivery_rates(bench: Bench) -> None:
    """Measure enqueues, then deliveries to a receiver in another process that does nothing but answer."""
    count = bench.options.notifications
    batches = _batches(count)
    path = bench.folder / "delivery.sqlite"
    outbox = Outbox.open(path, {"crm": 10 * count}, now_ms)
    times_s = []
    begun = time.perf_counter()
    for batch in batches:
        at = time.perf_counter()
        outbox.put(batch)
        times_s.append(time.perf_counter() - at)
    put_s = time.perf_counter() - begun
    with _receiver() as url:
        output = WebhookOutput("crm", url, [SECRET], allow_networks=["127.0.0.0/8"], concurrency=CONCURRENCY)
        dispatcher = Dispatcher(outbox, [output], now_ms, random.Random(1))
        cpu_begun, begun = time.process_time(), time.perf_counter()
        dispatcher.start()
        drained = dispatcher.drain(600.0)
        sent_s, sent_cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
        dispatcher.stop()
    delivered = outbox.stats().outputs["crm"].delivered
    outbox.close()
    _remove(path)
    if not drained or delivered != count:
        raise RuntimeError(f"delivery: every one of {count} notifications must be delivered, {delivered} were")
    p50, p99, _ = quantiles(times_s)
    bench.report.record("delivery", count=count, put_s=put_s, sent_s=sent_s, sent_cpu_s=sent_cpu_s, put_times_s=times_s)
    bench.report.row(
        {
            "notifications of 4 kB": f"{count:,}",
            "enqueued/s": f"{count / put_s:,.0f}",
            f"ms a {PUT_BATCH}, p50": f"{1e3 * p50:.1f}",
            "p99": f"{1e3 * p99:.1f}",
            "webhooks/s": f"{count / sent_s:,.0f}",
            "by cpu": f"{count / sent_cpu_s:,.0f}",
        }
    )


def _batches(count: int) -> list[list[Notification]]:
    """Return alerts of as many cases: the hardest to keep apart, as each has an order of its own."""
    filling = "x" * (BODY_BYTES - 100)
    made = [
        Notification(
            f"al-{number}-1",
            "stayline.alert.opened",
            f"al-{number}",
            1,
            number,
            orjson.dumps({"id": f"al-{number}-1", "data": {"customer_id": f"c{number}", "text": filling}}),
        )
        for number in range(count)
    ]
    return [made[at : at + PUT_BATCH] for at in range(0, count, PUT_BATCH)]


def _remove(path: Path) -> None:
    for one in path.parent.glob(f"{path.name}*"):
        one.unlink()


@contextmanager
def _receiver() -> Iterator[str]:
    """Run the receiver in a process of its own; give its address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_receive, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/"
    finally:
        process.terminate()
        process.join()


def _receive(told: Connection) -> None:
    asyncio.run(_listen(told.send))


async def _listen(tell: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Answering, "127.0.0.1", 0)
    tell(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Answering(asyncio.Protocol):
    """Answers each request as soon as its body is there."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._held[:end]).lower()
            size = end + 4 + int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(self._held) < size:
                return
            del self._held[:size]
            if self._transport is not None:
                self._transport.write(ANSWER)
