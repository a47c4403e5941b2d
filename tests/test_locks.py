"""Locks: calls cut at one duration are seen; calls that merely end are not."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.evidence import LEAP, LOCK_SHARE
from detectors.locks import (
    ALIKE,
    CUT_SHARE,
    MEDIAN_S,
    SHORTEST_S,
    SIGMA,
    TIMERS_S,
    TOLERANCE_S,
    _boost,
    density,
    ending_chance,
    lock_total,
    observe_duration,
)
from detectors.roster import ROW, clear_row

MINUTE_MS = 60_000


def caller():
    """A customer never seen, whose source has already shown that it knows finer times than minutes."""
    rows = np.zeros(1, ROW)
    clear_row(rows, 0)
    observe_duration(rows[0], 1_234, 0, 0.0)
    return rows[0]


def calls(one, *durations_s, days=0.2, peer=None):
    """Let a caller make calls, each to another far end unless told so; return what was said of each."""
    start = int(one["last_peer"])
    one["last_peer"] = start + len(durations_s)
    return [
        observe_duration(one, round(1_000 * value), start + at + 1 if peer is None else peer, days)
        for at, value in enumerate(durations_s)
    ]


# The durations of ordinary calls


def test_the_density_of_durations_is_one():
    grid = np.geomspace(1e-3, 1e7, 200_001)
    values = np.array([density(value) for value in grid])
    assert np.trapezoid(values, grid) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("value_s", [30.0, 60.0, 300.0, 900.0, 1_800.0])
def test_the_chance_to_end_at_a_duration_is_that_of_simulated_calls(value_s):
    rng = np.random.default_rng(2)
    lasted_s = MEDIAN_S * np.exp(rng.normal(0.0, SIGMA, 4_000_000))
    reached = lasted_s >= value_s - TOLERANCE_S
    ended = reached & (lasted_s <= value_s + TOLERANCE_S)
    assert ending_chance(value_s) == pytest.approx(ALIKE * ended.sum() / reached.sum(), rel=0.1)


@numba.njit
def alarms_of(rows, lasted_ms, peers, days, setting_days):  # pragma: no cover  compiled
    """Count how often callers who suffer nothing reach the setting by repeated durations alone."""
    count = 0
    for row in range(len(rows)):
        for at in range(lasted_ms.shape[1]):
            observe_duration(rows[row], lasted_ms[row, at], peers[row, at], days)
            if LEAP * lock_total(rows[row]) >= setting_days:
                count += 1
                rows[row]["lock_evidence"][:] = 0.0
    return count


@pytest.mark.parametrize(("median_s", "sigma"), [(75.0, 1.15), (75.0, 1.0), (40.0, 1.2)])
def test_callers_whose_calls_are_more_alike_than_all_calls_are_have_their_peace(median_s, sigma):
    rng = np.random.default_rng(3)
    callers, days, calls_a_day = 4_000, 60, 4
    rows = np.zeros(callers, ROW)
    for row in range(callers):
        clear_row(rows, row)
    own_s = median_s * np.exp(rng.normal(0.0, 0.4, callers))
    lasted_s = own_s[:, None] * np.exp(rng.normal(0.0, sigma, (callers, days * calls_a_day)))
    peers = rng.integers(1, 30, lasted_s.shape).astype(np.uint32)
    alarms = alarms_of(rows, (1_000 * lasted_s).astype(np.int64), peers, 1.0 / calls_a_day, 10_000.0)
    # Repeated durations are one sort of evidence among five: theirs is a part of the promise.
    assert alarms <= callers * days / 10_000 / 4


@given(st.floats(SHORTEST_S, 20_000))
def test_a_lock_cuts_far_more_often_than_calls_end_by_themselves(value_s):
    assert 0.0 < ending_chance(value_s) < CUT_SHARE / 2


def test_naming_a_lock_by_the_first_call_is_paid_for():
    # A process opens at `_boost`, so its mean over ordinary calls must not exceed one.
    grid = np.linspace(SHORTEST_S, 20_000.0, 2_000_000)
    step = grid[1] - grid[0]
    assert sum(density(value) * _boost(value) for value in grid[::10]) * 10 * step <= 1.0


# What is a lock


@pytest.mark.parametrize("lock_s", [32.0, 437.0, 900.0, 1_768.0])
def test_calls_cut_at_one_duration_among_others_are_seen(lock_s):
    one = caller()
    calls(one, 45.1, 170.2, lock_s, 21.7, lock_s + 0.4, 28.0, lock_s - 0.3, lock_s + 0.2, 25.4, lock_s)
    assert LEAP * lock_total(one) > 10_000


def test_the_first_call_names_a_lock_and_the_second_is_cut_at_it():
    one = caller()
    assert calls(one, 600.0, 41.0, 600.9, 77.0, 599.2) == [False, False, True, False, True]


def test_a_known_timer_is_believed_sooner_than_any_other_value():
    known, other = caller(), caller()
    calls(known, 1_800.0, 1_800.0)
    calls(other, 1_691.0, 1_691.0)
    assert lock_total(known) > lock_total(other)


def test_calls_shorter_than_a_lock_leave_it_as_it_is():
    one = caller()
    calls(one, 900.0, 900.0)
    before = lock_total(one)
    calls(one, *np.linspace(30.0, 800.0, 40), days=0.0)
    assert lock_total(one) == before


def test_calls_that_outlive_a_lock_refute_it():
    one = caller()
    calls(one, 300.0, 300.0, 300.0)
    before = lock_total(one)
    calls(one, 1_000.0, 1_313.0, 1_717.0, days=0.0)
    assert lock_total(one) < before / 100


# What is none


def test_one_far_end_called_for_the_same_time_each_day_is_no_lock():
    one = caller()
    said = calls(one, *[62.0] * 60, days=1.0, peer=7)
    assert not any(said)
    assert lock_total(one) < 60


def test_one_far_end_called_for_the_same_time_each_day_is_no_lock_among_calls_to_others():
    one = caller()
    for number in range(60):
        calls(one, 62.0, days=0.5, peer=7)
        # A call that ends there by chance between two of them is one sign at the most.
        calls(one, 62.0 if number == 20 else 30.0 + number, days=0.5, peer=100 + number)
    assert lock_total(one) < 60


def test_durations_in_whole_minutes_say_nothing_of_timers():
    rows = np.zeros(1, ROW)
    clear_row(rows, 0)
    rng = np.random.default_rng(4)
    minutes = np.ceil(80.0 * np.exp(rng.normal(0.0, 1.5, 400)) / 60.0).astype(int)
    for at, minute in enumerate(minutes.tolist()):
        assert not observe_duration(rows[0], minute * MINUTE_MS, at + 1, 0.3)
    assert lock_total(rows[0]) == 0.0


def test_short_calls_say_nothing_of_timers():
    one = caller()
    assert not any(calls(one, *[SHORTEST_S - 1.0] * 50))
    assert lock_total(one) == 0.0


@numba.njit(cache=True)
def alarms(rows, calls_a_day, days, setting_days, rng):  # pragma: no cover  compiled
    """Count the customers whose locks reach the setting though their calls only end."""
    count = 0
    for row in range(len(rows)):
        one = rows[row]
        for _ in range(int(days * calls_a_day)):
            duration_ms = int(1_000.0 * MEDIAN_S * math.exp(rng.normal(0.0, SIGMA)))
            observe_duration(one, duration_ms, np.uint32(1 + int(rng.random() * 4e9)), 1.0 / calls_a_day)
            if lock_total(one) >= setting_days:
                count += 1
                break
    return count


@pytest.mark.parametrize("calls_a_day", [1.0, 20.0])
def test_healthy_callers_are_left_alone_for_as_long_as_promised(calls_a_day):
    rows = np.zeros(400, ROW)
    for row in range(len(rows)):
        clear_row(rows, row)
    found = alarms(rows, calls_a_day, 60.0, 1_000.0, np.random.default_rng(9))
    # The locks hold a share of the evidence, so of one alarm in a thousand days they may give that share.
    assert found <= LOCK_SHARE * 400 * 60 / 1_000 + 3.0


# The strongest processes alone are held


def whole_mixture(history):
    """Sum over a process for every call, none ever dropped: the definition that the two held ones stay below."""
    processes = []
    for duration_s, peer, days in history:
        if duration_s < SHORTEST_S:
            continue
        for process in processes:
            lock_s, value, first_peer, last_peer = process
            if duration_s < lock_s - TOLERANCE_S:
                continue
            chance = ending_chance(lock_s)
            if duration_s > lock_s + TOLERANCE_S:
                process[1] = value * (1.0 - CUT_SHARE) / (1.0 - chance)
            elif peer not in (first_peer, last_peer):
                process[1:] = value * CUT_SHARE / chance, first_peer, peer
        processes.append([np.float32(duration_s), days * _boost(duration_s), peer, peer])
    return LOCK_SHARE * sum(value for _, value, _, _ in processes)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(TIMERS_S) | st.floats(1, 4_000).map(lambda value: round(value, 3)),
            st.integers(1, 3),
            st.floats(0, 7),
        ),
        max_size=25,
    )
)
def test_what_is_held_never_exceeds_the_whole_mixture(history):
    one = caller()
    # Whole minutes are another test's matter: a hair more or less keeps them out of this one.
    history = [(duration_s + 0.003, peer, days) for duration_s, peer, days in history]
    for duration_s, peer, days in history:
        observe_duration(one, round(1_000 * duration_s), peer, days)
    # The kernel's tables go by half seconds, over which the share of ordinary calls changes by a few in a hundred.
    assert lock_total(one) <= whole_mixture(history) * 1.05 ** len(history) + 1e-9
