"""Writing whole files: either the old one stands or the new one, never half of it."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from schemas.errors import StaylineError


def write_atomically(path: Path, lines: Iterable[bytes]) -> None:
    """Write lines to a file beside `path`, then put it in its place.

    Raises:
        StaylineError: the folder is missing or cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            try:
                stream.writelines(line + b"\n" for line in lines)
                stream.flush()
                os.fsync(stream.fileno())
            except BaseException:
                Path(stream.name).unlink(missing_ok=True)
                raise
        # NamedTemporaryFile makes the file private; a result is as readable as the user's other files.
        umask = os.umask(0)
        os.umask(umask)
        Path(stream.name).chmod(0o666 & ~umask)
        Path(stream.name).replace(path)
    except OSError as error:
        raise StaylineError(f"{path}: must be writable, was not: {error.strerror}") from None
