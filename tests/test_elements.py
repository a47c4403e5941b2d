"""Network elements: names and numbers, evidence against the definition, and who is to blame."""

from typing import NamedTuple

import numpy as np
import pytest
from engine_kit import DAY_MS, DROPPED, HOUR_MS, MINUTE_MS, MONDAY_MS, TROUBLE_MS, alerts, batch, call, run, telco
from hypothesis import given
from hypothesis import strategies as st
from state_kit import take, whole

from detectors import elements as module
from detectors.elements import (
    BAD_CALL,
    CALM_CALLS,
    CALM_DAYS,
    E_CHANNELS,
    E_DROP,
    ELEMENT,
    ELEMENTS_MAX,
    LOG_KEPT,
    RECOVERED_DAYS,
    RISES,
    TOLD,
    Elements,
    element_accrue,
    element_observe,
    element_p0,
    element_recover,
    element_total,
    firmware,
)
from detectors.evidence import EVIDENCE_MAX
from detectors.history import ELEMENTS, OF_LINE
from detectors.incidents import CUSTOMERS_MIN, Blame, Incidents
from detectors.roster import ROW
from detectors.watch.elements import complete_line
from schemas.kernels import loop
from schemas.text import CodeColumn

PLACE = st.none() | st.sampled_from(["a", "b", "c"])
CALLS = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys(("access_node", "trunk", "sbc", "region", "cpe_model", "cpe_firmware", "probe_id"), PLACE)
    ),
    max_size=12,
)


def name_of(kind, places):
    """What a call says of one kind of element; None where it says nothing."""
    if kind != "cpe_firmware":
        return places["probe_id" if kind == "probe" else kind]
    known = places["cpe_model"] is not None and places["cpe_firmware"] is not None
    return f"{places['cpe_model']}/{places['cpe_firmware']}" if known else None


def columns(drawn):
    return batch(call("c", MONDAY_MS + at, **places) for at, places in enumerate(drawn)).calls


# Names and numbers


@given(st.lists(CALLS, max_size=3))
def test_each_call_is_given_the_numbers_of_the_elements_it_names(batches):
    elements = Elements()
    for drawn in batches:
        table = elements.serials_of(columns(drawn))
        assert table.shape == (len(drawn), len(ELEMENTS))
        for row, places in zip(table.tolist(), drawn, strict=True):
            for serial, kind in zip(row, ELEMENTS, strict=True):
                name = name_of(kind, places)
                assert serial == -1 if name is None else elements.names[serial] == (kind, name)


@given(CALLS, st.integers(0, 12))
def test_an_element_has_one_number_however_calls_are_batched(drawn, cut):
    elements = Elements()
    both = [*elements.serials_of(columns(drawn[:cut])).tolist(), *elements.serials_of(columns(drawn[cut:])).tolist()]
    again = elements.serials_of(columns(drawn)).tolist()
    assert both == again
    assert len(set(elements.names)) == len(elements.names)


@given(st.lists(st.tuples(PLACE, PLACE), max_size=12))
def test_a_firmware_is_known_where_model_and_version_are(pairs):
    models, versions = ([pair[side] for pair in pairs] for side in (0, 1))
    joined = firmware(CodeColumn.of(models), CodeColumn.of(versions))
    assert [joined[row] for row in range(len(joined))] == [
        None if model is None or version is None else f"{model}/{version}" for model, version in pairs
    ]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.tuples(*[st.none() | st.integers(0, ELEMENTS_MAX - 1)] * 3)), max_size=20)
)
def test_a_call_that_does_not_tell_its_line_has_that_of_its_customers_last_call_that_did(told):
    rows, wanted = np.zeros(2, ROW), [dict.fromkeys(OF_LINE, -1), dict.fromkeys(OF_LINE, -1)]
    for customer, line in told:
        table = np.full((1, len(ELEMENTS)), -1, np.int32)
        for kind, serial in zip(OF_LINE, line, strict=True):
            if serial is not None:
                table[0, ELEMENTS.index(kind)] = wanted[customer][kind] = serial
        _complete_line(rows, customer, table)
        assert table[0].tolist() == [wanted[customer].get(kind, -1) for kind in ELEMENTS]


class Columns(NamedTuple):
    elements: np.ndarray


@loop
def _complete_line(rows, row, table):
    complete_line(rows[row], Columns(table), 0)


def test_elements_beyond_the_first_allocation_keep_their_state():
    elements = Elements()
    first = elements.serial("trunk", "t0")
    elements.network.elements[first]["drops"] = 7
    serials = [elements.serial("trunk", f"t{number}") for number in range(1_000)]
    assert serials == list(range(1_000))
    assert elements.network.elements[first]["drops"] == 7
    assert [elements.find("trunk", f"t{number}") for number in range(1_000)] == serials
    assert elements.find("sbc", "t0") == -1
    assert elements.network.elements[999]["since_ms"] == -1


def test_elements_beyond_the_limit_are_refused_and_counted(monkeypatch):
    monkeypatch.setattr(module, "ELEMENTS_MAX", 2)
    elements = Elements()
    assert [elements.serial("trunk", name) for name in ("a", "b", "c", "a")] == [0, 1, -1, 0]
    assert elements.refused_count == 1
    assert elements.serials_of(columns([{"trunk": "c"}]))[0, ELEMENTS.index("trunk")] == -1


# Evidence


def blank():
    return np.zeros(1, ELEMENT)[0]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(range(E_CHANNELS)), st.floats(0, 1)), max_size=60),
)
def test_an_elements_evidence_equals_the_definition(calls):
    one = blank()
    wanted, learnt = np.zeros((E_CHANNELS, len(RISES))), np.zeros((E_CHANNELS, 2))
    waiting, usual = np.zeros((E_CHANNELS, 2)), np.zeros((E_CHANNELS, 2))
    one["last_ms"], now_ms, seen_ms = -1, MONDAY_MS, [None] * E_CHANNELS
    for gap_days, channel, x in calls:
        now_ms += round(gap_days * 86_400_000)
        days = 0.0 if seen_ms[channel] is None else min((now_ms - seen_ms[channel]) / 86_400_000, 1.0)
        seen_ms[channel] = now_ms
        assert element_accrue(one, channel, now_ms) == pytest.approx(days)
        p0 = element_p0(channel, *learnt[channel], usual[channel])
        before = usual[channel].copy()
        value = element_observe(one, channel, x, days, usual[channel])
        assert (usual[channel] - before).tolist() == pytest.approx([1.0, x])
        p1 = p0 + (1 - p0) * np.array(RISES)
        wanted[channel] += days
        wanted[channel] = np.minimum(wanted[channel] * (x * p1 / p0 + (1 - x) * (1 - p1) / (1 - p0)), EVIDENCE_MAX)
        assert value == pytest.approx(wanted[channel].mean(), rel=1e-3, abs=1e-30)
        assert value == element_total(one, channel)
        waiting[channel] += (1, x)
        if value < max(CALM_DAYS, CALM_CALLS * days):
            learnt[channel] += waiting[channel]
            waiting[channel] = 0.0
    np.testing.assert_allclose(one["evidence"], wanted, rtol=1e-3, atol=1e-30)
    np.testing.assert_allclose(np.stack([one["count"], one["weight"]], 1), learnt, rtol=1e-4, atol=1e-30)


def test_an_elements_p0_leaves_room_for_how_its_customers_differ():
    for mean in (0.005, 0.01, 0.02):
        usual = np.array([50_000.0, mean * 50_000.0])
        assert mean < element_p0(E_DROP, 5_000.0, mean * 5_000, usual) < 2 * mean


def test_a_new_element_is_expected_to_be_like_the_others_of_its_kind():
    for mean in (0.002, 0.008, 0.03):
        usual = np.array([50_000.0, mean * 50_000.0])
        assert mean < element_p0(E_DROP, 0.0, 0.0, usual) < 2 * mean + 0.01


@pytest.mark.parametrize("channel", range(E_CHANNELS))
def test_no_elements_trouble_becomes_its_normal(channel):
    usual = np.array([50_000.0, 0.01 * 50_000.0])
    assert element_p0(channel, 20_000.0, 0.5 * 20_000.0, usual) < (0.05, 0.15, 0.22)[channel]


def test_an_ordinary_element_among_excellent_ones_has_its_own_normal():
    usual = np.array([200_000.0, 0.0])
    assert 0.015 < element_p0(E_DROP, 20_000.0, 0.015 * 20_000.0, usual) < 0.03


def test_what_a_slow_fault_spoils_does_not_become_normal_while_it_is_being_found():
    one, usual, rng = blank(), np.array([50_000.0, 500.0]), np.random.default_rng(4)
    calls = 0
    while element_total(one, E_DROP) < 1e5:
        x = float(rng.random() < 0.10)
        value = element_observe(one, E_DROP, x, element_accrue(one, E_DROP, MONDAY_MS + calls * 5 * MINUTE_MS), usual)
        assert value == element_total(one, E_DROP)
        calls += 1
    assert calls < 400
    assert element_p0(E_DROP, one["count"][E_DROP], one["weight"][E_DROP], usual) < 0.03


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), max_size=60))
def test_the_evidence_that_an_incident_is_over_equals_the_definition(calls):
    one, wanted = blank(), 0.0
    one["recovery_p"], one["recovery_p0"] = still, healed = np.float32(0.4), np.float32(0.01)
    for x, days in calls:
        wanted = min((wanted + days) * (x * healed / still + (1 - x) * (1 - healed) / (1 - still)), EVIDENCE_MAX)
        assert element_recover(one, x, days) == pytest.approx(wanted, rel=1e-3, abs=1e-30)


@pytest.mark.parametrize("calls_a_day", [50, 5_000])
def test_an_incident_that_goes_on_is_hardly_ever_called_over_however_many_calls_it_has(calls_a_day):
    rng, over, days = np.random.default_rng(3), 0, 40
    for _ in range(5):
        one = blank()
        one["recovery_p"], one["recovery_p0"] = 0.10, 0.01
        for x in (rng.random(days * calls_a_day) < 0.2).astype(float).tolist():
            over += element_recover(one, x, 1.0 / calls_a_day) >= RECOVERED_DAYS
            one["recovery"] %= RECOVERED_DAYS
    assert over <= 5 * days / RECOVERED_DAYS


def test_what_somebody_else_raised_is_over_when_they_say_so():
    one = blank()
    one["recovery_p"] = TOLD
    assert max(element_recover(one, 0.0, 1.0) for _ in range(100)) == 0.0


@pytest.mark.parametrize("count", [0, 5, LOG_KEPT - 1, LOG_KEPT, LOG_KEPT + 7])
def test_the_latest_bad_calls_are_told_oldest_first_before_and_after_a_restart(count):
    elements = Elements()
    for number in range(count):
        elements.network.log[number % LOG_KEPT]["end_ms"] = number
    elements.network.tally[0] = count
    wanted = list(range(max(0, count - LOG_KEPT), count))
    assert elements.recent_bad_calls()["end_ms"].tolist() == wanted
    other = take(Elements(), whole(elements))
    assert other.recent_bad_calls()["end_ms"].tolist() == wanted
    assert other.recent_bad_calls().dtype == BAD_CALL


def test_a_restored_registry_is_the_same():
    elements = Elements()
    elements.serials_of(columns([{"trunk": "a", "sbc": "b"}, {"trunk": "c"}]))
    elements.network.elements["drops"][:3] = 1, 2, 3
    elements.network.usual[:] = np.arange(elements.network.usual.size).reshape(elements.network.usual.shape)
    other = Elements()
    other.serial("region", "of another life")
    take(other, whole(elements))
    assert other.names == elements.names
    assert other.find("trunk", "c") == elements.find("trunk", "c")
    assert other.network.elements["drops"][:4].tolist() == [1, 2, 3, 0]
    np.testing.assert_array_equal(other.network.usual, elements.network.usual)


# Who is to blame


def incidents(envelopes):
    opened = [one["data"] for one in envelopes if one["type"] == "stayline.incident.opened"]
    return [(one["element_kind"], one["element_id"]) for one in opened]


@pytest.mark.parametrize(
    ("kind", "name", "broken"),
    [
        ("access_node", "node-1", lambda places: places["access_node"] == "node-1"),
        ("trunk", "trunk-2", lambda places: places["trunk"] == "trunk-2"),
        ("region", "region-0", lambda places: places["region"] == "region-0"),
        ("cpe_firmware", "box/2.0", lambda places: places["cpe_firmware"] == "2.0"),
    ],
)
def test_the_element_that_fails_is_blamed_and_hardly_ever_another(kind, name, broken):
    blamed = [incidents(run(telco(seed, broken))) for seed in range(8)]
    assert all(blamed), "every outage must be seen"
    # At the moment of detection a region and its busier node may differ by a single call.
    assert sum(one == [(kind, name)] for one in blamed) >= 7


@pytest.mark.parametrize("seed", range(4))
def test_without_a_shared_fault_nothing_is_blamed(seed):
    assert incidents(run(telco(seed, lambda _: False))) == []


def test_an_incident_keeps_its_counts_when_another_opens_that_its_calls_ran_through():
    elements = Elements()
    region, node, trunk = (elements.serial(kind, kind) for kind in ("region", "access_node", "trunk"))
    found = Incidents("test", elements)
    calls = np.zeros(4, BAD_CALL)
    calls["elements"], calls["elements"][:, :3] = -1, (region, node, trunk)
    array = elements.network.elements
    for opened in (region, node):
        array["since_ms"][[region, node, trunk]], array["answered"][[region, node, trunk]] = MONDAY_MS, 9
        array["drops"][[region, node, trunk]] = 7
        found.start(Blame(opened, E_DROP, MONDAY_MS, 1.0, calls), MONDAY_MS + MINUTE_MS)
        assert array["drops"][[opened, trunk]].tolist() == [7, 0]
    assert array["drops"][[region, node]].tolist() == [7, 7]


def test_one_bad_line_with_many_calls_does_not_blame_its_node():
    events = telco(1, lambda _: False)
    places = {"access_node": "node-1", "region": "region-1", "trunk": "trunk-0"}
    bad = [call("office", MONDAY_MS + DAY_MS + at * MINUTE_MS, dropped=True, **places) for at in range(600)]
    told = run(sorted([*events, *bad], key=lambda event: event["end_ms"]))
    assert incidents(told) == []
    assert alerts(told, "office")


def test_a_few_bad_lines_of_one_node_are_their_own_trouble():
    events = telco(2, lambda _: False, drop_ratio=0.0)
    bad = [
        call(f"neighbour {who}", MONDAY_MS + DAY_MS + at * HOUR_MS + who * MINUTE_MS, access_node="node-1", **DROPPED)
        for at in range(24)
        for who in range(CUSTOMERS_MIN - 1)
    ]
    told = run(sorted([*events, *bad], key=lambda event: event["end_ms"]))
    assert incidents(told) == []
    assert len(alerts(told)) == CUSTOMERS_MIN - 1


# How long blame lasts


def test_an_incident_ends_where_only_a_few_bad_lines_keep_it_open_and_those_are_told_of():
    places = {"access_node": "node-1", "region": "region-1"}
    hours = range(1, 24 * 3)
    bad = [
        call(f"office {who}", TROUBLE_MS + at * HOUR_MS + who * MINUTE_MS, dropped=True, **places)
        for at in hours
        for who in range(CUSTOMERS_MIN - 1)
    ]
    good = [call(f"c{1 + at % 20 * 4}", TROUBLE_MS + at * HOUR_MS, **places) for at in hours]
    told = run(
        [*telco(1, lambda at: at["access_node"] == "node-1"), *sorted([*bad, *good], key=lambda one: one["end_ms"])]
    )
    assert [one["type"].rpartition(".")[2] for one in told if "incident" in one["type"]] == ["opened", "cleared"]
    assert {one["data"]["customer_id"] for one in alerts(told)} == {f"office {who}" for who in range(CUSTOMERS_MIN - 1)}


@pytest.mark.parametrize("suffer", [CUSTOMERS_MIN - 1, CUSTOMERS_MIN])
@pytest.mark.parametrize("logged", [LOG_KEPT - 1, LOG_KEPT])
def test_an_incident_is_reviewed_once_a_day_by_the_customers_who_suffer_from_it(suffer, logged):
    elements = Elements()
    node = elements.serial("access_node", "node")
    found = Incidents("test", elements)
    elements.network.elements["answered"][node] = 1
    incident = found.start(Blame(node, E_DROP, MONDAY_MS, 1.0, np.zeros(0, BAD_CALL)), MONDAY_MS)
    review_ms = found.next_due_ms(-1)
    assert review_ms == MONDAY_MS + DAY_MS
    assert found.faded(review_ms - 1) == []
    elements.network.log["elements"], elements.network.log["end_ms"] = -1, review_ms
    elements.network.log["elements"][: 2 * suffer, 0] = node
    elements.network.log["signs"][: 2 * suffer, E_DROP] = 1.0
    elements.network.log["key"][: 2 * suffer] = np.repeat(np.arange(suffer), 2)
    elements.network.tally[0] = logged
    # A log that is full, and of less than a day, does not say who else suffered.
    over = suffer < CUSTOMERS_MIN and logged < LOG_KEPT
    assert found.faded(review_ms) == [incident] * over
    assert found.next_due_ms(-1) == review_ms + DAY_MS


# What customers inside are told


def not_set_up(event):
    """The same attempt, refused by the network before anybody could answer."""
    return event | {"answer_ms": None, "q850": 38, "sip_status": 503, "released_by": "network"}


def test_a_trunk_that_sets_up_no_call_is_blamed_and_nobody_behind_it_is():
    events = [
        not_set_up(event) if event["trunk"] == "trunk-2" and event["end_ms"] >= TROUBLE_MS else event
        for event in telco(3, lambda _: False)
    ]
    told = run(events)
    assert incidents(told) == [("trunk", "trunk-2")]
    assert alerts(told) == []
    shared = next(one["data"] for one in told if one["type"] == "stayline.incident.opened")
    assert (
        f"{shared['drops']} of {shared['attempts']} call attempts through trunk trunk-2 were not set up"
        in (shared["text"])
    )


def test_nobody_inside_is_told_of_calls_that_do_not_say_where_they_ran():
    before = [call("c", MONDAY_MS + at * HOUR_MS, access_node="node-1", region="region-1") for at in range(1, 40)]
    inside = [call("c", TROUBLE_MS + (40 + 3 * at) * MINUTE_MS, dropped=True) for at in range(6)]
    nowhere = [call("d", event["end_ms"], dropped=True) for event in inside]
    shared = telco(9, lambda places: places["access_node"] == "node-1")
    told = run(sorted([*shared, *before, *inside, *nowhere], key=lambda event: event["end_ms"]))
    assert incidents(told) == [("access_node", "node-1")]
    # Of whom nobody ever told a line, nobody knows that he is inside.
    assert [one["data"]["customer_id"] for one in alerts(told)] == ["d"]


def slow_firmware(seed, rate, days=6):
    """Write the calls of many, one in four of whom has a firmware from the second day on that drops a few calls."""
    rng = np.random.default_rng(seed)
    events = []
    for customer in range(120):
        for at in np.sort(rng.random(rng.poisson(4 * days)) * days * DAY_MS).astype(int).tolist():
            new = customer % 4 == 0 and at > 2 * DAY_MS
            places = {
                "cpe_model": "box",
                "cpe_firmware": "2.0" if new else "1.0",
                "access_node": f"node-{customer % 7}",
            }
            bad = rng.random() < (rate if new else 0.006)
            events.append(call(f"c{customer}", MONDAY_MS + at, dropped=bad, **places))
    return sorted(events, key=lambda event: event["end_ms"])


@pytest.mark.parametrize("seed", range(4))
def test_cases_wait_for_a_fault_that_shows_slowly_and_nobody_inside_it_has_one(seed):
    told = run(slow_firmware(seed, 0.2))
    assert incidents(told) == [("cpe_firmware", "box/2.0")]
    assert alerts(told) == []


def test_a_case_far_worse_than_the_fault_around_it_is_told():
    places = {"cpe_model": "box", "cpe_firmware": "2.0", "access_node": "node-0"}
    own = [call("own", MONDAY_MS + 2 * DAY_MS + at * HOUR_MS, dropped=True, **places) for at in range(1, 9)]
    events = sorted([*slow_firmware(1, 0.2, days=3), *own], key=lambda event: event["end_ms"])
    told = [one for one in run(events) if one["type"] == "stayline.alert.opened"]
    assert [one["data"]["customer_id"] for one in told] == ["own"]


def test_a_case_told_before_its_incident_is_handed_over_to_it():
    # One line takes the whole fault first; the others meet it a day later.
    places = {"cpe_model": "box", "cpe_firmware": "2.0"}
    start = MONDAY_MS + 3 * DAY_MS
    events = [event for event in slow_firmware(5, 0.006) if event["end_ms"] < start]
    events += [call("first", start + at * HOUR_MS, dropped=True, **places) for at in range(1, 6)]
    events += [
        call(f"c{4 * who}", start + 6 * HOUR_MS + at * HOUR_MS + who * MINUTE_MS, dropped=at % 3 == 0, **places)
        for at in range(6)
        for who in range(30)
    ]
    told = run(sorted(events, key=lambda event: event["end_ms"]))
    shared = next(one["data"]["incident_id"] for one in told if one["type"] == "stayline.incident.opened")
    mine = [one for one in told if one["subject"] == "first"]
    assert (mine[0]["type"], mine[-1]["type"]) == ("stayline.alert.opened", "stayline.alert.resolved")
    assert [one["data"]["incident_id"] for one in mine] == [None] * (len(mine) - 1) + [shared]
    assert mine[-1]["data"]["cause"]["kind"] == "shared_outage"
