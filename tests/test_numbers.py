"""The page of numbers says what the raw lines say, and nothing where there are none."""

import re
import shutil

import orjson
import pytest

from bench.numbers.page import PAGE, RESULTS, page
from bench.numbers.runs import Run
from bench.numbers.sections import SECTIONS
from bench.numbers.sums import CALL_BYTES
from detectors.notes import NOTE
from detectors.roster import ROW


def test_the_page_and_its_pictures_are_made_of_the_raw_lines_that_lie_beside_it():
    text, pictures = page()
    assert PAGE.read_text() == text
    for name, picture in pictures.items():
        assert (RESULTS / f"{name}.svg").read_text() == picture


def test_what_was_not_measured_is_said_with_the_command_that_would(tmp_path):
    text, pictures = page(tmp_path)
    assert pictures == {}
    for title, stem, _ in SECTIONS:
        assert f"## {title}\n\nNot measured yet: `stayline bench {stem.replace('-', ' ')}`." in text


@pytest.mark.parametrize("stem", [stem for _, stem, _ in SECTIONS])
def test_every_run_of_the_page_is_committed_as_printed_and_as_raw_lines(stem):
    run = Run.read(RESULTS, stem)
    assert run is not None
    assert run.told["command"] == stem.replace("-", " ")
    assert (
        (RESULTS / f"{stem}.txt").read_text().startswith(f"stayline bench {run.told['command']}, {run.told['date']}\n")
    )


def test_a_ratio_is_the_median_over_the_rounds_against_the_first_of_its_race(tmp_path):
    lines = [
        {"kind": "conditions", "date": "2026-01-31", "command": "flow", "conditions": []},
        {"kind": "rate", "rate": {"name": "base", "digest": "", "per_second": [10.0, 20.0, 40.0]}},
        {"kind": "rate", "rate": {"name": "flow", "digest": "d", "per_second": [20.0, 10.0, 40.0]}},
        {"kind": "rate", "rate": {"name": "base", "digest": "", "per_second": [1.0, 1.0, 1.0]}},
        {"kind": "rate", "rate": {"name": "arrow", "digest": "d", "per_second": [3.0, 4.0, 9.0]}},
    ]
    (tmp_path / "flow.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    run = Run.read(tmp_path, "flow")
    assert (run.ratio("flow"), run.ratio("arrow"), run.rate("arrow")) == (1.0, 4.0, 4.0)
    with pytest.raises(KeyError):
        run.ratio("kafka")


def test_every_figure_of_a_section_follows_the_raw_lines(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "results")
    path = tmp_path / "results" / "delivery-desk-metering.jsonl"
    changed = path.read_bytes().replace(b'"kind":"delivery","count":', b'"kind":"delivery","count":1')
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    before, after = page()[0].splitlines(), page(tmp_path / "results")[0].splitlines()
    assert [line[:20] for line, other in zip(before, after, strict=True) if line != other] == [
        "- At 50,000/s, 99 of",
        "- Notifications of 4",
        "- Webhooks, signed, ",
    ]


def results(stem):
    return Run.read(RESULTS, stem)


class TestProse:
    """What other pages say of the figures, in words or rounded, is what the raw lines say."""

    def test_of_churn(self):
        lines = {(one["model"], one["way"]): one["score"] for one in results("churn").of("churn")}
        batch, forest = lines["batch logistic regression", "folds"], lines["LightGBM", "folds"]
        served, rule = lines["the one that serves", "folds"], lines["rule: more DroppedCalls", "folds"]
        assert 0.0 <= batch["auc"] - served["auc"] <= 0.0105
        assert forest["auc"] > max(batch["auc"], served["auc"])
        assert 0.95 < rule["lift"] < 1.1

    def test_of_remedies(self):
        played = {(one["cases"], one["played"]["policy"]): one["played"] for one in results("market").of("market")}
        assert played[2_000, "bandit"]["regret"] > 0.5
        assert 1 / 14 < played[60_000, "bandit"]["late_regret"] < 1 / 10
        for (_, policy), one in played.items():
            assert one["regret"] > 1.0 or policy not in {"random", "always a credit"}

    def test_of_files_on_disk(self):
        text = (RESULTS / "day.txt").read_text()
        whole = [float(share) for share in re.findall(r"(?m)^\d+ +\S+ +\S+ +\S+ +(\d\.\d\d) ", text)]
        assert len(whole) == 24
        assert f"over a day, {min(whole):.1f} to {max(whole):.1f} times" in (PAGE.parent / "state.md").read_text()

    def test_of_sizes(self):
        assert ROW.itemsize == 184
        assert NOTE.itemsize == 64

    def test_of_a_simulated_call(self):
        text = (RESULTS / "throughput-profile.txt").read_text()
        assert f" records, {CALL_BYTES} bytes each" in text

    def test_every_line_of_a_picture_has_a_colour_of_its_own(self):
        for path in RESULTS.glob("*.svg"):
            colours = re.findall(r'<polyline [^>]*stroke="(#\w+)"', path.read_text())
            assert len(set(colours)) == len(colours), path.name
