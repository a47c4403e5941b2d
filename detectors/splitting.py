"""Dividing what an engine knows: some of its customers are another engine's from now on, and which is not known of all.

An engine knows a customer by a key, and by name where there is or lately was a case. So each part begins with a copy of
all that is known. What would act by itself, a case, is left to the part whose customer it is. What is kept of customers
who call elsewhere now is never asked for again, and goes when there is no room, for they are silent longest.
"""

from collections.abc import Callable

import numpy as np

from detectors.engine import Counts, RiskEngine
from detectors.memory import Memory


def split(engine: RiskEngine, owns: Callable[[str], bool], *, first: bool) -> None:
    """Let an engine that has taken over a whole state be one part of it.

    What waits to be learnt of customers who are known by key alone is dropped: in the wrong part they would seem to
    have stayed, whatever they do.

    Args:
        engine: whose next checkpoint is whole.
        owns: tells whether a customer, by name, is of this part.
        first: of one part alone: it goes on with the counts, and tells when an open incident is over.
    """
    memory = engine.memory
    cases = [*memory.casebook.cases.values(), *memory.casebook.closed.values()]
    mine = {case.customer for case in cases if owns(case.customer_id)}
    others = {case.customer for case in cases} - mine
    memory.casebook.leave(others)
    _remove(memory, others)
    memory.advisor.wait_for(mine)
    if not first:
        engine.counts = Counts()
        for incident in [one for one in memory.incidents.open.values() if not one.known]:
            memory.incidents.stop(incident, engine.clock_ms)
    memory.write_whole()


def _remove(memory: Memory, customers: set[int]) -> None:
    rows = memory.roster.book.rows[: len(memory.roster)]
    for row in memory.roster.remove(np.isin(rows["key"], np.fromiter(customers, np.uint64, len(customers)))):
        memory.give_back(row)
