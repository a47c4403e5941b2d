"""A talk track is the same in every language that the catalogue has, whichever it was told in."""

import msgspec
import pytest

from dataflows.talks import TalkTracks
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.remedies.causes import CAUSE_WORDS
from detectors.remedies.choice import FAIR_AMOUNT
from schemas.alerts import Cause, Remedy

CATALOGUE = Catalogue.load(default_catalogue_text())
CAUSE = Cause("sip_timer_or_nat", 0.8, [])
FIGURES = {"bad_calls": 4, "bad_days": 3, "cause": CAUSE_WORDS["sip_timer_or_nat"]}


def said(terms, code, credit):
    script = {"en": terms.say, **terms.say_in}[code]
    return script.format(**FIGURES, credit=credit, follow_up_days=terms.follow_up_days)


@pytest.mark.parametrize("code", ["en", "de", "zh"])
@pytest.mark.parametrize("credit", ["EUR 5.73", None])
def test_what_was_told_in_one_language_is_said_in_the_others(code, credit):
    talks, whole = TalkTracks(CATALOGUE), 0
    for terms in CATALOGUE.remedies:
        amounts = {other: FAIR_AMOUNT[other] if credit is None else credit for other in FAIR_AMOUNT}
        told = said(terms, code, amounts[code])
        found = talks(Remedy(terms.id, terms.title, told, "", 0, 0), CAUSE)
        assert next(iter(found.items())) == (code, told)
        for other, text in found.items():
            assert text == said(terms, other, amounts[other])
        whole += found.keys() == {"en", *terms.say_in}
    # A figure that one script leaves out cannot be read off it.
    assert whole > len(CATALOGUE.remedies) / 2


@pytest.mark.parametrize("say", ["Quite another text.", "", "{credit}"])
def test_what_no_script_says_is_left_alone(say):
    talks = TalkTracks(CATALOGUE)
    for terms in CATALOGUE.remedies:
        assert talks(Remedy(terms.id, terms.title, say, "", 0, 0), CAUSE) == {}
    assert talks(Remedy("unknown", "", say, "", 0, 0), CAUSE) == {}


def test_a_text_longer_than_any_script_is_judged_at_once():
    terms = msgspec.structs.replace(CATALOGUE.remedies[0], say="{cause} and {cause} and {credit}.", say_in={})
    talks = TalkTracks(msgspec.structs.replace(CATALOGUE, remedies=(terms,)))
    assert talks(Remedy(terms.id, "", "a and " * 300, "", 0, 0), CAUSE) == {}
