"""Who keeps deadlines: for each remedy and partner, how long jobs took and whether the calls got better."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, convert, to_builtins

from detectors.remedies.followup import Verdict

HOUR_MS: Final = 3_600_000

PARTNERS_MAX: Final = 2_000
"""Pairs of remedy and partner that are kept; beyond, the one met first gives way."""


JOBS_MAX: Final = 20_000
"""Jobs that nobody has reported as done; beyond, the one given first gives way."""


class Record(Struct):
    """What one partner did of one remedy.

    Attributes:
        ordered, fixed: jobs given, and reported as done.
        in_time: of those done, within the remedy's follow-up period.
        hours: from order to report, summed over those done.
        worked, failed: verdicts of the customers' calls.
    """

    ordered: int = 0
    fixed: int = 0
    in_time: int = 0
    hours: float = 0.0
    worked: int = 0
    failed: int = 0

    def score(self) -> float:
        """Return the chance that a job is done in time and helps: both counts from one success and one failure."""
        in_time = (self.in_time + 1) / (max(self.ordered, self.fixed) + 2)
        return in_time * (self.worked + 1) / (self.worked + self.failed + 2)

    def hours_mean(self) -> float | None:
        """Return the mean time from order to report; None where nothing was reported."""
        return self.hours / self.fixed if self.fixed else None


class Job(Struct, frozen=True):
    """A job that was given and not yet reported as done.

    Attributes:
        customer: key.
        alert_id, remedy_id: what it is for.
        at_ms: when it was given.
    """

    customer: int
    alert_id: str
    remedy_id: str
    partner: str
    at_ms: int


class Partners:
    """All partners' records, and the jobs that they have still to do: however late one is, it is measured."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}
        self._jobs: dict[tuple[str, str], Job] = {}

    def ordered(self, job: Job) -> None:
        """Learn that a job was given; the same one told again is one."""
        before = self._jobs.get((job.alert_id, job.remedy_id))
        if before is not None and before.partner == job.partner:
            return
        self._record(job.remedy_id, job.partner).ordered += 1
        while len(self._jobs) >= JOBS_MAX:
            del self._jobs[next(iter(self._jobs))]
        self._jobs[job.alert_id, job.remedy_id] = job

    def fixed(self, alert_id: str, remedy_id: str, at_ms: int, allowed_ms: int) -> str:
        """Learn that a job was reported as done; return whose it was, empty where none was given."""
        job = self._jobs.pop((alert_id, remedy_id), None)
        if job is None:
            return ""
        record, took_ms = self._record(remedy_id, job.partner), at_ms - job.at_ms
        record.fixed += 1
        record.hours += max(took_ms, 0) / HOUR_MS
        record.in_time += took_ms <= allowed_ms
        return job.partner

    def wait_for(self, customers: set[int]) -> None:
        """Drop the jobs of all customers but these."""
        self._jobs = {key: job for key, job in self._jobs.items() if job.customer in customers}

    def forget(self, customer: int) -> None:
        """Forget a customer's jobs; the counts name nobody."""
        self._jobs = {key: job for key, job in self._jobs.items() if job.customer != customer}

    def judged(self, remedy_id: str, partner: str, verdict: Verdict) -> None:
        """Learn what the calls said of a job."""
        if partner and verdict != "unproven":
            record = self._record(remedy_id, partner)
            record.worked += verdict == "worked"
            record.failed += verdict == "failed"

    def best(self, remedy_id: str) -> str | None:
        """Return who should get the next job; None where nobody ever had one. Equals stand in order of name."""
        known = {partner: record for (remedy, partner), record in self._records.items() if remedy == remedy_id}
        return min(known, key=lambda partner: (-known[partner].score(), partner), default=None)

    def table(self) -> list[tuple[str, str, Record]]:
        """Return (remedy, partner, record), by remedy and the best partner first."""
        rows = [(remedy, partner, record) for (remedy, partner), record in self._records.items()]
        return sorted(rows, key=lambda row: (row[0], -row[2].score(), row[1]))

    def _record(self, remedy_id: str, partner: str) -> Record:
        known = self._records.get((remedy_id, partner))
        if known is None:
            while len(self._records) >= PARTNERS_MAX:
                del self._records[next(iter(self._records))]
            known = self._records[remedy_id, partner] = Record()
        return known

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values: a copy."""
        records = [[remedy, partner, to_builtins(record)] for (remedy, partner), record in self._records.items()]
        return {"records": records, "jobs": to_builtins(list(self._jobs.values()))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot."""
        self._records = {(remedy, partner): convert(record, Record) for remedy, partner, record in state["records"]}
        self._jobs = {(job.alert_id, job.remedy_id): job for job in convert(state["jobs"], list[Job])}
