"""A receiver that misbehaves in every known way, and kill -9 of ours at every step: nothing is lost or doubled."""

import contextlib
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from delivery_kit import CUT, DRIP, RESET, FakeClock, Receiver, Reply, notices
from needs_kit import make_certificates

from sinks.outbox import Outbox

PUT = notices(60, cases=6)
KILLS_MAX = 6
"""So often a sender is killed before one may finish."""

IN_FLIGHT_MAX = 4
"""The sender's `concurrency`."""

CHILD = """
import os, pathlib, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from delivery_kit import LOOPBACK, SECRET, notices
import sinks.breaker, sinks.lanes, sinks.webhook.policy as policy
from sinks.dispatcher import Dispatcher
from sinks.file import FileOutput, Rotation
from sinks.outbox import Outbox
from sinks.queues import Queue
from sinks.webhook import WebhookOutput
from sinks.webhook.transport import Transport

directory, port, seed, mood = pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
chance = random.Random(seed)
left = chance.randint(1, 150) if mood == "kill" else 0

# The same schedule, a thousand times as fast.
policy.RETRY_CEILINGS_MS = tuple(wait_ms // 1_000 for wait_ms in policy.RETRY_CEILINGS_MS)
policy.RETRY_AFTER_MS_MAX = 30
sinks.breaker.WAIT_MS, sinks.breaker.WAIT_MS_MAX, sinks.lanes.BATCH = 2, 20, 7

def die_sometime():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def around(step):
    def counted(*args, **kwargs):
        die_sometime()
        result = step(*args, **kwargs)
        die_sometime()
        return result
    return counted

post = Transport.post
async def posted(*args):
    die_sometime()
    answer = await post(*args)
    # The receiver has done its work, and nobody here knows yet.
    die_sometime()
    return answer

def mined(owner, name, before=lambda *args: None, after=lambda *args: None, nth=2):
    step, passed = getattr(owner, name), [0]
    def stepped(*args, **kwargs):
        passed[0] += 1
        if passed[0] == nth:
            before(*args)
        result = step(*args, **kwargs)
        if passed[0] == nth:
            after(*args)
        return result
    setattr(owner, name, stepped)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

pwrite = os.pwrite
def write_half(file, data, position):
    pwrite(file, data[: len(data) // 2], position)
    die()

Transport.post = posted
if mood in ("kill", "live"):
    os.pwrite, os.fsync, os.truncate = around(os.pwrite), around(os.fsync), around(os.truncate)
    pathlib.Path.rename = around(pathlib.Path.rename)
    Queue.settle, Queue.commit = around(Queue.settle), around(Queue.commit)
    Queue.keep_newest = around(Queue.keep_newest)
    Outbox.put, Outbox.prune = around(Outbox.put), around(Outbox.prune)
if mood == "before lines are written to the file": mined(os, "pwrite", before=die)
if mood == "in the middle of lines": mined(os, "pwrite", before=write_half)
if mood == "before written lines are on disk": mined(os, "pwrite", after=die)
if mood == "before lines on disk are noted": mined(FileOutput, "append", after=die)
if mood == "before the file is renamed": mined(pathlib.Path, "rename", before=die, nth=1)
if mood == "before the new name is on disk": mined(pathlib.Path, "rename", after=die, nth=1)
if mood == "before the new file is noted": mined(FileOutput, "_rotate", after=die, nth=1)
if mood == "before an answer is noted": mined(Queue, "settle", before=die)
if mood == "inside the transaction that notes an answer": mined(Queue, "_save", before=die)
if mood == "after an answer was noted": mined(Queue, "settle", after=die)

async def fickle(host, port):
    inside = [["169.254.169.254"], ["127.0.0.1", "10.0.0.1"], ["::ffff:10.0.0.1"], ["64:ff9b::a00:1"]]
    if mood not in ("kill", "live"):
        return ["127.0.0.1"]
    if chance.random() < 0.2:
        return chance.choice(inside)
    if chance.random() < 0.1:
        raise OSError("no such name")
    return ["127.0.0.1"]

clock = lambda: time.time_ns() // 1_000_000
outbox = Outbox.open(directory / "state" / "outbox.db", {"crm": 40, "file": 10_000}, clock)
crm = WebhookOutput(
    "crm", f"https://crm.example:{port}/", [SECRET], allow_networks=LOOPBACK, timeout_s=0.25, concurrency=4,
    newest_only=bool(int(sys.argv[6])), ca_file=directory / "ca.pem", resolver=fickle,
)
file = FileOutput(directory / "alerts.ndjson", "file", Rotation(size_bytes=1_500), clock)
dispatcher = Dispatcher(outbox, [crm, file], clock, chance)
dispatcher.start()
put = notices(60, cases=6)
for first in range(0, 60, 5):
    while True:
        try:
            outbox.put(put[first : first + 5])
            break
        except Exception as full:
            assert type(full).__name__ == "OutboxFull", full
            outbox.wait_for_room(0.1)
assert dispatcher.drain(100.0)
dispatcher.stop()
"""


class Misbehaving(Receiver):
    """Does its work, or not, and says so, or not.

    Attributes:
        effects: what it did: every id with every body that it was done for, in order.
    """

    def __init__(self, certificates: Path, seed: int) -> None:
        super().__init__(self.answer)
        self.chance = random.Random(seed)  # noqa: S311  seeded, not secret
        self.effects: list[tuple[str, bytes]] = []
        self.tls, wrong = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
        self.tls.load_cert_chain(certificates / "server.pem")
        wrong.load_cert_chain(certificates / "client.pem")  # another name's

        def show(connection, _name, _context):
            if self.chance.random() < 0.15:
                connection.context = wrong

        self.tls.sni_callback = show

    def answer(self, request, _nth):
        refusals = (Reply(500), Reply(503), Reply(429, (("retry-after", "9"),)), Reply(404))
        lures = tuple(Reply(302, (("location", f"https://{inside}/"),)) for inside in ("169.254.169.254", "10.0.0.1"))
        silences = (RESET, DRIP, CUT, b"\x00not HTTP at all\r\n\r\n")
        drawn = self.chance.random()
        if drawn < 0.3:
            return self.chance.choice(refusals + lures)
        self.effects.append((request.id, request.body))
        return self.chance.choice(silences) if drawn < 0.45 else Reply()


class Deadly(Receiver):
    """Behaves well, and kills its sender once, at one point of a request that is open."""

    def __init__(self, certificates: Path, point: str) -> None:
        super().__init__(self.answer)
        self.effects: list[tuple[str, bytes]] = []
        self.point = point
        self.kill = lambda: None
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificates / "server.pem")
        self.tls.sni_callback = lambda *_: self.at(IN_HANDSHAKE)

    def at(self, point):
        if self.point == point:
            self.point = ""
            self.kill()

    def answer(self, request, nth):
        if nth == 3:
            self.at(NOT_DONE)
            if not self.point:
                return RESET
        self.effects.append((request.id, request.body))
        if nth == 3:
            self.at(DONE)
        return Reply()


IN_HANDSHAKE = "while a connection is being made"
NOT_DONE = "while a request is open and nothing was done for it"
DONE = "while a request is open and its work is done"
OF_A_REQUEST = [IN_HANDSHAKE, NOT_DONE, DONE]
POINTS = re.findall(r'mood == "([^"]{10,})"', CHILD)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    make_certificates(directory, "crm.example")
    return directory


def sender(folder: Path, receiver: Receiver, mood: str, seed: int, *, newest_only: bool) -> subprocess.Popen[bytes]:
    """Start one; `mood` says whether it dies: never, by chance, or at a point."""
    arguments = [str(folder), str(receiver.port), str(seed), mood, str(int(newest_only))]
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a sender; return whether it was killed."""
    _, said = process.communicate(timeout=110)
    assert process.returncode in {0, -signal.SIGKILL}, said.decode()
    return process.returncode != 0


def run_through(folder: Path, receiver: Receiver, seed: int, *, newest_only: bool) -> int:
    """Start the sender until one ends by itself; return how many were killed."""
    for kills in range(KILLS_MAX + 1):
        mood = "kill" if kills < KILLS_MAX else "live"
        if not ended(sender(folder, receiver, mood, 1_000 * seed + kills, newest_only=newest_only)):
            return kills
    raise AssertionError("a sender that nobody killed must have ended")


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 50))])
def test_every_notification_is_there_with_one_effect_per_id_and_the_newest_revision_wins(tmp_path, certificates, seed):
    newest_only = bool(seed % 2)
    shutil.copy(certificates / "ca.pem", tmp_path)
    with Misbehaving(certificates, seed) as receiver:
        assert run_through(tmp_path, receiver, seed, newest_only=newest_only) > 0
    assert_all_there(tmp_path, receiver.effects, newest_only=newest_only)


@pytest.mark.parametrize("point", [*POINTS, *OF_A_REQUEST])
def test_killed_at_a_named_point_nothing_is_lost_and_only_what_was_in_flight_comes_twice(tmp_path, certificates, point):
    shutil.copy(certificates / "ca.pem", tmp_path)
    with Deadly(certificates, point) as receiver:
        first = sender(tmp_path, receiver, point, 7, newest_only=False)
        receiver.kill = first.kill
        assert ended(first), "the point was passed"
        receiver.point = ""
        assert not ended(sender(tmp_path, receiver, "after " + point, 7, newest_only=False))
    assert_all_there(tmp_path, receiver.effects, newest_only=False)
    assert len(receiver.effects) <= len(PUT) + IN_FLIGHT_MAX


def assert_all_there(tmp_path, effects, *, newest_only):
    """Hold what a receiver did, what the file holds and what the outbox says against what was put."""
    bodies = {one.id: one.body for one in PUT}
    assert all(bodies[identity] == body for identity, body in effects), "an id has one body"
    firsts = list(dict.fromkeys(identity for identity, _ in effects))
    newest = {one.case: one.id for one in PUT}
    for case, last in newest.items():
        seen = [int(identity.partition("-")[2]) for identity in firsts if identity.startswith(f"{case}-")]
        assert seen == sorted(seen), "of a case, what comes first is in order"
        assert f"{case}-{seen[-1]}" == last, "the newest revision came"
    assert newest_only or set(firsts) == set(bodies), "every notification came"
    with contextlib.closing(Outbox.open(tmp_path / "state/outbox.db", {"crm": 1, "file": 1}, FakeClock())) as outbox:
        stats = outbox.stats()
    crm, file = stats.outputs["crm"], stats.outputs["file"]
    assert (stats.notifications, stats.conflicts, crm.pending, crm.dead, file.delivered) == (60, 0, 0, 0, 60)
    assert crm.delivered + crm.superseded == 60
    assert newest_only or crm.superseded == 0
    done = sorted(tmp_path.glob("alerts.ndjson.*"), key=lambda one: int(one.suffix[1:]))
    written = b"".join(one.read_bytes() for one in [*done, tmp_path / "alerts.ndjson"])
    assert written == b"".join(one.body + b"\n" for one in PUT), "the files hold each once, in order"
