"""What waits: on the way out, where a full backlog stops the input; on the way in, where a week is as good as live."""

import collections
import dataclasses
import itertools
import random

import numpy as np
import orjson
import pytest
from engine_kit import HOUR_MS, batch, engine, habit, told
from kafka_kit import await_settled, counted, deployed, ended, figures, keyed, records
from run_kit import TELCO, Program, lines, until
from shards_kit import Processes, delivered, expected

from bench.broker import fill, make_topic
from bench.simulator import simulate
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.decode import decode

PAD_BYTES, PADDED = 50_000, 3_000
"""A backlog larger than all that a client fetches in advance."""
AHEAD_BYTES = 120 << 20
"""What a client may hold of it: messages waiting to be asked for, a fetch on its way, and what the chunks take."""


def resident_bytes(program):
    status = (f"/proc/{program.pid}/status",)
    with open(*status, encoding="ascii") as stream:  # noqa: PTH123  a file of the kernel's
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmRSS"))


def padded(number):
    event = {"type": "call", "call_id": f"p{number}", "customer_id": f"p{number % 50}", "start_ms": 1_000 + number}
    return orjson.dumps(event | {"end_ms": 2_000 + number, "unknown": "x" * PAD_BYTES})


def test_an_output_that_stalls_stops_the_input_and_when_it_returns_all_is_delivered(broker, topic, telco, tmp_path):
    backlog = len(telco.told) // 2
    deployed(tmp_path, broker.address, topic, alerts=f"{topic}.alerts")
    config = tmp_path / "c.toml"
    table = f'topic = "{topic}.alerts"\n'
    config.write_text(config.read_text().replace(table, f"{table}backlog_max = {backlog}\n"))
    cuts = range(0, len(telco.events), 100)
    # The topic that the output writes to is not there.
    program = Program(tmp_path, "run", "-c", "c.toml")
    address = program.address("metrics")

    def pending():
        return figures(address)['stayline_outbox_pending{output="kafka"}']

    # One by one, so that not all that will be told comes in one batch: a backlog that is full takes no further one.
    for first in cuts:
        fill(broker.address, topic, keyed(telco.events[first : first + 100]))
        if pending() < backlog:
            until(lambda sent=first + 100: counted(address) >= min(sent, len(telco.events)), "what was sent")
    before_bytes = resident_bytes(program)
    fill(broker.address, topic, [(None, padded(number)) for number in range(PADDED)])
    lag = f'stayline_input_lag_messages{{partition="0",topic="{topic}"}}'
    until(lambda: figures(address).get(lag, 0.0) > PADDED - AHEAD_BYTES / PAD_BYTES, "the lag")
    assert resident_bytes(program) < before_bytes + AHEAD_BYTES < before_bytes + PADDED * PAD_BYTES
    assert counted(address) < len(telco.events)
    assert backlog <= pending() < len(telco.told)
    make_topic(broker.address, f"{topic}.alerts")
    await_settled(program, len(telco.events) + PADDED)
    assert ended(program) == 0
    assert list(dict.fromkeys(value for _, value, _ in records(broker.address, f"{topic}.alerts"))) == telco.told


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """What a telco sends in a week."""
    return lines(
        simulate(dataclasses.replace(TELCO, days=7), tmp_path_factory.mktemp("week"), lambda *_: None).events_path
    )


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_a_backlog_of_a_week_gives_the_same_alerts_as_reading_live(broker, parted, week, tmp_path, seed):
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    live = Processes(tmp_path / "live", broker.address, parted)
    live.start(1)
    cuts = [0, *sorted(rng.sample(range(1, len(week)), 25)), len(week)]
    for first, last in itertools.pairwise(cuts):
        fill(broker.address, parted, keyed(week[first:last]))
    live.await_count(len(week))
    live.stop()
    late = Processes(tmp_path / "late", broker.address, parted)
    late.start(1)
    late.await_count(len(week))
    late.stop()
    assert len(delivered(tmp_path / "live")) > 20
    assert delivered(tmp_path / "live") == delivered(tmp_path / "late") == expected(broker.address, parted)
    # Within a case nothing comes before what it follows.
    for folder in ("live", "late"):
        told = [orjson.loads(line)["data"] for line in lines(tmp_path / folder / "0/alerts.ndjson")]
        revisions = [(one.get("alert_id") or one["incident_id"], one["revision"]) for one in told]
        assert all(
            revision == 1 or (case, revision - 1) in revisions[:at] for at, (case, revision) in enumerate(revisions)
        )


def test_partitions_to_which_nothing_comes_hold_nobody_up(broker, parted, telco, tmp_path):
    fill(broker.address, parted, keyed(telco.events), 3)
    processes = Processes(tmp_path, broker.address, parted)
    processes.start(1)
    processes.await_count(len(telco.events))
    processes.stop()
    wanted = expected(broker.address, parted)
    assert len(wanted) > 20
    assert delivered(tmp_path) == wanted


def test_a_probe_that_falls_silent_or_comes_later_holds_nobody_up_who_is_seen_by_others(week):
    calls = [(orjson.loads(line), line) for line in week if b'"call"' in line and not decode(line).rejects]
    probes = collections.Counter(call.get("probe_id") for call, _ in calls if call.get("probe_id"))
    *_, (quiet, _) = probes.most_common()
    touched = {call["customer_id"] for call, _ in calls if call.get("probe_id") == quiet}
    begin_ms, end_ms = calls[0][0]["end_ms"], calls[-1][0]["end_ms"]
    half_ms, hour_ms = (begin_ms + end_ms) // 2, 3_600_000

    def told(events):
        found = RiskEngine(Settings("test"), Catalogue.load(default_catalogue_text())).apply(
            decode(b"\n".join(line for _, line in events))
        )
        opened = [orjson.loads(one.body)["data"] for one in found if one.type == "stayline.alert.opened"]
        return {one["alert_id"] for one in opened if one["customer_id"] not in touched}

    def behind(call):
        return call["end_ms"] + (hour_ms // 4 if call.get("probe_id") == quiet else 0)

    wanted = told(calls)
    assert len(wanted) > 3
    assert told([one for one in calls if one[0].get("probe_id") != quiet or one[0]["end_ms"] < half_ms]) == wanted
    assert told(sorted(calls, key=lambda one: behind(one[0]))) == wanted


@pytest.mark.parametrize("hours", [2, 30])
def test_a_probe_hours_behind_makes_no_record_late_and_holds_nobody_up(hours):
    rng = np.random.default_rng(hours)
    prompt, behind = (
        sorted(
            (
                one
                for number in range(12)
                for one in habit(
                    f"{probe}-{number}", 6, 25, rng, drop_ratio=0.5 if number < 3 else 0.01, probe_id=probe
                )
            ),
            key=lambda one: one["end_ms"],
        )
        for probe in ("prompt", "behind")
    )
    arrival = [(one["end_ms"] + hours * HOUR_MS, one) for one in behind] + [(one["end_ms"], one) for one in prompt]
    mixed = [one for _, one in sorted(arrival, key=lambda pair: pair[0])]

    def told_after(events):
        """Return behind which call each alert was opened, and the counts."""
        one, found = engine(), {}
        for event in events:
            for notice in told(one.apply(batch([event]))):
                if notice["type"] == "stayline.alert.opened":
                    found[notice["id"]] = event["call_id"]
        return found, one.counts

    apart = [told_after(events)[0] for events in (prompt, behind)]
    together, counts = told_after(mixed)
    assert (counts.applied, counts.late, counts.duplicate) == (len(mixed), 0, 0)
    assert all(len(one) >= 2 for one in apart)
    assert together == apart[0] | apart[1]
