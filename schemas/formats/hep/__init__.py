"""HEP3: what capture agents (Kamailio's siptrace, heplify, captagent, rtpengine) send to HOMER, assembled to calls.

    bytes ──► packets: chunks ──► sip, media: one message ──► calls: one call ──► table: all of them ──► events

The input is a stream of HEP3 packets one behind the other, as over TCP or as UDP datagrams joined. Where a packet does
not hold, the bytes up to the next `HEP3` are one dead letter, and reading goes on there: a length that lies costs its
own packet alone.

A call is an event when its end is seen (see `calls`); each report of RTCP is a `media` event of the side that sent it.
`position` is the number of the packet, counted from 1, with which the item was complete. Files of one input are one
stream: a call may begin in one and end in the next. A call whose end is not in
the input is no event but a dead letter: it may have gone on for hours. What cannot be known from signalling: the trunk,
the access, and silence of the media where nobody sends RTCP.
"""

from schemas.deadletters import DeadReason, Reject
from schemas.errors import ConfigError
from schemas.formats import HEAD_BYTES, Converted, Options
from schemas.formats.hep.events import Customers
from schemas.formats.hep.packets import MAGIC, BadPacketError, PacketReader, packet_bytes
from schemas.formats.hep.table import CALLS_MAX, CallTable, Counts, GivenUp
from schemas.formats.masks import masked_binary

__all__ = ["Counts", "HepReader", "open_hep"]

GIVES = (
    "call_id", "customer_id", "peer_id", "direction", "start_ms", "answer_ms", "end_ms", "sip_status", "q850", "reason",
    "released_by", "codec", "mos", "loss_ratio", "discard_ratio", "jitter_ms", "rtt_ms", "packets_received",
    "packets_sent", "cpe_model", "cpe_firmware", "probe_id",
)  # fmt: skip
LACKS = (
    "No trunk, no access and no silence before the end; media only where phones or relays send RTCP reports and the "
    "agent captures them. A call whose BYE never came ends at its session timer, as a conclusion."
)


def open_hep(options: Options) -> "HepReader":
    """Open one stream of HEP3 packets.

    Raises:
        ConfigError: there is no key for tokens, or a customers' network is none.
    """
    if options.tokens is None:
        raise ConfigError(["input.tokens: must give a key, as parties of calls become tokens; none was found"])
    return HepReader(Customers(options.tokens, options.customer_networks))


class HepReader:
    """One open stream of HEP3 packets. See `schemas.formats` for what every format keeps.

    Args:
        customers: who of the two parties is one, and under which name.
        calls_max: so many calls are followed at once.

    Attributes:
        position: packets read so far, broken ones included.
    """

    def __init__(self, customers: Customers, calls_max: int = CALLS_MAX) -> None:
        self._table = CallTable(customers, calls_max)
        self._packets = PacketReader()
        self._held = b""
        self._junk = b""
        self._junk_bytes = 0
        self._why = (DeadReason.NOT_JSON, "")
        self.position = 0

    @property
    def counts(self) -> Counts:
        """What became of packets."""
        return self._table.counts

    @property
    def open_calls(self) -> int:
        """How many calls are in the table, those just over included."""
        return self._table.open_calls

    def snapshot(self) -> bytes:
        """Return the open calls; to be asked after `settle` alone."""
        return self._table.snapshot()

    def restore(self, data: bytes) -> None:
        """Take over the open calls.

        Raises:
            ValueError: the data are no snapshot.
        """
        self._table.restore(data)

    def feed(self, chunk: bytes) -> list[Converted | Reject]:
        """Take the next bytes; return what they completed."""
        data = self._held + chunk if self._held else chunk
        items: list[Converted | Reject] = []
        at = self._read(data, items, ended=False)
        self._held = data[at:]
        return items

    def settle(self) -> list[Converted | Reject]:
        """Say that what comes next begins with a packet; return what is left of broken ones."""
        items: list[Converted | Reject] = []
        self._read(self._held, items, ended=True)
        self._held = b""
        self._end_junk(items)
        return items

    def turn(self, *, torn: bool = False) -> list[Converted | Reject]:
        """Say that another file begins; return what was left of broken packets. Calls stay open.

        Args:
            torn: the file broke off: half a packet at its end is lost with what was behind it.
        """
        left = self.settle()
        return [] if torn else left

    def finish(self) -> list[Converted | Reject]:
        """Return what was still open at the end."""
        return self.settle() + [self._item(one) for one in self._table.finish()]

    def _read(self, data: bytes, items: list[Converted | Reject], *, ended: bool) -> int:
        """Read packets as far as they are whole; return where the first one begins that is not."""
        at, length = 0, len(data)
        while at < length:
            if not data.startswith(MAGIC, at):
                upto = _next_magic(data, at, ended=ended)
                self._add_junk(data[at:upto], DeadReason.NOT_JSON, "a packet must begin with HEP3, did not")
                if upto == at:
                    break
                at = upto
                continue
            try:
                size = packet_bytes(data, at)
                if (size == 0 or at + size > length) and not ended:
                    break
                packet = self._packets.read(data, at, at + size)
            except BadPacketError as error:
                self._end_junk(items)
                self._add_junk(data[at : at + len(MAGIC)], error.reason, error.detail)
                at += len(MAGIC)
                continue
            self._end_junk(items)
            self.position += 1
            try:
                made = self._table.take(packet)
            except BadPacketError as error:
                record = data[at : at + size]
                items.append(Reject(self.position, error.reason, error.detail, masked_binary(record[:HEAD_BYTES])))
            else:
                if made:
                    items += [self._item(one) for one in made]
            at += size
        return at

    def _item(self, made: bytes | GivenUp) -> Converted | Reject:
        if isinstance(made, bytes):
            return Converted(self.position, made, made)
        return Reject(self.position, made.reason, made.detail, made.draft)

    def _add_junk(self, data: bytes, reason: DeadReason, detail: str) -> None:
        if not data:
            return
        if not self._junk_bytes:
            self._why = reason, detail
        self._junk_bytes += len(data)
        self._junk = (self._junk + data)[:HEAD_BYTES]

    def _end_junk(self, items: list[Converted | Reject]) -> None:
        """Make one dead letter of the bytes between two packets."""
        if self._junk_bytes:
            self.position += 1
            items.append(Reject(self.position, *self._why, masked_binary(self._junk)))
            self._junk, self._junk_bytes = b"", 0


def _next_magic(data: bytes, at: int, *, ended: bool) -> int:
    """Return where the next packet may begin; at the end of the data, where its first letters may stand."""
    found = data.find(MAGIC, at)
    if found >= 0:
        return found
    if not ended:
        for size in range(len(MAGIC) - 1, 0, -1):
            if data.endswith(MAGIC[:size]):
                return max(len(data) - size, at)
    return len(data)
