"""Make, model and firmware of an endpoint, out of what its `User-Agent` says, and nothing else that it says.

The text is the endpoint's own and may hold a hardware address, an extension or an IP address. A version of four numbers
is written like an address, and many makes have such. So one is a version only where the make is known to write it so,
and only with the first numbers which that make's versions have; of any other make it is left out.
"""

import re

from msgspec import Struct

from schemas.formats.memory import remembered
from schemas.formats.people import OWN, PRODUCT, somebody_in

AGENT_CHARS_MAX = 256

_SERIAL = re.compile(r"[ (]+[0-9A-Fa-f]{12}\b.*", re.DOTALL)
_MODEL = re.compile(r"[A-Za-z][A-Za-z0-9 _()+.!-]{0,63}")
_VERSION = re.compile(
    r"[/ (_-][vV]?\.?([0-9]{1,6}(?:[._][0-9A-Za-z]{1,6}){1,5}(?:-[A-Za-z][0-9A-Za-z]{0,7})?)(?![0-9A-Za-z.])"
)
_AMBIGUOUS = re.compile(
    r"(?<![0-9])[0-9]{1,3}(?:[._][0-9]{1,3}){3}(?![0-9])|[0-9]{5}[._][0-9]{5}|(?:[0-9]{2,4}[._]){2,}[0-9]{2,}"
)
"""A version that could be an address, or a number written in groups."""
_NO_VERSION = re.compile(r"\A[0-9]{2}(?:[._][0-9]{2}){4}|(?:[0-9A-Fa-f]{2}[\W_]?){6}|[^0-9A-Za-z._-]")
"""A telephone number as France writes it, or a hardware address; no make's version is five pairs of digits."""

_MAKES = {
    "aastra": r"[1-4]\.",
    "akuvox": r"[0-9]{1,3}\.30\.",
    "audiocodes": r"[2-7]\.",
    "avaya": r"[1-8]\.",
    "avm": r"[0-9]{1,3}\.0[4-8]\.[0-9]{2}\Z",
    "fanvil": r"[0-2]\.",
    "gigaset": r"42\.[0-9]{3}\.00",
    "grandstream": r"[01]\.",
    "htek": r"[1-6]\.",
    "mitel": r"0?[4-7]\.",
    "obihai": r"[1-3]\.",
    "poly": r"[3-9]\.",
    "sangoma": r"[2-4]\.",
    "snom": r"(?:[78]|10\.1)\.",
    "yealink": r"(?!10\.|192\.)[0-9]{1,3}\.[678][0-9]\.",
}
"""Makes whose versions are four numbers or more, and how these begin: `Yealink SIP-T46S 66.85.0.5`, where the first
number stands for the model and the second for the release; `snomD785/10.1.84.12`, `Akuvox R20B 220.30.2.28`."""

_KNOWN = re.compile("|".join(f"(?:{make}.*\n{begins})" for make, begins in _MAKES.items()), re.IGNORECASE)


class Agent(Struct, frozen=True, gc=False):
    """Make and model, and firmware of an endpoint."""

    model: str | None
    firmware: str | None


_NOTHING = Agent(None, None)


@remembered
def agent_of(value: str | float | None) -> Agent:
    """Split a `User-Agent` (RFC 3261, section 20.41) into model and firmware. See the module."""
    text = value[:AGENT_CHARS_MAX].strip() if isinstance(value, str) else ""
    said = _VERSION.search(text)
    # Some write `Cisco/SPA504G-7.5.2b`, others the model alone before a slash.
    head = text.partition("/")[0] if said is None else text[: said.start()].replace("/", " ")
    model = _SERIAL.sub("", head).strip()
    if not _MODEL.fullmatch(model) or somebody_in(model, PRODUCT):
        return _NOTHING
    return Agent(model, None if said is None else version_of(model, said.group(1)))


def version_of(model: str, text: str) -> str | None:
    """Return a version of some model as it is; None where it could be an address or a number. See the module."""
    if _AMBIGUOUS.search(text) or somebody_in(text, OWN):
        is_known = _KNOWN.match(f"{model}\n{text}") and not _NO_VERSION.search(text)
        return text if is_known else None
    return text
