"""The CSR desk as a web application: the feed, the cards, the outcomes, and the live stream."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import structlog
from msgspec import to_builtins
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from schemas.errors import StateError
from schemas.events import Outcome
from sinks.desk import pages
from sinks.desk.cards import CaseFile, Filter
from sinks.desk.live import Streams
from sinks.desk.security import Guard, check_form, form_token, read_form, set_form_token
from sinks.desk.store import DeskStore
from sinks.desk.words import case_path
from sinks.outputs import Clock, OutputDownError

PAGES_MAX: Final = 10_000

SEQ_DIGITS_MAX: Final = 18
"""Digits of a feed sequence that surely fit into 64 bits."""

OFFERED: Final = frozenset({"accepted", "declined"})
"""Results that are about a remedy."""

NO_OFFER: Final = frozenset({"unreachable", "not_needed"})
"""Results of a contact in which no remedy was put to the customer."""

TITLES: Final = {
    400: "This could not be read",
    403: "This is not allowed",
    404: "There is nothing here",
    405: "This is not how to ask",
    413: "This is too large",
    415: "This is not a form",
    503: "The desk cannot answer now",
}


def desk_application(store: DeskStore, take_outcome: Callable[[bytes], None], clock: Clock) -> Starlette:
    """Return the desk.

    `application.state.streams.close()` ends the live streams; call it before stopping the server, which waits for
    them.

    Args:
        store: the cases.
        take_outcome: takes one `outcome` event (a line of JSON with its line end) and returns when it is durable.
            Called in a worker thread. What it raises of `StateError` and `OutputDownError` is shown as 503, and the
            outcome is not recorded.
        clock: Unix milliseconds, for `at_ms` of outcomes.
    """
    streams = Streams(store)
    desk = _Desk(store, take_outcome, clock, streams)
    application = Starlette(
        routes=[
            Route("/", desk.feed),
            Route("/cases/{alert_id:path}/outcome", desk.outcome, methods=["POST"]),
            Route("/cases/{alert_id:path}", desk.case),
            Route("/events", desk.events),
            Route("/healthz", desk.health),
            Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
        ],
        middleware=[Middleware(Guard)],
        exception_handlers={HTTPException: _refused, StateError: _unavailable, OutputDownError: _unavailable},
    )
    application.state.streams = streams
    return application


class _Desk:
    """The handlers. Those that are no coroutines run in worker threads, as the store blocks."""

    def __init__(self, store: DeskStore, take_outcome: Callable[[bytes], None], clock: Clock, streams: Streams) -> None:
        self._store = store
        self._take_outcome = take_outcome
        self._clock = clock
        self._streams = streams

    def feed(self, request: Request) -> Response:
        wanted, page = _read_query(request.query_params)
        # First: what changes while the page is made comes again in the live feed, and nothing is missed.
        seq = self._store.newest_seq()
        cards = self._store.cases(wanted, pages.PAGE_CASES, pages.PAGE_CASES * (page - 1))
        total = self._store.count(wanted)
        html = pages.feed_page(cards, total, self._store.counts(), self._store.incidents(), wanted, page, seq)
        return HTMLResponse(html)

    def case(self, request: Request) -> Response:
        file = self._known(request.path_params["alert_id"])
        named = file.card.alert.incident_id
        incident = None if named is None else self._store.incident(named)
        token = form_token(request)
        response = HTMLResponse(pages.case_page(file, incident, token, request.query_params.get("recorded", "")))
        set_form_token(response, token)
        return response

    async def outcome(self, request: Request) -> Response:
        form = await read_form(request)
        check_form(request, form)
        return await run_in_threadpool(self._record, request, form)

    async def events(self, request: Request) -> Response:
        # A browser that comes back by itself sends the header; a page that opens a stream, the parameter.
        since = request.headers.get("last-event-id", request.query_params.get("since", ""))
        is_number = since.isascii() and since.isdigit() and len(since) <= SEQ_DIGITS_MAX
        stream = await self._streams.follow(int(since) if is_number else None)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    def health(self, _: Request) -> Response:
        self._store.newest_seq()
        return PlainTextResponse("ok\n")

    def _record(self, request: Request, form: Mapping[str, str]) -> Response:
        file = self._known(request.path_params["alert_id"])
        outcome, seen = _read_outcome(form, file, self._clock())
        line = orjson.dumps(_without_none(outcome), option=orjson.OPT_APPEND_NEWLINE)
        stands = self._store.record_outcome(outcome, seen, lambda: self._take_outcome(line))
        recorded = outcome.result if stands else pages.CONFLICT
        return RedirectResponse(f"{case_path(outcome.alert_id)}?recorded={recorded}", 303)

    def _known(self, alert_id: str) -> CaseFile:
        file = self._store.case(alert_id)
        if file is None:
            raise HTTPException(404, "No such case is known at this desk. It may have been erased.")
        return file


def _read_query(query: Mapping[str, str]) -> tuple[Filter, int]:
    """Read what the feed is asked for; an empty field asks for nothing."""
    given = {name: value.strip() for name, value in query.items() if value.strip()}
    # Who looks for a customer wants all there is about them.
    given.setdefault("show", "all" if "customer" in given else "to_call")
    page = given.pop("page", "1")
    try:
        wanted = msgspec.convert(given, Filter)
    except msgspec.ValidationError as error:
        raise HTTPException(400, f"The address asks for what the desk does not have: {error}") from None
    if not (page.isascii() and page.isdigit() and 1 <= int(page[:6]) <= PAGES_MAX):
        raise HTTPException(400, f"page must be from 1 to {PAGES_MAX}, was another.")
    return wanted, int(page[:6])


def _read_outcome(form: Mapping[str, str], file: CaseFile, now_ms: int) -> tuple[Outcome, int]:
    """Read the form of a contact: the event, and how many contacts its page had shown.

    Raises:
        HTTPException: 400.
    """
    result, remedy_id = form.get("result", ""), form.get("remedy_id")
    if result in NO_OFFER:
        remedy_id = None
    known = {remedy.remedy_id for each in file.revisions for remedy in each.alert.remedies}
    if (result in OFFERED and remedy_id is None) or (remedy_id is not None and remedy_id not in known):
        raise HTTPException(400, "The form must name one of the remedies of this case.")
    seen = form.get("seen", "")
    if not (seen.isascii() and seen.isdigit() and len(seen) <= SEQ_DIGITS_MAX):
        raise HTTPException(400, "The form must say how many contacts its page had shown.")
    event = {"type": "outcome", "alert_id": file.card.alert.alert_id, "at_ms": now_ms, "result": result}
    try:
        return msgspec.convert({**event, "remedy_id": remedy_id}, Outcome), int(seen)
    except msgspec.ValidationError as error:
        raise HTTPException(400, f"The form must hold an outcome: {error}") from None


def _without_none(outcome: Outcome) -> dict[str, object]:
    return {name: value for name, value in to_builtins(outcome).items() if value is not None}


async def _refused(_: Request, error: Any) -> Response:
    html = pages.message_page(error.status_code, TITLES.get(error.status_code, "This did not work"), error.detail)
    return HTMLResponse(html, error.status_code, error.headers)


async def _unavailable(_: Request, error: Exception) -> Response:
    # The error's text names a path on disk: for the log, not for the page.
    structlog.get_logger().error("desk_unavailable", error=str(error))
    text = "The desk's store cannot be used at the moment. Nothing was recorded. Try again in a minute."
    html = pages.message_page(503, TITLES[503], text)
    return HTMLResponse(html, 503, {"retry-after": "60"})
