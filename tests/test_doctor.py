"""The doctor looks at an input and takes nothing: what arrives, how late, what is missing for which pattern."""

import socket
import sys

import httpx2
import orjson
import pytest
from formats_kit import FORMATS, KEY
from hep_kit import MONDAY_MS, Dialog

from dataflows import cli
from dataflows.commands import doctor
from dataflows.commands.doctor import diagnose, told
from dataflows.commands.examination import Examination
from dataflows.config import load
from dataflows.inputs.chunks import Chunk
from dataflows.inputs.kafka import Poll
from dataflows.inputs.messages import Shard, Sharded, joined
from schemas.errors import ConfigError
from schemas.formats import described
from schemas.patterns import NEEDS, lacking, shown

CALL = {"type": "call", "call_id": "c1", "customer_id": "k1", "start_ms": 1_000, "answer_ms": 2_000, "end_ms": 62_000}


def configured(folder, text):
    path = folder / "s.toml"
    path.write_text(text)
    return load(path, {})


def of_events(folder, *events, seconds=60.0):
    path = folder / "events.ndjson"
    path.write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in events))
    return diagnose(configured(folder, f'[input]\nfile = {{ paths = ["{path}"] }}\n'), None, print, seconds=seconds)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class TestFindings:
    def test_shares_of_fields_are_of_the_records_of_their_type(self, tmp_path):
        media = {"type": "media", "call_id": "c1", "customer_id": "k1", "at_ms": 9_000, "interval_ms": 5_000}
        link = {
            "type": "link",
            "element_kind": "sbc",
            "element_id": "s",
            "at_ms": 1,
            "metric": "latency_ms",
            "value": 1,
        }
        churn = {"type": "churn", "customer_id": "k1", "at_ms": 70_000}
        found = of_events(
            tmp_path, CALL, CALL | {"call_id": "c2", "mos": 4.1, "probe_id": "p"}, media, link, churn
        ).findings
        assert found.records == 5
        assert found.types["call"].shares["mos"] == 0.5
        assert found.types["call"].shares["answer_ms"] == 1.0
        assert "sip_status" not in found.types["call"].shares
        assert {kind: fields.records for kind, fields in found.types.items()} == {
            "call": 2, "media": 1, "link": 1, "churn": 1,
        }  # fmt: skip
        assert found.probes == {"": 2, "p": 1}
        assert (found.first_ms, found.last_ms) == (1, 70_000)

    def test_the_same_event_twice_is_a_duplicate(self, tmp_path):
        assert of_events(tmp_path, CALL, CALL, CALL | {"end_ms": 63_000}).findings.duplicates == 1

    def test_dead_letters_have_a_count_and_the_first_one_s_place(self, tmp_path):
        bad = CALL | {"end_ms": 0}
        found = of_events(tmp_path, CALL, bad, bad, {"type": "none"}).findings
        assert found.dead_letters["inconsistent"].records == 2
        assert found.dead_letters["inconsistent"].at.endswith("events.ndjson:2")
        assert found.dead_letters["unknown_type"].records == 1
        assert found.records == 4

    def test_a_file_has_no_lateness_but_an_order(self, tmp_path):
        found = of_events(
            tmp_path, CALL, CALL | {"call_id": "c2", "start_ms": 0, "answer_ms": 0, "end_ms": 2_000}
        ).findings
        assert found.late is None
        assert found.behind.max_s == 60.0

    def test_a_live_input_s_events_are_as_late_as_their_arrival(self):
        examination = Examination(live=True)
        examination.take(Chunk("http", "x", orjson.dumps(CALL) + b"\n", (1,)), 65_000)
        assert examination.findings().late.p50_s == 3.0

    def test_of_nothing_nothing_is_said(self, tmp_path):
        diagnosis = of_events(tmp_path)
        assert diagnosis.findings.records == 0
        assert diagnosis.not_seen == []
        assert "cannot be told: no answered calls came" in "\n".join(told(diagnosis))


class TestPatterns:
    def test_what_is_missing_is_named(self, tmp_path):
        patterns = of_events(tmp_path, CALL).findings.patterns
        assert patterns["one_way_audio"].missing == [["packets_received"]]
        assert patterns["drop_rate"].missing == [list(NEEDS["drop_rate"][1])]
        assert patterns["duration_lock"].missing == []
        assert patterns["setup_failure"].calls == 0

    def test_a_pattern_is_judged_on_the_calls_that_it_is_looked_for_in(self, tmp_path):
        failed = {name: value for name, value in CALL.items() if name != "answer_ms"} | {
            "call_id": "f",
            "sip_status": 503,
        }
        patterns = of_events(tmp_path, CALL, failed).findings.patterns
        assert (patterns["setup_failure"].share, patterns["setup_failure"].calls) == (1.0, 1)
        assert patterns["drop_rate"].share == 0.0
        assert patterns["drop_rate"].missing

    def test_what_is_missing_is_said_of_the_calls_that_lack_it(self, tmp_path):
        failed = {name: value for name, value in CALL.items() if name != "answer_ms"} | {"call_id": "f"}
        said = "\n".join(told(of_events(tmp_path, CALL | {"q850": 16}, failed)))
        assert "q850, and none came with 1 calls that were not answered" in said

    def test_reports_during_calls_show_their_quality(self, tmp_path):
        media = {"type": "media", "call_id": "c1", "customer_id": "k1", "at_ms": 9_000, "interval_ms": 5, "mos": 3.0}
        assert of_events(tmp_path, CALL, media).findings.patterns["quality"].share == 1.0

    @pytest.mark.parametrize("kind", NEEDS)
    def test_a_pattern_lacks_nothing_exactly_where_each_group_has_a_field(self, kind):
        first = {group[0] for group in NEEDS[kind]}
        last = {group[-1] for group in NEEDS[kind]}
        assert kind in shown(first)
        assert kind in shown(last)
        assert lacking(kind, set()) == NEEDS[kind]
        for group in NEEDS[kind]:
            assert kind not in shown({one for other in NEEDS[kind] if other != group for one in other})

    def test_a_format_shows_what_its_fields_allow(self):
        told_of = {one.name: one.shows for one in described()}
        assert "one_way_audio" not in told_of["kamailio"]
        assert "drop_rate" not in told_of["vqrtcpxr"]
        assert told_of["csv"] == told_of["arrow"] == ("what its fields allow",)


class TestInputs:
    def test_reading_ends_when_enough_was_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(doctor, "RECORDS_MAX", 2)
        assert of_events(tmp_path, *(CALL | {"call_id": f"c{at}"} for at in range(5))).ended == "records"

    def test_a_followed_file_is_followed_until_the_time_is_over(self, tmp_path):
        path = tmp_path / "growing.ndjson"
        path.write_bytes(orjson.dumps(CALL) + b"\n")
        config = configured(tmp_path, f'[input]\nfile = {{ paths = ["{path}"], follow = true }}\n')
        diagnosis = diagnose(config, None, print, seconds=0.2)
        assert (diagnosis.ended, diagnosis.findings.records) == ("time", 1)
        assert diagnosis.findings.late is not None

    def test_a_vendor_s_file_tells_what_its_format_could_give_as_well(self, tmp_path):
        source = FORMATS / "asterisk" / "cdr-csv.in"
        config = configured(tmp_path, f'[input]\nformat = "asterisk"\nfile = {{ paths = ["{source}"] }}\n')
        diagnosis = diagnose(config, KEY, print)
        assert "trunk" in diagnosis.not_seen
        assert diagnosis.format == "asterisk"
        assert "never seen, though asterisk can give them: " in "\n".join(told(diagnosis))

    def test_records_over_http_are_looked_at_and_left_to_their_sender(self, tmp_path, monkeypatch):
        monkeypatch.setattr(doctor, "RECORDS_MAX", 3)
        config = configured(tmp_path, '[input]\nkind = "http"\nhttp = { listen = "127.0.0.1:0" }\n')
        body = orjson.dumps(CALL) + b"\n{"
        answers = []

        def send(sentence):
            url = next(word for word in sentence.split() if word.startswith("http")).rstrip(";")
            answers.extend(httpx2.post(url, content=one, timeout=30) for one in (body, body, orjson.dumps(CALL)))

        before = sorted(tmp_path.iterdir())
        diagnosis = diagnose(config, None, send)
        assert [answer.status_code for answer in answers] == [503, 503, 503]
        assert "retry-after" in answers[0].headers
        # Not five records: the same body again is the sender's second try.
        assert (diagnosis.ended, diagnosis.findings.records) == ("records", 3)
        assert diagnosis.findings.duplicates == 1
        assert diagnosis.findings.dead_letters["not_json"].at == "body 1:2"
        assert diagnosis.findings.late.p50_s > 0
        assert sorted(tmp_path.iterdir()) == before

    def test_a_vendor_s_records_over_http_are_looked_at_as_what_they_are(self, tmp_path, monkeypatch):
        monkeypatch.setattr(doctor, "RECORDS_MAX", 7)
        text = '[input]\nkind = "http"\nformat = "voipmonitor"\nhttp = { listen = "127.0.0.1:0" }\n'
        bodies = (FORMATS / "voipmonitor" / "table.in").read_bytes(), b"01632960001,2\n"

        def send(sentence):
            url = next(word for word in sentence.split() if word.startswith("http")).rstrip(";")
            for body in reversed(bodies):
                assert httpx2.post(url, content=body, timeout=30).status_code == 503

        diagnosis = diagnose(configured(tmp_path, text), KEY, send)
        assert diagnosis.format == "voipmonitor"
        assert diagnosis.findings.types["call"].records >= 5
        assert diagnosis.findings.dead_letters["not_json"].at == "body 1:1"
        assert "01632960001" not in "\n".join(told(diagnosis))

    def test_packets_are_assembled_and_what_is_open_is_no_dead_letter(self, tmp_path, monkeypatch):
        monkeypatch.setattr(doctor, "RECORDS_MAX", 2)
        config = configured(tmp_path, f'[input]\nkind = "hep"\nhep = {{ listen = "127.0.0.1:{free_port()}" }}\n')
        over, still = Dialog(), Dialog(call_id="c2")
        still.answered(MONDAY_MS)
        over.released(over.answered(MONDAY_MS) + 60_000)

        def send(sentence):
            host, _, port = next(word for word in sentence.split() if ":" in word).rstrip(",").rpartition(":")
            with socket.create_connection((host, int(port))) as agent:
                agent.sendall(still.data() + over.data())

        diagnosis = diagnose(config, KEY, send)
        assert diagnosis.findings.types["call"].records == 2
        assert diagnosis.findings.dead_letters == {}
        assert diagnosis.findings.probes == {"2001": 2}
        assert "2 calls began; 0 expired without a word, 0 evicted" in diagnosis.notes
        assert "open or just over: 2 calls" in diagnosis.notes

    def test_packets_of_a_file_that_give_no_event_are_told(self, tmp_path):
        begun, strayed = Dialog(), Dialog(call_id="c2")
        begun.released(begun.answered(MONDAY_MS) + 60_000)
        strayed.released(strayed.answered(MONDAY_MS) + 60_000)
        invite = len(strayed.packets[0])
        (tmp_path / "a.hep").write_bytes(begun.data() + strayed.data()[invite:])
        text = f'[input]\nfile = {{ paths = ["{tmp_path}/a.hep"] }}\nformat = "hep"\n'
        diagnosis = diagnose(configured(tmp_path, text), KEY, print)
        told_lines = list(told(diagnosis))
        assert any(note.endswith("stray: SIP or RTCP of calls whose INVITE was not seen") for note in diagnosis.notes)
        assert not any(note.startswith("0 packets stray") for note in diagnosis.notes)
        assert "by their own times" in told_lines[0]

    @pytest.mark.parametrize("apart", [False, True])
    def test_of_kafka_messages_are_read_and_no_offset_is_shown(self, tmp_path, monkeypatch, apart):
        asked = []

        class Reader:
            def __init__(self, given, _reached, group, opener):
                asked.append((given.topics, group, opener))

            def read(self, place):
                assert place is None
                yield None
                chunk = joined([orjson.dumps(CALL), b"{", None], [("t", 0, at) for at in range(3)])
                yield Poll([Sharded(Shard(0, 1, ()), [chunk]) if apart else chunk], ())

            def close(self):
                asked.append("closed")

        monkeypatch.setattr(doctor, "KafkaReader", Reader)  # which has no way to commit
        kafka = 'kafka = { brokers = "127.0.0.1:9092", topics = ["t"] }'
        text = f'[deployment]\nname = "west"\n[input]\nkind = "kafka"\n{kafka}\n'
        found = diagnose(configured(tmp_path, text), None, print).findings
        assert asked == [(("t",), "stayline-doctor-west", None), "closed"]
        assert found.dead_letters["not_json"].records == 2
        assert found.dead_letters["not_json"].at == "t[0]@1"
        assert found.types["call"].records == 1

    def test_a_busy_address_is_told(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            config = configured(tmp_path, f'[input]\nkind = "http"\nhttp = {{ listen = "127.0.0.1:{port}" }}\n')
            with pytest.raises(ConfigError, match="must be a free address"):
                diagnose(config, None, print)


class TestProgram:
    @pytest.fixture
    def stayline(self, monkeypatch, capsys):
        def run(*arguments):
            monkeypatch.setattr(sys, "argv", ["stayline", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            out, err = capsys.readouterr()
            return ended.value.code, out, err

        return run

    def test_it_speaks_to_people_and_to_machines(self, stayline, tmp_path, monkeypatch):
        monkeypatch.setenv("STAYLINE_TOKEN_KEY", KEY.decode())
        path = tmp_path / "s.toml"
        path.write_text(
            f'[input]\nformat = "freeswitch"\nfile = {{ paths = ["{FORMATS / "freeswitch" / "legs.in"}"] }}\n'
        )
        code, out, _ = stayline("doctor", "-c", path)
        assert code == 0
        assert out.startswith("file input, format freeswitch: ")
        assert "drop_rate       can be found, in " in out
        code, out, _ = stayline("doctor", "-c", path, "--json")
        said = orjson.loads(out)
        assert code == 0
        assert said["findings"]["patterns"]["drop_rate"]["missing"] == []
        assert said["ended"] == "input"
        assert not (tmp_path / "state").exists()

    def test_a_missing_key_is_a_problem_of_the_configuration(self, stayline, tmp_path, monkeypatch):
        monkeypatch.delenv("STAYLINE_TOKEN_KEY", raising=False)
        (tmp_path / "s.toml").write_text('[input]\nformat = "cucm"\n')
        code, _, err = stayline("doctor", "-c", tmp_path / "s.toml")
        assert code == 2
        assert "STAYLINE_TOKEN_KEY is not set" in err
