"""What texts mean, remembered: numbers, times, people and names of equipment come again and again in records of calls.

A text that is known costs one look into a dictionary, without a call of Python. What is remembered is bounded in number
and length, whatever the input holds.
"""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

KEPT_MAX = 65_536
"""So many texts are remembered of one sort: at some 200 bytes each, 13 MB."""

CHARS_MAX = 96
"""How long a text may be that is remembered: a number, a time, a SIP URI; or several together that say one thing."""

Key = TypeVar("Key")
Found = TypeVar("Found")
_Found_co = TypeVar("_Found_co", covariant=True)


class Reading(Protocol[_Found_co]):
    """Says what a value of a record means; None: nothing."""

    def __call__(self, value: str | float | None, /) -> _Found_co | None: ...  # noqa: D102 - see above


class _Memory(dict[Any, Any], Generic[Key, Found]):
    """Meanings by text; what is missing is read."""

    def __init__(self, read: Callable[[Key], Found]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, key: Key) -> Found:
        found = self._read(key)
        if _chars(key) <= CHARS_MAX:
            if len(self) >= KEPT_MAX:
                # What is common comes back at once; keeping count of what is used would cost every reading.
                self.clear()
            self[key] = found
        return found


def _chars(key: Any) -> int:
    """Return how much text a key holds."""
    if isinstance(key, tuple):
        return sum(map(_chars, key))
    return len(key) if isinstance(key, str | bytes) else 0


def remembered(read: Callable[[Key], Found]) -> Callable[[Key], Found]:
    """Return a function that reads as `read` does, and reads a text once.

    Args:
        read: must depend on its argument alone. What it raises is raised anew each time.
    """
    return _Memory(read).__getitem__
