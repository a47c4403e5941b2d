"""HEP3 over UDP and TCP: what capture agents send is on disk before it is read, and open calls survive a restart.

    agents ──► drain ──► listener ──► spool: segments of packets ──► source: the format's reader ──► chunks

A line of the spool is a batch of whole packets in base64, so that the spool is the one that HTTP input has. Nobody
waits for an answer, so what comes over UDP comes as best it can: a process of its own takes it (`drain`), and what the
kernel dropped is counted.

Calls last for hours, longer than segments are kept. So beside each segment but the first lies the table of the calls
that were open where it begins. A restart takes that table, reads the segment again from there, and passes over what
had been given before: no call is lost, none begins twice, and no more than one segment is read again.
"""

import base64
import contextlib
import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dataflows.durable import replaced
from dataflows.inputs import drain
from dataflows.inputs.chunks import Chunk, converted
from dataflows.inputs.drain import DATAGRAM_BYTES, HEAD, mended
from dataflows.inputs.files import Cut, Place
from dataflows.inputs.spool import Spool
from dataflows.logs import log
from schemas.deadletters import Reject
from schemas.errors import ConfigError, StateError
from schemas.formats import Converted
from schemas.formats.hep import Counts, HepReader
from schemas.formats.hep.packets import HEAD_BYTES, MAGIC, BadPacketError, PacketReader, packet_bytes

FLUSH_S = 0.05
"""So long a packet waits for others before it is written: one fsync for them all."""

BATCH_BYTES = 512 << 10
"""A batch is written at this size whatever its age."""

RECEIVED_BYTES = 1 << 20
"""So much is taken from the stream at once."""

BUFFER_BYTES = 64 << 20
"""What the kernel is asked to hold while nobody takes it: a second of fifty thousand packets. Without the right to
more it gives what `net.core.rmem_max` allows."""

KEEPALIVE_S = 60
"""A connection that was silent for so long is asked whether it is still there."""

CONNECTIONS_MAX = 256
"""Agents by TCP."""

STOP_S = 5.0
RETRY_S = 0.25
"""How soon a full or failing disk is tried again."""


class Listener:
    """Takes packets on one address, over UDP and TCP, into a spool; in a thread of its own.

    Attributes:
        address: where it listens.
        received: packets and broken datagrams that were taken.
        lost: of these, those that could not be written before the end.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, spool: Spool, host: str, port: int) -> None:
        self._spool = spool
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._tcp = socket.create_server((host, port), family=family)
            self._udp = socket.socket(family, socket.SOCK_DGRAM)
            self._udp.bind((host, self._tcp.getsockname()[1]))
        except OSError as error:
            raise ConfigError([f"listen: must be a free address, was {host}:{port}: {error.strerror}"]) from None
        _enlarge(self._udp)
        self._tcp.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._tcp, selectors.EVENT_READ)
        self._stream: socket.socket | None = None
        self._drain: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._connections: dict[socket.socket, Framer] = {}
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._batch_count = 0
        self._batch_begun_s = 0.0
        self._stopping = threading.Event()
        self.address = f"{host}:{self._udp.getsockname()[1]}"
        self.received = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name=f"hep {self.address}", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._open_drain()
        self._thread.start()

    def stop(self) -> None:
        """Write what has come, then end."""
        self._stopping.set()
        self._thread.join(timeout=STOP_S)
        for one in (self._udp, self._tcp, *self._connections):
            one.close()
        self._selector.close()

    def dropped(self) -> int | None:
        """Return how many datagrams the kernel has dropped for want of room; None where it does not say."""
        try:
            inode = str(os.fstat(self._udp.fileno()).st_ino)
            table = Path("/proc/net/udp6" if self._udp.family == socket.AF_INET6 else "/proc/net/udp").read_text(
                "ascii"
            )
        except OSError:
            return None
        rows = (line.split() for line in table.splitlines()[1:])
        return next((int(row[12]) for row in rows if row[9] == inode), None)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(FLUSH_S):
                if key.fileobj is self._stream:
                    self._pass_on()
                elif key.fileobj is self._tcp:
                    self._accept()
                else:
                    self._receive(key.fileobj)  # type: ignore[arg-type]  # we registered sockets alone
            if self._batch and (self._batch_bytes >= BATCH_BYTES or time.monotonic() - self._batch_begun_s >= FLUSH_S):
                self._flush()
        self._close_drain()
        self._flush()

    def _open_drain(self) -> None:
        self._stream, theirs = socket.socketpair()
        self._stream.settimeout(0)
        self._unread = b""
        self._drain = drain.started(self._udp, theirs)
        theirs.close()
        self._selector.register(self._stream, selectors.EVENT_READ)

    def _pass_on(self) -> bool:
        """Take the batches that have come; return whether the drain is there."""
        assert self._stream is not None  # noqa: S101  open as long as this runs
        try:
            data = self._stream.recv(RECEIVED_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self._unread += data
        while len(self._unread) >= HEAD.size:
            size, count = HEAD.unpack_from(self._unread)
            if len(self._unread) < HEAD.size + size:
                break
            self._take(self._unread[HEAD.size : HEAD.size + size], count)
            self._unread = self._unread[HEAD.size + size :]
        if not data and not self._stopping.is_set():
            log("hep.drain_ended")
            self._end_drain()
            self._open_drain()
        return bool(data)

    def _close_drain(self) -> None:
        """Take what it still holds."""
        assert self._stream is not None  # noqa: S101  open as long as this runs
        self._stream.shutdown(socket.SHUT_WR)
        self._stream.settimeout(STOP_S / 2)
        while self._pass_on():
            pass
        self._end_drain()

    def _end_drain(self) -> None:
        assert self._stream is not None and self._drain is not None  # noqa: S101, PT018  likewise
        self._selector.unregister(self._stream)
        self._stream.close()
        try:
            self._drain.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._drain.kill()
            self._drain.wait()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._tcp.accept()
            if len(self._connections) >= CONNECTIONS_MAX:
                log("hep.connection_refused", connections=CONNECTIONS_MAX)
                connection.close()
                return
            connection.settimeout(0)
            _keep_asking(connection)
            self._connections[connection] = Framer()
            self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> None:
        framer = self._connections[connection]
        try:
            data = connection.recv(DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for packet in framer.feed(data) if data else framer.finish():
            self._take(packet)
        if not data:
            self._selector.unregister(connection)
            del self._connections[connection]
            connection.close()

    def _take(self, packets: bytes, count: int = 1) -> None:
        """Hold whole packets until they are written."""
        if not self._batch:
            self._batch_begun_s = time.monotonic()
        self._batch.append(packets)
        self._batch_bytes += len(packets)
        self._batch_count += count
        self.received += count

    def _flush(self) -> None:
        """Make the batch durable. While there is no room nothing is taken: TCP waits, the kernel counts the rest."""
        told = False
        while self._batch:
            try:
                self._spool.append(base64.b64encode(b"".join(self._batch)))
            except StateError as error:
                if not told:
                    log("hep.refused", error=str(error))
                told = True
                if self._stopping.wait(RETRY_S):
                    self.lost += self._batch_count
                    log("hep.lost", packets=self._batch_count)
                    break
            else:
                break
        self._batch, self._batch_bytes, self._batch_count = [], 0, 0


def _keep_asking(connection: socket.socket) -> None:
    """Let the kernel ask whether the peer is still there: one that lost its power says no word, and holds a place."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, KEEPALIVE_S), (socket.TCP_KEEPINTVL, KEEPALIVE_S // 4)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Framer:
    """Cuts what comes over one connection into packets; what is none comes `mended`."""

    def __init__(self) -> None:
        self._held = b""
        self._packets = PacketReader()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the packets that these bytes complete."""
        data, at = self._held + data, 0
        while len(data) - at >= HEAD_BYTES:
            size = self._whole(data, at)
            if size < 0:
                break
            # What is no packet ends where the next may begin, of whose name a part may be there.
            end = at + size if size else data.find(MAGIC, at + 1)
            end = end if end >= 0 else len(data) - len(MAGIC) + 1
            yield data[at:end] if size else mended(data[at:end])
            at = end
        self._held = data[at:]

    def finish(self) -> Iterator[bytes]:
        """Give what was left when the connection ended."""
        if self._held:
            yield mended(self._held)

    def _whole(self, data: bytes, at: int) -> int:
        """Return the length of the packet at a place; 0 if there is none, -1 if more is needed to know."""
        if not data.startswith(MAGIC, at):
            return 0
        try:
            size = packet_bytes(data, at)
            end = at + size
            if end > len(data):
                return -1
            if not data.startswith(MAGIC[: len(data) - end], end):
                # What follows is no packet: a length that lies, or garbage behind a good one.
                self._packets.read(data, at, end)
        except BadPacketError:
            return 0
        return size


class Source:
    """Reads a spool of packets as calls.

    Args:
        spool: holds the packets.
        folder: for the tables of open calls, one a segment; made if missing.
        reader: a fresh reader of the format.

    Raises:
        StateError: the folder cannot be written.
    """

    def __init__(self, spool: Spool, folder: Path, reader: HepReader) -> None:
        self.spool = spool
        self._folder = folder
        self._reader = reader
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StateError(f"{folder}: must be readable and writable, was not: {error.strerror}") from None

    @property
    def counts(self) -> Counts:
        """What became of packets."""
        return self._reader.counts

    @property
    def open_calls(self) -> int:
        """How many calls are in the table, those just over included."""
        return self._reader.open_calls

    def read(self, place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        """Give what came of the packets from a place on, for ever; None where there is nothing new yet.

        A place is a segment, how far it was read, and how many events and rejects it gave up to there.

        Raises:
            StateError: what was read before is gone or damaged (on iteration).
        """
        known = Place() if place is None else Place(*place)
        if place is not None:
            next(self.spool.read(known))  # which refuses a segment that has lost what was read of it
        number: int | None = None
        given = 0
        for cut in self.spool.read(Place(known.file)):
            if cut is None:
                yield None
                continue
            if number != cut.place.file:
                first, number, given = number is None, cut.place.file, 0
                self._begin(number, load=first)
            items = self._items(cut.chunk)
            given += len(items)
            again = number == known.file and cut.place.offset <= known.offset
            fresh = items[max(0, len(items) - max(0, given - known.line)) :] if number == known.file else items
            there = known if again else Place(number, cut.place.offset, given)
            yield Cut(converted("hep", f"{number:012d}.ndjson", fresh), there)

    def _items(self, chunk: Chunk) -> list[Converted | Reject]:
        """Read the batches of a chunk; each holds whole packets."""
        items: list[Converted | Reject] = []
        assert isinstance(chunk.data, bytes)  # noqa: S101  a spool gives lines
        for batch in chunk.data.split(b"\n"):
            try:
                packets = base64.b64decode(batch, validate=True)
            except ValueError:
                raise StateError(f"{chunk.name}: must be a spool of HEP packets, was not") from None
            items += self._reader.feed(packets)
            items += self._reader.settle()
        return items

    def passed(self, place: tuple[int, ...]) -> None:
        """Delete what no restart needs any more."""
        file = Place(*place).file
        self.spool.prune(file)
        for path in self._folder.glob("[0-9]*.calls"):
            if int(path.stem) < file:
                path.unlink(missing_ok=True)

    def _begin(self, number: int, *, load: bool) -> None:
        """Begin a segment: with the table that lies beside it, or, coming from the one before, by laying it there."""
        path = self._folder / f"{number:012d}.calls"
        self._reader.position = 0
        try:
            if not load:
                with replaced(path) as stream:
                    stream.write(self._reader.snapshot())
            elif number:
                self._reader.restore(path.read_bytes())
        except OSError as error:
            raise StateError(f"{path}: must be readable and writable, was not: {error.strerror}") from None
        except ValueError:
            raise StateError(f"{path}: must be an undamaged table of open calls, was not") from None


class Figures(Collector):
    """What Prometheus sees of the input."""

    def __init__(self, listener: Listener, source: Source) -> None:
        self._listener = listener
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it stands."""
        counts, listener = self._source.counts, self._listener
        for name, text, value in (
            ("stayline_hep_received_packets", "Packets taken, broken ones included.", listener.received),
            ("stayline_hep_lost_packets", "Packets taken and never written, for want of a disk.", listener.lost),
            ("stayline_hep_dropped_packets", "Datagrams that the kernel dropped for want of room.", listener.dropped()),
            ("stayline_hep_read_packets", "Packets read.", counts.packets),
            ("stayline_hep_other_packets", "Packets of protocols that are not read.", counts.other),
            ("stayline_hep_stray_packets", "Packets of calls whose beginning was not seen.", counts.strays),
            ("stayline_hep_calls", "Calls begun.", counts.calls),
            ("stayline_hep_foreign_calls", "Calls of nobody who is a customer.", counts.foreign),
            ("stayline_hep_expired_calls", "Calls that ended without a word.", counts.expired),
            ("stayline_hep_evicted_calls", "Open calls given up for want of room.", counts.evicted),
        ):
            if value is not None:
                counter = CounterMetricFamily(name, text)
                counter.add_metric([], value)
                yield counter
        for name, text, value in (
            ("stayline_hep_open_calls", "Calls in the table, those just over included.", self._source.open_calls),
            ("stayline_spool_bytes", "Bytes of packets that are kept.", self._source.spool.total_bytes),
        ):
            gauge = GaugeMetricFamily(name, text)
            gauge.add_metric([], value)
            yield gauge


def _enlarge(udp: socket.socket) -> None:
    """Ask the kernel for room. `SO_RCVBUFFORCE` needs a right that a deployment may lack."""
    force = getattr(socket, "SO_RCVBUFFORCE", 33)
    try:
        udp.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
    except OSError:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
