"""Records that an operator gave to the input again: read by the run beside its input, whatever that is.

A folder of small files of contract events. Each is written under another name, made durable and then renamed, so a
run that reads beside finds it whole or not at all; a stopped run finds it when it starts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dataflows.durable import replaced
from dataflows.inputs.chunks import Chunk
from dataflows.inputs.files import CHUNK_BYTES, Cut, Place
from schemas.errors import StateError

SOURCE = "resubmitted"
"""What a dead letter names as its source if such a record is broken still."""


class Resubmitted:
    """A folder of files, named by number, none of which ever changes.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def publish(self, events: Sequence[bytes]) -> None:
        """Make events durable, all of them or none; one process at a time may do so.

        Args:
            events: contract events, each one line without its end.

        Raises:
            StateError: the disk does not take them.
        """
        path = self._path(max(self.numbers(), default=0) + 1)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replaced(path) as stream:
                stream.writelines(event + b"\n" for event in events)
        except OSError as error:
            raise StateError(f"{path}: must be writable, was not: {error.strerror}") from None

    def read(self, place: Place, *, ends: bool) -> Iterator[Cut | None]:
        """Give what was published from a place on.

        Args:
            place: where to begin.
            ends: whether to end behind the last file; otherwise None is given where there is nothing new yet.
        """
        while True:
            lines = self._whole_lines(place)
            if lines:
                path, before, count = self._path(place.file), place.line, lines.count(b"\n")
                place = Place(place.file, place.offset + len(lines), before + count)
                yield Cut(Chunk(SOURCE, path.name, lines, range(before + 1, place.line + 1)), place)
                continue
            number = min((one for one in self.numbers() if one > place.file), default=None)
            if number is not None:
                place = Place(number)
            elif ends:
                return
            else:
                yield None

    def prune(self, file: int) -> None:
        """Delete the files before this one. The newest stays: the next one is numbered after it."""
        numbers = self.numbers()
        for number in numbers[:-1]:
            if number < file:
                self._path(number).unlink(missing_ok=True)

    def numbers(self) -> list[int]:
        """Return the numbers of the files, in order."""
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.ndjson"))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.ndjson"

    def _whole_lines(self, place: Place) -> bytes:
        path = self._path(place.file)
        if not path.exists():
            return b""
        with path.open("rb") as stream:
            stream.seek(place.offset)
            data = stream.read(CHUNK_BYTES)
            return data[: data.rfind(b"\n") + 1] or data + stream.readline()
