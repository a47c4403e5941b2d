"""The harness: it runs, says under what conditions, and refuses figures of results that differ."""

import itertools

import pytest

from bench.harness import measure, quantiles
from bench.throughput import throughput


def test_the_throughput_report_has_every_case_its_conditions_and_the_same_result_with_and_without_checkpoints():
    report = throughput(customers=600, days=4, rounds=1, sizes=(2_000,))
    cases = ["orjson.loads a record", "decode", "detect", "flow", "flow, checkpoints"]
    rows = {case: next(line for line in report if line.startswith(f"{case:<24} ")) for case in cases}
    digests = {case: row.split()[-1] for case, row in rows.items()}
    assert len(digests["detect"]) == 12
    assert digests["detect"] == digests["flow"] == digests["flow, checkpoints"]
    assert "numba" in report[2]
    assert any(line.startswith("bottleneck: ") for line in report)
    assert any("2,000 customers" in line for line in report)


def test_rounds_whose_results_differ_give_no_figure():
    numbers = itertools.count()
    with pytest.raises(RuntimeError, match="must give the same result"):
        measure("case", 1, 2, lambda: str(next(numbers)).encode())


def test_quantiles_are_those_of_the_ranked_times():
    assert quantiles(range(1, 1_001)) == (501, 991, 1_000)
