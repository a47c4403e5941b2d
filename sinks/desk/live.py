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

from schemas.errors import StateError
from sinks.desk.cards import Change
from sinks.desk.store import DeskStore
from sinks.outputs import OutputDownError

PING_S = 15.0
"""A comment goes out after so long a silence: proxies close what is silent, and only writing finds a dead reader."""

RETRY_MS = 2_000
"""How long a browser waits before it comes back."""

STREAMS_MAX = 256
"""A team has a few hundred tabs open; each stream holds a connection."""

STREAMS_EACH_MAX = 64
"""So many of them may be one person's, or one key's: nobody shuts out the others."""

UNKNOWN_SEQ = 2**62
"""Stands for a place that no feed has: whoever asks to go on from there is told to begin anew."""


class Streams:
    """All open streams of one application.

    Args:
        store: where the changes are.
    """

    def __init__(self, store: DeskStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._wakers: dict[Callable[[], None], str] = {}
        self._closed = False

    def close(self) -> None:
        """End all streams, from any thread: a server waits for them before it stops."""
        with self._lock:
            self._closed = True
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    async def follow(self, since_seq: int | None, who: str, may_stay: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Open a stream.

        Args:
            since_seq: the last sequence that the reader has seen; None: begin with what changes from now on.
            who: the reader.
            may_stay: tells whether they may still read; asked, in a worker thread, before anything is told.

        Raises:
            HTTPException: 503 if there are too many streams already, or the desk is closing.
            StateError, OutputDownError: the store cannot be read.
        """
        with self._lock:
            if self._closed or self._is_full(who):
                raise HTTPException(503, "many_pages", {"retry-after": "15"})
        newest = await run_in_threadpool(self._store.newest_seq)
        return self._events(newest if since_seq is None else since_seq, newest, who, may_stay)

    async def _events(self, seen: int, newest: int, who: str, may_stay: Callable[[], bool]) -> AsyncIterator[bytes]:
        with self._woken(who) as woken:
            if woken is None:
                return
            yield f"retry: {RETRY_MS}\n\n".encode()
            if seen > newest:
                # The reader knows a later feed than there is: the database was put back from a copy.
                seen = newest
                yield f"id: {newest}\nevent: resync\ndata: {{}}\n\n".encode()
            while not self._closed:
                woken.clear()
                try:
                    changes = await run_in_threadpool(self._news, seen, may_stay)
                except (StateError, OutputDownError):
                    # The reader comes back, and hears of it in an answer.
                    return
                if changes is None:
                    return
                for change in changes:
                    yield event(change)
                    seen = change.seq
                if not changes and not await _set_within(woken, PING_S):
                    yield b": ping\n\n"

    def _news(self, seen: int, may_stay: Callable[[], bool]) -> list[Change] | None:
        """Return what changed since; None for a reader who may not be told any more."""
        return self._store.changes(seen) if may_stay() else None

    @contextlib.contextmanager
    def _woken(self, who: str) -> Iterator[asyncio.Event | None]:
        """Give an event that is set when the store changes or the streams are closed; None if there are too many."""
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            # RuntimeError: the loop ended meanwhile, and with it the stream.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(woken.set)

        with self._lock:
            # Again: many may have been let in since the first look.
            is_full = self._is_full(who)
            if not is_full:
                self._wakers[wake] = who
        if is_full:
            yield None
            return
        self._store.subscribe(wake)
        try:
            yield woken
        finally:
            self._store.unsubscribe(wake)
            with self._lock:
                del self._wakers[wake]

    def _is_full(self, who: str) -> bool:
        own = sum(other == who for other in self._wakers.values())
        return len(self._wakers) >= STREAMS_MAX or own >= STREAMS_EACH_MAX


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
