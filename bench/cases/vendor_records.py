"""Records of calls as vendors write them, all different, from a seed: what the formats are timed on.

Nobody's: numbers are from a range for drama, addresses from ranges for documentation.
"""

import json
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from operator import itemgetter
from typing import NamedTuple

CUSTOMERS, FAR_ENDS = 5_000, 20_000
BEGIN_S = 1_767_600_000

CSV_COLUMNS = ("id", "a", "b", "began", "seconds", "status", "cause", "loss", "mos")


class Call(NamedTuple):
    """One call, in seconds where not said otherwise."""

    number: int
    caller: str
    callee: str
    begin: int
    ring: int
    talk: int
    lost: int

    @property
    def packets(self) -> int:
        """Packets of either direction, fifty a second."""
        return self.talk * 50

    @property
    def end(self) -> int:
        """When it ended."""
        return self.begin + self.ring + self.talk


def calls(count: int) -> Iterator[Call]:
    """Give some calls, one after the other."""
    rng = random.Random(1)
    for number in range(count):
        ring, talk = rng.randrange(1, 30), int(rng.expovariate(1 / 150)) + 1
        caller, callee = rng.randrange(CUSTOMERS), rng.randrange(FAR_ENDS)
        yield Call(
            number,
            f"0163296{caller:04d}",
            f"004420794{callee:05d}",
            BEGIN_S + number // 50,
            ring,
            talk,
            rng.randrange(9),
        )


def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def freeswitch(call: Call) -> bytes:
    """Return the caller's leg."""
    variables = {
        "direction": "inbound", "uuid": f"u{call.number}", "call_uuid": f"u{call.number}",
        "sip_call_id": f"{call.number}@192.0.2.1", "sip_from_user": call.caller, "sip_network_ip": "192.0.2.10",
        "endpoint_disposition": "ANSWER", "hangup_cause": "NORMAL_CLEARING", "hangup_cause_q850": "16",
        "sip_hangup_disposition": "recv_bye", "sip_term_status": "200", "proto_specific_hangup_cause": "sip%3A200",
        "start_uepoch": f"{call.begin}000000", "answer_uepoch": f"{call.begin + call.ring}000000",
        "end_uepoch": f"{call.end}000000", "sip_user_agent": "Yealink%20SIP-T46G%2066.84.0.15",
        "rtp_use_codec_name": "PCMA", "rtp_audio_in_media_packet_count": str(call.packets - call.lost),
        "rtp_audio_in_jitter_loss_rate": f"{call.lost / 1000:.2f}", "rtp_audio_in_jitter_burst_rate": "1.35",
        "rtp_audio_in_mean_interval": "20.01", "rtp_audio_in_mos": "4.39",
        "rtp_audio_out_media_packet_count": str(call.packets),
    }  # fmt: skip
    flow = {"caller_profile": {"caller_id_number": call.caller, "destination_number": call.callee}, "times": {}}
    record = {"core-uuid": "c", "switchname": "media-a", "channel_data": {"direction": "inbound"}}
    return json.dumps(record | {"variables": variables, "callflow": [flow]}, separators=(",", ":")).encode() + b"\n"


def asterisk(call: Call) -> bytes:
    """Return a row of Master.csv."""
    begin, answer, end = (_stamp(at) for at in (call.begin, call.begin + call.ring, call.end))
    return (
        f'"","{call.caller}","{call.callee}","from-internal","""A"" <{call.caller}>",'
        f'"PJSIP/{call.caller}-{call.number:08x}","PJSIP/trunk-{call.number:08x}","Dial","PJSIP/x@trunk,60","{begin}",'
        f'"{answer}","{end}",{call.end - call.begin},{call.talk},"ANSWERED","DOCUMENTATION",'
        f'"{call.begin}.{call.number}",""\n'
    ).encode()


def kamailio(call: Call) -> bytes:
    """Return the accounting rows of INVITE and BYE."""
    common = {"from_tag": f"f{call.number}", "to_tag": f"t{call.number}", "callid": f"{call.number}@192.0.2.10"}
    ends = {"sip_code": "200", "sip_reason": "OK", "src_user": call.caller, "dst_user": call.callee}
    rows = [
        {"method": "INVITE", **common, **ends, "time": call.begin + call.ring, "start_time": str(call.begin)},
        {"method": "BYE", **common, **ends, "time": call.end, "reason": "Q.850;cause=16"},
    ]
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


CUCM_CDR = (
    b'"cdrRecordType","globalCallID_callManagerId","globalCallID_callId","origLegCallIdentifier","dateTimeOrigination",'
    b'"callingPartyNumber","origCause_value","origMediaCap_payloadCapability","destLegIdentifier",'
    b'"originalCalledPartyNumber","finalCalledPartyNumber","destCause_value","dateTimeConnect","dateTimeDisconnect",'
    b'"origDeviceName","destDeviceName","duration"\n'
)
CUCM_CMR = (
    b'"cdrRecordType","globalCallID_callManagerId","globalCallID_callId","nodeId","directoryNum","callIdentifier",'
    b'"dateTimeStamp","numberPacketsSent","numberPacketsReceived","numberPacketsLost","jitter","latency","deviceName",'
    b'"varVQMetrics","duration"\n'
)
CUCM_ROWS = 500
"""So many calls stand in one pair of files."""


def cucm(some: list[Call]) -> bytes:
    """Return a CDR file and behind it the CMR file of the callers' phones; the other ends are trunks."""
    out = []
    for at in range(0, len(some), CUCM_ROWS):
        rows = [_cucm(call) for call in some[at : at + CUCM_ROWS]]
        out += [CUCM_CDR, *(cdr for cdr, _ in rows), CUCM_CMR, *(cmr for _, cmr in rows)]
    return b"".join(out)


def _cucm(call: Call) -> tuple[bytes, bytes]:
    leg, device = 2 * call.number, f"SEP{call.number % CUSTOMERS:012X}"
    cdr = (
        f'1,1,{call.number},{leg},{call.begin},"{call.caller}",16,4,{leg + 1},"{call.callee}","{call.callee}",0,'
        f'{call.begin + call.ring},{call.end},"{device}","trunk-north",{call.talk}\n'
    )
    metrics = "MLQK=4.5000;MLQKav=4.3100;MLQKmn=3.90;MLQKmx=4.50;ICR=0.0;CCR=0.01;ICRmx=0.02;CS=2;SCS=0;MLQKvr=0.95"
    cmr = (
        f'2,1,{call.number},1,"{call.caller}",{leg},{call.end},{call.packets},{call.packets - call.lost},{call.lost},'
        f'{call.lost},0,"{device}","{metrics}",{call.talk}\n'
    )
    return cdr.encode(), cmr.encode()


VOIPMONITOR_HEAD = (
    b"ID,calldate,callend,duration,connect_duration,caller,called,whohanged,bye,lastSIPresponseNum,reason_sip_cause,"
    b"reason_q850_cause,a_payload,a_received,b_received,a_lost,b_lost,a_avgjitter_mult10,b_avgjitter_mult10,"
    b"a_mos_f1_mult10,b_mos_f1_mult10,a_rtcp_avgrtd_mult10,a_last_rtp_from_end,b_last_rtp_from_end,id_sensor,fbasename,"
    b"a_ua\n"
)


def voipmonitor(call: Call) -> bytes:
    """Return a row of the cdr table."""
    return (
        f"{call.number},{_stamp(call.begin)},{_stamp(call.end)},{call.end - call.begin},{call.talk},{call.caller},"
        f"{call.callee},callee,3,200,\\N,16,8,{call.packets},{call.packets - call.lost},0,{call.lost},23,{call.lost},"
        f"43,41,410,0,0.02,3,{call.number}@192.0.2.10,Yealink SIP-T46G 66.84.0.15\n"
    ).encode()


def vqrtcpxr(call: Call) -> bytes:
    """Return a session report."""
    start, stop = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in (call.begin, call.end))
    return (
        f"VQSessionReport: CallTerm\r\nCallID: {call.number}@192.0.2.10\r\nLocalID: <sip:{call.caller}@example.com>\r\n"
        f"RemoteID: <sip:{call.callee}@example.com>\r\nOrigID: <sip:{call.caller}@example.com>\r\n"
        "LocalAddr: IP=192.0.2.10 PORT=5002 SSRC=0x2468abcd\r\nRemoteAddr: IP=192.0.2.20 PORT=5004 SSRC=0x1357efff\r\n"
        f"LocalMetrics:\r\nTimestamps: START={start} STOP={stop}\r\nSessionDesc: PT=8 PD=PCMA SR=8000 FD=20 PPS=50\r\n"
        f"JitterBuffer: JBA=3 JBR=2 JBN=40 JBM=80 JBX=120\r\nPacketLoss: NLR={call.lost / 10:.1f} JDR=0.1\r\n"
        f"Delay: RTD={20 + call.lost} ESD=40 IAJ={call.lost}\r\nQualityEst: MOSLQ=4.2 MOSCQ=4.{call.lost}\r\n"
    ).encode()


def delimited(call: Call) -> bytes:
    """Return a row of a file that needs a column map, in the order of `CSV_COLUMNS`."""
    status = f"200,{16},{call.lost / 1000},4.{call.lost}"
    return f"{call.number},{call.caller},{call.callee},{_stamp(call.begin)},{call.talk},{status}\n".encode()


_SDP = "v=0\r\nc=IN IP4 192.0.2.{}\r\nm=audio {} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"


def packets(some: Iterable[Call]) -> list[bytes]:
    """Return the packets of calls in order of time."""
    timed = [one for call in some for one in _hep(call)]
    timed.sort(key=itemgetter(0))
    return [packet for _, packet in timed]


def _hep(call: Call) -> Iterator[tuple[int, bytes]]:
    """Give the packets of a call: from INVITE to the answer to BYE, and a report of RTCP in the midst."""
    near, far = (b"\xc0\x00\x02\x0a", b"\x13\xc4"), (b"\xc0\x00\x02\x14", b"\x13\xc4")
    answer = call.begin + call.ring
    lines = (
        (call.begin, "INVITE sip:{1} SIP/2.0", "1 INVITE", "", _SDP.format(10, 4000)),
        (call.begin, "SIP/2.0 100 Trying", "1 INVITE", "", ""),
        (call.begin, "SIP/2.0 180 Ringing", "1 INVITE", ";tag=b", ""),
        (answer, "SIP/2.0 200 OK", "1 INVITE", ";tag=b", _SDP.format(20, 6000)),
        (answer, "ACK sip:{1} SIP/2.0", "1 ACK", ";tag=b", ""),
        (call.end, "BYE sip:{1} SIP/2.0", "2 BYE", ";tag=b", ""),
        (call.end, "SIP/2.0 200 OK", "2 BYE", ";tag=b", ""),
    )
    for at, first, cseq, to_tag, body in lines:
        method = cseq.partition(" ")[2]
        text = (
            f"{first.format(call.caller, call.callee)}"
            f"\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{cseq[0]}{call.number}\r\nMax-Forwards: 70"
            f"\r\nFrom: <sip:{call.caller}@example.com>;tag=a\r\nTo: <sip:{call.callee}@example.com>{to_tag}"
            f"\r\nCall-ID: {call.number}@192.0.2.10\r\nCSeq: {cseq}\r\nContact: <sip:{call.caller}@192.0.2.10:5060>"
            f"\r\nUser-Agent: Acme HT801 1.0.19\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE"
            f"\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        ends = (far, near) if first.startswith("SIP") else (near, far)
        yield at, _packet(text.encode(), at, ends, 1, b"")
        if method == "ACK":
            report = {
                "sender_information": {"ntp_timestamp_sec": at, "ntp_timestamp_usec": 0, "packets": 250},
                "report_blocks": [
                    {"source_ssrc": 1, "fraction_lost": call.lost, "packets_lost": call.lost, "ia_jitter": 80}
                ],
            }
            ports = ((near[0], b"\x0f\xa1"), (far[0], b"\x17\x71"))
            yield at, _packet(json.dumps(report).encode(), at, ports, 5, f"{call.number}@192.0.2.10".encode())


def _packet(payload: bytes, at: int, ends: tuple[tuple[bytes, bytes], ...], protocol: int, correlation: bytes) -> bytes:
    values = [(1, b"\x02"), (2, b"\x11"), (3, ends[0][0]), (4, ends[1][0]), (7, ends[0][1]), (8, ends[1][1])]
    values += [(9, struct.pack(">I", at)), (10, b"\0\0\0\0"), (11, bytes([protocol])), (12, b"\0\0\x07\xd1")]
    values += [(17, correlation)] if correlation else []
    chunks = b"".join(struct.pack(">HHH", 0, kind, 6 + len(value)) + value for kind, value in [*values, (15, payload)])
    return b"HEP3" + struct.pack(">H", 6 + len(chunks)) + chunks


def _each(write: Callable[[Call], bytes]) -> Callable[[list[Call]], bytes]:
    return lambda some: b"".join(map(write, some))


RECORDS: dict[str, tuple[Callable[[list[Call]], bytes], int]] = {
    "freeswitch": (_each(freeswitch), 1),
    "asterisk": (_each(asterisk), 1),
    "kamailio": (_each(kamailio), 2),
    "cucm": (cucm, 2),
    "voipmonitor": (lambda some: VOIPMONITOR_HEAD + _each(voipmonitor)(some), 1),
    "vqrtcpxr": (_each(vqrtcpxr), 1),
    "csv": (lambda some: ",".join(CSV_COLUMNS).encode() + b"\n" + _each(delimited)(some), 1),
    "hep": (lambda some: b"".join(packets(some)), 8),
}
"""Format -> what writes calls, and how many records one is (of `hep`: packets)."""
