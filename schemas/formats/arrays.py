"""Objects of a JSON array, as an API answers: one after the other, however they are printed."""

import re

from schemas.formats import HEAD_BYTES, RECORD_BYTES_MAX, Line

# Possessive throughout: what has matched is not looked at again.
_BEGINNING = rb'\{[^{}"]*+(?:"(?:[^"\\]|\\.)*+"[^{}"]*+)*+'
_OBJECT = re.compile(_BEGINNING + rb"\}", re.DOTALL)
_BROKEN = re.compile(_BEGINNING + rb"(?=\{)", re.DOTALL)
_BETWEEN = re.compile(rb"[ \t\r\n,\[\]}]*+")


class ArrayObjects:
    """Cuts a stream of bytes that is an array of flat objects into these, and holds no more than one of them.

    The position of an object is its number, counted from 1. What is none, up to the next brace, is given as if it were
    one: whoever reads it sees that it is no record.

    Attributes:
        position: of the last object that was returned.
    """

    def __init__(self) -> None:
        self._held = b""
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
        return [self._line(held, ended=False)] if held and not self._skips else []

    def _between(self, at: int) -> int:
        found = _BETWEEN.match(self._held, at)
        return at if found is None else found.end()

    def _end(self, at: int) -> int:
        """Return where an object ends, or where one may begin behind something that is none; -1: more is needed."""
        if self._skips or not self._held.startswith(b"{", at):
            return self._held.find(b"{", at)
        upto = at + RECORD_BYTES_MAX
        found = _OBJECT.match(self._held, at, upto) or _BROKEN.match(self._held, at, upto)
        return -1 if found is None else found.end()

    def _line(self, data: bytes, *, ended: bool) -> Line:
        self.position += 1
        too_long = len(data) > RECORD_BYTES_MAX
        return Line(self.position, data[:HEAD_BYTES] if too_long else data, too_long, ended)
