"""Flink in Java (`java/`), state on the heap, one slot; WAY is `jackson` or `extract`.

One JVM runs the job several times over: `seconds` is the last run, `cold_seconds` the first. Neither includes start-up,
nor the job's submission.
"""

import json
import subprocess
import sys
from pathlib import Path

from bench.maven import NotHereError, built
from bench.peers.job import report

RUNS = 8
"""Runs in one JVM, of some hundred thousand calls each: after the fourth or fifth, times fall no more."""
OPENS = ("java.base/java.util", "java.base/java.lang")
"""Flink looks into these packages; since Java 16 it must be let."""


def main() -> None:
    """Be a peer: `EVENTS OUT WAY` on the command line."""
    events, out, way = sys.argv[1:]
    name = f"flink_{way}"
    try:
        classes = built(Path(__file__).parent / "java")
    except NotHereError as error:
        print(json.dumps({"name": name, "not_here": str(error)}))
        return
    opens = [f"--add-opens={package}=ALL-UNNAMED" for package in OPENS]
    command = ["java", *opens, "-cp", classes, "stayline.peers.FlinkJob", events, out, way, str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  the user's own paths
    figures = json.loads(done.stdout.splitlines()[-1])
    cold, warm = ((figures["runs_s"][run], figures["runs_cpu_s"][run]) for run in (0, -1))
    times = {"seconds": warm[0], "cpu_s": warm[1], "cold_seconds": cold[0], "cold_cpu_s": cold[1]}
    report(name, figures | times, Path(out))


if __name__ == "__main__":
    main()
