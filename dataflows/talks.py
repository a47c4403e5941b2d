"""Talk tracks in every language that the catalogue has.

An alert carries what to say in the customer's language, as far as that is known, with its figures filled in. A
representative may need another one: the customer speaks it after all, or the representative wants to know what is said.
Which script was filled in, and with what, is read off the text: so it is right for alerts of any age, and where the
catalogue has changed since, there is just what was told.
"""

import re
from string import Formatter

from detectors.remedies.catalogue import Catalogue, RemedyTerms
from detectors.remedies.causes import CAUSE_WORDS
from detectors.remedies.choice import FAIR_AMOUNT
from schemas.alerts import Cause, Remedy

_FIGURES = {"bad_calls": "[0-9]+", "bad_days": "[0-9]+", "follow_up_days": "[0-9]+"}
_WORDS = {str(kind): text for kind, text in CAUSE_WORDS.items()}


class TalkTracks:
    """Says in which language a talk track is, and the same in others.

    Args:
        catalogue: where the scripts are.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._scripts = {terms.id: _scripts(terms) for terms in catalogue.remedies}
        self._days = {terms.id: str(terms.follow_up_days) for terms in catalogue.remedies}

    def __call__(self, remedy: Remedy, cause: Cause) -> dict[str, str]:
        """Return what to say by language (primary subtag), the one that was told first; empty if it is not known."""
        scripts = self._scripts.get(remedy.remedy_id, {})
        told = next(((code, found) for code, script in scripts.items() if (found := _read(script, remedy.say))), None)
        if told is None:
            return {}
        code, figures = told
        known = {
            "cause": _WORDS.get(cause.kind, CAUSE_WORDS["unknown"]),
            "follow_up_days": self._days[remedy.remedy_id],
        }
        others = {other: _filled(script, other, {**known, **figures}) for other, script in scripts.items()}
        return {code: remedy.say} | {other: text for other, text in others.items() if text and other != code}


def _scripts(terms: RemedyTerms) -> dict[str, str]:
    return {"en": terms.say, **terms.say_in}


def _read(script: str, text: str) -> dict[str, str] | None:
    """Return what a script was filled in with, None if the text is not of it. The whole text stands under ''."""
    pattern, seen = "", set[str]()
    for literal, name, _, _ in Formatter().parse(script):
        pattern += re.escape(literal)
        if name is not None:
            pattern += f"(?P={name})" if name in seen else f"(?P<{name}>{_FIGURES.get(name, '.+?')})"
            seen.add(name)
    found = re.fullmatch(pattern, text, re.DOTALL)
    return None if found is None else {"": text, **found.groupdict()}


def _filled(script: str, code: str, figures: dict[str, str]) -> str:
    """Fill in a script; empty where a figure of it is not known."""
    if figures.get("credit") in FAIR_AMOUNT.values():
        figures = {**figures, "credit": FAIR_AMOUNT.get(code, FAIR_AMOUNT["en"])}
    names = {name for _, name, _, _ in Formatter().parse(script) if name is not None}
    return script.format(**figures) if names <= figures.keys() else ""
