"""How one output is served: a lane takes what is due, hands it over, and records what came of it.

Each lane has its own task, so that no output waits for another.
"""

import asyncio
import contextlib
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

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
from sinks.routing import Facts, Standing
from sinks.treatment import EVERYTHING, Aside, Ready, Treatment, treat


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

    def __init__(
        self,
        queue: Queue,
        output: StreamOutput,
        clock: Clock,
        rng: random.Random,
        treatment: Treatment = EVERYTHING,
    ) -> None:
        self._treatment = treatment
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
                sending = self._treated(batch)
                if sending:
                    await self._deliver(sending, position)
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

    def _treated(self, batch: list[Delivery]) -> list[Delivery]:
        """Return what of a batch is to be written, in its shape; put the rest aside."""
        if self._treatment == EVERYTHING:
            return batch
        now_ms = self._clock()
        sending: list[Delivery] = []
        asides: list[tuple[Delivery, Aside]] = []
        told: set[str] = set()
        for delivery in batch:
            case = delivery.notification.case

            def standing(_: Facts, case: str = case) -> Standing:
                return Standing(told=True) if case in told else self._queue.told(case, None)

            found = treat(self._treatment, delivery.notification, standing, now_ms)
            if isinstance(found, Aside):
                asides.append((delivery, found))
            else:
                told.add(case)
                sending.append(replace(delivery, notification=found.notification))
        self._queue.put_aside(asides, now_ms)
        return sending

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


class _Flight(Struct, frozen=True):
    """An attempt in flight: what is sent, since when, and whose contact it is."""

    delivery: Delivery
    began_ms: int
    contact: str | None


class CaseLane:
    """Serves a case output: many attempts at once, one of a case at a time, held back by the breaker."""

    def __init__(
        self,
        queue: Queue,
        output: CaseOutput,
        clock: Clock,
        rng: random.Random,
        treatment: Treatment = EVERYTHING,
    ) -> None:
        self._treatment = treatment
        self._queue = queue
        self._output = output
        self._clock = clock
        self._rng = rng
        self._in_flight: dict[asyncio.Task[Outcome], _Flight] = {}
        # At the start too: it may have been put back while nothing ran.
        self._newest_ms = sys.maxsize
        self.wake = asyncio.Event()
        self.stopping = False

    async def run(self, *, until_idle: bool) -> int | None:
        """Deliver until stopped or, `until_idle`, until nothing is due; return when the next is due."""
        self._queue.release(self._clock())
        while True:
            self.wake.clear()
            self._follow_clock()
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

    def _follow_clock(self) -> None:
        """Where the clock was put back, wait for no time that it had shown."""
        now_ms = self._clock()
        if now_ms < self._newest_ms:
            self._queue.pull_in(now_ms)
        self._newest_ms = now_ms

    def _start(self) -> int | None:
        """Start what is due; return when more will be, None if something must end or change first."""
        now_ms = self._clock()
        _, breaker = self._queue.standing()
        room = breaker.room(now_ms, self._output.concurrency) - len(self._in_flight)
        if room > 0:
            room -= self._start_ready(now_ms, room)
        if breaker.state == "disabled":
            return None
        if breaker.shut(now_ms):
            first_ms = self._queue.next_due_ms(0)
            return None if first_ms is None else max(first_ms, breaker.until_ms)
        # Without room only an end matters; with it, what is due by now is in flight.
        return self._queue.next_due_ms(now_ms + 1) if room > 0 else None

    def _start_ready(self, now_ms: int, room: int) -> int:
        """Start up to `room` of what is due and wanted, put the rest of it aside; return how many were started."""
        started, limit = 0, room
        # Cases that have an attempt in flight, or whose customer has: they are asked again when it ends.
        busy = {flight.delivery.notification.case for flight in self._in_flight.values()}
        while started < room:
            asides: list[tuple[Delivery, Aside]] = []
            for delivery in self._due(now_ms, limit, busy):
                found = treat(self._treatment, delivery.notification, partial(self._standing, delivery), now_ms)
                if isinstance(found, Aside):
                    asides.append((delivery, found))
                    continue
                busy.add(delivery.notification.case)
                if not self._is_in_contact(found):
                    self._attempt(delivery, found, now_ms)
                    started += 1
                if started == room:
                    break
            self._queue.put_aside(asides, now_ms)
            if not asides:
                break
            # A backlog of what nobody wants is gone through in few transactions.
            limit = min(2 * limit, BATCH)
        return started

    def _due(self, now_ms: int, limit: int, busy: set[str]) -> list[Delivery]:
        due = self._queue.due(now_ms, limit, busy)
        return self._queue.keep_newest(due, self._treatment.rule.types) if due and self._output.newest_only else due

    def _standing(self, delivery: Delivery, facts: Facts) -> Standing:
        contact = None if self._treatment.rule.cap is None else facts.customer_id
        return self._queue.told(delivery.notification.case, contact)

    def _is_in_contact(self, ready: Ready) -> bool:
        """Whether another first push about the same customer is in flight: its end decides about this one."""
        return ready.contact is not None and any(flight.contact == ready.contact for flight in self._in_flight.values())

    def _attempt(self, delivery: Delivery, ready: Ready, now_ms: int) -> None:
        shaped = replace(delivery, notification=ready.notification)
        attempt = self._output.attempt(shaped, self._clock, self._rng)
        task = asyncio.get_running_loop().create_task(attempt)
        task.add_done_callback(lambda _: self.wake.set())
        self._in_flight[task] = _Flight(delivery, now_ms, ready.contact)

    def _settle(self) -> None:
        """Record every attempt that has ended, all in one transaction."""
        done = [task for task in self._in_flight if task.done()]
        if not done:
            return
        now_ms = self._clock()
        _, breaker = self._queue.standing()
        ended = []
        for task in done:
            flight = self._in_flight.pop(task)
            outcome = task.result()
            breaker = breaker.after(outcome, now_ms, FAILURES_MAX, self._rng)
            ended.append(Ended(flight.delivery, outcome, flight.began_ms, flight.contact))
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
