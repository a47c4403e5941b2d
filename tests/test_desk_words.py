"""The desk's languages: complete, in step with each other and with what uses them; money and shares as written."""

import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest
from desk_kit import alert, told
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Band, PatternKind, Severity
from sinks.desk.actions import WHATS
from sinks.desk.words import ENDINGS, LANGUAGES, Language, catalogue, chosen_language

SINKS = Path(__file__).parent.parent / "sinks" / "desk"
ONLY_ELSEWHERE = "sentence."
"""The sentences of English are the alerts' own."""


def placeholders(text):
    forms = [text] if isinstance(text, str) else list(text.values())
    return {name for form in forms for _, name, _, _ in Formatter().parse(form) if name}


@pytest.mark.parametrize("code", [code for code in LANGUAGES if code != "en"])
def test_every_language_says_all_that_english_says_with_the_same_blanks(code):
    english, other = catalogue("en"), catalogue(code)
    assert {name for name in other if not name.startswith(ONLY_ELSEWHERE)} == set(english)
    assert {name for name in english if placeholders(english[name]) != placeholders(other[name])} == set()
    assert {name.partition(".")[2] for name in other if name.startswith(ONLY_ELSEWHERE)} == set(get_args(PatternKind))


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_plural_has_the_forms_of_its_language(code):
    language = Language(code)
    needed = {language.locale.plural_form(n) for n in range(200)}
    plurals = [text for text in language.texts.values() if not isinstance(text, str)]
    assert plurals
    assert all(set(text) == needed for text in plurals)


def test_every_text_that_is_asked_for_is_there():
    sources = [path.read_text() for path in [*SINKS.glob("templates/*.html"), *SINKS.glob("*.py")]]
    named = {name for text in sources for name in re.findall(r'\bt(?:imed)?\("([a-z_]+\.[a-z_0-9]+)"[,)]', text)}
    assert len(named) > 80
    assert named <= set(catalogue("en"))
    raised = {code for text in sources for code in re.findall(r'HTTPException\(\d+, "([a-z_]+)"', text)}
    assert len(raised) > 10
    assert {f"error.{code}" for code in raised} <= set(catalogue("en"))


def test_every_word_of_a_closed_vocabulary_is_in_the_catalogue():
    texts = catalogue("en")
    for section, names in {
        "kind": get_args(PatternKind),
        "severity": get_args(Severity),
        "band": get_args(Band),
        "did": WHATS,
        "action": WHATS,
        "ending": ENDINGS,
    }.items():
        assert {f"{section}.{name}" for name in names} <= set(texts)


@pytest.mark.parametrize(
    ("amount", "currency", "english", "german", "chinese"),
    [
        (123_450, "EUR", "€1,234.50", "1.234,50\xa0€", "€1,234.50"),
        (300, "JPY", "¥300", "300\xa0¥", "JP¥300"),
        (1_005, "KWD", "KWD\xa01.005", "1,005\xa0KWD", "KWD\xa01.005"),
        (-9, "EUR", "-€0.09", "-0,09\xa0€", "-€0.09"),
        (0, "EUR", "€0.00", "0,00\xa0€", "€0.00"),
        (None, "EUR", "not known", "nicht bekannt", "未知"),
        (5, None, "not known", "nicht bekannt", "未知"),
    ],
)
def test_money_is_written_in_its_own_minor_unit(amount, currency, english, german, chinese):
    assert [Language(code).money(amount, currency) for code in ("en", "de", "zh")] == [english, german, chinese]


@given(st.integers(-(10**15), 10**15), st.sampled_from(["EUR", "JPY", "KWD", "CLF"]), st.sampled_from(list(LANGUAGES)))
def test_no_digit_of_an_amount_is_lost(amount, currency, code):
    digits = re.sub(r"\D", "", Language(code).money(amount, currency))
    assert int(digits) == abs(amount)


def test_small_ratios_are_not_written_as_nothing():
    english, german = Language("en"), Language("de")
    ratios = (0.0, 0.0004, 0.0154, 0.03, 0.8, 1.0)
    assert [english.percent(ratio) for ratio in ratios] == ["0%", "<0.1%", "1.5%", "3%", "80%", "100%"]
    assert german.percent(0.0154) == "1,5\xa0%"
    assert [english.duration(each) for each in (0, 31_938, 902_000, 3_900_000)] == [
        "0 s",
        "31.9 s",
        "15 min 02 s",
        "1 h 05 min",
    ]


@pytest.mark.parametrize(
    ("cookie", "accepted", "code"),
    [
        ("", "", "en"),
        ("", "de-CH,de;q=0.9,en;q=0.8", "de"),
        ("", "fr,zh-TW;q=0.3,de;q=0.7", "de"),
        ("", "fr;q=x,*,;;q", "en"),
        ("", "de;q=\xb2,zh;q=1.2.3,de;q=9,zh;q=.", "en"),
        ("zh", "de", "zh"),
        ("xx", "de", "de"),
        ("", "de;q=0.1," * 50, "de"),
    ],
)
def test_the_reader_gets_the_language_asked_for(cookie, accepted, code):
    assert chosen_language(cookie, accepted) == code


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_page_is_written_in_every_language(desk, code):
    desk.store.put([told(alert())])
    chosen = desk.client.get(f"/language/{code}", params={"back": "/network"}, follow_redirects=False)
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/network")
    texts = Language(code)
    for path, name in {
        "/": "feed.lead",
        "/network": "network.lead",
        "/audit": "audit.lead",
        "/keys": "keys.lead",
    }.items():
        page = desk.client.get(path).text
        assert f'<html lang="{code}">' in page
        assert texts.t(name) in page.replace("&#39;", "'")
    card = desk.client.get("/cases/al_1").text
    assert {"en": "4 of 5 calls.", "de": "4 Ihrer letzten 5 Gespräche seit"}.get(code, "5 通电话中有 4 通") in card
    assert desk.client.get("/language/xx").status_code == 404
