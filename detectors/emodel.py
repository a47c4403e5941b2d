"""Voice quality from loss, bursts, delay and codec: the E-model of ITU-T G.107, narrowband.

R = 93.2 - Id - Ie,eff in the short form: default values for everything that telemetry does not tell, advantage
factor A = 0. MOS follows from R. Vendors' own MOS fields are not comparable with it nor with each other.

One scale for all: R and MOS here are narrowband values, 0..93.2 and 1..4.41. The wideband and fullband E-models
(G.107.1, G.107.2) have scales of their own that must not be mixed with it, and for wideband codecs no verified loss
robustness (Bpl) is published. So what is not published of a codec is taken from G.711 with packet loss concealment,
and the result marked as not `grounded`: it compares calls of that codec with each other, before and after, bad and
good; it says nothing about how the codec sounds beside another.

Example:
    >>> mos_from_r(r_factor(loss_percent, burst_ratio, delay_ms, ie, bpl))
    array([4.41, 3.83])
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from schemas.columns import CallColumns, MediaColumns
from schemas.kernels import inlined, loop, shared
from schemas.text import F32, I32, Bools, CodeColumn

F64 = npt.NDArray[np.float64]
Number = TypeVar("Number", F64, float)

DelayForm = Literal["default_echo", "pure"]
"""Which delay impairment: with the default talker echo (what a conversation over real terminals suffers), or the
delay alone, echo cancelled perfectly."""

R_BASE = 93.2
"""Ro - Is at all default values, as G.107 rounds it (unrounded 93.2062)."""

R_MIN = 80.0 - math.sqrt(5400.0)
"""6.515: where the cubic of `mos_from_r` last passes MOS 1; below it dips under 1, which no listener can say."""

JITTER_BUFFER_PER_JITTER = 2.0
"""An adaptive buffer holds about twice the interarrival jitter: an estimate, since no event reports its depth."""


class Codec(NamedTuple):
    """What G.113 says of a codec.

    Attributes:
        ie: equipment impairment without loss, None if not published.
        bpl: robustness to packet loss, None if not published.
        delay_ms: usual packet length and look-ahead.
        names: RTP encoding names and common spellings, in the form `_plain` gives.
    """

    ie: float | None
    bpl: float | None
    delay_ms: float
    names: str


CODECS: tuple[Codec, ...] = (
    # Anything not listed, and codecs of which nothing is published on this scale.
    Codec(None, None, 20.0, "g722 speex silk isac l16"),
    # Ie and Bpl: ITU-T G.113, appendix I. Endpoints conceal loss unless the name says otherwise.
    Codec(0.0, 25.1, 20.0, "g711 pcmu pcma g711u g711a g711ulaw g711alaw ulaw alaw mulaw g711mu"),
    Codec(0.0, 4.3, 20.0, "g711noplc pcmunoplc pcmanoplc"),
    # With voice activity detection, the default of RFC 4856 for annex B; without it Ie is 10.
    Codec(11.0, 19.0, 25.0, "g729 g729a g729b g729ab"),
    # At 6.3 kbit/s with voice activity detection: the RTP name does not tell the rate.
    Codec(15.0, 16.1, 37.5, "g723 g7231"),
    Codec(5.0, 10.0, 20.0, "gsmefr efr amr122"),
    # Ie published, Bpl not.
    Codec(2.0, None, 20.0, "g72640 aal2g72640"),
    Codec(7.0, None, 20.0, "g726 g72632 aal2g72632 g721"),
    Codec(25.0, None, 20.0, "g72624 aal2g72624"),
    Codec(50.0, None, 20.0, "g72616 aal2g72616"),
    Codec(7.0, None, 20.0, "g728"),
    Codec(20.0, None, 20.0, "gsm gsmfr"),
    Codec(23.0, None, 20.0, "gsmhr gsmhr08"),
    # As the first row, but longer: AMR's other modes, wideband codecs, 30 ms frames.
    Codec(None, None, 25.0, "amr amrnb amrwb g7222 evs"),
    Codec(None, None, 26.5, "opus"),
    Codec(None, None, 30.0, "ilbc"),
)

_STAND_IN = CODECS[1]
_IE = np.array([_STAND_IN.ie if codec.ie is None else codec.ie for codec in CODECS], np.float64)
_BPL = np.array([_STAND_IN.bpl if codec.bpl is None else codec.bpl for codec in CODECS], np.float64)
_DELAY_MS = np.array([codec.delay_ms for codec in CODECS], np.float64)
_GROUNDED = np.array([codec.ie is not None and codec.bpl is not None for codec in CODECS])
_CODEC_BY_NAME = {name: index for index, codec in enumerate(CODECS) for name in codec.names.split()}


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of n calls or reports, one a row.

    Attributes:
        r: float64, 0..93.2 on the narrowband scale; NaN where the loss is not known.
        mos: float64, 1..4.41, conversational (delay included); NaN where the loss is not known.
        grounded: whether Ie and Bpl of the codec are published; if not, compare within the codec only.
    """

    r: F64
    mos: F64
    grounded: Bools


def quality(
    loss_ratio: F32,
    discard_ratio: F32,
    burst_ratio: F32,
    rtt_ms: F32,
    jitter_ms: F32,
    codec: CodeColumn,
    form: DelayForm = "default_echo",
) -> Quality:
    """Compute R and MOS of n calls or reports from what was measured.

    What is not known (NaN; code -1) makes nothing worse: discards, round trip and jitter count as 0, a burst ratio
    as 1. Only without a loss ratio there is no R.

    Args:
        loss_ratio: packets lost in the network, 0..1 of those expected.
        discard_ratio: packets too late for the jitter buffer, 0..1 of those expected, so that the sum of both is
            G.107's Ppl (RFC 3611, section 4.7.1).
        burst_ratio: G.107's BurstR, 1 for random loss.
        rtt_ms: of the network; half of it is one way.
        jitter_ms: interarrival jitter.
        codec: RTP encoding names, any case, common spellings.
        form: see `DelayForm`.
    """
    kind = codec_indices(codec)
    loss_percent = 100.0 * np.minimum(loss_ratio.astype(np.float64) + _known(discard_ratio, 0.0), 1.0)
    delay_ms = _known(rtt_ms, 0.0) / 2.0 + JITTER_BUFFER_PER_JITTER * _known(jitter_ms, 0.0) + _DELAY_MS[kind]
    r = r_factor(loss_percent, _known(burst_ratio, 1.0), delay_ms, _IE[kind], _BPL[kind], form)
    return Quality(r, mos_from_r(r), _GROUNDED[kind])


def ratings(columns: CallColumns | MediaColumns, kind: I32) -> F32:
    """Return R of each call or report: from what was measured, else from the source's own MOS, else NaN.

    Args:
        columns: the calls or reports.
        kind: of each its codec's index, as from `codec_indices`.
    """
    rating = np.empty(len(columns), np.float32)
    _rate(
        columns.loss_ratio,
        columns.discard_ratio,
        columns.burst_ratio,
        columns.rtt_ms,
        columns.jitter_ms,
        kind,
        rating,
    )
    rest = np.flatnonzero(np.isnan(rating) & ~np.isnan(columns.mos))
    rating[rest] = r_from_mos(columns.mos[rest].astype(np.float64))
    return rating


@inlined
def _or(measure: float, otherwise: float) -> float:
    return otherwise if math.isnan(measure) else float(measure)


@loop
def _rate(
    loss_ratio: F32,
    discard_ratio: F32,
    burst_ratio: F32,
    rtt_ms: F32,
    jitter_ms: F32,
    kind: I32,
    rating: F32,
) -> None:
    """Compute what `quality` does, row by row: no array that holds a step of it."""
    for i in range(len(rating)):
        if math.isnan(loss_ratio[i]):
            rating[i] = math.nan
            continue
        codec = kind[i]
        loss_percent = 100.0 * min(float(loss_ratio[i]) + _or(discard_ratio[i], 0.0), 1.0)
        delay_ms = _or(rtt_ms[i], 0.0) / 2.0 + JITTER_BUFFER_PER_JITTER * _or(jitter_ms[i], 0.0) + _DELAY_MS[codec]
        equipment = equipment_impairment(loss_percent, _or(burst_ratio[i], 1.0), _IE[codec], _BPL[codec])
        rating[i] = max(R_BASE - delay_impairment_with_echo(delay_ms) - equipment, 0.0)


def r_factor(
    loss_percent: F64, burst_ratio: F64, delay_ms: F64, ie: F64, bpl: F64, form: DelayForm = "default_echo"
) -> F64:
    """Return R = 93.2 - Id - Ie,eff, not below 0 (G.107, section 7.1, with A = 0). NaN stays NaN.

    Args:
        loss_percent: G.107's Ppl, 0..100.
        burst_ratio: G.107's BurstR; below 1 counts as 1. Above 2 the formula is a weak guide.
        delay_ms: mouth to ear, one way.
        ie: the codec's, see `CODECS`.
        bpl: the codec's, see `CODECS`.
        form: see `DelayForm`.
    """
    delay = delay_impairment_with_echo(delay_ms) if form == "default_echo" else delay_impairment_pure(delay_ms)
    return np.maximum(R_BASE - delay - equipment_impairment(loss_percent, burst_ratio, ie, bpl), 0.0)


@shared
def equipment_impairment(loss_percent: Number, burst_ratio: Number, ie: Number, bpl: Number) -> Number:
    """Return Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl / BurstR + Bpl) (G.107, section 7.5)."""
    impairment: Number = ie + (95.0 - ie) * loss_percent / (loss_percent / np.maximum(burst_ratio, 1.0) + bpl)
    return impairment


@shared
def delay_impairment_with_echo(delay_ms: Number) -> Number:
    """Return Id = 0.024 d + 0.11 (d - 177.3) [d > 177.3]: the short form of G.107's Id, default echo.

    Within 0.2 of the full model (T = Ta, Tr = 2T, TELR = 65 dB) up to 350 ms; Cole and Rosenbluth, "Voice over IP
    performance monitoring", ACM SIGCOMM Computer Communication Review 31 (2001).
    """
    impairment: Number = 0.024 * delay_ms + 0.11 * np.maximum(delay_ms - 177.3, 0.0)
    return impairment


def delay_impairment_pure(delay_ms: F64) -> F64:
    """Return Idd, the delay alone: 0 up to 100 ms (G.107, section 7.4, default delay sensitivity)."""
    # Bounded above, lest infinity be subtracted from itself; R is 0 long before.
    x = np.log2(np.clip(delay_ms, 100.0, 1e9) / 100.0)
    return 25.0 * ((1.0 + x**6) ** (1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0) ** 6) ** (1.0 / 6.0) + 2.0)


def mos_from_r(r: F64) -> F64:
    """Return MOS = 1 + 0.035 R + R (R - 60) (100 - R) 7e-6, in 1..4.5 (G.107, annex B). NaN stays NaN."""
    return np.clip(_mos_inside(np.clip(r, R_MIN, 100.0)), 1.0, 4.5)


def mos_of(r: float) -> float:
    """Return what `mos_from_r` does for one R that is known."""
    return min(max(_mos_inside(min(max(r, R_MIN), 100.0)), 1.0), 4.5)


def _mos_inside(r: Number) -> Number:
    mos: Number = 1.0 + 0.035 * r + 7e-6 * r * (r - 60.0) * (100.0 - r)
    return mos


def r_from_mos(mos: F64) -> F64:
    """Return the R of a MOS in 1..4.5, the inverse of `mos_from_r` (G.107, appendix I).

    Of the cubic's three roots the middle one: R rises with MOS from 6.5 to 100. Other MOS count as the nearer end
    of the range. NaN stays NaN.
    """
    mos = np.clip(mos, 1.0, 4.5)
    # Real for 1..4.5: the cubic's turning points lie outside.
    height = 15.0 * np.sqrt(-903522.0 + 1113960.0 * mos - 202500.0 * mos * mos)
    turn = np.arctan2(height, 18566.0 - 6750.0 * mos) / 3.0
    r = 20.0 / 3.0 * (8.0 - math.sqrt(226.0) * np.cos(turn + math.pi / 3.0))
    return np.clip(r, R_MIN, 100.0)


def codec_indices(codec: CodeColumn) -> I32:
    """Return, for each row, its index into `CODECS`; 0 where the codec is not known or not listed."""
    return codec.numbers(codec_index, unknown=0)


@lru_cache(maxsize=4096)
def codec_index(name: str) -> int:
    """Return the index into `CODECS` of a codec by name; 0 if it is not listed."""
    return _CODEC_BY_NAME.get(_plain(name), 0)


def _plain(name: str) -> str:
    """Reduce a name to lower-case letters and digits, without the clock rate of an SDP rtpmap ("/8000/1")."""
    return re.sub(r"[^a-z0-9]", "", name.lower().partition("/")[0])


def _known(measure: F32, otherwise: float) -> F64:
    """Replace NaN."""
    return np.where(np.isnan(measure), otherwise, measure).astype(np.float64)
