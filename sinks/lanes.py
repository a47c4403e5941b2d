"""How one output is served: a lane takes what is due, hands it over, and records what came of it.

Each lane has its own task, so that no output waits for another.
"""

import asyncio
import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sinks.outbox import PRUNE_ROWS, Outbox
from sinks.outputs import (
    CaseOutput,
    Clock,
    Delivery,
    Health,
    NotificationRefusedError,
    Outcome,
    OutputDownError,
    State,
    StreamOutput,
    Undeliverable,
)
from sinks.queues import Ended, Queue


class Lane(Protocol):
    """Serves one output, or the outbox itself."""

    wake: asyncio.Event
    """Set when there may be something to do."""
    stopping: bool
    """Set, then woken, to end what is in hand and start nothing more."""

    async def run(self, *, until_idle: bool) -> int | None:
        """Serve until stopped or, `until_idle`, until nothing is due; return when the next is due."""

    async def close(self) -> None:
        """Break off what is in flight."""


BATCH = 500
"""Notifications a stream output takes at once: a few megabytes at most."""

POLL_MS = 1_000
"""Longest sleep: an operator's command in another process changes the file without a word."""

FAILURES_MAX = 10
"""Failures in a row that open a case output's breaker."""

PRUNE_EVERY_MS = 3_600_000
"""Pause between two prunings."""


class StreamLane:
    """Serves a stream output: one batch after the other, in the outbox's order."""

    def __init__(self, queue: Queue, output: StreamOutput, clock: Clock, rng: random.Random) -> None:
        self._queue = queue
        self._output = output
        self._clock = clock
        self._rng = rng
        # A thread of its own: a disk or a broker may take its time, and no other output must wait for it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=output.name)
        self._writing: asyncio.Future[int] | None = None
        self.wake = asyncio.Event()
        self.stopping = False

    async def run(self, *, until_idle: bool) -> int | None:
        """Deliver until stopped or, `until_idle`, until nothing is due; return when the next is due."""
        while not self.stopping:
            self.wake.clear()
            position, breaker = self._queue.standing()
            batch = self._queue.head(BATCH)
            if batch and breaker.room(self._clock(), 1):
                await self._deliver(batch, position)
                continue
            next_ms = breaker.until_ms if batch and breaker.state == "open" else None
            if until_idle:
                return next_ms
            await _sleep(self.wake, next_ms, self._clock())
        return None

    async def close(self) -> None:
        """Wait for a write in hand: nobody else may write before it has ended."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._thread.shutdown()

    async def _deliver(self, batch: list[Delivery], position: int) -> None:
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, self._append, batch, position)
        try:
            end = await asyncio.shield(self._writing)
        except OutputDownError as error:
            self._pause(str(error))
        except NotificationRefusedError as error:
            outcome = Outcome(State.DEAD, Health.WELL, reason=Undeliverable.MALFORMED, reply=error.detail)
            now_ms = self._clock()
            _, breaker = self._queue.standing()
            self._queue.settle([Ended(batch[error.index], outcome, now_ms)], now_ms, breaker)
        else:
            self._queue.commit(batch, end, self._clock())

    def _append(self, batch: list[Delivery], position: int) -> int:
        start = self._output.recover(position)
        if start != position:
            # Committed before anything is written: a crash in between must not find a file shorter than promised.
            self._queue.commit([], start, self._clock())
        return self._output.append(start, [delivery.notification for delivery in batch])

    def _pause(self, trouble: str) -> None:
        _, breaker = self._queue.standing()
        failed = Outcome(State.PENDING, Health.FAILING)
        self._queue.pause(breaker.after(failed, self._clock(), 1, self._rng), trouble)


class CaseLane:
    """Serves a case output: many attempts at once, one of a case at a time, held back by the breaker."""

    def __init__(self, queue: Queue, output: CaseOutput, clock: Clock, rng: random.Random) -> None:
        self._queue = queue
        self._output = output
        self._clock = clock
        self._rng = rng
        self._in_flight: dict[asyncio.Task[Outcome], tuple[Delivery, int]] = {}
        self.wake = asyncio.Event()
        self.stopping = False

    async def run(self, *, until_idle: bool) -> int | None:
        """Deliver until stopped or, `until_idle`, until nothing is due; return when the next is due."""
        while True:
            self.wake.clear()
            self._settle()
            next_ms = None if self.stopping else self._start()
            if not self._in_flight and (self.stopping or until_idle):
                return next_ms
            await _sleep(self.wake, next_ms, self._clock())

    async def close(self) -> None:
        """Break off what is in flight: it stays pending, and is sent again with the same id."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        self._in_flight.clear()
        await self._output.close()

    def _start(self) -> int | None:
        """Start what is due; return when more will be, None if something must end or change first."""
        now_ms = self._clock()
        _, breaker = self._queue.standing()
        room = breaker.room(now_ms, self._output.concurrency) - len(self._in_flight)
        if room > 0:
            busy = {delivery.notification.case for delivery, _ in self._in_flight.values()}
            due = self._queue.due(now_ms, room, busy)
            if due and self._output.newest_only:
                due = self._queue.keep_newest(due)
            for delivery in due:
                self._attempt(delivery, now_ms)
            room -= len(due)
        if breaker.state == "disabled":
            return None
        if breaker.state == "open" and now_ms < breaker.until_ms:
            first_ms = self._queue.next_due_ms(0)
            return None if first_ms is None else max(first_ms, breaker.until_ms)
        # Without room only an end matters; with it, what is due by now is in flight.
        return self._queue.next_due_ms(now_ms + 1) if room > 0 else None

    def _attempt(self, delivery: Delivery, now_ms: int) -> None:
        attempt = self._output.attempt(delivery, self._clock, self._rng)
        task = asyncio.get_running_loop().create_task(attempt)
        task.add_done_callback(lambda _: self.wake.set())
        self._in_flight[task] = (delivery, now_ms)

    def _settle(self) -> None:
        """Record every attempt that has ended, all in one transaction."""
        done = [task for task in self._in_flight if task.done()]
        if not done:
            return
        now_ms = self._clock()
        _, breaker = self._queue.standing()
        ended = []
        for task in done:
            delivery, began_ms = self._in_flight.pop(task)
            outcome = task.result()
            breaker = breaker.after(outcome, now_ms, FAILURES_MAX, self._rng)
            ended.append(Ended(delivery, outcome, began_ms))
        self._queue.settle(ended, now_ms, breaker)


class PruneLane:
    """Drops, once an hour, what every output is done with and no replay of the engine can reach."""

    def __init__(self, outbox: Outbox, keep_ms: int, clock: Clock) -> None:
        self._outbox = outbox
        self._keep_ms = keep_ms
        self._clock = clock
        self._next_ms = 0
        self.wake = asyncio.Event()
        self.stopping = False

    async def run(self, *, until_idle: bool) -> int | None:
        """Prune until stopped or, `until_idle`, once if it is time."""
        while not self.stopping:
            self.wake.clear()
            now_ms = self._clock()
            if now_ms >= self._next_ms and self._outbox.prune(now_ms - self._keep_ms) < PRUNE_ROWS:
                self._next_ms = now_ms + PRUNE_EVERY_MS
            if until_idle:
                return None
            # While there is more to prune, the other lanes have their turn in between.
            await _sleep(self.wake, self._next_ms, now_ms)
        return None

    async def close(self) -> None:
        """Nothing is held."""


async def _sleep(wake: asyncio.Event, until_ms: int | None, now_ms: int) -> None:
    """Sleep until woken, until `until_ms`, or for `POLL_MS`, whatever comes first."""
    wait_ms = POLL_MS if until_ms is None else max(0, min(POLL_MS, until_ms - now_ms))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_ms / 1000):
            await wake.wait()
