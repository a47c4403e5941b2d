import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import orjson
import pytest
from run_kit import until

from bench.simulator.live import EVENING, past, story
from dataflows.commands.demo import SPEED, _begin

STAYLINE = Path(sys.executable).with_name("stayline")
PORTS = (8080, 8090, 9100)


@pytest.fixture
def taken_ports():
    """See to it that somebody listens on every port that the demo would like."""
    with contextlib.ExitStack() as stack:
        for port in PORTS:
            # Where it cannot be taken, somebody else has it.
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


def page(address):
    answer = httpx2.get(address, trust_env=False)
    assert answer.status_code == 200
    return answer.text


def test_what_was_known_before_is_of_the_evening_s_customers_and_of_those_who_left():
    events = [orjson.loads(line) for line in past(EVENING)]
    assert [one["at_ms"] for one in events] == sorted(one["at_ms"] for one in events)
    left = {one["customer_id"] for one in events if one["type"] == "churn"}
    # More than the model asks for before it tells one customer from another.
    assert len(left) > 100
    assert all(one.startswith("f") for one in left)
    present = {one["customer_id"] for one in events} - left
    assert all(one.startswith("c") for one in present)
    begins_ms, _ = next(story(EVENING, SPEED))
    assert events[-1]["at_ms"] < begins_ms


def test_the_telco_says_that_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        pytest.raises(httpx2.TransportError),
    ):
        _begin(client, iter(()))


@pytest.mark.usefixtures("taken_ports")
def test_the_demo_shows_its_addresses_and_an_alert_and_leaves_nothing_behind(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    stderr = tmp_path.with_name("stderr")
    with stderr.open("wb") as errors:
        demo = subprocess.Popen([STAYLINE, "demo"], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    with demo, contextlib.ExitStack() as stack:
        stack.callback(demo.kill)
        shown = ""
        while "alert.opened" not in shown:
            line = demo.stdout.readline()
            assert line, f"the demo must go on, and ended:\n{shown}{stderr.read_text()}"
            shown += line
        addresses = dict(re.findall(r"^  (events|desk|metrics) +(http://127\.0\.0\.1:\d+)/", shown, re.MULTILINE))
        assert len(addresses) == 3
        assert not {int(address.rpartition(":")[2]) for address in addresses.values()} & set(PORTS)
        alert = re.search(
            r"^\d\d:\d\d:\d\d  alert\.opened +(c\d+)  (minor|major|critical): \w.*\.$", shown, re.MULTILINE
        )
        # The desk is an output of its own: it may be a moment behind the one that is shown.
        until(lambda: alert.group(1) in page(addresses["desk"]), "the alert on the desk")
        delivered = 'stayline_deliveries_total{output="desk",result="delivered"} 0.0'
        until(lambda: delivered not in page(f"{addresses['metrics']}/metrics"), "the delivery in the metrics")
        assert [path.name[:14] for path in tmp_path.iterdir()] == ["stayline-demo-"]
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
        assert demo.stdout.read().endswith("The demo has ended; its files are gone.\n")
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in stderr.read_text()
