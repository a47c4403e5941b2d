"""Real calls: SIPp telephones call each other through Kamailio, which traces them as HEP3 and accounts them as JSON."""

import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import orjson
import pytest
from hep_kit import TOKENS, keepalive, packet_time_ms
from needs_kit import absent
from run_kit import lines, until

from dataflows.inputs.hep import Listener, Source
from dataflows.inputs.spool import Spool
from detectors.release import CallEnds, Outcome, classify
from schemas.deadletters import DeadReason
from schemas.decode import decode
from schemas.formats import Converted, Options, open_format
from schemas.formats.hep import HepReader
from schemas.formats.hep.events import Customers

SIP = Path(__file__).parent / "sip"
MODULES = sorted(Path("/usr").glob("lib*/**/kamailio/modules/acc_json.so"))
NEEDED = {"sipp": shutil.which("sipp"), "kamailio": shutil.which("kamailio"), "acc_json.so": MODULES}
MISSING = [name for name, found in NEEDED.items() if not found]

CALLS = 4
AGENT = 241
OUTCOMES = {
    # What the telephones do: direction, outcome, status, who released; and is it answered.
    "hangs_up": ("NORMAL", 200, "customer", True),
    "is_cut_off": ("DROP", 200, "peer", True),
    "vanishes": ("DROP", 408, "network", True),
    "is_refused": ("USER", 486, None, False),
    "gives_up": ("USER", 487, "customer", False),
    "is_unserved": ("SETUP_FAILURE", 500, None, False),
    "rings_out": ("SETUP_FAILURE", 408, None, False),
}
ACCOUNTED = OUTCOMES | {
    # What the proxy itself heard: 503, and nothing of a call whose ends have vanished, until it gave the dialog up.
    "vanishes": ("NORMAL", 200, "network", True),
    "is_unserved": ("SETUP_FAILURE", 503, None, False),
}
UNTOLD = {
    # What can be told where rows of one sort are all there is: of a whole call no status and not who ended it...
    "cdr": dict.fromkeys(("hangs_up", "vanishes"), ("NORMAL", None, None, True))
    | {"is_cut_off": ("DROP", None, None, True)}
    | dict.fromkeys(("is_refused", "gives_up", "is_unserved", "rings_out"), ("UNKNOWN", None, None, False)),
    # ... and of a dialog not why it did not come about.
    "event": {"hangs_up": ("NORMAL", 200, None, True), "is_cut_off": ("DROP", 200, None, True)}
    | dict.fromkeys(("is_refused", "gives_up", "is_unserved", "rings_out"), ("UNKNOWN", None, None, False)),
}
KINDS = {kind: number for number, kind in enumerate(OUTCOMES, 1)}
"""Each kind's telephone has a number of its own."""

CUT_OFF = 'RELEASE_CAUSE;cause=3;text="Media bearer loss"'


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
        absent("sipp", f"install sip-tester and kamailio-extra-modules to make real calls: no {', '.join(MISSING)}")
    folder = tmp_path_factory.mktemp("sip")
    spool = Spool(folder / "spool")
    listener = Listener(spool, "127.0.0.1", 0)
    listener.start()
    with proxy(folder, int(listener.address.rpartition(":")[2])) as port:
        for kind in OUTCOMES:
            talk(folder, kind, port)
        # The last that the proxy has to say is that the dialogs of those who vanished have run out.
        until(lambda: len(accounted(folder, "cdr")) == len(OUTCOMES) * CALLS, "the accounts of all calls")
    assert listener.dropped() == 0
    listener.stop()
    source = Source(spool, folder / "calls", HepReader(Customers(TOKENS)))
    newest = max(map(packet_time_ms, _packets(folder)))
    # The proxy speaks on: the session timer of who has vanished is 90 s.
    spool.append(base64.b64encode(b"".join(keepalive(newest + later_ms, AGENT) for later_ms in (60_000, 180_000))))
    cuts = []
    for cut in source.read(None):
        if cut is None:
            return folder, cuts, source.counts
        cuts.append(cut)
    raise AssertionError("a spool has no end")


def test_siptrace_packets_are_all_read(traced):
    _, cuts, counts = traced
    assert [reject for cut in cuts for reject in cut.chunk.rejects] == []
    assert counts.packets > 20 * CALLS
    assert (counts.calls, counts.other, counts.evicted) == (len(OUTCOMES) * CALLS, 0, 0)


@pytest.mark.parametrize("kind", OUTCOMES)
def test_calls_end_as_the_telephones_ended_them(traced, kind):
    _, cuts, _ = traced
    made = [line for cut in cuts for line in cut.chunk.data.split(b"\n") if line]
    mine = calls_of(kind, made)
    outcome, status, released_by, answered = OUTCOMES[kind]
    assert len(mine) == CALLS
    for line in mine:
        call = orjson.loads(line)
        assert (call["direction"], call["sip_status"], call.get("released_by")) == ("out", status, released_by)
        assert ("answer_ms" in call) == answered
        assert call.get("codec") == ("PCMA" if answered else None)
        assert (call["cpe_model"], call["cpe_firmware"], call["probe_id"]) == ("Acme HT801", "1.0.19", str(AGENT))
        assert call["peer_id"] == TOKENS.identity("02079460099")
    assert outcomes(mine) == {outcome}


def test_the_far_ends_see_the_same_calls_from_their_side(traced):
    _, cuts, _ = traced
    made = [orjson.loads(line) for cut in cuts for line in cut.chunk.data.split(b"\n") if line]
    incoming = [call for call in made if call["direction"] == "in"]
    assert {call["customer_id"] for call in incoming} == {TOKENS.identity("02079460099")}
    # Who is busy was reached, who has no room was not; all others rang or answered.
    assert len(incoming) == (len(OUTCOMES) - 1) * CALLS
    assert len({call["call_id"] for call in made}) == len(made) == (2 * len(OUTCOMES) - 1) * CALLS


@pytest.mark.parametrize("sorts", [("acc", "cdr", "event"), ("acc",), ("cdr",), ("event",)], ids="+".join)
def test_what_kamailio_accounts_tells_the_same_calls(traced, sorts):
    reader = open_format("kamailio", Options(tokens=TOKENS))
    items = reader.feed(b"".join(accounted(traced[0], *sorts))) + reader.finish()
    made = [item.line for item in items if isinstance(item, Converted)]
    letters = [item for item in items if not isinstance(item, Converted)]
    expected = ACCOUNTED | (UNTOLD.get(sorts[0], {}) if len(sorts) == 1 else {})
    if sorts == ("acc",):
        # Of those who vanished there is an answer and no more: nobody can tell when such a call was over.
        assert [(item.reason, item.detail.partition(",")[0]) for item in letters] == [
            (DeadReason.TRUNCATED, "an answered call must have a row or an event of its end")
        ] * CALLS
        del expected["vanishes"]
    else:
        assert letters == []
    assert len(made) == len(expected) * CALLS
    for kind, (outcome, status, released_by, answered) in expected.items():
        mine = calls_of(kind, made)
        assert outcomes(mine) == {outcome}
        for call in map(orjson.loads, mine):
            said = (call["direction"], call.get("sip_status"), call.get("released_by"), "answer_ms" in call)
            assert said == ("out", status, released_by, answered)
            assert call.get("reason") == (CUT_OFF if kind == "is_cut_off" else None)
            assert call["peer_id"] == TOKENS.identity("02079460099")
            assert 0 <= call["end_ms"] - call["start_ms"] < 10_000
    assert len({orjson.loads(line)["call_id"] for line in made}) == len(made)


def accounted(folder, *sorts):
    """Return the rows of some sorts that Kamailio wrote, in order."""
    found = re.finditer(rb"<script>: (acc|cdr|event) (\{.*\n)", (folder / "kamailio.log").read_bytes())
    return [row[2] for row in found if row[1].decode() in sorts]


def calls_of(kind, made):
    customer = TOKENS.identity(f"0207946000{KINDS[kind]}")
    return [line for line in made if orjson.loads(line)["customer_id"] == customer]


def outcomes(made):
    return {Outcome(one).name for one in classify(CallEnds.of(decode(b"\n".join(made)).calls)).outcome}


def _packets(folder):
    data = b"".join(base64.b64decode(line) for path in sorted((folder / "spool").iterdir()) for line in lines(path))
    while data:
        size = int.from_bytes(data[4:6], "big")
        yield data[:size]
        data = data[size:]
