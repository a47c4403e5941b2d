"""The live feed: server-sent events (WHATWG HTML, section 9.2) straight from the store.

There is no queue for a client: a stream asks the store for what changed after the last sequence it sent. So a slow
reader costs no memory, and a reader who comes back with `Last-Event-ID` misses nothing.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from sinks.desk.cards import Change
from sinks.desk.store import DeskStore

PING_S = 15.0
"""A comment goes out after so long a silence: proxies close what is silent, and only writing finds a dead reader."""

RETRY_MS = 2_000
"""How long a browser waits before it comes back."""

STREAMS_MAX = 256
"""A team has a few hundred tabs open; each stream holds a connection."""


class Streams:
    """All open streams of one application.

    Args:
        store: where the changes are.
    """

    def __init__(self, store: DeskStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._wakers: set[Callable[[], None]] = set()
        self._closed = False

    def close(self) -> None:
        """End all streams, from any thread: a server waits for them before it stops."""
        with self._lock:
            self._closed = True
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    async def follow(self, since_seq: int | None) -> AsyncIterator[bytes]:
        """Open a stream.

        Args:
            since_seq: the last sequence that the reader has seen; None: begin with what changes from now on.

        Raises:
            HTTPException: 503 if there are too many streams already, or the desk is closing.
            StateError, OutputDownError: the store cannot be read.
        """
        with self._lock:
            if self._closed or len(self._wakers) >= STREAMS_MAX:
                raise HTTPException(503, "many_pages")
        newest = await run_in_threadpool(self._store.newest_seq)
        return self._events(newest if since_seq is None else since_seq, newest)

    async def _events(self, seen: int, newest: int) -> AsyncIterator[bytes]:
        with self._woken() as woken:
            yield f"retry: {RETRY_MS}\n\n".encode()
            if seen > newest:
                # The reader knows a later feed than there is: the database was put back from a copy.
                seen = newest
                yield f"id: {newest}\nevent: resync\ndata: {{}}\n\n".encode()
            while not self._closed:
                woken.clear()
                changes = await run_in_threadpool(self._store.changes, seen)
                for change in changes:
                    yield event(change)
                    seen = change.seq
                if not changes and not await _set_within(woken, PING_S):
                    yield b": ping\n\n"

    @contextlib.contextmanager
    def _woken(self) -> Iterator[asyncio.Event]:
        """Give an event that is set when the store changes or the streams are closed."""
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            # RuntimeError: the loop ended meanwhile, and with it the stream.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(woken.set)

        with self._lock:
            self._wakers.add(wake)
        self._store.subscribe(wake)
        try:
            yield woken
        finally:
            self._store.unsubscribe(wake)
            with self._lock:
                self._wakers.discard(wake)


def event(change: Change) -> bytes:
    """Write one change as an event; its JSON has no line break, whatever the texts hold."""
    data = {
        "case_id": change.case_id,
        "type": change.type,
        "revision": change.revision,
        "severity": change.severity,
        "last_action": change.last_action,
        "owner": change.owner,
    }
    return b"id: %d\nevent: change\ndata: %s\n\n" % (change.seq, orjson.dumps(data))


async def _set_within(woken: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return False
    return True
