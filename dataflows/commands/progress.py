"""Shows how far a long piece of work has come: a bar on a terminal, plain lines elsewhere, on standard error.

    with progress("convert", total=size, unit="bytes") as report:
        ...
        report(done)

Nothing is shown of work that takes less than a second.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from dataflows.wording import counted

Unit = Literal["bytes", "days", "records", "seconds"]
Clock = Callable[[], float]
Report = Callable[[int], None]
"""Is told how much has been done in all."""

PATIENCE_S = 1.0
"""What takes less is done before anybody wonders."""

LINE_EVERY_S = 5.0


@contextmanager
def progress(
    label: str, total: int | None, unit: Unit, stream: TextIO | None = None, clock: Clock = time.monotonic
) -> Iterator[Report]:
    """Show the progress of what happens inside.

    Args:
        label: what is being done.
        total: how much there is to do; None: not known.
        unit: of what.
        stream: where to show it; standard error if not given.
        clock: seconds from any moment on.
    """
    target = sys.stderr if stream is None else stream
    shown = _Bar(label, total, unit, target, clock) if target.isatty() else _Lines(label, total, unit, target, clock)
    try:
        yield shown.report
    finally:
        shown.end()


class _Lines:
    """A line after the first second, then one every few seconds, and one at the end."""

    def __init__(self, label: str, total: int | None, unit: Unit, stream: TextIO, clock: Clock) -> None:
        self._label = label
        self._total = total
        self._unit = unit
        self._stream = stream
        self._clock = clock
        self._begun_s = clock()
        self._due_s = self._begun_s + PATIENCE_S
        self._done = 0
        self._told = False

    def report(self, done: int) -> None:
        self._done = done
        if self._clock() >= self._due_s:
            self._due_s = self._clock() + LINE_EVERY_S
            self._told = True
            self._say("")

    def end(self) -> None:
        if self._told:
            self._say("ended, ")

    def _say(self, state: str) -> None:
        share = "" if not self._total else f" of {_amount(self._total, self._unit)}"
        percent = "" if not self._total else f", {100 * self._done // self._total}%"
        elapsed_s = self._clock() - self._begun_s
        text = f"{state}{_amount(self._done, self._unit)}{share}{percent}, {elapsed_s:.0f} s"
        print(f"stayline: {self._label}: {text}", file=self._stream, flush=True)


class _Bar:
    """A bar that appears after the first second and is wiped away at the end."""

    def __init__(self, label: str, total: int | None, unit: Unit, stream: TextIO, clock: Clock) -> None:
        # Rich costs a tenth of a second to import, and is needed on terminals alone.
        from rich import progress as bars  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415

        amount = (
            bars.DownloadColumn() if unit == "bytes" else bars.TextColumn("{task.completed} of {task.total} " + unit)
        )
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), amount, bars.TimeRemainingColumn())
        self._bars = bars.Progress(*columns, console=Console(file=stream), transient=True)
        self._task = self._bars.add_task(label, total=total)
        self._clock = clock
        self._due_s = clock() + PATIENCE_S
        self._started = False

    def report(self, done: int) -> None:
        if not self._started and self._clock() >= self._due_s:
            self._bars.start()
            self._started = True
        self._bars.update(self._task, completed=done)

    def end(self) -> None:
        self._bars.stop()


def _amount(number: int, unit: Unit) -> str:
    if unit == "bytes" and number >= 100_000:
        return f"{number / 1e6:,.1f} MB"
    return counted(number, unit.removesuffix("s"))
