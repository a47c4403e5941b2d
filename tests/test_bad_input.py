"""Bad input of every kind costs its own records and nothing else: a dead letter with place and reason, then on."""

import tracemalloc

import orjson
import pytest
from formats_kit import KEY, PLAN, options, source
from fuzz_kit import CSV, SEEDS, read
from hep_kit import MONDAY_MS, A, B, Dialog

from dataflows.config.customers import read_customers
from schemas.deadletters import DeadReason
from schemas.errors import ConfigError, InputError
from schemas.formats import Converted, Options, open_format
from schemas.formats.hep import HepReader
from schemas.formats.hep.events import Customers
from schemas.formats.identity import Tokens

LINES = ("freeswitch", "asterisk", "kamailio", "cucm", "voipmonitor", "csv")
TEXTS = (*LINES, "vqrtcpxr")
SOUND = {
    "freeswitch": "legs", "asterisk": "orders", "kamailio": "cdrs-and-dialogs", "cucm": "joined",
    "voipmonitor": "table", "vqrtcpxr": "dialects",
}  # fmt: skip
"""Golden files whose records stand for themselves."""

CDR_HEAD = (
    b"accountcode,src,dst,dcontext,clid,channel,dstchannel,lastapp,lastdata,start,answer,end,duration,billsec,"
    b"disposition,amaflags\n"
)
CDR = (
    b'"","01632960001","2","c","","SIP/a-1","SIP/b-1","Dial","","2026-01-02 09:30:00","2026-01-02 09:30:05",'
    b'"2026-01-02 09:31:05",65,60,"ANSWERED","DOCUMENTATION"\n'
)

GIGABYTE = 1 << 30


def opts(name):
    return CSV if name == "csv" else options()


def sound(name):
    return SEEDS["csv"][0] if name == "csv" else source(f"{name}/{SOUND[name]}")


def lines_of(items):
    return [item.line for item in items if isinstance(item, Converted)]


def rejects_of(items):
    return [item for item in items if not isinstance(item, Converted)]


def finished(call_id="c1", **changes):
    dialog = Dialog(call_id=call_id, **changes)
    dialog.released(dialog.answered(MONDAY_MS) + 60_000)
    return dialog


class TestText:
    @pytest.mark.parametrize("name", TEXTS)
    def test_a_truncated_input_loses_its_last_record_at_most(self, name):
        data = sound(name).rstrip(b"\n")
        whole = read(name, opts(name), data)
        part = read(name, opts(name), data[:-15])
        assert lines_of(part)[:-1] == lines_of(whole)[: len(lines_of(part)) - 1]
        assert len(lines_of(part)) >= len(lines_of(whole)) - 1

    @pytest.mark.parametrize("name", ["asterisk", "cucm", "voipmonitor", "csv"])
    def test_a_row_with_a_quote_that_never_closes_is_one_dead_letter(self, name):
        head, row = (b"", CDR) if name == "asterisk" else sound(name).splitlines(keepends=True)[:2]
        row = sound(name).splitlines(keepends=True)[2] if name == "cucm" else row
        mark = b";" if name == "csv" else b","
        bad = row.replace(mark, mark + b'"odd', 1)
        items = read(name, opts(name), head + row + bad + row)
        assert [(reject.position, reject.reason) for reject in rejects_of(items)] == [
            (2 + bool(head), DeadReason.NOT_JSON)
        ]
        assert len(lines_of(items)) == 2

    @pytest.mark.parametrize("name", TEXTS)
    def test_bytes_that_are_no_utf8_are_told_with_their_place(self, name):
        data = sound(name)
        bad = {
            "freeswitch": b'{"variables":{"uuid":"\xff\xfe"}}\n',
            "kamailio": b'{"callid":"\xff\xfe"}\n',
            "csv": b"1;\xff\xfe;2026-01-02 09:30;60;0\n",
        }.get(name, b"1,\xff\xfe,2\n")
        items = read(name, opts(name), data + bad)
        if name != "vqrtcpxr":  # there a line belongs to the report before it
            places = {reject.position: reject.reason for reject in rejects_of(items)}
            assert places[data.count(b"\n") + 1] == DeadReason.NOT_TEXT
        assert (
            lines_of(items)[: len(lines_of(read(name, opts(name), data))) - 1]
            == lines_of(read(name, opts(name), data))[:-1]
        )

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("name", TEXTS)
    def test_utf16_is_told_as_what_it_is(self, name, encoding):
        with pytest.raises(InputError, match="must be UTF-8, was UTF-16: convert it"):
            read(name, opts(name), sound(name).decode().encode(encoding))

    @pytest.mark.parametrize("name", TEXTS)
    def test_a_byte_order_mark_costs_nothing(self, name):
        bare, marked = (read(name, opts(name), (bom + sound(name)) * 2) for bom in (b"", b"\xef\xbb\xbf"))
        assert lines_of(marked) == lines_of(bare)
        assert [reject.position for reject in rejects_of(marked)] == [reject.position for reject in rejects_of(bare)]

    @pytest.mark.parametrize("name", TEXTS)
    def test_returns_alone_end_no_lines_and_nothing_is_lost_in_silence(self, name):
        data = sound(name).replace(b"\r\n", b"\n").replace(b"\n", b"\r")
        if name in ("csv", "voipmonitor"):
            with pytest.raises(InputError, match="the first row must name the columns"):
                read(name, opts(name), data)
        else:
            assert len(rejects_of(read(name, opts(name), data))) == 1

    @pytest.mark.parametrize("name", ["asterisk", "cucm", "voipmonitor"])
    def test_a_header_that_comes_again_is_no_record(self, name):
        heads = {"asterisk": 0, "cucm": 2, "voipmonitor": 1}[name]
        lines = [CDR] if name == "asterisk" else sound(name).splitlines(keepends=True)
        head = CDR_HEAD if name == "asterisk" else b"".join(lines[:heads])
        once, twice = (read(name, opts(name), (head + lines[heads]) * times) for times in (1, 2))
        assert lines_of(twice) == lines_of(once) * 2
        assert rejects_of(twice) == []

    def test_a_header_with_a_name_twice_is_refused_where_names_are_all_there_is(self):
        for name, head in (("voipmonitor", b"calldate,caller,called,caller\n"), ("csv", b"id;from;at;s;loss;id\n")):
            with pytest.raises(InputError, match="once"):
                read(name, opts(name), head)

    @pytest.mark.parametrize("name", LINES)
    def test_a_gigabyte_in_one_line_needs_little_memory_and_the_next_record_is_read(self, name):
        head, *_ = sound(name).splitlines(keepends=True)
        record = sound(name).splitlines(keepends=True)
        reader = open_format(name, opts(name))
        if name in ("voipmonitor", "csv"):
            reader.feed(head)
            record = record[1:]
        piece = b"9" * (32 << 20)
        tracemalloc.start()
        try:
            items = [item for _ in range(GIGABYTE // len(piece)) for item in reader.feed(piece)]
            items += reader.feed(b"\n")
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        items += reader.feed(b"".join(record)) + reader.finish()
        assert peak_bytes < 3 * len(piece)
        assert items[0].reason == DeadReason.TOO_LARGE
        assert len(items[0].record) <= 4_096
        assert lines_of(items)


class TestHep:
    def test_a_length_that_lies_costs_its_own_packet(self):
        one, other = finished(), finished("c2")
        for said in (0, 5, 7, 40, 65_535):
            liar = b"HEP3" + said.to_bytes(2, "big") + one.packets[0][6:]
            items = read("hep", options(), liar + other.data())
            assert len(lines_of(items)) == 2, said
            assert rejects_of(items), said

    def test_a_chunk_whose_length_lies_costs_its_own_packet(self):
        one, other = finished(), finished("c2")
        for said in (0, 5, 60_000):
            liar = one.packets[0][:10] + said.to_bytes(2, "big") + one.packets[0][12:]
            items = read("hep", options(), liar + other.data())
            assert len(lines_of(items)) == 2, said
            assert [reject.position for reject in rejects_of(items)] == [1]

    def test_folded_headers_are_read_as_one(self):
        plain, folded = finished(), finished()
        folded.packets = [
            packet if b"INVITE sip:" not in packet else _repacked(packet, b"\r\nFrom: ", b"\r\nFrom:\r\n ")
            for packet in folded.packets
        ]
        assert folded.data() != plain.data()
        assert lines_of(read("hep", options(), folded.data())) == lines_of(read("hep", options(), plain.data()))

    def test_repeated_headers_change_nothing_of_who_and_when(self):
        plain, doubled = finished(), finished()
        doubled.packets = [
            _repacked(packet, b"\r\nMax-Forwards: 70", b"\r\nMax-Forwards: 70\r\nUser-Agent: Other/2\r\nCSeq: 99 X")
            for packet in doubled.packets
        ]
        twice, once = (
            [orjson.loads(line) for line in lines_of(read("hep", options(), dialog.data()))]
            for dialog in (doubled, plain)
        )
        for call in twice + once:
            call.pop("cpe_model"), call.pop("cpe_firmware", None)
        assert twice == once

    def test_a_gigabyte_without_a_packet_needs_little_memory_and_the_next_call_is_read(self):
        reader = open_format("hep", options())
        piece = b"x" * (32 << 20)
        tracemalloc.start()
        try:
            items = [item for _ in range(GIGABYTE // len(piece)) for item in reader.feed(piece)]
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        items += reader.feed(finished().data()) + reader.finish()
        assert peak_bytes < 3 * len(piece)
        assert len(rejects_of(items)) == 1
        assert len(lines_of(items)) == 2

    def test_a_report_of_a_stream_that_nobody_named_says_that_nothing_is_heard(self):
        dialog = Dialog()
        up_ms = dialog.answered(MONDAY_MS)
        empty = {"source_ssrc": 0, "fraction_lost": 0, "packets_lost": 0, "highest_seq_no": 0, "ia_jitter": 0}
        for at in range(1, 5):
            said = {
                "sender_information": {"ntp_timestamp_sec": at, "packets": 250 * at},
                "report_blocks": [empty],
                "n": at,
            }
            dialog.rtcp(up_ms + 5_000 * at, said, (A[0], 4001), (B[0], 6001))
        dialog.released(up_ms + 60_000)
        (out,) = [call for call in map(orjson.loads, lines_of(read("hep", options(), dialog.data()))) if
                  call["type"] == "call" and call["direction"] == "out"]  # fmt: skip
        assert out["packets_received"] == 0
        assert "loss_ratio" not in out

    def test_jitter_of_hours_is_none(self):
        dialog = Dialog()
        up_ms = dialog.answered(MONDAY_MS)
        block = {"source_ssrc": 7, "fraction_lost": 0, "packets_lost": 0, "highest_seq_no": 9, "ia_jitter": 63_125_527}
        dialog.rtcp(up_ms + 5_000, {"report_blocks": [block]}, (A[0], 4001), (B[0], 6001))
        (media,) = map(orjson.loads, lines_of(read("hep", options(), dialog.data())))
        assert media["type"] == "media"
        assert "jitter_ms" not in media


def _repacked(packet, old, new):
    """Return a packet with another payload, whole in its lengths."""
    at = packet.index(b"\x00\x00\x00\x0f")
    payload = packet[at + 6 :].replace(old, new, 1)
    chunks = packet[6:at] + b"\x00\x00\x00\x0f" + (6 + len(payload)).to_bytes(2, "big") + payload
    return b"HEP3" + (6 + len(chunks)).to_bytes(2, "big") + chunks


class TestMeaning:
    @staticmethod
    def leg(**variables):
        given = {
            "direction": "inbound", "uuid": "u", "sip_from_user": "01632960001", "sip_to_user": "01632960002",
            "start_uepoch": "1767346200000000", "answer_uepoch": "1767346205000000", "end_uepoch": "1767346272000000",
            "rtp_audio_in_media_packet_count": "3329", "rtp_audio_out_media_packet_count": "0",
            "rtp_audio_in_mos": "4.50", "rtp_audio_in_jitter_loss_rate": "0.00", **variables,
        }  # fmt: skip
        (item,) = read("freeswitch", options(), orjson.dumps({"variables": given}) + b"\n")
        return orjson.loads(item.line)

    def test_a_call_on_hold_is_no_one_way_audio(self):
        assert self.leg()["packets_received"] == 0
        held = self.leg(hold_accum_usec="67139151")
        assert "packets_received" not in held
        assert "packets_sent" not in held
        assert self.leg(hold_accum_usec="0")["packets_received"] == 0

    def test_what_freeswitch_did_not_measure_is_neither_excellent_nor_without_loss(self):
        heard = {"rtp_audio_out_media_packet_count": "3300"}
        measured = self.leg(**heard, rtp_audio_in_mean_interval="20.00")
        assert (measured["mos"], measured["loss_ratio"]) == (4.5, 0.0)
        unmeasured = self.leg(**heard, rtp_audio_in_mean_interval="0.00")
        assert not {"mos", "loss_ratio"} & set(unmeasured)

    def test_a_trunk_s_report_alone_is_nobody_s_and_no_dead_letter(self):
        head, types, row, *_ = source("cucm/cmr-alone").splitlines(keepends=True)
        names = head.decode().strip().replace('"', "").split(",")
        cells = row.decode().strip().split(",")
        cells[names.index("directoryNum")] = '""'
        assert read("cucm", options(), head + types + ",".join(cells).encode() + b"\n") == []


class TestCustomers:
    """Several identities of one customer are one customer, whatever the format writes them as."""

    @pytest.mark.parametrize("name", [*SOUND, "csv", "hep"])
    def test_identities_of_one_customer_merge_in_every_format(self, name, tmp_path):
        path = tmp_path / "customers.csv"
        path.write_text(
            "identity,customer\n+44 1632 960001,account-7\n01632 960002,account-7\n02079460001,account-7\n"
            "02079460002,account-7\n"
        )
        tokens = Tokens(KEY, PLAN, read_customers(path, PLAN))
        given = Options(tokens=tokens, csv=CSV.csv)
        data = SEEDS["hep"][0] if name == "hep" else sound(name)
        events = [orjson.loads(line) for line in lines_of(read(name, given, data))]
        whose = {event["customer_id"] for event in events}
        assert tokens.opaque("account-7") in whose
        assert not whose & {tokens.opaque(f"44{number}") for number in (1632960001, 1632960002, 2079460001, 2079460002)}

    def test_a_map_with_many_mistakes_is_told_row_by_row_and_names_nobody(self, tmp_path):
        path = tmp_path / "customers.csv"
        path.write_text("identity,customer\n01632960001,a\n01632960001,b\nonly-one\n,c\nx,y,z\n")
        with pytest.raises(ConfigError) as caught:
            read_customers(path, PLAN)
        assert [f"line {line} " in problem for line, problem in zip((3, 4, 5, 6), caught.value.problems, strict=True)]
        assert "960001" not in "".join(caught.value.problems)

    def test_hep_s_customers_are_the_map_s_as_well(self):
        tokens = Tokens(KEY, PLAN, {"02079460001": "account-7"})
        reader = HepReader(Customers(tokens))
        calls = [orjson.loads(line) for line in lines_of(reader.feed(finished().data()))]
        assert calls[0]["customer_id"] == tokens.opaque("account-7")


def test_a_name_that_is_no_utf8_costs_nothing_and_an_identity_that_is_none_names_nobody():
    row = (
        b'"","%s","100","ctx","""%s"" <1>","SIP/1-1","","Dial","","2026-01-02 09:30:00",,"2026-01-02 09:30:09",9,0,'
        b'"BUSY","DOCUMENTATION","1767346200.1",""\n'
    )
    (made,) = read("asterisk", opts("asterisk"), row % (b"01632960001", b"Ren\xe9"))
    assert isinstance(made, Converted)
    (made,) = read("asterisk", opts("asterisk"), row % (b"0163\xff2960001", b"x"))
    assert b'"direction":"in"' in made.line
    (refused,) = read("asterisk", opts("asterisk"), (row % (b"1", b"x")).replace(b"09:30:00", b"09:\xff0:00"))
    assert refused.reason == DeadReason.NOT_TEXT


def test_the_file_that_grandstream_s_ucm_exports_is_read_and_rows_of_forkcdr_are_calls_of_their_own():
    header = (
        b"Caller Number,Callee Number,Source Channel,Dest. Channel,Start Time,Answer Time,End Time,Call Time,Talk Time"
    )
    rows = [
        header + b",Disposition,Unique ID\n",
        b"01632960001,100,PJSIP/t-1,,2026-01-02 09:30:00,,2026-01-02 09:30:09,9,0,NO ANSWER,1767346200.1\n",
        b"01632960001,7,PJSIP/t-1,,2026-01-02 09:30:00,2026-01-02 09:30:09,,60,51,ANSWERED,1767346200.1\n",
    ]
    events = [orjson.loads(item.line) for item in read("asterisk", opts("asterisk"), b"".join(rows))]
    assert ["answer_ms" in event for event in events] == [False, True]
    assert events[0]["call_id"] != events[1]["call_id"]
