"""What a browser may do with the desk's pages, and by which names and from where the desk answers."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sinks.desk.api import PREFIX, problem
from sinks.desk.words import language

_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
"""A Host header (RFC 9110, section 7.2): a name or an address, and a port."""

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    # Not `no-referrer`: under that a browser sends forms with `Origin: null`, which could not be told from others'.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer."""

STATIC: Final = "/static/"
"""Under it lies nothing but what comes with the program."""


def is_loopback(host: str) -> bool:
    """Return whether a host, as an address or as `localhost`, is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Sets the headers of every answer, and refuses requests to a name that is not the desk's.

    A desk without login answers this machine alone, and to names of this machine alone: a page on the web could
    point a name of its own at 127.0.0.1 (DNS rebinding).

    Args:
        app: what is guarded.
        public_url: where browsers reach a desk with login; None: a desk without.
    """

    def __init__(self, app: ASGIApp, public_url: str | None) -> None:
        self._app = app
        self._public_url = public_url
        self._public = None if public_url is None else urlsplit(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                set_headers(MutableHeaders(scope=message), scope["path"], self._public_url)
            await send(message)

        answer: ASGIApp = self._refusal(scope) or self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        hosts = Headers(scope=scope).getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        client = scope.get("client")
        # Health checks come to the machine's own address, whatever browsers call it.
        if scope["path"] == "/healthz":
            return None
        if self._public is not None:
            known = host.lower() == self._public.netloc.lower()
            return None if known else _refused(scope, 421, "wrong_name")
        if client is None or not is_loopback(client[0]):
            return _refused(scope, 403, "wrong_place")
        if not is_loopback(_host_name(host)):
            return _refused(scope, 421, "not_loopback")
        return None


def set_headers(headers: MutableHeaders, path: str, public_url: str | None) -> None:
    """Set what every answer carries."""
    for name, value in HEADERS.items():
        headers[name] = value
    headers["cache-control"] = "no-cache" if path.startswith(STATIC) else "no-store"
    if public_url is not None and public_url.startswith("https://"):
        headers["strict-transport-security"] = "max-age=31536000"


def _refused(scope: Scope, status: int, code: str) -> Response:
    """Say why in plain words: pages are for those who may know that there is a desk."""
    if scope["path"].startswith(PREFIX):
        return problem(status, code)
    return PlainTextResponse(language("en").t(f"error.{code}") + "\n", status)


def _host_name(host: str) -> str:
    """Return the name in a Host header, empty if it is none."""
    match = _HOST.fullmatch(host)
    return match.group(1).strip("[]") if match is not None else ""
