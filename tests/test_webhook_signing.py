"""Signatures are those of Standard Webhooks 1.0.0, held against its own library."""

import base64
import datetime as dt

import hypothesis.strategies as st
import pytest
from hypothesis import given
from standardwebhooks import Webhook

from schemas.errors import ConfigError
from sinks.webhook.signing import is_signable, parse_secret, signature

KEYS = st.binary(min_size=24, max_size=64)
IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="."), min_size=1)


def secret_of(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@given(KEYS, IDS, st.integers(0, 4_000_000_000), st.text())
def test_a_signature_is_the_librarys(key, identity, attempt_s, text):
    moment = dt.datetime.fromtimestamp(attempt_s, tz=dt.UTC)
    expected = Webhook(secret_of(key)).sign(identity, moment, text)
    assert signature([parse_secret(secret_of(key))], identity, attempt_s, text.encode()) == expected


@given(st.lists(KEYS, min_size=1, max_size=3), st.binary())
def test_while_keys_change_over_each_of_them_has_its_signature(keys, body):
    together = signature(keys, "a-1", 1, body)
    assert together.split(" ") == [signature([key], "a-1", 1, body) for key in keys]


def test_the_library_accepts_what_is_signed_with_an_old_and_a_new_key():
    old, new = b"o" * 24, b"n" * 24
    now = dt.datetime.now(dt.UTC)  # noqa: TID251  the library compares with its own clock
    headers = {
        "webhook-id": "a-1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature([new, old], "a-1", int(now.timestamp()), b'{"x": 1}'),
    }
    for key in (old, new):
        assert Webhook(secret_of(key)).verify('{"x": 1}', headers) == {"x": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("whsec_" + base64.b64encode(b"k" * 23).decode(), "24 to 64 bytes, held 23"),
        ("whsec_" + base64.b64encode(b"k" * 65).decode(), "24 to 64 bytes, held 65"),
        ("whsec_not base64!", "was not base64"),
        ("", "24 to 64 bytes, held 0"),
        ("whsec_é", "was not base64"),
    ],
)
def test_a_secret_that_is_none_is_refused_and_never_quoted(text, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_secret(text)
    assert text == "" or text.removeprefix("whsec_") not in str(caught.value)


@pytest.mark.parametrize("identity", ["", "a.1", "a 1", "a\r\nx: y", "é", "a\x00"])
def test_an_id_that_would_blur_what_is_signed_is_not_signable(identity):
    assert not is_signable(identity)


@given(IDS)
def test_any_other_printable_id_is_signable(identity):
    assert is_signable(identity)
