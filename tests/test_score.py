"""The detection table, against small truths whose marks are known by hand."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.score import (
    DAY_MS,
    HOUR_MS,
    Case,
    Fault,
    Outage,
    Telco,
    Truth,
    grade,
    healthy_days,
    is_hard_drop,
    read_drops,
    render,
    score,
    three_in_seven,
    to_builtins,
)
from bench.simulator import TelcoSpec, simulate
from schemas.alerts import rfc3339
from schemas.errors import InputError

START_MS = 1_767_571_200_000
TELCO = {"type": "telco", "customers": 10, "days": 10, "start_ms": START_MS, "end_ms": START_MS + 10 * DAY_MS}


def at(days):
    return START_MS + round(days * DAY_MS)


def fault(customer, begin, end, *bad, pattern="drop_rate"):
    return {
        "type": "fault",
        "customer_id": customer,
        "pattern": pattern,
        "start_ms": at(begin),
        "end_ms": at(end),
        "bad_end_ms": [at(day) for day in bad],
    }


def outage(element, begin, end, drops, *customers, kind="access_node"):
    return {
        "type": "outage",
        "element_kind": kind,
        "element_id": element,
        "start_ms": at(begin),
        "end_ms": at(end),
        "drops": drops,
        "customers": list(customers),
    }


def liar(probe, begin, end):
    return {"type": "probe_fault", "probe_id": probe, "start_ms": at(begin), "end_ms": at(end), "calls": 9}


def note(kind, day, **data):
    return {"specversion": "1.0", "id": "x", "type": f"stayline.{kind}", "time": rfc3339(at(day)), "data": data}


def alert(alert_id, customer, day, pattern="drop_rate", step="opened"):
    revision, named = round(day * 100), {"kind": pattern}
    return note(f"alert.{step}", day, alert_id=alert_id, revision=revision, customer_id=customer, pattern=named)


def incident(element, day, kind="access_node", step="opened"):
    return note(f"incident.{step}", day, incident_id="i", element_kind=kind, element_id=element)


def drop(customer, day, call_id=None, **changes):
    call = {
        "type": "call",
        "call_id": call_id or f"{customer}-{day}",
        "customer_id": customer,
        "start_ms": at(day) - 60_000,
        "answer_ms": at(day) - 50_000,
        "end_ms": at(day),
        "sip_status": 503,
        "q850": 41,
        "released_by": "network",
    }
    return call | changes


@pytest.fixture
def marks(tmp_path):
    """Score records given as Python objects."""

    def run(truth, alerts=(), events=()):
        for name, records in (("truth", [TELCO, *truth]), ("alerts", alerts), ("events", events)):
            (tmp_path / f"{name}.ndjson").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
        return score(tmp_path / "alerts.ndjson", tmp_path / "truth.ndjson")

    return run


# Own faults


def test_an_alert_during_the_fault_finds_it(marks):
    table = marks([fault("a", 2, 4, 2.1, 2.5, 3.5)], [alert("1", "a", 3)])
    assert (table.faults, table.stayline.found, table.stayline.recall) == (1, 1, 1.0)
    assert table.stayline.false_alerts == 0
    assert table.stayline.bad_calls.median == 2
    assert table.stayline.hours.median == pytest.approx(24.0)


@pytest.mark.parametrize(("day", "found"), [(1.99, 0), (2.0, 1), (4.0, 1), (5.0, 1), (5.01, 0)])
def test_a_fault_can_be_found_until_a_day_after_its_end(marks, day, found):
    table = marks([fault("a", 2, 4, 2.1, 2.5, 3.5)], [alert("1", "a", day)])
    assert (table.stayline.found, table.stayline.false_alerts) == (found, 1 - found)


def test_a_fault_of_two_bad_calls_does_not_count_but_excuses_its_alert(marks):
    table = marks([fault("a", 2, 4, 2.1, 2.5)], [alert("1", "a", 3)])
    assert (table.faults, table.stayline.found, table.stayline.recall) == (0, 0, None)
    assert table.stayline.false_alerts == 0


def test_the_first_alert_measures_the_delay_and_later_ones_are_not_false(marks):
    truth = [fault("a", 2, 6, 2.1, 2.5, 3.5, 4.5)]
    table = marks(truth, [alert("2", "a", 5), alert("1", "a", 3)])
    assert (table.stayline.alerts, table.stayline.found, table.stayline.false_alerts) == (2, 1, 0)
    assert table.stayline.bad_calls.median == 2


def test_a_notification_delivered_twice_counts_once(marks):
    table = marks([], [alert("1", "a", 3), alert("1", "a", 3)])
    assert (table.stayline.alerts, table.stayline.false_alerts) == (1, 1)


def test_a_notification_that_comes_again_late_takes_nothing_back(marks):
    truth = [fault("a", 2, 4, 2.1, 2.5, 3.5, pattern="route")]
    opened, updated = alert("1", "a", 3), alert("1", "a", 3.5, "route", "updated")
    assert marks(truth, [opened, updated, opened]).stayline.named_right == 1.0


def test_another_customers_alert_finds_nothing(marks):
    table = marks([fault("a", 2, 4, 2.1, 2.5, 3.5)], [alert("1", "b", 3)])
    assert (table.stayline.found, table.stayline.false_alerts) == (0, 1)


def test_false_alerts_are_counted_per_ten_thousand_healthy_days(marks):
    # A hundred customer-days, less four of the fault and one of grace.
    table = marks([fault("a", 2, 6, 2.1, 2.5, 3.5)], [alert("1", "b", 3), alert("2", "c", 3)])
    assert table.healthy_days == pytest.approx(95.0)
    assert table.stayline.false_per_10k_days == pytest.approx(2 / 95 * 10_000)


def test_the_latest_kind_named_before_the_faults_end_is_the_one_that_counts(marks):
    truth = [fault("a", 2, 4, 2.1, 2.5, 3.5, pattern="route")]
    told = [
        alert("1", "a", 3),
        alert("1", "a", 3.5, "route", "updated"),
        alert("1", "a", 4.5, "quality", "updated"),
    ]
    assert marks(truth, told).stayline.named_right == 1.0
    assert marks(truth, [*told[:1], *told[2:]]).stayline.named_right == 0.0
    assert marks(truth, told).stayline.named["route"] == {"route": 1}


def test_an_alert_after_the_fault_is_judged_by_what_it_opened_with(marks):
    truth = [fault("a", 2, 4, 2.1, 2.5, 3.5, pattern="redial")]
    told = [alert("1", "a", 4.2, "redial"), alert("1", "a", 4.6, "quality", "updated")]
    assert marks(truth, told).stayline.named_right == 1.0


def test_what_was_missed_shows_in_the_confusion(marks):
    table = marks([fault("a", 2, 4, 2.1, 2.5, 3.5), fault("b", 2, 4, 2.1, 2.5, 3.5)], [alert("1", "a", 3, "route")])
    assert table.stayline.named["drop_rate"] == {"route": 1, "missed": 1}
    assert table.stayline.recall == 0.5


def test_resolving_an_alert_opens_nothing(marks):
    table = marks([], [alert("1", "a", 3), alert("1", "a", 8, step="resolved")])
    assert table.stayline.alerts == 1


# Shared trouble


@pytest.mark.parametrize(("customer", "day", "inside"), [("a", 2.05, 1), ("a", 3.0, 1), ("a", 3.2, 0), ("b", 2.05, 0)])
def test_alerts_for_customers_of_an_outage_are_counted_apart(marks, customer, day, inside):
    table = marks([outage("n", 2, 2.1, 50, "a")], [alert("1", customer, day)])
    assert (table.stayline.inside_outage, table.stayline.false_alerts) == (inside, 1 - inside)


def test_ones_own_fault_comes_before_the_outage(marks):
    truth = [fault("a", 2, 4, 2.1, 2.5, 3.5), outage("n", 2, 3, 50, "a")]
    table = marks(truth, [alert("1", "a", 2.6)])
    assert (table.stayline.found, table.stayline.inside_outage) == (1, 0)


def test_victims_of_a_lying_probe_are_false_alerts(marks):
    table = marks([liar("p", 2, 3)], [alert("1", "a", 2.5, "quality")])
    assert table.stayline.false_alerts == 1


def test_an_incident_finds_its_outage_only_while_it_lasts_and_by_its_name(marks):
    truth = [outage("n", 2, 2.1, 50, "a"), outage("m", 2, 2.1, 30), outage("small", 2, 2.1, 29)]
    told = [incident("n", 2.05), incident("m", 2.5), incident("small", 2.05), incident("n", 5), incident("x", 2.05)]
    shared = marks(truth, told).incidents
    assert (shared.outages, shared.found, shared.false_incidents) == (2, 1, 2)
    assert shared.minutes.median == pytest.approx(72.0)


def test_a_firmware_is_not_a_node_of_the_same_name(marks):
    shared = marks([outage("n", 2, 3, 50, kind="cpe_firmware")], [incident("n", 2.5)]).incidents
    assert (shared.found, shared.false_incidents) == (0, 1)


def test_a_lying_probe_is_named_by_an_incident_of_its_own(marks):
    truth = [liar("p", 2, 3), liar("q", 2, 3)]
    shared = marks(truth, [incident("p", 2.5, "probe"), incident("q", 8, "probe")]).incidents
    assert (shared.probes, shared.probes_named, shared.false_incidents) == (2, 1, 1)


def test_clearing_an_incident_opens_nothing(marks):
    assert marks([], [incident("n", 2, step="cleared")]).incidents.false_incidents == 0


# The rule


def rule_by_definition(ends):
    """Walk through time hour by hour and look at the count, as the rule's words say."""
    alerts, alerted = [], False
    for now_ms in range(0, max(ends, default=0) + 1, HOUR_MS):
        count = sum(now_ms - 7 * DAY_MS < end_ms <= now_ms for end_ms in ends)
        if count < 3:
            alerted = False
        elif not alerted:
            alerted = True
            alerts.append(now_ms)
    return alerts


@given(st.lists(st.integers(0, 120), max_size=25))
def test_the_rule_alerts_as_its_words_say(steps):
    # Seven days are no multiple of five hours: no drop ends just when another leaves the count.
    ends = sorted(step * 5 * HOUR_MS for step in steps)
    assert [case.opened_ms for case in three_in_seven({"a": ends})] == rule_by_definition(ends)


def test_the_rule_is_graded_beside_stayline(marks):
    events = [drop("a", day) for day in (2.1, 2.5, 3.5)] + [drop("b", day) for day in (1, 2, 3)]
    table = marks([fault("a", 2, 4, 2.1, 2.5, 3.5)], (), events)
    assert (table.three_in_seven.found, table.three_in_seven.false_alerts) == (1, 1)
    assert table.three_in_seven.bad_calls.median == 3
    assert table.three_in_seven.named_right is None
    assert table.stayline.found == 0


def test_the_rule_counts_a_call_once_in_whatever_order_it_comes(tmp_path):
    path = tmp_path / "events.ndjson"
    calls = [
        drop("a", 3),
        drop("a", 1),
        drop("a", 3.00001, call_id="a-3"),
        {"type": "call", "released_by": "network"},
    ]
    path.write_bytes(b"\n".join(orjson.dumps(call) for call in calls) + b'\n{"released_by":"network"\n\n')
    assert read_drops(path) == {"a": [at(1), at(3)]}


@pytest.mark.parametrize(
    ("changes", "hard"),
    [
        ({}, True),
        ({"answer_ms": None}, False),
        ({"released_by": "peer"}, False),
        ({"released_by": None}, False),
        ({"q850": 16}, False),
        ({"q850": 31}, False),
        ({"q850": None}, True),
        ({"q850": None, "sip_status": 200}, False),
        ({"q850": None, "sip_status": None}, False),
        ({"q850": 102, "sip_status": 200}, True),
        ({"end_ms": 5}, False),
        ({"end_ms": "soon"}, False),
        ({"customer_id": None}, False),
        ({"type": "media"}, False),
    ],
)
def test_a_hard_drop_is_an_answered_call_that_the_network_ended_abnormally(changes, hard):
    assert is_hard_drop(drop("a", 1, **changes)) is hard


# Healthy time


spans = st.tuples(st.integers(-5, 250), st.integers(0, 100)).map(lambda span: (span[0], span[0] + span[1]))


@given(st.lists(spans, max_size=4), st.lists(spans, max_size=4))
def test_healthy_days_leave_out_exactly_the_time_in_which_no_alert_is_false(own, shared):
    telco = Telco(customers=2, days=10, start_ms=0, end_ms=10 * DAY_MS)
    faults = [Fault("a", "redial", begin * HOUR_MS, end * HOUR_MS, []) for begin, end in own]
    outages = [Outage("trunk", "t", begin * HOUR_MS, end * HOUR_MS, 40, ["a"]) for begin, end in shared]
    truth = Truth(telco, faults, outages, [])
    moments = [hour * HOUR_MS + HOUR_MS // 2 for hour in range(240)]
    false = sum(grade(truth, [Case("a", moment)]).false_alerts for moment in moments)
    assert healthy_days(truth) == pytest.approx(10 + false / 24)


# Files


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"type":"stayline.alert.opened"}',
        b'{"type":"other","time":"2026-01-05T00:00:00Z","data":{}}',
        b'{"type":"stayline.alert.opened","time":"today","data":{}}',
        b'{"type":"stayline.alert.opened","time":"2026-01-05T00:00:00Z","data":{"alert_id":"1"}}',
        b'{"type":"stayline.incident.opened","time":"2026-01-05T00:00:00Z","data":{"element_kind":4}}',
        b'{"type":"\xff"}',
        orjson.dumps(alert("never-opened", "a", 3, step="updated")),
    ],
)
def test_a_malformed_alert_is_named_by_its_line(marks, tmp_path, line):
    marks([])
    alerts = tmp_path / "alerts.ndjson"
    alerts.write_bytes(orjson.dumps(alert("1", "a", 3)) + b"\n\n" + line + b"\n")
    with pytest.raises(InputError, match=r"alerts\.ndjson:3: must "):
        score(alerts, tmp_path / "truth.ndjson")


def test_a_malformed_truth_is_named_by_its_line(marks):
    with pytest.raises(InputError, match=r"truth\.ndjson:2: must be a line of the truth"):
        marks([{"type": "fault"}])


@pytest.mark.parametrize("telcos", [0, 2])
def test_a_truth_speaks_of_one_telco(marks, tmp_path, telcos):
    marks([])
    truth = tmp_path / "truth.ndjson"
    truth.write_bytes((orjson.dumps(TELCO) + b"\n") * telcos)
    with pytest.raises(InputError, match=f"one telco line, found {telcos}"):
        score(tmp_path / "alerts.ndjson", truth)


@pytest.mark.parametrize("name", ["alerts", "truth", "events"])
def test_a_missing_file_is_named(marks, tmp_path, name):
    marks([])
    (tmp_path / f"{name}.ndjson").unlink()
    with pytest.raises(InputError, match=rf"{name}\.ndjson: must be readable"):
        score(tmp_path / "alerts.ndjson", tmp_path / "truth.ndjson")


# The table


def test_the_table_fits_a_terminal_of_a_hundred_columns(marks):
    truth = [
        fault("a", 2, 4, 2.1, 2.5, 3.5, pattern="one_way_audio"),
        outage("n", 2, 2.1, 50, "b"),
        liar("p", 2, 3),
    ]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(render(marks(truth, [alert("1", "a", 3, "one_way_audio")], [drop("b", 2.01)])))
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "…" not in text
    assert all(words in text for words in ("stayline", "three_in_seven", "one_way_audio 1", "0 of 1"))


def test_the_table_as_json_holds_the_same_numbers(marks):
    table = marks([fault("a", 2, 4, 2.1, 2.5, 3.5)], [alert("1", "a", 3)])
    plain = orjson.loads(orjson.dumps(to_builtins(table)))
    assert plain["stayline"]["recall"] == 1.0
    assert plain["three_in_seven"]["bad_calls"] == {"median": None, "p90": None}


def test_an_oracle_scores_full_marks_on_a_simulated_telco(tmp_path):
    run = simulate(TelcoSpec(customers=400, days=6, seed=3), tmp_path)
    alerts = []
    for line in run.truth_path.read_bytes().splitlines():
        record = orjson.loads(line)
        if record["type"] == "fault" and len(record["bad_end_ms"]) >= 3:
            day = (record["bad_end_ms"][2] - START_MS) / DAY_MS
            alerts.append(alert(record["fault_id"], record["customer_id"], day, record["pattern"]))
        elif record["type"] == "outage":
            day = (record["start_ms"] - START_MS) / DAY_MS + 0.01
            alerts.append(incident(record["element_id"], day, record["element_kind"]))
        elif record["type"] == "probe_fault":
            day = (record["start_ms"] - START_MS) / DAY_MS + 0.01
            alerts.append(incident(record["probe_id"], day, "probe"))
    path = tmp_path / "alerts.ndjson"
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in alerts))
    table = score(path, run.truth_path)
    marks, shared = table.stayline, table.incidents
    assert table.faults >= 3
    assert (marks.found, marks.recall, marks.named_right) == (table.faults, 1.0, 1.0)
    assert (marks.false_alerts, marks.inside_outage, marks.bad_calls.p90) == (0, 0, 3.0)
    assert (shared.found, shared.false_incidents, shared.probes_named) == (shared.outages, 0, shared.probes)
    assert table.three_in_seven.recall < 1.0
