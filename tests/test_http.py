import base64
import errno
import gzip
import socket
import threading
from functools import partial
from urllib.parse import quote

import httpx2
import orjson
import pytest
from engine_kit import DROPPED, MONDAY_MS, batch, call, engine
from formats_kit import CASES, events, options, read, read_case, source
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from dataflows.inputs import http, spool
from dataflows.inputs.files import Place
from dataflows.inputs.http import BODY_BYTES_MAX, Server, events_application, metrics_application
from dataflows.inputs.spool import Spool
from dataflows.metrics import Gauges
from schemas.deadletters import Reject
from schemas.errors import ConfigError
from schemas.formats import open_format
from sinks.outbox import Outbox

BODY = b'{"type":"call"}\nnot json\n\n{"type":"link"}'


@pytest.fixture
def serve():
    """Start servers on free ports; return each with a client of it."""
    started = []

    def start(application, **options):
        server = Server(application, "127.0.0.1", 0, **options)
        server.start()
        client = httpx2.Client(base_url=f"http://{server.address}", trust_env=False, timeout=30)
        started.append((server, client))
        return server, client

    yield start
    for server, client in started:
        client.close()
        server.stop()


@pytest.fixture
def taken(tmp_path):
    return Spool(tmp_path / "spool")


@pytest.fixture
def client(serve, taken):
    return serve(events_application(taken))[1]


def stored(taken):
    return b"".join(cut.chunk.data for cut in iter(taken.read(Place()).__next__, None))


def problem(response):
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["title"] == response.reason_phrase
    return document["detail"]


class TestEvents:
    def test_accepted_records_are_on_disk_whatever_they_hold(self, client, taken):
        response = client.post("/v1/events", content=BODY)
        assert (response.status_code, response.json()) == (202, {"records": 3})
        assert stored(taken) == BODY + b"\n"

    def test_the_answer_comes_after_the_disk(self, client, monkeypatch):
        order, fsync = [], spool.os.fsync
        monkeypatch.setattr(spool.os, "fsync", lambda file: (order.append("disk"), fsync(file)))
        with client.stream("POST", "/v1/events", content=BODY) as response:
            order.append(response.status_code)
        assert order == ["disk", "disk", 202]

    @pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\n"])
    def test_an_empty_body_is_a_problem(self, client, taken, body):
        response = client.post("/v1/events", content=body)
        assert (response.status_code, stored(taken)) == (400, b"")
        assert problem(response) == "a body must hold at least one record, was empty"

    def test_a_body_at_the_limit_is_taken_and_one_beyond_it_is_a_problem(self, client, taken, monkeypatch):
        monkeypatch.setattr(http, "BODY_BYTES_MAX", 100_000)
        assert client.post("/v1/events", content=b"x" * 100_000).status_code == 202
        response = client.post("/v1/events", content=b"y" * 100_001)
        assert response.status_code == 413
        assert problem(response) == "a body must be at most 100000 bytes, was longer"
        assert stored(taken) == b"x" * 100_000 + b"\n"

    def test_a_sender_that_never_stops_is_cut_off_without_being_held(self, client, taken):
        def endless():
            # More than any buffer between the two would hide.
            for _ in range(4 * BODY_BYTES_MAX // 65_536):
                yield b"x" * 65_536

        try:
            response = client.post("/v1/events", content=endless())
        except httpx2.TransportError:
            pass  # cut off while it was sending: the answer stands in nobody's way
        else:
            assert response.status_code == 413
        assert stored(taken) == b""
        assert client.post("/v1/events", content=b"a").status_code == 202

    def test_half_a_request_is_none_and_no_noise(self, serve, taken, caplog):
        server, client = serve(events_application(taken))
        host, port = server.address.split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf\n")
        assert client.post("/v1/events", content=b"whole").status_code == 202
        server.stop()
        assert stored(taken) == b"whole\n"
        assert caplog.records == []

    def test_a_full_spool_or_disk_is_a_problem_that_passes(self, serve, tmp_path, monkeypatch, caplog):
        full = Spool(tmp_path / "full", segment_bytes=1, bytes_max=10)
        _, client = serve(events_application(full))
        assert client.post("/v1/events", content=b"12345678").status_code == 202
        refused = client.post("/v1/events", content=b"12345678")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert problem(refused) == "the records could not be stored, none of them was taken"
        with monkeypatch.context() as patch:
            patch.setattr(spool.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            assert client.post("/v1/events", content=b"a").status_code == 503
        assert client.post("/v1/events", content=b"a").status_code == 503, "the disk is back, the room is not"
        full.prune(1)
        assert stored(full) == b"12345678\n"
        assert caplog.records == []

    def test_many_senders_at_once_lose_and_mix_nothing(self, serve, taken):
        server, _ = serve(events_application(taken))
        bodies = [b"".join(b"%d-%d\n" % (sender, line) for line in range(9)) for sender in range(80)]

        def send(share):
            with httpx2.Client(base_url=f"http://{server.address}", trust_env=False, timeout=30) as client:
                for body in share:
                    assert client.post("/v1/events", content=body).status_code == 202

        threads = [threading.Thread(target=send, args=(bodies[place::8],)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = stored(taken).splitlines(keepends=True)
        assert sorted(b"".join(lines[place : place + 9]) for place in range(0, len(lines), 9)) == sorted(bodies)

    def test_what_a_web_page_sends_through_a_browser_is_not_taken(self, client, taken):
        response = client.post("/v1/events", content=BODY, headers={"origin": "https://evil.example"})
        assert (response.status_code, stored(taken)) == (403, b"")
        assert problem(response) == "records must come from a program, came from a web page"

    def test_a_compressed_body_is_a_problem_rather_than_a_heap_of_dead_letters(self, client, taken):
        response = client.post("/v1/events", content=gzip.compress(BODY), headers={"content-encoding": "gzip"})
        assert (response.status_code, stored(taken)) == (415, b"")
        assert problem(response) == "a body must not be compressed, was"
        assert client.post("/v1/events", content=BODY, headers={"content-encoding": "identity"}).status_code == 202

    def test_only_posts_are_taken(self, client):
        assert client.get("/v1/events").status_code == 405
        assert client.post("/elsewhere").status_code == 404
        assert client.get("/healthz").text == "ok\n"


class TestServer:
    def test_a_taken_address_is_a_problem_of_the_configuration(self, serve, taken):
        server, _ = serve(events_application(taken))
        host, port = server.address.split(":")
        with pytest.raises(ConfigError, match=f"must be a free address, was {host}:{port}: Address already in use"):
            Server(events_application(taken), host, int(port))

    def test_an_address_that_cannot_be_resolved_is_a_problem_of_the_configuration(self, taken):
        with pytest.raises(ConfigError, match=r"must be a free address, was 192.0.2.1:0"):
            Server(events_application(taken), "192.0.2.1", 0)

    def test_a_stopped_server_frees_its_address(self, serve, taken):
        server, client = serve(events_application(taken))
        assert client.get("/healthz").status_code == 200
        server.stop()
        host, port = server.address.split(":")
        again = Server(events_application(taken), host, int(port))
        again.start()
        again.stop()

    def test_what_would_keep_the_server_waiting_is_ended_first(self, serve):
        closing = threading.Event()

        async def endless(_):
            async def lines():
                while not closing.is_set():
                    yield b"line\n"

            return StreamingResponse(lines())

        server, client = serve(Starlette(routes=[Route("/", endless)]), before_stop=closing.set)
        with client.stream("GET", "/") as response:
            assert next(response.iter_bytes())
            server.stop()
            assert not server._thread.is_alive()


class TestMetrics:
    def test_the_page_counts_every_record_once_and_names_no_customer(self, serve, tmp_path):
        risk = engine()
        events = [call("k1", MONDAY_MS + place * 1_000, **DROPPED) for place in range(20)]
        risk.apply(batch([*events, events[-1], b"broken", call("k1", MONDAY_MS - 10**9)]))
        with_outbox = Outbox.open(tmp_path / "outbox.sqlite3", {"crm": 10}, lambda: 0)
        posted = Spool(tmp_path / "spool")
        posted.append(b"a")
        page = serve(metrics_application(Gauges([risk], with_outbox, posted)))[1].get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        figures = dict(line.rsplit(" ", 1) for line in page.text.splitlines() if not line.startswith("#"))
        outcomes = {name: float(value) for name, value in figures.items() if name.startswith("stayline_records_total")}
        assert sum(outcomes.values()) == 23
        assert outcomes['stayline_records_total{outcome="dead_lettered"}'] == 1
        assert outcomes['stayline_records_total{outcome="duplicate"}'] == 1
        assert figures['stayline_outbox_pending{output="crm"}'] == "0.0"
        assert figures["stayline_spool_bytes"] == "2.0"
        assert "k1" not in page.text


class TestVendorsRecords:
    """What `input.format` says is what a request may hold."""

    @pytest.fixture
    def posted(self, serve, taken):
        def post(name, *bodies):
            client = serve(events_application(taken, partial(open_format, name, options())))[1]
            return [client.post("/v1/events", content=body) for body in bodies]

        return post

    @pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("customers")])
    def test_a_file_posted_gives_what_the_file_gives(self, posted, taken, case):
        (response,) = posted(case.partition("/")[0], source(case))
        items = read_case(case)
        assert (response.status_code, response.json()) == (202, {"records": len(items)})
        chunks = [cut.chunk for cut in iter(http.read_converted(taken, Place()).__next__, None)]
        assert b"".join(chunk.data for chunk in chunks) == events(items)
        rejects = [reject for chunk in chunks for reject in chunk.rejects]
        given = [item for item in items if isinstance(item, Reject)]
        assert [(one.reason, one.record) for one in rejects] == [(one.reason, one.record) for one in given]
        assert [one.detail for one in rejects] == [
            f"{one.detail}; record {one.position} of its request" for one in given
        ]

    def test_a_switch_may_post_each_record_as_a_form(self, posted, taken):
        record = source("freeswitch/legs").splitlines()[0]
        (plain,), encoded = (events(read("freeswitch", record)).splitlines(),), b"cdr=" + quote(record).encode()
        in_base64 = b"cdr=" + base64.b64encode(record)
        assert [one.status_code for one in posted("freeswitch", record, encoded, in_base64)] == [202] * 3
        assert stored(taken).splitlines() == plain * 3

    def test_no_number_lies_in_the_spool(self, posted, taken):
        posted("asterisk", source("asterisk/cdr-csv"), b'"","01632960001",broken\n')
        assert b"01632960001" not in stored(taken)
        assert b"01632960001" not in base64.b64decode(orjson.loads(stored(taken).splitlines()[-1][1:])["record_b64"])

    def test_a_dead_letter_stands_where_it_lies_in_the_spool(self, posted, taken):
        posted("kamailio", b"{\n", source("kamailio/cdrs-and-dialogs"), b"[]\n")
        chunks = [cut.chunk for cut in iter(http.read_converted(taken, Place()).__next__, None)]
        positions = [position for chunk in chunks for position in chunk.positions]
        places = [reject.position for chunk in chunks for reject in chunk.rejects]
        lines = stored(taken).splitlines()
        assert sorted([*positions, *places]) == list(range(1, len(lines) + 1))
        assert [number for number, line in enumerate(lines, 1) if line.startswith(b"!")] == places
        assert {1, len(lines)} <= set(places)

    def test_what_is_not_in_the_format_at_all_is_a_problem_and_is_not_taken(self, posted, taken):
        (response,) = posted("voipmonitor", b"1,2,3\n4,5,6\n")
        assert (response.status_code, stored(taken)) == (400, b"")
        assert problem(response).startswith("line 1: the first row must name the columns of VoIPmonitor's cdr table")

    def test_rows_that_tell_of_no_call_are_taken_and_give_nothing(self, posted, taken):
        (response,) = posted("kamailio", b'{"method":"ACK","callid":"a","time":1}\n')
        assert (response.status_code, response.json(), stored(taken)) == (202, {"records": 0}, b"")

    def test_a_line_that_only_looks_like_a_refused_record_is_a_record_like_any_other(self, taken):
        lines = b'{"type":"call"}\n!not ours\n!{"reason":"not_json","detail":"","record_b64":"%"}\n'
        taken.append(lines)
        (chunk,) = (cut.chunk for cut in iter(http.read_converted(taken, Place()).__next__, None))
        assert (chunk.data, list(chunk.positions), chunk.rejects) == (lines, [1, 2, 3], [])
