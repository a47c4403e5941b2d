"""What looks like an identity or a secret, blanked in what people read: log lines, errors, what `check` shows."""

import re

BLANK = "(not shown)"

_NAME = (
    r"(?:secret|passw|pwd|token|credential|(?:api|routing|access|private)[_-]?key|authori[sz]ation|cookie|signature)"
)
SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
"""Finds the name of what is a secret, of whatever it is the name."""

_HIDDEN = re.compile(
    rf"""
    -----BEGIN\ [A-Z\ ]+-----.*?(?:-----END\ [A-Z\ ]+-----|\Z)       # a key in PEM (RFC 7468)
    | (?P<query>\bhttps?://[^\s?"'<>]{{0,300}}\?)[^\s"'<>]+              # what an address asks
    | (?P<field>{_NAME}[\w.-]{{0,40}}["']?(?:\s*=\s*|["']\s*:\s*)b?)  # a field, a variable, a JSON member
      (?:"[^"]*"|'[^']*'|[^\s"'&;]+)
    | (?P<header>\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{{0,40}}{_NAME}[\w-]{{0,40}})\s*:\s*)
      (?!["'\s])[^\r\n"']+
    | \b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{{8,}}  # an Authorization header's value
    | \beyJ[\w-]+\.[\w-]+\.[\w-]*                 # a JSON Web Token (RFC 7519)
    | \bwh(?:sec|sk)_[A-Za-z0-9+/=]+               # a webhook's secret
    | \b(?:sips?|tel|im|pres|xmpp):[^\s"'<>]+      # SIP and telephone URIs (RFC 3261, RFC 3966)
    | [+\uff0b]\d[\d\s().-]{{5,}}\d                 # international numbers (ITU-T E.123)
    | \b00[1-9]\d{{7,13}}\b(?!\.) | \(0\d{{1,5}}\)\s?\d[\d\s-]{{3,}}\d  # as dialled, and national ones (E.123)
    | (?<=://)[^/\s@]+@                            # user and password in an address
    | [\w.+-]{{1,64}}@[A-Za-z][\w-]*(?:\.[\w-]+)+    # an address of e-mail or SIP
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def redacted(text: str) -> str:
    """Return a text without what looks like an identity or a secret; the name that it goes by stays."""
    return _HIDDEN.sub(_blanked, text)


def _blanked(found: re.Match[str]) -> str:
    return f"{found['query'] or found['field'] or found['header'] or ''}{BLANK}"
