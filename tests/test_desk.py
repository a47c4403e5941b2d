"""The desk: its store against a model, its pages under hostile text, its forms, its live feed."""

import contextlib
import shutil
import stat
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import apsw
import httpx2
import hypothesis.strategies as st
import msgspec
import orjson
import pytest
import uvicorn
from delivery_kit import FakeClock, dispatcher_of, run_out
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace
from starlette.testclient import TestClient

from schemas.alerts import (
    Alert,
    CallEvidence,
    Cause,
    ChurnRisk,
    Credit,
    Dimension,
    Driver,
    Incident,
    Notification,
    Pattern,
    Remedy,
    notification,
)
from schemas.decode import decode_record
from schemas.errors import ConfigError, StateError
from schemas.events import Outcome
from sinks.desk.app import desk_application
from sinks.desk.cards import SEVERITIES, Filter
from sinks.desk.output import DeskOutput
from sinks.desk.security import FORM_BYTES_MAX, check_listen
from sinks.desk.store import DeskStore
from sinks.desk.timeline import APART_PERCENT, lay_out
from sinks.desk.words import case_path, duration, money, percent
from sinks.outbox import Outbox
from sinks.outputs import NotificationRefusedError, OutputDownError

NOW_MS = 1_768_680_000_000
HOME = "http://127.0.0.1:8080"
REMEDY = Remedy("timer_fix", "Fix the timer", "I am fixing it.", "It fits.", 300, 4_120, Credit(573, "EUR", "4 x 1"))


def alert(alert_id: str = "al_1", **changes) -> Alert:
    """An alert with everything in it; `changes` are fields of it."""
    base = Alert(
        alert_id=alert_id,
        revision=1,
        customer_id="c0001",
        severity="major",
        detected_ms=NOW_MS,
        since_ms=NOW_MS - 86_400_000,
        pattern=Pattern("duration_lock", "4 of 5 calls.", 9, 5, 4, 0.8, 0.0154, 6.8, Dimension("duration_s", "32")),
        cause=Cause("sip_timer_or_nat", 0.78, ["far_end"]),
        incident_id=None,
        churn=ChurnRisk(0.2, "high", 0.015, [Driver("tenure_days", -0.3, "A customer for 6 years")], "model@1"),
        value_at_risk_minor=21_840,
        currency="EUR",
        remedies=[REMEDY],
        calls=[CallEvidence(f"k{n}", NOW_MS + 60_000 * n, "dropped", 32_000, 4.1) for n in range(3)],
    )
    return replace(base, **changes)


def incident(incident_id: str = "in_1", **changes) -> Incident:
    text = "412 of 1630 calls were cut off."
    node = ("access_node", "dsl-41", NOW_MS, NOW_MS, None, 137, 412, 1630, 0.25, 0.018, 48.2, text)
    return replace(Incident(incident_id, 1, *node), **changes)


def told(data: Alert | Incident, word: str = "opened") -> Notification:
    family = "alert" if isinstance(data, Alert) else "incident"
    return notification("west", f"stayline.{family}.{word}", NOW_MS, data)


# The store


@pytest.fixture
def store(tmp_path) -> Iterator[DeskStore]:
    store = DeskStore(tmp_path / "desk" / "desk.db")
    yield store
    store.close()


CASES = {"a": "k1", "b": "k2", "c": "k1", "d": "k3"}
RESULTS = st.sampled_from(["accepted", "declined", "unreachable", "not_needed", "fixed"])
ALERTS = st.builds(
    lambda case, revision, severity, value, word, day: told(
        alert(
            case,
            revision=revision,
            customer_id=CASES[case],
            severity=severity,
            value_at_risk_minor=value,
            detected_ms=NOW_MS + day,
        ),
        word,
    ),
    st.sampled_from(sorted(CASES)),
    st.integers(1, 4),
    st.sampled_from(SEVERITIES),
    st.none() | st.integers(0, 3),
    st.sampled_from(["opened", "updated", "resolved"]),
    st.integers(0, 2),
)
INCIDENTS = st.builds(
    lambda case, revision, word: told(incident(case, revision=revision), word),
    st.sampled_from(["i", "j"]),
    st.integers(1, 3),
    st.sampled_from(["opened", "cleared"]),
)


class Model(RuleBasedStateMachine):
    """Each rule does the same to the store and to dicts; the invariants compare all that can be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.store = DeskStore(self.directory / "desk.db")
        self.seq = 0
        self.ids: dict[str, Notification] = {}
        self.shown: dict[str, tuple[int, Notification]] = {}
        self.contacts: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
        self.taken = 0
        self.seen = 0
        self.feed: dict[str, int] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    @rule(batch=st.lists(ALERTS | INCIDENTS, max_size=5))
    def put(self, batch: list[Notification]) -> None:
        before = len(self.ids)
        for one in batch:
            if one.id in self.ids:
                continue
            self.ids[one.id] = one
            if one.case not in self.shown or one.revision > self.shown[one.case][1].revision:
                self.seq += 1
                self.shown[one.case] = (self.seq, one)
        assert self.store.put(batch) == len(self.ids) - before

    @rule(case=st.sampled_from(sorted(CASES)), behind=st.integers(-1, 2), result=RESULTS)
    def contact(self, case: str, behind: int, result: str) -> None:
        said = self.contacts[case]
        number = len(said) - behind
        if number < 0:
            return
        is_next = case in self.shown and number == len(said)
        stands = is_next or (number < len(said) and said[number] == (result, None))
        if is_next:
            said.append((result, None))
            self.seq += 1
            self.shown[case] = (self.seq, self.shown[case][1])
            self.taken += 1
        calls: list[None] = []
        outcome = Outcome(case, NOW_MS, result)
        assert self.store.record_outcome(outcome, number, lambda: calls.append(None)) is stands
        assert len(calls) == int(is_next)

    @rule(customer=st.sampled_from(["k1", "k2", "k9"]))
    def forget(self, customer: str) -> None:
        cases = {case for case in self.shown if CASES.get(case) == customer}
        assert self.store.forget(customer) == len(cases)
        self.ids = {name: one for name, one in self.ids.items() if one.case not in cases}
        for case in cases:
            del self.shown[case]
            self.contacts.pop(case, None)
            self.feed.pop(case, None)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = DeskStore(self.directory / "desk.db")

    @rule(limit=st.integers(1, 3))
    def read_feed(self, limit: int) -> None:
        for change in self.store.changes(self.seen, limit):
            assert change.seq > self.seen
            self.seen = change.seq
            self.feed[change.case_id] = change.seq
        if self.seen == self.seq:
            assert self.feed == {case: seq for case, (seq, _) in self.shown.items()}

    def state(self, case: str) -> str:
        if self.shown[case][1].type.endswith("resolved"):
            return "resolved"
        said = self.contacts[case]
        return "contacted" if said and said[-1][0] != "unreachable" else "to_call"

    def alerts(self) -> list[tuple[str, Alert]]:
        found = [
            (case, msgspec.convert(orjson.loads(one.body)["data"], Alert))
            for case, (_, one) in self.shown.items()
            if case in CASES
        ]
        worth = lambda one: -1 if one.value_at_risk_minor is None else one.value_at_risk_minor  # noqa: E731
        return sorted(
            found,
            key=lambda pair: (
                -worth(pair[1]),
                -SEVERITIES.index(pair[1].severity),
                -pair[1].detected_ms,
                pair[0],
            ),
        )

    @invariant()
    def the_lists_are_the_models(self) -> None:
        ranked = self.alerts()
        for show in ("to_call", "contacted", "resolved", "all"):
            expected = [one for case, one in ranked if show in (self.state(case), "all")]
            assert [card.alert for card in self.store.cases(Filter(show=show))] == expected
            assert self.store.count(Filter(show=show)) == len(expected)
        worst = [one for _, one in ranked if one.severity == "critical" and one.customer_id.startswith("k1")]
        wanted = Filter(show="all", severity="critical", customer="k1", kind="duration_lock", band="high")
        assert [card.alert for card in self.store.cases(wanted)] == worst
        assert self.store.cases(Filter(show="all"), 1, 1) == self.store.cases(Filter(show="all"))[1:2]

    @invariant()
    def the_counts_are_the_models(self) -> None:
        counts = self.store.counts()
        states = [self.state(case) for case, _ in self.alerts()]
        assert (counts.to_call, counts.contacted, counts.resolved) == tuple(
            states.count(state) for state in ("to_call", "contacted", "resolved")
        )
        waiting = [one for case, one in self.alerts() if self.state(case) == "to_call"]
        assert sum(counts.severity.values()) == len(waiting)
        assert sum(counts.value_minor.values()) == sum(one.value_at_risk_minor or 0 for one in waiting)
        open_ones = {case for case, (_, one) in self.shown.items() if case not in CASES and one.type.endswith("opened")}
        assert {one.incident_id for one in self.store.incidents()} == open_ones
        assert counts.incidents == len(open_ones)

    @invariant()
    def each_file_is_the_models(self) -> None:
        assert self.store.newest_seq() == self.seq
        for case in CASES:
            file = self.store.case(case)
            assert (file is None) == (case not in self.shown)
            if file is not None:
                history = sorted((one.revision for one in self.ids.values() if one.case == case), reverse=True)
                assert [each.alert.revision for each in file.revisions] == history
                assert [(each.result, each.remedy_id) for each in file.contacts] == self.contacts[case]
                assert file.card.seq == self.shown[case][0]


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_an_older_revision_that_comes_late_joins_the_history_only(store):
    store.put([told(alert(revision=2, severity="critical"))])
    seq = store.newest_seq()
    store.put([told(alert(revision=1, severity="minor"))])
    file = store.case("al_1")
    assert file.card.alert.severity == "critical"
    assert [each.alert.revision for each in file.revisions] == [2, 1]
    assert store.newest_seq() == seq


def test_the_file_and_its_folder_are_the_owners_alone(store, tmp_path):
    store.put([told(alert())])
    assert stat.S_IMODE((tmp_path / "desk").stat().st_mode) == 0o700
    files = sorted((tmp_path / "desk").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.write_bytes(b"no database at all" * 99), "undamaged"),
        (lambda path: set_pragma(path, "user_version", 99), "must be version 1, was 99"),
        (lambda path: set_pragma(path, "application_id", 7), "another SQLite file"),
        (lambda path: path.mkdir(), "readable and writable"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(tmp_path, spoil, text):
    path = tmp_path / "desk.db"
    if text != "readable and writable":
        DeskStore(path).close()
    spoil(path)
    with pytest.raises(StateError, match=text):
        DeskStore(path)


def set_pragma(path, name, value):
    with contextlib.closing(apsw.Connection(str(path))) as db:
        db.pragma(name, value)


def test_what_is_forgotten_is_gone_from_the_files(store, tmp_path):
    store.put([told(alert("al_1", customer_id="c-secret-token")), told(alert("al_2"))])
    assert any(b"c-secret-token" in file.read_bytes() for file in (tmp_path / "desk").iterdir())
    assert store.forget("c-secret-token") == 1
    assert not any(b"c-secret-token" in file.read_bytes() for file in (tmp_path / "desk").iterdir())
    assert store.case("al_2") is not None


def test_the_dispatcher_delivers_to_the_desk_once_and_gives_up_what_is_no_alert(store, tmp_path):
    clock = FakeClock()
    outbox = Outbox.open(tmp_path / "outbox.db", {"desk": 100}, clock)
    broken = Notification("x-1", "stayline.alert.opened", "x", 1, 0, b'{"data":{"alert_id":"x"}}')
    outbox.put([told(alert("al_1")), broken, told(alert("al_2")), told(incident())])
    run_out(dispatcher_of(outbox, clock, DeskOutput("desk", store)), clock)
    stats = outbox.stats().outputs["desk"]
    assert (stats.delivered, stats.dead, stats.pending) == (3, 1, 0)
    assert store.count(Filter(show="all")) == 2
    outbox.close()


def test_a_batch_is_taken_whole_or_not_at_all(store):
    foreign = replace(told(alert("al_2")), case="al_3")
    with pytest.raises(NotificationRefusedError, match="al_3, 1, was of al_2, 1") as refused:
        DeskOutput("desk", store).append(0, [told(alert("al_1")), foreign])
    assert refused.value.index == 1
    assert store.newest_seq() == 0
    assert DeskOutput("desk", store).append(0, [told(alert("al_1"))] * 2) == 2
    assert store.newest_seq() == 1


# The pages


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def values(self) -> dict[str, str | None]:
        return {each["name"]: each.get("value") for each in self.all("input") if each.get("type") == "hidden"}


@pytest.fixture
def desk(store) -> Iterator[SimpleNamespace]:
    lines: list[bytes] = []
    application = desk_application(store, lines.append, FakeClock(NOW_MS))
    with TestClient(application, base_url=HOME, client=("127.0.0.1", 50_000)) as client:
        yield SimpleNamespace(client=client, lines=lines, store=store, get=lambda path: Page(client.get(path).text))


@pytest.fixture
def served(store) -> Iterator[SimpleNamespace]:
    """The desk behind a real server: the test client decodes paths twice, and cannot read a stream that goes on."""
    lines: list[bytes] = []
    application = desk_application(store, lines.append, FakeClock(NOW_MS))
    config = uvicorn.Config(application, port=0, log_config=None, lifespan="off")
    server, listening = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with httpx2.Client(base_url=base, timeout=10.0, trust_env=False, follow_redirects=True) as client:
        yield SimpleNamespace(client=client, application=application, store=store, lines=lines)
    application.state.streams.close()
    server.should_exit = True
    thread.join(10.0)
    assert not thread.is_alive()
    listening.close()


def test_the_feed_ranks_by_value_and_keeps_incidents_apart(desk):
    values = {"al_low": 100, "al_none": None, "al_high": 90_000}
    desk.store.put([told(alert(name, value_at_risk_minor=value)) for name, value in values.items()])
    desk.store.put([told(incident()), told(alert("al_over", revision=2), "resolved")])
    page = desk.get("/")
    links = [each["href"] for each in page.all("a") if each["href"].startswith("/cases/")]
    assert links == ["/cases/al_high", "/cases/al_low", "/cases/al_none"]
    for text in ("900.00 EUR", "901.00 EUR", "not known", "412 of 1630", "Open incidents", "Major", "No login:"):
        assert text in page.text


def test_the_feed_filters_and_searches(desk):
    desk.store.put(
        [
            told(alert("al_1", severity="critical")),
            told(alert("al_2", customer_id="c7%_x")),
            told(alert("al_3", customer_id="c7abc"), "resolved"),
        ]
    )
    for query, expected in {
        "?severity=critical": ["al_1"],
        "?kind=route": [],
        "?band=high&severity=": ["al_1", "al_2"],
        "?customer=c7": ["al_2", "al_3"],
        "?customer=c7%25": ["al_2"],
        "?show=resolved": ["al_3"],
    }.items():
        links = [each["href"] for each in desk.get(f"/{query}").all("a") if each["href"].startswith("/cases/")]
        assert links == [f"/cases/{name}" for name in expected], query


@pytest.mark.parametrize("query", ["severity=huge", "show=x", "page=0", "page=x", "customer=" + "c" * 65])
def test_what_the_feed_cannot_be_asked_is_refused(desk, query):
    assert desk.client.get(f"/?{query}").status_code == 400


def test_pages_follow_each_other_without_overlap(desk):
    desk.store.put([told(alert(f"al_{n:03}", value_at_risk_minor=n)) for n in range(120)])
    links: list[str] = []
    path = "/?severity=major"
    while path:
        page = desk.get(path)
        links += [each["href"] for each in page.all("a") if each["href"].startswith("/cases/")]
        path = next(("/" + each["href"] for each in page.all("a") if each.get("rel") == "next"), "")
    assert links == [f"/cases/al_{n:03}" for n in reversed(range(120))]


def test_an_empty_desk_says_what_will_appear_and_when(desk):
    text = desk.get("/").text
    assert "Nobody needs a call" in text
    assert "up to an hour later" in text
    assert "Nobody needs a call" not in desk.get("/?severity=minor").text


def test_the_card_shows_all_of_the_alert(desk):
    calls = [CallEvidence("k1", NOW_MS, "one_way_audio", 902_000, None), CallEvidence("k2", NOW_MS, "odd_word", 0, 4.2)]
    desk.store.put([told(alert()), told(alert(revision=2, severity="critical", calls=calls), "updated")])
    text = desk.get("/cases/al_1").text
    for words in (
        *("4 of 5 calls.", "Critical", "Cut off at the same length", "Call length 32 s", "c0001"),
        *("218.40 EUR", "20%", "1.5%", "A call timer, in the network or the router", "78%", "network at the other end"),
        *("Fix the timer", "I am fixing it.", "It fits.", "3.00 EUR", "41.20 EUR", "5.73 EUR credit", "4 x 1"),
        *("A customer for 6 years", "model@1", "One-way sound", "15 min 02 s", "Odd word", "4.2", "80%"),
        *("Updated", "Opened", "revision 2", "2026-01-17 20:00 UTC", "Could not be reached"),
    ):
        assert words in text
    assert desk.client.get("/cases/al_9").status_code == 404


def test_the_card_names_the_shared_fault(desk):
    desk.store.put([told(alert(incident_id="in_1"))])
    assert "Incident in_1." in desk.get("/cases/al_1").text
    desk.store.put([told(incident())])
    assert "It is not over" in desk.get("/cases/al_1").text
    desk.store.put([told(incident(revision=2, cleared_ms=NOW_MS), "cleared")])
    assert "Over since" in desk.get("/cases/al_1").text


HOSTILE = "\"'><script src=//x></script><img src=x onerror=alert(1)>{{7*7}}&amp;\u202e/../%2f"


def poisoned(value, name=""):
    """Put hostile text wherever text is free."""
    if isinstance(value, dict):
        return {key: poisoned(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return HOSTILE if isinstance(value, str) and name not in ("severity", "kind", "band") else value


def test_hostile_text_in_every_field_stays_text(served):
    evil = msgspec.convert(poisoned(msgspec.to_builtins(alert(incident_id="x"))), Alert)
    evil = replace(evil, cause=replace(evil.cause, kind=HOSTILE))
    shared = msgspec.convert(poisoned(msgspec.to_builtins(incident())), Incident)
    served.store.put([told(evil), told(replace(shared, incident_id="in_2", element_kind=HOSTILE))])
    for path in ("/", f"/?customer={quote(HOSTILE[:64])}", case_path(HOSTILE)):
        answer = served.client.get(path)
        assert answer.status_code == 200
        page = Page(answer.text)
        assert HOSTILE in page.text
        assert page.all("script") == [{"src": "/static/desk.js", "defer": None}]
        assert not page.all("img")
        assert_nothing_inline(page)


def assert_nothing_inline(page: Page) -> None:
    assert not page.all("style")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    for name in ("href", "src", "action"):
        assert not [each[name] for _, each in page.tags if name in each and not each[name].startswith(("/", "?", "#"))]


def test_a_hostile_case_takes_an_outcome_too(served):
    evil = alert("a/b?c#d%2e", remedies=[replace(REMEDY, remedy_id=HOSTILE)])
    served.store.put([told(evil)])
    path = case_path(evil.alert_id)
    page = Page(served.client.get(path).text)
    assert {each["action"] for each in page.all("form")} == {f"{path}/outcome"}
    form = {"token": page.values()["token"], "seen": "0", "result": "accepted", "remedy_id": HOSTILE}
    assert "Recorded: accepted." in served.client.post(f"{path}/outcome", data=form).text
    assert decode_record(served.lines[0]) == Outcome("a/b?c#d%2e", NOW_MS, "accepted", HOSTILE)


@pytest.mark.parametrize("path", ["/", "/cases/al_1", "/cases/none", "/?page=x", "/static/desk.css", "/healthz", "/no"])
def test_every_answer_carries_the_browsers_orders(desk, path):
    desk.store.put([told(alert())])
    headers = desk.client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


def test_every_page_is_free_of_inline_script_and_style_and_of_foreign_addresses(desk):
    desk.store.put([told(alert()), told(incident())])
    for path in ("/", "/cases/al_1", "/cases/none"):
        assert_nothing_inline(desk.get(path))


# Who may talk to it


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.9.9.9"])
def test_names_of_this_machine_are_answered(desk, host):
    assert desk.client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "10.0.0.1", "", "[::1", "localhost:x"]
)
def test_foreign_names_are_refused(desk, host):
    assert desk.client.get("/", headers={"host": host}).status_code == 421


def test_peers_from_elsewhere_are_refused(store):
    application = desk_application(store, list[bytes]().append, FakeClock())
    with TestClient(application, base_url=HOME, client=("192.0.2.7", 50_000)) as client:
        assert client.get("/").status_code == 403


def test_a_desk_without_login_listens_on_loopback_only():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_listen(host)
    for host in ("0.0.0.0", "192.0.2.7", "::", "desk.example"):
        with pytest.raises(ConfigError, match="must be a loopback address"):
            check_listen(host)


# Outcomes


@pytest.fixture
def form(desk) -> dict[str, str]:
    desk.store.put([told(alert())])
    return {**desk.get("/cases/al_1").values(), "result": "accepted", "remedy_id": "timer_fix"}


def send(desk, form, **headers):
    return desk.client.post("/cases/al_1/outcome", data=form, headers=headers)


@pytest.mark.parametrize("result", ["accepted", "declined", "unreachable", "not_needed", "fixed"])
def test_an_outcome_is_one_valid_event_however_often_it_is_sent(desk, form, result):
    form["result"] = result
    answers = [send(desk, form, origin=HOME) for _ in range(3)]
    assert all("Recorded:" in answer.text for answer in answers)
    remedy_id = None if result in ("unreachable", "not_needed") else "timer_fix"
    assert len(desk.lines) == 1
    assert desk.lines[0].endswith(b"}\n")
    assert decode_record(desk.lines[0]) == Outcome("al_1", NOW_MS, result, remedy_id)
    assert b"null" not in desk.lines[0]


def test_a_case_that_was_spoken_about_leaves_the_calls_to_make(desk, form):
    send(desk, {**form, "result": "unreachable"})
    assert desk.store.counts().to_call == 1
    send(desk, {**form, "seen": "1"})
    counts = desk.store.counts()
    assert (counts.to_call, counts.contacted) == (0, 1)
    assert len(desk.lines) == 2


def test_a_colleagues_outcome_is_not_written_over(desk, form):
    send(desk, form)
    answer = send(desk, {**form, "result": "declined"})
    assert "A colleague recorded something" in answer.text
    assert len(desk.lines) == 1


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
    assert desk.lines == []


def test_the_cookie_is_kept_from_scripts_and_other_sites(desk):
    desk.store.put([told(alert())])
    cookie = desk.client.get("/cases/al_1").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"result": "bribed"}, 400),
        ({"result": None}, 400),
        ({"remedy_id": "no_such"}, 400),
        ({"remedy_id": None}, 400),
        ({"seen": "-1"}, 400),
        ({"seen": None}, 400),
        ({"pad": "x" * FORM_BYTES_MAX}, 413),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(desk, form, change, status):
    kept = {name: value for name, value in {**form, **change}.items() if value is not None}
    assert send(desk, kept).status_code == status
    assert desk.lines == []


def test_only_forms_are_read(desk, form):
    assert desk.client.post("/cases/al_1/outcome", json=form).status_code == 415
    token = form["token"].encode()
    for body in (b"token=%ff&x", b"token=" + token + b"&token=" + token, b"&".join(b"a%d=1" % n for n in range(99))):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        assert desk.client.post("/cases/al_1/outcome", content=body, headers=kind).status_code == 400
    assert desk.client.post("/cases/none/outcome", data=form).status_code == 404


def test_an_outcome_that_cannot_be_handed_on_is_not_recorded(store):
    def fail(_: bytes) -> None:
        raise OutputDownError("the disk is full")

    store.put([told(alert())])
    with TestClient(desk_application(store, fail, FakeClock()), base_url=HOME, client=("127.0.0.1", 50_000)) as client:
        fields = Page(client.get("/cases/al_1").text).values()
        answer = client.post("/cases/al_1/outcome", data={**fields, "result": "not_needed"})
    assert answer.status_code == 503
    assert "disk" not in answer.text
    assert store.case("al_1").contacts == []


def test_a_desk_whose_store_is_gone_is_not_healthy(desk):
    assert desk.client.get("/healthz").status_code == 200
    desk.store.close()
    assert desk.client.get("/healthz").status_code == 503


# The live feed


@contextlib.contextmanager
def events(served, since: str = "", **headers: str) -> Iterator[Iterator[dict]]:
    """Open a stream; give its events as dicts of their fields."""
    with served.client.stream("GET", f"/events?since={since}", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield parse(answer.iter_lines())


def parse(lines: Iterator[str]) -> Iterator[dict]:
    event: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        else:
            yield event
            event = {}


def test_a_reader_who_comes_back_misses_nothing(served):
    served.store.put([told(alert(f"al_{n}")) for n in range(4)])
    feed: dict[str, int] = {}
    with events(served, since="0") as stream:
        assert next(stream) == {"retry": "2000"}
        for event in (next(stream), next(stream)):
            feed[orjson.loads(event["data"])["case_id"]] = int(event["id"])
    # Away: one seen before changes, one not seen yet changes, one is new.
    served.store.put([told(alert(f"al_{n}", revision=2), "updated") for n in (0, 3)] + [told(incident())])
    with events(served, **{"last-event-id": event["id"]}) as stream:
        next(stream)
        while max(feed.values()) < served.store.newest_seq():
            event = next(stream)
            assert int(event["id"]) > max(feed.values())
            feed[orjson.loads(event["data"])["case_id"]] = int(event["id"])
    assert feed == {change.case_id: change.seq for change in served.store.changes(0)}
    assert len(feed) == 5


def test_an_open_stream_tells_what_comes(served):
    with events(served) as stream:
        next(stream)
        served.store.put([told(alert(severity="critical"))])
        event = next(stream)
    assert (event["event"], event["id"]) == ("change", "1")
    expected = {"case_id": "al_1", "type": "stayline.alert.opened", "revision": 1, "severity": "critical"}
    assert orjson.loads(event["data"]) == expected


def test_a_page_opens_its_stream_where_it_was_made(served):
    served.store.put([told(alert("al_1"))])
    made = next(each for each in Page(served.client.get("/").text).all("main"))
    served.store.put([told(alert("al_2"))])
    with events(served, since=made["data-seq"]) as stream:
        next(stream)
        assert orjson.loads(next(stream)["data"])["case_id"] == "al_2"


@pytest.mark.parametrize("since", ["999", "9" * 18])
def test_a_reader_ahead_of_the_feed_is_told_to_begin_anew(served, since):
    with events(served, **{"last-event-id": since}) as stream:
        next(stream)
        assert next(stream)["event"] == "resync"


def test_streams_end_when_the_desk_closes(served):
    with events(served) as stream:
        next(stream)
        served.application.state.streams.close()
        assert list(stream) == []
    assert served.client.get("/events").status_code == 503


# Words and pictures


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**7)), max_size=10))
def test_no_two_marks_cover_each_other(calls):
    timeline = lay_out([CallEvidence(f"k{n}", end, "dropped", length) for n, (end, length) in enumerate(calls)])
    places = [(float(mark.x.rstrip("%")), mark.y) for mark in timeline.marks]
    assert [mark.call.end_ms for mark in timeline.marks] == sorted(end for end, _ in calls)
    for n, (x, y) in enumerate(places):
        assert 0.0 <= x <= 100.0
        assert 8 <= y < timeline.base < timeline.height
        assert all(other_y != y or abs(other_x - x) >= APART_PERCENT - 0.011 for other_x, other_y in places[:n])


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (123_450, "EUR", "1,234.50 EUR"),
        (300, "JPY", "300 JPY"),
        (1_005, "KWD", "1.005 KWD"),
        (-9, "EUR", "\N{MINUS SIGN}0.09 EUR"),
        (0, "EUR", "0.00 EUR"),
        (None, "EUR", "not known"),
        (5, None, "not known"),
    ],
)
def test_money_is_written_in_its_own_minor_unit(amount, currency, text):
    assert money(amount, currency) == text


def test_small_ratios_are_not_written_as_nothing():
    written = [percent(ratio) for ratio in (0.0, 0.0004, 0.0154, 0.03, 0.8, 1.0)]
    assert written == ["0%", "<0.1%", "1.5%", "3%", "80%", "100%"]
    assert [duration(each) for each in (0, 31_938, 902_000, 3_900_000)] == [
        "0 s",
        "31.9 s",
        "15 min 02 s",
        "1 h 05 min",
    ]
