"""One POST, over connections that are made to tested addresses only.

`httpcore2` is the layer under `httpx2`: no redirects, cookies, proxies or environment to turn off, and its network
backend is the one place where connections come from.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpcore2
from msgspec.structs import replace

from schemas.errors import ConfigError
from sinks.webhook.guard import AddressRefusedError, Network, Place, Resolver, vetted_addresses
from sinks.webhook.policy import Answer

REPLY_BYTES_MAX = 65_536
"""How much of an answer is read; a longer one is cut off, and its connection closed."""

CONNECT_S = 4.0
"""How long one address may take to accept a connection, so that the next one gets its chance."""

KEEPALIVE_S = 4.0
"""An idle connection is closed after this: before common servers close it (5 s) into our next call."""


def tls_context(ca_file: Path | None, client_cert_file: Path | None) -> ssl.SSLContext:
    """Return the TLS settings: verification always, TLS 1.2 or later.

    Args:
        ca_file: certificate authorities (PEM) to trust instead of the system's.
        client_cert_file: certificate and key (PEM) to show to the receiver.

    Raises:
        ConfigError: a file cannot be read or is not PEM.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if client_cert_file is not None:
            context.load_cert_chain(client_cert_file)
    except OSError as error:
        raise ConfigError([f"{ca_file or client_cert_file}: must be a readable PEM file, found: {error}"]) from error
    return context


class Transport:
    """Posts to one place, over as many connections as there are posts at once.

    The library's pool looks through all its connections for each request, which at sixty of them is half the time of
    a delivery. One place needs no pool: an idle connection is as good as another.

    Args:
        place: where to.
        allowed: private ranges that may be reached.
        resolver: gives a name's addresses.
        tls: settings for `https`.
        timeout_s: for one attempt as a whole: a slow drip of an answer is no answer.
    """

    def __init__(
        self,
        place: Place,
        allowed: Sequence[Network],
        resolver: Resolver,
        tls: ssl.SSLContext | None,
        timeout_s: float,
    ) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._url = httpcore2.URL(scheme=place.scheme, host=place.host, port=place.port, target=place.target)
        self._backend = GuardedBackend(place, allowed, resolver)
        self._tls = tls
        self._idle: deque[httpcore2.AsyncHTTPConnection] = deque()

    async def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Post once. A failure of the far end or of the way there is an answer without a status.

        Once the status is there it is the answer, even if the rest of the reply never ends or breaks off.
        """
        lines = [("host", self._place.authority), ("content-length", str(len(body))), *headers]
        answer = None
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._connected() as connection,
                connection.stream("POST", self._url, headers=lines, content=body) as response,
            ):
                answer = Answer(response.status, "", _header(response, b"retry-after"))
                return replace(answer, text=await _beginning(response))
        except TimeoutError:
            found = f"no answer within {self._timeout_s:g} s"
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
            found = f"{type(error).__name__}: {error}"
        except (AddressRefusedError, OSError) as error:
            found = str(error)
        return Answer(None, found) if answer is None else answer

    async def close(self) -> None:
        """Close all connections; none is in use any more."""
        while self._idle:
            await self._idle.pop().aclose()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[httpcore2.AsyncHTTPConnection]:
        """Lend a connection: the one idle since last, or a new one. It is kept if it can be used again."""
        connection = await self._still_open() or httpcore2.AsyncHTTPConnection(
            self._url.origin, self._tls, KEEPALIVE_S, network_backend=self._backend
        )
        try:
            yield connection
        finally:
            if connection.is_available():
                self._idle.append(connection)
            else:
                await connection.aclose()

    async def _still_open(self) -> httpcore2.AsyncHTTPConnection | None:
        while self._idle and self._idle[0].has_expired():
            await self._idle.popleft().aclose()
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return None


def _header(response: httpcore2.Response, wanted: bytes) -> str | None:
    """Return the first header of a name."""
    return next((value.decode("latin-1") for name, value in response.headers if name.lower() == wanted), None)


async def _beginning(response: httpcore2.Response) -> str:
    """Read an answer's first bytes; leaving the rest unread closes the connection."""
    read = bytearray()
    async for part in response.aiter_stream():
        read += part
        if len(read) >= REPLY_BYTES_MAX:
            break
    return read[:REPLY_BYTES_MAX].decode("utf-8", "replace")


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Makes connections, each to an address that was tested just before."""

    def __init__(self, place: Place, allowed: Sequence[Network], resolver: Resolver) -> None:
        self._place = place
        self._allowed = allowed
        self._resolver = resolver

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002  the pool calls for one place only, and its name was tested as a whole
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  the attempt as a whole has one
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first vetted address that answers."""
        failures = []
        for address in await vetted_addresses(self._place, self._allowed, self._resolver):
            try:
                async with asyncio.timeout(CONNECT_S):
                    return _Stream(*await asyncio.open_connection(address, port))
            except TimeoutError:
                failures.append(f"no connection to {address} within {CONNECT_S:g} s")
            except OSError as error:
                failures.append(str(error))
        raise httpcore2.ConnectError("; ".join(failures))


class _Stream(httpcore2.AsyncNetworkStream):
    """An asyncio connection as `httpcore2` wants it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109
        try:
            return await self._reader.read(max_bytes)
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    async def aclose(self) -> None:
        # At once: a receiver that does not read must not keep the connection by it.
        self._writer.transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        try:
            await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except BaseException as error:
            self._writer.transport.abort()
            if isinstance(error, OSError):
                raise httpcore2.ConnectError(str(error)) from error
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # An idle connection that has something to say is one that the far end closed.
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info(info)
