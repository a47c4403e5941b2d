"""Open cases between the loop and Python: what the loop needs to follow one by itself, and what it has seen since.

While a customer's remedy is watched, and until a case is told, Python sees each of its bad calls.
"""

from detectors.casebook import RANK, Case
from detectors.memory import Memory
from detectors.patterns import KINDS
from detectors.showing import bad_shown


def hand_over(memory: Memory, case: Case) -> None:
    """Let the loop follow an open case from here on, or leave it to Python."""
    place = memory.history_of(case.customer)
    if place < 0 or memory.casebook.cases.get(case.customer) is not case:
        return
    history = memory.histories.shelf.items[place]
    history["enough"] = case.good_calls_needed()
    followed = history["case"]
    is_watched = memory.advisor.chooser.follow_ups.of(case.customer) is not None
    followed["kind"] = 1 + KINDS.index(case.kind) if case.told and not case.due_ms and not is_watched else 0
    followed["rank"] = RANK.index(case.severity)
    followed["lock_s"] = case.lock_s()
    for name in ("recovery", "last_bad_ms", "bad", "trials", "attempts", "answered", "told_bad"):
        followed[name] = getattr(case, name)
    followed["unseen"] = 0


def catch_up(memory: Memory, case: Case) -> None:
    """Take over what the loop has seen of an open case by itself."""
    place = memory.history_of(case.customer)
    followed = None if place < 0 else memory.histories.shelf.items[place]["case"]
    if followed is None or not followed["unseen"]:
        return
    for call in bad_shown(memory.histories, place, int(followed["until"]), int(followed["unseen"])):
        case.show(call)
    case.recovery = float(followed["recovery"])
    case.bad, case.trials = int(followed["bad"]), int(followed["trials"])
    case.attempts, case.answered = int(followed["attempts"]), int(followed["answered"])
    followed["unseen"] = 0
