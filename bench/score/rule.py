"""The rule sold today: three or more calls in seven days that the network cut with an abnormal cause."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from bench.score.told import Case
from bench.score.truth import DAY_MS, lines_of

RULE_DROPS = 3
RULE_WINDOW_MS = 7 * DAY_MS
NORMAL_CAUSES = frozenset({16, 17, 18, 19, 31})
"""Q.850 causes that are not abnormal for an answered call."""


def three_in_seven(drops: dict[str, list[int]]) -> Iterator[Case]:
    """Apply the rule: alert at the third drop within seven days; again only once the count fell below three."""
    for customer, ends in drops.items():
        oldest, alerted = 0, False
        for newest, end_ms in enumerate(ends):
            while ends[oldest] <= end_ms - RULE_WINDOW_MS:
                oldest += 1
            alerted = alerted and newest - oldest >= RULE_DROPS
            if newest - oldest + 1 >= RULE_DROPS and not alerted:
                alerted = True
                yield Case(customer, end_ms)


def read_drops(path: Path) -> dict[str, list[int]]:
    """Collect the hard drops of each customer as plain call records show them: their ends, sorted."""
    drops: dict[str, dict[str, int]] = defaultdict(dict)
    for _, line in lines_of(path):
        # Nearly every line goes by unread: a hard drop names its releaser.
        if b'"network"' not in line:
            continue
        try:
            call = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if is_hard_drop(call):
            drops[call["customer_id"]].setdefault(call["call_id"], call["end_ms"])
    return {customer: sorted(ends.values()) for customer, ends in drops.items()}


def is_hard_drop(call: Any) -> bool:
    """Tell whether a record is of an answered call that the network released with an abnormal cause."""
    if not isinstance(call, dict) or call.get("type") != "call" or call.get("released_by") != "network":
        return False
    times: list[Any] = [call.get(name) for name in ("start_ms", "answer_ms", "end_ms")]
    names = (call.get("customer_id"), call.get("call_id"))
    if not all(isinstance(t, int) for t in times) or not all(isinstance(name, str) for name in names):
        return False
    cause, status = call.get("q850"), call.get("sip_status")
    abnormal = cause not in NORMAL_CAUSES if isinstance(cause, int) else isinstance(status, int) and status >= 400
    return abnormal and times == sorted(times)
