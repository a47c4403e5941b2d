"""Eight or thirty-two bytes at a time: what the compiled readers of text are made of.

Every function reads whole words and blocks, up to `PAD_BYTES` behind where it is asked to: a buffer must end with
padding (`padded`). Words are little-endian, as on every machine that the libraries have wheels for; blocks are vectors
of LLVM, which makes of them what the machine has.

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

from schemas.kernels import inlined, loop

Bytes = npt.NDArray[np.uint8]

if sys.byteorder != "little":
    raise ImportError("eight bytes are read as one little-endian word, this machine is big-endian")

BLOCK_BYTES = 32
PAD_BYTES = 2 * BLOCK_BYTES
NEWLINE = np.uint8(10)

_WORD = ir.IntType(64)
_BYTE = ir.IntType(8)
_BLOCK = ir.VectorType(_BYTE, BLOCK_BYTES)
_MARKS = ir.IntType(BLOCK_BYTES)
_ONES = np.uint64(0x0101010101010101)
_TOPS = np.uint64(0x8080808080808080)
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


def _block(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    block = builder.load(builder.bitcast(builder.gep(view.data, [at]), _BLOCK.as_pointer()))
    block.align = 1
    return block


def _all(byte: str) -> ir.Constant:
    return ir.Constant(_BLOCK, [ord(byte)] * BLOCK_BYTES)


def _bits(builder: Any, marks: Any) -> Any:
    """Turn a vector of truth values into the bits of a word."""
    return builder.zext(builder.bitcast(marks, _MARKS), _WORD)


@intrinsic
def _mark_stops(_context: Any, data: Any, at: Any) -> Any:  # noqa: ARG001  # as above

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _block(context, builder, signature.args[0], *arguments)
        quotes = builder.icmp_unsigned("==", block, _all('"'))
        slashes = builder.icmp_unsigned("==", block, _all("\\"))
        # As signed numbers, bytes that are not ASCII are below all others.
        rest = builder.icmp_signed("<", block, _all(" "))
        return _bits(builder, builder.or_(builder.or_(quotes, slashes), rest))

    return types.uint64(data, types.int64), generate


@intrinsic
def _mark_newlines(_context: Any, data: Any, at: Any) -> Any:  # noqa: ARG001  # as above

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _block(context, builder, signature.args[0], *arguments)
        return _bits(builder, builder.icmp_unsigned("==", block, _all("\n")))

    return types.uint64(data, types.int64), generate


@intrinsic
def _mark_differences(_context: Any, one: Any, at: Any, other: Any, place: Any) -> Any:  # noqa: ARG001  # as above

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _block(context, builder, signature.args[0], *arguments[:2])
        beside = _block(context, builder, signature.args[2], *arguments[2:])
        return _bits(builder, builder.icmp_unsigned("!=", block, beside))

    return types.uint64(one, types.int64, other, types.int64), generate


_stops = cast("Callable[[Bytes, int], np.uint64]", _mark_stops)
_newlines = cast("Callable[[Bytes, int], np.uint64]", _mark_newlines)
_differences = cast("Callable[[Bytes, int, Bytes, int], np.uint64]", _mark_differences)


@inlined
def plain_end(data: Bytes, at: int) -> int:
    """Return where the run of bytes from `at` on ends that stand for themselves in a JSON string.

    Quote, backslash, control characters and all that is not ASCII end it; padding of newlines does at the latest.
    """
    marks = _stops(data, at)
    while marks == 0:
        at += BLOCK_BYTES
        marks = _stops(data, at)
    return at + _trailing_zeros(marks)


@inlined
def line_end(data: Bytes, at: int) -> int:
    """Return where the first newline from `at` on stands."""
    marks = _newlines(data, at)
    while marks == 0:
        at += BLOCK_BYTES
        marks = _newlines(data, at)
    return at + _trailing_zeros(marks)


@inlined
def begins_with(data: Bytes, at: int, other: Bytes, place: int, size: int) -> bool:
    """Return whether `size` bytes of two buffers, `BLOCK_BYTES` at the most, are equal."""
    return bool(_trailing_zeros(_differences(data, at, other, place)) >= size)


@inlined
def digits(data: Bytes, at: int) -> tuple[int, int]:
    """Return (the number that up to eight digits from `at` on make, how many they are)."""
    word = load(data, at) ^ _ZEROS
    # The index of the first byte with its top bit set, 8 if there is none.
    size = _trailing_zeros(((word + _OVER_NINE) | word) & _TOPS) >> 3
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
    while size > BLOCK_BYTES:
        if _differences(one, at, other, place):
            return False
        at, place, size = at + BLOCK_BYTES, place + BLOCK_BYTES, size - BLOCK_BYTES
    return begins_with(one, at, other, place, size)


def padded(text: bytes) -> Bytes:
    """Return a copy of some bytes with padding of newlines behind them."""
    data = np.empty(len(text) + PAD_BYTES, np.uint8)
    data[: len(text)] = np.frombuffer(text, np.uint8)
    data[len(text) :] = NEWLINE
    return data


def word_of(text: str) -> int:
    """Return a text of at most eight ASCII characters as `load` gives it, the rest zero."""
    return int.from_bytes(text.encode("ascii"), "little")


@loop
def count_lines(data: Bytes) -> int:
    """Return how many line ends there are."""
    count = 0
    for byte in data:
        count += byte == NEWLINE
    return count
