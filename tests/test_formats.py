"""Vendor records become the events that they mean, and nothing of them that could be called back leaves the format."""

import hmac
import random
import re
import tracemalloc
from typing import get_args

import orjson
import pytest
from formats_kit import CASES, FORMATS, KEY, PLAN, events, letters, options, read, read_case, source
from hypothesis import given
from hypothesis import strategies as st

from dataflows.config import format_options, load
from dataflows.config.customers import read_customers
from schemas.alerts import PatternKind
from schemas.deadletters import DeadReason, Reject
from schemas.decode import decode_record
from schemas.errors import ConfigError, InputError
from schemas.events import Call, Media
from schemas.formats import NAMES, RECORD_BYTES_MAX, Converted, Options, available, described, open_format
from schemas.formats.calls import Heard, Parties, Side, heard, mos_of
from schemas.formats.identity import Tokens
from schemas.formats.names import codec_of, place_of, reason_of
from schemas.formats.records import WAITING_MAX

VENDORS = ("freeswitch", "asterisk", "kamailio", "cucm", "voipmonitor", "vqrtcpxr")
TOKENS = Tokens(KEY, PLAN)
CANARIES = (
    b"01632", b"1632960", b"960001", b"960002", b"960003", b"192.0.2", b"alice", b"desk", b"0A1B2C3D4E5F",
    b"33140000000",
)  # fmt: skip
"""Beginnings, middles and ends of what the golden files know people by."""


def calls(case):
    return [orjson.loads(item.line) for item in read_case(case) if isinstance(item, Converted)]


def cut_lines(case):
    return source(case).splitlines(keepends=True)


class TestGoldenFiles:
    @pytest.mark.parametrize("case", CASES)
    def test_a_golden_file_converts_exactly(self, case):
        items = read_case(case)
        assert events(items) == (FORMATS / f"{case}.ndjson").read_bytes()
        assert letters(items) == (FORMATS / f"{case}.dead.ndjson").read_bytes()

    @pytest.mark.parametrize("case", CASES)
    def test_every_event_of_it_holds_the_contract(self, case):
        for line in (FORMATS / f"{case}.ndjson").read_bytes().splitlines():
            assert isinstance(decode_record(line), Call | Media)

    @pytest.mark.parametrize("name", VENDORS)
    def test_its_events_have_no_field_that_the_format_does_not_tell_of(self, name):
        told = {given.name: given.gives for given in described()}[name]
        found = {field for case in CASES if case.startswith(f"{name}/") for call in calls(case) for field in call}
        assert found - set(told) <= {"type", "at_ms", "interval_ms"}
        assert set(told) <= found

    def test_every_vendor_has_golden_files(self):
        assert {case.partition("/")[0] for case in CASES} == set(VENDORS)


class TestReportsInTheUsualOrder:
    @given(
        values=st.lists(
            st.sampled_from(["0", "0.0", "1.5", "100", "127", "4.1", "", "x", "65535"]), min_size=8, max_size=8
        ),
        left_out=st.sets(
            st.sampled_from(["SessionDesc", "JitterBuffer", "BurstGapLoss", "Signal", "LocalMAC", "DialogID"])
        ),
        end=st.sampled_from(["\n", "\r\n"]),
    )
    def test_they_are_read_as_those_in_any_other_order(self, values, left_out, end):
        nlr, jdr, rtd, iaj, mos, listening, port, stop = values
        lines = [
            "VQSessionReport: CallTerm", "CallID: a1", "LocalID: <sip:1@x>", "RemoteID: <sip:2@x>", "OrigID: <sip:1@x>",
            f"LocalAddr: IP=192.0.2.1 PORT={port}", "LocalMAC: 1", "RemoteAddr: IP=192.0.2.2", "LocalMetrics:",
            f"Timestamps: START=2026-01-02T10:30:05Z STOP=2026-01-02T10:31:05Z{stop}", "SessionDesc: PT=8 PD=PCMA",
            "JitterBuffer: JBA=3", f"PacketLoss: NLR={nlr} JDR={jdr}", "BurstGapLoss: BLD=1",
            f"Delay: RTD={rtd} IAJ={iaj}", "Signal: SL=1", f"QualityEst: MOSLQ={listening} MOSCQ={mos}",
            "DialogID: a1;to-tag=1",
        ]  # fmt: skip
        kept = [line for line in lines if line.partition(":")[0] not in left_out]
        usual = read("vqrtcpxr", end.join([*kept, ""]).encode())
        # An unknown line between them makes it a report of another order.
        other = read("vqrtcpxr", end.join([*kept[:-1], "x-Unknown: 1", kept[-1], ""]).encode())
        assert [item.line if isinstance(item, Converted) else item.detail for item in usual] == [
            item.line if isinstance(item, Converted) else item.detail for item in other
        ]


class TestBytes:
    @pytest.mark.parametrize("case", CASES)
    @given(cuts=st.lists(st.integers(0, 1 << 20), max_size=6))
    def test_where_chunks_are_cut_changes_nothing(self, case, cuts):
        assert read_case(case, cuts) == read_case(case)

    @pytest.mark.parametrize("case", CASES)
    def test_bytes_may_come_one_by_one(self, case):
        assert read_case(case, range(len(source(case)))) == read_case(case)

    @pytest.mark.parametrize("name", VENDORS)
    def test_mutated_records_become_events_or_rejects_and_nothing_else(self, name):
        chance = random.Random(name)  # noqa: S311 - the seed makes the run the same every time
        seeds = [source(case) for case in CASES if case.startswith(f"{name}/")]
        for _ in range(300):
            mutant = mutated(chance.choice(seeds), chance)
            try:
                items = read(name, mutant)
            except InputError as error:
                # Its first row must name the columns; and UTF-16 is none of them.
                assert name == "voipmonitor" or "UTF-16" in str(error)  # noqa: PT017 - both ways are right
                continue
            for item in items:
                assert isinstance(item, Converted | Reject)
                if isinstance(item, Converted):
                    orjson.loads(item.line)

    def test_a_long_line_of_blanks_is_read_in_one_pass(self):
        # A pattern that tries every way to split it would take minutes: the test run's time limit is what fails then.
        report = b"VQSessionReport\nCallID:" + b" " * 900_000 + b"\nLocalID:x\n"
        (reject,) = read("vqrtcpxr", report)
        assert reject.reason == DeadReason.MISSING_FIELD

    @pytest.mark.parametrize("name", VENDORS)
    def test_a_bad_record_costs_nothing_but_itself(self, name):
        case = {"freeswitch": "legs", "asterisk": "orders", "kamailio": "cdrs-and-dialogs", "cucm": "no-header",
                "voipmonitor": "table", "vqrtcpxr": "dialects"}[name]  # fmt: skip
        data = source(f"{name}/{case}")
        good = events(read(name, data))
        for bad in (
            b"\xff\xfe\x00\n",
            b'"unclosed,\n',
            b'{"a":\n',
            b"]" * 50 + b"\n",
            b"x" * (RECORD_BYTES_MAX + 1) + b"\n",
        ):
            # Reports run on until the next one begins: bad lines between them belong to one of them.
            items = read(name, data + bad + (b"" if name == "vqrtcpxr" else data.splitlines(keepends=True)[0]))
            assert events(items).splitlines()[: good.count(b"\n") - 1] == good.splitlines()[:-1]

    @pytest.mark.parametrize("name", VENDORS)
    @pytest.mark.parametrize(
        "piece", [b"x" * (1 << 20), b'{"a":"' + b"x" * (1 << 20), b"VQSessionReport " + b"x" * (1 << 20)]
    )
    def test_a_line_without_an_end_needs_little_memory(self, name, piece):
        reader = open_format(name, options())
        if name == "voipmonitor":
            reader.feed(cut_lines("voipmonitor/table")[0])
        tracemalloc.start()
        try:
            rejects = [item for _ in range(64) for item in reader.feed(piece)] + reader.finish()
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 8 << 20
        assert [reject.reason for reject in rejects] == [DeadReason.TOO_LARGE]
        assert len(rejects[0].record) <= 4_096

    def test_a_record_too_long_is_told_wherever_chunks_are_cut(self):
        report = source("vqrtcpxr/dialects")
        long = b"VQSessionReport: CallTerm\n" + b"CallID: 7\n" * 110_000
        data = report + long + report
        expected = read("vqrtcpxr", data)
        assert [item.reason for item in expected if isinstance(item, Reject)] == [DeadReason.TOO_LARGE]
        assert expected[-1].position == report.count(b"\n") + 110_001 + 34
        for step in (1 << 16, 99_991, 1 << 20):
            assert read("vqrtcpxr", data, cuts=range(step, len(data), step)) == expected

    def test_a_line_too_long_may_begin_a_report(self):
        first = b"VQSessionReport: CallTerm\nCallID: 1\n"
        data = first + b"VQSessionReport " + b"x" * (3 << 20) + b"\n" + source("vqrtcpxr/dialects")
        expected = read("vqrtcpxr", data)
        assert [item.reason.value for item in expected[:2]] == ["missing_field", "too_large"]
        for step in (1 << 16, 1_000_003, 1 << 20):
            assert read("vqrtcpxr", data, cuts=range(step, len(data), step)) == expected


def mutated(data, chance):
    """Damage a file in one of the ways in which files are damaged."""
    at, size = chance.randrange(len(data)), chance.randrange(1, 40)
    lines = data.splitlines(keepends=True)
    return chance.choice([
        lambda: data[:at],
        lambda: data[:at] + data[at + size :],
        lambda: data[:at] + chance.randbytes(size) + data[at:],
        lambda: data[:at] + bytes([chance.choice(b'",;={}[]\\%\n\r\0<>@-9')]) + data[at + 1 :],
        lambda: data[:at] + chance.choice([b"9" * size, b"-1", b"1e400", b"\\ud800", b"%00%ff", b"NaN"]) + data[at:],
        lambda: b"".join(chance.sample(lines, len(lines))),
        lambda: b"".join(line for line in lines for _ in range(chance.choice((1, 1, 1, 2)))),
        lambda: data.decode("latin-1").encode("utf-16"),
    ])()  # fmt: skip


class TestPrivacy:
    @pytest.mark.parametrize("case", CASES)
    def test_no_number_and_no_address_leaves_the_format(self, case):
        items = read_case(case)
        shown = events(items) + letters(items)
        assert not [canary for canary in CANARIES if canary.lower() in shown.lower()]

    @pytest.mark.parametrize("name", VENDORS)
    def test_nor_does_it_from_mutated_records(self, name):
        chance = random.Random(f"canary {name}")  # noqa: S311 - the seed makes the run the same every time
        seeds = [source(case) for case in CASES if case.startswith(f"{name}/")]
        for _ in range(150):
            data = chance.choice(seeds)
            places = [found.start() for found in re.finditer(rb"[,:;=\t ]", data)]
            at = chance.choice(places) + 1
            planted = chance.choice([b"01632960001", b"+44 1632 960001", b"sip:alice@pbx", b"10.20.30.40"])
            try:
                items = read(name, data[:at] + planted + data[at:])
                shown = events(items) + letters(items)
            except InputError as error:
                shown = str(error).encode()
            assert not [canary for canary in (b"1632960", b"960001", b"alice", b"10.20.30.40") if canary in shown]

    @pytest.mark.parametrize("name", VENDORS)
    def test_without_a_key_nothing_is_opened(self, name):
        with pytest.raises(ConfigError, match="must give a key"):
            open_format(name, Options())

    @given(key=st.binary(max_size=130), text=st.text())
    def test_a_token_is_the_beginning_of_an_hmac(self, key, text):
        digest = hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256")
        letters = "".join("abcdefghijklmnop"[int(digit, 16)] for digit in digest.hex()[:24])
        assert Tokens(key).opaque(text) == f"tok_{letters}"


class TestMeaning:
    def test_a_mos_beside_no_packets_is_one_way_audio(self):
        assert heard(0, 1500, 4.5) == Heard(0, 1500, None)
        assert heard(1500, 0, 4.5) == Heard(0, 1500, None)
        assert heard(10, 1500, 4.5) == Heard(10, 1500, None)
        assert heard(1400, 1500, 4.5) == Heard(1400, 1500, 4.5)
        assert heard(None, 1500, 4.5) == Heard(None, 1500, 4.5)
        assert heard(0, None, 4.5).mos is None
        assert heard(0, 0, 4.5) == Heard(0, 0, None)

    @pytest.mark.parametrize(
        ("said", "mos"), [("4.50", 4.5), ("0.00", None), (127, None), ("", None), (None, None), ("nan", None)]
    )
    def test_a_mos_that_was_not_measured_is_absent(self, said, mos):
        assert mos_of(said) == mos

    @pytest.mark.parametrize(
        ("case", "call", "expected"),
        [
            ("freeswitch/legs", 0, {"released_by": "customer", "q850": 16, "mos": 4.39, "packets_received": 2995}),
            ("freeswitch/legs", 1, {"released_by": "network", "q850": 804, "mos": None, "packets_received": 0}),
            ("freeswitch/legs", 2, {"direction": "out", "sip_status": 503, "q850": 41, "trunk": "carrier-north"}),
            ("freeswitch/legs", 3, {"released_by": "customer", "sip_status": 487, "mos": None}),
            ("freeswitch/legs", 4, {"released_by": "peer", "loss_ratio": 0.066667, "packets_received": 1400}),
            ("asterisk/cdr-csv", 0, {"q850": None, "sip_status": None, "mos": None, "released_by": None}),
            ("asterisk/cdr-csv", 1, {"packets_received": 0, "packets_sent": 480}),
            ("asterisk/cel", 0, {"q850": 44, "released_by": "peer"}),
            ("asterisk/cel", 1, {"q850": 16, "released_by": "customer"}),
            ("kamailio/acc", 0, {"released_by": "peer", "reason": 'RELEASE_CAUSE;cause=2;text="RTP/RTCP time-out"'}),
            ("kamailio/acc", 1, {"sip_status": 503, "answer_ms": None}),
            ("kamailio/acc", 3, {"sip_status": 408, "released_by": "customer"}),
            ("kamailio/cdrs-and-dialogs", 3, {"released_by": "network"}),
            ("cucm/joined", 0, {"released_by": "customer", "mos": 4.31, "loss_ratio": 0.01, "trunk": "trunk-north"}),
            ("cucm/joined", 1, {"released_by": "peer", "q850": 63, "mos": None, "packets_received": 0}),
            ("cucm/joined", 2, {"answer_ms": None, "q850": 17, "mos": None}),
            ("cucm/joined", 3, {"q850": None, "mos": None, "packets_received": 3000}),
            ("voipmonitor/table", 0, {"released_by": "peer", "mos": 4.1, "silence_ms": 0}),
            ("voipmonitor/table", 1, {"released_by": "network", "silence_ms": 30_500}),
            ("voipmonitor/table", 2, {"mos": None, "packets_received": 0, "packets_sent": 500}),
            ("vqrtcpxr/reports", 0, {"mos": 3.7, "loss_ratio": 0.03, "rtt_ms": 120.0, "direction": "out"}),
            ("vqrtcpxr/dialects", 1, {"direction": "in", "mos": 4.1, "codec": "PCMA"}),
        ],
    )  # fmt: skip
    def test_a_record_means_what_its_vendor_says(self, case, call, expected):
        found = calls(case)[call]
        assert {name: found.get(name) for name in expected} == expected

    @pytest.mark.parametrize(
        ("header", "kept"),
        [
            ("Q.850;cause=16", "Q.850;cause=16"),
            ('Reason: SIP ;cause=408 ;text="Session timeout"', 'SIP;cause=408;text="Session timeout"'),
            ('SIP;cause=200;text="a, b", Q.850;cause=102', 'SIP;cause=200;text="a, b", Q.850;cause=102'),
            ('Q.850;cause=31;text="from +44 1632 960001"', "Q.850;cause=31"),
            ('X;text="sip:alice@192.0.2.10"', None),
            ("SIP;text=Busy;cause=486;q=1", 'SIP;cause=486;text="Busy"'),
            ("nothing", None),
            ("", None),
            (None, None),
        ],
    )
    def test_of_a_reason_is_kept_what_names_nobody(self, header, kept):
        assert reason_of(header) == kept

    def test_codecs_have_one_name_each(self):
        assert [codec_of(name) for name in ("PCMU/8000", "G.711U", "ulaw", "opus", "01632960001", 8)] == [
            "PCMU", "PCMU", "PCMU", "opus", None, None,
        ]  # fmt: skip

    def test_equipment_keeps_its_name_unless_that_is_an_address(self):
        assert place_of(TOKENS, "carrier-north") == "carrier-north"
        assert place_of(TOKENS, "192.0.2.7") == TOKENS.opaque("192.0.2.7")
        assert place_of(TOKENS, "gw-01632960001").startswith("tok_")
        assert place_of(TOKENS, "") is None


class TestWhoseCall:
    KNOWING = Tokens(KEY, PLAN, {"01632960001": "account", "01632960002": "other"})

    def test_where_nothing_is_known_the_call_is_the_caller_s(self):
        (side,) = Parties(TOKENS).sides("01632960001", "01632960002")
        assert side == Side("out", TOKENS.identity("01632960001"), TOKENS.identity("01632960002"))

    def test_a_withheld_caller_is_nobody(self):
        for withheld in (
            "anonymous",
            "",
            None,
            "sip:anonymous@anonymous.invalid",
            "+",
            "<>",
            "sip:+@x",
            '"x" <sip:Restricted@192.0.2.1>',
        ):
            assert Parties(TOKENS).sides(withheld, "01632960002") == [Side("in", TOKENS.identity("01632960002"), None)]

    def test_each_end_that_is_a_customer_has_the_call(self):
        out, into = Parties(self.KNOWING).sides("01632960001", "01632960002")
        assert (out.direction, out.customer_id) == ("out", self.KNOWING.opaque("account"))
        assert (into.direction, into.customer_id) == ("in", self.KNOWING.opaque("other"))
        (only,) = Parties(self.KNOWING).sides("0033140000000", "01632960002")
        assert only.customer_id == into.customer_id
        (neither,) = Parties(self.KNOWING).sides("0033140000000", "0033140000001")
        assert neither.direction == "out"

    def test_a_leg_is_its_own_party_s_unless_only_the_other_is_a_customer(self):
        assert Parties(TOKENS).leg_side("01632960001", "01632960002", of_callee=True).direction == "in"
        assert Parties(self.KNOWING).leg_side("01632960001", "01632960002", of_callee=True).direction == "in"
        assert Parties(self.KNOWING).leg_side("01632960001", "0033140000000", of_callee=True).direction == "out"
        assert Parties(TOKENS).leg_side("01632960001", None, of_callee=True).direction == "out"

    def test_identities_of_one_customer_have_one_token(self):
        merged = Tokens(KEY, PLAN, {"+44 1632 960001": "01632960009", "alice": "01632960009"})
        assert len({merged.identity(text) for text in ("sip:Alice@192.0.2.10", "01632960001", "1632960009")}) == 1
        assert merged.identified("01632960009")[1]
        assert not merged.identified("01632960002")[1]
        assert merged.identity("01632960002") == TOKENS.identity("01632960002")

    def test_a_customer_s_legs_of_one_call_have_one_id(self):
        first, second, *_ = calls("freeswitch/legs")
        assert first["call_id"] == second["call_id"]
        assert first["customer_id"] == second["peer_id"]


class TestJoins:
    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    def test_asterisk_s_header_says_what_stands_between_columns(self, mark):
        rows = (
            ["calldate", "clid", "src", "dst", "duration", "billsec", "disposition", "uniqueid"],
            ["2026-01-02 09:00:00", '"Al, ""B""" <1>', "01632960001", "01632960002", "65", "60", "ANSWERED", "1.1"],
        )
        quoted = "".join(mark.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) + "\n" for row in rows)
        (call,) = map(orjson.loads, events(read("asterisk", quoted.encode())).splitlines())
        assert (call["end_ms"] - call["start_ms"], call["end_ms"] - call["answer_ms"]) == (65_000, 60_000)
        # As `mysql --batch` writes it.
        plain = "".join(mark.join(row).replace('""', '"') + "\n" for row in rows)
        assert mark != "\t" or events(read("asterisk", plain.encode())) == events(read("asterisk", quoted.encode()))

    def test_asterisk_s_orders_of_columns_mean_the_same(self):
        rows = [{name: row[name] for name in row.keys() - {"call_id"}} for row in calls("asterisk/orders")]
        assert len(rows) == 5
        assert all(row == rows[0] for row in rows)

    def test_a_cdr_waits_for_no_channel_events_where_there_are_none(self):
        reader = open_format("asterisk", options())
        assert len(reader.feed(cut_lines("asterisk/cdr-csv")[0])) == 1

    def test_a_cmr_read_on_its_own_has_the_id_of_its_call(self):
        joined, alone = calls("cucm/joined"), calls("cucm/cmr-alone")
        assert {report["type"] for report in alone} == {"media"}
        assert {report["call_id"] for report in alone} & {call["call_id"] for call in joined}

    @pytest.mark.parametrize("separator", [";", ",", " ; "])
    @pytest.mark.parametrize(
        "pairs", [["MLQK=4.5", "MLQKav=4.31", "CCR=0.01"], ["MLQKav=4.31"], ["ICR=0", "MLQKav = 4.31"]]
    )
    def test_cisco_s_metrics_are_read_in_any_order_and_with_any_separator(self, separator, pairs):
        data = source("cucm/cmr-alone").splitlines(keepends=True)
        said = re.sub(rb'"MLQK=4\.5000;[^"]*"', f'"{separator.join(pairs)}"'.encode(), data[2])
        (report,) = read("cucm", b"".join([*data[:2], said]))
        assert orjson.loads(report.line)["mos"] == 4.31

    def test_cmrs_before_their_cdrs_are_joined_as_well(self):
        lines = cut_lines("cucm/joined")
        turned = read("cucm", b"".join(lines[9:] + lines[:9]))
        found = {orjson.loads(item.line)["call_id"]: item.line for item in turned if isinstance(item, Converted)}
        assert sorted(found.values()) == sorted(
            item.line for item in read_case("cucm/joined") if isinstance(item, Converted)
        )

    def test_calls_that_wait_are_bounded(self):
        reader = open_format("kamailio", options())
        row = '{{"method":"INVITE","callid":"c{}","sip_code":"200","time":1767346200,"src_user":"a","dst_user":"b"}}\n'
        items = [item for at in range(WAITING_MAX + 100) for item in reader.feed(row.format(at).encode())]
        assert [item.position for item in items] == list(range(1, 101))
        assert {item.reason for item in items} == {DeadReason.TRUNCATED}
        assert len(reader.finish()) == WAITING_MAX

    def test_what_waits_is_bounded_in_bytes_too(self):
        reader = open_format("cucm", options())
        header, _, row = cut_lines("cucm/joined")[:3]
        reader.feed(header)
        long = row.replace(b'"trunk-north"', b'"' + b"x" * 120_000 + b'"')
        items = [item for at in range(800) for item in reader.feed(long.replace(b"1,1,101", b"1,1,%d" % (1000 + at)))]
        assert 200 < len(items) < 300

    def test_a_call_that_ended_says_nothing_new_afterwards(self):
        lines = cut_lines("kamailio/acc")[:2]
        assert len(read("kamailio", b"".join(lines + lines[1:] + lines[1:]))) == 1


class TestDescriptions:
    def test_every_format_says_what_it_gives_and_what_it_lacks(self):
        told = {given.name: given for given in described()}
        assert set(VENDORS) < set(told) == set(available()) <= set(NAMES)
        for name in VENDORS:
            given = told[name]
            assert set(given.gives) <= set(Call.__struct_fields__) | set(Media.__struct_fields__)
            assert set(given.shows) <= set(get_args(PatternKind))
            assert given.lacks.endswith(".")

    def test_asterisk_says_that_a_cdr_alone_cannot_show_drops(self):
        (given,) = [given for given in described() if given.name == "asterisk"]
        assert "A CDR alone cannot show drops" in given.lacks


class TestConfiguration:
    def test_customers_and_zone_reach_the_format(self, tmp_path):
        customers = tmp_path / "customers.csv"
        customers.write_text("identity,customer\n01632 960001,7\n\nalice,7\n")
        (tmp_path / "s.toml").write_text(
            f'[input]\nformat = "asterisk"\ntimezone = "Asia/Tokyo"\n[input.tokens]\ncustomers_file = "{customers}"\n'
        )
        given = format_options(load(tmp_path / "s.toml", {}), KEY)
        assert given.timezone == "Asia/Tokyo"
        assert given.tokens.identified("alice") == (given.tokens.identity("01632960001"), True)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (b"a,b,c\n", "line 1 must be identity,customer"),
            (b"a,\n", "line 1 must be identity,customer"),
            (b"a,1\nA,2\n", "line 2 must not give an identity to a second customer"),
            (b"Identity,Customer\na,b\nB,c\n", "line 3 must not give away who is a customer of another line"),
            (b"\xff,1\n", "must be UTF-8"),
            (b"", "must name a customer, named none"),
            (b"identity,customer\n\n", "must name a customer, named none"),
            (b"customer,identity\n1,a\n", "line 1 must be identity,customer, was the other way round"),
            (b"1,a\n1,b\n", "line 2 must not give an identity to a second customer"),
            (b"a," + b"x" * 200_000 + b"\n", "must be CSV"),
        ],
    )
    def test_a_customers_file_that_does_not_hold_is_refused_without_quoting_it(self, tmp_path, text, problem):
        path = tmp_path / "customers.csv"
        path.write_bytes(text)
        with pytest.raises(ConfigError) as caught:
            read_customers(path, PLAN)
        assert problem in caught.value.problems[0]

    def test_a_customers_file_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="must be a file that can be read"):
            read_customers(tmp_path / "none.csv", PLAN)
