"""The desk's store: against a model, on both databases, and the files it leaves."""

import contextlib
import stat
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

import apsw
import hypothesis.strategies as st
import msgspec
import orjson
import psycopg
import pytest
from delivery_kit import FakeClock as OutboxClock
from delivery_kit import dispatcher_of, run_out
from desk_kit import NOW_MS, FakeClock, alert, incident, told
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from schemas.alerts import Alert, Notification
from schemas.errors import StateError
from schemas.events import Outcome
from sinks.desk.actions import RESULTS, STAGES, WHATS, Deed, Done, actions_since, do
from sinks.desk.cards import SEVERITIES, Filter
from sinks.desk.layout import VERSION, statements
from sinks.desk.output import DeskOutput
from sinks.desk.postgres import PostgresDatabase
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore
from sinks.outbox import Outbox
from sinks.outputs import NotificationRefusedError, OutputDownError

CASES = {"a": "k1", "b": "k2", "c": "k1", "d": "k3"}
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

    def open(self):
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.store = DeskStore(self.open(), self.clock)
        self.seq = 0
        self.ids: dict[str, Notification] = {}
        self.shown: dict[str, tuple[int, Notification]] = {}
        self.state: dict[str, dict] = {}
        self.done: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.order: list[str] = []
        self.seen = 0
        self.feed: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule(batch=st.lists(ALERTS | INCIDENTS, max_size=5))
    def put(self, batch: list[Notification]) -> None:
        before = len(self.ids)
        for one in batch:
            if one.id in self.ids:
                continue
            self.ids[one.id] = one
            if one.case not in self.shown or one.revision > self.shown[one.case][1].revision:
                self.seq += 1
                self.show(one)
        assert self.store.put(batch) == len(self.ids) - before

    def show(self, one: Notification) -> None:
        state = self.state.setdefault(one.case, {"stage": "to_call", "snoozed": 0, "owner": "", "severity": -1})
        stage = "over" if one.type.endswith(("resolved", "cleared")) else "to_call"
        if one.case in CASES:
            severity = SEVERITIES.index(data_of(one).severity)
            if one.case in self.shown and severity > state["severity"]:
                state["snoozed"] = 0
            state["severity"] = severity
        if stage == "over" or state["stage"] == "over" or one.case not in self.shown:
            state["stage"] = stage
        self.shown[one.case] = (self.seq, one)

    @rule(
        case=st.sampled_from(sorted(CASES)),
        behind=st.integers(-1, 2),
        what=st.sampled_from(WHATS),
        who=st.sampled_from(["ann", "bob"]),
        boss=st.booleans(),
    )
    def act(self, case: str, behind: int, what: str, who: str, boss: bool) -> None:
        said = self.done[case]
        seen = len(said) - behind
        if seen < 0:
            return
        until_ms = self.clock.now_ms + 5 if what == "snooze" else 0
        deed = Deed(case, what, who, self.clock.now_ms, seen, may_reassign=boss, until_ms=until_ms)
        taken: list[Outcome] = []
        expected = Done.CONFLICT
        if seen < len(said):
            expected = Done.RECORDED if said[seen] == (who, what) else Done.CONFLICT
        elif case in self.shown and seen == len(said):
            state = self.state[case]
            if what in {"take", "release"} and state["owner"] not in {"", who} and not boss:
                expected = Done.HELD
            else:
                expected = Done.RECORDED
                said.append((who, what))
                self.order.append(what)
                state["owner"] = {"take": who, "release": ""}.get(what, state["owner"] or who)
                state["stage"] = STAGES.get(what, state["stage"])
                state["snoozed"] = until_ms
                self.seq += 1
                self.shown[case] = (self.seq, self.shown[case][1])
                assert do(self.store, deed, taken.append) is expected
                assert [one.result for one in taken] == [RESULTS[what]]
                return
        assert do(self.store, deed, taken.append) is expected
        assert taken == []

    @rule(passed=st.integers(1, 6))
    def wait(self, passed: int) -> None:
        self.clock.now_ms += passed

    @rule(customer=st.sampled_from(["k1", "k2", "k9"]))
    def forget(self, customer: str) -> None:
        cases = {case for case in self.shown if CASES.get(case) == customer}
        assert self.store.forget(customer) == len(cases)
        self.ids = {name: one for name, one in self.ids.items() if one.case not in cases}
        for case in cases:
            del self.shown[case]
            del self.state[case]
            self.done.pop(case, None)
            self.feed.pop(case, None)

    @rule(limit=st.integers(1, 3))
    def read_feed(self, limit: int) -> None:
        for change in self.store.changes(self.seen, limit):
            assert change.seq > self.seen
            self.seen = change.seq
            self.feed[change.case_id] = change.seq
        if self.seen == self.seq:
            assert self.feed == {case: seq for case, (seq, _) in self.shown.items()}

    def stage(self, case: str) -> str:
        state = self.state[case]
        return "snoozed" if state["stage"] == "to_call" and state["snoozed"] > self.clock.now_ms else state["stage"]

    def alerts(self) -> list[tuple[str, Alert]]:
        found = [(case, data_of(one)) for case, (_, one) in self.shown.items() if case in CASES]
        worth = lambda one: -1 if one.value_at_risk_minor is None else one.value_at_risk_minor  # noqa: E731
        rank = lambda pair: (worth(pair[1]), SEVERITIES.index(pair[1].severity), pair[1].detected_ms, pair[0])  # noqa: E731
        return sorted(found, key=rank, reverse=True)

    @invariant()
    def the_lists_are_the_models(self) -> None:
        ranked = self.alerts()
        for show in ("to_call", "contacted", "snoozed", "over", "all"):
            expected = [one for case, one in ranked if show in (self.stage(case), "all")]
            assert [card.alert for card in self.store.cases(Filter(show=show))] == expected
            assert self.store.count(Filter(show=show)) == len(expected)
        worst = [one for _, one in ranked if one.severity == "critical" and one.customer_id.startswith("k1")]
        marks = {"severity": "critical", "kind": "duration_lock", "band": "high", "region": "north"}
        wanted = Filter(show="all", customer="k1", **marks)
        assert [card.alert for card in self.store.cases(wanted)] == worst
        mine = [one for case, one in ranked if self.state[case]["owner"] == "ann"]
        assert [card.alert for card in self.store.cases(Filter(show="all", owner="ann"))] == mine
        theirs = [one for _, one in ranked if one.customer_id == "k1"]
        assert [card.alert for card in self.store.of_customer("k1")] == theirs
        cards = self.store.cases(Filter(show="all"))
        assert self.store.cases(Filter(show="all"), 1, 1) == cards[1:2]
        for place, card in enumerate(cards):
            assert self.store.cases(Filter(show="all"), behind=card.rank) == cards[place + 1 :]

    @invariant()
    def the_counts_are_the_models(self) -> None:
        counts = self.store.counts("ann")
        stages = [self.stage(case) for case, _ in self.alerts()]
        assert counts.stages == {stage: stages.count(stage) for stage in set(stages)}
        waiting = [(case, one) for case, one in self.alerts() if self.stage(case) == "to_call"]
        assert sum(counts.facets["severity"].values()) == len(waiting) == counts.to_call
        assert counts.facets["kind"].get("duration_lock", 0) == len(waiting)
        assert counts.mine == sum(self.state[case]["owner"] == "ann" for case, _ in waiting)
        known = [one.value_at_risk_minor for _, one in waiting if one.value_at_risk_minor is not None]
        assert counts.value_minor == ({"EUR": sum(known)} if known else {})
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
                assert [(each.who, each.what) for each in file.actions] == self.done[case]
                assert (file.card.seq, file.card.actions) == (self.shown[case][0], len(self.done[case]))
                assert file.card.owner == self.state[case]["owner"]


def data_of(one: Notification) -> Alert:
    return msgspec.convert(orjson.loads(one.body)["data"], Alert)


def test_a_file_does_what_the_model_does(tmp_path):
    class Files(Model):
        def open(self):
            return SqliteDatabase(Path(tempfile.mkdtemp(dir=tmp_path)) / "desk.db")

    run_state_machine_as_test(Files, settings=settings(max_examples=20, stateful_step_count=15, deadline=None))


def test_a_postgresql_server_does_what_the_model_does(postgres):
    class Servers(Model):
        def open(self):
            return PostgresDatabase(postgres.fresh())

    run_state_machine_as_test(Servers, settings=settings(max_examples=5, stateful_step_count=12, deadline=None))


def test_what_was_committed_is_there_again(database):
    store = DeskStore(database, FakeClock())
    store.put([told(alert()), told(incident())])
    do(store, Deed("al_1", "contacted", "ann", NOW_MS, 0), lambda _: None)
    before = (store.cases(Filter(show="all")), store.case("al_1"), store.changes(0))
    again = SqliteDatabase(database._path) if isinstance(database, SqliteDatabase) else PostgresDatabase(database._url)
    with contextlib.closing(DeskStore(again, FakeClock())) as other:
        assert (other.cases(Filter(show="all")), other.case("al_1"), other.changes(0)) == before


def test_an_outcome_that_cannot_be_handed_on_is_not_recorded(database):
    def fail(_: Outcome) -> None:
        raise OutputDownError("the disk is full")

    store = DeskStore(database, FakeClock())
    store.put([told(alert())])
    with pytest.raises(OutputDownError):
        do(store, Deed("al_1", "not_needed", "ann", NOW_MS, 0), fail)
    assert store.case("al_1").actions == []
    assert store.case("al_1").card.stage == "to_call"


def test_what_was_done_comes_in_order_and_goes_on_where_it_was_left(database):
    store = DeskStore(database, FakeClock())
    store.put([told(alert("al_1")), told(alert("al_2"))])
    for seen, what in enumerate(["take", "contacted", "accepted"]):
        for case in ("al_1", "al_2"):
            remedy_id = "timer_fix" if what == "accepted" else None
            do(store, Deed(case, what, "ann", NOW_MS, seen, remedy_id=remedy_id), lambda _: None)
    found, behind = [], 0
    while page := actions_since(store, behind, 4):
        found += page
        behind = page[-1].seq
    everything = actions_since(store, 0, 99)
    assert [(one.alert_id, one.what) for one in everything] == [
        (case, what) for what in ("take", "contacted", "accepted") for case in ("al_1", "al_2")
    ]
    assert found == everything


def test_a_change_is_announced_to_whoever_listens(database):
    heard = threading.Event()
    store = DeskStore(database, FakeClock())
    store.subscribe(heard.set)
    heard.clear()
    store.put([told(alert())])
    assert heard.wait(10.0)
    store.unsubscribe(heard.set)


def test_an_older_revision_that_comes_late_joins_the_history_only(database):
    store = DeskStore(database, FakeClock())
    store.put([told(alert(revision=2, severity="critical"))])
    seq = store.newest_seq()
    store.put([told(alert(revision=1, severity="minor"))])
    file = store.case("al_1")
    assert file.card.alert.severity == "critical"
    assert [each.alert.revision for each in file.revisions] == [2, 1]
    assert store.newest_seq() == seq


def test_texts_that_a_database_could_not_hold_do_not_stop_it(database):
    store = DeskStore(database, FakeClock())
    store.put([told(alert(region="a\0b", customer_id="c\0", currency="\0"))])
    assert store.cases(Filter())[0].alert.region == "a\0b"


def test_a_batch_is_taken_whole_or_not_at_all(database):
    store = DeskStore(database, FakeClock())
    foreign = replace(told(alert("al_2")), case="al_3")
    with pytest.raises(NotificationRefusedError, match="al_3, 1, was of al_2, 1") as refused:
        DeskOutput("desk", store).append(0, [told(alert("al_1")), foreign])
    assert refused.value.index == 1
    assert store.newest_seq() == 0
    assert DeskOutput("desk", store).append(0, [told(alert("al_1"))] * 2) == 2
    assert store.newest_seq() == 1


def test_cases_found_are_counted_by_time_and_severity(database):
    store = DeskStore(database, FakeClock())
    assert (store.newest_ms(), store.oldest_ms(0), store.opened(0, 10)) == (0, None, {})
    store.put([told(alert("al_1"), at_ms=100), told(alert("al_2", severity="critical"), at_ms=125)])
    store.put([told(alert("al_2", revision=2), "updated", at_ms=128), told(incident(), at_ms=129)])
    assert store.opened(100, 10) == {(0, "major"): 1, (2, "critical"): 1}
    assert (store.newest_ms(), store.oldest_ms(101)) == (129, 125)


def test_lists_of_ten_thousand_read_no_case_that_they_do_not_show(store):
    with store.database.read() as db:
        plan = db.rows(
            "EXPLAIN QUERY PLAN SELECT case_id FROM card WHERE is_alert = 1 AND stage = 'to_call' AND snoozed_ms <= 5 "
            "ORDER BY value_rank DESC, severity DESC, detected_ms DESC, case_id DESC LIMIT 50"
        )
        counted = db.rows(
            "EXPLAIN QUERY PLAN SELECT severity, kind, band, region, currency, count(*), sum(value_rank) FROM card "
            "WHERE is_alert = 1 AND stage = 'to_call' AND snoozed_ms <= 5 "
            "GROUP BY severity, kind, band, region, currency"
        )
    # One step each, over an index alone: nothing is sorted, and no case is read.
    assert [step[-1].partition(" (")[0] for step in plan + counted] == [
        "SEARCH card USING COVERING INDEX card_ranked",
        "SEARCH card USING COVERING INDEX card_facets",
    ]


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
        (lambda path: set_pragma(path, "user_version", 99), f"must be version {VERSION}, was 99"),
        (lambda path: set_pragma(path, "application_id", 7), "another SQLite file"),
        (lambda path: path.mkdir(), "readable and writable"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(tmp_path, spoil, text):
    path = tmp_path / "desk.db"
    if text != "readable and writable":
        SqliteDatabase(path).close()
    spoil(path)
    with pytest.raises(StateError, match=text):
        SqliteDatabase(path)


def set_pragma(path, name, value):
    with contextlib.closing(apsw.Connection(str(path))) as db:
        db.pragma(name, value)


def test_a_database_of_another_layout_is_refused(postgres):
    url = postgres.fresh()
    PostgresDatabase(url).close()
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE feed SET version = 99")
    with pytest.raises(StateError, match="must be version"):
        PostgresDatabase(url)


def test_a_server_that_is_away_is_waited_for(tmp_path):
    with pytest.raises(OutputDownError, match="must be a server that answers"):
        PostgresDatabase(f"host={tmp_path} user=nobody dbname=none connect_timeout=1")


def test_what_is_forgotten_is_gone_from_the_files(store, tmp_path):
    store.put([told(alert("al_1", customer_id="c-secret-token")), told(alert("al_2"))])
    assert any(b"c-secret-token" in file.read_bytes() for file in (tmp_path / "desk").iterdir())
    assert store.forget("c-secret-token") == 1
    assert not any(b"c-secret-token" in file.read_bytes() for file in (tmp_path / "desk").iterdir())
    assert store.case("al_2") is not None


def test_the_dispatcher_delivers_to_the_desk_once_and_gives_up_what_is_no_alert(store, tmp_path):
    clock = OutboxClock()
    outbox = Outbox.open(tmp_path / "outbox.db", {"desk": 100}, clock)
    broken = Notification("x-1", "stayline.alert.opened", "x", 1, 0, b'{"data":{"alert_id":"x"}}')
    outbox.put([told(alert("al_1")), broken, told(alert("al_2")), told(incident())])
    run_out(dispatcher_of(outbox, clock, DeskOutput("desk", store)), clock)
    stats = outbox.stats().outputs["desk"]
    assert (stats.delivered, stats.dead, stats.pending) == (3, 1, 0)
    assert store.count(Filter(show="all")) == 2
    outbox.close()


def test_both_databases_are_given_the_same_tables():
    ours, theirs = statements(), statements(postgres=True)
    assert len(ours) == len(theirs)
    assert not [one for one in theirs if "STRICT" in one or " INTEGER" in one or " BLOB" in one]
