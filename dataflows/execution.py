"""Running a flow in this process: the engine's own files, its errors, and its exit."""

import contextlib
import gc
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

from dataflows.durable import sync_folder
from schemas.errors import StateError, StaylineError


def execute(flow: Dataflow, recovery: Path | None, epoch: timedelta, settle: Callable[[], None] = lambda: None) -> None:
    """Run a flow to its end in this process.

    Args:
        recovery: folder of the checkpoints; made if missing. None: keep none.
        epoch: time between checkpoints.
        settle: waits until what was kept is durable; called at the end, however it comes.

    Raises:
        StaylineError: what a step raised; the checkpoint before stands.
    """
    # Of a fault of ours its place in Python is enough; the engine's own stack (Rust) tells nobody more.
    os.environ["RUST_BACKTRACE"] = "0"
    config = None if recovery is None else _recovery(recovery)
    try:
        with _settled(settle), _stderr_restored(), _loaded_kept():
            run_main(flow, epoch_interval=epoch, recovery_config=config)  # type: ignore[no-untyped-call]  # it has none
    except BytewaxRuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, StaylineError):
            cause = cause.__cause__
        raise cause from None


@contextlib.contextmanager
def _loaded_kept() -> Iterator[None]:
    """Keep the garbage collector off what was loaded so far: to go through it stops the flow for a quarter second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _settled(settle: Callable[[], None]) -> Iterator[None]:
    """Leave no file half written behind, however the flow ends."""
    try:
        yield
    except BaseException:
        # What ended the flow is what is told.
        with contextlib.suppress(StaylineError):
            settle()
        raise
    settle()


@contextlib.contextmanager
def said_in_one_line() -> Iterator[None]:
    """Keep the engine from printing of its own when a step fails with an error that is reported in one line.

    The engine (Rust) writes to the file descriptor before the error has come through to `execute`.
    """
    try:
        yield
    except (StaylineError, OSError, KeyboardInterrupt):
        if sys.stderr is not None:
            sys.stderr.flush()
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  os.devnull is no path of ours
                os.dup2(nowhere.fileno(), 2)
        raise


@contextlib.contextmanager
def _stderr_restored() -> Iterator[None]:
    if sys.stderr is None:
        yield
        return
    kept = os.dup(2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _recovery(folder: Path) -> RecoveryConfig:
    if not any(folder.glob("*.sqlite3")):
        # Made beside it: killed in between, it is made again, where the engine would refuse the half of it.
        draft = folder.with_name(f".{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        init_db_dir(draft, 1)  # type: ignore[no-untyped-call]  # it has none
        draft.replace(folder)
        sync_folder(folder.parent)
    for path in folder.glob("*.sqlite3"):
        _require_whole(path)
    return RecoveryConfig(str(folder))  # type: ignore[no-untyped-call]  # it has none


def _require_whole(path: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            found = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where its own message quotes the damage
        found = str(error)
    if found != "ok":
        raise StateError(f"{path}: must be an undamaged file of checkpoints, found: {' '.join(found.split())}")
