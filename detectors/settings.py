"""What the configuration fixes for detection."""

from msgspec import Struct


class Settings(Struct, frozen=True):
    """What the configuration fixes for the engine.

    Attributes:
        finds_incidents: shared faults are looked for; else they are those that `incident` events tell.
    """

    deployment: str
    false_alarm_days: float = 10_000.0
    alerts_per_day_max: int = 200
    lateness_s: int = 300
    customers_max: int = 2_000_000
    idle_days: int = 90
    finds_incidents: bool = True
