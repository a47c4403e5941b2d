"""What the tests of the engine share: calls as a carrier would send them, batches of them, an engine."""

from collections.abc import Callable, Iterable
from typing import Any
from zlib import crc32

import numpy as np
import orjson

from detectors.engine import RiskEngine, Settings
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from schemas.alerts import Notification
from schemas.columns import EventBatch
from schemas.decode import decode

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
MONDAY_MS = 1_767_571_200_000
"""Monday, 5 January 2026, 00:00 UTC."""
TROUBLE_MS = MONDAY_MS + 3 * DAY_MS - HOUR_MS
"""When shared trouble begins in a `telco`; it lasts an hour."""

CATALOGUE = Catalogue.load(default_catalogue_text())
DROPPED = {"q850": 41, "released_by": "network"}
"""What the end of a call says that the network cut off."""
HUNG_UP = {"q850": 16, "released_by": "customer"}


def call(customer: str, end_ms: int, *, talk_s: float | None = None, dropped: bool = False, **fields: Any) -> Any:
    """Write one answered call; every far end is called once and no two calls last equally long, unless told so."""
    if talk_s is None:
        # Scattered over ten minutes by a digest: no timer, no repetition.
        talk_s = 20.0 + crc32(f"{customer}/{end_ms}".encode()) % 600_000 / 1_000
    answer_ms = end_ms - round(talk_s * 1_000)
    known = {
        "type": "call",
        "call_id": f"{customer}/{end_ms}",
        "customer_id": customer,
        "start_ms": answer_ms - 5_000,
        "answer_ms": answer_ms,
        "end_ms": end_ms,
        "direction": "out",
        "peer_id": f"peer of {customer}/{end_ms}",
        **(DROPPED if dropped else HUNG_UP),
    }
    return known | fields


def batch(events: Iterable[Any]) -> EventBatch:
    """Decode events as one chunk; what is bytes already stays as it is."""
    return decode(b"\n".join(event if isinstance(event, bytes) else orjson.dumps(event) for event in events))


def engine(**settings: Any) -> RiskEngine:
    """Make a fresh engine."""
    return RiskEngine(Settings("test", **settings), CATALOGUE)


def told(notifications: Iterable[Notification]) -> list[dict[str, Any]]:
    """Read the envelopes of notifications."""
    return [orjson.loads(one.body) for one in notifications]


def run(events: Iterable[Any], **settings: Any) -> list[dict[str, Any]]:
    """Apply events as one batch to a fresh engine; return all envelopes."""
    fresh = engine(**settings)
    return told([*fresh.apply(batch(events)), *fresh.finish()])


def alerts(envelopes: Iterable[dict[str, Any]], customer: str | None = None) -> list[dict[str, Any]]:
    """Pick the alerts that opened, of one customer or of all."""
    opened = [one for one in envelopes if one["type"] == "stayline.alert.opened"]
    return [one for one in opened if customer is None or one["data"]["customer_id"] == customer]


def habit(
    customer: str,
    days: float,
    calls_a_day: float,
    rng: np.random.Generator,
    *,
    drop_ratio: float = 0.0,
    talk_median_s: float = 80.0,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Write the calls of somebody who calls at random, by day and by night: the lengths of calls in general."""
    count = int(rng.poisson(days * calls_a_day))
    ends_ms = np.sort(MONDAY_MS + rng.random(count) * days * DAY_MS).astype(np.int64)
    talk_s = (1.0 + talk_median_s * np.exp(rng.normal(0.0, 1.5, count))).round(3)
    drops = rng.random(count) < drop_ratio
    return [
        call(customer, end_ms, talk_s=long_s, dropped=bad, **fields)
        for end_ms, long_s, bad in zip(ends_ms.tolist(), talk_s.tolist(), drops.tolist(), strict=True)
    ]


def telco(
    seed: int,
    broken: Callable[[dict[str, Any]], bool],
    *,
    ratio: float = 0.85,
    drop_ratio: float = 0.008,
    customers: int = 80,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Write three days of calls over four nodes and four trunks, with media.

    Args:
        seed: of everything random.
        broken: names the calls, by their places, that fail in the busy last hour.
        ratio: how many of those do.
        drop_ratio: how many of all others do.
        customers: how many call.
        fields: what else every call says.
    """
    rng = np.random.default_rng(seed)
    events = []
    for customer in range(customers):
        quiet = MONDAY_MS + rng.random(rng.poisson(18)) * (TROUBLE_MS - MONDAY_MS)
        busy = TROUBLE_MS + rng.random(rng.poisson(2.5)) * HOUR_MS
        for end_ms in np.sort(np.concatenate([quiet, busy])).astype(int).tolist():
            places = {
                "access_node": f"node-{customer % 4}",
                "region": f"region-{customer % 2}",
                "trunk": f"trunk-{rng.integers(4)}",
                "cpe_model": "box",
                "cpe_firmware": f"{customer // 4 % 3}.0",
                "probe_id": f"probe-{rng.integers(2)}",
            }
            media = {
                "codec": "PCMA",
                "loss_ratio": round(0.002 * rng.exponential(), 5),
                "rtt_ms": 40.0,
                "jitter_ms": 3.0,
            }
            fails = rng.random() < (ratio if end_ms >= TROUBLE_MS and broken(places) else drop_ratio)
            talk_s = 1.0 + 80.0 * float(np.exp(rng.normal(0.0, 1.5)))
            events.append(call(f"c{customer}", end_ms, talk_s=talk_s, dropped=fails, **(places | media | fields)))
    return sorted(events, key=lambda event: event["end_ms"])
