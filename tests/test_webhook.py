"""The webhook output against receivers that fail, stall, lie, and lead astray."""

import asyncio
import contextlib
import gzip
import random
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from delivery_kit import (
    CUT,
    DRIP,
    LOOPBACK,
    RESET,
    SECRET,
    FakeClock,
    Receiver,
    Reply,
    dispatcher_of,
    notice,
    notices,
    run_out,
)
from needs_kit import make_certificates

from schemas.errors import ConfigError
from sinks.file import FileOutput
from sinks.outbox import Outbox
from sinks.outputs import Delivery, State, Undeliverable
from sinks.webhook import WebhookOutput
from sinks.webhook.guard import parse_networks, parse_url
from sinks.webhook.signing import parse_secret, signature
from sinks.webhook.trace import traceparent
from sinks.webhook.transport import GuardedBackend, tls_context


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def outbox(tmp_path, clock):
    opened = Outbox.open(tmp_path / "outbox.db", {"crm": 1_000}, clock)
    yield opened
    opened.close()


def webhook(url: str, **changes) -> WebhookOutput:
    return WebhookOutput("crm", url, [SECRET], **({"allow_networks": LOOPBACK} | changes))


def deliver(outbox: Outbox, clock: FakeClock, receiver: Receiver, **changes) -> None:
    run_out(dispatcher_of(outbox, clock, webhook(receiver.url, **changes)), clock)


def first_arrivals(receiver: Receiver) -> list[str]:
    return list(dict.fromkeys(request.id for request in receiver.requests))


def assert_nothing_lost(outbox: Outbox, receiver: Receiver, put) -> None:
    """Every id arrived; equal ids have equal bodies; within a case, revisions came in order."""
    assert sorted(first_arrivals(receiver)) == sorted(n.id for n in put)
    bodies = {n.id: n.body for n in put}
    assert all(request.body == bodies[request.id] for request in receiver.requests)
    for case in {n.case for n in put}:
        revisions = [int(i.split("-")[1]) for i in first_arrivals(receiver) if i.startswith(f"{case}-")]
        assert revisions == sorted(revisions)
    crm = outbox.stats().outputs["crm"]
    assert (crm.pending, crm.dead, crm.delivered) == (0, 0, len(put))


def test_a_request_is_a_signed_cloudevent(outbox, clock):
    outbox.put([notice("a", 1)])
    with Receiver() as receiver:
        deliver(outbox, clock, receiver)
    (request,) = receiver.requests
    attempt_s = clock() // 1_000
    assert request.body == notice("a", 1).body
    assert (
        request.headers
        | {
            "content-type": "application/cloudevents+json",
            "webhook-id": "a-1",
            "idempotency-key": "a-1",
            "traceparent": traceparent("a-1", "crm", 0),
            "webhook-timestamp": str(attempt_s),
            "webhook-signature": signature([parse_secret(SECRET)], "a-1", attempt_s, request.body),
            "host": f"127.0.0.1:{receiver.port}",
            ":target": "/hooks?from=test",
        }
        == request.headers
    )
    assert not {"cookie", "authorization", "accept-encoding"} & set(request.headers)


def test_retries_keep_the_id_and_refresh_time_and_signature(outbox, clock):
    outbox.put([notice("a", 1)])
    with Receiver(lambda _, nth: Reply(500 if nth < 4 else 204)) as receiver:
        deliver(outbox, clock, receiver)
    assert len(receiver.requests) == 5
    assert {request.id for request in receiver.requests} == {"a-1"}
    for request in receiver.requests:
        sent_s = int(request.headers["webhook-timestamp"])
        expected = signature([parse_secret(SECRET)], "a-1", sent_s, request.body)
        assert request.headers["webhook-signature"] == expected
    assert int(receiver.requests[-1].headers["webhook-timestamp"]) == clock() // 1_000


def test_one_connection_serves_many_requests(outbox, clock):
    put = notices(50, cases=1)
    outbox.put(put)
    with Receiver() as receiver:
        deliver(outbox, clock, receiver)
    assert_nothing_lost(outbox, receiver, put)
    assert receiver.connections == 1


@pytest.mark.parametrize("fault", [Reply(500), Reply(302, (("location", "http://169.254.169.254/"),)), RESET, CUT])
def test_whatever_fails_now_and_then_nothing_is_lost_or_disordered(outbox, clock, fault):
    put = notices(40, cases=6)
    outbox.put(put)
    chance = random.Random(5)  # noqa: S311  seeded, not secret
    with Receiver(lambda _r, _n: fault if chance.random() < 0.3 else Reply()) as receiver:
        deliver(outbox, clock, receiver)
    assert_nothing_lost(outbox, receiver, put)
    assert len(receiver.requests) >= 40


def test_work_done_before_a_reset_is_repeated_with_the_same_id(outbox, clock):
    outbox.put([notice("a", 1)])
    with Receiver(lambda _, nth: RESET if nth < 2 else Reply()) as receiver:
        deliver(outbox, clock, receiver)
    assert [request.id for request in receiver.requests] == ["a-1"] * 3


def test_a_200_is_an_answer_even_if_its_body_never_comes(outbox, clock):
    outbox.put([notice("a", 1)])
    with Receiver(lambda _r, _n: CUT) as receiver:
        deliver(outbox, clock, receiver)
    assert (len(receiver.requests), outbox.stats().outputs["crm"].delivered) == (1, 1)


def test_a_drip_is_no_answer_and_is_given_up_after_the_timeout(outbox, clock):
    outbox.put([notice("a", 1)])
    with Receiver(lambda _, nth: DRIP if nth == 0 else Reply()) as receiver:
        output = webhook(receiver.url, timeout_s=0.1)
        dispatcher = dispatcher_of(outbox, clock, output)
        clock.now_ms = dispatcher.deliver_due()
        assert outbox.stats().outputs["crm"].trouble == "no answer within 0.1 s"
        run_out(dispatcher, clock)
    assert [request.id for request in receiver.requests] == ["a-1", "a-1"]


def test_a_redirect_is_never_followed(outbox, clock):
    outbox.put([notice("a", 1)])
    with Receiver() as inside, Receiver() as receiver:
        moved = Reply(307, (("location", inside.url),))
        receiver.react = lambda _, nth: moved if nth < 3 else Reply()
        deliver(outbox, clock, receiver)
    assert (len(receiver.requests), len(inside.requests)) == (4, 0)


def test_retry_after_is_waited_for_by_all_deliveries(outbox, clock):
    outbox.put(notices(5, cases=5))
    start_ms = clock()
    busy = Reply(429, (("retry-after", "600"),))
    with Receiver(lambda _, nth: busy if nth == 0 else Reply()) as receiver:
        deliver(outbox, clock, receiver, concurrency=1)
    times = [int(r.headers["webhook-timestamp"]) * 1_000 - start_ms for r in receiver.requests]
    assert times == [0, 600_000, 600_000, 600_000, 600_000, 600_000]


def test_a_message_the_receiver_finds_wrong_dies_after_three_and_its_case_goes_on(outbox, clock):
    outbox.put(notices(3, cases=1))

    def react(request, _nth):
        return Reply(422, body=b"unknown customer 4915112345678") if request.id == "case0-1" else Reply()

    with Receiver(react) as receiver:
        deliver(outbox, clock, receiver)
        assert [r.id for r in receiver.requests] == ["case0-1"] * 3 + ["case0-2", "case0-3"]
        (dead,) = outbox.undelivered.list()
        assert (dead.reason, dead.attempts) == (Undeliverable.REJECTED, 3)
        assert dead.reply == "422 unknown customer [number or address]"
        receiver.react = lambda _r, _n: Reply()
        outbox.undelivered.replay("crm", [dead.id], clock())
        deliver(outbox, clock, receiver)
    assert receiver.requests[-1].id == "case0-1"
    assert outbox.stats().outputs["crm"].delivered == 3


def test_a_dead_receiver_kills_no_delivery_before_its_time_and_every_one_after_it(outbox, clock):
    outbox.put(notices(3, cases=3))
    start_ms = clock()
    with Receiver(lambda _r, _n: Reply(503)) as receiver:
        deliver(outbox, clock, receiver, give_up_after_s=3_600)
    dead = outbox.undelivered.list()
    assert {d.reason for d in dead} == {Undeliverable.EXPIRED}
    assert len(dead) == 3
    assert all(d.ended_ms - d.first_ms >= 3_600_000 for d in dead)
    assert min(d.first_ms for d in dead) == start_ms


def test_410_disables_the_output_and_loses_nothing(outbox, clock):
    put = notices(6, cases=2)
    outbox.put(put)
    with Receiver(lambda _r, _n: Reply(410)) as receiver:
        deliver(outbox, clock, receiver)
        assert 1 <= len(receiver.requests) <= 2
        assert outbox.stats().outputs["crm"].breaker == "disabled"
        receiver.react = lambda _r, _n: Reply()
        outbox.enable("crm")
        deliver(outbox, clock, receiver)
    assert_nothing_lost(outbox, receiver, put)


def test_an_id_that_cannot_be_signed_dies_alone(outbox, clock):
    outbox.put([notice("a.b", 1), notice("a", 1)])
    with Receiver() as receiver:
        deliver(outbox, clock, receiver)
    assert first_arrivals(receiver) == ["a-1"]
    assert [(d.id, d.reason) for d in outbox.undelivered.list()] == [("a.b-1", Undeliverable.MALFORMED)]


def test_a_huge_answer_is_cut_off(outbox, clock):
    outbox.put(notices(2, cases=1))
    with Receiver(lambda _, nth: Reply(500 if nth == 0 else 200, body=b"x" * 5_000_000)) as receiver:
        dispatcher = dispatcher_of(outbox, clock, webhook(receiver.url))
        clock.now_ms = dispatcher.deliver_due()
        assert len(outbox.stats().outputs["crm"].trouble) == 1_000
        connections = receiver.connections
        run_out(dispatcher, clock)
    assert [request.id for request in receiver.requests] == ["case0-1", "case0-1", "case0-2"]
    assert receiver.connections == connections + 2, "what was not read to its end is not read on"


BOMB = gzip.compress(bytes(50_000_000))
GARBAGE = [
    b"HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB,
    b"",
    b"\x00" * 100,
    b"SSH-2.0-OpenSSH\r\n",
    b"HTTP/1.1 999 Odd\r\n\r\n",
    b"HTTP/1.1 99 Odd\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 500 \xff\xfe\r\nx: \xff\r\n\r\n\xff\xff",
    b"HTTP/1.1 500 No\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 500 No\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    b"HTTP/1.1 500 No\r\nno colon\r\n\r\n",
    b"HTTP/1.1 500 No\r\nx: " + b"y" * 300_000,
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    b"HTTP/1.1 503 No\r\nretry-after: 0\x1f\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nretry-after: \xd9\xa3, 99 Foo\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/2.0 500 No\r\n\r\n",
]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
def test_whatever_a_receiver_answers_is_at_worst_a_failed_attempt(clock, answer):
    with Receiver(lambda _r, _n: answer) as receiver:
        outcome = attempt(webhook(receiver.url), clock)
    assert (outcome.state, outcome.reply != "") == (State.PENDING, True)
    assert len(receiver.requests) == 1


def attempt(output: WebhookOutput, clock: FakeClock):
    async def once():
        try:
            return await output.attempt(Delivery(1, notice("a", 1)), clock, random.Random(1))  # noqa: S311
        finally:
            await output.close()

    return asyncio.run(once())


def test_a_name_that_turns_to_the_inside_gets_nothing(clock):
    answers = [["127.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["192.168.1.1"], ["127.0.0.1"]]

    async def flipping(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    with Receiver() as receiver:
        output = webhook(f"http://crm.example:{receiver.port}/", resolver=flipping)
        outcomes = [attempt(output, clock) for _ in range(4)]
    assert [o.state for o in outcomes] == [State.DELIVERED, State.PENDING, State.PENDING, State.DELIVERED]
    assert "crm.example must not stand for 10.0.0.1" in outcomes[1].reply
    assert [r.headers["host"] for r in receiver.requests] == [f"crm.example:{receiver.port}"] * 2


def test_the_next_address_is_tried_when_the_first_does_not_answer(clock):
    async def two(_host: str, _port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    with Receiver() as receiver:
        assert attempt(webhook(f"http://crm.example:{receiver.port}/", resolver=two), clock).state == State.DELIVERED


def test_a_name_nobody_knows_and_a_port_nobody_listens_on_are_tried_again(clock):
    async def unknown(_host: str, _port: int) -> list[str]:
        raise OSError("Name or service not known")

    assert "not known" in attempt(webhook("http://crm.example/", resolver=unknown), clock).reply
    with Receiver() as receiver:
        pass
    outcome = attempt(webhook(receiver.url), clock)
    assert (outcome.state, "Connect call failed" in outcome.reply) == (State.PENDING, True)


def test_an_address_that_swallows_connections_leaves_time_for_the_next(clock, monkeypatch):
    connect = asyncio.open_connection

    async def swallowing(address: str, port: int):
        if address == "127.0.0.2":
            await asyncio.Event().wait()
        return await connect(address, port)

    async def two(_host: str, _port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr("sinks.webhook.transport.CONNECT_S", 0.05)
    monkeypatch.setattr(asyncio, "open_connection", swallowing)
    with Receiver() as receiver:
        assert attempt(webhook(f"http://crm.example:{receiver.port}/", resolver=two), clock).state == State.DELIVERED
    only = attempt(webhook("http://127.0.0.2/"), clock)
    assert only.reply == "ConnectError: no connection to 127.0.0.2 within 0.05 s"


def test_a_name_server_that_hangs_holds_up_no_other_output(tmp_path, clock, monkeypatch):
    release = threading.Event()

    def look_up(host: str, port: int, **_kwargs):
        assert host == "quick.example" or release.wait(60)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    backlogs = {"slow": 100, "quick": 100, "file": 100}
    with contextlib.closing(Outbox.open(tmp_path / "o.db", backlogs, clock)) as outbox, Receiver() as receiver:
        outputs = [
            WebhookOutput(name, f"http://{name}.example:{receiver.port}/", [SECRET], allow_networks=LOOPBACK)
            for name in ("slow", "quick")
        ]
        dispatcher = dispatcher_of(outbox, clock, *outputs, FileOutput(tmp_path / "alerts.ndjson"))
        outbox.put(notices(30, cases=30))
        dispatcher.start()
        assert outbox.wait_until(lambda: outbox.pending("file") + outbox.pending("quick") == 0, 30.0)
        assert outbox.pending("slow") == 30
        release.set()
        assert dispatcher.drain(30.0)
        dispatcher.stop()


def test_a_connection_that_the_far_end_closed_is_not_used_again():
    async def meet() -> tuple[bool, bool]:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asked.wait()
            writer.close()

        asked = asyncio.Event()
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        place = parse_url(f"http://crm.example:{port}/")
        stream = await GuardedBackend(place, parse_networks(LOOPBACK), local).connect_tcp("crm.example", port)
        before = stream.get_extra_info("is_readable")
        asked.set()
        assert await stream.read(1) == b""
        after = stream.get_extra_info("is_readable")
        await stream.aclose()
        server.close()
        return before, after

    assert asyncio.run(meet()) == (False, True)


def test_no_environment_reroutes_a_call(clock, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Receiver() as receiver:
        assert attempt(webhook(receiver.url), clock).state == State.DELIVERED


def test_every_problem_of_a_configuration_is_listed_and_no_secret_quoted(tmp_path):
    with pytest.raises(ConfigError) as caught:
        WebhookOutput("crm", "ftp://x", ["whsec_c2hvcnQ="], concurrency=0, timeout_s=0.0, ca_file=tmp_path / "none.pem")
    assert len(caught.value.problems) == 5
    assert "c2hvcnQ" not in str(caught.value)
    assert all(problem.startswith("output crm: ") for problem in caught.value.problems)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    make_certificates(directory, "crm.example")
    return directory


class TlsReceiver(Receiver):
    """The receiver behind TLS."""

    def __init__(self, certificates: Path, **settings) -> None:
        super().__init__()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificates / "server.pem")
        for name, value in settings.items():
            setattr(self.tls, name, value)


async def local(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def tls_webhook(receiver: Receiver, certificates: Path, host: str = "crm.example", **changes) -> WebhookOutput:
    settings = {"ca_file": certificates / "ca.pem", "resolver": local} | changes
    return webhook(f"https://{host}:{receiver.port}/", **settings)


def test_tls_is_verified_against_the_name_and_the_authority(certificates, clock):
    with TlsReceiver(certificates) as receiver:
        assert attempt(tls_webhook(receiver, certificates), clock).state == State.DELIVERED
        wrong_name = attempt(tls_webhook(receiver, certificates, host="other.example"), clock)
        wrong_authority = attempt(tls_webhook(receiver, certificates, ca_file=None), clock)
    assert "certificate" in wrong_name.reply
    assert "certificate" in wrong_authority.reply
    assert len(receiver.requests) == 1


def test_a_receiver_can_demand_a_client_certificate(certificates, clock):
    with TlsReceiver(certificates, verify_mode=ssl.CERT_REQUIRED) as receiver:
        receiver.tls.load_verify_locations(certificates / "ca.pem")
        with_one = tls_webhook(receiver, certificates, client_cert_file=certificates / "client.pem")
        assert attempt(with_one, clock).state == State.DELIVERED
        assert attempt(tls_webhook(receiver, certificates), clock).state == State.PENDING
    assert len(receiver.requests) == 1


def test_tls_settings_verify_and_begin_at_1_2():
    context = tls_context(None, None)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


CHILD = """
import pathlib, random, sys
sys.path.insert(0, sys.argv[1])
from delivery_kit import LOOPBACK, SECRET, notices
import time
from sinks.dispatcher import Dispatcher
from sinks.file import FileOutput
from sinks.outbox import Outbox
from sinks.webhook import WebhookOutput

clock = lambda: time.time_ns() // 1_000_000
outbox = Outbox.open(pathlib.Path(sys.argv[2]) / "outbox.db", {"crm": 10_000}, clock)
output = WebhookOutput("crm", sys.argv[3], [SECRET], allow_networks=LOOPBACK)
dispatcher = Dispatcher(outbox, [output], clock, random.Random(1))
dispatcher.start()
put = notices(300, cases=7)
for first in range(0, 300, 10):
    outbox.put(put[first : first + 10])
assert dispatcher.drain(60.0)
dispatcher.stop()
"""


@pytest.mark.parametrize("seed", range(3))
def test_after_kills_in_the_middle_of_delivery_every_id_has_arrived_with_its_one_body(tmp_path, clock, seed):
    chance = random.Random(seed)  # noqa: S311  seeded, not secret
    put, killed_at = notices(300, cases=7), [first + chance.randrange(50) for first in (10, 110, 210)]
    child: list[subprocess.Popen[bytes]] = []
    started = threading.Lock()

    def react(_request, nth: int) -> Reply:
        if nth in killed_at:
            with started:
                child[-1].send_signal(signal.SIGKILL)
        return Reply()

    with Receiver(react) as receiver:
        codes = []
        while not codes or codes[-1] == -signal.SIGKILL:
            command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path), receiver.url]
            with started:
                child.append(subprocess.Popen(command))
            codes.append(child[-1].wait(60))
    assert codes == [-signal.SIGKILL] * 3 + [0]
    with contextlib.closing(Outbox.open(tmp_path / "outbox.db", {"crm": 10_000}, clock)) as outbox:
        assert_nothing_lost(outbox, receiver, put)
    # What was in flight, and at most one batch of answers not yet recorded, comes twice.
    assert len(receiver.requests) <= 300 + 3 * 2 * 16
