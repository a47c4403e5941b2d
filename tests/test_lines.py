"""Readings of customers' own lines: what makes a line off, what that says of bad calls, and that it cries no wolf."""

import math
from fractions import Fraction

import numba
import numpy as np
import pytest
from engine_kit import DAY_MS, HOUR_MS, MONDAY_MS, alerts, call, run
from hypothesis import given
from hypothesis import strategies as st

from detectors.evidence import LEAP, accrue, expected, observe, observe_nothing, remember, total
from detectors.lines import (
    DAYS_HELD,
    LINE,
    LINE_SHARE,
    METRICS,
    OFF_DAYS,
    OFF_MEAN,
    RATIO_MAX,
    TOGETHER_MIN,
    TROUBLED_SHARE,
    USUAL_FROM,
    clear_line,
    line_log10,
    read_line,
)
from detectors.notes import NOTE
from detectors.patterns import PLAIN_SHARE
from detectors.roster import ROW
from schemas.kernels import kernel

RETRAINS, MARGIN, POWER = (METRICS.index(name) for name in ("retrains", "snr_margin_db", "rx_power_dbm"))
NEVER = -1


def fresh():
    one = np.zeros(1, LINE)[0]
    clear_line(one)
    return one


def polled(days_off, first_day=0):
    """Return a line polled three times on each day, off on those named by True."""
    one = fresh()
    for day, off in enumerate(days_off, first_day):
        for hour in (1, 9, 17):
            read_line(one, RETRAINS, 5.0 if off else 0.0, day * DAY_MS + hour * HOUR_MS)
    return one


# What is off


@pytest.mark.parametrize(
    ("metric", "good", "off"),
    [
        ("snr_margin_db", 6.0, 2.0),
        ("retrains", 1.0, 2.0),
        ("rx_power_dbm", -20.0, -28.0),
        ("rx_power_dbm", -10.0, -5.0),
        ("loss_ratio", 0.001, 0.02),
        ("packets_dropped_ratio", 0.0, 0.05),
        ("latency_ms", 30.0, 200.0),
        ("registered", 1.0, 0.0),
    ],
)
def test_a_line_is_off_beyond_a_limit_in_two_polls_in_a_row(metric, good, off):
    one = fresh()
    fell = [
        read_line(one, METRICS.index(metric), value, hour * HOUR_MS)
        for hour, value in enumerate((good, off, good, off, off, off))
    ]
    assert fell == [False, False, False, False, True, False]
    assert one["since_ms"] == 4 * HOUR_MS


@pytest.mark.parametrize(
    ("metric", "usual", "fallen"),
    [("snr_margin_db", 12.0, 8.5), ("rx_power_dbm", -17.0, -20.5), ("sync_kbps", 50e3, 3e4)],
)
def test_a_line_that_falls_far_below_its_own_usual_level_is_off_within_all_limits(metric, usual, fallen):
    one, other = fresh(), fresh()
    for hour in range(USUAL_FROM):
        read_line(one, METRICS.index(metric), usual, hour * HOUR_MS)
        read_line(other, METRICS.index(metric), fallen, hour * HOUR_MS)
    for line in (one, other):
        for hour in (20, 21):
            read_line(line, METRICS.index(metric), fallen, hour * HOUR_MS)
    assert one["since_ms"] == 21 * HOUR_MS
    assert other["since_ms"] == NEVER


def test_metrics_of_what_the_customer_does_are_no_fault_of_the_line():
    one = fresh()
    for hour in range(10):
        for metric in ("utilization_ratio", "crc_errors", "errored_seconds"):
            read_line(one, METRICS.index(metric), 1.0, hour * HOUR_MS)
    assert not one["off"]


def test_a_reading_out_of_order_says_nothing():
    one = polled([False] * 3)
    before = one.copy()
    read_line(one, RETRAINS, 9.0, DAY_MS)
    assert one == before


@given(st.lists(st.sampled_from([None, False, True]), min_size=1, max_size=90))
def test_days_are_held_or_counted_whatever_their_number(days):
    one = fresh()
    for day, off in enumerate(days):
        for hour in () if off is None else (1, 9, 17):
            read_line(one, RETRAINS, 5.0 if off else 0.0, day * DAY_MS + hour * HOUR_MS)
    assert int(one["polled"]).bit_count() + one["count"] == sum(day is not None for day in days)
    assert int(one["off"]).bit_count() + one["off_count"] == sum(day is True for day in days)
    if one["poll_ms"] >= 0:
        held = [day for day in range(len(days)) if day > one["day"] - DAYS_HELD]
        assert [bool(int(one["off"]) >> int(one["day"] - day) & 1) for day in held if day <= one["day"]] == [
            days[day] is True for day in held if day <= one["day"]
        ]


# What it says


def chance(off_before, before, off, days):
    """Return the chance of a course of days, so many of them off, for a line that has shown this: beta-binomial."""
    part = Fraction(1)
    alpha, beta = Fraction(OFF_DAYS * OFF_MEAN) + off_before, Fraction(OFF_DAYS * (1 - OFF_MEAN)) + before - off_before
    for day in range(days):
        part *= (alpha + day if day < off else beta + day - off) / (alpha + beta + day)
    return part


@given(st.lists(st.booleans(), max_size=12), st.lists(st.booleans(), min_size=1, max_size=10))
def test_the_days_of_a_trouble_are_held_against_those_before(before, during):
    one = polled([*before, *during])
    # The day before the first bad call belongs to the trouble.
    since_ms = (len(before) + 1) * DAY_MS
    off, days = sum(during), len(during)
    troubled = TROUBLED_SHARE**off * (1 - TROUBLED_SHARE) ** (days - off)
    ratio = min(troubled / float(chance(sum(before), len(before), off, days)), RATIO_MAX)
    wanted = math.log10(1 - LINE_SHARE + LINE_SHARE * ratio)
    # The first off day is one from its second poll on, and the first poll of a day may go on where the last one ended.
    assert line_log10(one, NEVER, since_ms) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("before", [0, 5, 30])
@pytest.mark.parametrize("off_before", [0, 2])
@pytest.mark.parametrize("days", [1, 2, 3, 6, 10])
def test_over_all_lines_that_are_as_they_always_are_it_says_nothing_in_the_mean(before, off_before, days):
    off_before = min(off_before, before)
    mean = 0.0
    for off in range(days + 1):
        course = [*[True] * off_before, *[False] * (before - off_before), *[True] * off, *[False] * (days - off)]
        told = 10.0 ** line_log10(polled(course), NEVER, (before + 1) * DAY_MS)
        mean += math.comb(days, off) * float(chance(off_before, before, off, days)) * told
    assert mean <= 1.0 + 1e-6


def test_a_line_never_read_and_one_that_fell_with_its_neighbours_say_nothing():
    assert line_log10(fresh(), NEVER, 5 * DAY_MS) == 0.0
    one = polled([False] * 5 + [True] * 2)
    assert line_log10(one, NEVER, 6 * DAY_MS) > 1.0
    assert line_log10(one, int(one["since_ms"]) + HOUR_MS, 6 * DAY_MS) == 0.0


def test_a_line_that_is_off_every_night_says_little():
    one = polled([True] * 20)
    assert line_log10(one, NEVER, 18 * DAY_MS) < 0.1


# The promise


@kernel
def poll(line, day, off):
    """Poll a line three times on a day."""
    for hour in (1, 9, 17):
        read_line(line, RETRAINS, 5.0 if off else 0.0, day * DAY_MS + hour * HOUR_MS)


@numba.njit(cache=True)
def false_alarms(rows, notes, lines, drop_ratio, off_share, off_days, calls_a_day, days, setting_days, rng):
    """Count the alarms of healthy customers whose lines are off for days on end, for no reason that calls show."""
    count = 0
    for row in range(len(rows)):  # pragma: no cover  compiled
        one, note, line = rows[row], notes[row], lines[row]
        clear_line(line)
        at, day, off, since_ms, bad_calls = 0.0, -1, False, -1, 0
        while at < days:
            gap = rng.exponential() / calls_a_day
            at += gap
            while day < int(at) - 1:
                day += 1
                # A share of days, in runs of so many.
                leave = 1.0 / off_days
                off = rng.random() >= leave if off else rng.random() < leave * off_share[row] / (1.0 - off_share[row])
                poll(line, day, off)
            bad = False
            for channel, ratio in enumerate((drop_ratio[row], 0.012, 0.003, 0.008)):
                accrue(one["evidence"][channel], gap)
                x = 1.0 if rng.random() < ratio else 0.0
                bad |= x > 0.0
                if x > 0.0:
                    observe(one["evidence"][channel], x, expected(one, note, channel))
                else:
                    observe_nothing(one["evidence"][channel])
                remember(one, note, channel, x, gap)
            if bad:
                bad_calls += 1
                since_ms = int(at * DAY_MS) if since_ms < 0 else since_ms
            evidence = LEAP * PLAIN_SHARE * total(one["evidence"])
            if bad and bad_calls >= 2 and evidence * 10.0 ** line_log10(line, NEVER, since_ms) >= setting_days:
                count += 1
                one["evidence"][:, :] = 0.0
            if total(one["evidence"]) < max(1.0, 6.0 * gap):
                since_ms, bad_calls = -1, 0
    return count


HEALTHY, DAYS, SETTING_DAYS = 8_000, 40.0, 10_000.0
OFF = {
    "as believed": lambda rng: rng.beta(OFF_DAYS * OFF_MEAN, OFF_DAYS * (1 - OFF_MEAN), HEALTHY),
    "all alike": lambda _: np.full(HEALTHY, OFF_MEAN),
    "a tenth always": lambda rng: np.where(rng.random(HEALTHY) < 0.1, 0.6, 0.005),
}


@pytest.mark.parametrize("calls_a_day", [2.0, 10.0])
@pytest.mark.parametrize("off_days", [1.0, 3.0])
@pytest.mark.parametrize("lines", OFF)
def test_healthy_customers_with_noisy_lines_are_left_alone_for_as_long_as_promised(calls_a_day, off_days, lines):
    rng = np.random.default_rng(11)
    ratios = np.minimum(0.012 * rng.gamma(2.5, 1.0 / 2.5, HEALTHY), 0.3)
    shares = np.clip(OFF[lines](rng), 0.0, 0.7)
    state = np.zeros(HEALTHY, ROW), np.zeros(HEALTHY, NOTE), np.zeros(HEALTHY, LINE)
    alarms = false_alarms(*state, ratios, shares, off_days, calls_a_day, DAYS, SETTING_DAYS, rng)
    assert alarms <= HEALTHY * DAYS / SETTING_DAYS


# In the engine

TROUBLE_DAY = 10


def poor_calls(customer, count, bad, **fields):
    """Write a call a day, the last ones of poor sound."""
    media = {"codec": "PCMA", "rtt_ms": 40.0, "jitter_ms": 3.0, "access_node": f"node of {customer}"} | fields
    return [
        call(
            customer, MONDAY_MS + day * DAY_MS + 12 * HOUR_MS, loss_ratio=0.15 if day >= count - bad else 0.001, **media
        )
        for day in range(count)
    ]


def readings(customer, days, off, hours=(1, 9, 17), **fields):
    """Write the retrains of a line, poll by poll; `off(day, hour)` tells when there were many."""
    return [
        {
            "type": "link",
            "element_kind": "customer_line",
            "element_id": f"line of {customer}",
            "customer_id": customer,
            "at_ms": MONDAY_MS + day * DAY_MS + hour * HOUR_MS,
            "metric": "retrains",
            "value": 4.0 if off(day, hour) else 0.0,
        }
        | fields
        for day in range(days)
        for hour in hours
    ]


def heard(*parts):
    events = [event for part in parts for event in part]
    return run(sorted(events, key=lambda event: event.get("end_ms", event.get("at_ms"))))


def ill(day, _hour):
    return day >= TROUBLE_DAY - 1


def test_a_line_gone_bad_opens_a_quality_case_before_the_third_poor_call():
    calls = poor_calls("a", TROUBLE_DAY + 2, 2)
    without, with_line = heard(calls), heard(calls, readings("a", TROUBLE_DAY + 2, ill))
    assert not alerts(without)
    (alert,) = alerts(with_line)
    assert alert["data"]["pattern"]["kind"] == "quality"
    assert len(alert["data"]["calls"]) == 2
    assert alert["data"]["cause"]["kind"] == "access_line_fault"


@pytest.mark.parametrize("bad", [0, 1])
def test_a_line_gone_bad_opens_no_case_without_two_poor_calls(bad):
    assert not alerts(heard(poor_calls("a", TROUBLE_DAY + 2, bad), readings("a", TROUBLE_DAY + 2, ill)))


@pytest.mark.parametrize(
    "off",
    [
        pytest.param(lambda _day, _hour: False, id="a good line"),
        pytest.param(lambda _day, hour: hour == 1, id="one that retrains every night"),
        pytest.param(lambda _day, hour: hour < 12, id="one that is off every morning"),
        pytest.param(lambda day, hour: day == TROUBLE_DAY and hour == 9, id="one reading off"),
        pytest.param(lambda day, _hour: day == TROUBLE_DAY - 4, id="maintenance, days ago"),
    ],
)
def test_a_line_that_is_as_always_opens_no_case_early(off):
    calls = poor_calls("a", TROUBLE_DAY + 2, 2)
    assert not alerts(heard(calls, readings("a", TROUBLE_DAY + 2, off)))


def test_lines_of_one_node_that_fall_together_are_no_customers_trouble():
    names = [f"c{number}" for number in range(int(TOGETHER_MIN))]
    calls = [poor_calls(name, TROUBLE_DAY + 2, 2 if name == "c3" else 0, access_node="node") for name in names]
    lines = [readings(name, TROUBLE_DAY + 2, ill) for name in names]
    assert not alerts(heard(*calls, *lines))
    assert alerts(heard(*calls, lines[3]), "c3")


def test_whose_line_it_is_must_be_known():
    calls = poor_calls("a", TROUBLE_DAY + 2, 2)
    assert not alerts(heard(calls, readings("a", TROUBLE_DAY + 2, ill, customer_id=None)))
    assert not alerts(heard(calls, readings("b", TROUBLE_DAY + 2, ill)))
