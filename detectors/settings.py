"""What the configuration fixes for detection."""

from msgspec import Struct


class Settings(Struct, frozen=True):
    """What the configuration fixes for the engine."""

    deployment: str
    false_alarm_days: float = 10_000.0
    alerts_per_day_max: int = 200
    lateness_s: int = 300
    customers_max: int = 2_000_000
    idle_days: int = 90
