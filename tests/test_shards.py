"""Several processes, each owning partitions: what is told is the same whatever their number, and while it changes."""

import base64
import contextlib
import itertools
import random

import orjson
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from engine_kit import MONDAY_MS, call
from kafka_kit import counted, ended, keyed, records
from run_kit import Program, until
from shards_kit import PARTITIONS, Processes, delivered, deployed_apart, expected, held

from bench.broker import fill, make_topic
from dataflows import shards
from dataflows.commands import rewriting
from dataflows.commands.explain import explain
from dataflows.commands.forget import forget
from dataflows.config import load
from dataflows.config.kinds import Share
from dataflows.deadletters import DeadLetterFile
from dataflows.inputs.messages import Shard
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.deadletters import DeadLetter
from schemas.decode import decode
from schemas.errors import DeliveryError, StateError


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_from_one_process_to_three_to_two_in_mid_stream_nothing_is_lost_or_changed(
    broker, parted, telco, tmp_path, seed
):
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    processes, size = Processes(tmp_path, broker.address, parted), len(telco.events)
    cuts = [0, *sorted(rng.sample(range(1, size), 4)), size]
    slices = [list(keyed(telco.events[a:b])) for a, b in itertools.pairwise(cuts)]
    fill(broker.address, parted, slices[0])
    processes.start(1)
    fill(broker.address, parted, slices[1])
    processes.await_count(cuts[2])
    processes.stop()
    processes.start(3)
    fill(broker.address, parted, slices[2])
    # One of the three dies, whatever it is doing, and is started again; the others go on.
    victim = rng.randrange(3)
    processes.running[victim].kill_after(rng.uniform(0.0, 1.0)).join()
    processes.running[victim].wait()
    processes.running[victim] = processes.one(victim, 3)
    fill(broker.address, parted, slices[3])
    processes.await_count(cuts[4])
    processes.stop()
    processes.start(2)
    fill(broker.address, parted, slices[4])
    processes.await_count(size)
    processes.stop()
    assert delivered(tmp_path) == expected(broker.address, parted)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_told_is_the_same_whatever_the_number_of_processes(broker, parted, telco, tmp_path, count):
    fill(broker.address, parted, keyed(telco.events))
    processes = Processes(tmp_path, broker.address, parted)
    processes.start(count)
    processes.await_count(len(telco.events))
    processes.stop()
    assert delivered(tmp_path) == expected(broker.address, parted)


def said(program):
    return program.stderr().splitlines()[-1]


class TestRefused:
    """What would lose or mix up states is refused in one line."""

    def test_a_partition_that_another_process_reads(self, broker, parted, tmp_path):
        processes = Processes(tmp_path, broker.address, parted)
        processes.start(1)
        until(lambda: len(list(tmp_path.glob("shared/partitions/*/commit"))) == PARTITIONS, "the first states")
        second = Program(deployed_apart(tmp_path / "second", broker.address, parted, "3-4"), "run", "-c", "c.toml")
        assert second.wait() == 1
        assert said(second).endswith("partitions/000003: must be used by one process, another one is running on it")
        processes.stop()

    def test_another_number_of_partitions_before_and_while_they_are_read(self, broker, parted, telco, tmp_path):
        processes = Processes(tmp_path, broker.address, parted)
        fill(broker.address, parted, keyed(telco.events[:200]))
        processes.start(1)
        processes.await_count(200)
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_partitions([NewPartitions(parted, PARTITIONS + 1)])[parted].result(10)
        until(lambda: not processes.running[0].running(), "the end")
        rule = (
            f"stayline: {parted}: must have {PARTITIONS} partitions, as when states were begun, or a multiple, has "
            f"{PARTITIONS + 1}: keys are spread anew over them, and customers come in other partitions than those that "
            "know them"
        )
        assert said(processes.running[0]) == rule
        again = processes.one(0, 1)
        assert again.wait() == 1
        assert said(again) == rule

    def test_topics_of_different_numbers_of_partitions(self, broker, topic, parted, tmp_path):
        folder = deployed_apart(tmp_path / "0", broker.address, f'{topic}", "{parted}', "0/1")
        program = Program(folder, "run", "-c", "c.toml")
        assert program.wait() == 1
        assert said(program) == (
            f"stayline: input.kafka.topics: must have equally many partitions, have: {topic} 1, {parted} {PARTITIONS}"
        )

    @pytest.mark.parametrize("first", ["all", "0/1"])
    def test_a_state_of_the_other_sort(self, broker, parted, telco, tmp_path, first):
        fill(broker.address, parted, keyed(telco.events[:50]))
        for partitions in (first, "0/1" if first == "all" else "all"):
            folder = deployed_apart(tmp_path / "0", broker.address, parted, partitions, shared=False)
            program = Program(folder, "run", "-c", "c.toml")
            if partitions == first:
                until(lambda p=program: counted(p.address("metrics")) == 50, "the records")
                assert ended(program) == 0
        assert program.wait() == 1
        assert "each of its partitions" in said(program) or "where each partition has a state" in said(program)

    @pytest.mark.parametrize("damage", [b"", b"{", b'{"layout":2,"snapshot":"s","partitions":5,"place":[]}'])
    def test_a_commit_that_says_nothing(self, tmp_path, damage):
        folder = shards.folder_of(tmp_path, 3)
        folder.mkdir(parents=True)
        (folder / "commit").write_bytes(damage)
        with contextlib.closing(shards.Shards(tmp_path, Share(0, 3), engine_of)) as ours, pytest.raises(StateError):
            ours.open()


def engine_of(parts):
    return RiskEngine(Settings("test", customers_max=1_000 // parts), Catalogue.load(default_catalogue_text()))


def test_a_state_that_was_not_committed_is_as_if_it_had_not_been(tmp_path, monkeypatch):
    def taken(ours, number, place):
        event = orjson.dumps(call(f"customer-{number}", MONDAY_MS + number))
        ours.engine(Shard(2, 4, place)).apply(decode(event))

    with contextlib.closing(shards.Shards(tmp_path, (2,), engine_of)) as ours:
        assert ours.open() == ()
        taken(ours, 1, (7, 7, 2, 1))
        ours.save()
        ours.settle()
        taken(ours, 2, (7, 7, 2, 2))
        monkeypatch.setattr(shards, "write_commit", lambda *_: (_ for _ in ()).throw(StateError("power cut")))
        ours.save()
        with pytest.raises(StateError, match="power cut"):
            ours.settle()
    monkeypatch.undo()
    with contextlib.closing(shards.Shards(tmp_path, (2,), engine_of)) as ours:
        assert ours.open() == (7, 7, 2, 1)
        assert [one.counts.applied for one in ours] == [1]
    # The same folder carried to another machine, and nothing of it is anybody else's.
    (tmp_path / "other/partitions").mkdir(parents=True)
    shards.folder_of(tmp_path, 2).rename(shards.folder_of(tmp_path / "other", 2))
    with contextlib.closing(shards.Shards(tmp_path / "other", (1,), engine_of)) as ours:
        assert ours.open() == ()
    with contextlib.closing(shards.Shards(tmp_path / "other", Share(2, 4), engine_of)) as ours:
        assert ours.open() == (7, 7, 2, 1)


def test_a_process_without_partitions_delivers_what_waits_and_ends(broker, parted, telco, tmp_path):
    make_topic(broker.address, alerts := f"{parted}.alerts")
    fill(broker.address, parted, keyed(telco.events))

    def reaching(address):
        return f'\n[[output]]\nkind = "kafka"\nname = "out"\ntopic = "{alerts}"\nbrokers = "{address}"\n'

    deployed_apart(tmp_path / "0", broker.address, parted, "0/1", reaching("127.0.0.1:9"))
    program = Program(tmp_path / "0", "run", "-c", "c.toml")
    until(lambda: counted(program.address("metrics")) == len(telco.events), "the records")
    assert ended(program) == 0
    deployed_apart(tmp_path / "0", "127.0.0.1:9", parted, [], reaching(broker.address))
    assert Program(tmp_path / "0", "run", "-c", "c.toml").wait() == 0
    assert {name: value for _, value, name in records(broker.address, alerts)} == expected(broker.address, parted)


def test_a_customer_is_explained_and_forgotten_wherever_the_partition_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(deployed_apart(tmp_path / "0", "127.0.0.1:9", "t", "0/2") / "c.toml", {})
    config.state.directory.mkdir()
    with contextlib.closing(shards.Shards(tmp_path / "shared", (0, 1), engine_of)) as ours:
        for number in (0, 1):
            event = orjson.dumps(call(f"customer-{number}", MONDAY_MS))
            ours.engine(Shard(number, 2, (7, 7, number, 1))).apply(decode(event))
        ours.save()
        ours.settle()
        with pytest.raises(StateError, match="stop the deployment"):
            forget("customer-1", config, lambda: 0)
    for number in (0, 1):
        assert explain(f"customer-{number}", config)
    forget("customer-1", config, lambda: 0)
    assert explain("customer-0", config)
    with pytest.raises(StateError, match="must have called"):
        explain("customer-1", config)


def test_dead_letters_are_written_to_the_partitions_that_they_came_from(broker, parted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = deployed_apart(tmp_path / "0", broker.address, parted, "0/1")
    record = orjson.dumps(call("customer-1", MONDAY_MS))
    fill(broker.address, parted, [(b"k", b"{")], 3)
    program = Program(folder, "run", "-c", "c.toml")
    address = program.address("metrics")
    until(lambda: counted(address) == 1, "the record")
    # What the one before could not read, and this program can.
    letters = DeadLetterFile(folder / "state/dead-letters.ndjson")
    lost = DeadLetter("kafka", f"{parted}[3]@0", "not_json", "", base64.b64encode(record).decode())
    letters.append([lost])
    replay = Program(tmp_path / "0", "dead-letters", "replay", "--all", "-c", "c.toml")
    assert replay.wait() == 1, "one is broken still"
    until(lambda: counted(address) == 2, "the record, again")
    assert held(broker.address, parted)[3] == [b"{", record]
    assert [letter.record_b64 for _, letter in letters.read()] == [base64.b64encode(b"{").decode()]
    assert ended(program) == 0


def test_dead_letters_that_brokers_do_not_take_stay(monkeypatch):
    monkeypatch.setattr(rewriting, "CONNECT_S", 0.2)
    reached = {"bootstrap.servers": "127.0.0.1:9", "log_level": "0"}
    with pytest.raises(DeliveryError, match="must all be confirmed, 1 were not"):
        rewriting.rewrite(reached, [DeadLetter("kafka", "t[1]@0", "not_json", "", "e30=")], whole=False)
    with pytest.raises(DeliveryError, match="must be the place of a message"):
        rewriting.rewrite(reached, [DeadLetter("kafka", "elsewhere", "not_json", "", "e30=")], whole=False)


def test_of_a_letter_that_keeps_an_outline_the_whole_message_is_written_again_once(broker, parted):
    fill(broker.address, parted, [(b"k", b"one\ntwo")], 3)
    letters = [DeadLetter("kafka", f"{parted}[3]@0", "not_json", "", record) for record in ("b25l", "dHdv")]
    reached = {"bootstrap.servers": broker.address, "log_level": "0"}
    rewriting.rewrite(reached, letters, whole=True)
    assert held(broker.address, parted)[3] == [b"one\ntwo"] * 2
    with pytest.raises(DeliveryError, match=r"\[3\]@9: must be the place of a message on its topic, is not"):
        rewriting.rewrite(reached, [DeadLetter("kafka", f"{parted}[3]@9", "not_json", "", "e30=")], whole=True)
