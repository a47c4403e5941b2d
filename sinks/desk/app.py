"""The CSR desk as a web application: which paths there are, and what each of them asks of who comes."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from schemas.errors import StateError
from sinks.desk.access import Access, Handler, Limits, Pace
from sinks.desk.api import PREFIX, Api, problem, unavailable
from sinks.desk.figures import ReadFigures
from sinks.desk.guard import Guard, set_headers
from sinks.desk.live import Streams
from sinks.desk.login import CALLBACK, Doors
from sinks.desk.oidc import Provider, Settings
from sinks.desk.openapi import document
from sinks.desk.people import People, Scope
from sinks.desk.store import DeskStore
from sinks.desk.views import Resolver, TakeOutcome, TalkTracks, Views
from sinks.outputs import OutputDownError


class Way(Struct, frozen=True):
    """One path of the desk: what must be allowed to who comes (None: nothing), and how often they may come."""

    path: str
    handler: Handler
    scope: Scope | None
    method: Literal["GET", "POST"] = "GET"
    pace: Pace = "read"


def desk_application(
    store: DeskStore,
    take_outcome: TakeOutcome,
    *,
    figures: ReadFigures | None = None,
    resolver: Resolver | None = None,
    public_url: str | None = None,
    oidc: Settings | None = None,
    talks: TalkTracks | None = None,
    timezone: str = "UTC",
) -> Starlette:
    """Return the desk.

    `application.state.streams.close()` ends the live streams; call it before stopping the server, which waits for
    them.

    Args:
        store: the cases.
        take_outcome: takes one outcome and returns when it is durable. Called in a worker thread. What it raises of
            `StateError` and `OutputDownError` is shown as 503, and nothing is recorded.
        figures: tells of the deployment, for the operations view.
        resolver: knows who customers are.
        public_url: where browsers reach a desk with login; None: a desk without, on this machine alone.
        talks: says what to say in other languages.
        timezone: what customers call a day and an hour (IANA).
        oidc: who knows the people of a desk with login; None: nobody logs in, and keys alone are let in.
    """
    streams = Streams(store)
    access = Access(People(store), Limits(store.clock), public_url)
    views = Views(store, access, take_outcome, streams, figures, resolver, talks, timezone)
    api = Api(store, access, take_outcome, figures)
    doors: list[Way] = []
    if public_url is not None and oidc is not None:
        doors = login_ways(Doors(access, Provider(oidc, f"{public_url}{CALLBACK}", store.clock)))
    application = Starlette(
        routes=[
            *_routes(access, [*ways(views), *api_ways(api, views), *doors]),
            Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
        ],
        middleware=[Middleware(Guard, public_url=public_url)],
        exception_handlers={
            HTTPException: partial(_refused, views),
            StateError: partial(_unavailable, views),
            OutputDownError: partial(_unavailable, views),
            Exception: partial(_broken, views, public_url),
        },
    )
    application.state.streams = streams
    return application


def ways(views: Views) -> list[Way]:
    """List the paths of the pages."""
    return [
        Way("/", views.feed, "read"),
        Way("/network", views.network, "read"),
        Way("/audit", views.audit, "audit"),
        Way("/keys", views.keys, "keys"),
        Way("/keys", views.make_key, "keys", "POST", "write"),
        Way("/keys/revoke", views.revoke_key, "keys", "POST", "write"),
        Way("/cases/{alert_id:path}/actions", views.act, "act", "POST", "write"),
        Way("/cases/{alert_id:path}/identity", views.identity, "reveal", "POST", "reveal"),
        Way("/cases/{alert_id:path}", views.case, "read"),
        Way("/events", views.events, "read"),
        Way("/language/{code}", views.language, None),
        Way("/healthz", views.health, None),
    ]


def api_ways(api: Api, views: Views) -> list[Way]:
    """List the paths of the interface for programs."""
    return [
        Way(f"{PREFIX}/alerts", api.alerts, "read"),
        Way(f"{PREFIX}/alerts/{{alert_id:path}}/outcomes", api.do, "act", "POST", "write"),
        Way(f"{PREFIX}/alerts/{{alert_id:path}}", api.alert, "read"),
        Way(f"{PREFIX}/customers/{{customer_id:path}}", api.customer, "read"),
        Way(f"{PREFIX}/incidents", api.incidents, "read"),
        Way(f"{PREFIX}/incidents/{{incident_id:path}}", api.incident, "read"),
        Way(f"{PREFIX}/outcomes", api.outcomes, "read"),
        Way(f"{PREFIX}/events", views.events, "read"),
        Way(f"{PREFIX}/openapi.json", _description, None),
    ]


def login_ways(doors: Doors) -> list[Way]:
    """List the paths by which people come in and go."""
    return [
        Way("/login", doors.login, None, "GET", "login"),
        Way(CALLBACK, doors.callback, None, "GET", "login"),
        Way("/logout", doors.logout, "read", "POST", "write"),
    ]


async def _description(_: Request) -> Response:
    return Response(document(), media_type="application/json")


async def _refused(views: Views, request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  it is registered for this alone
    code = {"Not Found": "no_page", "Method Not Allowed": "405"}.get(error.detail, error.detail)
    if request.url.path.startswith(PREFIX):
        return problem(error.status_code, code, error.headers)
    return views.refused(request, error.status_code, code, error.headers)


async def _unavailable(views: Views, request: Request, error: Exception) -> Response:
    return unavailable(error) if request.url.path.startswith(PREFIX) else views.unavailable(request, error)


async def _broken(views: Views, public_url: str | None, request: Request, _: Exception) -> Response:
    # Whoever serves the application logs the error itself. This answer alone does not come by the guard.
    is_api = request.url.path.startswith(PREFIX)
    answer = problem(500, "broken") if is_api else views.refused(request, 500, "broken", None)
    set_headers(answer.headers, request.url.path, public_url)
    return answer


def _routes(access: Access, given: list[Way]) -> list[Route]:
    """Make one route of each path, so that what a path may not be asked for is answered with all that it may be."""
    found: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
    for way in given:
        found.setdefault(way.path, {})[way.method] = access.guarded(way.scope, way.handler, way.pace)
    return [Route(path, partial(_dispatched, endpoints), methods=list(endpoints)) for path, endpoints in found.items()]


async def _dispatched(endpoints: dict[str, Callable[[Request], Awaitable[Response]]], request: Request) -> Response:
    return await endpoints["GET" if request.method == "HEAD" else request.method](request)
