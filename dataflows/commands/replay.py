"""The same flow over recorded events, as fast as it can, from the first record to the last."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from dataflows.canary import GuardedEngine
from dataflows.execution import execute
from dataflows.flow import Stop, build
from dataflows.inputs.compressed import written_whole
from dataflows.inputs.files import CHUNK_BYTES, Cut, FileReader, Place, Report
from detectors.engine import Counts
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.alerts import Notification
from schemas.deadletters import DeadLetter
from schemas.formats import Format

EPOCH = timedelta(seconds=10)


@contextlib.contextmanager
def _stopped_by_interrupt() -> Iterator[Stop]:
    """Give a `Stop` that the first SIGINT sets; a second one ends the process at once.

    An exception raised by the handler itself would be lost where Python happens to be in a destructor or a callback.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def replay(
    files: Sequence[Path],
    alerts: Path,
    settings: Settings,
    catalogue: Catalogue | None = None,
    *,
    dead_letters: Path | None = None,
    open_format: Callable[[], Format] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    report: Report = lambda _: None,
) -> Counts:
    """Run the flow over files and write what it tells, in event-time order.

    Args:
        files: read one after the other; `.gz` and `.zst` are decompressed.
        alerts: CloudEvents, one a line; replaced as a whole once all is read.
        settings: what the configuration fixes for the engine.
        catalogue: the remedies; None: those that come with the package.
        dead_letters: where records that could not be taken go; None: they are counted only.
        open_format: opens a vendor's format for one file; None: contract events.
        chunk_bytes: how much is read at a time; has no influence on the result.
        report: is told how many bytes, as they lie on disk, have been read.

    Returns:
        What became of the records.

    Raises:
        InputError: a file cannot be read.
        StaylineError: a result cannot be written.
    """
    told: list[Notification] = []
    known = Catalogue.load(default_catalogue_text()) if catalogue is None else catalogue
    engine = GuardedEngine(settings, known)

    def open_input(place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        begin = Place() if place is None else Place(*place)
        for cut in FileReader(list(files), begin, chunk_bytes=chunk_bytes, open_format=open_format, report=report):
            if stop.is_set:
                raise KeyboardInterrupt
            yield cut

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stopped_by_interrupt())
        # Opened before anything is read: who cannot write the result need not wait for it.
        out = stack.enter_context(written_whole(alerts))
        letters = None if dead_letters is None else stack.enter_context(written_whole(dead_letters))

        def write_letters(some: Sequence[DeadLetter]) -> None:
            if letters is None:
                return
            for letter in some:
                letters.write(msgspec.json.encode(letter) + b"\n")

        execute(build(open_input, engine, told.extend, write_letters, Stop(), ends=True), None, EPOCH)
        told.sort(key=lambda one: (one.time_ms, one.case, one.revision))
        for one in told:
            out.write(one.body + b"\n")
    return engine.counts
