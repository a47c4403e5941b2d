"""The broker of tests and benchmarks: from jars, or by Docker, with its data kept through a kill."""

import os
import sys

import pytest
from confluent_kafka import Consumer

from bench import broker
from bench.broker import IMAGE, QUICK_START, Broker, fill, make_topic
from bench.maven import NotHereError, built

DOCKER = f"""#!{sys.executable}
# As much of Docker as is used: a container is a process of this machine.
import os, pathlib, signal, sys
names = pathlib.Path(__file__).parent
if sys.argv[1] == "run":
    options, command = sys.argv[2:sys.argv.index("{IMAGE}")], sys.argv[sys.argv.index("{IMAGE}") + 1:]
    assert {{"--rm", "--network", "--user", "--volume"}} <= set(options)
    assert options[-2:] == ["--entrypoint", "java"]
    (names / options[options.index("--name") + 1]).write_text(str(os.getpid()))
    os.execvp("java", ["java", *(os.environ["JARS"] if one == "/opt/kafka/libs/*" else one for one in command)])
elif sys.argv[1] == "kill":
    os.kill(int((names / sys.argv[2]).read_text()), signal.SIGKILL)
"""


def refuse(_):
    raise NotHereError("there is no JDK")


def test_without_a_jdk_docker_runs_the_broker_and_its_data_outlives_a_kill(tmp_path, monkeypatch, broker_of_all):
    shim, data = tmp_path / "bin", tmp_path / "broker"
    shim.mkdir()
    data.mkdir()
    (shim / "docker").write_text(DOCKER)
    (shim / "docker").chmod(0o755)
    monkeypatch.setenv("JARS", broker_of_all)
    monkeypatch.setenv("PATH", f"{shim}:{os.environ['PATH']}")
    monkeypatch.setattr(broker, "built", refuse)
    with Broker(data, options=QUICK_START) as one:
        make_topic(one.address, "t")
        fill(one.address, "t", [(b"k", b"v")])
        one.kill()
        one.start()
        consumer = Consumer({"bootstrap.servers": one.address, "group.id": "any", "log_level": 0})
        assert list(consumer.list_topics("t", 30.0).topics["t"].partitions) == [0]
        consumer.close()


@pytest.fixture
def broker_of_all(request):
    """The jars that the shared broker runs from: where it cannot run, neither can this one."""
    request.getfixturevalue("broker")
    return built(broker.Path(broker.__file__).parent / "kafka")


def test_where_neither_can_be_had_the_reason_names_both(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker, "built", refuse)
    with pytest.raises(NotHereError, match="there is no JDK; nor does Docker run"):
        Broker(tmp_path)
