"""Total losses of service: what readings of a line show of them, and what a card makes of it."""

import orjson
import pytest
from engine_kit import CATALOGUE, DAY_MS, HOUR_MS, MONDAY_MS, batch, call, told
from test_remedy_loop import PROFILE, WHO, business, outcome

from detectors.engine import RiskEngine
from detectors.remedies.losses import SILENT_MS, Losses, Span
from detectors.settings import Business, Settings
from sinks.shapes import FIXED

LAW = "statutory_compensation"


def read(*readings):
    """Read (time, registered) of one customer's line; return its losses."""
    losses = Losses(10)
    for at_ms, registered in readings:
        losses.read(1, at_ms, {"registered": registered})
    return losses.since(1, -1)


def test_a_loss_lasts_from_the_first_reading_that_shows_it_to_the_one_that_shows_its_end():
    assert read((10, 1.0), (20, 0.0), (30, 0.0), (40, 1.0), (50, 1.0)) == [Span(20, 40, is_over=True)]
    assert read((20, 0.0), (30, 0.0)) == [Span(20, 30)]
    assert read((10, 1.0), (20, 1.0)) == []
    assert read((20, 0.0), (30, 1.0), (40, 0.0)) == [Span(20, 30, is_over=True), Span(40, 40)]


def test_what_nobody_read_is_not_claimed():
    behind = 20 + SILENT_MS + 1
    assert read((20, 0.0), (behind, 1.0)) == [Span(20, 20, is_over=True)]
    assert read((20, 0.0), (behind, 0.0)) == [Span(20, 20, is_over=True), Span(behind, behind)]


def test_a_reading_that_comes_late_changes_nothing():
    assert read((20, 0.0), (30, 0.0), (25, 1.0), (40, 0.0)) == [Span(20, 40)]


def test_a_line_without_sync_is_lost_and_one_that_nobody_can_register_on_too():
    losses = Losses(10)
    losses.read(1, 10, {"sync_kbps": 0.0})
    losses.read(1, 20, {"sync_kbps": 50_000.0, "registered": 0.0})
    losses.read(1, 30, {"sync_kbps": 50_000.0, "registered": 1.0})
    assert losses.since(1, -1) == [Span(10, 30, is_over=True)]


def test_memory_of_losses_is_bounded_and_can_be_forgotten():
    losses = Losses(3)
    for customer in range(5):
        for turn in range(40):
            losses.read(customer, 10 * turn, {"registered": float(turn % 2)})
    assert [len(losses.since(customer, -1)) for customer in range(5)] == [0, 0, 16, 16, 16]
    assert losses.forget(4) == 16
    assert losses.since(4, -1) == []


def link(at_ms, value, metric="registered"):
    return {
        "type": "link", "element_kind": "customer_line", "element_id": "line-7", "customer_id": WHO,
        "at_ms": at_ms, "metric": metric, "value": value,
    }  # fmt: skip


def lost(first_day, last_day):
    """Hourly readings of a line that is lost for some days, and then is back."""
    begin_ms, end_ms = (MONDAY_MS + int(day * DAY_MS) for day in (first_day, last_day))
    return [*(link(at, 0.0) for at in range(begin_ms, end_ms, HOUR_MS)), link(end_ms, 1.0)]


def reported(day, topic="quality"):
    return {"type": "contact", "customer_id": WHO, "at_ms": MONDAY_MS + int(day * DAY_MS), "topic": topic}


def of(days, *, dropped):
    return [
        call(WHO, MONDAY_MS + int(day * DAY_MS) + hour * HOUR_MS, dropped=dropped)
        for day in days
        for hour in range(6, 12)
    ]


def card(one, *events):
    """Return the alert that trouble after a loss raises."""
    known = [PROFILE, *of((0, 1), dropped=False), *events, *of((9,), dropped=True)]
    known.sort(key=lambda each: each.get("end_ms", each.get("at_ms")))
    envelopes = told(one.apply(batch(known)))
    return [each["data"] for each in envelopes if each["type"].startswith("stayline.alert.")][-1]


def credits_of(alert):
    return {one["remedy_id"]: one["credit"] for one in alert["remedies"] if one["credit"] is not None}


def test_a_card_shows_what_law_pays_for_a_reported_total_loss_and_no_goodwill_for_the_same():
    found = card(business(statutory="de_tkg_58"), *lost(2.0, 8.5), reported(2.1))
    # Lost for five whole days after that of the report: two free, two at 5 EUR, one at 10 EUR.
    assert credits_of(found) == {
        LAW: {
            "amount_minor": 2000, "currency": "EUR", "calls": [],
            "basis": "de_tkg_58@2021: 3 days of total loss = 20.00 EUR",
        }
    }  # fmt: skip
    (told_so,) = [one for one in found["remedies"] if one["remedy_id"] == LAW]
    assert "20.00 EUR" in told_so["say"]
    assert told_so["cost_minor"] == 2000
    assert found["choice"]["action"] != LAW


@pytest.mark.parametrize(
    ("facts", "events"),
    [
        ({}, [*lost(2.0, 8.5), reported(2.1)]),  # no scheme is configured
        ({"statutory": "uk_automatic_compensation"}, [*lost(2.0, 8.5), reported(2.1)]),  # pays in pounds
        ({"statutory": "de_tkg_58"}, lost(2.0, 8.5)),  # nobody reported it
        ({"statutory": "de_tkg_58"}, [*lost(2.0, 8.5), reported(2.1, "billing")]),
        ({"statutory": "de_tkg_58"}, [*lost(2.0, 4.5), reported(2.1)]),  # mended in time
        ({"statutory": "de_tkg_58"}, [*lost(2.0, 8.5)[::48], reported(2.1)]),  # readings too far apart
    ],
)
def test_without_its_conditions_nothing_is_due_by_law(facts, events):
    assert LAW not in credits_of(card(business(**facts), *events))


def test_a_loss_is_paid_by_the_hour_where_that_is_more_than_by_the_day_and_never_both():
    found = credits_of(card(business(), *lost(2.0, 8.5)))
    assert list(found) == ["outage_credit"]
    assert found["outage_credit"]["basis"] == "pro_rata@1: 156.00 hours of interruption x 30.00 EUR / 720 = 6.50 EUR"
    assert list(credits_of(card(business()))) == ["service_credit"]


def test_what_is_due_by_law_is_withheld_by_no_cap_budget_or_hold_out_and_becomes_an_order():
    one = business(statutory="de_tkg_58", cap_percent=0, budget_minor={"EUR": 0}, hold_out_ratio=0.5, contacts_max=0)
    found = card(one, *lost(2.0, 8.5), reported(2.1))
    assert list(credits_of(found)) == [LAW]
    (notified,) = one.apply(batch([outcome(found["alert_id"], MONDAY_MS + 10 * DAY_MS, "accepted", LAW)]))
    (taken,) = told([notified])
    order = taken["data"]["order"]
    assert (order["remedy_id"], order["credit"]["amount_minor"]) == (LAW, 2000)
    assert taken["data"]["follow_up"] is None
    placed = orjson.loads(FIXED["tmf622"].render(notified))
    (price,) = placed["productOrderItem"][0]["itemPrice"]
    assert (price["name"], price["price"]["taxIncludedAmount"]) == (
        "credit for a loss of service",
        {"unit": "EUR", "value": -20.0},
    )
    assert not any(note["text"].startswith("calls:") for note in placed["note"])


def apply(one, *events):
    return [each["data"] for each in told(one.apply(batch(events)))]


def test_credits_of_one_bill_stay_under_the_cap_together_and_a_case_has_one():
    one = business()
    first = card(one)
    (paid,) = apply(one, outcome(first["alert_id"], MONDAY_MS + 10 * DAY_MS, "accepted", "service_credit"))
    assert paid["order"]["credit"]["amount_minor"] == 100
    assert not credits_of(paid)
    apply(one, *(call(WHO, MONDAY_MS + 11 * DAY_MS + hour * HOUR_MS) for hour in range(60)), *lost(14.0, 35.0))
    shown = apply(one, *of((36,), dropped=True))[-1]
    assert shown["alert_id"] != first["alert_id"]
    assert credits_of(shown)["outage_credit"]["amount_minor"] == 1400
    assert credits_of(shown)["outage_credit"]["basis"].endswith("less 1.00 EUR already credited")


def test_what_law_pays_for_a_loss_is_ordered_once_and_the_next_loss_by_itself():
    one = business(statutory="de_tkg_58")
    first = card(one, *lost(2.0, 8.5), reported(2.1))
    at_ms = MONDAY_MS + 10 * DAY_MS
    (paid,) = apply(one, outcome(first["alert_id"], at_ms, "accepted", LAW))
    assert credits_of(paid) == {}
    assert apply(one, outcome(first["alert_id"], at_ms + 1, "accepted", LAW)) == []
    shown = apply(one, *lost(12.0, 18.5), reported(12.1), *of((19,), dropped=True))[-1]
    due = credits_of(shown)[LAW]
    assert (due["amount_minor"], due["basis"].partition(", less")[2]) == (2000, " 20.00 EUR ordered before")
    (paid_too,) = apply(one, outcome(shown["alert_id"], MONDAY_MS + 20 * DAY_MS, "accepted", LAW))
    assert paid_too["order"]["credit"]["amount_minor"] == 2000
    assert paid_too["order"]["order_id"] != paid["order"]["order_id"]
    assert credits_of(paid_too) == {}


def test_while_a_loss_goes_on_that_law_may_pay_for_no_goodwill_is_offered():
    goes_on = [reading for reading in lost(2.0, 12.0) if reading["at_ms"] < MONDAY_MS + 9.3 * DAY_MS]
    assert list(credits_of(card(business(), *goes_on))) == ["outage_credit"]
    assert credits_of(card(business(statutory="de_tkg_58"), *goes_on)) == {}
    over = card(business(statutory="de_tkg_58"), *lost(2.0, 8.5))
    assert list(credits_of(over)) == ["outage_credit"]


def test_a_loss_survives_a_restart_and_goes_with_its_customer():
    def begun():
        one = business(statutory="de_tkg_58")
        one.apply(batch(sorted([PROFILE, *of((0, 1), dropped=False), *lost(2.0, 8.5), reported(2.1)], key=when)))
        return one

    again = RiskEngine(Settings("test", business=Business(statutory="de_tkg_58")), CATALOGUE)
    again.restore(begun().snapshot())
    shown = [told(one.apply(batch(of((9,), dropped=True))))[-1]["data"] for one in (begun(), again)]
    assert shown[0] == shown[1]
    assert list(credits_of(shown[1])) == [LAW]
    assert again.forget(WHO)["line readings"] == 2


def when(event):
    return event.get("end_ms", event.get("at_ms"))
