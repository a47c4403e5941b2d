"""Erasing one customer from everything that is known.

What was learnt of many together stays: the counts of elements, the weights of the churn model. It names nobody.
"""

import numpy as np

from detectors.history import BAD_KEPT, GOOD_KEPT, HISTORY, WAYS
from detectors.lines import LINE
from detectors.locks import party_of
from detectors.memory import Memory
from detectors.notes import DRAFT, NOTE
from detectors.snapshots import raw
from schemas.text import key_of


def forget(memory: Memory, customer_id: str) -> dict[str, int]:
    """Erase what is known of one customer; return how much of each sort there was, what there was none of left out."""
    key = key_of(customer_id)
    erased = {"case": memory.casebook.forget(key), **_erase_row(memory, key)}
    erased |= {"profile": memory.relations.forget(key), **memory.advisor.erase(key)}
    erased |= {"network's bad calls": memory.elements.forget(key), "far end of others": _erase_far_end(memory, key)}
    return {sort: count for sort, count in erased.items() if count}


def _erase_row(memory: Memory, key: int) -> dict[str, int]:
    row = memory.roster.find(key)
    if row < 0:
        return {}
    customer = memory.row(row)
    place = int(customer["note"])
    history, line = (int(memory.note_of(customer)[name]) for name in ("history", "line"))
    memory.give_back(customer)
    calls = 0
    # What is given back is cleared only as far as its next customer needs: the calls themselves would stay.
    if place != DRAFT:
        raw(memory.notes.shelf.items)[place] = raw(np.zeros(1, NOTE))[0]
    if history >= 0:
        one = memory.histories.shelf.items[history : history + 1]
        calls = min(int(one["bad_count"][0]), BAD_KEPT) + min(int(one["good_count"][0]), GOOD_KEPT)
        raw(one)[:] = raw(np.zeros(1, HISTORY))
    if line >= 0:
        raw(memory.lines.shelf.items)[line] = raw(np.zeros(1, LINE))[0]
    memory.roster.remove(np.arange(len(memory.roster)) == row)
    return {"evidence": 1, "calls": calls}


def _erase_far_end(memory: Memory, key: int) -> int:
    """Erase a customer from what others' rows and histories say of whom they called; return in how many places."""
    peer = np.uint32(key & 0xFFFF_FFFF)
    rows, shelf = memory.roster.book.rows[: len(memory.roster)], memory.histories.shelf.items
    places = (
        rows["last_peer"],
        shelf["bad"]["peer"],
        shelf["good"]["peer"],
        shelf["way_value"][:, WAYS.index("peer_id")],
    )
    count = sum(int(np.count_nonzero(place == peer)) for place in places) if peer else 0
    for place in places:
        place[place == peer] = 0
    rows["lock_peer"][rows["lock_peer"] == party_of(peer)] = 0
    memory.write_whole()
    return count
