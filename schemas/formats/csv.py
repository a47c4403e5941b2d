"""Any delimited file: a column map says which column is which field of an event.

The map is data (`[input.csv]` of the configuration):

    type = "call"
    timezone = "Europe/London"
    date_formats = ["%d/%m/%Y %H:%M:%S"]

    [input.csv.columns]
    call_id = "id"
    customer_id = "phoneNumber"
    start_ms = ["startDate", "startTime"]      # joined by a space, then read by date_formats
    duration_s = "Seconds"                     # instead of end_ms
    loss_percent = "Loss"                      # instead of loss_ratio
    sip_status = "Disposition"

    [input.csv.values.sip_status]
    ANSWERED = 200
    BUSY = 486

Rows are separated as RFC 4180 says: a field that begins with a quote may hold delimiters, line ends and doubled
quotes. A quote anywhere else is an ordinary character. A quoted field that runs on over rows not its own costs only
the line it began in: reading resumes on the next line.
"""

import csv
import re
from collections import deque

import orjson
from msgspec import structs

from schemas.deadletters import DeadReason, Reject
from schemas.errors import ConfigError, InputError
from schemas.formats import BOM, RECORD_BYTES_MAX, Converted, Line, Lines, Options, require_utf8
from schemas.formats.columnmap import ColumnMap
from schemas.formats.identity import Tokens
from schemas.formats.masks import refused
from schemas.formats.rows import Rows, Unfit

GIVES = ("every field of every event type that the column map names",)
SHOWS = ("what its fields allow",)
LACKS = "What the file lacks: without a cause, a status or media no drop can be seen in it."

RECORD_LINES_MAX = 1_024
"""A quoted field may run over so many lines: no note in a CDR does, and a stray quote is found out soon."""

_RUNS_ON = "a quoted field must close within its own row, and did not"


def open_csv(options: Options) -> "CsvReader":
    """Open one delimited input.

    Raises:
        ConfigError: there is no column map, it does not hold, or it names identities and there is no key.
    """
    if options.csv is None:
        raise ConfigError(["input.csv: must be given for the csv format, was absent"])
    problems = [f"input.csv.{problem}" for problem in options.csv.problems()]
    tokenised = options.csv.tokenised()
    if tokenised and options.tokens is None:
        problems.append(f"input.tokens: must give a key, as {', '.join(tokenised)} become tokens; none was found")
    if problems:
        raise ConfigError(problems)
    return CsvReader(options.csv, options.tokens)


class CsvReader:
    """One open delimited input. See `schemas.formats` for what every format keeps.

    Args:
        column_map: `problems` must have found nothing wrong.
        tokens: needed where the map tokenises a field.
    """

    def __init__(self, column_map: ColumnMap, tokens: Tokens | None) -> None:
        self._map = column_map
        self._tokens = tokens
        self._rows = None if column_map.header else Rows(column_map, tokens, None)
        self._header: list[str] = []
        """The first row; where it comes again, as in files put together, it is none of a call."""
        self._lines = Lines()
        self._quote = column_map.quote.encode("ascii")
        opening = rb" *" + re.escape(self._quote)
        self._opens_line = re.compile(opening)
        self._opens_field = re.compile(re.escape(column_map.delimiter.encode("ascii")) + opening)
        self._held: list[Line] = []
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> list[Converted | Reject]:
        """Take the next bytes; return what they completed.

        Raises:
            InputError: the first row does not name the columns of the map.
        """
        return self._take(deque(self._lines.feed(chunk)))

    def finish(self) -> list[Converted | Reject]:
        """Return what was still open at the end."""
        items = self._take(deque(self._lines.finish()))
        while self._held:
            again: deque[Line] = deque()
            if len(self._held) > 1:
                items.append(self._let_go(again, DeadReason.NOT_JSON, _RUNS_ON))
            else:
                items.append(self._let_go(again, DeadReason.TRUNCATED, "a quoted field must close, the input ended"))
            items += self._take(again)
        return items

    def _take(self, lines: deque[Line]) -> list[Converted | Reject]:
        """Join lines to records and convert them; a line may come back to the front of the queue."""
        items: list[Converted | Reject] = []
        while lines:
            line = lines.popleft()
            if line.position == 1:
                require_utf8(line.data)
            if line.data.startswith(BOM):
                # Not in the first line alone: files are put together by cat.
                line = structs.replace(line, data=line.data.removeprefix(BOM))
            if line.too_long and self._held:
                lines.appendleft(line)
                items.append(self._let_go(lines, DeadReason.NOT_JSON, _RUNS_ON))
            elif line.too_long:
                detail = f"a row must be at most {RECORD_BYTES_MAX} bytes, was longer"
                items.append(refused(line.position, DeadReason.TOO_LARGE, detail, line.data))
            elif self._ends_in_quotes(line.data):
                self._held.append(line)
                self._held_bytes += len(line.data) + 1
                if self._held_bytes > RECORD_BYTES_MAX or len(self._held) > RECORD_LINES_MAX:
                    items.append(self._let_go(lines, DeadReason.NOT_JSON, _RUNS_ON))
            elif self._held or (line.data and not line.data.isspace()):
                self._held.append(line)
                items += self._record(lines)
        return items

    def _let_go(self, lines: deque[Line], reason: DeadReason, detail: str) -> Reject:
        """Give up the first line held; the others go back, to be read as rows of their own."""
        first, *others = self._held
        lines.extendleft(reversed(others))
        self._held, self._held_bytes = [], 0
        return refused(first.position, reason, detail, first.data)

    def _ends_in_quotes(self, data: bytes) -> bool:
        """Tell whether a quoted field is still open at the end of this line. Agrees with the `csv` module."""
        inside = bool(self._held)
        if not self._quote or self._quote not in data:
            return inside
        at = 0
        if not inside:
            opening = self._opens_line.match(data) or self._opens_field.search(data)
            if opening is None:
                return False
            at = opening.end()
        while True:
            at = self._after_quotes(data, at)
            if at < 0:
                return True
            opening = self._opens_field.search(data, at)
            if opening is None:
                return False
            at = opening.end()

    def _after_quotes(self, data: bytes, at: int) -> int:
        """Return the place after the closing quote, or -1 where there is none; a doubled quote does not close."""
        while True:
            at = data.find(self._quote, at)
            if at < 0:
                return -1
            if not data.startswith(self._quote, at + 1):
                return at + 1
            at += 2

    def _record(self, lines: deque[Line]) -> list[Converted | Reject]:
        """Convert the lines held, which are one whole record unless a quote misled."""
        first, record = self._held[0], b"\n".join(line.data for line in self._held)
        try:
            row = self._row(record, ended=self._held[-1].ended)
        except Unfit as unfit:
            if self._rows is None:
                raise InputError(
                    f"line {first.position}: the first row must name the columns: {unfit.detail}"
                ) from None
            if len(self._held) > 1:
                return [self._let_go(lines, DeadReason.NOT_JSON, _RUNS_ON)]
            self._held = []
            return [refused(first.position, unfit.reason, unfit.detail, record)]
        self._held, self._held_bytes = [], 0
        if self._rows is None:
            self._header, self._rows = row, Rows(self._map, self._tokens, row)
            return []
        if row == self._header:
            return []
        try:
            event = self._rows.event(row)
        except Unfit as unfit:
            return [refused(first.position, unfit.reason, unfit.detail, record)]
        return [Converted(first.position, orjson.dumps(event), record)]

    def _row(self, record: bytes, *, ended: bool) -> list[str]:
        try:
            text = record.decode(self._map.encoding)
        except UnicodeDecodeError as error:
            detail = f"a row must be {self._map.encoding}, was not at byte {error.start}"
            raise Unfit(DeadReason.NOT_TEXT, detail) from None
        if not self._map.quote or self._map.quote not in text:
            row = text.split(self._map.delimiter)
        else:
            row = self._quoted(text)
        if self._rows is not None and not self._rows.fits(len(row)):
            reason = DeadReason.NOT_JSON if ended else DeadReason.TRUNCATED
            raise Unfit(reason, f"a row must have {self._rows.width_rule}, had {len(row)}")
        return row

    def _quoted(self, text: str) -> list[str]:
        # Strict: what follows a closing quote must be a delimiter, or the quote was not what it seemed.
        reader = csv.reader(
            [text], delimiter=self._map.delimiter, quotechar=self._map.quote, skipinitialspace=True, strict=True
        )
        try:
            return next(reader)
        except csv.Error as error:
            raise Unfit(DeadReason.NOT_JSON, f"a row must be delimited text: {error}") from None
