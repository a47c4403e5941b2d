"""Partitions are added to a topic in mid-stream: states are divided, and customers go on where they come from."""

import itertools
import random
import shutil

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions
from engine_kit import MONDAY_MS, call
from kafka_kit import deployed, figures, keyed
from run_kit import Program, until
from shards_kit import PARTITIONS, Processes, delivered, held

from bench.broker import fill, make_topic
from dataflows import shards
from dataflows.checkpoints import Checkpoints, sole_user
from dataflows.checkpoints.engines import resume
from dataflows.commands import repartition as command
from dataflows.config import load
from dataflows.inputs.kafka_client import connection
from dataflows.inputs.spreading import by_crc, by_murmur, spread_of
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from detectors.splitting import split
from schemas.decode import decode
from schemas.errors import StateError

MORE = 2 * PARTITIONS


def engine_of(parts):
    share = Settings("test", alerts_per_day_max=200 // parts, customers_max=2_000_000 // parts)
    return RiskEngine(share, Catalogue.load(default_catalogue_text()))


def told_by(engine, values):
    return {one.id: one.body for one in engine.apply(decode(b"\n".join(values)))} if values else {}


def expected(before, behind):
    """Return what engines tell that are divided: id -> body.

    Args:
        before: what each of the partitions held that were read first.
        behind: what each of all held that was read after.
    """
    told = {}
    for number, values in before.items():
        engine = engine_of(PARTITIONS)
        told |= told_by(engine, values)
        whole = engine.snapshot()
        for part in (number, number + PARTITIONS):
            one = engine_of(MORE)
            one.restore(whole)
            split(one, lambda customer, part=part: by_crc(customer.encode(), MORE) == part, first=part < PARTITIONS)
            told |= told_by(one, behind[part])
    return told


def added(broker, topic):
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_partitions([NewPartitions(topic, MORE)])[topic].result(10)
    until(lambda: len(admin.list_topics(topic, 10).topics[topic].partitions) == MORE, "the new partitions")


def divided(folder):
    config = load(folder / "0" / "c.toml", {})
    return command.repartition(config, connection(config.input.kafka, None))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_partitions_added_in_mid_stream_and_states_divided_nothing_is_lost_or_changed(
    broker, parted, telco, tmp_path, seed
):
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    size = len(telco.events)
    cuts = [0, *sorted(rng.sample(range(1, size), 3)), size]
    slices = [list(keyed(telco.events[a:b])) for a, b in itertools.pairwise(cuts)]
    processes = Processes(tmp_path, broker.address, parted)
    fill(broker.address, parted, slices[0])
    processes.start(1)
    processes.await_count(cuts[1])
    # Producers go on meanwhile. What they write to new partitions waits, and is seen to.
    added(broker, parted)
    fill(broker.address, parted, slices[1])
    before = {number: values for number, values in held(broker.address, parted, MORE).items() if number < PARTITIONS}
    processes.await_count(sum(map(len, before.values())))
    processes.stop()
    processes.start(1)
    waiting = f'stayline_input_lag_messages{{partition="{PARTITIONS}",topic="{parted}"}}'
    until(lambda: figures(processes.running[0].address("metrics")).get(waiting, 0.0) > 0.0, "the lag")
    processes.stop()
    assert divided(tmp_path) == (PARTITIONS, MORE)
    processes.start(3)
    fill(broker.address, parted, slices[2])
    victim = rng.randrange(3)
    processes.running[victim].kill_after(rng.uniform(0.0, 1.0)).join()
    processes.running[victim].wait()
    processes.running[victim] = processes.one(victim, 3)
    processes.await_count(cuts[3])
    processes.stop()
    processes.start(2)
    fill(broker.address, parted, slices[3])
    processes.await_count(size)
    processes.stop()
    found, every = delivered(tmp_path), held(broker.address, parted, MORE)
    behind = {number: values[len(before.get(number, ())) :] for number, values in every.items()}
    assert found == expected(before, behind)
    told = [orjson.loads(body)["data"] for body in found.values()]
    revisions = sorted((one["alert_id"], one["revision"]) for one in told if "alert_id" in one)
    assert all(revision == 1 or (alert, revision - 1) in revisions for alert, revision in revisions)
    assert len(revisions) > 15


@pytest.mark.parametrize(("partitioner", "way"), [("consistent_random", by_crc), ("murmur2_random", by_murmur)])
def test_keys_are_spread_as_clients_spread_them(broker, topic, partitioner, way):
    make_topic(broker.address, name := f"{topic}.spread", 7)
    producer = Producer({"bootstrap.servers": broker.address, "partitioner": partitioner, "log_level": 0})
    rng = random.Random(1)  # noqa: S311  seeded, not secret
    keys, put = [rng.randbytes(1 + number % 21) for number in range(300)], {}
    for key in keys:
        producer.produce(
            name, b"", key, on_delivery=lambda _, message: put.update({message.key(): message.partition()})
        )
    producer.flush(10)
    assert put == {key: way(key, 7) for key in keys}


class TestSpread:
    def test_customers_tell_which_way_it_is(self):
        ids = [f"customer-{number}" for number in range(50)]
        for way in (by_crc, by_murmur):
            assert spread_of({(one, way(one.encode(), 6), 6) for one in ids}, 12) is way

    def test_customers_in_neither_way_or_too_few_are_refused(self):
        with pytest.raises(StateError, match="keyed by something else"):
            spread_of({(f"customer-{number}", 0, 6) for number in range(50)}, 12)
        both = next(
            one
            for one in map(str, range(1_000))
            if by_crc(one.encode(), 6) == by_murmur(one.encode(), 6)
            and by_crc(one.encode(), 12) != by_murmur(one.encode(), 12)
        )
        with pytest.raises(StateError, match="were too few"):
            spread_of({(both, by_crc(both.encode(), 6), 6)}, 12)


def lines_of_calls(telco):
    return [line for line in telco.events if line.startswith(b'{"type":"call"') and decode(line).calls.position.size]


def of_parts(engine, telco):
    """Let an engine take a telco's events; return the whole state, and the customers with cases."""
    engine.apply(decode(b"\n".join(telco.events)))
    book = engine.memory.casebook
    return engine.snapshot(), {one.customer_id for one in (*book.cases.values(), *book.closed.values())}


def test_each_case_goes_on_in_one_part_and_whoever_is_known_is_known_in_theirs(telco):
    whole, customers = of_parts(engine_of(1), telco)
    known = {one["customer_id"] for one in map(orjson.loads, lines_of_calls(telco))}
    parts = []
    for part in range(3):
        one = engine_of(1)
        one.restore(whole)
        split(one, lambda customer, part=part: by_crc(customer.encode(), 3) == part, first=part == 0)
        parts.append(one)
    books = [one.memory.casebook for one in parts]
    kept = [{case.customer_id for case in (*book.cases.values(), *book.closed.values())} for book in books]
    assert set.union(*kept) == customers
    assert sum(map(len, kept)) == len(customers) > 5
    for part, one in enumerate(parts):
        assert kept[part] == {customer for customer in customers if by_crc(customer.encode(), 3) == part}
        theirs = {customer for customer in known if by_crc(customer.encode(), 3) == part}
        assert all(one.standing(customer) is not None for customer in theirs)
        assert (one.counts.applied > 0) == (part == 0)
        one.restore(one.snapshot())


@pytest.fixture
def apart(broker, parted, telco, tmp_path, monkeypatch):
    """A deployment whose states are of half the partitions that its topic has."""
    monkeypatch.chdir(tmp_path)
    processes = Processes(tmp_path, broker.address, parted)
    fill(broker.address, parted, keyed(telco.events[:1_500]))
    processes.start(1)
    processes.await_count(1_500)
    processes.stop()
    added(broker, parted)
    return tmp_path


def states(folder):
    """Return what the state of each partition is: its place, and all that its engine knows."""
    config, found = load(folder / "0" / "c.toml", {}), {}
    for number in shards.numbers_in(shards.partitions_folder(config)):
        home = shards.folder_of(shards.partitions_folder(config), number)
        commit, engine = shards.read_commit(home), engine_of(1)
        resume(engine, Checkpoints(home / "engine"), commit.snapshot)
        found[number] = commit.partitions, commit.place, engine.snapshot()
    return found


class TestCommand:
    def test_killed_at_any_write_and_given_again_it_does_the_same(self, broker, parted, telco, apart, monkeypatch):
        # What is unread in old partitions is of customers who stay: producers write the others' to new ones by now.
        fill(broker.address, parted, keyed(telco.events[1_500:1_700]))
        shutil.copytree(apart / "shared", apart / "was")
        assert divided(apart) == (PARTITIONS, MORE)
        wanted = states(apart)
        assert sorted(wanted) == list(range(MORE))
        write, left = shards.write_commit, []

        def dies(*given):
            if not left:
                raise StateError("power cut")
            left.pop()
            write(*given)

        for writes in (0, 1, 2, MORE - 1):
            shutil.rmtree(apart / "shared")
            shutil.copytree(apart / "was", apart / "shared")
            left[:] = [None] * writes
            monkeypatch.setattr(command, "write_commit", dies)
            with pytest.raises(StateError, match="power cut"):
                divided(apart)
            monkeypatch.undo()
            monkeypatch.chdir(apart)
            assert divided(apart) == (PARTITIONS, MORE)
            assert states(apart) == wanted
        with pytest.raises(StateError, match=f"must be of fewer partitions than the topic has, .* it has {MORE}"):
            divided(apart)

    def test_a_record_that_is_unread_where_its_customer_was_is_refused_by_its_place(self, broker, parted, telco, apart):
        ids = {orjson.loads(line)["customer_id"] for line in telco.events[:1_500] if b'"call"' in line}
        moved = next(one for one in sorted(ids) if by_crc(one.encode(), MORE) >= PARTITIONS)
        home = by_crc(moved.encode(), PARTITIONS)
        fill(broker.address, parted, keyed(telco.events[1_500:1_700]))
        fill(broker.address, parted, [(b"", orjson.dumps(call(moved, MONDAY_MS)))], home)
        with pytest.raises(StateError, match=rf"{parted}\[{home}\]@\d+: must be read before .* nor were 0 more"):
            divided(apart)

    def test_a_state_that_is_missing_or_in_use_is_refused(self, apart):
        home = shards.folder_of(apart / "shared", 3)
        with sole_user(home), pytest.raises(StateError, match="another one is running on it"):
            divided(apart)
        shutil.rmtree(home)
        with pytest.raises(StateError, match=r"must hold the states of all partitions, holds none of \[3\]"):
            divided(apart)

    def test_at_a_prompt(self, broker, parted, telco, apart):
        fill(broker.address, parted, keyed(telco.events[1_500:1_700]))
        program = Program(apart / "0", "state", "repartition", "-c", "c.toml")
        assert program.wait() == 0
        assert program.stderr() == f"{PARTITIONS} states divided among {MORE} partitions\n"
        (apart / "all").mkdir()
        program = Program(deployed(apart / "all", broker.address, parted), "state", "repartition", "-c", "c.toml")
        assert program.wait() == 2
        assert 'must be of states that are kept apart, was "all"' in program.stderr()
