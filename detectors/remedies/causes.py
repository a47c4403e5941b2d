"""From a pattern to its likely cause.

Each pattern of bad calls leaves some causes likelier than others: durations that cluster speak for a timer, evening
hours for congestion, one trunk for the route. The weights below are engineering judgement, not published rates;
they are multiplied like likelihood ratios, once for the pattern, the dimension, and each reading of the line, and
the share of the largest product is the confidence.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Literal, get_args

from msgspec import Struct

from detectors.lines import LOSS_HIGH_RATIO, RX_POWER_HIGH_DBM, RX_POWER_LOW_DBM
from schemas.alerts import Cause, Dimension, PatternKind

CauseKind = Literal[
    "sip_timer_or_nat",
    "access_congestion",
    "access_line_fault",
    "cpe_or_firmware",
    "codec_or_transcoding",
    "route_or_trunk",
    "far_end",
    "shared_outage",
    "one_way_media",
    "voice_quality_loss",
    "signalling_failure",
    "measurement_fault",
    "unknown",
]
CAUSES: Final[tuple[CauseKind, ...]] = get_args(CauseKind)
"""The closed set of causes. Equal weights are ranked in this order."""

CAUSE_WORDS: Final[Mapping[CauseKind, str]] = {
    "sip_timer_or_nat": "a timer that ends calls, in the network or in the router",
    "access_congestion": "a connection that is too busy at certain hours",
    "access_line_fault": "a fault on the line",
    "cpe_or_firmware": "the router or telephone adapter, or its software",
    "codec_or_transcoding": "the way the sound is encoded on some calls",
    "route_or_trunk": "one of the routes that our calls take",
    "far_end": "the network of the person at the other end",
    "shared_outage": "a fault that affects several customers",
    "one_way_media": "sound that gets through in one direction only",
    "voice_quality_loss": "sound that gets lost on the way",
    "signalling_failure": "calls that are not set up properly",
    "measurement_fault": "a fault in our measurement; the calls were fine",
    "unknown": "something that we have not found yet",
}
"""Each cause as the end of the sentence "the likely cause is ..."."""

SNR_MARGIN_LOW_DB: Final = 6.0
"""A DSL line below this noise margin retrains; 6 dB is the usual target margin."""

UTILIZATION_HIGH_RATIO, UTILIZATION_LOW_RATIO = 0.8, 0.5
"""Above the first, queues of a shared link fill in bursts; below the second they hardly do. Judgement."""

ALTERNATIVE_SHARE_MIN: Final = 0.05
"""An alternative is named where it has at least this share."""


class LineReadings(Struct, frozen=True):
    """What was last read of the customer's line; None where it was not.

    Attributes:
        snr_margin_db: noise margin of a DSL line.
        errored_seconds: in the last day.
        retrains: in the last day.
        rx_power_dbm: received optical power.
        utilization_ratio: of the access node's uplink in the busiest hour.
        loss_ratio: packets lost between the line and the first router.
        registered: whether the telephone was registered all the time.
    """

    snr_margin_db: float | None = None
    errored_seconds: float | None = None
    retrains: float | None = None
    rx_power_dbm: float | None = None
    utilization_ratio: float | None = None
    loss_ratio: float | None = None
    registered: bool | None = None


Weights = Mapping[CauseKind, float]

_FLOOR: Final = 0.02
# No cause is impossible after one pattern: what the table does not list keeps this weight.

_BY_PATTERN: Final[Mapping[PatternKind, Weights]] = {
    "drop_rate": {"access_line_fault": 0.3, "cpe_or_firmware": 0.2, "unknown": 0.25, "access_congestion": 0.1},
    # Calls that end at the same duration: lost ACK (32 s), NAT binding (30-60 s), session refresh (900, 1800 s).
    "duration_lock": {"sip_timer_or_nat": 0.9, "route_or_trunk": 0.05},
    "time_of_day": {"access_congestion": 0.75, "access_line_fault": 0.15},
    "route": {"route_or_trunk": 0.7, "far_end": 0.15, "codec_or_transcoding": 0.1},
    "one_way_audio": {"one_way_media": 0.8, "sip_timer_or_nat": 0.1, "cpe_or_firmware": 0.05},
    "redial": {"unknown": 0.3, "voice_quality_loss": 0.25, "one_way_media": 0.2, "access_line_fault": 0.1},
    "quality": {"voice_quality_loss": 0.4, "access_congestion": 0.2, "access_line_fault": 0.2},
    "setup_failure": {"signalling_failure": 0.6, "route_or_trunk": 0.2, "cpe_or_firmware": 0.1},
    # A line or a device that ages gets worse slowly; a fault in the network comes at once.
    "worsening": {"access_line_fault": 0.4, "cpe_or_firmware": 0.2, "access_congestion": 0.2, "unknown": 0.1},
}

_BY_DIMENSION: Final[Mapping[str, Weights]] = {
    # Trouble that follows one value of a field is blamed on what the field names.
    "trunk": {"route_or_trunk": 50.0},
    "sbc": {"route_or_trunk": 30.0, "sip_timer_or_nat": 3.0},
    "peer_id": {"far_end": 50.0},
    "codec": {"codec_or_transcoding": 50.0},
    "cpe_model": {"cpe_or_firmware": 30.0},
    "cpe_firmware": {"cpe_or_firmware": 30.0},
    "access_node": {"access_congestion": 5.0, "access_line_fault": 0.5, "shared_outage": 5.0},
    "region": {"shared_outage": 10.0, "route_or_trunk": 2.0},
    "hour": {"access_congestion": 5.0},
    # A probe carries no call: what only one probe sees did not happen to the customer.
    "probe_id": {"measurement_fault": 1000.0},
}

_SHARED: Final[Weights] = {"shared_outage": 500.0}
# Where peers on the same element suffer too it is not the line; only a probe's own trouble outweighs it.


def likely_cause(
    pattern_kind: PatternKind,
    dimension: Dimension | None,
    shared: bool,  # noqa: FBT001  a fact beside the others
    line_readings: LineReadings | None,
) -> Cause:
    """Name the likeliest cause of a pattern, its share of the weight, and the next ones.

    Args:
        pattern_kind: what the bad calls have in common.
        dimension: the field and value they live in, where there is one; fields without a rule change nothing.
        shared: whether other customers on the same element suffer at the same time.
        line_readings: what is known of the line.
    """
    weights: dict[CauseKind, float] = {kind: _BY_PATTERN[pattern_kind].get(kind, _FLOOR) for kind in CAUSES}
    for factors in _evidence(dimension, shared, line_readings):
        for kind, factor in factors.items():
            weights[kind] *= factor
    total = sum(weights.values())
    ranked = sorted(CAUSES, key=lambda kind: -weights[kind])
    alternatives = [kind for kind in ranked[1:] if weights[kind] / total >= ALTERNATIVE_SHARE_MIN]
    return Cause(kind=ranked[0], confidence=round(weights[ranked[0]] / total, 4), alternatives=list[str](alternatives))


def _evidence(
    dimension: Dimension | None,
    shared: bool,  # noqa: FBT001  passed through
    readings: LineReadings | None,
) -> Iterator[Weights]:
    if dimension is not None:
        yield _BY_DIMENSION.get(dimension.name, {})
    if shared:
        yield _SHARED
    if readings is not None:
        yield from _line_evidence(readings)


def _line_evidence(readings: LineReadings) -> Iterator[Weights]:
    faults = _line_faults(readings)
    if any(faults):
        # Low margin, retrains and errored seconds come together: one sign or three, the line is counted once.
        yield {"access_line_fault": 8.0}
    elif faults:
        yield {"access_line_fault": 0.3}
    if readings.utilization_ratio is not None and readings.utilization_ratio >= UTILIZATION_HIGH_RATIO:
        yield {"access_congestion": 6.0}
    elif readings.utilization_ratio is not None and readings.utilization_ratio < UTILIZATION_LOW_RATIO:
        yield {"access_congestion": 0.4}
    if readings.loss_ratio is not None and readings.loss_ratio >= LOSS_HIGH_RATIO:
        yield {"access_line_fault": 2.0, "access_congestion": 2.0}
    if readings.registered is False:
        yield {"access_line_fault": 2.0, "cpe_or_firmware": 2.0, "signalling_failure": 2.0}


def _line_faults(readings: LineReadings) -> list[bool]:
    """One answer for each reading that is known: does it speak for a fault of the line."""
    faults = []
    if readings.snr_margin_db is not None:
        faults.append(readings.snr_margin_db < SNR_MARGIN_LOW_DB)
    if readings.errored_seconds is not None:
        faults.append(readings.errored_seconds >= 10.0)
    if readings.retrains is not None:
        faults.append(readings.retrains >= 1.0)
    if readings.rx_power_dbm is not None:
        faults.append(not RX_POWER_LOW_DBM <= readings.rx_power_dbm <= RX_POWER_HIGH_DBM)
    return faults
