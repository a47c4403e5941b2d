"""The evening of the demonstration as something that goes on now.

    python -m bench.simulator.feed http://127.0.0.1:8090
    python -m bench.simulator.feed kafka.example:9092 stayline.events

Five of its six hours have passed when it begins, and are sent as fast as they are taken; the sixth is sent as it
happens. So whoever watches has alerts to look at within a minute, and live data from then on.
"""

import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import httpx2
from confluent_kafka import Producer

from bench.simulator.live import EVENING, EVENING_MS, story
from bench.simulator.spec import HOUR_MS

PAST_MS = EVENING_MS - HOUR_MS
SPEED = 120.0
"""Places the trouble as the demonstration does: something new every ten minutes of the evening."""

BATCH = 1_000
"""Events sent at once, at most."""

BATCH_S = 0.25
"""How often events are sent that happen now."""

_TIME = re.compile(rb'(_ms":)(\d{13})\b')
_CUSTOMER = re.compile(rb'"customer_id":"([^"]*)"')

Send = Callable[[list[bytes]], None]


def moved(lines: Iterable[tuple[int, bytes]], by_ms: int) -> Iterator[tuple[int, bytes]]:
    """Move events in time: every Unix time in milliseconds in them, and that beside them."""
    for at_ms, line in lines:
        yield at_ms + by_ms, _TIME.sub(lambda found: found[1] + b"%d" % (int(found[2]) + by_ms), line)


def paced(
    lines: Iterable[tuple[int, bytes]], now_ms: Callable[[], int], sleep: Callable[[float], None]
) -> Iterator[list[bytes]]:
    """Give events in batches once their time has come; what lies in the past at once."""
    held: list[bytes] = []
    for at_ms, line in lines:
        wait_s = (at_ms - now_ms()) / 1000.0
        if held and (wait_s > BATCH_S or len(held) == BATCH):
            yield held
            held = []
        if wait_s > 0.0:
            sleep(wait_s)
        held.append(line)
    if held:
        yield held


def feed(send: Send) -> int:
    """Send the evening; return how many events were sent."""
    lines = story(EVENING, SPEED)
    first = next(lines)
    by_ms = _now_ms() - PAST_MS - first[0]
    sent = 0
    for batch in paced(moved(itertools.chain([first], lines), by_ms), _now_ms, time.sleep):
        send(batch)
        sent += len(batch)
    return sent


def to_http(client: httpx2.Client) -> Send:
    """Return what posts events to a Stayline; it comes again where there is no room yet, or nobody listens yet."""

    def send(lines: list[bytes]) -> None:
        told = False
        while not _taken(client, b"".join(lines)):
            if not told:
                print(f"waits for {client.base_url} to take events", file=sys.stderr)
                told = True
            time.sleep(BATCH_S)

    return send


def _taken(client: httpx2.Client, events: bytes) -> bool:
    try:
        answer = client.post("/v1/events", content=events)
    except httpx2.ConnectError:
        return False
    if answer.status_code == 503:
        return False
    answer.raise_for_status()
    return True


def to_kafka(brokers: str, topic: str) -> Send:
    """Return what produces events to a topic, keyed by customer; each batch is there when it returns."""
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True})

    def send(lines: list[bytes]) -> None:
        for line in lines:
            found = _CUSTOMER.search(line)
            producer.produce(topic, line.rstrip(), found[1] if found else None)
        producer.flush()

    return send


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    to, *topic = sys.argv[1:]
    if topic:
        print(f"{feed(to_kafka(to, *topic)):,} events sent")
    else:
        with httpx2.Client(base_url=to, trust_env=False, timeout=60) as client:
            print(f"{feed(to_http(client)):,} events sent")
