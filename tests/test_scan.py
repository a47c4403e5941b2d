"""The compiled reader takes a record only if it reads it as the authority does."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import decode as decoding
from schemas.columns import PLACES
from schemas.decode import RECORD_BYTES_MAX, Decoder, RecordError, decode, decode_record
from schemas.events import Call, Link, Media
from schemas.fields import CODED, FIELD_NAMES, INTEGERS, MEASURES, TEXTS, WORDS
from schemas.scan import BLANK, CALL, LEFT, LINK, MEDIA, Scanner

CALL_TEXT = (
    '{"type":"call","call_id":"a","customer_id":"c","start_ms":1000,"end_ms":9000,"answer_ms":2000,"direction":"in",'
    '"mos":4.25,"loss_ratio":0.001,"trunk":"t","reason":"Q.850;cause=16;text=\\"normal\\""}'
)

times = st.integers(0, 10_000)
wild_numbers = st.sampled_from(
    ["0", "00", "01", "1.0", "1.", ".5", "-1", "1e3", "1E-2", "0.1", "0.30000000000000004", "9007199254740992", "4.999",
     "123456789012345678901234567890", "5", "5.0000001", "1", "0.0", "699", "700", "253402300799999", "253402300800000",
     "0.0031415926535897931", "0.012345678901234567", "5.2e-05", "4.9999999999999999",
     "1.5E0", "0.99999997",
     "123456789012345678", "1e", "1e+", "2E+1",
     "true", "false", "null", "NaN", "[]", "{}", '"7"', "1 ", "0.1234567890123456789", "2.5e0", "1e400"]
)  # fmt: skip
texts = st.text(max_size=6) | st.sampled_from(
    ["in", "out", "customer", "network", "x" * 64, "x" * 65, "ü" * 64, "ü" * 65]
)
string_values = texts.map(json.dumps) | texts.map(lambda text: json.dumps(text, ensure_ascii=False))
keys = st.sampled_from([*FIELD_NAMES, "note", "", "call_idx", "Type"])
pairs = st.tuples(keys.map(json.dumps), st.one_of(wild_numbers, string_values, times.map(str)))
kinds = st.sampled_from(["customer_line", "probe", "cell", "sbc", "line"])
metrics = st.sampled_from(["registered", "loss_ratio", "snr_margin_db", "packets_dropped_ratio", "humidity"])
readings = st.sampled_from(
    ["0", "1", "-1", "0.5", "-3.25", "1.00000000001", "0.99999999999", "1e-50", "-0.0", "-", "-00", "6e-05", "1e16"]
)
gaps = st.sampled_from(["", " ", "\t", "\r"])


@st.composite
def records(draw):
    """A sound call or media report with some fields replaced, added, dropped or repeated."""
    kind = draw(st.sampled_from(["call", "media", "link"]))
    start, answer, end = sorted(draw(st.tuples(times, times, times)))
    fields = {
        "type": json.dumps(kind),
        "call_id": json.dumps(draw(st.text("ab\u00e9", min_size=1, max_size=3))),
        "customer_id": '"c"',
    }  # fmt: skip
    if kind == "call":
        fields |= {"start_ms": str(start), "end_ms": str(end), "answer_ms": str(answer)}
    elif kind == "media":
        fields |= {"at_ms": str(end), "interval_ms": "10000"}
    else:
        fields |= {"at_ms": str(end), "element_kind": json.dumps(draw(kinds)), "element_id": '"e"'}
        fields |= {"metric": json.dumps(draw(metrics)), "value": draw(readings)}
    for name in draw(st.lists(st.sampled_from([name for name, *_ in MEASURES]), max_size=3, unique=True)):
        fields[name] = draw(st.sampled_from(["1", "1.0", "0.25", "0.1", "4.4", "null"]))
    for name in draw(st.lists(st.sampled_from([name for name, *_ in CODED]), max_size=3, unique=True)):
        fields[name] = draw(string_values)
    listed = [(json.dumps(name), value) for name, value in fields.items()]
    if draw(st.booleans()):
        listed += draw(st.lists(pairs, max_size=2))
    listed = draw(st.permutations(listed))
    gap = draw(gaps)
    body = f"{gap},{gap}".join(f"{key}{gap}:{gap}{value}" for key, value in listed)
    return f"{gap}{{{gap}{body}{gap}}}{gap}".encode("utf-8", "surrogatepass").replace(b"\n", b" ")


def slow(chunk: bytes):
    """The authority, record by record."""
    calls, media, links = [], [], []
    for position, line in enumerate(chunk.split(b"\n")):
        try:
            event = decode_record(line)
        except RecordError:
            continue
        if isinstance(event, Call):
            calls.append((position, event))
        elif isinstance(event, Media):
            media.append((position, event))
        elif isinstance(event, Link):
            links.append((position, event))
    return decoding._call_columns(calls), decoding._media_columns(media), decoding._link_columns(links)


def listed(columns):
    """Rows as plain values, whatever the codes and buffers."""
    rows = []
    for row in range(len(columns)):
        plain = {}
        for name in columns.__dataclass_fields__:
            column = getattr(columns, name)
            if isinstance(column, dict):
                plain |= {place: coded[row] for place, coded in column.items()}
            elif isinstance(column, np.ndarray):
                plain[name] = repr(column[row])
            else:
                plain[name] = column[row]
        rows.append(plain)
    return rows


@settings(max_examples=400)
@given(st.lists(records(), min_size=1, max_size=6))
def test_the_compiled_reader_agrees_with_the_authority_on_every_record(lines):
    chunk = b"\n".join(lines)
    batch = decode(chunk)
    calls, media, links = slow(chunk)
    assert listed(batch.calls) == listed(calls)
    assert listed(batch.media) == listed(media)
    assert listed(batch.links) == listed(links)


@settings(max_examples=300)
@given(st.integers(0, len(CALL_TEXT) - 1), st.integers(0, 255))
def test_one_changed_byte_never_makes_the_two_readers_differ(place, byte):
    line = bytearray(CALL_TEXT.encode())
    line[place] = byte
    chunk = bytes(line)
    calls, media, _ = slow(chunk)
    batch = decode(chunk)
    assert (listed(batch.calls), listed(batch.media)) == (listed(calls), listed(media))


@given(st.binary(max_size=300))
def test_the_compiled_reader_takes_any_bytes_without_harm(chunk):
    read = Scanner().scan(chunk, RECORD_BYTES_MAX)
    assert len(read.status) == chunk.count(b"\n") + 1
    assert set(read.status.tolist()) <= {CALL, MEDIA, LINK, LEFT, BLANK}


def test_an_ordinary_call_is_taken_by_the_compiled_reader():
    assert Scanner().scan(CALL_TEXT.encode(), RECORD_BYTES_MAX).status.tolist() == [CALL]


def test_a_record_longer_than_allowed_is_left_to_the_authority():
    line = CALL_TEXT.replace('"t"', '"' + "t" * 70_000 + '"').encode()
    assert Scanner().scan(line, RECORD_BYTES_MAX).status.tolist() == [LEFT]


def test_every_field_of_a_call_of_a_media_report_and_of_a_reading_has_a_place():
    fields = {name for kind in (Call, Media, Link) for name in kind.__struct_fields__} | {"type"}
    assert fields == set(FIELD_NAMES)
    assert {name for name, *_ in CODED} >= set(PLACES)
    assert len(FIELD_NAMES) == len(INTEGERS) + len(MEASURES) + len(TEXTS) + len(CODED) + len(WORDS) + 1 < 63


@settings(max_examples=100)
@given(st.lists(st.lists(records(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_a_decoder_learnt_of_earlier_chunks_changes_nothing(chunks):
    decoder = Decoder()
    for lines in chunks:
        chunk = b"\n".join(lines)
        kept, fresh = decoder.decode(chunk), decode(chunk)
        assert listed(kept.calls) == listed(fresh.calls)
        assert listed(kept.media) == listed(fresh.media)
        assert listed(kept.links) == listed(fresh.links)
        assert kept.rejects == fresh.rejects


def test_lines_that_are_not_taken_need_no_memory_of_their_own():
    taken = CALL_TEXT.encode()
    chunk = b"\n{}\n" * 50_000 + taken + b"\n" + b"\n" * 50_000 + taken
    read = Scanner().scan(chunk, RECORD_BYTES_MAX)
    assert [int((read.status == status).sum()) for status in (CALL, LEFT, BLANK)] == [2, 50_000, 100_000]
    assert read.cell[read.status == CALL].tolist() == [0, 1]
    assert read.cells.whole.nbytes < 10 * len(chunk)
