"""Compiled code: what was compiled beforehand is used, wherever code is kept."""

import numba
import pytest

from schemas import kernels

NAME = "kernels-0123"


@pytest.fixture
def beside(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    (folder / NAME / "detectors_1").mkdir(parents=True)
    (folder / NAME / "detectors_1" / "advance.nbi").write_bytes(b"code")
    monkeypatch.setattr(kernels, "BESIDE", folder)
    return folder


def test_what_was_compiled_beforehand_is_taken_over_with_the_right_to_write_beside_it(beside, tmp_path):
    (beside / NAME / "detectors_1" / "advance.nbi").chmod(0o444)
    kept = kernels.kept_in(tmp_path / "data", NAME)
    assert kept == tmp_path / "data" / NAME
    assert (kept / "detectors_1" / "advance.nbi").read_bytes() == b"code"
    (kept / "detectors_1" / "advance.nbi").write_bytes(b"compiled here")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [NAME]


@pytest.mark.usefixtures("beside")
def test_what_was_compiled_here_stays(tmp_path):
    kept = kernels.kept_in(tmp_path, NAME)
    (kept / "detectors_1" / "advance.nbi").write_bytes(b"compiled here")
    assert kernels.kept_in(tmp_path, NAME) == kept
    assert (kept / "detectors_1" / "advance.nbi").read_bytes() == b"compiled here"


def test_where_the_sources_can_be_written_to_nothing_is_copied(beside):
    assert kernels.kept_in(beside, NAME) == beside / NAME
    assert [path.name for path in beside.iterdir()] == [NAME]


def test_another_process_that_was_quicker_is_left_alone(beside, tmp_path, monkeypatch):
    def quicker(_, draft, **__):
        draft.mkdir(parents=True)
        (tmp_path / NAME).mkdir()
        (tmp_path / NAME / "theirs").touch()

    monkeypatch.setattr(kernels.shutil, "copytree", quicker)
    assert kernels.kept_in(tmp_path, NAME) == tmp_path / NAME
    assert [path.name for path in (tmp_path / NAME).iterdir()] == ["theirs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, beside.name]


@pytest.mark.usefixtures("beside")
def test_a_disk_without_room_costs_only_the_time_to_compile(tmp_path, monkeypatch):
    def full(_, draft, **__):
        draft.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernels.shutil, "copytree", full)
    kept = kernels.kept_in(tmp_path / "data", NAME)
    assert not kept.exists()
    assert list((tmp_path / "data").iterdir()) == []


def test_a_place_where_nothing_is_compiled_yet_is_told_as_cold(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    (tmp_path / "detectors_0f").mkdir()
    assert kernels.cold("detectors")
    (tmp_path / "detectors_0f" / "advance.nbi").write_bytes(b"code")
    assert not kernels.cold("detectors")
