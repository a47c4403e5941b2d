"""The HTTP face of a deployment: events in, and the metrics out. Loopback unless configured otherwise."""

import threading
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dataflows.spool import Spool
from schemas.errors import ConfigError

BODY_BYTES_MAX = 16 << 20
"""A request may be this large: some thirty thousand calls."""


class Server:
    """One ASGI application on one address, in a thread of its own.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, application: Starlette, host: str, port: int) -> None:
        config = uvicorn.Config(
            application, host=host, port=port, log_config=None, lifespan="off", access_log=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name=f"http-{port}", daemon=True)
        try:
            self._socket = config.bind_socket()
        except (OSError, SystemExit):
            raise ConfigError([f"listen: must be a free address, was {host}:{port}"]) from None
        self.address = f"{host}:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Answer what has begun, then end."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._socket.close()


def events_application(spool: Spool) -> Starlette:
    """Return the application that takes `POST /v1/events`: NDJSON, on disk before the answer.

    202: taken. 413: larger than `BODY_BYTES_MAX`. 400: empty. Records are judged when they are read: a broken one
    becomes a dead letter, its neighbours are applied.
    """

    async def events(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES_MAX:
                return _problem(413, f"a body must be at most {BODY_BYTES_MAX} bytes, was longer")
        if not body.strip():
            return _problem(400, "a body must hold at least one record, was empty")
        await _in_thread(lambda: spool.append(bytes(body)))
        return JSONResponse({"records": sum(1 for line in bytes(body).split(b"\n") if line.strip())}, 202)

    return Starlette(routes=[Route("/v1/events", events, methods=["POST"]), Route("/healthz", _healthy)])


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _in_thread(work: Callable[[], None]) -> None:
    from starlette.concurrency import run_in_threadpool

    run: Callable[..., Awaitable[None]] = run_in_threadpool
    await run(work)


def _problem(status: int, detail: str) -> Response:
    """Answer with a problem document (RFC 9457)."""
    return JSONResponse(
        {"type": "about:blank", "status": status, "detail": detail}, status, media_type="application/problem+json"
    )
