"""What can be measured: `stayline bench CASE...`.

A case is a function `Bench -> None` that measures something and reports it. It is registered in `CASES`, a list of
cases that belong together in `GROUPS`.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.cases.arrow import arrow_streams
from bench.cases.broken import flow_with_broken_records
from bench.cases.churn import churn, market
from bench.cases.common import Bench, Case, Options
from bench.cases.customers import growing_customers, hot_customers
from bench.cases.day import day_of_checkpoints
from bench.cases.decode import decode_only
from bench.cases.delivery import delivery_rates
from bench.cases.desk import desk_updates
from bench.cases.detect import detect_only
from bench.cases.detection import detection_board
from bench.cases.flood import flood_of_strangers
from bench.cases.flow import bottleneck, flow_with_checkpoints, whole_flow
from bench.cases.formats import vendor_formats
from bench.cases.kafka import flow_from_broker
from bench.cases.latency import latency_at_rates
from bench.cases.metering import metering_overhead
from bench.cases.peers import peers_race
from bench.cases.profile import time_by_part
from bench.cases.stalls import checkpoint_stalls
from bench.harness import Report, conditions
from schemas.errors import ConfigError

__all__ = ["CASES", "GROUPS", "Options", "run"]

CASES: dict[str, Case] = {
    "decode": decode_only,
    "detect": detect_only,
    "flow": whole_flow,
    "checkpoints": flow_with_checkpoints,
    "stalls": checkpoint_stalls,
    "day": day_of_checkpoints,
    "broken": flow_with_broken_records,
    "flood": flood_of_strangers,
    "customers": growing_customers,
    "skew": hot_customers,
    "latency": latency_at_rates,
    "arrow": arrow_streams,
    "formats": vendor_formats,
    "kafka": flow_from_broker,
    "delivery": delivery_rates,
    "desk": desk_updates,
    "profile": time_by_part,
    "metering": metering_overhead,
    "peers": peers_race,
    "detection": detection_board,
    "churn": churn,
    "market": market,
}

GROUPS: dict[str, list[str]] = {
    "throughput": [
        "decode",
        "detect",
        "flow",
        "checkpoints",
        "arrow",
        "broken",
        "flood",
        "customers",
        "skew",
        "latency",
    ],
}


def run(names: list[str], options: Options, show: Callable[[str], None], out: Path | None = None) -> Report:
    """Run cases, one after the other.

    Args:
        names: of cases or groups.
        options: how big.
        show: is told each line of the report.
        out: folder for the report, its raw lines and its pictures; None: they are not kept.

    Raises:
        ConfigError: a name is unknown.
    """
    unknown = [name for name in names if name not in CASES and name not in GROUPS]
    if unknown:
        words = ", ".join([*GROUPS, *CASES])
        raise ConfigError([f"CASE: must be one of {words}, was {name}" for name in unknown])
    wanted = dict.fromkeys(case for name in names for case in GROUPS.get(name, [name]))
    report = Report(show)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    command = " ".join(names)
    report.record("conditions", date=date, command=command, options=options, conditions=conditions())
    for line in (f"stayline bench {command}, {date}", *conditions(), ""):
        report.say(line)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder), report)
        for name in wanted:
            CASES[name](bench)
    if {"decode", "detect", "flow", "checkpoints"} <= set(wanted):
        report.say()
        report.say(bottleneck(report.ratios))
    if out is not None:
        report.write(out, "-".join(names))
    return report
