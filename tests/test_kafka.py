"""Kafka in and out, against a real broker that is killed and started again, and a mock that fails on demand."""

import contextlib
import csv as csv_module
import io
import queue
import shutil
import time
from concurrent.futures import Future
from types import SimpleNamespace

import orjson
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition, Uuid
from confluent_kafka.admin import AdminClient, NewPartitions
from delivery_kit import notice, notices
from hypothesis import given
from hypothesis import strategies as st
from kafka_kit import (
    FETCH,
    NOT_AUTHORISED,
    PASSWORD,
    PRODUCE,
    TIMED_OUT,
    TOO_LARGE,
    TRANSPORT,
    USER,
    Mock,
    await_settled,
    counted,
    deployed,
    ended,
    figures,
    keyed,
    reader,
    records,
    settled,
)
from needs_kit import needs
from run_kit import PATIENCE_S, Program, lines, until

from bench.broker import fill, make_topic
from bench.cases import Options as BenchOptions
from bench.cases import kafka as kafka_case
from bench.cases import run as bench_run
from dataflows.clock import now_ms
from dataflows.commands.ping import ping
from dataflows.config.outputs import KafkaOutput as OutputTable
from dataflows.inputs import kafka, kafka_client
from dataflows.inputs.chunks import decoded
from dataflows.inputs.files import CHUNK_BYTES
from dataflows.inputs.kafka_client import AWAY, DAMAGED, GONE, REFUSED, Brokers, connection
from dataflows.inputs.messages import joined
from schemas.decode import Decoder, decode
from schemas.errors import ConfigError, InputError
from schemas.formats import Options, open_format
from schemas.formats.columnmap import ColumnMap
from sinks import kafka as sink
from sinks.kafka import KafkaOutput
from sinks.outputs import NotificationRefusedError, OutputDownError

CALL = b'{"type":"call","call_id":"c%d","customer_id":"k","start_ms":1000,"end_ms":2000}'


def assert_told(found, telco, *, once=False):
    """Hold what a topic got against what must be told: nothing missing, a repeat is the same, first ones in order."""
    assert list(dict.fromkeys(value for _, value, _ in found)) == telco.told
    assert not once or len(found) == len(telco.told)
    for key, value, name in found:
        body = orjson.loads(value)
        assert name == body["id"]
        assert key == (body["subject"] if ".incident." in body["type"] else body["data"]["alert_id"])


class TestRun:
    def test_a_run_from_topic_to_topic_tells_what_the_engine_tells_and_shows_its_offsets(
        self, broker, topic, telco, tmp_path
    ):
        make_topic(broker.address, alerts := f"{topic}.alerts")
        fill(broker.address, topic, keyed(telco.events))
        program = Program(deployed(tmp_path, broker.address, topic, alerts=alerts), "run", "-c", "c.toml")
        await_settled(program, len(telco.events))
        assert ended(program) == 0, program.stderr()
        assert_told(records(broker.address, alerts), telco, once=True)
        for letter in map(orjson.loads, lines(tmp_path / "state/dead-letters.ndjson")):
            name, _, offset = letter["at"].partition("@")
            assert (letter["source"], name) == ("kafka", f"{topic}[0]")
            assert decode(telco.events[int(offset)]).rejects[0].reason == letter["reason"]
        tools = Consumer({"bootstrap.servers": broker.address, "group.id": "stayline-test"})
        assert tools.committed([TopicPartition(topic, 0)])[0].offset == len(telco.events)
        tools.close()

    def test_a_broker_that_dies_and_comes_back_costs_neither_input_nor_output_anything(
        self, broker, topic, telco, tmp_path
    ):
        make_topic(broker.address, alerts := f"{topic}.alerts")
        (reads, writes), half = (tmp_path / "reads", tmp_path / "writes"), len(telco.events) // 2
        reads.mkdir(), writes.mkdir()
        shutil.copy(telco.path, writes / "events.ndjson")
        fill(broker.address, topic, keyed(telco.events[:half]))
        reading = Program(deployed(reads, broker.address, topic), "run", "-c", "c.toml")
        await_settled(reading, half)
        broker.kill()
        # What writes meanwhile goes on detecting, and keeps what it cannot deliver.
        deployed(writes, broker.address, topic, alerts=alerts, events="events.ndjson")
        writing = Program(writes, "run", "-c", "c.toml")
        address = writing.address("metrics")
        until(lambda: counted(address) == len(telco.events), "the last record")
        assert figures(address)['stayline_outbox_pending{output="kafka"}'] > 20
        until(lambda: "input.trouble" in reading.stderr(), "word of the trouble")
        broker.start()
        until(lambda: settled(address, len(telco.events)), "the last delivery")
        assert_told(records(broker.address, alerts), telco)
        fill(broker.address, topic, keyed(telco.events[half:]))
        await_settled(reading, len(telco.events))
        assert [ended(reading), ended(writing)] == [0, 0]
        assert lines(reads / "alerts.ndjson") == telco.told

    def test_messages_that_expired_unread_stop_the_run_or_are_counted(self, broker, topic, tmp_path):
        program = Program(deployed(tmp_path, broker.address, topic), "run", "-c", "c.toml")
        program.address("metrics")
        fill(broker.address, topic, [(None, CALL % number) for number in range(10)])
        await_settled(program, 10)
        assert ended(program) == 0
        fill(broker.address, topic, [(None, CALL % number) for number in range(10, 40)])
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.delete_records([TopicPartition(topic, 0, 25)])[TopicPartition(topic, 0)].result(10)
        program = Program(tmp_path, "run", "-c", "c.toml")
        assert program.wait() == 1
        said = program.stderr().splitlines()[-1]
        assert said == (
            f"stayline: {topic}[0]@10: must be there, where reading goes on; the partition begins at 25: "
            '15 messages are lost unread; on_gap = "skip" passes over such gaps'
        )
        deployed(tmp_path, broker.address, topic, more=', on_gap = "skip"')
        program = Program(tmp_path, "run", "-c", "c.toml")
        await_settled(program, 25)
        assert figures(program.address("metrics"))["stayline_input_lost_messages_total"] == 15.0
        assert ended(program) == 0

    def test_a_run_that_waits_for_brokers_ends_when_it_is_asked_to(self, tmp_path):
        program = Program(deployed(tmp_path, "127.0.0.1:9", "t"), "run", "-c", "c.toml")
        until(lambda: "run.started" in program.stderr(), "the start")
        assert ended(program) == 0

    def test_a_topic_that_is_not_there_is_said_in_one_line(self, broker, tmp_path):
        program = Program(deployed(tmp_path, broker.address, "nowhere"), "run", "-c", "c.toml")
        assert program.wait() == 1
        assert program.stderr().splitlines()[-1] == (
            "stayline: input.kafka.topics: must be topics that can be read, were not: "
            "Broker: Unknown topic or partition"
        )


class TestBench:
    def test_the_flow_from_a_broker_gives_the_same_as_the_flow_from_a_file(self, broker, topic, monkeypatch):
        monkeypatch.setattr(kafka_case, "broker_elsewhere", lambda: contextlib.nullcontext(broker.address))
        monkeypatch.setattr(kafka_case, "TOPIC", f"{topic}.bench")
        report = bench_run(["flow", "kafka"], BenchOptions(customers=100, days=3, rounds=1), lambda _: None)
        names = ["flow", "flow, file", *(name for name in report.rates if name.startswith("flow, kafka"))]
        names = [name for name in names if "calls" not in name]
        assert len(names) == 6
        assert len({report.rates[name].digest for name in names}) == 1


def reads(one, place=None, *, messages):
    """Read until so many messages have come; return events, dead letters, place."""
    decoder, batches, letters, begin, deadline_s = Decoder(), [], [], None, time.monotonic() + PATIENCE_S
    for read in one.read(place):
        assert time.monotonic() < deadline_s, f"{messages} messages must have come in {PATIENCE_S:.0f} s"
        if read is None:
            continue
        place = read.place
        for chunk in read.joined():
            batch, dead = decoded(decoder, chunk)
            batches.append(batch)
            letters += dead
        at = sum(place[3::4])
        begin = at if begin is None else begin
        if at >= begin + messages:
            break
    assert at == begin + messages
    return batches, letters, place


def calls(batches):
    return [batch.calls.call_id[row] for batch in batches for row in range(len(batch.calls.call_id))]


class TestMessages:
    ODD = (
        (CALL % 0, None),
        ((CALL % 1).replace(b"c1", b"\xff"), "not_text"),
        (b"", "not_json"),
        (None, "not_json"),
        (b" \n", "not_json"),
        (b"{}", "unknown_type"),
        (b'{"type":"call","call_id":"c1","customer_id":"k",\n "start_ms":1000,"end_ms":2000}\n', None),
        (CALL % 2 + b"\n" + CALL % 3 + b"\r\n", None),
        (CALL % 4 + b"\nnonsense\n" + CALL % 5, "not_json"),
        (b'{"type":"call","x":"' + b"x" * 70_000 + b'"}', "too_large"),
    )

    def test_odd_messages_are_dead_letters_at_their_offsets_and_their_neighbours_are_not(self, broker, topic):
        fill(broker.address, topic, [(b"k", value) for value, _ in self.ODD])
        with reader(broker.address, topic) as one:
            batches, letters, _ = reads(one, messages=len(self.ODD))
        assert [(one.at, one.reason) for one in letters] == [
            (f"{topic}[0]@{offset}", reason) for offset, (_, reason) in enumerate(self.ODD) if reason is not None
        ]
        assert calls(batches) == [f"c{number}" for number in range(6)]
        assert sum(batch.records for batch in batches) == 6 + len(letters)

    def test_a_megabyte_of_records_in_one_message_is_taken(self, broker, topic):
        many = b"\n".join(CALL % number for number in range(13_000))
        assert len(many) > 1_000_000
        fill(broker.address, topic, [(None, many)])
        with reader(broker.address, topic) as one:
            batches, letters, place = reads(one, messages=1)
            # The next poll asks for no more than about a chunk of messages as large as these.
            assert one._count == CHUNK_BYTES // len(many)
            assert (len(calls(batches)), letters) == (13_000, [])
            fill(broker.address, topic, [(None, CALL % 13_000)])
            assert calls(reads(one, place, messages=1)[0]) == ["c13000"]

    @given(
        st.lists(st.none() | st.lists(st.sampled_from([b"", b"{}", b"[1", b"\xff", b" ", b'{"a":\n1}'])), max_size=6)
    )
    def test_every_record_keeps_its_message_and_every_message_counts(self, given_):
        values = [None if parts is None else b"\n".join(parts) for parts in given_]
        origins = [("t", 0, 100 + index) for index in range(len(values))]
        batch, letters = decoded(Decoder(), joined(values, origins))
        # Nothing here is an event, so each record is a dead letter, and a message without any is one too.
        assert batch.records == len(letters)
        assert {letter.at for letter in letters} == {f"t[0]@{100 + index}" for index in range(len(values))}
        for index, value in enumerate(values):
            whole = [part for part in (value or b"").strip(b"\r\n").split(b"\n") if part.strip()]
            single = value is not None and b"\n" in value and is_json(value)
            count = sum(letter.at == f"t[0]@{100 + index}" for letter in letters)
            assert count == (1 if single else max(1, len(whole)))

    def test_rows_of_csv_and_streams_of_arrow_come_one_a_message(self, broker, topic):
        row = io.StringIO()
        csv_module.writer(row).writerow(["c1", "k", "1000", "2000"])
        columns = {"call_id": 1, "customer_id": 2, "start_ms": 3, "end_ms": 4}
        map_ = ColumnMap(type="call", header=False, columns=columns, tokenise=(), date_formats=("unix_ms",))
        options = Options(csv=map_)
        fill(broker.address, topic, [(None, row.getvalue().encode()), (None, b"c2,k,one,2000"), (None, None)])
        with reader(broker.address, topic, open_format=lambda: open_format("csv", options)) as one:
            batches, letters, place = reads(one, messages=3)
        assert calls(batches) == ["c1"]
        assert [letter.at for letter in letters] == [f"{topic}[0]@1", f"{topic}[0]@2"]
        table = pa.table({"call_id": ["a", "b"], "customer_id": ["k", "k"], "start_ms": [1, 1], "end_ms": [2, 0]})
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, table.schema.with_metadata({"type": "call"})) as writer:
            writer.write_table(table)
        whole = stream.getvalue()
        fill(broker.address, topic, [(None, value) for value in (whole, b"nonsense", None, whole[:-100])])
        with reader(broker.address, topic, open_format=lambda: open_format("arrow", options)) as one:
            batches, letters, _ = reads(one, place, messages=4)
        assert calls(batches) == ["a"]
        assert [letter.at.partition("@")[2] for letter in letters] == ["3:2", "4:1", "5:1", "6:1"]


def is_json(value):
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


class TestPlaces:
    def test_reading_goes_on_where_any_poll_left_off(self, broker, topic):
        fill(broker.address, topic, [(None, CALL % number) for number in range(50)])
        with reader(broker.address, topic) as one:
            one._count = 20
            _, _, place = reads(one, messages=20)
        with reader(broker.address, topic) as one:
            batches, _, _ = reads(one, place, messages=30)
        assert calls(batches) == [f"c{number}" for number in range(20, 50)]

    def test_the_latest_is_fixed_when_reading_begins(self, broker, topic):
        fill(broker.address, topic, [(None, CALL % 1)])
        with reader(broker.address, topic, start="latest") as one:
            place = next(read.place for read in one.read(None) if read is not None)
        fill(broker.address, topic, [(None, CALL % 2)])
        with reader(broker.address, topic, start="latest") as one:
            batches, _, _ = reads(one, place, messages=1)
        assert calls(batches) == ["c2"]

    def test_partitions_are_read_as_named_and_what_is_known_of_others_is_kept(self, broker, topic):
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_partitions([NewPartitions(topic, 2)])[topic].result(10)
        for number in (0, 1):
            until(lambda n=number: fill(broker.address, topic, [(None, CALL % n)], n), "the partition")
        with reader(broker.address, topic) as one:
            _, _, both = reads(one, messages=2)
        with reader(broker.address, topic, partitions=[1]) as one:
            batches, _, place = reads(one, messages=1)
            assert calls(batches) == ["c1"]
            fill(broker.address, topic, [(None, CALL % 2)], 1)
            batches, _, place = reads(one, both, messages=1)
        assert calls(batches) == ["c2"]
        assert dict(zip(place[2::4], place[3::4], strict=True)) == {0: 1, 1: 2}
        with (
            reader(broker.address, topic, partitions=[1, 2]) as one,
            pytest.raises(InputError, match="none of number 2"),
        ):
            reads(one, messages=1)

    def test_partitions_that_are_added_are_read_from_their_first_message_on(self, broker, topic, monkeypatch):
        monkeypatch.setattr(kafka, "LOOK_S", 0.2)
        admin = AdminClient({"bootstrap.servers": broker.address})
        with reader(broker.address, topic, start="latest") as one:
            reading = one.read(None)
            place = next(read.place for read in reading if read is not None)
            admin.create_partitions([NewPartitions(topic, 2)])[topic].result(10)
            until(lambda: fill(broker.address, topic, [(None, CALL % 1)], 1), "the partition")
            found = until(lambda: next(reading), "the new partition's message")
            assert found.chunks[0].at(0) == f"{topic}[1]@0"
        # The same, where they came while nobody read.
        with reader(broker.address, topic, start="latest") as one:
            batches, _, _ = reads(one, place, messages=1)
        assert calls(batches) == ["c1"]

    def test_a_topic_made_again_is_not_taken_for_the_one_before(self, broker, topic, monkeypatch):
        monkeypatch.setattr(kafka, "LOOK_S", 0.2)
        admin = AdminClient({"bootstrap.servers": broker.address})
        fill(broker.address, topic, [(None, CALL % 1)])
        with reader(broker.address, topic) as one:
            _, _, place = reads(one, messages=1)
            reading = one.read(place)
            next(read for read in reading if read is not None)
            admin.delete_topics([topic])[topic].result(10)
            with pytest.raises(InputError, match="must stay a topic that can be read"):
                until(lambda: next(reading), "the end")
        make_topic(broker.address, topic)
        fill(broker.address, topic, [(None, CALL % number) for number in (2, 3)])
        with reader(broker.address, topic) as one, pytest.raises(InputError, match="deleted and made again"):
            reads(one, place, messages=1)
        with reader(broker.address, topic, on_gap="skip", start="latest") as one:
            batches, _, _ = reads(one, place, messages=2)
        assert calls(batches) == ["c2", "c3"]

    @pytest.mark.parametrize("policy", ["compact", "compact,delete"])
    def test_a_compacted_topic_is_told_of_and_read(self, broker, topic, monkeypatch, policy):
        told = queue.Queue()
        monkeypatch.setattr(kafka_client, "log", lambda event, **fields: told.put((event, fields)))
        make_topic(broker.address, f"{topic}.compacted", settings={"cleanup.policy": policy})
        fill(broker.address, topic, [(b"k", CALL % 1)])
        fill(broker.address, f"{topic}.compacted", [(b"k", CALL % 2)])
        with reader(broker.address, topic, f"{topic}.compacted") as one:
            batches, _, _ = reads(one, messages=2)
            event, fields = told.get(timeout=10)
        assert sorted(calls(batches)) == ["c1", "c2"]
        assert (event, fields["topic"], fields["policy"]) == ("input.compacted", f"{topic}.compacted", policy)
        assert told.empty(), "nothing is told of the other one"

    def test_an_offset_behind_the_end_is_refused_whatever_gaps_may_be(self, broker, topic):
        fill(broker.address, topic, [(None, CALL % 1)])
        with reader(broker.address, topic, on_gap="skip") as one:
            _, _, place = reads(one, messages=1)
            with pytest.raises(InputError, match="the brokers have lost what was read already"):
                reads(one, (*place[:3], 7), messages=1)


class TestTransactions:
    @pytest.mark.parametrize("partitions", ["all", "0/1"])
    def test_what_was_taken_back_is_not_read_and_neither_waits_nor_counts_as_lost(self, broker, topic, partitions):
        writer = Producer({"bootstrap.servers": broker.address, "transactional.id": topic, "log_level": 0})
        writer.init_transactions(PATIENCE_S)
        for number in range(4):
            writer.begin_transaction()
            writer.produce(topic, CALL % number)
            writer.flush(PATIENCE_S)
            (writer.abort_transaction if number % 2 else writer.commit_transaction)(PATIENCE_S)
        with reader(broker.address, topic, partitions=partitions) as one:
            # Four messages, and behind each what says how its transaction ended.
            batches, letters, place = reads(one, messages=8)
            assert (calls(batches), letters) == (["c0", "c2"], [])
            one.measure()
            assert one.lag == {(topic, 0): 0}
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.delete_records([TopicPartition(topic, 0, -1)])[TopicPartition(topic, 0)].result(10)
        fill(broker.address, topic, [(None, CALL % 4)])
        with reader(broker.address, topic, partitions=partitions) as one:
            assert calls(reads(one, place, messages=1)[0]) == ["c4"]


class TestDamaged:
    def test_what_cannot_be_unpacked_stops_reading_or_is_counted_and_passed_over(self, broker, topic):
        properties = {"compression.type": "zstd", "message.max.bytes": 200_000_000, "log_level": 0}
        writer = Producer({"bootstrap.servers": broker.address, **properties})
        # More than the client unpacks, in a few kilobytes.
        for value in (CALL % 1, CALL % 2 + b" " * 110_000_000, CALL % 3):
            writer.produce(topic, value)
            writer.flush(PATIENCE_S)
        with reader(broker.address, topic) as one:
            _, _, place = reads(one, messages=1)
            with pytest.raises(InputError, match=rf'{topic}\[0\]@1: must be readable.*on_gap = "skip" passes over'):
                reads(one, place, messages=1)
        with reader(broker.address, topic, on_gap="skip") as one:
            batches, letters, _ = reads(one, place, messages=2)
            assert (calls(batches), letters, one.lost) == (["c3"], [], 1)


class TestLetIn:
    """TLS and passwords: listeners that the broker has only where openssl made certificates."""

    @pytest.fixture
    def secured(self, broker):
        needs("openssl")
        return SimpleNamespace(**broker.addresses, folder=broker.folder / "tls")

    def test_a_user_with_the_password_reads_and_writes(self, topic, secured):
        given = {"tls": True, "ca_file": str(secured.folder / "ca.pem"), "username": USER, "secret_env": "X"}
        table = OutputTable(kind="kafka", brokers=secured.WORDS, topic=topic, **given)
        KafkaOutput("kafka", topic, connection(table, PASSWORD)).append(0, notices(3))
        with reader(secured.WORDS, topic, password=PASSWORD, **given) as one:
            assert len(reads(one, messages=3)[1]) == 3
        with reader(secured.WORDS, topic, password=PASSWORD[::-1], **given) as one:
            with pytest.raises(InputError, match=r"let in by the brokers, was not: .*[Aa]uthentication") as caught:
                reads(one, messages=1)
            assert PASSWORD[::-1] not in str(caught.value)

    def test_a_client_with_a_certificate_is_let_in_and_one_without_is_not(self, topic, secured, monkeypatch):
        given = {"tls": True, "ca_file": str(secured.folder / "ca.pem")}
        shown = {"client_cert_file": str(secured.folder / "client.pem")}
        table = OutputTable(kind="kafka", brokers=secured.CERTS, topic=topic, **given, **shown)
        KafkaOutput("kafka", topic, connection(table, None)).append(0, notices(3))
        with reader(secured.CERTS, topic, **given, **shown) as one:
            assert len(reads(one, messages=3)[1]) == 3
        monkeypatch.setattr(kafka_client, "CONNECT_S", 2.5)
        monkeypatch.setattr(kafka_client, "ANSWER_S", 0.5)
        with reader(secured.CERTS, topic, **given) as one, pytest.raises(InputError, match="refuses our certificate"):
            reads(one, messages=1)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_a_certificate_of_another_host_or_authority_is_refused(self, topic, secured, host):
        # The certificate is localhost's; the authority of the second is not among the system's.
        trusted = {"ca_file": str(secured.folder / "ca.pem")} if host == "127.0.0.1" else {}
        address = f"{host}:{secured.WORDS.rpartition(':')[2]}"
        given = {"tls": True, "username": USER, "secret_env": "X", **trusted}
        with (
            reader(address, topic, password=PASSWORD, **given) as one,
            pytest.raises(InputError, match="let in by the brokers"),
        ):
            reads(one, messages=1)

    def test_a_file_that_is_no_certificate_is_a_problem_of_the_configuration(self, tmp_path):
        (tmp_path / "ca.pem").write_text("nonsense")
        table = OutputTable(kind="kafka", brokers="127.0.0.1:9", topic="t", tls=True, ca_file=str(tmp_path / "ca.pem"))
        with pytest.raises(ConfigError, match="output kafka: must be what a client can use"):
            KafkaOutput("kafka", "t", connection(table, None))
        with pytest.raises(ConfigError, match=r"input\.kafka: must be"), reader("127.0.0.1:9", "t", **table_of(table)):
            pass


def table_of(table):
    return {"tls": table.tls, "ca_file": str(table.ca_file)}


class TestInjected:
    """What a mock cluster answers on demand."""

    @pytest.fixture
    def mock(self):
        one = Mock("t")
        yield one
        one.close()

    @staticmethod
    def output(mock, **properties):
        reached = connection(OutputTable(kind="kafka", brokers=mock.address, topic="t"), None)
        return KafkaOutput("kafka", "t", reached | {name.replace("_", "."): str(v) for name, v in properties.items()})

    def test_errors_that_pass_cost_nothing_and_repeat_nothing(self, mock):
        output = self.output(mock)
        mock.fail(PRODUCE, TIMED_OUT, TRANSPORT, TIMED_OUT)
        assert output.append(0, notices(20)) == 20
        assert [name for *_, name in records(mock.address, "t")] == [one.id for one in notices(20)]

    def test_an_error_that_stays_is_an_output_that_is_down_and_works_again_at_once(self, mock):
        output = self.output(mock)
        mock.fail(PRODUCE, NOT_AUTHORISED)
        with pytest.raises(OutputDownError, match=r"found 5 of 5 not taken: .*authorization failed"):
            output.append(0, notices(5))
        assert output.recover(0) == 0
        assert output.append(0, notices(5)) == 5

    def test_a_ping_is_a_message_like_any_other_and_what_the_broker_refuses_is_said_in_words(self, mock):
        assert ping(self.output(mock), "west", now_ms).taken
        assert [name.startswith("ping-") for *_, name in records(mock.address, "t")] == [True]
        mock.fail(PRODUCE, NOT_AUTHORISED)
        refused = ping(self.output(mock), "west", now_ms)
        assert (refused.taken, refused.words) == (
            False,
            "the broker does not let this user write: look at its access rules",
        )

    def test_a_broker_that_is_away_is_an_output_that_is_down(self, mock, monkeypatch):
        monkeypatch.setattr(sink, "CONFIRMED_S", 1.0)
        output = self.output(mock)
        mock.down()
        for found in ("timed out", "Connection refused"):
            with pytest.raises(OutputDownError, match=rf"found 5 of 5 .*{found}"):
                output.append(0, notices(5))
        mock.up()
        monkeypatch.setattr(sink, "CONFIRMED_S", 20.0)
        assert self.output(mock).append(0, notices(5)) == 5

        def taken() -> bool:
            # Its messages expire within a second still: on a busy machine it may have to try again, as the outbox does.
            with contextlib.suppress(OutputDownError):
                return output.append(0, notices(5)) == 5
            return False

        until(taken, "the broker that is back")

    def test_a_broker_that_never_answers_is_an_output_that_is_down(self, mock, monkeypatch):
        monkeypatch.setattr(sink, "CONFIRMED_S", 0.3)
        mock.down()
        output = self.output(mock, message_timeout_ms=60_000)
        with pytest.raises(OutputDownError, match="5 of 5 without an answer"):
            output.append(0, notices(5))

    def test_of_messages_refused_together_the_one_that_is_refused_alone_is_named(self, mock):
        output = self.output(mock)
        mock.fail(PRODUCE, TOO_LARGE)
        assert output.append(0, notices(3)) == 3
        big = [notice("a", 1), notice("b", 1, "x" * 1_100_000), notice("c", 1)]
        with pytest.raises(NotificationRefusedError, match="too large") as caught:
            output.append(3, big)
        assert caught.value.index == 1

    def test_a_full_queue_is_waited_for(self, mock):
        output = self.output(mock, queue_buffering_max_messages=5)
        assert output.append(0, notices(50)) == 50
        assert [name for *_, name in records(mock.address, "t")] == [one.id for one in notices(50)]

    @pytest.fixture
    def reading(self, mock, monkeypatch):
        """A reader of the mock, which cannot describe topics."""
        answer = Future()
        answer.set_result(SimpleNamespace(partitions=[SimpleNamespace(id=0)], topic_id=Uuid(0, 0)))
        monkeypatch.setattr(Brokers, "ask_topics", lambda _: {"t": answer})
        fill(mock.address, "t", [(None, CALL % 1)])
        with reader(mock.address, "t") as one:
            yield one

    def test_fetches_that_fail_for_a_while_lose_nothing(self, mock, reading):
        mock.fail(FETCH, TIMED_OUT, TRANSPORT, TIMED_OUT)
        _, _, place = reads(reading, messages=1)
        assert place[3] == 1

    def test_a_fetch_that_is_refused_ends_reading_with_its_place(self, mock, reading):
        mock.fail(FETCH, NOT_AUTHORISED)
        with pytest.raises(InputError, match=r"^t\[0\]: must be readable, was not: .*authorization failed"):
            reads(reading, messages=2)

    def test_brokers_that_do_not_answer_are_named_with_what_was_found(self, monkeypatch):
        # The client that hears why connects after a second.
        monkeypatch.setattr(kafka_client, "CONNECT_S", 2.5)
        monkeypatch.setattr(kafka_client, "ANSWER_S", 0.5)
        with (
            reader("127.0.0.1:9", "t") as one,
            pytest.raises(InputError, match=r"^127\.0\.0\.1:9: must answer within 2 s, did not: .*Connection refused"),
        ):
            reads(one, messages=1)

    def test_every_error_that_is_judged_by_its_name_exists(self):
        assert [name for name in AWAY | DAMAGED | REFUSED | GONE | sink.REFUSED if not hasattr(KafkaError, name)] == []
