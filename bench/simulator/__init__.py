"""A telco to test against: customers, calls, trouble, and the truth about all of it."""

from bench.simulator.run import simulate
from bench.simulator.spec import SimulationSummary, TelcoSpec

__all__ = ["SimulationSummary", "TelcoSpec", "simulate"]
