"""The engine's own clusters: workers that exchange what they read give the same result, and no more than one works."""

import multiprocessing

import pytest
from bytewax.testing import cluster_main
from run_kit import PATIENCE_S, lines, recorded

from bench.broker import free_port
from dataflows.flow import Stop, build
from dataflows.inputs.files import FileReader, Place
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.decode import decode

CONTEXT = multiprocessing.get_context("forkserver")


def engine():
    return RiskEngine(Settings("test"), Catalogue.load(default_catalogue_text()))


def work(folder, addresses, process, workers):
    """Be one process of a cluster; write what it was given to write."""

    def appended(name):
        def write(items):
            with (folder / f"{process}.{name}").open("ab") as stream:
                stream.writelines(
                    one.body + b"\n" if name == "told" else one.record_b64.encode() + b"\n" for one in items
                )

        return write

    flow = build(
        lambda place: FileReader([folder / "events.ndjson"], place or Place(), chunk_bytes=16_384),
        engine(),
        appended("told"),
        appended("letters"),
        Stop(),
        ends=True,
    )
    cluster_main(flow, addresses, process, worker_count_per_proc=workers)


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 1)])
def test_a_cluster_tells_what_one_worker_tells_in_the_same_order(tmp_path, processes, workers):
    events = lines(recorded(tmp_path))
    one = engine()
    batch = decode(b"\n".join(events))
    expected = [notice.body for notice in [*one.apply(batch), *one.finish()]]
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(processes)] if processes > 1 else []
    members = [
        CONTEXT.Process(target=work, args=(tmp_path, addresses, process, workers), daemon=True)
        for process in range(processes)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join(PATIENCE_S)
    assert [member.exitcode for member in members] == [0] * processes
    # One key, so one worker does it all: a cluster works, and gains nothing here.
    (told,) = (lines(path) for path in tmp_path.glob("*.told"))
    assert told == expected
    assert sum(len(lines(path)) for path in tmp_path.glob("*.letters")) == len(batch.rejects)
