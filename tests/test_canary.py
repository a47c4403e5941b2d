"""The canary: its trouble comes out, and touches nobody and nothing else."""

import httpx2
import orjson
import pytest
from engine_kit import CATALOGUE, MONDAY_MS, batch, call
from hypothesis import given
from hypothesis import strategies as st
from metrics_kit import families, value
from run_kit import Program, lines, until

from dataflows.canary import CALLS, ID_SIZE, PREFIX, GuardedEngine, calls
from dataflows.commands.canary import round_after_round, sender
from dataflows.commands.replay import replay
from dataflows.config import load
from detectors.settings import Settings
from schemas.errors import ConfigError, StaylineError

CONFIG = """
[deployment]
name = "test"
[input]
kind = "http"
http = { listen = "127.0.0.1:0" }
[[output]]
kind = "file"
path = "alerts.ndjson"
[metrics]
listen = "127.0.0.1:0"
"""


def guarded():
    heard = []
    return GuardedEngine(Settings("test"), CATALOGUE, lambda at_ms, told: heard.append((at_ms, told))), heard


def troubled():
    """Calls of a customer whose line breaks: real trouble, which canaries must not touch."""
    healthy = [call("a", MONDAY_MS + k * 7_200_000) for k in range(60)]
    broken = [call("a", healthy[-1]["end_ms"] + (k + 1) * 3_600_000, dropped=True) for k in range(12)]
    return [orjson.dumps(one) for one in healthy + broken]


def parted(state):
    return {part: value for part, value in state.items() if part != "counts"}


def test_its_trouble_is_told_to_whoever_listens_and_to_nobody_else():
    engine, heard = guarded()
    customer, given = calls(MONDAY_MS)
    assert engine.apply(batch([given.rstrip()])) == []
    (at_ms, told) = heard[0]
    assert at_ms == MONDAY_MS
    assert told[0].type == "stayline.alert.opened"
    assert orjson.loads(told[0].body)["subject"] == customer
    assert engine.counts.applied == CALLS
    assert len(engine.memory.roster) == 0


def test_every_round_is_heard_though_no_case_is_ever_closed():
    engine, heard = guarded()
    for number in range(200):
        engine.apply(batch([calls(MONDAY_MS + number * 120_000)[1].rstrip()]))
    assert [bool(told) for _, told in heard] == [True] * 200
    assert len({told[0].case for _, told in heard}) == 200


AHEAD_MS = st.sampled_from([0, -86_400_000, 7 * 86_400_000, 300 * 86_400_000])
"""How far a canary's clock, which is the wall's, is ahead of the events: by days where a backlog is read."""


@given(st.lists(st.tuples(st.integers(0, 72), AHEAD_MS), min_size=1, max_size=4), st.integers(1, 40))
def test_wherever_and_whenever_canaries_come_real_customers_state_and_alerts_are_as_without_them(places, size):
    events = troubled()
    mixed = list(events)
    for number, (place, ahead_ms) in enumerate(sorted(places, reverse=True)):
        mixed[place:place] = calls(MONDAY_MS + ahead_ms + number)[1].splitlines()
    results = []
    for given_events in (events, mixed):
        engine, _ = guarded()
        told = []
        for begin in range(0, len(given_events), size):
            told += engine.apply(batch(given_events[begin : begin + size]))
        results.append(([one.body for one in told], parted(engine.snapshot()), engine.clock_ms, engine.counts.applied))
    (plain, state, clock_ms, applied), (with_canaries, other_state, other_clock_ms, more) = results
    assert plain
    assert with_canaries == plain
    assert (other_state, other_clock_ms) == (state, clock_ms)
    assert more == applied + CALLS * len(places)


def test_a_replay_of_what_was_recorded_with_canaries_tells_what_was_told_without(tmp_path):
    events = troubled()
    (tmp_path / "plain").write_bytes(b"\n".join(events))
    (tmp_path / "mixed").write_bytes(b"\n".join([*events[:30], *calls(MONDAY_MS)[1].splitlines(), *events[30:]]))
    for name in ("plain", "mixed"):
        replay([tmp_path / name], tmp_path / f"{name}.out", Settings("test"))
    assert (tmp_path / "plain.out").read_bytes() == (tmp_path / "mixed.out").read_bytes() != b""


@pytest.mark.parametrize("customer", [f"{PREFIX}1", "x" * ID_SIZE, f"x{PREFIX}".ljust(ID_SIZE, "0")])
def test_a_customer_whose_id_only_resembles_a_canary_s_is_a_customer(customer):
    engine, heard = guarded()
    engine.apply(batch([call(customer, MONDAY_MS)]))
    assert (len(engine.memory.roster), heard) == (1, [])


def test_in_a_running_deployment_it_shows_in_the_metrics_and_in_no_output(tmp_path):
    (tmp_path / "c.toml").write_text(CONFIG)
    program = Program(tmp_path, "run", "-c", "c.toml")
    to, metrics = program.address("events"), program.address("metrics")
    config = load(tmp_path / "c.toml", {"STAYLINE_INPUT__HTTP__LISTEN": to.removeprefix("http://")})
    round_after_round(sender(config, None), 0.0, 2, iter([MONDAY_MS, MONDAY_MS + 1]).__next__)

    def heard():
        found = families(httpx2.get(f"{metrics}/metrics", trust_env=False).text)
        # A canary is heard in the midst of its batch, whose records count once all of them are applied.
        delays, applied = "stayline_canary_delay_seconds_count", "stayline_records_total"
        return found if value(found, delays) == 2 and value(found, applied, outcome="applied") == 2 * CALLS else None

    found = until(heard, "two canaries, all of whose calls are applied")
    program.kill()
    assert value(found, "stayline_canary_time_seconds") > MONDAY_MS / 1000
    assert value(found, "stayline_customers") == 0
    assert sum(found["stayline_alerts_total"].values()) == 0
    assert lines(tmp_path / "alerts.ndjson") == []


def test_an_input_that_cannot_be_written_to_is_refused():
    with pytest.raises(ConfigError, match="must be http or kafka, of events"):
        sender(load(None, {}), None)


def test_a_round_that_does_not_come_through_is_told_and_the_next_one_tried(monkeypatch):
    said, tried = [], []
    monkeypatch.setattr("dataflows.commands.canary.log", lambda event, **fields: said.append((event, fields)))

    def send(customer, _):
        tried.append(customer)
        raise StaylineError("nobody answers")

    round_after_round(send, 0.0, 2, iter([1, 2]).__next__)
    assert len(set(tried)) == 2
    assert said == [("canary.not_sent", {"error": "nobody answers"})] * 2
