"""Numbers, times and closed vocabularies as a reader of one language sees them.

Texts stand in catalogues, one TOML file a language under `languages/`; a text is named `section.name`. Forms for a
number are a table of the plural categories of Unicode's CLDR. Dates, numbers and money follow the CLDR too (Babel).
"""

import copy
import datetime as dt
import re
import tomllib
import urllib.parse
from collections.abc import Mapping
from decimal import Decimal
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_datetime, format_skeleton
from babel.numbers import format_decimal

from schemas.alerts import rfc3339

LANGUAGES: Final[Mapping[str, str]] = {"en": "English", "de": "Deutsch", "zh": "中文"}
"""The languages that there are catalogues for, each by its own name; the first is the one for everybody else."""

ENDINGS: Final[Mapping[str, str]] = {
    "dropped": "cut",
    "probably_dropped": "maybe",
    "ended_at_timer": "cut",
    "one_way_audio": "sound",
    "poor_quality": "sound",
    "setup_failure": "setup",
    "called_again": "again",
    "normal": "fine",
}
"""How a call ended, and the mark that it gets."""

_WEIGHT: Final = re.compile(r"[01](\.[0-9]{0,3})?")
"""A weight of Accept-Language (RFC 9110, section 12.4.2)."""

_EXPONENTS: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        (
            *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
            *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
# ISO 4217, table A.1: the currencies whose minor unit is not a hundredth. (The CLDR's digits are of prices in shops.)


class Language:
    """One language's texts and ways of writing.

    Args:
        code: one of `LANGUAGES`.
        timezone: of days and hours that are told of customers (IANA).
    """

    def __init__(self, code: str, timezone: str = "UTC") -> None:
        self.code = code
        self.timezone = timezone
        self.locale = Locale(code)
        self.texts = catalogue(code)

    def t(self, name: str, n: int | None = None, **values: Any) -> str:
        """Return a text.

        Args:
            name: `section.name`.
            n: the number whose plural form is wanted; stands in the text as `{n}`, grouped.
            values: what stands for the text's other placeholders.
        """
        text = self.texts[name]
        if not isinstance(text, str):
            text = text[self.locale.plural_form(n or 0)] if self.locale.plural_form(n or 0) in text else text["other"]
        if n is not None:
            values["n"] = self.number(n)
        return text.format(**values) if values else text

    def word(self, section: str, name: str) -> str:
        """Return a word of a vocabulary; one that the catalogue does not have, as plain text."""
        text = self.texts.get(f"{section}.{name}")
        return text if isinstance(text, str) else plain(name)

    def has(self, name: str) -> bool:
        """Return whether the catalogue has a text."""
        return name in self.texts

    def number(self, value: float) -> str:
        """Write a number: `12,345`, `4.3`."""
        return format_decimal(value, "#,##0.##", locale=self.locale)

    def decimal(self, value: float) -> str:
        """Write a number with one digit behind the point."""
        return format_decimal(value, "#,##0.0", locale=self.locale)

    def percent(self, ratio: float) -> str:
        """Write a ratio as a percentage: `80%`, `1.5%`; what is above 0 is never written as 0."""
        if 0.0 < ratio < 0.001:
            return f"<{self._percent(0.1, 1)}"
        value = 100.0 * ratio
        return self._percent(value, 0 if value >= 10.0 or value == round(value) else 1)

    def _percent(self, value: float, digits: int) -> str:
        pattern = copy.copy(self.locale.percent_formats[None])
        pattern.frac_prec = (digits, digits)
        return str(pattern.apply(Decimal(repr(value)).scaleb(-2), self.locale))

    def money(self, amount_minor: int | None, currency: str | None) -> str:
        """Write an amount with its currency; in words if it is not known."""
        if amount_minor is None or currency is None:
            return self.t("card.unknown_value")
        exponent = _EXPONENTS.get(currency, 2)
        pattern = copy.copy(self.locale.currency_formats["standard"])
        pattern.frac_prec = (exponent, exponent)
        amount = Decimal(amount_minor).scaleb(-exponent)
        text = str(pattern.apply(amount, self.locale, currency=currency, currency_digits=False))
        # A currency that is written in letters stands apart from the number (CLDR, alphaNextToNumber).
        return re.sub(r"([A-Za-z])(?=[0-9])", "\\1\N{NO-BREAK SPACE}", text)

    def duration(self, duration_ms: int) -> str:
        """Write how long a call lasted: `31.9 s`, `15 min 02 s`, `1 h 05 min`."""
        if duration_ms < 60_000:
            return f"{self.decimal(duration_ms / 1_000)} s" if duration_ms else "0 s"
        seconds = duration_ms // 1_000
        if seconds < 3_600:
            return f"{seconds // 60} min {seconds % 60:02d} s"
        return f"{seconds // 3_600} h {seconds % 3_600 // 60:02d} min"

    def moment(self, time_ms: int) -> str:
        """Write a time for a reader without a script, in UTC."""
        moment = dt.datetime.fromtimestamp(time_ms // 1000, tz=dt.UTC)
        return f"{format_datetime(moment, 'medium', locale=self.locale)} UTC"

    def day(self, time_ms: int) -> str:
        """Write the day of a time where customers are: `Monday, January 5`."""
        moment = dt.datetime.fromtimestamp(time_ms // 1000, tz=ZoneInfo(self.timezone))
        return format_skeleton("MMMMEEEEd", moment, locale=self.locale)


@cache
def catalogue(code: str) -> Mapping[str, str | Mapping[str, str]]:
    """Return all texts of a language: `section.name` to the text, or to its plural forms."""
    path = resources.files("sinks.desk").joinpath("languages", f"{code}.toml")
    sections = tomllib.loads(path.read_text(encoding="utf-8"))
    return {f"{section}.{name}": text for section, texts in sections.items() for name, text in texts.items()}


@cache
def language(code: str, timezone: str = "UTC") -> Language:
    """Return a language by its code, for customers of a time zone."""
    return Language(code, timezone)


@lru_cache(maxsize=256)
def chosen_language(cookie: str, accepted: str) -> str:
    """Choose a language: the one asked for by a cookie, else the first that the browser accepts and we have.

    Args:
        cookie: a code, or anything.
        accepted: the Accept-Language header (RFC 9110, section 12.5.4).
    """
    if cookie in LANGUAGES:
        return cookie
    wishes: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted.split(",")[:16]):
        tag, _, weight = part.strip().partition(";q=")
        code = tag.strip().lower().partition("-")[0]
        if code in LANGUAGES and (not weight or _WEIGHT.fullmatch(weight)):
            wishes.append((-float(weight or 1.0), place, code))
    return min(wishes)[2] if wishes else next(iter(LANGUAGES))


def plain(word: str) -> str:
    """Return a word of a vocabulary that is not listed as text: `far_end` is "Far end"."""
    text = word.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def iso(time_ms: int) -> str:
    """Write a time for the `datetime` attribute."""
    return rfc3339(time_ms)


def case_path(alert_id: str) -> str:
    """Return the path of a case's page."""
    return f"/cases/{urllib.parse.quote(alert_id, safe='')}"
