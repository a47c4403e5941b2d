"""`stayline bench churn`: tables are read with care, and measures are those of the definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bench.churn.contest import BaseRate, CountRule, Ours, auc, by_folds, folds, graded, lift, streamed
from bench.churn.report import churn_table
from bench.churn.table import read_table
from bench.harness import Report
from schemas.errors import ConfigError


def written(folder, rows=900, seed=0):
    rng = np.random.default_rng(seed)
    lines = ["id,row,plan,tenure,DroppedCalls,Churn"]
    for index in range(rows):
        tenure = round(float(rng.exponential(300.0)), 1)
        left = rng.random() < 0.5 * np.exp(-tenure / 200.0)
        plan = ("s", "m", "l")[index % 3]
        lines.append(f"c{index},{index},{plan},{tenure if index % 9 else 'NA'},{index % 5},{'Yes' if left else 'No'}")
    path = folder / "table.csv"
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.fixture
def table(tmp_path):
    return read_table(written(tmp_path), "Churn", "id")


def test_words_become_indicators_numbers_stay_and_what_is_missing_is_absent(table):
    assert list(table.words) == ["plan is s", "plan is m", "plan is l", "tenure", "DroppedCalls"]
    assert "tenure" not in table.rows[0]
    assert table.rows[1]["plan is m"] == 1.0
    assert np.isnan(table.matrix()[0, 3])


@pytest.mark.parametrize(
    ("label", "identity", "words"),
    [
        ("Left", "id", "--label: must be a column"),
        ("Churn", "who", "--id: must be a column"),
        ("plan", "id", "must say yes or no"),
    ],
)
def test_what_does_not_hold_is_named(tmp_path, label, identity, words):
    with pytest.raises(ConfigError, match=words):
        read_table(written(tmp_path), label, identity)
    with pytest.raises(ConfigError, match="must be a file that can be read"):
        read_table(tmp_path / "none.csv", label, identity)


def small(folder, *, header="id,calls,Churn", line="{n},{calls},{said}", encoding="utf-8"):
    lines = [line.format(n=n, calls=n % 7, said=("yes", "no")[n % 2]) for n in range(60)]
    path = folder / "small.csv"
    path.write_text("\n".join([header, *lines, ""]), encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"encoding": "utf-16"}, "must be UTF-8, was not at byte 0"),
        ({"line": "{n},{said}"}, "small.csv:2: must have 3 fields like its header, has 2"),
        ({"line": "{n},{calls},{said},1"}, "small.csv:2: must have 3 fields"),
        ({"line": '{n},"{calls},{said}'}, "must be CSV"),
        ({"line": "{n}," + 200_000 * "9" + ",{said}"}, "must be CSV: field larger"),
        ({"header": "id,Churn,Churn"}, "Churn must be the name of one column"),
        ({"header": ""}, "small.csv:2: must have 0 fields"),
        ({"line": "{n},5,{said}"}, "must hold a column that differs between customers"),
        ({"line": "{n},,{said}"}, "must hold a column that differs between customers"),
        ({"line": "{n},{calls},no"}, "must hold 20 who left and 20 who stayed, held 0 and 60"),
        ({"line": "{n},{calls},"}, "held 0 and 0"),
    ],
)
def test_a_table_that_cannot_be_measured_is_refused_and_says_why(tmp_path, facts, words):
    with pytest.raises(ConfigError, match=words):
        read_table(small(tmp_path, **facts), "Churn", "id")


def test_the_label_cannot_name_the_customer(tmp_path):
    with pytest.raises(ConfigError, match="--id: must be another column than --label"):
        read_table(small(tmp_path), "Churn", "Churn")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_customers_without_a_label_are_left_out_and_not_taken_for_stayers(tmp_path, encoding):
    path = small(tmp_path, encoding=encoding)
    path.write_text(path.read_text(encoding=encoding) + "60,1,\n61,2,NA\n\n7,inf,True\n8,nan,0.0\n", encoding=encoding)
    table = read_table(path, "Churn", "id")
    assert (len(table.rows), table.left.sum(), table.unlabelled, table.repeated) == (62, 31, 2, 2)
    assert table.rows[-2:] == [{}, {}]


def test_forecasts_are_made_before_the_label_is_learnt(table):
    forecasts, _ = streamed(table, BaseRate())
    (found,) = forecasts.values()
    assert found[0] == pytest.approx(0.1)
    assert found[1] == pytest.approx((2 + table.left[0]) / 21)


def test_every_row_is_asked_once_by_a_model_that_did_not_learn_it(table):
    asked = np.concatenate([each for _, each in folds(table.left)])
    assert sorted(asked.tolist()) == list(range(900))
    for learnt, held in folds(table.left):
        assert not set(learnt.tolist()) & set(held.tolist())
        assert table.left[held].mean() == pytest.approx(table.left.mean(), abs=0.01)
    assert all(len(one) == 900 for one in by_folds(table, BaseRate).values())


def test_our_models_forecast_the_base_rate_until_they_are_ready(table):
    ours = Ours(table)
    assert len(set(ours.forecasts(table.rows[0]).values())) == 1


def test_a_rule_that_proves_wrong_is_not_turned_around(table):
    rule = CountRule(table, "DroppedCalls")
    for index in range(400):
        rule.learn({"DroppedCalls": float(index % 5)}, left=index % 5 == 0)
    (low,), (high,) = rule.forecasts({"DroppedCalls": 0.0}).values(), rule.forecasts({"DroppedCalls": 4.0}).values()
    assert high >= low


scored = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=60).filter(
    lambda rows: 0 < sum(left for _, left in rows) < len(rows)
)


@given(scored)
def test_auc_is_scikit_learn_s(rows):
    scores, left = np.array([float(one) for one, _ in rows]), np.array([one for _, one in rows])
    assert auc(scores, left) == pytest.approx(roc_auc_score(left, scores))


@given(scored)
def test_lift_of_everybody_is_one_and_equal_scores_are_shared(rows):
    scores, left = np.array([float(one) for one, _ in rows]), np.array([one for _, one in rows])
    assert lift(scores, left, 1.0) == pytest.approx(1.0)
    assert lift(np.zeros(len(rows)), left) == pytest.approx(1.0)


def test_a_forecast_of_the_truth_has_no_calibration_error():
    left = np.arange(1_000) % 4 == 0
    assert graded(np.full(1_000, 0.25), left).calibration_error == pytest.approx(0.0, abs=0.01)
    assert graded(np.full(1_000, 0.45), left).calibration_error == pytest.approx(0.2, abs=0.01)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_the_case_tells_ours_beside_all_that_it_is_compared_with(tmp_path):
    lines = []
    churn_table(Report(lines.append), written(tmp_path, 600), "Churn", "id")
    text = "\n".join(lines)
    for words in (
        "online-logistic@1", "binned-adpredictor@1", "constant", "adaptive random forest", "rule: more DroppedCalls",
        "batch logistic regression", "LightGBM", "DroppedCalls alone, most first: lift at 10%",
    ):  # fmt: skip
        assert words in text
