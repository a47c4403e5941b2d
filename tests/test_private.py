"""The state directory is this user's alone when a deployment starts."""

import os
import stat

import pytest

from dataflows import private
from dataflows.config import load
from dataflows.private import require_private
from dataflows.run import run
from schemas.errors import StateError

CONFIG = """
[input]
kind = "kafka"
kafka = { brokers = "127.0.0.1:9", topics = ["t"], partitions = [] }
[state]
directory = "state"
shared_directory = "shared"
[[output]]
kind = "file"
path = "alerts.ndjson"
"""


@pytest.fixture
def folder(tmp_path):
    state = tmp_path / "state"
    (state / "recovery").mkdir(parents=True)
    (state / "recovery" / "part-0.sqlite3").write_bytes(b"")
    state.chmod(0o755)
    return state


@pytest.fixture
def others(folder, monkeypatch):
    """Make what is below some names look like another user's: only root could make it so."""
    owned = set()
    lstat = type(folder).lstat

    def told(path):
        found = lstat(path)
        if path.name not in owned:
            return found
        fields = list(found)
        fields[stat.ST_UID] = os.geteuid() + 1
        return os.stat_result(fields)

    monkeypatch.setattr(type(folder), "lstat", told)
    return owned


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(private, "log", lambda event, **fields: lines.append((event, fields)))
    return lines


def test_a_directory_that_others_may_read_is_closed_and_said_so(folder, said):
    require_private(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert said == [("state.closed_to_others", {"was": "0755", "now": "0700"})]


def test_a_run_closes_the_directory_that_processes_share_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (tmp_path / "c.toml").write_text(CONFIG)
    run(load(tmp_path / "c.toml", {}))
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("state", "shared")] == [0o700, 0o700]


def test_a_closed_directory_is_left_as_it_is(folder, said):
    folder.chmod(0o700)
    require_private(folder)
    assert said == []


@pytest.mark.parametrize("name", ["state", "recovery", "part-0.sqlite3"])
def test_what_belongs_to_another_user_is_refused_by_name(folder, others, name):
    others.add(name)
    with pytest.raises(StateError, match=rf"{name}: must belong to the user that runs \(uid \d+\), belongs to uid \d+"):
        require_private(folder)


def test_a_link_in_it_is_refused(folder, tmp_path):
    (folder / "outbox.sqlite3").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=r"outbox.sqlite3: must be a file or a folder of its own, was a link"):
        require_private(folder)
