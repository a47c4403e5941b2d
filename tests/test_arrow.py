"""Arrow streams: the same events as in JSON give the same columns, alerts and dead letters; hostile bytes give none."""

import contextlib
import gzip
import io
import itertools
import math
import random
import signal
import struct

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from pyarrow import ipc
from run_kit import Program, lines, recorded
from typer.testing import CliRunner

from dataflows import cli
from dataflows.commands.replay import replay
from dataflows.inputs.chunks import decoded
from dataflows.inputs.files import FileReader, Place
from detectors.settings import Settings
from schemas.arrow import stream as arrow_stream
from schemas.arrow.schema import FIELDS
from schemas.arrow.stream import FILE_MAGIC
from schemas.arrow.writer import write_arrow
from schemas.columns import DIRECTIONS, RELEASERS
from schemas.decode import Decoder, decode
from schemas.errors import InputError
from schemas.formats import HEAD_BYTES, Options, open_format
from schemas.formats import arrow as arrow_format
from schemas.formats.arrow import ArrowFormat, decode_stream

SETTINGS = Settings("test")
DECODER = Decoder()


# Streams, and what is in them


def stream(batches, **options):
    """Write record batches as one stream."""
    out = io.BytesIO()
    with ipc.new_stream(out, batches[0].schema, options=ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return out.getvalue()


def seeded(seed):
    return random.Random(seed)  # noqa: S311  seeded, not secret


def table(columns, kind="call"):
    return pa.record_batch(columns).replace_schema_metadata({"type": kind})


def calls(number, **columns):
    """Make a batch of plain calls, some columns replaced or added."""
    base = {
        "call_id": pa.array([f"c{row}" for row in range(number)]),
        "customer_id": pa.array([f"k{row % 3}" for row in range(number)]),
        "start_ms": pa.array(range(1_000, 1_000 + number)),
        "end_ms": pa.array(range(5_000, 5_000 + number)),
    }
    return table({name: column for name, column in (base | columns).items() if column is not None})


def written(events, **options):
    out = io.BytesIO()
    write_arrow([orjson.dumps(event) for event in events], out, **options)
    return out.getvalue()


def known(columns):
    """Show a batch's columns as values, row by row."""
    shown = {}
    for name in columns.__dataclass_fields__:
        column = getattr(columns, name)
        for key, one in (column if isinstance(column, dict) else {name: column}).items():
            shown[key] = [repr(one[row]) for row in range(len(columns))]
    return shown


def content(batch):
    return (
        batch.records,
        known(batch.calls),
        known(batch.media),
        known(batch.links),
        batch.business,
        [(one.position, one.reason, one.detail) for one in batch.rejects],
    )


def fed(data, piece_bytes=1 << 20):
    """Cut a stream into packets."""
    opened = ArrowFormat()
    pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
    return [packet for piece in [*pieces, b""] for packet in opened.cut(piece)] + opened.lost()


# Columns at random: every form that a field may come in, with values right and wrong

MOMENTS = {"start_ms": (0, 10), "answer_ms": (10, 20), "end_ms": (20, 30)}
"""Lawful times of a call."""
WORDS = {
    "direction": DIRECTIONS,
    "released_by": RELEASERS,
    "element_kind": ("trunk", "sbc"),
    "metric": ("latency_ms", "loss_ratio", "registered"),
    "topic": ("quality",),
    "kind": ("closed",),
    "result": ("fixed",),
    "status": ("open",),
    "currency": ("EUR",),
}
WIDTHS = [pa.int64(), pa.uint64(), pa.int32(), pa.uint16(), pa.int8()]


def lawful(rng, field):
    low, high = MOMENTS.get(field.name, (field.low, field.high))
    match field.kind:
        case "integer" | "time":
            return rng.choice([int(low), int(high), rng.randint(int(low), int(high))])
        case "number":
            return rng.choice([low or 0.0, high or 1e9, rng.uniform(low or 0.0, high or 1e4), float("nan")])
        case "texts":
            return rng.choices(["e", "mail", "é"], k=rng.randrange(3))
    return rng.choice(WORDS.get(field.name, ["x", "é" * int((high or 70) // 2), 'a"\\\n', "trunk", "\U0001f600"]))


def unlawful(rng, field):
    match field.kind:
        case "integer" | "time":
            return rng.choice([int(field.low) - 1, int(field.high) + 1, 2**63 - 1, 15])
        case "number":
            return rng.choice([float("inf"), -float("inf"), 1e300, -1.0, 1.0000001, 5.1, 0.0, -0.0])
        case "texts":
            return ["x" * 70_000]
    return rng.choice(["", *(letter * size for letter in "xé" for size in (64, 65, 128, 129, 257, 70_000))])


def missing(value):
    return value is None or (isinstance(value, float) and math.isnan(value))


def integer_array(rng, values):
    def fits(dtype):
        limits = np.iinfo(dtype)
        return all(value is None or limits.min <= value <= limits.max for value in values)

    return pa.array(values, rng.choice([one for one in WIDTHS if fits(one.to_pandas_dtype())]))


def number_array(rng, values):
    kind = rng.choice([pa.float64(), pa.float32(), pa.int16()])
    if kind == pa.int16():
        return pa.array([None if missing(value) else int(np.clip(value, -9, 9)) for value in values])
    if kind == pa.float32():
        with np.errstate(over="ignore"):
            values = [None if value is None else np.float32(value) for value in values]
    return pa.array(values, kind, from_pandas=False)


def text_array(rng, values):
    kind = rng.choice([pa.string(), pa.large_string(), pa.string_view()])
    if rng.random() < 0.4:
        return pa.array(values, kind)
    # A dictionary as bad as can be: in any order, with entries twice, without use, and unknown.
    entries = [*set(values), *values[:2], "unused", None]
    rng.shuffle(entries)
    index = [None if value is None and rng.random() < 0.5 else entries.index(value) for value in values]
    width = rng.choice([pa.int8(), pa.uint16(), pa.int64()])
    return pa.DictionaryArray.from_arrays(pa.array(index, width), pa.array(entries, kind))


def random_columns(rng, kind, count):
    """Draw the columns of one batch; up to two of them hold what they should not."""
    drawn = {}
    wrong = rng.choices(list(FIELDS[kind]), k=rng.randrange(3))
    for field in FIELDS[kind].values():
        if not field.required and rng.random() < 0.4:
            continue
        values = [
            unlawful(rng, field)
            if field.name in wrong and rng.random() < 0.3
            else None
            if rng.random() < 0.2 and (field.name in wrong or not field.required)
            else lawful(rng, field)
            for _ in range(count)
        ]
        match field.kind:
            case "texts":
                drawn[field.name] = pa.array(values, pa.list_(pa.string()))
            case "number":
                drawn[field.name] = number_array(rng, values)
            case "text":
                drawn[field.name] = text_array(rng, values)
            case _:
                drawn[field.name] = integer_array(rng, values)
    return drawn


def as_timestamps(rng, kind, columns):
    """Return the columns with some times as Arrow's own type."""
    some = [name for name, one in columns.items() if FIELDS[kind][name].kind == "time" and one.type == pa.int64()]
    zone = pa.timestamp("ms", tz="Europe/Berlin")
    return columns | {name: columns[name].cast(zone) for name in some if rng.random() < 0.5}


def as_json(kind, columns, row):
    """Write one row as a probe without Arrow would."""
    parts = [f'"type":"{kind}"'.encode()]
    for name, column in columns.items():
        value = column[row].as_py()
        if missing(value):
            continue
        infinite = isinstance(value, float) and abs(value) == float("inf")
        shown = (b"1e999" if value > 0 else b"-1e999") if infinite else orjson.dumps(value)
        parts.append(orjson.dumps(name) + b":" + shown)
    return b"{" + b",".join(parts) + b"}"


class TestLossless:
    @settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(st.integers(0, 2**32))
    def test_rows_right_and_wrong_are_what_they_would_be_as_json(self, seed):
        rng = seeded(seed)
        kind = rng.choice(["call", "call", "call", "media", "media", *FIELDS])
        count = rng.randint(1, 24)
        drawn = random_columns(rng, kind, count)
        batch = table(as_timestamps(rng, kind, drawn) | {"more": pa.array(range(count))}, kind)
        skip = rng.randrange(count)  # a slice begins inside its buffers
        sent = stream([batch.slice(skip)], compression=rng.choice([None, "lz4", "zstd"]))
        needed = [name for name, field in FIELDS[kind].items() if field.required]
        if any(pa.types.is_null(batch.schema.field(name).type) for name in needed):
            with pytest.raises(InputError, match="was null"):
                fed(sent, rng.randint(20, 3_000))
            return
        packets = fed(sent, rng.randint(20, 3_000))
        assert {packet.first for packet in packets} <= {1}
        assert sum(packet.count for packet in packets) == count - skip
        expected = decode(b"\n".join(as_json(kind, drawn, row) for row in range(skip, count)))
        found = packets[0].decode(DECODER)
        assert content(found) == content(expected)
        # A record that is too long is not written to its end.
        assert [one.record[:HEAD_BYTES] for one in found.rejects] == [
            one.record[:HEAD_BYTES] for one in expected.rejects
        ]
        event(f"{kind}, rows taken: {found.records > len(found.rejects)}, refused: {bool(found.rejects)}")


# The flow


@pytest.fixture(scope="module")
def telco(tmp_path_factory):
    """A folder with the calls of a telco, sound ones alone, and what a replay of them as JSON gave."""
    folder = tmp_path_factory.mktemp("telco")
    everything = lines(recorded(folder))
    out = io.BytesIO()
    write_arrow(everything, out)
    as_lines = [line for one in everything_of(out.getvalue()) for line in one]
    (folder / "calls.ndjson").write_bytes(b"".join(line + b"\n" for line in as_lines))
    counts = replay([folder / "calls.ndjson"], folder / "alerts.ndjson", SETTINGS)
    return folder, as_lines, counts


def everything_of(data):
    """Give the lines of each packet."""
    for packet in fed(data):
        yield [item.line for item in packet.items()]


def arrow_opener():
    return open_format("arrow", Options())


def replayed(folder, path):
    outs = folder / "alerts.again", folder / "dead.again"
    counts = replay([path], outs[0], SETTINGS, dead_letters=outs[1], open_format=arrow_opener)
    return outs[0].read_bytes(), outs[1].read_bytes(), counts


class TestFlow:
    @pytest.mark.parametrize(("rows", "compression"), [(50, None), (1_000, "zstd"), (100_000, None)])
    def test_alerts_are_those_of_json_byte_for_byte_whatever_the_record_batches(
        self, telco, monkeypatch, rows, compression
    ):
        folder, events, counts = telco
        # So that packets of every size come of so few calls.
        monkeypatch.setattr(arrow_format, "ROWS_MIN", rows // 3)
        monkeypatch.setattr(arrow_format, "ROWS_MAX", rows // 2)
        path = folder / "calls.arrows"
        with path.open("wb") as out:
            assert write_arrow(events, out, rows=rows, compression=compression) == len(events)
        assert counts.applied > 1_000
        assert (folder / "alerts.ndjson").stat().st_size > 1_000
        assert replayed(folder, path) == ((folder / "alerts.ndjson").read_bytes(), b"", counts)

    def test_the_file_format_several_streams_and_gzip_are_read_as_well(self, telco):
        folder, events, counts = telco
        half = len(events) // 2
        out = io.BytesIO()
        write_arrow(events, out)
        with ipc.open_stream(out.getvalue()) as stored, ipc.new_file(folder / "calls.arrow", stored.schema) as file:
            for batch in stored:
                file.write_batch(batch)
        assert (folder / "calls.arrow").read_bytes().startswith(FILE_MAGIC)
        with gzip.open(folder / "calls.arrows.gz", "wb") as out:
            write_arrow(events[:half], out)
            write_arrow(events[half:], out)
        for name in ("calls.arrow", "calls.arrows.gz"):
            assert replayed(folder, folder / name) == ((folder / "alerts.ndjson").read_bytes(), b"", counts)

    def test_dead_letters_name_file_and_row(self, tmp_path):
        wrong = calls(3, mos=pa.array([4.0, 9.0, 3.0]))
        (tmp_path / "c.arrows").write_bytes(stream([calls(2)]) + stream([wrong]))
        letters = [orjson.loads(line) for line in replayed(tmp_path, tmp_path / "c.arrows")[1].splitlines()]
        assert [(one["at"], one["reason"]) for one in letters] == [(f"{tmp_path}/c.arrows:4", "out_of_range")]

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 2**32))
    def test_reading_on_at_any_place_gives_the_rest_however_the_packets_lie(self, telco, seed):
        path = telco[0] / "places.arrows"
        rng = seeded(seed)
        batches = [calls(rng.randint(1, 9)) for _ in range(rng.randint(1, 9))]
        whole = b"".join(stream([batch]) for batch in batches[1:]) + stream(batches)
        # Cut off inside the last message: that is lost, and told once.
        whole = whole[: len(whole) - rng.choice([0, 30])]

        def read(place):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(arrow_format, "ROWS_MIN", rng.randint(1, 20))
                patch.setattr(arrow_format, "ROWS_MAX", rng.randint(1, 20))
                size = rng.randint(1, 3_000)
                yield from FileReader([path], place, chunk_bytes=size, open_format=arrow_opener)

        path.write_bytes(whole)
        expected = rows_of(read(Place()))
        for cut in list(read(Place())):
            given = [row for row in expected if row[0] <= cut.place.line] if cut.place.file == 0 else expected
            assert given + rows_of(read(cut.place)) == expected

    def test_what_is_appended_to_a_followed_file_is_read_on(self, tmp_path):
        path = tmp_path / "c.arrows"
        data = stream([calls(5), calls(4)])
        cuts = iter(FileReader([path], Place(), open_format=arrow_opener, follow=True))
        path.write_bytes(data[:-20])
        first = list(itertools.takewhile(lambda cut: cut is not None, cuts))
        assert [row for row, _ in rows_of(first)] == [1, 2, 3, 4, 5]
        path.write_bytes(data + stream([calls(1)]))
        second = list(itertools.takewhile(lambda cut: cut is not None, cuts))
        assert [row for row, _ in rows_of(second)] == [6, 7, 8, 9, 10]

    def test_a_file_that_is_not_the_one_that_was_read_is_refused(self, tmp_path):
        path = tmp_path / "c.arrows"
        path.write_bytes(stream([calls(5)]))
        (cut,) = FileReader([path], Place(), open_format=arrow_opener)
        path.write_bytes(stream([calls(5, region=pa.array(["r"] * 5))]))
        with pytest.raises(InputError, match="read of it before"):
            list(FileReader([path], cut.place, open_format=arrow_opener))

    def test_a_kill_at_any_moment_loses_and_changes_nothing(self, telco, tmp_path):
        _, events, _ = telco
        expected = tmp_path / "expected"
        with (tmp_path / "c.arrows").open("wb") as out:
            # Rows of streams whose columns differ do not go into one packet.
            for place, begin in enumerate(range(0, len(events), 100)):
                part = written_lines(events[begin : begin + 100])
                out.write(part if place % 2 else rewritten(part, plain))
        (tmp_path / "c.toml").write_text(
            '[deployment]\nname = "test"\n[input]\nformat = "arrow"\nfile = { paths = ["c.arrows"] }\n'
            '[[output]]\nkind = "file"\npath = "alerts.ndjson"\n'
        )
        replay([tmp_path / "c.arrows"], expected, SETTINGS, open_format=arrow_opener)
        rng, codes = seeded(7), []
        longest_s = 1.2
        while len(codes) < 3 or -signal.SIGKILL not in codes:
            program = Program(tmp_path, "run", "-c", "c.toml", epoch_ms=5, chunk_bytes=2_048)
            program.join(rng.uniform(0.1, longest_s))
            program.signal(signal.SIGKILL)
            codes.append(program.wait())
            # A quick machine may be done before: the next one is killed sooner.
            longest_s = max(0.1, 0.7 * longest_s)
        assert Program(tmp_path, "run", "-c", "c.toml", epoch_ms=100).wait() == 0
        told = sorted(orjson.loads(line)["id"] for line in lines(tmp_path / "alerts.ndjson"))
        assert told == sorted(orjson.loads(line)["id"] for line in lines(expected))


def written_lines(records):
    out = io.BytesIO()
    write_arrow(records, out)
    return out.getvalue()


def rows_of(cuts):
    """Name every row, or what is lost: its number, and the call or the reason."""
    found = []
    for cut in cuts:
        if cut is not None:
            batch, letters = decoded(Decoder(), cut.chunk)
            found += [
                (cut.chunk.positions[at], batch.calls.call_id[row]) for row, at in enumerate(batch.calls.position)
            ]
            found += [(int(letter.at.rpartition(":")[2]), letter.reason) for letter in letters]
    return found


class TestConvert:
    def test_a_stream_becomes_lines_of_json(self, telco, tmp_path):
        _, events, _ = telco
        (tmp_path / "c.arrows").write_bytes(written_lines(events))
        given = ["convert", "--format", "arrow", str(tmp_path / "c.arrows"), str(tmp_path / "c.ndjson")]
        result = CliRunner().invoke(cli.app, given)
        assert (result.exit_code, lines(tmp_path / "c.ndjson")) == (0, events)

    def test_what_breaks_a_rule_or_off_goes_to_the_dead_letters(self, tmp_path):
        batches = [calls(3, q850=pa.array([16, 1024, None])), calls(1, q850=pa.array([16]))]
        (tmp_path / "c.arrows").write_bytes(stream(batches)[:-300])
        given = ["convert", "--format", "arrow", str(tmp_path / "c.arrows"), str(tmp_path / "c.ndjson")]
        assert CliRunner().invoke(cli.app, given).exit_code == 0
        letters = [orjson.loads(line) for line in lines(tmp_path / "c.ndjson.dead.ndjson")]
        assert [(one["at"].rpartition(":")[2], one["reason"]) for one in letters] == [
            ("2", "out_of_range"),
            ("4", "truncated"),
        ]
        assert len(lines(tmp_path / "c.ndjson")) == 2


# What is no stream of events

WRONG = {
    "no-type": (calls(1).replace_schema_metadata(None), "a type, one of call, .* was absent"),
    "unknown-type": (table({"x": pa.array([1])}, "cdr"), "one of call, .* was 'cdr'"),
    "column-missing": (calls(1, customer_id=None), "column customer_id must be there, was absent"),
    "column-of-nothing": (calls(1, customer_id=pa.nulls(1)), "column customer_id must be text .* was null"),
    "fraction-for-integer": (calls(1, end_ms=pa.array([1.0])), "column end_ms must be an integer .* was double"),
    "time-of-no-zone": (calls(1, end_ms=pa.array([1], pa.timestamp("ms"))), "with a time zone, was timestamp"),
    "seconds": (calls(1, end_ms=pa.array([1], pa.timestamp("s", tz="UTC"))), r"timestamp\[ms\].* was timestamp\[s"),
    "time-for-integer": (calls(1, silence_ms=pa.array([1], pa.timestamp("ms", tz="UTC"))), "must be an integer, was"),
    "yes-for-number": (calls(1, mos=pa.array([True])), "column mos must be a float32, .* was bool"),
    "bytes-for-text": (calls(1, region=pa.array([b"x"])), "column region must be text .* was binary"),
    "numbers-by-dictionary": (calls(1, region=pa.array([7]).dictionary_encode()), "column region must be text .* was"),
    "text-for-list": (
        table({"customer_id": ["k"], "at_ms": [1], "consent": ["mail"]}, "profile"),
        "column consent must be a list of utf8 or large_utf8, was string",
    ),
}


class TestSchema:
    @pytest.mark.parametrize("case", WRONG)
    def test_a_wrong_column_is_an_error_of_the_whole_stream_that_names_it(self, case, tmp_path):
        batch, problem = WRONG[case]
        path = tmp_path / "wrong.arrows"
        path.write_bytes(stream([batch]))
        with pytest.raises(InputError, match=f"^{path}: .*{problem}"):
            list(FileReader([path], Place(), open_format=arrow_opener))

    def test_all_wrong_columns_are_told_at_once_and_a_command_ends_in_one_line(self, tmp_path):
        twice = pa.record_batch([pa.array([1])] * 2, names=["mos", "mos"]).replace_schema_metadata({"type": "call"})
        (tmp_path / "c.arrows").write_bytes(stream([twice]))
        given = ["replay", str(tmp_path / "c.arrows"), "--format", "arrow", "--alerts", str(tmp_path / "a")]
        with pytest.raises(InputError, match=r"customer_id must be there, .*column mos must be there once, was .* 2"):
            CliRunner().invoke(cli.app, given, catch_exceptions=False)

    @pytest.mark.parametrize("data", [b'{"type":"call"}\n', b"PAR1" * 9, b"\0" * 64, b"\xff" * 7 + b"x"])
    def test_what_is_no_arrow_at_all_is_an_error_not_a_dead_letter(self, data):
        if data.startswith(b"\xff"):
            assert [packet.decode(DECODER).records for packet in fed(data)] == [1]
        else:
            with pytest.raises(InputError, match="must be an Arrow IPC stream or file"):
                fed(data)

    def test_nothing_is_a_stream_of_no_events(self):
        assert fed(b"") == []
        assert fed(stream([calls(2).slice(2)])) == []

    def test_optional_columns_may_be_missing_or_of_nothing_and_others_of_any_type(self):
        batch = calls(2, region=pa.nulls(2), extra=pa.array([{"deep": [1]}, None]), type=pa.array(["x", "y"]))
        (found,) = decode_stream(DECODER, stream([batch]))
        assert (len(found.calls), found.rejects) == (2, [])
        assert [found.calls.places["region"][row] for row in range(2)] == [None, None]


# Damage, accidental and deliberate


class TestDamage:
    def test_a_stream_cut_off_anywhere_is_applied_up_to_there_and_the_rest_is_one_dead_letter(self):
        data = stream([calls(3), calls(4)])
        ends = [at for at in range(len(data) + 1) if data[at:].startswith(b"\xff\xff\xff\xff")]
        for at in range(12, len(data), 3):
            batches = [packet.decode(DECODER) for packet in fed(data[:at])]
            rows = sum(len(batch.calls) for batch in batches)
            assert rows in (0, 3, 7)
            lost = [one for batch in batches for one in batch.rejects]
            assert [one.reason for one in lost] == ([] if at in ends else ["truncated"])

    def test_text_that_is_not_utf8_costs_its_own_row_alone(self):
        names = pa.array([b"k1", b'k\xff\n"', b"k3"])
        broken = pa.Array.from_buffers(pa.string(), 3, names.buffers())
        for column in (
            broken,
            pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), broken),
            broken.cast(pa.string_view()),
        ):
            (found,) = decode_stream(DECODER, stream([calls(3, customer_id=column)]))
            assert [found.calls.customer_id[row] for row in range(2)] == ["k1", "k3"]
            assert [(one.position, one.reason) for one in found.rejects] == [(1, "not_text")]
            assert b'"customer_id":"k\xff\\n\\""' in found.rejects[0].record

    def test_a_record_batch_that_contradicts_itself_costs_no_other(self):
        offsets = pa.array([0, 9, 4, 2], pa.int32()).buffers()[1]
        column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abcdefghi")])
        good = calls(3)
        found = decode_stream(DECODER, stream([good, good.set_column(1, "customer_id", column), good]))
        assert [len(batch.calls) for batch in found] == [3, 0, 3]
        assert ["record batch 2" in one.detail for batch in found for one in batch.rejects] == [True]
        assert [packet.first for packet in fed(stream([good, good.set_column(1, "customer_id", column), good]))] == [
            1,
            4,
            7,
        ]

    @pytest.mark.parametrize("claim", [1 << 29, 1 << 40, (1 << 63) - 1])
    def test_what_claims_to_unpack_to_too_much_is_not_unpacked(self, claim):
        data = bytearray(stream([calls(200)], compression="lz4"))
        size = struct.pack("<q", 200 * 8)
        assert data.count(size) >= 2
        data[data.index(size) : data.index(size) + 8] = struct.pack("<q", claim)
        (found,) = decode_stream(DECODER, bytes(data))
        assert (found.records, "in memory" in found.rejects[0].detail) == (1, True)

    def test_a_long_text_shared_by_many_rows_is_not_written_out_for_each(self):
        view, text = pa.array(["x" * 8_000]).cast(pa.string_view()).buffers()[1:]
        views = pa.Array.from_buffers(pa.string_view(), 40_000, [None, pa.py_buffer(view.to_pybytes() * 40_000), text])
        (found,) = decode_stream(DECODER, stream([calls(40_000, reason=views)]))
        assert (found.records, len(found.calls)) == (1, 0)
        shared = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int8()), pa.array(["x" * 1_000_000]))
        packets = fed(stream([calls(300, reason=shared)]))
        assert [packet.count for packet in packets] == [128, 128, 44]
        assert {one.reason for packet in packets for one in packet.decode(DECODER).rejects} == {"too_large"}
        assert max(len(one.record) for one in packets[0].decode(DECODER).rejects) < 70_000

    def test_a_body_larger_than_may_be_held_is_not_waited_for(self, monkeypatch):
        monkeypatch.setattr(arrow_stream, "BATCH_BYTES_MAX", 2_000)
        found = [packet.decode(DECODER) for packet in fed(stream([calls(3), calls(500)]))]
        assert [len(batch.calls) for batch in found] == [3, 0]
        assert "claimed" in found[1].rejects[0].detail

    def test_additions_to_dictionaries_are_bounded_through_the_stream(self, monkeypatch):
        out = io.BytesIO()
        schema = calls(1, reason=pa.array(["r"], pa.dictionary(pa.int32(), pa.string()))).schema
        with ipc.new_stream(out, schema, options=ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
            for count in range(1, 9):
                words = pa.array([f"{word:0500}" for word in range(count)])
                reason = pa.DictionaryArray.from_arrays(pa.array([count - 1], pa.int32()), words)
                writer.write_batch(calls(1, reason=reason))
        assert sum(len(batch.calls) for batch in decode_stream(DECODER, out.getvalue())) == 8
        monkeypatch.setattr(arrow_stream, "BATCH_BYTES_MAX", 2_500)
        found = decode_stream(DECODER, out.getvalue())
        assert sum(len(batch.calls) for batch in found) == 5
        assert sum(len(batch.rejects) for batch in found) == 1


def plain(column):
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def as_views(column):
    return plain(column).cast(pa.string_view()) if pa.types.is_string(plain(column).type) else column


def rewritten(data, change):
    with ipc.open_stream(data) as stored:
        batches = [
            pa.RecordBatch.from_arrays([change(column) for column in batch.columns], names=batch.schema.names)
            for batch in stored
        ]
        return stream([batch.replace_schema_metadata(stored.schema.metadata) for batch in batches])


@pytest.fixture(scope="module")
def samples(telco):
    _, events, _ = telco
    base = written(map(orjson.loads, events[:24]), rows=10)
    packed = [written(map(orjson.loads, events[:24]), rows=10, compression=one) for one in ("lz4", "zstd")]
    return [base, *packed, rewritten(base, plain), rewritten(base, as_views)]


def mutated(rng, data):
    """Damage a stream here and there, sizes above all."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                size = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1])
                data[at & ~7 : (at & ~7) + 8] = struct.pack("<Q", size)
            case 2:
                data[at & ~3 : (at & ~3) + 4] = struct.pack("<I", rng.choice([0, 1, 255, 65_535, 2**31, 2**32 - 1]))
            case 3:
                del data[at : at + rng.randrange(64)]
    return bytes(data)


class TestHostile:
    @settings(max_examples=400, deadline=None)
    @given(st.integers(0, 2**32))
    def test_mutated_streams_are_an_error_or_rows_and_rejects_never_a_crash(self, samples, seed):
        rng = seeded(seed)
        data = mutated(rng, rng.choice(samples))
        held = pa.total_allocated_bytes()
        with contextlib.suppress(InputError):
            for packet in fed(data, rng.choice([1 << 20, 777])):
                batch = packet.decode(DECODER)
                assert batch.records == len(batch.calls) + len(batch.rejects)
                assert batch.records <= packet.count
        assert pa.total_allocated_bytes() - held < arrow_stream.BATCH_BYTES_MAX

    @given(st.binary(max_size=200))
    def test_random_bytes_behind_a_good_beginning_are_one_dead_letter(self, samples, noise):
        whole = samples[0][:-8]
        found = [packet.decode(DECODER) for packet in fed(whole + b"\0" + noise)]
        assert sum(len(batch.calls) for batch in found) == 24
        assert sum(len(batch.rejects) for batch in found) == 1


class TestDictionaries:
    @given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=30), st.randoms())
    def test_codes_do_not_depend_on_how_the_writer_numbered_them(self, values, rng):
        entries = ["c", "b", "a", "z"]
        rng.shuffle(entries)
        index = pa.array([None if value is None else entries.index(value) for value in values], pa.int32())
        by_dictionary = pa.DictionaryArray.from_arrays(index, pa.array(entries))
        found = [
            decode_stream(DECODER, stream([calls(len(values), trunk=column)]))[0].calls.places["trunk"]
            for column in (by_dictionary, pa.array(values, pa.string()))
        ]
        assert found[0].values == found[1].values == list(dict.fromkeys(one for one in values if one is not None))
        assert found[0].codes.tolist() == found[1].codes.tolist()
