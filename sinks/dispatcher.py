"""The dispatcher: one thread that brings what the outbox holds to every output."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from schemas.errors import ConfigError
from sinks.lanes import CaseLane, Lane, PruneLane, StreamLane
from sinks.layout import held_alone
from sinks.outbox import Outbox
from sinks.outputs import CaseOutput, Clock, Output
from sinks.treatment import EVERYTHING, Treatment

KEEP_MS = 7 * 86_400_000
"""Delivered bodies are kept a week: longer than any replay of the engine reaches back."""


class Dispatcher:
    """Delivers from an outbox to outputs, until stopped.

    One process may dispatch an outbox at a time. Order, retries and what a crash may repeat are each output's
    (`sinks.outputs`).

    Args:
        outbox: what to deliver.
        outputs: where to; their names are among the outbox's.
        clock: Unix milliseconds.
        rng: draws the waits between attempts.
        keep_ms: how long a body is kept after it was put, once every output is done with it.
        treatments: name of the output -> its rule and shape; one that is not named gets everything as it is.

    Raises:
        ConfigError: two outputs have one name, or a stream output is to hold something back: it is a record, in the
            order of the outbox.
    """

    def __init__(
        self,
        outbox: Outbox,
        outputs: Sequence[Output],
        clock: Clock,
        rng: random.Random,
        keep_ms: int = KEEP_MS,
        treatments: Mapping[str, Treatment] | None = None,
    ) -> None:
        names = [output.name for output in outputs]
        if len(set(names)) != len(names):
            raise ConfigError([f"output names must differ, were {names}"])
        self._treatments = {} if treatments is None else dict(treatments)
        for output in outputs:
            if not isinstance(output, CaseOutput) and self._treatment(output).holds:
                raise ConfigError([f"output {output.name}: must be a webhook to hold anything back, was none"])
        self._outbox = outbox
        self._outputs = tuple(outputs)
        self._clock = clock
        self._rng = rng
        self._keep_ms = keep_ms
        self._lanes: list[Lane] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[int | None] | None = None
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Start the thread; on return it serves.

        Raises:
            StateError: another process dispatches this outbox.
        """
        if self._thread is not None:
            raise RuntimeError("a dispatcher must be started once, was started twice")
        self._thread = threading.Thread(target=self._main, name="dispatcher", daemon=True)
        self._thread.start()
        self._begun.wait()
        self.raise_if_failed()

    def stop(self, grace_s: float = 5.0) -> None:
        """Start nothing more, let what is in flight end within `grace_s`, and end the thread.

        What is broken off stays pending, and is sent again, with its id, by the next dispatcher.

        Raises:
            StaylineError: as `raise_if_failed`.
        """
        if self._thread is not None:
            self._call(self._finish)
            self._thread.join(grace_s)
            self._call(self._break_off)
            self._thread.join()
        self.raise_if_failed()

    def drain(self, timeout_s: float) -> bool:
        """Wait until every delivery has ended, delivered or dead; False if some wait after `timeout_s`.

        Raises:
            StaylineError: as `raise_if_failed`.
        """
        self._outbox.wait_until(lambda: self._failure is not None or self._is_drained(), timeout_s)
        self.raise_if_failed()
        return self._is_drained()

    def raise_if_failed(self) -> None:
        """Raise what ended the thread, if anything did.

        Raises:
            StaylineError: state on disk is not what it must be, or another process dispatches.
        """
        if self._failure is not None:
            raise self._failure

    def deliver_due(self) -> int | None:
        """Deliver, in this thread, all that is due now; return when the next is due, None if nothing waits.

        For callers that own the clock: tests, and recorded time.
        """
        if self._thread is not None:
            raise RuntimeError("a started dispatcher delivers by itself")
        with _one_failure():
            return asyncio.run(self._serve(until_idle=True))

    def _is_drained(self) -> bool:
        return not any(self._outbox.pending(output.name) for output in self._outputs)

    def _main(self) -> None:
        try:
            with _one_failure():
                asyncio.run(self._serve(until_idle=False))
        except asyncio.CancelledError:
            pass  # broken off by `stop`
        except BaseException as failure:  # noqa: BLE001  kept for `raise_if_failed`: a thread has no caller to tell
            self._failure = failure
            self._begun.set()
            self._outbox.announce()

    async def _serve(self, *, until_idle: bool) -> int | None:
        """Run all lanes; return the earliest time at which one of them has more to do."""
        self._lanes = [PruneLane(self._outbox, self._keep_ms, self._clock), *map(self._lane, self._outputs)]
        self._serving = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        with held_alone(self._outbox.path.with_name(f"{self._outbox.path.name}-dispatcher")):
            self._outbox.subscribe(self._wake_soon)
            self._begun.set()
            try:
                async with asyncio.TaskGroup() as group:
                    runs = [group.create_task(lane.run(until_idle=until_idle)) for lane in self._lanes]
            finally:
                self._outbox.unsubscribe(self._wake_soon)
                for lane in self._lanes:
                    await lane.close()
        return min((next_ms for run in runs if (next_ms := run.result()) is not None), default=None)

    def _wake_soon(self) -> None:
        self._call(self._wake)

    def _wake(self) -> None:
        for lane in self._lanes:
            lane.wake.set()

    def _finish(self) -> None:
        for lane in self._lanes:
            lane.stopping = True
        self._wake()

    def _break_off(self) -> None:
        if self._serving is not None:
            self._serving.cancel()

    def _call(self, action: Callable[[], object]) -> None:
        """Run `action` in the dispatcher's loop, if it still runs."""
        # RuntimeError: the loop ended meanwhile, and so did every need to tell it anything.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(action)

    def _lane(self, output: Output) -> Lane:
        queue, treatment = self._outbox.queue(output.name), self._treatment(output)
        if isinstance(output, CaseOutput):
            return CaseLane(queue, output, self._clock, self._rng, treatment)
        return StreamLane(queue, output, self._clock, self._rng, treatment)

    def _treatment(self, output: Output) -> Treatment:
        return self._treatments.get(output.name, EVERYTHING)


@contextlib.contextmanager
def _one_failure() -> Iterator[None]:
    """Raise the first failure of a group alone: one lane's fault ends them all, and the rest are echoes."""
    try:
        yield
    except BaseExceptionGroup as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from group
