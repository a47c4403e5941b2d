"""A compiled reader for the records that make up the traffic: calls and media reports as probes write them.

`scan` reads a chunk once, byte by byte, straight into columns. It takes a record only if it is sure of every byte:
plain strings, plain numbers, no nesting, no repeated key. Whatever else a line holds, right or
wrong, is left to `schemas.decode.decode_record`, which alone says what is wrong with a record. The two must agree on
every record that is taken here: a property test holds that.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.columns import DIRECTIONS, PLACES, RELEASERS
from schemas.events import COUNT_MAX, TIME_MS_MAX
from schemas.kernels import inlined, kernel
from schemas.text import F64, I8, I32, I64, U8

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
)
TEXTS: tuple[tuple[str, int, int], ...] = (("call_id", 1, 128), ("customer_id", 1, 64), ("peer_id", 0, 65_536))
CODED: tuple[tuple[str, int, int], ...] = (
    ("reason", 0, 65_536),
    ("codec", 0, 65_536),
    *((name, 1, 128) for name in PLACES),
)
WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (("direction", DIRECTIONS), ("released_by", RELEASERS))
TYPES: tuple[str, ...] = ("call", "media")
CODED_NAMES: tuple[str, ...] = tuple(name for name, *_ in CODED)

CALL, MEDIA, LEFT, BLANK = 0, 1, 2, 3
"""What `scan` says of a line: taken as a call, as a media report; left to the slow reader; no record."""

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
_MANTISSA_MAX = 2**53


def _padded(words: tuple[str, ...]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    table = np.zeros((len(words), max(map(len, words))), np.uint8)
    for row, word in enumerate(words):
        table[row, : len(word)] = np.frombuffer(word.encode(), np.uint8)
    return table, np.array([len(word) for word in words], np.int64)


_KEY_BYTES, _KEY_SIZE = _padded(FIELD_NAMES)
_WORD_BYTES, _WORD_SIZE = _padded((*DIRECTIONS, *RELEASERS))
_WORD_FIRST = np.array([0, len(DIRECTIONS), len(DIRECTIONS) + len(RELEASERS)], np.int64)
_TYPE_BYTES, _TYPE_SIZE = _padded(TYPES)

_KEY_SLOTS = 512


def _place(first: int, middle: int, last: int, size: int, factor: int) -> int:
    return (first * 7 + middle * factor + last * 131 + size * 31) % _KEY_SLOTS


def _key_table() -> tuple[npt.NDArray[np.int16], int]:
    """Return a table without collisions from a key's place to its field, and the factor that makes it one."""
    marks = [(name.encode()[0], name.encode()[len(name) // 2], name.encode()[-1], len(name)) for name in FIELD_NAMES]
    for factor in range(1, 10_000):
        places = [_place(*mark, factor) for mark in marks]
        if len(set(places)) == len(places):
            table = np.full(_KEY_SLOTS, -1, np.int16)
            table[places] = np.arange(len(FIELD_NAMES))
            return table, factor
    raise AssertionError("the keys of the contract must be tellable apart by size and three letters")


_KEY_TABLE, _KEY_FACTOR = _key_table()

_F_START, _F_END, _F_ANSWER = (FIELD_NAMES.index(name) for name in ("start_ms", "end_ms", "answer_ms"))


def _bits(*names: str) -> np.int64:
    return np.int64(sum(1 << FIELD_NAMES.index(name) for name in names))


_NEEDS_CALL = _bits("type", "call_id", "customer_id", "start_ms", "end_ms")
_NEEDS_MEDIA = _bits("type", "call_id", "customer_id", "at_ms", "interval_ms")

QUOTE, COLON, COMMA, OPEN, CLOSE, BACKSLASH, SLASH, DOT = (np.uint8(ord(mark)) for mark in '":,{}\\/.')
ZERO, NINE, NEWLINE, SPACE, TAB, RETURN = (np.uint8(ord(mark)) for mark in "09\n \t\r")


SIZE_BITS = 17
SIZE_MASK = (1 << SIZE_BITS) - 1
"""A span in a cell is its start shifted by this, plus its size: a record has at most 2^16 bytes."""


_PLAIN = np.array([32 <= byte < 128 and chr(byte) not in '"\\' for byte in range(256)])
"""Bytes that stand for themselves in a JSON string."""


class Cells(NamedTuple):
    """The arrays that a line is read into: few, as each is handed to every function of the loop.

    Attributes:
        whole: int64[n, fields]: integers, spans of texts, codes, words.
        measures: float64[n, fields]: the same memory, where a field is a measure.
        table: int32[coded fields, slots]: hash table from a text to its code + 1.
        first: int64[coded fields, n + 1]: the span where each code's text stands first; the last holds their number.
    """

    whole: I64
    measures: F64
    table: I32
    first: I64


class Scan(NamedTuple):
    """What was read, one row a line of the chunk.

    Attributes:
        status: int8, CALL, MEDIA, LEFT or BLANK.
        begin, end: int64, the line's span in the chunk.
        cells: see there; only rows of CALL and MEDIA mean anything.
        seen: int64, a bit for each field that the line had.
    """

    status: I8
    begin: I64
    end: I64
    cells: Cells
    seen: I64


@inlined
def _blank(byte: np.uint8) -> bool:
    return bool(byte == SPACE or byte == TAB or byte == RETURN)


@inlined
def _digit(byte: np.uint8) -> bool:
    return bool(ZERO <= byte <= NINE)


@inlined
def _plain_end(data: U8, at: int, end: int) -> int:
    """Return where the run of plain characters that begins at `at` ends."""
    while at < end and _PLAIN[data[at]]:
        at += 1
    return at


@kernel
def _string(data: U8, at: int, end: int) -> tuple[int, int, bool]:
    """Return (where the string that begins at `at` has its closing quote, its characters, whether it has escapes).

    A closing quote of -1: not UTF-8, or an escape other than those of quote, backslash and slash.
    """
    begin, extra, escaped = at, 0, False
    while at < end:
        byte = data[at]
        if byte == QUOTE:
            return at, at - begin - extra, escaped
        if byte == BACKSLASH:
            if at + 1 >= end or (data[at + 1] != QUOTE and data[at + 1] != BACKSLASH and data[at + 1] != SLASH):
                return -1, 0, True
            escaped = True
            extra += 1
            at += 2
        elif byte >= 128:
            size = _sequence(data, at, end)
            if size == 0:
                return -1, 0, escaped
            extra += size - 1
            at += size
        elif byte < SPACE:
            return -1, 0, escaped
        else:
            at += 1
    return -1, 0, escaped


@kernel
def _sequence(data: U8, at: int, end: int) -> int:
    """Return the bytes of the UTF-8 sequence at `at` (RFC 3629, section 4); 0 if it is none."""
    first = data[at]
    size = 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 0
    if size == 0 or at + size > end:
        return 0
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


@kernel
def _field_of(data: U8, at: int, size: int) -> int:
    """Return the field of a key; -1 if the contract has none of that name."""
    if size == 0:
        return -1
    mark = np.int64(data[at]) * 7 + np.int64(data[at + size // 2]) * _KEY_FACTOR
    mark += np.int64(data[at + size - 1]) * 131 + size * 31
    field = int(_KEY_TABLE[mark % _KEY_SLOTS])
    if field < 0 or _KEY_SIZE[field] != size:
        return -1
    for i in range(size):
        if data[at + i] != _KEY_BYTES[field, i]:
            return -1
    return field


@kernel
def _word_of(data: U8, at: int, size: int, table: U8, sizes: I64, first: int, last: int) -> int:
    """Return the index of a word in rows first..last of a table, counted from first; -1 if it is not there."""
    for row in range(first, last):
        if sizes[row] == size:
            same = True
            for i in range(size):
                if data[at + i] != table[row, i]:
                    same = False
                    break
            if same:
                return row - first
    return -1


@kernel
def _number(data: U8, at: int, end: int) -> tuple[int, int, int]:
    """Read a number without exponent: return (mantissa, decimal places or -1 for an integer, where it ends).

    A mantissa of -1 means: not a number this reader is sure of.
    """
    begin = at
    mantissa = 0
    places = -1
    while at < end and (_digit(data[at]) or data[at] == DOT):
        if data[at] == DOT:
            if places >= 0 or at == begin:
                return -1, 0, at
            places = 0
        else:
            if mantissa > (_MANTISSA_MAX - 10) // 10:
                return -1, 0, at
            mantissa = mantissa * 10 + int(data[at] - ZERO)
            if places >= 0:
                places += 1
        at += 1
    # JSON has no empty number, no leading zero, no point without digits behind it (RFC 8259, section 6).
    if at == begin or places == 0 or (data[begin] == ZERO and at - begin > 1 and data[begin + 1] != DOT):
        return -1, 0, at
    return mantissa, places, at


@kernel
def _is_null(data: U8, at: int, end: int) -> bool:
    return at + 4 <= end and data[at] == 110 and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108


@kernel
def _quick_key(data: U8, at: int, size: int) -> np.uint64:
    """Return a cheap key of a short text: FNV-1a over eight bytes at a time; equality is checked on the bytes."""
    key = np.uint64(0xCBF29CE484222325) ^ np.uint64(size)
    i = 0
    while i + 8 <= size:
        word = np.uint64(0)
        for j in range(8):
            word |= np.uint64(data[at + i + j]) << np.uint64(8 * j)
        key = (key ^ word) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
        i += 8
    while i < size:
        key = (key ^ np.uint64(data[at + i])) * np.uint64(0x100000001B3)
        i += 1
    return key ^ (key >> np.uint64(29))


@kernel
def _code_of(data: U8, at: int, size: int, column: int, cells: Cells) -> int:
    """Return the code of a text in a coded field, adding it."""
    mask = cells.table.shape[1] - 1
    place = np.int64(_quick_key(data, at, size) & np.uint64(mask))
    while cells.table[column, place] > 0:
        code = int(cells.table[column, place]) - 1
        span = cells.first[column, code]
        if span & SIZE_MASK == size and _same(data, span >> SIZE_BITS, at, size):
            return code
        place = (place + 1) & mask
    last = cells.first.shape[1] - 1
    code = int(cells.first[column, last])
    cells.first[column, last] += 1
    cells.table[column, place] = code + 1
    cells.first[column, code] = at << SIZE_BITS | size
    return code


@inlined
def _same(data: U8, one: int, other: int, size: int) -> bool:
    for i in range(size):
        if data[one + i] != data[other + i]:
            return False
    return True


@kernel
def _skip_blanks(data: U8, at: int, end: int) -> int:
    while at < end and _blank(data[at]):
        at += 1
    return at


@kernel
def _take_string(
    data: U8, at: int, size: int, characters: int, escaped: bool, field: int, row: int, cells: Cells
) -> int:
    """Put a string into its column; return the record's type for the type field, 0 for others, -1 to leave it."""
    kind, slot = _KIND[field], _SLOT[field]
    if kind == _KIND_TEXT:
        cells.whole[row, field] = at << SIZE_BITS | size
        return 0 if not escaped and _SIZE_LOW[slot] <= characters <= _SIZE_HIGH[slot] else -1
    if kind == _KIND_CODED:
        bound = len(TEXTS) + slot
        if not _SIZE_LOW[bound] <= characters <= _SIZE_HIGH[bound]:
            return -1
        cells.whole[row, field] = _code_of(data, at, size, slot, cells)
        return 0
    if kind == _KIND_WORD:
        word = _word_of(data, at, size, _WORD_BYTES, _WORD_SIZE, _WORD_FIRST[slot], _WORD_FIRST[slot + 1])
        cells.whole[row, field] = word
        return min(word, 0)
    if kind == _KIND_TYPE:
        return _word_of(data, at, size, _TYPE_BYTES, _TYPE_SIZE, 0, len(_TYPE_SIZE))
    return -1


@kernel
def _take_number(mantissa: int, places: int, field: int, row: int, cells: Cells) -> bool:
    """Put a number into its column; return whether it fits there."""
    kind, slot = _KIND[field], _SLOT[field]
    if kind == _KIND_INTEGER:
        if places >= 0 or not _LOW[slot] <= mantissa <= _HIGH[slot]:
            return False
        cells.whole[row, field] = mantissa
        return True
    if kind == _KIND_MEASURE and places < len(_POWERS):
        value = mantissa / _POWERS[max(places, 0)]
        if not _MEASURE_LOW[slot] <= value <= _MEASURE_HIGH[slot]:
            return False
        cells.measures[row, field] = value
        return True
    return False


@kernel
def _scan_line(data: U8, at: int, end: int, row: int, cells: Cells) -> tuple[int, np.int64]:
    """Read one line into its row; return (CALL, MEDIA, LEFT or BLANK; a bit for each field seen)."""
    at = _skip_blanks(data, at, end)
    if at == end:
        return BLANK, np.int64(0)
    seen = np.int64(0)
    if data[at] != OPEN:
        return LEFT, seen
    at += 1
    status = LEFT
    while True:
        at = _skip_blanks(data, at, end)
        if at >= end or data[at] != QUOTE:
            return LEFT, seen
        close = _plain_end(data, at + 1, end)
        if close >= end or data[close] != QUOTE:
            return LEFT, seen
        field = _field_of(data, at + 1, close - at - 1)
        if field >= 0:
            bit = np.int64(1) << np.int64(field)
            if seen & bit:
                return LEFT, seen
        at = _skip_blanks(data, close + 1, end)
        if at >= end or data[at] != COLON:
            return LEFT, seen
        at = _skip_blanks(data, at + 1, end)
        if at >= end:
            return LEFT, seen
        if data[at] == QUOTE:
            close = _plain_end(data, at + 1, end)
            characters, escaped = close - at - 1, False
            if close >= end or data[close] != QUOTE:
                close, characters, escaped = _string(data, at + 1, end)
                if close < 0:
                    return LEFT, seen
            if field >= 0:
                took = _take_string(data, at + 1, close - at - 1, characters, escaped, field, row, cells)
                if took < 0:
                    return LEFT, seen
                if _KIND[field] == _KIND_TYPE:
                    status = took
                seen |= bit
            at = close + 1
        elif _digit(data[at]):
            mantissa, places, at = _number(data, at, end)
            if mantissa < 0 or (field >= 0 and not _take_number(mantissa, places, field, row, cells)):
                return LEFT, seen
            if field >= 0:
                seen |= bit
        elif _is_null(data, at, end):
            at += 4
        else:
            return LEFT, seen
        at = _skip_blanks(data, at, end)
        if at >= end:
            return LEFT, seen
        if data[at] == CLOSE:
            break
        if data[at] != COMMA:
            return LEFT, seen
        at += 1
    if _skip_blanks(data, at + 1, end) != end or status == LEFT:
        return LEFT, seen
    if status == MEDIA:
        return MEDIA if seen & _NEEDS_MEDIA == _NEEDS_MEDIA else LEFT, seen
    if seen & _NEEDS_CALL != _NEEDS_CALL:
        return LEFT, seen
    start, finish, answer = cells.whole[row, _F_START], cells.whole[row, _F_END], cells.whole[row, _F_ANSWER]
    if not seen & (np.int64(1) << np.int64(_F_ANSWER)):
        answer = start
    return CALL if start <= answer <= finish else LEFT, seen


@kernel
def _scan(data: U8, bytes_max: int, out: Scan) -> None:
    at = 0
    for row in range(len(out.status)):
        end = at
        while end < len(data) and data[end] != NEWLINE:
            end += 1
        out.begin[row] = at
        out.end[row] = end
        out.status[row], out.seen[row] = LEFT, 0
        if end - at <= bytes_max:
            out.status[row], out.seen[row] = _scan_line(data, at, end, row, out.cells)
        at = end + 1


def scan(chunk: bytes, bytes_max: int) -> Scan:
    """Read a chunk of NDJSON.

    Args:
        chunk: whole lines; the last one may lack its newline.
        bytes_max: a longer line is left to the slow reader.
    """
    data = np.frombuffer(chunk, np.uint8)
    lines = int(np.count_nonzero(data == NEWLINE)) + 1
    whole = np.empty((lines, len(FIELD_NAMES)), np.int64)
    first = np.empty((len(CODED), lines + 1), np.int64)
    first[:, -1] = 0
    cells = Cells(
        whole=whole,
        measures=whole.view(np.float64),
        # At most half full, so that a look-up ends soon.
        table=np.zeros((len(CODED), 1 << (2 * lines).bit_length()), np.int32),
        first=first,
    )
    out = Scan(
        status=np.empty(lines, np.int8),
        begin=np.empty(lines, np.int64),
        end=np.empty(lines, np.int64),
        cells=cells,
        seen=np.empty(lines, np.int64),
    )
    _scan(data, bytes_max, out)
    return out
