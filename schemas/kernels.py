"""Compiled functions, and where their machine code is kept.

Numba keeps compiled code beside the source and looks at that one file's date alone. A kernel is compiled together with
the functions and constants of other files, so a change there would leave old code in use. Here the code is kept under
a digest of all our sources: a changed line, in whatever file, means compiling anew.

Compiling takes more than a minute, so who installs may do it beforehand, beside the sources, as the container's image
does. Numba must be able to write where it reads: what lies beside sources that cannot be written to is copied.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, register_jitable

ROOM = Path(__file__).parent

BESIDE = ROOM / "__pycache__"
"""Where code lies that was compiled when this was installed, or by whoever may write there."""


def _digest() -> str:
    """Return a digest of every source that a kernel may be compiled from."""
    digest = hashlib.sha256(numba.__version__.encode())
    for folder in (ROOM, ROOM.parent / "detectors"):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _folder() -> Path:
    """Return where compiled code goes: NUMBA_CACHE_DIR, else beside the sources, else in the user's cache."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        return Path(given)
    if os.access(ROOM, os.W_OK):
        return BESIDE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stayline"


def kept_in(folder: Path, name: str) -> Path:
    """Return where the code is kept, with all that was compiled beforehand."""
    kept, beside = folder / name, BESIDE / name
    if beside.is_dir() and not kept.exists():
        draft = folder / f"{name}.{os.getpid()}"
        # Where there is no room, or another process was quicker: what is missing is compiled.
        with contextlib.suppress(OSError):
            shutil.copytree(beside, draft, copy_function=shutil.copyfile)
            draft.replace(kept)
        shutil.rmtree(draft, ignore_errors=True)
    return kept


numba.config.CACHE_DIR = str(kept_in(_folder(), f"kernels-{_digest()}"))  # type: ignore[attr-defined]  # it has no types


def cold(package: str) -> bool:
    """Tell whether nothing of a package of ours is compiled yet, so that its first use takes a minute or two."""
    return next(Path(numba.config.CACHE_DIR).glob(f"{package}_*/*.nbi"), None) is None  # type: ignore[attr-defined]  # see above


kernel = numba.njit(cache=True)
"""Compiles a function and keeps the code."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def loop(function: _Function) -> _Function:
    """Compile a function that makes no array and calls none that does, and keep the code.

    Numba counts who holds an array each time that one is taken out of a tuple, by locked instructions: in loops over a
    `NamedTuple` of arrays that takes longer than all the rest. The caller in Python holds them all until the function
    returns, so here nothing is counted.
    """
    uncounted: dict[str, Any] = {"_nrt": False}  # numba's name for it, which its stubs lack
    return cast("_Function", numba.njit(cache=True, **uncounted)(function))


inlined = partial(numba.njit, cache=True, inline="always")()
"""The same for a function that is small enough to be copied to where it is called."""


def shared(function: _Function) -> _Function:
    """Let compiled functions call this one too, with numbers where Python gives it arrays."""
    return register_jitable(function)


_LINE_BYTES = 64
_BYTE_POINTER = ir.IntType(8).as_pointer()
_PREFETCH = ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, *[ir.IntType(32)] * 3])
_FOR_WRITING, _KEEP, _DATA = (ir.Constant(ir.IntType(32), value) for value in (1, 3, 1))


@intrinsic
def _fetch_early(_context: Any, array: Any, at: Any, line: Any) -> Any:  # noqa: ARG001  # numba reads the names
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        start = builder.bitcast(builder.gep(view.data, [arguments[1]]), _BYTE_POINTER)
        place = builder.gep(start, [builder.mul(arguments[2], ir.Constant(ir.IntType(64), _LINE_BYTES))])
        # Declared by name: llvmlite's own list still has names with typed pointers.
        prefetch: Any = cgutils.get_or_insert_function
        call = prefetch(builder.module, _PREFETCH, "llvm.prefetch.p0")
        builder.call(call, [place, _FOR_WRITING, _KEEP, _DATA])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


fetch_early = cast("Callable[[Any, int, int], None]", _fetch_early)
"""Asks the processor for a cache line that will be needed soon: (array, index, how many lines behind its start).

Only a hint: it changes no value, and an address that is none does no harm.
"""
