"""The desk's interface for programs: what it describes, and that it does what it describes."""

import contextlib
import socket

import jsonschema
import orjson
import pytest
import requests
import schemathesis
from desk_kit import NOW_MS, alert, incident, serving, told
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from schemas.events import Outcome
from sinks.desk import access as access_module
from sinks.desk.access import PACES
from sinks.desk.app import desk_application
from sinks.desk.cards import Filter
from sinks.desk.openapi import document
from sinks.desk.people import People
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore

DESK = "https://desk.example"
API = "/api/v1"


@pytest.fixture
def api(store):
    outcomes: list[Outcome] = []
    application = desk_application(store, outcomes.append, public_url=DESK)
    key = People(store).make_key("crm", ["read", "act"], 30, "root")
    with TestClient(application, base_url=DESK, headers={"authorization": f"Bearer {key}"}) as client:
        client.outcomes = outcomes
        client.store = store
        yield client


def filled(store, count=7):
    store.put([told(alert(f"al_{n}", value_at_risk_minor=n % 3, customer_id=f"c{n % 2}")) for n in range(count)])
    store.put([told(incident()), told(incident("in_2", revision=2, cleared_ms=NOW_MS), "cleared")])


def test_pages_are_followed_by_link_and_by_cursor_without_overlap(api):
    filled(api.store)
    found, path = [], f"{API}/alerts?limit=2&severity=major"
    while path:
        answer = api.get(path)
        page = answer.json()
        found += [card["alert"]["alert_id"] for card in page["alerts"]]
        link = answer.headers.get("link", "")
        assert ("next" in link) == (page["next"] is not None)
        assert page["next"] is None or page["next"] in link
        path = link.partition(">")[0].lstrip("<")
    assert found == [card.alert.alert_id for card in api.store.cases(Filter(show="all"))]
    assert len(found) == 7


def test_what_is_new_in_front_does_not_move_the_next_page(api):
    filled(api.store)
    first = api.get(f"{API}/alerts?limit=3").json()
    api.store.put([told(alert("al_new", value_at_risk_minor=10**6))])
    second = api.get(f"{API}/alerts", params={"limit": 9, "after": first["next"]}).json()
    ids = [card["alert"]["alert_id"] for page in (first, second) for card in page["alerts"]]
    assert sorted(ids) == [f"al_{n}" for n in range(7)]


@pytest.mark.parametrize("path", ["alerts", "alerts/al_1", "customers/c1", "incidents", "incidents/in_1", "outcomes"])
def test_who_has_it_already_is_told_so(api, path):
    filled(api.store)
    first = api.get(f"{API}/{path}")
    tag = first.headers["etag"]
    for held in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = api.get(f"{API}/{path}", headers={"if-none-match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    api.post(f"{API}/alerts/al_1/outcomes", json={"what": "contacted", "seen": 0})
    api.store.put([told(incident(revision=3, drops=500), "opened")])
    assert api.get(f"{API}/{path}", headers={"if-none-match": tag}).status_code == 200


def test_a_case_a_customer_and_an_incident_are_read(api):
    filled(api.store)
    file = api.get(f"{API}/alerts/al_1").json()
    assert file["card"]["alert"]["alert_id"] == "al_1"
    assert [one["alert"]["revision"] for one in file["revisions"]] == [1]
    assert {card["alert"]["customer_id"] for card in api.get(f"{API}/customers/c1").json()["alerts"]} == {"c1"}
    assert api.get(f"{API}/incidents/in_1").json()["element_id"] == "dsl-41"
    shown = {show: api.get(f"{API}/incidents?show={show}").json()["incidents"] for show in ("open", "all")}
    assert [one["incident_id"] for one in shown["open"]] == ["in_1"]
    assert {one["incident_id"] for one in shown["all"]} == {"in_1", "in_2"}


def test_a_customer_is_found_among_any_number_whose_token_begins_alike(api):
    api.store.put([told(alert(f"al_{n}", customer_id=f"c1{n}", value_at_risk_minor=10**6)) for n in range(201)])
    api.store.put([told(alert("al_mine", customer_id="c1", value_at_risk_minor=1))])
    found = api.get(f"{API}/customers/c1").json()
    assert [card["alert"]["alert_id"] for card in found["alerts"]] == ["al_mine"]


def test_an_outcome_for_a_case_that_has_changed_since_it_was_read_is_refused_if_so_asked(api):
    filled(api.store)
    where, body = f"{API}/alerts/al_1", {"what": "contacted", "seen": 0}
    tag = api.get(where).headers["etag"]
    api.store.put([told(alert("al_1", revision=2, customer_id="c1"), "updated")])
    for old in (tag, f"W/{tag}", "", '"x", y', b"\xff"):
        answer = api.post(f"{where}/outcomes", json=body, headers={"if-match": old})
        assert (answer.status_code, answer.headers["content-type"]) == (412, "application/problem+json")
    assert api.store.case("al_1").actions == []
    newest = api.get(where).headers["etag"]
    assert api.post(f"{where}/outcomes", json=body, headers={"if-match": f'"x", {newest}'}).status_code == 201
    assert api.post(f"{where}/outcomes", json={**body, "seen": 1}, headers={"if-match": "*"}).status_code == 201


@pytest.mark.parametrize("body", ["[" * 8_000, '{"what":' * 1_000, '{"seen": 1e999}', "", "\ufeff{}"])
def test_a_body_that_cannot_be_read_is_a_problem(api, body):
    filled(api.store)
    kind = {"content-type": "application/json"}
    answer = api.post(f"{API}/alerts/al_1/outcomes", content=body.encode(), headers=kind)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:stayline:problem:bad_body")


def test_an_outcome_is_recorded_once_and_told_in_order(api):
    filled(api.store)
    body = {"what": "accepted", "seen": 0, "remedy_id": "timer_fix"}
    answers = [api.post(f"{API}/alerts/al_1/outcomes", json=body) for _ in range(3)]
    assert [one.status_code for one in answers] == [201, 201, 201]
    assert len({one.content for one in answers}) == 1
    assert api.outcomes == [Outcome("al_1", NOW_MS, "accepted", "timer_fix", "key crm")]
    api.post(f"{API}/alerts/al_2/outcomes", json={"what": "snooze", "seen": 0, "until_ms": NOW_MS + 1})
    page = api.get(f"{API}/outcomes?limit=1").json()
    rest = api.get(f"{API}/outcomes?after={page['next']}").json()
    assert [one["what"] for one in page["outcomes"] + rest["outcomes"]] == ["accepted", "snooze"]
    assert api.get(f"{API}/outcomes?after={rest['next']}").json() == {"outcomes": [], "next": rest["next"]}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"what": "declined", "seen": 0, "remedy_id": "timer_fix"}, 409, "conflict"),
        ({"what": "accepted", "seen": 1}, 400, "bad_form"),
        ({"what": "accepted", "seen": 1, "remedy_id": "none"}, 404, "no_remedy"),
        ({"what": "snooze", "seen": 1}, 400, "bad_snooze"),
        ({"what": "snooze", "seen": 1, "until_ms": NOW_MS}, 409, "bad_snooze"),
        ({"what": "contacted", "seen": 1, "until_ms": NOW_MS + 5}, 400, "bad_snooze"),
        ({"what": "contacted", "seen": -1}, 400, "bad_body"),
        ({"what": "contacted", "seen": 1, "more": 1}, 400, "bad_body"),
        ({"what": "bribe", "seen": 1}, 400, "bad_body"),
        ({"what": "take", "seen": 1}, 403, "held"),
    ],
)
def test_what_is_not_recorded_is_a_problem_with_a_name(api, body, status, code):
    filled(api.store)
    person = People(api.store)
    other = person.make_key("other", ["act"], 1, "root")
    first = {"what": "contacted", "seen": 0}
    answer = api.post(f"{API}/alerts/al_1/outcomes", json=first, headers={"authorization": f"Bearer {other}"})
    assert answer.status_code == 201
    answer = api.post(f"{API}/alerts/al_1/outcomes", json=body)
    said = answer.json()
    assert (answer.status_code, said["type"]) == (status, f"urn:stayline:problem:{code}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert said["status"] == status
    assert said["detail"]
    assert len(api.store.case("al_1").actions) == 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("alerts?limit=0", 400),
        ("alerts?limit=201", 400),
        ("alerts?limit=2&limit=3", 400),
        ("alerts?after=%21", 404),
        ("alerts?after=W10", 404),
        ("alerts?who=x", 400),
        ("alerts?region=%00", 400),
        ("incidents?show=some", 400),
        ("incidents?show=all&show=all", 400),
        ("outcomes?limit=1&limit=1", 400),
        ("outcomes?after=-1", 400),
        ("outcomes?after=9999999999999999999", 400),
        ("alerts/none", 404),
        ("customers/none", 404),
        ("customers/%00", 404),
        ("incidents/none", 404),
        ("nothing", 404),
    ],
)
def test_what_cannot_be_asked_is_a_problem(api, query, status):
    answer = api.get(f"{API}/{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_a_page_of_another_site_cannot_write(api):
    filled(api.store)
    body = {"what": "contacted", "seen": 0}
    answer = api.post(f"{API}/alerts/al_1/outcomes", json=body, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    kind = {"content-type": "text/plain"}
    assert api.post(f"{API}/alerts/al_1/outcomes", content=orjson.dumps(body), headers=kind).status_code == 415


def test_a_store_that_is_gone_is_a_problem_that_passes(api):
    api.store.close()
    answer = api.get(f"{API}/alerts")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert "sqlite" not in answer.text


def test_the_description_is_openapi_and_every_path_is_in_it(api):
    described = orjson.loads(document())
    assert described["openapi"].startswith("3.1")
    jsonschema.Draft202012Validator.check_schema({"$defs": described["components"]["schemas"]})
    paths = {route.path.replace(":path", "") for route in api.app.routes if route.path.startswith(API)}
    assert paths - {f"{API}/openapi.json"} == {API + path for path in described["paths"]}
    assert api.get(f"{API}/openapi.json", headers={"authorization": ""}).json() == described


DESCRIBED = schemathesis.openapi.from_dict(orjson.loads(document()))
# The stream has no end, which a fuzzer would wait for; its own tests read it.
OPERATIONS = [found.ok() for found in DESCRIBED.exclude(path="/events").get_all_operations()]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """A desk that has something of everything, behind a real server; its address and a key."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = DeskStore(SqliteDatabase(tmp_path_factory.mktemp("api") / "desk.db"), lambda: NOW_MS)
    filled(store)
    key = People(store).make_key("fuzz", ["read", "act"], 30, "root")
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.closing(store),
        requests.Session() as session,
        serving(desk_application(store, lambda _: None, public_url=f"http://127.0.0.1:{port}"), port) as base,
    ):
        patch.setattr(access_module, "PACES", dict.fromkeys(PACES, (10**9, 1.0)))
        session.trust_env = False
        yield f"{base}{API}", {"Authorization": f"Bearer {key}"}, session


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_what_is_described_is_what_happens(operation, fuzzed):
    base, headers, session = fuzzed

    @given(operation.as_strategy())
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    def holds(case):
        case.call_and_validate(base_url=base, session=session, headers=headers)

    holds()
