import re
from dataclasses import fields
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import release
from detectors.release import RANG_MS, CallEnds, Outcome, classify, rows_of_reason
from schemas.text import CodeColumn

N, U, D, F, B, X = (
    Outcome.NORMAL,
    Outcome.USER,
    Outcome.DROP,
    Outcome.SETUP_FAILURE,
    Outcome.BLOCKED,
    Outcome.IGNORED,
)
CUSTOMER, PEER, NETWORK, UNKNOWN = range(4)
OUT, IN = range(2)

# --- The table again, written on its own --------------------------------------------------------------------
# (codes, class before answer, class or grade of drop after it; "-": the code says nothing after answer).

Q850 = [
    ([1, 5, 22, 28, 817], U, "doubtful"),
    ([2, 3, 25], F, "drop"),
    ([4, 6, 29], F, "drop"),
    ([7, 13, 14, 23, 26, 30], N, N),
    ([16], N, N),
    ([17, 19], U, U),
    ([18, 20], "absent", "drop"),
    ([21], "rejected", "rejected"),
    ([24], B, B),
    ([27, 38, 39], F, "strong"),
    ([31], N, N),
    ([34], F, "drop"),
    ([41, 42, 47], F, "strong"),
    ([43, 49], F, "drop"),
    ([44], F, "strong"),
    ([45, 46, 8, 9], B, "drop"),
    ([50, 52, 53, 54, 55, 57, 62, 87, 90], B, B),
    ([58, 63], F, "drop"),
    ([65, 66, 69, 70, 79, 88, 91, 818], F, "-"),
    ([81, 82, 83, 84, 85, 86], F, "drop"),
    ([95, 96, 97, 98, 99, 100, 101, 103, 110, 111], F, "drop"),
    ([102], F, "strong"),
    ([127], "weak", "weak"),
    ([142, 702, 800, 801, 805, 814], N, N),
    ([487, 812, 815, 816, 825], U, U),
    ([806, 807, 808, 809, 810, 811], F, "-"),
    ([802, 819, 820, 821, 822, 823, 824], B, B),
    ([700, 701, 804, 813], F, "strong"),
    ([703, 803], X, X),
    # In no row of their own: the "unspecified" of their class.
    ([10, 15], N, N),
    ([36, 40], F, "strong"),
    ([51, 61], F, "drop"),
    ([68, 78], F, "-"),
    ([89, 94], F, "drop"),
    ([104, 109], F, "drop"),
    ([112, 126], "weak", "weak"),
    ([0, 128, 600, 1023], "-", "-"),
]
SIP = [
    ([200, 202, 300, 302, 380], N, N),
    ([404, 410, 484, 485, 604], U, "doubtful"),
    ([486, 600, 603, 487, 699], U, "-"),
    ([607, 608], B, "-"),
    ([402, 403, 401, 407, 428, 429, 436, 437, 438, 433], B, B),
    ([408, 502, 503, 504, 580], F, "strong"),
    ([500, 513, 599], F, "-"),
    ([430, 480], "absent", "weak"),
    ([400, 405, 406, 413, 414, 415, 416, 420, 421, 482, 483, 488, 494, 501, 505, 606, 499], F, "-"),
    ([422, 423, 491], X, "-"),
    ([481], F, "drop"),
    ([100, 180, 183, 199], "-", "-"),
]
GENERIC = {"sip": {200, 202, 300, 302, 380}, "q850": {10, 15, 16, 31, 112, 126, 127}}
DROPS = {  # by clearer: not known, a party, the network
    "strong": (1.0, 1.0, 1.0),
    "drop": (0.9, 0.5, 1.0),
    "weak": (0.4, 0.2, 1.0),
    "doubtful": (0.3, 0.1, 0.6),
}
REASONS = {
    "RELEASE_CAUSE;cause=1": (U, N),
    "RELEASE_CAUSE;cause=2": (F, "strong"),
    "RELEASE_CAUSE;cause=3": (F, "strong"),
    "RELEASE_CAUSE;cause=4": (F, "strong"),
    "RELEASE_CAUSE;cause=5": (F, "strong"),
    "RELEASE_CAUSE;cause=6": (F, "weak"),
    "FAILURE_CAUSE;cause=1": (F, "strong"),
    "FAILURE_CAUSE;cause=2": (F, "strong"),
    "FAILURE_CAUSE;cause=3": (F, "drop"),
    'SIP;cause=408;text="Session timeout"': (F, "strong"),
    'SIP;cause=408;text="ACK Timeout"': (F, "strong"),
    'SIP;cause=504;text="PRACK Timeout"': (F, "drop"),
    'SIP;cause=400;text="Local media failure"': (F, "strong"),
    'SIP;cause=603;text="Network Blocked"': (B, "-"),
    'SIP;cause=200;text="Call completed elsewhere"': (N, N),
    "preemption;cause=5": (B, "drop"),
    "STIR;cause=438": (B, B),
    "SIP;cause=486": (U, "-"),
    "SIP;cause=503": (F, "strong"),
    "Q.850;cause=102": (F, "strong"),
    "Q.850;cause=19": (U, U),
    "Q.850;cause=21;location=U": (U, U),
    "Q.850;cause=21;location=TN": (B, B),
    "Q.850;cause=21;location=RPN": (U, U),
    "FreeSWITCH;cause=804": (F, "strong"),
    "X.int;reasoncode=0x00000005": ("-", "-"),
    "RELEASE_CAUSE;cause=99": ("-", "-"),
}
REASONS_GENERIC = {
    "Q.850;cause=16": (N, N),
    "Q.850;cause=127": ("weak", "weak"),
    "SIP;cause=200": (N, N),
}


def ends_of(rows):
    """Turn dicts into columns: what a row does not name is not known."""

    def column(name, dtype, default):
        return np.array([row.get(name, default) for row in rows], dtype)

    return CallEnds(
        answered=column("answered", np.bool_, False),
        sip_status=column("sip_status", np.int16, -1),
        q850=column("q850", np.int16, -1),
        reason=CodeColumn.of([row.get("reason") for row in rows]),
        released_by=column("released_by", np.int8, -1),
        direction=column("direction", np.int8, -1),
        duration_ms=column("duration_ms", np.int64, 0),
        silence_ms=column("silence_ms", np.int64, -1),
        packets_received=column("packets_received", np.int64, -1),
        packets_sent=column("packets_sent", np.int64, -1),
    )


def verdict(**row):
    """Classify one call: its outcome, its weight in its phase, one-way or not."""
    row.setdefault("duration_ms", 120_000 if row.get("answered") else 0)
    found = classify(ends_of([row]))
    weights = float(found.drop_weight[0]), float(found.setup_weight[0])
    assert weights[0 if not row.get("answered") else 1] == 0.0
    return Outcome(found.outcome[0]), max(weights), bool(found.one_way[0])


def meaning(word, answered, released_by, direction):
    """The oracle's half of the table: what one word of it means in one case."""
    party, network = released_by in {CUSTOMER, PEER}, released_by == NETWORK
    if word == "-":
        return (N if answered else U if party else Outcome.UNKNOWN), 0.0
    if word == "rejected":
        return (B if network else U), 0.0
    if answered and word in DROPS:
        return D, DROPS[word][2 if network else 1 if party else 0]
    if word == "absent":
        return F, 0.1 if direction == OUT else 0.5
    if word == "weak":
        return F, 0.5
    return word, 1.0 if word is F else 0.0


def expected_of_cause(word, *, answered, released_by=-1, direction=-1):
    outcome, weight = meaning(word, answered, released_by, direction)
    if answered and outcome is D and weight < 0.5:
        outcome = N
    return outcome, pytest.approx(weight), False


CASES = list(product([-1, CUSTOMER, PEER, NETWORK, UNKNOWN], [-1, OUT, IN]))


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("field", "code", "words"),
    [
        (field, code, words)
        for field, table in (("sip_status", SIP), ("q850", Q850))
        for codes, *words in table
        for code in codes
    ],
)
def test_each_code_means_what_the_table_says(field, code, words, answered):
    for released_by, direction in CASES:
        found = verdict(answered=answered, released_by=released_by, direction=direction, **{field: code})
        assert found == expected_of_cause(
            words[answered], answered=answered, released_by=released_by, direction=direction
        )


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("header", "words"), (REASONS | REASONS_GENERIC).items())
def test_each_reason_means_what_the_table_says(header, words, answered):
    for released_by, direction in CASES:
        found = verdict(answered=answered, released_by=released_by, direction=direction, reason=header)
        assert found == expected_of_cause(
            words[answered], answered=answered, released_by=released_by, direction=direction
        )


def test_no_code_stands_in_two_rows_and_each_row_is_explained():
    seen = [(cause.protocol, code) for cause in release._TABLES.cause for code in [*cause.codes, *cause.texts]]
    assert len(seen) == len(set(seen))
    for cause in release._TABLES.cause:
        assert cause.meaning
        assert cause.source
        assert cause.codes or cause.texts
        assert cause.before or cause.after
        assert {cause.before, cause.after} - {None} <= release._TABLES.verdict.keys()


def test_drops_are_verdicts_after_answer_and_failures_verdicts_before_it():
    verdicts = release._TABLES.verdict
    for cause in release._TABLES.cause:
        assert cause.before is None or verdicts[cause.before].outcome != "DROP"
        assert cause.after is None or verdicts[cause.after].outcome != "SETUP_FAILURE"


# --- Precedence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        ({"reason": "Q.850;cause=19", "sip_status": 480, "q850": 18}, U),
        ({"reason": "Q.850;cause=34", "sip_status": 486, "q850": 17}, F),
        ({"reason": "Q.850;cause=16", "sip_status": 503, "q850": 16}, F),
        ({"reason": "Q.850;cause=127", "sip_status": 486, "q850": 127}, U),
        ({"sip_status": 486, "q850": 41}, U),
        ({"sip_status": 503, "q850": 17}, F),
        ({"sip_status": 200, "q850": 17}, U),
        ({"sip_status": 183, "q850": 41}, F),
        ({"answered": True, "sip_status": 200, "q850": 44}, D),
        ({"answered": True, "sip_status": 200, "q850": 16}, N),
        ({"answered": True, "sip_status": 200, "reason": "RELEASE_CAUSE;cause=2", "q850": 16}, D),
        ({"answered": True, "sip_status": 481, "reason": "Q.850;cause=16"}, D),
        ({"answered": True, "sip_status": 488, "q850": 102}, D),
        ({"answered": True, "sip_status": 200, "reason": "Q.850;cause=16", "q850": 102}, N),
        ({"answered": True, "reason": "RELEASE_CAUSE;cause=1", "sip_status": 503, "q850": 38}, N),
    ],
)
def test_the_rawer_source_wins_unless_it_is_generic_or_silent(row, outcome):
    assert verdict(**row)[0] == outcome


@pytest.mark.parametrize("direction", [-1, IN, OUT])
@pytest.mark.parametrize("q850", [-1, 18, 20])
def test_who_is_unavailable_after_it_rang_did_not_answer(direction, q850):
    unavailable = {"sip_status": 480, "q850": q850, "direction": direction}
    assert verdict(**unavailable, duration_ms=RANG_MS)[:2] == (U, 0.0)
    assert verdict(**unavailable, duration_ms=RANG_MS - 1)[0] == F
    # A cause in the record's own Reason says more than the time does.
    assert verdict(**unavailable, reason="Q.850;cause=20", duration_ms=RANG_MS)[0] == F


@pytest.mark.parametrize("released_by", [-1, CUSTOMER, PEER, NETWORK, UNKNOWN])
@pytest.mark.parametrize("sip_status", [-1, 200])
def test_an_answered_call_of_which_nothing_is_known_is_no_drop(released_by, sip_status):
    assert verdict(answered=True, released_by=released_by, sip_status=sip_status) == (N, 0.0, False)


def test_an_unanswered_attempt_without_causes_is_the_partys_doing_or_unknown():
    assert verdict(released_by=CUSTOMER)[0] == U
    assert verdict(released_by=PEER)[0] == U
    assert verdict(released_by=NETWORK)[0] == Outcome.UNKNOWN
    assert verdict()[0] == Outcome.UNKNOWN


# --- Reason headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "RELEASE_CAUSE;cause=2",
        'Reason: release_cause ; Cause = 2 ; text="no more of it"',
        'SIP;cause=200;text="Call completed, elsewhere", RELEASE_CAUSE ;cause=2',
        'Q.850;cause=16;text="x;y,z\\"SIP;cause=486",RELEASE_CAUSE;cause=2',
        "Q.850;cause=16\r\nReason: RELEASE_CAUSE;cause=2",
        'Q.850;cause="16" , , ;RELEASE_CAUSE;cause=3, RELEASE_CAUSE;cause="2"',
        "SIP;cause=503,RELEASE_CAUSE;cause=2,Q.850;cause=19",
        'RELEASE_CAUSE;cause=2;text="no end quote, SIP;cause=486',
    ],
)  # fmt: skip
def test_a_header_is_read_however_it_is_written(header):
    assert rows_of_reason(header) == rows_of_reason("RELEASE_CAUSE;cause=2")


@pytest.mark.parametrize("text", ["MEDIA_TIMEOUT", "rtp timeout", "RTP-TIMEOUT", "RTP/RTCP Time-Out"])
def test_texts_are_found_in_any_protocol_and_spelling(text):
    assert verdict(answered=True, reason=f'Q.850;cause=31;text="{text} (60 s)"')[:2] == (D, 1.0)


def test_a_specific_value_counts_wherever_it_stands():
    assert verdict(answered=True, reason="SIP;cause=200, Q.850;cause=102")[:2] == (D, 1.0)
    assert verdict(answered=True, reason="Q.850;cause=102, SIP;cause=200")[:2] == (D, 1.0)


def test_ack_is_not_found_in_prack():
    assert rows_of_reason("X;text=PRACK Timeout") != rows_of_reason("X;text=ACK Timeout")


@given(st.text() | st.text(alphabet='"\\,;=SIPcause408 \r\n'))
def test_any_text_is_read_without_an_error(header):
    rows = rows_of_reason(header)
    assert len(rows) == 2
    assert all(0 <= row <= len(release._TABLES.cause) for row in rows)


def test_each_distinct_header_that_occurs_is_parsed_once():
    rows_of_reason.cache_clear()
    headers = [f"X;cause={n}" for n in range(4)]
    ends = ends_of([{"reason": headers[n % 2]} for n in range(100)])
    ends = CallEnds(**{**columns(ends), "reason": CodeColumn(ends.reason.codes, headers)})
    for _ in range(3):
        classify(ends)
    assert rows_of_reason.cache_info().misses == 2


# --- Media --------------------------------------------------------------------------------------------------

CLEARED = {"answered": True, "sip_status": 200, "q850": 16}


@pytest.mark.parametrize(
    ("silence_ms", "weight"),
    [(-1, 0), (0, 0), (2_000, 0), (6_000, 0.45), (10_000, 0.9), (60_000, 0.9), (300_000, 0.27), (500_000, 0.27)],
)
def test_silence_before_the_end_weighs_smoothly(silence_ms, weight):
    assert verdict(**CLEARED, duration_ms=1_000_000, silence_ms=silence_ms)[1] == pytest.approx(weight)


def test_a_drop_by_silence_alone_is_named_once_it_is_likelier_than_not():
    assert verdict(**CLEARED, silence_ms=6_000)[0] == N
    assert verdict(**CLEARED, silence_ms=7_000)[0] == D


def test_long_silence_that_the_network_ends_is_a_media_guard_timer():
    for silence_ms in (60_000, 300_000, 900_000):
        found = verdict(**CLEARED, duration_ms=1_000_000, silence_ms=silence_ms, released_by=NETWORK)
        assert found[:2] == (D, pytest.approx(0.9))


def test_silence_counts_no_further_than_the_call_reaches():
    base = {**CLEARED, "duration_ms": 5_000}
    assert verdict(**base, silence_ms=90_000) == verdict(**base, silence_ms=5_000)
    assert verdict(**{**base, "duration_ms": 0}, silence_ms=90_000) == (N, 0.0, False)


def test_silence_over_the_whole_call_is_half_as_sure():
    base = {**CLEARED, "duration_ms": 20_000}
    assert verdict(**base, silence_ms=20_000)[1] == pytest.approx(0.45)
    assert verdict(**base, silence_ms=15_000)[1] == pytest.approx(0.9)


def test_independent_evidence_adds_up():
    weak = {"answered": True, "q850": 127}
    assert verdict(**weak)[:2] == (N, pytest.approx(0.4))
    assert verdict(**weak, silence_ms=10_000)[:2] == (D, pytest.approx(1 - 0.6 * 0.1))


@pytest.mark.parametrize("cause", [{"q850": 703}, {"sip_status": 402}, {"q850": 57}])
def test_a_call_cut_off_on_purpose_is_no_drop_however_silent(cause):
    found = verdict(answered=True, silence_ms=10_000, packets_received=0, packets_sent=6_000, **cause)
    assert found[0] in {B, X}
    assert found[1] == 0.0


@pytest.mark.parametrize(
    ("duration_ms", "received", "sent", "one_way", "weight"),
    [
        (10_000, 0, 500, True, 0.9),
        (10_000, 9, 500, True, 0.9),  # 9 of 500 expected
        (10_000, 10, 500, False, 0.0),
        (10_000, 0, 124, False, 0.0),  # the source hardly sees media
        (10_000, 0, 0, False, 0.0),
        (10_000, 0, -1, True, 0.45),
        (10_000, 5, -1, False, 0.0),
        (10_000, -1, 500, False, 0.0),
        (1_999, 0, 100, False, 0.0),
        (2_000, 0, 100, True, 0.0),
        (3_500, 0, 175, True, 0.45),
        (20_000, 0, 1_000, True, 0.9),
        (60_000, 0, 3_000, True, 0.18),
        (3_600_000, 0, 180_000, True, 0.18),
    ],
)
def test_one_way_audio_weighs_by_when_people_hang_up(duration_ms, received, sent, one_way, weight):
    row = {**CLEARED, "duration_ms": duration_ms, "packets_received": received, "packets_sent": sent}
    assert verdict(**row)[1:] == (pytest.approx(weight), one_way)
    # Silence from the first moment on is the same observation again.
    if received == 0:
        assert verdict(**row, silence_ms=duration_ms)[1:] == (pytest.approx(weight), one_way)


def test_a_short_call_alone_has_no_weight():
    assert verdict(**CLEARED, duration_ms=1_500, packets_received=70, packets_sent=75)[1] == 0.0


def test_an_attempt_never_has_media_evidence():
    assert verdict(silence_ms=10_000, packets_received=0, packets_sent=500, sip_status=486) == (U, 0.0, False)


# --- Against a plain oracle ---------------------------------------------------------------------------------


def smoothstep(at_ms, first_ms, last_ms):
    t = min(max((at_ms - first_ms) / (last_ms - first_ms), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def media_of(row):
    """The oracle's soft evidence: weight, one-way."""
    duration, silence = row["duration_ms"], row["silence_ms"]
    received, sent = row["packets_received"], row["packets_sent"]
    weight = 0.0
    if silence > 0 and received != 0:
        heard = min(silence, duration)
        fall = 0.0 if row["released_by"] == NETWORK else smoothstep(heard, 60_000, 300_000)
        weight = 0.9 * smoothstep(heard, 2_000, 10_000) * (1 - 0.7 * fall)
        if silence >= 0.98 * duration:
            weight /= 2
    expected = duration / 20
    nothing = 0 <= received < 0.02 * expected
    if not (nothing and duration >= 2_000 and (received == 0 if sent < 0 else sent >= 0.25 * expected)):
        return weight, False
    starved = 0.9 * smoothstep(duration, 2_000, 5_000) * (1 - 0.8 * smoothstep(duration, 20_000, 60_000))
    return max(weight, starved / 2 if sent < 0 else starved), True


def words_of(row, answered):
    """The oracle's precedence: the word of the table that decides."""
    reason, sip, q850 = row["reason"], row["sip_status"], row["q850"]
    said = {
        "reason": (REASONS | REASONS_GENERIC).get(reason, ("-", "-"))[answered],
        "sip": next((words[answered] for codes, *words in SIP if sip in codes), "-"),
        "q850": next((words[answered] for codes, *words in Q850 if q850 in codes), "-"),
    }
    if said["reason"] != "-" and reason not in REASONS_GENERIC:
        return said["reason"]
    if not answered and sip == 480 and (q850 == 19 or row["duration_ms"] >= RANG_MS):
        return U
    if said["sip"] != "-" and sip not in GENERIC["sip"]:
        return said["sip"]
    return next((said[source] for source in ("reason", "q850", "sip") if said[source] != "-"), "-")


def oracle(row):
    """Outcome, drop weight, set-up weight, one-way: plain if and else."""
    answered = row["answered"]
    word = words_of(row, answered)
    outcome, weight = meaning(word, answered, row["released_by"], row["direction"])
    if not answered:
        return outcome, 0.0, weight, False
    media, one_way = media_of(row)
    if outcome in {B, X}:
        return outcome, 0.0, 0.0, one_way
    weight = 1 - (1 - weight) * (1 - media)
    if weight >= 0.5:
        outcome = D
    elif outcome is D:
        outcome = N
    return outcome, weight, 0.0, one_way


def codes_of(table):
    return st.sampled_from([-1, *(code for codes, *_ in table for code in codes)])


counts = st.sampled_from([-1, 0, 1, 5, 9, 10, 100, 500, 5_000, 2**53 - 1]) | st.integers(0, 20_000)
spans_ms = st.sampled_from([0, 1_999, 2_000, 6_000, 10_000, 60_000, 2**53 - 1]) | st.integers(0, 400_000)


@st.composite
def call_rows(draw):
    answered = draw(st.booleans())
    return {
        "answered": answered,
        "sip_status": draw(codes_of(SIP)),
        "q850": draw(codes_of(Q850)),
        "reason": draw(st.none() | st.sampled_from([*REASONS, *REASONS_GENERIC])),
        "released_by": draw(st.integers(-1, 3)),
        "direction": draw(st.integers(-1, 1)),
        "duration_ms": draw(spans_ms),
        "silence_ms": draw(st.just(-1) | spans_ms),
        "packets_received": draw(counts),
        "packets_sent": draw(counts),
    }


def columns(record):
    return {field.name: getattr(record, field.name) for field in fields(record)}


@given(st.lists(call_rows(), max_size=20))
def test_the_vectorised_answer_is_the_scalar_one(rows):
    found = classify(ends_of(rows))
    for n, row in enumerate(rows):
        outcome, drop_weight, setup_weight, one_way = oracle(row)
        assert found.drop_weight[n] == pytest.approx(drop_weight, abs=1e-6)
        assert found.setup_weight[n] == pytest.approx(setup_weight)
        assert found.one_way[n] == one_way
        if abs(drop_weight - 0.5) > 1e-6 or drop_weight == 0.5:
            assert found.outcome[n] == outcome


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "answered": st.booleans(),
                "sip_status": st.just(-1) | st.integers(100, 699),
                "q850": st.integers(-1, 1023),
                "reason": st.none() | st.text(max_size=40) | st.from_regex(r"(SIP|Q\.850);cause=[0-9]{1,4}"),
                "released_by": st.integers(-1, 3),
                "direction": st.integers(-1, 1),
                "duration_ms": st.integers(0, 2**53),
                "silence_ms": st.integers(-1, 2**53),
                "packets_received": st.integers(-1, 2**53),
                "packets_sent": st.integers(-1, 2**53),
            }
        ),
        max_size=20,
    )
)
def test_whatever_comes_in_weights_are_ratios_and_agree_with_the_outcome(rows):
    ends = ends_of(rows)
    found = classify(ends)
    assert found.outcome.dtype == np.int8
    assert found.drop_weight.dtype == found.setup_weight.dtype == np.float32
    for weight in (found.drop_weight, found.setup_weight):
        assert ((weight >= 0) & (weight <= 1)).all()
    assert not found.drop_weight[~ends.answered].any()
    assert not found.setup_weight[ends.answered].any()
    assert ((found.outcome == D) == (found.drop_weight >= 0.5)).all()
    failed = (found.outcome == F) & ~ends.answered
    assert (failed == (found.setup_weight > 0)).all()
    unknown = [Outcome.UNKNOWN, F]
    assert not np.isin(found.outcome[ends.answered], unknown).any()


@given(st.lists(call_rows(), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_rows_do_not_affect_each_other(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    whole = columns(classify(ends_of(rows)))
    shuffled = columns(classify(ends_of([rows[n] for n in order])))
    single = [columns(classify(ends_of([row]))) for row in rows]
    for name, column in whole.items():
        assert (shuffled[name] == column[order]).all()
        assert (np.concatenate([one[name] for one in single]) == column).all()


def test_the_columns_of_a_batch_are_taken_over():
    names = {field.name for field in fields(CallEnds)} - {"answered", "duration_ms"}
    calls = SimpleNamespace(
        start_ms=np.array([500, 500]),
        answer_ms=np.array([-1, 1_000]),
        end_ms=np.array([5_000, 5_000]),
        **{name: name for name in names},
    )
    ends = CallEnds.of(calls)
    assert ends.answered.tolist() == [False, True]
    assert ends.duration_ms.tolist() == [4_500, 4_000]
    assert all(getattr(ends, name) == name for name in names)


def test_every_code_of_the_file_is_in_the_test():
    tested = {("sip", code) for codes, *_ in SIP for code in codes}
    tested |= {("q850", code) for codes, *_ in Q850 for code in codes}
    listed = {(cause.protocol, code) for cause in release._TABLES.cause for code in cause.codes}
    assert {key for key in listed if re.fullmatch("sip|q850", key[0])} <= tested
