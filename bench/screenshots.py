"""Pictures of the desk for the documentation: `python -m bench.screenshots FOLDER` (`make screenshots`).

The evening of the demonstration is played up to one moment, without waiting, through the same engine and desk; the
system's Chromium then looks at it. The same sources give the same pictures, up to the browser's fonts.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from bench.simulator.live import EVENING, past, story
from dataflows.commands.demo import SPEED
from dataflows.desk import figures_of
from dataflows.inputs.http import Server
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.alerts import Alert
from schemas.decode import Decoder
from schemas.errors import StaylineError
from sinks.desk.actions import Deed, What, do
from sinks.desk.app import desk_application
from sinks.desk.cards import Filter
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore
from sinks.outbox import Outbox

SHOWN_MS = 185 * 60_000
"""So much of the evening has passed when the pictures are taken: a node is down, and a probe lies."""

BATCH_LINES = 20_000

WIDTH = 1_280

PICTURES: dict[str, tuple[str, int]] = {
    "feed": ("/", 800),
    "card": ("/cases/{case}", 1_000),
    "network": ("/network", 1_060),
}
"""Name of each picture: the page that it shows, and its height."""

Scheme = Literal["light", "dark"]


def main(folder: Path) -> None:
    """Take the pictures into a folder.

    Raises:
        StaylineError: there is no Chromium on this machine.
    """
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        raise StaylineError("chromium: must be installed (Debian: apt install chromium), was not found")
    folder.mkdir(parents=True, exist_ok=True)
    with _desk() as (base, case), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            _take(browser, scheme, base, case, folder)
        browser.close()


def _take(browser: Browser, scheme: Scheme, base: str, case: str, folder: Path) -> None:
    for name, (path, height) in PICTURES.items():
        page = browser.new_page(
            viewport={"width": WIDTH, "height": height}, color_scheme=scheme, locale="en-GB", timezone_id="UTC"
        )
        page.goto(base + path.format(case=case))
        # Not by a function of ours: the desk's policy lets no text be run as one.
        page.locator("#live[data-state=on]").wait_for()
        target = folder / f"{name}-{scheme}.png"
        page.screenshot(path=target)
        print(f"{target}: {target.stat().st_size / 1_000:.0f} kB")
        page.close()


@contextmanager
def _desk() -> Iterator[tuple[str, str]]:
    """Serve the evening as it stands at the moment of the pictures; give the address, and the case for the card."""
    engine = RiskEngine(Settings("demo"), Catalogue.load(default_catalogue_text()))
    clock = _clock(engine)
    with tempfile.TemporaryDirectory(prefix="stayline-pictures-") as name:
        outbox = Outbox.open(Path(name) / "outbox.sqlite3", {"crm": 1_000}, clock)
        with closing(outbox), closing(DeskStore(SqliteDatabase(Path(name) / "desk.sqlite3"), clock)) as store:
            _play(engine, store)
            case = _work(store, clock)
            application = desk_application(store, lambda _: None, figures=figures_of([engine], outbox))
            server = Server(application, "127.0.0.1", 0, before_stop=application.state.streams.close)
            server.start()
            try:
                yield f"http://{server.address}", case
            finally:
                server.stop()


def _clock(engine: RiskEngine) -> Callable[[], int]:
    return lambda: max(engine.clock_ms, 0)


def _play(engine: RiskEngine, store: DeskStore) -> None:
    """Let the engine read the past and the evening so far, and the desk take what it tells."""
    evening = story(EVENING, SPEED)
    first_ms, first = next(evening)
    so_far = (line for at_ms, line in evening if at_ms < first_ms + SHOWN_MS)
    lines = chain(past(EVENING), [first], so_far)
    decoder = Decoder()
    while batch := b"".join(islice(lines, BATCH_LINES)):
        store.put(engine.apply(decoder.decode(batch)))


def _work(store: DeskStore, clock: Callable[[], int]) -> str:
    """Do what a team does in an evening; return the case that the card is of: the worst one with something to offer."""
    cards = store.cases(Filter())
    deeds: list[tuple[int, What]] = [(0, "unreachable"), (-1, "contacted"), (-2, "resolve")]
    for place, what in deeds:
        do(store, Deed(cards[place].alert.alert_id, what, "local", clock(), 0), lambda _: None)
    return next(one.alert.alert_id for one in cards if _is_offered(one.alert))


def _is_offered(alert: Alert) -> bool:
    chosen = None if alert.choice is None else alert.choice.action
    return chosen is None or chosen in {one.remedy_id for one in alert.remedies}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
