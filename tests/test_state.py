"""`stayline state`: what is kept can be held against itself, made small, and read."""

import sys

import orjson
import pytest
from engine_kit import HOUR_MS, MONDAY_MS, alerts, batch, call, engine, told

from dataflows import cli
from dataflows.checkpoints import KEPT, Checkpoints
from dataflows.checkpoints.engines import keep, resume

CONFIG = """
[deployment]
name = "test"
[input]
kind = "http"
[[output]]
kind = "file"
path = "alerts.ndjson"
"""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A state of some checkpoints, and the engine as it was at the last of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(CONFIG)
    risk, checkpoints = engine(), Checkpoints(tmp_path / "state/engine")
    for number in range(KEPT + 4):
        events = [call(f"c{one}", MONDAY_MS + number * HOUR_MS + one, dropped=one == 0) for one in range(400)]
        said = risk.apply(batch(events))
        assert number < 10 or not alerts(told(said), "c1")
        keep(risk, {"engine": (number,)}, checkpoints)
    checkpoints.settle()
    assert risk.memory.casebook.cases
    return risk, checkpoints


def stayline(monkeypatch, capfd, *arguments):
    monkeypatch.setattr(sys, "argv", ["stayline", *arguments, "-c", "c.toml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    return ended.value.code, said.out, said.err


def test_what_is_whole_is_counted(kept, monkeypatch, capfd):
    risk, _ = kept
    code, out, _ = stayline(monkeypatch, capfd, "state", "verify")
    assert code == 0
    assert f"{KEPT + 4:012d}.state, whole, in " in out
    assert ", ".join(f"{count} {sort}" for sort, count in risk.memory.sizes().items()) in out
    assert "400 customers, " in out


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:900] + b"?" + data[901:]])
def test_damage_in_any_file_that_is_kept_is_told_with_its_name(kept, monkeypatch, capfd, damage):
    _, checkpoints = kept
    for path in sorted(checkpoints.folder.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        code, _, err = stayline(monkeypatch, capfd, "state", "verify")
        assert code == 1
        assert f"{path.name}: must match its digest, did not: the file is damaged" in err
        path.write_bytes(whole)


def test_a_compacted_state_is_smaller_and_the_same(kept, monkeypatch, capfd):
    risk, checkpoints = kept
    before = {path.name for path in checkpoints.folder.iterdir()}
    versions = checkpoints.versions()
    assert stayline(monkeypatch, capfd, "state", "compact")[0] == 0
    assert {path.name for path in checkpoints.folder.iterdir()} == set(versions) <= before
    for number, name in enumerate(versions):
        again = engine()
        assert resume(again, Checkpoints(checkpoints.folder), name) == {"engine": (number + 4,)}
    assert again.snapshot() == risk.snapshot()


@pytest.mark.usefixtures("kept")
def test_every_customer_is_written_by_key_and_with_a_name_only_where_there_is_a_case(monkeypatch, capfd):
    code, out, _ = stayline(monkeypatch, capfd, "state", "export")
    found = [orjson.loads(line) for line in out.splitlines()]
    assert (code, len(found)) == (0, 400)
    (named,) = [one for one in found if one["customer_id"] is not None]
    assert (named["customer_id"], named["revision"] > 0) == ("c0", True)
    assert len({one["key"] for one in found}) == 400


@pytest.mark.parametrize("command", ["verify", "compact", "export"])
def test_without_a_state_there_is_nothing_to_say(tmp_path, monkeypatch, capfd, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(CONFIG)
    code, _, err = stayline(monkeypatch, capfd, "state", command)
    assert (code, "must hold a checkpoint of a run, held none" in err) == (1, True)
