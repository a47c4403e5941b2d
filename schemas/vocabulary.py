"""Words that a stream repeats, as codes: each is read as text once, then known by its bytes.

A word's slot holds its first sixteen bytes, so that finding a short one takes one cache line and no loop.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from schemas.kernels import inlined, loop
from schemas.swar import MASKS, PAD_BYTES, load, same
from schemas.text import I64, U8, U64

WORDS_MAX = 1_000_000
WORDS_BYTES_MAX = 64_000_000
"""A vocabulary beyond either begins anew: what it serves are words that repeat."""

_WORDS_FIRST = 512
_HEAD_BYTES = 16
_SLOT = 4
_CODE, _SIZE = 2, 3
"""A slot is two words of text, code + 1 (0: a free slot), and the text's size."""
ASKED = 2
"""Place of the tally that a reader looks at when a word got no code."""

_MIX_ONE = np.uint64(0x9E3779B185EBCA87)
_MIX_TWO = np.uint64(0xC2B2AE3D27D4EB4F)
_HALF = np.uint64(32)


class Words(NamedTuple):
    """A vocabulary as compiled readers see it.

    Attributes:
        slots: uint64, an open-addressing hash table, four words a slot.
        data: uint8, the words one after the other.
        start, size: int64, one a code: a word's span in `data`.
        tally: [words in use, bytes of `data` in use, bytes of a word for which there was no room].
    """

    slots: U64
    data: U8
    start: I64
    size: I64
    tally: I64


@inlined
def _slot_of(words: Words, data: U8, at: int, size: int) -> int:
    """Return where the slot of `data[at:at + size]` begins: one that holds it, or the free one where it belongs."""
    one = load(data, at) & MASKS[min(size, 8)]
    two = load(data, at + 8) & MASKS[max(min(size - 8, 8), 0)]
    key = ((one + np.uint64(size)) * _MIX_ONE) ^ (two * _MIX_TWO)
    rest = size - _HEAD_BYTES
    while rest > 0:
        key = (key ^ (key >> _HALF)) * _MIX_TWO
        key ^= (load(data, at + size - rest) & MASKS[min(rest, 8)]) * _MIX_ONE
        rest -= 8
    slots = words.slots
    mask = len(slots) // _SLOT - 1
    slot = np.int64((key ^ (key >> _HALF)) & np.uint64(mask))
    while True:
        place = slot * _SLOT
        code = np.int64(slots[place + _CODE]) - 1
        if code < 0:
            return int(place)
        if (
            slots[place] == one
            and slots[place + 1] == two
            and slots[place + _SIZE] == np.uint64(size)
            and (size <= _HEAD_BYTES or same(words.data, words.start[code], data, at, size))
        ):
            return int(place)
        slot = (slot + 1) & mask


@inlined
def find(words: Words, data: U8, at: int, size: int) -> int:
    """Return the code of `data[at:at + size]`, -1 if it has none."""
    code = np.int64(words.slots[_slot_of(words, data, at, size) + _CODE]) - 1
    return int(code)


@loop
def _enter(words: Words, place: int, data: U8, at: int, size: int, code: int) -> None:
    words.slots[place] = load(data, at) & MASKS[min(size, 8)]
    words.slots[place + 1] = load(data, at + 8) & MASKS[max(min(size - 8, 8), 0)]
    words.slots[place + _CODE] = code + 1
    words.slots[place + _SIZE] = size


@loop
def _add(words: Words, place: int, data: U8, at: int, size: int) -> int:
    code, end = int(words.tally[0]), int(words.tally[1])
    if code == len(words.start) or end + size + PAD_BYTES > len(words.data):
        words.tally[ASKED] = size + PAD_BYTES
        return -1
    _enter(words, place, data, at, size, code)
    words.start[code], words.size[code] = end, size
    for i in range(size):
        words.data[end + i] = data[at + i]
    words.tally[0], words.tally[1] = code + 1, end + size
    return code


@inlined
def code_of(words: Words, data: U8, at: int, size: int) -> int:
    """Return the code of `data[at:at + size]`, adding it; -1 if there is no room (`Vocabulary.make_room`)."""
    place = _slot_of(words, data, at, size)
    code = np.int64(words.slots[place + _CODE]) - 1
    return _add(words, place, data, at, size) if code < 0 else int(code)


@loop
def _index(words: Words) -> None:
    for code in range(words.tally[0]):
        place = _slot_of(words, words.data, words.start[code], words.size[code])
        _enter(words, place, words.data, words.start[code], words.size[code], code)


def _allocate(count: int, data: U8) -> Words:
    # At most half full, so that a look-up ends soon.
    slots = np.zeros(_SLOT << (2 * count - 1).bit_length(), np.uint64)
    return Words(slots, data, np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(3, np.int64))


def fixed(texts: tuple[str, ...]) -> Words:
    """Return a vocabulary of these words, each with its index as code."""
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"".join(encoded) + bytes(PAD_BYTES), np.uint8).copy()
    words = _allocate(len(texts), data)
    words.size[:] = [len(word) for word in encoded]
    words.start[1:] = np.cumsum(words.size)[:-1]
    words.tally[:2] = len(texts), len(data) - PAD_BYTES
    _index(words)
    return words


class Vocabulary:
    """The words that a stream's coded fields have used so far, each read once: codes for compiled readers.

    Only a cache: which code a word has says nothing.

    Attributes:
        values: the words by code. Grows; a list that `CodeColumn`s share.
        words: the arrays; replaced when they grow.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.values: list[str] = []
        self.words = _allocate(_WORDS_FIRST, np.zeros(16 * _WORDS_FIRST + PAD_BYTES, np.uint8))

    def begin_chunk(self) -> None:
        """Begin anew where there are too many words: between chunks, for codes of one must not change their words."""
        count, used, _ = self.words.tally.tolist()
        if count > WORDS_MAX or used > WORDS_BYTES_MAX:
            self._begin()

    def make_room(self) -> None:
        """Double, and make room for the word that a reader asked it for."""
        old = self.words
        used, end, asked = old.tally.tolist()
        words = _allocate(2 * len(old.start), np.zeros(2 * len(old.data) + asked, np.uint8))
        words.data[:end] = old.data[:end]
        words.start[:used], words.size[:used], words.tally[:2] = old.start[:used], old.size[:used], (used, end)
        _index(words)
        self.words = words

    def read(self, unescaped: Callable[[bytes], str]) -> list[str]:
        """Return `values` after taking up what a reader added; `unescaped` turns a word's bytes into text."""
        words = self.words
        for code in range(len(self.values), int(words.tally[0])):
            at = int(words.start[code])
            self.values.append(unescaped(words.data[at : at + int(words.size[code])].tobytes()))
        return self.values
