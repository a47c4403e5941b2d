"""After a remedy: whether the calls got better, and who carries out jobs in time."""

import msgspec
import pytest

from detectors.remedies.followup import DAY_MS, FollowUp, FollowUps
from detectors.remedies.partners import PARTNERS_MAX, Job, Partners


def follow_up(customer=1, begun_ms=0, days=3, **facts):
    return FollowUp("al", customer, "cpe_swap", begun_ms, begun_ms + days * DAY_MS, **facts)


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"good": 3}, "worked"),
        ({"good": 2}, "unproven"),
        ({}, "unproven"),
        ({"good": 50, "bad": 1}, "failed"),
        ({"is_over": True}, "worked"),
        ({"is_over": True, "bad": 1}, "worked"),
        ({"is_over": True, "relapsed": True}, "failed"),
    ],
)
def test_calls_decide_and_not_what_was_reported(facts, verdict):
    assert follow_up(**facts).verdict() == verdict


def test_calls_before_the_remedy_do_not_count_against_it():
    watched = FollowUps()
    watched.watch(follow_up(begun_ms=10))
    watched.bad_call(1, 10)
    watched.bad_call(2, 50)
    assert watched.of(1).bad == 0
    watched.bad_call(1, 11)
    assert watched.of(1).bad == 1


def test_verdicts_fall_due_in_order_and_once():
    watched = FollowUps()
    watched.watch(follow_up(2, days=5))
    watched.watch(follow_up(1, days=3))
    assert watched.next_due_ms(99) == 3 * DAY_MS
    assert [one.customer for one in watched.due(5 * DAY_MS)] == [1, 2]
    assert watched.due(5 * DAY_MS) == []
    assert watched.next_due_ms(99) == 99


def test_who_does_not_call_is_watched_for_one_more_period():
    watched = FollowUps()
    one = follow_up()
    assert watched.extend(one)
    assert (one.due_ms, watched.of(1)) == (6 * DAY_MS, one)
    assert not watched.extend(one)


def test_trouble_that_comes_back_is_told_as_a_relapse():
    watched = FollowUps()
    watched.watch(follow_up(begun_ms=5))
    watched.case_closed(1)
    assert watched.case_opened(1, 5) is None
    assert watched.case_opened(1, 6).remedy_id == "cpe_swap"
    assert watched.of(1).verdict() == "failed"
    assert watched.case_opened(2, 6) is None


def test_what_is_watched_survives_a_restart_and_can_be_forgotten():
    watched = FollowUps()
    watched.watch(follow_up(1))
    watched.watch(follow_up(2))
    restored = FollowUps()
    restored.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(watched.snapshot())))
    assert (restored.forget(1), restored.forget(1)) == (1, 0)
    assert [one.customer for one in restored.due(10**12)] == [2]


def test_the_next_job_goes_to_whom_keeps_deadlines():
    partners = Partners()
    for partner, took_days in (("slow", 9), ("quick", 2)):
        for n in range(5):
            partners.ordered(Job(1, f"{partner}{n}", "technician_visit", partner, 0))
            assert partners.fixed(f"{partner}{n}", "technician_visit", took_days * DAY_MS, 7 * DAY_MS) == partner
            partners.judged("technician_visit", partner, "worked")
    assert partners.best("technician_visit") == "quick"
    assert partners.best("cpe_swap") is None
    (first, second) = partners.table()
    assert (first[1], first[2].in_time, first[2].hours_mean()) == ("quick", 5, 48.0)
    assert (second[1], second[2].in_time) == ("slow", 0)


def test_jobs_that_do_not_help_cost_a_partner_the_next_one():
    partners = Partners()
    for partner, verdict in (("a", "failed"), ("b", "worked")):
        partners.ordered(Job(1, partner, "cpe_swap", partner, 0))
        partners.fixed(partner, "cpe_swap", DAY_MS, 7 * DAY_MS)
        partners.judged("cpe_swap", partner, verdict)
    partners.judged("cpe_swap", "a", "unproven")
    partners.judged("cpe_swap", "", "failed")
    assert partners.best("cpe_swap") == "b"
    assert len(partners.table()) == 2


def test_partners_are_bounded_and_survive_a_restart():
    partners = Partners()
    for index in range(PARTNERS_MAX + 5):
        partners.ordered(Job(index, f"a{index}", "cpe_swap", f"p{index}", 0))
    assert len(partners.table()) == PARTNERS_MAX
    restored = Partners()
    restored.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(partners.snapshot())))
    assert restored.table() == partners.table()
    assert restored.fixed("a9", "cpe_swap", DAY_MS, DAY_MS) == "p9"
    assert restored.fixed("a9", "cpe_swap", DAY_MS, DAY_MS) == "", "a job is done once"
    restored.forget(10)
    assert restored.fixed("a10", "cpe_swap", DAY_MS, DAY_MS) == ""
    restored.wait_for({11})
    assert [restored.fixed(f"a{n}", "cpe_swap", DAY_MS, DAY_MS) for n in (11, 12)] == ["p11", ""]
