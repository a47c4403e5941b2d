import csv
import datetime as dt
import io
import itertools
import re
import tracemalloc
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.config import load
from schemas.deadletters import DeadReason, Reject
from schemas.decode import decode_record
from schemas.errors import ConfigError, InputError
from schemas.formats import NAMES, RECORD_BYTES_MAX, Converted, Lines, Options, available, open_format, shape
from schemas.formats.columnmap import ColumnMap
from schemas.formats.identity import NumberPlan, Tokens
from schemas.formats.masks import masked
from schemas.formats.times import TimeReader, problems

EXAMPLE = Path(__file__).parents[1] / "docs/examples/billing-cdr.toml"
TOKENS = Tokens(b"0123456789abcdef", NumberPlan(country="44", national_digits=10))
COLUMNS = {"call_id": "id", "customer_id": "from", "start_ms": "start", "end_ms": "end"}
HEADER = b"id,from,start,end\n"
GOOD = b"c1,alice,1000,2000\n"


def plain_map(**changes):
    """A map whose times are Unix milliseconds and whose identities stay as they are."""
    return ColumnMap(**{"columns": COLUMNS, "date_formats": ("unix_ms",), "tokenise": (), **changes})


def read(data, column_map=None, cuts=()):
    column_map = plain_map() if column_map is None else column_map
    assert column_map.problems() == []
    reader = open_format("csv", Options(tokens=TOKENS, csv=column_map))
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    items = [item for low, high in itertools.pairwise(edges) for item in reader.feed(data[low:high])]
    return items + reader.finish()


def one(row, column_map=None, header=HEADER):
    (item,) = read(header + row, column_map)
    return item


def event(row, columns, **changes):
    """Convert one row whose columns are named like the fields they become."""
    header = changes.get("delimiter", ",").join(columns).encode() + b"\n"
    named = {
        **dict.fromkeys(("call_id", "customer_id"), "id"),
        **{name: name for name in columns if name != "id"},
    }
    item = one(row, plain_map(columns=named, **changes), header)
    return orjson.loads(item.line) if isinstance(item, Converted) else item


def kinds(items):
    return [(item.position, "event" if isinstance(item, Converted) else item.reason.value) for item in items]


CELLS = st.text(alphabet='ab ,;"\n\té0', max_size=8)


class TestRows:
    @given(
        rows=st.lists(st.lists(CELLS, min_size=4, max_size=4), max_size=8),
        delimiter=st.sampled_from(",;\t|"),
        line_end=st.sampled_from(["\n", "\r\n"]),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        cuts=st.lists(st.integers(0, 400), max_size=4),
    )
    def test_rows_are_read_as_the_csv_module_writes_them(self, rows, delimiter, line_end, quoting, cuts):
        text = io.StringIO()
        writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
        writer.writerows([["x", *row] for row in rows])
        columns = {"call_id": 1, "customer_id": 2, "codec": 3, "reason": 4, "peer_id": 5}
        texts = plain_map(columns=columns, delimiter=delimiter, header=False, constants={"start_ms": 1, "end_ms": 2})
        fields = ["customer_id", "codec", "reason", "peer_id"]
        expected = [
            {name: cell.strip() for name, cell in zip(fields, row, strict=True) if cell.strip()} for row in rows
        ]
        found = [orjson.loads(item.line) for item in read(text.getvalue().encode(), texts, cuts)]
        assert [{name: row[name] for name in fields if name in row} for row in found] == expected

    @given(st.binary(max_size=120) | st.text('",\n\r a1', max_size=120).map(str.encode), st.lists(st.integers(0, 120)))
    def test_where_chunks_are_cut_changes_nothing(self, data, cuts):
        assert read(HEADER + data, cuts=cuts) == read(HEADER + data)

    @given(st.lists(st.text('",a1\té', max_size=12) | st.just("c,x,1,2"), max_size=12))
    def test_every_line_belongs_to_exactly_one_item_in_order(self, lines):
        data = HEADER + "\n".join([*lines, ""]).encode()
        items = read(data)
        positions = [item.position for item in items]
        assert positions == sorted(set(positions))
        shown = [(item.position, masked(item.record)) for item in items]
        held = [(position + at, line) for position, record in shown for at, line in enumerate(record.split(b"\n"))]
        wanted = [(at, masked(line.encode())) for at, line in enumerate(lines, 2)]
        # A blank line stands for itself only inside a quoted field.
        assert [pair for pair in held if pair[1].strip()] == [pair for pair in wanted if pair[1].strip()]

    @pytest.mark.parametrize(
        ("bad", "reasons"),
        [
            (b"c,x,1\n", ["not_json"]),
            (b"c,x,1,2,3\n", ["not_json"]),
            (b"c,\xff\xfe,1,2\n", ["not_text"]),
            (b"c,x,soon,2\n", ["wrong_type"]),
            (b'"c,x,1,2\n', ["not_json"]),
            (b'c,"x,1,2\nd,y,3,4\n', ["not_json", "event"]),
            (b'"c\nd",x,1,2\n', ["event"]),
            (b'"c\n"d,x,1,2\n', ["not_json", "not_json"]),
            (b'"c" d,x,1,2\n', ["not_json"]),
            (b'c,"x,1,2\nd,"y",3,4\n', ["not_json", "event"]),
            (b"c\rd,x,1,2\n", ["event"]),
            (b'c\rd,"x",1,2\n', ["not_json"]),
            (b"x" * (RECORD_BYTES_MAX + 1) + b"\n", ["too_large"]),
            (b'"' + b"x" * RECORD_BYTES_MAX + b"\n", ["too_large"]),
            (b'c,"x\n' + b"x" * (RECORD_BYTES_MAX + 1) + b"\n", ["not_json", "too_large"]),
            (b"c," + b'"' + b"x" * 200_000 + b'",1,2\n', ["not_json"]),
            (b"\n   \n", []),
            (b"c,\x00,1,2\n", ["event"]),
        ],
    )
    def test_a_bad_row_costs_nothing_but_itself(self, bad, reasons):
        items = read(HEADER + GOOD + bad + GOOD + GOOD)
        assert [kind for _, kind in kinds(items)] == ["event", *reasons, "event", "event"]
        assert items[0].line == items[-1].line == items[-2].line
        assert items[-1].position == 1 + 1 + bad.count(b"\n") + 2

    def test_a_quoted_field_may_hold_line_ends(self):
        items = read(HEADER + b'c1,"al\nice",1,2\r\n' + GOOD)
        assert kinds(items) == [(2, "event"), (4, "event")]
        assert orjson.loads(items[0].line)["customer_id"] == "al\nice"
        assert items[0].record == b'c1,"al\nice",1,2'

    def test_a_quote_inside_a_field_is_an_ordinary_character(self):
        items = read(HEADER + b'c1,al"ice,1,2\nc2,5" pipe,1,2\n')
        assert [orjson.loads(item.line)["customer_id"] for item in items] == ['al"ice', '5" pipe']

    def test_without_quoting_a_quote_is_never_special(self):
        assert orjson.loads(one(b'"c1,"x",1,2\n', plain_map(quote="")).line)["call_id"] == '"c1'

    def test_a_byte_order_mark_is_no_part_of_the_first_name(self):
        assert kinds(read(b"\xef\xbb\xbf" + HEADER + GOOD)) == [(2, "event")]
        assert kinds(read(b'\xef\xbb\xbf"id",from,start,end\n' + GOOD)) == [(2, "event")]

    def test_names_in_the_header_are_taken_without_the_spaces_around_them(self):
        assert kinds(read(b"id, from , start, end, more\nc1,a,1,2,\n")) == [(2, "event")]

    def test_the_last_row_needs_no_line_end(self):
        assert kinds(read(HEADER + GOOD.rstrip())) == [(2, "event")]

    def test_an_input_that_ends_inside_a_row_is_told_as_such(self):
        assert kinds(read(HEADER + b"c1,alice,10")) == [(2, "truncated")]
        assert kinds(read(HEADER + b'c1,"alice')) == [(2, "truncated")]

    def test_an_empty_input_has_no_rows(self):
        assert read(b"") == read(HEADER) == []

    @pytest.mark.parametrize("header", [b"id,from,start\n", b"id,from,start,end,id\n", b"c1,alice,1000,2000\n"])
    def test_a_first_row_that_does_not_name_the_columns_is_an_error_of_the_input(self, header):
        with pytest.raises(InputError, match="first row") as caught:
            read(header + GOOD)
        assert "alice" not in str(caught.value)

    @pytest.mark.parametrize(
        ("header", "told"),
        [
            (
                b"call_id,customer_id,Start,end\n",
                "'start' is not there, but 'Start' is; it names 'call_id', 'customer_id',",
            ),
            (b"call_id,customer_id,start,end,end\n", "'end' is there 2 times"),
            (b"call_id;customer_id;start;end\n", "it is one column, 29 characters long: is input.csv.delimiter"),
            (
                b"Alice Smith,01632960001,1767261600,2\n",
                "it reads 'aaaaa aaaaa', '99999999999', '9999999999', '9': if it",
            ),
        ],
    )
    def test_a_column_that_is_not_there_is_told_beside_those_that_are(self, header, told):
        columns = {name: name for name in ("call_id", "customer_id")} | {"start_ms": "start", "end_ms": "end"}
        with pytest.raises(InputError) as caught:
            read(header + GOOD, plain_map(columns=columns))
        assert told in str(caught.value)
        assert "Alice" not in str(caught.value)

    def test_without_a_header_columns_are_numbered_and_more_of_them_do_no_harm(self):
        numbered = plain_map(columns={"call_id": 1, "customer_id": 2, "start_ms": 3, "end_ms": 4}, header=False)
        assert kinds(read(GOOD + b"c2,bob,1,2,9\nc3,eve,1\n", numbered)) == [
            (1, "event"),
            (2, "event"),
            (3, "not_json"),
        ]

    def test_other_encodings_are_read(self):
        assert (
            orjson.loads(one("c1,Zoë,1,2\n".encode("cp1252"), plain_map(encoding="cp1252")).line)["customer_id"]
            == "Zoë"
        )

    @pytest.mark.parametrize(
        "name", ["utf-16", "utf-7", "iso2022_jp", "hz", "unicode_escape", "rot13", "hex", "klingon"]
    )
    def test_an_encoding_that_hides_ascii_is_refused(self, name):
        assert [text.split(":")[0] for text in plain_map(encoding=name).problems()] == ["encoding"]


class TestMemory:
    @pytest.mark.parametrize(
        ("chunk", "times"),
        [
            (b"x" * (1 << 20), 1024),
            (b"x" * (1 << 16) + b"\n", 512),
            (b'"' + b"x" * (1 << 16), 512),
            (b'c,"\n' + b"x,\n" * 2_048, 24),
            (b"x" * 8_192 + b"\n", 512),
        ],
        ids=["one line of a gigabyte", "long lines", "quotes", "many lines in quotes", "long lines in quotes"],
    )
    def test_an_input_without_an_end_of_record_needs_little_memory(self, chunk, times):
        reader = open_format("csv", Options(csv=plain_map()))
        reader.feed(HEADER + b'c,"')
        tracemalloc.start()
        try:
            for _ in range(times):
                reader.feed(chunk)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 8 << 20

    @given(st.lists(st.binary(max_size=20)), st.integers(1, 12))
    def test_lines_are_those_of_the_bytes_as_a_whole(self, chunks, bytes_max):
        lines = Lines(bytes_max)
        found = [line for chunk in chunks for line in lines.feed(chunk)] + lines.finish()
        parts = b"".join(chunks).split(b"\n")
        expected = parts if parts[-1] else parts[:-1]
        assert [line.position for line in found] == list(range(1, len(expected) + 1))
        assert [line.too_long for line in found] == [len(part) > bytes_max for part in expected]
        assert [line.data for line in found] == [part.removesuffix(b"\r") for part in expected]


class TestTimes:
    @given(
        st.dates(dt.date(1971, 1, 1), dt.date(2100, 1, 1)),
        st.times(),
        st.sampled_from(["Europe/London", "Asia/Tokyo"]),
    )
    def test_a_local_time_is_the_instant_that_its_zone_says(self, day, time, zone):
        moment = dt.datetime.combine(day, time.replace(microsecond=time.microsecond // 1000 * 1000))
        reader = TimeReader(["%d/%m/%Y %H:%M:%S.%f", "iso"], zone, day_first=None)
        expected = round(moment.replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
        assert reader.time_ms(f"{moment:%d/%m/%Y %H:%M:%S.%f}") == expected
        assert reader.time_ms(moment.isoformat()) == expected
        assert reader.time_ms(moment.replace(tzinfo=ZoneInfo(zone)).isoformat()) == expected

    @pytest.mark.parametrize(
        ("day_first", "formats", "month"),
        [
            (True, ["%m/%d/%Y", "%d/%m/%Y"], 1),
            (False, ["%d/%m/%Y", "%m/%d/%Y"], 3),
            (None, ["%d/%m/%Y"], 1),
            (None, ["%m/%d/%Y"], 3),
        ],
    )
    def test_day_first_decides_what_fits_both_orders(self, day_first, formats, month):
        assert problems(formats, "UTC", day_first=day_first) == []
        reader = TimeReader(formats, "UTC", day_first=day_first)
        expected = dt.datetime(2014, month, 4 - month if month == 3 else 3, tzinfo=dt.UTC)
        assert reader.time_ms("3/1/2014") == expected.timestamp() * 1000

    def test_the_other_order_is_taken_where_only_it_fits(self):
        reader = TimeReader(["%m/%d/%Y", "%d/%m/%Y"], "UTC", day_first=False)
        assert reader.time_ms("22/01/2014") == reader.time_ms("01/22/2014") is not None

    @pytest.mark.parametrize(
        "text", ["31/02/2014", "3-1-2014", "", "03/01/14", "1/2/2014 9", "x" * 1_000_000, "0/0/0000"]
    )
    def test_a_text_that_fits_no_format_is_no_time(self, text):
        assert TimeReader(["%d/%m/%Y"], "UTC", day_first=None).time_ms(text) is None

    @pytest.mark.parametrize(
        ("name", "text", "time_ms"),
        [
            ("unix_s", "1388746800", 1_388_746_800_000),
            ("unix_s", "1388746800.1239", 1_388_746_800_123),
            ("unix_ms", "1388746800123", 1_388_746_800_123),
            ("unix_ms", "1e9", None),
            ("unix_s", "١٢", None),
            ("iso", "2014-01-03T11:00:00Z", 1_388_746_800_000),
            ("%d %b %Y %H:%M %z", "03 Jan 2014 13:00 +0200", 1_388_746_800_000),
        ],
    )
    def test_numbers_and_offsets_are_read(self, name, text, time_ms):
        assert TimeReader([name], "America/New_York", day_first=None).time_ms(text) == time_ms

    def test_an_hour_that_comes_twice_is_taken_as_its_first_pass(self):
        reader = TimeReader(["iso"], "Europe/London", day_first=None)
        assert reader.time_ms("2014-10-26T01:30:00") == reader.time_ms("2014-10-26T00:30:00+00:00")

    def test_a_call_over_the_change_of_the_clocks_ends_after_it_began(self):
        local = plain_map(date_formats=("iso",), timezone="Europe/London")
        rows = "id,from,start,end\n7,a,{0}T01:59:50,{0}T01:00:05\n8,a,{0}T02:59:50,{0}T01:00:05\n".format(
            "2014-10-26"
        ).encode()
        over, broken = (orjson.loads(item.line) for item in read(rows, local))
        assert over["end_ms"] - over["start_ms"] == 15_000
        assert broken["end_ms"] < broken["start_ms"], "no pass of that hour mends it"


class TestTokens:
    @given(st.text(), st.binary(min_size=16, max_size=64))
    def test_a_token_tells_nothing_and_depends_on_the_key(self, text, key):
        token = Tokens(key).identity(text)
        assert re.fullmatch("tok_[a-p]{24}", token)
        assert token == Tokens(key).identity(text)
        assert token != Tokens(key + b"\0x").identity(text)

    @pytest.mark.parametrize(
        "writing",
        ["+441650333333", "+44 1650 333333", "00441650333333", "01650 333-333", "1650333333", "441650333333",
         "(01650) 333333", "sip:+441650333333@pbx.example;user=phone", "tel:+44-1650-333333", "SIP:01650333333@x",
         '"Bob" <sip:01650333333@x>', "+44 (0)1650 333333", "sip:%2B441650333333@x", "sip:01650333333:secret@x"],
    )  # fmt: skip
    def test_every_writing_of_a_number_has_one_token(self, writing):
        assert TOKENS.identity(writing) == TOKENS.opaque("441650333333")

    @pytest.mark.parametrize(
        ("plan", "text", "normalised"),
        [
            (NumberPlan(), "01650333333", "01650333333"),
            (NumberPlan("1", "011", "1", 10), "(212) 555-0100", "12125550100"),
            (NumberPlan("1", "011", "1", 10), "1-212-555-0100", "12125550100"),
            (NumberPlan("1", "011", "1", 10), "011 44 1650 333333", "441650333333"),
            (NumberPlan("39", trunk_prefix="", national_digits=10), "0612345678", "390612345678"),
            (NumberPlan("44"), "sip:Alice@pbx.example", "alice"),
            (NumberPlan("44"), "anonymous", "anonymous"),
            (NumberPlan("44"), "+", "+"),
            (NumberPlan("44"), "00", "00"),
            (NumberPlan("44"), "sip:192.0.2.1:5060", "192.0.2.1"),
            (NumberPlan("44"), "sip:Alice@[2001:db8::1]:5060", "alice"),
        ],
    )
    def test_a_plan_says_how_numbers_are_written(self, plan, text, normalised):
        assert plan.normalised(text) == normalised

    def test_identities_become_tokens_and_a_customer_is_known_as_a_far_end(self):
        columns = {**COLUMNS, "peer_id": "to"}
        tokenised = plain_map(columns=columns, tokenise=("customer_id", "peer_id", "call_id"))
        header = b"id,from,start,end,to\n"
        items = read(header + b"7,01650333333,1,2,+44999\n8,0999,1,2,01650333333\n9,0999,1,2,\n", tokenised)
        first, second, third = (orjson.loads(item.line) for item in items)
        assert first["customer_id"] == second["peer_id"] == TOKENS.opaque("441650333333")
        assert first["call_id"] == TOKENS.opaque("7")
        assert "peer_id" not in third

    def test_without_a_key_nothing_is_opened(self):
        with pytest.raises(ConfigError, match="must give a key, as customer_id become tokens"):
            open_format("csv", Options(csv=ColumnMap(columns=COLUMNS)))


class TestValues:
    @pytest.mark.parametrize(
        ("name", "text", "field", "value"),
        [
            ("loss_percent", "2.5", "loss_ratio", 0.025),
            ("loss_ratio", "0.29", "loss_ratio", 0.29),
            ("loss_percent", "29", "loss_ratio", 0.29),
            ("silence_s", "1.5", "silence_ms", 1500),
            ("rtt_s", "0.0801", "rtt_ms", 80.1),
            ("jitter_ms", "1e1", "jitter_ms", 10.0),
            ("duration_s", "65", "end_ms", 66_000),
            ("duration_ms", "65", "end_ms", 1_065),
            ("duration_s", "1:05", "end_ms", 66_000),
            ("duration_s", "1:00:05.5", "end_ms", 3_606_500),
            ("packets_received", "0", "packets_received", 0),
            ("peer_id", " x ", "peer_id", "x"),
            ("sip_status", "+200", "sip_status", 200),
        ],
    )
    def test_a_value_is_turned_into_its_field_s_unit(self, name, text, field, value):
        columns = ["id", "start_ms", name] if field == "end_ms" else ["id", "start_ms", "end_ms", name]
        row = ",".join([*["c", "1000", "2000"][: len(columns) - 1], text]).encode()
        assert event(row, columns)[field] == value

    @pytest.mark.parametrize(
        ("name", "text", "reason"),
        [
            ("mos", "good", "wrong_type"),
            ("mos", "nan", "wrong_type"),
            ("mos", "1_0", "wrong_type"),
            ("mos", "٤", "wrong_type"),
            ("sip_status", "200.5", "wrong_type"),
            ("sip_status", "1e30", "out_of_range"),
            ("rtt_ms", "9" * 40, "wrong_type"),
            ("talk_s", "-1", "out_of_range"),
            ("talk_ms", "1:05", "wrong_type"),
        ],
    )
    def test_a_value_that_is_no_number_makes_the_row_a_reject(self, name, text, reason):
        assert event(f"c,1000,2000,{text}".encode(), ["id", "start_ms", "end_ms", name]).reason == reason

    def test_talk_time_gives_the_answer_and_none_means_never_answered(self):
        columns = ["id", "start_ms", "end_ms", "talk_s"]
        assert event(b"c,1000,9000,3", columns)["answer_ms"] == 6_000
        assert "answer_ms" not in event(b"c,1000,9000,0", columns)
        assert "answer_ms" not in event(b"c,1000,9000,", columns)

    def test_decimal_commas_are_read_where_the_map_says_so(self):
        columns = ["id", "start_ms", "end_ms", "mos"]
        row = b'c,1,2,"4,1"'
        assert event(row, columns, decimal_comma=True)["mos"] == 4.1
        assert event(row, columns).reason is DeadReason.WRONG_TYPE

    def test_a_source_s_words_become_the_contract_s(self):
        words = {
            "sip_status": {"ANSWERED": 200, "BUSY": 486, "": 1},
            "released_by": {"A": "customer", "*": "unknown", "-": ""},
        }
        columns = ["id", "start_ms", "end_ms", "sip_status", "released_by"]
        assert event(b"c,1,2,BUSY,A", columns, values=words)["sip_status"] == 486
        assert event(b"c,1,2,ANSWERED,Z", columns, values=words)["released_by"] == "unknown"
        assert "released_by" not in event(b"c,1,2,,-", columns, values=words)
        assert event(b"c,1,2,CONGESTION,A", columns, values=words).reason is DeadReason.UNKNOWN_VALUE

    def test_what_means_not_known_is_left_out(self):
        columns = ["id", "start_ms", "end_ms", "mos", "codec"]
        assert event(rb"c,1,2,\N,NULL", columns, nulls=("", r"\N", "NULL")).keys().isdisjoint({"mos", "codec"})

    def test_constants_are_in_every_event(self):
        assert (
            event(b"c,1,2", ["id", "start_ms", "end_ms"], constants={"direction": "out", "probe_id": "p"})["probe_id"]
            == "p"
        )

    def test_rows_may_be_of_another_type(self):
        columns = {"element_id": "node", "at_ms": "t", "value": "v", "metric": "what"}
        link = plain_map(type="link", columns=columns, constants={"element_kind": "access_node"})
        item = one(b"n1,5,0.5,latency_ms\n", link, b"node,t,v,what\n")
        assert decode_record(item.line).value == 0.5

    @given(st.lists(st.text("123456780", min_size=6) | st.text("bcdef", min_size=6), min_size=4, max_size=4))
    def test_a_reject_tells_no_value_of_its_row(self, cells):
        mapped = plain_map(date_formats=("iso",), columns={**COLUMNS, "sip_status": "end"})
        item = one(",".join(cells).encode(), mapped)
        assert not isinstance(item, Reject) or not any(cell in item.detail for cell in cells)

    @given(st.text(st.characters(categories=["L", "N"]) | st.sampled_from(" -/:.")))
    def test_a_shape_keeps_neither_letters_nor_digits(self, text):
        assert set(shape(text)) <= set("9a -/:.'")
        assert len(shape(text)) <= 37


class TestBillingExample:
    ROWS = (
        b"callID, phoneNumber, Line, destPhoneNumber, startDate, endDate, startTime, endTime, Type, Cost\n"
        b"0,1650333333,1,8450927777,3/1/2014,3/1/2014,11:00:00,11:09:00,National,72\n"
        b"1,1650333333,1,1657777772,22/01/2014,22/01/2014,18:30:00,18:43:00,Local,52\n"
        b"0,1847622222,0,1650333333,31/01/2014,1/2/2014,23:55:00,0:05:00,Local,10\n"
        b"1,1847622222,0,64000000000,32/01/2014,1/2/2014,23:55:00,0:05:00,Intl,10\n"
    )

    def test_the_documented_map_converts_the_documented_rows(self):
        config = load(EXAMPLE, {})
        given_plan = config.input.tokens
        plan = NumberPlan(given_plan.country, national_digits=given_plan.national_digits)
        reader = open_format("csv", Options(tokens=Tokens(b"k" * 16, plan), csv=config.input.csv))
        items = reader.feed(self.ROWS) + reader.finish()
        assert kinds(items) == [(2, "event"), (3, "event"), (4, "event"), (5, "wrong_type")]
        calls = [decode_record(item.line) for item in items[:3]]
        assert [call.start_ms for call in calls] == [1_388_746_800_000, 1_390_415_400_000, 1_391_212_500_000]
        assert [call.end_ms - call.start_ms for call in calls] == [540_000, 780_000, 600_000]
        assert all(call.answer_ms == call.start_ms and call.direction == "out" for call in calls)
        assert len({call.call_id for call in calls}) == 3
        assert calls[0].customer_id == calls[2].peer_id


class TestOpening:
    def test_every_available_format_is_one_of_the_contract(self):
        assert set(available()) <= set(NAMES)

    @pytest.mark.parametrize("name", ["dbase", "stayline"])
    def test_an_unknown_format_is_refused(self, name):
        with pytest.raises(ConfigError, match="must be one that this version reads"):
            open_format(name, Options())

    def test_a_map_that_does_not_hold_is_refused_with_every_problem(self):
        with pytest.raises(ConfigError) as caught:
            open_format("csv", Options(csv=ColumnMap(columns={"call_id": "id"}, delimiter="", tokenise=())))
        assert len(caught.value.problems) == 4
        with pytest.raises(ConfigError, match=r"input\.csv: must be given"):
            open_format("csv", Options())


class TestWhoIsInATextLeavesItsRow:
    """Columns are mapped by people who have not read them all: a field that is no identity may hold one."""

    COLUMNS = ("id", "start_ms", "end_ms", "reason", "access_node", "cpe_model", "cpe_firmware", "trunk")

    def told(self, *, tokenise=("customer_id", "peer_id"), **texts):
        given = {"id": "c-1", "start_ms": "1000", "end_ms": "2000", **texts}
        row = "|".join(given.get(name, "") for name in self.COLUMNS).encode() + b"\n"
        return event(row, self.COLUMNS, tokenise=tokenise, delimiter="|")

    @pytest.mark.parametrize(
        "text",
        [
            "02079460501", "call +44 20 7946 0501", "sip:alice@pbx.example", "198.51.100.7", "2001:db8::77", "fe80::1",
            "0a:1b:2c:3d:4e:5f", "0A1B2C3D4E5F", "0a1b.2c3d.4e5f", "tel:0501",
        ],
    )  # fmt: skip
    def test_an_identity_in_any_text_becomes_a_token_and_leaves_a_reason(self, text):
        made = self.told(id=text, access_node=text, cpe_model=text, trunk=text, reason=text)
        token = TOKENS.opaque(text)
        assert (made["call_id"], made["access_node"], made["cpe_model"], made["trunk"]) == (token,) * 4
        assert "reason" not in made

    def test_names_of_equipment_and_versions_are_told_as_they_are(self):
        said = {
            "access_node": "olt-1024/2/17",
            "cpe_firmware": "66.85.0.5",
            "trunk": "ams-2",
            "cpe_model": "Yealink T46S",
        }
        reason = 'Q.850;cause=38;text="Network out of order"'
        made = self.told(reason=reason, **said)
        assert made.items() >= {"call_id": "c-1", "reason": reason, **said}.items()
        for address in ("192.168.1.20", "8.8.8.8"):
            assert self.told(cpe_model="HT802", cpe_firmware=address)["cpe_firmware"] == TOKENS.opaque(address)
        assert self.told(cpe_model="HT802", cpe_firmware="1.0.29")["cpe_firmware"] == "1.0.29"

    def test_of_a_reason_with_an_identity_the_cause_stays(self):
        assert self.told(reason='Q.850;cause=38;text="to 02079460501"')["reason"] == "Q.850;cause=38"

    def test_a_map_that_tokenises_nothing_says_that_nobody_is_in_the_file(self):
        assert self.told(tokenise=(), id="call-02079460501")["call_id"] == "call-02079460501"
