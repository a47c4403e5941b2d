"""Objects of a JSON array, as an API answers: one after the other, however they are printed.

The array may stand in an object that says how the answer went: `{"success": true, "cdr": [...], "total": 2}`. Such a
frame is passed over, also of several answers one behind the other. What tells of an error instead is an object like any
other.
"""

import re

from schemas.formats import HEAD_BYTES, RECORD_BYTES_MAX, Line

_SCALAR = rb'\s*+(?:true|false|null|-?[0-9][0-9.eE+-]*+|"[^"\\]{0,256}+")\s*+'
_NAME = rb'\s*+"[A-Za-z_]{1,32}"\s*+:'
_RECORDS = rb'\s*+"(?:cdrs?|calls|data|items|records|results|rows)"\s*+:\s*+'
_FRAME = re.compile(rb"\{(?:%s%s,)*+%s\[(?=\s*+[{\]])" % (_NAME, _SCALAR, _RECORDS))
_BETWEEN = re.compile(rb"(?:[ \t\r\n,\[}]|\](?=\s*+[\[{}])|\](?:\s*+,%s%s)++\})*+" % (_NAME, _SCALAR))
_BEHIND = b" \t\r\n,[]}"

# Possessive throughout: what has matched is not looked at again.
_UP_TO_BRACE = re.compile(rb'[^{}"]*+(?:"(?:[^"\\]|\\.)*+"[^{}"]*+)*+', re.DOTALL)
_OPENING = re.compile(rb'\{\s*+"[^"\\]{1,64}"\s*+:')


def is_array(head: bytes) -> bool | None:
    """Tell by its beginning whether an input is an array of objects; None: it does not say yet."""
    said = head.lstrip()
    if said.startswith(b"[") or _FRAME.match(said) is not None:
        return True
    open_yet = said.startswith(b"{") and b"}" not in said
    return None if (open_yet or not said) and len(head) < HEAD_BYTES else False


class ArrayObjects:
    """Cuts a stream of bytes that is an array of objects into these, and holds no more than one of them.

    The position of an object is its number, counted from 1. What is none, up to the next brace, is given as if it were
    one, and so is one that breaks off, up to where the next one begins as the one before it did (with the same name):
    whoever reads it sees that it is no record.

    Attributes:
        position: of the last object that was returned.
    """

    def __init__(self) -> None:
        self._held = b""
        self._opening = b""
        """How the last whole object began."""
        self._skips = False
        """The beginning of what is held was too long and has been returned."""
        self.position = 0

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the objects that this chunk completes."""
        self._held += chunk
        lines, at = list[Line](), self._between(0)
        while at < len(self._held):
            end = self._end(at)
            if end < 0:
                break
            if not self._skips:
                lines.append(self._line(self._held[at:end], ended=True))
            self._skips, at = False, self._between(end)
        self._held = self._held[at:]
        if len(self._held) <= RECORD_BYTES_MAX:
            return lines
        if not self._skips:
            lines.append(self._line(self._held, ended=True))
        # To the byte, so that it makes no difference where chunks were cut.
        self._held, self._skips = self._held[RECORD_BYTES_MAX + 1 :], True
        return lines + self.feed(b"")

    def finish(self) -> list[Line]:
        """Return what was left of an object that did not close."""
        held, self._held = self._held, b""
        return [self._line(held, ended=False)] if held.strip(_BEHIND) and not self._skips else []

    def _between(self, at: int) -> int:
        """Return where an object begins behind what stands between two of them, frames included."""
        while True:
            found = _BETWEEN.match(self._held, at)
            at = at if found is None else found.end()
            frame = _FRAME.match(self._held, at)
            if frame is None:
                return at
            at = frame.end()

    def _end(self, at: int) -> int:
        """Return where an object ends, or where one may begin behind something that is none; -1: more is needed."""
        if self._skips:
            return self._held.find(self._opening or b"{", at)
        if not self._held.startswith(b"{", at):
            return self._held.find(b"{", at)
        upto = at + RECORD_BYTES_MAX
        found = _OPENING.match(self._held, at, upto)
        opening = self._opening or (b"{" if found is None else found.group())
        next_at = self._held.find(opening, at + 1, upto)
        end = self._closed(at, upto if next_at < 0 else next_at)
        if end < 0:
            return next_at
        self._opening = opening if found is None else found.group()
        return end

    def _closed(self, at: int, upto: int) -> int:
        """Return where the object ends that begins here; -1 where it does not."""
        depth = 0
        while True:
            found = _UP_TO_BRACE.match(self._held, at, upto)
            at = at if found is None else found.end()
            if at >= min(upto, len(self._held)) or self._held[at : at + 1] == b'"':
                return -1
            depth += 1 if self._held.startswith(b"{", at) else -1
            at += 1
            if not depth:
                return at

    def _line(self, data: bytes, *, ended: bool) -> Line:
        self.position += 1
        too_long = len(data) > RECORD_BYTES_MAX
        return Line(self.position, data[:HEAD_BYTES] if too_long else data, too_long, ended)
