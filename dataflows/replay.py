"""The same flow over recorded events, as fast as it can, from the first record to the last."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import orjson

from dataflows.compressed import written_whole
from dataflows.files import CHUNK_BYTES, Cut, FileReader, Place, Report
from dataflows.flow import Stop, build, execute
from detectors.catalogue import Catalogue, default_catalogue_text
from detectors.engine import Counts, RiskEngine
from detectors.settings import Settings
from schemas.alerts import Notification
from schemas.deadletters import DeadLetter
from schemas.formats import Format

EPOCH = timedelta(seconds=10)


def replay(
    files: Sequence[Path],
    alerts: Path,
    settings: Settings,
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
        dead_letters: where records that could not be taken go; None: they are counted only.
        open_format: opens a vendor's format for one file; None: contract events.
        chunk_bytes: how much is read at a time; has no influence on the result.
        report: is told how many bytes, as they lie on disk, have been read.

    Returns:
        What became of the records.

    Raises:
        InputError: a file cannot be read.
    """
    told: list[Notification] = []
    letters: list[DeadLetter] = []
    engine = RiskEngine(settings, Catalogue.load(default_catalogue_text()))

    def open_input(place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        begin = Place() if place is None else Place(*place)
        return iter(FileReader(list(files), begin, chunk_bytes=chunk_bytes, open_format=open_format, report=report))

    execute(build(open_input, engine, told.extend, letters.extend, Stop(), ends=True), None, EPOCH)
    told.sort(key=lambda one: (one.time_ms, one.case, one.revision))
    _write_lines(alerts, (one.body for one in told))
    if dead_letters is not None:
        _write_lines(dead_letters, (orjson.dumps(msgspec.to_builtins(letter)) for letter in letters))
    return engine.counts


def _write_lines(path: Path, lines: Iterable[bytes]) -> None:
    with written_whole(path) as stream:
        stream.writelines(line + b"\n" for line in lines)
