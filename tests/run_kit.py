"""What the tests of whole runs share: a telco's events, a configuration, the program as a process of its own."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from bench.simulator import TelcoSpec, simulate
from dataflows import cli, run, sources

TELCO = TelcoSpec(customers=120, days=5, seed=4, faulty_ratio=0.4, broken_ratio=0.002, late_ratio=0.003)
"""Small, and full of trouble: some 25 notifications of every type from some 4,000 records, six of them broken."""

PATIENCE_S = 60.0
"""How long an event is awaited that must come."""


def recorded(folder: Path) -> Path:
    """Simulate the telco; return its events."""
    return simulate(TELCO, folder, lambda _done, _total: None).events_path


def lines(path: Path) -> list[bytes]:
    """Return the whole lines of a file; none if it is not there."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def ids(notifications: list[bytes]) -> list[str]:
    return [orjson.loads(line)["id"] for line in notifications]


def until(holds: Callable[[], Any], what: str) -> Any:
    """Wait until something holds; return it."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline_s, f"{what} did not come in {PATIENCE_S:.0f} s"
        threading.Event().wait(0.01)
    return found


class Program:
    """`stayline` in a process of its own, forked from one that has everything imported: it starts in no time.

    Args:
        arguments: as at a prompt.
        folder: its working directory; standard error goes to `stderr` there.
        epoch_ms: time between checkpoints of `run`.
        chunk_bytes: how much `run` reads of a file at once.
        segment_bytes: how large a segment of its spool grows.
        before: is called in the process before it becomes the program; a function of a module.
    """

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(["dataflows.run", "dataflows.cli", "sinks.desk.app"])

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        epoch_ms: int = 100,
        chunk_bytes: int = 16_384,
        segment_bytes: int = 65_536,
        before: Callable[[], object] = bool,
    ) -> None:
        self._stderr = folder / "stderr"
        self._stderr.unlink(missing_ok=True)
        given = ([str(argument) for argument in arguments], folder, epoch_ms, chunk_bytes, segment_bytes, before)
        self._process = self._context.Process(target=_main, args=given, daemon=True)
        self._process.start()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def kill_after(self, seconds: float | None) -> threading.Thread:
        """Kill it, while the caller does something else; None: do not. Return what is to be joined."""
        blow = threading.Timer(seconds or 0.0, self._process.kill if seconds is not None else lambda: None)
        blow.start()
        return blow

    def join(self, seconds: float) -> None:
        """Wait until it ends, but not longer than this."""
        self._process.join(seconds)

    @property
    def pid(self) -> int:
        return int(self._process.pid or 0)

    def running(self) -> bool:
        return self._process.is_alive()

    def wait(self) -> int:
        """Return its exit code."""
        self._process.join(PATIENCE_S)
        assert self._process.exitcode is not None, f"the program must have ended in {PATIENCE_S:.0f} s"
        return self._process.exitcode

    def stderr(self) -> str:
        return self._stderr.read_text() if self._stderr.exists() else ""

    def address(self, what: str) -> str:
        """Wait until it listens for `what`; return where."""

        def found() -> str | None:
            told = [orjson.loads(line) for line in lines(self._stderr) if line.startswith(b"{")]
            return next((one["address"] for one in told if one.get("what") == what), None)

        return f"http://{until(found, f'the address of {what}')}"


def _main(
    arguments: list[str],
    folder: Path,
    epoch_ms: int,
    chunk_bytes: int,
    segment_bytes: int,
    before: Callable[[], object],
) -> None:
    """Be the program."""
    os.chdir(folder)
    file = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    run.run = functools.partial(run.run, epoch=timedelta(milliseconds=epoch_ms))
    sources.Spool = functools.partial(sources.Spool, segment_bytes=segment_bytes)
    sources.FileReader = functools.partial(sources.FileReader, chunk_bytes=chunk_bytes)
    before()
    sys.argv = ["stayline", *arguments]
    cli.main()
