"""What a dead letter keeps of a vendor's record: how it was written, and nobody's number, name or address.

Any byte of a broken record may belong to an identity, wherever it stands and however it is spelt: in a column that
slipped, in base64, in UTF-16, as four bytes of an address. So nothing is looked for and cut out. Everything goes
that is not known to be harmless: digits become `#`, letters and whatever is not ASCII become `x`, and words stay that
are part of a format's own vocabulary. Lengths stay too, so a place in a detail (`at byte 17`) is the place here.

A masked record has no numbers and no times left, so no format takes it for a call: it can be looked at, and not be
applied by mistake. The record itself is still where the dead letter says it stood.
"""

import re

from schemas.deadletters import DeadReason, Reject

_WORDS = """
    ANSWER ANSWERED Alert BUSY BYE CALL CANCEL CHAN_END CHAN_START CONGESTION CSeq Call-ID CallID CallTerm Contact
    Content-Length Content-Type DOCUMENTATION Delay Dial DialogID Event FAILED From FromID HANGUP HEP3 INTEGER INVITE
    IP JitterBuffer LocalAddr LocalID LocalMetrics MLQK MLQKav Max-Forwards NLR NO NULL OrigID PD PORT PT PUBLISH
    PacketLoss QualityEst Reason RemoteAddr RemoteID RemoteMetrics SIP SSRC START STOP Server Session-Expires
    SessionDesc TCP TLS TimeStamps Timestamps To ToID UDP User-Agent VARCHAR VQAlertReport VQIntervalReport
    VQSessionReport Via accountcode amaflags answer answer_epoch answer_stamp answer_time answer_uepoch answered_time
    billsec bye callId callIdentifier callStats call_id call_uuid calldate called callee callend caller
    caller_id_number caller_profile callflow callid callingPartyNumber cdr cdrRecordType channel channel_data clid cnam
    code connect_duration created_time dateTimeConnect dateTimeDisconnect dateTimeOrigination dateTimeStamp dcontext
    destCause_value destDeviceName destLegIdentifier destination_number dialog direction directoryNum disposition dlsr
    dst dstchannel duration end end_epoch end_stamp end_time end_uepoch event eventtime eventtype extra failed false
    fbasename finalCalledPartyNumber fraction_lost from_tag from_uri globalCallID_callId globalCallID_callManagerId
    hangup_cause hangup_cause_q850 hangup_time hangupcause hangupsource ia_jitter id id_sensor inbound jitter last
    lastSIPresponseNum lastapp lastdata linkedid lsr method name null numberPacketsLost numberPacketsReceived
    numberPacketsSent origCause_value origDeviceName origLegCallIdentifier originalCalledPartyNumber outbound packets
    packets_lost read_codec reason report_blocks report_count rtp_audio_in_mos sender_information sequence sip sip_code
    sip_from_user sip_hangup_disposition sip_reason sip_status sip_term_status sip_to_user source_ssrc src ssrc start
    start_epoch start_stamp start_time start_uepoch state status switchname tag time timeout times timestamp to_tag
    to_uri true type uniqueid userfield uuid varVQMetrics variables whohanged
"""
"""Names of fields, headers and states, and nothing that anybody is called."""

_LETTERS, _DIGITS = bytes([*range(65, 91), *range(97, 123), *range(128, 256)]), b"0123456789"
_TEXT = bytes.maketrans(_LETTERS + _DIGITS, b"x" * len(_LETTERS) + b"#" * len(_DIGITS))
_KNOWN = re.compile(
    rb"(?<![A-Za-z0-9_\x80-\xff])(?:%s)(?![A-Za-z0-9_\x80-\xff])"
    % b"|".join(sorted(map(re.escape, _WORDS.encode().split()), reverse=True))
)


def masked(record: bytes) -> bytes:
    """Return a text record in which nobody can be found. See the module."""
    shown = bytearray(record.translate(_TEXT))
    for found in _KNOWN.finditer(record):
        shown[found.start() : found.end()] = found.group()
    return bytes(shown)


def masked_binary(record: bytes) -> bytes:
    """Return the same of a record in which an address may be four bytes of any value: no byte stays but in words."""
    shown = bytearray(b"." * len(record))
    for found in _KNOWN.finditer(record):
        shown[found.start() : found.end()] = found.group()
    return bytes(shown)


def refused(position: int, reason: DeadReason, detail: str, record: bytes) -> Reject:
    """Return the reject of a text record."""
    return Reject(position, reason, detail, masked(record))
