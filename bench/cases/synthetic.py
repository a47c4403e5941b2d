"""Plain calls of any customers, as many as wanted, as NDJSON: for questions of size that no simulated telco answers."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

DAY_MS = 86_400_000
BEGIN_MS = 1_700_000_000_000
CHUNK_CALLS = 2_048
"""About a megabyte, what the flow reads at a time."""

ANSWER_MS, LEAST_MS = 5_000, 20_000
DROPS = 0.01
"""Share of the calls that the network cut."""

_CALL = (
    b'{"type":"call","call_id":"%016x","customer_id":"c%08d","start_ms":%d,"answer_ms":%d,"end_ms":%d,'
    b'"direction":"out","peer_id":"p%06d","sip_status":200,"q850":%d,"released_by":"%b","codec":"PCMA","mos":4.2,'
    b'"loss_ratio":0.001,"discard_ratio":0.0005,"burst_ratio":1.1,"jitter_ms":3.5,"rtt_ms":41.0,'
    b'"packets_received":%d,"packets_sent":%d,"silence_ms":20,"access_node":"s-node-%04d","access_tech":"fiber",'
    b'"cpe_model":"s-cpe-1","cpe_firmware":"4.2.3","trunk":"s-trunk-%d","sbc":"s-sbc-%d","region":"s-region-%d",'
    b'"probe_id":"s-probe-%d"}\n'
)


def calls(
    customers: npt.NDArray[np.int64],
    first_ms: int,
    span_ms: int,
    rng: np.random.Generator,
    drop_ratio: float = DROPS,
) -> bytes:
    """Return one answered call, of all fields but `reason`, for each customer listed.

    Args:
        customers: numbers; one may occur many times.
        first_ms, span_ms: when they end, in order.
        rng: for everything random.
        drop_ratio: share of them that the network cut.
    """
    size = len(customers)
    end_ms = first_ms + np.sort(rng.integers(0, max(1, span_ms), size))
    talk_ms = LEAST_MS + rng.exponential(120_000, size).astype(np.int64)
    start_ms = end_ms - talk_ms - ANSWER_MS
    packets = talk_ms // 20
    dropped = rng.random(size) < drop_ratio
    columns = (
        rng.integers(0, 2**63, size),
        customers,
        start_ms,
        start_ms + ANSWER_MS,
        end_ms,
        rng.integers(0, 1_000_000, size),
        np.where(dropped, 41, 16),
        np.where(dropped, "network", "customer").astype("S"),
        packets,
        packets,
        customers % 1_000,
        customers % 8,
        customers % 4,
        customers % 20,
        customers % 5,
    )
    return b"".join([_CALL % row for row in zip(*(column.tolist() for column in columns), strict=True)])


def everybody(
    customers: int, first_ms: int, span_ms: int, rng: np.random.Generator, drop_ratio: float = DROPS
) -> Iterator[bytes]:
    """Give chunks in which each of so many customers calls once."""
    begins = range(0, customers, CHUNK_CALLS)
    for k, begin in enumerate(begins):
        who = np.arange(begin, min(begin + CHUNK_CALLS, customers))
        step_ms = max(1, span_ms // len(begins))
        yield calls(who, first_ms + step_ms * k, step_ms, rng, drop_ratio)
