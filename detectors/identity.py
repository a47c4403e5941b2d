"""Ids that a replay repeats: digests of what a case is about, never of a clock or a counter."""

import base64
import hashlib


def case_id(prefix: str, *parts: object) -> str:
    """Return an id such as `al_...`: the prefix and 120 bits of SHA-256 over the parts, in base 32.

    Holds no character outside `[a-z0-9_]`, so that it can stand in a signed header, a file name and a URL.
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8", "surrogatepass")).digest()
    return f"{prefix}_{base64.b32encode(digest[:15]).decode('ascii').lower()}"
