"""The HTTP face of a deployment: events in, and the metrics out. Loopback unless configured otherwise.

Where `input.format` is a vendor's, each request's body is an input of its own, as a file is: it is converted at the
door, so that what lies in the spool are events with tokens in them and no number. What could not be converted lies
beside them, masked, as a line of its own that begins with `!`, and becomes a dead letter when it is read.
"""

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dataflows.inputs.chunks import Chunk
from dataflows.inputs.files import Cut, Place
from dataflows.inputs.spool import Spool
from dataflows.logs import log
from dataflows.metrics import Gauges
from schemas.deadletters import DeadReason, Reject
from schemas.errors import ConfigError, InputError, StateError
from schemas.formats import Converted, Format

STOP_S = 5.0
"""How long requests that have begun may take to end."""

RETRY_S = 10
"""When a sender that met a full spool should come again."""

BODY_BYTES_MAX = 16 << 20
"""A request may be this large: some thirty thousand calls."""


class Server:
    """One ASGI application on one address, in a thread of its own.

    Args:
        before_stop: ends what would otherwise keep the server waiting.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(
        self, application: Starlette, host: str, port: int, before_stop: Callable[[], None] = lambda: None
    ) -> None:
        self._before_stop = before_stop
        config = uvicorn.Config(application, host=host, port=port, log_config=None, lifespan="off", access_log=False)
        self._server = uvicorn.Server(config)
        try:
            self._socket = socket.create_server((host, port), family=_family(host))
        except OSError as error:
            raise ConfigError([f"listen: must be a free address, was {host}:{port}: {error.strerror}"]) from None
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name=f"http {self.address}", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what has begun, then end."""
        self._before_stop()
        self._server.should_exit = True
        self._thread.join(timeout=STOP_S)
        self._socket.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


Opener = Callable[[], Format]
"""Opens a vendor's format for one request."""

_REFUSED = b"!"


class _Refused(msgspec.Struct, frozen=True):
    """A record that could not be converted, as it lies in the spool."""

    reason: DeadReason
    detail: str
    record_b64: str


_refused = msgspec.json.Decoder(_Refused)


def items_of(body: bytes, open_format: Opener) -> list[Converted | Reject]:
    """Convert a request's body.

    Raises:
        InputError: the body as a whole is not in this format.
    """
    reader = open_format()
    return [*reader.feed(body), *reader.finish()]


def _lines(items: list[Converted | Reject]) -> bytes:
    """Write what a body gave as lines of the spool."""
    return b"".join(item.line + b"\n" if isinstance(item, Converted) else _line_of(item) for item in items)


def _line_of(reject: Reject) -> bytes:
    where = f"{reject.detail}; record {reject.position} of its request"
    shown = _Refused(reject.reason, where, base64.b64encode(reject.record).decode("ascii"))
    return _REFUSED + msgspec.json.encode(shown) + b"\n"


def read_converted(spool: Spool, place: Place) -> Iterator[Cut | None]:
    """Give what was converted at the door from a place on, for ever; None where there is nothing new yet.

    Raises:
        StateError: what was appended there is gone (on iteration).
    """
    for cut in spool.read(place):
        yield cut if cut is None else Cut(_sorted(cut.chunk), cut.place)


def _sorted(chunk: Chunk) -> Chunk:
    """Tell events from what could not be converted."""
    assert isinstance(chunk.data, bytes)  # noqa: S101  a spool gives lines
    if not chunk.data.startswith(_REFUSED) and b"\n" + _REFUSED not in chunk.data:
        return chunk
    lines: list[bytes] = []
    positions: list[int] = []
    rejects: list[Reject] = []
    for position, line in zip(chunk.positions, chunk.data.splitlines(keepends=True), strict=True):
        try:
            found = _refused.decode(line[1:]) if line.startswith(_REFUSED) else None
            record = b"" if found is None else base64.b64decode(found.record_b64, validate=True)
        except ValueError:
            found = None  # was not written here: a record like any other, for the decoder to refuse
        if found is None:
            lines.append(line)
            positions.append(position)
        else:
            rejects.append(Reject(position, found.reason, found.detail, record))
    return Chunk(chunk.source, chunk.name, b"".join(lines), positions, rejects=rejects)


def events_application(spool: Spool, open_format: Opener | None = None) -> Starlette:
    """Return the application that takes `POST /v1/events`: records, on disk before the answer.

    202: taken. 400: empty, or not in the format at all. 403: from a web page. 413: larger than `BODY_BYTES_MAX`. 415:
    compressed. 503: there is no room or no disk; the same request may come again. Records are judged when they are
    read: a broken one becomes a dead letter, its neighbours are applied.

    Args:
        spool: takes the records.
        open_format: opens the vendor's format; None: a body is NDJSON of contract events.
    """

    async def events(request: Request) -> Response:
        if "origin" in request.headers:
            # A page on the web could send records here through the browser of somebody on this machine.
            return _problem(403, "records must come from a program, came from a web page")
        if request.headers.get("content-encoding", "identity") != "identity":
            return _problem(415, "a body must not be compressed, was")
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    return _problem(413, f"a body must be at most {BODY_BYTES_MAX} bytes, was longer")
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody hears: half a request is none
        if not body.strip():
            return _problem(400, "a body must hold at least one record, was empty")
        try:
            count = await run_in_threadpool(_taken, spool, bytes(body), open_format)
        except InputError as error:
            return _problem(400, str(error))
        except StateError as error:
            log("events.refused", error=str(error))
            return _problem(503, "the records could not be stored, none of them was taken", RETRY_S)
        return JSONResponse({"records": count}, 202)

    return Starlette(routes=[Route("/v1/events", events, methods=["POST"]), Route("/healthz", _healthy)])


def _taken(spool: Spool, body: bytes, open_format: Opener | None) -> int:
    """Put a body into the spool; return how many records it held."""
    if open_format is None:
        spool.append(body)
        return sum(1 for line in body.split(b"\n") if line.strip())
    items = items_of(body, open_format)
    if items:
        spool.append(_lines(items))
    return len(items)


def metrics_application(gauges: Gauges) -> Starlette:
    """Return the application that answers `GET /metrics` in Prometheus' text format."""

    async def metrics(_: Request) -> Response:
        return Response(gauges.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", _healthy)])


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _problem(status: int, detail: str, retry_s: int | None = None) -> Response:
    """Answer with a problem document (RFC 9457)."""
    title = HTTPStatus(status).phrase
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status,
        None if retry_s is None else {"retry-after": str(retry_s)},
        media_type="application/problem+json",
    )
