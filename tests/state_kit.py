"""What the tests of the state share: a part taken through the bytes of a checkpoint."""

from typing import Any

import msgspec


def whole(part: Any) -> Any:
    """Return all that a part writes, as a checkpoint reads it back."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(part.changes(1, whole=True)), strict=False)


def take(part: Any, *states: Any) -> Any:
    """Let a part take over what was written, whatever it held before; return it."""
    part.reset()
    for number, state in enumerate(states, 1):
        part.take(state, number)
    part.settle()
    return part
