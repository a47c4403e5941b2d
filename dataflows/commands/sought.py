"""How one customer is recognised in records as they came, and taken out of them."""

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson

from dataflows.durable import replaced
from schemas.formats.identity import Tokens

_CELLS = re.compile(rb"[,;|\t\r\n\"'<>&={}\[\]]+")
_WORDS = re.compile(rb"[\s,;|\"'<>&={}\[\]]+")
"""What separates identities in vendors' records; numbers may be written with blanks."""


class Sought:
    """One customer, as records may name them.

    Args:
        customer_id: the id, as events have it.
        cases: ids of the customer's cases: outcomes name those alone.
        tokens: makes tokens of the identities in vendors' records; None: records have tokens already.
    """

    def __init__(self, customer_id: str, cases: Collection[str] = (), tokens: Tokens | None = None) -> None:
        self.customer_id = customer_id
        self._names = {customer_id, *cases}
        self._tokens = tokens
        alternatives = b"|".join(re.escape(name.encode()) for name in sorted(self._names))
        self._spelt = re.compile(rb"(?<![\w.-])(?:" + alternatives + rb")(?![\w.-])")

    def stands_in(self, record: bytes) -> bool:
        """Whether a record of any shape names the customer, on either end."""
        event = _object(record)
        if event is not None and any(text in self._names for text in _texts(event)):
            return True
        return (event is None and self._spelt.search(record) is not None) or self._is_token_of(record)

    def without(self, line: bytes) -> tuple[bytes, str]:
        """Take the customer out of an event.

        Args:
            line: one line without its end.

        Returns:
            As many bytes, so that all places behind stay what they are; and what was taken out: `record` for all
            of it, `far end` for a name in somebody else's record, nothing.
        """
        if not self.stands_in(line):
            return line, ""
        event = _object(line)
        if event is None or event.get("customer_id") == self.customer_id or event.get("alert_id") in self._names:
            return b" " * len(line), "record"
        rest = orjson.dumps({key: None if self._is_name(value) else value for key, value in event.items()})
        if len(rest) > len(line) or self.stands_in(rest):
            return b" " * len(line), "record"
        return rest.ljust(len(line)), "far end"

    def _is_name(self, value: Any) -> bool:
        return isinstance(value, str) and value in self._names

    def _is_token_of(self, record: bytes) -> bool:
        if self._tokens is None:
            return False
        words = {*_CELLS.split(record), *_WORDS.split(record)}
        return any(self._tokens.identity(word.decode("utf-8", "replace")) == self.customer_id for word in words if word)


def erase_in_lines(path: Path, sought: Sought) -> Counter[str]:
    """Take a customer out of a file of events, durably; its length and its lines stay what they are.

    Returns:
        How many records and far ends were taken out.
    """
    found: Counter[str] = Counter()
    with path.open("rb") as source, replaced(path) as stream:
        for line in source:
            end = line[-1:] if line.endswith(b"\n") else b""
            kept, what = sought.without(line.removesuffix(b"\n"))
            found[what] += 1
            stream.write(kept + end)
    del found[""]
    return found


def _object(record: bytes) -> dict[str, Any] | None:
    try:
        event = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _texts(value: Any) -> list[str]:
    """Return every text in a JSON value, wherever it stands."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in (key, *_texts(inner))]
    return [text for inner in value for text in _texts(inner)] if isinstance(value, list) else []
