"""How a call can end, as the signalling shows it.

The pairs of SIP status and Q.850 cause are those of RFC 3398; `RELEASE_CAUSE` is 3GPP TS 24.229, clause 7.2A.18.
"""

from dataclasses import dataclass

import numpy as np

from bench.simulator.columns import UNKNOWN, Columns, Floats, Ints
from bench.simulator.spec import MINUTE_MS

CUSTOMER, PEER, NETWORK, NOT_TOLD = 0, 1, 2, 3
RELEASERS = ("customer", "peer", "network", "unknown")


@dataclass(frozen=True, slots=True)
class Ending:
    """One way to end: `share` is its weight in its group; `q850` may be `UNKNOWN`."""

    sip_status: int
    q850: int
    reason: str | None
    released_by: int
    share: float = 0.0


ANSWER_ENDINGS = (
    Ending(200, 16, None, CUSTOMER, 0.0),
    Ending(486, 17, None, PEER, 0.24),
    Ending(480, 19, None, PEER, 0.30),
    Ending(487, 16, 'SIP;cause=487;text="ORIGINATOR_CANCEL"', CUSTOMER, 0.31),
    Ending(404, 1, 'Q.850;cause=1;text="Unallocated number"', NETWORK, 0.055),
    Ending(603, 21, None, PEER, 0.05),
    Ending(480, 20, None, NETWORK, 0.025),
    Ending(503, 34, 'Q.850;cause=34;text="No circuit available"', NETWORK, 0.007),
    Ending(500, 41, 'Q.850;cause=41;text="Temporary failure"', NETWORK, 0.007),
    Ending(408, 102, 'SIP;cause=408;text="Request Timeout"', NETWORK, 0.006),
)
"""Undisturbed calls: the first is the normal clearing of an answered one, the rest were not answered."""
NORMAL, BUSY, NO_ANSWER = 0, 1, 2

HARD_ENDINGS = (
    Ending(408, 102, 'SIP;cause=408;text="Session timeout"', NETWORK),
    Ending(503, 41, 'Q.850;cause=41;text="Temporary failure"', NETWORK),
    Ending(503, 38, 'Q.850;cause=38;text="Network out of order"', NETWORK),
    Ending(480, 27, 'Q.850;cause=27;text="Destination out of order"', NETWORK),
    Ending(200, 41, 'RELEASE_CAUSE;cause=2;text="RTP/RTCP time-out"', NETWORK),
    Ending(200, 41, 'RELEASE_CAUSE;cause=3;text="Media bearer loss"', NETWORK),
    Ending(408, 102, 'RELEASE_CAUSE;cause=4;text="SIP timeout - lack of ACK"', NETWORK),
    Ending(504, 102, 'RELEASE_CAUSE;cause=5;text="SIP response time-out"', NETWORK),
    Ending(481, 127, 'SIP;cause=481;text="Call Leg/Transaction Does Not Exist"', NETWORK),
    Ending(504, UNKNOWN, None, NETWORK),
    Ending(503, 41, None, NETWORK),
)
"""An answered call cut by the network."""

SETUP_ENDINGS = (
    Ending(503, 34, 'Q.850;cause=34;text="No circuit available"', NETWORK),
    Ending(500, 41, 'Q.850;cause=41;text="Temporary failure"', NETWORK),
    Ending(504, 102, 'SIP;cause=504;text="Server Time-out"', NETWORK),
    Ending(408, 102, 'SIP;cause=408;text="Request Timeout"', NETWORK),
    Ending(503, 38, None, NETWORK),
    Ending(480, 18, 'Q.850;cause=18;text="No user responding"', NETWORK),
    Ending(502, 27, None, NETWORK),
)
"""An attempt that failed before anybody could answer."""

ODD_ENDINGS = (
    Ending(200, 31, None, PEER),
    Ending(200, 16, 'Q.850;cause=16;text="Normal call clearing"', CUSTOMER),
    Ending(200, 16, 'Q.850;cause=16;text="Normal call clearing"', NETWORK),
    Ending(200, UNKNOWN, None, CUSTOMER),
    Ending(200, 16, None, NOT_TOLD),
    Ending(408, 102, 'SIP;cause=408;text="Dialog expired"', NETWORK),
)
"""Normal clearings in other words: by an announcement or a voice mailbox, with fields missing, and last one whose
BYE was lost, so that a timer closed the record long after the talk was over."""
ODD_SHARE = (0.30, 0.45, 0.05, 0.12, 0.08, 0.0)

ENDINGS = (*ANSWER_ENDINGS, *HARD_ENDINGS, *SETUP_ENDINGS, *ODD_ENDINGS)
HARD, SETUP = len(ANSWER_ENDINGS), len(ANSWER_ENDINGS) + len(HARD_ENDINGS)
ODD = SETUP + len(SETUP_ENDINGS)
BYE_LOST = len(ENDINGS) - 1

SIP_STATUS = np.array([ending.sip_status for ending in ENDINGS])
Q850 = np.array([ending.q850 for ending in ENDINGS])
RELEASED_BY = np.array([ending.released_by for ending in ENDINGS])
REASONS = [ending.reason for ending in ENDINGS]


def cut_hard(calls: Columns, rows: Ints, endings: Ints, rng: np.random.Generator) -> None:
    """End answered calls early, by the network, with abnormal causes (indices into `ENDINGS`)."""
    _cut(calls, rows, rng.uniform(0.04, 0.96, len(rows)))
    calls["ending"][rows] = endings
    calls["silence_ms"][rows] = rng.uniform(0, 900, len(rows)).astype(np.int64)
    # A media timer fires only after the media has been gone for a while.
    timer = rows[np.isin(endings - HARD, (4, 5))]
    _let_silence_grow(calls, timer, rng.uniform(5_000, 30_000, len(timer)))
    calls["redial_chance"][rows] = 0.65
    calls["mutual"][rows] = rng.random(len(rows)) < 0.15


def cut_silent(calls: Columns, rows: Ints, rng: np.random.Generator) -> None:
    """End answered calls early by a hang-up after 4 to 30 s of silence; the cause says normal."""
    _cut(calls, rows, rng.uniform(0.04, 0.96, len(rows)))
    _let_silence_grow(calls, rows, rng.uniform(4_000, 30_000, len(rows)))
    calls["ending"][rows] = NORMAL
    calls["redial_chance"][rows] = 0.6
    calls["mutual"][rows] = rng.random(len(rows)) < 0.25


def cut_mixed(calls: Columns, rows: Ints, endings: Ints, silent_share: Floats, rng: np.random.Generator) -> None:
    """Drop answered calls, some of them silently: `endings` and `silent_share` have one entry a row."""
    silent = rng.random(len(rows)) < silent_share
    cut_hard(calls, rows[~silent], endings[~silent], rng)
    cut_silent(calls, rows[silent], rng)


def fail_setup(calls: Columns, rows: Ints, endings: Ints, rng: np.random.Generator) -> None:
    """Let attempts fail before they ring."""
    calls["answer_ms"][rows] = UNKNOWN
    took_ms = np.where(np.isin(SIP_STATUS[endings], (408, 504)), 32_000, rng.uniform(150, 6_000, len(rows)))
    calls["end_ms"][rows] = np.minimum(calls["start_ms"][rows] + took_ms.astype(np.int64), calls["limit_ms"][rows])
    calls["ending"][rows] = endings
    calls["redial_chance"][rows] = 0.6


def lose_bye(calls: Columns, rows: Ints, rng: np.random.Generator) -> None:
    """Let the record of a good call stay open for half an hour or more, where the line has that much time."""
    open_ms = rng.integers(30 * MINUTE_MS, 120 * MINUTE_MS, len(rows))
    room = calls["end_ms"][rows] + open_ms < calls["limit_ms"][rows]
    rows, open_ms = rows[room], open_ms[room]
    calls["end_ms"][rows] += open_ms
    calls["silence_ms"][rows] = open_ms
    calls["ending"][rows] = BYE_LOST


def any_hard(n: int, rng: np.random.Generator) -> Ints:
    """Draw abnormal causes of every kind."""
    return HARD + rng.integers(0, len(HARD_ENDINGS), n)


def _cut(calls: Columns, rows: Ints, share: Floats) -> None:
    talk_ms = calls["end_ms"][rows] - calls["answer_ms"][rows]
    calls["end_ms"][rows] = calls["answer_ms"][rows] + np.maximum(talk_ms * share, 1).astype(np.int64)


def _let_silence_grow(calls: Columns, rows: Ints, silence_ms: Floats) -> None:
    """Add silence at the end, as far as the line's next call leaves room."""
    end_ms = np.minimum(calls["end_ms"][rows] + silence_ms.astype(np.int64), calls["limit_ms"][rows] - 500)
    calls["end_ms"][rows] = np.maximum(end_ms, calls["end_ms"][rows])
    calls["silence_ms"][rows] = np.minimum(
        silence_ms.astype(np.int64), calls["end_ms"][rows] - calls["answer_ms"][rows]
    )
