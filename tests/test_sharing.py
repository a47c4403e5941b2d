"""Shared faults across partitions that are kept apart: one process finds them, all are told."""

import itertools
import random

import orjson
import pytest
from confluent_kafka import Consumer
from delivery_kit import notice
from engine_kit import HOUR_MS, MINUTE_MS, MONDAY_MS, TROUBLE_MS, alerts, batch, call, engine, run, telco, told
from kafka_kit import Mock, end_of, ended, keyed, settled
from run_kit import Program, lines, until
from shards_kit import PARTITIONS, Processes, deployed_apart

from bench.broker import fill
from dataflows.config.outputs import KafkaOutput as OutputTable
from dataflows.held import Held
from dataflows.inputs.kafka_client import connection
from schemas.decode import decode
from schemas.errors import StateError
from sinks import announcements
from sinks.announcements import Announcements, event_of
from sinks.outputs import OutputDownError

PARTS = 5


def of_node_1(places):
    return places["access_node"] == "node-1"


def aftermath(hours=6):
    """Hours of good calls through the node that failed."""
    return sorted(
        (
            call(
                f"c{who}",
                TROUBLE_MS + HOUR_MS + at * HOUR_MS + who * MINUTE_MS,
                access_node="node-1",
                region="region-1",
            )
            for at in range(hours)
            for who in range(1, 80, 4)
        ),
        key=lambda one: one["end_ms"],
    )


def told_apart(events, delay):
    """Let an engine a part and one over all of them take a stream, incidents of the latter reaching the parts later.

    Args:
        events: in order.
        delay: how many events come before an announcement is read.

    Returns:
        What the parts told, and what the one over all of them did.
    """
    watching, parts = engine(), [engine(finds_incidents=False) for _ in range(PARTS)]
    said, found, on_their_way = [], [], []
    for number, event in enumerate(events):
        while on_their_way and on_their_way[0][0] <= number:
            announced = decode(on_their_way.pop(0)[1])
            assert not announced.rejects
            for part in parts:
                said += told(part.apply(announced))
        for notification in watching.apply(batch([event])):
            announcement = event_of(notification)
            if announcement is not None:
                found.append(orjson.loads(notification.body))
                on_their_way.append((number + delay, announcement))
        said += told(parts[hash_of(event)].apply(batch([event])))
    for part in parts:
        said += told(part.finish())
    return said, found


def hash_of(event):
    return int(event["customer_id"][1:]) % PARTS


@pytest.mark.parametrize("seed", range(1, 5))
def test_customers_inside_a_fault_that_no_partition_could_see_alone_have_no_alert(seed):
    events = [*telco(seed, of_node_1), *aftermath()]
    single = run(events)
    said, found = told_apart(events, delay=20)
    inside = {f"c{who}" for who in range(1, 80, 4)}
    assert [one["type"] for one in found] == ["stayline.incident.opened", "stayline.incident.cleared"]
    assert [one for one in said if one["type"].startswith("stayline.incident.")] == [], "one process tells it"
    assert {one["data"]["customer_id"] for one in alerts(said)} & inside == set()
    # Without anybody who finds the fault, some would.
    alone = [engine(finds_incidents=False) for _ in range(PARTS)]
    for event in events:
        alone[hash_of(event)].apply(batch([event]))
    assert any(case.customer_id in inside for one in alone for case in one.memory.casebook.cases.values())
    assert alerts(single) == []


@pytest.mark.parametrize("seed", range(1, 5))
def test_who_has_room_for_a_fifth_of_the_customers_finds_the_fault_all_the_same(seed):
    events = [*telco(seed, of_node_1), *aftermath()]
    customers = len({one["customer_id"] for one in events})
    found = [one for one in run(events, customers_max=customers // 5) if ".incident." in one["type"]]
    assert [(one["type"], one["subject"]) for one in found] == [
        ("stayline.incident.opened", "node-1"),
        ("stayline.incident.cleared", "node-1"),
    ]


def test_what_is_announced_twice_counts_once():
    opened = {
        "type": "incident", "incident_id": "in_1", "element_kind": "cpe_firmware", "element_id": "box/1.0",
        "at_ms": MONDAY_MS, "status": "open",
    }  # fmt: skip
    cleared = opened | {"status": "cleared", "at_ms": MONDAY_MS + HOUR_MS}
    one = engine(finds_incidents=False)
    for event, count in ((opened, 1), (opened, 1), (cleared, 0), (opened, 0), (cleared, 0)):
        one.apply(batch([event]))
        assert len(one.memory.incidents.open) == count
    # Raised anew at another time it is another one.
    one.apply(batch([opened | {"at_ms": MONDAY_MS + 2 * HOUR_MS}]))
    assert len(one.memory.incidents.open) == 1


class Partitions:
    """A topic of several partitions that one engine reads together, and writes what it finds to."""

    def __init__(self, engine, held, tell):
        self.engine, self.held, self.tell = engine, held, tell
        self.events = [[] for _ in range(PARTS)]
        self.at = [0] * PARTS
        self.read_ = []

    def place(self):
        return tuple(number for part, at in enumerate(self.at) for number in (0, 0, part, at))

    def announce(self, told):
        for event in filter(None, map(event_of, told)):
            for part in self.events:
                part.append(orjson.loads(event))

    def read(self, part, count):
        for event in self.events[part][self.at[part] : self.at[part] + count]:
            before = self.place()
            self.at[part] += 1
            self.read_.append((part, event))
            self.tell(self.held.hold(self.engine.apply(batch([event])), before))

    def read_all(self, rng):
        """Read what is there, each partition a while in turn: in another order each time."""
        while waiting := [part for part in range(PARTS) if self.at[part] < len(self.events[part])]:
            self.read(rng.choice(waiting), rng.choice((5, 50, 500)))


@pytest.mark.parametrize("seed", range(1, 9))
def test_who_tells_others_is_killed_and_every_incident_is_told_once_and_its_end_once(seed, tmp_path):
    """Killed behind the first incident, it reads the partitions again, in another order and with its own word in them.

    Without waiting for the checkpoint a third of such incidents never ended.
    """
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    events = [*telco(1 + seed % 4, of_node_1), *aftermath()]
    told, topic = [], None

    def tell(notifications):
        told.extend(one for one in notifications if ".incident." in one.type)
        topic.announce(notifications)

    topic = Partitions(engine(), Held(tmp_path / "held", tell, holds=True), tell)
    arriving, kept = iter(events), 0
    for event in arriving:
        topic.events[hash_of(event)].append(event)
        topic.read_all(rng)
        if (tmp_path / "held").exists():
            break
    # Some more, of which no checkpoint tells, and a checkpoint of a moment before or behind the finding.
    for event in itertools.islice(arriving, rng.randrange(40)):
        topic.events[hash_of(event)].append(event)
        topic.read_all(rng)
    kept = len(topic.read_) - rng.choice((1, 20, 60, 200))
    first = topic.read_[:kept]
    topic.at = [sum(part == one for part, _ in first) for one in range(PARTS)]
    topic.engine = engine()
    for _, event in first:
        topic.engine.apply(batch([event]))
    topic.held = Held(tmp_path / "held", tell, holds=True)
    list(topic.held.reading(lambda _: ())(topic.place()))
    topic.read_all(rng)
    for event in arriving:
        topic.events[hash_of(event)].append(event)
        topic.read_all(rng)
        topic.held.committed(topic.place())
    topic.held.finish()
    topic.read_all(rng)
    said = [(one.type, one.case) for one in told]
    opened = [case for type_, case in said if type_ == "stayline.incident.opened"]
    assert len(said) == len(set(said)) == 2 * len(opened) > 0
    assert topic.engine.memory.incidents.open == {}


def test_what_waits_for_a_checkpoint_survives_and_only_what_it_holds_is_told(tmp_path):
    incident, cleared = (
        one for one in engine().apply(batch([*telco(1, of_node_1), *aftermath()])) if ".incident." in one.type
    )
    told = []
    held = Held(tmp_path / "held", told.extend, holds=True)
    assert held.hold([notice("a", 1), incident], (0, 0, 0, 10)) == [notice("a", 1)]
    held.hold([cleared], (0, 0, 0, 20))
    held.committed((0, 0, 0, 10))
    assert told == []
    again = Held(tmp_path / "held", told.extend, holds=True)
    list(again.reading(lambda _: ())((0, 0, 0, 20)))
    assert told == [incident], "what lies behind the checkpoint is found again"
    again.finish()
    assert told == [incident]
    free = Held(tmp_path / "none", told.extend, holds=False)
    assert free.hold([incident], ()) == [incident]
    (tmp_path / "held").write_bytes(b"[{")
    with pytest.raises(StateError, match="must hold the incidents"):
        Held(tmp_path / "held", told.extend, holds=True)


class TestOutput:
    @pytest.fixture
    def mock(self):
        one = Mock("t")
        yield one
        one.close()

    def test_alerts_are_passed_over_and_incidents_are_events(self, mock):
        output = Announcements("a", "t", connection(OutputTable(kind="kafka", brokers=mock.address, topic="t"), None))
        incident = next(one for one in engine().apply(batch(telco(1, of_node_1))) if ".incident." in one.type)
        assert output.append(0, [notice("a", 1), incident, notice("b", 1)]) == 3
        assert orjson.loads(event_of(incident))["element_id"] == "node-1"
        mock.down()

    def test_a_topic_that_is_out_of_reach_is_an_output_that_is_down(self, monkeypatch):
        monkeypatch.setattr(announcements, "CONFIRMED_S", 0.5)
        output = Announcements("a", "t", connection(OutputTable(kind="kafka", brokers="127.0.0.1:9", topic="t"), None))
        incident = next(one for one in engine().apply(batch(telco(1, of_node_1))) if ".incident." in one.type)
        with pytest.raises(OutputDownError, match="topic t must be known"):
            output.append(0, [incident])


def test_processes_are_told_by_their_topic_and_nobody_inside_has_an_alert(broker, parted, tmp_path):
    events = list(map(orjson.dumps, [*telco(1, of_node_1), *aftermath()]))
    announcing = f'brokers = "{broker.address}"\ntopic = "{parted}"\nannounce = true\n'
    only = '[output.only]\ntypes = ["stayline.incident.opened", "stayline.incident.cleared"]\n'
    crm = '\n[[output]]\nkind = "file"\nname = "crm"\npath = "incidents.ndjson"\n' + only
    more = f'{crm}\n[[output]]\nkind = "kafka"\nname = "others"\n{announcing}'
    # The one that finds keeps no case to itself: what it tells of customers goes nowhere.
    folder = deployed_apart(tmp_path / "watcher", broker.address, parted, "all", more)
    # Its state is of all partitions together, and lies where nobody's of one does.
    config = (folder / "c.toml").read_text()
    (folder / "c.toml").write_text(
        config.replace("shared_directory", "directory").replace('/shared"', '/watcher/state"')
    )
    watcher, killed = Program(folder, "run", "-c", "c.toml"), False
    processes = Processes(tmp_path, broker.address, parted, '\n[detection]\nincidents = "told"\n')
    processes.start(2)
    begin = next(number for number, event in enumerate(events) if orjson.loads(event)["end_ms"] >= TROUBLE_MS)
    cuts = [0, *range(begin, len(events), 25), len(events)]
    for first, last in itertools.pairwise(cuts):
        fill(broker.address, parted, keyed(events[first:last]))
        until(lambda one=watcher: settled(one.address("metrics"), count_in(broker, parted)), "the watcher")
        if not killed and (folder / "state/incidents.json").exists():
            watcher.kill()
            watcher, killed = Program(folder, "run", "-c", "c.toml"), True
    told = until(lambda: all_over(lines(tmp_path / "watcher/incidents.ndjson")), "an incident, and its end")
    processes.await_count(count_in(broker, parted))
    processes.stop()
    assert ended(watcher) == 0
    assert killed
    assert count_in(broker, parted) == len(events) + len(told) * PARTITIONS
    inside = {f"c{who}" for who in range(1, 80, 4)}
    told_of = {orjson.loads(line)["subject"] for path in tmp_path.glob("[01]/alerts.ndjson") for line in lines(path)}
    assert told_of & inside == set()


def all_over(told):
    """Return what was told of incidents once each that was opened has been cleared; None before.

    Partitions are read side by side, so which element is blamed, and whether one more is, may differ from run to run.
    """
    types = [orjson.loads(line)["type"] for line in told]
    return told if types and types.count("stayline.incident.opened") * 2 == len(types) else None


def count_in(broker, topic):
    """Return how many messages a topic holds."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "any", "log_level": 0})
    ends = [end_of(consumer, topic, number) for number in range(PARTITIONS)]
    consumer.close()
    return sum(ends)
