"""The harness: every case runs, says under what conditions, and refuses figures of results that differ."""

import itertools

import orjson
import pytest

from bench.cases import CASES, GROUPS, Options, run
from bench.cases.broken import EVERY, broken_lines
from bench.cases.common import Events
from bench.harness import Rate, isolated, measure, peak_bytes, quantiles, race, resident_bytes
from bench.simulator import TelcoSpec, simulate
from schemas.decode import decode
from schemas.errors import ConfigError

TINY = Options(customers=150, days=3, rounds=1)


@pytest.fixture(scope="module")
def throughput(tmp_path_factory):
    """One tiny run of everything: the report, the lines it showed, and the folder it wrote."""
    folder = tmp_path_factory.mktemp("results")
    shown = []
    return run(["throughput"], TINY, shown.append, folder), shown, folder


class TestCases:
    def test_a_report_has_its_conditions_and_names_the_bottleneck(self, throughput):
        report, shown, _ = throughput
        assert shown == report.text
        assert shown[0].startswith("stayline bench throughput, ")
        assert "numba" in shown[3]
        assert any(line.startswith("bottleneck: ") for line in shown)

    def test_detectors_and_flow_give_the_same_result_with_and_without_checkpoints(self, throughput):
        names = ["detect", "flow", "flow, checkpoints", "flow, checkpoints, all whole"]
        digests = {throughput[0].rates[name].digest for name in names}
        assert len(digests) == 1
        assert len(digests.pop()) == 12

    def test_every_rate_stands_beside_that_of_orjson_over_the_same_number_of_events(self, throughput):
        rates = [one for one in throughput[0].raw if one["kind"] == "rate"]
        events = {one["events"] for one in rates if one["name"] == "orjson.loads a record"}
        assert {one["events"] for one in rates} == events

    def test_what_was_shown_is_written_with_its_raw_lines(self, throughput):
        report, shown, folder = throughput
        text = next(folder.glob("throughput-*.txt")).read_text()
        assert text.splitlines() == shown
        raw = next(folder.glob("throughput-*.jsonl")).read_bytes().splitlines()
        assert [orjson.loads(line)["kind"] for line in raw] == [one["kind"] for one in report.raw]

    def test_every_case_of_a_group_is_registered(self):
        assert {name for names in GROUPS.values() for name in names} <= set(CASES)

    def test_a_case_that_nobody_knows_is_refused_before_anything_runs(self):
        shown = []
        with pytest.raises(ConfigError, match=r"CASE: must be one of throughput, .*, was speed"):
            run(["decode", "speed"], TINY, shown.append)
        assert shown == []


def test_one_record_in_a_hundred_is_broken_and_no_other(tmp_path):
    events = Events(simulate(TelcoSpec(customers=100, days=3, broken_ratio=0.0), tmp_path).events_path)
    lines = broken_lines(events)
    rejects = decode(b"\n".join(lines)).rejects
    assert [reject.position for reject in rejects] == list(range(0, len(events), EVERY))
    assert len({reject.reason for reject in rejects}) >= 4


class TestHarness:
    def test_rounds_whose_results_differ_give_no_figure(self):
        numbers = itertools.count()
        with pytest.raises(RuntimeError, match="must give the same result"):
            measure("case", 1, 2, lambda: str(next(numbers)).encode())

    def test_the_works_of_a_race_take_turns(self):
        order = []
        works = {name: lambda name=name: order.append(name) or b"" for name in "ab"}
        rates = race(1, 2, works)
        assert "".join(order) == "ababab"
        assert [rate.name for rate in rates] == ["a", "b"]

    def test_a_ratio_compares_the_rates_of_the_same_round(self):
        slow, fast = Rate("slow", 1, [1.0, 10.0, 100.0]), Rate("fast", 1, [2.0, 20.0, 200.0])
        assert fast.ratio_to(slow) == 2.0

    def test_quantiles_are_those_of_the_ranked_times(self):
        assert quantiles(range(1, 1_001)) == (501, 991, 1_000)

    def test_memory_is_that_of_the_process_that_asks(self):
        ballast = bytearray(300_000_000)
        assert isolated(peak_bytes) < len(ballast) < peak_bytes()
        assert resident_bytes() <= peak_bytes()
