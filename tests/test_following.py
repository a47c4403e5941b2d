"""Open cases that the loop follows by itself, held against Python that sees each of their bad calls."""

from collections import Counter

import numpy as np
import pytest
from engine_kit import DAY_MS, MONDAY_MS, batch, call, engine, habit, told
from hypothesis import given
from test_patterns import views

import detectors.casework
from detectors.following import hand_over
from detectors.patterns import KINDS, NAME_FROM_LOG10, PATTERNS, PLAIN, STRUCTURES, named

TROUBLES = ("lock", "route", "sound", "plain")
SIZE = 400


def trouble(sort, bad, rng):
    """What a call of somebody with this trouble says."""
    if sort == "lock" and bad:
        return {"talk_s": 900.0 + rng.random(), "dropped": True}
    if sort == "route":
        return {"dropped": bad, "trunk": "t1" if bad else f"t{rng.integers(4)}"}
    if sort == "sound":
        return {"codec": "PCMA", "loss_ratio": 0.2 if bad else 0.0, "rtt_ms": 40.0, "jitter_ms": 2.0}
    return {"dropped": bad}


@pytest.fixture(scope="module")
def lives():
    """A month of two dozen customers: trouble of each sort that comes, grows or not, and goes."""
    rng = np.random.default_rng(7)
    events = []
    for number in range(24):
        name = f"c{number}"
        events += habit(name, 30, 8, rng, drop_ratio=0.01)
        begin_ms, days, ratio = rng.integers(3, 9) * DAY_MS, rng.integers(4, 12), rng.choice([0.1, 0.3, 0.6])
        for at_ms in (rng.random(int(days * 12)) * days * DAY_MS).astype(int).tolist():
            fields = trouble(TROUBLES[number % 4], bool(rng.random() < ratio), rng)
            events.append(call(name, MONDAY_MS + int(begin_ms) + at_ms, **fields))
    return sorted(events, key=lambda event: (event["end_ms"], event["call_id"]))


def applied(events, reports=(), *, restarts=False):
    """Apply events, with reports of what came of the newest alert between them; return all that is told."""
    one, bodies, alerts = engine(), [], []
    for at in range(0, len(events), SIZE):
        if restarts:
            state, one = one.snapshot(), engine()
            one.restore(state)
        fed = [batch(events[at : at + SIZE])]
        fed += [batch([report(alerts[-1], fed_at, result)]) for fed_at, result in reports if fed_at == at and alerts]
        for some in fed:
            told_now = one.apply(some)
            bodies += [each.body for each in told_now]
            alerts += [each["data"] for each in told(told_now) if "alert.opened" in each["type"]]
    return bodies + [each.body for each in one.finish()]


def report(alert, number, result):
    remedy_id = alert["remedies"][0]["remedy_id"] if alert["remedies"] else None
    at_ms = alert["detected_ms"] + number
    return {"type": "outcome", "alert_id": alert["alert_id"], "at_ms": at_ms, "result": result, "remedy_id": remedy_id}


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("result", [None, "accepted", "fixed"])
def test_a_case_that_the_loop_follows_is_told_as_one_whose_every_bad_call_is_looked_at(
    lives, monkeypatch, result, restarts
):
    reports = [] if result is None else [(at, result) for at in range(0, len(lives), 3 * SIZE)]
    looks = Counter()

    def counted(name, leave):
        def handed(memory, case):
            hand_over(memory, case)
            looks[name] += 1
            if leave:
                memory.histories.shelf.items[memory.history_of(case.customer)]["case"]["kind"] = 0

        return handed

    monkeypatch.setattr(detectors.casework, "hand_over", counted("followed", leave=False))
    said = applied(lives, reports, restarts=restarts)
    monkeypatch.setattr(detectors.casework, "hand_over", counted("seen", leave=True))
    assert applied(lives, reports) == said
    assert all(word.encode() in b"".join(said) for word in ("alert.opened", "alert.updated", "alert.resolved"))
    assert looks["seen"] > 1.5 * looks["followed"]


@given(views())
def test_the_pattern_that_names_a_trouble_is_the_likeliest_structure_or_a_likelier_sort(seen):
    found = {place: finding for place, pattern in enumerate(PATTERNS) if (finding := pattern(seen)) is not None}
    place = named(seen.kept())
    assert place == PLAIN or found[place].kind == KINDS[place]
    sorts = [one.lift_log10 for at, one in found.items() if at >= len(STRUCTURES)]
    assert max(sorts, default=-1.0) <= (NAME_FROM_LOG10 if place == PLAIN else found[place].lift_log10)


def test_the_kinds_are_those_of_the_patterns_in_their_order_and_a_plain_one():
    assert (*(pattern.__name__ for pattern in PATTERNS), "drop_rate") == KINDS
