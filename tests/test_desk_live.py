"""The desk's live stream: nothing missed, nothing twice."""

import contextlib
import socket
from collections.abc import Iterator

import httpx2
import orjson
import pytest
from desk_kit import FakeClock, Page, alert, incident, serving, told

from sinks.desk import live
from sinks.desk.app import desk_application
from sinks.desk.people import People
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore


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
    expected = {
        "case_id": "al_1",
        "type": "stayline.alert.opened",
        "revision": 1,
        "severity": "critical",
        "last_action": "",
        "owner": "",
    }
    assert orjson.loads(event["data"]) == expected


def test_a_page_opens_its_stream_where_it_was_made(served):
    served.store.put([told(alert("al_1"))])
    made = next(each for each in Page(served.client.get("/").text).all("main"))
    served.store.put([told(alert("al_2"))])
    with events(served, since=made["data-seq"]) as stream:
        next(stream)
        assert orjson.loads(next(stream)["data"])["case_id"] == "al_2"


@pytest.mark.parametrize("since", ["999", "9" * 18, "9" * 19, "-1", "garbage"])
def test_a_reader_ahead_of_the_feed_is_told_to_begin_anew(served, since):
    with events(served, **{"last-event-id": since}) as stream:
        next(stream)
        assert next(stream)["event"] == "resync"


@contextlib.contextmanager
def office(store) -> Iterator[httpx2.Client]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    application = desk_application(store, lambda _: None, public_url=f"http://127.0.0.1:{port}")
    with serving(application, port) as base, httpx2.Client(base_url=base, timeout=10.0, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("credential", ["key", "session"])
def test_a_stream_ends_with_the_key_or_the_session_that_opened_it(store, credential):
    people = People(store)
    with office(store) as client:
        if credential == "key":
            headers = {"authorization": f"Bearer {people.make_key('crm', ['read'], 1, 'root')}"}
            end = lambda: people.revoke_key(people.api_keys()[0].id, "root")  # noqa: E731
        else:
            value = people.open_session("ann", "Ann", "csr")
            headers = {"cookie": f"stayline-desk={value}"}
            end = lambda: people.end_session(value)  # noqa: E731
        with client.stream("GET", "/api/v1/events?since=0", headers=headers) as answer:
            stream = parse(answer.iter_lines())
            next(stream)
            end()
            store.put([told(alert())])
            assert list(stream) == []
        assert client.get("/api/v1/events", headers=headers).status_code == 401


def test_nobody_shuts_out_the_others_with_open_streams(store, monkeypatch):
    monkeypatch.setattr(live, "STREAMS_EACH_MAX", 2)
    people = People(store)
    ann, bob = ({"cookie": f"stayline-desk={people.open_session(who, who, 'csr')}"} for who in ("ann", "bob"))
    with office(store) as client, contextlib.ExitStack() as opened:
        # Kept: a stream whose reader is let go of is closed.
        held = [opened.enter_context(client.stream("GET", "/events", headers=ann)).iter_lines() for _ in range(2)]
        assert [next(one) for one in held] == ["retry: 2000", "retry: 2000"]
        refused = client.get("/events", headers=ann)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "15")
        with client.stream("GET", "/events", headers=bob) as answer:
            assert answer.status_code == 200


def test_a_stream_whose_store_fails_ends_and_the_reader_is_told_when_it_comes_back(served):
    with events(served) as stream:
        next(stream)
        served.store.close()
        served.store.database._listeners.call()
        assert list(stream) == []
    assert served.client.get("/events").status_code == 503


def test_streams_end_when_the_desk_closes(served):
    with events(served) as stream:
        next(stream)
        served.application.state.streams.close()
        assert list(stream) == []
    assert served.client.get("/events").status_code == 503


def test_two_processes_on_one_server_hear_of_each_other(postgres):
    from sinks.desk.postgres import PostgresDatabase  # noqa: PLC0415

    url = postgres.fresh()
    here = DeskStore(PostgresDatabase(url), FakeClock())
    there = DeskStore(PostgresDatabase(url), FakeClock())
    application = desk_application(here, lambda _: None)
    with (
        contextlib.closing(here),
        contextlib.closing(there),
        serving(application) as base,
        httpx2.Client(base_url=base, timeout=10.0, trust_env=False) as client,
        client.stream("GET", "/events?since=0") as answer,
    ):
        stream = parse(answer.iter_lines())
        next(stream)
        there.put([told(alert("al_1"))])
        assert orjson.loads(next(stream)["data"])["case_id"] == "al_1"


def test_a_desk_that_is_started_again_goes_on_where_a_reader_was(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen: list[int] = []
    for turn in range(3):
        store = DeskStore(SqliteDatabase(tmp_path / "desk.db"), FakeClock())
        with (
            contextlib.closing(store),
            serving(desk_application(store, lambda _: None), port) as base,
            httpx2.Client(base_url=base, timeout=10.0, trust_env=False) as client,
            client.stream("GET", "/events", headers={"last-event-id": str(max(seen, default=0))}) as answer,
        ):
            stream = parse(answer.iter_lines())
            next(stream)
            store.put([told(alert(f"al_{turn}_{n}")) for n in range(3)])
            # Of three it hears one, or all, before the desk goes.
            seen += [int(next(stream)["id"]) for _ in range(1 if turn == 0 else 3)]
    assert seen == list(range(1, 8))
