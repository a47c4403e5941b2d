"""From a card to what came of it, through the engine: orders, repairs that calls verify, limits, broken input."""

import math

import msgspec
import orjson
import pytest
from engine_kit import CATALOGUE, DAY_MS, HOUR_MS, MONDAY_MS, batch, call, engine, told

from detectors.engine import RiskEngine
from detectors.remedies.chooser import Chooser
from detectors.remedies.ledger import Decision
from detectors.remedies.uplift import ALONE
from detectors.settings import Business, Settings
from schemas.alerts import Remedy
from schemas.errors import ConfigError

WHO = "ana"
PROFILE = {
    "type": "profile", "customer_id": WHO, "at_ms": MONDAY_MS, "monthly_fee_minor": 3000, "currency": "EUR",
    "tenure_days": 400, "segment": "consumer", "consent": ["call", "sms", "email"], "language": "de-DE",
}  # fmt: skip


def calls(first_day, count, *, dropped, hours=2, customer=WHO):
    start_ms = MONDAY_MS + int(first_day * DAY_MS) + 8 * HOUR_MS
    return [call(customer, start_ms + index * hours * HOUR_MS, dropped=dropped) for index in range(count)]


def outcome(alert_id, at_ms, result, remedy_id=None, **more):
    return {
        "type": "outcome", "alert_id": alert_id, "at_ms": at_ms, "result": result, "remedy_id": remedy_id, **more,
    }  # fmt: skip


def business(**facts):
    return RiskEngine(Settings("test", business=Business(**facts)), CATALOGUE)


def opened(one):
    """Bring a customer's trouble to a case; return the alert."""
    envelopes = told(one.apply(batch([PROFILE, *calls(0, 12, dropped=False), *calls(2, 6, dropped=True)])))
    alert = next(each["data"] for each in envelopes if each["type"] == "stayline.alert.opened")
    assert alert["remedies"]
    return alert


@pytest.fixture
def running():
    one = engine()
    return one, opened(one)


VISIT = "technician_visit"
KNOWN = {terms.id for terms in CATALOGUE.remedies}
REPAIRS = {terms.id for terms in CATALOGUE.remedies if terms.is_repair}


def trouble(customer, first_day):
    """A profile, a healthy day, and a bad one."""
    profile = PROFILE | {"customer_id": customer, "at_ms": MONDAY_MS + first_day * DAY_MS}
    healthy = calls(first_day, 12, dropped=False, customer=customer)
    return [profile, *healthy, *calls(first_day + 2, 6, dropped=True, customer=customer)]


def first_alert(one, customer, first_day):
    """Bring a customer to a case; return its first alert."""
    told_so = [each["data"] for each in apply(one, *trouble(customer, first_day)) if "alert.opened" in each["type"]]
    return next(each for each in told_so if each["customer_id"] == customer)


def now_of(alert):
    return alert["detected_ms"] + 20 * HOUR_MS


def apply(one, *events):
    return told(one.apply(batch(sorted(events, key=lambda each: each.get("end_ms", each.get("at_ms"))))))


# The card


def test_a_card_shows_what_is_at_stake_how_it_was_computed_and_which_calls_justify_the_credit(running):
    _, alert = running
    assert "30.00 EUR a month x 50% margin (assumed) x 24 months (assumed)" in alert["value_basis"]
    credit = next(one["credit"] for one in alert["remedies"] if one["remedy_id"] == "service_credit")
    assert credit["calls"] == [one["call_id"] for one in alert["calls"]]
    assert credit["basis"].startswith("per_bad_day@1: ")
    assert alert["choice"]["action"] in {one["remedy_id"] for one in alert["remedies"]} | {"leave_alone"}
    assert 0 < alert["choice"]["propensity"] <= 1


def test_an_alert_shows_the_good_calls_since_the_trouble_began_beside_the_bad_ones(running):
    one, alert = running
    good, bad = calls(2.6, 4, dropped=False, hours=1), calls(3, 4, dropped=True)
    later = apply(one, *good, *bad)[-1]["data"]
    assert later["alert_id"] == alert["alert_id"]
    assert [each["end_ms"] for each in later["good_calls"]] == [each["end_ms"] for each in good]
    assert {each["end_ms"] for each in bad} <= {each["end_ms"] for each in later["calls"]}


def test_the_talk_track_is_in_the_language_of_the_profile(running):
    _, alert = running
    said = next(one["say"] for one in alert["remedies"] if one["remedy_id"] == "service_credit")
    assert said.startswith("Für die Tage")


def test_the_choice_of_a_case_stays_while_nothing_failed(running):
    one, alert = running
    later = apply(one, *calls(3, 8, dropped=True))
    assert later
    assert {each["data"]["choice"]["action"] for each in later} == {alert["choice"]["action"]}


@pytest.mark.parametrize(
    ("gain_minor", "held_out", "said"),
    [
        (0, False, "No offer is expected to gain more than it costs"),
        (100, False, "offer nothing: drawn with a probability of 3%"),
        (100, True, "in the comparison group"),
    ],
)
def test_why_nothing_is_offered_agrees_with_the_gains_beside_it(gain_minor, held_out, said):
    decision = Decision("al_1", 1, 0, "unknown", "", ALONE, 0.03, [ALONE], [1.0], [0], 0.1, 1.0, held_out=held_out)
    offer = Remedy("service_credit", "Credit", "", "", 10, gain_minor)
    assert said in Chooser(Settings("test"), CATALOGUE)._told(decision, [offer]).text


# Orders


def test_an_accepted_remedy_is_told_as_an_order_with_its_credit(running):
    one, alert = running
    (told_again,) = apply(one, outcome(alert["alert_id"], now_of(alert), "accepted", "service_credit"))
    order = told_again["data"]["order"]
    assert told_again["type"] == "stayline.alert.updated"
    assert (order["order_id"], order["remedy_id"]) == (f"{alert['alert_id']}-service_credit", "service_credit")
    assert order["credit"]["amount_minor"] == order["cost_minor"] > 0
    assert order["credit"]["calls"]


def test_what_costs_more_than_its_limit_is_ordered_for_approval(running):
    one, alert = running
    (told_again,) = apply(one, outcome(alert["alert_id"], now_of(alert), "accepted", "technician_visit"))
    assert told_again["data"]["order"]["needs_approval"] is True


@pytest.mark.parametrize("result", ["taken", "released", "snoozed"])
def test_who_has_a_case_teaches_nothing(running, result):
    one, alert = running
    before = one.memory.advisor.chooser.ledger.of(alert["alert_id"]).result
    assert apply(one, outcome(alert["alert_id"], now_of(alert), result)) == []
    assert one.memory.advisor.chooser.ledger.of(alert["alert_id"]).result is before is None
    assert one.counts.dead_lettered == 0


@pytest.mark.parametrize("result", ["declined", "unreachable", "not_needed"])
def test_nothing_is_ordered_that_was_not_accepted(running, result):
    one, alert = running
    assert apply(one, outcome(alert["alert_id"], now_of(alert), result, "service_credit")) == []


def test_an_offer_accepted_after_the_case_was_resolved_is_ordered_all_the_same(running):
    one, alert = running
    resolved = apply(one, *calls(4, 60, dropped=False, hours=1))
    assert resolved[-1]["type"] == "stayline.alert.resolved"
    (ordered,) = apply(one, outcome(alert["alert_id"], MONDAY_MS + 9 * DAY_MS, "accepted", "service_credit"))
    assert ordered["type"] == "stayline.alert.resolved"
    assert ordered["data"]["order"]["remedy_id"] == "service_credit"
    assert ordered["data"]["revision"] == resolved[-1]["data"]["revision"] + 1


def order_of(one, alert, remedy_id, at_ms=None, **more):
    """Accept a remedy; return the order that is told, if one is."""
    at_ms = now_of(alert) if at_ms is None else at_ms
    told_so = apply(one, outcome(alert["alert_id"], at_ms, "accepted", remedy_id, **more))
    return told_so[0]["data"]["order"] if told_so else None


def test_what_is_accepted_twice_is_one_order_one_job_and_spent_once():
    one = business(budget_minor={"EUR": 10_000})
    alert = opened(one)
    assert order_of(one, alert, "proactive_information") is not None
    assert order_of(one, alert, "proactive_information") is None
    assert order_of(one, alert, "proactive_information", now_of(alert) + 5) is None
    chooser = one.memory.advisor.chooser
    assert chooser._spent == {"EUR": 150}
    for _ in range(2):
        order_of(one, alert, VISIT, partner_id="north")
    ((_, _, record),) = chooser.partners.table()
    assert record.ordered == 1


def test_what_was_never_offered_is_ordered_at_its_price_and_for_approval_only(running):
    one, alert = running
    assert "bandwidth_upgrade" not in {each["remedy_id"] for each in alert["remedies"]}
    order = order_of(one, alert, "bandwidth_upgrade")
    assert (order["cost_minor"], order["needs_approval"]) == (1500, True)


@pytest.mark.parametrize("remedy_id", ["outage_credit", "statutory_compensation", "no_such_remedy", "a|b|c"])
def test_no_order_is_made_of_a_credit_that_nobody_computed_nor_of_what_is_not_known(running, remedy_id):
    one, alert = running
    assert order_of(one, alert, remedy_id) is None
    apply(one, {"type": "churn", "customer_id": WHO, "at_ms": now_of(alert) + DAY_MS, "kind": "port_out"})
    assert {action for action, *_ in one.memory.advisor.chooser.bandit.table()} <= {*KNOWN, "leave_alone"}


def test_what_is_over_the_budget_by_the_time_it_is_accepted_waits_for_approval():
    one = business(budget_minor={"EUR": 3_050})
    first, second = first_alert(one, "ana", 0), first_alert(one, "ben", 0)
    assert (
        order_of(one, first, "retention_offer", second["detected_ms"] + HOUR_MS)["needs_approval"] is True
    )  # its limit
    order = order_of(one, second, "service_credit", second["detected_ms"] + HOUR_MS)
    assert (order["cost_minor"], order["needs_approval"]) == (100, True)


def test_where_no_currency_is_known_limits_hold_in_the_catalogue_s():
    profile = {key: value for key, value in PROFILE.items() if key != "currency"}
    shown = {}
    for name, one in {"free": business(), "spent": business(budget_minor={"EUR": 0})}.items():
        envelopes = told(one.apply(batch([profile, *calls(0, 12, dropped=False), *calls(2, 6, dropped=True)])))
        shown[name] = {each["remedy_id"]: each["needs_approval"] for each in envelopes[0]["data"]["remedies"]}
    assert (shown["free"][VISIT], shown["free"]["line_reprofile"]) == (True, False)
    assert not shown["spent"].keys() & {"retention_offer", "proactive_information"}


def test_an_order_is_priced_in_the_currency_of_the_offer_though_the_profile_has_another_by_then():
    one = business(budget_minor={"EUR": 10_000})
    alert = opened(one)
    apply(one, PROFILE | {"currency": "USD", "at_ms": now_of(alert) - 1})
    assert order_of(one, alert, "proactive_information")["cost_minor"] == 150
    assert one.memory.advisor.chooser._spent == {"EUR": 150}


# Closing the loop


def test_a_repair_that_did_not_help_reopens_the_case_with_another_remedy(running):
    one, alert = running
    fixed_ms = MONDAY_MS + 3 * DAY_MS
    first = next(each["remedy_id"] for each in alert["remedies"] if each["remedy_id"] == "line_reprofile")
    assert apply(one, outcome(alert["alert_id"], fixed_ms, "fixed", first)) == []
    later = apply(one, *calls(3.1, 45, dropped=True, hours=2))
    failed = [each["data"] for each in later if (each["data"]["follow_up"] or {}).get("verdict") == "failed"]
    assert len(failed) == 1
    assert failed[0]["follow_up"]["remedy_id"] == first
    assert first not in {each["remedy_id"] for each in failed[0]["remedies"]}
    assert {each["remedy_id"] for each in failed[0]["remedies"]} & {"technician_visit", "cpe_swap", "firmware_push"}


def test_a_repair_that_helped_is_verified_by_calls_and_nothing_is_said(running):
    one, alert = running
    apply(one, outcome(alert["alert_id"], MONDAY_MS + 3 * DAY_MS, "accepted", "line_reprofile", partner_id="north"))
    later = apply(one, *calls(3.1, 80, dropped=False, hours=2))
    assert all((each["data"]["follow_up"] or {}).get("verdict") != "failed" for each in later)
    ((remedy, partner, record),) = one.memory.advisor.chooser.partners.table()
    assert (remedy, partner, record.ordered, record.worked, record.failed) == ("line_reprofile", "north", 1, 1, 0)


# Learning


def test_what_was_decided_teaches_once_it_is_known_who_left(running):
    one, alert = running
    apply(one, outcome(alert["alert_id"], now_of(alert), "accepted", "service_credit"))
    apply(one, {"type": "churn", "customer_id": WHO, "at_ms": MONDAY_MS + 20 * DAY_MS, "kind": "port_out"})
    table = one.memory.advisor.chooser.bandit.table()
    assert [(row[0], row[3]) for row in table] == [("service_credit", 1), ("service_credit", 1)]


def test_a_score_moves_in_the_batch_of_the_event_that_moved_it():
    one = engine()
    advisor = one.memory.advisor
    for index in range(1500):
        asks = float(index % 3 == 0)
        advisor.model.learn({"contacts_cancel_90d": asks, "tenure_days": 100.0 + index % 7}, bool(asks and index % 2))
    assert advisor.model.is_ready
    plain = opened(one)
    other = engine()
    other.restore(one.snapshot() | {})
    contact = {"type": "contact", "customer_id": WHO, "at_ms": MONDAY_MS + 2 * DAY_MS + 9 * HOUR_MS, "topic": "cancel"}
    (moved, *_) = apply(one, contact, *calls(3, 8, dropped=True))
    (still, *_) = apply(other, *calls(3, 8, dropped=True))
    assert moved["data"]["churn"]["probability"] > still["data"]["churn"]["probability"]
    assert plain["churn"]["probability"] == pytest.approx(still["data"]["churn"]["probability"], rel=0.5)


# Limits


def test_the_hold_out_is_offered_repairs_alone():
    groups = set()
    for index in range(12):
        one = business(hold_out_ratio=0.5)
        who = f"customer {index}"
        events = [PROFILE | {"customer_id": who}, *calls(0, 12, dropped=False, customer=who)]
        envelopes = told(one.apply(batch([*events, *calls(2, 6, dropped=True, customer=who)])))
        alert = next(each["data"] for each in envelopes if each["type"] == "stayline.alert.opened")
        offered = {each["remedy_id"] for each in alert["remedies"]}
        groups.add("service_credit" in offered)
        if "service_credit" not in offered:
            assert {"line_reprofile", "technician_visit"} <= offered
            assert not offered & {"retention_offer", "proactive_information"}
    assert groups == {True, False}


def test_a_budget_that_is_used_up_leaves_repairs():
    offered = {each["remedy_id"] for each in opened(business(budget_minor={"EUR": 0}))["remedies"]}
    assert "line_reprofile" in offered
    assert not offered & {"service_credit", "retention_offer"}


def test_what_was_accepted_is_taken_from_the_month_s_budget_and_the_next_month_has_its_own():
    one = business(budget_minor={"EUR": 250})
    offered = []
    for customer, first_day in (("ana", 0), ("ben", 5), ("cid", 10), ("dora", 30)):  # the last one in February
        alert = first_alert(one, customer, first_day)
        costs = {each["remedy_id"]: each["cost_minor"] for each in alert["remedies"]}
        offered.append("service_credit" in costs)
        assert costs.get("service_credit", 100) == 100
        assert REPAIRS & costs.keys()
        if offered[-1]:
            apply(one, outcome(alert["alert_id"], now_of(alert), "accepted", "service_credit"))
    assert offered == [True, True, False, True]


def test_the_next_job_goes_to_the_partner_who_kept_the_deadline_and_whose_work_the_calls_confirm():
    one = engine()
    for customer, partner, days_taken in (("ida", "slow", 20), ("joe", "quick", 1)):
        first = first_alert(one, customer, 0)
        accepted_ms = MONDAY_MS + 3 * DAY_MS
        (told_so,) = apply(one, outcome(first["alert_id"], accepted_ms, "accepted", VISIT, partner_id=partner))
        assert told_so["data"]["order"]["partner_id"] == partner
        apply(one, outcome(first["alert_id"], accepted_ms + days_taken * DAY_MS, "fixed", VISIT, partner_id=partner))
    records = {partner: record for _, partner, record in one.memory.advisor.chooser.partners.table()}
    slow, quick = records["slow"], records["quick"]
    assert (slow.hours_mean(), quick.hours_mean()) == (480.0, 24.0)
    assert (slow.in_time, quick.in_time) == (0, 1)
    offered = {each["remedy_id"]: each["partner_id"] for each in first_alert(one, "kim", 30)["remedies"]}
    assert offered[VISIT] == "quick"


def test_a_customer_who_had_enough_offers_is_offered_repairs_alone():
    one = business(contacts_max=1)
    alert = opened(one)
    apply(one, outcome(alert["alert_id"], now_of(alert), "declined", "proactive_information"))
    later = apply(one, *calls(3.5, 12, dropped=True))
    offered = {each["remedy_id"] for each in later[-1]["data"]["remedies"]}
    assert "technician_visit" in offered
    assert "service_credit" not in offered


@pytest.mark.parametrize("facts", [{"margin_ratio": math.nan}, {"hold_out_ratio": 0.9}, {"budget_minor": {"EUR": -1}}])
def test_terms_out_of_range_are_refused(facts):
    with pytest.raises(ConfigError, match=next(iter(facts))):
        Business(**facts)


@pytest.mark.parametrize("fee_minor", [2**53 - 1, -(2**53) + 1, 0, 1])
def test_no_fee_makes_a_value_that_a_reader_of_json_cannot_hold(fee_minor):
    one = business(margin_ratio=1.0, remaining_months=1200, base_rate_prior=0.99)
    events = [PROFILE | {"monthly_fee_minor": fee_minor}, *calls(0, 12, dropped=False), *calls(2, 6, dropped=True)]
    alert = told(one.apply(batch(events)))[0]["data"]
    assert 0 <= alert["value_at_risk_minor"] <= 2**53
    assert all(abs(each["expected_gain_minor"]) <= 2**53 for each in alert["remedies"])


def test_who_left_is_not_learnt_as_somebody_who_stayed():
    one = engine()
    apply(one, PROFILE)
    labels = one.memory.advisor._labels
    assert labels.pending_count == 1
    apply(one, {"type": "churn", "customer_id": WHO, "at_ms": MONDAY_MS + 8 * DAY_MS, "kind": "port_out"})
    assert labels.pending_count == 0
    apply(one, {"type": "contact", "customer_id": WHO, "at_ms": MONDAY_MS + 9 * DAY_MS, "topic": "billing"})
    assert labels.pending_count == 0
    apply(one, *calls(20, 2, dropped=False), PROFILE | {"at_ms": MONDAY_MS + 21 * DAY_MS})
    assert labels.pending_count == 1


def test_solved_cases_are_a_feature_from_then_on(running):
    one, _ = running
    apply(one, *calls(4, 60, dropped=False, hours=1))
    (known,) = one.memory.relations.values()
    assert known.features(MONDAY_MS + 8 * DAY_MS)["cases_solved_30d"] == 1


# State


def test_an_engine_restored_between_offer_and_outcome_says_the_same(running):
    one, alert = running
    other = engine()
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    events = [
        outcome(alert["alert_id"], MONDAY_MS + 3 * DAY_MS, "fixed", "line_reprofile"),
        *calls(3.1, 45, dropped=True),
    ]
    assert apply(other, *events) == apply(one, *events)


# Broken input


def test_outcomes_of_unknown_alerts_labels_before_profiles_and_odd_profiles_break_nothing():
    one = engine()
    odd = [
        outcome("al_nobody", MONDAY_MS, "accepted", "service_credit"),
        {"type": "churn", "customer_id": "gone", "at_ms": MONDAY_MS, "kind": "closed"},
        PROFILE | {"customer_id": "odd", "monthly_fee_minor": -5, "tenure_days": 2**53 - 1, "plan_down_mbps": 1e300},
        {"type": "usage", "customer_id": "odd", "at_ms": MONDAY_MS, "bill_minor": 900, "currency": "USD",
         "period_days": 0, "minutes": 5.0},
        outcome("al_nobody", MONDAY_MS, "fixed", None, partner_id="north"),
    ]  # fmt: skip
    envelopes = told(
        one.apply(
            batch([*odd, *calls(0, 12, dropped=False, customer="odd"), *calls(2, 6, dropped=True, customer="odd")])
        )
    )
    alert = envelopes[0]["data"]
    assert (alert["value_at_risk_minor"], one.counts.dead_lettered) == (0, 0)
    assert b"NaN" not in orjson.dumps(envelopes)
    assert all(math.isfinite(each["expected_gain_minor"]) for each in alert["remedies"])
    assert "bill_ratio" not in one.memory.relations.of(next(iter(one.memory.relations))).features(MONDAY_MS)


def test_a_bill_in_another_currency_is_not_compared_with_the_fee():
    one = engine()
    usage = {"type": "usage", "customer_id": WHO, "at_ms": MONDAY_MS, "bill_minor": 4500, "currency": "EUR"}
    apply(one, PROFILE, usage)
    (known,) = one.memory.relations.values()
    assert known.features(MONDAY_MS)["bill_ratio"] == 1.5
    apply(one, usage | {"currency": "USD"})
    assert "bill_ratio" not in known.features(MONDAY_MS)
