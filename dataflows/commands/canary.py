"""`stayline canary`: puts the canary's calls into a deployment's input, round after round."""

import time
from collections.abc import Callable
from typing import Any

import httpx2
from confluent_kafka import KafkaException, Producer

from dataflows.canary import calls
from dataflows.config.settings import Config
from dataflows.inputs.kafka_client import connection
from dataflows.logs import log
from schemas.errors import ConfigError, StaylineError

DELIVERED_WITHIN_S = 30.0

Send = Callable[[str, bytes], None]
"""Puts the calls of one customer into the input.

Raises:
    StaylineError: they could not be.
"""


def sender(config: Config, password: str | None) -> Send:
    """Return what reaches a deployment's input.

    Raises:
        ConfigError: the input is of a sort that nobody can write to from outside, or takes other records than events.
    """
    kind, kafka = config.input.kind, config.input.kafka
    if config.input.format != "stayline" or kind not in {"http", "kafka"}:
        found = f"{kind} of {config.input.format}"
        raise ConfigError([f"input: must be http or kafka, of events, for a canary to be put into it, was {found}"])
    if kind == "kafka" and kafka is not None:
        return _to_kafka(connection(kafka, password), kafka.topics[0])
    return _to_http(f"http://{config.input.http.listen}")


def round_after_round(send: Send, every_s: float, rounds: int, now_ms: Callable[[], int]) -> None:
    """Send a canary now and then; one that does not come through is told in the log, and the next one tried.

    Args:
        send: reaches the input.
        every_s: time between two.
        rounds: how many; 0: for ever.
        now_ms: the wall clock, for probes have no other.
    """
    done = 0
    while True:
        customer, lines = calls(now_ms())
        try:
            send(customer, lines)
        except StaylineError as error:
            log("canary.not_sent", error=str(error))
        done += 1
        if done == rounds:
            return
        time.sleep(every_s)


def _to_http(url: str) -> Send:
    def send(_: str, lines: bytes) -> None:
        try:
            answer = httpx2.post(f"{url}/v1/events", content=lines, trust_env=False, timeout=DELIVERED_WITHIN_S)
        except httpx2.TransportError as error:
            raise StaylineError(f"{url}: must answer, did not: {error}") from None
        if not answer.is_success:
            raise StaylineError(f"{url}: must take the records (202), answered {answer.status_code}")

    return send


def _to_kafka(reached: dict[str, Any], topic: str) -> Send:
    producer = Producer(reached)

    def send(customer: str, lines: bytes) -> None:
        lost: list[str] = []
        for line in lines.splitlines():
            producer.produce(
                topic, line, customer, on_delivery=lambda error, _: lost.append(str(error)) if error else None
            )
        try:
            waiting = producer.flush(DELIVERED_WITHIN_S)
        except KafkaException as error:
            raise StaylineError(f"{topic}: must take messages, did not: {error}") from None
        if waiting or lost:
            raise StaylineError(f"{topic}: must take all {len(lines.splitlines())} messages, did not: {lost[:1]}")

    return send
