"""What a customer and an element are to the whole job when it is written event by event, in objects.

A careful first draft, not a copy of Stayline: river objects instead of its evidence, Page-Hinkley's verdict instead of
its casebook. It decides other things and says less in its alerts. What it shares is the work that a call causes.
"""

from collections import deque
from functools import lru_cache

import numpy as np
from river.drift import PageHinkley
from river.stats import EWMean, EWVar

from bench.peers.job import ALPHA, DELTA, FADE, MIN_INSTANCES, THRESHOLD
from detectors.emodel import CODECS, JITTER_BUFFER_PER_JITTER, R_BASE, codec_index
from detectors.release import RANG_MS, CallEnds, Outcome, classify
from schemas.columns import DIRECTIONS, RELEASERS
from schemas.events import Call, Media
from schemas.text import CodeColumn

SEEN = 8
LATENESS_MS = 300_000
REDIAL_MS = 60_000
POOR_R = 60.0
"""Below it "nearly all users are dissatisfied" (ITU-T G.109)."""
ELEMENTS = ("access_node", "trunk", "sbc", "region", "probe_id")
STAND_IN_IE, STAND_IN_BPL = 0.0, 25.1
"""Of G.711 with concealment (G.113, appendix I), for codecs of which nothing is published."""

Verdict = tuple[int, float, float]
"""Outcome, drop weight, set-up weight."""


def release_of(call: Call) -> Verdict:
    """Return what ended a call. What the codes say is looked up once a combination; media evidence once a call."""
    codes = (call.sip_status, call.q850, call.reason, call.released_by, call.direction)
    if call.answer_ms is None:
        rang = call.end_ms - call.start_ms >= RANG_MS
        return _of_codes(False, *codes, RANG_MS if rang else 0)  # noqa: FBT003  a key of the cache
    duration_ms = call.end_ms - call.answer_ms
    # Silence of under two seconds weighs nothing, and most calls have as many packets as their duration says.
    quiet = call.silence_ms is not None and call.silence_ms > 1_000
    starved = call.packets_received is not None and call.packets_received * 20 < 0.1 * duration_ms
    if not (quiet or starved):
        return _of_codes(True, *codes, 0)  # noqa: FBT003  a key of the cache
    return _classified(
        True, *codes, duration_ms, call.silence_ms, call.packets_received, call.packets_sent  # noqa: FBT003  a column
    )  # fmt: skip


@lru_cache(maxsize=1 << 16)
def _of_codes(
    answered: bool,  # noqa: FBT001  a key of the cache
    sip_status: int | None,
    q850: int | None,
    reason: str | None,
    released_by: str | None,
    direction: str | None,
    lasted_ms: int,
) -> Verdict:
    return _classified(answered, sip_status, q850, reason, released_by, direction, lasted_ms, None, None, None)


def _classified(
    answered: bool,  # noqa: FBT001  a column
    sip_status: int | None,
    q850: int | None,
    reason: str | None,
    released_by: str | None,
    direction: str | None,
    duration_ms: int,
    silence_ms: int | None,
    packets_received: int | None,
    packets_sent: int | None,
) -> Verdict:
    def whole(value: int | None) -> int:
        return -1 if value is None else value

    one = classify(
        CallEnds(
            answered=np.array([answered]),
            sip_status=np.array([whole(sip_status)], np.int16),
            q850=np.array([whole(q850)], np.int16),
            reason=CodeColumn.of([reason]),
            released_by=np.array([-1 if released_by is None else RELEASERS.index(released_by)], np.int8),
            direction=np.array([-1 if direction is None else DIRECTIONS.index(direction)], np.int8),
            duration_ms=np.array([duration_ms], np.int64),
            silence_ms=np.array([whole(silence_ms)], np.int64),
            packets_received=np.array([whole(packets_received)], np.int64),
            packets_sent=np.array([whole(packets_sent)], np.int64),
        )
    )
    return int(one.outcome[0]), float(one.drop_weight[0]), float(one.setup_weight[0])


def rating_of(call: Call | Media) -> float | None:
    """Return R of one call or report: the E-model's short form in scalars (ITU-T G.107; Cole and Rosenbluth 2001)."""
    if call.loss_ratio is None:
        return None
    codec = CODECS[0 if call.codec is None else codec_index(call.codec)]
    ie, bpl = _known(codec.ie, STAND_IN_IE), _known(codec.bpl, STAND_IN_BPL)
    loss_percent = 100.0 * min(call.loss_ratio + _known(call.discard_ratio, 0.0), 1.0)
    burst = max(_known(call.burst_ratio, 1.0), 1.0)
    buffer_ms = JITTER_BUFFER_PER_JITTER * _known(call.jitter_ms, 0.0)
    delay_ms = _known(call.rtt_ms, 0.0) / 2.0 + buffer_ms + codec.delay_ms
    delay = 0.024 * delay_ms + 0.11 * max(delay_ms - 177.3, 0.0)
    return max(R_BASE - delay - ie - (95.0 - ie) * loss_percent / (loss_percent / burst + bpl), 0.0)


def _known(measure: float | None, otherwise: float) -> float:
    return otherwise if measure is None else measure


def elements_of(call: Call) -> list[str]:
    """Return the elements that a call ran through, as keys."""
    names = [f"{kind}/{name}" for kind in ELEMENTS if (name := getattr(call, kind)) is not None]
    if call.cpe_model is not None and call.cpe_firmware is not None:
        names.append(f"cpe_firmware/{call.cpe_model}/{call.cpe_firmware}")
    return names


def _test() -> PageHinkley:
    return PageHinkley(MIN_INSTANCES, DELTA, THRESHOLD, ALPHA)


class Customer:
    """One customer: duplicates, four Page-Hinkley tests, and the usual drop rate and rating."""

    def __init__(self) -> None:
        self.seen: deque[str] = deque(maxlen=SEEN)
        self.last_ms = 0
        self.last_peer: str | None = None
        self.drop_mean = EWMean(FADE)
        self.rating_mean = EWMean(FADE)
        self.rating_variance = EWVar(FADE)
        self.tests = {"drop_rate": _test(), "setup_failure": _test(), "quality": _test(), "redial": _test()}

    def see(self, call: Call) -> tuple[list[str], Verdict | None, bool]:
        """Take in one call.

        Returns:
            the tests that fire; what ended the call, None if it is a duplicate or late; whether its media was poor.
        """
        if call.call_id in self.seen or call.end_ms < self.last_ms - LATENESS_MS:
            return [], None, False
        self.seen.append(call.call_id)
        verdict = release_of(call)
        _, drop, setup = verdict
        again = call.peer_id is not None and call.peer_id == self.last_peer
        fired = [self._test("redial", float(again and call.start_ms - self.last_ms <= REDIAL_MS))]
        self.last_ms, self.last_peer = max(self.last_ms, call.end_ms), call.peer_id
        if call.answer_ms is None:
            fired.append(self._test("setup_failure", setup))
            return [name for name in fired if name], verdict, False
        self.drop_mean.update(drop)
        fired.append(self._test("drop_rate", drop))
        rating = rating_of(call)
        poor = rating is not None and rating < POOR_R
        if rating is not None:
            self.rate(rating)
            fired.append(self._test("quality", float(poor)))
        return [name for name in fired if name], verdict, poor

    def rate(self, rating: float) -> None:
        """Take in the rating of a call or of a report during one."""
        self.rating_mean.update(rating)
        self.rating_variance.update(rating)

    def _test(self, name: str, x: float) -> str:
        test = self.tests[name]
        test.update(x)  # type: ignore[no-untyped-call]  # it has none
        return name if test.drift_detected else ""


class Element:
    """One network element: tallies of its calls, and a Page-Hinkley test of their drops."""

    def __init__(self) -> None:
        self.tally = {"attempts": 0, "answered": 0, "drops": 0, "failures": 0, "poor": 0}
        self.test = _test()

    def see(self, verdict: Verdict, *, answered: bool, poor: bool) -> bool:
        """Take in one call; return whether the test fires."""
        outcome, drop, _ = verdict
        self.tally["attempts"] += 1
        self.tally["answered"] += answered
        self.tally["drops"] += outcome == Outcome.DROP
        self.tally["failures"] += outcome == Outcome.SETUP_FAILURE
        self.tally["poor"] += poor
        if not answered:
            return False
        self.test.update(drop)  # type: ignore[no-untyped-call]  # it has none
        return bool(self.test.drift_detected)
