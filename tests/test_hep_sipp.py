"""Real calls: SIPp telephones call each other through Kamailio, whose siptrace reports every message as HEP3."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import orjson
import pytest
from hep_kit import TOKENS, keepalive, packet_time_ms
from run_kit import lines, until

from dataflows.inputs.hep import Listener, Source
from dataflows.inputs.spool import Spool
from detectors.release import CallEnds, Outcome, classify
from schemas.decode import decode
from schemas.formats.hep import HepReader
from schemas.formats.hep.events import Customers

SIP = Path(__file__).parent / "sip"
MODULES = sorted(Path("/usr").glob("lib*/**/kamailio/modules/siptrace.so"))
NEEDED = {"sipp": shutil.which("sipp"), "kamailio": shutil.which("kamailio"), "siptrace.so": MODULES}
MISSING = [name for name, found in NEEDED.items() if not found]
REQUIRED = "sipp" in os.environ.get("STAYLINE_CI_REQUIRE", "").split(",")
"""Where the calls must be made, as in the continuous integration, it is a failure that they cannot be."""

CALLS = 4
AGENT = 241
OUTCOMES = {
    # What the telephones do: direction, outcome, status, who released; and is it answered.
    "hangs_up": ("NORMAL", 200, "customer", True),
    "is_cut_off": ("DROP", 200, "peer", True),
    "vanishes": ("DROP", 408, "network", True),
    "is_refused": ("USER", 486, None, False),
    "gives_up": ("USER", 487, "customer", False),
}


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def proxy(folder, hep_port):
    """Run Kamailio; give its port."""
    port = free_port()
    text = (SIP / "kamailio.cfg").read_text()
    for name, value in (("PROXY_PORT", port), ("HEP_PORT", hep_port), ("MODULES", f"{MODULES[0].parent}/")):
        text = text.replace(name, str(value))
    config, log = folder / "kamailio.cfg", folder / "kamailio.log"
    config.write_text(text)
    command = ["kamailio", "-DD", "-E", "-m", "16", "-M", "4", "-f", config, "-Y", folder, "-P", folder / "pid"]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or answers(port), "Kamailio's first word")
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def answers(port):
    """Tell whether a proxy relays on a port: what it is sent comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.2)
        one.connect(("127.0.0.1", port))
        mine = one.getsockname()[1]
        with contextlib.suppress(OSError):
            head = (
                f"OPTIONS sip:me@127.0.0.1:{mine} SIP/2.0",
                f"Via: SIP/2.0/UDP 127.0.0.1:{mine};branch=z9hG4bKx",
                "From: <sip:t@x>;tag=t",
                "To: <sip:t@x>",
                "Call-ID: first",
                "CSeq: 1 OPTIONS",
                "Max-Forwards: 9",
            )
            one.send("\r\n".join((*head, "", "")).encode())
            return bool(one.recv(2_000))
    return False


def talk(folder, kind, proxy_port):
    """Let telephones of one kind make their calls."""
    port, common = free_port(), ["-nostdin", "-i", "127.0.0.1", "-m", str(CALLS), "-timeout", "30", "-timeout_error"]
    callee = subprocess.Popen(
        ["sipp", "-sf", SIP / f"callee_{kind}.xml", "-p", str(port), *common],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        command = ["sipp", f"127.0.0.1:{port}", "-rsa", f"127.0.0.1:{proxy_port}", "-sf", SIP / f"caller_{kind}.xml"]
        caller = subprocess.run(
            [*command, "-s", "02079460099", "-p", str(free_port()), "-r", "20", *common],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert caller.returncode == 0, caller.stdout[-3_000:] + caller.stderr
        assert callee.wait(30) == 0
    finally:
        callee.kill()
        callee.wait()


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Every kind of call, as it came out of the deployment's own listener and spool."""
    if MISSING:
        absent = f"install sip-tester and kamailio to make real calls: {', '.join(MISSING)} not found"
        if REQUIRED:
            pytest.fail(absent)
        pytest.skip(absent)
    folder = tmp_path_factory.mktemp("sip")
    spool = Spool(folder / "spool")
    listener = Listener(spool, "127.0.0.1", 0)
    listener.start()
    with proxy(folder, int(listener.address.rpartition(":")[2])) as port:
        for kind in OUTCOMES:
            talk(folder, kind, port)
    assert listener.dropped() == 0
    listener.stop()
    source = Source(spool, folder / "calls", HepReader(Customers(TOKENS)))
    newest = max(map(packet_time_ms, _packets(folder)))
    # The proxy speaks on: the session timer of who has vanished is 90 s.
    spool.append(base64.b64encode(b"".join(keepalive(newest + later_ms, AGENT) for later_ms in (60_000, 180_000))))
    cuts = []
    for cut in source.read(None):
        if cut is None:
            return cuts, source.counts
        cuts.append(cut)
    raise AssertionError("a spool has no end")


def test_siptrace_packets_are_all_read(traced):
    cuts, counts = traced
    assert [reject for cut in cuts for reject in cut.chunk.rejects] == []
    assert counts.packets > 20 * CALLS
    assert (counts.calls, counts.other, counts.evicted) == (len(OUTCOMES) * CALLS, 0, 0)


@pytest.mark.parametrize("kind", OUTCOMES)
def test_calls_end_as_the_telephones_ended_them(traced, kind):
    cuts, _ = traced
    made = [line for cut in cuts for line in cut.chunk.data.split(b"\n") if line]
    customer = TOKENS.identity(f"0207946000{list(OUTCOMES).index(kind) + 1}")
    mine = [line for line in made if orjson.loads(line)["customer_id"] == customer]
    outcome, status, released_by, answered = OUTCOMES[kind]
    assert len(mine) == CALLS
    for line in mine:
        call = orjson.loads(line)
        assert (call["direction"], call["sip_status"], call.get("released_by")) == ("out", status, released_by)
        assert ("answer_ms" in call) == answered
        assert call.get("codec") == ("PCMA" if answered else None)
        assert (call["cpe_model"], call["cpe_firmware"], call["probe_id"]) == ("Acme HT801", "1.0.19", str(AGENT))
        assert call["peer_id"] == TOKENS.identity("02079460099")
    ends = CallEnds.of(decode(b"\n".join(mine)).calls)
    assert {Outcome(one).name for one in classify(ends).outcome} == {outcome}


def test_the_far_ends_see_the_same_calls_from_their_side(traced):
    cuts, _ = traced
    made = [orjson.loads(line) for cut in cuts for line in cut.chunk.data.split(b"\n") if line]
    incoming = [call for call in made if call["direction"] == "in"]
    assert {call["customer_id"] for call in incoming} == {TOKENS.identity("02079460099")}
    # Who is busy was reached; all others rang or answered.
    assert len(incoming) == len(OUTCOMES) * CALLS
    assert len({call["call_id"] for call in made}) == len(made) == 2 * len(OUTCOMES) * CALLS


def _packets(folder):
    data = b"".join(base64.b64decode(line) for path in sorted((folder / "spool").iterdir()) for line in lines(path))
    while data:
        size = int.from_bytes(data[4:6], "big")
        yield data[:size]
        data = data[size:]
