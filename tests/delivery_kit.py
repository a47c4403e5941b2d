"""What the delivery tests share: notifications, a clock, outputs of memory, a receiver that misbehaves."""

import asyncio
import random
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import orjson

from schemas.alerts import Notification
from sinks.dispatcher import Dispatcher
from sinks.outbox import Outbox
from sinks.outputs import Clock, Delivery, Health, Outcome, OutputDownError, State

SECRET = "whsec_" + "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5"
LOOPBACK = ["127.0.0.0/8"]


def notice(case: str, revision: int, text: str = "", customer: str = "k1") -> Notification:
    """A notification whose body is its id, its customer and a text."""
    identity = f"{case}-{revision}"
    body = orjson.dumps({"id": identity, "data": {"customer_id": customer, "text": text}})
    return Notification(identity, "stayline.alert.opened", case, revision, 1_000 * revision, body)


def notices(count: int, cases: int = 3) -> list[Notification]:
    """`count` notifications that take turns among `cases` cases."""
    return [notice(f"case{n % cases}", 1 + n // cases) for n in range(count)]


class FakeClock:
    """Time that stands still until it is told otherwise."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def run_out(dispatcher: Dispatcher, clock: FakeClock, turns_max: int = 500) -> None:
    """Deliver in virtual time until nothing is left to wait for."""
    for _ in range(turns_max):
        next_ms = dispatcher.deliver_due()
        if next_ms is None:
            return
        assert next_ms > clock.now_ms, "what is due now must have been attempted"
        clock.now_ms = next_ms
    raise AssertionError(f"still waiting after {turns_max} turns")


def dispatcher_of(outbox: Outbox, clock: Clock, *outputs: object) -> Dispatcher:
    return Dispatcher(outbox, outputs, clock, random.Random(7))  # noqa: S311  seeded, not secret


class MemoryStream:
    """A stream output that keeps its lines in memory and fails when told to."""

    def __init__(self, name: str = "file") -> None:
        self.name = name
        self.lines: list[str] = []
        self.failures: list[Exception] = []

    def recover(self, position: int) -> int:
        del self.lines[position:]
        return position

    def append(self, position: int, notifications: Sequence[Notification]) -> int:
        assert position == len(self.lines)
        if self.failures:
            self.lines.append("half a batch")
            raise self.failures.pop(0)
        self.lines += [notification.id for notification in notifications]
        return len(self.lines)


DOWN = OutputDownError("down")


@dataclass
class MemoryCases:
    """A case output whose outcomes a function decides; it records every attempt."""

    decide: Callable[[Delivery, int], Outcome]
    name: str = "crm"
    concurrency: int = 4
    newest_only: bool = False
    attempts: list[tuple[str, int]] = field(default_factory=list)
    in_flight: set[str] = field(default_factory=set)
    in_flight_max: int = 0

    async def attempt(self, delivery: Delivery, clock: Clock, rng: random.Random) -> Outcome:
        del rng
        case = delivery.notification.case
        assert case not in self.in_flight, "one attempt of a case at a time"
        self.in_flight.add(case)
        self.in_flight_max = max(self.in_flight_max, len(self.in_flight))
        self.attempts.append((delivery.notification.id, clock()))
        await asyncio.sleep(0)
        self.in_flight.discard(case)
        return self.decide(delivery, clock())

    async def close(self) -> None:
        assert not self.in_flight


def delivered(_delivery: Delivery, _now_ms: int) -> Outcome:
    return Outcome(State.DELIVERED, Health.WELL, reply="200")


def again_in(wait_ms: int) -> Callable[[Delivery, int], Outcome]:
    return lambda _, now_ms: Outcome(State.PENDING, Health.FAILING, retry_ms=now_ms + wait_ms, reply="503")


@dataclass(frozen=True)
class Request:
    """One request as the receiver saw it."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Reply:
    """A well-formed answer."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"ok"


RESET = "reset"
"""Take the request in, then cut the connection without an answer."""
DRIP = "drip"
"""Begin an answer that never ends."""
CUT = "cut"
"""Answer 200, promise a body, then cut the connection."""


class Receiver:
    """An HTTP server on loopback, in a thread. `react(request, nth)` says what request `nth` meets."""

    def __init__(self, react: Callable[[Request, int], Reply | str | bytes] = lambda _r, _n: Reply()) -> None:
        self.react = react
        self.requests: list[Request] = []
        self.connections = 0
        self.tls: ssl.SSLContext | None = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?from=test"

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the sender went away, as a killed one does
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        request = Request(headers | {":target": head[0].split()[1]}, body)
        nth = len(self.requests)
        self.requests.append(request)
        reaction = self.react(request, nth)
        if isinstance(reaction, Reply):
            writer.write(_wire(reaction))
            await writer.drain()
            return True
        if reaction == RESET:
            writer.transport.abort()
        elif isinstance(reaction, bytes):
            writer.write(reaction)
        elif reaction == CUT:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        else:
            writer.write(b"HTTP/1.1 200 O")
            await reader.read()
        return False


def _wire(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} Said", *(f"{k}: {v}" for k, v in reply.headers)]
    return "\r\n".join([*lines, f"content-length: {len(reply.body)}", "", ""]).encode() + reply.body
