"""The catalogue, the choice of remedies, and the likely cause."""

import itertools
import tomllib
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.remedies.catalogue import (
    BANDWIDTH_CAUSES,
    NO_CREDIT_CAUSES,
    PLACEHOLDERS,
    Catalogue,
    default_catalogue_text,
)
from detectors.remedies.causes import CAUSE_WORDS, CAUSES, LineReadings, likely_cause
from detectors.remedies.choice import Assumptions, Situation, Tried, choose, value_at_risk
from detectors.remedies.credits import Measured
from schemas.alerts import Cause, ChurnRisk, Dimension, PatternKind
from schemas.errors import ConfigError

DAY_MS = 86_400_000
NOW_MS = 1_750_000_000_000
DEFAULT = Catalogue.load(default_catalogue_text())
BY_ID = {terms.id: terms for terms in DEFAULT.remedies}

MINIMAL = """
version = 1
currency = "EUR"

[[remedy]]
id = "talk"
title = "Talk"
say = "The likely cause is {cause}; {bad_calls} calls on {bad_days} days; {credit}; {follow_up_days} days."
why = "It helps."
causes = ["unknown"]
uplift_prior = 0.1
follow_up_days = 3
"""


def situation(cause="access_line_fault", probability=0.1, **facts):
    known = {
        "fee_minor": 4000,
        "currency": "EUR",
        "segment": "business",
        "consent": ("call", "sms", "email"),
        "measured": Measured(6, 3, 900_000),
        **facts,
    }
    churn = ChurnRisk(probability, "high", 0.015, [], "m")
    return Situation(cause=Cause(cause, 0.8, []), churn=churn, now_ms=NOW_MS, **known)


def offered(**facts):
    return {remedy.remedy_id: remedy for remedy in choose(DEFAULT, situation(**facts), limit=99)}


# The catalogue


def test_the_default_catalogue_has_at_least_twelve_remedies_and_one_for_each_cause_that_is_real():
    assert len(DEFAULT.remedies) >= 12
    assert {cause for terms in DEFAULT.remedies for cause in terms.causes} == set(CAUSES) - {"measurement_fault"}


def test_the_default_catalogue_prices_every_remedy_in_the_same_currencies():
    priced = {frozenset(terms.cost_minor) for terms in DEFAULT.remedies if terms.cost_minor}
    assert len(priced) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('id = "talk"\n', ""), "catalogue.remedy[0] (no id): id must be given"),
        (('"talk"', '"Talk!"'), "catalogue.remedy[0] Talk!: id: Expected `str` matching regex"),
        (('["unknown"]', '["gremlins"]'), "catalogue.remedy[0] talk: causes: Invalid enum value 'gremlins'"),
        (('["unknown"]', "[]"), "catalogue.remedy[0] talk: causes: Expected `array` of length >= 1"),
        (("= 0.1", "= 1.1"), "catalogue.remedy[0] talk: uplift_prior: Expected `float` <= 1.0"),
        (("= 3", '= 3\ncolour = "red"'), "catalogue.remedy[0] talk: colour must not be there: no such key"),
        (("= 3", "= 3\ncost_minor = { EUR = -1 }"), "catalogue.remedy[0] talk: cost_minor: Expected `int` >= 0"),
        (("= 3", "= 3\ncost_minor = { GBP = 1 }"), "cost_minor must name the catalogue's currency EUR"),
        (
            ("= 3", "= 3\ncost_minor = { EUR = 1 }\napproval_limit_minor = { USD = 1 }"),
            "approval_limit_minor must name currencies of cost_minor only, found ['USD']",
        ),
        (
            ("= 3", "= 3\neligibility = { limit_days = 0, size = 4 }"),
            "catalogue.remedy[0] talk: eligibility: limit_days: Expected `int` >= 1",
        ),
        (
            ("= 3", '= 3\neligibility = "all"'),
            "catalogue.remedy[0] talk: eligibility: Expected `object`, got `str`",
        ),
        (
            ("= 3", "= 3\ncost_minor = { EUR = 1, GBP = 1 }\napproval_limit_minor = { EUR = 1 }"),
            "approval_limit_minor must name every currency of cost_minor, lacks ['GBP']",
        ),
        (("= 3", f"= 3\ncost_minor = {{ EUR = {10**16} }}"), "cost_minor: Expected `int` <= 1000000000000000"),
        (("= 3", "= 99999"), "follow_up_days: Expected `int` <= 3650"),
        (("= 3", "= 3\neligibility = { limit_count = 65 }"), "eligibility: limit_count: Expected `int` <= 64"),
        (('id = "talk"', 'id = "leave_alone"'), "catalogue: a remedy must not be called leave_alone"),
        (("{credit}", "{name}"), "say must name only bad_calls, bad_days, cause, credit, follow_up_days in braces"),
        (("{credit}", "{credit:>9}"), "found {credit:>9}"),
        (("{credit}", "{credit!r}"), "found {credit!r}"),
        (("{credit}", "{}"), "found {}"),
        (("{credit}", "{credit"), "say must hold whole {placeholders}"),
        (("= 3", '= 3\nsay_in = { de = "Wegen {cause}" }'), "say_in.de must name only"),
        (("= 3", '= 3\ncredit_rule = "gift@1"'), "credit_rule must be one of per_bad_day@1"),
        (("version = 1", "version = 2"), "catalogue: version: Expected `int` <= 1"),
        (('"EUR"', '"euro"'), "catalogue: currency: Expected `str` matching regex"),
        (("[[remedy]]", "[[cure]]"), "catalogue: remedy must be given"),
        (("[[remedy]]", "[remedy"), "catalogue: must be TOML"),
        (("version = 1", f"version = {5_000 * '['}{5_000 * ']'}"), "catalogue: must be TOML"),
    ],
)
def test_what_does_not_hold_in_a_catalogue_is_named_with_its_place(change, problem):
    with pytest.raises(ConfigError) as caught:
        Catalogue.load(MINIMAL.replace(*change))
    assert any(problem in each for each in caught.value.problems), caught.value.problems


def test_every_problem_of_a_catalogue_is_listed_at_once():
    broken = MINIMAL.replace('"Talk"', "5").replace("= 0.1", "= 7.0").replace('["unknown"]', '["gremlins"]')
    second = MINIMAL[MINIMAL.index("[[remedy]]") :].replace('why = "It helps."\n', "")
    with pytest.raises(ConfigError) as caught:
        Catalogue.load(broken + second)
    assert len(caught.value.problems) == 4


def test_two_remedies_of_one_id_are_refused():
    with pytest.raises(ConfigError, match="remedy ids must be unique, found 'talk' twice"):
        Catalogue.load(MINIMAL + MINIMAL[MINIMAL.index("[[remedy]]") :])


@pytest.mark.parametrize("cause", sorted(NO_CREDIT_CAUSES))
def test_a_catalogue_cannot_promise_credit_for_what_is_not_ours_to_pay(cause):
    broken = MINIMAL.replace('["unknown"]', f'["unknown", "{cause}"]').replace("= 3", '= 3\ncredit_rule = "per_call@1"')
    with pytest.raises(ConfigError, match=f"causes must not hold {cause} where there is a credit_rule"):
        Catalogue.load(broken)


@pytest.mark.parametrize("cause", sorted(set(CAUSES) - BANDWIDTH_CAUSES))
def test_a_catalogue_cannot_sell_bandwidth_for_another_cause(cause):
    broken = MINIMAL.replace('"unknown"', f'"{cause}"').replace("= 3", "= 3\nadds_bandwidth = true")
    with pytest.raises(ConfigError, match=f"causes must not hold {cause} where adds_bandwidth is true"):
        Catalogue.load(broken)


def test_the_comment_at_the_top_of_the_catalogue_names_every_key_and_placeholder():
    text = default_catalogue_text()
    head = text[: text.index("version = 1")]
    keys = {key for remedy in tomllib.loads(text)["remedy"] for key in (*remedy, *remedy.get("eligibility", {}))}
    assert all(key in head for key in keys)
    assert all(f"{{{name}}}" in head for name in PLACEHOLDERS)


# The rules that no gain outweighs


@pytest.mark.parametrize("cause", CAUSES)
def test_no_upsell_is_offered_while_the_fault_is_open(cause):
    facts = {"cause": cause, "probability": 0.9, "fee_minor": 10**6}
    assert not any(BY_ID[remedy_id].is_upsell for remedy_id in offered(**facts))


def test_bandwidth_is_offered_only_when_the_fault_is_over_and_capacity_or_codec_was_the_cause():
    selling = {cause for cause in CAUSES if "bandwidth_upgrade" in offered(cause=cause, fault_open=False)}
    assert selling == BANDWIDTH_CAUSES


@pytest.mark.parametrize("fault_open", [True, False])
def test_another_network_s_fault_earns_no_credit(fault_open):
    remedies = offered(cause="far_end", fault_open=fault_open)
    assert remedies
    assert all(remedy.credit is None for remedy in remedies.values())


def test_a_fault_of_our_measurement_has_nothing_to_offer():
    assert offered(cause="measurement_fault") == {}


def test_hand_made_terms_do_not_get_around_the_rules():
    base = BY_ID["proactive_information"]
    bandwidth = msgspec.structs.replace(base, id="more", adds_bandwidth=True)
    paid = msgspec.structs.replace(base, id="paid", credit_rule="per_call@1")
    catalogue = Catalogue("EUR", (bandwidth, paid))
    assert [remedy.remedy_id for remedy in choose(catalogue, situation("far_end"))] == []
    assert [remedy.remedy_id for remedy in choose(catalogue, situation("unknown"))] == ["paid"]


@pytest.mark.parametrize("consent", [None, (), ("letter",)])
def test_what_needs_consent_is_not_offered_without_it(consent):
    assert "retention_offer" in offered(consent=("email",))
    remedies = offered(consent=consent)
    assert remedies
    assert not any(BY_ID[remedy_id].eligibility.consent for remedy_id in remedies)


@pytest.mark.parametrize(("segment", "expected"), [("business", True), ("home", False), (None, False)])
def test_what_is_for_a_segment_is_offered_to_that_segment_only(segment, expected):
    assert ("backup_access" in offered(segment=segment)) is expected


def test_a_remedy_is_offered_no_more_often_than_its_terms_allow():
    visit = BY_ID["technician_visit"].eligibility
    assert (visit.limit_count, visit.limit_days) == (1, 60)
    inside, outside = NOW_MS - 60 * DAY_MS + 1, NOW_MS - 60 * DAY_MS
    assert "technician_visit" not in offered(tried=(Tried("technician_visit", inside),))
    assert "technician_visit" not in offered(tried=(Tried("technician_visit", inside, "declined"),))
    assert "technician_visit" in offered(tried=(Tried("technician_visit", outside, "accepted"),))
    assert "technician_visit" in offered(tried=(Tried("line_reprofile", inside),))
    twice = (Tried("line_reprofile", NOW_MS - DAY_MS), Tried("line_reprofile", NOW_MS))
    assert "line_reprofile" in offered(tried=twice[:1])
    assert "line_reprofile" not in offered(tried=twice)


def test_what_was_accepted_and_then_done_was_offered_once():
    done = tuple(Tried("sip_timer_fix", NOW_MS - at * DAY_MS, said) for at, said in ((3, "accepted"), (2, "fixed")))
    assert "sip_timer_fix" in offered(cause="sip_timer_or_nat", tried=done)
    again = (*done, Tried("sip_timer_fix", NOW_MS - DAY_MS, "fixed"))
    assert "sip_timer_fix" not in offered(cause="sip_timer_or_nat", tried=again)


def test_who_could_not_be_reached_has_been_offered_nothing():
    assert "technician_visit" in offered(tried=(Tried("technician_visit", NOW_MS - DAY_MS, "unreachable"),))


# Gain


def test_the_gain_is_risk_times_value_times_uplift_less_cost():
    remedy = offered()["technician_visit"]
    # 10% of 40.00 a month, half of it margin, for 24 months; 35% of that, less 90.00
    assert value_at_risk(0.1, 4000, "EUR") == 4800
    assert (remedy.cost_minor, remedy.expected_gain_minor) == (9000, 1680 - 9000)


def test_a_credit_is_part_of_the_cost():
    remedy = offered()["service_credit"]
    assert remedy.credit.amount_minor == 400
    assert remedy.credit.basis.startswith("per_bad_day@1: 3 days with bad calls x 40.00 EUR / 30")
    assert (remedy.cost_minor, remedy.expected_gain_minor) == (400, 480 - 400)


def test_assumptions_about_the_value_of_a_customer_are_arguments():
    worth = Assumptions(margin_ratio=0.25, remaining_months=12)
    assert value_at_risk(0.1, 4000, "EUR", worth) == 1200
    (line,) = [each for each in choose(DEFAULT, situation(), assumptions=worth) if each.remedy_id == "line_reprofile"]
    assert line.expected_gain_minor == 240 - 200


def test_a_learnt_uplift_takes_the_place_of_the_prior():
    favourite = choose(DEFAULT, situation(), uplift=lambda terms, _: float(terms.id == "line_reprofile"))[0]
    assert favourite.remedy_id == "line_reprofile"
    assert favourite.expected_gain_minor == 4800 - 200


@pytest.mark.parametrize(("fee", "currency"), [(None, "EUR"), (4000, None), (None, None)])
def test_without_fee_or_currency_nothing_is_at_risk_and_remedies_rank_by_their_cost(fee, currency):
    remedies = choose(DEFAULT, situation(fee_minor=fee, currency=currency), limit=99)
    assert value_at_risk(0.1, fee, currency) is None
    assert len(remedies) > 3
    assert all(remedy.credit is None for remedy in remedies)
    assert [remedy.expected_gain_minor for remedy in remedies] == [-remedy.cost_minor for remedy in remedies]
    assert [remedy.cost_minor for remedy in remedies] == sorted(remedy.cost_minor for remedy in remedies)


def test_without_the_fee_the_talk_track_promises_no_amount():
    remedy = offered(fee_minor=None)["service_credit"]
    assert "taking a fair amount off your next bill" in remedy.say


def test_a_credit_of_nothing_is_not_offered():
    assert "service_credit" not in offered(measured=Measured())
    assert "service_credit" not in offered(credited_minor=2000)
    assert "service_credit" in offered(credited_minor=1999)


def test_what_has_no_price_in_the_customer_s_currency_is_not_weighed_against_it():
    assert set(offered(currency="CHF")) == {"service_credit"}
    assert offered(currency="GBP")["line_reprofile"].cost_minor == 170


def test_a_negative_fee_puts_nothing_at_risk():
    assert value_at_risk(0.5, -100, "EUR") == 0


@pytest.mark.parametrize(
    "arguments", [{"margin_ratio": 1.5}, {"margin_ratio": float("nan")}, {"remaining_months": -1.0}]
)
def test_assumptions_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))} must be in"):
        Assumptions(**arguments)


situations = st.builds(
    situation,
    cause=st.sampled_from(CAUSES),
    probability=st.floats(0.0, 1.0),
    fee_minor=st.none() | st.integers(-(10**4), 10**9),
    currency=st.none() | st.sampled_from(["EUR", "USD", "CHF"]),
    fault_open=st.booleans(),
    segment=st.none() | st.sampled_from(["business", "home"]),
    consent=st.none() | st.just(("sms",)),
    measured=st.builds(Measured, st.integers(0, 99), st.integers(0, 40), st.integers(0, 10**9)),
)


@given(situations, st.integers(0, 8))
def test_remedies_are_ranked_by_whole_numbers_and_fit_the_cause(facts, limit):
    remedies = choose(DEFAULT, facts, limit=limit)
    assert len(remedies) <= limit
    gains = [remedy.expected_gain_minor for remedy in remedies]
    assert gains == sorted(gains, reverse=True)
    for remedy in remedies:
        assert facts.cause.kind in BY_ID[remedy.remedy_id].causes
        assert {type(remedy.cost_minor), type(remedy.expected_gain_minor)} == {int}
        assert remedy.cost_minor >= 0
        assert "{" not in remedy.say
    everything = choose(DEFAULT, facts, limit=99)
    assert everything[:limit] == remedies


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**7))
def test_value_at_risk_never_falls_with_the_probability(one, other, fee):
    low, high = sorted((one, other))
    assert value_at_risk(low, fee, "EUR") <= value_at_risk(high, fee, "EUR") <= fee * 12


# What is said


def test_the_talk_track_is_filled_in():
    (remedy,) = choose(Catalogue.load(MINIMAL), situation("unknown"))
    assert remedy.say == (
        "The likely cause is something that we have not found yet; 6 calls on 3 days; a fair amount; 3 days."
    )


def test_the_talk_track_is_in_the_customer_s_language_where_there_is_one():
    catalogue = Catalogue.load(MINIMAL.replace("= 3", '= 3\nsay_in = { de = "Bei {bad_calls} Anrufen" }'))
    spoken = {
        language: choose(catalogue, situation("unknown", language=language))[0].say[:3]
        for language in ("de", "de-AT", "DE", "fr", None)
    }
    assert spoken == {"de": "Bei", "de-AT": "Bei", "DE": "Bei", "fr": "The", None: "The"}


def test_what_costs_more_than_its_limit_needs_a_supervisor():
    note = "Needs a supervisor's approval: it costs more than 50.00 EUR."
    assert note in offered()["technician_visit"].why
    assert "supervisor" not in offered()["line_reprofile"].why
    assert "supervisor" not in offered()["service_credit"].why
    assert "more than 25.00 EUR" in offered(fee_minor=60_000)["service_credit"].why


# The likely cause

KINDS = get_args(PatternKind)
FIELDS = (
    "trunk",
    "sbc",
    "peer_id",
    "codec",
    "cpe_model",
    "cpe_firmware",
    "access_node",
    "region",
    "hour",
    "probe_id",
)
CLEAN = LineReadings(snr_margin_db=12.0, retrains=0.0, errored_seconds=0.0, utilization_ratio=0.2)


def test_every_cause_has_words_and_causes_are_a_closed_set():
    assert set(CAUSE_WORDS) == set(CAUSES)
    assert len(CAUSES) == len(set(CAUSES)) == 13


@pytest.mark.parametrize(
    ("kind", "dimension", "shared", "readings", "cause"),
    [
        ("duration_lock", None, False, None, "sip_timer_or_nat"),
        ("time_of_day", None, False, None, "access_congestion"),
        ("time_of_day", ("hour", "20"), False, None, "access_congestion"),
        ("route", None, False, None, "route_or_trunk"),
        ("route", ("trunk", "t1"), False, None, "route_or_trunk"),
        ("route", ("peer_id", "p9"), False, None, "far_end"),
        ("route", ("codec", "G729"), False, None, "codec_or_transcoding"),
        ("one_way_audio", None, False, None, "one_way_media"),
        ("quality", None, False, None, "voice_quality_loss"),
        ("setup_failure", None, False, None, "signalling_failure"),
        ("drop_rate", ("cpe_firmware", "x/2.1"), False, None, "cpe_or_firmware"),
        ("drop_rate", ("trunk", "t1"), False, None, "route_or_trunk"),
        ("drop_rate", ("peer_id", "p9"), False, None, "far_end"),
        ("quality", ("probe_id", "p1"), False, None, "measurement_fault"),
        ("quality", ("probe_id", "p1"), True, None, "measurement_fault"),
        ("drop_rate", ("access_node", "n1"), True, None, "shared_outage"),
        ("worsening", None, False, LineReadings(rx_power_dbm=-29.5), "access_line_fault"),
        ("drop_rate", None, False, LineReadings(retrains=6.0), "access_line_fault"),
        ("drop_rate", None, False, CLEAN, "unknown"),
        ("quality", None, False, LineReadings(utilization_ratio=0.93), "access_congestion"),
    ],
)
def test_the_likely_cause_is_the_one_that_the_evidence_speaks_for(kind, dimension, shared, readings, cause):
    found = likely_cause(kind, None if dimension is None else Dimension(*dimension), shared, readings)
    assert found.kind == cause


@pytest.mark.parametrize("kind", KINDS)
def test_trouble_that_is_shared_is_not_the_customer_s_line(kind):
    assert likely_cause(kind, None, True, LineReadings(snr_margin_db=2.0)).kind == "shared_outage"


def test_confidence_is_a_share_and_alternatives_are_other_causes_likeliest_first():
    readings = (None, CLEAN, LineReadings(registered=False, loss_ratio=0.05))
    fields = (None, *(Dimension(field, "x") for field in FIELDS), Dimension("moon", "full"))
    for kind, field, shared, line in itertools.product(KINDS, fields, (False, True), readings):
        cause = likely_cause(kind, field, shared, line)
        assert 1 / len(CAUSES) < cause.confidence <= 1.0
        assert {cause.kind, *cause.alternatives} <= set(CAUSES)
        assert cause.kind not in cause.alternatives
        assert len(cause.alternatives) == len(set(cause.alternatives))


def test_a_field_without_a_rule_changes_nothing():
    assert likely_cause("quality", Dimension("moon", "full"), False, None) == likely_cause("quality", None, False, None)


def test_clean_readings_make_a_line_fault_less_likely_and_bad_ones_more():
    shares = [
        likely_cause("worsening", None, False, line).confidence
        for line in (LineReadings(snr_margin_db=3.0), LineReadings())
    ]
    assert shares[0] > shares[1]
    assert likely_cause("worsening", None, False, CLEAN).kind != "access_line_fault"
