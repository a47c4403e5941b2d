import orjson
import pytest
from run_kit import Program, lines, recorded

from dataflows.commands.explain import PLOT_ROWS, explain, plot
from dataflows.config import load
from detectors.zone import local_time
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
    (tmp_path / "engine/000000000001.state").write_bytes(b"stayline-state/2\nnot what it was")
    config = load(folder / "c.toml", {"STAYLINE_STATE__DIRECTORY": str(tmp_path)})
    with pytest.raises(StateError, match=r"000000000001.state: must match its digest"):
        explain("c000001", config)


DAY_MS = 86_400_000
UTC = local_time("UTC")
MONDAY_MS = 1_767_571_200_000


def test_evidence_is_drawn_over_time_with_bad_calls_and_the_line_at_which_a_case_opens():
    course = [(MONDAY_MS + day * DAY_MS, days, bad) for day, (days, bad) in enumerate(
        [(0.5, False), (10.0, True), (5.0, False), (400.0, True), (20_000.0, True)]
    )]  # fmt: skip
    title, *rows, ends = plot(course, 10_000.0, UTC)
    drawn = [row.split("|")[1] for row in rows]
    assert "evidence" in title
    assert len(drawn) == PLOT_ROWS
    assert ["".join(drawn).count(mark) for mark in "x."] == [3, 2]
    # The last bad call stands highest and rightmost, the first good one lowest and leftmost.
    assert drawn[0].endswith("x")
    assert drawn[-1].startswith(".")
    assert ["-----" in row for row in drawn].index(True) == 0
    assert "Monday, 5 January to Friday, 9 January" in ends


def test_a_customer_of_fewer_than_two_remembered_calls_has_no_plot():
    assert plot([], 10_000.0, UTC) == plot([(MONDAY_MS, 1.0, True)], 10_000.0, UTC) == []


def test_an_open_case_is_told_with_its_evidence_over_time(done):
    folder, config = done
    opened = [one for one in newest_alerts(folder).values() if one["type"] != "stayline.alert.resolved"]
    for one in opened:
        drawn = [line.split("|")[1] for line in explain(one["subject"], config) if "|" in line]
        assert len(drawn) == PLOT_ROWS
        assert any("x" in row for row in drawn)
