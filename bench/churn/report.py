"""`stayline bench churn`: a churn table put to our models and to others, as text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.churn.contest import (
    FOLDS,
    BaseRate,
    CountRule,
    Forest,
    Online,
    Ours,
    Score,
    auc,
    batch_by_folds,
    by_folds,
    graded,
    lift,
    streamed,
)
from bench.churn.table import Table, read_table
from bench.harness import Report
from schemas.errors import ConfigError

DROPS = ("DroppedCalls", "dropped_calls", "drops", "Dropped Calls")
"""What a count of dropped calls is called, first found first taken."""


def churn_table(report: Report, path: Path, label: str, identity: str) -> None:
    """Put a table to the models and tell how each did.

    Raises:
        ConfigError: the table cannot be read, or what it is compared with is not installed.
    """
    table = read_table(path, label, identity)
    left = table.left
    report.say(f"{table.name}: {len(left):,} customers, {left.mean():.2%} left, {len(table.words)} features")
    if table.unlabelled:
        report.say(f"{table.unlabelled:,} rows without a label were left out")
    if table.repeated:
        report.say(f"{table.repeated:,} rows are of customers with an earlier one: by folds they are partly known")
    report.say("streamed: each customer is forecast before it is learnt, in the order of the file")
    for make in (lambda: Ours(table), BaseRate, lambda: Forest(table)):
        forecasts, seconds = streamed(table, make())
        for name, one in forecasts.items():
            _row(report, "streamed", name, graded(one, left, seconds))
    rule = next((name for name in DROPS if name in table.words), None)
    if rule is not None:
        _drops(report, table, rule)
    report.say()
    report.say(f"by {FOLDS} folds: each customer is forecast by a model that learnt the others; ours in one pass")
    makers: list[Callable[[], Online]] = [lambda: Ours(table), BaseRate]
    if rule is not None:
        makers.append(lambda: CountRule(table, rule))
    for maker in makers:
        for name, one in by_folds(table, maker).items():
            _row(report, "folds", name, graded(one, left))
    for name, fitted in batch_models().items():
        _row(report, "folds", name, graded(batch_by_folds(table, fitted), left))


def _drops(report: Report, table: Table, column: str) -> None:
    """Tell the rule as it is: who had most drops is called first. Its forecasts are calibrated as any score is."""
    forecasts, seconds = streamed(table, CountRule(table, column))
    for name, one in forecasts.items():
        _row(report, "streamed", name, graded(one, table.left, seconds))
    counts = np.array([row.get(column, 0.0) for row in table.rows])
    found = {
        "lift": lift(counts, table.left),
        "auc": auc(counts, table.left),
        "correlation": float(np.corrcoef(counts, table.left)[0, 1]) if np.ptp(counts) else 0.0,
    }
    report.record("rule", column=column, **found)
    report.say(
        f"{column} alone, most first: lift at 10% {found['lift']:.2f}, AUC {found['auc']:.3f}, "
        f"correlation with leaving {found['correlation']:+.3f}"
    )


def batch_models() -> dict[str, Callable[[], Any]]:
    """Return what is compared with: name -> makes a model with scikit-learn's interface.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        from lightgbm import LGBMClassifier  # noqa: PLC0415  a development dependency
        from sklearn.impute import SimpleImputer  # noqa: PLC0415  the same
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  the same
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415  the same
        from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: PLC0415  the same
    except ImportError as error:
        raise ConfigError(
            [f"bench churn: compares with scikit-learn and LightGBM, and {error.name} is not installed: make setup"]
        ) from None
    return {
        "batch logistic regression": lambda: make_pipeline(
            SimpleImputer(), FunctionTransformer(_compressed), StandardScaler(), LogisticRegression(max_iter=2_000)
        ),
        "LightGBM": lambda: LGBMClassifier(
            n_estimators=200, learning_rate=0.03, num_leaves=15, random_state=1, n_jobs=1, verbose=-1
        ),
    }


def _compressed(matrix: Any) -> Any:
    return np.sign(matrix) * np.log1p(np.abs(matrix))


def _row(report: Report, way: str, name: str, score: Score) -> None:
    report.record("churn", way=way, model=name, score=score)
    report.row(
        {
            "": name,
            "AUC": f"{score.auc:.3f}",
            "log loss": f"{score.log_loss:.4f}",
            "Brier": f"{score.brier:.4f}",
            "lift at 10%": f"{score.lift:.2f}",
            "calibration": f"{score.calibration_error:.3f}",
            "us/customer": "" if score.us is None else f"{score.us:,.0f}",
        }
    )
