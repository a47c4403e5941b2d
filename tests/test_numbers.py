"""The page of numbers says what the raw lines say, and nothing where there are none."""

import shutil

import orjson
import pytest

from bench.numbers import PAGE, RESULTS, SECTIONS, Run, page


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
        "- Notifications of 4",
        "- Webhooks, signed, ",
    ]
