"""Could anybody be found in a text: by a telephone number, an extension, a URI, an IP or a hardware address.

The one place that knows how people are written. Formats ask before a text leaves ingest that is no identity by its
meaning: a name of equipment, a codec, a version, a reason. Identities themselves become tokens (see `identity`), and
records that cannot be read are masked whole (see `masks`).

A text is read as a person would read it: percent, HTML and backslash escapes undone, digits of every script as digits,
full-width and superscript forms as plain ones, what cannot be seen left out. Then an address is one with any separators
(`ip-10-0-1-23`, `0A 1B 2C 3D 4E 5F`), and so is a number.

How many digits in a row are somebody's extension depends on whose text it is, and is the only strictness there is:
`FREE`, `NAME`, `PRODUCT` and `OWN`. What cannot be told is not told: a person's name without a URI, and an extension
that is written like the number of a model or of a node.
"""

import html
import re
import unicodedata
from urllib.parse import unquote

FREE = 3
"""In what anybody may have typed, as the text of a `Reason`: extensions have three digits or more."""

NAME = 4
"""In names from a switch's records: `core-101` is a node, `gw-2041` may be who is called there."""

PRODUCT = 5
"""In what an endpoint says that it is: models have up to four digits in a row (`FRITZ!Box 7490`)."""

OWN = 7
"""In names that an operator gave and mapped by hand (`olt-10245`): a whole number alone."""

_ESCAPES_MAX = 3
"""So many times a text may have been escaped on its way."""

_BACKSLASHED = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))")
_ESCAPED = re.compile(r"[%&\\]")

_URI = r"@|(?<![a-z])(?:sips?|tel|h323|callto|mailto|xmpp|im|pres)[ ]?:"
_IP = (
    r"\d{1,3}(?:[ ]?\.[ ]?\d{1,3}){3}|(?:\d{1,3}\.){3}|(?<![a-z])ip[_-]\d{1,3}[_-]"
    r"|(?:[0-9a-f]{0,4}:){2}|(?<![0-9a-z])[0-9a-f]{1,4}(?:-[0-9a-f]{1,4})*--[0-9a-f]{1,4}(?![0-9a-z])"
)
"""IPv4; IPv6 with its colons, or with dashes for them (as in names of hosts)."""

_HARDWARE = r"(?:[0-9a-f]{2}[\W_]{0,2}){6}"
"""Twelve hexadecimal digits, in whatever groups."""

_EXTENSION = (
    r"(?<![a-z0-9])(?:(?<!(?:fanvil|studio)[ _-])x|ext|extn|extension|anexo|ramal|poste|interno|durchwahl)"
    r"[\W_]{0,3}\d{2}"
)
"""`ext. 204`, `x204` and the like; not models of Fanvil and Poly, which are called X3 to X303 and Studio X30."""

_NUMBER = r"(?:\d[\W_]{0,3}){7}|\d{1,3}(?:[ ]?[_-][ ]?\d{1,3}){3}"
"""Seven digits, or four groups of them, which may be an address with dashes."""

_OWN_NUMBER = r"(?:\d[ .()]{0,2}){7}|(?:\d[\W_]{0,3}){9}"
"""Seven digits grouped as people group them, or nine. Rack, shelf, slot and port are none: `olt-1024/2/17`."""


def _found(run: int) -> re.Pattern[str]:
    number = _OWN_NUMBER if run == OWN else rf"{_NUMBER}|\d{{{run}}}"
    return re.compile(f"{_URI}|{_IP}|{_HARDWARE}|{_EXTENSION}|{number}", re.IGNORECASE | re.ASCII)


_FOUND = {run: _found(run) for run in (FREE, NAME, PRODUCT, OWN)}
_WORD = re.compile(r"[A-Za-z]+(?:[/'-][A-Za-z]+)*[.,!?]?")


def somebody_in(text: str, run: int = NAME) -> bool:
    """Tell whether anybody could be found in a text. Rather too often than once too seldom.

    Args:
        run: so many digits in a row may be somebody's: `FREE`, `NAME`, `PRODUCT` or `OWN`.
    """
    if text.isdecimal():
        return len(text) >= run  # as most ids of calls: nothing else is to be looked for
    return _FOUND[run].search(_plain(text)) is not None


def nobody_of(text: str) -> str:
    """Return a free text as it is where nobody can be found in it; nothing where somebody is.

    Of one that holds a short number, which may be an extension, the words stay that are letters alone: `RTP timeout
    after 300 s` still says what happened.
    """
    if not somebody_in(text, FREE):
        return text
    return "" if somebody_in(text, PRODUCT) else " ".join(filter(_WORD.fullmatch, _plain(text).split()))


def _plain(text: str) -> str:
    """Return a text without escapes, in plain digits and letters. See the module."""
    if text.isascii() and _ESCAPED.search(text) is None:
        return text
    for _ in range(_ESCAPES_MAX):
        before = text
        text = _BACKSLASHED.sub(lambda found: chr(int(found[1] or found[2], 16)), html.unescape(unquote(text)))
        if text == before:
            break
    return "".join(map(_character, unicodedata.normalize("NFKC", text)))


def _character(character: str) -> str:
    if character.isascii():
        return character
    number = unicodedata.numeric(character, -1.0)
    if number in range(10):
        return str(int(number))
    # What is not seen (marks of direction, width and joining) separates nothing.
    return "" if unicodedata.category(character) in {"Cf", "Mn", "Me"} else _DOTS.get(character, character)


_DOTS = {"\u00b7": ".", "\u3002": "."}
