"""The detection table: what was found, how soon, how often for nothing; beside the rule it must beat.

The rule, `three_in_seven`, is the one sold today: three or more calls in seven days that were answered and then
released by the network with an abnormal cause raise one alert, which stays until the count has fallen below three.

A fault counts if it spoiled at least three calls. It is found by an alert for its customer that opens between its
start and one day after its end. An alert for a customer who had no fault then is false, unless an outage had
touched that customer within the day before: those are counted apart. Time in which an alert could not be false
is left out of the healthy customer-days.
"""

from bench.score.marks import HOUR_MS, IncidentMarks, Marks, Spread, Tally, conclude, grade, grade_incidents, tally
from bench.score.rule import is_hard_drop, read_drops, three_in_seven
from bench.score.table import ScoreTable, render, score, to_builtins
from bench.score.told import Case, Incident, read_alerts
from bench.score.truth import (
    BAD_CALLS_MIN,
    DAY_MS,
    GRACE_MS,
    Fault,
    Outage,
    ProbeFault,
    Telco,
    Truth,
    healthy_days,
    read_truth,
)

__all__ = [
    "BAD_CALLS_MIN",
    "DAY_MS",
    "GRACE_MS",
    "HOUR_MS",
    "Case",
    "Fault",
    "Incident",
    "IncidentMarks",
    "Marks",
    "Outage",
    "ProbeFault",
    "ScoreTable",
    "Spread",
    "Tally",
    "Telco",
    "Truth",
    "conclude",
    "grade",
    "grade_incidents",
    "healthy_days",
    "is_hard_drop",
    "read_alerts",
    "read_drops",
    "read_truth",
    "render",
    "score",
    "tally",
    "three_in_seven",
    "to_builtins",
]
