"""Files that stand whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from dataflows.durable import replaced


def test_an_error_while_writing_leaves_the_old_bytes_and_no_draft(tmp_path):
    path = tmp_path / "commit"
    path.write_bytes(b"old")

    def fails():
        with replaced(path) as stream:
            stream.write(b"half of the ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fails()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_had_begun_is_written_over(tmp_path):
    (tmp_path / ".commit").write_bytes(b"longer than what comes now")
    with replaced(tmp_path / "commit") as stream:
        stream.write(b"new")
    assert (tmp_path / "commit").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["commit"]


def test_the_file_is_for_its_user_alone(tmp_path):
    with replaced(tmp_path / "commit"):
        pass
    assert stat.S_IMODE((tmp_path / "commit").stat().st_mode) == 0o600


def test_bytes_are_on_disk_before_they_take_the_name_and_the_name_after(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        fsync(descriptor)

    def noted_replace(draft: Path, target: Path) -> Path:
        steps.append("name")
        return replace(draft, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    with replaced(tmp_path / "commit") as stream:
        stream.write(b"12345")
    assert steps == [5, "name", "folder"]
