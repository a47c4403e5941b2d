"""The same jobs done the natural way, on other engines."""

from bench.cases.common import Bench
from bench.peers.events import write
from bench.peers.race import disagreements, race, table


def peers_race(bench: Bench) -> None:
    """Race every peer that is here, each in a process of its own on one core."""
    folder = bench.folder / "peers"
    folder.mkdir()
    files = write(bench.options.customers, bench.options.days, seed=1, folder=folder)
    lines = race(files, bench.options.rounds, bench.options.peers, folder)
    for line in table(lines, files):
        bench.report.say(line)
    bench.report.record("peers", lines=lines, disagreements=disagreements(lines))
