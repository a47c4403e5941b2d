import random
import struct
import zlib

import orjson
import pytest
from hep_kit import (
    MONDAY_MS,
    OTHER,
    PROXY,
    TOKENS,
    A,
    B,
    Dialog,
    chunk,
    events,
    framed,
    hep,
    keepalive,
    letters,
    packet_time_ms,
    place,
    read,
    report,
    sdp,
    time_passes,
)
from hypothesis import given
from hypothesis import strategies as st

from detectors.release import CallEnds, Outcome, classify
from schemas.decode import decode
from schemas.errors import ConfigError
from schemas.formats import Converted, Options, open_format
from schemas.formats.hep import HepReader
from schemas.formats.hep.calls import LINGER_MS, OPEN_MS
from schemas.formats.hep.events import Customers

T = MONDAY_MS
CALLER, CALLEE = TOKENS.identity("02079460001"), TOKENS.identity("02079460002")
HOUR_MS = 3_600_000


def outcomes(items):
    batch = decode(b"\n".join(item.line for item in items if isinstance(item, Converted)))
    assert batch.rejects == []
    return [Outcome(one).name for one in classify(CallEnds.of(batch.calls)).outcome]


def calls(dialog, *more):
    return events(read(dialog.data() + b"".join(more)))


def only(found, direction="out"):
    (one,) = [call for call in found if call["direction"] == direction]
    return one


def finished(**changes):
    dialog = Dialog(**changes)
    dialog.released(dialog.answered(T) + 60_000)
    return dialog


class TestGolden:
    def test_a_call_with_everything(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        for k in range(1, 4):
            ntp = 3_900_000_000 + 5 * k, 1 << 31
            heard = {"fraction_lost": 64, "packets_lost": 10 * k, "ia_jitter": 80, "lsr": 0, "dlsr": 0}
            dialog.rtcp(up_ms + 5_000 * k, report(sent=250 * k, ntp=ntp, block=heard), (A[0], 4001), (B[0], 6001))
            dialog.rtcp(
                up_ms + 5_000 * k + 100,
                report(sent=240 * k, block=heard | {"fraction_lost": 0}),
                (B[0], 6001),
                (A[0], 4001),
            )
        dialog.released(up_ms + 60_000, 'Reason: Q.850;cause=16;text="Normal"')
        items = read(dialog.data())
        out, incoming = events(items)
        assert letters(items) == []
        assert out == {
            "type": "call",
            "call_id": out["call_id"],
            "customer_id": CALLER,
            "start_ms": T,
            "answer_ms": T + 3_000,
            "end_ms": T + 63_020,
            "direction": "out",
            "peer_id": CALLEE,
            "sip_status": 200,
            "q850": 16,
            "reason": 'Q.850;cause=16;text="Normal"',
            "released_by": "customer",
            "codec": "PCMA",
            "loss_ratio": 0.25,
            "jitter_ms": 10.0,
            "packets_sent": 750,
            "packets_received": 690,
            "cpe_model": "Acme HT801",
            "cpe_firmware": "1.0.19",
            "probe_id": "2001",
        }
        assert incoming == {
            **out,
            "call_id": incoming["call_id"],
            "customer_id": CALLEE,
            "peer_id": CALLER,
            "direction": "in",
            "released_by": "peer",
            "loss_ratio": 0.0,
            "packets_sent": 720,
            "packets_received": 720,
            "cpe_model": "Box",
            "cpe_firmware": "2.1",
        }
        assert out["call_id"] != incoming["call_id"]
        media = events(items, "media")
        assert [(one["customer_id"], one["call_id"], one["at_ms"], one["interval_ms"]) for one in media[:3]] == [
            (CALLER, out["call_id"], up_ms + 5_000, 5_020),
            (CALLEE, incoming["call_id"], up_ms + 5_100, 5_120),
            (CALLER, out["call_id"], up_ms + 10_000, 5_000),
        ]
        assert media[0] == {
            "type": "media",
            "call_id": out["call_id"],
            "customer_id": CALLER,
            "at_ms": up_ms + 5_000,
            "interval_ms": 5_020,
            "codec": "PCMA",
            "loss_ratio": 0.25,
            "jitter_ms": 10.0,
            "probe_id": "2001",
        }
        assert outcomes(items) == ["NORMAL", "NORMAL"]

    def test_a_bye_from_the_far_end_is_the_peers(self):
        dialog = Dialog()
        dialog.released(dialog.answered(T) + 60_000, by_callee=True)
        assert [call["released_by"] for call in calls(dialog)] == ["peer", "customer"]

    def test_a_call_cut_off_by_a_timer_says_so(self):
        dialog = Dialog()
        dialog.released(dialog.answered(T) + 900_000, 'Reason: SIP;cause=408;text="Session timeout"')
        items = read(dialog.data())
        assert events(items)[0]["reason"] == 'SIP;cause=408;text="Session timeout"'
        assert outcomes(items) == ["DROP", "DROP"]

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [(486, "USER"), (503, "SETUP_FAILURE"), (403, "BLOCKED"), (404, "USER"), (480, "SETUP_FAILURE")],
    )
    def test_a_refusal_is_told_with_its_own_status(self, status, outcome):
        dialog = Dialog()
        dialog.message(T, "INVITE")
        dialog.message(T + 900, f"{status} INVITE")
        dialog.message(T + 910, "ACK")
        items = read(dialog.data())
        call = only(events(items))
        assert (call["sip_status"], call["end_ms"], "answer_ms" in call) == (status, T + 900, False)
        assert outcomes(items)[0] == outcome

    def test_the_cause_in_a_refusal_is_told_beside_its_status(self):
        dialog = Dialog()
        dialog.message(T, "INVITE")
        dialog.message(T + 900, "503 INVITE", 'Reason: Q.850 ;cause=34; text="no circuit"')
        assert (only(calls(dialog))["sip_status"], only(calls(dialog))["q850"]) == (503, 34)

    def test_a_cancelled_attempt_is_the_callers(self):
        dialog = Dialog()
        dialog.message(T, "INVITE")
        dialog.message(T + 200, "180 INVITE")
        dialog.message(T + 9_000, "CANCEL", 'Reason: SIP;cause=487;text="ORIGINATOR_CANCEL"')
        dialog.message(T + 9_010, "200 CANCEL")
        dialog.message(T + 9_020, "487 INVITE")
        out, incoming = calls(dialog)
        assert (out["sip_status"], out["released_by"], incoming["released_by"]) == (487, "customer", "peer")
        assert out["reason"].startswith("SIP;cause=487")

    def test_a_challenge_and_the_second_invite_are_one_call(self):
        for status in (401, 407, 302, 422):
            dialog = Dialog()
            dialog.message(T, "INVITE", branch="one")
            dialog.message(T + 20, f"{status} INVITE", branch="one")
            dialog.message(T + 25, "ACK", branch="one")
            dialog.message(T + 50, "INVITE", cseq=2, branch="two")
            dialog.message(T + 4_000, "200 INVITE", cseq=2, branch="two")
            dialog.released(T + 30_000)
            out = only(calls(dialog))
            assert (out["start_ms"], out["answer_ms"], out["sip_status"]) == (T, T + 4_000, 200)

    def test_a_challenge_that_is_never_met_is_the_outcome(self):
        dialog = Dialog()
        dialog.message(T, "INVITE")
        dialog.message(T + 20, "407 INVITE")
        for more in ((), (keepalive(T + 20 + LINGER_MS),)):
            out = only(calls(dialog, *more))
            assert (out["sip_status"], out["end_ms"]) == (407, T + 20)

    def test_a_reinvite_changes_neither_answer_nor_end(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        for at_ms, cseq, by_callee in (
            (up_ms + 10_000, 3, False),
            (up_ms + 20_000, 1, True),
            (up_ms + 30_000, 4, False),
        ):
            body = sdp("192.0.2.10", 4000, "9")
            dialog.message(
                at_ms, "INVITE", cseq=cseq, by_callee=by_callee, to_tag="a1" if by_callee else "b1", body=body
            )
            dialog.message(at_ms + 20, f"{491 if cseq == 4 else 200} INVITE", cseq=cseq, by_callee=by_callee, body=body)
        dialog.released(up_ms + 60_000)
        out = only(calls(dialog))
        assert (out["answer_ms"], out["end_ms"], out["sip_status"], out["codec"]) == (
            T + 3_000,
            up_ms + 60_000,
            200,
            "G722",
        )


class TestForks:
    def test_a_refused_branch_behind_the_proxy_does_not_end_the_call(self):
        dialog = Dialog()
        dialog.message(T, "INVITE", target=PROXY)
        for branch, far in (("x", B), ("y", OTHER)):
            dialog.message(T + 5, "INVITE", hops=2, branch=branch, source=PROXY, target=far)
        dialog.message(T + 300, "486 INVITE", hops=2, branch="x", to_tag="t1")
        dialog.message(T + 400, "180 INVITE", hops=2, branch="y")
        dialog.message(T + 5_000, "200 INVITE", hops=2, branch="y")
        dialog.message(T + 5_003, "200 INVITE")
        dialog.released(T + 50_000)
        out = only(calls(dialog))
        assert (out["answer_ms"], out["sip_status"]) == (T + 5_000, 200)

    def test_parallel_branches_on_the_only_hop_seen_all_have_to_fail(self):
        dialog = Dialog()
        dialog.message(T, "INVITE", branch="x")
        dialog.message(T + 1, "INVITE", branch="y", target=OTHER)
        dialog.message(T + 300, "486 INVITE", branch="x", to_tag="t1")
        assert calls(dialog, keepalive(T + 1_000))[0]["sip_status"] == 486  # the input ends, and one word was said
        dialog.message(T + 4_000, "200 INVITE", branch="y", to_tag="b1")
        dialog.released(T + 50_000)
        assert only(calls(dialog))["sip_status"] == 200

    def test_a_branch_tried_after_the_failure_is_a_second_attempt(self):
        dialog = Dialog()
        dialog.message(T, "INVITE", branch="x")
        dialog.message(T + 300, "503 INVITE", branch="x", to_tag="t1")
        dialog.message(T + 400, "INVITE", branch="y", target=OTHER)
        dialog.message(T + 4_000, "200 INVITE", branch="y")
        dialog.released(T + 50_000)
        first, second = [call for call in calls(dialog) if call["direction"] == "out"]
        assert (first["sip_status"], second["sip_status"]) == (503, 200)
        assert first["call_id"] != second["call_id"]

    def test_of_two_forks_that_answer_the_last_bye_ends_the_call(self):
        dialog = Dialog()
        dialog.answered(T)
        dialog.message(T + 3_100, "200 INVITE", to_tag="b2")
        dialog.message(T + 3_200, "BYE", cseq=2, to_tag="b2")
        dialog.message(T + 3_250, "200 BYE", cseq=2, to_tag="b2")
        dialog.released(T + 50_000)
        assert only(calls(dialog))["end_ms"] == T + 50_000


class TestNetwork:
    def test_byes_to_both_sides_are_the_networks(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        dialog.message(up_ms + 60_000, "BYE", source=PROXY)
        dialog.message(up_ms + 60_001, "BYE", by_callee=True, source=PROXY)
        dialog.message(up_ms + 60_020, "200 BYE")
        assert {call["released_by"] for call in calls(dialog)} == {"network"}

    def relayed(self):
        dialog = Dialog()
        dialog.message(T, "INVITE", target=PROXY)
        dialog.message(T + 1, "INVITE", hops=2, source=PROXY, target=B)
        dialog.message(T + 2_000, "200 INVITE", hops=2, source=B, target=PROXY)
        dialog.message(T + 2_001, "200 INVITE", source=PROXY, target=A)
        return dialog

    def test_a_bye_that_began_at_a_relay_is_the_networks(self):
        dialog = self.relayed()
        dialog.message(T + 60_000, "BYE", source=PROXY, target=B, cseq=3)
        dialog.message(T + 60_020, "200 BYE", source=B, target=PROXY, cseq=3)
        assert {call["released_by"] for call in calls(dialog)} == {"network"}

    def test_a_bye_that_passed_a_relay_is_its_senders(self):
        dialog = self.relayed()
        dialog.message(T + 60_000, "BYE", source=A, target=PROXY, cseq=3)
        dialog.message(T + 60_001, "BYE", hops=2, source=PROXY, target=B, cseq=3)
        dialog.message(T + 60_020, "200 BYE", hops=2, source=B, target=PROXY, cseq=3)
        assert [call["released_by"] for call in calls(dialog)] == ["customer", "peer"]

    @pytest.mark.parametrize("status", [408, 481])
    @pytest.mark.parametrize("method", ["INVITE", "UPDATE", "OPTIONS"])
    def test_a_dialog_that_the_far_end_has_lost_is_a_drop(self, method, status):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        dialog.message(up_ms + 30_000, method, cseq=3, to_tag="b1")
        dialog.message(up_ms + 30_020, f"{status} {method}", cseq=3)
        dialog.released(up_ms + 31_000)
        items = read(dialog.data())
        assert only(events(items))["end_ms"] == up_ms + 30_020
        assert only(events(items))["sip_status"] == status
        assert outcomes(items)[0] == "DROP"


class TestSilence:
    """What is concluded from packets that do not come, in the time of those that do."""

    def test_a_call_whose_bye_never_came_ends_with_its_last_sign_of_life_and_is_no_drop(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        assert calls(dialog, *time_passes(up_ms, OPEN_MS - HOUR_MS)) == []
        items = read(dialog.data() + b"".join(time_passes(up_ms, OPEN_MS + 60_000)))
        out = only(events(items))
        assert (out["end_ms"], out["sip_status"], out["released_by"]) == (up_ms, 200, "unknown")
        assert outcomes(items) == ["NORMAL", "NORMAL"]

    def test_a_session_timer_that_runs_out_is_a_drop_and_ends_a_call_hours_earlier(self):
        dialog = Dialog()
        up_ms = dialog.answered(T, "Session-Expires: 1800;refresher=uac")
        dialog.message(up_ms + 900_000, "UPDATE", cseq=3, to_tag="b1")
        dialog.message(up_ms + 900_020, "200 UPDATE", "x: 1800;refresher=uac", cseq=3)
        assert calls(dialog, *time_passes(up_ms, 2_600_000)) == []
        out = only(calls(dialog, *time_passes(up_ms, 3_000_000)))
        assert (out["end_ms"], out["sip_status"], out["released_by"]) == (up_ms + 900_020, 408, "network")

    def test_reports_keep_a_call_alive_whose_refresh_was_not_seen(self):
        dialog = Dialog()
        up_ms = dialog.answered(T, "Session-Expires: 90")
        for at_ms in range(up_ms, up_ms + 600_000, 5_000):
            dialog.rtcp(at_ms, report(sent=at_ms - T), (A[0], 4001), (B[0], 6001))
        assert calls(dialog) == []
        assert only(calls(dialog, *time_passes(up_ms + 600_000, 60_000)))["end_ms"] == up_ms + 595_000

    def test_an_attempt_that_nobody_answers_at_all_is_a_timeout(self):
        dialog = Dialog()
        for at_ms in (0, 500, 1_500, 3_500):
            dialog.message(T + at_ms, "INVITE")
        items = read(dialog.data() + keepalive(T + 310_000))
        assert (only(events(items))["sip_status"], only(events(items))["end_ms"]) == (408, T + 3_500)
        assert outcomes(items) == ["SETUP_FAILURE"]

    def test_an_attempt_that_rang_and_was_forgotten_says_nothing_of_a_timeout(self):
        dialog = Dialog()
        dialog.message(T, "INVITE")
        dialog.message(T + 200, "180 INVITE")
        assert "sip_status" not in only(calls(dialog, keepalive(T + 310_000)))

    def test_a_bye_without_an_answer_ends_the_call_when_it_was_sent(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        dialog.message(up_ms + 10_000, "BYE", cseq=2)
        out = only(calls(dialog, keepalive(up_ms + 10_000 + LINGER_MS)))
        assert (out["end_ms"], out["released_by"]) == (up_ms + 10_000, "customer")
        assert out == only(calls(dialog))

    def test_an_answer_to_a_bye_that_was_lost_ends_the_call(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        dialog.message(up_ms + 10_000, "200 BYE", cseq=2, by_callee=True)
        assert only(calls(dialog))["released_by"] == "peer"

    def test_a_call_still_up_at_the_end_of_the_input_is_a_dead_letter_without_its_parties(self):
        dialog = Dialog()
        dialog.answered(T)
        (letter,) = items = read(dialog.data())
        assert events(items) == []
        assert letter.reason == "truncated"
        assert orjson.loads(letter.record)["customer_id"] == CALLER

    def test_one_wild_time_ends_no_call(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        wild = keepalive(T + 10 * 365 * 24 * HOUR_MS)
        assert calls(dialog, wild, keepalive(up_ms + 60_000)) == []

    def test_a_clock_of_another_probe_ends_no_call(self):
        dialog = Dialog()
        dialog.answered(T)
        assert calls(dialog, *time_passes(T, 2 * OPEN_MS, agent=9)) == []


class TestCopies:
    def test_a_second_probe_that_reports_every_packet_changes_nothing(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        block = {"fraction_lost": 3, "packets_lost": 1, "ia_jitter": 8, "lsr": 0, "dlsr": 0}
        for k in range(4):
            dialog.rtcp(up_ms + 5_000 * k, report(sent=250 * k, block=block), (A[0], 4001), (B[0], 6001))
        dialog.released(up_ms + 60_000)
        once = read(dialog.data())
        for lag in range(4):
            packets = list(dialog.packets)
            copies = [packet.replace(struct.pack(">I", 2001), struct.pack(">I", 2002)) for packet in packets]
            order = sorted([(k, p) for k, p in enumerate(packets)] + [(k + lag + 0.5, p) for k, p in enumerate(copies)])
            twice = read(b"".join(packet for _, packet in order))
            assert [item.line for item in twice] == [item.line for item in once]

    def test_late_copies_open_no_second_call(self):
        dialog = finished()
        late = [keepalive(T + 70_000), *dialog.packets[::-1], *dialog.packets]
        assert len(calls(dialog, *late)) == 2

    def test_a_call_id_used_again_is_another_call(self):
        first = finished()
        for again in (Dialog(caller_tag="a2"), Dialog()):
            again.message(T + 90_000, "INVITE", cseq=9, to_tag="")
            again.message(T + 90_100, "486 INVITE", cseq=9)
            found = [call for call in calls(first, again.data()) if call["direction"] == "out"]
            assert [call["sip_status"] for call in found] == [200, 486]
            assert found[0]["call_id"] != found[1]["call_id"]

    def test_the_same_call_has_the_same_id_for_every_probe(self):
        one, other = (only(calls(finished(agent=agent))) for agent in (1, 2))
        assert one["call_id"] == other["call_id"]

    def test_packets_of_calls_that_began_before_are_counted(self):
        dialog = finished()
        reader = HepReader(Customers(TOKENS))
        assert reader.feed(b"".join(dialog.packets[3:])) == []
        assert reader.counts.strays == 4


class TestSound:
    def test_only_silence_reported_for_long_is_one_way_audio(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        for k in range(1, 5):
            dialog.rtcp(up_ms + 5_000 * k, report(sent=250 * k), (A[0], 4001), (B[0], 6001))
        dialog.released(up_ms + 25_000)
        items = read(dialog.data())
        out = only(events(items))
        assert (out["packets_received"], out["packets_sent"]) == (0, 1_000)
        assert outcomes(items)[0] == "DROP"
        assert events(items, "media") == []

    def test_the_round_trip_is_that_of_both_halves(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        caller, callee = ((A[0], 4001), (B[0], 6001)), ((B[0], 6001), (A[0], 4001))
        block = {"fraction_lost": 0, "packets_lost": 0, "ia_jitter": 0}
        dialog.rtcp(up_ms, report(sent=5, ntp=(0x10001, 0x80000000)), *caller)
        heard = block | {"lsr": 0x0001_8000, "dlsr": 65_536}
        dialog.rtcp(up_ms + 1_040, report(sent=5, ntp=(0x20002, 0), block=heard), *callee)
        heard = block | {"lsr": 0x0002_0000, "dlsr": 32_768}
        dialog.rtcp(up_ms + 1_600, report(sent=6, ntp=(0x10003, 0), block=heard), *caller)
        dialog.released(up_ms + 5_000)
        assert [call["rtt_ms"] for call in calls(dialog)] == [100.0, 100.0]

    def test_extended_reports_give_discards_and_the_endpoints_own_round_trip(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        xr = {"type": 7, "fraction_lost": 64, "fraction_discard": 128, "round_trip_delay": 77}
        dialog.rtcp(up_ms + 5_000, report(xr=xr), (B[0], 6001), (A[0], 4001))
        dialog.released(up_ms + 9_000)
        incoming = only(calls(dialog), "in")
        assert (incoming["loss_ratio"], incoming["discard_ratio"], incoming["rtt_ms"]) == (0.25, 0.5, 77)

    def test_behind_a_nat_the_target_tells_whose_report_it_is(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        block = {"fraction_lost": 64, "packets_lost": 0, "ia_jitter": 0}
        dialog.rtcp(up_ms + 5_000, report(block=block), ("203.0.113.5", 31_001), (B[0], 6001))
        assert events(read(dialog.data()), "media")[0]["customer_id"] == CALLER

    def test_a_report_of_nowhere_is_counted_and_nobodys(self):
        dialog = Dialog()
        up_ms = dialog.answered(T)
        reader = HepReader(Customers(TOKENS))
        stray = dialog.rtcp(up_ms, report(sent=1), ("203.0.113.5", 9), ("203.0.113.6", 9))
        reader.feed(dialog.data() + stray.replace(b"c1@", b"c2@"))
        assert reader.counts.strays == 2


class TestWriting:
    """SIP as it may be written, and as it is."""

    def test_compact_names_folds_and_odd_case_are_the_same_headers(self):
        dialog = finished()
        plain = calls(dialog)
        for old, new in (
            (b"Call-ID: ", b"i:"),
            (b"\r\nFrom: ", b"\r\nf :\r\n\t "),
            (b"\r\nTo: ", b"\r\nTO:  "),
            (b"Via: ", b"v: "),
            (b"CSeq: 1 ", b"cseq:   1\r\n "),
            (b";tag=", b" ; TAG = "),
            (b"\r\n", b"\n"),
        ):
            packets = []
            for packet in dialog.packets:
                head, payload = (
                    packet[: packet.index(b"\x00\x00\x00\x0f")],
                    packet[packet.index(b"\x00\x00\x00\x0f") + 6 :],
                )
                packets.append(framed(head[6:] + chunk(0x0F, payload.replace(old, new))))
            assert events(read(b"".join(packets))) == plain, old

    def test_repeated_reasons_are_joined_and_the_cause_found(self):
        dialog = Dialog()
        dialog.released(dialog.answered(T) + 5_000, "Reason: SIP;cause=200", "Reason: Q.850;cause=41")
        out = only(calls(dialog))
        assert (out["reason"], out["q850"]) == ("SIP;cause=200, Q.850;cause=41", 41)

    @pytest.mark.parametrize(
        ("caller", "said", "named"),
        [
            ("<sip:+442079460001@a>", "", "02079460001"),
            ('"Bob <x>" <sip:0207-946-0001@a;user=phone>', "", "02079460001"),
            ("tel:+44-20-7946-0001", "", "02079460001"),
            ("<sip:Anonymous@anonymous.invalid>", "", None),
            ("<sip:anonymous@anonymous.invalid>", "<sip:+442079460001@a>, <tel:+442079460001>", "02079460001"),
            ("<sip:100@pbx>", "<sip:+442079460001@a>", "02079460001"),
        ],
    )
    def test_the_caller_is_whom_the_network_vouches_for(self, caller, said, named):
        dialog = Dialog(caller=caller)
        dialog.message(T, "INVITE")
        if said:
            dialog.message(T + 1, "INVITE", f"P-Asserted-Identity: {said}", hops=2)
        dialog.message(T + 9, "486 INVITE")
        found = calls(dialog)
        expected = None if named is None else TOKENS.identity(named)
        assert only(found, "in").get("peer_id") == expected
        assert [call["customer_id"] for call in found if call["direction"] == "out"] == [expected] * (named is not None)

    @pytest.mark.parametrize(
        ("agent", "model", "firmware"),
        [
            ("Grandstream HT801 1.0.19.11", "Grandstream HT801", "1.0.19.11"),
            ("Asterisk PBX 18.9-cert2", "Asterisk PBX", "18.9-cert2"),
            ("Phone 192.0.2.10", "Phone", None),
            ("snom370/8.7.5.48", "snom370", None),
            ("02079460001", None, None),
        ],
    )
    def test_a_user_agent_is_model_and_firmware_but_no_address_of_its_message(self, agent, model, firmware):
        dialog = Dialog()
        dialog.message(T, "INVITE", f"User-Agent: {agent}", body=sdp("8.7.5.48", 4000, "0"))
        dialog.message(T + 9, "486 INVITE")
        out = only(calls(dialog))
        assert (out.get("cpe_model"), out.get("cpe_firmware")) == (model, firmware)

    @pytest.mark.parametrize(
        ("formats", "lines", "codec"),
        [
            ("8 101", (), "PCMA"),
            ("18", (), "G729"),
            ("101 0", (), "PCMU"),
            ("111", ("a=rtpmap:111 opus/48000/2",), "opus"),
            ("97", (), None),
        ],
    )
    def test_the_codec_is_that_of_the_answer(self, formats, lines, codec):
        dialog = Dialog()
        dialog.message(T, "INVITE", body=sdp(A[0], 4000, "0 8 18 111 101"))
        dialog.message(T + 9, "200 INVITE", body=sdp(B[0], 6000, formats, *lines))
        dialog.released(T + 5_000)
        assert only(calls(dialog)).get("codec") == codec


def _saying(packet, more):
    return b"HEP3" + struct.pack(">H", len(packet) + more) + packet[6:]


def _head():
    return hep(b"", T)[6:-6]


LIES = {
    "a length that is too long": (lambda packet: _saying(packet, 40), "not_json"),
    "a length that is too short": (lambda packet: _saying(packet, -9), "not_json"),
    "a length of nothing": (lambda packet: b"HEP3\0\0" + packet[6:], "not_json"),
    "a chunk that is too long": (lambda packet: packet[:10] + b"\xff\xff" + packet[12:], "not_json"),
    "a chunk of nothing": (lambda packet: packet[:10] + b"\0\0" + packet[12:], "not_json"),
    "no time": (lambda packet: packet.replace(b"\0\0\0\x09\0\x0a", b"\0\0\0\x77\0\x0a"), "missing_field"),
    "garbage": (lambda packet: b"\x02\x10" + packet[6:], "not_json"),
    "too many chunks": (lambda _: framed(chunk(0x77, b"") * 65), "too_large"),
    "half a payload": (lambda _: framed(_head() + chunk(0x10, zlib.compress(b"x" * 99)[:-9])), "truncated"),
    "a bomb": (lambda _: framed(_head() + chunk(0x10, zlib.compress(b"\0" * 10_000_000))), "too_large"),
    "no zlib": (lambda _: framed(_head() + chunk(0x10, b"plain")), "not_text"),
    "no SIP": (lambda _: hep(b"GET / HTTP/1.1\r\n\r\n", T), "not_text"),
    "SIP without a Call-ID": (lambda packet: packet.replace(b"Call-ID", b"Kall-ID"), "missing_field"),
    "SIP with a wild CSeq": (lambda packet: packet.replace(b"CSeq: 1 ", b"CSeq: x "), "wrong_type"),
    "a report that is no JSON": (lambda _: hep(b"\x80\xc9", T, protocol=5), "not_json"),
}  # fmt: skip


class TestPackets:
    def test_ipv6_compression_and_the_order_of_chunks_make_no_difference(self):
        dialog = finished()
        plain = calls(dialog)
        payloads = [packet[packet.index(b"\x00\x00\x00\x0f") + 6 :] for packet in dialog.packets]
        for k, pack in enumerate((zlib.compress, lambda data: zlib.compress(data, wbits=31))):
            packets = []
            for packet, payload in zip(dialog.packets, payloads, strict=True):
                at_ms = packet_time_ms(packet)
                packets.append(
                    framed(
                        chunk(0x10, pack(payload))
                        + chunk(0x0B, b"\x01")
                        + chunk(0x99, b"secret", vendor=7)
                        + place((0x03, 0x05, 0x07), ("2001:db8::1", "192.0.2.1")[k], 5060)
                        + chunk(0x0C, struct.pack(">I", 2001))
                        + chunk(0x09, struct.pack(">I", at_ms // 1000))
                        + chunk(0x0A, struct.pack(">I", at_ms % 1000 * 1000))
                    )
                )
            assert events(read(b"".join(packets))) == plain

    def test_other_protocols_and_what_is_no_call_are_passed_over(self):
        reader = HepReader(Customers(TOKENS))
        register = keepalive(T).replace(b"OPTIONS", b"REGISTE")
        data = (
            hep(b"{}", T, protocol=100)
            + hep(b"\r\n\r\n", T)
            + hep(b"", T)
            + keepalive(T)
            + register.replace(b"REGISTE", b"REGISTR")
        )
        assert reader.feed(data) == []
        assert (reader.counts.packets, reader.counts.other) == (5, 1)

    @pytest.mark.parametrize("lie", LIES)
    def test_a_broken_packet_is_one_dead_letter_and_its_neighbours_are_unharmed(self, lie):
        breaks, reason = LIES[lie]
        dialog, other = finished(), finished(call_id="c2", caller="<sip:02079460003@x>")
        broken = breaks(Dialog(call_id="c3").message(T, "INVITE"))
        items = read(dialog.data() + broken + other.data())
        assert len(events(items)) == 4
        (letter,) = letters(items)
        assert letter.reason == reason
        assert letter.position == len(dialog.packets) + 1

    def test_an_input_that_ends_inside_a_packet_says_so(self):
        dialog = finished()
        (letter,) = letters(read(dialog.data() + keepalive(T)[:-5]))
        assert letter.reason == "truncated"

    def test_a_key_for_tokens_is_needed(self):
        with pytest.raises(ConfigError, match=r"input\.tokens: must give a key"):
            open_format("hep", Options())

    def test_networks_say_who_is_a_customer(self):
        dialog = Dialog()
        dialog.message(T, "INVITE", target=PROXY)
        dialog.message(T + 1, "INVITE", hops=2, source=PROXY, target=B)
        dialog.message(T + 9, "503 INVITE")
        for networks, directions in (
            ((), ["out"]),
            (("192.0.2.0/28",), ["out"]),
            (("192.0.2.16/28", "2001:db8::/32"), ["in"]),
            (("192.0.2.0/24",), ["out", "in"]),
            (("10.0.0.0/8",), []),
        ):
            reader = open_format("hep", Options(tokens=TOKENS, customer_networks=networks))
            assert [call["direction"] for call in events(reader.feed(dialog.data()))] == directions
        with pytest.raises(ConfigError, match="customer_networks"):
            open_format("hep", Options(tokens=TOKENS, customer_networks=("10.0.0.0/99",)))


def traffic(seed, count=6):
    """Some calls of every sort, their packets mixed."""
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    packets = []
    for k in range(count):
        dialog = Dialog(call_id=f"c{k}", caller_tag=f"a{k}", callee_tag=f"b{k}", caller=f"<sip:020794600{k:02d}@x>")
        begin_ms = T + rng.randrange(60_000)
        if rng.random() < 0.3:
            dialog.message(begin_ms, "INVITE")
            dialog.message(begin_ms + 100, f"{rng.choice([401, 486, 503])} INVITE")
        else:
            up_ms = dialog.answered(begin_ms)
            block = {"fraction_lost": rng.randrange(256), "packets_lost": 3, "ia_jitter": 8, "lsr": 0, "dlsr": 0}
            for at_ms in range(up_ms, up_ms + 20_000, 5_000):
                dialog.rtcp(at_ms, report(sent=at_ms - T, block=block), (A[0], 4001), (B[0], 6001))
            if rng.random() < 0.7:
                dialog.released(up_ms + 20_000, by_callee=rng.random() < 0.5)
        packets += dialog.packets
    packets.sort(key=packet_time_ms)
    return b"".join(packets) + keepalive(T + 200_000)


class TestProperties:
    @given(seed=st.integers(0, 5), cuts=st.lists(st.integers(0, 1 << 30), max_size=20))
    def test_where_chunks_are_cut_changes_nothing(self, seed, cuts):
        data = traffic(seed)
        assert read(data, cuts) == read(data)

    @given(
        seed=st.integers(0, 5),
        wounds=st.lists(
            st.tuples(st.integers(0, 1 << 30), st.binary(min_size=0, max_size=6), st.integers(0, 6)), max_size=12
        ),
        cuts=st.lists(st.integers(0, 1 << 30), max_size=4),
    )
    def test_mutated_packets_never_raise_and_every_event_holds_the_contract(self, seed, wounds, cuts):
        data = bytearray(traffic(seed))
        for at, wound, gone in wounds:
            at %= len(data)  # noqa: PLW2901  folded into what is left
            data[at : at + gone] = wound
        items = read(bytes(data), cuts)
        assert items == read(bytes(data))
        batch = decode(b"\n".join(item.line for item in items if isinstance(item, Converted)))
        assert batch.rejects == []

    @given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 1 << 30), max_size=4))
    def test_any_bytes_are_read(self, data, cuts):
        assert read(data, cuts) == read(data)
        assert read(b"HEP3" + data, cuts) == read(b"HEP3" + data)

    @given(seed=st.integers(0, 5), at=st.integers(0, 1 << 30))
    def test_a_restored_reader_goes_on_like_one_never_stopped(self, seed, at):
        data = traffic(seed)
        ends = [place for place in range(len(data)) if data.startswith(b"HEP3", place)]
        cut = ends[at % len(ends)]
        first, second = HepReader(Customers(TOKENS)), HepReader(Customers(TOKENS))
        items = first.feed(data[:cut])
        second.restore(first.snapshot())
        second.position = first.position
        assert items + second.feed(data[cut:]) + second.finish() == read(data)
        assert first.snapshot() != second.snapshot()

    def test_a_table_that_is_full_gives_up_attempts_before_calls_and_stays_within_bounds(self):
        reader = HepReader(Customers(TOKENS), calls_max=64)
        up = Dialog(call_id="up")
        up.answered(T)
        items = reader.feed(up.data())
        for k in range(500):
            items += reader.feed(Dialog(call_id=f"flood{k}").message(T + 4_000 + k, "INVITE"))
        up.released(T + 60_000)
        items += reader.feed(b"".join(up.packets[-2:]))
        assert len(events(items)) == 2
        assert len(letters(items)) == reader.counts.evicted > 400
        assert reader.counts.calls - reader.counts.evicted <= 64

    def test_no_number_and_no_address_leaves(self):
        dialog = Dialog(
            call_id="02079469999@203.0.113.77",
            caller='"Canary 02079469998" <sip:02079469997@203.0.113.76>',
            callee="<sip:02079469996@203.0.113.75;user=phone>",
        )
        up_ms = dialog.answered(T)
        dialog.rtcp(
            up_ms + 5_000, report(sent=9, block={"fraction_lost": 1, "ia_jitter": 1}), (A[0], 4001), (B[0], 6001)
        )
        reason = (
            'Reason: SIP;cause=480;text="02079469995 or +44 20 7946 9994 at 203.0.113.74, fe80::1:77, bob@203.0.113.7"'
        )
        dialog.released(up_ms + 9_000, reason)
        still_up = Dialog(call_id="2@203.0.113.77", caller="<sip:02079469997@203.0.113.76>")
        still_up.answered(T)
        items = read(dialog.data() + still_up.data())
        assert len(events(items)) == 2
        said = b"".join(item.line + item.record if isinstance(item, Converted) else item.record for item in items)
        said += b"".join(letter.detail.encode() for letter in letters(items))
        for secret in (b"203.0.113", b"0794699", b"7946", b"192.0.2", b"fe80", b"bob", b"Canary"):
            assert secret not in said, secret
