"""Kafka Streams in Java (`java/`), from a broker: a processor with a store in memory, the fields cut out by hand.

`seconds` is from the first record to the last, in a JVM that is warming up: a stream has no second run.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.maven import NotHereError, built
from bench.peers.job import report
from bench.peers.topic import TOPIC, filled


def main() -> None:
    """Be a peer: `EVENTS OUT` on the command line."""
    events, out = sys.argv[1:]
    try:
        classes = built(Path(__file__).parent / "java")
        until_done, address, count = filled(Path(events))
    except NotHereError as error:
        print(json.dumps({"name": "kafka_streams", "not_here": str(error)}))
        return
    with until_done, tempfile.TemporaryDirectory() as folder:
        command = ["java", "-cp", classes, "stayline.peers.StreamsJob", address, TOPIC, str(count), out, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  the user's own paths
    report("kafka_streams", json.loads(done.stdout.splitlines()[-1]), Path(out))


if __name__ == "__main__":
    main()
