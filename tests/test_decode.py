"""Decoding: every record is taken whole or refused whole, with its reason, its place and no secrets."""

import base64
import json
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from dataflows.inputs.chunks import Chunk, converted, decoded
from schemas.columns import DIRECTIONS, PLACES, RELEASERS
from schemas.deadletters import DeadReason, Reject
from schemas.decode import RECORD_BYTES_MAX, Decoder, RecordError, decode, decode_record
from schemas.events import COUNT_MAX, TIME_MS_MAX, Call, Event, Link, Media
from schemas.formats import Converted

MARK = "5551234"
"""Stands in every string of the records below: were it in a detail, a detail would give an identity away."""

CALL = {"type": "call", "call_id": f"id-{MARK}", "customer_id": f"c-{MARK}", "start_ms": 1_000, "end_ms": 9_000}
LINK = {"type": "link", "element_kind": "trunk", "element_id": MARK, "at_ms": 5, "metric": "retrains", "value": 2.5}
PROFILE = {"type": "profile", "customer_id": MARK, "at_ms": 5}
OUTCOME = {"type": "outcome", "alert_id": MARK, "at_ms": 5, "result": "fixed"}

BAD: dict[str, tuple[Any, DeadReason, str]] = {
    "too-long": (CALL | {"note": MARK * 10_000}, DeadReason.TOO_LARGE, "65536"),
    "bytes-that-are-no-text": (b'{"type":"call","call_id":"\xff%s"}' % MARK.encode(), DeadReason.NOT_TEXT, "UTF-8"),
    "half-a-surrogate": (b'{"type":"call","call_id":"\\ud800"}', DeadReason.NOT_JSON, "JSON"),
    "no-json": (b"call " + MARK.encode(), DeadReason.NOT_JSON, "JSON"),
    "broken-off": (orjson.dumps(CALL)[:-1], DeadReason.NOT_JSON, "truncated"),
    "two-on-a-line": (orjson.dumps(CALL) * 2, DeadReason.NOT_JSON, "trailing"),
    "a-tower": (b'{"type":"call","x":' + b"[" * 30_000, DeadReason.NOT_JSON, "nest"),
    "no-type": ({"call_id": MARK}, DeadReason.UNKNOWN_TYPE, "type"),
    "null-type": ({"type": None, "call_id": MARK}, DeadReason.UNKNOWN_TYPE, "type"),
    "numeric-type": ({"type": 7}, DeadReason.UNKNOWN_TYPE, "type"),
    "unknown-type": ({"type": MARK}, DeadReason.UNKNOWN_TYPE, "type"),
    "no-customer": ({"type": "contact", "at_ms": 5}, DeadReason.MISSING_FIELD, "customer_id"),
    "null-customer": (CALL | {"customer_id": None}, DeadReason.MISSING_FIELD, "customer_id"),
    "null-value": (LINK | {"value": None}, DeadReason.MISSING_FIELD, "value"),
    "number-for-text": (CALL | {"peer_id": 5_551_234}, DeadReason.WRONG_TYPE, "peer_id"),
    "text-for-number": (CALL | {"start_ms": MARK}, DeadReason.WRONG_TYPE, "start_ms"),
    "fraction-of-a-millisecond": (CALL | {"start_ms": 1_000.5}, DeadReason.WRONG_TYPE, "start_ms"),
    "yes-for-number": (LINK | {"value": True}, DeadReason.WRONG_TYPE, "value"),
    "number-in-a-list-of-texts": (PROFILE | {"consent": ["email", 7]}, DeadReason.WRONG_TYPE, "consent"),
    "a-customer-of-no-length": (CALL | {"customer_id": ""}, DeadReason.OUT_OF_RANGE, "customer_id"),
    "a-customer-too-long": (CALL | {"customer_id": MARK * 10}, DeadReason.OUT_OF_RANGE, "customer_id"),
    "a-mos-of-zero": (CALL | {"mos": 0}, DeadReason.OUT_OF_RANGE, "mos"),
    "percent-for-a-ratio": (CALL | {"loss_ratio": 3}, DeadReason.OUT_OF_RANGE, "loss_ratio"),
    "before-the-epoch": (CALL | {"start_ms": -1}, DeadReason.OUT_OF_RANGE, "start_ms"),
    "after-the-last-year": (CALL | {"end_ms": TIME_MS_MAX + 1}, DeadReason.OUT_OF_RANGE, "end_ms"),
    "wider-than-64-bits": (json.dumps(CALL | {"end_ms": 10**30}).encode(), DeadReason.OUT_OF_RANGE, "end_ms"),
    "wider-than-a-double": (b'{"type":"link","value":1e999}', DeadReason.OUT_OF_RANGE, "value"),
    "no-currency": (PROFILE | {"currency": MARK}, DeadReason.OUT_OF_RANGE, "currency"),
    "a-way-that-is-none": (CALL | {"direction": MARK}, DeadReason.UNKNOWN_VALUE, "direction"),
    "an-unknown-metric": (LINK | {"metric": MARK}, DeadReason.UNKNOWN_VALUE, "metric"),
    "an-unknown-result": (OUTCOME | {"result": MARK}, DeadReason.UNKNOWN_VALUE, "result"),
    "over-before-it-began": (CALL | {"start_ms": 9_001}, DeadReason.INCONSISTENT, "end_ms"),
    "answered-before-it-began": (CALL | {"answer_ms": 999}, DeadReason.INCONSISTENT, "answer_ms"),
    "answered-when-over": (CALL | {"answer_ms": 9_001}, DeadReason.INCONSISTENT, "answer_ms"),
}
"""Records that must be refused: why, and a word that the detail must say."""


def line(record: Any) -> bytes:
    return record if isinstance(record, bytes) else orjson.dumps(record)


# Records by strategy: what the structs allow, and what they forbid


def lawful(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Draw JSON values that a field's type allows."""
    match kind:
        case inspect.UnionType():
            return st.one_of([lawful(one) for one in kind.types])
        case inspect.NoneType():
            return st.none()
        case inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case inspect.FloatType():
            return st.floats(kind.ge, kind.le, allow_nan=False, allow_infinity=False) | st.integers(1, 1)
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.ListType():
            return st.lists(lawful(kind.item_type), max_size=3)
        case inspect.StrType(pattern=r"^[A-Z]{3}\Z"):
            return st.just("EUR")
        case inspect.StrType():
            longest = 30 if kind.max_length is None else kind.max_length
            return st.text(min_size=0 if kind.min_length is None else kind.min_length, max_size=longest)
    raise AssertionError(f"no strategy for {kind}")


def unlawful(kind: inspect.Type, *, required: bool) -> list[tuple[DeadReason, Any]]:
    """List JSON values that a field's type forbids, each with the reason to give; ... is an absent field."""
    bad: list[tuple[DeadReason, Any]] = [(DeadReason.WRONG_TYPE, {"x": MARK})]
    if required:
        bad += [(DeadReason.MISSING_FIELD, None), (DeadReason.MISSING_FIELD, ...)]
    for one in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(one, inspect.LiteralType):
            bad += [(DeadReason.UNKNOWN_VALUE, MARK), (DeadReason.UNKNOWN_VALUE, ""), (DeadReason.WRONG_TYPE, 7)]
        if isinstance(one, inspect.IntType | inspect.FloatType):
            bad += [(DeadReason.OUT_OF_RANGE, one.ge - 1)] if one.ge is not None else []
            bad += [(DeadReason.OUT_OF_RANGE, one.le + 1)] if one.le is not None else []
            bad += [(DeadReason.WRONG_TYPE, MARK), (DeadReason.WRONG_TYPE, True)]
        if isinstance(one, inspect.StrType):
            bad += [(DeadReason.OUT_OF_RANGE, MARK * 19)] if one.max_length is not None else []
            bad += [(DeadReason.OUT_OF_RANGE, "")] if one.min_length else []
            bad += [(DeadReason.WRONG_TYPE, 5_551_234), (DeadReason.WRONG_TYPE, False)]
    return bad


KINDS = {kind.tag: kind for kind in (inspect.type_info(one) for one in Event.__args__)}
TIMES = st.tuples(*[st.integers(0, TIME_MS_MAX)] * 3).map(sorted)
NAMES = st.text(min_size=1, max_size=20)


@st.composite
def records(draw: st.DrawFn, types: tuple[str, ...] = tuple(KINDS)) -> dict[str, Any]:
    """Draw a record that holds the contract: required fields, and any of the others."""
    kind = KINDS[draw(st.sampled_from(types))]
    chosen = draw(st.sets(st.sampled_from([field.name for field in kind.fields])))
    record = {"type": kind.tag} | {
        field.name: draw(lawful(field.type)) for field in kind.fields if field.required or field.name in chosen
    }
    if kind.tag == "call":
        record["start_ms"], answer_ms, record["end_ms"] = draw(TIMES)
        record["answer_ms"] = draw(st.sampled_from([answer_ms, None]))
    if kind.tag == "link" and (record["metric"] == "registered" or record["metric"].endswith("_ratio")):
        record["value"] = draw(st.sampled_from([0, 1]))
    return record


@st.composite
def broken(draw: st.DrawFn) -> tuple[DeadReason, str, dict[str, Any]]:
    """Draw a record with one field that breaks a rule: the reason to give, the field, the record."""
    record = draw(records())
    field = draw(st.sampled_from(KINDS[record["type"]].fields))
    reason, value = draw(st.sampled_from(unlawful(field.type, required=field.required)))
    if value is ...:
        return reason, field.name, {name: value for name, value in record.items() if name != field.name}
    return reason, field.name, record | {field.name: value}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)
LINES = st.one_of(
    st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")),
    JSON.map(lambda value: json.dumps(value).encode()),
    records().map(orjson.dumps),
    broken().map(lambda one: orjson.dumps(one[2])),
    st.sampled_from([b"", b"  ", b"\r"]),
)


# Any bytes


@given(st.lists(LINES, max_size=8))
def test_any_bytes_become_columns_and_rejects_that_add_up(lines):
    batch = decode(b"\n".join(lines))
    taken = [*batch.calls.position, *batch.media.position, *batch.links.position]
    taken += [position for position, _ in batch.business] + [reject.position for reject in batch.rejects]
    spoken = [position for position, one in enumerate(lines) if one.strip()]
    assert sorted(taken) == spoken
    assert batch.records == len(spoken)
    assert all(reject.record == lines[reject.position] for reject in batch.rejects)
    assert all(isinstance(reject.reason, DeadReason) and reject.detail for reject in batch.rejects)


@given(st.binary(max_size=400))
def test_no_bytes_make_the_decoder_raise(data):
    batch = decode(data)
    assert batch.records == (
        len(batch.calls) + len(batch.media) + len(batch.links) + len(batch.business) + len(batch.rejects)
    )


@given(records(), st.data())
def test_a_record_cut_anywhere_is_refused(record, data):
    whole = orjson.dumps(record)
    part = whole[: data.draw(st.integers(1, len(whole) - 1))]
    (reject,) = decode(part).rejects
    assert reject.reason in {DeadReason.NOT_JSON, DeadReason.NOT_TEXT}


# Records that break one rule


@given(broken(), st.lists(records(), max_size=3), st.lists(records(), max_size=3))
def test_a_record_broken_in_one_field_is_refused_alone_with_its_reason_and_place(one, before, after):
    reason, name, record = one
    batch = decode(b"\n".join(map(orjson.dumps, [*before, record, *after])))
    (reject,) = batch.rejects
    assert (reject.position, reject.reason) == (len(before), reason)
    assert reject.detail.startswith(f"{name} must be ")
    assert MARK not in reject.detail
    assert batch.records == len(before) + len(after) + 1


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_refused_with_its_reason(name):
    record, reason, word = BAD[name]
    batch = decode(b"\n".join([orjson.dumps(CALL), line(record), orjson.dumps(CALL)]))
    (reject,) = batch.rejects
    assert (reject.position, reject.reason) == (1, reason)
    assert word in reject.detail
    assert MARK not in reject.detail
    assert batch.calls.position.tolist() == [0, 2]


def test_every_reason_that_a_decoder_can_give_has_an_example():
    # An input breaks off inside its compression or its file: a decoder sees whole lines.
    assert {reason for _, reason, _ in BAD.values()} == set(DeadReason) - {DeadReason.TRUNCATED}


@pytest.mark.parametrize("name", BAD)
def test_a_record_alone_is_refused_like_one_in_a_chunk(name):
    record, reason, _ = BAD[name]
    with pytest.raises(RecordError) as refused:
        decode_record(line(record))
    assert refused.value.reason == reason


def test_a_record_of_the_greatest_length_is_taken_and_one_byte_more_is_not():
    room = RECORD_BYTES_MAX - len(orjson.dumps(CALL | {"note": ""}))
    whole = orjson.dumps(CALL | {"note": "x" * room})
    assert len(whole) == RECORD_BYTES_MAX
    assert len(decode(whole).calls) == 1
    assert decode(whole.replace(b'"note":"', b'"note":"x')).rejects[0].reason == DeadReason.TOO_LARGE


def test_the_greatest_and_the_least_of_every_number_are_taken():
    record = CALL | {"start_ms": 0, "end_ms": TIME_MS_MAX, "packets_sent": COUNT_MAX, "q850": 0, "sip_status": 699}
    calls = decode(orjson.dumps(record)).calls
    assert (calls.end_ms[0], calls.packets_sent[0], calls.q850[0]) == (TIME_MS_MAX, COUNT_MAX, 0)


# Columns


def same_measure(found: float, told: float | None) -> bool:
    """Whether a float32 holds what was told: NaN for nothing, the largest for what is larger still."""
    if told is None:
        return bool(np.isnan(found))
    top = float(np.finfo(np.float32).max)
    return bool(np.float32(found) == np.float32(min(max(told, -top), top)))


def holds(column: Any, row: int, told: Any, vocabulary: tuple[str, ...] = ()) -> bool:
    """Whether one place of a column says what a field of the record says."""
    if vocabulary:
        return bool(column[row] == (-1 if told is None else vocabulary.index(told)))
    if not isinstance(column, np.ndarray):
        return bool((column[row] or None) == (told or None))
    if column.dtype == np.float32:
        return same_measure(column[row], told)
    return bool(column[row] == (-1 if told is None else told))


@given(st.lists(records(("call", "media", "link")), max_size=6))
def test_columns_say_what_the_records_say(drawn):
    batch = decode(b"\n".join(map(orjson.dumps, drawn)))
    assert not batch.rejects
    for columns, struct in ((batch.calls, Call), (batch.media, Media), (batch.links, Link)):
        for row, position in enumerate(columns.position.tolist()):
            event = msgspec.convert(drawn[position], struct)
            for field in struct.__struct_fields__:
                column = columns.places[field] if struct is Call and field in PLACES else getattr(columns, field)
                vocabulary = {"direction": DIRECTIONS, "released_by": RELEASERS}.get(field, ())
                assert holds(column, row, getattr(event, field), vocabulary), field


@given(st.lists(records(("profile", "contact", "usage", "churn", "outcome", "incident")), max_size=5))
def test_rare_events_are_kept_as_they_were_in_order(drawn):
    batch = decode(b"\n".join(map(orjson.dumps, drawn)))
    assert batch.business == [(at, msgspec.convert(record, Event)) for at, record in enumerate(drawn)]


@given(records())
def test_unknown_fields_are_ignored(record):
    plain = decode(orjson.dumps(record))
    wordy = decode(orjson.dumps({"zz_unknown": [{"call_id": MARK}]} | record))
    assert not wordy.rejects
    assert wordy.business == plain.business
    assert len(wordy.calls) == len(plain.calls)


# Chunks


@given(st.lists(st.booleans(), max_size=8))
def test_dead_letters_stand_where_their_records_stood(sound):
    lines = [orjson.dumps(CALL) if good else b"broken %d" % at for at, good in enumerate(sound)]
    places = [100 + 3 * at for at in range(len(lines))]
    batch, letters = decoded(Decoder(), Chunk("file", "day.ndjson", b"\n".join(lines), places))
    wanted = [(place, one) for place, one, good in zip(places, lines, sound, strict=True) if not good]
    assert [letter.at for letter in letters] == [f"day.ndjson:{place}" for place, _ in wanted]
    assert [base64.b64decode(letter.record_b64) for letter in letters] == [one for _, one in wanted]
    assert batch.records == len(lines)


def test_blank_lines_shift_no_place():
    _, letters = decoded(Decoder(), Chunk("file", "f", b"\nx\n\n\ny\n", range(1, 6)))
    assert [letter.at for letter in letters] == ["f:2", "f:5"]


def test_what_a_format_refused_and_what_breaks_the_contract_are_both_dead_letters_of_the_vendors_record():
    items = [
        Converted(1, orjson.dumps(CALL), b"first"),
        Reject(4, DeadReason.NOT_JSON, "a record must have 7 fields, had 2", b"second"),
        Converted(5, orjson.dumps(CALL | {"mos": 9}), b"third"),
    ]
    batch, letters = decoded(Decoder(), converted("file", "cdr.csv", items))
    assert sorted((letter.at, base64.b64decode(letter.record_b64)) for letter in letters) == [
        ("cdr.csv:4", b"second"),
        ("cdr.csv:5", b"xxxxx"),  # a vendor's record shows its form alone
    ]
    assert (batch.records, len(batch.calls), len(batch.rejects)) == (3, 1, 2)
