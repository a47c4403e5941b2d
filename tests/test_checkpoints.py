import errno
import os
import subprocess
import sys

import pytest
from engine_kit import MONDAY_MS, batch, call, engine
from hypothesis import given
from hypothesis import strategies as st

from dataflows import checkpoints as module
from dataflows.checkpoints import KEPT, MAGIC, Checkpoints, sole_user
from schemas.errors import StateError

STATE = {"layout": 1, "names": ["a", "b"], "rows": b"\x00\x01\xff"}
HOLDER = """
import sys
from pathlib import Path
from dataflows.checkpoints import sole_user
with sole_user(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def kept(tmp_path):
    return Checkpoints(tmp_path / "engine")


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "engine").iterdir())


class TestReadingBack:
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.binary()
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    )

    @given(state=st.dictionaries(st.text(), values, max_size=4))
    def test_a_state_is_read_back_as_it_was(self, tmp_path_factory, state):
        folder = tmp_path_factory.mktemp("engine")
        assert Checkpoints(folder).load(Checkpoints(folder).save(state)) == state

    def test_an_engine_s_state_survives_the_disk(self, kept):
        risk = engine()
        risk.apply(batch(call("k1", MONDAY_MS + place * 60_000, dropped=place % 3 == 0) for place in range(50)))
        again = engine()
        again.restore(kept.load(kept.save(risk.snapshot())))
        assert again.snapshot() == risk.snapshot()

    def test_every_flipped_byte_is_noticed(self, kept, tmp_path):
        name = kept.save(STATE)
        path = tmp_path / "engine" / name
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
            with pytest.raises(StateError, match=name):
                kept.load(name)

    def test_every_shorter_file_is_noticed(self, kept, tmp_path):
        name = kept.save(STATE)
        path = tmp_path / "engine" / name
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises(StateError, match=name):
                kept.load(name)

    def test_a_newer_version_is_refused_as_such(self, kept, tmp_path):
        name = kept.save(STATE)
        path = tmp_path / "engine" / name
        path.write_bytes(path.read_bytes().replace(MAGIC, b"stayline-state/2\n"))
        with pytest.raises(StateError, match=rf"{name}: must begin with stayline-state/1, did not: another version"):
            kept.load(name)

    def test_a_missing_state_is_an_error_with_its_name(self, kept):
        with pytest.raises(StateError, match=r"000000000007.state: must be readable, was not: No such file"):
            kept.load("000000000007.state")

    def test_a_disk_that_takes_nothing_is_an_error_and_the_state_before_stands(self, kept, monkeypatch):
        name = kept.save(STATE)
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            with pytest.raises(StateError, match=r"000000000002.state: must be writable, was not: No space left"):
                kept.save({})
        assert kept.newest() == name
        assert kept.load(name) == STATE
        assert kept.save({"after": 1}) == "000000000002.state"


class TestKeeping:
    def test_the_last_few_are_kept(self, kept, tmp_path):
        saved = [kept.save(STATE) for _ in range(KEPT + 5)]
        assert names(tmp_path) == saved[-KEPT:]
        assert kept.newest() == saved[-1]

    def test_a_successor_goes_on_numbering(self, kept, tmp_path):
        first = kept.save(STATE)
        assert Checkpoints(tmp_path / "engine").save(STATE) > first

    def test_however_often_a_run_is_killed_before_it_commits_the_committed_state_stays(self, kept, tmp_path):
        committed = [kept.save({"number": number}) for number in range(3)][-1]
        for _ in range(3 * KEPT):
            killed = Checkpoints(tmp_path / "engine")
            assert killed.load(committed) == {"number": 2}
            for number in range(KEPT - 1):
                killed.save({"number": 100 + number})

    def test_what_a_killed_run_saved_is_not_taken_for_the_newest(self, kept, tmp_path):
        committed, *_ = [kept.save({"number": number}) for number in range(5)]
        successor = Checkpoints(tmp_path / "engine")
        successor.load(committed)
        fresh = successor.save({"number": 50})
        assert names(tmp_path) == [committed, fresh]
        assert successor.load(successor.newest()) == {"number": 50}

    def test_a_draft_is_neither_listed_nor_in_the_way(self, kept, tmp_path):
        (tmp_path / "engine").mkdir()
        (tmp_path / "engine/.000000000001.state").write_bytes(b"half")
        assert kept.newest() is None
        assert kept.save(STATE) == "000000000001.state"
        assert names(tmp_path) == ["000000000001.state"]

    def test_looking_makes_no_folder(self, kept, tmp_path):
        assert kept.newest() is None
        assert list(tmp_path.iterdir()) == []

    def test_folder_and_files_are_for_this_user_alone(self, kept, tmp_path):
        before = os.umask(0)
        try:
            name = kept.save(STATE)
        finally:
            os.umask(before)
        assert (tmp_path / "engine").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "engine" / name).stat().st_mode & 0o777 == 0o600


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
