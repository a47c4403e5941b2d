"""What the configuration fixes for detection, and for what follows from it."""

from typing import Literal

from msgspec import Struct, field

from schemas.errors import ConfigError

Serve = Literal["best", "logistic", "adpredictor"]
"""Which churn model's probabilities are given: the better one of late, or always the one named."""


class Business(Struct, frozen=True):
    """What the configuration fixes for churn, remedies and credits.

    Attributes:
        serve: which churn model's probabilities are given.
        base_rate_prior: share of customers that leave within the horizon, before anything is learnt, in (0, 1).
        horizon_days: a score is about so many days after it.
        margin_ratio: share of the monthly fee that is margin, in [0, 1].
        remaining_months: months a kept customer goes on paying.
        hold_out_ratio: share of customers to whom nothing but repairs is offered, so that the effect of the rest can
            be measured, in [0, 0.5]. None by default: to withhold is the carrier's decision.
        explore_ratio: share of choices spread evenly over all actions, in [0, 1].
        contacts_max, contact_days: to nobody more offers in so many days, repairs apart.
        budget_minor: by currency, what offers may cost in a calendar month (UTC), repairs apart; none: no limit.
        cap_percent: most that credits on one bill may come to, in percent of the monthly fee.
        statutory: the scheme by which a total loss of service is paid for (`remedies.statutory`); None: none.

    Raises:
        ConfigError: if one is out of range; every problem is listed.
    """

    serve: Serve = "best"
    base_rate_prior: float = 0.015
    horizon_days: int = 30
    margin_ratio: float = 0.5
    remaining_months: float = 24.0
    hold_out_ratio: float = 0.0
    explore_ratio: float = 0.02
    contacts_max: int = 3
    contact_days: int = 30
    budget_minor: dict[str, int] = field(default_factory=dict)
    cap_percent: int = 50
    statutory: str | None = None

    def __post_init__(self) -> None:
        """Hold every value against its range."""
        ranges: dict[str, tuple[float, float]] = {
            "base_rate_prior": (1e-6, 1 - 1e-6),
            "horizon_days": (1, 365),
            "margin_ratio": (0, 1),
            "remaining_months": (0, 1200),
            "hold_out_ratio": (0, 0.5),
            "explore_ratio": (0, 1),
            "contacts_max": (0, 64),
            "contact_days": (1, 365),
            "cap_percent": (0, 100),
        }
        problems = [
            f"{name} must be in {low:g}..{high:g}, was {value}"
            for name, (low, high) in ranges.items()
            # Written so that NaN fails too.
            if not low <= (value := getattr(self, name)) <= high
        ]
        problems += [
            f"budget_minor.{currency} must be at least 0, was {amount}"
            for currency, amount in self.budget_minor.items()
            if amount < 0
        ]
        if problems:
            raise ConfigError(problems)


class Settings(Struct, frozen=True):
    """What the configuration fixes for the engine.

    Attributes:
        timezone: what the network's customers call a day and an hour, by its name in the IANA time zone database.
        finds_incidents: shared faults are looked for; else they are those that `incident` events tell.
    """

    deployment: str
    false_alarm_days: float = 10_000.0
    alerts_per_day_max: int = 200
    lateness_s: int = 300
    customers_max: int = 2_000_000
    idle_days: int = 90
    timezone: str = "UTC"
    finds_incidents: bool = True
    business: Business = Business()
