import base64
import gzip
import itertools
import tracemalloc
from pathlib import Path

import orjson
import pytest
import zstandard
from hep_kit import MONDAY_MS, TOKENS, Dialog
from hypothesis import given
from hypothesis import strategies as st

from dataflows.inputs.chunks import decoded
from dataflows.inputs.compressed import read_chunks
from dataflows.inputs.files import CHUNK_BYTES, MARK_BYTES, FileReader, Place
from schemas.deadletters import DeadReason
from schemas.decode import RECORD_BYTES_MAX, Decoder
from schemas.errors import InputError
from schemas.formats import Options, open_format
from schemas.formats.columnmap import ColumnMap

CHUNKS = st.integers(1, 60)
GOOD = b'{"type":"call","call_id":"c1","customer_id":"k1","start_ms":1000,"end_ms":2000}'
MAP = ColumnMap(
    columns={"call_id": "id", "customer_id": "from", "start_ms": "start", "end_ms": "end"},
    date_formats=("unix_ms",),
    tokenise=(),
)
CSV = b"""id,from,start,end
c1,"0999
1",1000,2000
c2,0999 2,3000,2000

c3,0999 3,soon,2000
c4,"0999 ""4"" b",1000,2000
c5,0999 5,1,2
"""
START = Place()
LINES = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=12)


def csv():
    return open_format("csv", Options(csv=MAP))


def read(paths, place=START, **options):
    """Read to the end."""
    return list(FileReader(list(paths), place, **options))


def lines_of(cuts):
    """Name every line: its file, its number, its bytes."""
    return [
        (Path(cut.chunk.name).name, position, line)
        for cut in cuts
        for position, line in zip(cut.chunk.positions, cut.chunk.data.removesuffix(b"\n").split(b"\n"), strict=True)
    ]


def letters_of(cuts):
    return [letter for cut in cuts for letter in decoded(Decoder(), cut.chunk)[1]]


def applied(cuts):
    return [name for cut in cuts for name in decoded(Decoder(), cut.chunk)[0].calls.call_id]


def write(folder, *contents):
    paths = [folder / f"{place}.ndjson" for place in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def numbered(contents):
    """The oracle: every line of every file, counted from 1; an end without line end is a line if it holds anything."""
    return [
        (f"{place}.ndjson", number, line)
        for place, content in enumerate(contents)
        for number, line in enumerate(content.removesuffix(b"\n").split(b"\n") if content else [], 1)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


class TestLines:
    @given(st.lists(st.tuples(LINES, st.booleans()), min_size=1, max_size=3), CHUNKS)
    def test_any_chunk_size_gives_every_line_of_every_file_with_its_number(self, folder, files, chunk_bytes):
        contents = [b"\n".join(lines) + (b"\n" if lines and ended else b"") for lines, ended in files]
        assert lines_of(read(write(folder, *contents), chunk_bytes=chunk_bytes)) == numbered(contents)

    @given(st.lists(LINES, min_size=1, max_size=3), CHUNKS, CHUNKS, st.data())
    def test_reading_on_from_any_place_gives_the_rest_and_the_same_places(self, folder, files, first, second, data):
        contents = [b"\n".join(lines) for lines in files]
        paths = write(folder, *contents)
        cuts = read(paths, chunk_bytes=first)
        done = data.draw(st.integers(0, len(cuts)))
        rest = read(paths, cuts[done - 1].place if done else Place(), chunk_bytes=second)
        assert lines_of(cuts[:done]) + lines_of(rest) == numbered(contents)
        assert [cut.place for cut in rest[-1:]] == [cut.place for cut in cuts[-1:] if done < len(cuts)]

    def test_a_place_counts_bytes_and_lines_of_its_file(self, tmp_path):
        paths = write(tmp_path, b"a\nbc\n", b"d\n\ne")
        places = [tuple(cut.place)[:3] for cut in read(paths, chunk_bytes=3)]
        assert places == [(0, 2, 1), (0, 5, 2), (1, 3, 2), (1, 4, 3)]

    def test_carriage_returns_and_blank_lines_cost_nothing(self, tmp_path):
        content = b"\r\n\n" + GOOD + b"\r\n  \t\r\n\n" + GOOD.replace(b"c1", b"c2") + b"\r\n"
        cuts = read(write(tmp_path, content))
        assert (applied(cuts), letters_of(cuts)) == (["c1", "c2"], [])
        assert sum(decoded(Decoder(), cut.chunk)[0].records for cut in cuts) == 2

    def test_a_last_line_without_its_end_is_a_record(self, tmp_path):
        assert applied(read(write(tmp_path, GOOD + b"\n" + GOOD.replace(b"c1", b"c2")))) == ["c1", "c2"]

    def test_a_dead_letter_names_file_and_line_and_holds_the_record(self, tmp_path):
        paths = write(tmp_path, GOOD, b"\n" + GOOD + b"\nbroken\n")
        (letter,) = letters_of(read(paths, chunk_bytes=7))
        assert (letter.source, letter.at, letter.reason) == ("file", f"{paths[1]}:3", "not_json")
        assert base64.b64decode(letter.record_b64) == b"broken"

    def test_a_missing_file_is_an_error_that_names_it(self, tmp_path):
        for follow in (False, True):
            with pytest.raises(InputError, match=r"nowhere.ndjson: must be a file"):
                read([tmp_path / "nowhere.ndjson"], follow=follow)

    def test_progress_counts_the_bytes_of_all_files_as_they_lie_on_disk(self, tmp_path):
        paths = write(tmp_path, GOOD, GOOD)
        paths[0] = tmp_path / "0.ndjson.gz"
        paths[0].write_bytes(gzip.compress(GOOD))
        told = []
        read(paths, report=told.append)
        assert told[-1] == sum(path.stat().st_size for path in paths)
        assert told == sorted(told)


class TestPlace:
    """A restart goes on in the file in which it stopped, or not at all."""

    def test_files_may_be_added_behind_those_that_were_read(self, tmp_path):
        paths = write(tmp_path, b"a\n", b"b\n", b"c\n")
        end = read(paths[:1])[-1].place
        assert [line for *_, line in lines_of(read(paths, end))] == [b"b", b"c"]

    @pytest.mark.parametrize("content", [b"", b"a\n", b"A\nb\nc\nd\n", b"a\nB\nc\nd\n"])
    def test_a_file_that_is_shorter_or_begins_otherwise_is_refused(self, tmp_path, content):
        paths = write(tmp_path, b"a\nb\nc\n")
        place = read(paths, chunk_bytes=4)[0].place
        paths[0].write_bytes(content)
        for follow in (False, True):
            with pytest.raises(InputError, match=r"0.ndjson: must hold the 4 bytes that were read of it before"):
                next(iter(FileReader(paths, place, follow=follow)))

    def test_a_vendor_s_file_that_was_put_in_the_place_of_another_is_refused(self, tmp_path):
        paths = write(tmp_path, CSV)
        place = read(paths, open_format=csv)[-1].place
        paths[0].write_bytes(CSV.replace(b"c5", b"c6") + b"c7,1,1,2\n")
        with pytest.raises(InputError, match="must hold the"):
            read(paths, place, open_format=csv)

    @given(st.integers(1, 9_000), st.data())
    def test_a_change_in_the_first_bytes_is_noticed_however_much_was_read(self, folder, size, data):
        at = data.draw(st.integers(0, min(size, MARK_BYTES) - 1))
        content = (b"0123456789\n" * 900)[:size]
        paths = write(folder, content)
        place = read(paths)[-1].place
        paths[0].write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(InputError, match="must hold the"):
            read(paths, place)


class TestJoined:
    """Files of HEP packets are one stream: captures are rotated in the midst of calls."""

    @staticmethod
    def packets():
        short, long = Dialog(), Dialog(call_id="c2")
        long.answered(MONDAY_MS)
        short.released(short.answered(MONDAY_MS + 60_000) + 60_000)
        long.released(MONDAY_MS + 300_000)
        return long.packets[:3], long.packets[3:-2] + short.packets, long.packets[-2:]

    @staticmethod
    def hep():
        return open_format("hep", Options(tokens=TOKENS))

    def test_a_call_goes_on_from_one_file_to_the_next(self, tmp_path):
        parts = [b"".join(packets) for packets in self.packets()]
        (whole,) = write(tmp_path, b"".join(parts))
        (tmp_path / "parts").mkdir()
        rotated = write(tmp_path / "parts", *parts)
        expected, found = read([whole], open_format=self.hep), read(rotated, open_format=self.hep)
        assert [line for _, _, line in lines_of(found)] == [line for _, _, line in lines_of(expected)]
        assert len(lines_of(found)) == 4
        assert letters_of(found) == []
        # A place is that of the packet with which a call was over, in the file where that one lies.
        assert {(name, position) for name, position, _ in lines_of(found)} == {("1.ndjson", 9), ("2.ndjson", 2)}

    def test_reading_on_from_any_place_gives_the_rest(self, tmp_path):
        rotated = write(tmp_path, *(b"".join(packets) for packets in self.packets()))
        cuts = read(rotated, open_format=self.hep, chunk_bytes=100)
        for index, cut in enumerate(cuts):
            assert lines_of(read(rotated, cut.place, open_format=self.hep)) == lines_of(cuts[index + 1 :])

    def test_a_packet_that_breaks_off_with_its_file_costs_nothing_of_the_next_one(self, tmp_path):
        first, second, third = (b"".join(packets) for packets in self.packets())
        rotated = write(tmp_path, first + second[:50], second, third)
        found = read(rotated, open_format=self.hep)
        assert [letter.at for letter in letters_of(found)] == [f"{rotated[0]}:4"]
        assert len(lines_of([cut for cut in found if cut.chunk.originals])) == 4

    def test_a_call_whose_end_is_in_no_file_is_one_dead_letter(self, tmp_path):
        first, second, _ = (b"".join(packets) for packets in self.packets())
        assert [letter.reason for letter in letters_of(read(write(tmp_path, first, second), open_format=self.hep))] == [
            DeadReason.TRUNCATED
        ]


def given_by(cuts):
    """Name every event; chunks of nothing but rejects have no lines."""
    return lines_of([cut for cut in cuts if cut.chunk.originals])


class TestJoinedRows:
    """Rows of one call may lie in several files: a switch writes CDR and CMR apart, and turns its files by the hour."""

    CDR = (
        "cdrRecordType,globalCallID_callManagerId,globalCallID_callId,origLegCallIdentifier,dateTimeOrigination,"
        "callingPartyNumber,destLegIdentifier,finalCalledPartyNumber,dateTimeConnect,dateTimeDisconnect\n"
    )
    CMR = (
        "cdrRecordType,globalCallID_callManagerId,globalCallID_callId,directoryNum,callIdentifier,dateTimeStamp,"
        "numberPacketsSent,numberPacketsReceived,numberPacketsLost,jitter\n"
    )

    @staticmethod
    def cdr(call, end_s):
        return f"1,1,{call},{2 * call},{end_s - 60},100{call},{2 * call + 1},2001,{end_s - 50},{end_s}\n"

    @staticmethod
    def cmr(call, leg, end_s):
        return f"2,1,{call},100{call},{2 * call + leg},{end_s},3000,3000,0,{call}\n"

    @staticmethod
    def cucm(**options):
        return lambda: open_format("cucm", Options(tokens=TOKENS, **options))

    def files(self, folder):
        first = self.CDR + self.cdr(1, 1_767_346_265) + self.cdr(2, 1_767_346_300) + "1,1,3,6,0,1003,7,2001,0,\n"
        reports = [self.cmr(1, 0, 1_767_346_266), self.cmr(2, 1, 1_767_346_301), self.cmr(1, 1, 1_767_346_266)]
        return write(folder, first.encode(), (self.CMR + "".join(reports) + "2,1,4\n").encode(), self.CDR.encode())

    def test_a_cdr_is_given_with_the_cmrs_of_another_file_under_its_own_name(self, tmp_path):
        found = read(self.files(tmp_path), open_format=self.cucm())
        told = [(name, position, orjson.loads(line)["jitter_ms"]) for name, position, line in given_by(found)]
        assert told == [("0.ndjson", 2, 1.0), ("0.ndjson", 3, 2.0)]
        assert sorted(letter.at.rpartition("/")[2] for letter in letters_of(found)) == ["0.ndjson:4", "1.ndjson:5"]

    @given(chunk_bytes=CHUNKS)
    def test_reading_on_from_any_place_gives_the_rest(self, folder, chunk_bytes):
        paths = self.files(folder)
        cuts = read(paths, open_format=self.cucm(), chunk_bytes=chunk_bytes)
        assert len(given_by(cuts)) == 2
        for index, cut in enumerate(cuts):
            assert given_by(read(paths, cut.place, open_format=self.cucm())) == given_by(cuts[index + 1 :])

    def test_a_cdr_waits_until_cmrs_of_ten_minutes_later_have_come(self):
        end_s = 1_767_346_265
        both = self.CDR + self.cdr(1, end_s) + self.cdr(2, end_s + 5) + self.CMR
        reader = self.cucm()()
        assert reader.feed((both + self.cmr(7, 0, end_s + 600)).encode()) == []
        (item,) = reader.feed(self.cmr(8, 0, end_s + 601).encode())
        assert item.position == 2

    def test_without_end_any_record_of_ten_minutes_later_ends_the_waiting(self):
        end_s = 1_767_346_265
        rows = self.CDR + self.cdr(1, end_s) + self.cdr(2, end_s + 601)
        assert self.cucm()().feed(rows.encode()) == []
        assert len(self.cucm(endless=True)().feed(rows.encode())) == 1

    def test_a_call_is_not_cut_in_two_where_accounting_turns_its_file(self, tmp_path):
        row = {
            "callid": "c1",
            "from_tag": "f",
            "to_tag": "t",
            "sip_code": "200",
            "src_user": "1001",
            "dst_user": "2001",
        }
        parts = [
            orjson.dumps({"method": method, "time": at, **row})
            for method, at in (("INVITE", 1_767_571_200), ("BYE", 1_767_571_260))
        ]
        found = read(write(tmp_path, *parts), open_format=lambda: open_format("kamailio", Options(tokens=TOKENS)))
        assert [(name, position) for name, position, _ in lines_of(found)] == [("1.ndjson", 1)]
        assert letters_of(found) == []


class TestTooLong:
    """A line longer than a record may be costs itself alone, and no memory."""

    def test_a_line_of_many_megabytes_is_one_reject_and_little_memory(self, tmp_path):
        path = tmp_path / "long.ndjson"
        with path.open("wb") as stream:
            for _ in range(40):
                stream.write(b"x" * (1 << 20))
            stream.write(b"\n" + GOOD + b"\n")
        tracemalloc.start()
        cuts = read([path])
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        (letter,) = letters_of(cuts)
        assert (letter.at, letter.reason, applied(cuts)) == (f"{path}:1", "too_large", ["c1"])
        assert peak_bytes < 3 * CHUNK_BYTES

    def test_a_file_that_is_one_endless_line_is_one_reject(self, tmp_path):
        path = tmp_path / "long.ndjson"
        path.write_bytes(b"x" * (2 << 20))
        cuts = read([path])
        assert [letter.reason for letter in letters_of(cuts)] == ["too_large"]
        assert cuts[-1].place[:3] == (0, 2 << 20, 1)

    def test_what_is_read_of_a_plain_file_at_once_ends_with_a_line_and_is_a_chunk(self, tmp_path):
        path = tmp_path / "large.ndjson"
        path.write_bytes(b"".join(b"%d\n" % number for number in range(900_000)))
        pieces = list(read_chunks(path, lambda _: None))
        assert len(pieces) > 1
        assert all(piece.endswith(b"\n") for piece in pieces)
        assert b"".join(pieces) == path.read_bytes()
        assert all(cut.chunk.data in pieces for cut in read([path]))

    @pytest.mark.parametrize("chunk_bytes", [1_000, RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1, 1 << 20])
    def test_a_long_line_that_begins_with_blanks_is_not_taken_for_a_blank_one(self, tmp_path, chunk_bytes):
        blank = b" " * (RECORD_BYTES_MAX + 5_000)
        cuts = read(write(tmp_path, blank + GOOD + b"\n" + GOOD.replace(b"c1", b"c2")), chunk_bytes=chunk_bytes)
        assert [(letter.at[-2:], letter.reason) for letter in letters_of(cuts)] == [(":1", "too_large")]
        assert applied(cuts) == ["c2"]

    @pytest.mark.parametrize("spare", [-1, 0, 1, 2])
    @pytest.mark.parametrize("chunk_bytes", [1_000, RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1, 1 << 20])
    def test_the_limit_is_met_to_the_byte_whatever_the_chunk_size(self, tmp_path, spare, chunk_bytes):
        padded = GOOD[:-1].ljust(RECORD_BYTES_MAX - 1 + spare) + b"}"
        cuts = read(write(tmp_path, padded + b"\n" + GOOD.replace(b"c1", b"c2")), chunk_bytes=chunk_bytes)
        assert applied(cuts) == (["c1", "c2"] if spare <= 0 else ["c2"])
        assert [letter.reason for letter in letters_of(cuts)] == ([] if spare <= 0 else ["too_large"])

    @given(
        st.lists(
            st.tuples(st.sampled_from([b" ", b"x", b"\r", b"[", GOOD]), st.integers(0, 90_000)).map(
                lambda part: (part[0] * (1 + part[1] // len(part[0])))[: part[1]]
            ),
            min_size=1,
            max_size=4,
        ),
        st.lists(st.integers(0, 3), min_size=1, max_size=6),
        st.sampled_from([5_000, 65_536, 65_537, 70_001]),
    )
    def test_what_becomes_of_long_lines_does_not_depend_on_the_chunk_size(self, folder, parts, order, chunk_bytes):
        lines = [b"".join(parts[: 1 + place % len(parts)]) for place in order]
        paths = write(folder, b"\n".join([*lines, GOOD]))
        whole, cut = read(paths, chunk_bytes=1 << 22), read(paths, chunk_bytes=chunk_bytes)
        assert letters_of(cut) == letters_of(whole)
        assert applied(cut) == applied(whole)
        assert cut[-1].place == whole[-1].place


class TestCompressed:
    @pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
    @given(data=st.data())
    def test_compressed_lines_are_the_plain_ones_from_any_place_on(self, folder, suffix, pack, data):
        content = b"".join(b"%d" % number * (number % 7) + b"\n" for number in range(300))
        path = folder / f"0.ndjson{suffix}"
        path.write_bytes(pack(content[:500]) + pack(content[500:]))
        cuts = read([path], chunk_bytes=data.draw(st.integers(20, 500)))
        done = data.draw(st.integers(1, len(cuts)))
        rest = read([path], cuts[done - 1].place)
        assert [line for *_, line in lines_of(cuts[:done] + rest)] == content[:-1].split(b"\n")

    @pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
    @given(cut=st.integers(6, 40_000), chunk_bytes=st.sampled_from([5_000, 1 << 18]))
    def test_an_early_end_is_one_dead_letter_and_every_line_before_it_stands(
        self, folder, suffix, pack, cut, chunk_bytes
    ):
        lines = [b"%d %d" % (number, number * 2_654_435_761 % 2**32) for number in range(20_000)]
        packed = pack(b"\n".join(lines))
        path = folder / f"torn.ndjson{suffix}"
        path.write_bytes(packed[: min(cut, len(packed) - 9)])
        *before, torn, after = read([path, *write(folder, GOOD)], chunk_bytes=chunk_bytes)
        found = [line for *_, line in lines_of(before)]
        assert found == lines[: len(found)]
        (letter,) = decoded(Decoder(), torn.chunk)[1]
        assert (letter.at, letter.reason) == (f"{path}:{len(found) + 1}", "truncated")
        assert after.chunk.data == GOOD, "the next file is read"

    def test_little_is_lost_of_a_torn_gzip_file(self, tmp_path):
        content = b"".join(GOOD.replace(b"c1", b"%d" % (number**5)) + b"\n" for number in range(2_000))
        path = tmp_path / "torn.ndjson.gz"
        path.write_bytes(gzip.compress(content)[:-20])
        with pytest.raises(InputError):
            list(itertools.islice(read_chunks(path, lambda _: None), 1_000))
        assert len(applied(read([path]))) > 1_900

    def test_reading_does_not_go_back_into_a_torn_file(self, tmp_path):
        path = tmp_path / "torn.ndjson.gz"
        path.write_bytes(gzip.compress(GOOD)[:-4])
        end = read([path])[-1].place
        assert lines_of(read([path], end)) == []
        assert lines_of(read([path, *write(tmp_path, b"next\n")], end)) == [("0.ndjson", 1, b"next")]

    def test_half_a_record_at_an_early_end_is_no_second_dead_letter(self, tmp_path):
        path = tmp_path / "torn.ndjson.gz"
        path.write_bytes(gzip.compress(GOOD + b"\n" + GOOD[:30])[:-8])
        (letter,) = letters_of(read([path]))
        assert (letter.at, letter.reason) == (f"{path}:2", "truncated")
        assert base64.b64decode(letter.record_b64) == GOOD[:30]

    def test_a_compressed_file_cannot_be_followed(self, tmp_path):
        path = tmp_path / "0.gz"
        path.write_bytes(gzip.compress(GOOD))
        with pytest.raises(InputError, match="must not be compressed where it is followed"):
            read([path], follow=True)


class TestFollow:
    @given(st.lists(st.binary(max_size=9), max_size=8), CHUNKS)
    def test_what_is_appended_is_picked_up_once_its_line_ends(self, folder, pieces, chunk_bytes):
        (path,) = write(folder, b"")
        reader = iter(FileReader([path], Place(), chunk_bytes=chunk_bytes, follow=True))
        written, cuts = b"", []
        for piece in pieces:
            with path.open("ab") as stream:
                stream.write(piece)
            written += piece
            cuts += list(iter(reader.__next__, None))
            ended = written[: written.rfind(b"\n") + 1]
            assert b"".join(cut.chunk.data for cut in cuts) == ended
            assert cuts == [] or cuts[-1].place[:3] == (0, len(ended), ended.count(b"\n"))

    def test_only_the_last_file_is_waited_for(self, tmp_path):
        reader = iter(FileReader(write(tmp_path, b"a", b"b"), Place(), follow=True))
        cut, waits = next(reader), next(reader)
        assert (cut.chunk.data, waits) == (b"a", None)

    def test_a_vendor_s_file_is_followed_too(self, tmp_path):
        (path,) = write(tmp_path, CSV)
        reader = iter(FileReader([path], Place(), follow=True, open_format=csv))
        assert len(next(reader).chunk.positions) > 0
        assert next(reader) is None
        with path.open("ab") as stream:
            stream.write(b"c9,1,1000,2000\n")
        assert list(next(reader).chunk.positions) == [9]

    def test_a_file_that_is_cut_or_replaced_meanwhile_ends_the_reading(self, tmp_path):
        for change in (lambda path: path.write_bytes(b"a"), lambda path: path.rename(path.with_suffix(".1"))):
            (path,) = write(tmp_path, b"a\nb\n")
            reader = iter(FileReader([path], Place(), follow=True))
            assert (next(reader).chunk.data, next(reader)) == (b"a\nb\n", None)
            change(path)
            path.touch()
            with pytest.raises(InputError, match="must only grow while it is followed"):
                next(reader)


class TestVendorFormat:
    """A vendor's file goes through the same reader: here `csv`, with a quoted line break in its first record."""

    @given(CHUNKS)
    def test_records_and_dead_letters_have_the_lines_on_which_they_begin(self, folder, chunk_bytes):
        paths = write(folder, CSV)
        cuts = read(paths, chunk_bytes=chunk_bytes, open_format=csv)
        assert applied(cuts) == ["c1", "c4", "c5"]
        assert [position for cut in cuts for position in cut.chunk.positions] == [2, 4, 7, 8]
        found = [(letter.at, letter.reason, base64.b64decode(letter.record_b64)[:2]) for letter in letters_of(cuts)]
        assert found == [(f"{paths[0]}:4", "inconsistent", b"x#"), (f"{paths[0]}:6", "wrong_type", b"x#")]

    @given(CHUNKS, CHUNKS, st.data())
    def test_reading_goes_on_inside_a_file(self, folder, first, second, data):
        paths = write(folder, CSV, CSV)
        cuts = read(paths, chunk_bytes=first, open_format=csv)
        done = data.draw(st.integers(1, len(cuts)))
        rest = read(paths, cuts[done - 1].place, chunk_bytes=second, open_format=csv)
        assert applied(cuts[:done] + rest) == ["c1", "c4", "c5"] * 2
        assert letters_of(cuts[:done] + rest) == letters_of(cuts)

    def test_a_first_row_that_does_not_fit_is_an_error_with_the_file_s_name(self, tmp_path):
        paths = write(tmp_path, b"a,b\n1,2\n")
        with pytest.raises(InputError, match=r"0.ndjson: the first row must name every column"):
            read(paths, open_format=csv)

    def test_half_a_row_at_an_early_end_is_not_taken_for_a_record(self, tmp_path):
        path = tmp_path / "cdr.csv.gz"
        path.write_bytes(gzip.compress(CSV + b"c6,0999,1000,20")[:-8])
        cuts = read([path], open_format=csv)
        assert applied(cuts) == ["c1", "c4", "c5"]
        assert [(letter.at, letter.reason) for letter in letters_of(cuts)][-1] == (f"{path}:9", "truncated")
