import base64
import contextlib
import gzip
import io
import itertools
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import zstandard
from formats_kit import source
from hypothesis import given
from hypothesis import strategies as st

from dataflows import cli
from dataflows.commands.convert import convert
from dataflows.commands.progress import progress
from dataflows.inputs.compressed import read_chunks, written_whole
from schemas.decode import decode_record
from schemas.errors import DeliveryError, InputError, StaylineError
from schemas.formats import Options, open_format
from schemas.formats.columnmap import ColumnMap

STAYLINE = Path(sys.executable).with_name("stayline")
COMMANDS = [
    "demo", "run", "replay", "simulate", "score", "bench", "convert", "formats", "check", "doctor", "canary", "explain",
    "forget", "dead-letters", "outputs", "state", "model",
]  # fmt: skip
MAP = """
[input.csv]
date_formats = ["unix_ms"]

[input.csv.columns]
call_id = "id"
customer_id = "from"
start_ms = "start"
end_ms = "end"
"""
ROWS = b"""id,from,start,end
c1,0999 1,1000,2000
c2,0999 2,3000,2000
c3,0999 3,soon,2000
,0999 4,1000,2000
c5,09991,1,2
"""


@pytest.fixture
def stayline(monkeypatch, capsys):
    """Run the program in this process; return its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stayline", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def vendor(tmp_path, monkeypatch):
    """A folder with a vendor's file, its column map, and the key in the environment."""
    (tmp_path / "map.toml").write_text(MAP)
    (tmp_path / "cdr.csv").write_bytes(ROWS)
    monkeypatch.setenv("STAYLINE_TOKEN_KEY", "k" * 32)
    return tmp_path


def converted(folder, out="events.ndjson", source="cdr.csv"):
    return ["convert", "--format", "csv", "-c", folder / "map.toml", folder / source, folder / out]


def letters(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


class TestProgram:
    def test_help_in_a_pipe_is_plain_text_that_names_every_command(self):
        shown = subprocess.run([STAYLINE, "--help"], capture_output=True, text=True, check=True).stdout
        assert re.findall(r"^  ([a-z][a-z-]+)  ", shown, re.MULTILINE) == COMMANDS
        assert shown.isascii()

    def test_what_a_command_needs_is_imported_when_it_runs(self):
        program = "import sys, dataflows.cli; print(*sys.modules)"
        loaded = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        assert not {"numpy", "numba", "pydantic", "rich", "bytewax", "river", "orjson"} & set(loaded)

    def test_the_version_is_told(self, stayline):
        code, out, _ = stayline("--version")
        assert (code, out.split()[0]) == (0, "stayline")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["unheard-of"],
            ["convert", "a"],
            ["convert", "--format", "csv", "no.csv", "out"],
            ["convert", __file__, "out"],
            ["convert", "--format", "dbase", __file__, "out"],
            ["convert", "--format", "hep", __file__, "out"],
            ["run"],
            ["run", "-c", "no.toml"],
            ["run", "-c", __file__],
            ["check", "-c", "."],
            ["replay", "--alerts", "out"],
            ["replay", "no.ndjson", "--alerts", "out"],
            ["replay", ".", "--alerts", "out"],
            ["replay", __file__, "--alerts", "out", "--format", "dbase"],
            ["simulate", "--customers", "few", "--out", "x"],
            ["simulate", "--customers", "0", "--out", "x"],
            ["score", "no.ndjson", "no.ndjson"],
            ["explain", "c1"],
            ["explain", "c1", "-c", "no.toml"],
        ],
    )
    def test_bad_arguments_end_with_2_and_no_traceback(self, stayline, arguments, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, out, err = stayline(*arguments)
        assert (code, out) == (2, "")
        assert err
        assert "Traceback" not in err
        assert list(tmp_path.iterdir()) == []

    def test_every_problem_of_arguments_and_configuration_is_told_on_a_line_of_its_own(self, stayline, tmp_path):
        (tmp_path / "bad.toml").write_text("[state]\nidle_days = 0\n[pager]\n")
        code, _, err = stayline("replay", "no1", "no2", "--alerts", "out", "-c", tmp_path / "bad.toml")
        assert code == 2
        assert [line.split(": ")[1] for line in err.splitlines()] == ["no1", "no2", "state.idle_days", "pager"]
        assert all(line.startswith("stayline: ") for line in err.splitlines())

    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (DeliveryError("output crm: must answer, did not"), "stayline: output crm: must answer, did not"),
            (
                FileNotFoundError(2, "No such file or directory", "events.ndjson"),
                "stayline: events.ndjson: No such file or directory",
            ),
            (OSError("no space"), "stayline: no space"),
            (ValueError("odd"), "stayline: ValueError at test_cli.py:"),
        ],
    )
    def test_a_failure_at_run_time_ends_with_1_and_one_line(self, stayline, monkeypatch, error, line):
        def fails(*_):
            raise error

        monkeypatch.setattr("dataflows.config.load", fails)
        code, _, err = stayline("check", "-c", "any.toml")
        assert code == 1
        assert err.startswith(line)
        assert err.count("\n") == 1

    def test_run_says_what_of_a_valid_configuration_it_cannot_do(self, stayline, monkeypatch):
        monkeypatch.setenv("STAYLINE_INPUT__FORMAT", "hep")
        code, _, err = stayline("run", "-c", Path(__file__).parent / "config/full.toml")
        assert code == 2
        assert "input.format: must be one whose records stand alone where input.kind is kafka, was hep" in err

    def test_check_prints_a_configuration_that_checks_the_same(self, stayline, tmp_path, monkeypatch):
        monkeypatch.setenv("STAYLINE_CRM_SECRET", "whsec_" + 8 * "QUJD")
        code, out, err = stayline("check", "-c", Path(__file__).parent / "config/full.toml")
        assert (code, err) == (0, "")
        (tmp_path / "shown.toml").write_text(out)
        assert stayline("check", "-c", tmp_path / "shown.toml") == (0, out, err)

    def test_check_refuses_the_files_of_outputs_that_run_would_refuse(self, stayline, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        table = '[[output]]\nkind = "file"\nname = "%s"\npath = "%s"\n'
        (tmp_path / "c.toml").write_text(table % ("a", "nowhere/alerts.ndjson") + table % ("b", tmp_path))
        code, shown, said = stayline("check", "-c", "c.toml")
        assert (code, "nowhere/alerts.ndjson" in shown) == (2, True)
        assert said.count("must be a file in a folder that exists, was not") == 2

    def test_what_holds_back_at_an_output_that_is_no_webhook_is_said_to_belong_there(self, stayline, tmp_path):
        given = '[[output]]\nkind = "file"\npath = "a"\nquiet = { hours = "22:00-07:00" }\n'
        (tmp_path / "c.toml").write_text(given + "contact_cap = { contacts = 1, days = 1 }\n")
        code, _, said = stayline("check", "-c", tmp_path / "c.toml")
        assert code == 2
        for key in ("quiet", "contact_cap"):
            assert f"output.0.{key}: must stand at a webhook, which alone holds anything back\n" in said

    def test_two_outputs_of_one_path_are_told_beside_every_other_problem(self, stayline, tmp_path):
        table = '[[output]]\nkind = "file"\nname = "%s"\npath = "a.ndjson"\n'
        (tmp_path / "c.toml").write_text(table % "a" + table % "b" + "backlog_max = 0\n")
        code, _, said = stayline("check", "-c", tmp_path / "c.toml")
        assert code == 2
        assert "output.1.backlog_max: must be at least 1" in said
        assert "output.1.path: must be a file of its own, was that of output.0" in said

    def test_check_refuses_what_run_would_refuse_and_shows_the_configuration_all_the_same(self, stayline, tmp_path):
        full = Path(__file__).parent / "config/full.toml"
        missing = "stayline: output.0.secret_env: the webhook's secret must stand in the variable named, "
        code, out, err = stayline("check", "-c", full)
        assert (code, err) == (2, f"{missing}and STAYLINE_CRM_SECRET is not set\n")
        assert 'name = "west"' in out
        (tmp_path / "bare.toml").write_text("[deployment]\nname = 'west'\n")
        code, _, err = stayline("check", "-c", tmp_path / "bare.toml")
        assert (code, err.count("valid, and `stayline run` would need more")) == (0, 2)


class TestConvert:
    def test_every_row_is_an_event_or_a_dead_letter_with_its_line(self, stayline, vendor):
        code, out, _ = stayline(*converted(vendor))
        assert code == 0
        assert out.startswith("5 records read: 2 events in ")
        assert ", 3 dead letters in " in out
        calls = [decode_record(line) for line in (vendor / "events.ndjson").read_bytes().splitlines()]
        assert [call.call_id for call in calls] == ["c1", "c5"]
        assert calls[0].customer_id == calls[1].customer_id
        dead = letters(vendor / "events.ndjson.dead.ndjson")
        assert [one["at"] for one in dead] == [f"{vendor / 'cdr.csv'}:{line}" for line in (3, 4, 5)]
        assert [one["reason"] for one in dead] == ["inconsistent", "wrong_type", "missing_field"]
        # Its number is masked: only where the record stood is it still to be read.
        assert base64.b64decode(dead[0]["record_b64"]) == b"x#,#### #,####,####"
        assert not any("999" in one["detail"] for one in dead)

    def test_the_format_may_be_the_configuration_s(self, stayline, vendor):
        (vendor / "map.toml").write_text('[input]\nformat = "csv"\n' + MAP)
        assert stayline("convert", "-c", vendor / "map.toml", vendor / "cdr.csv", vendor / "out")[0] == 0

    def test_dead_letters_go_where_they_are_wanted(self, stayline, vendor):
        stayline(*converted(vendor), "--dead-letters", vendor / "dead.ndjson.gz")
        assert len(gzip.decompress((vendor / "dead.ndjson.gz").read_bytes()).splitlines()) == 3
        assert not (vendor / "events.ndjson.dead.ndjson").exists()

    @pytest.mark.parametrize(("read", "write"), list(itertools.product(["", ".gz", ".zst"], repeat=2)))
    def test_files_are_compressed_as_their_suffixes_say(self, stayline, vendor, read, write):
        with written_whole(vendor / f"again.csv{read}") as file:
            file.write(ROWS)
        assert stayline(*converted(vendor))[0] == 0
        assert stayline(*converted(vendor, f"again{write}", f"again.csv{read}"))[0] == 0
        again = b"".join(read_chunks(vendor / f"again{write}", lambda _: None))
        assert again == (vendor / "events.ndjson").read_bytes()

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_rows_before_a_broken_end_are_kept_and_the_end_is_a_dead_letter(self, stayline, vendor, suffix):
        rows = b"".join(b"c%d,0999,%d,%d\n" % (at * 7919 % 10_007, at, at * 31 % 997 + at) for at in range(20_000))
        with written_whole(vendor / f"cut.csv{suffix}") as file:
            file.write(ROWS[:18] + rows)
        whole = (vendor / f"cut.csv{suffix}").read_bytes()
        (vendor / f"cut.csv{suffix}").write_bytes(whole[: len(whole) * 3 // 4])
        code, _, _ = stayline(*converted(vendor, "cut", f"cut.csv{suffix}"))
        assert code == 0
        lines = (vendor / "cut").read_bytes().splitlines()
        assert len(lines) > 100
        (letter,) = letters(vendor / "cut.dead.ndjson")
        assert letter["reason"] == "truncated"
        assert letter["at"].endswith(f":{len(lines) + 2}")

    @pytest.mark.parametrize(
        ("name", "content"),
        [("plain.csv.gz", ROWS), ("plain.csv.zst", ROWS), ("other.csv", b"a,b\n1,2\n")],
    )
    def test_an_input_that_is_not_what_it_claims_leaves_the_old_output(self, stayline, vendor, name, content):
        (vendor / name).write_bytes(content)
        (vendor / "old").write_bytes(b"old")
        before = sorted(vendor.iterdir())
        code, _, err = stayline(*converted(vendor, "old", name))
        assert (code, err.count("\n")) == (1, 1)
        assert str(vendor / name) in err
        assert (vendor / "old").read_bytes() == b"old"
        assert sorted(vendor.iterdir()) == before

    def test_without_a_key_for_tokens_nothing_is_converted(self, stayline, vendor, monkeypatch):
        monkeypatch.delenv("STAYLINE_TOKEN_KEY")
        code, _, err = stayline(*converted(vendor))
        assert code == 2
        assert "the key that turns identities into tokens must stand in the variable named" in err
        assert "STAYLINE_TOKEN_KEY" in err
        assert not (vendor / "events.ndjson").exists()

    def test_an_output_must_be_another_file(self, stayline, vendor):
        code, _, err = stayline(*converted(vendor, "cdr.csv"))
        assert (code, "must be different files" in err) == (2, True)
        assert (vendor / "cdr.csv").read_bytes() == ROWS

    def test_an_output_that_cannot_be_written_is_told(self, stayline, vendor):
        code, _, err = stayline(*converted(vendor, "no/such/folder"))
        assert (code, "must be writable" in err) == (1, True)

    def test_files_of_one_input_are_joined_and_each_letter_names_its_own(self, stayline, tmp_path, monkeypatch):
        monkeypatch.setenv("STAYLINE_TOKEN_KEY", "0123456789abcdef")
        whole = source("cucm/joined").splitlines(keepends=True)
        (tmp_path / "cdr_1").write_bytes(b"".join(whole[:9]))
        (tmp_path / "cdr_2").write_bytes(whole[0] + whole[1] + b"1,broken\n")
        # What waits as a whole is given, though the last file breaks off.
        (tmp_path / "cmr.gz").write_bytes(gzip.compress(b"".join(whole[9:]))[:-6])
        (tmp_path / "one").write_bytes(b"".join(whole))
        several = [tmp_path / name for name in ("cdr_1", "cdr_2", "cmr.gz")]
        assert stayline("convert", "--format", "cucm", *several, tmp_path / "out")[0] == 0
        assert stayline("convert", "--format", "cucm", tmp_path / "one", tmp_path / "same")[0] == 0
        assert (tmp_path / "out").read_bytes() == (tmp_path / "same").read_bytes() != b""
        told = [(letter["reason"], letter["at"]) for letter in letters(tmp_path / "out.dead.ndjson")]
        assert ("not_json", f"{tmp_path / 'cdr_2'}:3") in told
        assert told[-1][0] == "truncated"
        assert told[-1][1].startswith(f"{tmp_path / 'cmr.gz'}:")

    @given(st.lists(st.text('c,"1\n', max_size=30)))
    def test_records_are_events_and_dead_letters_together(self, tmp_path_factory, rows):
        folder = tmp_path_factory.mktemp("rows")
        (folder / "in").write_text("id,from,start,end\nc1,a,1,2\n" + "\n".join(rows))
        column_map = ColumnMap(
            columns={"call_id": "id", "customer_id": "from", "start_ms": "start", "end_ms": "end"},
            date_formats=("unix_ms",),
            tokenise=(),
        )
        reader = open_format("csv", Options(csv=column_map))
        counts = convert([folder / "in"], folder / "out", folder / "dead", lambda: reader, lambda _: None)
        assert counts.records == counts.events + counts.rejected
        assert counts.events == (folder / "out").read_bytes().count(b"\n") >= 1
        assert counts.rejected == (folder / "dead").read_bytes().count(b"\n")


class TestReplay:
    def test_a_vendor_s_file_tells_what_its_conversion_tells(self, stayline, vendor):
        assert stayline(*converted(vendor, "events.ndjson.zst"))[0] == 0
        given = ["replay", "-c", vendor / "map.toml", "--alerts"]
        dead = vendor / "dead.ndjson"
        code, out, _ = stayline(*given, vendor / "a1", "--dead-letters", dead, "--format", "csv", vendor / "cdr.csv")
        assert (code, out.split()[0], " 3 dead letters" in out) == (0, "2", True)
        assert sorted(one["at"] for one in letters(dead)) == [f"{vendor / 'cdr.csv'}:{line}" for line in (3, 4, 5)]
        assert stayline(*given, vendor / "a2", vendor / "events.ndjson.zst")[0] == 0
        assert (vendor / "a1").read_bytes() == (vendor / "a2").read_bytes()


class TestSimulation:
    def test_a_simulated_telco_can_be_replayed_and_graded(self, stayline, tmp_path):
        code, out, _ = stayline("simulate", "--customers", 20, "--days", 2, "--seed", 5, "--out", tmp_path)
        assert (code, str(tmp_path / "events.ndjson") in out) == (0, True)
        code, _, _ = stayline("replay", tmp_path / "events.ndjson", "--alerts", tmp_path / "alerts.ndjson")
        assert code == 0
        code, out, _ = stayline("score", tmp_path / "alerts.ndjson", tmp_path / "truth.ndjson")
        assert (code, "three_in_seven" in out) == (0, True)

    def test_every_argument_that_does_not_hold_is_told(self, stayline, tmp_path):
        code, _, err = stayline("simulate", "--customers", 0, "--days", 0, "--seed", "-1", "--out", tmp_path)
        assert (code, err.count("\n")) == (2, 3)


class TestFiles:
    @given(st.lists(st.binary(max_size=50)), st.sampled_from(["", ".gz", ".zst"]))
    def test_what_is_written_is_read_back(self, tmp_path_factory, parts, suffix):
        path = tmp_path_factory.mktemp("files") / f"x{suffix}"
        with written_whole(path) as file:
            for part in parts:
                file.write(part)
        assert b"".join(read_chunks(path, lambda _: None)) == b"".join(parts)

    @pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
    def test_files_put_one_after_the_other_are_read_as_one(self, tmp_path, suffix, compress):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(compress(b"one") + compress(b"") + compress(b"two"))
        assert b"".join(read_chunks(path, lambda _: None)) == b"onetwo"

    @pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
    def test_a_file_cut_anywhere_is_never_taken_for_whole(self, tmp_path, suffix, compress):
        path, whole = tmp_path / f"x{suffix}", compress(bytes(range(256)) * 3)
        for size in range(1, len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError):
                list(read_chunks(path, lambda _: None))

    @pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
    def test_no_chunk_is_large_however_much_was_packed(self, tmp_path, compress):
        path = tmp_path / ("x.gz" if compress is gzip.compress else "x.zst")
        path.write_bytes(compress(bytes(64 << 20)))
        sizes = [len(chunk) for chunk in read_chunks(path, lambda _: None)]
        assert sum(sizes) == 64 << 20
        assert max(sizes) <= 17 << 20

    def test_reading_reports_how_far_it_is_in_the_file_on_disk(self, tmp_path):
        path, told = tmp_path / "x.zst", []
        path.write_bytes(zstandard.compress(b"x" * 1_000_000))
        list(read_chunks(path, told.append))
        assert told[-1] == path.stat().st_size

    def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(self, tmp_path):
        (tmp_path / "x").write_bytes(b"old")
        with contextlib.suppress(InputError), written_whole(tmp_path / "x") as file:
            file.write(b"new")
            raise InputError("no more")
        assert [path.name for path in tmp_path.iterdir()] == ["x"]
        assert (tmp_path / "x").read_bytes() == b"old"

    def test_a_missing_file_is_an_error_of_the_input(self, tmp_path):
        with pytest.raises(InputError, match="must be a file that can be read"):
            list(read_chunks(tmp_path / "x", lambda _: None))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, steps, total, unit="bytes"):
    """Report at given seconds; return what was shown, without the terminal's control sequences."""
    now = [0.0]
    with progress("replay", total, unit, stream, lambda: now[0]) as report:
        for second, done in steps:
            now[0] = second
            report(done)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


class TestProgress:
    @pytest.mark.parametrize("stream", [io.StringIO, Terminal])
    def test_what_takes_less_than_a_second_is_not_shown(self, stream):
        assert shown(stream(), [(0.1, 5), (0.9, 10)], 10) == ""

    def test_plain_lines_come_after_a_second_and_then_every_few(self):
        steps = [(second, second * 1_000_000) for second in range(1, 13)]
        assert shown(io.StringIO(), steps, 20_000_000).splitlines() == [
            "stayline: replay: 1.0 MB of 20.0 MB, 5%, 1 s",
            "stayline: replay: 6.0 MB of 20.0 MB, 30%, 6 s",
            "stayline: replay: 11.0 MB of 20.0 MB, 55%, 11 s",
            "stayline: replay: ended, 12.0 MB of 20.0 MB, 60%, 12 s",
        ]

    @pytest.mark.parametrize("total", [None, 0])
    def test_without_a_total_only_the_amount_is_told(self, total):
        assert shown(io.StringIO(), [(2, 30)], total, "days").splitlines()[0] == "stayline: replay: 30 days, 2 s"

    def test_a_terminal_has_a_bar(self):
        assert "replay" in shown(Terminal(), [(2, 5)], 10)

    def test_progress_ends_also_where_the_work_fails(self):
        stream = io.StringIO()
        with (
            contextlib.suppress(StaylineError),
            progress("replay", 9, "bytes", stream, itertools.count().__next__) as report,
        ):
            report(3)
            raise StaylineError("no more")
        assert stream.getvalue().splitlines()[-1].startswith("stayline: replay: ended, 3 bytes of 9 bytes")
