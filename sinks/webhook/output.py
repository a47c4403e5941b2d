"""The webhook output: one signed POST a notification."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.errors import ConfigError
from sinks.outputs import Clock, Delivery, Health, Outcome, State, Undeliverable
from sinks.webhook.guard import Resolver, check_literal, parse_networks, parse_url, system_resolver
from sinks.webhook.policy import judge
from sinks.webhook.signing import is_signable, parse_secret, signature
from sinks.webhook.trace import Attempt, Seen, traceparent
from sinks.webhook.transport import Transport, tls_context

CONTENT_TYPE = "application/cloudevents+json"
"""CloudEvents 1.0, HTTP binding, section 3.2: structured mode: what a notification is if it has no other shape."""


class WebhookOutput:
    """A case output that posts each notification, signed, until the receiver takes it.

    Args:
        name: the configured name.
        url: where to; `https`, or `http` to loopback where `allow_networks` opens it.
        secrets: `whsec_...`, the current one first; two of them while the receiver changes over.
        allow_networks: private address ranges that may be reached.
        give_up_after_s: how long after its first attempt a failing delivery is tried for the last time.
        timeout_s: for one attempt as a whole (Standard Webhooks 1.0.0 asks for 15 to 30 s).
        concurrency: attempts in flight at once.
        newest_only: send of each case only the newest revision waiting. The older ones count as superseded: this
            output then no longer gets every notification.
        ca_file: certificate authorities (PEM) to trust instead of the system's.
        client_cert_file: certificate and key (PEM) to show to the receiver.
        authorization: value of the header of that name, for receivers that know no signatures; None: there is none.
        content_type: of the bodies; they and the signatures over them are of whatever shape they come in.
        resolver: gives the addresses of a name; the system's where there is none.
        seen: is told of each attempt, for a trace of it.

    Raises:
        ConfigError: an argument does not hold; every problem is listed.
    """

    def __init__(
        self,
        name: str,
        url: str,
        secrets: Sequence[str],
        *,
        allow_networks: Sequence[str] = (),
        give_up_after_s: int = 86_400,
        timeout_s: float = 15.0,
        concurrency: int = 16,
        newest_only: bool = False,
        ca_file: Path | None = None,
        client_cert_file: Path | None = None,
        authorization: str | None = None,
        content_type: str = CONTENT_TYPE,
        resolver: Resolver | None = None,
        seen: Seen | None = None,
    ) -> None:
        problems: list[str] = [] if secrets else ["secrets must hold at least one, found none"]
        with _collecting(problems):
            self._keys = [parse_secret(secret) for secret in secrets]
        with _collecting(problems):
            place = parse_url(url)
            allowed = parse_networks(allow_networks)
            check_literal(place, allowed)
        with _collecting(problems):
            tls = None if url.startswith("http:") else tls_context(ca_file, client_cert_file)
        if concurrency < 1:
            problems.append(f"concurrency must be >= 1, was {concurrency}")
        if timeout_s <= 0.0 or give_up_after_s < 0:
            problems.append(f"timeout_s must be > 0 and give_up_after_s >= 0, were {timeout_s}, {give_up_after_s}")
        if problems:
            raise ConfigError([f"output {name}: {problem}" for problem in problems])
        self.name = name
        self.concurrency = concurrency
        self.newest_only = newest_only
        self._seen = seen
        self._fixed = [("content-type", content_type), ("user-agent", "stayline")]
        if authorization is not None:
            self._fixed.append(("authorization", authorization))
        self._give_up_after_ms = 1_000 * give_up_after_s
        chosen = system_resolver() if resolver is None else resolver
        self._transport = Transport(place, allowed, chosen, tls, timeout_s)

    async def attempt(self, delivery: Delivery, clock: Clock, rng: random.Random) -> Outcome:
        """Post once and judge the answer. The id is the same on every attempt; the time is the attempt's."""
        notification = delivery.notification
        if not is_signable(notification.id):
            why = f"id must be printable ASCII without dot and space, was {notification.id!r}"
            return Outcome(State.DEAD, Health.WELL, reason=Undeliverable.MALFORMED, reply=why)
        begun_ms = clock()
        attempt_s = begun_ms // 1_000
        headers = (
            *self._fixed,
            ("webhook-id", notification.id),
            ("webhook-timestamp", str(attempt_s)),
            ("webhook-signature", signature(self._keys, notification.id, attempt_s, notification.body)),
            ("idempotency-key", notification.id),
            ("traceparent", traceparent(notification.id, self.name, delivery.attempts)),
        )
        answer = await self._transport.post(headers, notification.body)
        ended_ms = clock()
        outcome = judge(answer, delivery, self._give_up_after_ms, ended_ms, rng)
        if self._seen is not None:
            times = delivery.put_ms, begun_ms, ended_ms
            about = self.name, notification.id, notification.type, delivery.attempts
            self._seen(Attempt(*about, *times, answer.status, outcome))
        return outcome

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()


@contextlib.contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    """Add what is wrong to `problems` and go on, so that all of it is told at once."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems
