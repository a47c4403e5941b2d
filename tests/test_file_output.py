"""The output file holds every notification once and in order, whatever is killed when."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from delivery_kit import FakeClock, dispatcher_of, notice, notices, run_out

from schemas.errors import StateError
from sinks.file import FileOutput, Rotation
from sinks.outbox import Outbox
from sinks.outputs import NotificationRefusedError, OutputDownError, Undeliverable


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def outbox(tmp_path, clock):
    opened = Outbox.open(tmp_path / "state" / "outbox.db", {"file": 10_000}, clock)
    yield opened
    opened.close()


def lines_of(put) -> bytes:
    return b"".join(n.body + b"\n" for n in put)


def test_a_line_is_the_body_and_the_file_is_the_owners_alone(outbox, clock, tmp_path):
    path = tmp_path / "out" / "alerts.ndjson"
    put = notices(1_200)
    outbox.put(put)
    run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    assert path.read_bytes() == lines_of(put)
    assert outbox.queue("file").standing()[0] == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("torn", [0, 1_000])
def test_what_was_never_committed_is_cut_off_before_the_next_line(outbox, clock, tmp_path, torn):
    path = tmp_path / "alerts.ndjson"
    outbox.put(notices(3))
    run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    with path.open("ab") as file:
        file.write(b'{"half a li' + b"ne" * torn)
    outbox.put([notice("late", 1)])
    run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    assert path.read_bytes() == lines_of([*notices(3), notice("late", 1)])


def test_a_file_that_lost_committed_lines_is_refused_in_clear_text(outbox, clock, tmp_path):
    path = tmp_path / "alerts.ndjson"
    outbox.put(notices(3))
    run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    outbox.put([notice("late", 1)])
    with pytest.raises(StateError, match=f"must hold the {size} bytes written so far, found {size - 1}"):
        dispatcher_of(outbox, clock, FileOutput(path)).deliver_due()
    assert outbox.pending("file") == 1


def test_after_a_file_was_moved_away_a_new_one_begins(outbox, clock, tmp_path):
    path, moved = tmp_path / "alerts.ndjson", tmp_path / "alerts.1.ndjson"
    dispatcher = dispatcher_of(outbox, clock, FileOutput(path))
    outbox.put(notices(3))
    run_out(dispatcher, clock)
    path.rename(moved)
    outbox.put([notice("late", 1)])
    run_out(dispatcher, clock)
    assert (moved.read_bytes(), path.read_bytes()) == (lines_of(notices(3)), lines_of([notice("late", 1)]))


def test_a_kill_just_after_a_new_file_began_is_no_loss(outbox, clock, tmp_path):
    path = tmp_path / "alerts.ndjson"
    outbox.put(notices(3))
    run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    path.unlink()
    outbox.put([notice("late", 1)])

    class Killed(FileOutput):
        def append(self, position, notifications):
            super().append(position, notifications)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dispatcher_of(outbox, clock, Killed(path)).deliver_due()
    run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    assert path.read_bytes() == lines_of([notice("late", 1)])


def test_a_file_that_was_there_before_is_set_aside_and_not_written_over(tmp_path, clock):
    path = tmp_path / "alerts.ndjson"
    for state in ("first", "second"):  # the state was lost in between
        with contextlib.closing(Outbox.open(tmp_path / state / "o.db", {"file": 100}, clock)) as outbox:
            outbox.put([notice(state, n + 1) for n in range(3)])
            run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    assert (tmp_path / "alerts.ndjson.1").read_bytes() == lines_of([notice("first", n + 1) for n in range(3)])
    assert path.read_bytes() == lines_of([notice("second", n + 1) for n in range(3)])


@pytest.mark.parametrize("size", [1, 60, 10_000])
def test_a_first_batch_that_broke_off_is_written_anew_and_once(outbox, clock, tmp_path, size):
    path = tmp_path / "alerts.ndjson"
    outbox.put(notices(3))
    path.write_bytes(lines_of(notices(3))[:size])
    run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    assert path.read_bytes() == lines_of(notices(3))
    assert [one.name for one in tmp_path.glob("alerts*")] == ["alerts.ndjson"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_an_output_that_is_down_and_holds_up_nothing(outbox, clock, tmp_path, make):
    make(tmp_path / "alerts.ndjson")
    outbox.put(notices(3))
    dispatcher_of(outbox, clock, FileOutput(tmp_path / "alerts.ndjson")).deliver_due()
    assert "must be a file, was a folder, pipe or device" in outbox.stats().outputs["file"].trouble
    assert outbox.pending("file") == 3


def test_a_disk_that_fails_is_waited_for(outbox, clock, tmp_path):
    parent = tmp_path / "out"
    parent.write_text("a file where a directory must be")
    path = parent / "alerts.ndjson"
    outbox.put(notices(3))
    dispatcher = dispatcher_of(outbox, clock, FileOutput(path))
    next_ms = dispatcher.deliver_due()
    assert "must be writable, found: Not a directory" in outbox.stats().outputs["file"].trouble
    parent.unlink()
    clock.now_ms = next_ms
    run_out(dispatcher, clock)
    assert path.read_bytes() == lines_of(notices(3))
    assert outbox.stats().outputs["file"].trouble == ""


def test_a_body_with_a_line_break_is_no_line(outbox, clock, tmp_path):
    path = tmp_path / "alerts.ndjson"
    bad = notice("bad", 1)
    bad = type(bad)(bad.id, bad.type, bad.case, bad.revision, bad.time_ms, b'{\n"id": 1}')
    with pytest.raises(NotificationRefusedError, match="must be one line"):
        FileOutput(path).append(0, [notice("a", 1), bad])
    assert not path.exists()
    outbox.put([notice("a", 1), bad, notice("a", 2)])
    run_out(dispatcher_of(outbox, clock, FileOutput(path)), clock)
    assert path.read_bytes() == lines_of([notice("a", 1), notice("a", 2)])
    assert [(d.id, d.reason) for d in outbox.undelivered.list()] == [("bad-1", Undeliverable.MALFORMED)]


def test_a_file_moved_away_between_recover_and_append_leaves_no_hole(tmp_path):
    path = tmp_path / "alerts.ndjson"
    output = FileOutput(path)
    end = output.append(0, notices(2))
    assert output.recover(end) == end
    path.unlink()
    with pytest.raises(OutputDownError, match="No such file"):
        output.append(end, notices(2))
    assert (output.recover(end), path.exists()) == (0, False)


CHILD = """
import os, pathlib, random, signal, sys
sys.path.insert(0, sys.argv[1])
from delivery_kit import FakeClock, notices
import sinks.lanes
from sinks.dispatcher import Dispatcher
from sinks.file import FileOutput, Rotation
from sinks.outbox import Outbox
from sinks.queues import Queue

directory, seed, size_bytes = pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
sinks.lanes.BATCH = 7
left = random.Random(seed).randint(1, 60)

def count(step):
    def counted(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **kwargs)
    return counted

# Every step towards the disk is a place to die.
os.pwrite, os.fsync, os.truncate = count(os.pwrite), count(os.fsync), count(os.truncate)
pathlib.Path.rename = count(pathlib.Path.rename)
Queue.commit, Outbox.put, Outbox.prune = count(Queue.commit), count(Outbox.put), count(Outbox.prune)

clock = FakeClock()
output = FileOutput(directory / "alerts.ndjson", rotation=Rotation(size_bytes or None))
outbox = Outbox.open(directory / "outbox.db", {"file": 10_000}, clock)
dispatcher = Dispatcher(outbox, [output], clock, random.Random(seed), keep_ms=-1)
put = notices(100)
for first in range(0, 100, 10):
    outbox.put(put[first : first + 10])
    dispatcher.deliver_due()
"""


def run_child(directory: Path, seed: int, size_bytes: int = 0) -> int:
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(directory), str(seed), str(size_bytes)]
    return subprocess.run(command, check=False, timeout=60).returncode


@pytest.mark.parametrize("seed", range(4))
def test_after_kills_at_random_steps_the_file_is_as_if_nothing_had_happened(tmp_path, seed):
    kills = 0
    while (code := run_child(tmp_path, 100 * seed + kills)) == -signal.SIGKILL:
        kills += 1
    assert code == 0
    assert kills > 0
    assert (tmp_path / "alerts.ndjson").read_bytes() == lines_of(notices(100))


class TestRotation:
    def test_a_full_file_is_renamed_and_no_line_is_lost_or_cut(self, outbox, clock, tmp_path):
        path = tmp_path / "alerts.ndjson"
        put = notices(60)
        size = len(lines_of(put[:10]))
        for first in range(0, 60, 5):
            outbox.put(put[first : first + 5])
            run_out(dispatcher_of(outbox, clock, FileOutput(path, rotation=Rotation(size_bytes=size))), clock)
        pieces = [*(tmp_path / f"alerts.ndjson.{number}" for number in range(1, 6)), path]
        assert b"".join(piece.read_bytes() for piece in pieces) == lines_of(put)
        assert [len(piece.read_bytes().splitlines()) for piece in pieces] == [10] * 6

    def test_a_file_of_an_earlier_day_is_renamed_before_the_next_line(self, outbox, clock, tmp_path):
        path = tmp_path / "alerts.ndjson"
        output = FileOutput(path, rotation=Rotation(period_s=86_400), clock=clock)
        days = 86_400_000
        for day, revision in ((0, 1), (0, 2), (1, 3), (3, 4)):
            clock.now_ms = 1_700_006_400_000 + day * days + revision
            outbox.put([notice("a", revision)])
            run_out(dispatcher_of(outbox, clock, output), clock)
            os.utime(path, ns=(clock.now_ms * 1_000_000,) * 2)
        found = {one.name: one.read_bytes() for one in tmp_path.glob("alerts*")}
        assert found == {
            "alerts.ndjson.1": lines_of([notice("a", 1), notice("a", 2)]),
            "alerts.ndjson.2": lines_of([notice("a", 3)]),
            "alerts.ndjson": lines_of([notice("a", 4)]),
        }

    def test_what_was_never_committed_is_cut_off_before_the_file_is_renamed(self, outbox, clock, tmp_path):
        path = tmp_path / "alerts.ndjson"
        output = FileOutput(path, rotation=Rotation(size_bytes=1))
        outbox.put([notice("a", 1)])
        run_out(dispatcher_of(outbox, clock, output), clock)
        with path.open("ab") as file:
            file.write(b'{"half a li')
        outbox.put([notice("a", 2)])
        run_out(dispatcher_of(outbox, clock, output), clock)
        assert (tmp_path / "alerts.ndjson.1").read_bytes() == lines_of([notice("a", 1)])
        assert path.read_bytes() == lines_of([notice("a", 2)])

    def test_files_that_are_there_already_are_never_written_over(self, outbox, clock, tmp_path):
        for name in ("alerts.ndjson.7", "alerts.ndjson.gz", "alerts.ndjson.old.9"):
            (tmp_path / name).write_bytes(b"theirs")
        output = FileOutput(tmp_path / "alerts.ndjson", rotation=Rotation(size_bytes=1))
        for revision in (1, 2):
            outbox.put([notice("a", revision)])
            run_out(dispatcher_of(outbox, clock, output), clock)
        assert (tmp_path / "alerts.ndjson.8").read_bytes() == lines_of([notice("a", 1)])
        assert (tmp_path / "alerts.ndjson.7").read_bytes() == b"theirs"

    def test_a_file_that_lost_lines_is_refused_and_not_renamed(self, outbox, clock, tmp_path):
        path = tmp_path / "alerts.ndjson"
        outbox.put(notices(3))
        output = FileOutput(path, rotation=Rotation(size_bytes=1))
        run_out(dispatcher_of(outbox, clock, output), clock)
        path.write_bytes(path.read_bytes()[:-1])
        outbox.put([notice("late", 1)])
        with pytest.raises(StateError, match="must hold the"):
            run_out(dispatcher_of(outbox, clock, output), clock)
        assert [one.name for one in tmp_path.glob("alerts*")] == ["alerts.ndjson"]

    @pytest.mark.parametrize(
        "seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 50))]
    )
    def test_after_kills_at_random_steps_the_files_together_are_as_if_nothing_had_happened(self, tmp_path, seed):
        kills = 0
        while (code := run_child(tmp_path, 1_000 + 100 * seed + kills, 400)) == -signal.SIGKILL:
            kills += 1
        assert (code, kills > 0) == (0, True)
        done = sorted(tmp_path.glob("alerts.ndjson.*"), key=lambda one: int(one.suffix[1:]))
        assert len(done) > 5
        assert b"".join(one.read_bytes() for one in [*done, tmp_path / "alerts.ndjson"]) == lines_of(notices(100))
