"""What monitoring shows: bounded, of closed labels, and right."""

import contextlib
import itertools
import math

import numpy as np
from delivery_kit import FakeClock
from engine_kit import MONDAY_MS, batch, call, engine
from hypothesis import given
from hypothesis import strategies as st
from metrics_kit import families, scraped, scraped_of_inputs, value
from prometheus_client import CollectorRegistry, generate_latest

from dataflows.inputs.messages import Shard
from dataflows.meters import Meters, Timing
from dataflows.metrics import Disk, Gauges
from dataflows.probes import PROBES_MAX, SHOWN_MAX, Probes
from dataflows.shards import Shards
from detectors.casebook import Case
from detectors.roster import ROW
from schemas.alerts import Alert, Cause, ChurnRisk, Pattern, notification
from schemas.deadletters import DeadLetter, DeadReason
from sinks.outbox import Outbox

SERIES_MAX = 2_000

LABELS = {
    "bin", "channel", "element_kind", "event", "kind", "le", "outcome", "output", "part", "partition", "python",
    "probe", "reason", "result", "role", "severity", "state", "topic", "type", "version",
}  # fmt: skip
"""Every label that there may be. None of them names a customer, a peer, a call or, but for a hundred probes, a single
element."""


def series(page):
    return [line for line in page.splitlines() if line and not line.startswith("#")]


def crowded():
    """An engine that knows a million customers, twenty thousand elements and five thousand cases."""
    risk = engine(customers_max=1_000_000)
    rows = np.zeros(1_000_000, ROW)
    rows["key"] = np.random.default_rng(1).permutation(np.arange(1, 1_000_001, dtype=np.uint64) << np.uint64(20))
    risk.memory.roster.take(np.arange(len(rows), dtype=np.int32), rows, len(rows))
    risk.memory.roster.settle()
    for number in range(20_000):
        risk.memory.elements.serial("access_node", f"node-{number}")
    kinds = itertools.cycle(["drop_rate", "quality", "redial", "worsening"])
    for number, kind in zip(range(5_000), kinds, strict=False):
        case = Case(f"al-{number}", number, f"c{number}", 0, 0, kind, "", None, 0.01, 5.0)
        case.revision = 1
        risk.memory.casebook.cases[number] = case
    return risk


def test_a_scrape_of_a_million_customers_holds_under_two_thousand_series(tmp_path):
    outputs = {f"crm-{number}": 10 for number in range(8)}
    outbox = Outbox.open(tmp_path / "outbox.sqlite3", outputs, FakeClock())
    risk = crowded()
    page = (
        Gauges([risk], outbox, meters=Meters(list(outputs)), disk=Disk(tmp_path, list), clock=FakeClock())
        .page()
        .decode()
    )
    outbox.close()
    assert value(families(page), "stayline_customers") == 1_000_000
    assert value(families(page), "stayline_elements", element_kind="access_node") == 20_000
    assert sum(families(page)["stayline_cases_open"].values()) == 5_000
    assert 200 < len(series(page)) < SERIES_MAX


def test_no_label_names_a_customer_a_peer_or_a_call():
    for page in (scraped(), scraped_of_inputs()):
        found = {name for labels in families(page).values() for one in labels for name, _ in one}
        assert found <= LABELS


def test_every_metric_has_one_prefix_and_a_sentence():
    for page in (scraped(), scraped_of_inputs()):
        helps = dict(line[7:].split(" ", 1) for line in page.splitlines() if line.startswith("# HELP"))
        ours = {name: text for name, text in helps.items() if not name.startswith("process_")}
        assert all(name.startswith("stayline_") for name in ours)
        assert all(text.endswith(".") for text in ours.values())


def test_a_running_deployment_shows_what_it_did():
    found = families(scraped())
    told = sum(found["stayline_alerts_total"].values()) + sum(found["stayline_incidents_total"].values())
    assert told > 10
    for output in ("file", "desk", "crm"):
        assert value(found, "stayline_deliveries_total", output=output, result="delivered") == told
        assert value(found, "stayline_notification_to_delivery_seconds_count", output=output) == told
    assert value(found, "stayline_read_to_notification_seconds_count") == told
    dead = sum(found["stayline_dead_letters_total"].values())
    assert dead == value(found, "stayline_records_total", outcome="dead_lettered") > 0
    taken = sum(found["stayline_events_total"].values())
    assert taken == sum(found["stayline_records_total"].values()) - dead
    assert value(found, "stayline_calls_answered_total") <= value(found, "stayline_events_total", type="call")
    assert 1.0 <= value(found, "stayline_call_mos_sum") / value(found, "stayline_call_mos_count") <= 5.0
    assert value(found, "stayline_apply_seconds_count") == value(found, "stayline_decode_seconds_count") > 0
    assert value(found, "stayline_checkpoint_bytes") > 0
    assert value(found, "stayline_state_bytes", part="outbox.sqlite3") > 0
    assert value(found, "process_resident_memory_bytes") > 0


@given(st.lists(st.floats(0.0, 10.0)), st.lists(st.floats(0.001, 5.0), min_size=1, unique=True).map(sorted))
def test_a_timing_counts_as_the_definition_of_a_histogram_says(seconds, bounds):
    timing = Timing(tuple(bounds))
    for one in seconds:
        timing.observe(one)
    expected = [sum(one <= bound for one in seconds) for bound in (*bounds, math.inf)]
    assert [count for _, count in timing.buckets()] == expected
    assert math.isclose(timing.sum_s, sum(seconds), abs_tol=1e-9)


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def alert(revision=1):
    pattern = Pattern("redial", "", 1, 1, 0, 0.0, 0.0, 5.0)
    risk = ChurnRisk(0.1, "low", 0.1, [], "m")
    cause = Cause("unknown", 0.5, [])
    data = Alert("al-1", revision, "c", "major", 0, 0, pattern, cause, None, risk, None, None, [], [])
    return notification("test", "stayline.alert.opened", MONDAY_MS, data)


def shown(meters):
    registry = CollectorRegistry()
    registry.register(meters)
    return families(generate_latest(registry).decode())


def test_a_notification_s_time_begins_with_the_read_of_its_own_chunk():
    clock = Clock()
    meters = Meters(clock=clock)
    nothing = batch([call("a", MONDAY_MS)])
    meters.read(1)
    clock.now_s += 1.0
    meters.read(2)
    clock.now_s += 1.0
    meters.applied(clock.now_s, nothing, [])
    meters.applied(clock.now_s, nothing, [alert()])
    clock.now_s += 0.5
    meters.written([alert()])
    found = shown(meters)
    assert value(found, "stayline_read_to_notification_seconds_sum") == 1.5
    assert value(found, "stayline_alerts_total", event="opened", kind="redial", severity="major") == 1


def test_of_each_probe_the_latest_call_is_shown_and_of_many_those_furthest_behind():
    meters = Meters()

    def read(*events):
        meters.applied(meters.now_s(), batch(events), [])
        return shown(meters)["stayline_probe_event_time_seconds"]

    read(call("a", MONDAY_MS, probe_id="p1"), call("b", MONDAY_MS + 2_000, probe_id="p2"), call("c", MONDAY_MS))
    # A clock that was wrong once spoils nothing, and a call a little late is the latest all the same.
    found = read(call("a", MONDAY_MS + 9 * 86_400_000, probe_id="p1"), call("a", MONDAY_MS + 1_000, probe_id="p1"))
    assert found == {(("probe", "p1"),): MONDAY_MS / 1_000 + 1, (("probe", "p2"),): MONDAY_MS / 1_000 + 2}
    found = read(*(call("a", MONDAY_MS - number, probe_id=f"late-{number}") for number in range(2 * SHOWN_MAX)))
    assert found == {
        (("probe", f"late-{number}"),): (MONDAY_MS - number) / 1_000 for number in range(SHOWN_MAX, 2 * SHOWN_MAX)
    }


def test_each_partition_that_is_kept_apart_shows_how_far_it_has_come(tmp_path):
    with contextlib.closing(Shards(tmp_path, (0, 1, 2), lambda _: engine())) as shards:
        for number, end_ms in ((0, MONDAY_MS), (2, MONDAY_MS - 3_600_000)):
            shards.engine(Shard(number, 3, ())).apply(batch([call("a", end_ms)]))
        shards.engine(Shard(1, 3, ()))
        found = shown(shards)["stayline_partition_event_time_seconds"]
    assert found == {(("partition", "0"),): MONDAY_MS / 1_000, (("partition", "2"),): MONDAY_MS / 1_000 - 3_600}


def test_probes_beyond_so_many_are_not_watched():
    probes = Probes()
    for first in range(0, PROBES_MAX + 500, 500):
        probes.saw(batch(call("a", MONDAY_MS + n, probe_id=f"p{n}") for n in range(first, first + 500)).calls)
    probes.saw(batch(call("a", MONDAY_MS + n, probe_id=f"p{n}") for n in range(1, PROBES_MAX)).calls)
    assert len(probes) == PROBES_MAX
    assert next(iter(probes.furthest_behind().items())) == ("p0", MONDAY_MS)


def test_dead_letters_outcomes_and_rare_events_are_counted_by_their_sort():
    meters = Meters()
    letter = DeadLetter("file", "f:1", DeadReason.NOT_JSON, "", "")
    meters.decoded(meters.now_s(), [letter, letter])
    events = [
        {"type": "outcome", "alert_id": "al-1", "at_ms": MONDAY_MS, "result": "fixed"},
        {"type": "churn", "customer_id": "c", "at_ms": MONDAY_MS, "kind": "closed"},
    ]
    meters.applied(meters.now_s(), batch(events), [])
    found = shown(meters)
    assert value(found, "stayline_dead_letters_total", reason="not_json") == 2
    assert value(found, "stayline_dead_letters_total", reason="too_large") == 0
    assert value(found, "stayline_outcomes_total", result="fixed") == 1
    assert value(found, "stayline_events_total", type="churn") == 1
