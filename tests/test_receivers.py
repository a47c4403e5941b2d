"""The receiver of the documentation works, and `outputs test` and `enable` say and do what they should."""

import contextlib
import os
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from delivery_kit import LOOPBACK, RESET, SECRET, FakeClock, Receiver, Reply, dispatcher_of, notices, run_out
from run_kit import until
from standardwebhooks import Webhook

from dataflows import cli
from dataflows.clock import now_ms
from schemas.alerts import rfc3339
from sinks.breaker import Breaker
from sinks.outbox import Outbox
from sinks.webhook import WebhookOutput
from sinks.webhook.policy import RETRY_CEILINGS_MS

DOCS = Path(__file__).parents[1] / "docs"
OTHER_SECRET = "whsec_" + "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90"
CONFIG = """
[deployment]
name = "west"
[[output]]
kind = "webhook"
name = "crm"
url = "{url}"
secret_file = "secret"
authorization = {{ secret_file = "authorization" }}
allow_networks = ["127.0.0.0/8"]
timeout_s = 1
[[output]]
kind = "file"
name = "log"
path = "{path}"
[[output]]
kind = "desk"
[[output]]
kind = "webhook"
name = "second"
url = "https://second.example/"
secret_file = "secret"
"""


@pytest.fixture
def example(tmp_path):
    """The receiver of the documentation, running: its port and its store."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    store = tmp_path / "received.sqlite3"
    environ = {**os.environ, "STAYLINE_CRM_SECRET": SECRET}
    command = [sys.executable, DOCS / "examples/receiver.py", str(port), str(store)]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:

        def listens():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        until(listens, "the receiver")
        yield port, store
        process.kill()


def received(store):
    with contextlib.closing(sqlite3.connect(store)) as db:
        return dict(db.execute("SELECT id, body FROM received"))


def webhook(port, *secrets):
    return WebhookOutput("crm", f"http://127.0.0.1:{port}/", secrets or [SECRET], allow_networks=LOOPBACK)


class TestExample:
    def test_it_is_a_page(self):
        assert sum(1 for line in (DOCS / "examples/receiver.py").read_text().splitlines() if line.strip()) <= 40

    def test_it_takes_what_the_dispatcher_sends_and_a_repeat_changes_nothing(self, example, tmp_path):
        port, store = example
        put = notices(20)
        for attempt in range(2):
            # The same once more, as after a crash before anything was recorded.
            outbox = Outbox.open(tmp_path / f"{attempt}.db", {"crm": 100}, now_ms)
            outbox.put(put)
            run_out(dispatcher_of(outbox, now_ms, webhook(port)), FakeClock())
            assert outbox.stats().outputs["crm"].delivered == 20
            outbox.close()
        assert received(store) == {one.id: one.body for one in put}

    @pytest.mark.parametrize(
        ("secrets", "minutes", "taken"),
        [([OTHER_SECRET, SECRET], 0, True), ([OTHER_SECRET], 0, False), ([SECRET], 6, False), ([SECRET], -6, False)],
    )
    def test_it_takes_any_of_two_signatures_and_neither_wrong_nor_old_ones(
        self, example, tmp_path, secrets, minutes, taken
    ):
        port, store = example
        clock = FakeClock(now_ms() + 60_000 * minutes)
        outbox = Outbox.open(tmp_path / "o.db", {"crm": 100}, clock)
        outbox.put(notices(1))
        dispatcher_of(outbox, clock, webhook(port, *secrets)).deliver_due()
        shown = outbox.stats().outputs["crm"]
        outbox.close()
        assert (shown.delivered, shown.trouble[:3]) == ((1, "") if taken else (0, "401"))
        assert len(received(store)) == taken


def test_the_table_of_waits_in_the_documentation_is_the_schedule():
    row = next(line for line in (DOCS / "receivers.md").read_text().splitlines() if line.startswith("| longest wait"))
    unit_ms = {"s": 1_000, "min": 60_000, "h": 3_600_000}
    found = re.findall(r"(\d+) (s|min|h)\b", row)
    assert tuple(int(number) * unit_ms[unit] for number, unit in found) == RETRY_CEILINGS_MS


@pytest.fixture
def stayline(tmp_path, monkeypatch, capfd):
    """Run the program in this process, in a folder of its own; return its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text(SECRET)
    Path("authorization").write_text("Bearer of-tests\n")

    def run(*arguments, url="http://127.0.0.1:9/", path="alerts.ndjson"):
        Path("c.toml").write_text(CONFIG.format(url=url, path=path))
        monkeypatch.setattr(sys, "argv", ["stayline", "outputs", *arguments, "-c", "c.toml"])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capfd.readouterr()

    return run


class TestPing:
    def test_a_ping_is_a_signed_cloudevent_that_is_stored_nowhere(self, stayline):
        with Receiver() as receiver:
            code, shown, said = stayline("test", "crm", url=receiver.url)
        (request,) = receiver.requests
        assert (code, said) == (0, "")
        assert re.fullmatch(r"crm: taken \(\d+ ms\)\nfound: 200 ok\n", shown)
        Webhook(SECRET).verify(request.body, request.headers)
        event = orjson.loads(request.body)
        assert (event["type"], event["source"], event["id"]) == ("stayline.test.ping", "/stayline/west", request.id)
        assert event["time"] == rfc3339(int(request.id.removeprefix("ping-")))
        assert {path.name for path in Path().iterdir()} == {"secret", "authorization", "c.toml"}

    def test_a_receiver_without_signatures_gets_its_authorization(self, stayline):
        with Receiver() as receiver:
            assert stayline("test", "crm", url=receiver.url)[0] == 0
        assert receiver.requests[0].headers["authorization"] == "Bearer of-tests"

    def test_an_authorization_that_would_break_the_request_is_refused_without_being_shown(self, stayline):
        Path("authorization").write_text("Bearer a\r\nx-other: b")
        code, shown, said = stayline("test", "crm")
        assert (code, shown) == (2, "")
        assert said == "stayline: output.0.authorization: must be one line of printable ASCII, was not\n"

    def test_the_documented_receiver_takes_a_ping(self, stayline, example):
        assert stayline("test", "crm", url=f"http://127.0.0.1:{example[0]}/")[0] == 0

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (Reply(401), "the receiver does not accept the signature: do both sides have the same secret"),
            (Reply(404), "nothing answers under this path: look at the url"),
            (Reply(410), "the receiver asks never to be called again"),
            (Reply(302), "the receiver points elsewhere, and redirects are never followed"),
            (Reply(503), "the receiver is there but fails"),
            (Reply(418), "the receiver does not take it"),
            (RESET, "no answer came"),
            ("drip", "the receiver took the connection and did not answer in time"),
        ],
    )
    def test_what_went_wrong_is_said_in_words_and_by_the_exit_code(self, stayline, reply, words):
        with Receiver(lambda *_: reply) as receiver:
            code, shown, said = stayline("test", "crm", url=receiver.url)
        assert (code, said) == (1, "")
        assert shown.startswith(f"crm: {words}")

    def test_nobody_there_and_nobodys_name_are_told_apart(self, stayline):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        assert "nobody listens there" in stayline("test", "crm", url=f"http://127.0.0.1:{port}/")[1]
        assert stayline("test", "crm", url="https://nobody.invalid/")[0] == 1

    def test_of_a_file_nothing_is_written(self, stayline):
        assert stayline("test", "log")[0] == 0
        assert not Path("alerts.ndjson").exists()
        Path("alerts.ndjson").write_bytes(b"{}\n")
        assert stayline("test", "log")[:2][0] == 0
        assert Path("alerts.ndjson").read_bytes() == b"{}\n"
        assert stayline("test", "log", path="missing/alerts.ndjson")[0] == 0
        assert not Path("missing").exists()
        os.mkfifo("pipe")
        code, shown, _ = stayline("test", "log", path="pipe")
        assert (code, "must be a file, was a folder, pipe or device" in shown) == (1, True)
        code, shown, _ = stayline("test", "log", path="secret/alerts.ndjson")
        assert (code, "Not a directory" in shown) == (1, True)

    def test_an_output_that_is_not_configured_is_told_with_those_that_are(self, stayline):
        for command in ("test", "enable"):
            code, _, said = stayline(command, "other")
            assert (code, said) == (
                2,
                "stayline: other: must be the name of an output (crm, log, desk, second), was not\n",
            )

    def test_what_is_wrong_is_told_under_the_place_that_the_output_has(self, stayline):
        Path("secret").write_text("whsec_QUJD")
        code, _, said = stayline("test", "second")
        assert (code, said) == (2, "stayline: output.3: a webhook secret must hold 24 to 64 bytes, held 3\n")
        # Another output's secret is not asked for.
        assert stayline("test", "log")[0] == 0


class TestEnable:
    def test_an_output_that_its_receiver_disabled_sends_again(self, stayline):
        Path("state").mkdir()
        outbox = Outbox.open(Path("state/outbox.sqlite3"), {"crm": 9}, now_ms)
        outbox.put(notices(3))
        outbox.queue("crm").pause(Breaker("disabled"), "410")
        assert stayline("enable", "crm")[:2] == (0, "crm: was disabled, now sends again; 3 notifications waiting\n")
        assert outbox.queue("crm").standing()[1] == Breaker()
        outbox.close()

    def test_without_an_outbox_there_is_nothing_to_enable(self, stayline):
        code, _, said = stayline("enable", "crm")
        assert (code, said) == (
            1,
            "stayline: state/outbox.sqlite3: must be the outbox of a deployment, and there is none\n",
        )
