"""The description of the desk's interface: OpenAPI 3.1, made of the types that the handlers use."""

from functools import cache
from typing import Any, Final

import msgspec

from schemas.alerts import Incident
from sinks.desk.api import PAGE, PAGE_MAX, PREFIX, AlertPage, Customer, IncidentPage, NewOutcome, OutcomePage, Problem
from sinks.desk.cards import Action, CaseFile

_TYPES: Final = (AlertPage, CaseFile, Customer, IncidentPage, Incident, OutcomePage, NewOutcome, Action, Problem)

_WORDS: Final[dict[int, str]] = {
    304: "Not modified: the tag in If-None-Match still holds",
    400: "What was asked cannot be read",
    401: "A key or a session is needed",
    403: "The key or the role does not allow it, or a colleague holds the case",
    404: "There is no such thing",
    408: "The body did not come",
    409: "The case, or the clock, is not where the request takes it to be: read the case again",
    412: "The case is no longer what If-Match says: read it again",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "Too many requests: wait as long as Retry-After says",
    503: "The store does not answer now",
}

_NO_NUL: Final = "^[^\\u0000]*$"
"""No database can be asked for a text with one."""

_FILTERS: Final[dict[str, dict[str, Any]]] = {
    "show": {"enum": ["to_call", "contacted", "snoozed", "over", "all"], "default": "all"},
    "severity": {"enum": ["minor", "major", "critical"]},
    "kind": {
        "enum": [
            "drop_rate", "duration_lock", "time_of_day", "route", "one_way_audio", "redial", "quality",
            "setup_failure", "worsening",
        ]
    },
    "band": {"enum": ["low", "raised", "high"]},
    "region": {"maxLength": 128, "pattern": _NO_NUL},
    "customer": {"maxLength": 64, "pattern": _NO_NUL, "description": "Beginning of the customer's token"},
    "incident": {"maxLength": 128, "pattern": _NO_NUL},
    "owner": {"maxLength": 256, "pattern": _NO_NUL, "description": "Who took the case"},
}  # fmt: skip

_LIMIT: Final = {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE}


@cache
def document() -> bytes:
    """Return the description as JSON."""
    return msgspec.json.encode(_document())


def _document() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    for schema in components.values():
        schema.pop("title", None)
    # What goes with what is beyond the types.
    components["NewOutcome"]["allOf"] = [
        {"if": _is("snooze"), "then": _with("until_ms", "integer"), "else": _without("until_ms")},
        {"if": _is("accepted", "declined"), "then": _with("remedy_id", "string")},
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stayline desk",
            "version": "1",
            "description": "Cases of customers whose calls have turned bad, and what is done about them. Times are "
            "Unix milliseconds, money is in minor units.",
        },
        "servers": [{"url": PREFIX}],
        "security": [{"key": []}],
        "paths": _paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _is(*what: str) -> dict[str, Any]:
    return {"properties": {"what": {"enum": what}}, "required": ["what"]}


def _with(name: str, kind: str) -> dict[str, Any]:
    return {"properties": {name: {"type": kind}}, "required": [name]}


def _without(name: str) -> dict[str, Any]:
    return {"properties": {name: {"type": "null"}}}


def _paths() -> dict[str, Any]:
    filters = [_in("query", name, {"type": "string", **schema}) for name, schema in _FILTERS.items()]
    page = [_in("query", "limit", _LIMIT), _in("query", "after", {"type": "string", "maxLength": 1024})]
    show = [_in("query", "show", {"enum": ["open", "all"], "default": "open"})]
    since = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1, "default": 0}
    return {
        "/alerts": {"get": _get("List cases, worth most first", "AlertPage", [*filters, *page], (400, 404), link=True)},
        "/alerts/{alert_id}": {"get": _get("Read a case with its history", "CaseFile", [_id("alert_id")], (404,))},
        "/alerts/{alert_id}/outcomes": {"post": _post()},
        "/customers/{customer_id}": {"get": _get("Read a customer", "Customer", [_id("customer_id")], (404,))},
        "/incidents": {"get": _get("List incidents", "IncidentPage", show, (400,))},
        "/incidents/{incident_id}": {"get": _get("Read an incident", "Incident", [_id("incident_id")], (404,))},
        "/outcomes": {
            "get": _get(
                "List what was done, in order", "OutcomePage",
                [_in("query", "limit", _LIMIT), _in("query", "after", since)], (400,),
            )
        },
        "/events": {"get": _events()},
    }  # fmt: skip


def _get(
    summary: str, schema: str, parameters: list[dict[str, Any]], errors: tuple[int, ...], *, link: bool = False
) -> dict[str, Any]:
    headers = {"ETag": {"required": True, "schema": {"type": "string"}}}
    if link:
        headers["Link"] = {"required": False, "schema": {"type": "string"}}
    return {
        "summary": summary,
        "parameters": [*parameters, _in("header", "If-None-Match", {"type": "string"})],
        "responses": {
            "200": {"description": summary, "headers": headers, "content": _content(schema)},
            "304": {"description": _WORDS[304]},
            **_errors(*errors),
        },
    }


def _post() -> dict[str, Any]:
    return {
        "summary": "Record what was done about a case",
        "description": "Sent again with the same `seen` it is recorded once, and becomes one outcome event, "
        "from which detection learns.",
        "parameters": [_id("alert_id"), _in("header", "If-Match", {"type": "string"})],
        "requestBody": {"required": True, "content": _content("NewOutcome")},
        "responses": {
            "201": {"description": "It is recorded", "content": _content("Action")},
            **_errors(400, 404, 408, 409, 412, 413, 415),
        },
    }


def _events() -> dict[str, Any]:
    return {
        "summary": "Follow what changes",
        "description": "Server-sent events `change`, whose id is a sequence. After a break send the last one as "
        "Last-Event-ID: everything that changed since comes, each case once. `resync` says to read all anew.",
        "parameters": [_in("header", "Last-Event-ID", {"type": "string"})],
        "responses": {
            "200": {"description": "A stream", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **_errors(),
        },
    }


def _errors(*statuses: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        str(status): {"description": _WORDS[status], "content": content}
        for status in sorted({*statuses, 401, 403, 429, 503})
    }


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _in(place: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": False, "schema": schema}


def _id(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 256}
    return {"name": name, "in": "path", "required": True, "schema": schema}
