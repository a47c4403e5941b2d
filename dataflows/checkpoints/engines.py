"""An engine's state in checkpoints, and beside it the places of the input that it was made up to."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dataflows.checkpoints import Checkpoints, number_of
from detectors.engine import RiskEngine

Places = dict[str, tuple[int, ...]]
"""Part of the input -> where reading it goes on."""


def keep(
    engine: RiskEngine,
    places: Mapping[str, tuple[int, ...]],
    checkpoints: Checkpoints,
    durable: Callable[[str], None] = lambda _: None,
) -> str:
    """Begin to make a state durable; return the checkpoint's name (see `Checkpoints.save`, also for `durable`).

    Raises:
        StateError: the checkpoint before it could not be written.
    """

    def make(number: int) -> dict[str, Any]:
        state = engine.changes(number)
        return {"floor": state["floor"], "places": dict(places), "engine": state}

    return checkpoints.save(make, durable)


def resume(engine: RiskEngine, checkpoints: Checkpoints, name: str) -> Places:
    """Let an engine take over a checkpoint, whatever it knew; return the places that belong to it.

    Raises:
        StateError: it cannot be read, or is not of this deployment.
    """
    places: Places = {}

    def states() -> Iterator[dict[str, Any]]:
        for state in checkpoints.load(name):
            places.clear()
            places.update({part: tuple(place) for part, place in state["places"].items()})
            yield state["engine"]

    engine.resume(states())
    return places


def rewrite(engine: RiskEngine, places: Mapping[str, tuple[int, ...]], checkpoints: Checkpoints, name: str) -> None:
    """Put an engine's state, as a whole, in the place of a checkpoint.

    Raises:
        StateError: the one that is there cannot be read, or the other one cannot be written.
    """
    engine.memory.write_whole()
    checkpoints.rewrite(name, {"places": dict(places), "engine": engine.changes(number_of(name))})
