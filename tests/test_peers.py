"""The peers: our compiled detectors equal river's bit for bit, and every peer that is here finds the same."""

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import PageHinkley
from river.stats import EWMean, EWVar

from bench.peers import race as racing
from bench.peers.events import write
from bench.peers.job import digests
from bench.peers.kernels import Settings, Small
from bench.peers.race import PEERS, disagreements, race, table

HERE = ["own", "own_narrow", "python_loop", "bytewax_map"]
ELSEWHERE = ["pathway", "pyflink", "quix"]


class Oracle:
    """A customer in river's own objects."""

    def __init__(self, given):
        self.mean, self.variance = EWMean(given.fade), EWVar(given.fade)
        self.change = PageHinkley(given.min_instances, given.delta, given.threshold, given.alpha)

    def see(self, drop, mos):
        self.mean.update(drop)
        self.change.update(drop)
        if not math.isnan(mos):
            self.variance.update(mos)
        return self.change.drift_detected

    def values(self):
        change = self.change
        return (
            self.mean.get(), self.variance.get(), change._x_mean.n, change._x_mean.get(), change._sum_increase,
            change._sum_decrease, change._min_increase, change._max_decrease,
        )  # fmt: skip


def bits(values):
    return [struct.pack(">d", value) for value in values]


DETECTOR_SETTINGS = st.builds(
    Settings,
    fade=st.floats(0.0, 1.0),
    min_instances=st.integers(1, 8),
    delta=st.floats(0.0, 0.2),
    threshold=st.floats(0.1, 3.0),
    alpha=st.floats(0.9, 1.0),
)
CALL = st.tuples(
    st.integers(1, 4),
    st.sampled_from([0.0, 1.0]) | st.floats(-3.0, 3.0),
    st.just(math.nan) | st.floats(1.0, 5.0),
)


@settings(max_examples=150, deadline=None)
@given(DETECTOR_SETTINGS, st.lists(st.lists(CALL, max_size=40), max_size=5))
def test_compiled_detectors_equal_rivers_bit_for_bit_whatever_the_batches(given, batches):
    small, oracles, order = Small.empty(given), {}, []
    for batch in batches:
        expected = []
        for at, (customer, drop, mos) in enumerate(batch):
            if customer not in oracles:
                order.append(customer)
                oracles[customer] = Oracle(given)
            if oracles[customer].see(drop, mos):
                expected.append(at)
        keys, drop, mos = (np.array([call[field] for call in batch]) for field in range(3))
        fired, first = small.apply(keys.astype(np.uint64), drop.astype(np.float64), mos.astype(np.float64))
        assert fired.tolist() == expected
        assert [batch[at][0] for at in first.tolist()] == order[len(order) - len(first) :]
    assert [bits(values) for values in small.values()] == [bits(oracles[customer].values()) for customer in order]


def test_the_table_grows_without_losing_anybody():
    given = Settings(0.05, 30, 0.005, 3.0, 0.9999)
    small, rng = Small.empty(given), np.random.default_rng(1)
    oracles = {}
    for _ in range(6):
        keys = rng.integers(1, 4_000, 1_500).astype(np.uint64) << np.uint64(30)
        drop = (rng.random(len(keys)) < 0.3).astype(np.float64)
        small.apply(keys, drop, np.full(len(keys), math.nan))
        for key, x in zip(keys.tolist(), drop.tolist(), strict=True):
            oracles.setdefault(key, Oracle(given)).see(x, math.nan)
    rows = small.table.rows[: len(oracles)]
    assert rows["key"].tolist() == list(oracles)
    assert [bits(values) for values in small.values()] == [bits(oracle.values()) for oracle in oracles.values()]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(customers=250, days=6, seed=3, folder=tmp_path_factory.mktemp("events"))


@pytest.mark.timeout(300)  # everything may have to be compiled first
def test_every_peer_of_the_projects_own_environment_finds_the_same(files, tmp_path):
    lines = race(files, 1, HERE, tmp_path)
    assert [line["events"] for line in lines] == [files.calls_count] * len(HERE)
    assert len({(line["digest"], line["states_digest"]) for line in lines}) == 1
    assert lines[0]["firings"] > 0
    report = (tmp_path / "peers.txt").read_text()
    assert all(PEERS[name].title in report for name in HERE)


@pytest.mark.timeout(300)  # everything may have to be compiled first
def test_the_whole_job_is_done_by_us_and_event_by_event(files, tmp_path):
    lines = race(files, 1, ["own_whole_recovery", "bytewax_whole_recovery"], tmp_path)
    assert [line["events"] for line in lines] == [files.events_count] * 2
    assert lines[1]["dead_letters"] == 0
    assert lines[1]["firings"] > lines[1]["incidents"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_peer_whose_library_is_missing_is_listed_as_not_here(name, files, tmp_path, monkeypatch):
    monkeypatch.delenv(racing.INTERPRETERS, raising=False)
    if racing._interpreter(PEERS[name].library) is not None:
        pytest.skip(f"{PEERS[name].library} is in the project's own environment")
    (line,) = race(files, 1, [name], tmp_path)
    assert line["not_here"] == f"no interpreter in {racing.INTERPRETERS} has the module {PEERS[name].library}"
    assert "not here: no interpreter" in table([line], files)[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ELSEWHERE, "flink_extract", "flink_jackson", "consumer", "kafka_streams"])
def test_a_peer_that_needs_more_finds_the_same_where_it_is_here(name, files, tmp_path):
    _, other = race(files, 1, ["own", name], tmp_path)
    if "not_here" in other:
        pytest.skip(f"{name}: {other['not_here']}")
    assert other["customers"] > 0


def line(name, digest, **figures):
    return {"name": name, "round": 0, "events": 100, "seconds": 1.0, "cpu_s": 0.5, "startup_s": 1.0, "rss_mb": 1,
            "digest": digest, "states_digest": "s", **figures}  # fmt: skip


def test_a_peer_that_finds_something_else_is_named():
    assert disagreements([line("own", "a"), line("bytewax_map", "b"), line("python_loop", "a")]) == ["bytewax_map"]
    assert disagreements([line("own_whole", "a"), line("bytewax_whole", "b")]) == []
    assert disagreements([line("own_whole", "a"), line("own_whole", "b")]) == ["own_whole"]


def test_a_race_whose_peers_disagree_says_so_after_writing_all(files, tmp_path, monkeypatch):
    monkeypatch.setattr(racing, "_run", lambda name, *_: line(name, name))
    with pytest.raises(RuntimeError, match="these did not: python_loop"):
        race(files, 1, ["own", "python_loop"], tmp_path)
    assert json.dumps(line("own", "own"))[1:-1] in (tmp_path / "peers.txt").read_text()


def test_a_peer_that_fails_is_listed_with_its_last_words(files, tmp_path, monkeypatch):
    monkeypatch.setitem(PEERS, "own", PEERS["own"]._replace(module="nothing_of_this_name"))
    (found,) = race(files, 1, ["own"], tmp_path)
    assert "ended with exit code 1" in found["not_here"]
    assert "nothing_of_this_name" in found["not_here"]


def test_ratios_are_taken_within_a_round(files):
    lines = [
        line("own", "a", seconds=1.0),
        line("flink_extract", "a", seconds=2.0, cold_seconds=4.0, cold_cpu_s=2.0),
        line("own", "a", seconds=2.0) | {"round": 1},
        line("flink_extract", "a", seconds=4.0, cold_seconds=8.0, cold_cpu_s=2.0) | {"round": 1},
    ]
    rows = table(lines, files)[2:]
    assert [row[46:].split()[3:5] for row in rows] == [["1.00", "1.00"], ["0.50", "1.00"], ["0.25", "0.25"]]


def test_digests_do_not_depend_on_the_order_of_what_was_found(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("F\ta\tx\tdrop\nF\tb\ty\tdrop\nS\ta\t00\n")
    other.write_text("S\ta\t00\nF\tb\ty\tdrop\nF\ta\tx\tdrop\n")
    assert digests(one) == digests(other)
    other.write_text("S\ta\t00\nF\tb\ty\tdrop\n")
    assert digests(one)["digest"] != digests(other)["digest"]
    assert digests(one)["states_digest"] == digests(other)["states_digest"]
