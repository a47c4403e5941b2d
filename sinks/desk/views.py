"""The handlers of the desk's pages."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

import structlog
from msgspec import structs
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from schemas.alerts import Alert, Cause, Incident, Remedy
from schemas.events import Outcome
from sinks.desk import charts, pages
from sinks.desk.access import Access, check_form
from sinks.desk.actions import Done, do
from sinks.desk.cards import Card, CaseFile, Filter
from sinks.desk.figures import ReadFigures, by_now
from sinks.desk.forms import is_number, read_deed, read_filter, read_form, read_key, read_path, read_reason
from sinks.desk.live import UNKNOWN_SEQ, Streams
from sinks.desk.pages import Asking
from sinks.desk.people import Person
from sinks.desk.store import DeskStore
from sinks.desk.words import LANGUAGES, case_path, chosen_language, language
from sinks.outputs import OutputDownError

TakeOutcome = Callable[[Outcome], None]
"""Takes one outcome and returns when it is durable; may raise `StateError` or `OutputDownError`."""

LANGUAGE_COOKIE: Final = "stayline-language"

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
WINDOWS_HOURS: Final = (3, 6, 12, 24)
STEPS: Final = 36
"""Columns of the picture of cases found, over one of these windows."""

AUDIT_LINES: Final = 100


TalkTracks = Callable[[Remedy, Cause], Mapping[str, str]]
"""Gives what to say by language (primary subtag), as it was told first; nothing where that is not known."""


class Resolver(Protocol):
    """Knows who a customer is."""

    def identity(self, customer_id: str) -> str | None:
        """Return who stands behind a token, None if that is not known.

        Raises:
            OutputDownError: whoever knows does not answer.
        """


class Views:
    """The handlers. Those that are no coroutines run in worker threads, as the store blocks.

    Args:
        store: the cases.
        access: who may come in.
        take: takes what representatives report.
        streams: the live streams.
        figures: tells of the deployment; None: nobody does.
        resolver: knows who customers are; None: nobody does.
        talks: says the same in other languages; None: there is just what was told.
        timezone: what customers call a day and an hour (IANA).
    """

    def __init__(
        self,
        store: DeskStore,
        access: Access,
        take: TakeOutcome,
        streams: Streams,
        figures: ReadFigures | None,
        resolver: Resolver | None,
        talks: TalkTracks | None = None,
        timezone: str = "UTC",
    ) -> None:
        self._store = store
        self._access = access
        self._take = take
        self._streams = streams
        self._figures = figures
        self._resolver = resolver
        self._talks = talks
        self._timezone = timezone

    def feed(self, request: Request) -> Response:
        """The cases, and the open incidents."""
        person = person_of(request)
        wanted, page = read_filter(request.query_params, person)
        # First: what changes while the page is made comes again in the live feed, and nothing is missed.
        seq = self._store.newest_seq()
        counts, incidents = self._store.counts(person.who), by_now(self._store.incidents(), self._figures)
        html = pages.feed_page(
            self._asking(request),
            cards=self._store.cases(wanted, pages.PAGE_CASES, pages.PAGE_CASES * (page - 1)),
            total=self._store.count(wanted),
            counts=structs.replace(counts, customers_affected=sum(one.customers_affected for one in incidents)),
            incidents=incidents,
            found=self._found(),
            wanted=wanted,
            page=page,
            seq=seq,
        )
        return self._page(request, html)

    def case(self, request: Request) -> Response:
        """One case."""
        file = self._known(request)
        return self._page(request, self._case(request, file, done=request.query_params.get("done", "")))

    def network(self, request: Request) -> Response:
        """The operations view."""
        seq = self._store.newest_seq()
        found = self._found()
        incidents = self._store.recent_incidents(found.begin_ms)
        figures = None if self._figures is None else self._figures()
        current = by_now(incidents, None if figures is None else lambda: figures)
        return self._page(request, pages.network_page(self._asking(request), figures, current, found, seq))

    async def act(self, request: Request) -> Response:
        """Do something about a case."""
        form = await self._form(request)
        return await run_in_threadpool(self._act, request, form)

    def _act(self, request: Request, form: Mapping[str, str]) -> Response:
        deed = read_deed(form, self._known(request), person_of(request), self._store.clock())
        done = do(self._store, deed, self._take)
        if done is Done.RECORDED:
            return RedirectResponse(f"{case_path(deed.alert_id)}?done={deed.what}", 303)
        return self._page(request, self._case(request, self._known(request), problem=done), 409)

    async def identity(self, request: Request) -> Response:
        """Show who a customer is, and record that it was asked."""
        form = await self._form(request)
        return await run_in_threadpool(self._identity, request, form)

    def _identity(self, request: Request, form: Mapping[str, str]) -> Response:
        file = self._known(request)
        if self._resolver is None:
            raise HTTPException(404, "no_page")
        customer = file.card.alert.customer_id
        # First the record: what was not recorded is not shown.
        self._access.people.note(person_of(request).who, "identity shown", customer, read_reason(form))
        try:
            identity = self._resolver.identity(customer)
        except OutputDownError as error:
            structlog.get_logger().error("desk_resolver_down", error=str(error))
            raise HTTPException(502, "resolver_down") from None
        return self._page(request, self._case(request, file, identity=identity or ""))

    def audit(self, request: Request) -> Response:
        """The records."""
        before = request.query_params.get("before", "")
        behind = int(before) if is_number(before) else 2**62
        records = self._access.people.audit(behind, AUDIT_LINES)
        older = records[-1].number if len(records) == AUDIT_LINES else None
        return self._page(request, pages.audit_page(self._asking(request), records, older))

    def keys(self, request: Request) -> Response:
        """The API keys."""
        return self._page(request, pages.keys_page(self._asking(request), self._access.people.api_keys()))

    async def make_key(self, request: Request) -> Response:
        """Make an API key."""
        name, scopes, days = read_key(await self._form(request))
        people, by = self._access.people, person_of(request).who
        made = await run_in_threadpool(people.make_key, name, scopes, days, by)
        keys = await run_in_threadpool(people.api_keys)
        return self._page(request, pages.keys_page(self._asking(request), keys, made))

    async def revoke_key(self, request: Request) -> Response:
        """End an API key."""
        form = await self._form(request)
        await run_in_threadpool(self._access.people.revoke_key, form.get("id", "")[:64], person_of(request).who)
        return RedirectResponse("/keys", 303)

    def language(self, request: Request) -> Response:
        """Choose a language."""
        code = request.path_params["code"]
        if code not in LANGUAGES:
            raise HTTPException(404, "no_page")
        answer = RedirectResponse(read_path(request.query_params.get("back", "/")), 303)
        answer.set_cookie(LANGUAGE_COOKIE, code, max_age=365 * 86_400, samesite="lax", secure=self._access.is_secure)
        return answer

    async def events(self, request: Request) -> Response:
        """The live stream."""
        # A browser that comes back by itself sends the header; a page that opens a stream, the parameter.
        since = request.headers.get("last-event-id", request.query_params.get("since", ""))
        seen = None if not since else int(since) if is_number(since) else UNKNOWN_SEQ
        stream = await self._streams.follow(seen, person_of(request).who, partial(self._access.may_stay, request))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    def health(self, _: Request) -> Response:
        """Whether the store answers."""
        self._store.newest_seq()
        return PlainTextResponse("ok\n")

    # Errors

    def refused(self, request: Request, status: int, code: str, headers: Mapping[str, str] | None) -> Response:
        """Say why there is no page."""
        return HTMLResponse(pages.message_page(self._asking(request), status, code), status, headers)

    def unavailable(self, request: Request, error: Exception) -> Response:
        """Say that the store does not answer."""
        # The error's text names a path on disk: for the log, not for the page.
        structlog.get_logger().error("desk_unavailable", error=str(error))
        return self.refused(request, 503, "unavailable", {"retry-after": "60"})

    # Parts

    def _found(self) -> charts.Bars:
        """Return the cases found in the hours before the newest event: as many hours as hold any of the day's."""
        newest_ms = self._store.newest_ms()
        oldest_ms = self._store.oldest_ms(newest_ms - DAY_MS)
        age_ms = 0 if oldest_ms is None else newest_ms - oldest_ms
        hours = next((one for one in WINDOWS_HOURS if age_ms < one * HOUR_MS), WINDOWS_HOURS[-1])
        step_ms = hours * HOUR_MS // STEPS
        end_ms = (newest_ms // step_ms + 1) * step_ms
        begin_ms = max(end_ms - hours * HOUR_MS, 0)
        return charts.bars(self._store.opened(begin_ms, step_ms), begin_ms, step_ms, STEPS)

    def _case(
        self, request: Request, file: CaseFile, *, done: str = "", problem: Done | None = None,
        identity: str | None = None,
    ) -> str:  # fmt: skip
        alert = file.card.alert
        return pages.case_page(
            self._asking(request),
            file,
            self._incident(alert.incident_id),
            self._following(alert.alert_id, person_of(request)),
            done=done,
            problem=problem,
            identity=identity,
            has_resolver=self._resolver is not None,
            talks=self._talks_of(alert),
        )

    def _talks_of(self, alert: Alert) -> dict[str, Mapping[str, str]]:
        talks = self._talks
        return {} if talks is None else {one.remedy_id: talks(one, alert.cause) for one in alert.remedies}

    def _incident(self, incident_id: str | None) -> Incident | None:
        found = None if incident_id is None else self._store.incident(incident_id)
        return None if found is None else by_now([found], self._figures)[0]

    def _following(self, alert_id: str, person: Person) -> Card | None:
        """Return the case to go on with: the first one that nobody else has."""
        cards = self._store.cases(Filter(), 20)
        free = (one for one in cards if one.alert.alert_id != alert_id and one.owner in {"", person.who})
        return next(free, None)

    def _known(self, request: Request) -> CaseFile:
        file = self._store.case(request.path_params["alert_id"].replace("\0", ""))
        if file is None:
            raise HTTPException(404, "no_case")
        return file

    async def _form(self, request: Request) -> dict[str, str]:
        form = await read_form(request)
        check_form(request, form.get("token", ""))
        return form

    def _asking(self, request: Request) -> Asking:
        person: Person | None = getattr(request.state, "person", None)
        code = chosen_language(request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", ""))
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        path = path if request.method == "GET" else request.url.path.removesuffix("/actions").removesuffix("/identity")
        return Asking(language(code, self._timezone), person, self._access.is_local, path)

    def _page(self, request: Request, html: str, status: int = 200) -> Response:
        answer = HTMLResponse(html, status)
        person = person_of(request)
        if self._access.is_local and person.session and not request.cookies.get(self._access.cookie):
            self._access.set_cookie(answer, person.session)
        return answer


def person_of(request: Request) -> Person:
    """Return who asks."""
    person: Person = request.state.person
    return person
