import contextlib
import errno
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_kit import batch, engine
from hypothesis import given
from hypothesis import strategies as st

from bench.simulator import TelcoSpec, simulate
from dataflows.checkpoints import KEPT, Checkpoints, name_of, sole_user
from dataflows.checkpoints.files import MAGIC, SECTION_MIN
from schemas.errors import StateError

HOLDER = """
import sys
from pathlib import Path
from dataflows.checkpoints import sole_user
with sole_user(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "engine"


@pytest.fixture
def kept(folder):
    return Checkpoints(folder)


def keep(checkpoints, number=0, floor=None):
    """Keep a state that is a number; return its name."""

    def make(of):
        return {"floor": of if floor is None else floor(of), "number": number}

    name = checkpoints.save(make)
    checkpoints.settle()
    return name


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def numbers(checkpoints, name):
    return [state["number"] for state in checkpoints.load(name)]


class TestReadingBack:
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.binary(max_size=3 * SECTION_MIN)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    )

    @given(state=st.dictionaries(st.text(), values, max_size=4))
    def test_a_state_is_read_back_as_it_was(self, tmp_path_factory, state):
        checkpoints = Checkpoints(tmp_path_factory.mktemp("engine"))
        state |= {"floor": 1}
        name = checkpoints.save(lambda _: {**state, "long": memoryview(b"x" * SECTION_MIN)})
        checkpoints.settle()
        assert list(checkpoints.load(name)) == [{**state, "long": b"x" * SECTION_MIN}]

    @pytest.mark.parametrize("restarts", [0, 3])
    def test_an_engine_goes_on_from_the_disk_as_if_it_had_never_stopped(self, folder, restarts):
        spec = TelcoSpec(customers=120, days=6, seed=4, faulty_ratio=0.4)
        lines = simulate(spec, folder / "telco", lambda _done, _total: None).events_path.read_bytes().split(b"\n")
        undisturbed, risk, checkpoints, told = engine(), engine(), Checkpoints(folder), []
        expected = undisturbed.apply(batch(lines))
        for place in range(0, len(lines), 200):
            told += risk.apply(batch(lines[place : place + 200]))
            risk.gather()
            name = checkpoints.save(risk.changes)
            if restarts and place // 200 % (len(lines) // 200 // restarts) == 1:
                checkpoints.settle()
                risk, checkpoints = engine(), Checkpoints(folder)
                risk.resume(checkpoints.load(name))
        checkpoints.settle()
        assert told == expected
        assert len(expected) > 10
        again = engine()
        again.resume(Checkpoints(folder).load(name))
        assert again.snapshot() == risk.snapshot()

    def test_every_flipped_byte_is_noticed(self, kept, folder):
        path = folder / keep(kept)
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
            with pytest.raises(StateError, match=path.name):
                numbers(kept, path.name)

    def test_every_shorter_file_is_noticed(self, kept, folder):
        path = folder / keep(kept)
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises(StateError, match=path.name):
                numbers(kept, path.name)

    @pytest.mark.parametrize("layout", [b"1", b"3"])
    def test_another_layout_is_refused_as_such(self, kept, folder, layout):
        path = folder / keep(kept)
        path.write_bytes(path.read_bytes().replace(MAGIC, b"stayline-state/%b\n" % layout))
        found = rf"must begin with stayline-state/2, is of layout {layout.decode()}: made by another version of this"
        with pytest.raises(StateError, match=rf"{path.name}: {found}"):
            numbers(kept, path.name)

    def test_a_missing_state_is_an_error_with_its_name(self, kept):
        with pytest.raises(StateError, match=r"000000000007.state: must be readable, was not: No such file"):
            numbers(kept, name_of(7))


class TestChains:
    def test_a_checkpoint_is_read_from_its_floor_on(self, kept):
        made = [keep(kept, number, lambda of: max(1, of - 2)) for number in range(5)]
        assert numbers(kept, made[4]) == [2, 3, 4]
        assert numbers(kept, made[1]) == [0, 1]

    def test_files_are_deleted_once_no_kept_checkpoint_needs_them(self, kept, folder):
        made = [keep(kept, number, lambda of: max(1, of - 2)) for number in range(KEPT + 5)]
        assert names(folder) == made[-KEPT - 2 :]
        for place, name in enumerate(kept.versions()):
            assert numbers(kept, name)[-1] == place + 5

    def test_a_file_that_is_missing_in_the_chain_is_named(self, kept, folder):
        made = [keep(kept, number, lambda _: 1) for number in range(4)]
        (folder / made[0]).unlink()
        with pytest.raises(StateError, match=rf"{made[0]}: must be there for {made[3]}, was not"):
            numbers(kept, made[3])
        (folder / made[2]).unlink()
        with pytest.raises(StateError, match=rf"{made[0]}: must be there"):
            numbers(kept, made[3])

    @pytest.mark.parametrize("damaged", [1, 2])
    def test_damage_anywhere_in_the_chain_is_refused(self, kept, folder, damaged):
        made = [keep(kept, number, lambda _: 1) for number in range(4)]
        path = folder / made[damaged]
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        with pytest.raises(StateError, match=made[damaged]):
            numbers(kept, made[3])

    def test_a_file_of_another_run_in_the_chain_is_refused(self, kept, folder):
        made = [keep(kept, number, lambda _: 1) for number in range(3)]
        stranger = Checkpoints(folder)
        assert numbers(stranger, made[0]) == [0]
        strange = folder / keep(stranger, 100, lambda _: 1)
        kept.save(lambda _: {"floor": 1, "number": 3})
        kept.settle()
        assert strange.name == made[1]
        with pytest.raises(StateError, match="must be readable"):
            numbers(kept, kept.newest())
        strange.rename(folder / made[2])
        with pytest.raises(StateError, match=made[1]):
            numbers(kept, made[2])

    def test_a_rewritten_checkpoint_stands_by_itself_and_those_behind_it_still_hold(self, kept, folder):
        made = [keep(kept, number, lambda _: 1) for number in range(4)]
        kept.rewrite(made[2], {"number": 20})
        kept.drop_before(made[2])
        other = Checkpoints(folder)
        assert numbers(other, made[2]) == [20]
        assert numbers(other, made[3]) == [20, 3]


class TestKeeping:
    def test_a_successor_goes_on_numbering(self, kept, folder):
        first = keep(kept)
        assert keep(Checkpoints(folder)) > first

    def test_however_often_a_run_is_killed_before_it_commits_the_committed_state_stays(self, kept, folder):
        committed = [keep(kept, number) for number in range(3)][-1]
        for _ in range(3 * KEPT):
            killed = Checkpoints(folder)
            assert numbers(killed, committed) == [2]
            for number in range(KEPT - 1):
                keep(killed, 100 + number)

    def test_what_a_killed_run_saved_is_not_taken_for_the_newest(self, kept, folder):
        committed, *_ = [keep(kept, number) for number in range(5)]
        successor = Checkpoints(folder)
        assert numbers(successor, committed) == [0]
        fresh = keep(successor, 50)
        assert names(folder) == [committed, fresh]
        assert numbers(successor, successor.newest()) == [50]

    def test_a_draft_is_neither_listed_nor_in_the_way(self, kept, folder):
        folder.mkdir()
        (folder / ".000000000001.state").write_bytes(b"half")
        assert kept.newest() is None
        assert keep(kept) == name_of(1)
        assert names(folder) == [name_of(1)]

    def test_looking_makes_no_folder(self, kept, tmp_path):
        assert kept.newest() is None
        assert list(tmp_path.iterdir()) == []

    def test_folder_and_files_are_for_this_user_alone(self, kept, folder):
        before = os.umask(0)
        try:
            name = keep(kept)
        finally:
            os.umask(before)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / name).stat().st_mode & 0o777 == 0o600

    def test_only_the_newest_may_be_unfinished(self, kept, folder):
        made = [keep(kept, number) for number in range(3)]
        assert kept.usable(made[2]) == made[2]
        (folder / made[2]).write_bytes(b"half")
        assert kept.usable(made[2]) == made[1]
        (folder / made[1]).unlink()
        with pytest.raises(StateError, match=made[2]):
            kept.usable(made[2])


class Killed(BaseException):
    """The process ends here."""


def test_the_first_checkpoint_is_durable_when_it_has_a_name(tmp_path):
    checkpoints = Checkpoints(tmp_path / "state")
    assert checkpoints.usable(checkpoints.save(lambda number: {"floor": number})) == name_of(1)


class TestAccidents:
    """Whatever breaks while a checkpoint is written, the ones before it stand."""

    STEPS = (("open", 0), ("fsync", 0), ("fsync", 1), ("replace", 0), ("unlink", 0), ("unlink", 1), ("fsync", 2))
    """Calls of the system by which a file is written and old ones are deleted; and the how manieth of its sort."""

    @pytest.mark.parametrize(("call", "number"), STEPS)
    @pytest.mark.parametrize("accident", [Killed(), OSError(errno.ENOSPC, "No space left")])
    def test_at_every_step(self, kept, folder, monkeypatch, call, number, accident):
        # The next one makes two files superfluous.
        made = [keep(kept, place, lambda of: max(1, of - 1)) for place in range(KEPT + 1)]
        made.append(keep(kept, KEPT + 1, lambda _: KEPT + 2))
        counts = itertools.count()
        owner = os if call in {"open", "fsync"} else Path
        real = getattr(owner, call)

        def breaks(*args, **kwargs):
            if next(counts) == number:
                raise accident
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, call, breaks)
            broken = Checkpoints(folder)
            assert numbers(broken, made[-1]) == [KEPT + 1]
            broken.save(lambda of: {"floor": of, "number": 99})
            with contextlib.suppress(Killed, StateError):
                broken.settle()
        successor = Checkpoints(folder)
        usable = successor.usable(name_of(KEPT + 3))
        assert numbers(successor, usable) in ([KEPT + 1], [99])
        assert numbers(successor, made[-1]) == [KEPT + 1]
        assert numbers(successor, keep(successor, 100)) == [100]

    def test_a_full_disk_is_an_error_at_the_next_look_and_the_state_before_stands(self, kept, monkeypatch):
        name = keep(kept)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            kept.save(lambda of: {"floor": of, "number": 1})
            with pytest.raises(StateError, match=r"000000000002.state: must be writable, was not: No space left"):
                kept.settle()
        assert kept.newest() == name
        assert numbers(kept, name) == [0]

    def test_every_cut_of_the_newest_file_leaves_the_one_before_it(self, kept, folder):
        made = [keep(kept, number) for number in range(2)]
        path = folder / made[1]
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            assert kept.usable(made[1]) == made[0]


class TestSoleUser:
    def test_a_second_process_is_refused_until_the_first_has_ended(self, tmp_path):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(StateError, match="must be used by one process, another one is running on it"),
            sole_user(tmp_path),
        ):
            pass
        holder.kill()
        holder.communicate()
        with sole_user(tmp_path):
            pass

    def test_a_folder_that_cannot_be_made_is_an_error(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(StateError, match="must be a writable folder, was not"), sole_user(tmp_path / "file"):
            pass

    def test_what_goes_wrong_inside_is_not_blamed_on_the_folder(self, tmp_path):
        for error in (OSError(errno.ENOSPC, "No space left"), BlockingIOError()):
            with pytest.raises(type(error)) as raised, sole_user(tmp_path):
                raise error
            assert raised.value is error
