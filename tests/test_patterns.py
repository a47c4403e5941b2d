"""Patterns: each is found where it is, not where it is not, and not where something else looks like it."""

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.history import (
    ANSWERED,
    BAD_KEPT,
    CALL,
    DAYS_KEPT,
    ELEMENTS,
    GOOD_KEPT,
    HISTORY,
    ONE_WAY,
    POOR,
    REDIALLED,
    copy_habit,
    count_good,
    no_habit,
)
from detectors.patterns import PATTERNS, PLAIN_SHARE, STRUCTURES, View, added_log10, read
from detectors.patterns.composition import one_way_audio, quality, redial, setup_failure
from detectors.patterns.duration_lock import duration_lock, duration_lock_log10
from detectors.patterns.route import route
from detectors.patterns.time_of_day import GENERAL_HOURS, time_of_day
from detectors.patterns.view import LIFT_LOG10_MAX, mean_log10, share_lift_log10
from detectors.patterns.worsening import worsening
from detectors.zone import local_time

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
MONDAY_MS = 1_767_571_200_000
CLEAR_LOG10 = 1.0
"""A structure that is there must be ten times likelier than none."""
UTC = local_time("UTC")

NAMES = SimpleNamespace(
    element=lambda column, serial: f"{ELEMENTS[column]}-{serial}", codec=lambda code: f"codec-{code}"
)


def calls(times_ms, durations_s=None, *, answered=True, drop=0.0, setup=0.0, flags=0, codec=0, peers=None, **places):
    """Build kept calls; each field one value for all, or one a call."""
    kept = np.zeros(len(times_ms), CALL)
    kept["end_ms"] = times_ms
    kept["duration_ms"] = 0 if durations_s is None else np.round(np.multiply(durations_s, 1_000))
    kept["peer"] = np.arange(1, len(kept) + 1) if peers is None else peers
    kept["drop"], kept["setup"], kept["rating"] = drop, setup, np.nan
    kept["flags"] = np.bitwise_or(flags, ANSWERED if answered else 0)
    kept["codec"] = codec
    kept["elements"] = -1
    for name, serials in places.items():
        kept["elements"][:, ELEMENTS.index(name)] = serials
    return kept


def hours(*values):
    """Times given in hours since Monday."""
    return [MONDAY_MS + round(value * HOUR_MS) for value in values]


def ordinary(rng, count, *, days=7, **more):
    """Calls at everybody's hours and of everybody's lengths."""
    hour = rng.choice(24, count, p=GENERAL_HOURS / GENERAL_HOURS.sum())
    times = np.sort(MONDAY_MS + rng.integers(days, size=count) * DAY_MS + ((hour + rng.random(count)) * HOUR_MS))
    return calls(times.astype(np.int64), 1.0 + 80.0 * np.exp(rng.normal(0.0, 1.5, count)), **more)


def habit_of(good, zone=UTC):
    """How good calls are spread over the hours and ways, as the loop counts them."""
    one, habit = np.zeros(1, HISTORY)[0], no_habit()
    for call in good:
        count_good(one, call, zone.ahead_min)
    copy_habit(one, habit)
    return habit


def view(bad, good=None, zone=UTC, **counts):
    good = calls([]) if good is None else good
    known = {field.name: 0 for field in fields(View) if field.type is int or field.type == "int"}
    known |= {"since_ms": int(bad["end_ms"][0]), "now_ms": int(bad["end_ms"][-1]), "attempts": len(bad) + len(good)}
    known |= {"bad_calls": len(bad)}
    day_bad, day_good = (
        np.bincount(np.clip((kept["end_ms"] - bad["end_ms"][0]) // DAY_MS, 0, DAYS_KEPT - 1), minlength=DAYS_KEPT)
        for kept in (bad, good)
    )
    known |= {"day_calls": day_bad + day_good, "day_bad": day_bad, "habit": habit_of(good, zone)}
    return View(bad=bad, good=good, names=NAMES, zone=zone, **(known | counts))


def lift(pattern, seen):
    """How strongly a pattern is seen; no finding is none at all."""
    found = pattern(seen)
    return -LIFT_LOG10_MAX if found is None else found.lift_log10


RNG = np.random.default_rng(8)
SPREAD = hours(9, 14, 20, 33, 40, 46, 58, 62, 68, 81, 91)
"""Times over four days and all hours of the day."""


# Duration lock


@pytest.mark.parametrize("lock_s", [32.0, 437.0, 900.0, 1_800.0])
def test_calls_that_end_at_one_duration_are_a_lock(lock_s):
    lengths = lock_s + np.array([0.2, -0.3, 0.0, 0.4, -0.1])
    shorter = calls(SPREAD[:10], np.linspace(0.1, 0.9, 10) * lock_s)
    found = duration_lock(view(calls(SPREAD[:5], lengths, drop=1.0), shorter))
    assert found.lift_log10 > CLEAR_LOG10
    assert (found.dimension.name, found.dimension.value) == ("duration_s", str(round(lock_s)))


def test_three_drops_at_fifteen_minutes_are_no_accident_and_said_in_minutes():
    found = duration_lock(view(calls(SPREAD[:3], [900.4, 899.8, 900.1], drop=1.0)))
    assert found.lift_log10 > CLEAR_LOG10
    assert "15 minutes" in found.phrase


def test_drops_of_all_lengths_are_no_lock():
    for seed in range(20):
        assert lift(duration_lock, view(ordinary(np.random.default_rng(seed), 10, drop=1.0))) < CLEAR_LOG10


def test_drops_of_about_a_minute_are_no_lock():
    assert lift(duration_lock, view(calls(SPREAD[:6], [50, 54, 58, 62, 66, 70], drop=1.0))) < CLEAR_LOG10


def test_a_lock_that_good_calls_outlive_is_believed_less():
    bad = calls(SPREAD[:4], [300.0] * 4, drop=1.0)
    short = calls(hours(*range(10)), [40.0] * 10)
    long = calls(hours(*range(10)), [1_500.0] * 10)
    assert lift(duration_lock, view(bad, long)) < lift(duration_lock, view(bad, short)) - 2.0


def test_failed_attempts_have_no_length_to_be_cut_at():
    assert duration_lock(view(calls(SPREAD[:8], answered=False, setup=1.0))) is None


# Time of day


def test_bad_calls_of_the_evening_among_good_ones_of_the_day_are_a_time_of_day():
    bad = calls(hours(19.2, 20.5, 43.1, 44.9, 67.3, 69.0), drop=1.0)
    good = calls(hours(8, 10, 12, 15, 33, 36, 39, 57, 60, 63, 81, 85))
    found = time_of_day(view(bad, good))
    assert found.lift_log10 > CLEAR_LOG10
    first, past = (int(part) for part in found.dimension.value.split("-"))
    assert all((hour - first) % 24 < (past - first) % 24 for hour in (19.2, 20.5, 19.1, 20.9, 19.3, 21.0))


def test_a_window_may_run_over_midnight():
    bad = calls(hours(23.2, 24.5, 47.5, 48.7, 71.2, 72.9), drop=1.0)
    good = calls(hours(*np.arange(8, 90, 5.5)))
    found = time_of_day(view(bad, good))
    assert found.lift_log10 > CLEAR_LOG10
    assert found.dimension.value.startswith(("22", "23"))


def test_bad_calls_at_all_hours_are_no_time_of_day():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert lift(time_of_day, view(ordinary(rng, 10, drop=1.0), ordinary(rng, 14))) < CLEAR_LOG10


def test_trouble_that_began_two_hours_ago_is_no_time_of_day():
    bad = calls(hours(*np.linspace(19, 21, 8)), drop=1.0)
    assert time_of_day(view(bad, calls(hours(3, 8, 10, 12)))) is None


def test_who_calls_in_the_evening_alone_has_no_trouble_of_the_evening():
    bad = calls(hours(19.2, 20.5, 43.1, 44.9, 67.3, 69.0), drop=1.0)
    good = calls(hours(*(day * 24 + hour for day in range(4) for hour in (18.8, 19.7, 20.3, 21.2))))
    assert lift(time_of_day, view(bad, good)) < CLEAR_LOG10


def test_hours_are_those_of_the_customers_clock():
    tokyo, ahead_ms = local_time("Asia/Tokyo"), 9 * HOUR_MS
    bad = calls(hours(19.2, 20.5, 43.1, 44.9, 67.3, 69.0), drop=1.0)
    good = calls(hours(8, 10, 12, 15, 33, 36, 39, 57, 60, 63, 81, 85))
    wanted = time_of_day(view(bad, good))
    for kept in (bad, good):
        kept["end_ms"] -= ahead_ms
    found = time_of_day(view(bad, good, tokyo))
    assert found == replace(wanted, phrase=wanted.phrase.removesuffix(" UTC"))
    assert wanted.phrase.endswith(" UTC")


def test_one_evening_is_one_day_though_midnight_of_utc_falls_into_it():
    bad = calls(hours(*np.linspace(22.5, 25.5, 8)), drop=1.0)
    good = calls(hours(3, 8, 10, 12, 14))
    assert time_of_day(view(bad, good)) is not None
    assert time_of_day(view(bad, good, local_time("America/Los_Angeles"))) is None


@pytest.mark.parametrize("pattern", [time_of_day, route])
def test_what_is_made_again_has_no_hours_and_no_way(pattern):
    evenings = hours(19.2, 20.5, 43.1, 44.9, 67.3, 69.0)
    good = calls(hours(8, 10, 12, 15, 33, 36, 39, 57, 60, 63, 81, 85), trunk=3)
    assert pattern(view(calls(evenings, drop=1.0, trunk=7), good)).lift_log10 > CLEAR_LOG10
    assert pattern(view(calls(evenings, flags=REDIALLED, trunk=7), good)) is None


def among(one, other):
    """Calls of two sorts, in order of time."""
    both = np.concatenate([one, other])
    return both[np.argsort(both["end_ms"], kind="stable")]


def test_attempts_that_fail_at_all_hours_do_not_hide_drops_of_the_evening():
    drops = calls(hours(19.2, 20.5, 43.1, 44.9, 67.3, 69.0), drop=1.0)
    failures = calls(hours(8.5, 14.2, 34.1, 60.4), answered=False, setup=1.0)
    good = calls(hours(8, 10, 12, 15, 33, 36, 39, 57, 60, 63, 81, 85))
    found = time_of_day(view(among(drops, failures), good))
    assert found == time_of_day(view(drops, good))
    assert found.lift_log10 > CLEAR_LOG10


# Route


@pytest.mark.parametrize(
    ("name", "value", "there", "elsewhere"),
    [
        ("trunk", "trunk-7", {"trunk": 7}, {"trunk": 3}),
        ("sbc", "sbc-7", {"sbc": 7}, {"sbc": 3}),
        ("codec", "codec-7", {"codec": 7}, {"codec": 3}),
    ],
)
def test_bad_calls_on_one_way_among_good_ones_on_another_are_a_route(name, value, there, elsewhere):
    found = route(view(calls(SPREAD[:6], drop=1.0, **there), calls(SPREAD, **elsewhere)))
    assert found.lift_log10 > CLEAR_LOG10
    assert (found.dimension.name, found.dimension.value) == (name, value)


def test_calls_made_again_elsewhere_do_not_hide_drops_on_one_trunk():
    drops = calls(SPREAD[:6], drop=1.0, trunk=7)
    again = calls([time_ms + HOUR_MS for time_ms in SPREAD[:4]], trunk=3, flags=REDIALLED)
    found = route(view(among(drops, again), calls(SPREAD, trunk=3)))
    assert found == route(view(drops, calls(SPREAD, trunk=3)))
    assert found.lift_log10 > CLEAR_LOG10


def test_bad_calls_with_one_far_end_among_good_ones_with_others_are_a_route():
    found = route(view(calls(SPREAD[:6], drop=1.0, peers=99), calls(SPREAD)))
    assert found.lift_log10 > CLEAR_LOG10
    assert found.dimension.name == "peer_id"


def test_bad_calls_on_all_ways_alike_are_no_route():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bad, good = (calls(SPREAD, trunk=rng.integers(4, size=11), peers=rng.integers(1, 9, 11)) for _ in "ab")
        assert lift(route, view(bad, good)) < CLEAR_LOG10


def test_who_takes_one_way_only_has_no_trouble_of_that_way():
    assert route(view(calls(SPREAD[:8], drop=1.0, trunk=7, peers=0), calls(SPREAD, trunk=7, peers=0, codec=0))) is None
    assert route(view(calls(SPREAD[:8], drop=1.0, trunk=7, peers=0))) is None


def test_who_mostly_takes_one_way_has_little_trouble_of_that_way():
    good = calls(SPREAD, trunk=[7] * 10 + [3])
    assert lift(route, view(calls(SPREAD[:6], drop=1.0, trunk=7), good)) < CLEAR_LOG10


def test_ways_that_nobody_told_are_no_route():
    assert route(view(calls(SPREAD[:8], drop=1.0, codec=-1, peers=0), calls(SPREAD, codec=-1, peers=0))) is None


# What the bad calls are


SORTS = {
    one_way_audio: {"flags": ONE_WAY, "drop": 0.9},
    setup_failure: {"answered": False, "setup": 1.0},
    quality: {"flags": POOR},
    redial: {"flags": REDIALLED},
}


@pytest.mark.parametrize("pattern", SORTS, ids=lambda pattern: pattern.__name__)
def test_bad_calls_of_one_sort_are_named_after_it(pattern):
    bad = calls(SPREAD[:8], 60.0 + 40.0 * np.arange(8), **SORTS[pattern])
    found = read(view(bad, ordinary(RNG, 10)))
    assert found.kind == pattern.__name__
    assert found.lift_log10 > CLEAR_LOG10


@pytest.mark.parametrize("pattern", SORTS, ids=lambda pattern: pattern.__name__)
def test_bad_calls_of_another_sort_are_not(pattern):
    others = [sort for sort in SORTS if sort is not pattern]
    for other in others:
        assert lift(pattern, view(calls(SPREAD[:8], **SORTS[other]))) < 0
    assert lift(pattern, view(calls(SPREAD[:8], [70.0 + 50 * at for at in range(8)], drop=1.0))) < 0


@pytest.mark.parametrize("pattern", SORTS, ids=lambda pattern: pattern.__name__)
def test_a_few_of_a_sort_among_drops_do_not_name_it(pattern):
    bad = np.concatenate(
        [calls(SPREAD[:6], [70.0 + 50 * at for at in range(6)], drop=1.0), calls(SPREAD[6:8], **SORTS[pattern])]
    )
    assert lift(pattern, view(bad)) < CLEAR_LOG10


def test_a_dropped_call_with_poor_sound_or_made_again_is_a_drop():
    bad = calls(SPREAD[:8], drop=1.0, flags=POOR | REDIALLED)
    assert lift(quality, view(bad)) < 0
    assert lift(redial, view(bad)) < 0


# Worsening


def rising(count, days):
    """Times whose rate grows linearly from nothing: quantiles of the square."""
    return [MONDAY_MS + round(days * DAY_MS * float(np.sqrt(at / count))) for at in range(count + 1)]


EVERY_THREE_HOURS = calls([MONDAY_MS + at * 3 * HOUR_MS for at in range(8 * 8)], 70.0)
"""Good calls, as many on each of eight days."""


def test_bad_calls_that_come_ever_faster_are_worsening():
    assert lift(worsening, view(calls(rising(14, 8), drop=1.0), EVERY_THREE_HOURS)) > 0.5


def test_bad_calls_at_an_even_pace_are_not_worsening():
    even = [MONDAY_MS + round(at * 0.6 * DAY_MS) for at in range(14)]
    assert lift(worsening, view(calls(even, drop=1.0), EVERY_THREE_HOURS)) < 0.0


def test_bad_calls_that_come_ever_slower_are_not_worsening():
    fading = [2 * MONDAY_MS + 8 * DAY_MS - time for time in reversed(rising(14, 8))]
    assert lift(worsening, view(calls(fading, drop=1.0), EVERY_THREE_HOURS)) < -0.5


def test_more_bad_calls_on_days_of_more_calls_are_not_worsening():
    # Two bad calls of each ten, on days of ten, twenty, thirty calls.
    counts = np.repeat(np.arange(8), 10 * np.arange(1, 9))
    times = MONDAY_MS + counts * DAY_MS + np.arange(len(counts)) * MINUTE_MS
    bad = np.arange(len(times)) % 5 == 0
    assert lift(worsening, view(calls(times[bad], drop=1.0), calls(times[~bad], 70.0))) < 0.0


def test_a_burst_of_one_day_is_not_worsening():
    assert worsening(view(calls([MONDAY_MS + at * HOUR_MS for at in range(14)], drop=1.0))) is None


# All together


@st.composite
def views(draw):
    """Draw any calls that a history may hold."""
    sides = []
    for kept in (BAD_KEPT, GOOD_KEPT):
        count = draw(st.integers(0, kept))
        times = draw(st.lists(st.integers(0, 14 * DAY_MS), min_size=count, max_size=count))
        side = calls(MONDAY_MS + np.array(times, np.int64))
        side["duration_ms"] = draw(st.lists(st.integers(0, 2**31 - 1), min_size=count, max_size=count))
        side["flags"] = draw(st.lists(st.integers(0, 15), min_size=count, max_size=count))
        side["elements"] = draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count).map(np.array))[:, None]
        side["codec"], side["drop"] = draw(st.integers(-1, 3)), draw(st.sampled_from([0.0, 0.5, 1.0]))
        sides.append(side)
    if not len(sides[0]):
        sides[0] = calls([MONDAY_MS], drop=1.0)
    return view(*sides, now_ms=int(sides[0]["end_ms"].max()))


@given(views())
def test_whatever_the_calls_every_finding_is_a_finite_number_with_words(seen):
    for pattern in PATTERNS:
        found = pattern(seen)
        if found is not None:
            assert np.isfinite(found.lift_log10)
            assert found.lift_log10 <= LIFT_LOG10_MAX
            assert found.phrase
    named, added = read(seen), added_log10(seen.kept())
    assert np.isfinite(added)
    assert np.log10(0.5) <= added <= LIFT_LOG10_MAX
    assert named.kind == "drop_rate" or named.lift_log10 > 0


@given(views())
def test_what_structure_adds_is_the_mean_of_what_the_structures_say(seen):
    # A name for repeated durations that the evidence knows already adds nothing to it.
    known = [pattern for pattern in STRUCTURES if pattern is not duration_lock]
    lifts = [found.lift_log10 for pattern in known if (found := pattern(seen)) is not None]
    lifts += [lock] if np.isfinite(lock := duration_lock_log10(seen.kept())) else []
    ratios = sum(10.0**lift for lift in lifts) / len(STRUCTURES)
    assert added_log10(seen.kept()) == pytest.approx(np.log10(PLAIN_SHARE + (1 - PLAIN_SHARE) * ratios), abs=1e-9)


@given(views(), st.randoms(use_true_random=False))
def test_numbers_given_to_elements_and_codecs_change_nothing(seen, random):
    # Which number an element has depends on who called first: nothing that is said may depend on it.
    shuffled = list(range(-1, 3))
    order = {-1: -1, **dict(zip(shuffled[1:], random.sample(range(10, 20), 3), strict=True))}
    renamed = []
    for side in (seen.bad, seen.good):
        renamed.append(side.copy())
        renamed[-1]["elements"] = np.vectorize(order.__getitem__, otypes=[np.int32])(side["elements"])
    back = {new: old for old, new in order.items()}
    names = SimpleNamespace(element=lambda column, serial: NAMES.element(column, back[serial]), codec=NAMES.codec)
    known = {field.name: getattr(seen, field.name) for field in fields(View)}
    again = View(**(known | {"bad": renamed[0], "good": renamed[1], "habit": habit_of(renamed[1]), "names": names}))
    assert read(again).kind == read(seen).kind
    assert added_log10(again.kept()) == pytest.approx(added_log10(seen.kept()))


def test_a_plain_rise_of_the_rate_is_a_drop_rate():
    rng = np.random.default_rng(3)
    found = read(view(ordinary(rng, 8, drop=1.0, trunk=rng.integers(4, size=8)), ordinary(rng, 8)))
    assert (found.kind, found.dimension) == ("drop_rate", None)


@pytest.mark.parametrize(("bad", "good", "days"), [(3, 16, 3), (8, 16, 7), (16, 16, 14), (4, 0, 2)])
def test_looking_for_hours_ways_and_lengths_in_everybody_adds_nothing_in_the_mean(bad, good, days):
    # The mean likelihood ratio of what is not there is at most one: the price of having looked is paid. That of
    # `worsening` is one; the rest is room for the chance of 400 draws.
    rng = np.random.default_rng(bad)

    def lucky():
        more = {"trunk": rng.choice(4, bad, p=(0.5, 0.3, 0.1, 0.1)), "peers": rng.integers(1, 8, bad)}
        usual = {"trunk": rng.choice(4, good, p=(0.5, 0.3, 0.1, 0.1)), "peers": rng.integers(1, 8, good)}
        return view(ordinary(rng, bad, days=days, drop=1.0, **more), ordinary(rng, good, days=days, **usual))

    seen = [lucky() for _ in range(400)]
    for pattern in (duration_lock, time_of_day, route, worsening):
        assert np.mean([10.0 ** lift(pattern, one) for one in seen]) <= 1.25, pattern.__name__


# The arithmetic


@given(st.integers(0, 16), st.integers(0, 16), st.floats(0.05, 0.45), st.floats(0.5, 0.95))
def test_the_lift_of_a_share_is_the_ratio_of_two_binomials(hits, misses, usual, unusual):
    wanted = (unusual / usual) ** hits * ((1 - unusual) / (1 - usual)) ** misses
    assert 10 ** share_lift_log10(hits, hits + misses, usual, unusual) == pytest.approx(wanted)


@given(st.lists(st.floats(-12, 12), min_size=1, max_size=96))
def test_the_mean_of_logs_is_the_log_of_the_mean(values):
    assert mean_log10(np.array(values)) == pytest.approx(float(np.log10(np.mean(10.0 ** np.array(values)))), abs=1e-9)
