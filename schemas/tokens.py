"""Strings and numbers of JSON, as the compiled reader takes them: plain ones, of whose every byte it is sure."""

import numpy as np

from schemas.kernels import inlined, loop
from schemas.swar import digits, plain_end
from schemas.text import U8

QUOTE, COLON, COMMA, OPEN, CLOSE, BACKSLASH, SLASH, DOT, MINUS, PLUS = (np.uint8(ord(mark)) for mark in '":,{}\\/.-+')
ZERO, NINE, NEWLINE, SPACE, TAB, RETURN, LETTER_E = (np.uint8(ord(mark)) for mark in "09\n \t\re")
_LOWER = np.uint8(0x20)

POWERS = 10.0 ** np.arange(23)
"""Exact in float64, so that mantissa / power is the correctly rounded decimal (Clinger, 1990: the fast path)."""
_TENS = 10 ** np.arange(19)
_DIGITS_MAX = 18
"""A mantissa of more digits may not fit 64 bits."""


@inlined
def blanks_end(data: U8, at: int) -> int:
    """Return where the run of blanks that begins at `at` ends."""
    while data[at] <= SPACE and (data[at] == SPACE or data[at] == TAB or data[at] == RETURN):
        at += 1
    return at


@inlined
def is_digit(byte: np.uint8) -> bool:
    """Return whether a byte is a decimal digit."""
    return bool(ZERO <= byte <= NINE)


@loop
def string_end(data: U8, at: int) -> tuple[int, int, bool]:
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


@loop
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


@loop
def _exponent(data: U8, at: int) -> tuple[int, int]:
    """Return (the exponent whose digits or sign stand at `at`, where it ends); an end of -1: none, or a long one."""
    sign = 1
    if data[at] == MINUS or data[at] == PLUS:
        sign = -1 if data[at] == MINUS else 1
        at += 1
    value, size = digits(data, at)
    return (sign * value, at + size) if 0 < size < 8 else (0, -1)


@inlined
def number(data: U8, at: int) -> tuple[int, int, int]:
    """Read a number without its sign: return (mantissa, decimal places or -1 for an integer, where it ends).

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
        if at < 0 or not 0 <= places < len(POWERS):
            return -1, 0, at
    return value, places, at
