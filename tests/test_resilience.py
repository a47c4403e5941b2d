"""What once broke the engine does not break it again: hostile but lawful input, clocks, replays, budgets."""

import numpy as np
import pytest
from engine_kit import (
    DAY_MS,
    DROPPED,
    HOUR_MS,
    MINUTE_MS,
    MONDAY_MS,
    SECOND_MS,
    alerts,
    batch,
    call,
    engine,
    habit,
    run,
    telco,
)

from detectors.roster import CASE
from schemas.decode import decode

START_MS = MONDAY_MS + 10 * DAY_MS
"""A midnight, where a stream begins unless told otherwise."""
MIDNIGHT_MS = START_MS + DAY_MS
"""The next one, where a budget begins anew."""
MEDIA = ("codec", "loss_ratio", "rtt_ms", "jitter_ms")
"""What a call says of its media."""

INTEGER_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""
FUTURE_MS = 4_000_000_000_000
"""In the year 2096: where a clock gone wrong may stand."""
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, the last that RFC 3339 can write."""

FAILED = {"answer_ms": None, "sip_status": 503, "q850": 41}
"""What an attempt says that the network refused."""
SETUP_FAILURE_RATIO = 0.03
"""The share of attempts that fail in a healthy network."""
SETUP_MS = 3 * SECOND_MS


def profile(customer, **fields):
    return {"type": "profile", "customer_id": customer, "at_ms": START_MS, **fields}


def calls_of(customer, end_ms, count, step_ms=HOUR_MS, **fields):
    """Write calls that end at equal steps from a time on."""
    return [call(customer, end_ms + number * step_ms, **fields) for number in range(count)]


# Hostile but lawful input


@pytest.mark.parametrize("wild", [{"plan_down_mbps": 1e16}, {"tenure_days": INTEGER_MAX}])
def test_lawful_numbers_do_not_stop_the_engine(wild):
    assert alerts(run([profile("c", **wild), *calls_of("c", START_MS, 8, dropped=True)]))


def test_simultaneous_drops_in_descending_order_do_not_stop_the_engine():
    drops = [call("pbx", START_MS + 999 - number, talk_s=100 + 7 * number, dropped=True) for number in range(20)]
    fresh = engine()
    fresh.apply(batch(drops))
    fresh.finish()
    # More of one moment than a customer's row remembers may count as late: each is accounted for.
    counts = fresh.counts
    assert counts.applied + counts.late == len(drops)


@pytest.mark.parametrize("raw", [b"[1]", b'"x"', b"null"])
def test_an_array_or_a_word_is_not_json_of_a_record(raw):
    assert decode(raw).rejects[0].reason == "not_json"


def test_a_currency_has_no_line_end():
    assert decode(b'{"type":"profile","customer_id":"c","at_ms":1,"currency":"EUR\\n"}').rejects


# Replays


def test_a_replay_of_a_busy_customers_calls_counts_once():
    calls = calls_of("pbx", START_MS, 10, step_ms=10 * SECOND_MS)
    fresh = engine()
    fresh.apply(batch(calls + calls))
    assert fresh.counts.applied == len(calls)


def test_duplicates_of_calls_that_end_in_one_second_count_once():
    calls = [call("pbx", START_MS + number, talk_s=100 + 7 * number) for number in range(10)]
    fresh = engine()
    fresh.apply(batch(calls + calls))
    assert fresh.counts.applied == len(calls)


# Clocks


def test_one_record_from_the_future_costs_its_customer_nothing():
    first, *others = calls_of("x", START_MS, 24)
    fresh = engine()
    fresh.apply(batch([first, call("x", FUTURE_MS), *others]))
    # The record itself may count as late; those after it may not.
    assert fresh.counts.late <= 1


def test_a_contact_from_the_future_does_not_make_everybody_a_stayer():
    customers = [profile(f"c{number}") for number in range(50)]
    contact = {"type": "contact", "customer_id": "x", "at_ms": LAST_MS}
    fresh = engine()
    fresh.apply(batch([*customers, contact]))
    # Who stayed is known only when the time to leave has passed: until then each label waits.
    assert fresh.memory.advisor._labels.pending_count >= len(customers)


# Evidence


def test_a_steady_share_of_failing_attempts_is_no_news():
    count = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        attempts = habit("c", 60, 20, rng, drop_ratio=0.005)
        for one in attempts:
            if rng.random() < SETUP_FAILURE_RATIO:
                one.update(FAILED, end_ms=one["start_ms"] + SETUP_MS)
        count += len(alerts(run(sorted(attempts, key=lambda one: one["end_ms"]))))
    # Over more than a thousand days of healthy customers.
    assert count <= 1


def test_calls_made_again_at_once_hour_after_hour_raise_a_case():
    calls = []
    for number in range(40):
        end_ms = START_MS + 2 * number * HOUR_MS
        peer = f"p{number}"
        again_ms = end_ms + 20 * SECOND_MS
        calls.append(call("r", end_ms, peer_id=peer))
        calls.append(call("r", end_ms + 2 * MINUTE_MS, talk_s=80, peer_id=peer, start_ms=again_ms))
        # A good call in between gives nothing of the evidence back.
        calls.append(call("r", end_ms + HOUR_MS))
    assert alerts(run(calls))


def test_since_is_when_the_trouble_began():
    trouble_ms = MONDAY_MS + 60 * DAY_MS
    calls = habit("x", 60, 4, np.random.default_rng(4))
    # One drop, weeks before the trouble and no part of it.
    calls[12] |= DROPPED
    calls += [call("x", trouble_ms + number * 6 * HOUR_MS, dropped=number % 2 == 0) for number in range(20)]
    (one,) = alerts(run(calls))
    assert one["data"]["since_ms"] >= trouble_ms - DAY_MS


def test_a_lock_is_called_one_from_the_first_word():
    # Every third call ends at the same timer.
    lengths_s = [900.0 if number % 3 == 0 else 40.0 + number for number in range(30)]
    calls = [call("c", MONDAY_MS + number * HOUR_MS, talk_s=talk_s) for number, talk_s in enumerate(lengths_s)]
    assert alerts(run(calls))[0]["data"]["pattern"]["kind"] == "duration_lock"


# Incidents


def test_a_region_is_blamed_where_nobody_reports_media():
    right_count = 0
    for seed in range(10):
        calls = telco(seed, lambda places: places["region"] == "region-0")
        silent = [{name: value for name, value in one.items() if name not in MEDIA} for one in calls]
        blamed = [one["subject"] for one in run(silent) if one["type"] == "stayline.incident.opened"]
        right_count += blamed == ["region-0"]
    assert right_count >= 9


def test_an_incident_is_not_cleared_by_the_call_that_opened_it():
    bad = {"dropped": True, "access_node": "N", "trunk": "T"}
    good = {"access_node": "N", "trunk": "good"}
    # At first both trunks of the node are sound.
    calls = [
        call(f"h{number % 50}", START_MS + number * MINUTE_MS, access_node="N", trunk="good" if number % 2 else "T")
        for number in range(200)
    ]
    at_ms = START_MS + 200 * MINUTE_MS
    # Then three customers lose call after call over the one trunk, while the other stays sound.
    for _ in range(4):
        for customer in "abc":
            calls.append(call(customer, at_ms, **bad))
            at_ms += 20 * SECOND_MS
            for number in range(2):
                calls.append(call(f"h{number}", at_ms, **good))
                at_ms += MINUTE_MS
        at_ms += HOUR_MS
    # At last others lose theirs as well.
    for number, customer in enumerate("defghij"):
        calls.append(call(customer, at_ms, **bad))
        at_ms += MINUTE_MS
        calls.append(call(f"h{number}", at_ms, **good))
        at_ms += MINUTE_MS
    times = [one["time"] for one in run(calls) if "incident" in one["type"]]
    assert times
    assert len(set(times)) == len(times)


def test_what_goes_bad_after_an_incident_is_over_is_not_explained_by_it():
    opened = {
        "type": "incident",
        "incident_id": "i",
        "element_kind": "region",
        "element_id": "R",
        "at_ms": START_MS,
        "status": "open",
    }
    cleared = opened | {"status": "cleared"}
    assert alerts(run([opened, cleared, *calls_of("a", START_MS + HOUR_MS, 12, dropped=True, region="R")]))


# Budgets


def test_a_deferred_case_is_not_told_behind_the_budgets_back():
    calls = [
        call(customer, START_MS + number * HOUR_MS + ord(customer), dropped=True)
        for number in range(20)
        for customer in "ab"
    ]
    first_types = {}
    for one in run(calls, alerts_per_day_max=1):
        first_types.setdefault(one["data"]["alert_id"], one["type"])
    assert set(first_types.values()) == {"stayline.alert.opened"}


def test_the_budget_holds_around_midnight():
    evening_ms = MIDNIGHT_MS - 4 * HOUR_MS
    ends = [
        (customer, evening_ms + number * HOUR_MS + ord(customer) * SECOND_MS)
        for customer in "abcde"
        for number in range(3)
    ]
    # Customers take turns on both sides of midnight, a little out of order.
    ends += [
        ("a", MIDNIGHT_MS - 200 * SECOND_MS),
        ("b", MIDNIGHT_MS + SECOND_MS),
        ("c", MIDNIGHT_MS - 150 * SECOND_MS),
        ("d", MIDNIGHT_MS + 2 * SECOND_MS),
        ("e", MIDNIGHT_MS - 100 * SECOND_MS),
    ]
    calls = [call(customer, end_ms, dropped=True) for customer, end_ms in ends]
    days = [one["time"][:10] for one in alerts(run(calls, alerts_per_day_max=1))]
    assert days
    assert len(set(days)) == len(days)


def test_customers_with_an_open_case_are_not_evicted():
    fresh = engine(customers_max=4)
    fresh.apply(
        batch(
            call(customer, START_MS + number * HOUR_MS + ord(customer), dropped=True)
            for number in range(5)
            for customer in "abcd"
        )
    )
    assert (fresh.memory.roster.book.rows["mode"] == CASE).all()
    fresh.apply(batch([call("new", START_MS + 9 * HOUR_MS)]))
    assert fresh.memory.casebook.cases
    assert all(fresh.memory.roster.find(key) >= 0 for key in fresh.memory.casebook.cases)


def test_memory_of_relations_is_bounded():
    customers_max = 10
    fresh = engine(customers_max=customers_max)
    fresh.apply(batch(profile(f"c{number}") for number in range(1_000)))
    assert len(fresh.memory.relations) <= customers_max
