"""What telco to simulate, and what came of it."""

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

MONDAY_MS = 1_767_571_200_000
"""Monday, 5 January 2026, 00:00 UTC."""

LATENESS_MS = 300 * SECOND_MS
"""What arrives longer than this after its end counts as late: the default of `detection.lateness_s`."""


@dataclass(frozen=True, slots=True)
class TelcoSpec:
    """A simulated telco; the same spec gives the same bytes.

    Attributes:
        customers: how many.
        days: length of the run.
        seed: of everything random.
        start_ms: first moment of the run, on a full hour.
        faulty_ratio: share of the customers who have a fault of their own during the run.
        drop_ratio: mean base rate at which a healthy customer's answered calls drop; it varies by access
            technology and by customer.
        redial_ratio: chance that an undisturbed answered call is followed by another to the same peer.
        outage_scale: multiplies the number of shared outages; 0 for none.
        duplicate_ratio: share of the calls that a second probe reports too.
        late_ratio: share of the calls that arrive more than 300 s after their end.
        broken_ratio: unreadable records added, as a share of the calls.
        media_report_ratio: share of the answered calls with reports while they last.
        churn_month_ratio: chance that an average customer leaves within thirty days.

    Raises:
        ConfigError: if a value is out of its range; every problem is listed.
    """

    customers: int = 2_000
    days: int = 21
    seed: int = 1
    start_ms: int = MONDAY_MS
    faulty_ratio: float = 0.04
    drop_ratio: float = 0.008
    redial_ratio: float = 0.03
    outage_scale: float = 1.0
    duplicate_ratio: float = 0.004
    late_ratio: float = 0.001
    broken_ratio: float = 0.0005
    media_report_ratio: float = 0.01
    churn_month_ratio: float = 0.015

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be in {low}..{high}, was {value}"
            for name, value, low, high in (
                ("customers", self.customers, 1, 100_000_000),
                ("days", self.days, 1, 3_660),
                ("seed", self.seed, 0, 2**63 - 1),
                ("start_ms", self.start_ms, 0, 32_000_000_000_000),
                ("faulty_ratio", self.faulty_ratio, 0, 1),
                ("drop_ratio", self.drop_ratio, 0, 0.5),
                ("redial_ratio", self.redial_ratio, 0, 0.5),
                ("outage_scale", self.outage_scale, 0, 100),
                ("duplicate_ratio", self.duplicate_ratio, 0, 1),
                ("late_ratio", self.late_ratio, 0, 1),
                ("broken_ratio", self.broken_ratio, 0, 1),
                ("media_report_ratio", self.media_report_ratio, 0, 1),
                ("churn_month_ratio", self.churn_month_ratio, 0, 0.5),
            )
            if not low <= value <= high
        ]
        if self.start_ms % HOUR_MS:
            problems.append(f"start_ms must be a full hour, was {self.start_ms}")
        if problems:
            raise ConfigError(problems)

    @property
    def end_ms(self) -> int:
        """First moment after the run."""
        return self.start_ms + self.days * DAY_MS


@dataclass(frozen=True, slots=True)
class SimulationSummary:
    """What one simulation wrote.

    Attributes:
        events: lines of the event file, duplicates and broken ones included.
        calls: different calls.
        faults: faults of single customers.
        outages: shared outages, the lying probes not counted.
        event_bytes: size of the event file.
    """

    events_path: Path
    truth_path: Path
    events: int
    calls: int
    duplicates: int
    late: int
    broken: int
    faults: int
    outages: int
    event_bytes: int
