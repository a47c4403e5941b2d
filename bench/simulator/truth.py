"""The ledger of what was done to whom, kept while the telco runs, and the truth file it becomes."""

from dataclasses import asdict
from typing import Any

import numpy as np
import orjson

from bench.simulator.arrivals import Counts
from bench.simulator.columns import UNKNOWN, Columns
from bench.simulator.media import lied_about
from bench.simulator.records import call_name
from bench.simulator.schedule import Schedule
from bench.simulator.trouble import touched
from bench.simulator.world import PROBES, World, customer_name


class Ledger:
    """Notes every spoiled call and who spoiled it."""

    def __init__(self, world: World, schedule: Schedule) -> None:
        self._world = world
        self._schedule = schedule
        self._bad: list[list[tuple[int, int]]] = [[] for _ in schedule.faults]
        self._attempts = [0] * len(schedule.outages)
        self._hit: list[list[int]] = [[] for _ in schedule.outages]
        self._lied = [0] * len(schedule.probe_faults)

    def note(self, calls: Columns) -> None:
        """Note the calls of one window; every call once, as it was before duplicates."""
        for row in np.flatnonzero(calls["fault"] != UNKNOWN).tolist():
            self._bad[calls["fault"][row]].append((int(calls["end_ms"][row]), int(calls["call"][row])))
        for index, outage in enumerate(self._schedule.outages):
            self._attempts[index] += int(touched(calls, outage).sum())
            self._hit[index] += calls["customer"][calls["outage"] == index].tolist()
        for index, liar in enumerate(self._schedule.probe_faults):
            self._lied[index] += int(lied_about(calls, (liar,)).sum())

    def lines(self, counts: Counts) -> list[bytes]:
        """Write the truth file: the telco first, then faults, outages and lying probes."""
        schedule, spec = self._schedule, self._world.spec
        outages = [self._outage(index) for index in range(len(schedule.outages))]
        telco = {
            "type": "telco", "customers": spec.customers, "days": spec.days, "seed": spec.seed,
            "start_ms": spec.start_ms, "end_ms": spec.end_ms, **asdict(counts), "faults": len(schedule.faults),
            "outages": len(outages), "probe_faults": len(schedule.probe_faults),
            "bad_calls": sum(len(bad) for bad in self._bad), "outage_drops": sum(o["drops"] for o in outages),
            "left": int((schedule.left_ms < spec.end_ms).sum()),
        }  # fmt: skip
        faults = [self._fault(index) for index in range(len(schedule.faults))]
        liars = [self._liar(index) for index in range(len(schedule.probe_faults))]
        return [orjson.dumps(record) for record in (telco, *faults, *outages, *liars)]

    def _fault(self, index: int) -> dict[str, Any]:
        fault, bad = self._schedule.faults[index], sorted(self._bad[index])
        name, value = fault.dimension or (None, None)
        return {
            "type": "fault",
            "fault_id": f"fault-{index:05d}",
            "customer_id": customer_name(fault.customer),
            "pattern": fault.pattern,
            "start_ms": fault.start_ms,
            "end_ms": fault.end_ms,
            "dimension": None if name is None else {"name": name, "value": value},
            "cause": fault.cause,
            "bad_call_ids": [call_name(number) for _, number in bad],
            "bad_end_ms": [end_ms for end_ms, _ in bad],
        }

    def _outage(self, index: int) -> dict[str, Any]:
        outage, hit = self._schedule.outages[index], self._hit[index]
        return {
            "type": "outage",
            "outage_id": f"outage-{index:04d}",
            "element_kind": outage.element_kind,
            "element_id": outage.element_id,
            "start_ms": outage.start_ms,
            "end_ms": outage.end_ms,
            "drops": len(hit),
            "attempts": self._attempts[index],
            "customers": [customer_name(customer) for customer in sorted(set(hit))],
        }

    def _liar(self, index: int) -> dict[str, Any]:
        liar = self._schedule.probe_faults[index]
        return {
            "type": "probe_fault",
            "probe_id": PROBES[liar.probe],
            "start_ms": liar.start_ms,
            "end_ms": liar.end_ms,
            "calls": self._lied[index],
        }
