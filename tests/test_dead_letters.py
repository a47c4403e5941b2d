"""What went astray is listed, shown, given to the input or output again, or dropped: by hand, never silently."""

import base64
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import msgspec
import orjson
import pytest
from delivery_kit import SECRET, FakeClock, Receiver, notice
from engine_kit import MONDAY_MS, batch, call, engine
from kafka_kit import Mock
from run_kit import Program, lines, until

from bench.broker import fill
from dataflows import cli
from dataflows.commands.letterbox import Letterbox, Wanted
from dataflows.deadletters import DeadLetterFile, letter_id
from dataflows.inputs.files import Place
from dataflows.inputs.resubmitted import Resubmitted
from schemas.deadletters import DeadLetter, DeadReason
from schemas.errors import StateError
from schemas.formats.masks import masked
from sinks.breaker import Breaker
from sinks.outbox import Outbox
from sinks.outputs import Health, Outcome, State, Undeliverable
from sinks.queues import Ended

CONFIG = """
[deployment]
name = "test"
[input]
kind = "http"
http = { listen = "127.0.0.1:0" }
[metrics]
listen = "127.0.0.1:0"
[[output]]
kind = "file"
path = "alerts.ndjson"
"""
HTTP = 'kind = "http"\nhttp = { listen = "127.0.0.1:0" }'
CSV = """
format = "csv"
tokens = { secret_env = "STAYLINE_TOKEN_KEY" }
[input.csv]
header = false
tokenise = ["call_id", "customer_id"]
date_formats = ["unix_ms"]
[input.csv.columns]
call_id = 1
customer_id = 2
start_ms = 3
end_ms = 4
"""
CRM = """
[[output]]
kind = "webhook"
name = "crm"
url = "%s"
secret_file = "secret"
allow_networks = ["127.0.0.0/8"]
"""


def letter(number, record=None, reason=DeadReason.OUT_OF_RANGE, source="http", at=None):
    """A dead letter; its record is a good event unless told so, as after an upgrade that reads more."""
    data = orjson.dumps(call(f"secret-name-{number}", MONDAY_MS + number)) if record is None else record
    return DeadLetter(
        source, at or f"000001.ndjson:{number}", reason, "mos must be in 1..5, was 7", base64.b64encode(data).decode()
    )


@pytest.fixture
def deployed(tmp_path, monkeypatch):
    """A folder with a configuration and an empty state, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture
def stayline(deployed, monkeypatch, capfd):  # noqa: ARG001  it runs in that folder
    """Run the program in this process; return its exit code and what it printed."""

    def run(*arguments):
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["stayline", *map(str, arguments), "-c", "c.toml"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capfd.readouterr()

    return run


def put_down(folder, rows, inside, stack):
    """Put rows where an input reads them; return the input's tables, and where each of them stands."""
    if inside == "file":
        (folder / "cdr.csv").write_bytes(b"\n".join(rows) + b"\n")
        return 'kind = "file"\nfile = { paths = ["cdr.csv"] }', [f"cdr.csv:{n + 1}" for n in range(len(rows))]
    mock = Mock("cdr")
    stack.callback(mock.close)
    fill(mock.address, "cdr", [(None, row) for row in rows])
    source = f'kind = "kafka"\nkafka = {{ brokers = "{mock.address}", topics = ["cdr"] }}'
    return source, [f"cdr[0]@{n}" for n in range(len(rows))]


def dies_before_its_checkpoint():
    """Have a run killed when it has listed its dead letters, and passed none of them."""
    DeadLetterFile.sync = lambda _: os.kill(os.getpid(), signal.SIGKILL)


def records(folder):
    return DeadLetterFile(folder / "state/dead-letters.ndjson")


def give_up(folder, count=3, reply="422 secret-name-1 is wrong"):
    """Fill the outbox with deliveries that the output `crm` gave up."""
    clock = FakeClock()
    outbox = Outbox.open(folder / "state/outbox.sqlite3", {"crm": 100, "file": 100}, clock)
    outbox.put([notice(f"case{n}", 1) for n in range(count)])
    queue = outbox.queue("crm")
    dead = Outcome(State.DEAD, Health.WELL, reason=Undeliverable.REJECTED, reply=reply)
    queue.settle([Ended(one, dead, clock()) for one in queue.head(count)], clock(), Breaker())
    outbox.close()


class TestListing:
    def test_a_deployment_without_any_says_so(self, stayline):
        assert stayline("dead-letters", "list") == (0, "no dead letters\n", "")
        assert stayline("dead-letters", "list", "--json") == (0, "", "no dead letters\n")

    def test_records_and_deliveries_are_listed_with_ids_that_stay_and_without_identities(self, stayline, deployed):
        records(deployed).append([letter(1), letter(2)])
        give_up(deployed)
        code, shown, _ = stayline("dead-letters", "list")
        assert code == 0
        assert len(shown.splitlines()) == 5
        assert "secret-name" not in shown
        assert stayline("dead-letters", "list")[1] == shown
        found = [orjson.loads(line) for line in stayline("dead-letters", "list", "--json")[1].splitlines()]
        assert [one["id"] for one in found] == [
            letter_id(letter(1)),
            letter_id(letter(2)),
            "crm/case0-1",
            "crm/case1-1",
            "crm/case2-1",
        ]
        assert found[0]["detail"] == "mos must be in 1..5, was 7"
        assert found[2]["detail"] == "1 attempt, answered 422"
        assert "secret-name" not in str(found)

    def test_a_list_is_narrowed_by_kind_reason_and_source(self, stayline, deployed):
        records(deployed).append([letter(1), letter(2, reason=DeadReason.NOT_JSON), letter(3, source="file")])
        give_up(deployed)

        def counted(*arguments):
            code, shown, _ = stayline("dead-letters", "list", "--json", *arguments)
            assert code == 0
            return len(shown.splitlines())

        assert counted("--kind", "record") == counted("--kind", "delivery") == 3
        assert counted("--reason", "not_json") == counted("--source", "file") == 1
        assert counted("--source", "crm") == counted("--reason", "rejected") == 3
        assert counted("--source", "http") == 2

    def test_a_source_that_does_not_exist_is_told_with_those_that_do(self, stayline, deployed):
        give_up(deployed)
        code, _, said = stayline("dead-letters", "list", "--source", "bogus")
        assert code == 2
        assert said == "stayline: --source: must be one of crm, file, hep, http, kafka, resubmitted, was bogus\n"

    def test_a_reason_or_kind_that_does_not_exist_is_told_with_those_that_do(self, stayline):
        code, _, said = stayline("dead-letters", "list", "--reason", "bad", "--kind", "x")
        assert code == 2
        assert "--reason: must be one of expired, inconsistent, malformed," in said
        assert "--kind: must be record or delivery, was x" in said

    def test_one_that_a_crash_wrote_twice_is_one(self, stayline, deployed):
        for _ in range(2):
            records(deployed).append([letter(1)])
        assert len(stayline("dead-letters", "list")[1].splitlines()) == 1

    def test_a_long_list_is_cut_and_says_how_much_is_missing(self, stayline, deployed):
        records(deployed).append([letter(number) for number in range(120)])
        code, shown, said = stayline("dead-letters", "list")
        assert (code, len(shown.splitlines())) == (0, 100)
        assert said == "20 more of 120: --limit, or --json for all\n"

    def test_without_a_state_there_is_nothing_and_nothing_is_made(self, stayline, deployed):
        (deployed / "state").rmdir()
        code, _, said = stayline("dead-letters", "list")
        assert (code, said) == (1, "stayline: state: must be the state of a deployment, and there is none\n")
        assert not (deployed / "state").exists()

    def test_one_is_shown_with_its_answer_and_its_contents_only_on_request(self, stayline, deployed):
        records(deployed).append([letter(1)])
        give_up(deployed)
        name = letter_id(letter(1))
        code, shown, _ = stayline("dead-letters", "show", name)
        assert code == 0
        assert "secret-name" not in shown
        assert (
            stayline("dead-letters", "show", name, "--contents")[1]
            == orjson.dumps(call("secret-name-1", MONDAY_MS + 1)).decode() + "\n"
        )
        assert "answer   422 secret-name-1 is wrong" in stayline("dead-letters", "show", "crm/case0-1")[1]
        for unknown in ("dl_none", "crm/none", "none/case0-1"):
            assert stayline("dead-letters", "show", unknown)[0] == 1


class TestReplay:
    def test_a_replayed_record_is_given_to_the_input_and_leaves_the_list(self, stayline, deployed):
        records(deployed).append([letter(1), letter(2), letter(3)])
        said = stayline("dead-letters", "replay", letter_id(letter(2)))[:2]
        assert said == (0, "1 record given to the input again, 0 deliveries queued again\n")
        assert [one.at for _, one in records(deployed).read()] == ["000001.ndjson:1", "000001.ndjson:3"]
        (cut,) = Resubmitted(deployed / "state/resubmitted").read(Place(), ends=True)
        assert orjson.loads(cut.chunk.data)["customer_id"] == "secret-name-2"

    def test_what_still_cannot_be_read_stays_and_says_why(self, stayline, deployed):
        broken, cut_off = letter(1, b'{"type":"call"}'), letter(2, reason=DeadReason.TRUNCATED)
        records(deployed).append([broken, cut_off, letter(3)])
        code, shown, said = stayline("dead-letters", "replay", "--all")
        assert (code, shown) == (1, "1 record given to the input again, 0 deliveries queued again\n")
        assert f"still no event: {letter_id(broken)}: missing_field:" in said
        assert f"still no event: {letter_id(cut_off)}: truncated: only a part of the record is there" in said
        assert [name for name, _ in records(deployed).read()] == [letter_id(broken), letter_id(cut_off)]

    @pytest.mark.parametrize("inside", ["file", "kafka"])
    def test_a_vendors_record_is_read_again_where_it_stands_by_what_the_configuration_now_says(
        self, stayline, deployed, monkeypatch, inside
    ):
        monkeypatch.setenv("STAYLINE_TOKEN_KEY", 20 * "k")
        rows = [
            b"c1,442071230001,1000,2000",
            b"c2,442071230002,2024-01-01 00:00Z,2024-01-01 00:01Z",
            b"c3,442071230003,3000,x",
        ]
        with contextlib.ExitStack() as stack:
            source, places = put_down(deployed, rows, inside, stack)
            (deployed / "c.toml").write_text(CONFIG.replace(HTTP, source + CSV))
            masked_rows = [letter(n, masked(rows[n]), source=inside, at=places[n]) for n in (1, 2)]
            records(deployed).append(masked_rows)
            code, shown, said = stayline("dead-letters", "replay", "--all")
            assert (code, shown) == (1, "0 records given to the input again, 0 deliveries queued again\n")
            assert said.count("still no event: ") == 2
            # What was wrong was the configuration: now it knows how the second is written.
            mended = CSV.replace('"unix_ms"', '"unix_ms", "iso"')
            (deployed / "c.toml").write_text(CONFIG.replace(HTTP, source + mended))
            code, shown, said = stayline("dead-letters", "replay", "--all")
            assert (code, shown) == (1, "1 record given to the input again, 0 deliveries queued again\n"), said
            assert said.count("still no event: ") == 1
        (cut,) = Resubmitted(deployed / "state/resubmitted").read(Place(), ends=True)
        event = orjson.loads(cut.chunk.data)
        assert (event["call_id"][:4], event["customer_id"][:4]) == ("tok_", "tok_")
        assert [one.at for _, one in records(deployed).read()] == [places[2]]
        kept = b"".join(path.read_bytes() for path in (deployed / "state").rglob("*") if path.is_file())
        assert b"44207123" not in kept

    def test_a_vendors_record_that_stands_nowhere_any_more_says_what_to_do(self, stayline, deployed, monkeypatch):
        monkeypatch.setenv("STAYLINE_TOKEN_KEY", 20 * "k")
        (deployed / "cdr.csv").write_bytes(b"c1,442071230001,1000,2000\n")
        source = 'kind = "file"\nfile = { paths = ["cdr.csv"] }'
        (deployed / "c.toml").write_text(CONFIG.replace(HTTP, source + CSV))
        outline = masked(b"c7,442071230007,x,2000")
        records(deployed).append([letter(7, outline, source="file", at="cdr.csv:7"), letter(8, outline)])
        code, _, said = stayline("dead-letters", "replay", "--all")
        assert (code, said.count("still no event: ")) == (1, 2)
        assert "no record begins there now: must stand where it stood, mended" in said
        assert "must be sent again by its sender, mended" in said
        (deployed / "cdr.csv").unlink()
        assert "cdr.csv: must be a file that can be read" in stayline("dead-letters", "replay", "--source", "file")[2]

    def test_nothing_is_chosen_by_saying_nothing(self, stayline):
        for command in ("replay", "discard"):
            code, _, said = stayline("dead-letters", command)
            assert (code, said) == (
                2,
                "stayline: ID...: must be given, or --kind, --reason, --source or --all; none was\n",
            )

    def test_an_unknown_id_is_refused_before_anything_is_done(self, stayline, deployed):
        records(deployed).append([letter(1)])
        code, _, said = stayline("dead-letters", "replay", letter_id(letter(1)), "dl_none")
        assert (code, said) == (1, "stayline: dl_none: must be ids of dead letters of that sort, are none (any more)\n")
        assert len(list(records(deployed).read())) == 1

    def test_two_operators_do_not_replay_at_once(self, deployed):
        records(deployed).append([letter(1)])
        box = Letterbox(deployed / "state", None, FakeClock())
        with box._alone(), pytest.raises(StateError, match="one process may hold it, another one does"):
            box.replay(Wanted())

    def test_a_running_deployment_takes_replayed_records_once_and_goes_on_behind_them(self, stayline, deployed):
        cut = [orjson.dumps(call("victim", MONDAY_MS + n * 3_600_000, dropped=True)) for n in range(8)]
        expected = [one.body for one in engine().apply(batch(cut))]
        program = Program(deployed, "run", "-c", "c.toml")
        program.address("metrics")
        records(deployed).append([letter(n, record) for n, record in enumerate(cut)])
        assert stayline("dead-letters", "replay", "--all")[0] == 0
        until(lambda: len(lines(deployed / "alerts.ndjson")) == len(expected) > 0, "the alert")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert lines(deployed / "alerts.ndjson") == expected
        # Stopped and started: nothing of it comes twice, and what is replayed meanwhile is taken at the start.
        records(deployed).append([letter(9, orjson.dumps(call("victim", MONDAY_MS + 9 * 3_600_000, dropped=True)))])
        assert stayline("dead-letters", "replay", "--all")[0] == 0
        program = Program(deployed, "run", "-c", "c.toml")
        program.address("metrics")
        until(lambda: _applied(program) == 9, "the ninth call")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert not list(records(deployed).read())

    def test_files_that_were_read_to_their_end_are_no_obstacle(self, stayline, deployed):
        (deployed / "events.ndjson").write_bytes(orjson.dumps(call("quiet", MONDAY_MS)) + b'\n{"type":"call"}\n')
        http = 'kind = "http"\nhttp = { listen = "127.0.0.1:0" }'
        (deployed / "c.toml").write_text(CONFIG.replace(http, 'file = { paths = ["events.ndjson"] }'))
        assert Program(deployed, "run", "-c", "c.toml").wait() == 0
        cut = [orjson.dumps(call("victim", MONDAY_MS + n * 3_600_000, dropped=True)) for n in range(8)]
        records(deployed).append([letter(n, record) for n, record in enumerate(cut)])
        code, shown, said = stayline("dead-letters", "replay", "--all")
        assert (code, shown[:9], "missing_field" in said) == (1, "8 records", True)
        for _ in range(2):
            program = Program(deployed, "run", "-c", "c.toml")
            assert program.wait() == 0
            (ended,) = [one for one in map(orjson.loads, program.stderr().splitlines()) if one["event"] == "run.ended"]
            assert (ended["applied"], ended["dead_lettered"]) == (9, 1)
        assert {orjson.loads(line)["subject"] for line in lines(deployed / "alerts.ndjson")} == {"victim"}

    def test_a_replayed_delivery_reaches_the_receiver_under_its_old_id(self, stayline, deployed):
        with Receiver() as receiver:
            (deployed / "c.toml").write_text(CONFIG + CRM % receiver.url)
            give_up(deployed)
            assert stayline("dead-letters", "replay", "crm/case1-1")[:2] == (
                0,
                "0 records given to the input again, 1 delivery queued again\n",
            )
            program = Program(deployed, "run", "-c", "c.toml")
            until(lambda: receiver.requests, "the delivery")
            # And while it runs.
            assert stayline("dead-letters", "replay", "--source", "crm")[0] == 0
            until(lambda: len(receiver.requests) == 3, "the other deliveries")
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
        assert receiver.requests[0].id == "case1-1"
        assert sorted(request.id for request in receiver.requests) == ["case0-1", "case1-1", "case2-1"]


def _applied(program):
    page = httpx2.get(f"{program.address('metrics')}/metrics", trust_env=False).text
    found = [line for line in page.splitlines() if line.startswith('stayline_records_total{outcome="applied"}')]
    return float(found[0].split()[-1])


class TestDiscard:
    def test_nothing_is_dropped_without_a_yes(self, stayline, deployed):
        records(deployed).append([letter(1)])
        give_up(deployed)
        code, _, said = stayline("dead-letters", "discard", "--all")
        assert (code, said) == (2, "stayline: --yes: must be given to drop 4 dead letters for good, was not\n")
        assert len(stayline("dead-letters", "list")[1].splitlines()) == 4

    def test_what_is_dropped_is_gone_from_the_disk_and_counted(self, stayline, deployed):
        records(deployed).append([letter(1), letter(2)])
        give_up(deployed)
        name = letter_id(letter(1))
        assert stayline("dead-letters", "discard", name, "crm/case2-1", "--yes") == (0, "2 dead letters dropped\n", "")
        kept = (deployed / "state/dead-letters.ndjson").read_bytes()
        assert msgspec.json.decode(kept, type=DeadLetter) == letter(2)
        outbox = Outbox.open(deployed / "state/outbox.sqlite3", {"crm": 100}, FakeClock())
        crm = outbox.stats().outputs["crm"]
        assert (crm.dead, crm.discarded) == (2, 1)
        outbox.close()

    def test_a_record_read_again_after_a_crash_stays_discarded(self, stayline, deployed):
        (deployed / "events.ndjson").write_bytes(b"bad\n" + b'{"worse":1}\n')
        given = CONFIG.replace(HTTP, 'kind = "file"\nfile = { paths = ["events.ndjson"] }')
        (deployed / "c.toml").write_text(given)
        assert Program(deployed, "run", "-c", "c.toml", before=dies_before_its_checkpoint).wait() == -signal.SIGKILL
        first, second = (name for name, _ in records(deployed).read())
        assert stayline("dead-letters", "discard", first, "--yes") == (0, "1 dead letter dropped\n", "")
        assert Program(deployed, "run", "-c", "c.toml").wait() == 0
        assert [name for name, _ in records(deployed).read()] == [second]


APPENDS = """
import sys
sys.path.insert(0, sys.argv[1])
from test_dead_letters import DeadLetterFile, letter
from pathlib import Path
for number in range(1_000_000, 1_000_200):
    DeadLetterFile(Path("state/dead-letters.ndjson")).append([letter(number)])
"""


class TestFile:
    def test_what_is_appended_while_others_are_taken_out_is_not_lost(self, deployed):
        letters = records(deployed)
        with subprocess.Popen([sys.executable, "-c", APPENDS, str(Path(__file__).parent)]) as other:
            number = 0
            while other.poll() is None or number < 10:
                letters.append([letter(number)])
                letters.remove(lambda _, one, at=f":{number}": one.at.endswith(at))
                number += 1
        assert other.returncode == 0
        assert len(list(letters.read())) == 200

    def test_the_disk_is_waited_for_once_for_all_that_was_appended(self, deployed, monkeypatch):
        synced = []
        monkeypatch.setattr(os, "fsync", lambda _: synced.append(len(list(letters.read()))))
        letters = records(deployed)
        letters.append([letter(1), letter(2)])
        letters.append([letter(3)])
        assert synced == []
        letters.sync()
        assert synced == [3, 3]  # the file, and the folder for its name
        letters.sync()
        assert synced == [3, 3]

    def test_what_could_not_be_made_durable_is_tried_again(self, deployed, monkeypatch):
        letters = records(deployed)
        letters.append([letter(1)])
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        for _ in range(2):
            with pytest.raises(StateError, match="must be writable, was not: No space left on device"):
                letters.sync()

    def test_what_was_taken_out_is_not_listed_again_whichever_process_reads_it_again(self, deployed):
        letters, operator = records(deployed), records(deployed)
        for gone in (letter(1), letter(2)):
            letters.append([letter(1), letter(2), letter(3)])
            assert operator.remove(lambda _, one, gone=gone: one == gone) == 1
        for reader in (letters, records(deployed)):
            reader.append([letter(1), letter(2), letter(3)])
            assert [one.at for _, one in reader.read()] == [letter(3).at]
        assert (deployed / "state/dead-letters.gone").stat().st_mode & 0o077 == 0

    def test_half_an_id_that_a_crash_left_spoils_none_behind_it(self, deployed):
        (deployed / "state/dead-letters.gone").write_bytes(b"dl_hal")
        letters = records(deployed)
        letters.append([letter(1)])
        letters.remove(lambda _, __: True)
        letters.append([letter(1), letter(2)])
        assert [one.at for _, one in letters.read()] == [letter(2).at]

    def test_a_line_that_is_none_is_damage_and_told(self, deployed):
        (deployed / "state/dead-letters.ndjson").write_bytes(b'{"source":1}\n')
        with pytest.raises(StateError, match="must hold one dead letter a line"):
            list(records(deployed).read())


class TestResubmitted:
    def test_files_are_read_in_order_from_any_place_and_the_newest_is_never_pruned(self, tmp_path):
        folder = Resubmitted(tmp_path / "resubmitted")
        for number in range(3):
            folder.publish([b'{"n":%d}' % number, b"{}"])
        cuts = list(folder.read(Place(), ends=True))
        assert [cut.chunk.data for cut in cuts] == [b'{"n":%d}\n{}\n' % number for number in range(3)]
        for number, cut in enumerate(cuts):
            assert list(folder.read(cut.place, ends=True)) == cuts[number + 1 :]
        folder.prune(99)
        assert folder.numbers() == [3]
        folder.publish([b"{}"])
        assert [cut.place.file for cut in folder.read(cuts[-1].place, ends=True)] == [4]

    def test_half_a_file_is_none(self, tmp_path, monkeypatch):
        folder = Resubmitted(tmp_path / "resubmitted")
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StateError, match="must be writable, was not: No space left on device"):
            folder.publish([b"{}"])
        assert list(folder.read(Place(), ends=True)) == []
        monkeypatch.undo()
        folder.publish([b"{}"])
        assert len(list(folder.read(Place(), ends=True))) == 1
