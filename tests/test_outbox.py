"""The outbox holds what was put, once per id, through every restart and every fault of its file."""

import shutil
import stat
import threading
from pathlib import Path

import apsw
import pytest
from delivery_kit import FakeClock, notice, notices

from schemas.errors import StateError
from sinks.breaker import Breaker
from sinks.layout import OUTBOX
from sinks.outbox import Outbox, OutboxFull
from sinks.outputs import Delivery, Health, Outcome, State, Undeliverable
from sinks.queues import Ended

CRM = {"crm": 1_000_000}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def outbox(tmp_path, clock):
    with_outbox = Outbox.open(tmp_path / "state" / "outbox.db", CRM, clock)
    yield with_outbox
    with_outbox.close()


def settle(outbox: Outbox, delivery: Delivery, outcome: Outcome, output: str = "crm", now_ms: int = 0) -> None:
    outbox.queue(output).settle([Ended(delivery, outcome, now_ms)], now_ms, Breaker())


DELIVERED = Outcome(State.DELIVERED, Health.WELL)
DEAD = Outcome(State.DEAD, Health.WELL, reason=Undeliverable.REJECTED, reply="422 no")


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.notification.id for delivery in deliveries]


def test_what_was_put_comes_out_unchanged_and_in_order(outbox):
    put = notices(10)
    assert outbox.put(put) == 10
    assert [delivery.notification for delivery in outbox.queue("crm").head(100)] == put


def test_a_repeat_is_ignored_and_the_same_id_with_another_body_is_kept_apart(outbox):
    outbox.put([notice("a", 1, "first")])
    assert outbox.put([notice("a", 1, "first")]) == 0
    assert outbox.put([notice("a", 1, "other"), notice("a", 1, "other"), notice("a", 2)]) == 1
    assert outbox.stats().conflicts == 1
    assert outbox.conflicts() == [("a-1", notice("a", 1, "other").body)]
    head = outbox.queue("crm").head(10)
    assert [d.notification.body for d in head] == [notice("a", 1, "first").body, notice("a", 2).body]


def test_an_id_stays_known_after_its_body_was_pruned(outbox, clock):
    outbox.put(notices(3))
    for delivery in outbox.queue("crm").head(10):
        settle(outbox, delivery, DELIVERED)
    clock.now_ms += 1
    assert outbox.prune(clock.now_ms) == 3
    assert outbox.put(notices(3)) == 0
    assert outbox.put([notice("case0", 1, "other")]) == 0
    assert (outbox.stats().conflicts, outbox.stats().notifications) == (1, 3)
    assert outbox.stats().outputs["crm"].delivered == 3


def test_pruning_spares_what_is_young_pending_or_dead(outbox, clock):
    outbox.put([notice("old-pending", 1), notice("old-dead", 1), notice("old-done", 1)])
    pending, dead, done = outbox.queue("crm").head(10)
    settle(outbox, dead, DEAD)
    settle(outbox, done, DELIVERED)
    clock.now_ms += 1
    outbox.put([notice("young", 1)])
    settle(outbox, outbox.queue("crm").head(10)[1], DELIVERED)
    assert outbox.prune(clock.now_ms) == 1
    assert outbox.queue("crm").head(10) == [pending]
    assert outbox.undelivered.show("crm", "old-dead-1")[1] == dead.notification.body
    assert outbox.prune(clock.now_ms) == 0


def test_a_pruned_file_is_small_again(outbox, clock):
    outbox.put([notice("a", n + 1, "x" * 3_000) for n in range(500)])
    full = outbox.path.stat().st_size + outbox.path.with_name("outbox.db-wal").stat().st_size
    outbox.queue("crm").commit(outbox.queue("crm").head(500), 0, clock())
    clock.now_ms += 1
    assert outbox.prune(clock.now_ms) == 500
    outbox.close()
    assert full > 1_500_000
    assert outbox.path.stat().st_size < 200_000


def test_a_full_backlog_refuses_the_whole_batch_and_says_which_output(tmp_path, clock):
    outbox = Outbox.open(tmp_path / "o.db", {"file": 100, "crm": 4}, clock)
    outbox.put(notices(4))
    with pytest.raises(OutboxFull, match="output crm: fewer than 4 deliveries must wait, found 4"):
        outbox.put([notice("new", 1), notice("new", 2)])
    assert outbox.stats().notifications == 4
    assert not outbox.wait_for_room(0.0)
    settle(outbox, outbox.queue("crm").head(1)[0], DELIVERED)
    assert outbox.wait_for_room(0.0)
    assert outbox.put([notice("new", 1), notice("new", 2)]) == 2


def test_who_waits_for_room_is_woken_by_a_delivery(tmp_path, clock):
    outbox = Outbox.open(tmp_path / "o.db", {"crm": 1}, clock)
    outbox.put([notice("a", 1)])
    found = []
    waiting = threading.Thread(target=lambda: found.append(outbox.wait_for_room(60.0)))
    waiting.start()
    settle(outbox, outbox.queue("crm").head(1)[0], DELIVERED)
    waiting.join(30)
    assert found == [True]


def test_an_output_added_later_gets_what_is_put_from_then_on_and_one_taken_away_keeps_its_own(tmp_path, clock):
    path = tmp_path / "o.db"
    outbox = Outbox.open(path, {"crm": 1}, clock)
    outbox.put([notice("a", 1)])
    outbox.close()
    outbox = Outbox.open(path, {"file": 10}, clock)
    outbox.put([notice("a", 2)])
    assert ids(outbox.queue("file").head(10)) == ["a-2"]
    outbox.close()
    outbox = Outbox.open(path, {"crm": 10, "file": 10}, clock)
    assert ids(outbox.queue("crm").head(10)) == ["a-1"]


def test_only_the_oldest_of_a_case_is_due_and_the_next_follows_when_it_has_ended(outbox, clock):
    outbox.put([notice("a", 1), notice("a", 2), notice("b", 1)])
    queue = outbox.queue("crm")
    assert ids(queue.due(clock(), 10, busy=())) == ["a-1", "b-1"]
    assert ids(queue.due(clock(), 10, busy={"a"})) == ["b-1"]
    first = queue.due(clock(), 1, busy=())[0]
    settle(outbox, first, Outcome(State.PENDING, Health.FAILING, retry_ms=clock() + 50), now_ms=clock())
    assert ids(queue.due(clock(), 10, busy=())) == ["b-1"]
    assert queue.next_due_ms(clock() + 1) == clock() + 50
    clock.now_ms += 50
    retried = queue.due(clock(), 10, busy={"b"})[0]
    assert (retried.attempts, retried.first_ms) == (1, clock() - 50)
    settle(outbox, retried, DEAD, now_ms=clock())
    assert ids(queue.due(clock(), 10, busy={"b"})) == ["a-2"]


def test_a_replayed_delivery_keeps_its_id_and_a_discarded_one_its_count(outbox, clock):
    outbox.put(notices(3, cases=1))
    for _ in range(2):
        settle(outbox, outbox.queue("crm").due(clock(), 1, busy=())[0], DEAD, now_ms=clock())
    dead = outbox.undelivered.list()
    assert [(d.id, d.reason, d.reply, d.attempts) for d in dead] == [
        ("case0-1", Undeliverable.REJECTED, "422 no", 1),
        ("case0-2", Undeliverable.REJECTED, "422 no", 1),
    ]
    assert outbox.undelivered.replay("crm", ["case0-2", "case0-3", "none"], clock()) == 1
    assert outbox.undelivered.discard("crm", ["case0-1", "case0-2"]) == 1
    assert outbox.undelivered.list() == []
    # The third was due first; the replayed second follows it.
    queue = outbox.queue("crm")
    for expected in ("case0-3", "case0-2"):
        due = queue.due(clock(), 10, busy=())
        assert ids(due) == [expected]
        settle(outbox, due[0], DELIVERED, now_ms=clock())
    crm = outbox.stats().outputs["crm"]
    assert (crm.pending, crm.delivered, crm.dead, crm.discarded) == (0, 2, 0, 1)


def test_nothing_about_a_forgotten_customer_is_left_in_the_files(outbox):
    outbox.put([notice("a", 1, "Hansel", "k1"), notice("b", 1, "Gretel", "k2")])
    outbox.put([notice("a", 1, "Hansel again", "k1")])
    assert outbox.forget("k1") == 1
    outbox.put([notice("a", 1, "Hansel", "k1")])
    assert ids(outbox.queue("crm").head(10)) == ["b-1"]
    crm = outbox.stats().outputs["crm"]
    assert (crm.pending, crm.discarded, outbox.stats().conflicts) == (1, 1, 0)
    on_disk = b"".join(path.read_bytes() for path in outbox.path.parent.iterdir())
    assert b"Gretel" in on_disk
    assert b"Hansel" not in on_disk


def test_the_files_are_readable_by_their_owner_alone(outbox):
    outbox.put(notices(1))
    files = list(outbox.path.parent.iterdir())
    assert {path.name for path in files} == {"outbox.db", "outbox.db-wal", "outbox.db-shm"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(outbox.path.parent.stat().st_mode) == 0o700


def test_sqlite_is_one_without_the_wal_reset_fault():
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)


def test_a_newer_layout_another_programs_file_and_no_database_are_refused_in_clear_text(tmp_path, clock):
    path = tmp_path / "o.db"
    Outbox.open(path, CRM, clock).close()
    db = apsw.Connection(str(path))
    db.pragma("user_version", OUTBOX.version + 1)
    db.close()
    with pytest.raises(
        StateError, match=f"layout must be version {OUTBOX.version}, was {OUTBOX.version + 1}: made by another release"
    ):
        Outbox.open(path, CRM, clock)
    other = tmp_path / "other.db"
    db = apsw.Connection(str(other))
    db.execute("CREATE TABLE t (x)")
    db.close()
    with pytest.raises(StateError, match="must be an outbox, found another SQLite file"):
        Outbox.open(other, CRM, clock)
    text = tmp_path / "text.db"
    text.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StateError, match="must be an undamaged outbox"):
        Outbox.open(text, CRM, clock)
    with pytest.raises(StateError, match="must be readable and writable"):
        Outbox.open(text / "below a file" / "o.db", CRM, clock)


def test_a_damaged_page_is_found_at_the_door_wherever_it_is(tmp_path, clock):
    path = tmp_path / "o.db"
    outbox = Outbox.open(path, CRM, clock)
    outbox.put(notices(500))
    outbox.close()
    whole = path.read_bytes()
    # The second page lists what the other pages are for: only a file that moves its pages reads it.
    for page in (0, *range(2, len(whole) // 4096)):
        damaged = bytearray(whole)
        damaged[4096 * page : 4096 * (page + 1)] = b"\xa5" * 4096
        path.write_bytes(damaged)
        with pytest.raises(StateError, match="must be an undamaged outbox"):
            Outbox.open(path, CRM, clock)


def crash_image(outbox: Outbox, to: Path) -> Path:
    """Copy the files as a power cut would leave them: nobody closed anything."""
    to.mkdir()
    for path in outbox.path.parent.iterdir():
        if not path.name.endswith("-shm"):
            shutil.copy(path, to / path.name)
    return to / outbox.path.name


def test_a_writer_dropped_without_a_close_loses_nothing(outbox, tmp_path, clock):
    for n in range(20):
        outbox.put([notice("a", n + 1)])
    copy = Outbox.open(crash_image(outbox, tmp_path / "copy"), CRM, clock)
    assert ids(copy.queue("crm").head(100)) == [f"a-{n + 1}" for n in range(20)]


def test_a_torn_log_ends_at_a_whole_batch(outbox, tmp_path, clock):
    sizes = [0]
    for batch in range(6):
        outbox.put([notice("a", 3 * batch + n + 1) for n in range(3)])
        sizes.append(outbox.path.with_name("outbox.db-wal").stat().st_size)
    image = crash_image(outbox, tmp_path / "whole")
    log = image.with_name("outbox.db-wal").read_bytes()
    for cut in sorted({size + offset for size in sizes[1:] for offset in (-4121, -1, 0, 1, 24)}):
        torn = tmp_path / f"cut{cut}"
        shutil.copytree(image.parent, torn)
        (torn / "outbox.db-wal").write_bytes(log[:cut])
        whole = max(n for n, size in enumerate(sizes) if size <= cut)
        copy = Outbox.open(torn / "outbox.db", CRM, clock)
        assert ids(copy.queue("crm").head(100)) == [f"a-{n + 1}" for n in range(3 * whole)]
        assert copy.stats().outputs["crm"].pending == 3 * whole
        copy.close()


class FaultyFile(apsw.VFSFile):
    """A file whose disk fails at one write or sync."""

    def __init__(self, vfs: "FaultyDisk", name: str, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._vfs = vfs

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  SQLite's name
        self._vfs.count(apsw.FullError("disk full"))
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802  SQLite's name
        self._vfs.count(apsw.IOError("sync failed"))
        super().xSync(flags)


class FaultyDisk(apsw.VFS):
    """A disk, the default one while it is registered, that fails once at the n-th write or sync."""

    def __init__(self) -> None:
        self.left = -1
        super().__init__("faulty", "unix", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> FaultyFile:  # noqa: N802  SQLite's name
        return FaultyFile(self, name, flags)

    def count(self, error: Exception) -> None:
        self.left -= 1
        if self.left == 0:
            raise error


@pytest.fixture
def disk():
    faulty = FaultyDisk()
    yield faulty
    faulty.unregister()


def test_a_put_that_a_failing_disk_refused_stored_nothing_and_can_be_put_again(tmp_path, clock, disk):
    refused = 0
    outbox = Outbox.open(tmp_path / "o.db", CRM, clock)
    for fault in range(1, 40):
        batch = [notice(f"c{fault}", n + 1, "x" * 3_000) for n in range(4)]
        before = outbox.stats().notifications
        disk.left = fault
        try:
            outbox.put(batch)
        except StateError:
            refused += 1
            assert outbox.stats().notifications == before
        disk.left = -1
        outbox.put(batch)
        assert outbox.put(batch) == 0
        assert outbox.stats().notifications == before + 4
    outbox.close()
    assert refused > 5
    assert len(Outbox.open(tmp_path / "o.db", CRM, clock).queue("crm").head(1000)) == 39 * 4


def test_pruning_that_broke_off_leaves_an_outbox_that_opens_and_holds_what_is_pending(tmp_path, clock, disk):
    broken = 0
    for fault in range(1, 30):
        directory = tmp_path / str(fault)
        outbox = Outbox.open(directory / "outbox.db", CRM, clock)
        outbox.put([notice("a", n + 1, "x" * 3_000) for n in range(20)])
        outbox.queue("crm").commit(outbox.queue("crm").head(15), 0, clock())
        disk.left = fault
        try:
            outbox.prune(clock() + 1)
        except StateError:
            broken += 1
        disk.left = -1
        copy = Outbox.open(crash_image(outbox, tmp_path / f"copy{fault}"), CRM, clock)
        assert ids(copy.queue("crm").head(100)) == [f"a-{n + 1}" for n in range(15, 20)]
        assert copy.prune(clock() + 1) in {0, 15}
        assert copy.put([notice("a", 1, "x" * 3_000)]) == 0
        copy.close()
        outbox.close()
    assert broken > 5


def test_a_full_disk_is_told_as_one_that_must_have_room(outbox):
    with outbox._db.read() as db:
        db.pragma("max_page_count", 1)  # no more than it has
    with pytest.raises(StateError, match="must have room on its disk, found: database or disk is full"):
        outbox.put([notice("a", 1, "x" * 1_000_000)])
