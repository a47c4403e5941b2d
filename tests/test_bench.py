"""The harness: every case runs, says under what conditions, and refuses figures of results that differ."""

import itertools
import sys
from xml.etree import ElementTree as ET

import numpy as np
import orjson
import pytest

from bench.cases import CASES, GROUPS, Options, customers, day, kafka, latency, run
from bench.cases.broken import EVERY, broken_lines
from bench.cases.common import Events
from bench.cases.latency import PacedReader
from bench.cases.profile import PARTS, STEPS, Stopwatch
from bench.cases.synthetic import BEGIN_MS, calls, everybody
from bench.harness import Rate, Report, isolated, measure, peak_bytes, quantiles, race, resident_bytes
from bench.maven import NotHereError
from bench.plot import bar_chart, line_chart, short
from bench.simulator import TelcoSpec, simulate
from dataflows import cli
from schemas.columns import PLACES
from schemas.decode import decode
from schemas.errors import ConfigError

TINY = Options(
    customers=150,
    days=3,
    rounds=1,
    residents=(300, 500),
    skews=(1.5,),
    offered=(2_000, 4_000),
    seconds=0.5,
    strangers=5_000,
    notifications=400,
    peers=("own",),
    telcos=(TelcoSpec(customers=60, days=5, seed=3, faulty_ratio=0.2, outage_scale=0.0),),
)
SVG = "{http://www.w3.org/2000/svg}"


def no_broker():
    raise NotHereError("kafka needs javac on the PATH")


def parsed(picture):
    return ET.fromstring(picture)  # noqa: S314 - our own


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """One tiny run of every case: the report, the lines it showed, and the folder it wrote."""
    folder = tmp_path_factory.mktemp("results")
    shown = []
    with pytest.MonkeyPatch.context() as patched:
        # The broker has tests of its own; here it is not worth the seconds.
        patched.setattr(kafka, "broker_elsewhere", no_broker)
        # One case with a process of its own, the flood, shows that this works; the others save the start.
        for module in (customers, latency, day):
            patched.setattr(module, "isolated", lambda work, *arguments: work(*arguments))
        patched.setattr(day, "CHECKPOINTS", 72)
        # A table of churn has to be given: tests/test_bench_churn.py.
        return run([*GROUPS, *(case for case in CASES if case != "churn")], TINY, shown.append, folder), shown, folder


@pytest.fixture
def raw(everything):
    """The raw lines by their kind."""
    return {
        kind: list(lines)
        for kind, lines in itertools.groupby(
            sorted(everything[0].raw, key=lambda one: one["kind"]), key=lambda one: one["kind"]
        )
    }


class TestCases:
    def test_a_case_that_cannot_run_here_says_so_in_a_sentence(self, everything):
        said = "kafka: not measured, a broker cannot run here: kafka needs javac on the PATH"
        assert said in everything[1]

    def test_a_report_has_its_conditions_and_names_the_bottleneck(self, everything):
        report, shown, _ = everything
        assert shown == report.text
        assert shown[0].startswith("stayline bench throughput ")
        assert "numba" in shown[3]
        assert any(line.startswith("bottleneck: ") for line in shown)

    def test_detectors_and_flow_give_the_same_result_with_and_without_checkpoints(self, everything, raw):
        names = ["detect", "flow", "flow, checkpoints", "flow, checkpoints, all whole"]
        digests = {everything[0].rates[name].digest for name in names} | {raw["profile"][0]["digest"]}
        assert len(digests) == 1
        assert len(digests.pop()) == 12

    def test_every_rate_stands_beside_that_of_orjson_over_the_same_number_of_events(self, raw):
        rates = [one["rate"] for one in raw["rate"]]
        events = {rate["events"] for rate in rates if rate["name"] == "orjson.loads a record"}
        assert {rate["events"] for rate in rates} == events

    def test_a_flood_leaves_no_more_customers_than_fit_and_says_who_had_to_go(self, raw):
        flooded = raw["flood"][0]["flooded"]
        assert flooded["resident"] <= raw["flood"][0]["customers_max"] == 500
        assert flooded["resident"] + flooded["evicted"] == 5_000
        assert flooded["peak_bytes"] >= flooded["before_bytes"] > 0

    def test_memory_and_rate_are_told_for_every_number_of_customers_and_every_skew(self, raw):
        assert [one["residence"]["customers"] for one in raw["customers"]] == [300, 500]
        assert [one["residence"]["exponent"] for one in raw["skew"]] == [1.5]

    def test_latency_is_told_for_every_rate_and_with_many_resident_and_the_notifications_are_the_same(self, raw):
        assert [one["name"] for one in raw["latency"]] == ["2,000/s", "4,000/s", "4,000/s, 500 more"]
        assert raw["latency"][1]["digest"] == raw["latency"][2]["digest"]
        assert all(one["applied_quantiles_ms"] == sorted(one["applied_quantiles_ms"]) for one in raw["latency"])

    def test_a_day_of_checkpoints_is_told_by_the_hour_and_nothing_of_it_piles_up(self, raw):
        found = raw["day"][0]["day"]
        assert [one["hour"] for one in found["hours"]] == list(range(1, 25))
        assert sum(one["calls"] for one in found["hours"]) > found["customers"]
        assert max(one["files"] for one in found["hours"]) < 24
        assert found["hours"][-1]["held_bytes"] < sum(one["written_bytes"] for one in found["hours"]) / 2

    def test_the_parts_of_the_flow_are_all_told_and_all_took_time(self, raw):
        assert list(raw["profile"][0]["flow_us"]) == list(PARTS)
        assert {part for part, _, _ in STEPS} < set(PARTS)
        assert min(raw["profile"][0]["flow_us"].values()) > 0

    def test_what_was_shown_is_written_with_its_raw_lines_and_pictures(self, everything):
        report, shown, folder = everything
        text = next(folder.glob("*.txt")).read_text()
        assert text.splitlines() == shown
        lines = next(folder.glob("*.jsonl")).read_bytes().splitlines()
        assert [orjson.loads(line) for line in lines] == orjson.loads(orjson.dumps(report.raw))
        assert {path.stem.rpartition("-")[2] for path in folder.glob("*.svg")} == set(report.pictures)
        assert set(report.pictures) == {"customers", "latency", "parts", "recall"}

    def test_every_case_of_a_group_is_registered(self):
        assert {name for names in GROUPS.values() for name in names} <= set(CASES)

    def test_a_case_that_nobody_knows_is_refused_before_anything_runs(self):
        shown = []
        with pytest.raises(ConfigError, match=r"CASE: must be one of throughput, .*, was speed"):
            run(["decode", "speed"], TINY, shown.append)
        assert shown == []

    def test_the_program_lists_all_that_is_wrong_with_the_numbers(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["stayline", "bench", "decode", "--residents", "1,x", "--offered", "0"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert capsys.readouterr().err.splitlines() == [
            "stayline: --residents: must be numbers above 0 separated by commas, was 1,x",
            "stayline: --offered: must be numbers above 0 separated by commas, was 0",
        ]

    def test_the_program_runs_a_case_and_keeps_its_figures(self, monkeypatch, capsys, tmp_path):
        arguments = ["bench", "decode", "--customers", "50", "--days", "1", "--rounds", "1", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["stayline", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        assert next(tmp_path.glob("decode.txt")).read_text() == capsys.readouterr().out


def test_one_record_in_a_hundred_is_broken_and_no_other(tmp_path):
    events = Events(simulate(TelcoSpec(customers=100, days=3, broken_ratio=0.0), tmp_path).events_path)
    lines = broken_lines(events)
    rejects = decode(b"\n".join(lines)).rejects
    assert [reject.position for reject in rejects] == list(range(0, len(events), EVERY))
    assert len({reject.reason for reject in rejects}) >= 4


class TestSynthetic:
    def test_every_customer_calls_once_with_all_fields_and_ids_of_their_own(self):
        chunks = list(everybody(5_000, BEGIN_MS, 60_000, np.random.default_rng(1)))
        batches = [decode(chunk) for chunk in chunks]
        assert not any(batch.rejects for batch in batches)
        found = [batch.calls.customer_id[row] for batch in batches for row in range(len(batch.calls))]
        assert found == [f"c{customer:08d}" for customer in range(5_000)]
        ids = {batch.calls.call_id[row] for batch in batches for row in range(len(batch.calls))}
        assert len(ids) == 5_000
        ends = np.concatenate([batch.calls.end_ms for batch in batches])
        assert np.all(np.diff(ends) >= 0)
        assert BEGIN_MS <= ends[0] <= ends[-1] < BEGIN_MS + 60_000
        assert all(np.all(batches[0].calls.places[name].codes >= 0) for name in PLACES)

    def test_as_many_calls_drop_as_asked(self):
        who = np.zeros(4_000, np.int64)
        for ratio in (0.0, 0.25, 1.0):
            batch = decode(calls(who, BEGIN_MS, 1_000, np.random.default_rng(1), ratio))
            assert np.mean(batch.calls.q850 == 41) == pytest.approx(ratio, abs=0.03)


class TestPacedReader:
    def test_what_comes_due_while_nobody_asks_comes_in_one_chunk_and_everything_comes_once_in_order(self):
        lines = [b"%d" % number for number in range(100)]
        now_s = iter([50.0, 50.0, 50.0625, 50.0625, 50.75, 52.0])
        reader = PacedReader(lines, 64, lambda: next(now_s))
        cuts = list(reader.open(None))
        assert reader.begun_s == 50.0
        assert reader.chunks == [(0, 1), (1, 4), (5, 44), (49, 51)]
        assert [cut is None for cut in cuts] == [False, False, True, False, False]
        given = [cut for cut in cuts if cut is not None]
        assert b"".join(cut.chunk.data for cut in given) == b"".join(line + b"\n" for line in lines)
        assert [cut.place.line for cut in given] == [1, 5, 49, 100]

    def test_a_chunk_is_no_larger_than_what_the_flow_reads_at_a_time(self):
        lines = [b"x" * 399_999] * 25
        reader = PacedReader(lines, 1_000, iter([0.0, 1.0, 1.0, 1.0]).__next__)
        assert len(list(reader.open(None))) == 3
        assert [size for _, size in reader.chunks] == [10, 10, 5]


def test_a_stopwatch_counts_for_each_part_its_own_time_alone():
    watch = Stopwatch(iter([0.0, 1.0, 4.0, 10.0]).__next__)
    inner = watch.around("inner", lambda: "done")
    assert watch.around("outer", inner)() == "done"
    assert watch.spent_s == {"inner": 3.0, "outer": 7.0}


class TestPictures:
    def test_every_point_of_every_line_is_drawn_inside_the_picture(self):
        lines = {"one & <two>": [(1, 10.0), (10, 0.5), (100, 3_000.0)], "other": [(1, 1.0)]}
        text = line_chart("A & B", lines, x_label="x", y_label="y", log_x=True, log_y=True)
        root = parsed(text)
        _, _, width, height = map(float, root.get("viewBox").split())
        places = [(float(one.get("cx")), float(one.get("cy"))) for one in root.iter(f"{SVG}circle")]
        assert len(places) == 4
        assert all(0 < x < width and 0 < y < height for x, y in places)
        assert places[0][0] < places[1][0] < places[2][0]
        assert places[2][1] < places[0][1] < places[1][1]
        words = [one.text for one in root.iter(f"{SVG}text")]
        assert {"A & B", "one & <two>", "other", "100", "1k"} <= set(words)

    def test_a_flat_line_has_a_picture_too(self):
        for log in (False, True):
            parsed(line_chart("t", {"a": [(1, 1.0)]}, x_label="", y_label="", log_x=log, log_y=log))

    def test_segments_are_as_long_as_their_values_and_bars_of_one_plain_segment_have_no_legend(self):
        root = parsed(bar_chart("t", {"both": {"a": 1.0, "b": 3.0}, "plain": {"plain": 2.0}}, unit="s"))
        widths = [float(one.get("width")) for one in root.iter(f"{SVG}rect")][:3]
        assert widths == pytest.approx([widths[0], 3 * widths[0], 2 * widths[0]], rel=0.01)
        assert len(list(root.iter(f"{SVG}rect"))) == 5
        assert [one.text for one in root.iter(f"{SVG}text")].count("plain") == 1

    def test_numbers_are_short(self):
        assert [short(value) for value in (0, 0.25, 12, 1_500, 2_000_000, 3e9)] == [
            "0",
            "0.25",
            "12",
            "1.5k",
            "2M",
            "3G",
        ]


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

    def test_a_table_begins_anew_where_its_columns_change(self):
        shown = []
        report = Report(shown.append)
        report.row({"name": "a", "rate": "1"})
        report.row({"name": "b", "rate": "2"})
        report.row({"name": "c", "size": "3"})
        assert [line.split() for line in shown] == [
            ["name", "rate"],
            ["a", "1"],
            ["b", "2"],
            [],
            ["name", "size"],
            ["c", "3"],
        ]

    def test_quantiles_are_those_of_the_ranked_times(self):
        assert quantiles(range(1, 1_001)) == (501, 991, 1_000)

    def test_memory_is_that_of_the_process_that_asks(self):
        ballast = bytearray(300_000_000)
        assert isolated(peak_bytes) < len(ballast) < peak_bytes()
        assert resident_bytes() <= peak_bytes()
