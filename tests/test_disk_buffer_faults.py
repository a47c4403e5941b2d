"""The faults that were found in other products' disk buffers, each as a test of ours.

From what was published in 2026 about Vector's `disk_v2` buffer (its issues 25570, 25691 and 25525, and a report on it).
"""

import contextlib
import random
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from delivery_kit import DOWN, FakeClock, MemoryCases, MemoryStream, delivered, dispatcher_of, notice, notices, run_out
from prometheus_client.parser import text_string_to_metric_families

from dataflows import run
from dataflows.deadletters import DeadLetterFile
from dataflows.flow import Stop
from dataflows.inputs.spool import Spool
from dataflows.metrics import Gauges
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.errors import StateError
from sinks.breaker import Breaker
from sinks.desk.output import DeskOutput
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore
from sinks.outbox import Outbox, OutboxFull
from sinks.outputs import Health, Outcome, State, Undeliverable
from sinks.queues import Ended

DEAD = Outcome(State.DEAD, Health.WELL, reason=Undeliverable.REJECTED, reply="422")
KILLED = -signal.SIGKILL


@pytest.fixture
def clock():
    return FakeClock()


def opened(path, clock, **backlogs):
    return contextlib.closing(Outbox.open(path, backlogs or {"crm": 1_000, "file": 1_000}, clock))


CHILD = """
import os, pathlib, random, signal, sys
sys.path.insert(0, sys.argv[1])
from delivery_kit import FakeClock, notice
import apsw

left = random.Random(int(sys.argv[3])).randint(1, 120)

class File(apsw.VFSFile):
    def __init__(self, name, flags):
        super().__init__("unix", name, flags)
    def xWrite(self, data, offset):
        step(); super().xWrite(data, offset)
    def xSync(self, flags):
        step(); super().xSync(flags)
    def xTruncate(self, size):
        step(); super().xTruncate(size)

class Disk(apsw.VFS):
    def __init__(self):
        super().__init__("deadly", "unix", makedefault=True)
    def xOpen(self, name, flags):
        return File(name, flags)

def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

disk = Disk()
from sinks.outbox import Outbox
clock = FakeClock()
outbox = Outbox.open(pathlib.Path(sys.argv[2]) / "o.db", {"crm": 1_000}, clock)
for n in range(20):
    outbox.put([notice("a", 3 * n + k + 1, "x" * 2_000) for k in range(3)])
    print(3 * n + 3, flush=True)
    queue = outbox.queue("crm")
    queue.commit(queue.head(3), 0, clock())
    outbox.prune(clock() + 1)
"""


@pytest.mark.parametrize("seed", range(6))
def test_fault_a_file_is_cut_before_the_ledger_that_names_it_is_on_disk(tmp_path, clock, seed):
    # Theirs: a crash between the unlink of a data file and the sync of the ledger, and every start failed from then on.
    # Ours: killed before any write, sync or truncation of storing, settling and pruning, it starts and knows its ids.
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path), str(seed)]
    ended = subprocess.run(command, check=False, stdout=subprocess.PIPE, timeout=60)
    assert ended.returncode == KILLED
    acknowledged = int((ended.stdout.split() or [b"0"])[-1])
    with opened(tmp_path / "o.db", clock, crm=1_000) as outbox:
        stats = outbox.stats()
        assert stats.notifications >= acknowledged
        assert stats.outputs["crm"].pending + stats.outputs["crm"].delivered == stats.notifications
        again = [notice("a", n + 1, "x" * 2_000) for n in range(acknowledged)]
        assert outbox.put(again) == 0
        assert outbox.stats().conflicts == 0


DROPPED = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[1])
from delivery_kit import FakeClock, notices
from dataflows.inputs.spool import Spool
from sinks.outbox import Outbox

directory = pathlib.Path(sys.argv[2])
Outbox.open(directory / "o.db", {"crm": 1_000}, FakeClock()).put(notices(30))
Spool(directory / "spool").append(b"{}\\n{}")
os._exit(0)
"""


def test_fault_a_writer_that_is_dropped_without_a_flush_loses_what_it_took(tmp_path, clock):
    # Theirs: events that the writer held were gone if it was dropped. Ours: what `put` or `append` returned from is
    # there after a process that ends without any goodbye.
    command = [sys.executable, "-c", DROPPED, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    with opened(tmp_path / "o.db", clock) as outbox:
        assert [one.notification for one in outbox.queue("crm").head(100)] == notices(30)
    assert Spool(tmp_path / "spool").total_bytes == 6


def test_fault_a_refused_delivery_acknowledges_what_was_never_delivered(tmp_path, clock):
    # Theirs: a rejected event still moved the acknowledgement on. Ours: each ends by itself, in both kinds of output.
    with opened(tmp_path / "o.db", clock) as outbox:
        outbox.put(notices(9, cases=9))
        file = MemoryStream()
        file.failures = [DOWN] * 3
        crm = MemoryCases(lambda one, now: DEAD if one.seq % 3 == 0 else delivered(one, now))
        dispatcher = dispatcher_of(outbox, clock, file, crm)
        dispatcher.deliver_due()
        assert outbox.queue("file").standing()[0] == 0
        run_out(dispatcher, clock)
        assert file.lines == [one.id for one in notices(9, cases=9)]
        assert [dead.id for dead in outbox.undelivered.list()] == ["case2-1", "case5-1", "case8-1"]
        assert outbox.stats().outputs["crm"].delivered == 6


def test_fault_a_record_that_cannot_be_decoded_ends_every_start(tmp_path, clock):
    # Theirs: one undecodable record, and the buffer crashed at every start. Ours: in the outbox it dies alone, a torn
    # line of spool and dead letters is cut off, a damaged file is told by name, once, and without a loop.
    path = tmp_path / "o.db"
    for turn in range(2):
        with (
            opened(path, clock, desk=1_000) as outbox,
            contextlib.closing(DeskStore(SqliteDatabase(tmp_path / "desk.db"), clock)) as store,
        ):
            outbox.put([notice("b", turn + 1), notice("c", turn + 1)])
            run_out(dispatcher_of(outbox, clock, DeskOutput("desk", store)), clock)
            # Bodies that are no alerts: the desk can never take them, and nothing waits behind them.
            assert outbox.stats().outputs["desk"].pending == 0
            assert len(outbox.undelivered.list()) == 2 * (turn + 1)
    for name in ("spool/000000000000.ndjson", "dead-letters.ndjson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'{"torn":')
    Spool(tmp_path / "spool").append(b"{}")
    assert (tmp_path / "spool/000000000000.ndjson").read_bytes() == b"{}\n"
    assert list(DeadLetterFile(tmp_path / "dead-letters.ndjson").read()) == []
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(StateError, match="must be an undamaged outbox"):
        Outbox.open(path, {"desk": 1}, clock)


def test_fault_a_counter_below_nothing_blocks_the_writer_for_ever(tmp_path, clock):
    # Theirs: an unsigned counter went below zero, the buffer seemed full, the writer waited for ever. Ours: whatever
    # ends twice, or ends after it was erased, is counted once, and the file itself refuses a number below zero.
    chance = random.Random(5)  # noqa: S311  seeded, not secret
    with opened(tmp_path / "o.db", clock, crm=8) as outbox:
        queue = outbox.queue("crm")
        for n in range(60):
            with contextlib.suppress(OutboxFull):
                outbox.put([notice(f"c{n}", 1, customer=f"k{n}")])
            some = queue.head(4)
            one = chance.choice(some)
            for _ in range(2):
                queue.settle([Ended(one, chance.choice([DEAD, delivered(one, 0)]), clock())], clock(), Breaker())
                queue.commit(some[:1], n, clock())
            for name in [f"k{chance.randrange(60)}", f"k{n}"]:
                outbox.forget(name)
            outbox.undelivered.discard("crm", [one.notification.id] * 2)
        run_out(dispatcher_of(outbox, clock, MemoryCases(delivered)), clock)
        crm = outbox.stats().outputs["crm"]
        assert crm.pending == 0
        assert outbox.wait_for_room(0.0)
        assert crm.delivered + crm.dead + crm.discarded == outbox.stats().notifications
        with pytest.raises(apsw.ConstraintError), outbox._db.write() as db:
            db.execute("UPDATE output SET pending = -1")


def test_fault_what_is_dropped_is_missing_from_the_metrics(tmp_path, clock):
    # Theirs: some drops raised no counter. Ours: every way to end is one, and they add up to what was put.
    engine = RiskEngine(Settings("test"), Catalogue.load(default_catalogue_text()))
    with opened(tmp_path / "o.db", clock, crm=1_000) as outbox:
        put = notices(40, cases=10)
        outbox.put([*put, notice("erased", 1, customer="gone"), notice("erased", 1, "another body", customer="gone")])
        outbox.forget("gone")
        outcomes = random.Random(2)  # noqa: S311  seeded, not secret
        crm = MemoryCases(lambda one, now: outcomes.choice([DEAD, delivered(one, now)]), newest_only=True)
        outbox.put([notice("last", 1)])
        run_out(dispatcher_of(outbox, clock, crm), clock)
        dead = [one.id for one in outbox.undelivered.list()]
        outbox.undelivered.discard("crm", dead[:2])
        page = Gauges([engine], outbox).page().decode()
        found = {
            sample.labels["result"]: sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "stayline_deliveries_total"
        }
        assert found["superseded"] == 30
        assert found["discarded"] == 3
        assert found["dead"] == len(dead) - 2
        assert sum(found.values()) == outbox.stats().notifications == 42
        assert 'stayline_output_state{output="crm",state="closed"} 1.0' in page


def test_an_id_that_comes_with_another_body_is_told_once_in_the_log(tmp_path, clock, monkeypatch):
    told = []
    monkeypatch.setattr(run, "log", lambda event, **fields: told.append((event, fields["conflicts"])))
    with opened(tmp_path / "o.db", clock) as outbox:
        write = run._writer(outbox, dispatcher_of(outbox, clock), Stop())
        write([notice("a", 1)])
        for body in ("", "another", "another"):
            write([notice("a", 1, body)])
    assert told == [("outbox.conflict", 1)]
