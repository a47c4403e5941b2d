"""Traps that detectors fall into, each a test: small numbers, learnt trouble, and sources that err."""

import numpy as np
import pytest
from engine_kit import (
    DAY_MS,
    DROPPED,
    HOUR_MS,
    MINUTE_MS,
    MONDAY_MS,
    alerts,
    batch,
    call,
    engine,
    habit,
    run,
    told,
)


def days_of(events):
    """Days since the beginning at which alerts opened."""
    return [(one["data"]["detected_ms"] - MONDAY_MS) / DAY_MS for one in alerts(run(events))]


def dropping(rng, events, ratio):
    """Let events drop at a ratio that is a function of the day."""
    chances = [ratio((one["end_ms"] - MONDAY_MS) / DAY_MS) for one in events]
    return [one | DROPPED if rng.random() < chance else one for one, chance in zip(events, chances, strict=True)]


def victim(start_ms=MONDAY_MS + 2 * DAY_MS, calls=40, **fields):
    """Two quiet days, then every second call drops, an hour apart."""
    quiet = [call("victim", MONDAY_MS + at * HOUR_MS, **fields) for at in range(48)]
    bad = [call("victim", start_ms + at * HOUR_MS, dropped=at % 2 == 0, **fields) for at in range(1, calls + 1)]
    return quiet + bad


# Small numbers


@pytest.mark.parametrize("calls_a_day", [5, 80])
def test_trap_three_drops_in_a_hundred_calls_at_one_in_a_hundred_are_chance(calls_a_day):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        events = habit("c", 8_000 / calls_a_day / 10, calls_a_day, rng, drop_ratio=0.01)
        latest = events[-100:]
        for one in latest:
            one |= {"q850": 16, "released_by": "customer"}
        for at in rng.choice(100, 3, replace=False).tolist():
            latest[at] |= DROPPED
        assert days_of(events) == []


def test_trap_the_first_call_ever_may_drop():
    assert days_of([call("c", MONDAY_MS, dropped=True)]) == []
    followed = [call("c", MONDAY_MS + at * HOUR_MS, dropped=at == 0) for at in range(30)]
    assert days_of(followed) == []


def test_trap_the_first_call_of_everybody_may_drop():
    assert days_of([call(f"c{who}", MONDAY_MS + who * MINUTE_MS, dropped=True) for who in range(500)]) == []


def test_trap_a_call_centre_of_eighty_calls_a_day_has_drops_every_day():
    for seed in range(4):
        assert days_of(habit("centre", 60, 80, np.random.default_rng(seed), drop_ratio=0.01)) == []


def test_trap_a_call_centre_in_real_trouble_is_still_seen():
    rng = np.random.default_rng(5)
    events = dropping(rng, habit("centre", 40, 80, rng), lambda day: 0.01 if day < 30 else 0.15)
    found = days_of(events)
    assert found
    assert 30 < found[0] < 32


# Learnt trouble


def test_trap_a_baseline_is_not_poisoned_by_a_slow_ramp():
    for calls_a_day in (5, 20, 80):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            ramp = lambda day: 0.01 + 0.24 * max(0.0, day - 20) / 60  # noqa: E731  one line says it
            found = days_of(dropping(rng, habit("c", 80, calls_a_day, rng), ramp))
            assert found, f"{calls_a_day} calls a day, seed {seed}"
            assert found[0] > 20


def test_trap_a_baseline_is_not_frozen_after_a_level_shift():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        events = dropping(rng, habit("c", 120, 20, rng), lambda day: 0.005 if day < 60 else 0.025)
        fresh = engine()
        said = alerts(told(fresh.apply(batch(events))))
        # Slightly worse for good is the new normal: it is learnt, and nobody is called about it day after day.
        assert len(said) <= 1
        standing = fresh.standing("c")
        assert standing is not None
        _, healthy_mean, _ = standing.channels["drop"]
        assert 0.012 < healthy_mean < 0.05


def test_trap_trouble_of_one_month_does_not_hide_that_of_the_next():
    bad = [call("c", MONDAY_MS + at * HOUR_MS, dropped=at % 3 == 0) for at in range(30)]
    good = [call("c", MONDAY_MS + 3 * DAY_MS + at * 4 * HOUR_MS) for at in range(120)]
    again = [call("c", MONDAY_MS + 25 * DAY_MS + at * HOUR_MS, dropped=at % 3 == 0) for at in range(30)]
    found = days_of([*bad, *good, *again])
    assert len(found) == 2
    assert found[1] > 25


# Sources that err


def skewed(events, seed):
    """Let each record's probe have a clock up to two seconds off; records arrive by their own clocks."""
    rng = np.random.default_rng(seed)
    for one in events:
        off_ms = int(rng.integers(-2_000, 2_001))
        one |= {name: one[name] + off_ms for name in ("start_ms", "answer_ms", "end_ms")}
    return events


def test_trap_clocks_two_seconds_off_change_no_case():
    on_time, off = (run(events) for events in (victim(), skewed(victim(), 1)))
    assert len(alerts(on_time)) == len(alerts(off)) == 1
    assert alerts(on_time)[0]["data"]["pattern"]["kind"] == alerts(off)[0]["data"]["pattern"]["kind"]
    assert alerts(on_time)[0]["data"]["pattern"]["drops"] == alerts(off)[0]["data"]["pattern"]["drops"]


def test_trap_two_probes_two_seconds_apart_count_a_call_once():
    events = victim()
    twins = [
        one | {"start_ms": one["start_ms"] - off, "answer_ms": one["answer_ms"] - off, "end_ms": one["end_ms"] - off}
        for one, off in zip(events, np.random.default_rng(2).integers(-2_000, 2_001, len(events)).tolist(), strict=True)
    ]
    fresh, plain = engine(), engine()
    said = fresh.apply(batch(one for pair in zip(events, twins, strict=True) for one in pair))
    assert said == plain.apply(batch(events))
    assert (fresh.counts.applied, fresh.counts.duplicate) == (len(events), len(events))


def test_trap_clocks_two_seconds_off_hide_no_lock_and_make_none():
    lock = [call("c", MONDAY_MS + at * HOUR_MS, talk_s=900.0 if at % 3 == 0 else 40.0 + at) for at in range(30)]
    said = run(skewed(lock, 3))
    assert len(alerts(said)) == 1
    assert said[-1]["data"]["pattern"]["kind"] == "duration_lock"
    healthy = habit("c", 30, 20, np.random.default_rng(4), drop_ratio=0.005)
    assert alerts(run(skewed(healthy, 4))) == []


def test_trap_a_probe_that_repeats_every_call_makes_nothing_worse():
    healthy = habit("centre", 20, 80, np.random.default_rng(6), drop_ratio=0.01)
    for events in (victim(), healthy):
        twice, once = engine(), engine()
        said = twice.apply(batch(one for event in events for one in (event, event | {"probe_id": "second"})))
        assert [one["id"] for one in told(said)] == [one["id"] for one in told(once.apply(batch(events)))]
        assert (twice.counts.applied, twice.counts.duplicate) == (len(events), len(events))


def test_trap_twelve_hours_of_late_data_raise_nothing_and_are_counted():
    rng = np.random.default_rng(7)
    events = sorted(
        (one for who in range(40) for one in habit(f"c{who}", 4, 8, rng, drop_ratio=0.01)),
        key=lambda one: one["end_ms"],
    )
    down_ms, up_ms = MONDAY_MS + 2 * DAY_MS, MONDAY_MS + 2 * DAY_MS + 12 * HOUR_MS
    # Every third record of these hours lies in a probe that cannot be reached; all come when it can.
    held = [one for at, one in enumerate(events) if down_ms <= one["end_ms"] < up_ms and at % 3 == 0]
    ids = {one["call_id"] for one in held}
    before = [one for one in events if one["call_id"] not in ids and one["end_ms"] < up_ms]
    after = [one for one in events if one["end_ms"] >= up_ms]
    fresh = engine()
    assert fresh.apply(batch([*before, *held, *after])) == []
    assert fresh.counts.applied + fresh.counts.late == len(events)
    assert 0 < fresh.counts.late <= len(held)


def test_trap_twelve_hours_of_late_data_hide_no_trouble():
    events = victim(calls=60)
    late = [call(f"c{who}", MONDAY_MS + at * HOUR_MS) for who in range(20) for at in range(36, 48)]
    prompt = [call(f"c{who}", MONDAY_MS + 48 * HOUR_MS) for who in range(20)]
    middle = len(events) - 40
    plain, crossed = (run(one) for one in (events, [*events[:middle], *prompt, *late, *events[middle:]]))
    assert [one["data"]["pattern"] for one in alerts(crossed)] == [one["data"]["pattern"] for one in alerts(plain)]
    assert len(alerts(crossed)) == 1


def test_the_first_poor_calls_of_somebody_new_do_not_become_what_is_usual():
    good = [call("a", MONDAY_MS + at * HOUR_MS, codec="PCMA", loss_ratio=0.002) for at in range(5)]
    poor = [call("a", MONDAY_MS + (10 + at) * HOUR_MS, codec="PCMA", loss_ratio=0.055) for at in range(5)]
    one = engine(false_alarm_days=1e12)
    one.apply(batch([*good, *poor]))
    assert one.standing("a").channels["quality"][0] > 1_000.0
