"""The engine keeps the contract's promises: same output however it is fed, stopped and started; nothing lost."""

import math
import re
from collections import Counter, defaultdict
from itertools import pairwise

import msgspec
import orjson
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from engine_kit import (
    CATALOGUE,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    MONDAY_MS,
    TROUBLE_MS,
    alerts,
    batch,
    call,
    engine,
    run,
    telco,
    told,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bench.simulator import TelcoSpec, simulate
from detectors.casebook import CALLS_SHOWN
from detectors.engine import RiskEngine, Settings
from schemas.alerts import NotificationType, rfc3339
from schemas.decode import decode
from schemas.errors import StateError

TROUBLED = TelcoSpec(
    customers=240,
    days=6,
    seed=1,
    faulty_ratio=0.35,
    outage_scale=4.0,
    late_ratio=0.01,
    duplicate_ratio=0.03,
    broken_ratio=0.01,
    media_report_ratio=0.05,
    churn_month_ratio=0.3,
)
"""A small telco in which everything goes wrong within a week."""

LONELY = TelcoSpec(customers=300, days=7, seed=5, faulty_ratio=0.4, outage_scale=0.0, late_ratio=0.0, broken_ratio=0.0)
"""One in which nothing goes wrong for several customers at once."""


def lines_of(spec, tmp_path_factory):
    return simulate(spec, tmp_path_factory.mktemp("telco")).events_path.read_bytes().splitlines()


@pytest.fixture(scope="session")
def stream(tmp_path_factory):
    """The lines of a troubled telco, in order of arrival."""
    return lines_of(TROUBLED, tmp_path_factory)


@pytest.fixture(scope="session")
def whole(stream):
    """What an engine says of the stream when it gets it in one piece."""
    fresh = engine()
    said = [*fresh.apply(decode(b"\n".join(stream))), *fresh.finish()]
    return said, fresh


def feed(fresh, lines, cuts=()):
    """Give an engine lines in pieces; return what it said."""
    said = []
    for begin, end in pairwise([0, *sorted(cuts), len(lines)]):
        said += fresh.apply(decode(b"\n".join(lines[begin:end])))
    return said


def counted(calls, method):
    """Count the calls of a method."""

    def counting(*given):
        calls[method.__name__] += 1
        return method(*given)

    return counting


def reborn(old, **known):
    """Start a new engine from what the old one keeps, through the bytes of a checkpoint."""
    other = engine(**known)
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(old.snapshot())))
    return other


def kept(one):
    """All that an engine would keep, as bytes."""
    return msgspec.msgpack.encode(one.snapshot())


# Whatever the batches


def test_the_stream_holds_something_of_everything(whole):
    said, fresh = whole
    assert {one.type for one in said} == set(NotificationType.__args__)
    assert len(alerts(told(said))) >= 10
    assert fresh.memory.casebook.taken_over_count > 0
    assert min(fresh.counts.applied, fresh.counts.duplicate, fresh.counts.late, fresh.counts.dead_lettered) > 0


@settings(max_examples=8)
@given(data=st.data())
def test_the_same_events_say_the_same_bytes_whatever_the_batches(stream, whole, data):
    cuts = data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=60))
    fresh = engine()
    assert [*feed(fresh, stream, cuts), *fresh.finish()] == whole[0]
    assert fresh.counts == whole[1].counts


def test_one_event_at_a_time_says_the_same_bytes(stream, whole):
    fresh = engine()
    said = feed(fresh, stream[:2_000])
    said += feed(fresh, stream[2_000:4_500], range(1, 2_500))
    assert said == whole[0][: len(said)]
    assert len(said) > 10


def test_the_loop_stops_for_every_case_that_a_look_at_each_bad_call_would_open(stream, whole, monkeypatch):
    fresh = engine()
    monkeypatch.setattr(fresh, "_limits", fresh._limits._replace(open_log10=-math.inf))
    looks = Counter()
    monkeypatch.setattr(fresh.casework, "look", counted(looks, fresh.casework.look))
    assert [*feed(fresh, stream), *fresh.finish()] == whole[0]
    assert looks["look"] > 2 * len(alerts(told(whole[0])))


def test_empty_batches_change_nothing(stream):
    fresh = engine()
    feed(fresh, stream[:500])
    before = kept(fresh)
    assert fresh.apply(decode(b"")) == []
    assert kept(fresh) == before


# Whatever the restarts


@settings(max_examples=5)
@given(data=st.data())
def test_an_engine_restored_says_what_one_never_stopped_says(stream, whole, data):
    stops = sorted(data.draw(st.sets(st.integers(0, len(stream)), min_size=1, max_size=3)))
    one, said = engine(), []
    for begin, end in pairwise([0, *stops, len(stream)]):
        said += feed(one, stream[begin:end])
        one = reborn(one)
    assert [*said, *one.finish()] == whole[0]
    assert one.counts == whole[1].counts


def test_a_restored_engine_keeps_what_the_old_one_kept(stream):
    old = engine()
    feed(old, stream[: len(stream) // 2])
    assert kept(reborn(old)) == kept(old)
    assert reborn(old).clock_ms == old.clock_ms >= MONDAY_MS


def test_a_snapshot_does_not_follow_the_engine(stream):
    fresh = engine()
    feed(fresh, stream[:4_000])
    state = fresh.snapshot()
    before = msgspec.msgpack.encode(state)
    feed(fresh, stream[4_000:])
    assert msgspec.msgpack.encode(state) == before


@pytest.mark.parametrize(("name", "value", "word"), [("layout", 999, "layout"), ("deployment", "east", "east")])
def test_a_state_of_another_layout_or_deployment_is_refused(name, value, word):
    with pytest.raises(StateError, match=word):
        engine().restore(engine().snapshot() | {name: value})


# Nothing is lost, nothing counts twice


def test_every_record_is_applied_duplicate_late_or_dead(stream, whole):
    counts = whole[1].counts
    assert counts.applied + counts.duplicate + counts.late + counts.dead_lettered == len(stream)


def test_what_is_dead_is_what_the_decoder_refuses(stream, whole):
    assert whole[1].counts.dead_lettered == len(decode(b"\n".join(stream)).rejects)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 4)), max_size=30))
def test_a_call_reported_twice_counts_once(drawn):
    calls = [call(f"c{who}", MONDAY_MS + at * HOUR_MS, dropped=bad) for at, (who, bad, _, _) in enumerate(drawn)]
    both = [(2 * at, one) for at, one in enumerate(calls)]
    # The second report comes up to four calls of anybody's later.
    both += [
        (2 * (at + late) + 1, one)
        for at, (one, (*_, twice, late)) in enumerate(zip(calls, drawn, strict=True))
        if twice
    ]
    fresh = engine()
    said = fresh.apply(batch(one for _, one in sorted(both, key=lambda pair: pair[0])))
    assert fresh.counts.duplicate == len(both) - len(calls)
    assert said == engine().apply(batch(calls))


@settings(max_examples=15)
@given(st.data())
def test_a_call_that_comes_too_late_is_counted_and_changes_nothing(data):
    calls = [call(f"c{at % 2}", MONDAY_MS + at * HOUR_MS, dropped=at % 3 > 0) for at in range(30)]
    mixed = list(calls)
    count = data.draw(st.integers(1, 5))
    for number in range(count):
        place = data.draw(st.integers(2, len(mixed)))
        who = mixed[place - 1]["customer_id"]
        newest_ms = max(one["end_ms"] for one in mixed[:place] if one["customer_id"] == who)
        behind_ms = data.draw(st.integers(300_001, DAY_MS))
        mixed.insert(place, call(who, newest_ms - behind_ms, call_id=f"late {number}", dropped=True))
    fresh, punctual = engine(), engine()
    assert fresh.apply(batch(mixed)) == punctual.apply(batch(calls))
    assert fresh.counts.late == count
    assert fresh.counts.applied == punctual.counts.applied == len(calls)


def test_a_call_a_little_out_of_order_is_applied():
    fresh = engine()
    fresh.apply(batch([call("a", MONDAY_MS), call("a", MONDAY_MS - 299_000), call("a", MONDAY_MS - 1_000)]))
    assert (fresh.counts.applied, fresh.counts.late) == (3, 0)


def test_a_lateness_allowed_by_the_configuration_is_allowed():
    calls = [call("a", MONDAY_MS), call("a", MONDAY_MS - 2 * HOUR_MS)]
    patient, strict = engine(lateness_s=7_200), engine(lateness_s=60)
    patient.apply(batch(calls))
    strict.apply(batch(calls))
    assert (patient.counts.late, strict.counts.late) == (0, 1)


# One customer alone


def alone(envelope):
    """What an alert says that concerns its customer alone: all but what is learnt from others."""
    data = envelope["data"]
    shared = {"churn", "value_at_risk_minor", "incident_id", "remedies"}
    offers = [(remedy["remedy_id"], remedy["credit"]) for remedy in data["remedies"] if remedy["credit"] is not None]
    return {name: value for name, value in data.items() if name not in shared} | {"credits": offers}


def lives(envelopes):
    """Cases by id: since when and how they were detected; and what was said of those that were not held back.

    A case whose elements look suspicious waits for an incident that others may be in too. It then opens with what
    the customer's calls of that hour have added.
    """
    cases = defaultdict(list)
    for one in envelopes:
        if one["type"].startswith("stayline.alert"):
            cases[one["data"]["alert_id"]].append(one)
    detected = {case: (said[0]["data"]["since_ms"], said[0]["data"]["detected_ms"]) for case, said in cases.items()}
    at_once = {
        case: [alone(one) for one in said]
        for case, said in cases.items()
        if said[0]["time"] == rfc3339(said[0]["data"]["detected_ms"])
    }
    return detected, at_once


def test_what_concerns_one_customer_alone_is_the_same_without_the_others(tmp_path_factory):
    lines = lines_of(LONELY, tmp_path_factory)
    by_customer = defaultdict(list)
    for line in lines:
        by_customer[orjson.loads(line).get("customer_id")].append(line)
    detected, at_once = lives(run(lines))
    victims = {one["subject"] for one in alerts(run(lines))}
    lonely = [lives(run(by_customer[victim])) for victim in victims]
    assert {case: times for cases, _ in lonely for case, times in cases.items()} == detected
    said_alone = {case: said for _, cases in lonely for case, said in cases.items()}
    both = at_once.keys() & said_alone.keys()
    assert len(both) >= 5
    assert {case: at_once[case] for case in both} == {case: said_alone[case] for case in both}


# The contract


TEXT, INT, RATIO, MS = (
    {"type": "string"},
    {"type": "integer"},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "integer", "minimum": 0},
)
COUNT = {"type": "integer", "minimum": 0}


def exactly(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def maybe(schema):
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema, most=None):
    return {"type": "array", "items": schema} | ({} if most is None else {"maxItems": most})


KINDS = [
    "drop_rate",
    "duration_lock",
    "time_of_day",
    "route",
    "one_way_audio",
    "redial",
    "quality",
    "setup_failure",
    "worsening",
]
PATTERN = exactly(
    kind={"enum": KINDS}, text=TEXT | {"minLength": 10}, attempts=COUNT, answered=COUNT, drops=COUNT, drop_ratio=RATIO,
    baseline_ratio=RATIO, evidence={"type": "number"}, dimension=maybe(exactly(name=TEXT, value=TEXT)),
)  # fmt: skip
CHURN = exactly(
    probability=RATIO, band={"enum": ["low", "raised", "high"]}, baseline=RATIO,
    drivers=listed(exactly(feature=TEXT, effect={"type": "number"}, text=TEXT)), model=TEXT,
)  # fmt: skip
CURRENCY = {"type": "string", "pattern": "^[A-Z]{3}$"}
CREDIT = exactly(amount_minor=COUNT, currency=CURRENCY, basis=TEXT, calls=listed(TEXT, CALLS_SHOWN))
REMEDY = exactly(
    remedy_id=TEXT, title=TEXT, say=TEXT, why=TEXT, cost_minor=INT, expected_gain_minor=INT, credit=maybe(CREDIT),
    needs_approval={"type": "boolean"}, partner_id=maybe(TEXT),
)  # fmt: skip
CHOICE = exactly(action=TEXT, propensity=RATIO, text=TEXT)
FOLLOW_UP = exactly(remedy_id=TEXT, since_ms=MS, until_ms=MS, verdict={"enum": ["watching", "failed"]})
ORDER = exactly(
    order_id=TEXT, remedy_id=TEXT, title=TEXT, ordered_ms=MS, cost_minor=COUNT, credit=maybe(CREDIT),
    needs_approval={"type": "boolean"}, partner_id=maybe(TEXT),
)  # fmt: skip
MOS = maybe({"type": "number", "minimum": 1, "maximum": 5})
SHOWN = exactly(call_id=TEXT, end_ms=MS, outcome=TEXT, duration_ms=COUNT, mos=MOS)
GOOD = exactly(end_ms=MS, duration_ms=COUNT, mos=MOS)
ALERT = exactly(
    alert_id=TEXT, revision={"type": "integer", "minimum": 1}, customer_id=TEXT,
    severity={"enum": ["minor", "major", "critical"]}, detected_ms=MS, since_ms=MS, pattern=PATTERN,
    cause=exactly(kind=TEXT, confidence=RATIO, alternatives=listed(TEXT)), incident_id=maybe(TEXT), churn=CHURN,
    value_at_risk_minor=maybe(COUNT), currency=maybe(CURRENCY), remedies=listed(REMEDY),
    calls=listed(SHOWN, CALLS_SHOWN), region=maybe(TEXT), segment=maybe(TEXT),
    value_basis=maybe(TEXT), choice=maybe(CHOICE), follow_up=maybe(FOLLOW_UP), order=maybe(ORDER),
    previous_alert_id=maybe(TEXT), good_calls=listed(GOOD, CALLS_SHOWN),
)  # fmt: skip
ELEMENT_KINDS = ["customer_line", "access_node", "trunk", "sbc", "cell", "region", "probe", "cpe_firmware"]
INCIDENT = exactly(
    incident_id=TEXT, revision={"type": "integer", "minimum": 1}, element_kind={"enum": ELEMENT_KINDS}, element_id=TEXT,
    detected_ms=MS, since_ms=MS, cleared_ms=maybe(MS), customers_affected=COUNT, drops=COUNT, attempts=COUNT,
    drop_ratio=RATIO, baseline_ratio=RATIO, evidence={"type": "number"}, text=TEXT | {"minLength": 10},
)  # fmt: skip


def envelope_schema(kinds, data):
    return exactly(
        specversion={"const": "1.0"}, id=TEXT, source={"const": "/stayline/test"}, type={"enum": kinds}, time=TEXT,
        subject=TEXT, datacontenttype={"const": "application/json"}, data=data,
    )  # fmt: skip


CONTRACT = Draft202012Validator(
    {
        "oneOf": [
            envelope_schema([f"stayline.alert.{word}" for word in ("opened", "updated", "resolved")], ALERT),
            envelope_schema([f"stayline.incident.{word}" for word in ("opened", "cleared")], INCIDENT),
        ]
    }
)


def test_the_schema_refuses_what_the_contract_does_not_know(whole):
    body = orjson.loads(whole[0][0].body)
    assert not CONTRACT.is_valid(body | {"type": "stayline.alert.closed"})
    assert not CONTRACT.is_valid(body | {"data": body["data"] | {"extra": 1}})
    assert not CONTRACT.is_valid(
        body | {"data": {name: value for name, value in body["data"].items() if name != "since_ms"}}
    )


def test_every_notification_fits_the_contract(whole):
    for one in whole[0]:
        CONTRACT.validate(orjson.loads(one.body))


def test_every_notification_is_a_cloud_event(whole):
    for one in whole[0]:
        event = JSONFormat().read(CloudEvent, one.body)
        assert (event.get_id(), event.get_type(), event.get_source()) == (one.id, one.type, "/stayline/test")
        assert event.get_time().timestamp() * 1_000 == pytest.approx(one.time_ms)
        data = event.get_data()
        assert event.get_subject() == data.get("customer_id", data.get("element_id"))


def test_ids_are_unique_and_of_letters_that_any_header_and_file_name_takes(whole):
    ids = [one.id for one in whole[0]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"(al|in)_[a-z0-9]{24}-[1-9][0-9]*", one) for one in ids)


def test_an_id_names_the_case_and_the_revision(whole):
    for one in whole[0]:
        assert one.id == f"{one.case}-{one.revision}"
        assert orjson.loads(one.body)["time"] == rfc3339(one.time_ms)


def test_another_deployment_says_the_same_of_other_cases(stream, whole):
    east = RiskEngine(Settings("east"), CATALOGUE)
    said = [*feed(east, stream), *east.finish()]
    assert [(one.type, one.time_ms) for one in said] == [(one.type, one.time_ms) for one in whole[0]]
    assert not {one.id for one in said} & {one.id for one in whole[0]}


# The life of a case


def by_case(said):
    cases = defaultdict(list)
    for one in said:
        cases[one.case].append(one)
    return cases.values()


def test_the_revisions_of_a_case_are_one_two_three(whole):
    for case in by_case(whole[0]):
        assert [one.revision for one in case] == list(range(1, len(case) + 1))


def test_a_case_opens_first_and_ends_last_and_once(whole):
    for case in by_case(whole[0]):
        kinds = [one.type.rsplit(".", 1)[1] for one in case]
        assert kinds[0] == "opened"
        assert set(kinds[1:-1]) <= {"updated"}
        assert "opened" not in kinds[1:]


def test_the_times_of_a_case_never_go_back(whole):
    for case in by_case(whole[0]):
        bodies = [orjson.loads(one.body)["data"] for one in case]
        assert all(one.time_ms <= other.time_ms for one, other in pairwise(case))
        assert all(
            body["since_ms"] <= body["detected_ms"] <= one.time_ms for body, one in zip(bodies, case, strict=True)
        )
        assert len({(body["since_ms"], body["detected_ms"]) for body in bodies}) == 1


def test_records_out_of_order_do_not_make_the_times_of_a_case_go_back():
    bad = [call("a", MONDAY_MS + at * HOUR_MS, dropped=True) for at in (1, 2, 3, 4)]
    said = run([*bad, *(call("a", MONDAY_MS + 4 * HOUR_MS - at * 1_000, dropped=True) for at in range(1, 5))])
    assert len(said) == 2
    assert said[0]["time"] == said[1]["time"] == rfc3339(MONDAY_MS + 4 * HOUR_MS)


def test_the_numbers_of_an_alert_agree_with_each_other(whole):
    for body in told(whole[0]):
        seen = body["data"].get("pattern", body["data"])
        if "pattern" in body["data"]:
            assert seen["drops"] <= seen["attempts"]
            assert seen["answered"] <= seen["attempts"]
            assert str(seen["drops"]) in seen["text"]
        else:
            assert seen["drop_ratio"] == pytest.approx(seen["drops"] / max(seen["attempts"], 1), abs=1e-4)
            assert f"{seen['drops']} of {seen['attempts']}" in seen["text"]


def test_the_calls_of_an_alert_are_the_customers_own_and_of_the_trouble(stream, whole):
    reports = decode(b"\n".join(stream)).calls
    known = {(reports.call_id[row], reports.customer_id[row], int(reports.end_ms[row])) for row in range(len(reports))}
    for body in (one["data"] for one in told(whole[0]) if one["type"].startswith("stayline.alert")):
        assert body["calls"], "an alert shows calls"
        for shown in body["calls"]:
            assert (shown["call_id"], body["customer_id"], shown["end_ms"]) in known
            assert shown["end_ms"] >= body["since_ms"]
            assert shown["outcome"] != "normal"


def test_trouble_that_ends_is_resolved_after_a_quiet_day_and_may_come_again():
    bad = [call("a", MONDAY_MS + at * HOUR_MS, dropped=True) for at in range(6)]
    good = [call("a", MONDAY_MS + DAY_MS + at * HOUR_MS) for at in range(72)]
    again = [call("a", MONDAY_MS + 5 * DAY_MS + at * HOUR_MS, dropped=True) for at in range(6)]
    said = run([*bad, *good, *again])
    assert [one["type"].rsplit(".", 1)[1] for one in said if "updated" not in one["type"]] == [
        "opened",
        "resolved",
        "opened",
    ]
    first, second = alerts(said)
    assert first["data"]["alert_id"] != second["data"]["alert_id"]
    assert second["data"]["since_ms"] >= MONDAY_MS + 5 * DAY_MS
    assert second["data"]["pattern"]["attempts"] <= 6


# Shared trouble


def of_node_1(places):
    return places["access_node"] == "node-1"


def never(_):
    return False


def test_customers_inside_a_shared_outage_get_no_case():
    said = run(telco(1, of_node_1))
    assert "stayline.incident.opened" in {one["type"] for one in said}
    assert alerts(said) == []


def test_an_outage_is_not_held_against_those_who_were_inside():
    outage = telco(1, of_node_1)
    hit = {one["customer_id"] for one in outage if one["end_ms"] >= TROUBLE_MS and one["q850"] == 41}
    after = [
        call(who, TROUBLE_MS + HOUR_MS + at * 4 * HOUR_MS + number * MINUTE_MS, dropped=at == 5, access_node="node-1")
        for at in range(12)
        for number, who in enumerate(sorted(hit))
    ]
    assert len(hit) >= 15
    said = run([*outage, *sorted(after, key=lambda one: one["end_ms"])])
    assert alerts(said) == []


def test_an_incident_clears_once_calls_are_good_again():
    after = [
        call(f"c{who}", TROUBLE_MS + HOUR_MS + at * HOUR_MS + who * MINUTE_MS, access_node="node-1")
        for at in range(6)
        for who in range(1, 80, 4)
    ]
    said = run([*telco(1, of_node_1), *sorted(after, key=lambda one: one["end_ms"])])
    opened, cleared = (one for one in said if "incident" in one["type"])
    assert (opened["type"], cleared["type"]) == ("stayline.incident.opened", "stayline.incident.cleared")
    assert opened["data"]["incident_id"] == cleared["data"]["incident_id"]
    assert cleared["data"]["cleared_ms"] > TROUBLE_MS + HOUR_MS
    assert cleared["data"]["customers_affected"] >= 15


def test_a_probe_is_not_blamed_for_calls_that_were_cut_off_where_it_listens():
    calls = telco(1, of_node_1)
    for one in calls:
        number = one.pop("access_node").removeprefix("node-")
        one |= {"region": f"region-{number}", "probe_id": f"probe-{number}"}
    opened = [one["data"] for one in run(calls) if one["type"] == "stayline.incident.opened"]
    assert [(one["element_kind"], one["element_id"]) for one in opened] == [("region", "region-1")]


def test_a_probe_that_lies_is_named_and_nobody_is_blamed():
    calls = telco(3, never)
    for one in calls:
        if one["end_ms"] >= TROUBLE_MS and one["probe_id"] == "probe-1":
            one |= {"loss_ratio": 0.25, "burst_ratio": 3.0}
    said = run(calls)
    opened = [one["data"] for one in said if one["type"] == "stayline.incident.opened"]
    assert [(one["element_kind"], one["element_id"]) for one in opened] == [("probe", "probe-1")]
    assert "measurement fault" in opened[0]["text"]
    assert alerts(said) == []


@pytest.mark.parametrize("cleared", [False, True])
def test_an_incident_that_somebody_else_knows_of_keeps_its_customers_quiet_until_it_is_cleared(cleared):
    alarm = {
        "type": "incident", "incident_id": "noc.7", "element_kind": "region", "element_id": "north",
        "at_ms": MONDAY_MS, "status": "open",
    }  # fmt: skip
    events = [alarm, *([alarm | {"status": "cleared"}] if cleared else [])]
    others = [call(f"c{at}", MONDAY_MS + at * MINUTE_MS, region="north") for at in range(480)]
    bad = [call("a", MONDAY_MS + at * HOUR_MS, dropped=True, region="north") for at in range(8)]
    assert bool(alerts(run([*events, *sorted([*others, *bad], key=lambda one: one["end_ms"])]))) == cleared


# Limits


def test_memory_stays_within_customers_max_and_who_leaves_is_counted():
    fresh = engine(customers_max=50)
    everybody = 400
    for round_ms in range(0, 4 * DAY_MS, DAY_MS):
        calls = [
            call(f"c{who}", MONDAY_MS + round_ms + who * MINUTE_MS, dropped=who % 7 == 0) for who in range(everybody)
        ]
        fresh.apply(batch(calls))
        assert len(fresh.memory.roster) <= 50
        assert len(fresh.memory.histories.call_ids) <= 50
    # Each of the four rounds evicts everybody who is not among the last.
    assert fresh.memory.roster.evicted_count == 4 * everybody - len(fresh.memory.roster)
    assert fresh.counts.applied == 4 * everybody


def test_eviction_says_the_same_whatever_the_batches(stream):
    def small():
        return engine(customers_max=60)

    one, other = small(), small()
    said = feed(one, stream)
    assert one.memory.roster.evicted_count > 100
    assert feed(other, stream, range(7, len(stream), 101)) == said
    assert other.memory.roster.evicted_count == one.memory.roster.evicted_count


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_day_has_no_more_alerts_than_the_team_can_call(most):
    calls = [
        call(f"c{who}", MONDAY_MS + day * DAY_MS + at * HOUR_MS + who * MINUTE_MS, dropped=True)
        for day in range(3)
        for at in range(8)
        for who in range(day * 8, day * 8 + 8)
    ]
    fresh = engine(alerts_per_day_max=most)
    opened = alerts(told(fresh.apply(batch(calls))))
    days = Counter(one["time"][:10] for one in opened)
    assert sorted(days.values()) == [most] * (3 if most else 0)
    assert fresh.memory.advisor.deferred_count == 3 * (8 - most)
