"""The handlers by which people come in and go."""

import hmac
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sinks.desk.access import Access, check_form
from sinks.desk.forms import read_form, read_path
from sinks.desk.oidc import LoginRefusedError, Provider
from sinks.desk.people import LOGIN_MS
from sinks.desk.views import person_of
from sinks.outputs import OutputDownError

CALLBACK: Final = "/login/callback"

STATE_CHARACTERS_MAX: Final = 256

CODE_CHARACTERS_MAX: Final = 4_096


class Doors:
    """The handlers. Those that are no coroutines run in worker threads.

    Args:
        access: who may come in.
        provider: who knows them.
    """

    def __init__(self, access: Access, provider: Provider) -> None:
        self._access = access
        self._people = access.people
        self._provider = provider

    @property
    def _cookie(self) -> str:
        return f"{self._access.cookie}-login"

    def login(self, request: Request) -> Response:
        """Send the browser to the provider."""
        try:
            address, state, login = self._provider.begin(read_path(request.query_params.get("back", "/")))
        except OutputDownError as error:
            structlog.get_logger().error("desk_login_down", error=str(error))
            raise HTTPException(502, "provider_down") from None
        self._people.begin_login(state, login)
        answer = RedirectResponse(address, 303)
        # The state is this browser's: nobody can finish their own login in somebody else's browser.
        answer.set_cookie(
            self._cookie, state, max_age=LOGIN_MS // 1000, httponly=True, samesite="lax", secure=self._access.is_secure
        )
        return answer

    def callback(self, request: Request) -> Response:
        """Take back who the provider says it is."""
        state, code = request.query_params.get("state", ""), request.query_params.get("code", "")
        mine = hmac.compare_digest(request.cookies.get(self._cookie, "").encode(), state.encode())
        if not mine or not 0 < len(state) <= STATE_CHARACTERS_MAX or not 0 < len(code) <= CODE_CHARACTERS_MAX:
            raise HTTPException(403, "login_failed")
        login = self._people.finish_login(state)
        if login is None:
            raise HTTPException(403, "login_failed")
        try:
            member = self._provider.finish(code, login)
        except LoginRefusedError as error:
            structlog.get_logger().warning("desk_login_refused", error=str(error))
            raise HTTPException(403, "login_failed") from None
        except OutputDownError as error:
            structlog.get_logger().error("desk_login_down", error=str(error))
            raise HTTPException(502, "provider_down") from None
        if member.role is None:
            self._people.note(member.who, "login without a role", "", "")
            raise HTTPException(403, "no_role")
        self._people.note(member.who, f"login as {member.role}", "", "")
        answer = RedirectResponse(login.back, 303)
        answer.delete_cookie(self._cookie, secure=self._access.is_secure, httponly=True, samesite="lax")
        self._access.set_cookie(answer, self._people.open_session(member.who, member.name, member.role))
        return answer

    async def logout(self, request: Request) -> Response:
        """End the session."""
        form = await read_form(request)
        check_form(request, form.get("token", ""))
        person = person_of(request)
        self._people.end_session(person.session)
        self._people.note(person.who, "logout", "", "")
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(self._access.cookie, secure=self._access.is_secure, httponly=True, samesite="lax")
        return answer
