"""Columns of strings: identities as bytes with 64-bit keys, places as dictionary codes.

An identity (customer, call, peer) is looked at as text for one event in a hundred; the rest need only its key.
So a `TextColumn` is spans over one buffer, and a key is XXH64 of the span. Keys are written to disk: seed 0 and
the algorithm are part of the state's layout.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from schemas.kernels import inlined, kernel
from schemas.swar import MASKS, PAD_BYTES, load, padded, same

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


@kernel
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


@kernel
def _key(data: U8, size: int) -> np.uint64:
    # Zero means "no identity"; a text whose digest is zero shares the key one.
    return max(xxh64(data, 0, size), np.uint64(1)) if size else np.uint64(0)


@kernel
def _keys(data: U8, start: I64, size: I32) -> U64:
    keys = np.zeros(len(start), np.uint64)
    for i in range(len(start)):
        if size[i] > 0:
            keys[i] = max(xxh64(data, start[i], size[i]), np.uint64(1))
    return keys


def key_of(text: str) -> int:
    """Return the key of one identity, as `TextColumn.keys` gives it: XXH64 of its UTF-8 bytes, 0 for none."""
    encoded = text.encode("utf-8", "surrogatepass")
    return int(_key(padded(encoded), len(encoded)))


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
        begin = int(self.start[row])
        return self.data[begin : begin + int(self.size[row])].tobytes().decode("utf-8", "surrogatepass")

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
        keys: U64 = _keys(self.data, self.start, self.size)
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


class Translation:
    """Numbers for words: each is looked up once, as long as columns share a vocabulary.

    Args:
        number_of: gives a word's number, 0 or more, or `unknown`.
        unknown: the number where no word is known.
    """

    _NOT_YET = -(2**31)

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
            grown = np.full(size, self._NOT_YET, np.int32)
            grown[: len(self._table) - 1], grown[-1] = self._table[:-1], self._table[-1]
            self._table = grown
        numbers = self._table[column.codes]
        fresh = column.codes[numbers == self._NOT_YET]
        if not len(fresh):
            return numbers
        occurs = np.zeros(len(column.values), np.bool_)
        occurs[fresh] = True
        for code in np.flatnonzero(occurs).tolist():
            self._table[code] = self._number_of(column.values[code])
        return self._table[column.codes]


WORDS_MAX = 1_000_000
WORDS_BYTES_MAX = 64_000_000
"""A vocabulary beyond either begins anew: what it serves are words that repeat."""


class Words(NamedTuple):
    """A vocabulary as compiled readers see it.

    Attributes:
        table: int32, an open-addressing hash table of codes + 1.
        data: uint8, the words one after the other.
        start, size: int64, one a code: a word's span in `data`.
        tally: [words, bytes of `data`] in use.
    """

    table: I32
    data: U8
    start: I64
    size: I64
    tally: I64


@inlined
def _quick_key(data: U8, at: int, size: int) -> np.uint64:
    """Return a cheap key of a short text; equality is checked on the bytes."""
    key = np.uint64(size) * _P3
    while size > 8:
        key = (key ^ load(data, at)) * _P1
        key ^= key >> np.uint64(32)
        at, size = at + 8, size - 8
    key = (key ^ (load(data, at) & MASKS[size])) * _P1
    return np.uint64(key ^ (key >> np.uint64(32)))


@inlined
def code_of(words: Words, data: U8, at: int, size: int) -> int:
    """Return the code of `data[at:at + size]`, adding it; the caller has made room (`Vocabulary.words`)."""
    mask = len(words.table) - 1
    place = np.int64(_quick_key(data, at, size) & np.uint64(mask))
    while words.table[place] > 0:
        code = int(words.table[place]) - 1
        if words.size[code] == size and same(words.data, words.start[code], data, at, size):
            return code
        place = (place + 1) & mask
    code, end = int(words.tally[0]), int(words.tally[1])
    words.table[place] = code + 1
    words.start[code], words.size[code] = end, size
    for i in range(size):
        words.data[end + i] = data[at + i]
    words.tally[0], words.tally[1] = code + 1, end + size
    return code


@kernel
def _index(words: Words) -> None:
    mask = len(words.table) - 1
    for code in range(words.tally[0]):
        place = np.int64(_quick_key(words.data, words.start[code], words.size[code]) & np.uint64(mask))
        while words.table[place] > 0:
            place = (place + 1) & mask
        words.table[place] = code + 1


class Vocabulary:
    """The words that a stream's coded fields have used so far, each read once: codes for compiled readers.

    Only a cache: which code a word has says nothing.

    Attributes:
        values: the words by code. Grows; a list that `CodeColumn`s share.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.values: list[str] = []
        nothing = np.zeros(0, np.int64)
        self._words = Words(
            np.zeros(2, np.int32), np.zeros(PAD_BYTES, np.uint8), nothing, nothing, np.zeros(2, np.int64)
        )

    def words(self, words_more: int, bytes_more: int) -> Words:
        """Return the arrays, with room for so many more words of so many bytes in all."""
        count, used = self._words.tally.tolist()
        if count > WORDS_MAX or used > WORDS_BYTES_MAX:
            self._begin()
            count, used = 0, 0
        if count + words_more > len(self._words.start) or used + bytes_more + PAD_BYTES > len(self._words.data):
            self._grow(2 * (count + words_more), 2 * (used + bytes_more) + PAD_BYTES)
        return self._words

    def _grow(self, count: int, size: int) -> None:
        old = self._words
        # At most half full, so that a look-up ends soon.
        words = Words(
            table=np.zeros(1 << (2 * count).bit_length(), np.int32),
            data=np.zeros(size, np.uint8),
            start=np.zeros(count, np.int64),
            size=np.zeros(count, np.int64),
            tally=old.tally,
        )
        used, end = old.tally.tolist()
        words.data[:end] = old.data[:end]
        words.start[:used], words.size[:used] = old.start[:used], old.size[:used]
        _index(words)
        self._words = words

    def read(self, unescaped: Callable[[bytes], str]) -> list[str]:
        """Return `values` after taking up what a reader added; `unescaped` turns a word's bytes into text."""
        words = self._words
        for code in range(len(self.values), int(words.tally[0])):
            at = int(words.start[code])
            self.values.append(unescaped(words.data[at : at + int(words.size[code])].tobytes()))
        return self.values
