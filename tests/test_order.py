"""Duplicates and lateness of one customer's calls, against a list of all calls that were ever applied."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.order import SEEN, coded, is_known, is_late, keep, span_of
from detectors.roster import ROW, clear_row
from schemas.kernels import kernel

DAY_MS = 86_400_000
PART = 2**-11
SPANS_MS = st.one_of(st.integers(0, 5_000), st.integers(0, 10 * DAY_MS), st.integers(0, 2**42 - 1))


@kernel
def code_and_back(value_ms):
    return int(coded(value_ms)), span_of(coded(value_ms))


@kernel
def offer(rows, call, end_ms, lateness_ms):
    """Apply a call as the loop does; return "applied", "duplicate" or "late"."""
    one = rows[0]
    if is_known(one, call):
        return "duplicate"
    if is_late(one, end_ms, lateness_ms):
        return "late"
    keep(one, call, end_ms)
    one["last_ms"] = max(one["last_ms"], end_ms)
    return "applied"


def nobody():
    rows = np.zeros(1, ROW)
    clear_row(rows, 0)
    return rows


@given(SPANS_MS)
def test_a_time_comes_back_exact_below_four_seconds_and_a_two_thousandth_short_at_the_most(span_ms):
    _, back_ms = code_and_back(span_ms)
    assert span_ms * (1.0 - PART) <= back_ms <= span_ms
    assert back_ms == span_ms or span_ms >= 4_096


@given(SPANS_MS, SPANS_MS)
def test_a_longer_time_has_no_lower_code_and_the_longest_are_cut(one_ms, other_ms):
    assert (code_and_back(one_ms)[0] <= code_and_back(other_ms)[0]) == (
        one_ms <= other_ms or code_and_back(one_ms) == code_and_back(other_ms)
    )
    assert code_and_back(2**42 + one_ms)[0] == 0xFFFF


OFFERS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.integers(0, 20 * DAY_MS)),
        st.tuples(st.just("new"), st.integers(0, 3_000)),
        st.tuples(st.just("old"), st.integers(0, 2 * DAY_MS)),
        st.tuples(st.just("old"), st.integers(0, 20_000)),
        st.tuples(st.just("again"), st.integers(1, 20)),
    ),
    max_size=60,
)


@given(OFFERS, st.sampled_from([0, 300_000, 7 * DAY_MS]))
def test_no_call_counts_twice_and_only_those_are_late_that_nobody_could_tell(offers, lateness_ms):
    """Each is offered as (sort, by how much): behind the newest, before it, or so many calls ago once more."""
    rows, applied = nobody(), []
    last_ms = 1_700_000_000_000
    for call, (sort, by) in enumerate(offers, 1):
        end_ms = last_ms + by if sort == "new" else last_ms - by
        if sort == "again":
            if by <= len(applied):
                assert offer(rows, *applied[-by], lateness_ms) in {"duplicate", "late"}
            continue
        known = set(rows[0]["seen"].tolist())
        forgotten_ms = max((end for one, end in applied if one not in known), default=0)
        newest_ms = int(rows[0]["last_ms"])
        said = offer(rows, np.uint32(call), end_ms, lateness_ms)
        if newest_ms < 0 or end_ms > newest_ms:
            assert said == "applied"
        elif end_ms < newest_ms - lateness_ms or end_ms <= forgotten_ms:
            assert said == "late"
        elif said == "late":
            # It ended so little after the forgotten call that the two could not be told apart.
            assert end_ms - forgotten_ms <= (newest_ms - forgotten_ms) * (SEEN + 1) * PART
        if said == "applied":
            applied.append((np.uint32(call), end_ms))
            last_ms = max(last_ms, end_ms)


def test_calls_that_end_in_one_moment_are_all_told_apart_while_they_are_remembered():
    rows = nobody()
    assert [offer(rows, np.uint32(call), 5, 0) for call in range(1, SEEN + 1)] == ["applied"] * SEEN
    assert [offer(rows, np.uint32(call), 5, 0) for call in range(1, SEEN + 1)] == ["duplicate"] * SEEN
