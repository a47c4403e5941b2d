"""Eight bytes at a time give what one byte at a time gives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas import swar
from schemas.kernels import kernel

texts = st.binary(max_size=40) | st.text('abc"\\\t\x1f 09é\x7f', max_size=40).map(lambda text: text.encode())


@kernel
def plain_end(data, at):
    return swar.plain_end(data, at)


@kernel
def line_end(data, at):
    return swar.line_end(data, at)


@kernel
def digits(data, at):
    return swar.digits(data, at)


@kernel
def same(one, at, other, place, size):
    return swar.same(one, at, other, place, size)


@given(texts, st.integers(0, 9))
def test_a_run_of_plain_characters_ends_at_the_first_byte_that_is_none(text, at):
    at = min(at, len(text))
    ends = (i for i, byte in enumerate(text) if i >= at and (byte < 32 or byte >= 128 or byte in b'"\\'))
    assert plain_end(swar.padded(text), at) == next(ends, len(text))


@given(st.binary(max_size=40))
def test_a_line_ends_at_its_first_newline_or_with_the_text(text):
    assert line_end(swar.padded(text), 0) == (text + b"\n").index(b"\n")


@given(st.text("0123456789./:", max_size=12).map(str.encode) | st.binary(max_size=10))
def test_digits_are_read_up_to_the_eighth(text):
    size = next((i for i, byte in enumerate(text[:8]) if not 48 <= byte <= 57), min(len(text), 8))
    assert digits(swar.padded(text), 0) == (int(text[:size] or b"0"), size)


@given(st.binary(max_size=30), st.integers(0, 30), st.integers(0, 255))
def test_two_texts_are_the_same_only_if_every_byte_is(text, place, byte):
    other = bytearray(text)
    if place < len(other):
        other[place] = byte
    data, copy = swar.padded(b"x" + text), swar.padded(b"yz" + bytes(other))
    assert same(data, 1, copy, 2, len(text)) == (text == bytes(other))


@given(st.text(st.characters(max_codepoint=126, min_codepoint=1), max_size=8))
def test_a_word_is_what_is_loaded_from_its_text(text):
    data = swar.padded(text.encode())
    assert swar.word_of(text) == int.from_bytes(data[: len(text)].tobytes(), "little")
    assert np.all(data[len(text) :] == swar.NEWLINE)


@given(st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b"\n\n", b"x" * 40]), max_size=60))
def test_line_ends_are_counted_as_bytes_counts_them(parts):
    text = b"".join(parts)
    assert swar.count_lines(np.frombuffer(text, np.uint8)) == text.count(b"\n")
