"""The same flow over recorded events, as fast as it can, from the first record to the last."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import orjson

from dataflows.files import CHUNK_BYTES, Cut, FileReader, Place
from dataflows.flow import Stop, build, execute
from dataflows.writing import write_atomically
from detectors.engine import Counts, RiskEngine, Settings
from detectors.catalogue import Catalogue, default_catalogue_text
from schemas.alerts import Notification
from schemas.deadletters import DeadLetter
from schemas.errors import InputError
from schemas.formats import Format

EPOCH = timedelta(seconds=10)

Progress = Callable[[int], None]
"""Is told how many bytes of the input have been read."""


def replay(
    files: Sequence[Path],
    alerts: Path,
    settings: Settings,
    *,
    dead_letters: Path | None = None,
    open_format: Callable[[], Format] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> Counts:
    """Run the flow over files and write what it tells, in event-time order.

    Args:
        files: read one after the other; `.gz` and `.zst` are decompressed.
        alerts: CloudEvents, one a line; replaced as a whole once all is read.
        settings: what the configuration fixes for the engine.
        dead_letters: where records that could not be taken go; None: they are counted only.
        open_format: opens a vendor's format for one file; None: contract events.
        chunk_bytes: how much is read at a time; has no influence on the result.
        progress: is told how far reading has come.

    Returns:
        What became of the records.

    Raises:
        InputError: a file cannot be read.
    """
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: must be a readable file, was not found")
    told: list[Notification] = []
    letters: list[DeadLetter] = []
    engine = RiskEngine(settings, Catalogue.load(default_catalogue_text()))

    def open_input(place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        begin = Place() if place is None else Place(*place)
        read = 0
        for cut in FileReader(list(files), begin, chunk_bytes=chunk_bytes, open_format=open_format):
            yield cut
            if cut is not None and progress is not None:
                read += len(cut.chunk.data)
                progress(read)

    execute(build(open_input, engine, told.extend, letters.extend, Stop(), ends=True), None, EPOCH)
    told.sort(key=lambda one: (one.time_ms, one.case, one.revision))
    write_atomically(alerts, (one.body for one in told))
    if dead_letters is not None:
        write_atomically(dead_letters, (orjson.dumps(msgspec.to_builtins(letter)) for letter in letters))
    return engine.counts
