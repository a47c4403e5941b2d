"""Takes datagrams in a process of its own, so that none is lost while this one's interpreter is busy with earlier ones.

A thread would have to ask for the interpreter again after each datagram, and whoever computes lets go of it every few
milliseconds only; the kernel's buffer is full by then. Here datagrams wait in memory and go over in batches.

    kernel ──► drain: up to `HELD_BYTES_MAX` ──► stream: size, count, whole packets ──► listener
"""

import contextlib
import select
import signal
import socket
import struct
import subprocess
import sys
from collections import deque

from schemas.formats.hep.packets import HEAD_BYTES, MAGIC

HELD_BYTES_MAX = 256 << 20
"""So much waits here for a disk that is slow: four seconds of fifty thousand packets. Then the kernel counts."""

TAKEN_MAX = 1_024
"""Datagrams taken at once, before the stream is looked at; so many, or fewer, are a batch."""

DATAGRAM_BYTES = 65_536

HEAD = struct.Struct(">II")
"""Before each batch: its bytes, and how many packets they are."""


def started(udp: socket.socket, stream: socket.socket) -> "subprocess.Popen[bytes]":
    """Start to drain a socket into a stream. The process ends when nobody holds the stream's other side any more."""
    # Not `multiprocessing`: it would import the program's main module once more.
    code = f"import sys; sys.path[:] = {sys.path!r}; from dataflows.inputs.drain import main; main()"
    descriptors = udp.fileno(), stream.fileno()
    return subprocess.Popen(  # noqa: S603  this interpreter, and our own code
        [sys.executable, "-c", code, *map(str, descriptors)], pass_fds=descriptors, start_new_session=True
    )


def main() -> None:
    """Drain the sockets that the program's arguments number."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Who ends the service ends its listener, which ends this.
        signal.signal(number, signal.SIG_IGN)
    drain(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))


def drain(udp: socket.socket, stream: socket.socket) -> None:
    """Pass on datagrams until the other side of the stream says that it ends; then what is still there, and end."""
    udp.settimeout(0)
    stream.settimeout(0)
    held: deque[memoryview] = deque()
    held_bytes, going = 0, True
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while going or held:
            wanted = [stream, *([udp] if held_bytes < HELD_BYTES_MAX else [])] if going else []
            readable, _, _ = select.select(wanted, [stream] if held else [], [])
            going = going and stream not in readable
            if udp in readable or not going:
                batch = taken(udp)
                while batch:
                    held.append(memoryview(batch))
                    held_bytes += len(batch)
                    batch = b"" if going else taken(udp)
            held_bytes -= _sent(stream, held)


def taken(udp: socket.socket) -> bytes:
    """Return a batch of the datagrams that have come; empty if none has."""
    packets: list[bytes] = []
    receive = udp.recv
    with contextlib.suppress(BlockingIOError):
        for _ in range(TAKEN_MAX):
            data = receive(DATAGRAM_BYTES)
            whole = data.startswith(MAGIC) and data[4:6] == len(data).to_bytes(2, "big")
            # A datagram is one packet: its true length is known, whatever it says itself.
            packets.append(data if whole else mended(data))
    body = b"".join(packets)
    return HEAD.pack(len(body), len(packets)) + body if packets else b""


def mended(data: bytes) -> bytes:
    """Make one packet of what is none, so that those beside it in the spool are read as they are.

    What begins like a packet gets its true length, and is read if that was all that was wrong. Anything else becomes
    the payload of a packet without time and protocol: a dead letter in its place.
    """
    data = data[: DATAGRAM_BYTES - 64]
    if data.startswith(MAGIC):
        data = data.ljust(HEAD_BYTES, b"\0")
        return MAGIC + struct.pack(">H", len(data)) + data[HEAD_BYTES:]
    return MAGIC + struct.pack(">HHHH", 12 + len(data), 0, 0x0F, 6 + len(data)) + data


def _sent(stream: socket.socket, held: deque[memoryview]) -> int:
    """Send what the stream takes; return how many bytes that was."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while held:
            count = stream.send(held[0])
            sent += count
            held[0] = held[0][count:]
            if not held[0]:
                held.popleft()
    return sent
