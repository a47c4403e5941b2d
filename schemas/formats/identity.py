"""Who is who: numbers, SIP URIs and names, normalised and turned into pseudonyms."""

import hashlib
import re
from binascii import hexlify
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from msgspec import Struct

from schemas.formats.memory import remembered

_NOBODY = frozenset({
    "", "-", "<unknown>", "anonymous", "h", "invalid", "null", "private", "restricted", "s", "unavailable", "unknown",
    "withheld",
})  # fmt: skip
"""What stands where a number is withheld, or where a dial plan begins or ends (`s`, `h`)."""


class NumberPlan(Struct, frozen=True):
    """How telephone numbers are written at this source.

    Attributes:
        country: country code, digits, for numbers written without one; empty: such numbers stay as they are.
        international_prefix: what is dialled before a country code; a `+` always is one (ITU-T E.123).
        trunk_prefix: what is dialled before a national number and gives way to the country code; empty where the
            digit belongs to the number (Italy) or none is used.
        national_digits: a number of exactly so many digits, without any prefix, is national; 0: cannot be told.
    """

    country: str = ""
    international_prefix: str = "00"
    trunk_prefix: str = "0"
    national_digits: int = 0

    def normalised(self, text: str) -> str:
        """Return a number as digits, with its country code as far as it can be known; a name in lower case.

        Takes a number with the usual separators, a tel URI (RFC 3966) or a SIP URI (RFC 3261), of which the user
        part counts, without password and escapes; alone or in angle brackets behind a name. An IPv4 address stays as it
        is: without its dots it would be another one's too. `+44 (0)20` has a zero that nobody dials from abroad.
        """
        user, digits = text, text.removeprefix("+")
        # Most are a number and nothing else.
        if not (digits.isascii() and digits.isdecimal()):
            user = _user_of(text)
            if _IPV4.fullmatch(user):
                return user
            if "+" in user:
                user = user.replace("(0)", "")
            digits = re.sub(r"[^0-9]", "", user)
            if not digits or not _NUMBER.fullmatch(user.lstrip(" (")):
                return user.lower()
        if "+" in user or digits in (self.international_prefix, self.trunk_prefix):
            return digits
        if self.international_prefix and digits.startswith(self.international_prefix):
            return digits.removeprefix(self.international_prefix)
        if not self.country:
            return digits
        if self.trunk_prefix and digits.startswith(self.trunk_prefix):
            return self.country + digits.removeprefix(self.trunk_prefix)
        return self.country + digits if len(digits) == self.national_digits else digits


def _user_of(text: str) -> str:
    """Return the user part of a URI; a text that is none as it is."""
    uri = text.partition("<")[2].partition(">")[0] or text
    user = unquote(_SCHEME.sub("", uri.strip()).partition(";")[0].partition("@")[0])
    return user.partition(":")[0] if user.count(":") == 1 else user


_SCHEME = re.compile(r"^(?:sips?|tel):", re.IGNORECASE)
_NUMBER = re.compile(r"\+?[0-9 ()./-]+")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})(?:\.(?=[0-9])|$)){4}")


_BROKEN = re.compile("[\ud800-\udfff]")
"""What a byte that is no UTF-8 was read as: whom it names cannot be known."""

_LETTERS = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")
_TOKEN_BYTES = 12
_BLOCK_BYTES = 64


class Tokens:
    """Turns identities into pseudonyms by keyed HMAC-SHA-256 (RFC 2104): without the key nobody can try numbers.

    A token is `tok_` and 24 letters, `a` to `p` for the hexadecimal digits of the first 96 bits of the digest: no digit
    in it can be taken for one of a number. Of a billion tokens, two are alike with a chance of 1 in 10^11. One identity
    has one token wherever it stands, so a customer who is also somebody's far end is recognised.

    Args:
        key: secret; whoever has it can test whether a number belongs to a token.
        plan: how numbers are written at this source.
        customers: identity -> the identity of the customer whom it belongs to: several of them have one token. None:
            nothing is known of who is a customer.

    Attributes:
        identified: returns the token of an identity, and whether it is known to be a customer's.
        party: returns the same of one end of a call, as its record writes it; no token where that names nobody.
    """

    def __init__(self, key: bytes, plan: NumberPlan | None = None, customers: Mapping[str, str] | None = None) -> None:
        # RFC 2104, section 4: what depends on the key alone is computed once, which halves the time of each token.
        block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        self._plan = NumberPlan() if plan is None else plan
        self._owners: dict[str, str] | None = None
        if customers is not None:
            owners = {self._plan.normalised(text): self._plan.normalised(owner) for text, owner in customers.items()}
            self._owners = {owner: owner for owner in owners.values()} | owners
        self.identified: Callable[[str], tuple[str, bool]] = remembered(self._made)
        self.party: Callable[[str | None], tuple[str | None, bool]] = remembered(self._end)

    @property
    def customers_known(self) -> bool:
        """Whether it can be told who is a customer."""
        return self._owners is not None

    def identity(self, text: str) -> str:
        """Return the token of a telephone number, SIP or tel URI, or account name."""
        return self.identified(text)[0]

    def opaque(self, text: str) -> str:
        """Return the token of any other text, taken as it is."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return f"tok_{hexlify(outer.digest()[:_TOKEN_BYTES]).translate(_LETTERS).decode()}"

    def _made(self, text: str) -> tuple[str, bool]:
        name = self._plan.normalised(text)
        owner = None if self._owners is None else self._owners.get(name)
        return self.opaque(name if owner is None else owner), owner is not None

    def _end(self, text: str | None) -> tuple[str | None, bool]:
        if text is None:
            return None, False
        uri = text
        if "<" in uri:
            uri = uri.partition("<")[2].partition(">")[0] or uri
        user = uri.strip()
        name = user.partition("@")[0].rpartition(":")[2].lower()
        nobody = name in _NOBODY or not any(map(str.isalnum, name)) or _BROKEN.search(name) is not None
        return (None, False) if nobody else self._made(user)
