"""Incidents that wait for their checkpoint: other processes are told of none that might be found anew as another one.

Partitions that are read together meet in another order after a restart. An incident that was told ahead of its
checkpoint might then be found at another call, under another id; or be read back as somebody else's, whose end is not
told. So a process that tells others of incidents tells those alone that a committed checkpoint holds. Until then they
lie in a file; what of it no checkpoint came to hold is dropped at the next start, for it is found again.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from dataflows.durable import replaced
from dataflows.flow import OpenInput
from dataflows.inputs.chunks import Read
from dataflows.inputs.kafka import messages_before
from schemas.alerts import Notification
from schemas.errors import StateError

Place = tuple[int, ...]


class _Found(Struct, frozen=True):
    """A notification of an incident, and behind how many messages a checkpoint holds it."""

    behind: int
    told: Notification


_found = msgspec.json.Decoder(list[_Found])


class Held:
    """Holds what is told of incidents until a committed checkpoint holds the incidents.

    Args:
        path: of the file that they lie in.
        write: makes notifications durable, on their way to the outputs.
        holds: False: nothing is held back, for nobody is told who reads it with the calls.

    Raises:
        StateError: the file cannot be read.
    """

    def __init__(self, path: Path, write: Callable[[Sequence[Notification]], None], *, holds: bool) -> None:
        self._path = path
        self._write = write
        self._holds = holds
        self._waiting = _read(path)

    def reading(self, open_input: OpenInput) -> OpenInput:
        """Return an input at whose opening it is decided what of the last run is told, and what is found again."""

        def opened(place: Place | None) -> Iterator[Read | None]:
            self.committed(() if place is None else place)
            self._keep([])
            yield from open_input(place)

        return opened

    def hold(self, told: list[Notification], place: Place) -> list[Notification]:
        """Keep back what is told of incidents; return all else.

        Args:
            told: what a read led to.
            place: where that read began: a checkpoint further on holds it.
        """
        incidents = [one for one in told if one.type.startswith("stayline.incident.")]
        if not incidents or not self._holds:
            return told
        self._keep([*self._waiting, *(_Found(messages_before(place) + 1, one) for one in incidents)])
        return [one for one in told if one not in incidents]

    def committed(self, place: Place) -> None:
        """Tell what a checkpoint at this place holds."""
        at = messages_before(place)
        due = [one.told for one in self._waiting if one.behind <= at]
        if due:
            # In this order: told twice it has one id, told never it would be lost.
            self._write(due)
            self._keep([one for one in self._waiting if one.behind > at])

    def finish(self) -> None:
        """Tell all of it, once the last checkpoint is taken."""
        if self._waiting:
            self._write([one.told for one in self._waiting])
            self._keep([])

    def _keep(self, waiting: list[_Found]) -> None:
        if waiting != self._waiting:
            _write(self._path, waiting)
            self._waiting = waiting


def _read(path: Path) -> list[_Found]:
    try:
        return _found.decode(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise StateError(f"{path}: must hold the incidents that wait for a checkpoint, did not: {error}") from None


def _write(path: Path, waiting: list[_Found]) -> None:
    try:
        with replaced(path) as stream:
            stream.write(msgspec.json.encode(waiting))
    except OSError as error:
        raise StateError(f"{path}: must be writable, was not: {error.strerror}") from None
