"""What the tests of monitoring share: what a deployment shows while it runs."""

import contextlib
import functools
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace

import httpx2
from delivery_kit import SECRET, Receiver
from engine_kit import MONDAY_MS, batch, call, engine
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from run_kit import Program, recorded, until

from dataflows.inputs.kafka import KafkaFigures
from dataflows.inputs.messages import Shard
from dataflows.shards import Shards
from schemas.decode import decode

OUTPUTS = """
[[output]]
kind = "file"
path = "alerts.ndjson"
[[output]]
kind = "desk"
[[output]]
kind = "webhook"
name = "crm"
url = "{url}"
secret_file = "secret"
allow_networks = ["127.0.0.0/8"]
[desk]
listen = "127.0.0.1:0"
[metrics]
listen = "127.0.0.1:0"
"""


def families(page):
    """Read a page; return name of each sample -> its values by labels."""
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(found, name, **labels):
    return found[name][tuple(sorted(labels.items()))]


@functools.cache
def scraped():
    """Run a deployment with every sort of output over a telco's evening; return its page once all is delivered."""
    with tempfile.TemporaryDirectory() as name, Receiver() as receiver:
        folder = Path(name)
        events = recorded(folder).read_bytes()
        (folder / "secret").write_text(SECRET)
        http = '[input]\nkind = "http"\nhttp = { listen = "127.0.0.1:0" }\n'
        (folder / "c.toml").write_text(http + OUTPUTS.format(url=receiver.url))
        program = Program(folder, "run", "-c", "c.toml")
        to, metrics = program.address("events"), program.address("metrics")
        httpx2.post(f"{to}/v1/events", content=events, trust_env=False).raise_for_status()
        count = sum(1 for line in events.split(b"\n") if line)
        # A batch's records are counted before what follows from them is told.
        told = len(engine().apply(decode(events)))

        def settled():
            page = httpx2.get(f"{metrics}/metrics", trust_env=False).text
            found = families(page)
            read = sum(found["stayline_records_total"].values())
            delivered = found["stayline_notification_to_delivery_seconds_count"].values()
            done = read == count and len(delivered) == OUTPUTS.count("[[output]]") and set(delivered) == {told}
            return page if done and value(found, "stayline_checkpoint_seconds_count") else None

        page = until(settled, "everything delivered")
        program.kill()
        return page


@functools.cache
def scraped_of_inputs():
    """Return what the other inputs show: of packets a running deployment, of Kafka a reader of two partitions and one
    that is kept apart.

    `test_kafka` scrapes a deployment that reads from a broker, which takes half a minute to start.
    """
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        key = 'tokens = { secret_file = "key" }\n'
        hep = f'[input]\nkind = "hep"\nhep = {{ listen = "127.0.0.1:0" }}\n{key}'
        (folder / "key").write_text("k" * 32)
        (folder / "secret").write_text(SECRET)
        (folder / "c.toml").write_text(hep + OUTPUTS.format(url="http://127.0.0.1:9/"))
        program = Program(folder, "run", "-c", "c.toml")
        page = httpx2.get(f"{program.address('metrics')}/metrics", trust_env=False).text
        program.kill()
        with contextlib.closing(Shards(folder, (0,), lambda _: engine())) as shards:
            shards.engine(Shard(0, 1, ())).apply(batch([call("a", MONDAY_MS)]))
            registry = CollectorRegistry()
            registry.register(shards)
    registry.register(KafkaFigures(SimpleNamespace(lag={("t", 0): 3, ("t", 1): 0}, lost=0, measure=lambda: None)))
    return page + generate_latest(registry).decode()
