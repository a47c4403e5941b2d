"""What disturbs a run: death at a named point, a disk that is full, what a crash leaves half written."""

import functools
import os
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dataflows import checkpoints, shards
from dataflows.inputs import kafka
from detectors.engine import RiskEngine
from sinks.file import FileOutput
from sinks.kafka import KafkaOutput
from sinks.outbox import Outbox
from sinks.queues import Queue

BEFORE, AFTER, INSIDE = "before", "after", "inside"

POINTS: dict[str, tuple[Any, str, str]] = {
    "after read": (kafka.KafkaReader, "_poll", AFTER),
    "after apply": (RiskEngine, "apply", AFTER),
    "before the outbox": (Outbox, "put", BEFORE),
    "after the outbox": (Outbox, "put", AFTER),
    "before a checkpoint": (checkpoints.Checkpoints, "save", BEFORE),
    "inside a checkpoint": (checkpoints, "write", INSIDE),
    "after a checkpoint": (checkpoints, "write", AFTER),
    "inside a commit": (shards, "write_commit", INSIDE),
    "after a commit": (shards, "write_commit", AFTER),
    "before delivery": (KafkaOutput, "append", BEFORE),
    "inside delivery": (FileOutput, "append", INSIDE),
    "after delivery to a file": (FileOutput, "append", AFTER),
    "after delivery to a topic": (KafkaOutput, "append", AFTER),
    "after delivery was noted": (Queue, "commit", AFTER),
}
"""Name -> what is passed there, and on which side of it. Inside is a write that is not yet durable."""


class Disturbance(NamedTuple):
    """What happens to a process from within.

    Attributes:
        point: one of `POINTS` at which it dies; empty: none.
        nth: which time it passes there.
        messages_max: so many messages it reads at once.
        file_bytes_max: so large a file may grow before the disk is full; None: any size.
    """

    point: str = ""
    nth: int = 1
    messages_max: int = 200
    file_bytes_max: int | None = None


def disturb(given: Disturbance) -> None:
    """Prepare this process, which becomes the program, for what shall happen to it."""
    kafka.MESSAGES_MAX = given.messages_max
    if given.file_bytes_max is not None:
        # Beyond it a write fails with EFBIG, as with ENOSPC on a full disk; the signal would end the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (given.file_bytes_max, given.file_bytes_max))
    if given.point:
        left = [given.nth]
        owner, name, side = POINTS[given.point]
        step = getattr(owner, name)
        setattr(owner, name, _mined(step, side, functools.partial(_die_sometime, left)))


def _die_sometime(left: list[int]) -> None:
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _mined(step: Callable[..., Any], side: str, mine: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(step)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        if side == BEFORE:
            mine()
        fsync = os.fsync
        if side == INSIDE:
            os.fsync = lambda file: (mine(), fsync(file))[1]  # type: ignore[func-returns-value]
        try:
            result = step(*args, **kwargs)
        finally:
            os.fsync = fsync
        if side == AFTER:
            mine()
        return result

    return stepped


def tear(folder: Path, rng: random.Random) -> None:
    """Leave what a power cut may: the end of the last write in every file that grows, and drafts of others."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        garbage = rng.randbytes(rng.randint(1, 5_000))
        if path.name.endswith((".ndjson", ".sqlite3-wal")) and path.parent.name != "recovery":
            with path.open("ab") as stream:
                stream.write(garbage.replace(b"\n", b" "))
        elif path.name == "commit":
            path.with_name(".commit").write_bytes(garbage)
    for engine in folder.rglob("engine"):
        (engine / ".000000000007.state").write_bytes(rng.randbytes(1_000))
