"""`stayline outputs test`: one signed ping to an output, and in words what came of it."""

import asyncio
import random
import time
from pathlib import Path
from typing import cast

import orjson
from msgspec import Struct

from schemas.alerts import Notification, NotificationType, rfc3339
from schemas.errors import DeliveryError
from sinks.file import FileOutput
from sinks.kafka import KafkaOutput
from sinks.outputs import CaseOutput, Clock, Delivery, Health, NotificationRefusedError, Output, OutputDownError, State

TYPE = "stayline.test.ping"
"""The CloudEvents type of a ping. It is about nobody; a receiver answers 2xx and does nothing."""

_WORDS = {
    400: "the receiver finds the message wrong: does it take CloudEvents?",
    401: "the receiver does not accept the signature: do both sides have the same secret, and the same time?",
    403: "the receiver refuses this sender: look at its access rules, and at the secret",
    404: "nothing answers under this path: look at the url",
    405: "the receiver takes no POST under this path: look at the url",
    408: "the receiver waited for a request in vain: something between cuts it off",
    410: "the receiver asks never to be called again: in a run this disables the output",
    413: "the receiver takes only smaller messages",
    415: "the receiver does not take application/cloudevents+json",
    422: "the receiver finds the message wrong: it must take types it does not know",
    429: "the receiver asks for fewer calls",
}


class Pinged(Struct, frozen=True):
    """What came of a ping.

    Attributes:
        taken: the output took it.
        answer: what was found: status and beginning of the answer, or what went wrong.
        words: what that means.
        latency_ms: how long it took.
    """

    taken: bool
    answer: str
    words: str
    latency_ms: float


def ping(output: Output, deployment: str, clock: Clock) -> Pinged:
    """Send a ping to an output, past the outbox: it is tried once, and never stored.

    Of an output that is a file nothing is written: what it holds is the run's.

    Raises:
        DeliveryError: there is no way to test this sort of output.
    """
    begun_s = time.perf_counter()
    if isinstance(output, CaseOutput):
        taken, answer = asyncio.run(_attempt(output, _notification(deployment, clock()), clock))
    elif isinstance(output, FileOutput):
        taken, answer = _writable(output.path)
    elif isinstance(output, KafkaOutput):
        taken, answer = _written(output, _notification(deployment, clock()))
    else:
        raise DeliveryError(f"output {output.name}: must be a webhook, a topic or a file to be tested, was none")
    return Pinged(taken, answer, _words(answer, taken=taken), 1_000.0 * (time.perf_counter() - begun_s))


def _notification(deployment: str, now_ms: int) -> Notification:
    identity = f"ping-{now_ms}"
    body = {
        "specversion": "1.0",
        "id": identity,
        "source": f"/stayline/{deployment}",
        "type": TYPE,
        "time": rfc3339(now_ms),
        "subject": "ping",
        "datacontenttype": "application/json",
        "data": {"text": "A test of the connection; nothing needs to be done."},
    }
    # No type that detection ever gives: it exists here alone.
    return Notification(identity, cast("NotificationType", TYPE), "ping", 1, now_ms, orjson.dumps(body))


async def _attempt(output: CaseOutput, notification: Notification, clock: Clock) -> tuple[bool, str]:
    try:
        outcome = await output.attempt(Delivery(1, notification), clock, random.SystemRandom())
    finally:
        await output.close()
    return outcome.state is State.DELIVERED and outcome.health is Health.WELL, outcome.reply


def _written(output: KafkaOutput, notification: Notification) -> tuple[bool, str]:
    try:
        output.append(0, [notification])
    except (OutputDownError, NotificationRefusedError) as error:
        return False, str(error)
    return True, "the topic has confirmed it"


def _writable(path: Path) -> tuple[bool, str]:
    try:
        if path.exists() and not path.is_file():
            return False, f"{path}: must be a file, was a folder, pipe or device"
        if path.exists():
            with path.open("ab"):
                pass
        else:
            # A run makes the folders that are not there.
            folder = next(one for one in path.absolute().parents if one.exists())
            folder.joinpath(f".{path.name}.ping").touch(mode=0o600)
            folder.joinpath(f".{path.name}.ping").unlink()
    except OSError as error:
        return False, f"{path}: {error.strerror}"
    return True, f"{path} can be written"


def _words(answer: str, *, taken: bool) -> str:
    status = int(answer[:3]) if answer[:3].isdigit() else None
    if taken:
        return "taken"
    if status is None:
        return _unanswered(answer)
    if status in _WORDS:
        return _WORDS[status]
    if 300 <= status < 400:
        return "the receiver points elsewhere, and redirects are never followed: give the address it points to"
    return "the receiver is there but fails" if status >= 500 else "the receiver does not take it"


def _unanswered(answer: str) -> str:
    """Say what an attempt without a status failed at."""
    for sign, words in (
        ("Unknown topic", "the broker knows no such topic: make it, or let this user create it"),
        ("authorization failed", "the broker does not let this user write: look at its access rules"),
        ("refuses our certificate", "the brokers want a certificate that they know: look at client_cert_file"),
        ("speak", "encryption is on one side alone: look at tls, and at the port"),
        ("uthentication", "the brokers do not accept the user or the password"),
        ("SASL", "the brokers do not accept the user or the password: look at sasl_mechanism too"),
        ("certificate", "the receiver's certificate does not prove its name: look at ca_file and the url"),
        ("allow_networks", "the address is private and not in allow_networks"),
        ("must not stand for", "the name stands for an address that it must not"),
        ("no answer within", "the receiver took the connection and did not answer in time"),
        ("no connection", "nobody takes the connection: a firewall, or the wrong address"),
        ("refused", "nobody listens there: is the receiver running, is the port right?"),
        ("onnect call failed", "nobody listens there: is the receiver running, is the port right?"),
        ("ame or service not known", "nobody knows this name"),
        ("resol", "the name could not be looked up"),
    ):
        if sign in answer:
            return words
    return "no answer came"
