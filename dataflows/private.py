"""The state directory is this user's alone: whoever writes there decides what runs and what is told."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dataflows.logs import log
from schemas.errors import StateError

CLOSED = 0o700


def require_private(folder: Path) -> None:
    """Close a state directory to others, and refuse it where another user may have put something into it.

    The flow's checkpoints hold pickled values (Bytewax), so a planted file would be run.

    Args:
        folder: the state directory, which exists.

    Raises:
        StateError: it, or something in it, belongs to another user, or is a link to somewhere else.
    """
    for path in (folder, *_below(folder)):
        try:
            found = path.lstat()
        except FileNotFoundError:  # an operator's command is done with it
            continue
        if found.st_uid != os.geteuid():
            raise StateError(
                f"{path}: must belong to the user that runs (uid {os.geteuid()}), belongs to uid {found.st_uid}"
            )
        if path != folder and stat.S_ISLNK(found.st_mode):
            raise StateError(f"{path}: must be a file or a folder of its own, was a link")
    mode = folder.stat().st_mode & 0o777
    if mode != CLOSED:
        folder.chmod(CLOSED)
        log("state.closed_to_others", was=f"{mode:04o}", now=f"{CLOSED:04o}")


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(parent, name)
