"""Words get codes: one each, whatever grows meanwhile."""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import vocabulary as vocabularies
from schemas.kernels import loop
from schemas.swar import padded
from schemas.vocabulary import ASKED, Vocabulary, code_of, find, fixed

LIKE = st.text("ab", min_size=14, max_size=44)
"""Words that share what stands in a slot."""
WORDS = st.text(max_size=80) | LIKE


@loop
def _code(words, data, size):
    return code_of(words, data, 0, size)


@loop
def _found(words, data, size):
    return find(words, data, 0, size)


def code(vocabulary: Vocabulary, text: str) -> int:
    """Return a word's code as a reader gets it: it asks for room where there is none."""
    encoded = text.encode()
    got = _code(vocabulary.words, padded(encoded), len(encoded))
    if got < 0:
        assert vocabulary.words.tally[ASKED] > 0
        vocabulary.make_room()
        got = _code(vocabulary.words, padded(encoded), len(encoded))
    return int(got)


@settings(max_examples=200)
@given(st.lists(st.lists(WORDS, max_size=12), max_size=4), st.integers(1, 3))
def test_a_vocabulary_gives_equal_codes_to_equal_words_and_to_no_others_while_it_grows(batches, first):
    small = vocabularies._WORDS_FIRST
    vocabularies._WORDS_FIRST = first
    vocabulary = Vocabulary()
    vocabularies._WORDS_FIRST = small
    for batch in batches:
        vocabulary.begin_chunk()
        codes = [code(vocabulary, text) for text in batch]
        values = vocabulary.read(bytes.decode)
        assert [values[one] for one in codes] == batch
        assert len(set(values)) == len(values)


def test_a_vocabulary_that_is_full_begins_anew_and_leaves_its_old_words_to_their_columns(monkeypatch):
    monkeypatch.setattr("schemas.vocabulary.WORDS_MAX", 2)
    vocabulary = Vocabulary()
    old = [code(vocabulary, text) for text in "abc"]
    values = vocabulary.read(bytes.decode)
    assert (old, values) == ([0, 1, 2], ["a", "b", "c"])
    assert code(vocabulary, "c") == 2
    vocabulary.begin_chunk()
    assert code(vocabulary, "c") == 0
    assert (vocabulary.read(bytes.decode), values) == (["c"], ["a", "b", "c"])


@given(st.lists(WORDS, min_size=1, max_size=12, unique=True), WORDS)
def test_a_fixed_vocabulary_finds_its_own_words_alone(texts, other):
    words = fixed(tuple(texts))
    for text in [*texts, other]:
        encoded = text.encode()
        place = texts.index(text) if text in texts else -1
        assert _found(words, padded(encoded), len(encoded)) == place
