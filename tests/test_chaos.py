"""Kill anything, at any moment: what is told is what an undisturbed run tells, none missing, none different."""

import functools
import random
import signal
import threading

import orjson
import pytest
from chaos_kit import POINTS, Disturbance, disturb, tear
from kafka_kit import await_settled, ended, keyed, records
from run_kit import Program, lines, until
from shards_kit import PARTITIONS, deployed_apart, expected

from bench.broker import fill, make_topic
from schemas.decode import decode

ROUNDS = 4
SEEDS = 100
SAMPLED = 4
"""So many of them always run; all of them by `make chaos`."""

ODDS = {"point": 0.5, "moment": 0.2, "freeze": 0.15, "broker": 0.08, "full disk": 0.07}
"""What happens in a round, and how often."""


class Deployment:
    """One deployment that is disturbed, and goes on.

    Attributes:
        folder: of the process; `told` is where its topic of alerts lies.
    """

    def __init__(self, folder, broker, topic, partitions):
        self.folder, self._broker, self._topic = folder / "0", broker, topic
        make_topic(broker.address, topic, PARTITIONS if partitions == "0/1" else 1)
        make_topic(broker.address, alerts := f"{topic}.alerts")
        self.alerts = alerts
        more = f'\n[[output]]\nkind = "kafka"\nbrokers = "{broker.address}"\ntopic = "{alerts}"\n'
        deployed_apart(self.folder, broker.address, topic, partitions, more)

    def start(self, given=None, epoch_ms=100):
        before = functools.partial(disturb, given or Disturbance())
        return Program(self.folder, "run", "-c", "c.toml", epoch_ms=epoch_ms, before=before)

    def disturbed(self, rng, events):
        """Let the process meet its fate while events come."""
        fate = rng.choices(list(ODDS), list(ODDS.values()))[0]
        given = Disturbance(messages_max=rng.choice([20, 200, 5_000]))
        if fate == "point":
            given = given._replace(point=rng.choice(list(POINTS)), nth=rng.choice([1, 1, 2, 3, 7]))
        elif fate == "full disk":
            given = given._replace(file_bytes_max=rng.choice([40_000, 150_000, 600_000]))
        half = len(events) // 2
        fill(self._broker.address, self._topic, events[:half])
        program = self.start(given, rng.choice([5, 30, 300]))
        if rng.random() < 0.5:
            until(lambda: "run.started" in program.stderr() or not program.running(), "the start")
        if fate == "freeze":
            program.signal(signal.SIGSTOP)
        fill(self._broker.address, self._topic, events[half:])
        if fate == "broker":
            self._broker.kill()
            threading.Event().wait(rng.uniform(0.0, 1.0))
            self._broker.start()
        program.signal(signal.SIGCONT)
        program.join(rng.uniform(0.0, 1.5))
        if rng.random() < 0.2:
            program.signal(signal.SIGTERM)
            program.join(rng.uniform(0.0, 0.3))
        program.kill()
        if rng.random() < 0.3:
            tear(self.folder / "state", rng)
            tear(self.folder.parent / "shared", rng)
        return program


@pytest.mark.parametrize(
    "seed", [*range(SAMPLED), *(pytest.param(n, marks=pytest.mark.slow) for n in range(SAMPLED, SEEDS))]
)
def test_whatever_is_killed_frozen_or_full_nothing_is_lost_or_changed(broker, topic, telco, tmp_path, seed):
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    apart = bool(seed % 2)
    deployment = Deployment(tmp_path, broker, f"{topic}.chaos", "0/1" if apart else "all")
    size = len(telco.events) // ROUNDS + 1
    for at in range(ROUNDS):
        deployment.disturbed(rng, list(keyed(telco.events[at * size : (at + 1) * size])))
    program = deployment.start()
    await_settled(program, len(telco.events))
    assert ended(program) == 0, program.stderr()
    wanted = expected(broker.address, f"{topic}.chaos") if apart else by_id(telco.told)
    found = records(broker.address, deployment.alerts)
    for name, body in [(name, value) for _, value, name in found]:
        assert wanted.get(name) == body, "what is told is what an undisturbed run tells"
    assert by_id([value for _, value, _ in found]) == wanted, "nothing is missing"
    written = lines(deployment.folder / "alerts.ndjson")
    assert by_id(written) == wanted
    assert len(written) == len(wanted), "a file holds each once"
    letters = {orjson.loads(line)["at"] for line in lines(deployment.folder / "state/dead-letters.ndjson")}
    assert len(letters) == len(decode(b"\n".join(telco.events)).rejects)


def by_id(bodies):
    return {orjson.loads(body)["id"]: body for body in bodies}


@pytest.mark.parametrize("point", [pytest.param(point, marks=pytest.mark.slow) for point in POINTS])
def test_every_named_point_is_passed_and_kills(broker, topic, telco, tmp_path, point):
    deployment = Deployment(tmp_path, broker, f"{topic}.chaos", "0/1")
    fill(broker.address, f"{topic}.chaos", keyed(telco.events))
    assert deployment.start(Disturbance(point=point)).wait() == -signal.SIGKILL
