"""Compiled functions, and where their machine code is kept.

Numba keeps compiled code beside the source and looks at that one file's date alone. A kernel is compiled together with
the functions and constants of other files, so a change there would leave old code in use. Here the code is kept under
a digest of all our sources: a changed line, in whatever file, means compiling anew.
"""

import hashlib
import os
from functools import partial
from pathlib import Path

import numba

ROOM = Path(__file__).parent


def _digest() -> str:
    """Return a digest of every source that a kernel may be compiled from."""
    digest = hashlib.sha256(numba.__version__.encode())
    for folder in (ROOM, ROOM.parent / "detectors"):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _folder() -> Path:
    """Return where compiled code goes: NUMBA_CACHE_DIR, else beside the sources, else in the user's cache."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        return Path(given)
    if os.access(ROOM, os.W_OK):
        return ROOM / "__pycache__"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stayline"


numba.config.CACHE_DIR = str(_folder() / f"kernels-{_digest()}")  # type: ignore[attr-defined]  # it has no types

kernel = numba.njit(cache=True)
"""Compiles a function and keeps the code."""

inlined = partial(numba.njit, cache=True, inline="always")()
"""The same for a function that is small enough to be copied to where it is called."""
