"""Trace context: well formed, one trace a notification, one parent an attempt."""

import re

from hypothesis import given
from hypothesis import strategies as st

from sinks.webhook.trace import traceparent

FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01")


@given(st.text(min_size=1), st.integers(0, 1_000))
def test_it_is_what_the_standard_asks_for_and_the_same_every_time(identity, attempts):
    assert FORM.fullmatch(traceparent(identity, attempts))
    assert traceparent(identity, attempts) == traceparent(identity, attempts)


def test_attempts_share_their_trace_and_differ_in_their_parent():
    made = [traceparent("al-1-1", attempts).split("-") for attempts in range(10)]
    assert len({trace for _, trace, _, _ in made}) == 1
    assert len({parent for _, _, parent, _ in made}) == 10


def test_notifications_have_traces_of_their_own():
    assert len({traceparent(f"al-{number}-1", 0)[3:35] for number in range(1_000)}) == 1_000
