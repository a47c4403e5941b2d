"""What each answer means, and when the next attempt comes."""

import random
from email.utils import formatdate

import hypothesis.strategies as st
import pytest
from delivery_kit import notice
from hypothesis import given

from sinks.outputs import Delivery, Health, Outcome, State, Undeliverable
from sinks.webhook.policy import (
    REPLY_CHARS_MAX,
    RETRY_AFTER_MS_MAX,
    RETRY_CEILINGS_MS,
    SLOW_FROM,
    Answer,
    is_misconfigured,
    judge,
    retry_after_ms,
    scrub,
)

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
STATUSES = st.one_of(st.none(), st.integers(100, 599))


class Late(random.Random):
    """Draws the longest wait."""

    def randint(self, a: int, b: int) -> int:
        del a
        return b


def judged(answer: Answer, attempts: int = 0, age_ms: int = 0, rng: random.Random | None = None) -> Outcome:
    first_ms = NOW_MS - age_ms if attempts else None
    delivery = Delivery(1, notice("a", 1), attempts, first_ms)
    return judge(answer, delivery, DAY_MS, NOW_MS, Late() if rng is None else rng)


@pytest.mark.parametrize("status", range(200, 300, 9))
def test_any_2xx_is_delivered(status):
    assert (judged(Answer(status, "")).state, judged(Answer(status, "")).health) == (State.DELIVERED, Health.WELL)


@pytest.mark.parametrize("status", [None, 408, 425, 429, 500, 502, 503, 504, 599])
def test_a_busy_or_silent_receiver_is_tried_again_on_the_schedule(status):
    for attempts, ceiling_ms in enumerate(RETRY_CEILINGS_MS):
        outcome = judged(Answer(status, ""), attempts)
        assert (outcome.state, outcome.health) == (State.PENDING, Health.FAILING)
        assert outcome.retry_ms == NOW_MS + ceiling_ms
    assert judged(Answer(status, ""), attempts=99).retry_ms == NOW_MS + RETRY_CEILINGS_MS[-1]


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304, 401, 403, 404, 405, 409, 451])
def test_what_an_operator_must_put_right_is_tried_again_slowly(status):
    for attempts in range(len(RETRY_CEILINGS_MS)):
        outcome = judged(Answer(status, ""), attempts)
        assert (outcome.state, outcome.health) == (State.PENDING, Health.FAILING)
        assert outcome.retry_ms == NOW_MS + RETRY_CEILINGS_MS[max(attempts, SLOW_FROM)]
    assert is_misconfigured(outcome.reply)


@pytest.mark.parametrize("status", [None, 400, 408, 410, 413, 422, 429, 500, 503])
def test_what_passes_or_is_the_messages_own_fault_is_no_misconfiguration(status):
    assert not is_misconfigured(judged(Answer(status, "no answer")).reply)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_found_wrong_dies_after_three_attempts_and_says_nothing_of_the_receiver(status):
    assert [judged(Answer(status, ""), n).state for n in range(3)] == [State.PENDING, State.PENDING, State.DEAD]
    assert judged(Answer(status, ""), 2).reason is Undeliverable.REJECTED
    assert {judged(Answer(status, ""), n).health for n in range(3)} == {Health.WELL}


@pytest.mark.parametrize("age_ms", [0, DAY_MS, 2 * DAY_MS])
def test_410_asks_for_no_more_calls_and_kills_nothing(age_ms):
    outcome = judged(Answer(410, "gone"), 5, age_ms)
    assert (outcome.state, outcome.health, outcome.retry_ms) == (State.PENDING, Health.GONE, NOW_MS)


@given(STATUSES, st.integers(0, 30), st.integers(0, 2 * DAY_MS), st.integers(0, 99))
def test_every_answer_ends_a_delivery_or_sets_a_time_within_its_schedule(status, attempts, age_ms, seed):
    outcome = judged(Answer(status, ""), attempts, age_ms, random.Random(seed))  # noqa: S311  seeded
    if outcome.state == State.PENDING:
        assert NOW_MS <= outcome.retry_ms <= NOW_MS + RETRY_CEILINGS_MS[-1]
        if attempts and outcome.health is not Health.GONE:
            assert outcome.retry_ms <= NOW_MS - age_ms + DAY_MS, "the last attempt falls on the deadline"
    assert (outcome.state == State.DEAD) == (outcome.reason is not None)


@pytest.mark.parametrize("status", [None, 404, 500])
def test_a_failure_past_the_deadline_is_the_last(status):
    assert judged(Answer(status, ""), 3, DAY_MS - 1).retry_ms == NOW_MS + 1
    assert judged(Answer(status, ""), 3, DAY_MS).reason is Undeliverable.EXPIRED
    assert judged(Answer(204, ""), 3, 2 * DAY_MS).state == State.DELIVERED


@pytest.mark.parametrize(
    ("value", "wait_ms"),
    [
        (None, 0),
        ("0", 0),
        ("7\x1f", 7_000),
        ("120", 120_000),
        (" 7 ", 7_000),
        ("3601", RETRY_AFTER_MS_MAX),
        ("999999999", RETRY_AFTER_MS_MAX),
        ("9" * 400, 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("", 0),
        ("٣", 0),
        (formatdate(NOW_MS / 1000 + 90, usegmt=True), 90_000),
        (formatdate(NOW_MS / 1000 + 90), 90_000),
        (formatdate(NOW_MS / 1000 - 90, usegmt=True), 0),
        (formatdate(NOW_MS / 1000 + 9_000, usegmt=True), RETRY_AFTER_MS_MAX),
        ("Tue, 99 Nov 2023 08:49:37 GMT", 0),
        ("Sun, 06 Nov 0001 08:49:37 +2359", 0),
    ],
)
def test_retry_after_is_read_in_both_forms_and_clamped(value, wait_ms):
    assert retry_after_ms(value, NOW_MS) == wait_ms


@given(st.text())
def test_no_retry_after_is_more_than_an_hour_or_an_error(value):
    assert 0 <= retry_after_ms(value, NOW_MS) <= RETRY_AFTER_MS_MAX


def test_retry_after_outlasts_the_schedule_and_holds_the_receiver():
    outcome = judged(Answer(429, "", retry_after="60"), rng=random.Random(1))  # noqa: S311  seeded
    assert outcome.retry_ms == outcome.hold_ms == NOW_MS + 60_000
    assert judged(Answer(503, "", retry_after="1")).retry_ms == NOW_MS + RETRY_CEILINGS_MS[0]


def test_a_reply_is_kept_without_secrets_numbers_and_controls():
    text = (
        "call +44 20 7946 0958 or 4915112345678, mail jo.doe@crm.example\x1b[31m\r\nBearer abc.def "
        "whsec_a2V5a2V5 v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= order 12345"
    )
    assert scrub(Answer(422, text)) == (
        "422 call [number or address] or [number or address], mail [number or address] [31m  [secret] "
        "[secret] [secret] order 12345"
    )


@given(st.text(max_size=3_000), STATUSES)
def test_a_kept_reply_is_short_and_printable(text, status):
    kept = scrub(Answer(status, text))
    assert len(kept) <= REPLY_CHARS_MAX
    assert kept.isprintable()
