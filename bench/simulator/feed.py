"""The evening of the demonstration as something that goes on now: `python -m bench.simulator.feed BROKERS TOPIC`.

Five of its six hours have passed when it begins, and are sent as fast as the brokers take them; the sixth is sent as
it happens. So whoever watches has alerts to look at within a minute, and live data from then on.
"""

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from confluent_kafka import Producer

from bench.simulator.live import EVENING, EVENING_MS, story
from bench.simulator.spec import HOUR_MS

PAST_MS = EVENING_MS - HOUR_MS
SPEED = 120.0
"""Places the trouble as the demonstration does: something new every ten minutes of the evening."""

_TIME = re.compile(rb'(_ms":)(\d{13})\b')
_CUSTOMER = re.compile(rb'"customer_id":"([^"]*)"')


def moved(lines: Iterable[tuple[int, bytes]], by_ms: int) -> Iterator[tuple[int, bytes]]:
    """Move events in time: every Unix time in milliseconds in them, and that beside them."""
    for at_ms, line in lines:
        yield at_ms + by_ms, _TIME.sub(lambda found: found[1] + b"%d" % (int(found[2]) + by_ms), line)


def paced(
    lines: Iterable[tuple[int, bytes]], now_ms: Callable[[], int], sleep: Callable[[float], None]
) -> Iterator[bytes]:
    """Give each event once its time has come; what lies in the past at once."""
    for at_ms, line in lines:
        wait_ms = at_ms - now_ms()
        if wait_ms > 0:
            sleep(wait_ms / 1000.0)
        yield line


def feed(brokers: str, topic: str) -> int:
    """Send the evening to a topic, keyed by customer; return how many events were sent."""
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 50, "enable.idempotence": True})
    lines = story(EVENING, SPEED)
    first_ms, first = next(lines)
    by_ms = _now_ms() - PAST_MS - first_ms
    sent = 0
    for line in paced(moved(_again(first_ms, first, lines), by_ms), _now_ms, time.sleep):
        found = _CUSTOMER.search(line)
        _produce(producer, topic, line.rstrip(), found[1] if found else None)
        sent += 1
    producer.flush()
    return sent


def _again(first_ms: int, first: bytes, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield first_ms, first
    yield from lines


def _produce(producer: Producer, topic: str, value: bytes, key: bytes | None) -> None:
    while True:
        try:
            producer.produce(topic, value, key)
        except BufferError:  # the brokers are behind: wait for them
            producer.poll(0.1)
        else:
            producer.poll(0.0)
            return


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    print(f"{feed(*sys.argv[1:3]):,} events sent")
