import base64
import contextlib
import gzip
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from engine_kit import HOUR_MS, MONDAY_MS, SECOND_MS, call
from hypothesis import given, settings
from hypothesis import strategies as st
from run_kit import lines, recorded

from dataflows import cli
from dataflows.commands.replay import replay
from detectors.settings import Settings
from schemas.errors import InputError, StaylineError

STAYLINE = Path(sys.executable).with_name("stayline")
SETTINGS = Settings("test")


@pytest.fixture(scope="module")
def telco(tmp_path_factory):
    """A folder with recorded events and what one replay of them gave."""
    folder = tmp_path_factory.mktemp("telco")
    events = recorded(folder)
    counts = replay([events], folder / "alerts.ndjson", SETTINGS, dead_letters=folder / "dead.ndjson")
    return folder, events, counts


def again(telco, files, **options):
    """Replay once more; return alerts, dead letters, counts."""
    folder, _, _ = telco
    outs = folder / "alerts.again", folder / "dead.again"
    counts = replay(files, outs[0], SETTINGS, dead_letters=outs[1], **options)
    return outs[0].read_bytes(), outs[1].read_bytes(), counts


class TestResult:
    def test_the_telco_has_something_of_everything(self, telco):
        folder, _, counts = telco
        types = {orjson.loads(line)["type"].removeprefix("stayline.") for line in lines(folder / "alerts.ndjson")}
        assert types == {"alert.opened", "alert.updated", "alert.resolved", "incident.opened", "incident.cleared"}
        assert min(counts.applied, counts.duplicate, counts.late, counts.dead_lettered) > 0

    @settings(max_examples=10)
    @given(st.one_of(st.integers(1_000, 9_000), st.integers(9_000, 3_000_000)))
    def test_the_result_is_the_same_byte_for_byte_whatever_the_chunk_size(self, telco, chunk_bytes):
        folder, events, counts = telco
        expected = (folder / "alerts.ndjson").read_bytes(), (folder / "dead.ndjson").read_bytes(), counts
        assert again(telco, [events], chunk_bytes=chunk_bytes) == expected

    def test_the_result_is_the_same_from_parts_and_compressed(self, telco, tmp_path):
        folder, events, counts = telco
        whole = events.read_bytes().splitlines(keepends=True)
        parts = []
        for place, (begin, end) in enumerate(itertools.pairwise([0, 700, 701, 2_500, len(whole)])):
            parts.append(tmp_path / f"{place}.ndjson.gz")
            parts[-1].write_bytes(gzip.compress(b"".join(whole[begin:end])))
        alerts, _, found = again(telco, parts)
        assert (alerts, found) == ((folder / "alerts.ndjson").read_bytes(), counts)

    def test_another_process_gives_the_same_bytes(self, telco, tmp_path):
        folder, events, _ = telco
        (tmp_path / "c.toml").write_text('[deployment]\nname = "test"\n')
        given = [
            "replay",
            events,
            "--alerts",
            tmp_path / "a",
            "--dead-letters",
            tmp_path / "d",
            "-c",
            tmp_path / "c.toml",
        ]
        environment = os.environ | {"PYTHONHASHSEED": "99", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
        ended = subprocess.run([STAYLINE, *given], capture_output=True, text=True, check=True, env=environment)
        assert (tmp_path / "a").read_bytes() == (folder / "alerts.ndjson").read_bytes()
        assert (tmp_path / "d").read_bytes() == (folder / "dead.ndjson").read_bytes()
        assert "Traceback" not in ended.stderr

    def test_every_line_is_a_notification_and_they_are_in_the_order_of_event_time(self, telco):
        told = [orjson.loads(line) for line in lines(telco[0] / "alerts.ndjson")]
        times = [one["time"] for one in told]
        assert times == sorted(times)
        assert len({one["id"] for one in told}) == len(told) > 20
        for case in {one["id"].rpartition("-")[0] for one in told}:
            revisions = [one["data"]["revision"] for one in told if one["id"].rpartition("-")[0] == case]
            assert revisions == list(range(1, len(revisions) + 1))

    def test_records_out_of_order_do_not_put_their_notifications_out_of_order(self, tmp_path):
        # Two customers lose call after call; the one whose last call ended first is heard of last.
        ends_ms = [MONDAY_MS + place * HOUR_MS for place in range(1, 9)]
        events = [
            [call("first", end_ms, dropped=True) for end_ms in ends_ms],
            [call("second", end_ms + 100 * SECOND_MS, dropped=True) for end_ms in ends_ms],
        ]
        arrived = [one for pair in zip(events[1], events[0], strict=True) for one in pair]
        (tmp_path / "events").write_bytes(b"\n".join(map(orjson.dumps, arrived)))
        replay([tmp_path / "events"], tmp_path / "alerts", SETTINGS)
        told = [orjson.loads(line) for line in lines(tmp_path / "alerts")]
        assert [one["subject"] for one in told[:2]] == ["first", "second"]
        assert [one["time"] for one in told] == sorted(one["time"] for one in told)

    def test_the_four_counts_add_up_to_the_records_that_were_read(self, telco):
        folder, events, counts = telco
        records = sum(1 for line in events.read_bytes().split(b"\n") if line.strip())
        assert counts.applied + counts.duplicate + counts.late + counts.dead_lettered == records
        assert counts.dead_lettered == len(lines(folder / "dead.ndjson"))

    def test_dead_letters_point_at_their_records(self, telco):
        folder, events, _ = telco
        records = events.read_bytes().split(b"\n")
        for letter in map(orjson.loads, lines(folder / "dead.ndjson")):
            name, _, number = letter["at"].rpartition(":")
            assert name == str(events)
            assert base64.b64decode(letter["record_b64"]) == records[int(number) - 1]

    def test_events_may_come_through_a_pipe(self, telco, tmp_path):
        folder, events, counts = telco
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with subprocess.Popen(["cp", events, pipe]):
            assert replay([pipe], tmp_path / "a", SETTINGS) == counts
        assert (tmp_path / "a").read_bytes() == (folder / "alerts.ndjson").read_bytes()

    def test_dead_letters_need_not_be_wanted(self, telco, tmp_path):
        _, events, counts = telco
        assert replay([events], tmp_path / "a", SETTINGS) == counts
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


class TestFailure:
    @pytest.fixture
    def stayline(self, monkeypatch, capfd):
        def run(*arguments):
            monkeypatch.setattr(sys, "argv", ["stayline", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            return ended.value.code, *capfd.readouterr()

        return run

    def test_a_missing_file_is_one_line_and_nothing_is_written(self, stayline, telco, tmp_path):
        code, out, err = stayline("replay", telco[1], tmp_path / "nowhere", "--alerts", tmp_path / "a")
        assert (code, out, err) == (2, "", f"stayline: {tmp_path / 'nowhere'}: must be a file, was not\n")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_not_what_its_suffix_says_is_one_line(self, stayline, telco, tmp_path):
        (tmp_path / "a.gz").write_bytes(b"no gzip at all")
        (tmp_path / "out").write_bytes(b"old")
        code, out, err = stayline("replay", telco[1], tmp_path / "a.gz", "--alerts", tmp_path / "out")
        assert (code, out) == (1, "")
        assert re.fullmatch(rf"stayline: {tmp_path}/a.gz: must decompress to its end, did not: .*\n", err)
        assert (tmp_path / "out").read_bytes() == b"old"

    def test_who_cannot_write_the_result_is_told_before_anything_is_read(self, telco, tmp_path):
        told = []
        for outs in ({"alerts": tmp_path / "no/a"}, {"alerts": tmp_path / "a", "dead_letters": tmp_path / "no/d"}):
            with pytest.raises(StaylineError, match=r"no/[ad]: must be writable, was not: No such file"):
                replay([telco[1]], settings=SETTINGS, report=told.append, **outs)
        assert (told, list(tmp_path.iterdir())) == ([], [])

    def test_a_device_is_written_to_and_a_link_stays_one(self, telco, tmp_path):
        folder, events, _ = telco
        (tmp_path / "link").symlink_to(tmp_path / "target")
        replay([events], tmp_path / "link", SETTINGS, dead_letters=Path("/dev/null"))
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "target").read_bytes() == (folder / "alerts.ndjson").read_bytes()
        assert Path("/dev/null").is_char_device()
        given = [STAYLINE, "replay", events, "-c", tmp_path / "c.toml", "--alerts", "/dev/stdout"]
        (tmp_path / "c.toml").write_text('[deployment]\nname = "test"\n')
        ended = subprocess.run(given, capture_output=True, check=True)
        assert ended.stdout.startswith((folder / "alerts.ndjson").read_bytes())

    def test_a_failure_in_the_middle_leaves_the_old_files(self, telco, tmp_path):
        shutil.copy(telco[1], tmp_path / "good")
        (tmp_path / "bad.zst").write_bytes(b"\x28\xb5\x2f\xfd and then nothing of the sort")
        for name in ("a", "d"):
            (tmp_path / name).write_bytes(b"old")
        with pytest.raises(InputError):
            replay([tmp_path / "good", tmp_path / "bad.zst"], tmp_path / "a", SETTINGS, dead_letters=tmp_path / "d")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "bad.zst", "d", "good"]
        assert (tmp_path / "a").read_bytes() == (tmp_path / "d").read_bytes() == b"old"

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
    def test_who_ends_it_in_the_middle_finds_the_old_files_and_no_noise(self, telco, tmp_path, number, code):
        # The program reads from a pipe that does not end: it is in the middle for certain.
        pipe, alerts, some = tmp_path / "pipe.ndjson", tmp_path / "a", telco[1].read_bytes()[:600_000]
        os.mkfifo(pipe)
        alerts.write_bytes(b"old")
        given = [STAYLINE, "replay", pipe, "--alerts", alerts, "--chunk-bytes", "1000"]
        with subprocess.Popen(given, stderr=subprocess.PIPE) as program:
            with contextlib.suppress(BrokenPipeError), pipe.open("wb", buffering=0) as stream:
                stream.write(some)
                program.send_signal(number)
                while True:
                    stream.write(some)
            assert (program.wait(), program.stderr.read()) == (code, b"")
        assert alerts.read_bytes() == b"old"
