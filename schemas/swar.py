"""Eight bytes at a time: what the compiled readers of text are made of ("SIMD within a register").

Every function reads whole words, up to seven bytes behind what it is asked about: a buffer must end with padding
(`padded`). Words are little-endian, as on every machine that the libraries have wheels for.

References:
    Lamport, "Multiple byte processing with full-word instructions", CACM 18 (1975).
    Warren, "Hacker's Delight", 2nd ed. (2012), section 6-1: a zero byte in a word.
    Langdale, Lemire, "Parsing gigabytes of JSON per second", VLDB J. 28 (2019): eight digits by three products.
"""

import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from schemas.kernels import inlined

Bytes = npt.NDArray[np.uint8]

if sys.byteorder != "little":
    raise ImportError("eight bytes are read as one little-endian word, this machine is big-endian")

PAD_BYTES = 32
NEWLINE = np.uint8(10)

_WORD = ir.IntType(64)
_ONES = np.uint64(0x0101010101010101)
_TOPS = np.uint64(0x8080808080808080)
_SPACES = _ONES * np.uint64(0x20)
_QUOTES = _ONES * np.uint64(0x22)
_SLASHES = _ONES * np.uint64(0x5C)
_NEWLINES = _ONES * np.uint64(0x0A)
_ZEROS = _ONES * np.uint64(0x30)
_OVER_NINE = _ONES * np.uint64(0x76)
MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
"""By size in bytes, 0..8: the part of a word that a text of so many bytes fills."""


@intrinsic
def _load(_context: Any, data: Any, at: Any) -> Any:  # noqa: ARG001  # numba takes the argument's name from here

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), _WORD.as_pointer())
        word = builder.load(pointer)
        word.align = 1
        return word

    return types.uint64(data, types.int64), generate


load = cast("Callable[[Bytes, int], np.uint64]", _load)
"""Returns the eight bytes at a place of a buffer as one word; nothing checks that they are there."""


@intrinsic
def _count_trailing_zeros(_context: Any, word: Any) -> Any:  # noqa: ARG001  # as above

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


_trailing_zeros = cast("Callable[[np.uint64], int]", _count_trailing_zeros)
"""Returns how many zero bits a word ends with, 64 for zero."""


@inlined
def _first(marks: np.uint64) -> int:
    """Return the index of the first byte with its top bit set, 8 if there is none."""
    return _trailing_zeros(marks) >> 3


@inlined
def plain_end(data: Bytes, at: int) -> int:
    """Return where the run of bytes from `at` on ends that stand for themselves in a JSON string.

    Quote, backslash, control characters and all that is not ASCII end it; padding of newlines does at the latest.
    """
    while True:
        word = load(data, at)
        quote = word ^ _QUOTES
        slash = word ^ _SLASHES
        # Each term marks what it looks for and at most bytes behind it: so the first mark is right.
        marks = ((quote - _ONES) & ~quote) | ((slash - _ONES) & ~slash) | ((word - _SPACES) & ~word) | word
        size = _first(marks & _TOPS)
        at += size
        if size < 8:
            return at


@inlined
def line_end(data: Bytes, at: int) -> int:
    """Return where the first newline from `at` on stands."""
    while True:
        other = load(data, at) ^ _NEWLINES
        size = _first((other - _ONES) & ~other & _TOPS)
        at += size
        if size < 8:
            return at


@inlined
def digits(data: Bytes, at: int) -> tuple[int, int]:
    """Return (the number that up to eight digits from `at` on make, how many they are)."""
    word = load(data, at) ^ _ZEROS
    size = _first(((word + _OVER_NINE) | word) & _TOPS)
    if size == 0:
        return 0, 0
    # Shifted up, the missing digits in front are zeros.
    word <<= np.uint64(8 * (8 - size))
    word = (word * np.uint64(2561)) >> np.uint64(8)
    word = ((word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
    word = ((word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32)
    # np.int64, as int keeps a word unsigned, and unsigned with signed makes a float.
    return np.int64(word), size  # type: ignore[return-value]  # an int to whoever calls it compiled


@inlined
def same(one: Bytes, at: int, other: Bytes, place: int, size: int) -> bool:
    """Return whether `size` bytes of two buffers are equal."""
    while size >= 8:
        if load(one, at) != load(other, place):
            return False
        at, place, size = at + 8, place + 8, size - 8
    return bool((load(one, at) ^ load(other, place)) & MASKS[size] == 0)


def padded(text: bytes) -> Bytes:
    """Return a copy of some bytes with padding of newlines behind them."""
    data = np.empty(len(text) + PAD_BYTES, np.uint8)
    data[: len(text)] = np.frombuffer(text, np.uint8)
    data[len(text) :] = NEWLINE
    return data


def word_of(text: str) -> int:
    """Return a text of at most eight ASCII characters as `load` gives it, the rest zero."""
    return int.from_bytes(text.encode("ascii"), "little")
