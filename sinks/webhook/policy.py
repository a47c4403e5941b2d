"""What an answer means for a delivery, and when to try again."""

import datetime as dt
import email.utils
import random
import re

from msgspec import Struct

from sinks.outputs import Delivery, Health, Outcome, State, Undeliverable

RETRY_CEILINGS_MS = tuple(1_000 * seconds for seconds in (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400))
"""Longest wait after the first, second... failed attempt; the last one repeats."""

SLOW_FROM = 3
"""Where the schedule begins (10 min) when an operator must first put something right."""

RETRY_AFTER_MS_MAX = 3_600_000
"""A receiver may ask for an hour's patience: an alert older than that is of little use."""

REJECTED_MAX = 3
"""A message that a receiver finds wrong is sent this often: the message will not improve, the receiver might."""

REPLY_CHARS_MAX = 1_000
"""How much of an answer is kept for the operator."""

_REJECTED = frozenset({400, 413, 422})
_BUSY = frozenset({408, 425, 429})
_GONE = 410


class Answer(Struct, frozen=True):
    """What came back from one attempt.

    Attributes:
        status: the HTTP status, None where no answer came.
        text: the answer's beginning, or what went wrong.
        retry_after: the header's value.
    """

    status: int | None
    text: str
    retry_after: str | None = None


def judge(answer: Answer, delivery: Delivery, give_up_after_ms: int, now_ms: int, rng: random.Random) -> Outcome:
    """Return what an answer means.

    2xx delivered; 410 the receiver wants no more calls; 400, 413, 422 dead after three; 408, 425, 429, 5xx and
    silence again on the schedule; redirects and all else again, slowly, since only an operator can put it right.

    Args:
        answer: what came back.
        delivery: what was sent.
        give_up_after_ms: how long after the first attempt a failing one is the last.
        now_ms: when the answer came.
        rng: draws the wait.
    """
    reply = scrub(answer)
    status, attempts = answer.status, delivery.attempts + 1
    if status is not None and 200 <= status < 300:
        return Outcome(State.DELIVERED, Health.WELL, reply=reply)
    if status in _REJECTED and attempts >= REJECTED_MAX:
        return Outcome(State.DEAD, Health.WELL, reason=Undeliverable.REJECTED, reply=reply)
    if status == _GONE:
        return Outcome(State.PENDING, Health.GONE, retry_ms=now_ms, reply=reply)
    health = Health.WELL if status in _REJECTED else Health.FAILING
    first_ms = now_ms if delivery.first_ms is None else delivery.first_ms
    left_ms = first_ms + give_up_after_ms - now_ms
    if left_ms <= 0:
        return Outcome(State.DEAD, health, reason=Undeliverable.EXPIRED, reply=reply)
    hold_ms = retry_after_ms(answer.retry_after, now_ms)
    # The last attempt falls on the deadline, not before it.
    wait_ms = min(_wait_ms(status, attempts, rng), left_ms)
    return Outcome(
        State.PENDING,
        health,
        retry_ms=now_ms + max(wait_ms, hold_ms),
        reply=reply,
        hold_ms=now_ms + hold_ms if hold_ms else 0,
    )


def is_misconfigured(trouble: str) -> bool:
    """Tell whether the last trouble of an output (`Outcome.reply`) is one that an operator must put right."""
    return trouble[:3].isdigit() and trouble[:3] != str(_GONE) and not _is_passing(int(trouble[:3]))


def _is_passing(status: int | None) -> bool:
    return status is None or status in _BUSY or status in _REJECTED or status >= 500


def _wait_ms(status: int | None, attempts: int, rng: random.Random) -> int:
    """Draw the wait after the n-th failed attempt: "full jitter" (M. Brooker, AWS Architecture Blog, 2015)."""
    step = attempts - 1 if _is_passing(status) else max(attempts - 1, SLOW_FROM)
    return rng.randint(0, RETRY_CEILINGS_MS[min(step, len(RETRY_CEILINGS_MS) - 1)])


def retry_after_ms(value: str | None, now_ms: int) -> int:
    """Read `Retry-After` (RFC 9110, section 10.2.3): seconds or a date; 0 where it says nothing usable."""
    text = "" if value is None else value.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        wait_ms = int(text) * 1_000
    else:
        date_ms = _http_date_ms(text)
        wait_ms = 0 if date_ms is None else date_ms - now_ms
    return min(max(wait_ms, 0), RETRY_AFTER_MS_MAX)


def _http_date_ms(text: str) -> int | None:
    """Read a date as HTTP writes it, None if it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        # A stranger wrote it, and the parser trips in many ways.
        return None
    if moment.tzinfo is None:
        # "-0000": a time in UTC whose sender does not know its own zone (RFC 5322, section 3.3).
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp() * 1_000)


_SECRETS = re.compile(r"whsec_[A-Za-z0-9+/=]+|v1,[A-Za-z0-9+/=]+|(?i:bearer|basic)\s+\S+")
# Bounded runs: a reply of one long word must not cost the square of its length.
_ADDRESSES = re.compile(r"[^\s@<>\"]{1,64}@[^\s@<>\"]{1,255}|\+?\d(?:[\s().-]?\d){6,}")


def scrub(answer: Answer) -> str:
    """Return an answer fit to be kept and shown: no control characters, secrets, mail addresses or long numbers."""
    text = answer.text if answer.status is None else f"{answer.status} {answer.text}".rstrip()
    # Twice as much as is kept, so that what is cut in two is seldom a secret.
    text = "".join(c if c.isprintable() else " " for c in text[: 2 * REPLY_CHARS_MAX])
    return _ADDRESSES.sub("[number or address]", _SECRETS.sub("[secret]", text))[:REPLY_CHARS_MAX]
