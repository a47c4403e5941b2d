"""The whole job as Stayline does it: the flow from file to notifications. WAY `recovery` keeps checkpoints."""

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from bench.peers.job import Clock, Found, Work, main
from bench.peers.own import WARM_UP
from dataflows.checkpoints import Checkpoints
from dataflows.execution import execute
from dataflows.flow import Keeping, Stop, build
from dataflows.inputs.files import Cut, FileReader, Place
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.alerts import Notification
from schemas.decode import decode

EPOCH = timedelta(seconds=5)


def _engine() -> RiskEngine:
    return RiskEngine(Settings("bench"), Catalogue.load(default_catalogue_text()))


def prepare(events: Path, way: str = "") -> Work:
    """Load the compiled code."""
    warm = _engine()
    warm.apply(decode(WARM_UP))
    warm.finish()
    found, told = Found(), list[Notification]()

    def open_input(place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        return iter(FileReader([events], Place() if place is None else Place(*place)))

    def work(_: Clock) -> Found:
        engine = _engine()
        with tempfile.TemporaryDirectory() as folder:
            keep = Path(folder) if way == "recovery" else None
            checkpoints = None if keep is None else Checkpoints(keep / "engine")
            flow = build(
                open_input, engine, told.extend, lambda _: None, Stop(), ends=True, checkpoints=checkpoints
            )  # fmt: skip
            execute(flow, None if keep is None else keep / "recovery", EPOCH, Keeping(checkpoints).settle)
        with events.open("rb") as lines:
            found.events = sum(1 for _ in lines)
        found.firings = [(one.case, f"{one.revision} {one.type}") for one in told]
        return found

    return work


if __name__ == "__main__":
    main("own_whole", prepare, "stayline")
