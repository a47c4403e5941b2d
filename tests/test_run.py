import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import orjson
import pytest
from delivery_kit import DRIP, SECRET, Receiver, notice
from run_kit import Program, lines, recorded, until

from dataflows.commands.replay import replay
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.decode import decode
from sinks.outbox import Outbox

STAYLINE = Path(sys.executable).with_name("stayline")
FILE_INPUT = 'kind = "file"\nfile = {{ paths = ["{events}"], follow = {follow} }}'
HTTP_INPUT = 'kind = "http"\nhttp = { listen = "127.0.0.1:0" }'
FILE_OUTPUT = '\n[[output]]\nkind = "file"\npath = "alerts.ndjson"\n'
METRICS = '\n[metrics]\nlisten = "127.0.0.1:0"\n'


@pytest.fixture(scope="module")
def telco(tmp_path_factory):
    """Recorded events, what replay tells of them, and what an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("telco")
    events = recorded(folder)
    replay([events], folder / "replayed", Settings("test"), dead_letters=folder / "dead")
    program = Program(deployed(folder, events), "run", "-c", "c.toml")
    assert program.wait() == 0, program.stderr()
    return folder, events


def deployed(folder, events, *, follow=False, input_=None, outputs=FILE_OUTPUT, more=""):
    """Write a configuration; return its folder."""
    given = FILE_INPUT.format(events=events, follow=str(follow).lower()) if input_ is None else input_
    (folder / "c.toml").write_text(f'[deployment]\nname = "test"\n[input]\n{given}\n{outputs}{more}')
    (folder / "secret").write_text(SECRET)
    return folder


def webhook(receiver, **options):
    more = "".join(f"{name} = {value}\n" for name, value in options.items())
    return f"""
[[output]]
kind = "webhook"
name = "crm"
url = "{receiver.url}"
secret_file = "secret"
allow_networks = ["127.0.0.0/8"]
{more}"""


def figures(address):
    """Read the metrics of a running program."""
    page = httpx2.get(f"{address}/metrics", trust_env=False).text
    return {
        name: float(value) for name, value in (line.rsplit(" ", 1) for line in page.splitlines() if line[:1] != "#")
    }


def records(address):
    return sum(value for name, value in figures(address).items() if name.startswith("stayline_records_total"))


def settled(address, count):
    """Tell whether so many records have been read and all that they gave has been delivered."""
    return records(address) == count and figures(address)['stayline_outbox_pending{output="file"}'] == 0.0


def assert_as_undisturbed(folder, telco):
    """Hold the outputs of a disturbed run against those of an undisturbed one."""
    assert (folder / "alerts.ndjson").read_bytes() == (telco[0] / "alerts.ndjson").read_bytes()
    # A crash may write dead letters again, but never half ones.
    assert set(lines(folder / "state/dead-letters.ndjson")) == set(lines(telco[0] / "state/dead-letters.ndjson"))


def assert_received(receiver, telco, *, once=False):
    """Hold what a webhook received against the undisturbed run: nothing missing, a repeat is the same."""
    expected = {orjson.loads(line)["id"]: line for line in lines(telco[0] / "alerts.ndjson")}
    received = [(request.id, request.body) for request in receiver.requests]
    assert set(received) == set(expected.items())
    assert not once or len(received) == len(expected)
    # Of one case the first arrivals are in order.
    firsts = list(dict.fromkeys(name for name, _ in received))
    for case in {name.rpartition("-")[0] for name in firsts}:
        revisions = [int(name.rpartition("-")[2]) for name in firsts if name.startswith(case)]
        assert revisions == sorted(revisions)


class TestRecorded:
    def test_a_run_over_files_ends_when_all_is_delivered_and_tells_what_replay_tells(self, telco, tmp_path):
        with Receiver() as receiver:
            deployed(tmp_path, telco[1], outputs=FILE_OUTPUT + webhook(receiver))
            ended = subprocess.run(
                [STAYLINE, "run", "-c", "c.toml"], cwd=tmp_path, capture_output=True, text=True, check=False
            )
        assert (ended.returncode, ended.stdout) == (0, "")
        assert sorted(lines(tmp_path / "alerts.ndjson")) == sorted(lines(telco[0] / "replayed"))
        assert_as_undisturbed(tmp_path, telco)
        assert_received(receiver, telco, once=True)
        logged = [orjson.loads(line) for line in ended.stderr.splitlines()]
        assert [one["event"] for one in logged] == ["run.started", "run.ended"]
        assert not logged[-1]["interrupted"]

    def test_dead_letters_name_file_and_line(self, telco):
        found = [orjson.loads(line)["at"] for line in lines(telco[0] / "state/dead-letters.ndjson")]
        assert found == [orjson.loads(line)["at"] for line in lines(telco[0] / "dead")]
        assert all(at.startswith(f"{telco[1]}:") for at in found)

    def test_what_was_done_is_not_done_again(self, telco):
        folder, _ = telco
        before = (folder / "alerts.ndjson").read_bytes(), (folder / "state/dead-letters.ndjson").read_bytes()
        assert Program(folder, "run", "-c", "c.toml").wait() == 0
        assert before == ((folder / "alerts.ndjson").read_bytes(), (folder / "state/dead-letters.ndjson").read_bytes())

    def test_state_is_for_this_user_alone(self, telco):
        state = telco[0] / "state"
        assert [path.stat().st_mode & 0o077 for path in (state, state / "engine", state / "recovery")] == [0, 0, 0]


class TestKill:
    """kill -9 at any moment, then again until all is done."""

    @staticmethod
    def disturbed(folder, seed, kills, whole_s):
        """Run until all is done, killed at moments up to `whole_s` behind each start; return the exit codes."""
        rng = random.Random(seed)  # noqa: S311  seeded, not secret
        codes = []
        for kill in range(kills + 1):
            program = Program(folder, "run", "-c", "c.toml", epoch_ms=rng.choice([5, 30, 300]), chunk_bytes=2_048)
            if kill < kills:
                # The moment is drawn, not awaited: anything may be in hand.
                program.join(rng.uniform(0.0, whole_s))
                program.signal(signal.SIGKILL)
            codes.append(program.wait())
        return codes

    @pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 23))])
    def test_nothing_is_lost_or_changed_and_repeats_are_the_same(self, telco, tmp_path, seed):
        for name in ("whole", "killed"):
            (tmp_path / name).mkdir()
        # How long a whole run takes differs by machine: one that is never disturbed tells.
        began = time.monotonic()
        assert Program(deployed(tmp_path / "whole", telco[1]), "run", "-c", "c.toml").wait() == 0
        whole_s = time.monotonic() - began
        with Receiver() as receiver:
            folder = deployed(tmp_path / "killed", telco[1], outputs=FILE_OUTPUT + webhook(receiver))
            codes = self.disturbed(folder, seed, 5, whole_s)
        assert codes[-1] == 0
        assert -signal.SIGKILL in codes
        assert set(codes) <= {0, -signal.SIGKILL}
        assert_as_undisturbed(folder, telco)
        assert_received(receiver, telco)

    def test_a_request_to_end_loses_repeats_and_fails_nothing(self, telco, tmp_path):
        with Receiver() as receiver:
            deployed(tmp_path, telco[1], outputs=FILE_OUTPUT + webhook(receiver))
            # Later than the start, where no handler stands yet.
            codes = []
            for place in range(6):
                program = Program(tmp_path, "run", "-c", "c.toml", chunk_bytes=8_192)
                until(lambda p=program: "run.started" in p.stderr(), "the start")
                program.join(0.05 * place)
                program.signal([signal.SIGTERM, signal.SIGINT][place % 2])
                codes.append(program.wait())
            codes.append(Program(tmp_path, "run", "-c", "c.toml").wait())
        assert codes == [0] * 7
        assert_as_undisturbed(tmp_path, telco)
        assert_received(receiver, telco, once=True)
        dead = lines(tmp_path / "state/dead-letters.ndjson")
        assert len(dead) == len(set(dead))


class TestEnding:
    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_request_of_either_sort_ends_at_once(self, telco, tmp_path, second):
        # The receiver holds every answer back, and with it the grace of the first request.
        with Receiver(lambda *_: DRIP) as receiver:
            program = Program(deployed(tmp_path, telco[1], outputs=webhook(receiver)), "run", "-c", "c.toml")
            until(lambda: receiver.requests, "a request")
            program.signal(signal.SIGTERM)
            until(lambda: "run.stopping" in program.stderr(), "the first request's effect")
            program.signal(second)
            assert program.wait() == -second

    def test_a_run_that_follows_picks_up_what_is_appended_and_where_it_left_off(self, telco, tmp_path):
        whole = telco[1].read_bytes().splitlines(keepends=True)
        events = tmp_path / "events.ndjson"
        events.write_bytes(b"".join(whole[:1_500]))
        deployed(tmp_path, "events.ndjson", follow=True, more=METRICS)
        for end in (2_500, len(whole)):
            program = Program(tmp_path, "run", "-c", "c.toml")
            address = program.address("metrics")
            with events.open("ab") as stream:
                stream.write(b"".join(whole[len(events.read_bytes().splitlines()) : end]))
            until(lambda a=address, e=end: settled(a, e), "the last delivery")
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
        told = lines(tmp_path / "alerts.ndjson")
        assert told == lines(telco[0] / "alerts.ndjson")[: len(told)]
        assert len(told) > 20

    def test_an_output_that_can_never_work_ends_even_a_run_that_has_nothing_to_tell(self, telco, tmp_path):
        shutil.copy(telco[1], tmp_path / "events.ndjson")
        deployed(tmp_path, "events.ndjson")
        assert Program(tmp_path, "run", "-c", "c.toml").wait() == 0
        # One more waits for an output whose file has lost what was written.
        outbox = Outbox.open(tmp_path / "state/outbox.sqlite3", {"file": 1_000}, lambda: 0)
        outbox.put([notice("case", 1)])
        outbox.close()
        (tmp_path / "alerts.ndjson").write_bytes(b"")
        program = Program(deployed(tmp_path, "events.ndjson", follow=True), "run", "-c", "c.toml")
        assert program.wait() == 1
        (said,) = [line for line in program.stderr().splitlines() if line[:1] != "{"]
        size = (telco[0] / "alerts.ndjson").stat().st_size
        assert said.startswith(
            f"stayline: output file: alerts.ndjson must hold the {size} bytes written so far, found 0"
        )


class TestBackPressure:
    @pytest.fixture
    def stuck(self, telco, tmp_path):
        """A running program whose backlog is full: where its output should be stands a folder."""
        events = tmp_path / "events.ndjson"
        events.touch()
        outputs = FILE_OUTPUT + "backlog_max = 3\n"
        deployed(tmp_path, "events.ndjson", follow=True, outputs=outputs, more=METRICS)
        program = Program(tmp_path, "run", "-c", "c.toml")
        address = program.address("metrics")
        (tmp_path / "alerts.ndjson").mkdir()
        events.write_bytes(telco[1].read_bytes())
        until(lambda: figures(address)['stayline_outbox_pending{output="file"}'] >= 3, "the full backlog")
        return program, address

    @staticmethod
    def finish(program, address, telco, folder):
        """Let everything through, and hold it against the undisturbed run."""
        until(lambda: settled(address, len(lines(telco[1]))), "the last delivery")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        told = lines(folder / "alerts.ndjson")
        assert told == lines(telco[0] / "alerts.ndjson")[: len(told)]
        assert len(told) > 20

    def test_a_full_backlog_stops_the_input_until_the_output_is_back_and_nothing_is_lost(self, telco, tmp_path, stuck):
        program, address = stuck
        assert records(address) < len(lines(telco[1]))
        (tmp_path / "alerts.ndjson").rmdir()
        self.finish(program, address, telco, tmp_path)

    def test_a_request_to_end_is_heard_while_the_backlog_is_full(self, telco, tmp_path, stuck):
        program, _ = stuck
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        (tmp_path / "alerts.ndjson").rmdir()
        program = Program(tmp_path, "run", "-c", "c.toml")
        self.finish(program, program.address("metrics"), telco, tmp_path)


class TestHttp:
    """Events by POST; killed between and during requests."""

    def test_posted_events_become_alerts_and_a_kill_loses_none(self, telco, tmp_path):
        # Calls alone: a repeated request is then recognised record by record.
        calls = [line for line in lines(telco[1]) if b'"type":"call"' in line]
        bodies = [b"\n".join(calls[place : place + 150]) for place in range(0, len(calls), 150)]
        engine = RiskEngine(Settings("test"), Catalogue.load(default_catalogue_text()))
        expected = [one.body for one in engine.apply(decode(b"\n".join(calls)))]
        assert len(expected) > 10
        deployed(tmp_path, None, input_=HTTP_INPUT, more=METRICS)
        rng, program = random.Random(3), None  # noqa: S311  seeded, not secret
        with httpx2.Client(trust_env=False, timeout=30) as client:
            for place, body in enumerate(bodies):
                taken = False
                while not taken:
                    if program is None or not program.running():
                        program = Program(tmp_path, "run", "-c", "c.toml", epoch_ms=rng.choice([5, 50]))
                    address = program.address("events")
                    blow = program.kill_after(rng.uniform(0.0, 0.02) if place % 5 == 2 and rng.random() < 0.8 else None)
                    with contextlib.suppress(httpx2.TransportError):
                        taken = client.post(f"{address}/v1/events", content=body).status_code == 202
                    blow.join()
        if not program.running():
            program = Program(tmp_path, "run", "-c", "c.toml")
        until(lambda: len(lines(tmp_path / "alerts.ndjson")) >= len(expected), "the last alert")
        metrics = program.address("metrics")
        until(lambda: records(metrics) >= len(calls), "the last record")
        assert figures(metrics)['stayline_records_total{outcome="applied"}'] == engine.counts.applied
        # What checkpoints have passed is not kept for ever: some twenty segments went through.
        until(lambda: len(list((tmp_path / "state/spool").iterdir())) <= 2, "the end of the passed segments")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert lines(tmp_path / "alerts.ndjson") == expected


class TestRefusals:
    def test_a_second_process_on_one_state_is_refused_in_one_line(self, telco, tmp_path):
        first = Program(deployed(tmp_path, telco[1], follow=True, more=METRICS), "run", "-c", "c.toml")
        first.address("metrics")
        second = subprocess.run(
            [STAYLINE, "run", "-c", "c.toml"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr == "stayline: state: must be used by one process, another one is running on it\n"
        first.signal(signal.SIGTERM)
        assert first.wait() == 0

    def test_a_damaged_state_is_refused_in_one_line(self, telco, tmp_path):
        deployed(tmp_path, telco[1])
        assert Program(tmp_path, "run", "-c", "c.toml").wait() == 0
        for path in (tmp_path / "state/engine").glob("*.state"):
            path.write_bytes(path.read_bytes()[:-1])
        program = Program(tmp_path, "run", "-c", "c.toml")
        assert program.wait() == 1
        *_, last = said = program.stderr().splitlines()
        assert last.endswith(".state: must match its digest, did not: the file is damaged")
        assert [orjson.loads(line)["event"] for line in said[:-1]] == ["run.started"]

    def test_a_taken_port_is_refused_in_one_line(self, telco, tmp_path):
        with Receiver() as receiver:
            taken = METRICS.replace(":0", f":{receiver.port}")
            program = Program(deployed(tmp_path, telco[1], more=taken), "run", "-c", "c.toml")
            assert program.wait() == 2
        assert program.stderr().startswith(f"stayline: listen: must be a free address, was 127.0.0.1:{receiver.port}")
