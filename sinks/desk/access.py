"""Who asks, whether they may, and how often: held against every request before its handler sees it."""

import hmac
import inspect
from collections.abc import Awaitable, Callable
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final, Literal
from urllib.parse import urlencode

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sinks.desk.people import SCOPES, People, Person, Scope
from sinks.outputs import Clock

Handler = Callable[[Request], Response] | Callable[[Request], Awaitable[Response]]

Pace = Literal["read", "write", "reveal", "login"]

PACES: Final[dict[Pace, tuple[int, float]]] = {
    "read": (240, 8.0),
    "write": (60, 1.0),
    "reveal": (20, 20 / 3_600),
    "login": (20, 0.2),
}
"""How many requests a person (before a login: an address) may send at once, and how many a second after those."""

LOCAL: Final = "local"

PEOPLE_MAX: Final = 10_000
"""So many buckets are kept; the one not used for longest gives way."""


class Limits:
    """A token bucket for each person and pace.

    Args:
        clock: Unix milliseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, Pace], tuple[float, int]] = {}

    def wait_s(self, who: str, pace: Pace) -> int:
        """Take one request out of a bucket; return how long to wait where it is empty, else 0."""
        burst, rate = PACES[pace]
        now_ms = self._clock()
        left, then_ms = self._buckets.pop((who, pace), (float(burst), now_ms))
        left = min(left + rate * max(now_ms - then_ms, 0) / 1000.0, burst)
        self._buckets[who, pace] = (left - 1.0 if left >= 1.0 else left, now_ms)
        while len(self._buckets) > PEOPLE_MAX:
            del self._buckets[next(iter(self._buckets))]
        return 0 if left >= 1.0 else int((1.0 - left) / rate) + 1


class Access(Struct, frozen=True):
    """How people get in.

    Attributes:
        people: sessions and keys.
        limits: how often each may ask.
        public_url: where browsers reach the desk; None: there is no login, whoever is on this machine may do all.
    """

    people: People
    limits: Limits
    public_url: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether there is no login."""
        return self.public_url is None

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by HTTPS."""
        return self.public_url is not None and self.public_url.startswith("https://")

    @property
    def cookie(self) -> str:
        """Name of the session's cookie: bound to this host and to HTTPS where there is HTTPS (RFC 6265bis)."""
        return "__Host-stayline" if self.is_secure else "stayline-desk"

    def guarded(self, scope: Scope | None, handler: Handler, pace: Pace = "read") -> Callable[..., Awaitable[Response]]:
        """Return a handler that only those with a scope reach; None: everybody.

        Handlers that are no coroutines run in a worker thread, as the store blocks. They find who asks in
        `request.state.person`.
        """

        async def endpoint(request: Request) -> Response:
            try:
                person = await run_in_threadpool(self._person, request)
            except HTTPException:
                # Whoever tries keys is as slow as whoever tries to log in.
                self._hold(_address(request), "login")
                raise
            self._hold(person.who if person is not None and person.who != LOCAL else _address(request), pace)
            if scope is not None and person is None:
                return _login_first(request)
            if scope is not None and person is not None and scope not in person.scopes:
                raise HTTPException(403, "not_allowed")
            request.state.person = person
            if inspect.iscoroutinefunction(handler):
                answer: Response = await handler(request)
            else:
                answer = await run_in_threadpool(handler, request)  # type: ignore[arg-type]  # it is no coroutine
            return answer

        return endpoint

    def may_stay(self, request: Request) -> bool:
        """Return whether a request that was let in to read would be now: its session or key may have ended."""
        try:
            person = self._person(request)
        except HTTPException:
            return False
        return person is not None and "read" in person.scopes

    def _hold(self, who: str, pace: Pace) -> None:
        wait_s = self.limits.wait_s(who, pace)
        if wait_s:
            raise HTTPException(429, "slow_down", {"retry-after": str(wait_s)})

    def _person(self, request: Request) -> Person | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme:
            # Whoever shows a key is that key, or nobody: a wrong one must not fall back on a cookie.
            found = self.people.key(key.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                raise HTTPException(401, "wrong_key", {"www-authenticate": "Bearer"})
            return found
        value = request.cookies.get(self.cookie, "")
        if self.is_local:
            # Nobody is logged in, but forms still need a token that only our pages know.
            return Person(LOCAL, "", SCOPES["admin"], value or token_urlsafe(32))
        return self.people.session(value) if value else None

    def set_cookie(self, response: Response, value: str) -> None:
        """Give the browser its session, which no script and no other site's page gets to see."""
        # Lax, not strict: the way back from the identity provider is a navigation from another site.
        response.set_cookie(self.cookie, value, path="/", httponly=True, samesite="lax", secure=self.is_secure)


def form_token(person: Person) -> str:
    """Return the token that forms of this session carry: only a page of ours could have read it."""
    return hmac.new(person.session.encode(), b"form", sha256).hexdigest()


def check_form(request: Request, token: str) -> None:
    """Hold a form against the session's token, and against the page that it says it comes from.

    Raises:
        HTTPException: 403.
    """
    check_origin(request)
    person: Person = request.state.person
    if not person.session or not hmac.compare_digest(form_token(person).encode(), token.encode()):
        raise HTTPException(403, "foreign_form")


def check_origin(request: Request) -> None:
    """Refuse what another page sent: cookies know no port, so a program on this machine could set ours.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    host = request.headers["host"].lower()
    if origin is not None and origin.lower() not in {f"http://{host}", f"https://{host}"}:
        raise HTTPException(403, "foreign_form")


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _login_first(request: Request) -> Response:
    # A script of a page that is still open after its session gains nothing from the way to the provider.
    is_script = request.headers.get("sec-fetch-mode", "navigate") != "navigate"
    if is_script or request.url.path.startswith("/api/") or request.method != "GET":
        raise HTTPException(401, "login_first", {"www-authenticate": "Bearer"})
    return RedirectResponse(f"/login?{urlencode({'back': request.url.path})}", 303)
