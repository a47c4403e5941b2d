"""How producers choose a partition by a message's key: as Kafka's own clients do, and which of the two ways it was."""

import zlib
from collections.abc import Callable

from schemas.errors import StateError

Spread = Callable[[bytes, int], int]
"""Key and number of partitions -> partition."""

_M, _SEED, _WORD = 0x5BD1E995, 0x9747B28C, 0xFFFF_FFFF


def by_crc(key: bytes, partitions: int) -> int:
    """Choose as librdkafka does unless told otherwise (`partitioner=consistent_random`)."""
    return zlib.crc32(key) % partitions


def by_murmur(key: bytes, partitions: int) -> int:
    """Choose as the Java client does: MurmurHash2 (A. Appleby) of 32 bits, without its sign.

    Source: `org.apache.kafka.common.utils.Utils.murmur2`, and `BuiltInPartitioner.partitionForKey`.
    """
    found = _SEED ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * _M & _WORD
        found = (found * _M & _WORD) ^ ((word ^ word >> 24) * _M & _WORD)
    if len(key) > whole:
        found = (found ^ int.from_bytes(key[whole:], "little")) * _M & _WORD
    found = (found ^ found >> 13) * _M & _WORD
    return ((found ^ found >> 15) & 0x7FFF_FFFF) % partitions


def spread_of(found: set[tuple[str, int, int]], after: int) -> Spread:
    """Return how customers are spread over partitions.

    Args:
        found: customers, the partition that each was found in, and of how many.
        after: how many there are to be.

    Raises:
        StateError: neither way, or too few customers to tell which.
    """
    ways = (by_crc, by_murmur)
    fits = [way for way in ways if all(way(customer.encode(), of) == number for customer, number, of in found)]
    if not fits:
        rule = "must lie where Kafka's clients put their ids (CRC-32 or MurmurHash2)"
        raise StateError(f"customers: {rule}, did not: their events are keyed by something else")
    if len(fits) > 1 and any(by_crc(one.encode(), after) != by_murmur(one.encode(), after) for one, _, _ in found):
        rule = "must be enough on the new partitions to tell how they are spread, were too few"
        raise StateError(f"customers: {rule}: let producers write for a while")
    return fits[0]
