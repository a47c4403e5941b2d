import contextlib
import itertools
import os
from pathlib import Path

import orjson
import pytest
from formats_kit import KEY, PLAN
from hypothesis import given
from hypothesis import strategies as st

from dataflows.inputs.files import FileReader, Place
from dataflows.inputs.folder import LOOK_S, Folder, files_of
from schemas.errors import InputError
from schemas.formats import Options, open_format
from schemas.formats.identity import Tokens

BEGIN_S = 1_767_346_200
CDR = (
    "cdrRecordType,globalCallID_callManagerId,globalCallID_callId,origLegCallIdentifier,dateTimeOrigination,"
    "callingPartyNumber,destLegIdentifier,finalCalledPartyNumber,dateTimeConnect,dateTimeDisconnect\n"
)
CMR = (
    "cdrRecordType,globalCallID_callManagerId,globalCallID_callId,directoryNum,callIdentifier,dateTimeStamp,"
    "numberPacketsSent,numberPacketsReceived,numberPacketsLost,jitter\n"
)


def cdr(call):
    end_s = BEGIN_S + 60 * call
    return f"1,1,{call},{2 * call},{end_s - 60},0163296000{call},{2 * call + 1},01632960020,{end_s - 50},{end_s}\n"


def cmr(call, leg):
    return f"2,1,{call},0163296000{call},{2 * call + leg},{BEGIN_S + 60 * call},3000,3000,0,{call}\n"


def opener(name="cucm"):
    return lambda: open_format(name, Options(tokens=Tokens(KEY, PLAN), endless=True, whole_files=True))


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class Drop:
    """A folder, what puts files into it, and a reader of it that can be started anew."""

    def __init__(self, base):
        self.folder, self.journal, self.clock = base / "drop", base / "journal.ndjson", Clock()
        self.folder.mkdir(parents=True)
        self.files = 0

    def put(self, name, text):
        path = self.folder / name
        path.write_text(text)
        self.files += 1
        os.utime(path, ns=(self.files * 10**9, self.files * 10**9))
        return path

    def read(self, place=None, *, follow=True, name="cucm", chunk_bytes=64):
        folder = Folder(self.folder, self.journal, follow=follow, now_s=self.clock)
        return iter(FileReader(folder, place or Place(), open_format=opener(name), chunk_bytes=chunk_bytes))

    def until_idle(self, cuts, looks=3):
        """Read on while there is something, through some more looks."""
        found = []
        for _ in range(looks):
            found += itertools.takewhile(lambda cut: cut is not None, cuts)
            self.clock.now_s += LOOK_S
        return found


@pytest.fixture
def drop(tmp_path):
    return Drop(tmp_path)


def told(cuts):
    """Name every event: its file, its line, its jitter."""
    return [
        (Path(cut.chunk.name).name, position, orjson.loads(event.line).get("jitter_ms"))
        for cut in cuts
        for position, event in zip(cut.chunk.positions, cut.chunk.originals or [], strict=True)
    ]


def test_files_that_come_are_read_in_their_order_and_a_cmr_joins_the_cdr_of_another_file(drop):
    drop.put("cdr_b", CDR + cdr(1))
    cuts = drop.read()
    assert told(drop.until_idle(cuts)) == []
    drop.put("cmr_c", CMR + cmr(1, 0) + cmr(1, 1))
    drop.put("cdr_a", CDR + cdr(2))
    assert told(drop.until_idle(cuts)) == [("cdr_b", 2, 1.0)]
    drop.put("cmr_a", CMR + cmr(2, 1) + cmr(2, 0))
    assert told(drop.until_idle(cuts)) == [("cdr_a", 2, 2.0)]


def test_media_are_awaited_however_much_time_a_file_spans_and_not_for_ever(drop):
    """The CMR file of an hour comes after all of its CDRs; where CMR is off, none ever comes."""
    drop.put("cdr_1", CDR + "".join(map(cdr, range(1, 60))))
    cuts = drop.read()
    assert told(drop.until_idle(cuts)) == []
    drop.put("cmr_1", CMR + cmr(1, 0) + cmr(1, 1))
    # The last ten minutes of the file may have theirs in the next one.
    assert told(drop.until_idle(cuts)) == [("cdr_1", call + 1, 1.0 if call == 1 else None) for call in range(1, 49)]
    drop.put("cdr_2", CDR + cdr(75))
    drop.put("cdr_3", CDR + cdr(76))
    assert told(drop.until_idle(cuts)) == [("cdr_1", call + 1, None) for call in range(49, 60)]


@given(chunk_bytes=st.integers(20, 200), taken=st.integers(1, 12))
def test_reading_goes_on_from_any_place_whatever_has_come_meanwhile(tmp_path_factory, chunk_bytes, taken):
    drop = Drop(tmp_path_factory.mktemp("folder"))
    for call in (1, 2, 3):
        drop.put(f"z{call}", CDR + cdr(call))
        drop.put(f"y{call}", CMR + cmr(call, 0) + cmr(call, 1))
    whole = [("z1", 2, 1.0), ("z2", 2, 2.0), ("z3", 2, 3.0)]
    cuts = drop.read(chunk_bytes=chunk_bytes)
    next(cuts)
    drop.clock.now_s += LOOK_S
    first = [cut for cut in itertools.islice(cuts, taken) if cut is not None]
    # What comes later stands behind, even if it says that it is older.
    drop.put("a4", CDR + cdr(4))
    os.utime(drop.folder / "a4", ns=(1, 1))
    drop.put("a5", CMR + cmr(4, 0) + cmr(4, 1))
    place = first[-1].place if first else None
    assert told(first) + told(drop.until_idle(drop.read(place, chunk_bytes=chunk_bytes))) == [*whole, ("a4", 2, 4.0)]


def test_a_file_that_is_still_written_is_left_alone(drop):
    cuts = drop.read()
    drop.put("cdr_1", CDR)
    drop.put(".cdr_2", CDR + cdr(2))
    drop.put("cdr_3", "")
    assert next(cuts) is None
    drop.clock.now_s += LOOK_S
    drop.put("cdr_1", CDR + cdr(1))
    assert next(cuts) is None
    drop.clock.now_s += LOOK_S
    assert {Path(cut.chunk.name).name for cut in drop.until_idle(cuts, 1)} == {"cdr_1"}


def test_a_folder_is_looked_at_no_more_often_than_said(drop):
    cuts = drop.read()
    assert next(cuts) is None
    drop.put("cdr_1", CDR + cdr(1))
    drop.put("cmr_1", CMR + cmr(1, 0) + cmr(1, 1))
    found = []
    for _ in range(2):
        drop.clock.now_s += LOOK_S - 0.25
        assert [next(cuts) for _ in range(50)] == [None] * 50
        drop.clock.now_s += 0.25
        found += itertools.takewhile(lambda cut: cut is not None, cuts)
    assert told(found) == [("cdr_1", 2, 1.0)]


def test_what_was_read_may_be_moved_away_and_is_not_kept_in_mind(drop):
    old = [drop.put("cdr_1", CDR + cdr(1)), drop.put("cmr_1", CMR + cmr(1, 0) + cmr(1, 1))]
    cuts = drop.read()
    found = drop.until_idle(cuts)
    for path in old:
        path.unlink()
    drop.put("cdr_2", CDR + cdr(2))
    drop.put("cmr_2", CMR + cmr(2, 0) + cmr(2, 1))
    assert told(drop.until_idle(drop.read(found[-1].place))) == [("cdr_2", 2, 2.0)]
    assert b"cdr_1" not in drop.journal.read_bytes()


def test_a_file_that_is_moved_away_during_a_look_ends_nothing(drop, monkeypatch):
    drop.put("cdr_1", CDR + cdr(1))
    gone, scandir = drop.put("cdr_0", CDR + cdr(0)), os.scandir

    def scandir_and_move(path):
        with scandir(path) as entries:
            listed = list(entries)
        gone.unlink(missing_ok=True)
        return contextlib.nullcontext(listed)

    monkeypatch.setattr(os, "scandir", scandir_and_move)
    assert told(drop.until_idle(drop.read(follow=False), looks=1)) == [("cdr_1", 2, None)]


def test_a_file_that_went_before_it_was_read_is_a_dead_letter(drop):
    drop.put("cdr_1", CDR + cdr(1))
    path = drop.put("cdr_2", CDR + cdr(2))
    cuts = drop.read()
    next(cuts)
    drop.clock.now_s += LOOK_S
    found = [next(cuts)]
    path.unlink()
    (letter,) = [letter for cut in drop.until_idle(cuts) for letter in cut.chunk.rejects]
    assert "cdr_2: must be a file that can be read" in letter.detail
    assert found[0].chunk.name.endswith("cdr_1")


def test_a_file_in_another_format_costs_nothing_of_the_next_one(drop):
    drop.put("readme.txt", "nothing of this is a call\n")
    drop.put("calls.csv", "calldate,callend,caller,called\n2026-01-02 09:00:00,2026-01-02 09:01:00,01632960001,2\n")
    found = list(drop.read(follow=False, name="voipmonitor"))
    assert [Path(cut.chunk.name).name for cut in found if cut.chunk.rejects] == ["readme.txt"]
    assert told(found) == [("calls.csv", 2, None)]


def test_a_file_that_grew_after_it_was_read_ends_the_reading(drop):
    path = drop.put("cdr_1", CDR + cdr(1))
    cuts = drop.read()
    drop.until_idle(cuts)
    with path.open("a") as file:
        file.write(cdr(2))
    with pytest.raises(InputError, match="cdr_1: must be whole 5 s after its last change, grew"):
        drop.until_idle(cuts)


def test_without_following_it_ends_with_the_last_file(drop):
    drop.put("cdr_1", CDR + cdr(1))
    drop.put("cdr_2", CDR + cdr(2))
    found = list(drop.read(follow=False))
    assert told(found) == [("cdr_1", 2, None), ("cdr_2", 2, None)]
    assert files_of([drop.folder]) == [drop.folder / "cdr_1", drop.folder / "cdr_2"]


def test_half_a_line_of_the_journal_is_of_a_file_that_was_not_read(drop):
    drop.put("cdr_1", CDR + cdr(1))
    drop.journal.write_bytes(b'[0, "cd')
    assert told(drop.read(follow=False)) == [("cdr_1", 2, None)]
    assert drop.journal.read_bytes() == b'[0, "cdr_1"]\n'
