"""Signatures of Standard Webhooks 1.0.0 (https://www.standardwebhooks.com), scheme `v1`: HMAC-SHA256."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from schemas.errors import ConfigError

PREFIX = "whsec_"
"""What a secret begins with, so that a scanner finds one that leaked."""

SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64
"""Length of a secret: Standard Webhooks 1.0.0, "Signature scheme"."""


def parse_secret(text: str) -> bytes:
    """Return the key of a secret `whsec_<base64>`.

    Raises:
        ConfigError: it is no such secret; the text never quotes it.
    """
    encoded = text.strip().removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError([f"a webhook secret must be {PREFIX} and base64, was not base64"]) from error
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ConfigError(
            [f"a webhook secret must hold {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, held {len(key)}"]
        )
    return key


def signature(keys: Sequence[bytes], identity: str, attempt_s: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature a key, the receiver takes any.

    Args:
        keys: the current key first; while keys are changed over, the previous one too.
        identity: `webhook-id`.
        attempt_s: `webhook-timestamp`: Unix seconds of this attempt.
        body: the bytes as sent.
    """
    signed = b"%s.%d.%s" % (identity.encode("ascii"), attempt_s, body)
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)


def is_signable(identity: str) -> bool:
    """Return whether an id can be signed and sent in a header.

    A dot in it would let the signed bytes be read as another id, time and body.
    """
    return identity.isascii() and identity.isprintable() and not set(identity) & {".", " "} and identity != ""
