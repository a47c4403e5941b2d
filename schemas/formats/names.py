"""What a record names besides people and leaves ingest as it is: equipment, codecs, and reasons why a call ended.

Each may hold what is somebody's (see `people`): then equipment is called by a token, a reason keeps its codes, and a
codec is none.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from schemas.formats.identity import Tokens
from schemas.formats.memory import remembered
from schemas.formats.people import nobody_of, somebody_in

_EXTENSION = re.compile(r"[0-9]{2,}")
_REASON = re.compile(
    r"(?:^|(?<=[,\n]))\s*(?:Reason:\s*)?([A-Za-z][A-Za-z0-9._-]{0,31})\s*;([^,\n\"]*(?:\"[^\"]*\"[^,\n\"]*)*)"
)
_CAUSE = re.compile(r"cause\s*=\s*\"?([0-9]{1,3})\b", re.IGNORECASE)
_LOCATION = re.compile(r"location\s*=\s*\"?(U|LPN|LN|TN|RLN|RPN|INTL|BI)\b", re.IGNORECASE)
"""Where a release began, RFC 8606."""
_TEXT = re.compile(r"text\s*=\s*(?:\"([^\"]*)\"|([^;\s]+))", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[ .-]")
_NAMES = """
    AC3 AMR AMR-WB AMR-WB+ ATRAC3 BV16 BV32 CELT clearmode CN codec2 DVI4 EVRC EVRC0 EVRC1 EVRCB EVRCNW EVRCWB EVS G719
    G722 G7221 G723 G726-16 G726-24 G726-32 G726-40 G728 G729 G7291 G729D G729E GSM GSM-EFR GSM-HR-08 iLBC iSAC L16 L20
    L24 L8 LPC LYRA MELP MELP600 MELP1200 MELP2400 MP4A-LATM MPA mpeg4-generic opus PCMA PCMA-WB PCMU PCMU-WB PROXY
    QCELP RED SILK Siren7 Siren14 SIRENLPR SMV speex T38 telephone-event VDVI VMR-WB vorbis
"""
_CODECS = {name.upper(): name for name in _NAMES.split()}
_CODECS |= {
    "G711U": "PCMU", "G711MU": "PCMU", "G711ULAW": "PCMU", "ULAW": "PCMU", "G711A": "PCMA", "G711ALAW": "PCMA",
    "ALAW": "PCMA", "G7231": "G723", "G729A": "G729", "G729B": "G729", "G729AB": "G729",
}  # fmt: skip
"""RTP encoding names (RFC 3551, section 4, and its registry at IANA) and what else is written for them.

A codec is one of these or not known: what stands in its place is a text as any other."""


@remembered
def codec_of(value: str | float | None) -> str | None:
    """Return an encoding name (RFC 3551) without its rate; None where it is none that is known."""
    if not isinstance(value, str):
        return None
    name = value[:64].strip().partition("/")[0].upper()
    return _CODECS.get(name) or _CODECS.get(_PUNCTUATION.sub("", name))


def place_of(tokens: Tokens, value: str | float | None) -> str | None:
    """Return a name of equipment; a token where it holds a number or an address, is an extension, or unprintable."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    return _named(tokens, text[:128]) if text else None


@lru_cache(4_096)
def _named(tokens: Tokens, text: str) -> str:
    hidden = not text.isprintable() or _EXTENSION.fullmatch(text) or somebody_in(text)
    return tokens.opaque(text) if hidden else text


@remembered
def reason_of(value: str | float | None) -> str | None:
    """Return the values of a `Reason` header (RFC 3326): protocol, cause, location and text of each, nothing else.

    Of a text in which anybody could be found only harmless words are kept, if any (`people.nobody_of`).
    """
    text = value.strip() if isinstance(value, str) else ""
    return ", ".join(_reason_values(text[:1_024])) or None


def _reason_values(text: str) -> Iterator[str]:
    for found in _REASON.finditer(text):
        protocol, params = found.groups()
        cause, place, phrase = _CAUSE.search(params), _LOCATION.search(params), _TEXT.search(params)
        said = "" if phrase is None else nobody_of(phrase.group(1) or phrase.group(2) or "")
        shown = f';text="{said}"' if said and said.isprintable() else ""
        if (cause is not None or shown) and not somebody_in(protocol):
            where = "" if place is None else f";location={place.group(1).upper()}"
            yield protocol + ("" if cause is None else f";cause={cause.group(1)}") + where + shown
