"""Columns of strings: what goes in comes out, and keys are those of the published hash."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.text import CodeColumn, TextColumn, key_of, xxh64

MASK = 2**64 - 1
PRIMES = (
    11_400_714_785_074_694_791,
    14_029_467_366_897_019_727,
    1_609_587_929_392_839_161,
    9_650_029_242_287_828_579,
    2_870_177_450_012_600_261,
)
"""PRIME64_1 to PRIME64_5 as the xxHash specification writes them in decimal."""

TEXTS = st.text(max_size=80)
"""No lone surrogates: `st.text` draws them only when asked to."""


def rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & MASK


def rounded(lane: int, word: int) -> int:
    return rotated((lane + word * PRIMES[1]) & MASK, 31) * PRIMES[0] & MASK


def oracle(data: bytes) -> int:
    """XXH64 with seed 0, written from the specification: stripes, remainder, avalanche."""
    p1, p2, p3, p4, p5 = PRIMES
    stripes = len(data) // 32 * 32
    digest = p5
    if stripes:
        lanes = [(p1 + p2) & MASK, p2, 0, -p1 & MASK]
        for at in range(0, stripes, 32):
            words = struct.unpack_from("<4Q", data, at)
            lanes = [rounded(lane, word) for lane, word in zip(lanes, words, strict=True)]
        digest = sum(rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            digest = ((digest ^ rounded(0, lane)) * p1 + p4) & MASK
    digest = (digest + len(data)) & MASK
    rest = data[stripes:]
    while len(rest) >= 8:
        digest = (rotated(digest ^ rounded(0, int.from_bytes(rest[:8], "little")), 27) * p1 + p4) & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        digest = (rotated(digest ^ (int.from_bytes(rest[:4], "little") * p1 & MASK), 23) * p2 + p3) & MASK
        rest = rest[4:]
    for byte in rest:
        digest = rotated(digest ^ (byte * p5 & MASK), 11) * p1 & MASK
    digest = (digest ^ (digest >> 33)) * p2 & MASK
    digest = (digest ^ (digest >> 29)) * p3 & MASK
    return digest ^ (digest >> 32)


def kernel(data: bytes) -> int:
    return int(xxh64(np.frombuffer(data, np.uint8), 0, len(data)))


# The hash


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"xxhash", 0x32DD38952C4BC720),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_the_hash_gives_the_published_digests(text, digest):
    assert kernel(text) == digest
    assert oracle(text) == digest


@given(st.binary(max_size=300))
def test_the_hash_equals_the_specification_for_any_bytes(data):
    assert kernel(data) == oracle(data)


def test_the_hash_equals_the_specification_at_every_length_around_its_steps():
    data = bytes(range(256))
    for size in range(140):
        assert kernel(data[:size]) == oracle(data[:size]), f"{size} bytes"


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_the_hash_of_a_span_looks_at_nothing_around_it(before, data, after):
    buffer = np.frombuffer(before + data + after, np.uint8)
    assert int(xxh64(buffer, len(before), len(data))) == oracle(data)


# Text columns


@given(st.lists(st.none() | TEXTS))
def test_a_text_column_gives_back_what_it_was_given(texts):
    column = TextColumn.of(texts)
    assert len(column) == len(texts)
    assert [column[row] for row in range(len(column))] == [text or "" for text in texts]


@given(st.lists(st.none() | TEXTS))
def test_a_key_is_the_digest_of_the_utf_8_bytes_and_zero_for_no_text(texts):
    keys = TextColumn.of(texts).keys()
    assert keys.dtype == np.uint64
    assert keys.tolist() == [oracle(text.encode()) if text else 0 for text in texts]


@given(TEXTS.filter(bool), st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=5))
def test_a_text_has_one_key_wherever_it_stands(text, before, after):
    keys = TextColumn.of([*before, text, *after]).keys()
    assert int(keys[len(before)]) == key_of(text) != 0


@given(st.lists(st.text(st.characters(codec=None), max_size=8), max_size=8))
def test_a_text_column_survives_lone_surrogates(texts):
    column = TextColumn.of(texts)
    assert [column[row] for row in range(len(column))] == texts


# Code columns


@given(st.lists(st.none() | TEXTS))
def test_a_code_column_gives_back_what_it_was_given(texts):
    column = CodeColumn.of(texts)
    assert len(column) == len(texts)
    assert [column[row] for row in range(len(column))] == texts


@given(st.lists(st.none() | st.sampled_from("abcdef")))
def test_a_dictionary_holds_each_text_once_in_order_of_appearance(texts):
    column = CodeColumn.of(texts)
    assert column.values == list(dict.fromkeys(text for text in texts if text is not None))
    assert column.codes.dtype == np.int32
    assert (column.codes == -1).tolist() == [text is None for text in texts]


@given(st.lists(st.none() | st.sampled_from("abcdef")), st.integers(0, 20))
def test_codes_of_a_chunk_do_not_depend_on_what_follows_it(texts, cut):
    whole, part = CodeColumn.of(texts), CodeColumn.of(texts[:cut])
    assert whole.codes[: len(part)].tolist() == part.codes.tolist()
    assert whole.values[: len(part.values)] == part.values
