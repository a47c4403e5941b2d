"""What really happened: the simulator's truth file, and the time in which an alert would be false."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from schemas.alerts import PatternKind
from schemas.errors import InputError

DAY_MS = 86_400_000
GRACE_MS = DAY_MS
"""An alert this long after its fault has ended still found it."""
BAD_CALLS_MIN = 3


class Telco(Struct, tag_field="type", tag="telco"):
    """First line of the truth."""

    customers: int
    days: int
    start_ms: int
    end_ms: int


class Fault(Struct, tag_field="type", tag="fault"):
    """Trouble of one customer, and the ends of the calls it spoiled, in order.

    Attributes:
        dimension: what its calls have in common: "name" is `hours_utc`, `duration_s` or a way of calls; "value".
    """

    customer_id: str
    pattern: PatternKind
    start_ms: int
    end_ms: int
    bad_end_ms: list[int]
    dimension: dict[str, str] | None = None


class Outage(Struct, tag_field="type", tag="outage"):
    """Trouble of a shared element, and whom it touched."""

    element_kind: str
    element_id: str
    start_ms: int
    end_ms: int
    drops: int
    customers: list[str]


class ProbeFault(Struct, tag_field="type", tag="probe_fault"):
    """A probe that lied."""

    probe_id: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Truth:
    """The truth file, sorted by what its lines speak of."""

    telco: Telco
    faults: list[Fault]
    outages: list[Outage]
    probes: list[ProbeFault]

    @property
    def scored(self) -> list[Fault]:
        """The faults that count."""
        return [fault for fault in self.faults if len(fault.bad_end_ms) >= BAD_CALLS_MIN]


def read_truth(path: Path) -> Truth:
    """Read a truth file."""
    decoder = msgspec.json.Decoder(Telco | Fault | Outage | ProbeFault)
    told: dict[type, list[Any]] = defaultdict(list)
    for place, line in lines_of(path):
        try:
            record = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{place}: must be a line of the truth: {error}") from error
        told[type(record)].append(record)
    if len(told[Telco]) != 1:
        raise InputError(f"{path}: must hold one telco line, found {len(told[Telco])}")
    return Truth(told[Telco][0], told[Fault], told[Outage], told[ProbeFault])


def healthy_days(truth: Truth) -> float:
    """Sum up the customer-days in which an alert would be false."""
    faults, outages = by_customer(truth)
    telco = truth.telco
    excused_ms = sum(
        _covered_ms([*faults[customer], *outages[customer]], telco.start_ms, telco.end_ms)
        for customer in {*faults, *outages}
    )
    return (telco.customers * (telco.end_ms - telco.start_ms) - excused_ms) / DAY_MS


def by_customer(truth: Truth) -> tuple[dict[str, list[Fault]], dict[str, list[Outage]]]:
    """Return each customer's own faults, and the outages that touched them."""
    faults: dict[str, list[Fault]] = defaultdict(list)
    outages: dict[str, list[Outage]] = defaultdict(list)
    for fault in truth.faults:
        faults[fault.customer_id].append(fault)
    for outage in truth.outages:
        for customer in outage.customers:
            outages[customer].append(outage)
    return faults, outages


def within(at_ms: int, trouble: Fault | Outage | ProbeFault) -> bool:
    """Tell whether a moment lies in a trouble's time or in the grace after it."""
    return trouble.start_ms <= at_ms <= trouble.end_ms + GRACE_MS


def _covered_ms(troubles: Iterable[Fault | Outage], start_ms: int, end_ms: int) -> int:
    """Measure the union of the times (grace included) within a run."""
    covered_ms, reached_ms = 0, start_ms
    for trouble in sorted(troubles, key=lambda trouble: trouble.start_ms):
        until_ms = min(trouble.end_ms + GRACE_MS, end_ms)
        covered_ms += max(0, until_ms - max(trouble.start_ms, reached_ms))
        reached_ms = max(reached_ms, until_ms)
    return covered_ms


def lines_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each line that is not blank, with its place (`file:line`)."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise InputError(f"{path}: must be readable: {error.strerror}") from error
