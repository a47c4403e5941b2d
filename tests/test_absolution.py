"""What more becomes known of a call: that it ran through an outage, that its parties talked again at once."""

import pytest
from engine_kit import DAY_MS, HOUR_MS, MONDAY_MS, batch, call, engine

from detectors.incidents import OpenIncident
from schemas.text import key_of

OUTAGE_MS = MONDAY_MS + 5 * DAY_MS


def watched(own_drops):
    """An engine that knows a customer of five quiet days, some own drops, and two in an hour on trunk-1."""
    quiet = [call("a", MONDAY_MS + at * HOUR_MS, trunk="trunk-0") for at in range(100)]
    own = [call("a", OUTAGE_MS - at * HOUR_MS, dropped=True, trunk="trunk-0") for at in range(own_drops, 0, -1)]
    shared = [call("a", OUTAGE_MS + at * 20_000, dropped=True, trunk="trunk-1") for at in (1, 2)]
    one = engine(false_alarm_days=1e12)
    one.apply(batch([*quiet, *own, *shared]))
    return one


def absolved(one):
    """Let the engine learn that trunk-1 has failed; return the customer's row."""
    memory = one.memory
    element = memory.elements.find("trunk", "trunk-1")
    incident = OpenIncident(1, "in_1", element, OUTAGE_MS + HOUR_MS, OUTAGE_MS, 0, 0.01, 3.0)
    one.casework.absolve(memory.roster.find(key_of("a")), incident)
    return memory.row_of(key_of("a"))


def test_an_outage_takes_its_own_calls_back_and_leaves_the_customers_trouble():
    with_outage, without = watched(own_drops=2), watched(own_drops=2)
    before = with_outage.standing("a").evidence_days
    absolved(with_outage)
    after = with_outage.standing("a")
    assert 1.0 < after.evidence_days < before / 20
    assert [one.end_ms for one in after.calls] == [OUTAGE_MS - 2 * HOUR_MS, OUTAGE_MS - HOUR_MS]
    assert after.since_ms == without.standing("a").since_ms == OUTAGE_MS - 2 * HOUR_MS


def test_what_is_left_is_at_most_what_there_would_be_had_the_outage_not_been():
    untouched = engine(false_alarm_days=1e12)
    quiet = [call("a", MONDAY_MS + at * HOUR_MS, trunk="trunk-0") for at in range(100)]
    untouched.apply(batch([*quiet, *(call("a", OUTAGE_MS - at * HOUR_MS, dropped=True) for at in (2, 1))]))
    one = watched(own_drops=2)
    absolved(one)
    assert one.standing("a").evidence_days <= 1.2 * untouched.standing("a").evidence_days


def test_who_had_nothing_but_the_outage_begins_anew():
    one = watched(own_drops=0)
    row = absolved(one)
    assert (row["evidence"] == 0.0).all()
    assert one.memory.note_of(row)["history"] == -1


def silent_end(peer_again, gap_s=20):
    """Evidence of the drop channel after two calls that ended in silence, each followed by one to somebody."""
    events = [call("a", MONDAY_MS + at * HOUR_MS) for at in range(40)]
    for at in (41, 43):
        end_ms = MONDAY_MS + at * HOUR_MS
        events.append(call("a", end_ms, peer_id="friend", silence_ms=9_000))
        talk_s = 30.0 + at
        again_ms = end_ms + gap_s * 1_000 + 5_000 + round(talk_s * 1_000)
        events.append(call("a", again_ms, talk_s=talk_s, peer_id=peer_again))
    one = engine(false_alarm_days=1e12)
    one.apply(batch(events))
    return one.standing("a").channels["drop"][0]


@pytest.mark.parametrize(("peer", "gap_s"), [("somebody else", 20), ("friend", 1_200)])
def test_a_call_made_again_at_once_confirms_the_silence_that_the_one_before_ended_in(peer, gap_s):
    assert silent_end("friend") > 3.0 * silent_end(peer, gap_s)


def test_a_redial_behind_a_dropped_call_is_no_second_sign():
    def redial_evidence(dropped):
        end_ms = MONDAY_MS + 50 * HOUR_MS
        quiet = [call("a", MONDAY_MS + at * HOUR_MS) for at in range(50)]
        pair = [call("a", end_ms, peer_id="friend", dropped=dropped)]
        pair.append(call("a", end_ms + 60_000, talk_s=35.0, peer_id="friend"))
        one = engine(false_alarm_days=1e12)
        one.apply(batch([*quiet, *pair]))
        return one.standing("a").channels["redial"][0]

    assert redial_evidence(dropped=True) < redial_evidence(dropped=False)


def test_of_calls_that_follow_one_another_to_the_same_far_end_the_first_alone_counts():
    def redial_evidence(calls_in_a_row):
        begin_ms = MONDAY_MS + 50 * HOUR_MS
        quiet = [call("a", MONDAY_MS + at * HOUR_MS) for at in range(50)]
        row = [call("a", begin_ms + at * 60_000, talk_s=35.0, peer_id="friend") for at in range(calls_in_a_row)]
        one = engine(false_alarm_days=1e12)
        one.apply(batch([*quiet, *row]))
        return one.standing("a").channels["redial"][0]

    assert redial_evidence(2) > 5.0 * redial_evidence(1)
    assert redial_evidence(3) == pytest.approx(redial_evidence(2), rel=1e-3)
