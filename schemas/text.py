"""Columns of strings: identities as bytes with 64-bit keys, places as dictionary codes.

An identity (customer, call, peer) is looked at as text for one event in a hundred; the rest need only its key.
So a `TextColumn` is spans over one buffer, and a key is XXH64 of the span. Keys are written to disk: seed 0 and
the algorithm are part of the state's layout.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from schemas.kernels import fetch_early, inlined, loop
from schemas.swar import MASKS, load, padded

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# The five primes of XXH64 (xxHash specification, "XXH64 Algorithm Description").
_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


@inlined
def _rotate_left(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inlined
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate_left(lane + word * _P2, 31) * _P1


@loop
def xxh64(data: U8, start: int, size: int) -> np.uint64:
    """Return XXH64, seed 0, of `data[start:start + size]`; the buffer is padded (`schemas.swar`)."""
    at, end = start, start + size
    if size >= 32:
        a, b, c, d = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while at + 32 <= end:
            a = _round(a, load(data, at))
            b = _round(b, load(data, at + 8))
            c = _round(c, load(data, at + 16))
            d = _round(d, load(data, at + 24))
            at += 32
        digest = _rotate_left(a, 1) + _rotate_left(b, 7) + _rotate_left(c, 12) + _rotate_left(d, 18)
        for lane in (a, b, c, d):
            digest = (digest ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        digest = _P5
    digest += np.uint64(size)
    while at + 8 <= end:
        digest = _rotate_left(digest ^ _round(np.uint64(0), load(data, at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        digest = _rotate_left(digest ^ ((load(data, at) & MASKS[4]) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        digest = _rotate_left(digest ^ (np.uint64(data[at]) * _P5), 11) * _P1
        at += 1
    digest = (digest ^ (digest >> np.uint64(33))) * _P2
    digest = (digest ^ (digest >> np.uint64(29))) * _P3
    return digest ^ (digest >> np.uint64(32))


FETCH_TEXT = 8
"""So many texts ahead their bytes are asked for."""


@loop
def _hash(data: U8, start: I64, size: I32, keys: U64) -> None:
    for i in range(len(start)):
        # Texts lie apart, each behind the last one's record: memory answers while earlier ones are read.
        if i + FETCH_TEXT < len(start):
            fetch_early(data, start[i + FETCH_TEXT], 0)
        # Zero means "no identity"; a text whose digest is zero shares the key one.
        keys[i] = max(xxh64(data, start[i], size[i]), np.uint64(1)) if size[i] > 0 else np.uint64(0)


def key_of(text: str) -> int:
    """Return the key of one identity, as `TextColumn.keys` gives it: XXH64 of its UTF-8 bytes, 0 for none."""
    return int(TextColumn.of([text]).keys()[0])


@dataclass(frozen=True, slots=True)
class TextColumn:
    """One string a row, as spans over a buffer. An empty span means: not known.

    Attributes:
        data: uint8, UTF-8 bytes, padded (`schemas.swar`).
        start: int64, one a row, index into `data`.
        size: int32, one a row, in bytes.
    """

    data: U8
    start: I64
    size: I32

    @classmethod
    def of(cls, texts: list[str] | list[str | None]) -> Self:
        """Lay the strings out one after the other; `None` becomes the empty span."""
        encoded = [b"" if text is None else text.encode("utf-8", "surrogatepass") for text in texts]
        size = np.fromiter(map(len, encoded), np.int32, len(encoded))
        start = np.zeros(len(encoded), np.int64)
        np.cumsum(size[:-1], out=start[1:])
        return cls(padded(b"".join(encoded)), start, size)

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, row: int) -> str:
        return self.texts(np.array([row]))[0]

    def texts(self, rows: I64) -> list[str]:
        """Return some rows as strings, in the order given."""
        data, spans = self.data.data, zip(self.start[rows].tolist(), self.size[rows].tolist(), strict=True)
        return [str(data[begin : begin + size], "utf-8", "surrogatepass") for begin, size in spans]

    def join(self, other: Self) -> Self:
        """Return the rows of both, this one's first."""
        # Each buffer ends with padding: so does the longer one.
        return type(self)(
            np.concatenate([self.data, other.data]),
            np.concatenate([self.start, other.start + len(self.data)]),
            np.concatenate([self.size, other.size]),
        )

    def take(self, rows: I64) -> Self:
        """Return some rows, in the order given."""
        return type(self)(self.data, self.start[rows], self.size[rows])

    def keys(self) -> U64:
        """Return uint64 keys, one a row: XXH64 of the bytes; 0 where the span is empty."""
        keys = np.empty(len(self), np.uint64)
        _hash(self.data, self.start, self.size, keys)
        return keys


@dataclass(frozen=True, slots=True)
class CodeColumn:
    """One of few strings a row, as codes into the batch's own dictionary.

    Attributes:
        codes: int32, one a row; -1 where not known.
        values: the dictionary.
    """

    codes: I32
    values: list[str]

    @classmethod
    def of(cls, texts: list[str | None]) -> Self:
        """Encode the strings in order of first appearance."""
        table: dict[str | None, int] = {None: -1}
        codes = np.empty(len(texts), np.int32)
        for row, text in enumerate(texts):
            code = table.get(text)
            if code is None:
                code = table[text] = len(table) - 1
            codes[row] = code
        return cls(codes, [text for text in table if text is not None])

    def __len__(self) -> int:
        return len(self.codes)

    def join(self, other: Self) -> Self:
        """Return the rows of both, this one's first. A value that both know stands twice in the dictionary."""
        shifted = np.where(other.codes < 0, -1, other.codes + len(self.values)).astype(np.int32)
        return type(self)(np.concatenate([self.codes, shifted]), [*self.values, *other.values])

    def take(self, rows: I64) -> Self:
        """Return some rows, in the order given."""
        return type(self)(self.codes[rows], self.values)

    def is_any_of(self, words: AbstractSet[str]) -> Bools:
        """Return which rows hold one of these words; each word that occurs is looked at once."""
        hits: Bools = self.numbers(lambda word: int(word in words), unknown=0) == 1
        return hits

    def numbers(self, number_of: Callable[[str], int], unknown: int) -> I32:
        """Return a number for each row; each word that occurs is looked up once."""
        return Translation(number_of, unknown).of(self)

    def __getitem__(self, row: int) -> str | None:
        code = int(self.codes[row])
        return None if code < 0 else self.values[code]


NOT_YET = -(2**31)
"""What a `Translation` holds for a word that it has not looked up."""


class Translation:
    """Numbers for words: each is looked up once, as long as columns share a vocabulary.

    Args:
        number_of: gives a word's number, 0 or more, or `unknown`.
        unknown: the number where no word is known.
    """

    def __init__(self, number_of: Callable[[str], int], unknown: int) -> None:
        self._number_of = number_of
        self._values: list[str] = []
        # The last place stands for code -1.
        self._table = np.array([unknown], np.int32)

    def of(self, column: CodeColumn) -> I32:
        """Return int32, the number of each row's word."""
        if column.values is not self._values:
            self._values = column.values
            self._table = self._table[-1:]
        size = len(column.values) + 1
        if size > len(self._table):
            grown = np.full(size, NOT_YET, np.int32)
            grown[: len(self._table) - 1], grown[-1] = self._table[:-1], self._table[-1]
            self._table = grown
        numbers = np.empty(len(column), np.int32)
        if _translate(column.codes, self._table, numbers):
            return numbers
        occurs = np.zeros(len(column.values), np.bool_)
        occurs[column.codes[numbers == NOT_YET]] = True
        for code in np.flatnonzero(occurs).tolist():
            self._table[code] = self._number_of(column.values[code])
        return self._table[column.codes]


@loop
def _translate(codes: I32, table: I32, numbers: I32) -> bool:
    """Look up a number for each code; return whether all were there."""
    whole = True
    for i in range(len(codes)):
        numbers[i] = table[codes[i]]
        whole &= numbers[i] != NOT_YET
    return whole
