"""A compiled reader for the records that make up the traffic: calls and media reports as probes write them.

`scan` reads a chunk once, eight bytes at a time. A source writes its keys in one order, so the key that followed the
last one before is expected again, and whether it is there takes one comparison. A record is taken only if the reader
is sure of every byte: plain strings, plain numbers, no nesting, no repeated key. Whatever else a line holds, right or
wrong, is left to `schemas.decode.decode_record`, which alone says what is wrong with a record. The two must agree on
every record that is taken here: a property test holds that.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from schemas.columns import DIRECTIONS, PLACES, RELEASERS
from schemas.events import COUNT_MAX, TIME_MS_MAX
from schemas.kernels import inlined, kernel
from schemas.swar import MASKS, PAD_BYTES, digits, line_end, load, padded, plain_end, word_of
from schemas.text import F32, F64, I8, I32, I64, U8, U64, Vocabulary, Words, code_of

INTEGERS: tuple[tuple[str, int, int], ...] = (
    ("start_ms", 0, TIME_MS_MAX),
    ("end_ms", 0, TIME_MS_MAX),
    ("answer_ms", 0, TIME_MS_MAX),
    ("at_ms", 0, TIME_MS_MAX),
    ("interval_ms", 0, COUNT_MAX),
    ("packets_received", 0, COUNT_MAX),
    ("packets_sent", 0, COUNT_MAX),
    ("silence_ms", 0, COUNT_MAX),
    ("sip_status", 100, 699),
    ("q850", 0, 1023),
)
MEASURES: tuple[tuple[str, float, float], ...] = (
    ("mos", 1.0, 5.0),
    ("loss_ratio", 0.0, 1.0),
    ("discard_ratio", 0.0, 1.0),
    ("burst_ratio", 0.0, 1e15),
    ("jitter_ms", 0.0, 1e15),
    ("rtt_ms", 0.0, 1e15),
    ("value", -1e15, 1e15),
)
TEXTS: tuple[tuple[str, int, int], ...] = (("call_id", 1, 128), ("customer_id", 1, 64), ("peer_id", 0, 65_536))
CODED: tuple[tuple[str, int, int], ...] = (
    ("reason", 0, 65_536),
    ("codec", 0, 65_536),
    *((name, 1, 128) for name in PLACES),
    ("element_kind", 1, 128),
    ("element_id", 1, 128),
    ("metric", 1, 128),
)
WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (("direction", DIRECTIONS), ("released_by", RELEASERS))
TYPES: tuple[str, ...] = ("call", "media", "link")
CODED_NAMES: tuple[str, ...] = tuple(name for name, *_ in CODED)
WHOLE_NAMES: tuple[str, ...] = (*(name for name, *_ in INTEGERS), *(name for name, _ in WORDS))
MEASURE_NAMES: tuple[str, ...] = tuple(name for name, *_ in MEASURES)
TEXT_NAMES: tuple[str, ...] = tuple(name for name, *_ in TEXTS)

CALL, MEDIA, LINK, LEFT, BLANK = range(5)
"""What `scan` says of a line: taken as a call, a media report, a reading; left to the slow reader; no record."""

_KIND_INTEGER, _KIND_MEASURE, _KIND_TEXT, _KIND_CODED, _KIND_WORD, _KIND_TYPE = range(6)
FIELD_NAMES: tuple[str, ...] = (
    *(name for name, *_ in INTEGERS),
    *(name for name, *_ in MEASURES),
    *(name for name, *_ in TEXTS),
    *CODED_NAMES,
    *(name for name, _ in WORDS),
    "type",
)
_KIND = np.array(
    [_KIND_INTEGER] * len(INTEGERS)
    + [_KIND_MEASURE] * len(MEASURES)
    + [_KIND_TEXT] * len(TEXTS)
    + [_KIND_CODED] * len(CODED)
    + [_KIND_WORD] * len(WORDS)
    + [_KIND_TYPE],
    np.int8,
)
_SLOT = np.array(
    [slot for group in (INTEGERS, MEASURES, TEXTS, CODED, WORDS, ("type",)) for slot in range(len(group))], np.int32
)
_LOW = np.array([low for _, low, *_ in INTEGERS] + [0] * (len(FIELD_NAMES) - len(INTEGERS)), np.int64)
_HIGH = np.array([high for *_, high in INTEGERS] + [0] * (len(FIELD_NAMES) - len(INTEGERS)), np.int64)
_MEASURE_LOW = np.array([low for _, low, _ in MEASURES], np.float64)
_MEASURE_HIGH = np.array([high for *_, high in MEASURES], np.float64)
_SIZE_LOW = np.array([low for _, low, _ in (*TEXTS, *CODED)], np.int64)
_SIZE_HIGH = np.array([high for *_, high in (*TEXTS, *CODED)], np.int64)

_POWERS = 10.0 ** np.arange(23)
"""Exact in float64, so that mantissa / power is the correctly rounded decimal (Clinger, 1990: the fast path)."""
_TENS = 10 ** np.arange(19)
_EXACT_MAX = 2**53
_DIGITS_MAX = 18
"""A mantissa of more digits may not fit 64 bits."""
_DOUBT = 2.0**-50
"""More than the relative error of a mantissa beyond 2^53, rounded, divided by a power, rounded (2^-52)."""

_FIELDS = len(FIELD_NAMES)
_KEY_WORDS = 3


def _keys() -> tuple[U64, U64, I64]:
    """Return every key with its quotes as three words, masks for the bytes that count, and sizes."""
    words, masks = np.zeros((_FIELDS, _KEY_WORDS), np.uint64), np.zeros((_FIELDS, _KEY_WORDS), np.uint64)
    sizes = np.zeros(_FIELDS, np.int64)
    for field, name in enumerate(FIELD_NAMES):
        key = f'"{name}"'
        sizes[field] = len(key)
        for k in range(_KEY_WORDS):
            part = key[8 * k : 8 * k + 8]
            words[field, k], masks[field, k] = word_of(part), MASKS[len(part)]
    return words, masks, sizes


_KEY, _KEY_MASK, _KEY_SIZE = _keys()
assert int(_KEY_SIZE.max()) <= 8 * _KEY_WORDS <= PAD_BYTES  # noqa: S101  # what the reader rests on

_WORD = np.array([word_of(word) for word in (*DIRECTIONS, *RELEASERS)], np.uint64)
_WORD_FIRST = np.array([0, len(DIRECTIONS), len(DIRECTIONS) + len(RELEASERS)], np.int64)
_TYPE_WORD = np.array([word_of(word) for word in TYPES], np.uint64)

_F_START, _F_END, _F_ANSWER = (FIELD_NAMES.index(name) for name in ("start_ms", "end_ms", "answer_ms"))


def _bits(*names: str) -> np.int64:
    return np.int64(sum(1 << FIELD_NAMES.index(name) for name in names))


_NEEDS_CALL = _bits("type", "call_id", "customer_id", "start_ms", "end_ms")
_NEEDS_MEDIA = _bits("type", "call_id", "customer_id", "at_ms", "interval_ms")
_NEEDS_LINK = _bits("type", "element_kind", "element_id", "at_ms", "metric", "value")

QUOTE, COLON, COMMA, OPEN, CLOSE, BACKSLASH, SLASH, DOT, MINUS, PLUS = (np.uint8(ord(mark)) for mark in '":,{}\\/.-+')
ZERO, NINE, NEWLINE, SPACE, TAB, RETURN, LETTER_E = (np.uint8(ord(mark)) for mark in "09\n \t\re")
_LOWER = np.uint8(0x20)
_NULL = np.uint64(word_of("null"))


SIZE_BITS = 17
SIZE_MASK = (1 << SIZE_BITS) - 1
"""A span in a cell is its start shifted by this, plus its size: a record has at most 2^16 bytes."""

UNKNOWN = np.full(_FIELDS, -1, np.int64)
"""What a row holds where its record says nothing."""
UNKNOWN[[kind == _KIND_MEASURE for kind in _KIND]] = np.float64(np.nan).view(np.int64)
UNKNOWN[[kind == _KIND_TEXT for kind in _KIND]] = 0


class Cells(NamedTuple):
    """The arrays that a line is read into: few, as each is handed to every function of the loop.

    Attributes:
        whole: int64[n, fields]: integers, spans of texts, codes, words.
        measures: float64[n, fields]: the same memory, where a field is a measure.
        words: the vocabulary of coded fields.
        next: int64[fields + 1]: the field that came behind each field last, and first in a line; -1: not known.
    """

    whole: I64
    measures: F64
    words: Words
    next: I64


class Scan(NamedTuple):
    """What was read, one row a line of the chunk.

    Attributes:
        data: the chunk, padded.
        status: int8, CALL, MEDIA, LINK, LEFT or BLANK.
        begin, end: int64, the line's span in the chunk.
        cells: see there; only rows of CALL, MEDIA and LINK mean anything.
    """

    data: U8
    status: I8
    begin: I64
    end: I64
    cells: Cells


@inlined
def _blanks_end(data: U8, at: int) -> int:
    """Return where the run of blanks that begins at `at` ends."""
    while data[at] <= SPACE and (data[at] == SPACE or data[at] == TAB or data[at] == RETURN):
        at += 1
    return at


@inlined
def _digit(byte: np.uint8) -> bool:
    return bool(ZERO <= byte <= NINE)


@kernel
def _string(data: U8, at: int) -> tuple[int, int, bool]:
    """Return (where the string that begins at `at` has its closing quote, its characters, whether it has escapes).

    A closing quote of -1: not UTF-8, or an escape other than those of quote, backslash and slash.
    """
    begin, extra, escaped = at, 0, False
    while True:
        byte = data[at]
        if byte == QUOTE:
            return at, at - begin - extra, escaped
        if byte == BACKSLASH:
            if data[at + 1] != QUOTE and data[at + 1] != BACKSLASH and data[at + 1] != SLASH:
                return -1, 0, True
            escaped = True
            extra += 1
            at += 2
        elif byte >= 128:
            size = _sequence(data, at)
            if size == 0:
                return -1, 0, escaped
            extra += size - 1
            at += size
        elif byte < SPACE:
            return -1, 0, escaped
        else:
            at = plain_end(data, at)


@kernel
def _sequence(data: U8, at: int) -> int:
    """Return the bytes of the UTF-8 sequence at `at` (RFC 3629, section 4); 0 if it is none."""
    first = data[at]
    size = 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 0
    for i in range(1, size):
        if data[at + i] & 0xC0 != 0x80:
            return 0
    second = data[at + 1]
    wrong = (
        (first == 0xE0 and second < 0xA0)
        or (first == 0xED and second > 0x9F)
        or (first == 0xF0 and second < 0x90)
        or (first == 0xF4 and second > 0x8F)
    )
    return 0 if wrong else size


@inlined
def _is_key(data: U8, at: int, field: int) -> bool:
    wrong = (load(data, at) & _KEY_MASK[field, 0]) ^ _KEY[field, 0]
    wrong |= (load(data, at + 8) & _KEY_MASK[field, 1]) ^ _KEY[field, 1]
    wrong |= (load(data, at + 16) & _KEY_MASK[field, 2]) ^ _KEY[field, 2]
    return bool(wrong == 0)


@kernel
def _field_at(data: U8, at: int) -> int:
    """Return the field whose key stands at `at`; -1 if the contract has none of that name."""
    for field in range(_FIELDS):
        if _is_key(data, at, field):
            return field
    return -1


@kernel
def _word_of(word: np.uint64, words: U64, first: int, last: int) -> int:
    """Return the index of a word in rows first..last of a table, counted from first; -1 if it is not there."""
    for row in range(first, last):
        if words[row] == word:
            return row - first
    return -1


@inlined
def _digit_run(data: U8, at: int) -> tuple[int, int]:
    """Return (the number that the digits from `at` on make, how many they are): right up to `_DIGITS_MAX`."""
    value, size = digits(data, at)
    if size == 8:
        more, count = digits(data, at + 8)
        value, size = value * _TENS[count] + more, 8 + count
        while count == 8 and size <= _DIGITS_MAX:
            more, count = digits(data, at + size)
            value, size = value * _TENS[count] + more, size + count
    return value, size


@kernel
def _exponent(data: U8, at: int) -> tuple[int, int]:
    """Return (the exponent whose digits or sign stand at `at`, where it ends); an end of -1: none, or a long one."""
    sign = 1
    if data[at] == MINUS or data[at] == PLUS:
        sign = -1 if data[at] == MINUS else 1
        at += 1
    value, size = digits(data, at)
    return (sign * value, at + size) if 0 < size < 8 else (0, -1)


@inlined
def _number(data: U8, at: int) -> tuple[int, int, int]:
    """Read a number: return (mantissa, decimal places or -1 for an integer, where it ends).

    A mantissa of -1 means: not a number this reader is sure of.
    """
    value, size = _digit_run(data, at)
    # JSON has no number without a digit, and no leading zero (RFC 8259, section 6).
    if size == 0 or size > _DIGITS_MAX or (size > 1 and data[at] == ZERO):
        return -1, 0, at
    at += size
    places = -1
    if data[at] == DOT:
        part, places = _digit_run(data, at + 1)
        # A zero in front of the point is no digit that counts.
        if places == 0 or places + (size if value else 0) > _DIGITS_MAX:
            return -1, 0, at
        value = value * _TENS[places] + part
        at += 1 + places
    if data[at] | _LOWER == LETTER_E:
        power, at = _exponent(data, at + 1)
        places = max(places, 0) - power
        if at < 0 or not 0 <= places < len(_POWERS):
            return -1, 0, at
    return value, places, at


@inlined
def _take_string(
    data: U8, at: int, size: int, characters: int, escaped: bool, field: int, row: int, cells: Cells
) -> int:
    """Put a string into its cell; return the record's type for the type field, 0 for others, -1 to leave it."""
    kind, slot = _KIND[field], _SLOT[field]
    if kind == _KIND_TEXT:
        cells.whole[row, field] = at << SIZE_BITS | size
        return 0 if not escaped and _SIZE_LOW[slot] <= characters <= _SIZE_HIGH[slot] else -1
    if kind == _KIND_CODED:
        bound = len(TEXTS) + slot
        if not _SIZE_LOW[bound] <= characters <= _SIZE_HIGH[bound]:
            return -1
        cells.whole[row, field] = code_of(cells.words, data, at, size)
        return 0
    if size > 8:
        return -1
    word = load(data, at) & MASKS[size]
    if kind == _KIND_WORD:
        index = _word_of(word, _WORD, _WORD_FIRST[slot], _WORD_FIRST[slot + 1])
        cells.whole[row, field] = index
        return min(index, 0)
    if kind == _KIND_TYPE:
        return _word_of(word, _TYPE_WORD, 0, len(_TYPE_WORD))
    return -1


@inlined
def _take_number(mantissa: int, places: int, negative: bool, field: int, row: int, cells: Cells) -> bool:
    """Put a number into its cell; return whether it fits there."""
    kind, slot = _KIND[field], _SLOT[field]
    if kind == _KIND_INTEGER:
        cells.whole[row, field] = mantissa
        return bool(places < 0 and not negative and _LOW[slot] <= mantissa <= _HIGH[slot])
    if kind != _KIND_MEASURE:
        return False
    value = mantissa / _POWERS[max(places, 0)]
    if negative:
        value = -value
    cells.measures[row, field] = value
    low, high = _MEASURE_LOW[slot], _MEASURE_HIGH[slot]
    if mantissa <= _EXACT_MAX:
        return bool(low <= value <= high)
    # The last bit of the float64 is not sure: taken if the float32 that it becomes is, and its bounds.
    step = abs(value) * _DOUBT
    less, more = value - step, value + step
    return bool(low <= less and more <= high and np.float32(less) == np.float32(more))


@kernel
def _scan_line(data: U8, at: int, row: int, cells: Cells) -> tuple[int, int]:
    """Read the line at `at` into its row; return (its status; a place in it or at its end)."""
    at = _blanks_end(data, at)
    if data[at] != OPEN:
        return BLANK if data[at] == NEWLINE else LEFT, at
    seen = np.int64(0)
    status = LEFT
    last = _FIELDS
    at += 1
    while True:
        at = _blanks_end(data, at)
        if data[at] != QUOTE:
            return LEFT, at
        field = cells.next[last]
        if field < 0 or not _is_key(data, at, field):
            field = _field_at(data, at)
        if field >= 0:
            bit = np.int64(1) << np.int64(field)
            if seen & bit:
                return LEFT, at
            cells.next[last] = field
            last = field
            at += _KEY_SIZE[field]
        else:
            at = plain_end(data, at + 1) + 1
            if data[at - 1] != QUOTE:
                return LEFT, at - 1
        at = _blanks_end(data, at)
        if data[at] != COLON:
            return LEFT, at
        at = _blanks_end(data, at + 1)
        byte = data[at]
        if byte == QUOTE:
            at += 1
            close = plain_end(data, at)
            characters, escaped = close - at, False
            if data[close] != QUOTE:
                close, characters, escaped = _string(data, at)
                if close < 0:
                    return LEFT, at
            if field >= 0:
                took = _take_string(data, at, close - at, characters, escaped, field, row, cells)
                if took < 0:
                    return LEFT, at
                if _KIND[field] == _KIND_TYPE:
                    status = took
                seen |= bit
            at = close + 1
        elif _digit(byte) or byte == MINUS:
            begin = at
            mantissa, places, at = _number(data, at + (byte == MINUS))
            if mantissa < 0 or (field >= 0 and not _take_number(mantissa, places, byte == MINUS, field, row, cells)):
                return LEFT, begin
            if field >= 0:
                seen |= bit
        elif load(data, at) & MASKS[4] == _NULL:
            at += 4
        else:
            return LEFT, at
        at = _blanks_end(data, at)
        if data[at] == CLOSE:
            break
        if data[at] != COMMA:
            return LEFT, at
        at += 1
    at = _blanks_end(data, at + 1)
    if data[at] != NEWLINE or status == LEFT:
        return LEFT, at
    if status == MEDIA:
        return MEDIA if seen & _NEEDS_MEDIA == _NEEDS_MEDIA else LEFT, at
    if status == LINK:
        return LINK if seen & _NEEDS_LINK == _NEEDS_LINK else LEFT, at
    if seen & _NEEDS_CALL != _NEEDS_CALL:
        return LEFT, at
    start, finish, answer = cells.whole[row, _F_START], cells.whole[row, _F_END], cells.whole[row, _F_ANSWER]
    return CALL if start <= (start if answer < 0 else answer) <= finish else LEFT, at


@kernel
def _scan(out: Scan, bytes_max: int) -> None:
    at = 0
    for row in range(len(out.status)):
        for field in range(_FIELDS):
            out.cells.whole[row, field] = UNKNOWN[field]
        status, place = _scan_line(out.data, at, row, out.cells)
        end = line_end(out.data, place)
        out.begin[row], out.end[row] = at, end
        out.status[row] = status if end - at <= bytes_max else LEFT
        at = end + 1


@kernel
def _count_lines(data: U8) -> int:
    count = 0
    for byte in data:
        count += byte == NEWLINE
    return count


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


_MEASURES_AT = len(INTEGERS)
_TEXTS_AT = _MEASURES_AT + len(MEASURES)
_CODED_AT = _TEXTS_AT + len(TEXTS)
_WORDS_AT = _CODED_AT + len(CODED)


@kernel
def _transpose(cells: Cells, rows: I64, out: Columns) -> None:
    for i in range(len(rows)):
        row = rows[i]
        for k in range(len(INTEGERS)):
            out.whole[k, i] = cells.whole[row, k]
        for k in range(len(WORDS)):
            out.whole[len(INTEGERS) + k, i] = cells.whole[row, _WORDS_AT + k]
        for k in range(len(MEASURES)):
            out.measures[k, i] = np.float32(cells.measures[row, _MEASURES_AT + k])
        for k in range(len(TEXTS)):
            out.start[k, i] = cells.whole[row, _TEXTS_AT + k] >> SIZE_BITS
            out.size[k, i] = cells.whole[row, _TEXTS_AT + k] & SIZE_MASK
        for k in range(len(CODED)):
            out.codes[k, i] = cells.whole[row, _CODED_AT + k]


def transpose(cells: Cells, rows: I64) -> Columns:
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


class Scanner:
    """Reads the chunks of one stream: what it learns of keys and words in one serves the next."""

    def __init__(self) -> None:
        self._vocabulary = Vocabulary()
        self._whole = np.empty((0, _FIELDS), np.int64)
        self._next = np.full(_FIELDS + 1, -1, np.int64)

    def scan(self, chunk: bytes, bytes_max: int) -> Scan:
        """Read a chunk of NDJSON; the cells returned hold until the next chunk is read.

        Args:
            chunk: whole lines; the last one may lack its newline.
            bytes_max: a longer line is left to the slow reader.
        """
        data = padded(chunk)
        lines = _count_lines(data) - PAD_BYTES + 1
        if lines > len(self._whole):
            self._whole = np.empty((2 * lines, _FIELDS), np.int64)
        whole = self._whole[:lines]
        words = self._vocabulary.words(len(CODED) * lines, len(chunk))
        out = Scan(
            data=data,
            status=np.empty(lines, np.int8),
            begin=np.empty(lines, np.int64),
            end=np.empty(lines, np.int64),
            cells=Cells(whole, whole.view(np.float64), words, self._next),
        )
        _scan(out, bytes_max)
        return out

    def words(self) -> list[str]:
        """Return the words that the codes read so far stand for. The list grows with later chunks."""
        return self._vocabulary.read(_unescaped)
