"""Runs the peers one after the other on one core, checks that they agree, and makes the table.

    python -m bench.peers.race --customers 3000 --days 8 --rounds 3 --out FOLDER

Every round runs every peer once, in a process of its own that may use one core; a ratio is taken within a round, since
machines and their load differ while ratios hardly do. Where others use the machine too, the ratio of processor times is
the steadier one. Start-up is in neither.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.harness import conditions
from bench.peers.events import Files, write

ROOT = Path(__file__).parent.parent.parent
INTERPRETERS = "STAYLINE_PEERS_PYTHON"
TIMEOUT_S = 900

Line = dict[str, Any]
"""What a peer printed, with `round` and the machine's `load` before it began."""


class Peer(NamedTuple):
    """One way to do a job.

    Attributes:
        title: in the table.
        module: of this package.
        ways: what the module is told beside the files.
        library: that an interpreter must have; empty: the project's own will do.
        against: the name of our own row that it is compared with.
    """

    title: str
    module: str
    ways: tuple[str, ...] = ()
    library: str = ""
    against: str = "own"

    @property
    def whole(self) -> bool:
        """Whether it does the whole job; else the small one."""
        return self.against != "own"


PEERS: dict[str, Peer] = {
    "own": Peer("Stayline: columns, compiled pass", "own"),
    "own_narrow": Peer("the same, five fields by msgspec", "own_narrow"),
    "python_loop": Peer("plain Python loop, orjson + river in a dict", "python_loop"),
    "bytewax_map": Peer("Bytewax stateful_map, river objects", "bytewax_map"),
    "flink_extract": Peer("Flink (Java), fields cut out by hand", "flink", ("extract",)),
    "flink_jackson": Peer("Flink (Java), Jackson tree", "flink", ("jackson",)),
    "consumer": Peer("plain loop over a Kafka consumer, the same", "consumer"),
    "kafka_streams": Peer("Kafka Streams (Java), fields cut out by hand", "kafka_streams"),
    "quix": Peer("Quix Streams, from a broker", "quix", library="quixstreams"),
    "pathway": Peer("Pathway, static", "pathway", library="pathway"),
    "pyflink": Peer("PyFlink, thread mode", "pyflink", library="pyflink"),
    "own_whole": Peer("Stayline, the whole flow", "own_whole", against="own_whole"),
    "own_whole_recovery": Peer("Stayline, with checkpoints", "own_whole", ("recovery",), against="own_whole_recovery"),
    "bytewax_whole": Peer("Bytewax stateful_map, the same work", "bytewax_whole", against="own_whole"),
    "bytewax_whole_recovery": Peer(
        "Bytewax, the same with recovery", "bytewax_whole", ("recovery",), against="own_whole_recovery"
    ),
}
"""By name."""

HEAD = f"{'':<46} {'events/s':>10} {'min':>10} {'max':>10} {'x ours':>8} {'x (CPU)':>8} {'start s':>8} {'MB':>6}"


def race(files: Files, rounds: int, names: Sequence[str], folder: Path) -> list[Line]:
    """Run peers; return what they printed, and write the raw lines and the table to `folder / "peers.txt"`.

    Args:
        files: what they read.
        rounds: how often each runs.
        names: keys of `PEERS`.
        folder: also takes what each peer found, `NAME.out`.

    Raises:
        RuntimeError: (all is written then) the peers of the small job do not agree, or a peer with itself.
    """
    interpreters = {name: _interpreter(PEERS[name].library) for name in names}
    lines: list[Line] = []
    with _one_core():
        # Our compiled code is kept from run to run: the first one, if it must compile, counts for nothing.
        for name in names:
            if name == PEERS[name].against:
                _run(name, files, folder, interpreters[name])
        for number in range(rounds):
            for name in names:
                load = os.getloadavg()[0]
                line = _run(name, files, folder, interpreters[name])
                lines.append({**line, "name": name, "round": number, "load": round(load, 1)})
                print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    report = [*conditions(), "", *table(lines, files), "", "raw lines:", *map(json.dumps, lines)]
    (folder / "peers.txt").write_text("".join(f"{line}\n" for line in report), encoding="utf-8")
    odd = disagreements(lines)
    if odd:
        raise RuntimeError(f"every peer must find the same, these did not: {', '.join(odd)}")
    return lines


@contextmanager
def _one_core() -> Iterator[None]:
    """Hold this process and those that it starts to the last core."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(all_cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def _interpreter(library: str) -> str | None:
    """Return the first interpreter that has a library, None if there is none."""
    if not library:
        return sys.executable
    given = [path for path in os.environ.get(INTERPRETERS, "").split(os.pathsep) if path]
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({library!r}) is None)"
    for python in [*given, sys.executable]:
        if subprocess.run([python, "-c", probe], cwd="/", check=False).returncode == 0:  # noqa: S603  the user's own
            return python
    return None


def _run(name: str, files: Files, folder: Path, python: str | None) -> Line:
    peer = PEERS[name]
    if python is None:
        return {"not_here": f"no interpreter in {INTERPRETERS} has the module {peer.library}"}
    events = files.events if peer.whole else files.calls
    command = [python, "-m", f"bench.peers.{peer.module}", str(events), str(folder / f"{name}.out"), *peer.ways]
    process = subprocess.Popen(  # noqa: S603  the user's own paths
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        told, said = process.communicate(timeout=TIMEOUT_S)
    except BaseException as error:
        # A peer has processes of its own: JVMs, a broker.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            return {"not_here": f"did not end within {TIMEOUT_S} s"}
        raise
    if process.returncode != 0:
        last = said.strip().splitlines()
        return {"not_here": f"ended with exit code {process.returncode}: {last[-1] if last else 'no word'}"}
    line: Line = json.loads(told.splitlines()[-1])
    return line


def disagreements(lines: Sequence[Line]) -> list[str]:
    """Return the peers that found something else than the first of their job: whole jobs only than themselves."""
    right: dict[str, tuple[str, str]] = {}
    odd = set()
    for line in lines:
        if "not_here" not in line:
            found = (line["digest"], line["states_digest"])
            judged_with = line["name"] if PEERS[line["name"]].whole else "small"
            if right.setdefault(judged_with, found) != found:
                odd.add(line["name"])
    return sorted(odd)


def table(lines: Sequence[Line], files: Files) -> list[str]:
    """Return the figures of both jobs, as lines of text."""
    report = []
    for whole, what in (
        (False, f"the small job, {files.calls_count:,} calls"),
        (True, f"the whole job, {files.events_count:,} events"),
    ):
        names = dict.fromkeys(line["name"] for line in lines if PEERS[line["name"]].whole == whole)
        if names:
            report += [what, HEAD, *(row for name in names for row in _rows(name, lines))]
            report.append("")
    return report[:-1]


def _rows(name: str, lines: Sequence[Line]) -> Iterator[str]:
    mine = [line for line in lines if line["name"] == name]
    absent = next((line["not_here"] for line in mine if "not_here" in line), None)
    if absent is not None:
        yield f"{PEERS[name].title:<46} not here: {absent}"
        return
    bases = {line["round"]: line for line in lines if line["name"] == PEERS[name].against and "not_here" not in line}
    yield _row(PEERS[name].title, mine, bases)
    if "cold_seconds" in mine[0]:
        cold = [line | {"seconds": line["cold_seconds"], "cpu_s": line["cold_cpu_s"]} for line in mine]
        yield _row("the same, first run in its JVM", cold, bases)


def _row(title: str, mine: Sequence[Line], bases: dict[int, Line]) -> str:
    rates = [line["events"] / line["seconds"] for line in mine]
    startup_s = statistics.median(line["startup_s"] for line in mine)
    peak_mb = max(line["rss_mb"] for line in mine)
    return (
        f"{title:<46} {statistics.median(rates):>10,.0f} {min(rates):>10,.0f} {max(rates):>10,.0f} "
        f"{_ratio(mine, bases, 'seconds'):>8} {_ratio(mine, bases, 'cpu_s'):>8} {startup_s:>8.1f} {peak_mb:>6}"
    )


def _ratio(mine: Sequence[Line], bases: dict[int, Line], time: str) -> str:
    """Return how fast a peer is beside our own row, by the wall or by the processor: the rounds' median."""
    ratios = [bases[line["round"]][time] / line[time] for line in mine if line["round"] in bases]
    return f"{statistics.median(ratios):.2f}" if ratios else "-"


def main() -> None:
    """Be the program."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.race", description=__doc__)
    parser.add_argument("--customers", type=int, default=3_000)
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas")
    parser.add_argument("--out", type=Path, required=True, help="folder for events, results, table")
    given = parser.parse_args()
    names = given.peers.split(",")
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        parser.error(f"--peers: must be of {', '.join(PEERS)}; was {', '.join(unknown)}")
    given.out.mkdir(parents=True, exist_ok=True)
    files = write(given.customers, given.days, given.seed, given.out)
    race(files, given.rounds, names, given.out)
    print((given.out / "peers.txt").read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
