"""Who may come to the desk, by which name, with what; and that forms come from its own pages alone."""

import socket
from types import SimpleNamespace

import pytest
from desk_kit import HOME, NOW_MS, FakeClock, Page, alert, incident, told
from starlette.routing import Route
from starlette.testclient import TestClient

from schemas.events import Outcome
from sinks.desk import access as access_module
from sinks.desk import forms
from sinks.desk.access import PACES, Limits
from sinks.desk.app import desk_application
from sinks.desk.forms import FORM_BYTES_MAX, read_path
from sinks.desk.oidc import Settings
from sinks.desk.people import KEY_SCOPES, ROLES, SCOPES, SESSION_MS, People
from sinks.outputs import OutputDownError

DESK = "https://desk.example"


class Known:
    """A resolver of identities."""

    def identity(self, customer_id):
        return {"c0001": "+47 22 00 00 00", "c0002": None}[customer_id]


@pytest.fixture
def office(store):
    """A desk with login."""
    outcomes: list[Outcome] = []
    application = desk_application(store, outcomes.append, public_url=DESK, resolver=Known())
    people = People(store)
    with TestClient(application, base_url=DESK, follow_redirects=False) as client:

        def log_in(role, who=None):
            client.cookies.clear()
            client.cookies.set("__Host-stayline", people.open_session(who or role, role.title(), role))

        def get(path):
            return Page(client.get(path).text)

        yield SimpleNamespace(
            client=client,
            store=store,
            people=people,
            log_in=log_in,
            outcomes=outcomes,
            get=get,
            application=application,
        )


# Roles: each path


WAYS = {
    ("GET", "/"): "read",
    ("GET", "/network"): "read",
    ("GET", "/audit"): "audit",
    ("GET", "/keys"): "keys",
    ("POST", "/keys"): "keys",
    ("POST", "/keys/revoke"): "keys",
    ("GET", "/cases/{alert_id:path}"): "read",
    ("POST", "/cases/{alert_id:path}/actions"): "act",
    ("POST", "/cases/{alert_id:path}/identity"): "reveal",
    ("GET", "/events"): "read",
    ("GET", "/language/{code}"): None,
    ("GET", "/healthz"): None,
    ("GET", "/api/v1/alerts"): "read",
    ("GET", "/api/v1/alerts/{alert_id:path}"): "read",
    ("POST", "/api/v1/alerts/{alert_id:path}/outcomes"): "act",
    ("GET", "/api/v1/customers/{customer_id:path}"): "read",
    ("GET", "/api/v1/incidents"): "read",
    ("GET", "/api/v1/incidents/{incident_id:path}"): "read",
    ("GET", "/api/v1/outcomes"): "read",
    ("GET", "/api/v1/events"): "read",
    ("GET", "/api/v1/openapi.json"): None,
    ("GET", "/login"): None,
    ("GET", "/login/callback"): None,
    ("POST", "/logout"): "read",
}
"""What each path asks of who comes. Whoever adds one decides it here too."""

ISSUER = Settings("http://127.0.0.1:9", "desk", "secret", "groups", {"csr": ("care",)})


def test_there_is_no_path_that_is_not_held_against_the_roles(store):
    application = desk_application(store, lambda _: None, public_url=DESK, oidc=ISSUER)
    routes = [one for one in application.routes if isinstance(one, Route)]
    assert {(method, one.path) for one in routes for method in one.methods - {"HEAD"}} == set(WAYS)
    assert [one.path for one in application.routes if not isinstance(one, Route)] == ["/static"]


@pytest.mark.parametrize("role", [None, *ROLES])
def test_each_path_lets_in_those_who_may_and_nobody_else(store, role, monkeypatch):
    monkeypatch.setattr(access_module, "PACES", dict.fromkeys(PACES, (10_000, 1.0)))
    store.put([told(alert())])
    application = desk_application(store, lambda _: None, public_url=DESK, oidc=ISSUER, resolver=Known())
    # A stream that may be opened would not end: it is let in, and told that the desk is closing.
    application.state.streams.close()
    with TestClient(application, base_url=DESK, follow_redirects=False) as client:
        if role is not None:
            client.cookies.set("__Host-stayline", People(store).open_session(role, role, role))
        for (method, pattern), scope in WAYS.items():
            path = pattern
            for name, value in (("alert_id:path", "al_1"), ("customer_id:path", "c0001"), ("incident_id:path", "in_1")):
                path = path.replace(f"{{{name}}}", value)
            answer = client.request(method, path.replace("{code}", "en"))
            if scope is None or (role is not None and scope in SCOPES[role]):
                # It is let in, and refused by what it then finds lacking in this request, if by anything.
                assert answer.status_code in {200, 303, 400, 403, 404, 415, 502, 503}, path
                assert "Your role does not allow this" not in answer.text
                assert not answer.headers.get("location", "").startswith("/login")
            elif role is None:
                expected = 303 if method == "GET" and not path.startswith("/api/") else 401
                assert answer.status_code == expected, path
            else:
                assert answer.status_code == 403, path
                assert "Your role does not allow this" in answer.text


def test_a_script_of_a_page_is_told_that_the_session_is_over_instead_of_being_led_to_a_login(office):
    for path in ("/events", "/", "/cases/al_1"):
        assert office.client.get(path, headers={"sec-fetch-mode": "cors"}).status_code == 401
        assert office.client.get(path, headers={"sec-fetch-mode": "navigate"}).status_code == 303


@pytest.mark.parametrize("role", ROLES)
def test_only_a_supervisor_takes_a_case_from_a_colleague(office, role):
    office.store.put([told(alert())])
    office.log_in("csr", "ann")
    assert act(office, "take").status_code == 303
    office.log_in(role, "bob")
    answer = act(office, "take")
    may = "reassign" in SCOPES[role]
    assert answer.status_code == (303 if may else 409)
    assert office.store.case("al_1").card.owner == ("bob" if may else "ann")
    assert ("Only a supervisor" in answer.text) is not may


def act(office, what, **fields):
    values = Page(office.client.get("/cases/al_1").text).values()
    return office.client.post("/cases/al_1/actions", data={**values, "what": what, **fields})


def test_a_session_ends_with_its_time_and_with_its_log_out(office, clock):
    office.log_in("csr")
    assert office.client.get("/").status_code == 200
    clock.now_ms += SESSION_MS
    answer = office.client.get("/cases/al_1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?back=%2Fcases%2Fal_1")


def test_a_foreign_cookie_is_nobody(office):
    office.client.cookies.set("__Host-stayline", "x" * 43)
    assert office.client.get("/api/v1/alerts").status_code == 401


# Keys


def test_a_key_is_shown_once_and_does_what_it_may(office):
    office.store.put([told(alert())])
    office.log_in("admin")
    form = {**office.get("/keys").values(), "name": "crm", "scope_read": "1", "days": "30"}
    page = office.client.post("/keys", data=form)
    key = next(word for word in Page(page.text).text.split() if word.startswith("sdk_"))
    assert key not in office.client.get("/keys").text
    assert key.rpartition("_")[2] not in "".join(str(row) for row in dump(office.store))
    office.client.cookies.clear()
    bearer = {"authorization": f"Bearer {key}"}
    assert office.client.get("/api/v1/alerts", headers=bearer).status_code == 200
    body = {"what": "contacted", "seen": 0}
    assert office.client.post("/api/v1/alerts/al_1/outcomes", json=body, headers=bearer).status_code == 403
    for wrong in (key[:-1], key + "x", "sdk_", "", "sdk_\u00e9_x".encode()):
        assert (
            office.client.get("/api/v1/alerts", headers={"authorization": b"Bearer " + to_bytes(wrong)}).status_code
            == 401
        )
    assert office.client.get("/api/v1/alerts", headers={"authorization": f"Basic {key}"}).status_code == 401


def to_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def dump(store):
    with store.database.read() as db:
        return [row for table in ("api_key", "session", "audit", "login") for row in db.rows(f"SELECT * FROM {table}")]  # noqa: S608


def test_a_key_ends_with_its_days_and_when_it_is_revoked(office, clock):
    people = office.people
    first, second = (people.make_key(name, ["read"], 2, "root") for name in ("a", "b"))
    ask = lambda key: office.client.get("/api/v1/alerts", headers={"authorization": f"Bearer {key}"}).status_code  # noqa: E731
    assert (ask(first), ask(second)) == (200, 200)
    office.log_in("admin")
    token = office.get("/keys").values()["token"]
    gone = next(key.id for key in people.api_keys() if key.name == "a")
    office.client.post("/keys/revoke", data={"token": token, "id": gone})
    office.client.cookies.clear()
    assert (ask(first), ask(second)) == (401, 200)
    clock.now_ms += 2 * 86_400_000
    assert ask(second) == 401


@pytest.mark.parametrize("change", [{"name": "a b"}, {"name": ""}, {"days": "0"}, {"days": "731"}, {"scope_read": ""}])
def test_a_key_that_makes_no_sense_is_not_made(office, change):
    office.log_in("admin")
    form = {**office.get("/keys").values(), "name": "crm", "scope_read": "1", "days": "30", **change}
    assert office.client.post("/keys", data=form).status_code == 400
    assert office.people.api_keys() == []


def test_a_program_gets_no_identities_and_makes_no_keys():
    assert set(KEY_SCOPES) <= SCOPES["admin"] - {"reveal", "keys", "reassign"}


# Identities


def test_an_identity_is_shown_for_a_reason_and_recorded_and_nowhere_else(office):
    office.store.put([told(alert()), told(alert("al_2", customer_id="c0002"))])
    office.log_in("csr", "ann")
    for path in ("/", "/cases/al_1", "/network", "/api/v1/alerts/al_1"):
        assert "+47 22" not in office.client.get(path).text
    token = office.get("/cases/al_1").values()["token"]
    for short in ("", "why", "x" * 201):
        assert office.client.post("/cases/al_1/identity", data={"token": token, "reason": short}).status_code == 400
    shown = office.client.post("/cases/al_1/identity", data={"token": token, "reason": "To call  them back"})
    assert "+47 22 00 00 00" in shown.text
    assert "+47 22" not in office.client.get("/cases/al_1").text
    unknown = office.client.post("/cases/al_2/identity", data={"token": token, "reason": "To call them"})
    assert "does not know this customer" in unknown.text
    lines = [(one.who, one.what, one.about, one.reason) for one in office.people.audit(99, 9)]
    assert lines == [
        ("ann", "identity shown", "c0002", "To call them"),
        ("ann", "identity shown", "c0001", "To call them back"),
    ]
    assert "+47 22" not in str(dump(office.store))
    office.log_in("supervisor")
    assert "To call them back" in office.get("/audit").text


def test_what_cannot_be_resolved_is_said_and_recorded_all_the_same(store):
    class Away:
        def identity(self, _):
            raise OutputDownError("connection refused by 10.1.2.3")

    store.put([told(alert())])
    with TestClient(
        desk_application(store, lambda _: None, resolver=Away()), base_url=HOME, client=("127.0.0.1", 1)
    ) as client:
        token = Page(client.get("/cases/al_1").text).values()["token"]
        answer = client.post("/cases/al_1/identity", data={"token": token, "reason": "To call them"})
    assert answer.status_code == 502
    assert "10.1.2.3" not in answer.text
    assert len(People(store).audit(99, 9)) == 1


def test_a_forgotten_customer_leaves_the_records(office):
    office.store.put([told(alert())])
    office.people.note("ann", "identity shown", "c0001", "To call them")
    office.store.forget("c0001")
    assert [(one.who, one.about) for one in office.people.audit(99, 9)] == [("ann", "")]


def test_records_are_read_page_by_page(office, monkeypatch):
    monkeypatch.setattr("sinks.desk.views.AUDIT_LINES", 2)
    for n in range(5):
        office.people.note("ann", f"deed {n}", "", "")
    office.log_in("supervisor")
    seen, path = [], "/audit"
    while path:
        page = office.get(path)
        seen += [word for word in range(5) if f"deed {word}" in page.text]
        path = next(("/audit" + each["href"] for each in page.all("a") if each.get("rel") == "next"), "")
    assert sorted(seen) == list(range(5))


# Limits


def test_whoever_asks_too_often_is_told_when_to_come_again(office, clock):
    office.log_in("csr")
    burst, rate = PACES["read"]
    codes = [office.client.get("/api/v1/incidents").status_code for _ in range(burst)]
    assert codes == [200] * burst
    refused = office.client.get("/api/v1/incidents")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    office.log_in("supervisor")
    assert office.client.get("/api/v1/incidents").status_code == 200
    office.log_in("csr")
    clock.now_ms += int(2_000 / rate)
    codes = [office.client.get("/api/v1/incidents").status_code for _ in range(3)]
    assert codes == [200, 200, 429]


def test_whoever_tries_keys_is_slowed_down(office):
    burst, _ = PACES["login"]
    wrong = {"authorization": "Bearer sdk_0123_guess"}
    codes = [office.client.get("/api/v1/incidents", headers=wrong).status_code for _ in range(burst + 1)]
    assert codes == [401] * burst + [429]
    office.log_in("csr")
    assert office.client.get("/api/v1/incidents").status_code == 200


def test_limits_forget_who_has_not_been_seen_for_longest(monkeypatch):
    monkeypatch.setattr(access_module, "PEOPLE_MAX", 2)
    limits = Limits(FakeClock())
    for who in "abcd":
        limits.wait_s(who, "read")
    assert len(limits._buckets) == 2


# Names, places, headers


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.9.9.9"])
def test_names_of_this_machine_are_answered(desk, host):
    assert desk.client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "10.0.0.1", "", "[::1", "localhost:x"]
)
def test_foreign_names_are_refused(desk, office, host):
    assert desk.client.get("/", headers={"host": host}).status_code == 421
    assert office.client.get("/", headers={"host": host}).status_code == 421


def test_a_program_is_told_of_a_foreign_name_as_of_any_other_problem(desk):
    answer = desk.client.get("/api/v1/alerts", headers={"host": "evil.example"})
    assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json")
    assert "localhost or a loopback address" in answer.json()["detail"]


@pytest.mark.parametrize(("path", "allowed"), [("/keys", "GET, HEAD, POST"), ("/api/v1/alerts", "GET, HEAD")])
def test_a_method_that_a_path_does_not_have_is_answered_with_those_it_has(desk, path, allowed):
    answer = desk.client.delete(path)
    assert answer.status_code == 405
    assert ", ".join(sorted(answer.headers["allow"].split(", "))) == allowed


@pytest.mark.parametrize("path", ["/network", "/api/v1/incidents"])
def test_an_error_of_our_own_is_told_like_any_other_and_says_nothing_of_itself(store, path):
    def broken():
        raise ZeroDivisionError("/secret/path")

    store.put([told(incident())])
    application = desk_application(store, lambda _: None, figures=broken)
    here = ("127.0.0.1", 1)
    with TestClient(application, base_url=HOME, client=here, raise_server_exceptions=False) as client:
        answer = client.get(path)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "look before you send it again" in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("application/problem+json" if "api" in path else "text/html")


def test_peers_from_elsewhere_are_refused_where_there_is_no_login(store):
    application = desk_application(store, lambda _: None)
    with TestClient(application, base_url=HOME, client=("192.0.2.7", 50_000)) as client:
        assert client.get("/").status_code == 403
        assert client.get("/healthz").status_code == 200


def test_a_desk_without_login_says_so_on_every_page(desk, office):
    desk.store.put([told(alert())])
    for path in ("/", "/cases/al_1", "/network", "/audit", "/keys", "/cases/none"):
        assert "No login:" in desk.get(path).text
    office.log_in("admin")
    assert "No login:" not in office.get("/").text


@pytest.mark.parametrize("path", ["/", "/cases/al_1", "/cases/none", "/?page=x", "/static/desk.css", "/healthz", "/no"])
def test_every_answer_carries_the_browsers_orders(desk, path):
    desk.store.put([told(alert())])
    headers = desk.client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")
    assert headers["x-content-type-options"] == "nosniff"


def test_a_desk_behind_https_says_that_it_is(office, desk):
    assert "max-age" in office.client.get("/healthz").headers["strict-transport-security"]
    assert "strict-transport-security" not in desk.client.get("/healthz").headers


def test_nobody_is_sent_to_another_site():
    for text in ("//evil.example", "/\\evil.example", "https://evil.example", "evil", "", "/a\nb"):
        assert read_path(text) == "/"
    assert read_path("/cases/al_1?x=1") == "/cases/al_1?x=1"


# Forms


@pytest.fixture
def form(desk) -> dict[str, str]:
    desk.store.put([told(alert())])
    return {**desk.get("/cases/al_1").values(), "what": "accepted", "remedy_id": "timer_fix"}


def send(desk, form, **headers):
    return desk.client.post("/cases/al_1/actions", data=form, headers=headers)


@pytest.mark.parametrize(
    ("what", "result", "remedy_id"),
    [
        ("accepted", "accepted", "timer_fix"),
        ("declined", "declined", "timer_fix"),
        ("take", "taken", None),
        ("release", "released", None),
        ("contacted", "contacted", None),
        ("snooze", "snoozed", None),
        ("unreachable", "unreachable", None),
        ("not_needed", "not_needed", None),
        ("resolve", "fixed", "timer_fix"),
    ],
)
def test_an_outcome_reaches_detection_once_however_often_it_is_sent(desk, form, what, result, remedy_id):
    answers = [send(desk, {**form, "what": what, "hours": "4"}, origin=HOME) for _ in range(3)]
    assert all("Recorded:" in answer.text for answer in answers)
    assert desk.outcomes == [Outcome("al_1", NOW_MS, result, remedy_id, "local")]


def test_a_case_goes_where_what_was_done_puts_it(desk, form, clock):
    stages = []
    for seen, what in enumerate(["unreachable", "snooze", "accepted", "resolve"]):
        send(desk, {**form, "what": what, "seen": str(seen), "hours": "4"})
        stages.append(dict(desk.store.counts().stages))
    assert stages == [{"to_call": 1}, {"snoozed": 1}, {"contacted": 1}, {"over": 1}]
    send(desk, {**form, "what": "snooze", "seen": "4", "hours": "4"})
    desk.store.put([told(alert(revision=2), "updated")])
    clock.now_ms += 4 * 3_600_000
    assert desk.store.counts().stages == {"to_call": 1}


def test_a_case_that_grows_worse_is_not_put_off(desk, form):
    send(desk, {**form, "what": "snooze", "hours": "72"})
    desk.store.put([told(alert(revision=2), "updated")])
    assert desk.store.counts().stages == {"snoozed": 1}
    desk.store.put([told(alert(revision=3, severity="critical"), "updated")])
    assert desk.store.counts().stages == {"to_call": 1}


def test_a_colleagues_outcome_is_not_written_over(desk, form):
    send(desk, form)
    answer = send(desk, {**form, "what": "declined"})
    assert answer.status_code == 409
    assert "A colleague was quicker" in answer.text
    assert Page(answer.text).values()["seen"] == "1"
    assert len(desk.outcomes) == 1


@pytest.mark.parametrize(
    ("change", "headers"),
    [
        ({"token": ""}, {}),
        ({"token": "x" * 43}, {}),
        ({"token": None}, {}),
        ({}, {"origin": "http://127.0.0.1:9999"}),
        ({}, {"origin": "null"}),
        ({}, {"cookie": ""}),
        ({"token": None}, {"cookie": ""}),
    ],
)
def test_a_form_from_elsewhere_is_refused(desk, form, change, headers):
    kept = {name: value for name, value in {**form, **change}.items() if value is not None}
    if "cookie" in headers:
        desk.client.cookies.clear()
    answer = send(desk, kept, **headers)
    assert answer.status_code == 403
    assert desk.outcomes == []


def test_the_form_of_another_session_is_refused(office):
    office.store.put([told(alert())])
    office.log_in("csr", "ann")
    values = office.get("/cases/al_1").values()
    office.log_in("csr", "bob")
    answer = office.client.post("/cases/al_1/actions", data={**values, "what": "contacted"})
    assert answer.status_code == 403
    assert office.store.case("al_1").actions == []


def test_the_cookie_is_kept_from_scripts_and_other_sites(desk):
    cookie = desk.client.get("/").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"what": "bribed"}, 400),
        ({"what": None}, 400),
        ({"remedy_id": "no_such"}, 404),
        ({"remedy_id": None}, 400),
        ({"seen": "-1"}, 400),
        ({"seen": None}, 400),
        ({"what": "snooze", "hours": "5"}, 400),
        ({"what": "snooze"}, 400),
        ({"pad": "x" * FORM_BYTES_MAX}, 413),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(desk, form, change, status):
    kept = {name: value for name, value in {**form, **change}.items() if value is not None}
    assert send(desk, kept).status_code == status
    assert desk.outcomes == []


def test_only_forms_are_read(desk, form):
    assert desk.client.post("/cases/al_1/actions", json=form).status_code == 415
    token = form["token"].encode()
    for body in (b"token=%ff&x", b"token=" + token + b"&token=" + token, b"&".join(b"a%d=1" % n for n in range(99))):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        assert desk.client.post("/cases/al_1/actions", content=body, headers=kind).status_code == 400
    assert desk.client.post("/cases/none/actions", data=form).status_code == 404


@pytest.mark.parametrize("path", ["/cases/al_1/actions", "/api/v1/alerts/al_1/outcomes"])
def test_a_body_that_does_not_come_holds_nobody_up(served, path, monkeypatch):
    monkeypatch.setattr(forms, "BODY_S", 0.1)
    kind = "application/json" if "api" in path else "application/x-www-form-urlencoded"
    host = served.base.removeprefix("http://")
    with socket.create_connection(host.split(":"), timeout=10.0) as line:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: 9\r\n\r\nx"
        line.sendall(head.encode())
        assert line.makefile("rb").read().startswith(b"HTTP/1.1 408 ")


def test_an_outcome_that_cannot_be_handed_on_is_not_recorded(store):
    def fail(_: Outcome) -> None:
        raise OutputDownError("the disk is full")

    store.put([told(alert())])
    with TestClient(desk_application(store, fail), base_url=HOME, client=("127.0.0.1", 50_000)) as client:
        fields = Page(client.get("/cases/al_1").text).values()
        answer = client.post("/cases/al_1/actions", data={**fields, "what": "not_needed"})
    assert answer.status_code == 503
    assert "disk" not in answer.text
    assert store.case("al_1").actions == []


def test_a_desk_whose_store_is_gone_is_not_healthy(desk):
    assert desk.client.get("/healthz").status_code == 200
    desk.store.close()
    assert desk.client.get("/healthz").status_code == 503
