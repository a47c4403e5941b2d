"""What comes in by form and by address, read strictly."""

import asyncio
import re
import urllib.parse
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from sinks.desk.actions import OFFERED, WHATS, Deed, What
from sinks.desk.cards import CaseFile, Filter
from sinks.desk.pages import SNOOZE_HOURS
from sinks.desk.people import KEY_SCOPES, Person, Scope

FORM_BYTES_MAX: Final = 8_192
"""A form is some two hundred bytes."""

FORM_FIELDS_MAX: Final = 16

BODY_S: Final = 10.0
"""So small a body comes at once, or whoever sends it only holds the connection."""

PAGES_MAX: Final = 10_000

SEQ_DIGITS_MAX: Final = 18
"""Digits of a feed sequence that surely fit into 64 bits."""

REASON_CHARACTERS: Final = (5, 200)

KEY_DAYS_MAX: Final = 730


async def read_form(request: Request) -> dict[str, str]:
    """Read a small form, each field once.

    Raises:
        HTTPException: 415 if it is no form, 413 if it is large, 400 if it cannot be read.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise HTTPException(415, "no_form")
    body = await read_body(request, FORM_BYTES_MAX)
    try:
        text = body.decode("ascii")
        fields = urllib.parse.parse_qs(text, errors="strict", max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise HTTPException(400, "bad_form") from None
    if any(len(values) > 1 for values in fields.values()):
        raise HTTPException(400, "bad_form")
    return {name: values[0] for name, values in fields.items()}


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Read a small body.

    Raises:
        HTTPException: 413 if it is large, 408 if it does not come.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > bytes_max:
                    raise HTTPException(413, "too_large")
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(408, "too_slow", {"connection": "close"}) from None
    return bytes(body)


def read_filter(query: Mapping[str, str], person: Person) -> tuple[Filter, int]:
    """Read what the feed is asked for; an empty field asks for nothing.

    Raises:
        HTTPException: 400.
    """
    given = {name: value.strip() for name, value in query.items() if value.strip()}
    # Who looks for a customer wants all there is about them.
    given.setdefault("show", "all" if "customer" in given else "to_call")
    page = given.pop("page", "1")
    if given.pop("mine", ""):
        given["owner"] = person.who
    try:
        wanted = msgspec.convert(given, Filter)
    except msgspec.ValidationError:
        raise HTTPException(400, "bad_query") from None
    if not is_number(page, 5) or not 1 <= int(page) <= PAGES_MAX or any("\0" in value for value in given.values()):
        raise HTTPException(400, "bad_query")
    return wanted, int(page)


def read_deed(form: Mapping[str, str], file: CaseFile, person: Person, now_ms: int) -> Deed:
    """Read what somebody wants to do about a case.

    Raises:
        HTTPException: 400.
    """
    what, remedy_id, seen = form.get("what", ""), form.get("remedy_id"), form.get("seen", "")
    hours = form.get("hours", "")
    if what not in WHATS or not is_number(seen):
        raise HTTPException(400, "bad_form")
    if what == "snooze" and hours not in {str(one) for one in SNOOZE_HOURS}:
        raise HTTPException(400, "bad_form")
    until_ms = now_ms + int(hours) * 3_600_000 if what == "snooze" else 0
    return deed(file, person, what, now_ms, int(seen), remedy_id=remedy_id, until_ms=until_ms)


def deed(
    file: CaseFile, person: Person, what: What, now_ms: int, seen: int, *, remedy_id: str | None, until_ms: int
) -> Deed:
    """Hold what somebody wants to do against the case.

    Raises:
        HTTPException: 404 if a remedy is named that the case never had, 400 if none where there must be one.
    """
    if what not in {*OFFERED, "resolve"}:
        remedy_id = None
    known = {remedy.remedy_id for each in file.revisions for remedy in each.alert.remedies}
    if what in OFFERED and remedy_id is None:
        raise HTTPException(400, "bad_form")
    if remedy_id is not None and remedy_id not in known:
        raise HTTPException(404, "no_remedy")
    return Deed(
        alert_id=file.card.alert.alert_id,
        what=what,
        who=person.who,
        at_ms=now_ms,
        seen=seen,
        may_reassign="reassign" in person.scopes,
        remedy_id=remedy_id,
        until_ms=until_ms,
    )


def read_reason(form: Mapping[str, str]) -> str:
    """Read why somebody wants to know who a customer is.

    Raises:
        HTTPException: 400.
    """
    reason = " ".join(form.get("reason", "").split())
    least, most = REASON_CHARACTERS
    if not least <= len(reason) <= most or "\0" in reason:
        raise HTTPException(400, "bad_reason")
    return reason


def read_key(form: Mapping[str, str]) -> tuple[str, list[Scope], int]:
    """Read the form of a new API key: its name, its scopes, its days.

    Raises:
        HTTPException: 400.
    """
    name, days = form.get("name", ""), form.get("days", "")
    scopes = [scope for scope in KEY_SCOPES if form.get(f"scope_{scope}")]
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or not scopes:
        raise HTTPException(400, "bad_form")
    if not is_number(days, 3) or not 1 <= int(days) <= KEY_DAYS_MAX:
        raise HTTPException(400, "bad_form")
    return name, scopes, int(days)


def read_path(text: str) -> str:
    """Return a path of this desk to go back to; the feed for anything else: no one is sent to another site."""
    inside = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if inside else "/"


def is_number(text: str, digits_max: int = SEQ_DIGITS_MAX) -> bool:
    """Return whether a text is a whole number that is not too long."""
    return text.isascii() and text.isdigit() and len(text) <= digits_max
