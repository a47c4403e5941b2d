"""Who may talk to the desk, and what a browser may do with its pages.

The desk has no login yet. So it answers on the loopback interface only, to a name of this machine only (a page on
the web could point a name of its own at 127.0.0.1: DNS rebinding), and it takes forms only from its own pages.
"""

import hmac
import ipaddress
import re
import secrets
import urllib.parse
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import ConfigError

_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
"""A Host header (RFC 9110, section 7.2): a name or an address, and a port."""

FORM_BYTES_MAX: Final = 8_192
"""A form is some two hundred bytes."""

FORM_FIELDS_MAX: Final = 16

CSRF_COOKIE: Final = "stayline_desk_form"

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    # Not `no-referrer`: under that a browser sends forms with `Origin: null`, and `check_form` could not tell them.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""On every answer."""


def is_loopback(host: str) -> bool:
    """Return whether a host, as an address or as `localhost`, is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listen(host: str) -> None:
    """Hold the configured address against what a desk without login may listen on.

    Raises:
        ConfigError: it is not on the loopback interface.
    """
    if not is_loopback(host):
        raise ConfigError([f"desk.listen: must be a loopback address, as the desk has no login, was {host}"])


class Guard:
    """Refuses who is not on this machine or calls it by a foreign name, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer: ASGIApp = _refusal(scope) or self._app
        await answer(scope, receive, send_guarded)


def _refusal(scope: Scope) -> Response | None:
    client = scope.get("client")
    if client is None or not is_loopback(client[0]):
        return PlainTextResponse("This desk answers on its own machine only.\n", 403)
    hosts = Headers(scope=scope).getlist("host")
    if len(hosts) != 1 or not is_loopback(_host_name(hosts[0])):
        return PlainTextResponse("This desk answers to localhost or a loopback address only.\n", 421)
    return None


def _host_name(host: str) -> str:
    """Return the name in a Host header, empty if it is none."""
    match = _HOST.fullmatch(host)
    return match.group(1).strip("[]") if match is not None else ""


async def read_form(request: Request) -> dict[str, str]:
    """Read a small form, each field once.

    Raises:
        HTTPException: 415 if it is no form, 413 if it is large, 400 if it cannot be read.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise HTTPException(415, "A form must be application/x-www-form-urlencoded.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES_MAX:
            raise HTTPException(413, f"A form must be at most {FORM_BYTES_MAX} bytes, was longer.")
    try:
        text = body.decode("ascii")
        fields = urllib.parse.parse_qs(text, errors="strict", max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise HTTPException(400, "A form must be readable, this one was not.") from None
    if any(len(values) > 1 for values in fields.values()):
        raise HTTPException(400, "A form must name each field once.")
    return {name: values[0] for name, values in fields.items()}


def form_token(request: Request) -> str:
    """Return the token that this browser's forms carry: the cookie's, or a new one."""
    return request.cookies.get(CSRF_COOKIE) or secrets.token_urlsafe(32)


def set_form_token(response: Response, token: str) -> None:
    """Give the browser its token, which no script and no other site's page gets to see."""
    response.set_cookie(CSRF_COOKIE, token, path="/", httponly=True, samesite="strict")


def check_form(request: Request, form: Mapping[str, str]) -> None:
    """Hold a form against the double-submitted token, and against the page it says it comes from.

    Cookies know no port, so another program on this machine could set ours: the Origin header tells the two apart.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.headers['host']}":
        raise HTTPException(403, "This form came from another page. Open the case again and send it from there.")
    cookie = request.cookies.get(CSRF_COOKIE, "")
    if not cookie or not hmac.compare_digest(cookie.encode(), form.get("token", "").encode()):
        raise HTTPException(403, "This form is not from this browser. Open the case again and send it from there.")
