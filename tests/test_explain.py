import orjson
import pytest
from run_kit import Program, lines, recorded

from dataflows.commands.explain import explain
from dataflows.config import load
from schemas.alerts import rfc3339
from schemas.errors import StateError

CONFIG = """
[deployment]
name = "test"
[input]
file = {{ paths = ["{events}"] }}
[state]
directory = "{state}"
[[output]]
kind = "file"
path = "alerts.ndjson"
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which a run has ended, and its configuration."""
    folder = tmp_path_factory.mktemp("explain")
    (folder / "c.toml").write_text(CONFIG.format(events=recorded(folder), state=folder / "state"))
    program = Program(folder, "run", "-c", "c.toml")
    assert program.wait() == 0, program.stderr()
    return folder, load(folder / "c.toml", {})


def newest_alerts(folder):
    """The last word on each customer."""
    told = [orjson.loads(line) for line in lines(folder / "alerts.ndjson")]
    return {one["subject"]: one for one in told if one["type"].startswith("stayline.alert")}


def test_an_open_case_is_told_with_its_id_its_sentence_and_its_calls(done):
    folder, config = done
    opened = [one for one in newest_alerts(folder).values() if one["type"] != "stayline.alert.resolved"]
    assert len(opened) > 3
    for one in opened:
        text = "\n".join(explain(one["subject"], config))
        data = one["data"]
        assert f"case         {data['alert_id']}, revision {data['revision']}, {data['pattern']['kind']}\n" in text
        assert any(call["call_id"] in text for call in data["calls"])
        assert "of 10,000 healthy days" in text
        assert "suspected since" in text


def test_a_customer_without_a_case_has_none(done):
    folder, config = done
    quiet = next(
        one["customer_id"]
        for one in map(orjson.loads, (folder / "events.ndjson").read_bytes().splitlines()[:200:7])
        if one["type"] == "call" and one["customer_id"] not in newest_alerts(folder)
    )
    assert "case         none" in explain(quiet, config)


def test_everything_is_as_of_the_newest_checkpoint_in_event_time(done):
    folder, config = done
    newest = max(path.name for path in (folder / "state/engine").iterdir())
    customer = next(iter(newest_alerts(folder)))
    last_ms = max(
        one["end_ms"]
        for one in map(orjson.loads, filter(None, (folder / "events.ndjson").read_bytes().splitlines()))
        if one.get("type") == "call" and "end_ms" in one
    )
    assert explain(customer, config)[0] == f"As of {rfc3339(last_ms)} (checkpoint {newest})"


def test_it_changes_nothing_on_disk(done):
    folder, config = done
    before = {path: path.read_bytes() for path in (folder / "state").rglob("*") if path.is_file()}
    explain(next(iter(newest_alerts(folder))), config)
    assert {path: path.read_bytes() for path in (folder / "state").rglob("*") if path.is_file()} == before


def test_an_unknown_customer_is_an_error(done):
    with pytest.raises(StateError, match="customer nobody: must have called since the state began, has not"):
        explain("nobody", done[1])


def test_without_a_checkpoint_there_is_nothing_to_tell_and_nothing_is_made(tmp_path):
    (tmp_path / "c.toml").write_text(CONFIG.format(events="e", state=tmp_path / "state"))
    with pytest.raises(StateError, match="state: must hold a checkpoint of a run, held none"):
        explain("c1", load(tmp_path / "c.toml", {}))
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_a_state_of_another_deployment_is_refused(done):
    folder, _ = done
    config = load(folder / "c.toml", {"STAYLINE_DEPLOYMENT__NAME": "other"})
    with pytest.raises(StateError, match="state must belong to deployment other, was of test"):
        explain("c000001", config)


def test_a_damaged_state_is_refused_by_name(done, tmp_path):
    folder, _ = done
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine/000000000001.state").write_bytes(b"stayline-state/1\nnot what it was")
    config = load(folder / "c.toml", {"STAYLINE_STATE__DIRECTORY": str(tmp_path)})
    with pytest.raises(StateError, match=r"000000000001.state: must match its digest"):
        explain("c000001", config)
