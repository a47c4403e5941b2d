"""The desk's interface for programs: JSON over HTTP, described by `sinks.desk.openapi`."""

import base64
import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

import msgspec
import structlog
from msgspec import Meta, Struct
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.alerts import Incident
from sinks.desk.access import Access, check_origin
from sinks.desk.actions import Done, What, actions_since, do
from sinks.desk.cards import Action, Card, CaseFile, Filter, Rank
from sinks.desk.figures import ReadFigures, by_now
from sinks.desk.forms import SEQ_DIGITS_MAX, deed, is_number, read_body
from sinks.desk.people import Person
from sinks.desk.store import DeskStore
from sinks.desk.views import TakeOutcome
from sinks.desk.words import language

PREFIX: Final = "/api/v1"

PAGE: Final = 50
PAGE_MAX: Final = 200

BODY_BYTES_MAX: Final = 8_192

CURSOR_CHARACTERS_MAX: Final = 1_024

SNOOZE_MS_MAX: Final = 30 * 86_400_000
"""Nothing is put off for longer than a month."""

PROBLEM: Final = "application/problem+json"


class AlertPage(Struct, frozen=True):
    """A page of cases, worth most first; `next` is the cursor of the page behind it, None for the last."""

    alerts: list[Card]
    next: str | None


class OutcomePage(Struct, frozen=True):
    """A page of actions in the order they were done; `next` is where to go on, now or later."""

    outcomes: list[Action]
    next: str


class IncidentPage(Struct, frozen=True):
    """The incidents asked for."""

    incidents: list[Incident]


class Customer(Struct, frozen=True):
    """All cases of one customer, worth most first."""

    customer_id: str
    alerts: list[Card]


class NewOutcome(Struct, frozen=True, forbid_unknown_fields=True):
    """Something done about a case.

    Attributes:
        what: what was done.
        seen: how many actions the case had when it was read (`card.actions`): this one is the next.
        remedy_id: with `accepted`, `declined` and perhaps `resolve`: the remedy it is about.
        until_ms: with `snooze`: until when.
    """

    what: What
    seen: Annotated[int, Meta(ge=0, le=10**SEQ_DIGITS_MAX)]
    remedy_id: Annotated[str, Meta(max_length=128)] | None = None
    until_ms: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class Problem(Struct, frozen=True):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class _Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """The query of a list: a filter, and a page of it."""

    show: Literal["to_call", "contacted", "snoozed", "over", "all"] = "all"
    severity: Literal["minor", "major", "critical"] | None = None
    kind: str | None = None
    band: Literal["low", "raised", "high"] | None = None
    region: str | None = None
    customer: str | None = None
    incident: str | None = None
    owner: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE
    after: Annotated[str, Meta(max_length=CURSOR_CHARACTERS_MAX)] | None = None


class Api:
    """The handlers.

    Args:
        store: the cases.
        access: who may come in.
        take: takes outcomes.
        figures: tells how open incidents stand; None: as they were told.
    """

    def __init__(self, store: DeskStore, access: Access, take: TakeOutcome, figures: ReadFigures | None = None) -> None:
        self._store = store
        self._figures = figures
        self._access = access
        self._take = take

    def alerts(self, request: Request) -> Response:
        """A page of cases."""
        given = _asked(request)
        wanted = _filter({name: getattr(given, name) for name in Filter.__struct_fields__})
        behind = None if given.after is None else _rank(given.after)
        cards = self._store.cases(wanted, given.limit + 1, behind=behind)
        more = len(cards) > given.limit
        cards = cards[: given.limit]
        cursor = _cursor(cards[-1].rank) if more else None
        headers = {}
        if cursor is not None:
            following = request.url.include_query_params(after=cursor)
            headers["link"] = f'<{following.path}?{following.query}>; rel="next"'
        return _answer(request, AlertPage(cards, cursor), headers)

    def alert(self, request: Request) -> Response:
        """One case."""
        return _answer(request, self._known(request))

    def customer(self, request: Request) -> Response:
        """The cases of one customer."""
        token = request.path_params["customer_id"]
        cards = [] if "\0" in token else self._store.of_customer(token)
        if not cards:
            raise HTTPException(404, "no_case")
        return _answer(request, Customer(token, cards))

    def incidents(self, request: Request) -> Response:
        """The incidents that are open, or all of late."""
        show = _query(request).get("show", "open")
        if show not in {"open", "all"} or set(request.query_params) - {"show"}:
            raise HTTPException(400, "bad_query")
        found = self._store.incidents() if show == "open" else self._store.recent_incidents(0)
        return _answer(request, IncidentPage(by_now(found, self._figures)))

    def incident(self, request: Request) -> Response:
        """One incident."""
        found = self._store.incident(request.path_params["incident_id"].replace("\0", ""))
        if found is None:
            raise HTTPException(404, "no_incident")
        return _answer(request, by_now([found], self._figures)[0])

    def outcomes(self, request: Request) -> Response:
        """What was done, from a sequence on."""
        asked = _query(request)
        after, limit = asked.pop("after", "0"), asked.pop("limit", str(PAGE))
        if asked or not is_number(after) or not is_number(limit, 3) or not 1 <= int(limit) <= PAGE_MAX:
            raise HTTPException(400, "bad_query")
        found = actions_since(self._store, int(after), int(limit))
        return _answer(request, OutcomePage(found, str(found[-1].seq if found else int(after))))

    async def do(self, request: Request) -> Response:
        """Record something done about a case."""
        check_origin(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "no_json")
        body = await read_body(request, BODY_BYTES_MAX)
        try:
            given = msgspec.convert(_whole(msgspec.json.decode(body)), NewOutcome)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise HTTPException(400, "bad_body") from None
        return await run_in_threadpool(self._do, request, given)

    def _do(self, request: Request, given: NewOutcome) -> Response:
        person: Person = request.state.person
        now_ms = self._store.clock()
        until_ms = 0 if given.until_ms is None else given.until_ms
        if (given.what == "snooze") != (given.until_ms is not None):
            raise HTTPException(400, "bad_snooze")
        if given.what == "snooze" and not now_ms < until_ms <= now_ms + SNOOZE_MS_MAX:
            raise HTTPException(409, "bad_snooze")
        file = self._known(request)
        if not _holds(request.headers.get("if-match"), _tag(msgspec.json.encode(file))):
            raise HTTPException(412, "conflict")
        one = deed(file, person, given.what, now_ms, given.seen, remedy_id=given.remedy_id, until_ms=until_ms)
        done = do(self._store, one, self._take)
        if done is not Done.RECORDED:
            raise HTTPException(409 if done is Done.CONFLICT else 403, done.value)
        recorded = self._known(request)
        action = next(each for each in recorded.actions if each.number == given.seen + 1)
        return Response(msgspec.json.encode(action), 201, media_type="application/json")

    def _known(self, request: Request) -> CaseFile:
        file = self._store.case(request.path_params["alert_id"].replace("\0", ""))
        if file is None:
            raise HTTPException(404, "no_case")
        return file


def problem(status: int, code: str, headers: Mapping[str, str] | None = None) -> Response:
    """Say what went wrong (RFC 9457); `code` names a text of the English catalogue."""
    english = language("en")
    detail = english.t(f"error.{code}") if english.has(f"error.{code}") else ""
    said = Problem(f"urn:stayline:problem:{code}", HTTPStatus(status).phrase, status, detail)
    return Response(msgspec.json.encode(said), status, headers, media_type=PROBLEM)


def unavailable(error: Exception) -> Response:
    """Say that the store does not answer; its words are for the log."""
    structlog.get_logger().error("desk_unavailable", error=str(error))
    return problem(503, "unavailable", {"retry-after": "60"})


def _answer(request: Request, data: Struct, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON, or with 304 to who has it already (RFC 9110, section 13.1.2)."""
    body = msgspec.json.encode(data)
    tag = _tag(body)
    tagged = {**(headers or {}), "etag": tag}
    held = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if tag in held or "*" in held:
        return Response(None, 304, tagged)
    return Response(body, 200, tagged, media_type="application/json")


def _tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _holds(wanted: str | None, tag: str) -> bool:
    """Return whether If-Match lets a request through; a weak tag never does (RFC 9110, section 13.1.1)."""
    held = {"*"} if wanted is None else {one.strip() for one in wanted.split(",")}
    return tag in held or "*" in held


def _whole(given: Any) -> Any:
    """Return an object with `3.0` as the integer that JSON Schema takes it for."""
    if not isinstance(given, dict):
        return given
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in given.items()
    }


def _query(request: Request) -> dict[str, str]:
    """Return the query, each name once."""
    given = request.query_params.multi_items()
    if len(dict(given)) < len(given):
        raise HTTPException(400, "bad_query")
    return dict(given)


def _asked(request: Request) -> _Asked:
    try:
        return msgspec.convert(_query(request), _Asked, strict=False)
    except msgspec.ValidationError:
        raise HTTPException(400, "bad_query") from None


def _filter(given: Mapping[str, Any]) -> Filter:
    kept = {name: value for name, value in given.items() if value is not None}
    try:
        if any("\0" in str(value) for value in kept.values()):
            raise HTTPException(400, "bad_query")
        return msgspec.convert(kept, Filter)
    except msgspec.ValidationError:
        raise HTTPException(400, "bad_query") from None


def _cursor(rank: Rank) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(rank)).decode().rstrip("=")


def _rank(cursor: str) -> Rank:
    try:
        rank = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=Rank)
    except (ValueError, msgspec.DecodeError):
        raise HTTPException(404, "no_page") from None
    if "\0" in rank.case_id or not all(abs(one) < 2**62 for one in (rank.value, rank.severity, rank.detected_ms)):
        raise HTTPException(404, "no_page")
    return rank
