"""What the business knows of a customer, and the features that follow: known ones only, never look ahead."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from state_kit import take, whole

from detectors.churn.features import FEATURE_MAX, FEATURES
from detectors.churn.relations import BACK_MS, CONTACTS_KEPT, REMEDIES_KEPT, Relations
from schemas.events import Contact, Outcome, Profile, Usage

DAY_MS = 86_400_000
MONDAY_MS = 1_767_571_200_000
ANA, BEN = 11, 12


def day(number):
    return MONDAY_MS + round(number * DAY_MS)


def relations():
    """What is known of one customer after a few events."""
    known = Relations(100)
    known.profile(ANA, Profile("ana", day(0), plan="home", monthly_fee_minor=2_999, currency="EUR", tenure_days=400))
    known.usage(ANA, Usage("ana", day(1), period_days=30, minutes=300))
    known.contact(ANA, Contact("ana", day(2), channel="phone", topic="quality"))
    known.case_opened(ANA, day(3))
    known.outcome(ANA, Outcome("al_x", day(4), "accepted", remedy_id="swap"))
    return known


# Taking over


def test_nothing_is_known_of_a_stranger_and_asking_changes_nothing():
    known = Relations(100)
    assert known.of(ANA).monthly_fee_minor is None
    assert known.of(ANA).features(day(9)) == {
        "contacts_quality_30d": 0.0,
        "contacts_billing_30d": 0.0,
        "contacts_cancel_90d": 0.0,
        "offers_accepted_180d": 0.0,
        "offers_declined_180d": 0.0,
        "cases_30d": 0.0,
        "cases_solved_30d": 0.0,
    }
    assert len(known) == 0


def test_a_profile_keeps_what_it_does_not_say():
    known = relations()
    known.profile(ANA, Profile("ana", day(5), plan="office", consent=["email"]))
    relation = known.of(ANA)
    assert (relation.plan, relation.monthly_fee_minor, relation.consent) == ("office", 2_999, ["email"])


def test_an_older_profile_changes_nothing():
    known = relations()
    known.profile(ANA, Profile("ana", day(-1), plan="ancient", tenure_days=1))
    assert (known.of(ANA).plan, known.of(ANA).tenure_days) == ("home", 400)


def test_what_is_told_of_one_customer_is_not_told_of_another():
    known = relations()
    assert known.of(BEN).features(day(9)) == Relations(100).of(BEN).features(day(9))
    known.contact(BEN, Contact("ben", day(2), topic="cancel"))
    assert len(known.of(ANA).contacts) == 1


def test_usage_is_a_day_s_and_is_compared_with_the_period_before():
    known = relations()
    assert known.of(ANA).features(day(2))["minutes_per_day"] == 10
    assert "usage_change_ratio" not in known.of(ANA).features(day(2))
    known.usage(ANA, Usage("ana", day(31), period_days=30, minutes=150))
    assert known.of(ANA).features(day(32))["usage_change_ratio"] == 0.5


@pytest.mark.parametrize(
    "usage", [Usage("ana", 0, minutes=5), Usage("ana", 0, period_days=0, minutes=5), Usage("ana", 0)]
)
def test_usage_without_a_period_says_nothing(usage):
    known = relations()
    known.usage(ANA, usage)
    assert known.of(ANA).minutes_per_day == 10


def test_no_usage_before_makes_no_ratio():
    known = Relations(100)
    for minutes in (0, 30):
        known.usage(ANA, Usage("ana", day(0), period_days=30, minutes=minutes))
    assert "usage_change_ratio" not in known.of(ANA).features(day(1))


def test_a_contact_without_a_topic_is_about_something_else():
    known = Relations(100)
    known.contact(ANA, Contact("ana", day(1)))
    assert known.of(ANA).contacts == ((day(1), "other"),)


@given(st.integers(0, 2 * REMEDIES_KEPT))
def test_the_newest_contacts_cases_and_offers_are_kept_and_no_more(count):
    known = Relations(100)
    for number in range(count):
        known.contact(ANA, Contact("ana", day(number), topic="billing"))
        known.case_opened(ANA, day(number))
        known.case_solved(ANA, day(number))
        known.outcome(ANA, Outcome("al", day(number), "declined", remedy_id="swap"))
    all_days = [day(number) for number in range(count)]
    relation = known.of(ANA)
    newest = tuple(all_days[-CONTACTS_KEPT:])
    assert tuple(at for at, _ in relation.contacts) == relation.cases == relation.solved == newest
    assert [at for at, _, _ in relation.remedies] == all_days[-REMEDIES_KEPT:]


def test_what_is_told_twice_or_out_of_order_is_told_once_and_in_order():
    known = Relations(100)
    for number in (5, 2, 5, 9, 2):
        known.contact(ANA, Contact("ana", day(number), topic="cancel"))
        known.outcome(ANA, Outcome("al", day(number), "declined", remedy_id="swap"))
        known.usage(ANA, Usage("ana", day(number), period_days=30, minutes=30 * number, bill_minor=number))
    relation = known.of(ANA)
    assert [at for at, _ in relation.contacts] == [at for at, _, _ in relation.remedies] == [day(2), day(5), day(9)]
    assert (relation.minutes_per_day, relation.bill_minor) == (9, 9)
    assert relation.features(day(10))["days_since_contact"] == 1


def test_who_left_is_gone_until_calls_are_a_customer_s_again():
    known = Relations(100)
    assert not known.of(ANA).is_gone(None)
    known.left(ANA, day(10))
    known.left(ANA, day(8))
    relation = known.of(ANA)
    assert relation.left_ms == day(10)
    assert relation.is_gone(None)
    assert relation.is_gone(day(11))
    assert not relation.is_gone(day(10) + BACK_MS)


@pytest.mark.parametrize(("currency", "fee"), [("EUR", 30.0), ("JPY", 3000.0), ("KWD", 3.0), (None, 30.0)])
def test_the_fee_is_in_the_units_of_its_currency(currency, fee):
    known = Relations(100)
    known.profile(ANA, Profile("ana", day(0), monthly_fee_minor=3_000, currency=currency))
    assert known.of(ANA).features(day(0))["monthly_fee"] == fee


# Features


def test_features_are_those_of_the_time_of_asking():
    features = relations().of(ANA).features(day(10))
    assert features["tenure_days"] == 410
    assert features["monthly_fee"] == 29.99
    assert (features["cases_30d"], features["days_since_case"]) == (1, 7)


def test_cases_solved_count_for_a_month():
    known = Relations(100)
    known.case_solved(ANA, day(0))
    assert [known.of(ANA).features(day(at))["cases_solved_30d"] for at in (30, 31)] == [1, 0]


@pytest.mark.parametrize(
    ("topic", "feature", "days"),
    [
        ("quality", "contacts_quality_30d", 30),
        ("billing", "contacts_billing_30d", 30),
        ("cancel", "contacts_cancel_90d", 90),
    ],
)
def test_contacts_count_for_as_long_as_their_feature_says(topic, feature, days):
    known = Relations(100)
    known.contact(ANA, Contact("ana", day(0), topic=topic))
    assert known.of(ANA).features(day(days))[feature] == 1
    assert known.of(ANA).features(day(days) + 1)[feature] == 0
    others = {"contacts_quality_30d", "contacts_billing_30d", "contacts_cancel_90d"} - {feature}
    assert all(known.of(ANA).features(day(1))[other] == 0 for other in others)


@given(
    st.builds(
        Profile,
        st.just("ana"),
        st.integers(0, 2**40),
        monthly_fee_minor=st.none() | st.integers(-(2**53), 2**53),
        tenure_days=st.none() | st.integers(0, 2**53),
        contract_end_ms=st.none() | st.integers(0, 2**47),
    ),
    st.lists(st.just(0.0) | st.floats(0.01, 1e6) | st.none(), max_size=3),
    st.integers(0, 2**45),
)
def test_every_feature_is_one_the_model_knows_and_finite(profile, minutes, now_ms):
    known = Relations(100)
    known.profile(ANA, profile)
    for value in minutes:
        known.usage(ANA, Usage("ana", 0, period_days=30, minutes=value))
    known.case_opened(ANA, now_ms)
    features = known.of(ANA).features(now_ms)
    assert set(features) <= set(FEATURES)
    assert all(math.isfinite(value) for value in features.values())
    known_tenure = profile.tenure_days is not None and profile.tenure_days < FEATURE_MAX / 2
    assert ("tenure_days" in features) >= known_tenure


# Forgetting and restarting


def test_a_forgotten_customer_is_a_stranger_and_others_are_not():
    known = relations()
    known.contact(BEN, Contact("ben", day(1), topic="cancel"))
    known.forget(ANA)
    known.forget(ANA)
    assert known.of(ANA).features(day(9)) == Relations(100).of(ANA).features(day(9))
    assert len(known) == 1


def test_relations_survive_a_restart():
    known = relations()
    other = Relations(100)
    other.case_opened(BEN, day(1))
    take(other, whole(known))
    assert whole(other) == whole(known)
    assert other.of(ANA).features(day(9)) == known.of(ANA).features(day(9))
    assert other.of(BEN).cases == ()


def test_a_snapshot_is_a_copy():
    known = relations()
    state = whole(known)
    known.contact(ANA, Contact("ana", day(5), topic="cancel"))
    known.profile(ANA, Profile("ana", day(6), plan="office"))
    other = take(Relations(100), state)
    assert (other.of(ANA).plan, len(other.of(ANA).contacts)) == ("home", 1)
