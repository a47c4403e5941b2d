"""The HTTP face of a deployment: events in, and the metrics out. Loopback unless configured otherwise."""

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dataflows.inputs.spool import Spool
from dataflows.logs import log
from dataflows.metrics import Gauges
from schemas.errors import ConfigError, StateError

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


def events_application(spool: Spool) -> Starlette:
    """Return the application that takes `POST /v1/events`: NDJSON, on disk before the answer.

    202: taken. 400: empty. 403: from a web page. 413: larger than `BODY_BYTES_MAX`. 415: compressed. 503: there is no
    room or no disk; the same request may come again. Records are judged when they are read: a broken one becomes a
    dead letter, its neighbours are applied.
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
            await run_in_threadpool(spool.append, bytes(body))
        except StateError as error:
            log("events.refused", error=str(error))
            return _problem(503, "the records could not be stored, none of them was taken", RETRY_S)
        return JSONResponse({"records": sum(1 for line in body.split(b"\n") if line.strip())}, 202)

    return Starlette(routes=[Route("/v1/events", events, methods=["POST"]), Route("/healthz", _healthy)])


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
