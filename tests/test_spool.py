import errno
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.deadletters import DeadLetterFile
from dataflows.durable import BLOCK_BYTES, cut_torn_line
from dataflows.inputs import spool as module
from dataflows.inputs.chunks import decoded
from dataflows.inputs.files import CHUNK_BYTES, Place
from dataflows.inputs.spool import Spool, SpoolFullError
from schemas.deadletters import DeadLetter, DeadReason
from schemas.decode import Decoder
from schemas.errors import StateError

START = Place()
BODIES = st.lists(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), min_size=1), max_size=9)


def drain(spool, place=START):
    """Read what there is."""
    return list(iter(spool.read(place).__next__, None))


def data_of(cuts):
    return b"".join(cut.chunk.data for cut in cuts)


def segments(folder):
    return {path.name.lstrip("0"): path.read_bytes() for path in sorted(folder.iterdir())}


class TestReading:
    @given(BODIES, st.integers(1, 40), st.data())
    def test_what_was_appended_is_read_once_in_order_with_its_line_from_any_place_on(
        self, tmp_path_factory, bodies, segment_bytes, data
    ):
        folder = tmp_path_factory.mktemp("spool")
        spool = Spool(folder, segment_bytes)
        for body in bodies:
            spool.append(b"\n".join(body))
        cuts = drain(spool)
        # As a request may end with or without a line end, its last line is no record if it is empty.
        sent = b"".join(joined + b"\n" * (not joined.endswith(b"\n")) for joined in map(b"\n".join, bodies))
        assert data_of(cuts) == sent
        for cut in cuts:
            lines = (folder / cut.chunk.name).read_bytes().split(b"\n")
            assert [lines[place - 1] for place in cut.chunk.positions] == cut.chunk.data[:-1].split(b"\n")
        done = data.draw(st.integers(0, len(cuts)))
        again = drain(Spool(folder, segment_bytes), cuts[done - 1].place if done else Place())
        assert data_of(cuts[:done]) + data_of(again) == sent

    def test_a_reader_that_waits_is_given_what_comes_next(self, tmp_path):
        spool = Spool(tmp_path, segment_bytes=4)
        reader = spool.read(Place())
        assert next(reader) is None
        for body in (b"a", b"bcdef", b"g", b"h\ni"):
            spool.append(body)
            cut = next(reader)
            assert cut.chunk.data == body + b"\n"
            assert next(reader) is None

    def test_a_dead_letter_names_segment_and_line(self, tmp_path):
        spool = Spool(tmp_path)
        spool.append(b"\n\nbroken\n")
        (letter,) = decoded(Decoder(), drain(spool)[0].chunk)[1]
        assert (letter.source, letter.at) == ("http", "000000000000.ndjson:3")

    def test_a_line_longer_than_a_chunk_comes_whole_and_the_next_one_after_it(self, tmp_path):
        spool = Spool(tmp_path)
        long = b"x" * (2 * CHUNK_BYTES + 7)
        spool.append(b"a\n" + long + b"\nb")
        assert data_of(drain(spool)).split(b"\n") == [b"a", long, b"b", b""]

    def test_a_segment_that_is_gone_or_shorter_than_what_was_read_of_it_is_an_error(self, tmp_path):
        spool = Spool(tmp_path)
        spool.append(b"a\nb\n")
        place = drain(spool)[-1].place
        (tmp_path / "000000000000.ndjson").write_bytes(b"a\n")
        with pytest.raises(StateError, match=r"000000000000.ndjson: must hold the 4 bytes read of it before, held 2"):
            drain(Spool(tmp_path), place)
        (tmp_path / "000000000000.ndjson").unlink()
        with pytest.raises(StateError, match="held 0"):
            drain(Spool(tmp_path), place)


class TestCrash:
    @given(st.binary(max_size=40), st.binary(max_size=20))
    def test_a_torn_last_line_is_cut_off_and_whole_ones_stay(self, tmp_path_factory, content, body):
        folder = tmp_path_factory.mktemp("spool")
        (folder / "000000000003.ndjson").write_bytes(content)
        spool = Spool(folder)
        spool.append(body)
        whole = content[: content.rfind(b"\n") + 1]
        assert data_of(drain(spool)) == whole + body + b"\n" * (not body.endswith(b"\n"))

    @pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
    @pytest.mark.parametrize("head", [b"", b"\n", b"a\n", b"a\nb\n"])
    def test_a_torn_line_of_any_length_is_cut_off(self, tmp_path, head, size):
        path = tmp_path / "torn"
        path.write_bytes(head + b"x" * size)
        assert cut_torn_line(path) == len(head)
        assert path.read_bytes() == head

    def test_nothing_is_read_before_it_is_durable(self, tmp_path, monkeypatch):
        spool, seen = Spool(tmp_path, segment_bytes=3), []
        monkeypatch.setattr(module.os, "fsync", lambda _: seen.append(data_of(drain(spool))))
        for body in (b"a\n", b"b\n", b"c\n"):
            spool.append(body)
        # The folder too is made durable when it gets a new name.
        assert seen == [b"", b"", b"a\n", b"a\nb\n", b"a\nb\n"]
        assert data_of(drain(spool)) == b"a\nb\nc\n"

    def test_a_failed_write_stores_nothing_and_the_next_one_is_whole(self, tmp_path, monkeypatch):
        spool = Spool(tmp_path)
        spool.append(b"a\n")
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            with pytest.raises(StateError, match="must be writable, was not: No space left"):
                spool.append(b"lost, and much longer\nlost")
        assert data_of(drain(spool)) == b"a\n"
        spool.append(b"b\n")
        assert data_of(drain(spool)) == b"a\nb\n"
        assert segments(tmp_path) == {".ndjson": b"a\nb\n"}

    def test_a_dead_letter_that_a_crash_has_torn_does_not_spoil_the_next_one(self, tmp_path):
        path = tmp_path / "dead-letters.ndjson"
        letter = DeadLetter("file", "a:1", DeadReason.NOT_JSON, "must be", "")
        DeadLetterFile(path).append([letter, letter])
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        DeadLetterFile(path).append([letter])
        assert path.read_bytes() == whole
        assert path.stat().st_mode & 0o777 == 0o600

    def test_dead_letters_that_cannot_be_written_are_an_error_with_the_file_s_name(self, tmp_path):
        (tmp_path / "letters").mkdir()
        with pytest.raises(StateError, match=r"letters: must be writable, was not: Is a directory"):
            DeadLetterFile(tmp_path / "letters")


class TestRoom:
    def test_segments_roll_and_passed_ones_are_deleted_but_never_the_newest(self, tmp_path):
        spool = Spool(tmp_path, segment_bytes=4)
        for body in (b"abcd", b"ef", b"gh", b"ij"):
            spool.append(body)
        assert segments(tmp_path) == {".ndjson": b"abcd\n", "1.ndjson": b"ef\ngh\n", "2.ndjson": b"ij\n"}
        cuts = drain(spool)
        spool.prune(cuts[1].place.file)
        assert segments(tmp_path) == {"1.ndjson": b"ef\ngh\n", "2.ndjson": b"ij\n"}
        assert data_of(drain(spool, cuts[1].place)) == b"ij\n"
        spool.prune(99)
        assert segments(tmp_path) == {"2.ndjson": b"ij\n"}
        assert data_of(drain(Spool(tmp_path))) == b"ij\n"

    def test_a_full_spool_refuses_until_segments_are_passed(self, tmp_path):
        spool = Spool(tmp_path, segment_bytes=4, bytes_max=12)
        for body in (b"aaaa\n", b"bbbb\n"):
            spool.append(body)
        for fresh in (spool, Spool(tmp_path, segment_bytes=4, bytes_max=12)):
            with pytest.raises(SpoolFullError, match="must hold at most 12 bytes"):
                fresh.append(b"cc\n")
        spool.prune(1)
        spool.append(b"cc\n")
        assert data_of(drain(spool)) == b"bbbb\ncc\n"

    def test_concurrent_appends_do_not_mix_their_lines(self, tmp_path):
        spool = Spool(tmp_path, segment_bytes=2_000)
        bodies = [[b"%d-%d" % (writer, line) for line in range(20)] for writer in range(60)]
        reader, found, done = spool.read(Place()), [], threading.Event()

        def read():
            while (cut := next(reader)) is not None or not done.is_set():
                found.append(cut.chunk.data if cut is not None else b"")

        threads = [threading.Thread(target=spool.append, args=(b"\n".join(body),)) for body in bodies]
        reading = threading.Thread(target=read)
        for thread in (reading, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        reading.join()
        lines = (b"".join(found) + data_of(iter(reader.__next__, None))).split(b"\n")[:-1]
        blocks = [lines[place : place + 20] for place in range(0, len(lines), 20)]
        assert sorted(blocks) == sorted(bodies)

    def test_folder_and_segments_are_for_this_user_alone(self, tmp_path):
        Spool(tmp_path / "new").append(b"a")
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "new/000000000000.ndjson").stat().st_mode & 0o777 == 0o600

    def test_a_folder_that_cannot_be_used_is_an_error(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(StateError, match="must be readable and writable"):
            Spool(tmp_path / "file")
