"""A compiled reader for the records that make up the traffic: calls, media reports and readings as probes write them.

`scan` reads a chunk once. A source writes what stands between two values, `,"end_ms":`, the same way each time; so
what stood behind a field last is expected again, and one comparison of thirty-two bytes passes over it all. A record
is taken only if the reader is sure of every byte: plain strings, plain numbers, no nesting, no repeated key. Whatever
else a line holds, right or wrong, is left to `schemas.decode.decode_record`, which alone says what is wrong with a
record. The two must agree on every record that is taken here: a property test holds that.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from schemas.columns import DIRECTIONS, RELEASERS
from schemas.fields import (
    CODED,
    CODED_AT,
    FIELD_NAMES,
    FIELDS,
    HIGH,
    INTEGERS,
    KIND,
    KIND_CODED,
    KIND_INTEGER,
    KIND_MEASURE,
    KIND_OTHER,
    KIND_TEXT,
    KIND_TYPE,
    KIND_WORD,
    LOW,
    MEASURES,
    MEASURES_AT,
    OTHER,
    TEXTS,
    TEXTS_AT,
    TYPES,
    WORDS,
    WORDS_AT,
)
from schemas.kernels import inlined, loop
from schemas.swar import (
    BLOCK_BYTES,
    MASKS,
    PAD_BYTES,
    begins_with,
    count_lines,
    line_end,
    load,
    padded,
    plain_end,
    word_of,
)
from schemas.text import F32, F64, I8, I32, I64, U8, U64
from schemas.tokens import (
    CLOSE,
    COLON,
    COMMA,
    MINUS,
    NEWLINE,
    OPEN,
    POWERS,
    QUOTE,
    blanks_end,
    is_digit,
    number,
    string_end,
)
from schemas.vocabulary import ASKED, Vocabulary, Words, code_of, find, fixed

CALL, MEDIA, LINK, LEFT, BLANK = range(5)
"""What `scan` says of a line: taken as a call, a media report, a reading; left to the slow reader; no record."""

_BEGIN, _END, _WRONG = FIELDS + 1, FIELDS + 2, FIELDS + 3
"""Beside the fields: what stands before the first value of a line, behind the last one, and what is no gap at all."""
_GAPS = FIELDS + 2

_EXACT_MAX = 2**53
_DOUBT = 2.0**-50
"""More than the relative error of a mantissa beyond 2^53, rounded, divided by a power, rounded (2^-52)."""

_WORD = np.array([word_of(word) for word in (*DIRECTIONS, *RELEASERS)], np.uint64)
_WORD_FIRST = np.array([0, len(DIRECTIONS), len(DIRECTIONS) + len(RELEASERS)], np.int64)
_TYPE_WORD = np.array([word_of(word) for word in TYPES], np.uint64)
_NULL = np.uint64(word_of("null"))

_F_START, _F_END, _F_ANSWER = (FIELD_NAMES.index(name) for name in ("start_ms", "end_ms", "answer_ms"))
_NEEDS = np.array(
    [
        sum(1 << FIELD_NAMES.index(name) for name in names.split())
        for names in (
            "type call_id customer_id start_ms end_ms",
            "type call_id customer_id at_ms interval_ms",
            "type element_kind element_id at_ms metric value",
        )
    ],
    np.int64,
)
"""By status: the bits of the fields that a record must have."""

TAKEN_BYTES_MIN = 64
"""No record that is taken is shorter: names, quotes and colons of what it needs take so many bytes."""

_SIZE_BITS = 17
_SIZE_MASK = (1 << _SIZE_BITS) - 1
"""A span in a cell is its start shifted by this, plus its size: a record has at most 2^16 bytes."""

_UNKNOWN = np.full(FIELDS, -1, np.int64)
"""What a row holds where its record says nothing."""
_UNKNOWN[MEASURES_AT:TEXTS_AT] = np.float64(np.nan).view(np.int64)
_UNKNOWN[TEXTS_AT:CODED_AT] = 0


class Gaps(NamedTuple):
    """What stood behind each field last, by the record's type: all bytes between its value and the next one.

    Attributes:
        text: uint8, `BLOCK_BYTES` a gap.
        size: int64, how many of them count; 0: nothing known.
        field: int64, the field that follows.
    """

    text: U8
    size: I64
    field: I64


class Cells(NamedTuple):
    """The arrays that a line is read into: few, as each is handed to every function of the loop.

    Attributes:
        whole: int64, `FIELDS` a record: integers, spans of texts, codes, words.
        measures: float64: the same memory, where a field is a measure.
        words: the vocabulary of coded fields.
        names: the names of fields.
        gaps: what is expected behind each value.
    """

    whole: I64
    measures: F64
    words: Words
    names: Words
    gaps: Gaps


class Scan(NamedTuple):
    """What was read, one row a line of the chunk.

    Attributes:
        data: the chunk, padded.
        status: int8, CALL, MEDIA, LINK, LEFT or BLANK.
        cell: int32, the line's row in `cells`; means something for CALL, MEDIA and LINK alone.
        begin, end: int64, the line's span in the chunk.
        cells: see there.
    """

    data: U8
    status: I8
    cell: I32
    begin: I64
    end: I64
    cells: Cells


@loop
def _read_gap(data: U8, at: int, first: bool, names: Words) -> tuple[int, int]:
    """Read what stands between two values: return (the field that follows, `_END` or `_WRONG`; where its value is)."""
    at = blanks_end(data, at)
    if not first and data[at] == CLOSE:
        at = blanks_end(data, at + 1)
        return (_END if data[at] == NEWLINE else _WRONG), at + 1
    if data[at] != (OPEN if first else COMMA):
        return _WRONG, at
    at = blanks_end(data, at + 1)
    if data[at] != QUOTE:
        return _WRONG, at
    end = plain_end(data, at + 1)
    if data[end] != QUOTE:
        return _WRONG, end
    field = find(names, data, at + 1, end - at - 1)
    at = blanks_end(data, end + 1)
    if data[at] != COLON:
        return _WRONG, at
    return (OTHER if field < 0 else field), blanks_end(data, at + 1)


@loop
def _learn_gap(gaps: Gaps, gap: int, data: U8, at: int, size: int, field: int) -> None:
    gaps.size[gap] = size
    gaps.field[gap] = field
    for i in range(size):
        gaps.text[gap * BLOCK_BYTES + i] = data[at + i]


@inlined
def _word_in(word: np.uint64, words: U64, first: int, last: int) -> int:
    """Return the index of a word in rows first..last of a table, counted from first; -1 if it is not there."""
    for row in range(first, last):
        if words[row] == word:
            return row - first
    return -1


@inlined
def _take_string(
    data: U8, at: int, size: int, characters: int, escaped: bool, field: int, cell: int, cells: Cells
) -> int:
    """Put a string into its cell; return the record's type for the type field, 0 for others, -1 to leave it."""
    kind = KIND[field]
    if kind == KIND_CODED:
        if not LOW[field] <= characters <= HIGH[field]:
            return -1
        code = code_of(cells.words, data, at, size)
        cells.whole[cell] = code
        return min(code, 0)
    if kind == KIND_TEXT:
        cells.whole[cell] = at << _SIZE_BITS | size
        return 0 if not escaped and LOW[field] <= characters <= HIGH[field] else -1
    if kind == KIND_OTHER:
        return 0
    if size > 8:
        return -1
    word = load(data, at) & MASKS[size]
    if kind == KIND_WORD:
        slot = field - WORDS_AT
        index = _word_in(word, _WORD, _WORD_FIRST[slot], _WORD_FIRST[slot + 1])
        cells.whole[cell] = index
        return min(index, 0)
    return _word_in(word, _TYPE_WORD, 0, len(_TYPE_WORD)) if kind == KIND_TYPE else -1


@inlined
def _take_number(mantissa: int, places: int, negative: bool, field: int, cell: int, cells: Cells) -> bool:
    """Put a number into its cell; return whether it fits there."""
    kind = KIND[field]
    if kind == KIND_INTEGER:
        cells.whole[cell] = mantissa
        return bool(places < 0 and not negative and LOW[field] <= mantissa <= HIGH[field])
    if kind != KIND_MEASURE:
        return bool(kind == KIND_OTHER)
    value = mantissa / POWERS[max(places, 0)]
    if negative:
        value = -value
    cells.measures[cell] = value
    if mantissa <= _EXACT_MAX:
        return bool(LOW[field] <= value <= HIGH[field])
    # The last bit of the float64 is not sure: taken if the float32 that it becomes is, and its bounds.
    step = abs(value) * _DOUBT
    less, more = value - step, value + step
    return bool(LOW[field] <= less and more <= HIGH[field] and np.float32(less) == np.float32(more))


@loop
def _scan_line(data: U8, at: int, row: int, cells: Cells) -> tuple[int, int]:
    """Read the line at `at` into its row; return (its status; a place in it or at its end)."""
    gaps = cells.gaps
    seen = np.int64(0)
    status, last = LEFT, _BEGIN
    while True:
        gap = status * _GAPS + last
        size = gaps.size[gap]
        if size > 0 and begins_with(data, at, gaps.text, gap * BLOCK_BYTES, size):
            field = gaps.field[gap]
            at += size
        else:
            field, place = _read_gap(data, at, last == _BEGIN, cells.names)
            if field == _WRONG:
                return BLANK if last == _BEGIN and data[blanks_end(data, at)] == NEWLINE else LEFT, place
            if place - at <= BLOCK_BYTES:
                _learn_gap(gaps, gap, data, at, place - at, field)
            at = place
        if field == _END:
            break
        last = field
        bit = np.int64(1) << np.int64(field)
        if seen & bit and field != OTHER:
            return LEFT, at
        cell = row * FIELDS + field
        byte = data[at]
        if byte == QUOTE:
            begin = at + 1
            close = plain_end(data, begin)
            characters, escaped = close - begin, False
            if data[close] != QUOTE:
                close, characters, escaped = string_end(data, begin)
                if close < 0:
                    return LEFT, at
            took = _take_string(data, begin, close - begin, characters, escaped, field, cell, cells)
            if took < 0:
                return LEFT, at
            if KIND[field] == KIND_TYPE:
                status = took
            seen |= bit
            at = close + 1
        elif is_digit(byte) or byte == MINUS:
            mantissa, places, end = number(data, at + (byte == MINUS))
            if mantissa < 0 or not _take_number(mantissa, places, byte == MINUS, field, cell, cells):
                return LEFT, at
            seen |= bit
            at = end
        elif load(data, at) & MASKS[4] == _NULL:
            at += 4
        else:
            return LEFT, at
    at -= 1
    if status == LEFT or seen & _NEEDS[status] != _NEEDS[status]:
        return LEFT, at
    if status == CALL:
        first = row * FIELDS
        start, finish, answer = (
            cells.whole[first + _F_START],
            cells.whole[first + _F_END],
            cells.whole[first + _F_ANSWER],
        )
        return CALL if start <= (start if answer < 0 else answer) <= finish else LEFT, at
    return status, at


@loop
def _scan(out: Scan, first: int, bytes_max: int) -> int:
    """Read lines from row `first` on; return the row before which the vocabulary asks for room, or behind the last."""
    at, cell = 0, 0
    if first:
        at, cell = int(out.end[first - 1]) + 1, int(out.cell[first])
    for row in range(first, len(out.status)):
        for field in range(FIELDS):
            out.cells.whole[cell * FIELDS + field] = _UNKNOWN[field]
        out.cell[row] = cell
        status, place = _scan_line(out.data, at, cell, out.cells)
        if out.cells.words.tally[ASKED] > 0:
            return row
        end = line_end(out.data, place)
        out.begin[row], out.end[row] = at, end
        out.status[row] = status if end - at <= bytes_max else LEFT
        # What is not taken leaves its cells to the next line.
        cell += out.status[row] < LEFT
        at = end + 1
    return len(out.status)


class Columns(NamedTuple):
    """Rows of a scan, turned: one contiguous array a field.

    Attributes:
        whole: int64[integers and then words, n].
        measures: float32[measures, n].
        start, size: int64 and int32[texts, n].
        codes: int32[coded, n].
    """

    whole: I64
    measures: F32
    start: I64
    size: I32
    codes: I32


@loop
def _transpose(cells: Cells, rows: I32, out: Columns) -> None:
    for i in range(len(rows)):
        row = np.int64(rows[i]) * FIELDS
        for k in range(len(INTEGERS)):
            out.whole[k, i] = cells.whole[row + k]
        for k in range(len(WORDS)):
            out.whole[len(INTEGERS) + k, i] = cells.whole[row + WORDS_AT + k]
        for k in range(len(MEASURES)):
            out.measures[k, i] = np.float32(cells.measures[row + MEASURES_AT + k])
        for k in range(len(TEXTS)):
            out.start[k, i] = cells.whole[row + TEXTS_AT + k] >> _SIZE_BITS
            out.size[k, i] = cells.whole[row + TEXTS_AT + k] & _SIZE_MASK
        for k in range(len(CODED)):
            out.codes[k, i] = cells.whole[row + CODED_AT + k]


def transpose(cells: Cells, rows: I32) -> Columns:
    """Return some rows as columns."""
    size = len(rows)
    out = Columns(
        whole=np.empty((len(INTEGERS) + len(WORDS), size), np.int64),
        measures=np.empty((len(MEASURES), size), np.float32),
        start=np.empty((len(TEXTS), size), np.int64),
        size=np.empty((len(TEXTS), size), np.int32),
        codes=np.empty((len(CODED), size), np.int32),
    )
    _transpose(cells, rows, out)
    return out


def _unescaped(raw: bytes) -> str:
    return raw.decode() if b"\\" not in raw else msgspec.json.decode(b'"' + raw + b'"', type=str)


_NAMES = fixed(FIELD_NAMES)


class Scanner:
    """Reads the chunks of one stream: what it learns of gaps and words in one serves the next."""

    def __init__(self) -> None:
        self._vocabulary = Vocabulary()
        self._whole = np.empty(0, np.int64)
        # One for each type, and one while the type is not known.
        gaps = _GAPS * (len(TYPES) + 1)
        self._gaps = Gaps(np.zeros(gaps * BLOCK_BYTES, np.uint8), np.zeros(gaps, np.int64), np.zeros(gaps, np.int64))

    def scan(self, chunk: bytes, bytes_max: int) -> Scan:
        """Read a chunk of NDJSON; the cells returned hold until the next chunk is read.

        Args:
            chunk: whole lines; the last one may lack its newline.
            bytes_max: a longer line is left to the slow reader.
        """
        data = padded(chunk)
        lines = count_lines(data) - PAD_BYTES + 1
        # And cells for a line that is not taken.
        cells = (min(lines, len(data) // TAKEN_BYTES_MIN) + 1) * FIELDS
        if cells > len(self._whole):
            self._whole = np.empty(cells + cells // 4, np.int64)
        self._vocabulary.begin_chunk()
        words = self._vocabulary.words
        out = Scan(
            data=data,
            status=np.empty(lines, np.int8),
            cell=np.empty(lines, np.int32),
            begin=np.empty(lines, np.int64),
            end=np.empty(lines, np.int64),
            cells=Cells(self._whole, self._whole.view(np.float64), words, _NAMES, self._gaps),
        )
        row = _scan(out, 0, bytes_max)
        while row < lines:
            self._vocabulary.make_room()
            out = out._replace(cells=out.cells._replace(words=self._vocabulary.words))
            row = _scan(out, row, bytes_max)
        return out

    def words(self) -> list[str]:
        """Return the words that the codes read so far stand for. The list grows with later chunks."""
        return self._vocabulary.read(_unescaped)
