"""The scoreboard runs small; its detectors do what their names say."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bench.detection import draw, report, run
from bench.detection.alarms import (
    SILENT_MS,
    adwin,
    alarms,
    chance,
    cusum,
    faded_mean,
    half_space_scores,
    hddm_a,
    hddm_w,
    page_hinkley,
)
from bench.detection.rows import Tuned
from bench.detection.telcos import Series
from bench.score import HOUR_MS, Case, Telco, Truth
from bench.simulator import TelcoSpec

TINY = (
    TelcoSpec(customers=60, days=5, seed=3, faulty_ratio=0.2, outage_scale=0.0),
    TelcoSpec(customers=60, days=5, seed=4, faulty_ratio=0.2, drop_ratio=0.004, outage_scale=0.0),
)


def series(trouble, gap_ms=HOUR_MS):
    values = np.array(trouble, np.float64)
    return Series("c", gap_ms * np.arange(1, len(values) + 1), values, values >= 0.5, 0.01)


@pytest.fixture(scope="module")
def board():
    return run(TINY)


def test_every_row_stands_on_the_board_and_stayline_beats_chance(board):
    names = [row.name for row in board.rows]
    assert names == [
        "Stayline", "never fires", "three in seven", "random", "threshold", "ADWIN", "PageHinkley", "HDDM_A",
        "HDDM_W", "HalfSpaceTrees", "known rates", "known structure",
    ]  # fmt: skip
    marks = {row.name: row.marks for row in board.rows}
    assert marks["never fires"].recall == 0.0
    assert marks["never fires"].alerts == 0
    assert marks["Stayline"].recall > marks["random"].recall


def test_tuned_rows_keep_to_the_false_alerts_they_are_given(board):
    limit = max(board.rows[0].marks.false_per_10k_days, 0.3)
    assert all(row.marks.false_per_10k_days <= limit for row in board.rows[3:])


def test_stayline_s_curve_rises_as_its_promise_loosens(board):
    recalls = [recall for _, recall in board.curves["Stayline"]]
    assert len(recalls) == 5
    assert max(recalls) > min(recalls)


def test_the_report_names_seeds_rows_and_patterns(board):
    lines = "\n".join(report(board))
    assert "telco of seed 3: 60 customers, 5 days" in lines
    assert all(name in lines for name in ("HalfSpaceTrees", "three in seven", "duration_lock", "setup_failure"))


def test_the_picture_has_a_curve_for_every_row_that_can_be_tuned(board):
    labels = texts(draw(board))
    assert {"Stayline", "three in seven", "known rates", "ADWIN"} <= set(labels)


@pytest.mark.parametrize(
    "fresh",
    [
        lambda: faded_mean(0.5),
        lambda: cusum(4.0, 0.01, 0.5),
        lambda: adwin(5.0),
        lambda: page_hinkley(3.0),
        lambda: hddm_a(5.0),
        lambda: hddm_w(5.0),
    ],
    ids=["threshold", "cusum", "adwin", "page_hinkley", "hddm_a", "hddm_w"],
)
def test_a_detector_alarms_behind_a_change_for_the_worse_and_not_before(fresh):
    some = series([0.0] * 60 + [1.0] * 20)
    found = list(alarms(some, some.trouble.tolist(), fresh))
    assert found
    assert 61 * HOUR_MS <= found[0] <= 80 * HOUR_MS
    good = series([0.0] * 80)
    assert list(alarms(good, good.trouble.tolist(), fresh)) == []


@pytest.mark.parametrize("fresh", [lambda: adwin(5.0), lambda: page_hinkley(3.0)], ids=["adwin", "page_hinkley"])
def test_a_change_for_the_better_is_no_alarm(fresh):
    some = series([1.0] * 60 + [0.0] * 60)
    assert not [end for end in alarms(some, some.trouble.tolist(), fresh) if end > 60 * HOUR_MS]


def test_after_an_alarm_a_detector_is_silent_for_a_week():
    some = series([1.0] * 400)
    ends = list(alarms(some, some.trouble.tolist(), lambda: faded_mean(0.1)))
    assert len(ends) == 3
    assert min(np.diff(ends)) >= SILENT_MS


def test_half_space_trees_score_the_unusual_higher_than_the_usual():
    scores = half_space_scores(series([0.0] * 100 + [1.0] * 5))
    assert max(scores[-5:]) > max(scores[60:100])


def test_alarms_by_chance_come_at_their_share_of_the_calls():
    alarm = chance(0.25, np.random.default_rng(1))
    assert 0.2 < np.mean([alarm(0.0) for _ in range(4_000)]) < 0.3


def test_bisection_ends_at_the_loosest_setting_that_keeps_to_the_rate():
    truth = Truth(Telco(1, 10, 0, 10 * 24 * HOUR_MS), [], [], [])
    some = series([0.6] * 200)
    telco = type("T", (), {"truth": truth, "series": [some], "spec": TINY[0]})()

    def find(_, strictness):
        return [] if strictness >= 0.6 else [alarm_case(some)]

    tuned = Tuned("t", [telco], find)
    tuned.tune(0.0, 1.0, 0.3)
    kept = [strictness for strictness, marks in tuned.points.items() if marks.alerts == 0]
    assert 0.6 <= min(kept) < 0.61


def alarm_case(some):
    return Case(some.customer_id, int(some.end_ms[0]))


def texts(picture):
    root = ET.fromstring(picture)  # noqa: S314  # our own picture
    return [one.text for one in root.iter() if one.tag.endswith("text")]
